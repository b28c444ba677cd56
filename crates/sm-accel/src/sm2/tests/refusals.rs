//! What must not be accepted, and that it is refused alike.

use num_bigint::BigUint;

use super::*;
use crate::sm2::backend::forced::on_each;
use crate::sm2::backend::on_best;
use crate::sm2::curve::Affine;
use crate::sm2::encrypt::encrypt_with;
use crate::sm2::exchange::{Own, Peer, Role, agree};
use crate::sm2::field::{Arith, P};
use crate::sm2::multiply::multiply_two_vartime;
use crate::sm2::scalar::{N, Scalar};
use crate::sm2::words::to_be_bytes;

/// A square root of b modulo p.
const ROOT_OF_B: &str = "FD4511E81736A60F07E88A83D6CF5A167FAE6D1A9C9330E76E232E00F5CDC154";

fn n_less(less: u64) -> [u8; 32] {
    to_be_bytes([N[0] - less, N[1], N[2], N[3]])
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[0x35; 32]).unwrap()
}

#[test]
fn takes_private_keys_from_1_to_n_minus_2_alone() {
    on_each(|| {
        for wrong in [[0; 32], n_less(1), n_less(0), [0xff; 32]] {
            assert_eq!(SecretKey::from_bytes(&wrong).unwrap_err(), Error::SecretKey);
        }
        let mut one = [0; 32];
        one[31] = 1;
        for right in [one, n_less(2)] {
            let key = SecretKey::from_bytes(&right).unwrap();
            assert_eq!(*key.to_bytes(), right);
            let signature = key.sign_digest(&[9; 32]).unwrap();
            assert!(key.public_key().verify_digest(&[9; 32], &signature));
        }
    });
}

#[test]
fn takes_points_of_the_curve_alone() {
    on_each(|| {
        let good = key().public_point().to_uncompressed();
        assert!(Point::from_uncompressed(&good).is_ok());
        let mut wrong = vec![[0; 65], [0xff; 65]];
        for first in [0x00, 0x02, 0x03, 0x05, 0x06, 0x07] {
            let mut bytes = good;
            bytes[0] = first;
            wrong.push(bytes);
        }
        for byte in 1..65 {
            let mut bytes = good;
            bytes[byte] ^= 1;
            wrong.push(bytes);
        }
        let mut zeros = [0; 65];
        zeros[0] = 4;
        wrong.push(zeros);
        for bytes in wrong {
            assert_eq!(Point::from_uncompressed(&bytes).unwrap_err(), Error::Point);
        }
    });
}

/// x = 0 is on the curve; x = p is the same number in a form that is not canonical.
#[test]
fn refuses_a_coordinate_that_is_not_less_than_p() {
    let y = hex32(ROOT_OF_B);
    let mut point = [0; 65];
    point[0] = 4;
    point[33..].copy_from_slice(&y);
    on_each(|| {
        assert!(Point::from_uncompressed(&point).is_ok());
        let mut large = point;
        large[1..33].copy_from_slice(&hex32("FFFFFFFE FFFFFFFF FFFFFFFF FFFFFFFF FFFFFFFF 00000000 FFFFFFFF FFFFFFFF"));
        assert_eq!(Point::from_uncompressed(&large).unwrap_err(), Error::Point);
    });
}

#[test]
fn refuses_signatures_out_of_range_and_altered() {
    on_each(|| {
        let (key, e) = (key(), [0x42; 32]);
        let public = key.public_key();
        let good = key.sign_digest(&e).unwrap();
        for prepared in [false, true] {
            if prepared {
                public.prepare();
            }
            assert!(public.verify_digest(&e, &good));
            let mut wrong = Vec::new();
            for bad in [[0; 32], n_less(0), [0xff; 32]] {
                wrong.push(Signature { r: bad, ..good });
                wrong.push(Signature { s: bad, ..good });
                wrong.push(Signature { r: bad, s: bad });
            }
            // t = r + s = n.
            let opposite = Scalar::default().sub(&Scalar::decode(&good.r).unwrap());
            wrong.push(Signature { s: opposite.encode(), ..good });
            for byte in 0..32 {
                let (mut r, mut s) = (good.r, good.s);
                r[byte] ^= 0x10;
                s[byte] ^= 0x10;
                wrong.push(Signature { r, ..good });
                wrong.push(Signature { s, ..good });
            }
            wrong.push(Signature { r: good.s, s: good.r });
            for signature in wrong {
                assert!(!public.verify_digest(&e, &signature), "{signature:x?}");
            }
        }
    });
}

/// With the key G and s + t = 0 the sum is infinity, which has no x.
#[test]
fn refuses_a_signature_whose_point_is_infinity() {
    on_each(|| {
        let mut one = [0; 32];
        one[31] = 1;
        let public = SecretKey::from_bytes(&one).unwrap().public_key();
        let s = Scalar::decode(&[0x21; 32]).unwrap();
        let r = Scalar::default().sub(&s.add(&s));
        let signature = Signature { r: r.encode(), s: s.encode() };
        assert!(!public.verify_digest(&r.encode(), &signature));
        public.prepare();
        assert!(!public.verify_digest(&r.encode(), &signature));
    });
}

#[test]
fn a_nonce_that_must_not_be_used_signs_nothing() {
    let key = key();
    let nonce = Scalar::decode(&[0x11; 32]).unwrap();
    let some = key.sign_with(&[0; 32], &nonce).unwrap();
    // With e = 0, r is x; e = -x makes it 0, and e = -x - k makes r + k = n.
    let x = Scalar::decode(&some.r).unwrap();
    let minus_x = Scalar::default().sub(&x);
    assert!(key.sign_with(&minus_x.encode(), &nonce).is_none());
    assert!(key.sign_with(&minus_x.sub(&nonce).encode(), &nonce).is_none());
    // s = 0 for k = r * d, that is e = k / d - x.
    let e = nonce.mul(&key.scalar.invert()).sub(&x);
    assert!(key.sign_with(&e.encode(), &nonce).is_none());
}

#[test]
fn a_key_stream_of_zeros_is_refused_by_both_sides() {
    on_each(|| {
        let key = key();
        // One byte of key stream is zero for one in 256 secret numbers.
        let mut numbers = Numbers::new(7);
        let nonce = loop {
            let nonce = Scalar::reduce(&numbers.bytes());
            if encrypt_with(key.public_point(), &[1], &nonce).unwrap().is_none() {
                break nonce;
            }
        };
        let mut forged = encrypt_with(key.public_point(), &[1, 2], &nonce).unwrap().unwrap();
        // What a sender without the check would send: the byte itself, and its right hash.
        let (x, y) = on_best_product(&nonce, key.public_point());
        forged.cipher = vec![1];
        forged.hash = digest(&[&x[..], &[1], &y[..]].concat());
        assert_eq!(key.decrypt(&forged).unwrap_err(), Error::Decryption);
    });
}

fn on_best_product(scalar: &Scalar, point: &Point) -> ([u8; 32], [u8; 32]) {
    on_best!(crate::sm2::key::coordinates_of_product, scalar, &point.0)
}

#[test]
fn every_altered_ciphertext_is_refused_with_one_error() {
    on_each(|| {
        let key = key();
        let good = encrypt(key.public_point(), &[0x5a; 48]).unwrap();
        assert_eq!(*key.decrypt(&good).unwrap(), [0x5a; 48]);
        let mut wrong =
            vec![Ciphertext { point: *SecretKey::from_bytes(&[3; 32]).unwrap().public_point(), ..good.clone() }];
        for byte in 0..48 {
            let mut altered = good.clone();
            altered.cipher[byte] ^= 1;
            wrong.push(altered);
        }
        for byte in 0..32 {
            let mut altered = good.clone();
            altered.hash[byte] ^= 0x80;
            wrong.push(altered);
        }
        let mut short = good.clone();
        short.cipher.pop();
        wrong.push(short);
        wrong.push(Ciphertext { cipher: Vec::new(), ..good });
        for ciphertext in wrong {
            assert_eq!(key.decrypt(&ciphertext).unwrap_err(), Error::Decryption);
        }
    });
}

#[test]
fn a_malformed_ciphertext_is_refused_as_a_wrong_one() {
    on_each(|| {
        let key = key();
        let good = encrypt(key.public_point(), &[0x5a; 48]).unwrap();
        let der = good.to_der();
        assert_eq!(*key.decrypt_der(&der).unwrap(), [0x5a; 48]);
        let mut wrong = vec![Ciphertext { hash: [0; 32], ..good }.to_der(), [&der[..], &[0]].concat()];
        wrong.extend((0..der.len()).map(|end| der[..end].to_vec()));
        // Tags, lengths, a point off the curve, C3, C2.
        wrong.extend((0..der.len()).map(|at| {
            let mut changed = der.clone();
            changed[at] ^= 1;
            changed
        }));
        for der in wrong {
            assert_eq!(key.decrypt_der(&der).unwrap_err(), Error::Decryption, "{der:02x?}");
        }
    });
}

#[test]
fn encrypts_no_empty_message() {
    assert_eq!(encrypt(key().public_point(), &[]).unwrap_err(), Error::Plaintext);
}

#[test]
fn ciphertexts_have_one_encoding() {
    let key = key();
    for length in [1, 16, 48, 127, 128, 255, 256, 70_000] {
        let ciphertext = encrypt(key.public_point(), &vec![7; length]).unwrap();
        let der = ciphertext.to_der();
        assert_eq!(Ciphertext::from_der(&der).unwrap(), ciphertext);
        assert_eq!(Ciphertext::from_bytes(&ciphertext.to_bytes()).unwrap(), ciphertext);
        for end in (0..der.len()).step_by(der.len() / 100 + 1) {
            assert_eq!(Ciphertext::from_der(&der[..end]).unwrap_err(), Error::Encoding);
        }
        assert_eq!(Ciphertext::from_der(&[&der[..], &[0]].concat()).unwrap_err(), Error::Encoding);
    }
    // A length with a superfluous zero.
    let der = encrypt(key.public_point(), &[7; 48]).unwrap().to_der();
    assert_eq!(der[..2], [0x30, 0x81]);
    let longer = [&[0x30, 0x82, 0][..], &der[2..]].concat();
    assert_eq!(Ciphertext::from_der(&longer).unwrap_err(), Error::Encoding);
    assert_eq!(Ciphertext::from_bytes(&[4; 97]).unwrap_err(), Error::Encoding);
    let whole = encrypt(key.public_point(), &[1]).unwrap().to_bytes();
    assert_eq!(Ciphertext::from_bytes(&whole[..97]).unwrap_err(), Error::Encoding);
}

#[test]
fn signatures_have_one_encoding() {
    let small = Signature { r: hex32(&format!("{:064x}", 0x80)), s: hex32(&format!("{:064x}", 0x7f)) };
    assert_eq!(small.to_der(), hex("30 07 02 02 0080 02 01 7f"));
    assert_eq!(Signature::from_der(&small.to_der()).unwrap(), small);
    let large = Signature { r: [0xff; 32], s: [0; 32] };
    assert_eq!(Signature::from_der(&large.to_der()).unwrap(), large);
    for wrong in [
        "",
        "30",
        "30 00",
        "30 03 02 01 01",
        "30 06 02 01 80 02 01 7f",
        "30 08 02 02 0001 02 02 0001",
        "30 06 02 00 02 02 0080",
        "30 81 07 02 02 0080 02 01 7f",
        "30 80 02 02 0080 02 01 7f 00 00",
        "31 07 02 02 0080 02 01 7f",
        "30 07 02 02 0080 04 01 7f",
        "30 07 02 02 0080 02 01 7f 00",
        "30 08 02 02 0080 02 01 7f 00",
        "30 0a 02 02 0080 02 01 7f 02 01 01",
        "30 85 0000000007 02 02 0080 02 01 7f",
        "30 ff 02 02 0080 02 01 7f",
    ] {
        assert_eq!(Signature::from_der(&hex(wrong)).unwrap_err(), Error::Encoding, "{wrong}");
    }
    let mut long = hex("30 26 02 21 01");
    long.extend([0; 32]);
    long.extend(hex("02 01 01"));
    assert_eq!(Signature::from_der(&long).unwrap_err(), Error::Encoding);
}

#[test]
fn refuses_to_agree_where_the_common_point_is_infinity() {
    on_each(|| {
        // The peer's static key is the opposite of x * R for its own ephemeral R.
        let (key, ephemeral) = (key(), SecretKey::from_bytes(&[0x77; 32]).unwrap());
        let (x, _) = ephemeral.public_point().coordinates();
        let words = crate::sm2::words::from_be_bytes(&x);
        let factor = Scalar([words[0], words[1] | 1 << 63, 0, 0]);
        let opposite = Scalar::default().sub(&factor.mul(&ephemeral.scalar));
        let wrong = SecretKey::from_bytes(&opposite.encode()).unwrap();
        let own = Own { key: &key, ephemeral: &key, z: &[0; 32] };
        let peer = Peer { key: wrong.public_point(), ephemeral: ephemeral.public_point(), z: &[0; 32] };
        assert_eq!(agree(Role::Initiator, &own, &peer).unwrap_err(), Error::Exchange);
        let own = Own { key: &wrong, ephemeral: &ephemeral, z: &[0; 32] };
        let peer = Peer { key: key.public_point(), ephemeral: key.public_point(), z: &[0; 32] };
        assert_eq!(agree(Role::Initiator, &own, &peer).unwrap_err(), Error::Exchange);
    });
}

#[test]
fn takes_ids_up_to_8191_bytes() {
    let point = *key().public_point();
    assert!(digest_id(&[0x31; 8191], &point).is_ok());
    assert_eq!(digest_id(&[0x31; 8192], &point).unwrap_err(), Error::Id);
    assert_eq!(digest_id(&[0x31; 70_000], &point).unwrap_err(), Error::Id);
}

#[test]
fn secrets_are_not_printed() {
    let key = key();
    let text = format!("{key:?}");
    assert!(text.starts_with("SecretKey { public:") && text.ends_with(".. }") && !text.contains("3535353535353535"));
}

fn sum<F: Arith>(s: &Scalar, t: &Scalar, point: &Affine) -> Affine {
    multiply_two_vartime::<F>(s, t, point).to_affine::<F>()
}

/// Whoever may choose the digest fits one to any r and s; with a zero among r, s and r + s it would be a forgery for every digest to come.
#[test]
fn refuses_a_zero_where_everything_else_is_right() {
    on_each(|| {
        let public = key().public_key();
        let (zero, one, two) = (Scalar::default(), Scalar::reduce(&[0x21; 32]), Scalar::reduce(&[0x54; 32]));
        for prepared in [false, true] {
            if prepared {
                public.prepare();
            }
            for (r, s, right) in
                [(one, two, true), (zero, one, false), (one, zero, false), (zero.sub(&one), one, false)]
            {
                let point = Point(on_best!(sum, &s, &r.add(&s), &public.point().0));
                let e = r.sub(&Scalar::reduce(&point.coordinates().0));
                let signature = Signature { r: r.encode(), s: s.encode() };
                assert_eq!(public.verify_digest(&e.encode(), &signature), right, "{signature:x?}");
            }
        }
    });
}

/// Once in 2^128 the x of a signature's point is n or more, and r knows it less n.
#[test]
fn takes_a_signature_whose_point_has_an_x_beyond_n() {
    let big = |words: &[u64; 4]| BigUint::from_bytes_be(&to_be_bytes(*words));
    let bytes = |number: &BigUint| hex32(&format!("{number:064x}"));
    let (p, b) = (big(&P), BigUint::from_bytes_be(&hex32(ROOT_OF_B)).pow(2));
    let (less, point) = (1u32..)
        .find_map(|less| {
            let x = big(&N) + less;
            let square = (x.pow(3) + &b + (&p - 3u8) * &x) % &p;
            // p is 3 modulo 4.
            let y = square.modpow(&((&p + 1u8) >> 2), &p);
            Point::from_coordinates(&bytes(&x), &bytes(&y)).ok().map(|point| (less, point))
        })
        .unwrap();
    on_each(|| {
        // The key for which s and t give this point.
        let (s, t) = (Scalar::reduce(&[0x21; 32]), Scalar::reduce(&[0x54; 32]));
        let inverse = t.invert();
        let public = PublicKey::new(Point(on_best!(sum, &Scalar::default().sub(&s.mul(&inverse)), &inverse, &point.0)));
        let r = t.sub(&s);
        let e = r.sub(&Scalar([less.into(), 0, 0, 0])).encode();
        let signature = Signature { r: r.encode(), s: s.encode() };
        assert!(public.verify_digest(&e, &signature));
        public.prepare();
        assert!(public.verify_digest(&e, &signature));
    });
}
