//! Feeds arbitrary bytes to SM3, at once, in pieces and beside others; every way must give the same digest.

#![no_main]
use sm_accel::sm3::{Backend, Sm3, digest, many};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for mut hasher in Backend::available().filter_map(Sm3::with_backend) {
        data.chunks(data.len() / 3 + 1).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finalize(), digest(data));
    }
    let mut digests = [[0; 32]; 5];
    many(&[data; 5], &mut digests);
    assert_eq!(digests, [digest(data); 5]);
});
