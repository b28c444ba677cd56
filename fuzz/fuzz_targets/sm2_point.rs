//! Feeds 65 bytes as a point and the rest as a ciphertext to a private key; nothing may panic, and a point has one encoding.

#![no_main]
use sm_accel::sm2::{Ciphertext, Point, SecretKey};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    if let Some(Ok(point)) = data.first_chunk().map(Point::from_uncompressed) {
        assert_eq!(point.to_uncompressed()[..], data[..65]);
        key.ecdh(&point);
    }
    let _ = Ciphertext::from_bytes(data).map(|ciphertext| key.decrypt(&ciphertext));
});
