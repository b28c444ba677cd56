//! Cipher block chaining (GB/T 17964, SP 800-38A) of whole blocks; padding is the caller's. Decryption works on many blocks at once,
//! encryption cannot.

use std::fmt;

use zeroize::Zeroize;

use super::{BLOCK_LENGTH, Block, Error, Key};
use crate::inout::InOut;

/// One direction of one message.
#[derive(Clone)]
pub struct Cbc {
    key: Key,
    /// The last block of ciphertext, at first the initialisation vector.
    last: Block,
}

impl Cbc {
    pub fn new(key: Key, iv: &Block) -> Cbc {
        Cbc { key, last: *iv }
    }

    /// Begins another message under the same key.
    pub fn restart(&mut self, iv: &Block) {
        self.last = *iv;
    }

    /// Whole blocks, else [`Error::PartialBlock`] and nothing is done.
    pub fn encrypt(&mut self, data: InOut<'_>) -> Result<(), Error> {
        if !data.len().is_multiple_of(BLOCK_LENGTH) {
            return Err(Error::PartialBlock);
        }
        self.key.cbc_encrypt(&mut self.last, data);
        Ok(())
    }

    /// Whole blocks, else [`Error::PartialBlock`] and nothing is done.
    pub fn decrypt(&mut self, data: InOut<'_>) -> Result<(), Error> {
        if !data.len().is_multiple_of(BLOCK_LENGTH) {
            return Err(Error::PartialBlock);
        }
        self.key.cbc_decrypt(&mut self.last, data);
        Ok(())
    }
}

impl fmt::Debug for Cbc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cbc").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for Cbc {
    fn drop(&mut self) {
        self.last.zeroize();
    }
}
