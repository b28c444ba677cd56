//! Against RustCrypto's `sm2` and `libsm`: random numbers and the edges. `SM_ACCEL_ROUNDS=1000000` makes it a soak.

use libsm::sm2::encrypt::DecryptCtx;
use libsm::sm2::signature::{SigCtx, Signature as LibsmSignature};
use num_bigint::BigUint;
use sm2::elliptic_curve::group::Group;
use sm2::elliptic_curve::ops::Reduce;
use sm2::elliptic_curve::point::AffineCoordinates;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm2::{AffinePoint, FieldBytes, ProjectivePoint, Scalar as TheirScalar};

use super::*;
use crate::sm2::backend::forced::on_each;
use crate::sm2::backend::on_best;
use crate::sm2::curve::Jacobian;
use crate::sm2::field::Arith;
use crate::sm2::multiply::{Comb, multiply, multiply_base, multiply_two_vartime};
use crate::sm2::scalar::{N, Scalar};
use crate::sm2::words::to_be_bytes;

fn theirs(scalar: &Scalar) -> TheirScalar {
    <TheirScalar as Reduce<FieldBytes>>::reduce(&scalar.encode().into())
}

fn their_point(point: &ProjectivePoint) -> Vec<u8> {
    AffinePoint::from(*point).to_sec1_point(false).as_bytes().to_vec()
}

fn affine<F: Arith>(sum: Jacobian) -> Vec<u8> {
    if sum.z.is_zero() { vec![0] } else { Point(sum.to_affine::<F>()).to_uncompressed().to_vec() }
}

/// Multiples of the base point by the comb; of a point by windows; their sum by both ways of verification.
fn multiples<F: Arith>(point: &Point, comb: &Comb, s: &Scalar, t: &Scalar) -> [Vec<u8>; 4] {
    let by_comb = crate::sm2::multiply::base_comb::<F>().add_vartime::<F>(s, Jacobian::INFINITY);
    [
        affine::<F>(multiply_base::<F>(s)),
        affine::<F>(multiply::<F>(&point.0, t)),
        affine::<F>(multiply_two_vartime::<F>(s, t, &point.0)),
        affine::<F>(comb.add_vartime::<F>(t, by_comb)),
    ]
}

fn agree_with_rustcrypto(multiple: &Scalar, scalars: impl Iterator<Item = (Scalar, Scalar)>) {
    let (g, p) = (ProjectivePoint::generator(), ProjectivePoint::generator() * theirs(multiple));
    let point = Point::from_uncompressed(&their_point(&p).try_into().unwrap()).unwrap();
    let comb = on_best!(comb, &point.0);
    for (s, t) in scalars {
        let found = on_best!(multiples, &point, &comb, &s, &t);
        let (first, second) = (g * theirs(&s), p * theirs(&t));
        let expected = [first, second, first + second, first + second].map(|point| their_point(&point));
        assert_eq!(found, expected, "m = {:x?}, s = {:x?}, t = {:x?}", multiple.0, s.0, t.0);
    }
}

fn comb<F: Arith>(point: &crate::sm2::curve::Affine) -> Comb {
    Comb::new::<F>(point)
}

fn below_n(less: u64) -> Scalar {
    Scalar([N[0] - less, N[1], N[2], N[3]])
}

fn edges() -> Vec<Scalar> {
    let mut found: Vec<Scalar> = (0..70).map(|small| Scalar([small, 0, 0, 0])).collect();
    found.extend((1..70).map(below_n));
    found.extend((0..256).filter_map(|bit: usize| {
        let mut words = [0; 4];
        words[bit / 64] = 1 << (bit % 64);
        Scalar::decode(&to_be_bytes(words))
    }));
    found.push(Scalar([u64::MAX, u64::MAX, u64::MAX, 0xffff_fffd_ffff_ffff]));
    found.push(Scalar([0x8208_2082_0820_8208, 0x2082_0820_8208_2082, 0x0820_8208_2082_0820, 0x8208_2082_0820_8208]));
    found.push(Scalar([0x8421_0842_1084_2108, 0x2108_4210_8421_0842, 0x4210_8421_0842_1084, 0x0842_1084_2108_4210]));
    found
}

#[test]
fn multiplies_by_the_edges_as_rustcrypto_does() {
    let mut numbers = Numbers::new(2);
    on_each(|| {
        let edges = edges();
        let turned = edges.iter().rev().copied();
        agree_with_rustcrypto(&Scalar::reduce(&numbers.bytes()), edges.iter().copied().zip(turned));
    });
}

/// With P = mG the two parts of a sum meet: equal, opposite, or infinity together.
#[test]
fn adds_multiples_of_one_point() {
    on_each(|| {
        for multiple in [1, 2, 3, 64, 127] {
            for multiple in [Scalar([multiple, 0, 0, 0]), below_n(multiple)] {
                let small = |n| Scalar([n, 0, 0, 0]);
                let both = |n| [small(n), Scalar::default().sub(&small(n))];
                let firsts = [0, 1, 2, 3, 5, 64, 127, 128, 192].into_iter().flat_map(both);
                let pairs = firsts.flat_map(|s| [0, 1, 2, 3, 5, 64].map(|t| (s, small(t))));
                agree_with_rustcrypto(&multiple, pairs);
            }
        }
    });
}

#[test]
fn multiplies_by_random_numbers_as_rustcrypto_does() {
    let mut numbers = Numbers::new(3);
    on_each(|| {
        // Ten pairs for each point, whose table costs as much as all of them.
        for _ in 0..rounds(20).div_ceil(10) {
            let multiple = Scalar::reduce(&numbers.bytes());
            let pairs = (0..10).map(|_| [(); 2].map(|()| Scalar::reduce(&numbers.bytes())).into());
            agree_with_rustcrypto(&multiple, pairs);
        }
    });
}

fn big(words: &[u64; 4]) -> BigUint {
    BigUint::from_bytes_be(&to_be_bytes(*words))
}

#[test]
fn computes_modulo_n_as_integers_do() {
    let n = big(&N);
    let mut numbers = Numbers::new(4);
    let mut scalars = edges();
    scalars.extend((0..rounds(100)).map(|_| Scalar::reduce(&numbers.bytes())));
    for (a, b) in scalars.iter().zip(scalars.iter().rev()) {
        let (x, y) = (big(&a.0), big(&b.0));
        assert_eq!(big(&a.mul(b).0), &x * &y % &n);
        assert_eq!(big(&a.add(b).0), (&x + &y) % &n);
        assert_eq!(big(&a.sub(b).0), (&x + &n - &y) % &n);
        assert_eq!(big(&a.invert().0) * &x % &n, BigUint::from(u8::from(!a.is_zero())));
        let wide = numbers.bytes();
        assert_eq!(big(&Scalar::reduce(&wide).0), BigUint::from_bytes_be(&wide) % &n);
    }
    assert_eq!(
        Scalar::reduce(&[0xff; 32]),
        Scalar::reduce(&to_be_bytes([0xac44_0bf6_c62a_bedc, 0x8dfc_2094_de39_fad4, 0, 1 << 32]))
    );
}

/// It takes a hundred times as long as the others.
fn asks_libsm(round: usize) -> bool {
    round < 10 || round.is_multiple_of(100)
}

#[test]
fn libsm_and_rustcrypto_take_our_signatures_and_we_take_theirs() {
    let mut numbers = Numbers::new(5);
    let context = SigCtx::new();
    on_each(|| {
        for round in 0..rounds(10) {
            let key = SecretKey::from_bytes(&numbers.bytes()).unwrap();
            let public = key.public_key();
            if round % 2 == 0 {
                public.prepare();
            }
            let e = numbers.bytes();
            let ours = key.sign_digest(&e).unwrap();
            assert!(public.verify_digest(&e, &ours));
            assert!(!public.verify_digest(&numbers.bytes(), &ours));

            let bytes = key.public_point().to_uncompressed();
            if asks_libsm(round) {
                let their_key = context.load_pubkey(&bytes).unwrap();
                let as_theirs = LibsmSignature::der_decode(&ours.to_der()).unwrap();
                assert!(context.verify_raw(&e, &their_key, &as_theirs).unwrap());
                let secret = BigUint::from_bytes_be(&*key.to_bytes());
                let signed = context.sign_raw(&e, &secret).unwrap();
                let back = Signature::from_der(&signed.der_encode()).unwrap();
                assert!(public.verify_digest(&e, &back));
            }

            use sm2::dsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
            let verifier = sm2::dsa::VerifyingKey::from_sec1_bytes("1234567812345678", &bytes).unwrap();
            let as_theirs = sm2::dsa::Signature::from_slice(&[ours.r, ours.s].concat()).unwrap();
            verifier.verify_prehash(&e, &as_theirs).unwrap();
            let signer = sm2::dsa::SigningKey::from_slice("1234567812345678", &*key.to_bytes()).unwrap();
            let signed: sm2::dsa::Signature = signer.sign_prehash(&e).unwrap();
            let (r, s) = (signed.r_bytes().into(), signed.s_bytes().into());
            assert!(public.verify_digest(&e, &Signature { r, s }));
        }
    });
}

#[test]
fn libsm_and_rustcrypto_decrypt_what_we_encrypt_and_agree_on_shared_points() {
    let mut numbers = Numbers::new(6);
    on_each(|| {
        for round in 0..rounds(10) {
            let key = SecretKey::from_bytes(&numbers.bytes()).unwrap();
            let plaintext = numbers.bytes().repeat(round % 5 + 1);
            let plaintext = &plaintext[..(round * 7 % plaintext.len()) + 1];
            let ciphertext = encrypt(key.public_point(), plaintext).unwrap();
            assert_eq!(*key.decrypt(&ciphertext).unwrap(), plaintext);
            let c1c2c3 = [&ciphertext.point.to_uncompressed()[..], &ciphertext.cipher, &ciphertext.hash].concat();
            if asks_libsm(round) {
                let secret = BigUint::from_bytes_be(&*key.to_bytes());
                assert_eq!(DecryptCtx::new(plaintext.len(), secret).decrypt(&c1c2c3).unwrap(), plaintext);
            }

            let other = SecretKey::from_bytes(&numbers.bytes()).unwrap();
            let shared = key.ecdh(other.public_point());
            assert_eq!(shared, other.ecdh(key.public_point()));
            let point = sm2::PublicKey::from_sec1_bytes(&other.public_point().to_uncompressed()).unwrap();
            let product = ProjectivePoint::from(*point.as_affine()) * theirs(&key.scalar);
            assert_eq!(shared[..], AffinePoint::from(product).x()[..]);
        }
    });
}
