//! Runs arbitrary bytes through CBC, CTR and CCM on every backend, by an arbitrary key and nonce; all must agree, and the way back undo it.
#![no_main]
use sm_accel::sm4::{Backend, Cbc, Ccm, Ctr, Key};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(([key, iv], text)) = data.as_chunks::<16>().0.first_chunk().zip(data.get(32..)) else { return };
    let all = Backend::available().filter_map(|backend| Key::with_backend(key, backend)).map(|key| {
        let (whole, nonce) = (text.len() / 16 * 16, &iv[..7 + usize::from(iv[0] % 7)]);
        let [mut cbc, mut ctr, mut ccm] = [text[..whole].to_vec(), text.to_vec(), text.to_vec()];
        Cbc::new(key.clone(), iv).encrypt(cbc.as_mut_slice().into()).unwrap();
        Ctr::new(key.clone(), iv).apply(ctr.as_mut_slice().into());
        let cipher = Ccm::new(key.clone(), 4 + 2 * usize::from(iv[1] % 7)).unwrap();
        let tag = cipher.seal(nonce, iv, ccm.as_mut_slice().into());
        let out = (cbc.clone(), ctr.clone(), ccm.clone(), tag);
        Cbc::new(key.clone(), iv).decrypt(cbc.as_mut_slice().into()).unwrap();
        Ctr::new(key, iv).apply(ctr.as_mut_slice().into());
        assert!(cbc == text[..whole] && ctr == text);
        let opened = tag.and_then(|tag| cipher.open(nonce, iv, ccm.as_mut_slice().into(), &tag[..cipher.tag_length()]));
        assert!(opened.is_err() || ccm == text);
        assert_eq!(opened.is_ok(), tag.is_ok());
        out
    });
    assert!(all.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
});
