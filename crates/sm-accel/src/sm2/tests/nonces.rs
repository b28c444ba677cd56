//! The secret numbers of signatures as their statistics show them. Who knows the private key d finds the number in the signature:
//! k = s + (r + s) * d.

use std::cell::Cell;
use std::collections::HashSet;

use zeroize::Zeroizing;

use super::*;
use crate::sm2::scalar::Scalar;
use crate::sm2::words::to_be_bytes;

/// Values of a byte.
const BINS: usize = 256;
/// Chi-square of 255 degrees of freedom is above it once in 10^10 if every value is as likely as another: its mean is 255 and its standard
/// deviation 22.6, and by Wilson and Hilferty a deviate of 6.4 lies here. A bit that is always the same brings in the number of signatures.
const BOUND: f64 = 425.0;

fn chi_square(counts: &[u32; BINS], total: usize) -> f64 {
    let expected = total as f64 / BINS as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

fn number(signature: &Signature, key: &SecretKey) -> Scalar {
    let (r, s) = (Scalar::decode(&signature.r).unwrap(), Scalar::decode(&signature.s).unwrap());
    s.add(&r.add(&s).mul(&key.scalar))
}

/// Leading bits that are not uniform, as few as one of 160, give a key away by lattices (Minerva, LadderLeak); so does a number that comes
/// twice. `SM_ACCEL_ROUNDS=100000` signs so often.
#[test]
fn secret_numbers_never_repeat_and_have_uniform_first_and_last_bytes() {
    let total = rounds(5_000).max(20 * BINS);
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    let (mut seen, mut first, mut last) = (HashSet::new(), [0; BINS], [0; BINS]);
    for round in 0..total {
        // Half of them sign one digest again and again.
        let e = if round % 2 == 0 { [0x42; 32] } else { digest(&round.to_be_bytes()) };
        let signature = key.sign_digest(&e).unwrap();
        assert!(seen.insert(signature.r), "r came twice");
        let bytes = number(&signature, &key).encode();
        first[usize::from(bytes[0])] += 1;
        last[usize::from(bytes[31])] += 1;
    }
    let (first, last) = (chi_square(&first, total), chi_square(&last, total));
    println!("{total} signatures: chi-square of the first byte {first:.1}, of the last {last:.1}");
    assert!(first < BOUND && last < BOUND, "first byte {first:.1}, last byte {last:.1}");
}

/// The test itself: numbers of 255 bits are found out.
#[test]
fn a_leading_bit_that_is_never_set_is_seen() {
    let mut numbers = Numbers::new(11);
    let mut counts = [0; BINS];
    (0..20 * BINS).for_each(|_| counts[usize::from(numbers.bytes()[0] & 0x7f)] += 1);
    assert!(chi_square(&counts, 20 * BINS) > BOUND);
    let mut counts = [0; BINS];
    (0..20 * BINS).for_each(|_| counts[usize::from(numbers.bytes()[0])] += 1);
    assert!(chi_square(&counts, 20 * BINS) < BOUND);
}

#[test]
fn an_attempt_that_fails_is_followed_by_another_number() {
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    let bad = Scalar::decode(&[0x11; 32]).unwrap();
    // For e = -x the first number gives r = 0.
    let x = Scalar::decode(&key.sign_with(&[0; 32], &bad).unwrap().r).unwrap();
    let e = Scalar::default().sub(&x).encode();
    let asked = Cell::new(0);
    let signature = key.sign_by(&e, |attempt| {
        assert_eq!(attempt, asked.replace(attempt + 1));
        Ok(Zeroizing::new(if attempt == 0 { bad } else { Scalar([0x22, u64::from(attempt), 0, 0x33]) }))
    });
    assert_eq!(asked.get(), 2);
    let signature = signature.unwrap();
    assert_eq!(to_be_bytes(number(&signature, &key).0), to_be_bytes([0x22, 1, 0, 0x33]));
    assert!(key.public_key().verify_digest(&e, &signature));
}

#[test]
fn without_random_bytes_nothing_is_signed() {
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    assert_eq!(key.sign_by(&[1; 32], |_| Err(Error::Random)).unwrap_err(), Error::Random);
}
