//! SM3 and SM4 against the standards' examples and against other implementations, every backend in turn.
//!
//! `SM_ACCEL_ROUNDS=long` tries every length from 0 to 4096; without it every length up to 260 and a stride of those above.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod corpus;
mod sm3;
mod sm4;

/// Lengths of messages to try.
fn lengths() -> Vec<usize> {
    if std::env::var_os("SM_ACCEL_ROUNDS").is_some_and(|rounds| rounds == "long") {
        return (0..=4096).collect();
    }
    (0..=260).chain((261..=4096).step_by(97)).chain([511, 512, 513, 1023, 1024, 1025, 2048, 4095, 4096]).collect()
}

/// A fixed sequence that looks random (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Cuts a message into pieces, some of them empty.
    fn pieces<'a>(&mut self, mut message: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !message.is_empty() {
            let most = [3, 20, 70, 300, 2000][self.below(5)];
            let (piece, rest) = message.split_at(self.below(most).min(message.len()));
            pieces.push(piece);
            message = rest;
        }
        pieces
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
