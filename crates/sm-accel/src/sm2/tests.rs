//! SM2 by known answers and against other implementations, on each backend in turn.

mod differential;
mod known_answers;
mod nonces;
mod refusals;
mod timing;

use super::*;
use crate::sm3::digest;

/// How often a test with random numbers goes round: `usual`, or what `SM_ACCEL_ROUNDS` says.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("SM_ACCEL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// A reproducible sequence: digests of a seed and a count.
pub(crate) struct Numbers([u8; 8], u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.to_be_bytes(), 0)
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.1 += 1;
        digest(&[self.0, self.1.to_be_bytes()].concat())
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub(crate) fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}
