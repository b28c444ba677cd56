//! Shared subscriptions `$share/group/filter`: each message goes to one member of the group.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::roster::{Inserted, Match, Roster};
use crate::session::ShareName;

/// One group on one filter. Routes hold it by `Arc` and see joins and leaves at once, so that churn among members
/// invalidates no route; only the group's first and last member do.
#[derive(Debug)]
pub struct SharedGroup<S, O> {
    name: Arc<ShareName>,
    members: RwLock<Roster<S, O>>,
    /// Where round robin goes on; wraps.
    turn: AtomicUsize,
}

/// Where the search for a member starts. Randomness and hashes are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Each member in turn.
    RoundRobin,
    /// The caller's random number.
    Random(u64),
    /// The same member for the same hash as long as it stays: the publisher's client identifier or the topic. When
    /// one of n members joins or leaves, about 1/n of the hashes move.
    Hash(u64),
}

/// A caller's verdict on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Give it the message.
    Take,
    /// Only if no member is [`Fit::Take`]: on another node, not connected, or with a full window.
    Reserve,
    Refuse,
}

impl<S, O> SharedGroup<S, O> {
    pub(super) fn new(group: &str, filter: &str) -> Self {
        Self {
            name: Arc::new(ShareName { group: group.into(), filter: filter.into() }),
            members: RwLock::new(Roster::default()),
            turn: AtomicUsize::new(0),
        }
    }

    /// The group and the filter of `$share/group/filter`; what a message carries that was sent by way of this group.
    pub fn name(&self) -> &Arc<ShareName> {
        &self.name
    }

    pub fn len(&self) -> usize {
        self.members.read().len()
    }

    /// True for a group whose last member left while a route still held it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S: Clone + Eq + Hash, O: Clone> SharedGroup<S, O> {
    /// The member to send to: the first from the starting point that `fit` takes, else the first it reserves.
    ///
    /// `fit` sees each member at most once and runs under the group's read lock: it must be quick and must not call
    /// the router. `None` when the group is empty or every member was refused.
    pub fn pick(&self, choice: Choice, mut fit: impl FnMut(&Match<S, O>) -> Fit) -> Option<Match<S, O>> {
        let members = self.members.read();
        let len = members.len();
        if len == 0 {
            return None;
        }
        let start = match choice {
            Choice::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % len,
            Choice::Random(number) => scale(number, len),
            Choice::Hash(hash) => jump_hash(hash, len),
        };
        let mut reserve = None;
        for skipped in 0..len {
            let Some(member) = members.at((start + skipped) % len) else { break };
            match fit(member) {
                Fit::Take => {
                    // The members passed over have had their turn, or the next one would get theirs as well.
                    if choice == Choice::RoundRobin && skipped > 0 {
                        self.turn.fetch_add(skipped, Ordering::Relaxed);
                    }
                    return Some(member.clone());
                }
                Fit::Reserve => reserve = reserve.or(Some(member)),
                Fit::Refuse => {}
            }
        }
        reserve.cloned()
    }

    /// A member by itself, if it still is one.
    pub fn member(&self, subscriber: &S) -> Option<Match<S, O>> {
        self.members.read().find(subscriber).cloned()
    }

    pub(super) fn contains(&self, subscriber: &S) -> bool {
        self.members.read().contains(subscriber)
    }

    pub(super) fn insert(&self, subscriber: S, options: O) -> Inserted {
        self.members.write().insert(subscriber, options)
    }

    pub(super) fn remove(&self, subscriber: &S) -> Option<Match<S, O>> {
        self.members.write().remove(subscriber)
    }
}

/// Maps a number uniformly to `0..len` by its high bits.
fn scale(number: u64, len: usize) -> usize {
    ((u128::from(number) * len as u128) >> 64) as usize
}

/// Jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014): a bucket in
/// `0..len` in O(log len) steps; going from len to len + 1 buckets moves 1/(len + 1) of the keys, all to the new one.
fn jump_hash(mut key: u64, len: usize) -> usize {
    let mut bucket = 0;
    let mut next = 0;
    while next < len {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * step) as usize;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_of(members: u32) -> SharedGroup<u32, ()> {
        let group = SharedGroup::new("g", "a/b");
        for member in 0..members {
            group.insert(member, ());
        }
        group
    }

    fn pick(group: &SharedGroup<u32, ()>, choice: Choice) -> Option<u32> {
        group.pick(choice, |_| Fit::Take).map(|member| member.subscriber)
    }

    #[test]
    fn round_robin_serves_members_equally() {
        let group = group_of(3);
        let picked = (0..6).map(|_| pick(&group, Choice::RoundRobin).unwrap()).collect::<Vec<_>>();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn round_robin_stays_fair_when_a_member_is_skipped() {
        let group = group_of(4);
        let mut counts = [0; 4];
        for _ in 0..300 {
            let member =
                group.pick(Choice::RoundRobin, |member| if member.subscriber == 1 { Fit::Refuse } else { Fit::Take });
            counts[member.unwrap().subscriber as usize] += 1;
        }
        assert_eq!(counts, [100, 0, 100, 100]);
    }

    #[test]
    fn random_numbers_reach_every_member() {
        let group = group_of(4);
        let picked = (0..4).map(|quarter| pick(&group, Choice::Random(quarter << 62)).unwrap()).collect::<Vec<_>>();
        assert_eq!(picked, [0, 1, 2, 3]);
        assert_eq!(pick(&group, Choice::Random(u64::MAX)), Some(3));
    }

    #[test]
    fn a_hash_keeps_its_member_when_others_come_and_go() {
        let group = group_of(100);
        let before = (0..1000).map(|hash| pick(&group, Choice::Hash(hash)).unwrap()).collect::<Vec<_>>();
        assert_eq!(before, (0..1000).map(|hash| pick(&group, Choice::Hash(hash)).unwrap()).collect::<Vec<_>>());
        group.insert(100, ());
        group.remove(&7);
        let after = (0..1000).map(|hash| pick(&group, Choice::Hash(hash)).unwrap());
        let moved = before.iter().zip(after).filter(|(before, after)| **before != *after).count();
        assert!(moved < 60, "{moved} of 1000 moved");
    }

    #[test]
    fn hashes_spread_over_members() {
        let group = group_of(10);
        let mut counts = [0; 10];
        for hash in 0..10_000u64 {
            counts[pick(&group, Choice::Hash(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15))).unwrap() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn takes_a_reserve_only_when_nobody_else_will() {
        let group = group_of(3);
        let local = |local: Option<u32>| {
            group.pick(
                Choice::RoundRobin,
                |member| if Some(member.subscriber) == local { Fit::Take } else { Fit::Reserve },
            )
        };
        assert!((0..6).all(|_| local(Some(2)).unwrap().subscriber == 2));
        assert!(local(None).is_some());
        assert_eq!(group.pick(Choice::RoundRobin, |_| Fit::Refuse), None);
    }

    #[test]
    fn asks_each_of_ten_thousand_members_at_most_once() {
        let group = group_of(10_000);
        let mut asked = 0;
        assert_eq!(
            group.pick(Choice::Hash(42), |_| {
                asked += 1;
                Fit::Refuse
            }),
            None
        );
        assert_eq!(asked, 10_000);
        for member in 0..10_000 {
            assert!(group.remove(&member).is_some());
        }
        assert_eq!(pick(&group, Choice::RoundRobin), None);
    }
}
