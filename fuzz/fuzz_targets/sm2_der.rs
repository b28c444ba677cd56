//! Feeds arbitrary bytes to the decoders of SM2 signatures and ciphertexts; what is read has no other encoding.

#![no_main]
use sm_accel::sm2::{Ciphertext, Signature};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(signature) = Signature::from_der(data) {
        assert_eq!(signature.to_der(), data);
    }
    if let Ok(ciphertext) = Ciphertext::from_der(data) {
        assert_eq!(ciphertext.to_der(), data);
        assert_eq!(Ciphertext::from_bytes(&ciphertext.to_bytes()).as_ref(), Ok(&ciphertext));
    }
});
