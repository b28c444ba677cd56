//! Feeds arbitrary bytes to the reader of revocation lists and to that of certificates; nothing may panic, and a list finds what it names.

#![no_main]
use gm_tls::revocation::{Crl, Facts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(crl) = Crl::from_der(bytes::Bytes::copy_from_slice(data), 1 << 20) {
        assert!(crl.memory() <= 4 * data.len());
        assert!(crl.serials().all(|serial| crl.revoked(serial).is_some()));
    }
    let _ = Facts::of_der(data);
});
