//! Alarms by what they are about.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Labelled, counters, encode_gauge, families};

#[derive(Debug, Default)]
pub struct AlarmCounters {
    raised: Labelled<&'static str>,
    active: Mutex<BTreeMap<&'static str, i64>>,
}

impl AlarmCounters {
    /// An alarm was raised, or got worse.
    pub fn raised(&self, kind: &'static str) {
        self.raised.add(kind);
    }

    /// So many of each kind are raised now.
    pub fn hold(&self, counts: impl Iterator<Item = (&'static str, usize)>) {
        let counts = counts.map(|(kind, count)| (kind, i64::try_from(count).unwrap_or(i64::MAX)));
        *self.active.lock() = counts.collect();
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let raised = self.raised.all().into_iter().map(|(kind, count)| ([("kind", kind)], count));
        counters(encoder, "alarms", "Alarms that were raised or got worse", None, raised)?;
        let active = self.active.lock().clone().into_iter().map(|(kind, count)| ([("kind", kind)], count));
        families(encoder, "alarms_active", "Alarms that are raised", None, MetricType::Gauge, active, encode_gauge)
    }
}
