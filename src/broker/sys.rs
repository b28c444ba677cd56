//! `$SYS/broker/…`: what the broker tells about itself, under the names that mosquitto gave these topics.
//!
//! `$SYS/brokers/…` is for events, under the names of EMQX. Values are made when somebody listens or subscribes, and never otherwise. They are kept apart from clients' retained messages.

use super::{Broker, Changes, PublishOptions, Publisher};
use crate::router::{Retained, RetainedLimits, Stored};
use crate::session::{Message, Millis};
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{PublishProperties, QoS};
use parking_lot::Mutex;
use std::sync::Arc;

/// Topics are fewer.
const MAX_TOPICS: usize = 256;
/// Values are not made anew for subscriptions that come closer together.
const FRESH: Millis = 1000;
/// The windows of load averages, in minutes.
const WINDOWS: [(f64, &str); 3] = [(1.0, "1min"), (5.0, "5min"), (15.0, "15min")];

#[derive(Debug)]
pub(super) struct Sys {
    pub topics: Retained<Arc<Message>>,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    at: Option<Millis>,
    most_connected: usize,
    loads: Loads,
}

/// Counters of one reading, and averages of what they grow by in a minute.
#[derive(Debug, Default)]
struct Loads {
    last: Option<(Millis, [u64; 5])>,
    averages: [[f64; 3]; 5],
}

const LOADS: [&str; 5] = ["publish/received", "publish/sent", "bytes/received", "bytes/sent", "connections"];

impl Loads {
    /// Exponentially weighted, as the load of a Unix system is.
    fn update(&mut self, now: Millis, counters: [u64; 5]) {
        if let Some((then, before)) = self.last {
            let minutes = now.saturating_sub(then) as f64 / 60_000.0;
            if minutes <= 0.0 {
                return;
            }
            for ((averages, now), before) in self.averages.iter_mut().zip(counters).zip(before) {
                let per_minute = now.saturating_sub(before) as f64 / minutes;
                for (average, (window, _)) in averages.iter_mut().zip(WINDOWS) {
                    let kept = (-minutes / window).exp();
                    *average = *average * kept + per_minute * (1.0 - kept);
                }
            }
        }
        self.last = Some((now, counters));
    }
}

impl Sys {
    pub fn new() -> Sys {
        let limits = RetainedLimits { shards: 1, max_messages: MAX_TOPICS, max_bytes: 1 << 20 };
        Sys { topics: Retained::new(limits), made: Mutex::default() }
    }
}

/// Whether a filter asks for `$SYS`.
pub(super) fn is_sys(filter: &str) -> bool {
    filter == "$SYS" || filter.starts_with("$SYS/")
}

impl Broker {
    /// Publishes `$SYS` topics to those who asked for them, each `mqtt.sys_interval`. Ends at once when that is zero.
    pub async fn run_sys(self: Arc<Self>) {
        let every = self.config.sys_interval;
        if every.is_zero() {
            return;
        }
        loop {
            tokio::time::sleep(every).await;
            self.publish_sys();
        }
    }

    /// Tells those who subscribed to this topic of `$SYS` what has happened, in JSON. It is not retained.
    pub fn tell(&self, topic: ByteString, payload: Bytes) {
        let route = self.router.route(&topic);
        if route.is_empty() {
            return;
        }
        let now = self.now();
        let content_type = Some(ByteString::from_static("application/json"));
        let properties = PublishProperties { content_type, ..PublishProperties::default() };
        let message = Arc::new(Message::new(topic, payload, QoS::AtLeastOnce, properties, now));
        let how = PublishOptions { retain: false, deliver_anyway: true, inbound: None };
        let mut changes = Changes::new(self.store.as_deref());
        self.publish_on(&route, &mut Publisher::new(0, now), message, how, &mut changes);
    }

    /// Makes sure that a new subscription finds values that are not old.
    pub(super) fn refresh_sys(&self) {
        if self.config.sys_interval.is_zero() {
            return;
        }
        let now = self.now();
        let mut made = self.made_sys().lock();
        if made.at.is_some_and(|at| now.saturating_sub(at) < FRESH) {
            return;
        }
        for (topic, value) in self.sys_values(&mut made, now) {
            self.keep_sys(&topic, value, now);
        }
    }

    fn publish_sys(&self) {
        let listened = |topic: &str| !self.router.route(topic).is_empty();
        let now = self.now();
        let values = self.sys_values(&mut self.made_sys().lock(), now);
        for (topic, value) in values {
            if listened(&topic) {
                let message = self.keep_sys(&topic, value, now);
                let mut publisher = Publisher::new(0, now);
                let how = PublishOptions { retain: false, deliver_anyway: true, inbound: None };
                let mut changes = Changes::new(self.store.as_deref());
                self.publish_on(&self.router.route(&topic), &mut publisher, message, how, &mut changes);
            }
        }
    }

    fn made_sys(&self) -> &Mutex<Made> {
        &self.sys.made
    }

    fn keep_sys(&self, topic: &ByteString, value: String, now: Millis) -> Arc<Message> {
        let properties = PublishProperties::default();
        let message = Arc::new(Message::new(topic.clone(), Bytes::from(value), QoS::AtMostOnce, properties, now));
        let bytes = message.cost();
        // There are fewer topics than the store has room for.
        let _kept =
            self.sys.topics.set(topic, Some(Stored { message: Arc::clone(&message), bytes, expires_at_ms: None }));
        message
    }

    fn sys_values(&self, made: &mut Made, now: Millis) -> Vec<(ByteString, String)> {
        made.at = Some(now);
        let totals = self.metrics.totals();
        let connected = self.sessions.connected();
        let sessions = self.session_count();
        made.most_connected = made.most_connected.max(connected);
        made.loads.update(
            now,
            [
                totals.publishes_received,
                totals.publishes_sent,
                totals.bytes_received,
                totals.bytes_sent,
                totals.connections_accepted,
            ],
        );
        let numbers: [(&str, u64); 19] = [
            ("clients/total", sessions as u64),
            ("clients/connected", connected as u64),
            ("clients/active", connected as u64),
            ("clients/disconnected", sessions.saturating_sub(connected) as u64),
            ("clients/inactive", sessions.saturating_sub(connected) as u64),
            ("clients/maximum", made.most_connected as u64),
            ("clients/expired", totals.sessions_ended),
            ("publish/messages/received", totals.publishes_received),
            ("publish/messages/sent", totals.publishes_sent),
            ("publish/messages/dropped", totals.dropped),
            ("bytes/received", totals.bytes_received),
            ("bytes/sent", totals.bytes_sent),
            ("connections/total", totals.connections_accepted),
            ("connections/open", totals.connections_open),
            ("retained messages/count", self.retained_count() as u64),
            ("store/messages/count", self.retained_count() as u64),
            ("store/messages/bytes", self.retained.bytes() as u64),
            ("subscriptions/count", self.subscription_count() as u64),
            ("filters/count", self.router.filters() as u64),
        ];
        let topic = |name: &str| ByteString::from(format!("$SYS/broker/{name}"));
        let mut values = vec![
            (topic("version"), format!("shangmq {}", env!("CARGO_PKG_VERSION"))),
            (topic("uptime"), format!("{} seconds", now / 1000)),
        ];
        values.extend(numbers.map(|(name, value)| (topic(name), value.to_string())));
        for (name, averages) in LOADS.iter().zip(made.loads.averages) {
            for (average, (_, window)) in averages.iter().zip(WINDOWS) {
                values.push((topic(&format!("load/{name}/{window}")), format!("{average:.2}")));
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_its_own_average() {
        let mut loads = Loads::default();
        for minute in 0..120 {
            loads.update(minute * 60_000, [minute * 600, 0, 0, 0, 0]);
        }
        for average in loads.averages[0] {
            assert!((average - 600.0).abs() < 1.0, "{average}");
        }
        assert_eq!(loads.averages[1], [0.0; 3]);
    }

    #[test]
    fn only_filters_that_name_sys_ask_for_it() {
        for filter in ["$SYS", "$SYS/#", "$SYS/broker/uptime"] {
            assert!(is_sys(filter), "{filter}");
        }
        for filter in ["#", "+/broker/uptime", "$SYSTEM/#", "$+/x"] {
            assert!(!is_sys(filter), "{filter}");
        }
    }
}
