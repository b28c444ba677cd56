//! The broker as clients meet it: packets in, packets out, over every transport.
//!
//! Modules are named by area. `broker` starts a whole broker on loopback; `simulated` runs connections on a simulated clock.

mod broker;
mod connect;
mod delivery;
mod flow;
mod retained;
mod sessions;
mod simulated;
mod transports;
mod wills;
