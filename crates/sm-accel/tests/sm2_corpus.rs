//! The fuzz corpora of SM2, replayed: what is good is taken, what is named bad refused, and nothing panics.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use sm_accel::sm2::{Ciphertext, Point, SecretKey, Signature};

/// Every file with whether its name says that it is good.
fn corpus(name: &str) -> Vec<(String, bool, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name.clone(), !name.starts_with("bad-"), std::fs::read(path).unwrap())
    });
    files.collect()
}

#[test]
fn encodings_are_read_and_written_alike_or_refused() {
    let files = corpus("sm2_der");
    assert!(files.len() >= 17);
    for (name, good, bytes) in files {
        let (signature, ciphertext) = (Signature::from_der(&bytes), Ciphertext::from_der(&bytes));
        assert_eq!(signature.is_ok() || ciphertext.is_ok(), good, "{name}");
        assert!(signature.is_err() || signature.unwrap().to_der() == bytes, "{name}");
        assert!(ciphertext.is_err() || ciphertext.unwrap().to_der() == bytes, "{name}");
    }
}

#[test]
fn points_are_taken_or_refused() {
    let (key, files) = (SecretKey::from_bytes(&[0x35; 32]).unwrap(), corpus("sm2_point"));
    assert!(files.len() >= 9);
    for (name, good, bytes) in files {
        let point = bytes.first_chunk().and_then(|bytes| Point::from_uncompressed(bytes).ok());
        assert_eq!(point.is_some(), good || name == "bad-no-cipher", "{name}");
        if let Some(point) = point {
            assert_eq!(point.to_uncompressed()[..], bytes[..65], "{name}");
            key.ecdh(&point);
        }
        let ciphertext = Ciphertext::from_bytes(&bytes);
        assert_eq!(ciphertext.is_ok(), good && name != "point", "{name}");
        assert!(!ciphertext.is_ok_and(|ciphertext| key.decrypt(&ciphertext).is_ok()), "{name}");
    }
}

#[test]
fn both_ways_of_verification_and_both_sides_of_ecdh_agree() {
    let files = corpus("sm2_keys");
    assert!(files.len() >= 11);
    for (name, good, bytes) in files {
        let keys = match bytes.as_chunks::<32>().0 {
            [a, b, e, s] => SecretKey::from_bytes(a).ok().zip(SecretKey::from_bytes(b).ok()).zip(Some((e, s))),
            _ => None,
        };
        assert_eq!(keys.is_some(), good, "{name}");
        let Some(((a, b), (e, s))) = keys else { continue };
        assert_eq!(a.ecdh(b.public_point()), b.ecdh(a.public_point()), "{name}");
        let (public, prepared, signature) = (a.public_key(), a.public_key(), a.sign_digest(e).unwrap());
        prepared.prepare();
        assert!(public.verify_digest(e, &signature) && prepared.verify_digest(e, &signature), "{name}");
        let other = Signature { s: *s, ..signature };
        assert!(!public.verify_digest(e, &other) && !prepared.verify_digest(e, &other), "{name}");
    }
}
