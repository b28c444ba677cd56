//! TLS and TLCP.
