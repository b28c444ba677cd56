//! The index for many threads. Filters are spread over shards by their literal beginning, and each change raises the
//! generation of those topics alone that it could affect.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use super::filter::{Placement, first_level, first_two_levels};
use super::index::{InsertError, SubscriptionIndex};
use super::roster::Inserted;
use super::route::{Route, RouteBuilder};
use super::shared::SharedGroup;

/// Generations in a shard. More than one, so that a reconnecting fleet does not invalidate every cached route.
const STRIPES: usize = 16;
const MAX_SHARDS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterLimits {
    /// Shards of each tier, rounded up to a power of two and at most 4096; more lets more threads change
    /// subscriptions at once.
    pub shards: usize,
    /// (subscriber, filter) pairs in the broker, shared ones included.
    pub max_subscriptions: usize,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self { shards: 64, max_subscriptions: 10_000_000 }
    }
}

/// All subscriptions of the broker. Every method may be called from any thread; none holds more than one lock of a
/// shard at a time.
#[derive(Debug)]
pub struct Router<S, O> {
    /// Filters without wildcard, by the whole filter.
    exact: Tier<S, O>,
    /// Filters with two literal levels or more before the first wildcard, by those two.
    deep: Tier<S, O>,
    /// Filters with one literal level before the first wildcard, by that one.
    first: Tier<S, O>,
    /// Filters whose first level is a wildcard.
    root: Shard<S, O>,
    hasher: DefaultHashBuilder,
    subscriptions: AtomicUsize,
    max_subscriptions: usize,
}

#[derive(Debug)]
struct Tier<S, O> {
    /// A power of two of them.
    shards: Box<[Shard<S, O>]>,
}

/// Aligned so that shards next to each other share no cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<S, O> {
    generations: [AtomicU64; STRIPES],
    /// Filters in the index; a publisher does not lock an empty shard.
    filters: AtomicUsize,
    index: RwLock<SubscriptionIndex<S, O>>,
}

/// Where in each tier the filters are that could match one topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    exact: u64,
    /// `None` for topics of one level.
    deep: Option<u64>,
    first: u64,
}

/// The generations a route was made in. The route is current for as long as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u64; 4]);

impl<S, O> Router<S, O> {
    pub fn new(limits: RouterLimits) -> Self {
        let shards = limits.shards.clamp(1, MAX_SHARDS).next_power_of_two();
        Self {
            exact: Tier::new(shards),
            deep: Tier::new(shards),
            first: Tier::new(shards),
            root: Shard::default(),
            hasher: DefaultHashBuilder::default(),
            subscriptions: AtomicUsize::new(0),
            max_subscriptions: limits.max_subscriptions,
        }
    }

    /// How many (subscriber, filter) pairs there are, shared ones included.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// How many different filters there are. Adds up the shards: for metrics, not for each message.
    pub fn filters(&self) -> usize {
        let tiers = [&self.exact, &self.deep, &self.first];
        let shards = tiers.into_iter().flat_map(|tier| tier.shards.iter()).chain([&self.root]);
        shards.map(|shard| shard.filters.load(Ordering::Relaxed)).sum()
    }

    /// The hash caches look topics up by; also locates the topic's exact filters.
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn locate(&self, topic: &str, topic_hash: u64) -> Location {
        Location {
            exact: topic_hash,
            deep: first_two_levels(topic).map(|key| self.hash(key)),
            first: self.hash(first_level(topic)),
        }
    }

    pub(super) fn stamp(&self, location: &Location) -> Stamp {
        Stamp([
            self.root.generation(0),
            self.first.generation(location.first),
            location.deep.map_or(0, |hash| self.deep.generation(hash)),
            self.exact.generation(location.exact),
        ])
    }

    fn place(&self, filter: &str) -> Option<(&Shard<S, O>, u64)> {
        let (tier, key) = match Placement::of(filter)? {
            Placement::Exact(key) => (&self.exact, key),
            Placement::Deep(key) => (&self.deep, key),
            Placement::First(key) => (&self.first, key),
            Placement::Root => return Some((&self.root, 0)),
        };
        let hash = self.hash(key);
        Some((tier.shard(hash)?, hash))
    }
}

impl<S: Clone + Eq + Hash, O: Clone> Router<S, O> {
    /// Adds a subscription, or replaces its options if the subscriber has it already. `group` is the share name of
    /// `$share/group/filter`; the filter is given without that prefix. A publish that happens after the return sees it.
    pub fn insert(
        &self,
        filter: &str,
        group: Option<&str>,
        subscriber: S,
        options: O,
    ) -> Result<Inserted, InsertError> {
        let (shard, hash) = self.place(filter).ok_or(InsertError::InvalidFilter)?;
        let mut index = shard.index.write();
        let replaces = index.contains(filter, group, &subscriber);
        if !replaces && !self.reserve() {
            return Err(InsertError::Full);
        }
        let result = index.insert_valid(filter, group, subscriber, options);
        match result {
            Ok((inserted, routes_changed)) => {
                shard.filters.store(index.filters(), Ordering::Release);
                if routes_changed {
                    shard.bump(hash);
                }
                Ok(inserted)
            }
            Err(error) => {
                if !replaces {
                    self.subscriptions.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    /// True if there was such a subscription. Routes made before may still name the subscriber.
    pub fn remove(&self, filter: &str, group: Option<&str>, subscriber: &S) -> bool {
        let Some((shard, hash)) = self.place(filter) else { return false };
        let mut index = shard.index.write();
        let Some(removed) = index.take(filter, group, subscriber) else { return false };
        shard.filters.store(index.filters(), Ordering::Release);
        if removed.routes_changed {
            shard.bump(hash);
        }
        drop(index);
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        // Dropping a subscriber may free a whole session, so it waits until the lock is gone.
        drop(removed.entry);
        true
    }

    pub fn contains(&self, filter: &str, group: Option<&str>, subscriber: &S) -> bool {
        self.place(filter).is_some_and(|(shard, _)| shard.index.read().contains(filter, group, subscriber))
    }

    /// The shared group of this name on `filter`, if it has a member.
    pub fn group(&self, filter: &str, name: &str) -> Option<Arc<SharedGroup<S, O>>> {
        let (shard, _) = self.place(filter)?;
        shard.index.read().group(filter, name)
    }

    /// Walks the index for a topic (not a filter). A publisher that repeats topics asks its [`super::RouteCache`].
    pub fn route(&self, topic: &str) -> Arc<Route<S, O>> {
        Arc::new(self.walk(topic, &self.locate(topic, self.hash(topic))))
    }

    pub(super) fn walk(&self, topic: &str, location: &Location) -> Route<S, O> {
        let mut route = RouteBuilder::new();
        self.root.collect(topic, &mut route);
        let keyed =
            [(&self.first, Some(location.first)), (&self.deep, location.deep), (&self.exact, Some(location.exact))];
        for (tier, hash) in keyed {
            if let Some(shard) = hash.and_then(|hash| tier.shard(hash)) {
                shard.collect(topic, &mut route);
            }
        }
        route.build()
    }

    fn reserve(&self) -> bool {
        let room = |count: usize| (count < self.max_subscriptions).then_some(count + 1);
        self.subscriptions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }
}

impl<S, O> Tier<S, O> {
    fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    fn shard(&self, hash: u64) -> Option<&Shard<S, O>> {
        self.shards.get(hash as usize & (self.shards.len() - 1))
    }

    fn generation(&self, hash: u64) -> u64 {
        self.shard(hash).map_or(0, |shard| shard.generation(hash))
    }
}

impl<S, O> Default for Shard<S, O> {
    fn default() -> Self {
        Self {
            generations: Default::default(),
            filters: AtomicUsize::new(0),
            index: RwLock::new(SubscriptionIndex::default()),
        }
    }
}

impl<S, O> Shard<S, O> {
    /// Acquire: whoever sees a generation sees, once it has the lock, the change that raised it.
    fn generation(&self, hash: u64) -> u64 {
        self.stripe(hash).map_or(0, |stripe| stripe.load(Ordering::Acquire))
    }

    /// Called with the write lock held, after the change. A publisher reads generations before it walks: had it
    /// walked before this change, its stamp is older than the generation and its route is made again.
    fn bump(&self, hash: u64) {
        if let Some(stripe) = self.stripe(hash) {
            stripe.fetch_add(1, Ordering::Release);
        }
    }

    fn stripe(&self, hash: u64) -> Option<&AtomicU64> {
        self.generations.get((hash >> 32) as usize % STRIPES)
    }
}

impl<S: Clone + Eq + Hash, O: Clone> Shard<S, O> {
    fn collect(&self, topic: &str, route: &mut RouteBuilder<S, O>) {
        if self.filters.load(Ordering::Acquire) > 0 {
            self.index.read().visit(topic, |entry| route.add(entry));
        }
    }
}
