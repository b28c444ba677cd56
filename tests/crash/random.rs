//! Numbers that a seed repeats: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// `CRASH_SEED`, or another one each time.
    pub fn seed() -> u64 {
        match std::env::var("CRASH_SEED") {
            Ok(text) => text.parse().expect("CRASH_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        }
    }

    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Another source, whose numbers do not depend on how often this one is asked later.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
