//! Whether the time in which a record of a CBC suite is refused tells what was wrong with it (Lucky Thirteen), after dudect (Reparaz,
//! Balasch, Verbauwhede, 2016): two classes of records in random order, and Welch's t-test on their times.
//!
//! It needs a quiet machine and an optimised build, so it measures only if `GM_TLS_TIMING` is set, as `make soak` does.

use std::{mem::MaybeUninit, time::Instant};

use gm_tls::{
    client::{ClientOptions, ClientProtocol, Connector},
    server::{ServerContexts, VerifyMode},
};

use crate::PROVIDER;
use crate::harness::{self, cut_record, padded_text};

/// Records of both classes together; each needs a handshake of its own.
const SAMPLES: usize = 40_000;
/// Beyond this |t| a leak is taken as shown; ten is dudect's own bound. A measurement that exceeds it is made anew: what lies in the code
/// exceeds it each time.
const BOUND: f64 = 10.0;
const ATTEMPTS: usize = 3;
/// Bytes of text: more than the longest padding and a MAC.
const LENGTH: usize = 512;

/// How long a server takes to refuse each record, in nanoseconds.
fn refusals(contexts: &ServerContexts, connector: &Connector, texts: [&[u8]; 2]) -> Vec<(bool, f64)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let times = (0..SAMPLES).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let second = state >> 63 == 1;
        let (mut server, mut client) = harness::engines(contexts, connector);
        let record = cut_record(&mut client, texts[usize::from(second)]);
        server.receive(&record);
        let mut space = [MaybeUninit::uninit(); 1024];
        let start = Instant::now();
        let refused = server.read(&mut space).is_err();
        let time = start.elapsed().as_nanos() as f64;
        assert!(refused);
        (second, time)
    });
    times.collect()
}

/// The largest |t| over several cuts of the slowest samples, which interrupts make.
fn greatest_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let cuts = [0.5, 0.8, 0.9, 0.99].map(|share| sorted[(sorted.len() as f64 * share) as usize]);
    let welch = cuts.map(|cut| {
        let [a, b] = [false, true].map(|class| {
            let chosen: Vec<f64> =
                times.iter().filter(|(of, time)| *of == class && *time <= cut).map(|(_, time)| *time).collect();
            let mean = chosen.iter().sum::<f64>() / chosen.len() as f64;
            let squares = chosen.iter().map(|time| (time - mean).powi(2)).sum::<f64>();
            (mean, squares / (chosen.len() - 1) as f64 / chosen.len() as f64)
        });
        (a.0 - b.0).abs() / (a.1 + b.1).sqrt()
    });
    welch.into_iter().fold(0.0, f64::max)
}

#[test]
fn a_record_is_refused_in_the_same_time_whatever_is_wrong_with_it() {
    if std::env::var_os("GM_TLS_TIMING").is_none() {
        println!("not measured: GM_TLS_TIMING is not set");
        return;
    }
    let contexts = ServerContexts::new(&harness::server_options(VerifyMode::None)).unwrap();
    let options =
        ClientOptions { ciphers: vec!["ECC_SM4_CBC_SM3".to_owned()], ..harness::client_options(ClientProtocol::Tlcp) };
    let connector = Connector::new(&options).unwrap();
    let none = padded_text(LENGTH, 0);
    let all = padded_text(LENGTH, 255);
    let mut wrong = all.clone();
    wrong[LENGTH - 100] ^= 1;
    let mut shown = Vec::new();
    for (what, texts) in [
        ("no padding and the longest, both right", [&none, &all]),
        ("right padding and wrong", [&all, &wrong]),
        ("no padding and wrong", [&none, &wrong]),
    ] {
        let mut least = f64::MAX;
        for _ in 0..ATTEMPTS {
            least = least.min(greatest_t(&refusals(&contexts, &connector, texts.map(Vec::as_slice))));
            if least < BOUND {
                break;
            }
        }
        println!("{PROVIDER:?}, {what}: |t| = {least:.2}");
        shown.extend((least >= BOUND).then(|| format!("{what}: |t| = {least:.2}")));
    }
    // The test itself: a difference of four blocks of SM3, which is what a MAC over less text saves, is seen.
    let shorter = padded_text(LENGTH - 256, 0);
    let seen = greatest_t(&refusals(&contexts, &connector, [&none, &shorter]));
    println!("{PROVIDER:?}, a record shorter by 256 bytes: |t| = {seen:.2}");
    assert!(seen > BOUND, "the test sees nothing: |t| = {seen:.2}");
    assert!(shown.is_empty(), "times differ: {shown:?}");
}
