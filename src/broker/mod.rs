//! The shared MQTT core: sessions, subscriptions, retained messages, and the path of a message from publisher to outboxes.
//!
//! Everything here is called from connection tasks. A publish takes no global lock: its route comes from the publisher's own cache,
//! and each receiver's outbox has a lock of its own.

mod deadlines;
mod durable;
mod janitor;
mod lease;
mod publish;
mod registry;
mod subscribe;
mod subscriber;
mod withdraw;

pub use durable::Changes;
pub use lease::{Lease, OpenError, OpenRequest, Opened};
pub use publish::{PublishOptions, Published, RetainedStore};
pub use subscribe::{RetainedScan, SubscribeOutcome, SubscribeRequest};
pub use subscriber::{Drained, Subscriber, SubscriberId, Turn};
pub use withdraw::brought;

use crate::config::{MqttConfig, RetainerConfig};
use crate::metrics::Metrics;
use crate::router::{CacheLimits, Retained, RetainedLimits, RouteCache, Router, RouterLimits};
use crate::session::{Message, Millis, QueueLimits, SubscriptionOptions, millis};
use crate::store::Store;
use deadlines::Deadlines;
use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use registry::{Registry, Slot};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The subscriber's side of a route.
pub type Routes = Router<Arc<Subscriber>, SubscriptionOptions>;
/// What a publishing connection keeps of the routes it used.
pub type Cache = RouteCache<Arc<Subscriber>, SubscriptionOptions>;

/// One broker node.
#[derive(Debug)]
pub struct Broker {
    config: MqttConfig,
    retainer: RetainerConfig,
    router: Arc<Routes>,
    retained: Retained<Arc<Message>>,
    sessions: Registry,
    deadlines: Mutex<Deadlines<Weak<Slot>>>,
    deadline_changed: Notify,
    started: Instant,
    /// `None`: nothing outlives the process.
    store: Option<Arc<Store>>,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Broker {
    /// A broker that keeps everything in memory.
    pub fn new(config: MqttConfig, retainer: RetainerConfig, metrics: Arc<Metrics>) -> Arc<Broker> {
        Broker::with_store(config, retainer, metrics, None, Instant::now())
    }

    /// A broker whose moment 0 is `started`. What the store holds is handed over by [`recover`](Self::recover).
    pub fn with_store(
        config: MqttConfig,
        retainer: RetainerConfig,
        metrics: Arc<Metrics>,
        store: Option<Arc<Store>>,
        started: Instant,
    ) -> Arc<Broker> {
        Arc::new(Broker {
            router: Arc::new(Router::new(RouterLimits::default())),
            retained: Retained::new(RetainedLimits {
                max_messages: retainer.max_retained_messages,
                max_bytes: retainer.max_bytes,
                ..RetainedLimits::default()
            }),
            sessions: Registry::new(config.max_sessions),
            deadlines: Mutex::new(Deadlines::new()),
            deadline_changed: Notify::new(),
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

    /// Ends every connection that has a session with `reason`.
    pub fn disconnect_all(&self, reason: ReasonCode) {
        self.sessions.for_each_connected(|subscriber| subscriber.kick(reason));
    }

    fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            max_messages: self.config.max_mqueue_len,
            max_bytes: self.config.max_mqueue_bytes,
            store_qos0: self.config.mqueue_store_qos0,
        }
    }

    fn next_subscriber_id(&self) -> SubscriberId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
