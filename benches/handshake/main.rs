//! Handshakes through the contexts that the broker uses, in memory, on one thread and without a runtime: what the server
//! spends, and what both sides spend together. Then a table of handshakes per second and core with ratios to TLS with P-256,
//! sampled in turns so that a change of the machine's speed meets every row alike. `cargo bench --bench handshake -- table`
//! makes the table alone.
#![allow(clippy::expect_used)]

#[allow(dead_code, reason = "some of it is for the comparison of recipes, which includes it too")]
mod cases;
mod table;

use std::{hint::black_box, time::Duration};

use cases::{Case, Pki, Spent};
use criterion::Criterion;

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

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("sample") {
        return sample(arguments.next().and_then(|count| count.parse().ok()).unwrap_or(200));
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
