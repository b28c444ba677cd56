//! TLS and TLCP.

pub mod hello;
