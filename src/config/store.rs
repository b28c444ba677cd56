//! `[store]`: where durable state goes, and what an acknowledgement promises.

use std::time::Duration;

use super::mqtt::{size, word};
use super::section::Section;
use super::value::{Choice, Span};

/// `[store]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    pub durability: Durability,
    /// With [`Durability::Interval`]: how long what was written may not be on the disk.
    pub sync_interval: Duration,
    /// Memory for pages of the database, in bytes.
    pub cache_size: usize,
    /// Memory for retained messages that were retained last, in bytes.
    pub retained_cache_size: usize,
    /// Bytes of changes that wait to be written before publishers have to wait.
    pub max_pending_bytes: usize,
    /// Deliveries of one session that can have been in flight when the broker ended; from `mqtt.max_inflight`.
    pub max_in_flight: u64,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Always,
    /// It will be, within `sync_interval`.
    Interval,
    /// Nothing is written: everything ends with the process.
    Off,
}

impl Choice for Durability {
    const WORDS: &'static [(&'static str, Durability)] =
        &[("always", Durability::Always), ("interval", Durability::Interval), ("off", Durability::Off)];
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            durability: Durability::Always,
            sync_interval: Duration::from_secs(1),
            cache_size: 64 << 20,
            retained_cache_size: 64 << 20,
            max_pending_bytes: 64 << 20,
            max_in_flight: 128,
        }
    }
}

impl StoreConfig {
    pub(super) fn read(mut section: Section<'_>) -> StoreConfig {
        let d = StoreConfig::default();
        let s = &mut section;
        let config = StoreConfig {
            durability: word(s, "durability", d.durability),
            sync_interval: s
                .within(
                    "sync_interval",
                    Span(d.sync_interval),
                    Span(Duration::from_millis(10)),
                    Span(Duration::from_secs(60)),
                )
                .0,
            cache_size: size(s, "cache_size", 64 << 20, 1 << 20, 64 << 30),
            retained_cache_size: size(s, "retained_cache_size", 64 << 20, 0, 64 << 30),
            max_pending_bytes: size(s, "max_pending_bytes", 64 << 20, 1 << 20, 16 << 30),
            max_in_flight: d.max_in_flight,
        };
        section.finish();
        config
    }

    pub(super) fn with_window(self, max_inflight: u16) -> StoreConfig {
        // Acknowledged deliveries whose deletion was lost come before those in flight.
        StoreConfig { max_in_flight: u64::from(max_inflight) * 4, ..self }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    #[test]
    fn that_queues_on_disk_have_no_priorities_is_said() {
        for (durability, warned) in [("off", false), ("always", true), ("interval", true)] {
            let store =
                format!("[store]\ndurability = \"{durability}\"\n[mqtt]\nmqueue_priorities = {{ \"alarm\" = 9 }}\n");
            let text = format!("{store}[listeners.tcp.default]\nbind = \"127.0.0.1:1883\"\n");
            let warnings = Config::parse(Path::new("t.toml"), &text, []).unwrap().warnings.join("\n");
            for words in ["t.toml:4:", "mqtt.mqueue_priorities", "store.durability = \"off\""] {
                assert_eq!(warnings.contains(words), warned, "{durability}: {warnings}");
            }
        }
    }
}
