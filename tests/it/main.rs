//! The broker as clients meet it: packets in, packets out, over every transport.
//!
//! Modules are named by area. `broker` starts a whole broker on loopback; `simulated` runs connections on a simulated clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod addresses;
mod alarms;
mod authorities;
mod bans_by_hand;
mod bench;
mod broker;
mod bundle_changes;
mod bundles;
mod check_config;
mod client_ids;
mod command_line;
mod conformance_connect;
mod conformance_format;
mod conformance_operation;
mod conformance_publish;
mod conformance_subscribe;
mod connect;
mod crypto;
mod delivery;
mod disk_medium;
mod durable;
mod durable_delayed;
mod durable_shared;
mod extended;
mod farewells;
mod features;
mod flow;
mod handshake_limits;
mod handshake_outcomes;
mod hostile;
mod hostile_hello;
mod hostile_listener;
mod hostile_pairs;
mod identity;
mod limit_counters;
mod limits;
mod logs;
mod negotiation;
mod ocsp;
mod panics;
mod password_checks;
mod posture;
mod psk;
mod raw;
mod reload;
mod resumed;
mod retained;
mod revocation;
mod routing;
mod scrape;
mod sessions;
mod shared;
mod simulated;
mod slow_subscribers;
mod stapling;
mod startup;
mod stored;
mod stored_auth;
mod sys;
mod tls_options;
mod tokens;
mod transports;
mod unusable_lists;
mod wills;
