//! Extended authentication (MQTT 5.0 section 4.12): methods that take several steps, each exchange a state of its own.
//!
//! Nothing here speaks MQTT: data comes in, a step goes out. A method must not block: it computes what fits between two packets.

mod scram;

use std::fmt;
use std::sync::Arc;

use super::Accepted;

pub use scram::ScramSha256;
#[doc(hidden)]
pub use scram::fuzz_scram;

/// One way to authenticate in steps.
pub trait Method: fmt::Debug + Send + Sync {
    /// The value of the property Authentication Method, compared byte by byte.
    fn name(&self) -> &'static str;

    /// Whether there is anybody now who could authenticate by it.
    fn is_offered(&self) -> bool {
        true
    }

    /// A new exchange with a client that has said nothing yet.
    fn begin(self: Arc<Self>) -> Box<dyn Exchange>;
}

/// The state of one exchange; dropped when it is over, whatever its end.
pub trait Exchange: fmt::Debug + Send {
    /// Takes what the client sent, which may be nothing, and says what is next. Not called again after an end.
    fn step(&mut self, data: &[u8]) -> Step;
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this and wait for the client.
    Continue(Vec<u8>),
    /// The client is who it says; send this with the good news.
    Accept(Accepted, Vec<u8>),
    Reject,
}

/// Steps after which an exchange is no exchange any more; SCRAM takes three.
pub const MAX_STEPS: usize = 16;
