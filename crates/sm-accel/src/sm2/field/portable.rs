//! Arithmetic modulo p in plain Rust, for every processor.

use super::super::words::mac;
use super::{Arith, Fe, P, adc, barrier, sbb};

/// For every processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

/// The four upper words of a product whose four lower words are reduced away; less than p.
#[inline(always)]
fn reduce(t: [u64; 8]) -> Fe {
    let [t0, t1, t2, t3, u0, u1, u2, u3] = t;
    let mut low = [t0, t1, t2, t3];
    for _ in 0..4 {
        // -1/p = 1 mod 2^64, so the lowest word is the quotient m; m * p / 2^64 is m * (2^192 - 2^160 - 2^32 + 1) after that word is
        // cancelled. What remains fits in four words, so carries out of the last are those of the way there and cancel.
        let [m, a, b, c] = low;
        let (down, up) = (m << 32, m >> 32);
        let (a, borrow) = sbb(a, down, 0);
        let (b, borrow) = sbb(b, up, borrow);
        let (c, borrow) = sbb(c, down, borrow);
        let (d, _) = sbb(m, up, borrow);
        let (a, carry) = adc(a, m, 0);
        let (b, carry) = adc(b, 0, carry);
        let (c, carry) = adc(c, 0, carry);
        let (d, _) = adc(d, 0, carry);
        low = [a, b, c, d];
    }
    let [a, b, c, d] = low;
    let (a, carry) = adc(a, u0, 0);
    let (b, carry) = adc(b, u1, carry);
    let (c, carry) = adc(c, u2, carry);
    let (d, carry) = adc(d, u3, carry);
    Fe([a, b, c, d]).less_p(carry)
}

impl Arith for Portable {
    #[inline]
    fn mul(a: &Fe, b: &Fe) -> Fe {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
        let (t0, c) = mac(0, a0, b0, 0);
        let (t1, c) = mac(0, a1, b0, c);
        let (t2, c) = mac(0, a2, b0, c);
        let (t3, t4) = mac(0, a3, b0, c);
        let (t1, c) = mac(t1, a0, b1, 0);
        let (t2, c) = mac(t2, a1, b1, c);
        let (t3, c) = mac(t3, a2, b1, c);
        let (t4, t5) = mac(t4, a3, b1, c);
        let (t2, c) = mac(t2, a0, b2, 0);
        let (t3, c) = mac(t3, a1, b2, c);
        let (t4, c) = mac(t4, a2, b2, c);
        let (t5, t6) = mac(t5, a3, b2, c);
        let (t3, c) = mac(t3, a0, b3, 0);
        let (t4, c) = mac(t4, a1, b3, c);
        let (t5, c) = mac(t5, a2, b3, c);
        let (t6, t7) = mac(t6, a3, b3, c);
        reduce([t0, t1, t2, t3, t4, t5, t6, t7])
    }

    #[inline]
    fn square(a: &Fe) -> Fe {
        Self::mul(a, a)
    }

    #[inline(always)]
    fn add(a: &Fe, b: &Fe) -> Fe {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
        let (t0, carry) = adc(a0, b0, 0);
        let (t1, carry) = adc(a1, b1, carry);
        let (t2, carry) = adc(a2, b2, carry);
        let (t3, carry) = adc(a3, b3, carry);
        Fe([t0, t1, t2, t3]).less_p(carry)
    }

    #[inline(always)]
    fn sub(a: &Fe, b: &Fe) -> Fe {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
        let (t0, borrow) = sbb(a0, b0, 0);
        let (t1, borrow) = sbb(a1, b1, borrow);
        let (t2, borrow) = sbb(a2, b2, borrow);
        let (t3, borrow) = sbb(a3, b3, borrow);
        let mask = barrier(0u64.wrapping_sub(borrow));
        let (t0, carry) = adc(t0, P[0] & mask, 0);
        let (t1, carry) = adc(t1, P[1] & mask, carry);
        let (t2, carry) = adc(t2, P[2] & mask, carry);
        let (t3, _) = adc(t3, P[3] & mask, carry);
        Fe([t0, t1, t2, t3])
    }
}
