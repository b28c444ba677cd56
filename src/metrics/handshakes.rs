//! Handshakes: which succeed, which fail and why, and how long each takes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::{HANDSHAKE_BUCKETS, Labelled, ListenerMetrics, counters, families};

/// The handshakes of one listener.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    completed: Labelled<Completed>,
    failed: Labelled<Failed>,
    /// By protocol and outcome.
    seconds: Mutex<BTreeMap<(&'static str, &'static str), Histogram>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Completed {
    protocol: &'static str,
    suite: &'static str,
    resumed: bool,
}

/// A handshake that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failed {
    /// The block whose context served it, or what its first bytes were: `tls`, `rfc8998`, `tlcp`, `unknown`.
    pub protocol: &'static str,
    /// The highest version that the client offered, `unknown` where it did not come to that.
    pub offered: &'static str,
    pub reason: &'static str,
}

impl Handshakes {
    fn took(&self, protocol: &'static str, outcome: &'static str, elapsed: Duration) {
        let mut seconds = self.seconds.lock();
        let histogram = seconds.entry((protocol, outcome)).or_insert_with(|| Histogram::new(HANDSHAKE_BUCKETS));
        histogram.observe(elapsed.as_secs_f64());
    }
}

impl ListenerMetrics {
    /// How many handshakes were completed.
    pub fn completed_handshakes(&self) -> u64 {
        self.handshakes.completed.all().iter().map(|(_, count)| count).sum()
    }

    /// How many handshakes failed so far as `failed` says.
    pub fn failed_handshakes(&self, failed: Failed) -> u64 {
        self.handshakes.failed.count(&failed)
    }

    /// A handshake was completed. `elapsed` runs from the accepted connection, waiting for a permit included.
    pub fn handshake(&self, protocol: &'static str, suite: &'static str, resumed: bool, elapsed: Duration) {
        self.handshakes.completed.add(Completed { protocol, suite, resumed });
        self.handshakes.took(protocol, "completed", elapsed);
    }

    /// A handshake failed, or its peer went away. `elapsed` as in [`handshake`](Self::handshake).
    pub fn handshake_failed(&self, failed: Failed, elapsed: Duration) {
        self.handshakes.failed.add(failed);
        self.handshakes.took(failed.protocol, "failed", elapsed);
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let completed = listeners.iter().flat_map(|listener| {
        listener.handshakes.completed.all().into_iter().map(|(handshake, value)| {
            let resumed = if handshake.resumed { "true" } else { "false" };
            let labels = [
                ("listener", listener.id()),
                ("protocol", handshake.protocol),
                ("suite", handshake.suite),
                ("resumed", resumed),
            ];
            (labels, value)
        })
    });
    counters(encoder, "handshakes", "Handshakes completed", None, completed)?;
    let failed = listeners.iter().flat_map(|listener| {
        listener.handshakes.failed.all().into_iter().map(|(Failed { protocol, offered, reason }, value)| {
            let labels =
                [("listener", listener.id()), ("protocol", protocol), ("offered", offered), ("reason", reason)];
            (labels, value)
        })
    });
    counters(encoder, "handshakes_failed", "Handshakes that came to nothing", None, failed)?;
    let seconds = listeners.iter().flat_map(|listener| {
        let histograms = listener.handshakes.seconds.lock().clone().into_iter();
        histograms.map(|((protocol, outcome), histogram)| {
            ([("listener", listener.id()), ("protocol", protocol), ("outcome", outcome)], histogram)
        })
    });
    let help = "Time from the accepted connection to the end of the handshake";
    let unit = Some(Unit::Seconds);
    let encode = |encoder: MetricEncoder<'_>, histogram: &Histogram| EncodeMetric::encode(histogram, encoder);
    families(encoder, "handshake_duration", help, unit.as_ref(), MetricType::Histogram, seconds, encode)
}
