//! How long a start takes on a store that is as large as `START_SESSIONS`, `START_QUEUED` for each of them and `START_RETAINED` say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqtt_codec::{PublishProperties, QoS};
use shangmq::calendar::rfc3339;
use shangmq::config::StoreConfig;
use shangmq::metrics::Metrics;
use shangmq::session::{Delivery, Message, SessionExpiry, SubscriptionOptions};
use shangmq::store::{Directory, Key, Row, SessionRow, Store, WallClock};

use tokio::net::TcpSocket;

use crate::Loaded as _;
use crate::broker::Process;

const HOUR: u64 = 3_600_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn message(topic: String) -> Arc<Message> {
    Arc::new(Message::new(topic.into(), vec![b'x'; 256].into(), QoS::AtLeastOnce, PublishProperties::default(), 0))
}

/// Sessions with two subscriptions and messages each, and retained messages.
fn fill(directory: &Path, sessions: u64, queued: u64, retained: u64) {
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
            next_seq: queued + 1,
            judged: false,
        };
        store.put(Key::Session(id), Row::Session(Box::new(row)));
        store.put(Key::Subscription(id, format!("own/{id}/#").into()), Row::Subscription(options));
        store.put(Key::Subscription(id, "all/#".into()), Row::Subscription(options));
        for seq in 1..=queued {
            let message = message(format!("own/{id}/t"));
            store.put(Key::Delivery(id, seq), Row::Delivery(Delivery::new(QoS::AtLeastOnce, message)));
        }
    }
    for n in 0..retained {
        wait();
        let message = message(format!("plant/{}/line/{}/sensor/{n}", n % 100, n % 1000));
        store.put(Key::Retained(message.topic.clone()), Row::Retained(message));
    }
    assert!(store.close());
}

/// When the listener took its first connection, as the log writes it.
async fn first_connection(address: SocketAddr) -> String {
    loop {
        // From another address, or the kernel may connect the socket to itself, since nobody has the port yet.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).unwrap();
        if socket.connect(address).await.is_ok() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let second = rfc3339(now.as_secs() as i64);
            return format!("{}.{:06}Z", second.trim_end_matches('Z'), now.subsec_micros());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_store_starts_in_bounded_time_and_serves_nobody_before_it_is_read() {
    let (sessions, queued) = (number("START_SESSIONS", 1000), number("START_QUEUED", 1));
    let (retained, limit) = (number("START_RETAINED", 10_000), Duration::from_secs(number("START_SECONDS", 10)));
    let mut broker = Process::start().await;
    let empty = broker.0.proportional_set_size();
    broker.0.kill();
    let directory = broker.0.dir().join("data");
    tokio::task::spawn_blocking(move || fill(&directory, sessions, queued, retained)).await.unwrap();
    for end in ["clean", "not clean"] {
        let first = tokio::spawn(first_connection(broker.address()));
        let before = broker.0.log().len();
        let begun = Instant::now();
        broker.0.restart().await;
        let elapsed = begun.elapsed();
        println!(
            "start after a {end} end with {sessions} sessions, {queued} messages queued for each, and {retained} retained messages: \
             {} ms, {} MiB more than an empty broker, {} at its largest",
            elapsed.as_millis(),
            broker.0.proportional_set_size().saturating_sub(empty) >> 20,
            broker.0.peak_resident_set_size().saturating_sub(empty) >> 20,
        );
        let recovered =
            format!("recovered {sessions} sessions, {} subscriptions, {} queued", 2 * sessions, sessions * queued);
        let (first, log) = (first.await.unwrap(), broker.0.log());
        let log = log.get(before..).unwrap_or_default();
        let said = log.lines().find(|line| line.contains(&recovered) && line.contains(end)).expect(log);
        let read = said.split('"').skip_while(|word| *word != "timestamp").nth(2).unwrap();
        assert!(read.len() == first.len() && read < first.as_str(), "a connection at {first}, and then: {said}");
        assert!(elapsed < limit, "{elapsed:?}");
        broker.0.kill();
    }
}
