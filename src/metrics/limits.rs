//! How often each limit was reached. A publish may reach one, so that those of the configuration take no lock.

use super::{Labelled, load};
use std::sync::atomic::{AtomicU64, Ordering};

/// The limits of docs/limits.md that are counted when they are reached, by their keys in the configuration.
pub const LIMITS: [&str; 39] = [
    "mqtt.max_packet_size",
    "mqtt.max_clientid_len",
    "mqtt.max_topic_levels",
    "mqtt.max_topic_alias",
    "mqtt.max_qos_allowed",
    "mqtt.max_awaiting_rel",
    "mqtt.max_sessions",
    "mqtt.max_subscriptions",
    "mqtt.max_session_expiry_interval",
    "retainer.max_retained_messages",
    "retainer.max_payload_size",
    "retainer.max_bytes",
    "max_connections",
    "proxy_protocol_timeout",
    "handshake_timeout",
    "connect_timeout",
    "mqtt.write_timeout",
    "mqtt.keepalive_multiplier",
    "websocket.max_frame_size",
    "mqtt.retain_available",
    "mqtt.wildcard_subscription",
    "mqtt.shared_subscription",
    "delayed.max_delayed_messages",
    "banned.max_entries",
    "flapping_detect.max_count",
    "max_conn_rate",
    "messages_rate",
    "bytes_rate",
    "subscribes_rate",
    "max_handshakes_per_address",
    "max_connections_per_address",
    "max_connection_rate_per_address",
    "auth.max_waiting_checks",
    "auth.max_waiting_checks_per_address",
    "auth.max_failures_per_minute",
    "mqtt.max_topic_alias_bytes",
    "mqtt.slow_subscriber_wait",
    "auth.store.max_users",
    "auth.store.max_rules",
];

/// A counter for each limit.
#[derive(Debug)]
pub(super) struct LimitCounters {
    /// In the order of [`LIMITS`].
    configured: [AtomicU64; LIMITS.len()],
    /// Limits that are not in the configuration, by name.
    others: Labelled<&'static str>,
}

impl Default for LimitCounters {
    fn default() -> Self {
        LimitCounters { configured: std::array::from_fn(|_| AtomicU64::new(0)), others: Labelled::default() }
    }
}

impl LimitCounters {
    pub(super) fn add(&self, name: &'static str) {
        match self.configured(name) {
            Some(counter) => _ = counter.fetch_add(1, Ordering::Relaxed),
            None => self.others.add(name),
        }
    }

    pub(super) fn count(&self, name: &'static str) -> u64 {
        self.configured(name).map_or_else(|| self.others.count(&name), load)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LIMITS.into_iter().zip(self.configured.iter().map(load)).chain(self.others.all())
    }

    fn configured(&self, name: &str) -> Option<&AtomicU64> {
        LIMITS.iter().position(|limit| *limit == name).and_then(|at| self.configured.get(at))
    }
}
