//! Everyone a topic goes to, at one moment of the index.

use std::hash::Hash;
use std::sync::Arc;

use super::index::FilterEntry;
use super::roster::{Chunk, Match};
use super::shared::SharedGroup;

/// The subscriptions a topic matches. Shares the lists of popular filters with the index instead of copying them,
/// so its size grows with the filters that match, not with their subscribers.
#[derive(Debug)]
pub struct Route<S, O> {
    singles: Vec<Match<S, O>>,
    chunks: Vec<Arc<Chunk<S, O>>>,
    groups: Vec<Arc<SharedGroup<S, O>>>,
    filters: usize,
}

impl<S, O> Route<S, O> {
    pub(super) const fn new() -> Self {
        Self { singles: Vec::new(), chunks: Vec::new(), groups: Vec::new(), filters: 0 }
    }

    /// Every subscription outside shared groups, one for each (subscriber, filter) pair, in no particular order.
    pub fn matches(&self) -> impl Iterator<Item = &Match<S, O>> {
        self.singles.iter().chain(self.chunks.iter().flat_map(|chunk| chunk.iter()))
    }

    /// The shared groups; the publisher picks a member of each for each message (MQTT 5.0 section 4.8.2).
    pub fn groups(&self) -> &[Arc<SharedGroup<S, O>>] {
        &self.groups
    }

    /// How many filters have subscribers outside shared groups; with at most one, nobody is found twice.
    pub fn filter_count(&self) -> usize {
        self.filters
    }

    pub fn match_count(&self) -> usize {
        self.singles.len() + self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>()
    }

    /// True when nobody gets the message: PUBACK may say "no matching subscribers".
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.chunks.is_empty() && self.groups.is_empty()
    }

    /// Memory this route alone holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.singles.capacity() * size_of::<Match<S, O>>()
            + (self.chunks.capacity() + self.groups.capacity()) * size_of::<Arc<()>>()
    }
}

impl<S: Clone + Eq + Hash, O: Clone> Route<S, O> {
    pub(super) fn add(&mut self, entry: &FilterEntry<S, O>) {
        let before = self.match_count();
        if let Some(single) = entry.direct.single() {
            self.singles.push(single.clone());
        }
        self.chunks.extend_from_slice(entry.direct.chunks());
        self.filters += usize::from(self.match_count() > before);
        self.groups.extend(entry.groups().cloned());
    }
}
