//! SM2 against the library's own, each with the keys and the outcome of the other.

use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, PointConversionForm},
    nid::Nid,
    pkey::{Id, PKey, Private, Public},
};

use crate::{
    OURS, THEIRS,
    evp::{Way, decrypt, encrypt, sign, sign_digest, takes_id, verify, verify_digest},
    harness::noise,
    start,
};

fn group() -> EcGroup {
    EcGroup::from_curve_name(Nid::SM2).unwrap()
}

fn key() -> PKey<Private> {
    start();
    decoded(&EcKey::generate(&group()).unwrap())
}

/// As keys come from files: decoded by the library into its own key management.
fn decoded(key: &EcKey<Private>) -> PKey<Private> {
    let pem = PKey::from_ec_key(key.clone()).unwrap().private_key_to_pem_pkcs8().unwrap();
    PKey::private_key_from_pem(&pem).unwrap()
}

fn public(key: &PKey<Private>) -> PKey<Public> {
    PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap()
}

#[test]
fn signatures_are_the_librarys_and_the_library_takes_ours() {
    for (number, id) in
        [None, Some(&b"1234567812345678"[..]), Some(b"someone"), Some(&[7; 300])].into_iter().enumerate()
    {
        let key = key();
        let public = public(&key);
        for length in [0, 1, 31, 64, 200, 5000] {
            let message = &noise(length)[..];
            for way in [Way::AtOnce, Way::InPieces, Way::Copied] {
                for (signer, verifier) in [(OURS, THEIRS), (THEIRS, OURS), (OURS, OURS)] {
                    let signature = sign(signer, &key, id, message, way);
                    assert!(
                        verify(verifier, &public, id, message, &signature, way),
                        "{signer} for {verifier}, {length} bytes, {way:?}, id {number}"
                    );
                    assert!(!verify(verifier, &public, Some(b"another"), message, &signature, way));
                    assert!(!verify(verifier, &public, id, b"another", &signature, way));
                }
            }
        }
    }
}

/// It would change what was signed already; and its length in bits has two bytes.
#[test]
fn an_id_comes_before_the_message_and_is_not_too_long() {
    let key = key();
    for properties in [OURS, THEIRS] {
        assert!(takes_id(properties, &key, &[7; 8191], b""), "{properties}");
        assert!(!takes_id(properties, &key, b"late", b"begun"), "{properties}");
    }
    assert!(!takes_id(OURS, &key, &[7; 8192], b""));
}

#[test]
fn digests_are_signed_as_the_library_signs_them() {
    let key = key();
    let digest = noise(32);
    for (signer, verifier) in [(OURS, THEIRS), (THEIRS, OURS)] {
        let signature = sign_digest(signer, &key, &digest).unwrap();
        assert!(verify_digest(verifier, &key, &digest, &signature));
        assert!(!verify_digest(verifier, &key, &noise(33)[1..], &signature));
    }
    for properties in [OURS, THEIRS] {
        for length in [0, 31, 33] {
            assert_eq!(sign_digest(properties, &key, &noise(length)), None, "{properties}: a digest of {length} bytes");
        }
    }
}

/// `SEQUENCE { r, s }` from big-endian bytes.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number = BigNum::from_slice(number).unwrap().to_vec();
        let mut bytes = if number.is_empty() { vec![0] } else { number };
        if bytes[0] >= 0x80 {
            bytes.insert(0, 0);
        }
        [&[2, bytes.len() as u8][..], &bytes].concat()
    };
    let inner = [integer(r), integer(s)].concat();
    [&[0x30, inner.len() as u8][..], &inner].concat()
}

#[test]
fn signatures_out_of_range_or_badly_encoded_are_refused_alike() {
    let key = key();
    let digest = noise(32);
    let good = sign_digest(OURS, &key, &digest).unwrap();
    let mut order = BigNum::new().unwrap();
    group().order(&mut order, &mut BigNumContext::new().unwrap()).unwrap();
    let order = order.to_vec();
    let one = [1];
    let mut bad = vec![
        der(&[0], &one),
        der(&one, &[0]),
        der(&[0], &[0]),
        der(&order, &one),
        der(&one, &order),
        der(&[0xff; 32], &[0xff; 32]),
        der(&[0xff; 40], &one),
        Vec::new(),
        vec![0x30, 0],
        [&good[..], &[0]].concat(),
        good[..good.len() - 1].to_vec(),
    ];
    // An integer with a superfluous zero, and a negative one.
    bad.push(vec![0x30, 7, 2, 2, 0, 1, 2, 1, 1]);
    bad.push(vec![0x30, 6, 2, 1, 0xff, 2, 1, 1]);
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        bad.push(changed);
    }
    for signature in bad {
        for properties in [OURS, THEIRS] {
            assert!(!verify_digest(properties, &key, &digest, &signature), "{properties} took {signature:02x?}");
        }
    }
    assert!(verify_digest(OURS, &key, &digest, &good));
}

#[test]
fn encryption_is_the_librarys_in_both_directions() {
    let key = key();
    let public = public(&key);
    for length in (1..70).chain([127, 128, 255, 256, 1000, 70_000]) {
        let plaintext = noise(length);
        for (there, here) in [(OURS, THEIRS), (THEIRS, OURS)] {
            let ciphertext = encrypt(there, &public, &plaintext);
            let found = decrypt(here, &key, &ciphertext, None);
            assert!(found.as_ref() == Some(&plaintext), "{length} bytes from {there} to {here}");
        }
    }
}

#[test]
fn a_changed_or_truncated_ciphertext_is_refused_alike() {
    let key = key();
    let good = encrypt(THEIRS, &key, b"the premaster secret");
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        for properties in [OURS, THEIRS] {
            assert_eq!(decrypt(properties, &key, &changed, None), None, "{properties}, byte {at}");
            assert_eq!(decrypt(properties, &key, &good[..at], None), None, "{properties}, {at} bytes");
        }
    }
}

#[test]
fn a_wrong_premaster_secret_becomes_random_bytes_and_no_error() {
    let key = key();
    let mut secret = noise(48);
    secret[..2].copy_from_slice(&[1, 1]);
    let good = encrypt(THEIRS, &key, &secret);
    for properties in [OURS, THEIRS] {
        assert_eq!(decrypt(properties, &key, &good, Some(0x0101)).as_ref(), Some(&secret), "{properties}");
        let other_version =
            [[3, 3], [1, 3], [3, 1]].map(|version| encrypt(THEIRS, &key, &[&version, &secret[2..]].concat()));
        let short = encrypt(THEIRS, &key, &secret[..47]);
        let long = encrypt(THEIRS, &key, &[&secret[..], &[0]].concat());
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        let wrong = [short, long, changed, good[..60].to_vec(), Vec::from(b"nothing like it")];
        for wrong in wrong.into_iter().chain(other_version) {
            let first = decrypt(properties, &key, &wrong, Some(0x0101)).expect("an error tells a peer something");
            let second = decrypt(properties, &key, &wrong, Some(0x0101)).unwrap();
            assert_eq!(first.len(), 48, "{properties}");
            assert_ne!(first, second, "{properties}: not random");
            assert_ne!(first, secret);
        }
    }
}

#[test]
fn keys_with_compressed_points_are_taken() {
    start();
    let (group, mut context) = (group(), BigNumContext::new().unwrap());
    let ec = EcKey::generate(&group).unwrap();
    let point = ec.public_key().to_bytes(&group, PointConversionForm::COMPRESSED, &mut context).unwrap();
    // 1.2.840.10045.2.1 with the curve 1.2.156.10197.1.301, and the point.
    let algorithm =
        [0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d];
    let bits = [&[3, 34, 0][..], &point].concat();
    let der = [&[0x30, (algorithm.len() + bits.len()) as u8][..], &algorithm, &bits].concat();
    let compressed = PKey::public_key_from_der(&der).unwrap();
    let signature = sign(THEIRS, &decoded(&ec), None, b"message", Way::AtOnce);
    for properties in [OURS, THEIRS] {
        assert!(verify(properties, &compressed, None, b"message", &signature, Way::AtOnce), "{properties}");
    }
}

#[test]
fn a_key_is_exported_to_us_once_and_then_kept() {
    use gm_tls::provider::{Operation, served};
    let key = key();
    sign(OURS, &key, None, b"first", Way::AtOnce);
    // Other tests of this binary import keys meanwhile, so only a long series tells.
    let before = served(Operation::KeyImport);
    for _ in 0..500 {
        sign(OURS, &key, None, b"more", Way::AtOnce);
    }
    let imported = served(Operation::KeyImport) - before;
    assert!(imported < 250, "{imported} imports for 500 signatures with one key");
}

#[test]
fn keys_of_ours_go_back_into_the_library_and_its_files() {
    start();
    // Without a legacy key in between: this one is generated by us.
    let mut context = openssl::pkey_ctx::PkeyCtx::new_id(Id::SM2).unwrap();
    context.keygen_init().unwrap();
    let key = context.keygen().unwrap();
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let back = PKey::private_key_from_pem(&pem).unwrap();
    assert!(back.public_eq(&key), "another public key");
    let signature = sign(OURS, &key, None, b"message", Way::AtOnce);
    assert!(verify(THEIRS, &back, None, b"message", &signature, Way::AtOnce));
    let signature = sign(THEIRS, &back, None, b"message", Way::AtOnce);
    assert!(verify(OURS, &key, None, b"message", &signature, Way::AtOnce));
    assert_eq!(key.public_key_to_der().unwrap(), back.public_key_to_der().unwrap());
}

/// A key as a certificate holds it, and where in it the coordinates begin.
fn encoded_public() -> (Vec<u8>, usize) {
    let der = key().public_key_to_der().unwrap();
    assert_eq!(der.len(), 91);
    (der, 27)
}

#[test]
fn a_public_key_is_decoded_to_one_of_ours_and_encoded_again_by_the_library() {
    use gm_tls::provider::{Operation, served};
    let (der, _) = encoded_public();
    let before = served(Operation::KeyDecode);
    let decoded = PKey::public_key_from_der(&der).unwrap();
    assert!(served(Operation::KeyDecode) > before);
    assert_eq!(decoded.id(), Id::SM2);
    assert_eq!((decoded.bits(), decoded.security_bits()), (256, 128));
    assert_eq!(decoded.public_key_to_der().unwrap(), der);
    let pem = decoded.public_key_to_pem().unwrap();
    assert!(PKey::public_key_from_pem(&pem).unwrap().public_eq(&decoded));
    // As a legacy key of the library.
    let legacy = decoded.ec_key().unwrap();
    assert!(PKey::from_ec_key(legacy).unwrap().public_eq(&decoded));
}

#[test]
fn what_is_no_key_of_the_curve_is_refused_or_left_to_the_library() {
    let (good, at) = encoded_public();
    let mut off_the_curve = good.clone();
    off_the_curve[at + 40] ^= 1;
    let mut not_reduced = good.clone();
    not_reduced[at..at + 32].fill(0xff);
    let mut hybrid = good.clone();
    hybrid[at - 1] = 6;
    let zero = [&good[..at], &[0; 64]].concat();
    for (name, bad) in [("off the curve", off_the_curve), ("not reduced", not_reduced), ("zero", zero)] {
        assert!(PKey::public_key_from_der(&bad).is_err(), "{name}");
    }
    for length in 0..good.len() {
        assert!(PKey::public_key_from_der(&good[..length]).is_err(), "{length} bytes");
    }
    let p256 = EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap();
    let p256 = PKey::from_ec_key(p256).unwrap();
    assert!(PKey::public_key_from_der(&p256.public_key_to_der().unwrap()).unwrap().public_eq(&p256));
    assert_eq!(PKey::public_key_from_der(&hybrid).is_ok(), hybrid[at + 63] & 1 == 0, "the library knows hybrid points");
}

#[test]
fn a_decoded_key_is_the_same_key_as_the_one_of_its_file() {
    let private = key();
    let public = public(&private);
    assert!(private.public_eq(&public) && public.public_eq(&private));
    assert!(!public.public_eq(&key()));
}
