//! How long publishers wait for one client that takes its messages slowly. Pure: time is an argument.
//!
//! ```text
//!                 all of it is used up
//!   ┌── waited for ───────────────────────▶ given up ──┐
//!   │      ▲                                    │      │ keeps pace again: half of it is earned
//!   └──────┘◀───────────────────────────────────┴──────┘ or: its outbox is not crowded any more
//! ```

use crate::session::Millis;

/// A client that takes this many messages a second, or these bytes, is waited for without end.
const MESSAGES_PER_SECOND: u64 = 100;
const BYTES_PER_SECOND: u64 = 256 * 1024;

/// A bucket of milliseconds: waiting takes out of it, and what the client takes puts in.
#[derive(Debug)]
pub(super) struct Patience {
    most: Millis,
    left: Millis,
    /// Since when time counts; `None` while the client keeps nobody waiting.
    since: Option<Millis>,
    given_up: bool,
}

impl Patience {
    /// `most` is the longest wait for a client that takes nothing; with 0 nobody waits for a client.
    pub fn new(most: Millis) -> Patience {
        Patience { most, left: most, since: None, given_up: most == 0 }
    }

    /// Whether nobody waits for the client.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether time counts now, and so what the client takes.
    pub fn counts(&self) -> bool {
        self.since.is_some()
    }

    /// Takes out the time that has passed, and puts in what the client took in it; `true` if that was the end of the patience.
    pub fn spend(&mut self, messages: usize, bytes: usize, now: Millis) -> bool {
        let Some(since) = self.since else { return false };
        self.left = self.left.saturating_sub(now.saturating_sub(since));
        self.since = Some(now);
        let over = self.left == 0 && !self.given_up;
        self.given_up |= over;
        let earned = messages as u64 * 1000 / MESSAGES_PER_SECOND + bytes as u64 * 1000 / BYTES_PER_SECOND;
        self.left = self.left.saturating_add(earned).min(self.most);
        if self.given_up && self.most > 0 && self.left >= self.most.div_ceil(2) {
            self.given_up = false;
        }
        over && self.given_up
    }

    /// Time counts from now on if the client `keeps` somebody waiting; it goes on counting if it did.
    pub fn count(&mut self, keeps: bool, now: Millis) {
        self.since = keeps.then_some(self.since.unwrap_or(now));
    }

    /// The client has caught up.
    pub fn restore(&mut self) {
        *self = Patience::new(self.most);
    }

    /// When to look again whether it is at an end.
    pub fn until(&self, now: Millis) -> Millis {
        self.since.unwrap_or(now).saturating_add(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes `messages` with `bytes` together each time, so many milliseconds apart, for ten seconds: when it is given up.
    fn given_up_at(messages: usize, bytes: usize, apart: Millis) -> Option<Millis> {
        let mut patience = Patience::new(500);
        patience.count(true, 0);
        (1..10_000).find(|now| match now % apart {
            0 => patience.spend(messages, bytes, *now),
            _ => patience.spend(0, 0, *now),
        })
    }

    #[test]
    fn a_client_that_keeps_pace_is_waited_for_without_end_and_another_for_a_while() {
        assert_eq!(given_up_at(1, 100, 10), None, "100 messages a second");
        assert_eq!(given_up_at(32, 3_200, 300), None, "a window for each round trip of 300 ms");
        assert_eq!(given_up_at(1, 1 << 20, 400), None, "few, but large");
        assert_eq!(given_up_at(1, 100, 50), Some(620), "20 messages a second");
        assert_eq!(given_up_at(0, 0, 10), Some(500));
        assert_eq!(given_up_at(64, 6_400, 600), Some(500), "longer than the patience without anything");
    }

    #[test]
    fn a_client_that_was_given_up_earns_its_trust_by_keeping_pace() {
        let mut patience = Patience::new(500);
        patience.count(true, 0);
        assert!(patience.spend(0, 0, 1_000));
        for time in (1_050..5_000).step_by(50) {
            patience.spend(1, 100, time);
            assert!(patience.is_given_up(), "too slow still, {time}");
        }
        patience.spend(30, 3_000, 5_010);
        assert!(!patience.is_given_up());
    }

    #[test]
    fn time_in_which_nobody_is_kept_waiting_does_not_count() {
        let mut patience = Patience::new(500);
        assert!(!patience.spend(0, 0, 10_000));
        patience.count(true, 10_000);
        assert_eq!(patience.until(10_000), 10_500);
        patience.count(true, 10_400);
        assert_eq!(patience.until(10_400), 10_500, "it goes on counting");
        assert!(patience.spend(0, 0, 10_500));
        patience.restore();
        assert!(!patience.is_given_up());
    }

    #[test]
    fn without_patience_nobody_waits() {
        let mut patience = Patience::new(0);
        patience.count(true, 0);
        patience.spend(1000, 1 << 20, 10);
        patience.restore();
        assert!(patience.is_given_up());
    }
}
