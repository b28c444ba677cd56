//! Retained messages by topic: bounded in number and bytes, spread over shards, and walked by filter in bounded
//! batches (see `walk.rs`).

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use super::filter::{Placement, first_two_levels};
use super::walk::{RetainedWalk, Step, WORK_PER_BATCH};

/// What an entry costs besides its topic and its message's own bytes: two words of key, the value, its share of a node.
const ENTRY_OVERHEAD_BYTES: usize = 96;
const MAX_SHARDS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Rounded up to a power of two, at most 4096. A walk whose filter has a wildcard in its first two levels visits
    /// every shard.
    pub shards: usize,
    pub max_messages: usize,
    /// Topics, messages and their overhead together.
    pub max_bytes: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self { shards: 64, max_messages: 1_000_000, max_bytes: 1024 * 1024 * 1024 }
    }
}

/// A message to retain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<M> {
    pub message: M,
    /// Memory `message` holds, in bytes: what it counts towards `max_bytes`.
    pub bytes: usize,
    /// From this time on it does not exist, in the same milliseconds as every `now_ms`. `None`: never expires.
    pub expires_at_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainedChange {
    Stored,
    Replaced,
    Removed,
    /// There was nothing to remove.
    Absent,
}

/// Why a message was not retained. The topic keeps the message it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetainedError {
    #[error("the limit on the number of retained messages is reached")]
    TooManyMessages,
    #[error("the limit on the bytes of retained messages is reached")]
    TooManyBytes,
}

/// The last retained message of each topic [MQTT-3.3.1-5].
#[derive(Debug)]
pub struct Retained<M> {
    /// A power of two of them, by the first two levels of the topic.
    shards: Box<[Shard<M>]>,
    hasher: DefaultHashBuilder,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    max_messages: usize,
    max_bytes: usize,
}

/// Aligned so that shards next to each other share no cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<M> {
    /// Lets a walk pass an empty shard without its lock.
    len: AtomicUsize,
    entries: RwLock<Entries<M>>,
}

#[derive(Debug)]
struct Entries<M> {
    by_key: BTreeMap<Key, Stored<M>>,
    /// How many of them have an expiry.
    expiring: usize,
}

/// A topic with `/` replaced by U+0000, which no topic contains [MQTT-1.5.4-2]. In byte order each level is then
/// followed at once by everything below it, so that a subtree is one range.
type Key = Box<str>;

/// Where [`Retained::remove_expired`] goes on.
#[derive(Debug, Default)]
pub struct RetainedSweep {
    shard: usize,
    /// The last key seen in that shard.
    after: Option<Key>,
}

impl<M: Clone> Retained<M> {
    pub fn new(limits: RetainedLimits) -> Self {
        let shards = limits.shards.clamp(1, MAX_SHARDS).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            // [MQTT3-3.1.2-7]: no session owns a retained message.
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes,
        }
    }

    /// How many messages are stored, those that expired but were not removed yet included.
    pub fn len(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What counts towards `max_bytes`.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Stores or replaces the topic's message, or removes it (`None`, an empty payload on the wire
    /// [MQTT-3.3.1-6]). A removal never fails.
    pub fn set(&self, topic: &str, stored: Option<Stored<M>>) -> Result<RetainedChange, RetainedError> {
        self.set_and(topic, stored, |_| {})
    }

    /// As [`set`](Self::set); `then` is told of the change before anyone can make another one to this topic. It is called under a lock.
    pub fn set_and(
        &self,
        topic: &str,
        stored: Option<Stored<M>>,
        then: impl FnOnce(RetainedChange),
    ) -> Result<RetainedChange, RetainedError> {
        let Some(shard) = self.shard_of(topic) else { return Ok(RetainedChange::Absent) };
        let key = key_of(topic);
        let Some(stored) = stored else {
            let mut entries = shard.entries.write();
            let removed = entries.remove(&key, &shard.len);
            let change = if removed.is_some() { RetainedChange::Removed } else { RetainedChange::Absent };
            then(change);
            drop(entries);
            if let Some(old) = removed {
                self.release(1, cost(&key, &old));
            }
            return Ok(change);
        };
        let cost_new = cost(&key, &stored);
        let mut entries = shard.entries.write();
        let cost_old = entries.by_key.get(&key).map(|old| cost(&key, old));
        if cost_old.is_none() && !reserve(&self.messages, 1, self.max_messages) {
            return Err(RetainedError::TooManyMessages);
        }
        let grows_by = cost_new.saturating_sub(cost_old.unwrap_or(0));
        if grows_by > 0 && !reserve(&self.bytes, grows_by, self.max_bytes) {
            if cost_old.is_none() {
                self.release(1, 0);
            }
            return Err(RetainedError::TooManyBytes);
        }
        let replaced = entries.insert(key, stored, &shard.len);
        let change = if replaced.is_some() { RetainedChange::Replaced } else { RetainedChange::Stored };
        then(change);
        drop(entries);
        self.release(0, cost_old.unwrap_or(0).saturating_sub(cost_new));
        Ok(change)
    }

    /// Changes what is kept for a topic, if there is something. What counts towards the limits stays the same.
    pub fn update(&self, topic: &str, change: impl FnOnce(&mut M)) {
        let Some(shard) = self.shard_of(topic) else { return };
        if let Some(stored) = shard.entries.write().by_key.get_mut(&key_of(topic)) {
            change(&mut stored.message);
        }
    }

    pub fn get(&self, topic: &str, now_ms: u64) -> Option<M> {
        let entries = self.shard_of(topic)?.entries.read();
        entries.by_key.get(&key_of(topic)).filter(|stored| stored.is_live(now_ms)).map(|stored| stored.message.clone())
    }

    /// Appends to `out` up to `limit` (at least one) messages whose topics match the walk's filter, with their topics. False when
    /// the walk is over; true means "call again", even if this call found nothing.
    ///
    /// A call takes one lock at a time and examines a bounded number of entries, so that a `#` over millions of
    /// topics delays nobody. Messages that are stored or removed during a walk may or may not be seen; all others
    /// are seen exactly once.
    pub fn next_batch(
        &self,
        walk: &mut RetainedWalk,
        limit: usize,
        now_ms: u64,
        out: &mut Vec<(ByteString, M)>,
    ) -> bool {
        let mut work = WORK_PER_BATCH;
        let full = out.len().saturating_add(limit.max(1));
        if !walk.is_started() {
            match Placement::of(walk.filter()) {
                // Only one shard has topics that begin with these two levels.
                Some(Placement::Exact(_) | Placement::Deep(_)) => walk.start_single(self.shard_index(walk.filter())),
                Some(Placement::First(_) | Placement::Root) => walk.start_all(self.shards.len()),
                None => walk.finish(),
            }
        }
        while let Some(shard) = walk.shard().and_then(|index| self.shards.get(index)) {
            if out.len() >= full || work == 0 {
                return true;
            }
            if shard.len.load(Ordering::Acquire) == 0 {
                walk.next_shard();
                continue;
            }
            let entries = shard.entries.read();
            // The lock and the first search count as one entry.
            work = entries.walk(walk, full, work - 1, now_ms, out);
        }
        false
    }

    /// Examines at most `work` (at least one) entries and removes those that expired; returns how many. Successive calls with the
    /// same `sweep` go over all shards again and again: a timer's job. `gone` is told each topic, under a lock.
    pub fn remove_expired(
        &self,
        sweep: &mut RetainedSweep,
        work: usize,
        now_ms: u64,
        mut gone: impl FnMut(&str),
    ) -> usize {
        let mut left = work.max(1);
        let mut removed = 0;
        // Each shard at most once in a call.
        for _ in 0..self.shards.len() {
            let Some(shard) = self.shards.get(sweep.shard) else { break };
            let more = {
                let mut entries = shard.entries.write();
                if entries.expiring == 0 {
                    false
                } else {
                    let (expired, last, examined) = entries.expired_after(sweep.after.take(), left, now_ms);
                    left -= examined;
                    for key in expired {
                        if let Some(old) = entries.remove(&key, &shard.len) {
                            gone(&topic_of(&key));
                            self.release(1, cost(&key, &old));
                            removed += 1;
                        }
                    }
                    sweep.after = last;
                    sweep.after.is_some()
                }
            };
            if more {
                return removed;
            }
            sweep.after = None;
            sweep.shard = (sweep.shard + 1) % self.shards.len();
            if left == 0 {
                break;
            }
        }
        removed
    }

    fn release(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn shard_of(&self, topic: &str) -> Option<&Shard<M>> {
        self.shards.get(self.shard_index(topic))
    }

    fn shard_index(&self, topic: &str) -> usize {
        self.hasher.hash_one(first_two_levels(topic).unwrap_or(topic)) as usize & (self.shards.len() - 1)
    }
}

impl<M> Stored<M> {
    fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|deadline| now_ms < deadline)
    }
}

impl<M> Default for Shard<M> {
    fn default() -> Self {
        Self { len: AtomicUsize::new(0), entries: RwLock::new(Entries { by_key: BTreeMap::new(), expiring: 0 }) }
    }
}

impl<M> Entries<M> {
    fn insert(&mut self, key: Key, stored: Stored<M>, len: &AtomicUsize) -> Option<Stored<M>> {
        self.expiring += usize::from(stored.expires_at_ms.is_some());
        let old = self.by_key.insert(key, stored);
        self.expiring -= old.as_ref().map_or(0, |old| usize::from(old.expires_at_ms.is_some()));
        len.store(self.by_key.len(), Ordering::Release);
        old
    }

    fn remove(&mut self, key: &str, len: &AtomicUsize) -> Option<Stored<M>> {
        let old = self.by_key.remove(key)?;
        self.expiring -= usize::from(old.expires_at_ms.is_some());
        len.store(self.by_key.len(), Ordering::Release);
        Some(old)
    }

    /// The expired keys among the next `limit`, the last key examined if there may be more, and how many were.
    fn expired_after(&self, after: Option<Key>, limit: usize, now_ms: u64) -> (Vec<Key>, Option<Key>, usize) {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut expired = Vec::new();
        let mut last: Option<&Key> = None;
        let mut examined = 0;
        for (key, stored) in self.by_key.range::<str, _>((start, Bound::Unbounded)) {
            if examined == limit {
                return (expired, last.cloned().or(after), examined);
            }
            if !stored.is_live(now_ms) {
                expired.push(key.clone());
            }
            last = Some(key);
            examined += 1;
        }
        (expired, None, examined)
    }
}

impl<M: Clone> Entries<M> {
    /// Walks this shard until it is done, `out` has `full` entries or `work` entries were examined. Returns the work
    /// that is left.
    fn walk(
        &self,
        walk: &mut RetainedWalk,
        full: usize,
        mut work: usize,
        now_ms: u64,
        out: &mut Vec<(ByteString, M)>,
    ) -> usize {
        let mut range = self.by_key.range::<str, _>((walk.from(), Bound::Unbounded));
        while let Some((key, stored)) = range.next() {
            if out.len() >= full || work == 0 {
                walk.resume_at(key);
                return work;
            }
            work -= 1;
            match walk.step(key) {
                Step::Match => {
                    if stored.is_live(now_ms) {
                        out.push((ByteString::from(topic_of(key)), stored.message.clone()));
                    }
                }
                // The next key is often the one sought; a new search is needed only if it lies before.
                Step::Seek(target) => {
                    let mut ahead = range.clone();
                    match ahead.next() {
                        Some((next, _)) if **next < *target => {
                            range = self.by_key.range::<str, _>((Bound::Included(target), Bound::Unbounded));
                        }
                        _ => {}
                    }
                }
                Step::Done => break,
            }
        }
        walk.next_shard();
        work
    }
}

pub(super) fn key_of(topic: &str) -> Key {
    topic.replace('/', "\0").into_boxed_str()
}

fn topic_of(key: &str) -> String {
    key.replace('\0', "/")
}

fn cost<M>(key: &str, stored: &Stored<M>) -> usize {
    key.len().saturating_add(stored.bytes).saturating_add(ENTRY_OVERHEAD_BYTES)
}

/// Adds unless the sum would exceed `max`.
fn reserve(counter: &AtomicUsize, amount: usize, max: usize) -> bool {
    let add = |value: usize| value.checked_add(amount).filter(|&sum| sum <= max);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}
