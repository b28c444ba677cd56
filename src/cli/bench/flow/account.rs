//! Who got what: gaps, repetitions and disorder of each publisher's sequence, as one subscriber sees it.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::payload::Stamp;

/// Gaps remembered for one publisher; what fills a forgotten gap counts as a duplicate.
const MAX_GAPS: usize = 4096;

/// Publishers that one subscriber tells apart; messages of further ones are only counted.
const MAX_PUBLISHERS: usize = 65_536;

/// The sequence of one publisher.
#[derive(Debug, Default)]
struct Tracker {
    /// The first that is expected: what went before a subscription is not missing.
    first: u64,
    /// One above the highest.
    next: u64,
    distinct: u64,
    duplicates: u64,
    out_of_order: u64,
    /// What was not seen below `next`: start to end, the end not included.
    gaps: BTreeMap<u64, u64>,
}

/// What a subscriber received, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// PUBLISH packets, whatever they were.
    pub received: u64,
    /// Different messages with a sequence number.
    pub distinct: u64,
    /// Messages between the first and the last of a publisher that did not come.
    pub gaps: u64,
    pub duplicates: u64,
    /// Messages that came after a later one of the same publisher.
    pub out_of_order: u64,
    /// Messages that no `shangmq bench` has sent, or of too many publishers.
    pub unsequenced: u64,
}

/// The books of one subscriber.
#[derive(Debug)]
pub(super) struct Books {
    run: u32,
    /// By run and publisher.
    trackers: HashMap<(u32, u32), Tracker>,
    received: u64,
    unsequenced: u64,
}

impl Books {
    /// Books of a subscriber of run `run`, which hears that run's publishers from their first message on.
    pub fn new(run: u32) -> Books {
        Books { run, trackers: HashMap::new(), received: 0, unsequenced: 0 }
    }

    /// Enters a message; gives its stamp if it came from this process.
    pub fn enter(&mut self, payload: &[u8]) -> Option<Stamp> {
        self.received += 1;
        let Some(stamp) = Stamp::read(payload) else {
            self.unsequenced += 1;
            return None;
        };
        let own = stamp.run == self.run;
        let key = (stamp.run, stamp.publisher);
        if let Some(tracker) = self.trackers.get_mut(&key) {
            tracker.enter(stamp.sequence);
        } else if self.trackers.len() < MAX_PUBLISHERS {
            let first = if own { 0 } else { stamp.sequence };
            let tracker = Tracker { first, next: first, ..Tracker::default() };
            self.trackers.entry(key).insert(tracker).get_mut().enter(stamp.sequence);
        } else {
            self.unsequenced += 1;
        }
        own.then_some(stamp)
    }

    /// Messages so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn close(&self) -> Account {
        let mut account = Account { received: self.received, unsequenced: self.unsequenced, ..Account::default() };
        for tracker in self.trackers.values() {
            account.distinct += tracker.distinct;
            account.gaps += (tracker.next - tracker.first).saturating_sub(tracker.distinct);
            account.duplicates += tracker.duplicates;
            account.out_of_order += tracker.out_of_order;
        }
        account
    }
}

impl Account {
    pub fn add(&mut self, other: &Account) {
        self.received += other.received;
        self.distinct += other.distinct;
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.unsequenced += other.unsequenced;
    }
}

impl Tracker {
    fn enter(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
            self.distinct += 1;
        } else if sequence > self.next {
            self.gaps.insert(self.next, sequence);
            if self.gaps.len() > MAX_GAPS {
                self.gaps.pop_first();
            }
            self.next = sequence.saturating_add(1);
            self.distinct += 1;
        } else if self.fill(sequence) {
            self.out_of_order += 1;
            self.distinct += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Takes a number out of the gap it is in.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&start, &end)) = self.gaps.range(..=sequence).next_back() else { return false };
        if sequence >= end {
            return false;
        }
        self.gaps.remove(&start);
        if start < sequence {
            self.gaps.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(sequences: &[(u32, u64)]) -> Account {
        let mut books = Books::new(7);
        for &(publisher, sequence) in sequences {
            books.enter(&Stamp { run: 7, publisher, sequence, nanos: 0 }.to_bytes());
        }
        books.close()
    }

    #[test]
    fn an_unbroken_sequence_is_without_remark() {
        let account = books(&[(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)]);
        assert_eq!(account, Account { received: 5, distinct: 5, ..Account::default() });
    }

    #[test]
    fn what_did_not_come_is_missing_the_first_message_too() {
        let account = books(&[(0, 1), (0, 4)]);
        assert_eq!(account, Account { received: 2, distinct: 2, gaps: 3, ..Account::default() });
    }

    #[test]
    fn what_comes_late_is_out_of_order_and_not_missing() {
        let account = books(&[(0, 0), (0, 5), (0, 3), (0, 1), (0, 2), (0, 4), (0, 6)]);
        assert_eq!(account, Account { received: 7, distinct: 7, out_of_order: 4, ..Account::default() });
    }

    #[test]
    fn what_comes_twice_is_a_duplicate() {
        let account = books(&[(0, 0), (0, 2), (0, 2), (0, 0), (0, 1), (0, 1)]);
        let expected = Account { received: 6, distinct: 3, duplicates: 3, out_of_order: 1, ..Account::default() };
        assert_eq!(account, expected);
    }

    #[test]
    fn publishers_of_other_processes_are_followed_from_their_first_message() {
        let mut books = Books::new(7);
        for sequence in [100, 101, 103] {
            assert_eq!(books.enter(&Stamp { run: 8, publisher: 0, sequence, nanos: 0 }.to_bytes()), None);
        }
        books.enter(b"hello");
        let expected = Account { received: 4, distinct: 3, gaps: 1, unsequenced: 1, ..Account::default() };
        assert_eq!(books.close(), expected);
    }

    #[test]
    fn memory_for_gaps_is_bounded() {
        let mut tracker = Tracker::default();
        for sequence in (0..100_000).step_by(2) {
            tracker.enter(sequence);
        }
        assert_eq!(tracker.gaps.len(), MAX_GAPS);
        assert_eq!(tracker.distinct, 50_000);
    }
}
