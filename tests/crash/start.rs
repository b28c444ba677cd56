//! How long a start takes on a store that is as large as `START_SESSIONS` and `START_RETAINED` say.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqtt_codec::{PublishProperties, QoS};
use shangmq::config::StoreConfig;
use shangmq::metrics::Metrics;
use shangmq::session::{Delivery, Message, SessionExpiry, SubscriptionOptions};
use shangmq::store::{Directory, Key, Row, SessionRow, Store, WallClock};

use crate::broker::Process;

/// What a start may take.
const LIMIT: Duration = Duration::from_secs(10);
const HOUR: u64 = 3_600_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn message(topic: String) -> Arc<Message> {
    Arc::new(Message::new(topic.into(), vec![b'x'; 256].into(), QoS::AtLeastOnce, PublishProperties::default(), 0))
}

/// Sessions with two subscriptions and a message each, and retained messages.
fn fill(directory: &Path, sessions: u64, retained: u64) {
    let origin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let (store, _) = Store::open(
        Arc::new(Directory::open(directory).unwrap()),
        StoreConfig::default(),
        WallClock { origin },
        Arc::new(Metrics::new()),
        |_| {},
    )
    .unwrap();
    let wait = || {
        while !store.has_room() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let options =
        SubscriptionOptions { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, identifier: None };
    for id in 1..=sessions {
        wait();
        let row = SessionRow {
            client_id: format!("client-{id}").into(),
            owner: "".into(),
            expiry: SessionExpiry::After(HOUR),
            connected: false,
            ended: false,
            ends_at: Some(HOUR),
            will: None,
            author: None,
            sent_below: 1,
            next_seq: 2,
            judged: false,
        };
        store.put(Key::Session(id), Row::Session(Box::new(row)));
        store.put(Key::Subscription(id, format!("own/{id}/#").into()), Row::Subscription(options));
        store.put(Key::Subscription(id, "all/#".into()), Row::Subscription(options));
        store.put(Key::Delivery(id, 1), Row::Delivery(Delivery::new(QoS::AtLeastOnce, message(format!("own/{id}/t")))));
    }
    for n in 0..retained {
        wait();
        let message = message(format!("plant/{}/line/{}/sensor/{n}", n % 100, n % 1000));
        store.put(Key::Retained(message.topic.clone()), Row::Retained(message));
    }
    assert!(store.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_store_starts_within_ten_seconds() {
    let (sessions, retained) = (number("START_SESSIONS", 1000), number("START_RETAINED", 10_000));
    let mut broker = Process::start().await;
    let empty = broker.0.proportional_set_size();
    broker.0.kill();
    let directory = broker.0.dir().join("data");
    tokio::task::spawn_blocking(move || fill(&directory, sessions, retained)).await.unwrap();
    for end in ["clean", "not clean"] {
        let begun = Instant::now();
        broker.0.restart().await;
        let elapsed = begun.elapsed();
        println!(
            "start after a {end} end with {sessions} sessions and {retained} retained messages: {} ms, {} MiB more than an empty broker",
            elapsed.as_millis(),
            broker.0.proportional_set_size().saturating_sub(empty) >> 20
        );
        let log = broker.0.log();
        let recovered = format!("recovered {sessions} sessions, {} subscriptions, {sessions} queued", 2 * sessions);
        assert!(log.lines().any(|line| line.contains(&recovered) && line.contains(end)), "{}", broker.0.log_tail());
        assert!(elapsed < LIMIT, "{elapsed:?}");
        broker.0.kill();
    }
}
