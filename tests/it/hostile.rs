//! What the tests with hostile peers share: a broker with a bystander who must notice nothing, and the judgement of each refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shangmq::metrics::ListenerMetrics;
use testkit::raw::{Ending, RawPeer};
use testkit::{Client, Transport, connect, publish};
use tokio::time::{Instant, sleep};

use crate::broker::{Secured, Setup, TestBroker};

/// How long a condition may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A broker with one secured listener that is attacked, and a client on another listener that goes on exchanging messages.
pub struct Scene {
    pub broker: TestBroker,
    bystander: Client,
    pub counters: Arc<ListenerMetrics>,
}

impl Scene {
    pub async fn new() -> Scene {
        Scene::secured(Secured::default()).await
    }

    pub async fn secured(secured: Secured) -> Scene {
        Scene::start(Setup::new().listeners(&["tcp", "ssl"]).secured_by(secured)).await
    }

    pub async fn start(setup: Setup) -> Scene {
        let broker = setup.start().await;
        let mut bystander = broker.connect_over(Transport::Tcp, connect("bystander")).await;
        bystander.subscribe("bystander", 1).await;
        let counters = broker.counters("ssl");
        Scene { broker, bystander, counters }
    }

    pub async fn peer(&self) -> RawPeer {
        RawPeer::connect(self.broker.address(Transport::Tlcp)).await
    }

    pub fn open(&self) -> i64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// The bystander publishes and receives as if nothing had happened.
    pub async fn bystander_is_unharmed(&mut self) {
        self.bystander.publish(publish("bystander", 1, "still here")).await;
        self.bystander.expect_message("bystander", "still here").await;
    }

    /// Waits until all connections of the attacked listener have ended: every one of them by this refusal, none by a handshake
    /// that counts as completed.
    pub async fn expect_refusals(&mut self, count: u64, reason: &'static str, protocol: &'static str) {
        let counters = Arc::clone(&self.counters);
        let refused = || counters.refusals(reason, protocol);
        until("the connections have ended", || counters.connections.load(Ordering::Relaxed) == 0).await;
        assert_eq!(refused(), count, "refusals with {reason} of {protocol}");
        assert_eq!(counters.all_refusals(), count, "refusals for whatever reason");
        assert_eq!(counters.completed_handshakes(), 0, "handshakes that count as completed");
        self.bystander_is_unharmed().await;
    }
}

/// What a new broker answers to `bytes`, which must be a refusal for `reason` of a peer that speaks `protocol`.
pub async fn answer_to(bytes: &[u8], reason: &'static str, protocol: &'static str) -> Ending {
    answer_of(Secured::default(), bytes, reason, protocol).await
}

/// As [`answer_to`], of a listener secured in this way.
pub async fn answer_of(secured: Secured, bytes: &[u8], reason: &'static str, protocol: &'static str) -> Ending {
    let mut scene = Scene::secured(secured).await;
    let mut peer = scene.peer().await;
    peer.send(bytes).await;
    let ending = peer.ending().await;
    drop(peer);
    scene.expect_refusals(1, reason, protocol).await;
    ending
}
