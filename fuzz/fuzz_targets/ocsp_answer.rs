//! Feeds arbitrary bytes to the reader of OCSP answers; nothing may panic, and what is believed is current.

#![no_main]
use gm_tls::cert::{Certificate, Source};
use gm_tls::revocation::{CertIdHash, OcspAnswer};

const TIME: i64 = 1_800_000_000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let read = |der: &[u8]| Certificate::from_der(&Source::new("seed"), der).unwrap();
    let (leaf, issuer) = (include_bytes!("ocsp_answer/leaf.der"), include_bytes!("ocsp_answer/issuer.der"));
    if let Ok(answer) = OcspAnswer::verify(data, &read(leaf), &read(issuer), CertIdHash::ByIssuer, TIME) {
        assert!(answer.next_update.is_none_or(|next| next > TIME) && answer.this_update < TIME + 3600);
    }
});
