//! Handshakes and data between this crate's server and client, and between the server and peers that misbehave. One body of
//! each test runs over every protocol, by the macro `over_every_protocol!`. Here SM2, SM3 and SM4 are the accelerated provider's; the
//! binary `tls_tongsuo` runs the same tests with the library alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "tongsuo")]

mod answers;
mod authentication;
mod certificates;
mod data;
mod forget;
mod groups;
mod harness;
mod options;
mod port;
mod psk;
mod raw;
mod records;
mod resumption;
mod status;
mod transport;
mod traps;

pub const PROVIDER: gm_tls::provider::Provider = gm_tls::provider::Provider::Accelerated;
