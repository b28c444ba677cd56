//! Routes one publisher used lately, so that repeating a topic costs a lookup and four atomic loads.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;

use super::route::Route;
use super::sharded::{Location, Router, Stamp};

/// Bounds on one publisher's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Topics remembered; 0 turns the cache off.
    pub entries: usize,
    /// Longer topics are not remembered.
    pub topic_bytes: usize,
    /// Memory of all topics and routes together. A route that alone is larger is not remembered.
    pub bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { entries: 64, topic_bytes: 1024, bytes: 256 * 1024 }
    }
}

/// Belongs to one connection. Takes no memory until the first publish.
#[derive(Debug)]
pub struct RouteCache<S, O> {
    router: Arc<Router<S, O>>,
    limits: CacheLimits,
    slots: Vec<Slot<S, O>>,
    /// Positions in `slots` by topic.
    index: HashTable<usize>,
    /// The next slot to consider for eviction.
    hand: usize,
    /// What the slots account for, never above `limits.bytes`.
    bytes: usize,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Slot<S, O> {
    /// A copy: the publisher's topic may be a slice of a large read buffer.
    topic: Box<str>,
    hash: u64,
    location: Location,
    stamp: Stamp,
    route: Arc<Route<S, O>>,
    bytes: usize,
    /// Used since the hand last passed.
    used: bool,
}

impl<S, O> RouteCache<S, O> {
    pub fn new(router: Arc<Router<S, O>>, limits: CacheLimits) -> Self {
        Self { router, limits, slots: Vec::new(), index: HashTable::new(), hand: 0, bytes: 0, hits: 0, misses: 0 }
    }

    /// Lookups answered without a walk since the cache was made.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Lookups that walked the index, for whatever reason.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Memory of the remembered topics and routes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        self.slots = Vec::new();
        self.index = HashTable::new();
        self.hand = 0;
        self.bytes = 0;
    }

    /// Forgets routes that are out of date. A route holds its subscribers: call this now and then on a connection
    /// that is idle, or it keeps those that are gone in memory.
    pub fn drop_stale(&mut self) {
        let mut position = 0;
        while let Some(slot) = self.slots.get(position) {
            if self.router.stamp(&slot.location) == slot.stamp {
                position += 1;
            } else {
                self.evict(position);
            }
        }
        if self.slots.is_empty() {
            self.clear();
        }
    }

    fn position(&self, hash: u64, topic: &str) -> Option<usize> {
        let is_it = |position: &usize| self.slots.get(*position).is_some_and(|slot| *slot.topic == *topic);
        self.index.find(hash, is_it).copied()
    }

    /// The last slot takes the place of the evicted one.
    fn evict(&mut self, position: usize) {
        if position >= self.slots.len() {
            return;
        }
        let last_position = self.slots.len() - 1;
        let evicted = self.slots.swap_remove(position);
        self.bytes -= evicted.bytes;
        if let Ok(entry) = self.index.find_entry(evicted.hash, |&indexed| indexed == position) {
            entry.remove();
        }
        if let Some(moved) = self.slots.get(position)
            && let Some(indexed) = self.index.find_mut(moved.hash, |&indexed| indexed == last_position)
        {
            *indexed = position;
        }
    }

    /// Evicts the first slot from the hand on that was not used since the hand last passed (the CLOCK algorithm).
    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            match self.slots.get_mut(self.hand) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.hand += 1;
                }
                Some(_) => return self.evict(self.hand),
                None => return,
            }
        }
    }

    fn remember(&mut self, slot: Slot<S, O>) {
        if slot.bytes > self.limits.bytes {
            return;
        }
        while !self.slots.is_empty()
            && (self.slots.len() >= self.limits.entries || self.bytes + slot.bytes > self.limits.bytes)
        {
            self.evict_one();
        }
        self.bytes += slot.bytes;
        let slots = &self.slots;
        let rehash = |position: &usize| slots.get(*position).map_or(0, |slot| slot.hash);
        self.index.insert_unique(slot.hash, self.slots.len(), rehash);
        self.slots.push(slot);
    }
}

impl<S: Clone + Eq + Hash, O: Clone> RouteCache<S, O> {
    /// The route of a topic (not a filter), current at the time of the call.
    pub fn route(&mut self, topic: &str) -> Arc<Route<S, O>> {
        if topic.len() > self.limits.topic_bytes || self.limits.entries == 0 {
            self.misses += 1;
            return self.router.route(topic);
        }
        let hash = self.router.hash(topic);
        let known = self.position(hash, topic);
        if let Some(slot) = known.and_then(|position| self.slots.get_mut(position))
            && self.router.stamp(&slot.location) == slot.stamp
        {
            slot.used = true;
            self.hits += 1;
            return Arc::clone(&slot.route);
        }
        self.misses += 1;
        let location = self.router.locate(topic, hash);
        // Before the walk: a change during it must make this route stale.
        let stamp = self.router.stamp(&location);
        let route = Arc::new(self.router.walk(topic, &location));
        if let Some(position) = known {
            self.evict(position);
        }
        let bytes = size_of::<Slot<S, O>>() + topic.len() + route.bytes();
        let kept = Arc::clone(&route);
        self.remember(Slot { topic: Box::from(topic), hash, location, stamp, route: kept, bytes, used: false });
        route
    }
}
