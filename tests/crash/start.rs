//! How long a start takes on a store that is as large as `START_SESSIONS`, `START_QUEUED` for each of them and `START_RETAINED` say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqtt_codec::{PublishProperties, QoS};
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

/// What the log of this start said when the listener took its first connection.
async fn log_at_the_first_connection(directory: PathBuf, address: SocketAddr, from: usize) -> String {
    loop {
        // From another address, or the kernel may connect the socket to itself, since nobody has the port yet.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).unwrap();
        if socket.connect(address).await.is_ok() {
            let log = std::fs::read_to_string(directory.join("broker.log")).unwrap();
            return log.get(from..).unwrap_or_default().to_owned();
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
        let first = log_at_the_first_connection(broker.0.dir().to_owned(), broker.address(), broker.0.log().len());
        let first = tokio::spawn(first);
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
        let log = first.await.unwrap();
        assert!(log.lines().any(|line| line.contains(&recovered) && line.contains(end)), "{log}");
        assert!(elapsed < limit, "{elapsed:?}");
        broker.0.kill();
    }
}
