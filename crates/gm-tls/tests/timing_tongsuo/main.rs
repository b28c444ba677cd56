//! The time of refusals with the library alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "tongsuo")]
#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../timing/chained.rs"]
mod chained;
#[path = "../tls/harness.rs"]
mod harness;

pub const PROVIDER: gm_tls::provider::Provider = gm_tls::provider::Provider::Tongsuo;
