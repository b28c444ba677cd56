//! What the fuzz targets are fed, every file of it, by the same rules.

use std::fs;
use std::path::Path;

use sm_accel::sm3::{Backend as Sm3Backend, Sm3, digest, many};
use sm_accel::sm4::{Backend, Cbc, Ccm, Ctr, Gcm, Key};

fn replay(corpus: &str, mut f: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{} lacks its files", folder.display());
    files.iter().for_each(|file| f(&fs::read(file).unwrap()));
}

#[test]
fn every_way_gives_the_digest_of_the_sm3_corpus() {
    replay("sm3", |data| {
        let expected = digest(data);
        for mut hasher in Sm3Backend::available().filter_map(Sm3::with_backend) {
            data.chunks(data.len() / 3 + 1).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finalize(), expected);
        }
        let mut digests = [[0; 32]; 5];
        many(&[data; 5], &mut digests);
        assert_eq!(digests, [expected; 5]);
    });
}

#[test]
fn every_backend_seals_the_sm4_gcm_corpus_alike() {
    replay("sm4_gcm", |data| {
        let Some((key, text)) = data.split_first_chunk::<16>() else { return };
        let (nonce, text) = text.split_at(text.len().min(12));
        let mut all = Vec::new();
        for gcm in Backend::available().filter_map(|backend| Key::with_backend(key, backend)).map(Gcm::new) {
            let mut out = text.to_vec();
            let tag = gcm.seal(nonce, key, out.as_mut_slice().into());
            if let Ok(tag) = tag {
                let mut back = out.clone();
                gcm.open(nonce, key, back.as_mut_slice().into(), &tag).unwrap();
                assert_eq!(back, text);
            }
            all.push((out, tag));
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    });
}

#[test]
fn every_backend_takes_the_corpus_of_the_other_modes_alike() {
    replay("sm4_modes", |data| {
        let Some(([key, iv], text)) = data.as_chunks::<16>().0.first_chunk().zip(data.get(32..)) else { return };
        let mut all = Vec::new();
        for key in Backend::available().filter_map(|backend| Key::with_backend(key, backend)) {
            let (whole, nonce) = (text.len() / 16 * 16, &iv[..7 + usize::from(iv[0] % 7)]);
            let [mut cbc, mut ctr, mut ccm] = [text[..whole].to_vec(), text.to_vec(), text.to_vec()];
            Cbc::new(key.clone(), iv).encrypt(cbc.as_mut_slice().into()).unwrap();
            Ctr::new(key.clone(), iv).apply(ctr.as_mut_slice().into());
            let cipher = Ccm::new(key.clone(), 4 + 2 * usize::from(iv[1] % 7)).unwrap();
            let tag = cipher.seal(nonce, iv, ccm.as_mut_slice().into()).unwrap();
            all.push((cbc.clone(), ctr.clone(), ccm.clone(), tag));
            Cbc::new(key.clone(), iv).decrypt(cbc.as_mut_slice().into()).unwrap();
            Ctr::new(key, iv).apply(ctr.as_mut_slice().into());
            cipher.open(nonce, iv, ccm.as_mut_slice().into(), &tag[..cipher.tag_length()]).unwrap();
            assert!(cbc == text[..whole] && ctr == text && ccm == text);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    });
}
