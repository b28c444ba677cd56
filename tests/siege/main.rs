//! Clients that abuse the broker with well-formed and malformed MQTT: the real process under attack while honest clients exchange
//! messages. Its memory stays under a stated bound, nobody else loses a message, and everything is given back afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

mod attacker;
mod canary;
mod connections;
mod queues;
mod sessions;
mod siege;
mod topics;
