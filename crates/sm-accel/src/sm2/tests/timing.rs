//! Whether time tells secrets, as dudect asks it: operations of a fixed class and of a random one in random order, and Welch's t-test on
//! their times. A short run finds only what is gross; `make soak` measures `SM_ACCEL_TIMING` times as long, optimised as released.

use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::sm2::backend::forced::on_each;
use crate::sm2::backend::on_best;
use crate::sm2::curve::G;
use crate::sm2::multiply::{multiply_base, multiply_two_vartime};
use crate::sm2::scalar::Scalar;

/// Inputs of each class; each is measured as often as `measurements` says.
const INPUTS: usize = 300;
/// Where dudect speaks of a leak with certainty. A measurement that exceeds it is made anew: what lies in the code exceeds it each time.
const LIMIT: f64 = 10.0;
const ATTEMPTS: usize = 4;

/// How often each input is measured: `SM_ACCEL_TIMING`, or once.
fn measurements() -> usize {
    std::env::var("SM_ACCEL_TIMING").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Mean and variance of a sample, and its size.
fn moments(sample: &[f64]) -> (f64, f64, f64) {
    let count = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / count;
    let variance = sample.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance, count)
}

/// The greatest |t| over the whole of both samples and their parts below several quantiles: interruptions lie in the upper tail.
fn greatest_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|&(_, time)| time).collect();
    sorted.sort_by(f64::total_cmp);
    let quantiles = [0.5, 0.75, 0.9, 0.99].map(|part| sorted[(sorted.len() as f64 * part) as usize]);
    let ts = quantiles.map(|limit| {
        let class = |fixed| {
            let chosen = times.iter().filter(|&&(class, time)| class == fixed && time <= limit);
            moments(&chosen.map(|&(_, time)| time).collect::<Vec<_>>())
        };
        let ((mean_a, variance_a, count_a), (mean_b, variance_b, count_b)) = (class(true), class(false));
        (mean_a - mean_b) / (variance_a / count_a + variance_b / count_b).sqrt()
    });
    ts.into_iter().fold(0.0, |greatest, t| if t.abs() > greatest { t.abs() } else { greatest })
}

/// Each input has memory of its own, so that the caches do not know one class better.
fn measure<T>(make: impl Fn(&mut Numbers, bool) -> T, act: impl Fn(&T)) -> f64 {
    let mut numbers = Numbers::new(8);
    let mut inputs: Vec<(bool, T)> = Vec::new();
    for _ in 0..2 * INPUTS {
        let fixed = numbers.bytes()[0] & 1 == 0;
        inputs.push((fixed, make(&mut numbers, fixed)));
    }
    inputs.iter().for_each(|(_, input)| act(input));
    let mut times = Vec::new();
    for _ in 0..measurements() {
        for (fixed, input) in &inputs {
            let start = Instant::now();
            act(black_box(input));
            times.push((*fixed, start.elapsed().as_nanos() as f64));
        }
    }
    greatest_t(&times)
}

fn least_t<T>(name: &str, make: impl Fn(&mut Numbers, bool) -> T, act: impl Fn(&T)) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..ATTEMPTS {
        least = least.min(measure(&make, &act));
        if least < LIMIT {
            break;
        }
    }
    println!("{name} on {}: |t| = {least:.1}", Backend::best().name());
    least
}

/// Keeps the optimiser from leaving out what gave the value.
fn ran<T>(value: T) {
    black_box(value);
}

/// The fixed secret has a single digit that is not zero.
fn secret(numbers: &mut Numbers, fixed: bool) -> [u8; 32] {
    let mut small = [0; 32];
    small[31] = 2;
    if fixed { small } else { numbers.bytes() }
}

fn key(numbers: &mut Numbers, fixed: bool) -> SecretKey {
    SecretKey::from_bytes(&secret(numbers, fixed)).unwrap()
}

#[test]
fn signing_takes_the_same_time_for_every_key_and_nonce() {
    on_each(|| {
        let by_key = least_t("sign, by key", key, |key| ran(key.sign_digest(&[0x42; 32])));
        assert!(by_key < LIMIT);
        let signer = SecretKey::from_bytes(&[0x35; 32]).unwrap();
        let nonce = |numbers: &mut Numbers, fixed| Scalar::reduce(&secret(numbers, fixed));
        let by_nonce = least_t("sign, by nonce", nonce, |nonce| ran(signer.sign_with(&[0x42; 32], nonce)));
        assert!(by_nonce < LIMIT);
    });
}

#[test]
fn decryption_takes_the_same_time_for_every_key() {
    on_each(|| {
        let other = SecretKey::from_bytes(&[0x35; 32]).unwrap();
        let wrong = encrypt(other.public_point(), &[0x5a; 48]).unwrap();
        let make = |numbers: &mut Numbers, fixed| {
            let key = key(numbers, fixed);
            let ciphertext = encrypt(key.public_point(), &[0x5a; 48]).unwrap();
            (key, ciphertext)
        };
        assert!(least_t("decrypt", make, |(key, ciphertext)| ran(key.decrypt(ciphertext))) < LIMIT);
        let make = |_: &mut Numbers, fixed| {
            let right = encrypt(other.public_point(), &[0x5a; 48]).unwrap();
            if fixed { right } else { Ciphertext { hash: [0; 32], ..wrong.clone() } }
        };
        let t = least_t("decrypt, right or wrong", make, |ciphertext| ran(other.decrypt(ciphertext)));
        assert!(t < LIMIT);
    });
}

#[test]
fn ecdh_takes_the_same_time_for_every_key() {
    on_each(|| {
        let peer = *SecretKey::from_bytes(&[0x35; 32]).unwrap().public_point();
        assert!(least_t("ecdh", key, |key| ran(key.ecdh(&peer))) < LIMIT);
    });
}

#[test]
fn key_agreement_takes_the_same_time_for_every_key() {
    use crate::sm2::exchange::{Own, Peer, Role, agree};
    on_each(|| {
        let (other, z) = (SecretKey::from_bytes(&[0x35; 32]).unwrap(), [7; 32]);
        let peer = Peer { key: other.public_point(), ephemeral: other.public_point(), z: &z };
        let by_static = |static_key: &SecretKey, ephemeral: &SecretKey| {
            let own = Own { key: static_key, ephemeral, z: &z };
            ran(agree(Role::Responder, &own, &peer).map(|agreed| agreed.key(48)));
        };
        assert!(least_t("agree, by static key", key, |key| by_static(key, &other)) < LIMIT);
        assert!(least_t("agree, by ephemeral key", key, |key| by_static(&other, key)) < LIMIT);
    });
}

/// Reading a ciphertext is public and takes a hundredth of the time; that it is malformed must not save the rest.
#[test]
fn a_malformed_ciphertext_costs_as_much_as_a_wrong_one() {
    on_each(|| {
        let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
        let wrong = Ciphertext { hash: [0; 32], ..encrypt(key.public_point(), &[0x5a; 48]).unwrap() }.to_der();
        let mut off_the_curve = wrong.clone();
        off_the_curve[20] ^= 1;
        let least = |der: &[u8]| {
            let times = (0..100).map(|_| {
                let start = Instant::now();
                ran(key.decrypt_der(black_box(der)));
                start.elapsed()
            });
            times.min().unwrap_or_default().as_nanos() as f64
        };
        let expected = least(&wrong);
        for malformed in [&off_the_curve[..], &wrong[..60], &[0xff; 150], &[]] {
            let ratio = least(malformed) / expected;
            println!("malformed to wrong on {}: {ratio:.3}", Backend::best().name());
            assert!((0.8..1.25).contains(&ratio), "{ratio:.3}");
        }
    });
}

#[test]
fn making_a_public_key_takes_the_same_time_for_every_secret() {
    on_each(|| {
        assert!(least_t("public key", secret, |secret| ran(SecretKey::from_bytes(secret))) < LIMIT);
    });
}

/// The test itself: the sum for verification, which may vary, is seen to vary.
#[test]
fn a_leak_is_found_where_there_is_one() {
    on_each(|| {
        fn leaks<F: crate::sm2::field::Arith>(scalar: &Scalar) {
            black_box(multiply_two_vartime::<F>(scalar, &Scalar::ONE, &G));
        }
        fn holds<F: crate::sm2::field::Arith>(scalar: &Scalar) {
            black_box(multiply_base::<F>(scalar));
        }
        let scalar = |numbers: &mut Numbers, fixed| Scalar::reduce(&secret(numbers, fixed));
        assert!(measure(scalar, |scalar| on_best!(leaks, scalar)) > LIMIT);
        assert!(least_t("multiple of G", scalar, |scalar| on_best!(holds, scalar)) < LIMIT);
    });
}
