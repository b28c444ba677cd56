//! Feeds arbitrary bytes to `client_hello`; nothing may panic or take more than linear time.

#![no_main]
use gm_tls::hello::{Parse, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let answer = parse(data);
    for end in (0..data.len()).rev().take(64) {
        let early = parse(&data[..end]);
        assert!(early == Ok(Parse::NeedMore) || early == answer);
    }
});
