//! Tells the operator that certificates are about to expire: 30, 7 and 1 days before, and when they have. It does not know what time it is.

use super::{CertificateReport, Operator};
use crate::dev_certs::now;
use crate::metrics::EXPIRY_DAYS;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, warn};

/// Between two looks at the clock.
const INTERVAL: Duration = Duration::from_secs(3600);
const DAY: i64 = 86_400;

/// What was said of each certificate, by its fingerprint and its listener.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// How many of [`EXPIRY_DAYS`] had been reached.
    said: HashMap<(String, String), usize>,
}

impl Expiries {
    /// The certificates of which it is time to say that they expire. Those that are shown no more are forgotten.
    pub(super) fn due<'a>(&mut self, shown: &'a [CertificateReport]) -> Vec<&'a CertificateReport> {
        let mut said = HashMap::new();
        let mut due = Vec::new();
        for one in shown {
            let reached = EXPIRY_DAYS.iter().filter(|days| one.seconds_left < **days * DAY).count();
            let key = (one.listener.clone(), one.fingerprint_sha256.clone());
            if reached > self.said.get(&key).copied().unwrap_or(0) {
                due.push(one);
            }
            said.insert(key, reached);
        }
        self.said = said;
        due
    }
}

impl Operator {
    /// Looks at the clock every hour until `stop` says so.
    pub async fn watch_expiry(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            self.say_what_expires(now());
            tokio::select! {
                // Cancel-safe, both of them.
                () = tokio::time::sleep(INTERVAL) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Writes to the log which certificates expire soon, each once for each of the days.
    pub(super) fn say_what_expires(&self, now: i64) {
        let shown = self.certificates(now);
        for one in self.expiries.lock().due(&shown) {
            let CertificateReport { listener, protocol, usage, file, subject, seconds_left, .. } = one;
            let (days, hours) = (seconds_left / DAY, seconds_left / 3600);
            if *seconds_left < 0 {
                error!(
                    listener,
                    protocol,
                    usage,
                    file,
                    subject,
                    "a certificate has expired: clients that verify it refuse this listener; put a new one in its place, no restart is needed"
                );
            } else {
                warn!(
                    listener,
                    protocol,
                    usage,
                    file,
                    subject,
                    days,
                    hours,
                    "a certificate expires soon; put a new one in its place, no restart is needed"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(listener: &str, usage: &str, seconds_left: i64) -> CertificateReport {
        CertificateReport {
            listener: listener.to_owned(),
            protocol: "tlcp".to_owned(),
            usage: usage.to_owned(),
            file: format!("{usage}.crt"),
            subject: "CN=a".to_owned(),
            issuer: "CN=ca".to_owned(),
            names: Vec::new(),
            key: "SM2".to_owned(),
            not_before: 0,
            not_after: 0,
            seconds_left,
            fingerprint_sha256: usage.to_owned(),
            fingerprint_sm3: usage.to_owned(),
        }
    }

    #[test]
    fn each_certificate_of_a_pair_is_spoken_of_30_7_and_1_days_before_it_expires_and_then() {
        let mut expiries = Expiries::default();
        let mut said = Vec::new();
        // Ninety days pass, an hour at a time; the encryption certificate lasts a day longer.
        for hour in 0..90 * 24 {
            let left = |days: i64| days * DAY - hour * 3600;
            let shown = [certificate("ssl:a", "signing", left(80)), certificate("ssl:a", "encryption", left(81))];
            for one in expiries.due(&shown) {
                said.push((one.usage.clone(), hour / 24));
            }
        }
        let days = |usage: &str| said.iter().filter(|(of, _)| of == usage).map(|(_, day)| *day).collect::<Vec<_>>();
        assert_eq!(days("signing"), [50, 73, 79, 80]);
        assert_eq!(days("encryption"), [51, 74, 80, 81]);
    }

    #[test]
    fn one_that_comes_back_is_spoken_of_again() {
        let mut expiries = Expiries::default();
        let soon = [certificate("ssl:a", "single", 2 * DAY)];
        assert_eq!(expiries.due(&soon).len(), 1);
        assert_eq!(expiries.due(&soon).len(), 0);
        assert_eq!(expiries.due(&[]).len(), 0);
        assert_eq!(expiries.due(&soon).len(), 1);
    }
}
