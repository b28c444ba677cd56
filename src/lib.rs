//! ShangMQ.
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod net;
pub mod telemetry;
