//! The field against integers of any size, on each backend.

use num_bigint::BigUint;

use super::portable::Portable;
use super::*;
use crate::sm2::tests::{Numbers, rounds};

fn big(words: &[u64; 4]) -> BigUint {
    words.iter().rev().fold(BigUint::from(0u8), |sum, &word| (sum << 64) + word)
}

fn p() -> BigUint {
    big(&P)
}

fn edges() -> Vec<[u64; 4]> {
    let less = |by: u64| [P[0] - by, P[1], P[2], P[3]];
    vec![
        [0; 4],
        [1, 0, 0, 0],
        [2, 0, 0, 0],
        less(1),
        less(2),
        less(3),
        [u64::MAX, 0, 0, 0],
        [0, u64::MAX, 0, 0],
        [0, 0, u64::MAX, 0],
        [0, 0, 0, 0xffff_fffe_ffff_fffe],
        [u64::MAX, u64::MAX, u64::MAX, 0xffff_fffe_ffff_fffe],
        Fe::ONE.0,
        R2.0,
        [0, 0xffff_ffff_0000_0000, u64::MAX, P[3]],
        [1 << 32, 1 << 32, 1 << 32, 1 << 32],
        [u64::MAX, 0xffff_fffe_ffff_ffff, u64::MAX, P[3]],
    ]
}

fn agrees_with_integers<F: Arith>(a: Fe, b: Fe) {
    let (x, y, p) = (big(&a.0), big(&b.0), p());
    let r = BigUint::from(1u8) << 256;
    // Products are compared times R, so that nothing here needs an inverse.
    assert_eq!(big(&F::mul(&a, &b).0) * &r % &p, &x * &y % &p, "{a:x?} * {b:x?}");
    assert_eq!(big(&F::square(&a).0) * &r % &p, &x * &x % &p, "{a:x?} squared");
    assert_eq!(big(&F::add(&a, &b).0), (&x + &y) % &p, "{a:x?} + {b:x?}");
    assert_eq!(big(&F::sub(&a, &b).0), (&x + &p - &y) % &p, "{a:x?} - {b:x?}");
    assert_eq!(big(&F::double(&a).0), (&x + &x) % &p);
    assert_eq!(big(&a.halve().0) * 2u8 % &p, x);
    for found in [F::mul(&a, &b), F::square(&a), F::add(&a, &b), F::sub(&a, &b), a.halve()] {
        assert!(below_p(found.0), "{found:x?} of {a:x?} and {b:x?}");
    }
    assert_eq!(F::leave(&F::enter(a.0)), a.0);
    assert_eq!(a.is_zero(), x == BigUint::from(0u8));
}

fn on_every_backend(a: Fe, b: Fe) {
    agrees_with_integers::<Portable>(a, b);
    #[cfg(target_arch = "x86_64")]
    if crate::sm2::Backend::Adx.is_available() {
        agrees_with_integers::<adx::Adx>(a, b);
    }
}

#[test]
fn computes_as_integers_do_at_the_edges() {
    for a in edges() {
        for b in edges() {
            on_every_backend(Fe(a), Fe(b));
        }
    }
}

#[test]
fn computes_as_integers_do_on_random_elements() {
    let mut numbers = Numbers::new(1);
    for _ in 0..rounds(2_000) {
        let mut element = || loop {
            let words = from_be_bytes(&numbers.bytes());
            if below_p(words) {
                return Fe(words);
            }
        };
        on_every_backend(element(), element());
    }
}

#[test]
fn an_inverse_times_its_element_is_one() {
    fn inverts<F: Arith>() {
        for words in edges().into_iter().skip(1) {
            let a = F::enter(words);
            assert_eq!(F::mul(&a, &F::invert(&a)), Fe::ONE, "{words:x?}");
        }
        assert_eq!(F::invert(&Fe::ZERO), Fe::ZERO);
    }
    inverts::<Portable>();
    #[cfg(target_arch = "x86_64")]
    if crate::sm2::Backend::Adx.is_available() {
        inverts::<adx::Adx>();
    }
}

#[test]
fn takes_no_integer_from_p_up() {
    assert!(Portable::decode(&to_be_bytes(P)).is_none());
    assert!(Portable::decode(&[0xff; 32]).is_none());
    let last = to_be_bytes([P[0] - 1, P[1], P[2], P[3]]);
    assert_eq!(Portable::encode(&Portable::decode(&last).unwrap()), last);
}
