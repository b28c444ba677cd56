//! ShangMQ.
pub mod config;
pub mod net;
