//! Feeds arbitrary bytes to the reader of JSON Web Tokens, and to that of their claims; nothing may panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shangmq::auth::fuzz_token(data));
