//! The memory that messages take for all sessions together, and the part that each session has of it.
//!
//! A session may come to hold as many bytes as are left for all: dynamic thresholds, after Choudhury and Hahne, IEEE/ACM Transactions on
//! Networking 6(2), 1998. So those that hold most lose first, equally much each, and there is always room for those that hold little.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of each session that are not counted, so that a queue which is nearly empty touches nothing that all sessions share.
const UNCOUNTED: usize = 4 << 10;
/// What is counted of a session changes by multiples of this.
const STEP: usize = 4 << 10;
/// Bytes that a session may hold less than is counted before they are given back.
const SLACK: usize = 4 * STEP;
/// The part of the limit that is kept for sessions whose clients have taken everything.
const RESERVED_PART: usize = 8;
/// The part of what is left that may be under way to one client when half of the limit is held. What is under way cannot be dropped for
/// what comes later, so that most of what is left is for what waits.
const UNDER_WAY_PART: usize = 32;

/// What is left for all sessions.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    counted: AtomicUsize,
}

impl Memory {
    pub const fn new(limit: usize) -> Memory {
        Memory { limit, counted: AtomicUsize::new(0) }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are held.
    pub fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// The bytes that a session may come to hold by a message of `cost` bytes, when it holds `held`.
    pub fn room(&self, held: usize, cost: usize) -> usize {
        if held.saturating_add(cost) <= UNCOUNTED {
            return usize::MAX;
        }
        if held == 0 { self.limit.saturating_sub(self.counted()).max(UNCOUNTED) } else { self.shared_room() }
    }

    /// Bytes that may be under way to one client when another message with QoS 1 or 2 follows.
    pub fn most_under_way(&self) -> usize {
        let half = self.shared() / 2;
        // A connection that has told of no more than what is not counted is not waited for.
        half.saturating_sub(self.counted()).max(self.shared_room() / UNDER_WAY_PART).max(UNCOUNTED)
    }

    fn shared(&self) -> usize {
        self.limit - self.limit / RESERVED_PART
    }

    fn shared_room(&self) -> usize {
        self.shared().saturating_sub(self.counted()).max(UNCOUNTED)
    }
}

/// What is counted of one session.
#[derive(Debug, Default)]
pub(super) struct Part(usize);

impl Part {
    /// The session holds so many bytes now.
    pub fn set(&mut self, held: usize, memory: &Memory) {
        let Part(counted) = self;
        let due = if held <= UNCOUNTED { 0 } else { held.next_multiple_of(STEP) };
        if due > *counted {
            memory.counted.fetch_add(due - *counted, Ordering::Relaxed);
            *counted = due;
        } else if due + SLACK <= *counted || due == 0 && *counted > 0 {
            memory.counted.fetch_sub(*counted - due, Ordering::Relaxed);
            *counted = due;
        }
    }
}

/// Whether so many bytes of a session are counted.
pub(super) fn is_counted(held: usize) -> bool {
    held > UNCOUNTED
}

/// Whether a connection that has told of so many bytes says at once that it holds fewer `now`.
pub fn is_worth_telling(told: usize, now: usize) -> bool {
    is_counted(told) && (!is_counted(now) || now + SLACK <= told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_empty_is_not_counted_and_has_room_whatever_others_hold() {
        let memory = Memory::new(1 << 20);
        let (mut full, mut small) = (Part::default(), Part::default());
        full.set(1 << 20, &memory);
        assert_eq!(memory.counted(), 1 << 20);
        small.set(UNCOUNTED, &memory);
        assert_eq!(memory.counted(), 1 << 20);
        assert_eq!(memory.room(UNCOUNTED - 100, 100), usize::MAX);
        assert_eq!(memory.room(UNCOUNTED - 100, 101), UNCOUNTED);
    }

    #[test]
    fn greedy_sessions_share_equally_and_leave_as_much_and_the_reserve() {
        let memory = Memory::new(8 << 20);
        let mut sessions: Vec<(usize, Part)> = (0..10).map(|_| (0, Part::default())).collect();
        for _ in 0..10_000 {
            for (held, part) in &mut sessions {
                if *held + 1024 <= memory.room(*held, 1024) {
                    *held += 1024;
                    part.set(*held, &memory);
                }
            }
        }
        let (least, most) = sessions.iter().fold((usize::MAX, 0), |(l, m), (held, _)| (l.min(*held), m.max(*held)));
        // Each has as much as is left of seven eighths: (7 MiB - 10 x) = x.
        let fair = (7 << 20) / 11;
        assert!(least + 3 * STEP > fair && most < fair + 3 * STEP, "{least} {most} {fair}");
        assert!(memory.room(0, 1 << 20) >= (1 << 20) + fair - 10 * STEP);
        for (_, part) in &mut sessions {
            part.set(0, &memory);
        }
        assert_eq!(memory.counted(), 0);
    }

    #[test]
    fn what_is_held_a_little_less_is_given_back_later() {
        let memory = Memory::new(1 << 20);
        let mut part = Part::default();
        part.set(5 * STEP, &memory);
        part.set(2 * STEP, &memory);
        assert_eq!(memory.counted(), 5 * STEP);
        part.set(STEP + 1, &memory);
        assert_eq!(memory.counted(), 5 * STEP);
        part.set(UNCOUNTED, &memory);
        assert_eq!(memory.counted(), 0);
    }
}
