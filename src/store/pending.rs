//! Changes on their way to the committer, and how several changes to one key become one.

use super::disk::{Change, Changes};
use super::key::{Key, SessionId};
use super::row::Row;
use super::{Health, Shared, Ticket};
use parking_lot::RwLockReadGuard;
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::atomic::Ordering;

/// What a change counts besides its row.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) enum Op {
    Put(Key, Row),
    Delete(Key),
    EndSession(SessionId),
}

impl Op {
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Op::Put(_, row) => row.cost(),
                Op::Delete(_) | Op::EndSession(_) => 0,
            }
    }
}

/// What waits for the committer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub ops: Vec<Op>,
    pub bytes: usize,
    /// Of the last change.
    pub ticket: Ticket,
}

/// Changes that come into one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    shared: &'a Shared,
    _gate: RwLockReadGuard<'a, ()>,
    ticket: Ticket,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared) -> Batch<'a> {
        Batch { shared, _gate: shared.gate.read(), ticket: 0 }
    }

    pub fn put(&mut self, key: Key, row: Row) -> Ticket {
        self.submit(Op::Put(key, row))
    }

    pub fn delete(&mut self, key: Key) -> Ticket {
        self.submit(Op::Delete(key))
    }

    pub fn end_session(&mut self, id: SessionId) -> Ticket {
        self.submit(Op::EndSession(id))
    }

    /// Of the last change; 0 if there was none.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    fn submit(&mut self, op: Op) -> Ticket {
        self.ticket = self.shared.submit(op);
        self.ticket
    }
}

impl Shared {
    pub(super) fn submit(&self, op: Op) -> Ticket {
        let cost = op.cost();
        let mut pending = self.pending.lock();
        pending.ticket += 1;
        // After a failure nothing is written any more; the ticket never becomes durable.
        if self.health() != Health::Failed {
            self.pending_bytes.fetch_add(cost, Ordering::Relaxed);
            pending.bytes += cost;
            pending.ops.push(op);
            if pending.ops.len() == 1 {
                self.work.notify_one();
            }
        }
        pending.ticket
    }
}

/// A transaction in the making.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub ended: BTreeSet<SessionId>,
    pub changes: Changes,
}

impl Transaction {
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.changes.is_empty()
    }

    /// What its changes count.
    pub fn cost(&self) -> usize {
        let rows = self.changes.values().filter_map(|change| change.row.as_ref()).map(Row::cost).sum::<usize>();
        rows + OVERHEAD * (self.changes.len() + self.ended.len())
    }

    pub fn add(&mut self, op: Op) {
        match op {
            Op::Put(key, row) => {
                let fresh = match self.changes.get(&key) {
                    Some(change) => change.fresh,
                    // Their numbers are used once.
                    None => matches!(row, Row::Delivery(_) | Row::Delayed(_)),
                };
                self.changes.insert(key, Change { row: Some(row), fresh });
            }
            Op::Delete(key) => {
                if self.changes.get(&key).is_some_and(|change| change.fresh) {
                    self.changes.remove(&key);
                } else {
                    self.changes.insert(key, Change { row: None, fresh: false });
                }
            }
            Op::EndSession(id) => {
                let ranges = [
                    Key::Session(id)..=Key::Session(id),
                    Key::Subscription(id, "".into())..=Key::Subscription(id, LAST.into()),
                    Key::Delivery(id, 0)..=Key::Delivery(id, u64::MAX),
                    Key::Inbound(id, NonZeroU16::MIN)..=Key::Inbound(id, NonZeroU16::MAX),
                ];
                for range in ranges {
                    let gone: Vec<Key> = self.changes.range(range).map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        self.changes.remove(&key);
                    }
                }
                self.ended.insert(id);
            }
        }
    }

    /// Adds what was taken later.
    pub fn absorb(&mut self, later: Transaction) {
        for id in later.ended {
            self.add(Op::EndSession(id));
        }
        self.changes.extend(later.changes);
    }

    /// An attempt to write it failed, and it is not known whether it was written: from now on every deletion counts.
    pub fn written_perhaps(&mut self) {
        for change in self.changes.values_mut() {
            change.fresh = false;
        }
    }
}

/// Greater than every filter: no UTF-8 text has a greater first character.
const LAST: &str = "\u{10ffff}\u{10ffff}";
