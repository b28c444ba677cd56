//! ShangMQ: an MQTT broker that answers TLS 1.2/1.3, RFC 8998 and TLCP (GB/T 38636-2020) on one port.
//!
//! Map of the code, from the outside in; docs/architecture.md has the invariants.
//!
//! - [`cli`] parses arguments; [`config`] turns TOML into valid types; [`server`] starts and stops everything.
//! - [`net`] accepts connections and secures them; [`conn`] runs one task for each.
//! - [`broker`] owns sessions and routes; [`session`] and [`router`] are its pure state.
//! - [`store`] keeps sessions, messages under way and retained messages on disk.
//! - [`bundle`] keeps certificates and keys under names.
//! - [`revocation`] knows which certificates were revoked, and what is stapled to those of this server.
//! - [`client`] is the MQTT client of the command line.
//! - [`auth`] decides who may connect, [`per_address`] how much of anything one address may have; [`operator`] is what they do to a running
//!   broker, and [`admin`] and [`metrics`] let them look inside; [`causes`] shows errors.

pub mod admin;
pub mod auth;
pub mod broker;
pub mod bundle;
pub mod calendar;
pub mod causes;
pub mod cli;
pub mod client;
pub mod config;
pub mod conn;
pub mod dev_certs;
pub mod metrics;
pub mod net;
pub mod operator;
pub mod per_address;
pub mod revocation;
pub mod router;
pub mod server;
pub mod session;
pub mod store;
pub mod telemetry;
