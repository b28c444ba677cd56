//! Handshakes through the contexts that the broker uses, in memory, on one thread and without a runtime: what the server
//! spends, and what both sides spend together. Then a table of handshakes per second and core with ratios to TLS with P-256,
//! sampled in turns so that a change of the machine's speed meets every row alike. `cargo bench --bench handshake -- table`
//! makes the table alone, `-- bulk` measures the encryption of records. With `SHANGMQ_CRYPTO__PROVIDER=tongsuo` SM2, SM3 and SM4 are the
//! library's own.
#![allow(clippy::expect_used)]

#[allow(dead_code, reason = "some of it is for the comparison of recipes, which includes it too")]
mod cases;
mod table;

use std::{hint::black_box, time::Duration};

use cases::{Case, Pki, Spent};
use criterion::Criterion;
use gm_tls::provider::Provider;
use shangmq::config::CryptoConfig;

fn benchmark(criterion: &mut Criterion, cases: &[Case], group: &str, pick: fn(Spent) -> Duration) {
    let mut group = criterion.benchmark_group(group);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for case in cases {
        group.bench_function(case.name.as_str(), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| pick(black_box(case.handshake()))).sum());
        });
    }
    group.finish();
}

/// One number for `scripts/bench-recipe`: TLCP handshakes per second by the server's time alone.
#[allow(clippy::print_stdout, reason = "the number is what is asked for")]
fn sample(handshakes: u32) {
    let case = Case::named(&Pki::new(), "tlcp", "ECC_SM4_GCM_SM3");
    let spent: Duration = (0..handshakes).map(|_| case.handshake().server).sum();
    println!("{:.0}", f64::from(handshakes) / spent.as_secs_f64());
}

/// Who computes SM2, SM3 and SM4, as for the program itself.
fn provider() -> Provider {
    match std::env::var("SHANGMQ_CRYPTO__PROVIDER") {
        Ok(word) => CryptoConfig::word(&word).expect("accelerated or tongsuo"),
        Err(_) => Provider::default(),
    }
}

/// As the configuration calls it.
fn provider_name() -> &'static str {
    match provider() {
        Provider::Accelerated => "accelerated",
        Provider::Tongsuo => "tongsuo",
    }
}

/// Megabytes per second and core that the server encrypts and the client decrypts, in records of 16 KiB.
#[allow(clippy::print_stdout, reason = "the numbers are what is asked for")]
fn bulk() {
    let pki = Pki::new();
    for (label, suite) in [
        ("tls1.2 P-256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("tlcp", "ECC_SM4_GCM_SM3"),
        ("tlcp", "ECC_SM4_CBC_SM3"),
        ("rfc8998", "TLS_SM4_GCM_SM3"),
        ("rfc8998", "TLS_SM4_CCM_SM3"),
    ] {
        println!("{label} {suite}: {:.0} MB/s", Case::named(&pki, label, suite).bulk() / 1e6);
    }
}

fn main() {
    gm_tls::provider::choose(provider()).expect("a provider that passes its self-test");
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("sample") => return sample(arguments.next().and_then(|count| count.parse().ok()).unwrap_or(200)),
        Some("bulk") => return bulk(),
        _ => {}
    }
    let cases = cases::all();
    let mut criterion = Criterion::default().configure_from_args();
    benchmark(&mut criterion, &cases, "handshake server", |spent| spent.server);
    benchmark(&mut criterion, &cases, "handshake both sides", |spent| spent.both);
    criterion.final_summary();
    // Cargo runs benches as tests with `--test` and asks what there is with `--list`; a profile is to be of one case.
    let no_table = ["--test", "--list", "--profile-time"];
    if !std::env::args().any(|argument| no_table.contains(&argument.as_str())) {
        table::make(&cases).expect("the table can be written");
    }
}
