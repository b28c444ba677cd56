//! From a TCP connection to a stream that MQTT is spoken over: accept, PROXY header, detection, handshake, WebSocket.
//!
//! The accept loop only accepts; everything a peer can delay runs in the connection's own task, each step under a deadline.

mod accepted;
mod counted;
pub mod detect;
mod handshakes;
mod listener;
mod prefixed;
pub mod proxy;
mod secure;
mod security;
mod sites;
mod stamp;
mod status;
mod turns;
pub mod websocket;

pub use counted::Counted;
pub use handshakes::handshake_runtime;
pub use listener::{BindError, Listener, PreparedListener, mistakes_of_listeners};
pub use prefixed::Prefixed;
pub use security::{InUse, Security, Usage};
pub use stamp::Stamped;
