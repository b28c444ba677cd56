//! The subscribers of one filter, or the members of one shared group.
//!
//! Most filters have one subscriber, some have a hundred thousand. One is stored inline. More are kept in chunks
//! behind `Arc`: a route takes the chunks, not the subscribers, and a change copies at most two chunks that a
//! route still holds, so that churn on a popular filter never copies the whole list.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Subscribers in a chunk: what one change may have to copy.
const CHUNK: usize = 128;
/// Above this many subscribers a hash index finds them; below, a scan is as fast and needs no memory.
const INDEX_ABOVE: usize = 16;

/// One subscription that a topic matched. A subscriber with overlapping filters appears once for each: the caller
/// merges or sends all of them, as the protocol version and its options ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<S, O> {
    /// Whom to hand the message to. The router never looks inside: a local session, or a node that has one.
    pub subscriber: S,
    /// What was given with the subscription: QoS, flags, subscription identifier.
    pub options: O,
}

/// What an insertion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    New,
    /// The subscriber had the filter already; its options are replaced [MQTT-3.8.4-3].
    Replaced,
}

pub(super) type Chunk<S, O> = Vec<Match<S, O>>;

#[derive(Debug)]
pub(super) struct Roster<S, O> {
    /// Set when there is exactly one subscriber.
    one: Option<Match<S, O>>,
    /// Set when there are two or more.
    many: Option<Box<Many<S, O>>>,
}

#[derive(Debug)]
struct Many<S, O> {
    /// All full but the last, none empty. Position `p` is in chunk `p / CHUNK`.
    chunks: Vec<Arc<Chunk<S, O>>>,
    len: usize,
    /// Positions by subscriber; kept only while `indexed`.
    index: HashTable<usize>,
    indexed: bool,
    hasher: DefaultHashBuilder,
}

impl<S, O> Default for Roster<S, O> {
    fn default() -> Self {
        Self { one: None, many: None }
    }
}

impl<S, O> Roster<S, O> {
    pub(super) fn len(&self) -> usize {
        self.many.as_ref().map_or(usize::from(self.one.is_some()), |many| many.len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn at(&self, position: usize) -> Option<&Match<S, O>> {
        match &self.many {
            Some(many) => many.at(position),
            None => self.one.as_ref().filter(|_| position == 0),
        }
    }

    pub(super) fn single(&self) -> Option<&Match<S, O>> {
        self.one.as_ref()
    }

    /// Empty when there is no subscriber or only a [`Self::single`] one.
    pub(super) fn chunks(&self) -> &[Arc<Chunk<S, O>>] {
        self.many.as_ref().map_or(&[], |many| &many.chunks)
    }
}

impl<S: Clone + Eq + Hash, O: Clone> Roster<S, O> {
    pub(super) fn contains(&self, subscriber: &S) -> bool {
        self.find(subscriber).is_some()
    }

    pub(super) fn find(&self, subscriber: &S) -> Option<&Match<S, O>> {
        match &self.many {
            Some(many) => many.at(many.position(subscriber)?),
            None => self.one.as_ref().filter(|one| one.subscriber == *subscriber),
        }
    }

    pub(super) fn insert(&mut self, subscriber: S, options: O) -> Inserted {
        if let Some(many) = &mut self.many {
            return many.insert(subscriber, options);
        }
        match &mut self.one {
            None => {
                self.one = Some(Match { subscriber, options });
                Inserted::New
            }
            Some(one) if one.subscriber == subscriber => {
                one.options = options;
                Inserted::Replaced
            }
            Some(_) => {
                let mut many = Box::new(Many::new());
                if let Some(one) = self.one.take() {
                    many.push(one);
                }
                many.push(Match { subscriber, options });
                self.many = Some(many);
                Inserted::New
            }
        }
    }

    /// Gives the removed subscription back, so that the caller drops it outside its locks.
    pub(super) fn remove(&mut self, subscriber: &S) -> Option<Match<S, O>> {
        let Some(many) = &mut self.many else {
            return self.one.take_if(|one| one.subscriber == *subscriber);
        };
        let removed = many.remove(subscriber)?;
        if many.len == 1 {
            self.one = many.at(0).cloned();
            self.many = None;
        }
        Some(removed)
    }
}

impl<S, O> Many<S, O> {
    fn at(&self, position: usize) -> Option<&Match<S, O>> {
        self.chunks.get(position / CHUNK)?.get(position % CHUNK)
    }
}

impl<S: Clone + Eq + Hash, O: Clone> Many<S, O> {
    fn new() -> Self {
        Self {
            chunks: Vec::with_capacity(1),
            len: 0,
            index: HashTable::new(),
            indexed: false,
            hasher: DefaultHashBuilder::default(),
        }
    }

    fn position(&self, subscriber: &S) -> Option<usize> {
        let is_it = |position: usize| self.at(position).is_some_and(|entry| entry.subscriber == *subscriber);
        if self.indexed {
            self.index.find(self.hasher.hash_one(subscriber), |&position| is_it(position)).copied()
        } else {
            (0..self.len).find(|&position| is_it(position))
        }
    }

    fn insert(&mut self, subscriber: S, options: O) -> Inserted {
        match self.position(&subscriber) {
            Some(position) => {
                if let Some(entry) = self.at_mut(position) {
                    entry.options = options;
                }
                Inserted::Replaced
            }
            None => {
                self.push(Match { subscriber, options });
                Inserted::New
            }
        }
    }

    fn at_mut(&mut self, position: usize) -> Option<&mut Match<S, O>> {
        Arc::make_mut(self.chunks.get_mut(position / CHUNK)?).get_mut(position % CHUNK)
    }

    fn push(&mut self, entry: Match<S, O>) {
        let position = self.len;
        let hash = self.hasher.hash_one(&entry.subscriber);
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(entry),
            _ => self.chunks.push(Arc::new(vec![entry])),
        }
        self.len += 1;
        if self.indexed {
            self.index_position(hash, position);
        } else if self.len > INDEX_ABOVE {
            self.indexed = true;
            for position in 0..self.len {
                if let Some(hash) = self.at(position).map(|entry| self.hasher.hash_one(&entry.subscriber)) {
                    self.index_position(hash, position);
                }
            }
        }
    }

    fn index_position(&mut self, hash: u64, position: usize) {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        // Every indexed position holds an entry whenever the table rehashes: positions leave it before entries do.
        self.index.insert_unique(hash, position, |&position| {
            chunks
                .get(position / CHUNK)
                .and_then(|chunk| chunk.get(position % CHUNK))
                .map_or(0, |entry| hasher.hash_one(&entry.subscriber))
        });
    }

    /// The last entry takes the place of the removed one.
    fn remove(&mut self, subscriber: &S) -> Option<Match<S, O>> {
        let position = self.position(subscriber)?;
        let last_position = self.len - 1;
        if self.indexed {
            self.unindex(subscriber, position);
        }
        let chunk = self.chunks.last_mut()?;
        let last = Arc::make_mut(chunk).pop()?;
        if chunk.is_empty() {
            self.chunks.pop();
        }
        self.len = last_position;
        if self.chunks.capacity() > 4 * self.chunks.len().max(4) {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
        let removed = if position == last_position {
            last
        } else {
            if self.indexed {
                self.reindex(&last.subscriber, last_position, position);
            }
            std::mem::replace(self.at_mut(position)?, last)
        };
        if self.indexed && self.len <= INDEX_ABOVE / 2 {
            self.index = HashTable::new();
            self.indexed = false;
        }
        Some(removed)
    }

    fn unindex(&mut self, subscriber: &S, position: usize) {
        let hash = self.hasher.hash_one(subscriber);
        if let Ok(entry) = self.index.find_entry(hash, |&indexed| indexed == position) {
            entry.remove();
        }
    }

    fn reindex(&mut self, subscriber: &S, from: usize, to: usize) {
        let hash = self.hasher.hash_one(subscriber);
        if let Some(indexed) = self.index.find_mut(hash, |&indexed| indexed == from) {
            *indexed = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn contents(roster: &Roster<u16, u8>) -> HashMap<u16, u8> {
        let mut all = HashMap::new();
        for position in 0..roster.len() {
            let entry = roster.at(position).unwrap();
            assert_eq!(all.insert(entry.subscriber, entry.options), None, "listed twice");
        }
        let listed = roster.chunks().iter().map(|chunk| chunk.len()).sum::<usize>();
        assert_eq!(listed + usize::from(roster.single().is_some()), roster.len());
        all
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u16..400, any::<u8>(), 0u8..5), 0..900)) {
            let mut roster = Roster::default();
            let mut model = HashMap::new();
            let mut held = Vec::new();
            for (subscriber, options, action) in steps {
                match action {
                    0..=2 => {
                        let expected = match model.insert(subscriber, options) {
                            Some(_) => Inserted::Replaced,
                            None => Inserted::New,
                        };
                        prop_assert_eq!(roster.insert(subscriber, options), expected);
                    }
                    3 => {
                        let removed = roster.remove(&subscriber).map(|entry| entry.options);
                        prop_assert_eq!(removed, model.remove(&subscriber));
                    }
                    _ => held = roster.chunks().to_vec(),
                }
                prop_assert_eq!(roster.contains(&subscriber), model.contains_key(&subscriber));
            }
            drop(held);
            prop_assert_eq!(contents(&roster), model.clone());
            for subscriber in model.into_keys() {
                prop_assert!(roster.remove(&subscriber).is_some());
            }
            prop_assert!(roster.is_empty());
        }
    }

    #[test]
    fn a_change_does_not_reach_chunks_a_route_holds() {
        let mut roster = Roster::default();
        for subscriber in 0..300u16 {
            roster.insert(subscriber, 0u8);
        }
        let held = roster.chunks().to_vec();
        roster.insert(0, 9);
        roster.remove(&299);
        assert_eq!(held[0][0].options, 0);
        assert_eq!(held.iter().map(|chunk| chunk.len()).sum::<usize>(), 300);
        assert_eq!(roster.len(), 299);
        let shared = roster.chunks().iter().zip(&held).filter(|(now, then)| Arc::ptr_eq(now, then)).count();
        assert_eq!(shared, 1, "only the two changed chunks are copied");
    }
}
