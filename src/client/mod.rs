//! A small MQTT client for the command line: one connection, no reconnection, every buffer bounded.
//!
//! [`Endpoint`] opens a byte stream over TCP, TLS, RFC 8998, TLCP or WebSocket; [`Client`] speaks MQTT over any stream.

mod advice;
mod connection;
mod endpoint;
mod error;
mod event_loop;
mod reason;
mod scram;
#[cfg(test)]
mod tests;
mod unconfirmed;

pub use advice::Advice;
pub use connection::Connection;
pub use endpoint::{ConnectError, Endpoint, Security, Stream};
pub use error::{ClientError, is_end};
pub use event_loop::{Client, Event};
pub use reason::words;
pub use scram::{Scram, ScramError};
pub use unconfirmed::SessionSlot;
