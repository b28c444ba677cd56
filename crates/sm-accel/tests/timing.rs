//! Whether the time of SM4 depends on keys or data, after dudect (Reparaz, Balasch, Verbauwhede, 2016): two classes of input, one fixed and
//! one random, are timed in random order, and Welch's t-test says whether the two samples have one mean.
//!
//! It needs a quiet machine and an optimised build, so it measures only if `SM_ACCEL_TIMING` is set, as `make soak` does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::hint::black_box;
use std::time::Instant;

use sm_accel::sm4::{Backend, Cbc, Ccm, Ctr, Gcm, Key};

const SAMPLES: usize = 200_000;
/// Beyond this |t| a leak is taken as shown; ten is dudect's own bound.
const BOUND: f64 = 10.0;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn block(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_ne_bytes()
    }
}

/// The largest |t| over several cuts of the slowest samples, which interrupts make.
fn t_value(mut work: impl FnMut(&[u8; 16])) -> f64 {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut inputs = vec![(false, [0; 16]); 0];
    for _ in 0..SAMPLES {
        let random = noise.next() & 1 == 1;
        let block = noise.block();
        inputs.push((random, if random { block } else { [0; 16] }));
    }
    let mut times = Vec::with_capacity(SAMPLES);
    for (random, input) in &inputs {
        let start = Instant::now();
        // Several times, since the clock ticks slower than the work.
        for _ in 0..8 {
            work(black_box(input));
        }
        times.push((*random, start.elapsed().as_nanos() as f64));
    }
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    [0.5, 0.8, 0.9, 0.99]
        .map(|share| welch(&times, sorted[(SAMPLES as f64 * share) as usize]))
        .into_iter()
        .fold(0.0, f64::max)
}

fn welch(times: &[(bool, f64)], cut: f64) -> f64 {
    let [a, b] = [false, true].map(|class| {
        let of_class = times.iter().filter(|(random, time)| *random == class && *time <= cut).map(|(_, time)| *time);
        let (count, mean, squares) = of_class.fold((0.0, 0.0, 0.0), |(n, mean, squares): (f64, f64, f64), time| {
            let n = n + 1.0;
            let delta = time - mean;
            let mean = mean + delta / n;
            (n, mean, squares + delta * (time - mean))
        });
        (mean, squares / (count - 1.0) / count)
    });
    (a.0 - b.0).abs() / (a.1 + b.1).sqrt().max(f64::MIN_POSITIVE)
}

#[test]
fn sm4_takes_the_same_time_for_every_key_and_block() {
    if std::env::var_os("SM_ACCEL_TIMING").is_none() {
        println!("not measured: SM_ACCEL_TIMING is not set");
        return;
    }
    let mut shown = Vec::new();
    for backend in Backend::available() {
        let key = Key::with_backend(&[3; 16], backend).unwrap();
        let gcm = Gcm::new(key.clone());
        let tag = gcm.seal(&[1; 12], &[], [].as_mut_slice().into()).unwrap();
        let measured = [
            ("key schedule", t_value(|input| drop(black_box(Key::with_backend(input, backend))))),
            ("key of GCM", t_value(|input| drop(black_box(Gcm::new(Key::with_backend(input, backend).unwrap()))))),
            ("block", t_value(|input| key.encrypt_block(black_box(&mut input.to_owned())))),
            ("block back", t_value(|input| key.decrypt_block(black_box(&mut input.to_owned())))),
            // The input as key and as data of what is computed block after block.
            (
                "CBC",
                t_value(|input| {
                    let _ = black_box(Cbc::new(key.clone(), input).encrypt(input.to_owned().as_mut_slice().into()));
                }),
            ),
            (
                "CTR, by key",
                t_value(|input| {
                    let key = Key::with_backend(input, backend).unwrap();
                    Ctr::new(key, input).apply([0; 64].as_mut_slice().into());
                }),
            ),
            (
                "CCM seal",
                t_value(|input| {
                    let ccm = Ccm::new(Key::with_backend(input, backend).unwrap(), 16).unwrap();
                    let _ = black_box(ccm.seal(&[1; 12], input, input.to_owned().as_mut_slice().into()));
                }),
            ),
            (
                "GCM seal",
                t_value(|input| {
                    let _ = black_box(gcm.seal(&[1; 12], input, input.to_owned().as_mut_slice().into()));
                }),
            ),
            (
                // The fixed tag is wrong at once, the random ones are too; one that begins rightly is not compared longer.
                "GCM tag",
                t_value(|input| {
                    let mut tag = tag;
                    tag[15] ^= 1 | input[15];
                    tag[0] ^= input[0];
                    let _ = black_box(gcm.open(&[1; 12], &[], [].as_mut_slice().into(), &tag));
                }),
            ),
        ];
        for (what, t) in measured {
            println!("{}, {what}: |t| = {t:.2}", backend.name());
            shown.extend((t > BOUND).then(|| format!("{}, {what}: |t| = {t:.2}", backend.name())));
        }
    }
    assert!(shown.is_empty(), "times differ: {shown:?}");
}

/// The test can tell: a comparison that ends at the first difference is found out.
#[test]
fn a_leak_would_be_seen() {
    if std::env::var_os("SM_ACCEL_TIMING").is_none() {
        return;
    }
    let t = t_value(|input| {
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        for round in 0..zeros * 10 {
            black_box(round);
        }
    });
    assert!(t > BOUND, "|t| = {t:.2}");
}
