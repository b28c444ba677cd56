//! A key stream from a counter, kept in small stock so that data may come in pieces of any length.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{BLOCK_LENGTH, Block, Key};
use crate::inout::InOut;

/// Sixteen blocks cost the wide backends no more than one.
const STOCK: usize = 16 * BLOCK_LENGTH;

/// How far counting carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carry {
    /// Within the last 32 bits, as GCM counts.
    Word,
    /// Through the whole block, as CTR counts.
    Block,
}

/// A place in a key stream. Erased when dropped.
#[derive(Clone)]
pub(super) struct Stream {
    /// Of the next block that is not in stock.
    counter: u128,
    carry: Carry,
    stock: [u8; STOCK],
    /// What of the stock was used, and how much of it there is.
    used: usize,
    filled: usize,
}

impl Stream {
    pub(super) fn new(counter: &Block, carry: Carry) -> Stream {
        Stream { counter: u128::from_be_bytes(*counter), carry, stock: [0; STOCK], used: 0, filled: 0 }
    }

    /// The next block of the stream itself. Only at the beginning of a block.
    pub(super) fn next_block(&mut self, key: &Key) -> Block {
        let mut block = [0; BLOCK_LENGTH];
        self.apply(key, InOut::from(block.as_mut_slice()));
        block
    }

    /// Adds the stream to data.
    pub(super) fn apply(&mut self, key: &Key, data: InOut<'_>) {
        let rest = self.apply_stock(data);
        let whole = rest.len() - rest.len() % STOCK;
        let (whole, rest) = rest.split_at(whole);
        self.apply_whole(key, whole);
        if !rest.is_empty() {
            self.refill(key);
            self.apply_stock(rest);
        }
    }

    /// Bytes in stock. After them a block begins.
    pub(super) fn stock(&self) -> usize {
        self.filled - self.used
    }

    /// As far as the stock reaches.
    fn apply_stock<'a>(&mut self, data: InOut<'a>) -> InOut<'a> {
        let stock = self.stock.split_at(self.filled).0.split_at(self.used).1;
        let (now, later) = data.split_at(stock.len());
        self.used += now.len();
        now.xor(stock);
        later
    }

    fn refill(&mut self, key: &Key) {
        let mut stock = [0; STOCK];
        self.apply_whole(key, InOut::from(stock.as_mut_slice()));
        self.stock = stock;
        self.used = 0;
        self.filled = STOCK;
        stock.zeroize();
    }

    /// Whole blocks, past the stock.
    fn apply_whole(&mut self, key: &Key, data: InOut<'_>) {
        let mut rest = data;
        while !rest.is_empty() {
            let last_word = self.counter as u32;
            let before_wrap = match self.carry {
                Carry::Word => u64::MAX,
                Carry::Block => (1 << 32) - u64::from(last_word),
            };
            let blocks = ((rest.len() / BLOCK_LENGTH) as u64).min(before_wrap);
            let (now, later) = rest.split_at(blocks as usize * BLOCK_LENGTH);
            key.ctr32(&words(self.counter), now);
            self.counter = match self.carry {
                Carry::Word => (self.counter >> 32 << 32) | u128::from(last_word.wrapping_add(blocks as u32)),
                Carry::Block => self.counter.wrapping_add(u128::from(blocks)),
            };
            rest = later;
        }
    }
}

fn words(counter: u128) -> [u32; 4] {
    [(counter >> 96) as u32, (counter >> 64) as u32, (counter >> 32) as u32, counter as u32]
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stock.zeroize();
        self.counter.zeroize();
    }
}

impl ZeroizeOnDrop for Stream {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sm4::Backend;

    /// GCM's counter wraps within its word, as it can if a nonce does not have twelve bytes; CTR's carries on.
    #[test]
    fn counters_wrap_and_carry_as_their_mode_counts() {
        for backend in Backend::available() {
            let key = Key::with_backend(&[5; 16], backend).unwrap();
            for (carry, below) in [(Carry::Word, 40), (Carry::Block, 40), (Carry::Word, 1), (Carry::Block, 300)] {
                let start = 0x0123_4567_89ab_cdef_ffff_ffff_0000_0000 | u128::from(0u32.wrapping_sub(below));
                let mut stream = Stream::new(&start.to_be_bytes(), carry);
                let mut out = vec![0; 600 * 16];
                let (first, second) = out.split_at_mut(3 * 16 + 5);
                stream.apply(&key, InOut::from(first));
                stream.apply(&key, InOut::from(second));
                for (at, block) in (0u32..).zip(out.as_chunks::<16>().0) {
                    let counter = match carry {
                        Carry::Word => (start >> 32 << 32) | u128::from((start as u32).wrapping_add(at)),
                        Carry::Block => start + u128::from(at),
                    };
                    let mut expected = counter.to_be_bytes();
                    key.encrypt_block(&mut expected);
                    assert_eq!(*block, expected, "{backend:?} {carry:?} {at}");
                }
            }
        }
    }
}
