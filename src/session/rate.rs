//! A token bucket: how fast something may come, with time as an argument.

use super::Millis;

/// Lets `amount` through in each `per` milliseconds on average, and `burst` at once after a silence.
///
/// What has already come is always taken; a bucket in debt says how long to wait before the next. So a peer is slowed down, and
/// nothing of it is lost.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    amount: u64,
    per: Millis,
    burst: u64,
    /// Tokens times `per`, so that refilling is exact. Below zero is debt.
    level: i128,
    updated: Millis,
}

impl TokenBucket {
    /// A full bucket. `amount` and `per` are at least 1.
    pub fn new(amount: u64, per: Millis, burst: u64, now: Millis) -> TokenBucket {
        let per = per.max(1);
        let level = i128::from(burst).saturating_mul(i128::from(per));
        TokenBucket { amount: amount.max(1), per, burst, level, updated: now }
    }

    /// Takes `tokens` and returns how long to wait before the next are taken: 0 while there are some left.
    pub fn take(&mut self, tokens: u64, now: Millis) -> Millis {
        let elapsed = now.saturating_sub(self.updated);
        self.updated = self.updated.max(now);
        let refilled = self.level.saturating_add(i128::from(elapsed).saturating_mul(i128::from(self.amount)));
        self.level = refilled.min(i128::from(self.burst).saturating_mul(i128::from(self.per)));
        self.level = self.level.saturating_sub(i128::from(tokens).saturating_mul(i128::from(self.per)));
        if self.level >= 0 {
            return 0;
        }
        let amount = i128::from(self.amount);
        Millis::try_from(self.level.saturating_neg().saturating_add(amount - 1) / amount).unwrap_or(Millis::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(10, 1000, 3, 0);
        assert_eq!([bucket.take(1, 0), bucket.take(1, 0), bucket.take(1, 0)], [0, 0, 0]);
        assert_eq!(bucket.take(1, 0), 100);
        assert_eq!(bucket.take(1, 100), 100);
        assert_eq!(bucket.take(1, 1_000_000), 0);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing_away() {
        let mut bucket = TokenBucket::new(1, 1000, 1, 5000);
        assert_eq!(bucket.take(1, 5000), 0);
        assert_eq!(bucket.take(1, 4000), 1000);
        assert_eq!(bucket.take(1, 5000), 2000);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut bucket = TokenBucket::new(u64::MAX, u64::MAX, u64::MAX, 0);
        assert_eq!(bucket.take(u64::MAX, u64::MAX), 0);
        bucket.take(u64::MAX, u64::MAX);
    }

    proptest! {
        /// Whoever waits as told never gets more than the burst and what the time brings.
        #[test]
        fn no_more_passes_than_the_rate_and_one_burst(
            amount in 1u64..1000, per in 1u64..10_000, burst in 1u64..1000,
            steps in prop::collection::vec((1u64..50, 0u64..100), 1..200),
        ) {
            let mut bucket = TokenBucket::new(amount, per, burst, 0);
            let (mut now, mut passed, mut last) = (0, 0u64, 0);
            for (tokens, pause) in steps {
                now += pause;
                passed += tokens;
                last = tokens;
                now += bucket.take(tokens, now);
            }
            let allowed = u128::from(burst) + u128::from(now) * u128::from(amount) / u128::from(per);
            prop_assert!(u128::from(passed - last) <= allowed, "{passed} of {allowed}");
        }
    }
}
