//! Replays the seeds of the fuzz target `client_hello` over every prefix.

use std::path::Path;

use gm_tls::hello::{Parse, parse};

#[test]
fn every_seed_has_one_stable_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/client_hello");
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).expect("folder of seeds") {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap();
        let answer = parse(&seed);
        for end in 0..seed.len() {
            let early = parse(&seed[..end]);
            assert!(early == Ok(Parse::NeedMore) || early == answer, "{} at {end}", path.display());
        }
        // The name of a seed tells what it is, `ok-…` or `bad-…`; files that a fuzzer left beside them have neither.
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match answer {
            Ok(Parse::Hello(_)) => assert!(!name.starts_with("bad-"), "{name} was accepted"),
            other => assert!(!name.starts_with("ok-"), "{name}: {other:?}"),
        }
        seeds += 1;
    }
    assert!(seeds >= 10, "only {seeds} seeds in {}", folder.display());
}
