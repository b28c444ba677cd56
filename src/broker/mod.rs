//! The shared MQTT core: sessions, subscriptions, retained messages, and the path of a message from publisher to outboxes.
//!
//! Everything here is called from connection tasks. A publish takes no global lock: its route comes from the publisher's own cache,
//! and each receiver's outbox has a lock of its own.

mod bans;
mod deadlines;
mod delayed;
mod durable;
mod ended;
mod estate;
mod flapping;
mod janitor;
mod lease;
mod losses;
mod outbox;
mod patience;
mod publish;
mod registry;
mod retained;
mod shared;
mod subscribe;
mod subscriber;
mod sys;
mod withdraw;

pub use bans::{Ban, Bans, Subject, TooManyBans};
pub use delayed::{Delay, DelayOptions, Later};
pub use durable::Changes;
pub use ended::Ended;
pub use lease::{Lease, OpenError, OpenRequest, Opened};
pub use outbox::Wait;
pub use publish::{PublishOptions, Published, RetainedStore};
pub use retained::{Held, RetainedIndex, RetainedScan, Scanned, retained_index};
pub use shared::Publisher;
pub use subscribe::{SubscribeOutcome, SubscribeRequest};
pub use subscriber::{Awaited, Drained, Subscriber, SubscriberId};

use crate::auth::Owner;
use crate::config::{DefaultPriority, Features, MqttConfig, RetainerConfig};
use crate::metrics::Metrics;
use crate::router::{CacheLimits, Match, RouteCache, Router, RouterLimits, SharedGroup};
use crate::session::{Millis, Priorities, QueueLimits, SubscriptionOptions, millis};
use crate::store::Store;
use bytestring::ByteString;
use deadlines::Deadlines;
use delayed::Delayed;
use flapping::Flapping;
use hashbrown::DefaultHashBuilder;
use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use registry::{Registry, Slot};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The subscriber's side of a route.
pub type Routes = Router<Arc<Subscriber>, SubscriptionOptions>;
/// What a publishing connection keeps of the routes it used.
pub type Cache = RouteCache<Arc<Subscriber>, SubscriptionOptions>;

type Group = SharedGroup<Arc<Subscriber>, SubscriptionOptions>;
type Member = Match<Arc<Subscriber>, SubscriptionOptions>;

/// One broker node.
#[derive(Debug)]
pub struct Broker {
    config: MqttConfig,
    retainer: RetainerConfig,
    router: Arc<Routes>,
    retained: RetainedIndex,
    recent: retained::Recent,
    sessions: Registry,
    deadlines: Mutex<Deadlines<Weak<Slot>>>,
    deadline_changed: Notify,
    estates: estate::Estates,
    started: Instant,
    /// `None`: nothing outlives the process.
    store: Option<Arc<Store>>,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
    features: Features,
    /// One value for all sessions.
    queue_limits: Arc<QueueLimits>,
    /// Places publishers and topics in shared groups.
    hasher: DefaultHashBuilder,
    delayed: Delayed,
    flapping: Option<Flapping>,
    bans: Bans,
    ended: Ended,
    losses: losses::Losses,
    sys: sys::Sys,
    /// Connections are to end.
    shut: AtomicBool,
}

impl Broker {
    /// A broker that keeps everything in memory.
    pub fn new(config: MqttConfig, retainer: RetainerConfig, features: Features, metrics: Arc<Metrics>) -> Arc<Broker> {
        let retained = retained_index(&retainer);
        Broker::with_store(config, retainer, features, metrics, None, retained, Instant::now())
    }

    /// A broker whose moment 0 is `started`. `retained` knows the messages that the store holds; the sessions that it holds are handed
    /// over by [`recover`](Self::recover).
    pub fn with_store(
        config: MqttConfig,
        retainer: RetainerConfig,
        features: Features,
        metrics: Arc<Metrics>,
        store: Option<Arc<Store>>,
        retained: RetainedIndex,
        started: Instant,
    ) -> Arc<Broker> {
        Arc::new(Broker {
            queue_limits: Arc::new(queue_limits(&config)),
            hasher: DefaultHashBuilder::default(),
            delayed: Delayed::new(&features.delayed),
            flapping: features.flapping_detect.enable.then(|| Flapping::new(&features.flapping_detect)),
            bans: Bans::new(features.max_bans, store.clone()),
            ended: Ended::default(),
            losses: losses::Losses::default(),
            sys: sys::Sys::new(),
            shut: AtomicBool::new(false),
            features,
            router: Arc::new(Router::new(RouterLimits::default())),
            retained,
            recent: retained::Recent::default(),
            sessions: Registry::new(config.max_sessions),
            deadlines: Mutex::new(Deadlines::new()),
            deadline_changed: Notify::new(),
            estates: estate::Estates::default(),
            started,
            store,
            next_id: AtomicU64::new(1),
            config,
            retainer,
            metrics,
        })
    }

    pub fn config(&self) -> &MqttConfig {
        &self.config
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Milliseconds since the broker started, on the monotonic clock.
    pub fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    /// A route cache for one publishing connection; it allocates nothing until it is used.
    pub fn route_cache(&self) -> Cache {
        RouteCache::new(Arc::clone(&self.router), CacheLimits::default())
    }

    /// Sessions, connected or not.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub fn subscription_count(&self) -> usize {
        self.router.subscriptions()
    }

    pub fn retained_count(&self) -> usize {
        self.retained.len()
    }

    pub fn features(&self) -> &Features {
        &self.features
    }

    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// By what a client is banned, if it may not connect.
    pub fn banned_by(
        &self,
        client_id: &ByteString,
        username: Option<&ByteString>,
        address: IpAddr,
    ) -> Option<&'static str> {
        if self.bans.is_empty() { None } else { self.bans.banned_by(client_id, username, address, self.now()) }
    }

    /// Bans somebody, and ends the connections of clients that are banned by their identifier or verified user name.
    ///
    /// # Errors
    /// When there are as many bans as there may be.
    pub fn ban(&self, subject: Subject, ban: Ban) -> Result<(), TooManyBans> {
        let added = self.bans.add(subject.clone(), ban, self.now());
        if added.is_err() {
            self.metrics.limit_hit("banned.max_entries");
        }
        match subject {
            Subject::ClientId(client_id) => self.sessions.kick(&client_id, ReasonCode::AdministrativeAction),
            Subject::Username(username) => self.kick(|owner| owner.is_user(&username)),
            Subject::Address(_) => {}
        }
        added
    }

    /// Under which names operators have ended connections.
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Ends the connections of clients with this verified user name, and those that are being let in under it.
    pub fn disconnect_user(&self, username: &str) {
        self.ended.note(username);
        self.kick(|owner| owner.is_user(username));
    }

    /// Ends the connections that were let in by a pre-shared key, and those of the user of that name; as
    /// [`disconnect_user`](Self::disconnect_user).
    pub fn disconnect_key(&self, identity: &str) {
        self.ended.note(identity);
        self.kick(|owner| owner.is_key(identity) || owner.is_user(identity));
    }

    /// Ends the connections whose owner is meant.
    fn kick(&self, meant: impl Fn(&Owner) -> bool) {
        self.sessions.for_each_connected(|subscriber| {
            if meant(&subscriber.owner()) {
                subscriber.kick(ReasonCode::AdministrativeAction);
            }
        });
    }

    /// A connection of this client ended by itself: too many such ends ban it for a while.
    pub fn connection_ended(&self, client_id: &ByteString) {
        let Some(flapping) = &self.flapping else { return };
        if flapping.disconnected(client_id, self.now()) {
            let until = self.now().saturating_add(millis(self.features.flapping_detect.ban_time));
            self.metrics.limit_hit("flapping_detect.max_count");
            let seconds = self.features.flapping_detect.ban_time.as_secs();
            tracing::warn!(
                client_id = &**client_id,
                seconds,
                "client is banned: it connects and disconnects too often"
            );
            let ban = Ban { until: Some(until), reason: "flapping".to_owned() };
            if self.ban(Subject::ClientId(client_id.clone()), ban).is_err() {
                tracing::error!("banned.max_entries is reached: a flapping client could not be banned");
            }
        }
    }

    /// What a publishing connection keeps for shared subscriptions.
    pub fn publisher(&self, subscriber: &Subscriber) -> Publisher {
        Publisher::new(subscriber.id(), self.hasher.hash_one(subscriber.client_id()))
    }

    /// Ends every connection that has a session, and those that get one from here on.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.sessions.for_each_connected(|subscriber| subscriber.kick(self.farewell()));
    }

    /// With another server to go to, clients are sent there.
    fn farewell(&self) -> ReasonCode {
        match self.config.server_reference {
            Some(_) => ReasonCode::UseAnotherServer,
            None => ReasonCode::ServerShuttingDown,
        }
    }

    fn next_subscriber_id(&self) -> SubscriberId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

fn queue_limits(config: &MqttConfig) -> QueueLimits {
    let named = &config.mqueue_priorities;
    let others = match config.mqueue_default_priority {
        DefaultPriority::Lowest => 0,
        DefaultPriority::Highest => u8::MAX,
    };
    let topics = named.iter().map(|(topic, priority)| (Box::from(topic.as_str()), *priority));
    QueueLimits {
        max_messages: config.max_mqueue_len,
        max_bytes: config.max_mqueue_bytes,
        store_qos0: config.mqueue_store_qos0,
        slow_wait: millis(config.slow_subscriber_wait),
        priorities: (!named.is_empty()).then(|| Priorities::new(topics, others)),
    }
}
