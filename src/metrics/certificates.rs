//! How long the certificates of listeners, and the authorities that they trust, are still good.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{ListenerMetrics, encode_gauge, families};

/// When a certificate expires, and which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    pub protocol: &'static str,
    pub usage: &'static str,
    pub file: String,
    pub subject: String,
    /// Unix seconds.
    pub not_after: i64,
}

impl Expiry {
    fn names(&self) -> (&str, &str, &str, &str) {
        (self.protocol, self.usage, &self.file, &self.subject)
    }
}

/// The certificates that a listener shows now, and the authorities that it trusts.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<Vec<Expiry>>);

impl Certificates {
    /// These are in use from here on, and no others. Of several under the same names, as in the configuration itself, it is the first to
    /// expire: a series is there once.
    pub fn set(&self, mut shown: Vec<Expiry>) {
        shown.sort_by(|one, other| one.names().cmp(&other.names()).then(one.not_after.cmp(&other.not_after)));
        shown.dedup_by(|later, first| later.names() == first.names());
        *self.0.lock() = shown;
    }
}

const DAY: i64 = 86_400;
/// Days before the end of a certificate at which an operator is told, the last time at its end.
pub const EXPIRY_DAYS: [i64; 4] = [30, 7, 1, 0];
const WITHIN: [&str; 4] = ["30d", "7d", "1d", "expired"];

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>], now: i64) -> fmt::Result {
    let shown: Vec<(&str, Expiry)> = listeners
        .iter()
        .flat_map(|listener| {
            let shown = listener.certificates.0.lock().clone();
            shown.into_iter().map(|one| (listener.id(), one)).collect::<Vec<_>>()
        })
        .collect();
    let left = shown.iter().map(|(listener, one)| {
        let labels = [
            ("listener", *listener),
            ("protocol", one.protocol),
            ("usage", one.usage),
            ("file", &*one.file),
            ("subject", &*one.subject),
        ];
        (labels, one.not_after.saturating_sub(now))
    });
    let help = "Time until a certificate of a listener or an authority that it trusts expires, negative when it has";
    families(encoder, "cert_expiry", help, Some(&Unit::Seconds), MetricType::Gauge, left, encode_gauge)?;
    let expiring = EXPIRY_DAYS.iter().zip(WITHIN).map(|(days, within)| {
        let count =
            shown.iter().filter(|(_, one)| one.not_after.saturating_sub(now) < days.saturating_mul(DAY)).count();
        ([("within", within)], i64::try_from(count).unwrap_or(i64::MAX))
    });
    let help = "Certificates of listeners, and authorities that they trust, that expire soon";
    families(encoder, "certs_expiring", help, None, MetricType::Gauge, expiring, encode_gauge)
}
