//! Seals arbitrary bytes on every backend, by an arbitrary key and nonce; all must agree, and open must undo it.
#![no_main]
use sm_accel::sm4::{Backend, Gcm, Key};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((key, text)) = data.split_first_chunk::<16>() else { return };
    let (nonce, text) = text.split_at(text.len().min(12));
    let gcms = Backend::available().filter_map(|backend| Key::with_backend(key, backend)).map(Gcm::new);
    let sealed = gcms.map(|gcm| (text.to_vec(), gcm)).map(|(mut out, gcm)| {
        let tag = gcm.seal(nonce, key, out.as_mut_slice().into());
        assert!(tag.is_err() || gcm.open(nonce, key, out.clone().as_mut_slice().into(), &tag.unwrap()).is_ok());
        (out, tag)
    });
    assert!(sealed.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
});
