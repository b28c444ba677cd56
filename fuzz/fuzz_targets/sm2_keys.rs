//! Takes 128 bytes as two private keys, a digest and an s: both ways of verification and both sides of ECDH must agree.

#![no_main]
use sm_accel::sm2::{SecretKey, Signature};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let ([a, b, e, s], _) = data.as_chunks::<32>() else { return };
    let (Ok(a), Ok(b)) = (SecretKey::from_bytes(a), SecretKey::from_bytes(b)) else { return };
    assert_eq!(a.ecdh(b.public_point()), b.ecdh(a.public_point()));
    let (public, prepared, mut signature) = (a.public_key(), a.public_key(), a.sign_digest(e).unwrap());
    prepared.prepare();
    assert!(public.verify_digest(e, &signature) && prepared.verify_digest(e, &signature));
    signature = Signature { s: *s, ..signature };
    assert_eq!(public.verify_digest(e, &signature), prepared.verify_digest(e, &signature));
});
