//! When something is fetched again: ahead of its end, and after failures less and less often. Each time is shifted at random, so that
//! nodes that began together do not ask together. And how often something that goes on is said.

use std::time::Duration;

use parking_lot::Mutex;

/// Never asked more often than this, whatever an authority writes, in seconds.
const LEAST: i64 = 10;
/// The first pause after a failure, in seconds.
const FIRST_PAUSE: i64 = 5;
/// The longest, in seconds.
const LONGEST_PAUSE: i64 = 300;

/// A pseudo-random share of 1024; nothing depends on its being hard to guess.
fn share() -> i64 {
    let mut bytes = [0; 2];
    // Without randomness there is no jitter, and no harm.
    let _ = getrandom::fill(&mut bytes);
    i64::from(u16::from_le_bytes(bytes) & 1023)
}

/// The time of the next fetch after one that succeeded at `now`, all in unix seconds: after `interval`, or when four fifths to nine
/// tenths of the time to `next_update` are over, if that is sooner.
pub(super) fn after_success(now: i64, interval: Duration, next_update: Option<i64>) -> i64 {
    let interval = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX / 2048);
    let share = share();
    let usual = interval - interval * share / 10_240;
    let ahead = next_update.map(|next| {
        let left = next.saturating_sub(now).max(0);
        left / 10 * 8 + left / 10 * share / 1024
    });
    now.saturating_add(ahead.map_or(usual, |ahead| ahead.min(usual)).max(LEAST))
}

/// The time of the next fetch after `failures` that failed.
pub(super) fn after_failure(now: i64, failures: u32) -> i64 {
    let pause = FIRST_PAUSE.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    now.saturating_add(pause + pause * share() / 4096)
}

/// A line in the log about what may happen with each client: once in five minutes.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<i64>>);

impl Seldom {
    const PAUSE: i64 = 300;

    /// Whether it is said at `now`, in unix seconds. A clock that was set back does not silence it.
    pub(super) fn is_due(&self, now: i64) -> bool {
        let mut said_at = self.0.lock();
        let due = said_at.is_none_or(|at| now < at || now.saturating_sub(at) >= Self::PAUSE);
        if due {
            *said_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_are_ahead_of_the_end_and_never_in_step() {
        let interval = Duration::from_secs(900);
        for _ in 0..100 {
            let usual = after_success(1000, interval, None);
            assert!((1810..=1900).contains(&usual), "{usual}");
            let ahead = after_success(1000, interval, Some(1100));
            assert!((1080..1090).contains(&ahead), "{ahead}");
        }
        assert!((0..20).any(|_| after_success(0, interval, None) != after_success(0, interval, None)));
        assert_eq!(after_success(1000, interval, Some(1000)), 1010);
        assert_eq!(after_success(1000, interval, Some(5)), 1010);
    }

    #[test]
    fn pauses_grow_up_to_five_minutes() {
        let pause = |failures| after_failure(0, failures);
        assert!((5..=6).contains(&pause(1)) && (10..=12).contains(&pause(2)) && (20..=25).contains(&pause(3)));
        assert!((300..=375).contains(&pause(10)) && (300..=375).contains(&pause(u32::MAX)));
    }

    #[test]
    fn what_goes_on_is_said_once_in_five_minutes() {
        let seldom = Seldom::default();
        let said: Vec<i64> = (0..1000).filter(|second| seldom.is_due(10_000 + second)).collect();
        assert_eq!(said, [0, 300, 600, 900]);
        assert!(seldom.is_due(5) && !seldom.is_due(6));
    }
}
