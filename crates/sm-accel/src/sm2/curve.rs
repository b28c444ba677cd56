//! The curve y^2 = x^3 - 3x + b over the field of p (GB/T 32918.5): points and their sums.
//!
//! In Jacobian coordinates (x, y, z) is the point (x/z^2, y/z^3), and the point at infinity if z = 0.

use super::field::{Arith, Fe};
use super::words::barrier;

/// The coefficient b, in Montgomery form.
const B: Fe = Fe([0x90d2_3063_2bc0_dd42, 0x71cf_379a_e9b5_37ab, 0x5279_8150_5ea5_1c3c, 0x240f_e188_ba20_e2c8]);

/// The base point G.
pub(crate) const G: Affine = Affine {
    x: Fe([0x6132_8990_f418_029e, 0x3e79_81ed_dca6_c050, 0xd6a1_ed99_ac24_c3c3, 0x9116_7a5e_e1c1_3b05]),
    y: Fe([0xc135_4e59_3c2d_0ddd, 0xc1f5_e578_8d32_95fa, 0x8d4c_fb06_6e2a_48f8, 0x63cd_65d4_81d7_35bd]),
};

/// A point other than infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zeroize::Zeroize)]
#[repr(C)]
pub(crate) struct Affine {
    pub(crate) x: Fe,
    pub(crate) y: Fe,
}

/// Any point.
#[derive(Clone, Copy, Debug, Default, zeroize::Zeroize)]
#[repr(C)]
pub(crate) struct Jacobian {
    pub(crate) x: Fe,
    pub(crate) y: Fe,
    pub(crate) z: Fe,
}

impl Affine {
    pub(crate) fn on_curve<F: Arith>(&self) -> bool {
        let square = F::square(&self.x);
        let cube = F::mul(&square, &self.x);
        let three_x = F::add(&F::double(&self.x), &self.x);
        F::square(&self.y) == F::add(&F::sub(&cube, &three_x), &B)
    }

    /// The point itself where the mask is zero, its negative where it is all ones.
    #[inline(always)]
    pub(crate) fn negate_if<F: Arith>(&self, mask: u64) -> Affine {
        Affine { x: self.x, y: self.y.select(&F::sub(&Fe::ZERO, &self.y), mask) }
    }

    pub(crate) fn to_jacobian(self) -> Jacobian {
        Jacobian { x: self.x, y: self.y, z: Fe::ONE }
    }
}

impl Jacobian {
    /// The point at infinity.
    pub(crate) const INFINITY: Jacobian = Jacobian { x: Fe::ONE, y: Fe::ONE, z: Fe::ZERO };

    /// Twice the point; infinity stays infinity.
    #[inline(always)]
    pub(crate) fn double<F: Arith>(&self) -> Jacobian {
        let y2 = F::double(&self.y);
        let z = F::mul(&y2, &self.z);
        let zz = F::square(&self.z);
        let (m1, m2) = (F::sub(&self.x, &zz), F::add(&self.x, &zz));
        let m = F::mul(&m1, &m2);
        let s = F::square(&y2);
        let m = F::add(&F::double(&m), &m);
        let half = F::square(&s).halve();
        let s = F::mul(&s, &self.x);
        let x = F::sub(&F::square(&m), &F::double(&s));
        let y = F::sub(&F::mul(&m, &F::sub(&s, &x)), &half);
        Jacobian { x, y, z }
    }

    /// The sum where the two differ and neither is infinity, and what tells the other cases: whether the x are equal, and whether the y
    /// are. If both are, the right answer is [`Jacobian::double`]; if only x is, z came out zero, which is right.
    #[inline(always)]
    pub(crate) fn add_distinct<F: Arith>(&self, other: &Jacobian) -> (Jacobian, u64, u64) {
        let (z1z1, z2z2) = (F::square(&self.z), F::square(&other.z));
        let (u1, u2) = (F::mul(&self.x, &z2z2), F::mul(&other.x, &z1z1));
        let s1 = F::mul(&F::mul(&self.y, &other.z), &z2z2);
        let s2 = F::mul(&F::mul(&other.y, &self.z), &z1z1);
        let (h, r) = (F::sub(&u2, &u1), F::sub(&s2, &s1));
        let z = F::mul(&F::mul(&self.z, &other.z), &h);
        (finish::<F>(&u1, &s1, &h, &r, z), h.zero_mask(), r.zero_mask())
    }

    /// As [`Jacobian::add_distinct`] with z = 1 in the second.
    #[inline(always)]
    pub(crate) fn add_affine_distinct<F: Arith>(&self, other: &Affine) -> (Jacobian, u64, u64) {
        let z1z1 = F::square(&self.z);
        let u2 = F::mul(&other.x, &z1z1);
        let s2 = F::mul(&F::mul(&other.y, &self.z), &z1z1);
        let (h, r) = (F::sub(&u2, &self.x), F::sub(&s2, &self.y));
        let z = F::mul(&self.z, &h);
        (finish::<F>(&self.x, &self.y, &h, &r, z), h.zero_mask(), r.zero_mask())
    }

    /// The sum of any two points. Not for secrets: it branches.
    pub(crate) fn add_vartime<F: Arith>(&self, other: &Jacobian) -> Jacobian {
        if self.z.is_zero() {
            return *other;
        }
        if other.z.is_zero() {
            return *self;
        }
        let (sum, same_x, same_y) = self.add_distinct::<F>(other);
        if same_x & same_y != 0 { self.double::<F>() } else { sum }
    }

    /// The sum of any two points. Not for secrets: it branches.
    #[inline(always)]
    pub(crate) fn add_affine_vartime<F: Arith>(&self, other: &Affine) -> Jacobian {
        if self.z.is_zero() {
            return other.to_jacobian();
        }
        let (sum, same_x, same_y) = self.add_affine_distinct::<F>(other);
        if same_x & same_y != 0 { self.double::<F>() } else { sum }
    }

    /// `other` where the mask is all ones, `self` where it is zero.
    #[inline(always)]
    pub(crate) fn select(&self, other: &Jacobian, mask: u64) -> Jacobian {
        Jacobian {
            x: self.x.select(&other.x, mask),
            y: self.y.select(&other.y, mask),
            z: self.z.select(&other.z, mask),
        }
    }

    /// The affine point; (0, 0), which is not on the curve, for infinity.
    pub(crate) fn to_affine<F: Arith>(self) -> Affine {
        let inverse = F::invert(&self.z);
        let square = F::square(&inverse);
        Affine { x: F::mul(&self.x, &square), y: F::mul(&self.y, &F::mul(&square, &inverse)) }
    }
}

/// What both sums have in common: from u1 = x1, s1 = y1 over one denominator, and the differences.
#[inline(always)]
fn finish<F: Arith>(u1: &Fe, s1: &Fe, h: &Fe, r: &Fe, z: Fe) -> Jacobian {
    let hh = F::square(h);
    let hhh = F::mul(&hh, h);
    let v = F::mul(u1, &hh);
    let x = F::sub(&F::sub(&F::square(r), &hhh), &F::double(&v));
    let y = F::sub(&F::mul(r, &F::sub(&v, &x)), &F::mul(s1, &hhh));
    Jacobian { x, y, z }
}

/// The affine forms of points none of which is infinity, with one inversion for all. Not for secrets whose number is one.
pub(crate) fn to_affine_all<F: Arith>(points: &[Jacobian]) -> Vec<Affine> {
    // before[i] is the product of z below i; from the inverse of the whole product each 1/z is peeled off, the last first.
    let mut before = Vec::with_capacity(points.len());
    let mut product = Fe::ONE;
    for point in points {
        before.push(product);
        product = F::mul(&product, &point.z);
    }
    let mut inverse = F::invert(&product);
    let mut found: Vec<Affine> = points
        .iter()
        .zip(&before)
        .rev()
        .map(|(point, before)| {
            let z = F::mul(&inverse, before);
            inverse = F::mul(&inverse, &point.z);
            let square = F::square(&z);
            Affine { x: F::mul(&point.x, &square), y: F::mul(&point.y, &F::mul(&square, &z)) }
        })
        .collect();
    found.reverse();
    found
}

/// Sign and magnitude of the digit of a window: `bits` holds WIDTH bits of the scalar and, lowest, the bit below them (Booth). The mask
/// is all ones for a negative digit; the magnitude is from 0 to 2^(WIDTH - 1).
#[inline(always)]
pub(crate) fn booth<const WIDTH: u32>(bits: u64) -> (u64, u64) {
    let negative = barrier(0u64.wrapping_sub(bits >> WIDTH & 1));
    let mirrored = (1 << (WIDTH + 1)) - 1 - bits;
    let chosen = bits ^ (negative & (bits ^ mirrored));
    (negative, (chosen >> 1) + (chosen & 1))
}

/// A scalar of which windows are taken off, the lowest first.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(crate) struct Windows([u64; 5]);

impl Windows {
    pub(crate) fn new([a, b, c, d]: [u64; 4]) -> Windows {
        Windows([a << 1, b << 1 | a >> 63, c << 1 | b >> 63, d << 1 | c >> 63, d >> 63])
    }

    /// Sign and magnitude of the next digit.
    #[inline(always)]
    pub(crate) fn next<const WIDTH: u32>(&mut self) -> (u64, u64) {
        let [a, b, c, d, e] = self.0;
        let left = 64 - WIDTH;
        self.0 = [
            a >> WIDTH | b << left,
            b >> WIDTH | c << left,
            c >> WIDTH | d << left,
            d >> WIDTH | e << left,
            e >> WIDTH,
        ];
        booth::<WIDTH>(a & ((1 << (WIDTH + 1)) - 1))
    }
}
