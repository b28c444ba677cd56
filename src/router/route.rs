//! Everyone a topic goes to, at one moment of the index.

use std::hash::Hash;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use hashbrown::HashMap;

use super::index::FilterEntry;
use super::roster::{Chunk, Match};
use super::shared::SharedGroup;

/// The subscriptions a topic matches. Shares the lists of popular filters with the index instead of copying them,
/// so its size grows with the filters that match, not with their subscribers.
#[derive(Debug)]
pub struct Route<S, O> {
    /// From filters with one subscriber.
    singles: Vec<Match<S, O>>,
    /// From filters with more.
    chunks: Vec<Arc<Chunk<S, O>>>,
    groups: Vec<Arc<SharedGroup<S, O>>>,
    /// The subscribers that appear more than once, with the options of each of their subscriptions.
    overlapping: HashMap<S, Vec<O>>,
}

/// A route being collected, one filter after another.
#[derive(Debug)]
pub(super) struct RouteBuilder<S, O> {
    route: Route<S, O>,
    /// Which chunks are of one filter. A filter has a subscriber once.
    lists: Vec<Range<usize>>,
}

impl<S, O> Route<S, O> {
    /// Every subscription outside shared groups, one for each (subscriber, filter) pair, in no particular order.
    pub fn matches(&self) -> impl Iterator<Item = &Match<S, O>> {
        self.singles.iter().chain(self.chunks.iter().flat_map(|chunk| chunk.iter()))
    }

    /// The shared groups; the publisher picks a member of each for each message (MQTT 5.0 section 4.8.2).
    pub fn groups(&self) -> &[Arc<SharedGroup<S, O>>] {
        &self.groups
    }

    /// How many [`Self::matches`] there are.
    pub fn match_count(&self) -> usize {
        self.singles.len() + self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>()
    }

    /// True when nobody gets the message: PUBACK may say "no matching subscribers".
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.chunks.is_empty() && self.groups.is_empty()
    }

    /// Memory this route alone holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let overlapping = self.overlapping.capacity() * size_of::<(S, Vec<O>)>()
            + self.overlapping.values().map(|options| options.capacity() * size_of::<O>()).sum::<usize>();
        size_of::<Self>()
            + self.singles.capacity() * size_of::<Match<S, O>>()
            + (self.chunks.capacity() + self.groups.capacity()) * size_of::<Arc<()>>()
            + overlapping
    }
}

impl<S: Eq + Hash, O> Route<S, O> {
    /// Every subscriber outside shared groups once, with the options of all its subscriptions that match: a message
    /// goes out once, at the highest QoS and with every subscription identifier [MQTT-3.3.4-2] [MQTT-3.3.4-3].
    pub fn receivers(&self) -> impl Iterator<Item = (&S, &[O])> {
        let overlapping = self.overlapping.iter().map(|(subscriber, options)| (subscriber, options.as_slice()));
        let others = self
            .matches()
            .filter(|found| self.overlapping.is_empty() || !self.overlapping.contains_key(&found.subscriber))
            .map(|found| (&found.subscriber, slice::from_ref(&found.options)));
        overlapping.chain(others)
    }
}

impl<S: Clone + Eq + Hash, O: Clone> RouteBuilder<S, O> {
    pub(super) fn new() -> Self {
        let route =
            Route { singles: Vec::new(), chunks: Vec::new(), groups: Vec::new(), overlapping: HashMap::default() };
        Self { route, lists: Vec::new() }
    }

    pub(super) fn add(&mut self, entry: &FilterEntry<S, O>) {
        if let Some(single) = entry.direct.single() {
            self.route.singles.push(single.clone());
        }
        let chunks = entry.direct.chunks();
        if !chunks.is_empty() {
            let start = self.route.chunks.len();
            self.route.chunks.extend_from_slice(chunks);
            self.lists.push(start..self.route.chunks.len());
        }
        self.route.groups.extend(entry.groups().cloned());
    }

    pub(super) fn build(mut self) -> Route<S, O> {
        if self.route.singles.len() + self.lists.len() > 1 {
            self.route.overlapping = self.overlaps();
        }
        self.route
    }

    /// The largest list is only looked up, not hashed into a table: one monitor on `#` beside a filter of a hundred
    /// thousand subscribers costs a table of one.
    fn overlaps(&self) -> HashMap<S, Vec<O>> {
        let (singles, chunks) = (&self.route.singles, &self.route.chunks);
        let largest = self.lists.iter().max_by_key(|list| list.len()).cloned().unwrap_or_default();
        let (before, after) = (chunks.get(..largest.start), chunks.get(largest.end..));
        let small = [before, after].into_iter().flatten().flatten().flat_map(|chunk| chunk.iter());
        let mut counts = HashMap::<&S, usize>::new();
        for found in singles.iter().chain(small) {
            *counts.entry(&found.subscriber).or_default() += 1;
        }
        for found in chunks.get(largest).into_iter().flatten().flat_map(|chunk| chunk.iter()) {
            if let Some(count) = counts.get_mut(&found.subscriber) {
                *count += 1;
            }
        }
        counts.retain(|_, count| *count > 1);
        let mut overlapping = HashMap::with_capacity(counts.len());
        if !counts.is_empty() {
            for found in self.route.matches() {
                if let Some(&count) = counts.get(&found.subscriber) {
                    let options: &mut Vec<O> =
                        overlapping.entry(found.subscriber.clone()).or_insert_with(|| Vec::with_capacity(count));
                    options.push(found.options.clone());
                }
            }
        }
        overlapping
    }
}
