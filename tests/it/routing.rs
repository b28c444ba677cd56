//! Routes under concurrent change: what a publisher's cache may and may not show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shangmq::router::{CacheLimits, RouteCache, Router, RouterLimits};

/// Subscribers come and go while publishers route through caches. A subscription that is there all the time must be
/// in every route, one that was removed before a publish in none.
#[test]
fn caches_never_serve_a_route_older_than_the_publish() {
    let router = Arc::new(Router::new(RouterLimits { shards: 4, max_subscriptions: 1000 }));
    let filters = ["a/b/c", "a/b/+", "a/+/c", "+/b/c", "#"];
    for filter in filters {
        router.insert(filter, None, 0u32, 0u32).unwrap();
    }
    // A subscriber's number is published once it is in, withdrawn before it is out.
    let inside = AtomicUsize::new(0);
    // The last that is certainly out.
    let outside = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..4000u32 {
                let filter = filters[round as usize % filters.len()];
                router.insert(filter, None, round, round).unwrap();
                inside.store(round as usize, Ordering::SeqCst);
                let _ = router.route("a/b/c");
                inside.store(0, Ordering::SeqCst);
                assert!(router.remove(filter, None, &round));
                outside.store(round as usize, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut cache = RouteCache::new(Arc::clone(&router), CacheLimits::default());
                while !done.load(Ordering::SeqCst) {
                    let gone = outside.load(Ordering::SeqCst);
                    let before = inside.load(Ordering::SeqCst);
                    let route = cache.route("a/b/c");
                    let after = inside.load(Ordering::SeqCst);
                    let mut all = route.matches().map(|found| found.subscriber).collect::<Vec<_>>();
                    all.sort_unstable();
                    assert!(all.starts_with(&[0, 0, 0, 0, 0]), "{all:?}");
                    // A walk reads four shards, one after the other: changes during it may be seen or not.
                    assert!(all.iter().skip(5).all(|&round| round as usize > gone), "{all:?} after {gone}");
                    if before != 0 && before == after {
                        assert_eq!(all.get(5..), Some(&[before as u32][..]));
                    }
                }
            });
        }
    });
    assert_eq!(router.route("a/b/c").match_count(), filters.len());
}
