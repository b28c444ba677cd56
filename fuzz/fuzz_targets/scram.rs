//! Feeds arbitrary messages, one to a line, to an exchange of SCRAM-SHA-256; nothing may panic, and nobody may be accepted.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shangmq::auth::fuzz_scram(data));
