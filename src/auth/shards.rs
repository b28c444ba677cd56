//! A table by name in parts with a lock each, so that no lock is global.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::RwLock;

const SHARDS: usize = 32;

#[derive(Debug)]
pub(super) struct Shards<V> {
    shards: Vec<RwLock<HashMap<Box<str>, V>>>,
    hasher: DefaultHashBuilder,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Shards { shards, hasher: DefaultHashBuilder::default() }
    }
}

impl<V: Clone> Shards<V> {
    pub fn get(&self, name: &str) -> Option<V> {
        self.shard(name)?.read().get(name).cloned()
    }

    /// Returns what was there before.
    pub fn insert(&self, name: &str, value: V) -> Option<V> {
        self.shard(name)?.write().insert(name.into(), value)
    }

    pub fn remove(&self, name: &str) -> Option<V> {
        self.shard(name)?.write().remove(name)
    }

    /// The names that come after `after`, in their order.
    pub fn names_after(&self, after: &str) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = Vec::new();
        for shard in &self.shards {
            names.extend(shard.read().keys().filter(|name| ***name > *after).cloned());
        }
        names.sort_unstable();
        names
    }

    fn shard(&self, name: &str) -> Option<&RwLock<HashMap<Box<str>, V>>> {
        self.shards.get(self.hasher.hash_one(name) as usize % SHARDS)
    }
}
