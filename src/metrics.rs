//! What the broker counts, and its text form (OpenMetrics).
//!
//! Whatever happens for each packet is a plain atomic reached without a lookup: a connection holds its listener's
//! [`ListenerMetrics`]. What happens once for each connection may take a short lock. Labels are names from this
//! program, never a peer's words, so the number of series is bounded.

mod alarms;
mod authorization;
mod certificates;
mod handshakes;
mod limits;
mod operations;
mod revocation;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use handshakes::Handshakes;
use limits::LimitCounters;
use mqtt_codec::{QoS, ReasonCode};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use alarms::AlarmCounters;
pub use authorization::{AuthorizationCounters, Checked};
pub use certificates::{Certificates, EXPIRY_DAYS, Expiry};
pub use handshakes::Failed;
pub use limits::LIMITS;
pub use operations::Operations;
pub use revocation::{Held, HeldCounts, RevocationCounters};

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds, in seconds: from a resumed handshake on an idle machine to the longest anyone waits.
const HANDSHAKE_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The broker's counters. Those that are not fields are added up from the listeners.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Messages a full queue dropped, old or new.
    pub dropped_queue_full: AtomicU64,
    /// Messages that expired in a queue.
    pub dropped_expired: AtomicU64,
    /// QoS 0 messages for a client that was away, where `mqtt.mqueue_store_qos0` keeps none.
    pub dropped_away: AtomicU64,
    /// Messages larger than the receiver's maximum packet size.
    pub dropped_too_large: AtomicU64,
    /// Messages that the rules for topics kept from going further: one for each publish that was refused, for each will whose client lost
    /// the right to publish it, and for each message that waited for a client that lost the right to receive it.
    pub dropped_unauthorized: AtomicU64,
    /// Messages to be retained that a limit refused.
    pub retained_refused: AtomicU64,
    pub store: StoreMetrics,
    pub operations: Operations,
    pub alarms: AlarmCounters,
    route_cache_hits: AtomicU64,
    route_cache_misses: AtomicU64,
    dropped_session_ended: AtomicU64,
    sessions_ended: AtomicU64,
    limits_hit: LimitCounters,
    listeners: Mutex<Vec<Arc<ListenerMetrics>>>,
    /// Of the node's service, once there is one.
    revocation: OnceLock<Arc<RevocationCounters>>,
}

/// What the durable store counts.
#[derive(Debug)]
pub struct StoreMetrics {
    pub commits: AtomicU64,
    /// Commits that failed.
    pub failures: AtomicU64,
    /// Durable publishes that were refused because the store could not take them.
    pub refused: AtomicU64,
    /// Bytes of changes that wait to be written.
    pub pending_bytes: AtomicU64,
    pub commit_seconds: Histogram,
    /// Rows of each table, in the order of [`crate::store::Table::ALL`].
    pub rows: [AtomicU64; crate::store::Table::ALL.len()],
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            failures: AtomicU64::default(),
            refused: AtomicU64::default(),
            pending_bytes: AtomicU64::default(),
            commit_seconds: Histogram::new(HANDSHAKE_BUCKETS),
            rows: Default::default(),
        }
    }
}

/// The counters of one listener, held by each of its connections.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// Such as `ssl:default`.
    id: String,
    /// Connections accept() returned, those refused later included.
    pub accepted: AtomicU64,
    /// Connections open now.
    pub connections: AtomicI64,
    /// Connections closed at once because `max_connections` was reached.
    pub refused_full: AtomicU64,
    /// Connections whose task panicked: bugs of the broker.
    pub panics: AtomicU64,
    /// Failures of accept() that concern the whole process, such as running out of descriptors.
    pub accept_errors: AtomicU64,
    /// Lines about peers that were not written, since there were too many.
    pub log_lines_suppressed: AtomicU64,
    /// MQTT bytes, without TLS or WebSocket framing.
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    /// Filters in SUBSCRIBE packets, granted or not.
    pub subscribes: AtomicU64,
    received: [AtomicU64; 3],
    sent: [AtomicU64; 3],
    pub authorization: AuthorizationCounters,
    pub certificates: Certificates,
    /// By the reason code's value.
    connects: Labelled<u8>,
    refused: Labelled<Refusal>,
    handshakes: Handshakes,
}

/// What is true now, asked of the broker for each scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// (Session, filter) pairs.
    pub subscriptions: usize,
    pub retained_messages: usize,
}

/// Counters added up over all listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub publishes_received: u64,
    pub publishes_sent: u64,
    /// Messages not delivered to a subscriber, for whatever reason.
    pub dropped: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub connections_accepted: u64,
    pub connections_open: u64,
    pub sessions_ended: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    reason: &'static str,
    protocol: &'static str,
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of the listener with this id, which go on where they were if it has been opened before.
    pub fn listener(&self, id: &str) -> Arc<ListenerMetrics> {
        let mut listeners = self.listeners.lock();
        if let Some(known) = listeners.iter().find(|listener| listener.id == id) {
            return Arc::clone(known);
        }
        let listener = Arc::new(ListenerMetrics { id: id.to_owned(), ..ListenerMetrics::default() });
        listeners.push(Arc::clone(&listener));
        listener
    }

    /// A session ended for good, with `lost` messages still in its queue.
    pub fn session_ended(&self, lost: usize) {
        self.sessions_ended.fetch_add(1, Ordering::Relaxed);
        self.lost_with_session(lost);
    }

    /// Messages that waited for a session which has ended, and were given to nobody else.
    pub fn lost_with_session(&self, lost: usize) {
        self.dropped_session_ended.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// A limit refused or cut something; `name` is its key in the configuration where it has one.
    pub fn limit_hit(&self, name: &'static str) {
        self.limits_hit.add(name);
    }

    /// How often the limit with this name was reached.
    pub fn limit_hits(&self, name: &'static str) -> u64 {
        self.limits_hit.count(name)
    }

    /// Adds what a connection's route cache did since it last said so.
    pub fn route_cache(&self, hits: u64, misses: u64) {
        self.route_cache_hits.fetch_add(hits, Ordering::Relaxed);
        self.route_cache_misses.fetch_add(misses, Ordering::Relaxed);
    }

    /// The counters of all listeners together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            dropped: self.dropped().map(|(_, count)| count).iter().sum(),
            sessions_ended: load(&self.sessions_ended),
            ..Totals::default()
        };
        for listener in &*self.listeners.lock() {
            totals.publishes_received += listener.received.iter().map(load).sum::<u64>();
            totals.publishes_sent += listener.sent.iter().map(load).sum::<u64>();
            totals.bytes_received += load(&listener.bytes_received);
            totals.bytes_sent += load(&listener.bytes_sent);
            totals.connections_accepted += load(&listener.accepted);
            totals.connections_open += u64::try_from(listener.connections.load(Ordering::Relaxed)).unwrap_or(0);
        }
        totals
    }

    /// Messages that went no further, by the reason.
    fn dropped(&self) -> [(&'static str, u64); 6] {
        [
            ("queue_full", &self.dropped_queue_full),
            ("expired", &self.dropped_expired),
            ("too_large", &self.dropped_too_large),
            ("away", &self.dropped_away),
            ("session_ended", &self.dropped_session_ended),
            ("unauthorized", &self.dropped_unauthorized),
        ]
        .map(|(reason, counter)| (reason, load(counter)))
    }

    /// Connections open on all listeners.
    pub fn open_connections(&self) -> i64 {
        self.listeners.lock().iter().map(|listener| listener.connections.load(Ordering::Relaxed)).sum()
    }

    /// Lets the counters of revocation be read with these.
    pub fn show_revocation(&self, counters: Arc<RevocationCounters>) {
        // A second service would be that of a second node in one process, which has counters of its own.
        let _ = self.revocation.set(counters);
    }

    /// Everything in the OpenMetrics 1.0 text format, with `gauges` as they are now.
    pub fn encode(self: &Arc<Self>, gauges: Gauges) -> String {
        let mut registry = Registry::with_prefix("shangmq");
        registry.register_collector(Box::new(Scrape { metrics: Arc::clone(self), gauges }));
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string does not fail, and neither does any encoder below.
        if encode(&mut text, &registry).is_err() {
            tracing::error!("metrics could not be encoded");
        }
        text
    }
}

impl ListenerMetrics {
    /// The listener's id, such as `ssl:default`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A CONNECT was answered.
    pub fn connect_result(&self, reason: ReasonCode) {
        self.connects.add(reason.as_u8());
    }

    /// A connection ended before MQTT: by its first bytes, a failed handshake, a bad PROXY header or upgrade. `protocol` is what the
    /// peer was found to speak, such as `tlcp`.
    pub fn refused(&self, reason: &'static str, protocol: &'static str) {
        self.refused.add(Refusal { reason, protocol });
    }

    /// How many connections were refused so far for `reason` by a peer that spoke `protocol`.
    pub fn refusals(&self, reason: &'static str, protocol: &'static str) -> u64 {
        self.refused.count(&Refusal { reason, protocol })
    }

    /// How many connections were refused so far, whatever the reason.
    pub fn all_refusals(&self) -> u64 {
        self.refused.all().iter().map(|(_, count)| count).sum()
    }

    /// Adds what a connection has counted, and starts its counts anew.
    pub fn traffic(&self, traffic: &mut Traffic) {
        let Traffic { bytes_received, received, sent } = std::mem::take(traffic);
        let counters = std::iter::once(&self.bytes_received).chain(&self.received).chain(&self.sent);
        for (counter, count) in counters.zip(std::iter::once(bytes_received).chain(received).chain(sent)) {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// What one connection counts for itself between two rounds, so that messages do not each cost an access to counters that all
/// connections share.
#[derive(Debug, Default)]
pub struct Traffic {
    pub bytes_received: u64,
    received: [u64; 3],
    sent: [u64; 3],
}

impl Traffic {
    /// A PUBLISH arrived.
    pub fn received(&mut self, qos: QoS) {
        *of_qos(&mut self.received, qos) += 1;
    }

    /// A PUBLISH went out; repetitions count.
    pub fn sent(&mut self, qos: QoS) {
        *of_qos(&mut self.sent, qos) += 1;
    }
}

fn of_qos(counts: &mut [u64; 3], qos: QoS) -> &mut u64 {
    let [qos0, qos1, qos2] = counts;
    match qos {
        QoS::AtMostOnce => qos0,
        QoS::AtLeastOnce => qos1,
        QoS::ExactlyOnce => qos2,
    }
}

/// Counters by a label that comes from this program: there are as many as it has names.
#[derive(Debug)]
struct Labelled<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Labelled<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy> Labelled<K> {
    fn add(&self, label: K) {
        *self.0.lock().entry(label).or_default() += 1;
    }

    fn count(&self, label: &K) -> u64 {
        self.0.lock().get(label).copied().unwrap_or(0)
    }

    fn all(&self) -> Vec<(K, u64)> {
        self.0.lock().iter().map(|(label, value)| (*label, *value)).collect()
    }
}

/// One reading of everything.
#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    gauges: Gauges,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let listeners = self.metrics.listeners.lock().clone();
        self.encode_broker(&mut encoder)?;
        encode_store(&mut encoder, &self.metrics.store)?;
        self.metrics.operations.encode(&mut encoder)?;
        self.metrics.alarms.encode(&mut encoder)?;
        encode_traffic(&mut encoder, &listeners)?;
        authorization::encode(&mut encoder, &listeners)?;
        encode_connections(&mut encoder, &listeners)?;
        handshakes::encode(&mut encoder, &listeners)?;
        certificates::encode(&mut encoder, &listeners, crate::dev_certs::now())?;
        self.metrics.revocation.get().map_or(Ok(()), |counters| revocation::encode(&mut encoder, counters))
    }
}

impl Scrape {
    fn encode_broker(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &*self.metrics;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder.encode_descriptor("build", "The running program", None, MetricType::Info)?.encode_info(&version)?;
        gauge(encoder, "sessions", "Sessions, connected or not", self.gauges.sessions)?;
        gauge(encoder, "subscriptions", "Pairs of session and topic filter", self.gauges.subscriptions)?;
        gauge(encoder, "retained_messages", "Retained messages stored", self.gauges.retained_messages)?;
        let dropped = metrics.dropped().map(|(reason, count)| ([("reason", reason)], count));
        counters(
            encoder,
            "messages_dropped",
            "Messages that went no further, for each subscriber or, where refused, for each publish",
            None,
            dropped,
        )?;
        let single = [
            ("sessions_ended", "Sessions that ended for good", load(&metrics.sessions_ended)),
            ("retained_refused", "Messages that a limit kept from being retained", load(&metrics.retained_refused)),
            ("route_cache_hits", "Publishes whose route was remembered", load(&metrics.route_cache_hits)),
            ("route_cache_misses", "Publishes that walked the subscription index", load(&metrics.route_cache_misses)),
            (
                "log_lines_lost",
                "Log lines lost because they could not be written in time",
                crate::telemetry::lost_lines(),
            ),
        ];
        for (name, help, count) in single {
            counter(encoder, name, help, count)?;
        }
        let limits = metrics.limits_hit.all().map(|(name, value)| ([("limit", name)], value));
        counters(encoder, "limits_hit", "Times a limit refused or cut something", None, limits)
    }
}

fn encode_store(encoder: &mut DescriptorEncoder<'_>, store: &StoreMetrics) -> fmt::Result {
    let pending = usize::try_from(load(&store.pending_bytes)).unwrap_or(usize::MAX);
    gauge(encoder, "store_pending_bytes", "Bytes of durable state that wait to be written", pending)?;
    let single = [
        ("store_commits", "Transactions of the durable store", &store.commits),
        ("store_failures", "Transactions of the durable store that failed", &store.failures),
        ("store_refused", "Durable messages refused because the store could not take them", &store.refused),
    ];
    for (name, help, count) in single {
        counter(encoder, name, help, load(count))?;
    }
    let rows = crate::store::Table::ALL.iter().zip(&store.rows);
    let rows = rows.map(|(table, rows)| ([("table", table.name())], i64::try_from(load(rows)).unwrap_or(i64::MAX)));
    families(encoder, "store_rows", "Rows of the durable store", None, MetricType::Gauge, rows, encode_gauge)?;
    let (unit, help) = (Unit::Seconds, "Time to write and sync one transaction");
    let encoder = encoder.encode_descriptor("store_commit_duration", help, Some(&unit), MetricType::Histogram)?;
    EncodeMetric::encode(&store.commit_seconds, encoder)
}

fn encode_traffic(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let by_listener = |field| by_listener(listeners, field);
    let by_qos = |field: fn(&ListenerMetrics) -> &[AtomicU64; 3]| {
        listeners.iter().flat_map(move |listener| {
            let counters = field(listener).iter().zip(["0", "1", "2"]);
            counters.map(|(counter, qos)| ([("listener", listener.id()), ("qos", qos)], load(counter)))
        })
    };
    let bytes = Some(Unit::Bytes);
    counters(encoder, "received", "MQTT bytes received", bytes.as_ref(), by_listener(|one| &one.bytes_received))?;
    counters(encoder, "sent", "MQTT bytes sent", bytes.as_ref(), by_listener(|one| &one.bytes_sent))?;
    counters(encoder, "publishes_received", "PUBLISH packets received", None, by_qos(|one| &one.received))?;
    counters(encoder, "publishes_sent", "PUBLISH packets sent", None, by_qos(|one| &one.sent))?;
    counters(encoder, "subscribes", "Topic filters in SUBSCRIBE packets", None, by_listener(|one| &one.subscribes))
}

fn encode_connections(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let by_listener = |field| by_listener(listeners, field);
    let open = listeners.iter().map(|one| ([("listener", one.id())], one.connections.load(Ordering::Relaxed)));
    families(encoder, "connections", "Connections open", None, MetricType::Gauge, open, encode_gauge)?;
    counters(encoder, "connections_accepted", "Connections accepted", None, by_listener(|one| &one.accepted))?;
    let full = "Connections closed because max_connections was reached";
    counters(encoder, "connections_over_limit", full, None, by_listener(|one| &one.refused_full))?;
    let suppressed = "Log lines about peers that log.max_peer_lines_per_minute suppressed";
    counters(encoder, "log_lines_suppressed", suppressed, None, by_listener(|one| &one.log_lines_suppressed))?;
    let errors = "Failures to accept that concern the whole process";
    counters(encoder, "accept_errors", errors, None, by_listener(|one| &one.accept_errors))?;
    let panics = "Connections ended by a bug of the broker";
    counters(encoder, "connection_panics", panics, None, by_listener(|one| &one.panics))?;
    let refused = listeners.iter().flat_map(|listener| {
        let all = listener.refused.all().into_iter();
        all.map(|(Refusal { reason, protocol }, value)| {
            ([("listener", listener.id()), ("reason", reason), ("protocol", protocol)], value)
        })
    });
    counters(encoder, "connections_refused", "Connections that ended before MQTT", None, refused)?;
    let connects = listeners.iter().flat_map(|listener| {
        let all = listener.connects.all().into_iter();
        all.map(|(code, value)| {
            let reason = ReasonCode::from_u8(code).map_or_else(String::new, |reason| format!("{reason:?}"));
            let code = format!("{code:#04x}");
            ([("listener", listener.id().to_owned()), ("code", code), ("reason", reason)], value)
        })
    });
    counters(encoder, "connects", "CONNECT packets by the reason code of the answer", None, connects)
}

/// A counter of each listener.
fn by_listener(
    listeners: &[Arc<ListenerMetrics>],
    field: fn(&ListenerMetrics) -> &AtomicU64,
) -> impl Iterator<Item = ([(&'static str, &str); 1], u64)> {
    listeners.iter().map(move |listener| ([("listener", listener.id())], load(field(listener))))
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

/// One without labels.
fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn encode_gauge<V: EncodeGaugeValue>(mut encoder: MetricEncoder<'_>, value: &V) -> fmt::Result {
    encoder.encode_gauge(value)
}

/// The encoder appends `_total` to the name.
fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    samples: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    families(encoder, name, help, unit, MetricType::Counter, samples, |mut encoder, value| {
        encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
    })
}

/// One descriptor, then a sample for each label set. Nothing when there are no samples.
fn families<L: EncodeLabelSet, V>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric_type: MetricType,
    samples: impl IntoIterator<Item = (L, V)>,
    encode: impl Fn(MetricEncoder<'_>, &V) -> fmt::Result,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit, metric_type)?;
    for (labels, value) in samples {
        encode(family.encode_family(&labels)?, &value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
