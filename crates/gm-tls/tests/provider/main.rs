//! The accelerated provider through the library's own interface: it serves what it says, gives the library's answers, and refuses to
//! serve when its self-test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "tongsuo")]
#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../tls/harness.rs"]
mod harness;

mod contexts;
mod digest;
mod evp;
mod lesser;
mod mac;
mod refusal;
mod sm2;
mod sm4;

pub const PROVIDER: gm_tls::provider::Provider = gm_tls::provider::Provider::Accelerated;

pub const OURS: &str = "provider=shangmq-accel";
pub const THEIRS: &str = "provider=default";

/// Loads the provider, once for all tests of this binary.
pub fn start() {
    lesser::limit();
    gm_tls::provider::choose(PROVIDER).unwrap();
}
