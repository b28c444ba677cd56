//! Multiples of points: of the base point by a comb, of any point by windows, both in constant time; and sums of the two for
//! verification, where everything is public and time may vary.

use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::curve::{Affine, G, Jacobian, Windows, to_affine_all};
use super::field::{Arith, Fe};
use super::scalar::Scalar;
use super::words::equal_mask;

/// Bits of a digit of the comb.
const COMB_WIDTH: u32 = 6;
/// Digits of the comb: 256 bits and the carry out of the last digit.
const COMB_ROWS: usize = 43;
/// Multiples in a row: 1 to 2^(COMB_WIDTH - 1).
pub(crate) const COMB_ROW: usize = 32;
/// Bits of a digit of any other point, and how many digits there are.
const WINDOW_WIDTH: u32 = 5;
const WINDOWS: usize = 52;
/// Multiples of any other point: 1 to 2^(WINDOW_WIDTH - 1).
pub(crate) const WINDOW: usize = 16;
/// Bits of the digits in verification of the base point and of a key that is not prepared.
const BASE_NAF: u32 = 8;
const KEY_NAF: u32 = 5;

/// For one point P the multiples j * 64^i * P for i below 43 and j from 1 to 32: 86 KiB.
#[derive(Debug)]
pub(crate) struct Comb(Vec<[Affine; COMB_ROW]>);

impl Comb {
    pub(crate) fn new<F: Arith>(point: &Affine) -> Comb {
        let mut base = point.to_jacobian();
        let mut multiples = Vec::with_capacity(COMB_ROWS * COMB_ROW);
        for _ in 0..COMB_ROWS {
            let mut multiple = base;
            for _ in 0..COMB_ROW {
                multiples.push(multiple);
                multiple = multiple.add_vartime::<F>(&base);
            }
            for _ in 0..COMB_WIDTH {
                base = base.double::<F>();
            }
        }
        Comb(to_affine_all::<F>(&multiples).as_chunks().0.to_vec())
    }

    /// `scalar * P` in constant time: each row is read whole, whatever the digit. Infinity only for 0.
    pub(crate) fn multiply<F: Arith>(&self, scalar: &Scalar) -> Jacobian {
        let mut windows = Windows::new(scalar.0);
        let mut sum = Jacobian::INFINITY;
        for row in &self.0 {
            let (negative, magnitude) = windows.next::<COMB_WIDTH>();
            let term = F::pick(row, magnitude).negate_if::<F>(negative);
            // The sum below digit i is less than 0.51 * 64^i in magnitude and its term at least 64^i, so they are the same point or
            // opposite only modulo n: at the last digit, for a scalar that is not less than n. The other cases are chosen here.
            let (next, _, _) = sum.add_affine_distinct::<F>(&term);
            let next = next.select(&term.to_jacobian(), sum.z.zero_mask());
            sum = next.select(&sum, equal_mask(magnitude, 0));
        }
        sum
    }

    /// Adds `scalar * P`, in a time that tells the scalar.
    pub(crate) fn add_vartime<F: Arith>(&self, scalar: &Scalar, mut sum: Jacobian) -> Jacobian {
        let mut windows = Windows::new(scalar.0);
        for row in &self.0 {
            let (negative, magnitude) = windows.next::<COMB_WIDTH>();
            if let Some(term) = magnitude.checked_sub(1).and_then(|index| row.get(index as usize)) {
                sum = sum.add_affine_vartime::<F>(&term.negate_if::<F>(negative));
            }
        }
        sum
    }
}

/// The comb of G, made at its first use.
pub(crate) fn base_comb<F: Arith>() -> &'static Comb {
    static COMB: OnceLock<Comb> = OnceLock::new();
    COMB.get_or_init(|| Comb::new::<F>(&G))
}

/// `scalar * G` in constant time.
pub(crate) fn multiply_base<F: Arith>(scalar: &Scalar) -> Jacobian {
    base_comb::<F>().multiply::<F>(scalar)
}

/// `scalar * point` in constant time. Infinity only for 0.
pub(crate) fn multiply<F: Arith>(point: &Affine, scalar: &Scalar) -> Jacobian {
    let mut table = [point.to_jacobian(); WINDOW];
    let mut multiple = table[0].double::<F>();
    for (index, slot) in table.iter_mut().enumerate().skip(1) {
        if index > 1 {
            multiple = multiple.add_affine_distinct::<F>(point).0;
        }
        *slot = multiple;
    }
    let mut windows = Windows::new(scalar.0);
    let mut digits = Zeroizing::new([(0u64, 0u64); WINDOWS]);
    digits.iter_mut().for_each(|digit| *digit = windows.next::<WINDOW_WIDTH>());

    let mut sum = Jacobian::INFINITY;
    for (index, &(negative, magnitude)) in digits.iter().enumerate().rev() {
        if index != WINDOWS - 1 {
            for _ in 0..WINDOW_WIDTH {
                sum = sum.double::<F>();
            }
        }
        let mut term = F::pick_jacobian(&table, magnitude);
        term.y = term.y.select(&F::sub(&Fe::ZERO, &term.y), negative);
        let (mut next, same_x, same_y) = sum.add_distinct::<F>(&term);
        if index == 0 {
            // Before the last digit d the sum is 32 times some m < n / 32, and d at most 16 in magnitude: only modulo n can the two be the
            // same point. They are for the scalar n - 6 (32 * m = n - 3, d = -3).
            next = next.select(&term.double::<F>(), same_x & same_y);
        }
        let next = next.select(&term, sum.z.zero_mask());
        sum = next.select(&sum, equal_mask(magnitude, 0));
    }
    sum
}

/// `s * G + t * point`, in a time that tells the scalars.
pub(crate) fn multiply_two_vartime<F: Arith>(s: &Scalar, t: &Scalar, point: &Affine) -> Jacobian {
    let mut odd = [point.to_jacobian(); 1 << (KEY_NAF - 2)];
    let twice = odd[0].double::<F>();
    let mut multiple = odd[0];
    for slot in odd.iter_mut().skip(1) {
        multiple = multiple.add_vartime::<F>(&twice);
        *slot = multiple;
    }
    let (s, t) = (naf::<BASE_NAF>(s), naf::<KEY_NAF>(t));
    let base = base_odd::<F>();
    let mut sum = Jacobian::INFINITY;
    for (&s, &t) in s.iter().zip(&t).rev() {
        if !sum.z.is_zero() {
            sum = sum.double::<F>();
        }
        if let Some(term) = odd.get(usize::from(t.unsigned_abs() >> 1)).filter(|_| t != 0) {
            let y = if t < 0 { F::sub(&Fe::ZERO, &term.y) } else { term.y };
            sum = sum.add_vartime::<F>(&Jacobian { y, ..*term });
        }
        if let Some(term) = base.get(usize::from(s.unsigned_abs() >> 1)).filter(|_| s != 0) {
            sum = sum.add_affine_vartime::<F>(&term.negate_if::<F>(if s < 0 { u64::MAX } else { 0 }));
        }
    }
    sum
}

/// G, 3G, 5G, ... 127G.
fn base_odd<F: Arith>() -> &'static [Affine] {
    static ODD: OnceLock<Vec<Affine>> = OnceLock::new();
    ODD.get_or_init(|| {
        let twice = G.to_jacobian().double::<F>();
        let multiples: Vec<Jacobian> =
            std::iter::successors(Some(G.to_jacobian()), |multiple| Some(multiple.add_vartime::<F>(&twice)))
                .take(1 << (BASE_NAF - 2))
                .collect();
        to_affine_all::<F>(&multiples)
    })
}

/// The digits of the non-adjacent form of that width, the lowest first: odd or zero, less than 2^(WIDTH - 1) in magnitude, and after one
/// that is not zero WIDTH - 1 zeros.
fn naf<const WIDTH: u32>(scalar: &Scalar) -> [i8; 257] {
    let mut digits = [0; 257];
    let [mut a, mut b, mut c, mut d] = scalar.0;
    let (mut skip, mut carry) = (0, 0);
    for digit in &mut digits {
        if skip > 0 {
            skip -= 1;
        } else if (a & 1) != carry {
            let low = (a & ((1 << WIDTH) - 1)) as i16 + carry as i16;
            carry = (low >> (WIDTH - 1)) as u64 & 1;
            *digit = (low - ((carry as i16) << WIDTH)) as i8;
            skip = WIDTH - 1;
        }
        (a, b, c, d) = (a >> 1 | b << 63, b >> 1 | c << 63, c >> 1 | d << 63, d >> 1);
    }
    digits
}
