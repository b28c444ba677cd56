//! Subscriptions by filter: exact filters in a hash map, wildcard filters in a trie. Knows nothing of threads.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;

use super::filter::Placement;
use super::roster::{Inserted, Match, Roster};
use super::shared::SharedGroup;
use super::trie::Trie;

/// Why a subscription was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// An empty filter, or a wildcard where the protocol allows none.
    #[error("the topic filter is not well formed")]
    InvalidFilter,
    #[error("the limit on subscriptions is reached")]
    Full,
}

/// Subscribers `S` with options `O` by topic filter. [`super::Router`] spreads these over shards.
#[derive(Debug)]
pub struct SubscriptionIndex<S, O> {
    exact: HashMap<Box<str>, FilterEntry<S, O>>,
    wildcard: Trie<Box<FilterEntry<S, O>>>,
    subscriptions: usize,
}

/// All subscriptions to one filter. Never empty while it is in an index.
#[derive(Debug)]
pub(super) struct FilterEntry<S, O> {
    pub(super) direct: Roster<S, O>,
    groups: Option<Box<Groups<S, O>>>,
}

type Groups<S, O> = HashMap<Box<str>, Arc<SharedGroup<S, O>>>;

/// What a change did, for whoever keeps routes.
#[derive(Debug)]
pub(super) struct Removed<S, O> {
    /// To be dropped outside the locks.
    pub(super) entry: Match<S, O>,
    /// Whether routes made before are out of date; not so when a group only lost one of its members.
    pub(super) routes_changed: bool,
}

impl<S, O> Default for SubscriptionIndex<S, O> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: Trie::default(), subscriptions: 0 }
    }
}

impl<S, O> SubscriptionIndex<S, O> {
    /// How many (subscriber, filter) pairs there are, shared ones included.
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// How many different filters there are.
    pub fn filters(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// Calls `found` for each filter that matches `topic`.
    pub(super) fn visit<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a FilterEntry<S, O>)) {
        if !self.exact.is_empty()
            && let Some(entry) = self.exact.get(topic)
        {
            found(entry);
        }
        self.wildcard.matches(topic, |entry| found(entry));
    }

    fn entry(&self, filter: &str) -> Option<&FilterEntry<S, O>> {
        if is_wildcard(filter) { self.wildcard.get(filter).map(|entry| &**entry) } else { self.exact.get(filter) }
    }
}

impl<S: Clone + Eq + Hash, O: Clone> SubscriptionIndex<S, O> {
    /// Adds a subscription, or replaces its options if the subscriber has it already. `group` is the share name of
    /// `$share/group/filter`; the filter is given without that prefix.
    pub fn insert(
        &mut self,
        filter: &str,
        group: Option<&str>,
        subscriber: S,
        options: O,
    ) -> Result<Inserted, InsertError> {
        Placement::of(filter).ok_or(InsertError::InvalidFilter)?;
        self.insert_valid(filter, group, subscriber, options).map(|(inserted, _)| inserted)
    }

    /// True if there was such a subscription. Memory that only it needed is freed.
    pub fn remove(&mut self, filter: &str, group: Option<&str>, subscriber: &S) -> bool {
        self.take(filter, group, subscriber).is_some()
    }

    pub fn contains(&self, filter: &str, group: Option<&str>, subscriber: &S) -> bool {
        self.entry(filter).is_some_and(|entry| match group {
            None => entry.direct.contains(subscriber),
            Some(name) => entry.group(name).is_some_and(|group| group.contains(subscriber)),
        })
    }

    /// The shared group of this name on `filter`.
    pub(super) fn group(&self, filter: &str, name: &str) -> Option<Arc<SharedGroup<S, O>>> {
        self.entry(filter)?.group(name).cloned()
    }

    /// Calls `found` for each subscription outside shared groups whose filter matches `topic`.
    pub fn matches<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Match<S, O>)) {
        self.visit(topic, |entry| {
            entry.direct.single().into_iter().for_each(&mut *found);
            entry.direct.chunks().iter().flat_map(|chunk| chunk.iter()).for_each(&mut *found);
        });
    }

    /// Calls `found` for each shared group whose filter matches `topic`.
    pub fn matches_shared<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Arc<SharedGroup<S, O>>)) {
        self.visit(topic, |entry| entry.groups().for_each(&mut *found));
    }

    /// Also says whether routes made before are out of date.
    pub(super) fn insert_valid(
        &mut self,
        filter: &str,
        group: Option<&str>,
        subscriber: S,
        options: O,
    ) -> Result<(Inserted, bool), InsertError> {
        let entry = if is_wildcard(filter) {
            &mut **self.wildcard.get_or_insert_with(filter, Box::default).ok_or(InsertError::Full)?
        } else {
            self.exact.entry(Box::from(filter)).or_default()
        };
        let (inserted, routes_changed) = entry.insert(filter, group, subscriber, options);
        if inserted == Inserted::New {
            self.subscriptions += 1;
        }
        Ok((inserted, routes_changed))
    }

    pub(super) fn take(&mut self, filter: &str, group: Option<&str>, subscriber: &S) -> Option<Removed<S, O>> {
        let wildcard = is_wildcard(filter);
        let entry = if wildcard { &mut **self.wildcard.get_mut(filter)? } else { self.exact.get_mut(filter)? };
        let removed = entry.remove(group, subscriber)?;
        self.subscriptions -= 1;
        if entry.is_empty() {
            if wildcard {
                self.wildcard.remove(filter);
            } else {
                self.exact.remove(filter);
                if self.exact.is_empty() {
                    self.exact = HashMap::new();
                } else if self.exact.capacity() > 64 && self.exact.len() < self.exact.capacity() / 8 {
                    self.exact.shrink_to(self.exact.len() * 2);
                }
            }
        }
        Some(removed)
    }
}

impl<S, O> Default for FilterEntry<S, O> {
    fn default() -> Self {
        Self { direct: Roster::default(), groups: None }
    }
}

impl<S, O> FilterEntry<S, O> {
    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<SharedGroup<S, O>>> {
        self.groups.iter().flat_map(|groups| groups.values())
    }

    fn group(&self, name: &str) -> Option<&Arc<SharedGroup<S, O>>> {
        self.groups.as_ref()?.get(name)
    }

    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_none()
    }
}

impl<S: Clone + Eq + Hash, O: Clone> FilterEntry<S, O> {
    fn insert(&mut self, filter: &str, group: Option<&str>, subscriber: S, options: O) -> (Inserted, bool) {
        let Some(name) = group else {
            return (self.direct.insert(subscriber, options), true);
        };
        let groups = self.groups.get_or_insert_default();
        if let Some(group) = groups.get(name) {
            return (group.insert(subscriber, options), false);
        }
        let group = Arc::new(SharedGroup::new(name, filter));
        let inserted = group.insert(subscriber, options);
        groups.insert(Box::from(name), group);
        (inserted, true)
    }

    fn remove(&mut self, group: Option<&str>, subscriber: &S) -> Option<Removed<S, O>> {
        let Some(name) = group else {
            return self.direct.remove(subscriber).map(|entry| Removed { entry, routes_changed: true });
        };
        let groups = self.groups.as_mut()?;
        let group = groups.get(name)?;
        let entry = group.remove(subscriber)?;
        let routes_changed = group.is_empty();
        if routes_changed {
            groups.remove(name);
            if groups.is_empty() {
                self.groups = None;
            }
        }
        Some(Removed { entry, routes_changed })
    }
}

fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}
