//! Feeds arbitrary bytes to `proxy_header`; nothing may panic or take more than linear time.

#![no_main]
use shangmq::net::proxy::{ProxyParse, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let answer = parse(data, 4096);
    for end in (0..data.len()).rev().take(64) {
        let early = parse(&data[..end], 4096);
        assert!(early == Ok(ProxyParse::NeedMore) || early == answer);
    }
});
