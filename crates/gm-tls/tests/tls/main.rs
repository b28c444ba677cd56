//! Handshakes and data between this crate's server and client, and between the server and peers that misbehave. One body of
//! each test runs over every protocol, by the macro `over_every_protocol!`.
#![cfg(feature = "tongsuo")]

mod authentication;
mod certificates;
mod data;
mod harness;
mod port;
mod raw;
mod resumption;
mod transport;
mod traps;
