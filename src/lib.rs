//! ShangMQ.
pub mod config;
