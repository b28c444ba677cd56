//! Counter mode (GB/T 17964, SP 800-38A): the whole block counts, most significant byte first.

use std::fmt;

use super::stream::{Carry, Stream};
use super::{Block, Key};
use crate::inout::InOut;

/// Encryption and decryption, which are the same, of data that comes in pieces of any length. A pair of key and counter block is never
/// used for two messages.
#[derive(Clone)]
pub struct Ctr {
    key: Key,
    stream: Stream,
}

impl Ctr {
    pub fn new(key: Key, counter: &Block) -> Ctr {
        Ctr { key, stream: Stream::new(counter, Carry::Block) }
    }

    /// Begins another message under the same key.
    pub fn restart(&mut self, counter: &Block) {
        self.stream = Stream::new(counter, Carry::Block);
    }

    pub fn apply(&mut self, data: InOut<'_>) {
        self.stream.apply(&self.key, data);
    }
}

impl fmt::Debug for Ctr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctr").field("key", &self.key).finish_non_exhaustive()
    }
}
