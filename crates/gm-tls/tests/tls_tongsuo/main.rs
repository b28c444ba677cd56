//! The tests of `tls` with the library's own SM2, SM3 and SM4 alone, as `crypto.provider = "tongsuo"` has it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "tongsuo")]

#[path = "../tls/answers.rs"]
mod answers;
#[path = "../tls/authentication.rs"]
mod authentication;
#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../tls/data.rs"]
mod data;
#[path = "../tls/forget.rs"]
mod forget;
#[path = "../tls/groups.rs"]
mod groups;
#[path = "../tls/harness.rs"]
mod harness;
#[path = "../tls/options.rs"]
mod options;
#[path = "../tls/port.rs"]
mod port;
#[path = "../tls/raw.rs"]
mod raw;
#[path = "../tls/records.rs"]
mod records;
#[path = "../tls/resumption.rs"]
mod resumption;
#[path = "../tls/status.rs"]
mod status;
#[path = "../tls/transport.rs"]
mod transport;
#[path = "../tls/traps.rs"]
mod traps;

pub const PROVIDER: gm_tls::provider::Provider = gm_tls::provider::Provider::Tongsuo;
