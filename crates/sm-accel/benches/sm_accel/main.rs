//! What each operation costs on this machine. The ratios to Tongsuo's are in gm-tls' benches, which can link it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set itself up must stop")]

mod sm2;

criterion::criterion_group! {
    name = operations;
    config = criterion::Criterion::default().warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = sm2::operations
}
criterion::criterion_main!(operations);
