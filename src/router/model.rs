//! The router's parts against a naive model: a list of subscriptions and a matcher that follows the standard's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use proptest::prelude::*;

use super::*;

/// MQTT 5.0 section 4.7, read level by level.
fn filter_matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        (["+", filter @ ..], [_, topic @ ..]) => filter_matches(filter, topic),
        ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && filter_matches(filter, topic),
        ([], []) => true,
        _ => false,
    }
}

fn model_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    filter_matches(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

fn levels(words: &'static [&'static str], count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), count)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("topics and filters are not empty", |text| !text.is_empty())
}

/// Few words, so that things match; some that sort around `/`, and prefixes of each other.
fn topics() -> impl Strategy<Value = String> {
    levels(&["a", "b", "", "$x", "a!", "ab", "é"], 1..5)
}

fn filters() -> impl Strategy<Value = String> {
    (levels(&["a", "b", "", "$x", "a!", "ab", "é", "+", "+", "+"], 1..5), 0u8..4).prop_map(|(filter, end)| match end {
        0 => filter + "/#",
        1 if filter.len() < 3 => "#".to_owned(),
        _ => filter,
    })
}

#[derive(Debug, Clone)]
enum Change {
    Insert {
        filter: String,
        group: Option<&'static str>,
        subscriber: u8,
        options: u16,
    },
    Remove {
        filter: String,
        group: Option<&'static str>,
        subscriber: u8,
    },
    /// Removes the nth of the subscriptions there are, since a random one is seldom there.
    RemoveNth(usize),
    Publish(String),
    DropStale,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let group = || prop::sample::select(&[None, None, Some("g"), Some("h")][..]);
    let change = prop_oneof![
        6 => (filters(), group(), 0u8..40, any::<u16>())
            .prop_map(|(filter, group, subscriber, options)| Change::Insert { filter, group, subscriber, options }),
        1 => (filters(), group(), 0u8..40)
            .prop_map(|(filter, group, subscriber)| Change::Remove { filter, group, subscriber }),
        3 => any::<usize>().prop_map(Change::RemoveNth),
        6 => topics().prop_map(Change::Publish),
        1 => Just(Change::DropStale),
    ];
    prop::collection::vec(change, 0..150)
}

type Subscriptions = BTreeMap<(String, Option<&'static str>, u8), u16>;

fn expected_direct(model: &Subscriptions, topic: &str) -> Vec<(u8, u16)> {
    let direct = model.iter().filter(|((filter, group, _), _)| group.is_none() && model_matches(filter, topic));
    let mut all = direct.map(|((_, _, subscriber), options)| (*subscriber, *options)).collect::<Vec<_>>();
    all.sort_unstable();
    all
}

/// Members by group and filter.
fn expected_groups(model: &Subscriptions, topic: &str) -> BTreeMap<(String, String), usize> {
    let mut all = BTreeMap::new();
    for (filter, group, _) in model.keys() {
        if let Some(group) = group
            && model_matches(filter, topic)
        {
            *all.entry(((*group).to_owned(), filter.clone())).or_default() += 1;
        }
    }
    all
}

fn direct_of<'a>(matches: impl Iterator<Item = &'a Match<u8, u16>>) -> Vec<(u8, u16)> {
    let mut all = matches.map(|found| (found.subscriber, found.options)).collect::<Vec<_>>();
    all.sort_unstable();
    all
}

fn groups_of(groups: &[Arc<SharedGroup<u8, u16>>]) -> BTreeMap<(String, String), usize> {
    let all =
        groups.iter().map(|group| ((group.name().group.to_string(), group.name().filter.to_string()), group.len()));
    all.collect()
}

proptest! {
    #[test]
    fn index_agrees_with_the_model(changes in changes()) {
        let mut index = SubscriptionIndex::default();
        let mut model = Subscriptions::new();
        for change in changes {
            match change {
                Change::Insert { filter, group, subscriber, options } => {
                    let inserted = index.insert(&filter, group, subscriber, options);
                    let old = model.insert((filter, group, subscriber), options);
                    prop_assert_eq!(inserted, Ok(if old.is_some() { Inserted::Replaced } else { Inserted::New }));
                }
                Change::Remove { filter, group, subscriber } => {
                    let removed = index.remove(&filter, group, &subscriber);
                    prop_assert_eq!(removed, model.remove(&(filter, group, subscriber)).is_some());
                }
                Change::RemoveNth(nth) => {
                    if let Some(key) = model.keys().nth(nth % model.len().max(1)).cloned() {
                        prop_assert!(index.contains(&key.0, key.1, &key.2));
                        prop_assert!(index.remove(&key.0, key.1, &key.2));
                        prop_assert!(!index.contains(&key.0, key.1, &key.2));
                        model.remove(&key);
                    }
                }
                Change::Publish(topic) => {
                    let mut direct = Vec::new();
                    index.matches(&topic, &mut |found| direct.push(found));
                    prop_assert_eq!(direct_of(direct.into_iter()), expected_direct(&model, &topic));
                    let mut groups = Vec::new();
                    index.matches_shared(&topic, &mut |group| groups.push(Arc::clone(group)));
                    prop_assert_eq!(groups_of(&groups), expected_groups(&model, &topic));
                }
                Change::DropStale => {}
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }

    #[test]
    fn router_and_caches_agree_with_the_model(
        changes in changes(),
        shards in 1usize..9,
        entries in 0usize..6,
        bytes in 0usize..3000,
    ) {
        let router = Arc::new(Router::new(RouterLimits { shards, max_subscriptions: 60 }));
        let mut small = RouteCache::new(Arc::clone(&router), CacheLimits { entries, topic_bytes: 9, bytes });
        let mut large = RouteCache::new(Arc::clone(&router), CacheLimits::default());
        let mut model = Subscriptions::new();
        for change in changes {
            match change {
                Change::Insert { filter, group, subscriber, options } => {
                    let inserted = router.insert(&filter, group, subscriber, options);
                    let key = (filter, group, subscriber);
                    if model.len() == 60 && !model.contains_key(&key) {
                        prop_assert_eq!(inserted, Err(InsertError::Full));
                        continue;
                    }
                    let old = model.insert(key, options);
                    prop_assert_eq!(inserted, Ok(if old.is_some() { Inserted::Replaced } else { Inserted::New }));
                }
                Change::Remove { filter, group, subscriber } => {
                    let removed = router.remove(&filter, group, &subscriber);
                    prop_assert_eq!(removed, model.remove(&(filter, group, subscriber)).is_some());
                }
                Change::RemoveNth(nth) => {
                    if let Some(key) = model.keys().nth(nth % model.len().max(1)).cloned() {
                        prop_assert!(router.remove(&key.0, key.1, &key.2));
                        model.remove(&key);
                    }
                }
                Change::Publish(topic) => {
                    for route in [router.route(&topic), small.route(&topic), large.route(&topic)] {
                        prop_assert_eq!(direct_of(route.matches()), expected_direct(&model, &topic));
                        prop_assert_eq!(groups_of(route.groups()), expected_groups(&model, &topic));
                        prop_assert_eq!(route.match_count(), route.matches().count());
                        let mut receivers = BTreeMap::new();
                        for (subscriber, options) in route.receivers() {
                            prop_assert_eq!(receivers.insert(*subscriber, options), None, "a receiver listed twice");
                        }
                        let merged = receivers.into_iter().flat_map(|(subscriber, options)| {
                            options.iter().map(move |options| (subscriber, *options))
                        });
                        let mut merged = merged.collect::<Vec<_>>();
                        merged.sort_unstable();
                        prop_assert_eq!(merged, expected_direct(&model, &topic));
                    }
                    let hits = large.hits();
                    large.route(&topic);
                    prop_assert_eq!(large.hits(), hits + 1);
                    prop_assert!(small.len() <= entries && small.bytes() <= bytes);
                }
                Change::DropStale => {
                    small.drop_stale();
                    large.drop_stale();
                }
            }
            prop_assert_eq!(router.subscriptions(), model.len());
        }
        for (filter, group, subscriber) in model.into_keys() {
            prop_assert!(router.remove(&filter, group, &subscriber));
        }
        prop_assert_eq!((router.subscriptions(), router.filters()), (0, 0));
        large.drop_stale();
        large.clear();
        prop_assert_eq!((large.len(), large.bytes()), (0, 0));
    }

    #[test]
    fn retained_walks_agree_with_the_model(
        sets in prop::collection::vec((topics(), 0u8..5, prop::option::of(0u64..20)), 0..120),
        filter in filters(),
        limit in 1usize..5,
        shards in 1usize..9,
        now_ms in 0u64..20,
    ) {
        let retained = Retained::new(RetainedLimits { shards, max_messages: 1000, max_bytes: 1 << 20 });
        let mut model = BTreeMap::new();
        for (topic, payload, expires_at_ms) in sets {
            if payload == 0 {
                let removed = model.remove(&topic).is_some();
                let expected = if removed { RetainedChange::Removed } else { RetainedChange::Absent };
                prop_assert_eq!(retained.set(&topic, None), Ok(expected));
            } else {
                let stored = Stored { message: payload, bytes: payload.into(), expires_at_ms };
                let replaced = model.insert(topic.clone(), (payload, expires_at_ms)).is_some();
                let expected = if replaced { RetainedChange::Replaced } else { RetainedChange::Stored };
                prop_assert_eq!(retained.set(&topic, Some(stored)), Ok(expected));
            }
        }
        prop_assert_eq!(retained.len(), model.len());
        let is_live = |expires_at_ms: Option<u64>| expires_at_ms.is_none_or(|deadline| now_ms < deadline);
        for (topic, (payload, expires_at_ms)) in &model {
            prop_assert_eq!(retained.get(topic, now_ms), Some(*payload).filter(|_| is_live(*expires_at_ms)));
        }

        let mut walk = RetainedWalk::new(&filter);
        let mut found = Vec::new();
        loop {
            let before = found.len();
            let more = retained.next_batch(&mut walk, limit, now_ms, &mut found);
            prop_assert!(found.len() - before <= limit);
            if !more {
                break;
            }
        }
        prop_assert!(walk.is_done());
        found.sort_unstable();
        let matching = model.iter().filter(|(topic, (_, expires))| model_matches(&filter, topic) && is_live(*expires));
        let expected =
            matching.map(|(topic, (payload, _))| (ByteString::from(topic.as_str()), *payload)).collect::<Vec<_>>();
        prop_assert_eq!(found, expected);

        let expired = model.values().filter(|(_, expires)| !is_live(*expires)).count();
        let mut sweep = RetainedSweep::default();
        let removed = (0..200).map(|_| retained.remove_expired(&mut sweep, limit, now_ms, |_| {})).sum::<usize>();
        prop_assert_eq!(removed, expired);
        for topic in model.keys() {
            retained.set(topic, None).unwrap();
        }
        prop_assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }
}

/// The examples of MQTT 5.0 section 4.7.1 and 4.7.2, with what they say.
#[test]
fn matches_the_examples_of_the_standard() {
    let examples = [
        // [MQTT-4.7.1-1], 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        // [MQTT-4.7.1-2], 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/tennis/#", "sport/tennis/player1", true),
        ("sport/+/player1", "sport/tennis/player1", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        // [MQTT-4.7.2-1]
        ("#", "$SYS/monitor", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        // [MQTT-4.7.3-4], 4.7.3: case matters, a leading or trailing slash is a level, so is a space
        ("ACCOUNTS", "Accounts", false),
        ("Accounts payable", "Accounts payable", true),
        ("/finance", "finance", false),
        ("finance/", "finance", false),
        ("/", "/", true),
    ];
    for (filter, topic, expected) in examples {
        assert_eq!(model_matches(filter, topic), expected, "model: {filter} {topic}");
        let router = Router::new(RouterLimits::default());
        router.insert(filter, None, 1, ()).unwrap();
        assert_eq!(router.route(topic).match_count() == 1, expected, "router: {filter} {topic}");
        let retained = Retained::new(RetainedLimits::default());
        retained.set(topic, Some(Stored { message: (), bytes: 0, expires_at_ms: None })).unwrap();
        let mut found = Vec::new();
        while retained.next_batch(&mut RetainedWalk::new(filter), 10, 0, &mut found) {}
        assert_eq!(found.len() == 1, expected, "retained: {filter} {topic}");
    }
}

/// Lists of several chunks, whose subscribers overlap with each other and with single ones.
#[test]
fn receivers_of_long_lists_are_merged() {
    let router = Router::new(RouterLimits::default());
    for subscriber in 0..1000u32 {
        router.insert("a/b", None, subscriber, 'b').unwrap();
    }
    for subscriber in 900..1100u32 {
        router.insert("a/+", None, subscriber, '+').unwrap();
    }
    router.insert("#", None, 950, '#').unwrap();
    let route = router.route("a/b");
    let mut all = route.receivers().collect::<Vec<_>>();
    all.sort_unstable();
    assert_eq!((route.match_count(), all.len()), (1201, 1100));
    for (subscriber, (listed, options)) in all.into_iter().enumerate() {
        assert_eq!(subscriber, *listed as usize);
        let mut options = options.to_vec();
        options.sort_unstable();
        let expected = match subscriber {
            950 => &['#', '+', 'b'][..],
            900..1000 => &['+', 'b'],
            0..900 => &['b'],
            _ => &['+'],
        };
        assert_eq!(options, expected, "{subscriber}");
    }
}

#[test]
fn refuses_malformed_filters() {
    let router = Router::new(RouterLimits::default());
    for filter in ["", "a#", "#/a", "a/+b"] {
        assert_eq!(router.insert(filter, None, 1, ()), Err(InsertError::InvalidFilter));
        assert_eq!(SubscriptionIndex::default().insert(filter, None, 1, ()), Err(InsertError::InvalidFilter));
        assert!(!router.remove(filter, None, &1));
        let mut walk = RetainedWalk::new(filter);
        assert!(!Retained::<()>::new(RetainedLimits::default()).next_batch(&mut walk, 1, 0, &mut Vec::new()));
    }
    assert_eq!((router.subscriptions(), router.filters()), (0, 0));
}

#[test]
fn a_cached_route_outlives_changes_that_cannot_concern_it() {
    let router = Arc::new(Router::new(RouterLimits::default()));
    let mut cache = RouteCache::new(Arc::clone(&router), CacheLimits::default());
    router.insert("$share/x", Some("g"), 0, ()).unwrap();
    cache.route("devices/1/up");
    router.insert("devices/1/+", Some("g"), 1, ()).unwrap();
    assert_eq!(cache.route("devices/1/up").groups().len(), 1);
    let misses = cache.misses();
    // Members come and go within the group; the route shows them without being made again.
    router.insert("devices/1/+", Some("g"), 2, ()).unwrap();
    assert_eq!(cache.route("devices/1/up").groups()[0].len(), 2);
    router.remove("devices/1/+", Some("g"), &1);
    assert_eq!(cache.route("devices/1/up").groups()[0].len(), 1);
    assert_eq!(cache.misses(), misses);
    // Thirty devices of the same fleet subscribe; a few share the route's stripe.
    for device in 100..130 {
        router.insert(&format!("devices/{device}/#"), None, device, ()).unwrap();
        router.insert(&format!("devices/{device}/down"), None, device, ()).unwrap();
        cache.route("devices/1/up");
    }
    assert!(cache.misses() - misses < 5, "{} misses", cache.misses() - misses);
    router.insert("devices/+/up", None, 7, ()).unwrap();
    assert_eq!(cache.route("devices/1/up").match_count(), 1);
}

#[test]
fn does_not_remember_long_topics_or_topics_of_a_read_buffer() {
    let router = Arc::new(Router::<u8, ()>::new(RouterLimits::default()));
    let mut cache = RouteCache::new(router, CacheLimits::default());
    cache.route(&"x".repeat(1025));
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
    cache.route(&"x".repeat(1024));
    assert_eq!(cache.len(), 1);
    for topic in 0..1000 {
        cache.route(&format!("t/{topic}"));
    }
    assert_eq!(cache.len(), 64);
}

#[test]
fn a_topic_in_use_survives_a_sweep_of_others() {
    let router = Arc::new(Router::<u8, ()>::new(RouterLimits::default()));
    let mut cache = RouteCache::new(router, CacheLimits { entries: 8, ..CacheLimits::default() });
    cache.route("hot");
    for topic in 0..100 {
        let hits = cache.hits();
        cache.route("hot");
        assert_eq!(cache.hits(), hits + 1, "evicted before {topic}");
        cache.route(&format!("cold/{topic}"));
    }
}

#[test]
fn drop_stale_lets_go_of_subscribers_that_left() {
    let router = Arc::new(Router::new(RouterLimits::default()));
    let mut cache = RouteCache::new(Arc::clone(&router), CacheLimits::default());
    let session = Arc::new(());
    #[derive(Debug, Clone)]
    struct Handle(Arc<()>);
    impl PartialEq for Handle {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }
    impl Eq for Handle {}
    impl std::hash::Hash for Handle {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            Arc::as_ptr(&self.0).hash(state);
        }
    }
    router.insert("a", None, Handle(Arc::clone(&session)), ()).unwrap();
    cache.route("a");
    cache.route("b");
    assert!(router.remove("a", None, &Handle(Arc::clone(&session))));
    assert_eq!(Arc::strong_count(&session), 2);
    cache.drop_stale();
    assert_eq!(Arc::strong_count(&session), 1);
    assert_eq!(cache.len(), 1, "the route of b is still good");
}

#[test]
fn retained_limits_hold_and_keep_the_old_message() {
    let stored = |message: u8, bytes| Some(Stored { message, bytes, expires_at_ms: None });
    let retained = Retained::new(RetainedLimits { shards: 4, max_messages: 2, max_bytes: 1000 });
    retained.set("a", stored(1, 100)).unwrap();
    retained.set("b", stored(2, 100)).unwrap();
    assert_eq!(retained.set("c", stored(3, 0)), Err(RetainedError::TooManyMessages));
    assert_eq!(retained.set("a", stored(4, 900)), Err(RetainedError::TooManyBytes));
    assert_eq!((retained.get("a", 0), retained.len()), (Some(1), 2));
    assert_eq!(retained.set("a", stored(5, 50)), Ok(RetainedChange::Replaced));
    assert_eq!(retained.set("b", None), Ok(RetainedChange::Removed));
    assert_eq!(retained.set("c", stored(3, usize::MAX)), Err(RetainedError::TooManyBytes));
    assert_eq!(retained.set("c", stored(3, 500)), Ok(RetainedChange::Stored));
    let bytes = retained.bytes();
    assert!((550..1000).contains(&bytes), "{bytes}");
}

#[test]
fn a_batch_that_finds_nothing_still_ends() {
    let retained = Retained::new(RetainedLimits { shards: 4, max_messages: 100_000, max_bytes: usize::MAX });
    for topic in 0..20_000 {
        retained.set(&format!("{topic}/x"), Some(Stored { message: topic, bytes: 0, expires_at_ms: None })).unwrap();
    }
    let mut walk = RetainedWalk::new("+/y");
    let mut found = Vec::new();
    let mut batches = 1;
    while retained.next_batch(&mut walk, 10, 0, &mut found) {
        batches += 1;
    }
    assert!(found.is_empty());
    assert!(batches > 4, "{batches} batches: one examined too much");

    let mut walk = RetainedWalk::new("77/#");
    assert!(!retained.next_batch(&mut walk, 10, 0, &mut found), "a narrow filter must not scan");
    assert_eq!(found, [(ByteString::from("77/x"), 77)]);
}
