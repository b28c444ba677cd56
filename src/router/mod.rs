//! Who gets a message: the subscription index, shared subscriptions, cached routes and retained messages.
//!
//! Pure state: no tokio, sockets, files or clocks; time and randomness are arguments. No global lock: filters are
//! spread over shards, and a publisher that repeats a topic takes no lock at all while nothing that could match it
//! has changed ([`RouteCache`]).

mod cache;
mod filter;
mod index;
mod retained;
mod roster;
mod route;
mod sharded;
mod shared;
mod trie;
mod walk;

#[cfg(test)]
mod model;

pub use cache::{CacheLimits, RouteCache};
pub use index::{InsertError, SubscriptionIndex};
pub use retained::{Retained, RetainedChange, RetainedError, RetainedLimits, RetainedSweep, Stored};
pub use roster::{Inserted, Match};
pub use route::Route;
pub use sharded::{Router, RouterLimits};
pub use shared::{Choice, Fit, SharedGroup};
pub use walk::RetainedWalk;
