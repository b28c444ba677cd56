//! What a publish pays for finding its subscribers: uncached and cached, by the number of subscriptions in the
//! broker, and what subscribing and retaining cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot set itself up must stop"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use shangmq::router::{CacheLimits, Retained, RetainedLimits, RetainedWalk, RouteCache, Router, RouterLimits, Stored};

type Subscriber = Arc<u64>;

/// `count` subscriptions of a fleet, half of them with wildcards, of which one matches `fleet/7/up/temperature`,
/// and `matching` overlapping ones that match `hot/7/up/temperature`.
fn router_with(count: u64, matching: u64) -> Arc<Router<Subscriber, u32>> {
    let router = Router::new(RouterLimits::default());
    for device in 0..count {
        let filter = match device % 4 {
            0 => format!("fleet/{device}/down/command"),
            1 => format!("other/{device}/up/#"),
            2 => format!("other/{device}/up/temperature"),
            _ => format!("fleet/{device}/+/temperature"),
        };
        router.insert(&filter, None, Arc::new(device), 1).expect("the filter is valid");
    }
    let overlapping = ["hot/7/up/temperature", "hot/7/up/#", "hot/7/+/temperature", "hot/+/up/temperature", "hot/#"];
    for subscriber in 0..matching {
        let filter = overlapping[subscriber as usize % overlapping.len()];
        router.insert(filter, None, Arc::new(subscriber), 1).expect("the filter is valid");
    }
    Arc::new(router)
}

fn publish(criterion: &mut Criterion) {
    for (matches, topic) in [(1, "fleet/7/up/temperature"), (50, "hot/7/up/temperature")] {
        let mut group = criterion.benchmark_group(format!("router/publish to {matches}"));
        for count in [100, 10_000, 100_000] {
            let router = router_with(count, if matches == 1 { 0 } else { matches });
            assert_eq!(router.route(topic).match_count(), matches as usize);
            group.bench_function(BenchmarkId::new("uncached", count), |bencher| {
                bencher.iter(|| router.route(black_box(topic)));
            });
            let mut cache = RouteCache::new(Arc::clone(&router), CacheLimits::default());
            group.bench_function(BenchmarkId::new("cached", count), |bencher| {
                bencher.iter(|| cache.route(black_box(topic)));
            });
            assert_eq!(cache.misses(), 1);
        }
        group.finish();
    }

    // One topic after another, so that the index is not in the processor's caches by repetition.
    let mut group = criterion.benchmark_group("router/publish to 1 of many topics");
    for count in [100, 10_000, 100_000] {
        let router = router_with(count, 0);
        let topics = (0..count / 4).map(|n| format!("fleet/{}/up/temperature", 4 * n + 3)).collect::<Vec<_>>();
        let mut at = 0;
        group.bench_function(BenchmarkId::new("uncached", count), |bencher| {
            bencher.iter(|| {
                // A prime stride, so that neighbours in memory do not follow each other.
                at = (at + 7919) % topics.len();
                router.route(&topics[at])
            });
        });
    }
    group.finish();
}

fn subscribe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router/subscribe and unsubscribe");
    for count in [100, 100_000] {
        let router = router_with(count, 0);
        let subscriber = Arc::new(0);
        for (kind, filter) in [("exact", "fleet/new/down/command"), ("wildcard", "fleet/new/+/command")] {
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| {
                    let inserted = router.insert(black_box(filter), None, Arc::clone(&subscriber), 1);
                    (inserted, router.remove(filter, None, &subscriber))
                });
            });
        }
        for device in 0..count {
            router.insert("popular", None, Arc::new(device), 1).expect("the filter is valid");
        }
        let newcomer = Arc::new(u64::MAX);
        group.bench_function(BenchmarkId::new("popular filter, routed between", count), |bencher| {
            bencher.iter(|| {
                let before = router.route("popular");
                let inserted = router.insert("popular", None, Arc::clone(&newcomer), 1);
                (before, inserted, router.remove("popular", None, &newcomer))
            });
        });
    }
    group.finish();
}

fn retained(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router/retained");
    for count in [100, 100_000u32] {
        let retained = Retained::new(RetainedLimits::default());
        let stored = |message| Some(Stored { message, bytes: 4, expires_at_ms: None });
        for topic in 0..count {
            retained.set(&format!("fleet/{topic}/up/state"), stored(topic)).expect("there is room");
            retained.set(&format!("fleet/{topic}/up/version"), stored(topic)).expect("there is room");
        }
        group.bench_function(BenchmarkId::new("set", count), |bencher| {
            bencher.iter(|| retained.set(black_box("fleet/7/up/state"), stored(1)));
        });
        for filter in ["fleet/7/up/state", "fleet/7/#", "fleet/7/+/state"] {
            group.bench_function(BenchmarkId::new(filter, count), |bencher| {
                bencher.iter_batched_ref(
                    || (RetainedWalk::new(filter), Vec::with_capacity(8)),
                    |(walk, out)| while retained.next_batch(walk, 100, 0, out) {},
                    BatchSize::SmallInput,
                );
            });
        }
        group.bench_function(BenchmarkId::new("first batch of #", count), |bencher| {
            bencher.iter_batched_ref(
                || (RetainedWalk::new("#"), Vec::with_capacity(100)),
                |(walk, out)| retained.next_batch(walk, 100, 0, out),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = publish, subscribe, retained
}
criterion_main!(benches);
