//! Moments at which parked sessions need attention: pure, so that the order and the bounds can be tested without a clock.

use crate::session::Millis;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A queue of deadlines, earliest first. Entries are never removed early: whoever receives one checks whether it still holds.
#[derive(Debug)]
pub struct Deadlines<T> {
    heap: BinaryHeap<Entry<T>>,
    next_order: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Millis,
    /// Of two that are due at once, the one that was added first comes first.
    order: u64,
    item: T,
}

impl<T> Deadlines<T> {
    pub fn new() -> Deadlines<T> {
        Deadlines { heap: BinaryHeap::new(), next_order: 0 }
    }

    /// Adds an entry and says whether it is now the earliest one.
    pub fn push(&mut self, at: Millis, item: T) -> bool {
        let earliest = self.next().is_none_or(|next| at < next);
        let order = self.next_order;
        self.next_order = order.wrapping_add(1);
        self.heap.push(Entry { at, order, item });
        earliest
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Drops the entries for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.heap.retain(|entry| keep(&entry.item));
    }

    /// When the earliest entry is due.
    pub fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the earliest entry if it is due.
    pub fn pop_due(&mut self, now: Millis) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.item)
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first; the earliest deadline is the greatest.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_what_is_due_earliest_first() {
        let mut deadlines = Deadlines::new();
        assert!(deadlines.push(30, "c"));
        assert!(deadlines.push(10, "a"));
        assert!(!deadlines.push(20, "b"));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(20), Some("a"));
        assert_eq!(deadlines.pop_due(20), Some("b"));
        assert_eq!(deadlines.pop_due(20), None);
        assert_eq!(deadlines.next(), Some(30));
    }

    #[test]
    fn what_is_due_at_once_keeps_its_order() {
        let mut deadlines = Deadlines::new();
        for item in 0..100 {
            deadlines.push(5, item);
        }
        assert!((0..100).all(|item| deadlines.pop_due(5) == Some(item)));
    }

    #[test]
    fn forgets_what_is_not_kept() {
        let mut deadlines = Deadlines::new();
        for at in 0..100 {
            deadlines.push(at, at);
        }
        deadlines.retain(|at| at % 10 == 0);
        assert_eq!(deadlines.len(), 10);
        assert_eq!(deadlines.pop_due(100), Some(0));
        assert_eq!(deadlines.pop_due(100), Some(10));
    }
}
