//! Counts how often each client disconnects within a window of time; too often is a reason to ban it for a while.

use crate::config::FlappingConfig;
use crate::session::{Millis, millis};
use bytestring::ByteString;
use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;
use std::hash::BuildHasher;

const SHARDS: usize = 16;
/// Clients counted at once, over all shards.
const MAX_CLIENTS: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Flapping {
    shards: Vec<Mutex<HashMap<ByteString, Window>>>,
    hasher: DefaultHashBuilder,
    max_count: u32,
    window: Millis,
}

#[derive(Debug)]
struct Window {
    since: Millis,
    count: u32,
}

impl Flapping {
    pub fn new(config: &FlappingConfig) -> Flapping {
        Flapping {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            max_count: config.max_count,
            window: millis(config.window_time),
        }
    }

    /// A connection of this client ended; `true` when that happened too often. The count then starts again.
    pub fn disconnected(&self, client_id: &ByteString, now: Millis) -> bool {
        let index = self.hasher.hash_one(client_id) as usize % SHARDS;
        let Some(shard) = self.shards.get(index) else { return false };
        let mut clients = shard.lock();
        if let Some(window) = clients.get_mut(client_id) {
            if now.saturating_sub(window.since) >= self.window {
                *window = Window { since: now, count: 0 };
            }
            window.count += 1;
            if window.count < self.max_count {
                return false;
            }
            clients.remove(client_id);
            return true;
        }
        if self.max_count <= 1 {
            return true;
        }
        if clients.len() >= MAX_CLIENTS / SHARDS {
            clients.retain(|_, window| now.saturating_sub(window.since) < self.window);
        }
        if clients.len() >= MAX_CLIENTS / SHARDS {
            // A flood of client ids must not keep others from being counted: any of them goes.
            let any = clients.keys().next().cloned();
            any.and_then(|id| clients.remove(&id));
        }
        clients.insert(client_id.clone(), Window { since: now, count: 1 });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn flapping(max_count: u32) -> Flapping {
        let window_time = Duration::from_secs(10);
        Flapping::new(&FlappingConfig { max_count, window_time, ..FlappingConfig::default() })
    }

    #[test]
    fn the_last_disconnection_of_the_window_is_one_too_many() {
        let flapping = flapping(3);
        let id = ByteString::from_static("c");
        assert_eq!([0, 1, 2].map(|now| flapping.disconnected(&id, now)), [false, false, true]);
        assert_eq!([3, 4, 5].map(|now| flapping.disconnected(&id, now)), [false, false, true]);
    }

    #[test]
    fn a_client_that_takes_its_time_is_never_noticed() {
        let flapping = flapping(3);
        let id = ByteString::from_static("c");
        assert!((0..100).all(|n| !flapping.disconnected(&id, n * 6_000)));
    }

    #[test]
    fn memory_is_bounded_whatever_ids_come() {
        let flapping = flapping(3);
        for n in 0..MAX_CLIENTS as u64 * 2 {
            flapping.disconnected(&ByteString::from(n.to_string()), 0);
        }
        let held: usize = flapping.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= MAX_CLIENTS, "{held}");
    }
}
