//! The field of p = 2^256 - 2^224 - 2^96 + 2^64 - 1 (GB/T 32918.5), in Montgomery form with R = 2^256.

#[cfg(target_arch = "x86_64")]
pub(crate) mod adx;
pub(crate) mod portable;
#[cfg(test)]
mod tests;

use super::curve::{Affine, Jacobian};
use super::multiply::{COMB_ROW, WINDOW};
use super::words::{adc, barrier, equal_mask, from_be_bytes, sbb, to_be_bytes};

/// p, lowest word first.
pub(crate) const P: [u64; 4] =
    [0xffff_ffff_ffff_ffff, 0xffff_ffff_0000_0000, 0xffff_ffff_ffff_ffff, 0xffff_fffe_ffff_ffff];

/// R^2 mod p, which takes an integer into Montgomery form.
const R2: Fe = Fe([0x0000_0002_0000_0003, 0x0000_0002_ffff_ffff, 0x0000_0001_0000_0001, 0x0000_0004_0000_0002]);

/// An element in Montgomery form: `x * R mod p`, always less than p, lowest word first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zeroize::Zeroize)]
#[repr(C)]
pub(crate) struct Fe(pub(crate) [u64; 4]);

/// The operations that have a form for certain processors. All forms give the same words.
pub(crate) trait Arith: Copy + 'static {
    fn mul(a: &Fe, b: &Fe) -> Fe;
    fn square(a: &Fe) -> Fe;
    fn add(a: &Fe, b: &Fe) -> Fe;
    fn sub(a: &Fe, b: &Fe) -> Fe;

    /// The multiple at `magnitude` in a row that begins at 1, or (0, 0) for 0. Reads the whole row whatever the magnitude.
    #[inline]
    fn pick(row: &[Affine; COMB_ROW], magnitude: u64) -> Affine {
        let mut found = Affine::default();
        for (position, point) in (1..).zip(row) {
            let mask = equal_mask(position, magnitude);
            found = Affine { x: found.x.select(&point.x, mask), y: found.y.select(&point.y, mask) };
        }
        found
    }

    /// The same in Jacobian coordinates, with z = 0 for 0.
    #[inline]
    fn pick_jacobian(table: &[Jacobian; WINDOW], magnitude: u64) -> Jacobian {
        let mut found = Jacobian::default();
        for (position, point) in (1..).zip(table) {
            found = found.select(point, equal_mask(position, magnitude));
        }
        found
    }

    #[inline(always)]
    fn double(a: &Fe) -> Fe {
        Self::add(a, a)
    }

    /// `a` squared `n` times.
    #[inline]
    fn square_times(a: &Fe, n: u32) -> Fe {
        let mut x = *a;
        for _ in 0..n {
            x = Self::square(&x);
        }
        x
    }

    /// 1/a, or 0 for 0, as a^(p - 2). The chain is the same for every `a`.
    fn invert(a: &Fe) -> Fe {
        // p - 2 in binary: 31 ones, a zero, 128 ones, 32 zeros, 62 ones, then 01.
        let x2 = Self::mul(&Self::square(a), a);
        let x4 = Self::mul(&Self::square_times(&x2, 2), &x2);
        let x6 = Self::mul(&Self::square_times(&x4, 2), &x2);
        let x12 = Self::mul(&Self::square_times(&x6, 6), &x6);
        let x24 = Self::mul(&Self::square_times(&x12, 12), &x12);
        let x30 = Self::mul(&Self::square_times(&x24, 6), &x6);
        let x31 = Self::mul(&Self::square(&x30), a);
        let x32 = Self::mul(&Self::square(&x31), a);
        let x62 = Self::mul(&Self::square_times(&x32, 30), &x30);
        let mut t = Self::mul(&Self::square_times(&x31, 33), &x32);
        for _ in 0..3 {
            t = Self::mul(&Self::square_times(&t, 32), &x32);
        }
        let t = Self::mul(&Self::square_times(&t, 94), &x62);
        Self::mul(&Self::square_times(&t, 2), a)
    }

    /// An integer less than p into Montgomery form.
    #[inline]
    fn enter(integer: [u64; 4]) -> Fe {
        Self::mul(&Fe(integer), &R2)
    }

    /// Out of Montgomery form.
    #[inline]
    fn leave(a: &Fe) -> [u64; 4] {
        Self::mul(a, &Fe([1, 0, 0, 0])).0
    }

    /// The element that 32 bytes, the highest first, say; `None` from p up.
    fn decode(bytes: &[u8; 32]) -> Option<Fe> {
        let words = from_be_bytes(bytes);
        below_p(words).then(|| Self::enter(words))
    }

    fn encode(a: &Fe) -> [u8; 32] {
        to_be_bytes(Self::leave(a))
    }
}

/// Whether an integer is less than p. Not for secrets: the answer is branched on.
pub(crate) fn below_p(words: [u64; 4]) -> bool {
    let borrow = words.iter().zip(&P).fold(0, |borrow, (&a, &p)| sbb(a, p, borrow).1);
    borrow == 1
}

impl Fe {
    pub(crate) const ZERO: Fe = Fe([0; 4]);
    /// R mod p.
    pub(crate) const ONE: Fe = Fe([1, 0xffff_ffff, 0, 0x1_0000_0000]);

    /// All ones if this is zero, else zero.
    #[inline(always)]
    pub(crate) fn zero_mask(&self) -> u64 {
        let [a, b, c, d] = self.0;
        let any = a | b | c | d;
        barrier(((any | any.wrapping_neg()) >> 63).wrapping_sub(1))
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.zero_mask() != 0
    }

    /// `other` where the mask is all ones, `self` where it is zero.
    #[inline(always)]
    pub(crate) fn select(&self, other: &Fe, mask: u64) -> Fe {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Fe([a ^ (mask & (a ^ e)), b ^ (mask & (b ^ f)), c ^ (mask & (c ^ g)), d ^ (mask & (d ^ h))])
    }

    /// Takes p once from the value with that carry above it, if that leaves no less than zero.
    #[inline(always)]
    fn less_p(self, carry: u64) -> Fe {
        let [a, b, c, d] = self.0;
        let (w, borrow) = sbb(a, P[0], 0);
        let (x, borrow) = sbb(b, P[1], borrow);
        let (y, borrow) = sbb(c, P[2], borrow);
        let (z, borrow) = sbb(d, P[3], borrow);
        let (_, borrow) = sbb(carry, 0, borrow);
        Fe([w, x, y, z]).select(&self, barrier(0u64.wrapping_sub(borrow)))
    }

    /// Half of it.
    #[inline(always)]
    pub(crate) fn halve(&self) -> Fe {
        let [a, b, c, d] = self.0;
        let odd = barrier(0u64.wrapping_sub(a & 1));
        let (a, carry) = adc(a, P[0] & odd, 0);
        let (b, carry) = adc(b, P[1] & odd, carry);
        let (c, carry) = adc(c, P[2] & odd, carry);
        let (d, carry) = adc(d, P[3] & odd, carry);
        Fe([a >> 1 | b << 63, b >> 1 | c << 63, c >> 1 | d << 63, d >> 1 | carry << 63])
    }
}
