//! interim
use mqtt_codec::{QoS, ReasonCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Metrics {
    pub dropped_queue_full: AtomicU64,
    pub dropped_expired: AtomicU64,
    pub dropped_too_large: AtomicU64,
    pub retained_refused: AtomicU64,
    listeners: parking_lot::Mutex<Vec<Arc<ListenerMetrics>>>,
}

#[derive(Debug, Default)]
pub struct ListenerMetrics {
    pub accepted: AtomicU64,
    pub connections: AtomicI64,
    pub refused_full: AtomicU64,
    pub accept_errors: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub subscribes: AtomicU64,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }
    pub fn listener(&self, _id: &str) -> Arc<ListenerMetrics> {
        let l = Arc::new(ListenerMetrics::default());
        self.listeners.lock().push(Arc::clone(&l));
        l
    }
    pub fn session_ended(&self, _lost: usize) {}
    pub fn open_connections(&self) -> i64 {
        self.listeners.lock().iter().map(|l| l.connections.load(Ordering::Relaxed)).sum()
    }
}

impl ListenerMetrics {
    pub fn connect_result(&self, _reason: ReasonCode) {}
    pub fn refused(&self, _label: &'static str) {}
    pub fn handshake(&self, _protocol: &'static str, _suite: &'static str, _resumed: bool, _elapsed: Duration) {}
    pub fn received(&self, _qos: QoS) {}
    pub fn sent(&self, _qos: QoS) {}
}
