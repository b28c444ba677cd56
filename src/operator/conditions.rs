//! What is wrong with a running broker that an operator has to see to: certificates that expire, reloads that were refused, a store that
//! does not write, revocation lists that keep clients out. It looks every few seconds; alarms are made of what it finds.

use super::alarms::{Alarm, AlarmKind, AlarmList, Condition, Settled};
use super::{CertificateReport, Operator};
use crate::config::{ClientAuth, FailMode};
use crate::dev_certs::now;
use crate::metrics::EXPIRY_DAYS;
use crate::net::Usage;
use crate::revocation::report::{ListReport, Report, SourceKind};
use crate::revocation::{LackingList, SilentResponder};
use crate::store::Health;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);
const DAY: i64 = 86_400;
/// As much of a fingerprint as tells certificates apart.
const SHORT: usize = 16;

impl Operator {
    /// Looks for what is wrong until `stop` says so.
    pub async fn watch_alarms(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            // Signatures of lists may have to be verified. A look that failed is made again with the next.
            let _ = self.aside(|operator| operator.look_for_alarms(now())).await;
            tokio::select! {
                // Cancel-safe, both of them.
                () = tokio::time::sleep(INTERVAL) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Raises alarms for what is wrong and ends those of what is over: in the log, by messages, and in the metrics.
    pub fn look_for_alarms(&self, now: i64) {
        let _looking = self.looking.lock();
        let conditions = self.conditions(now);
        let (Settled { changed, beyond }, counts) = {
            let mut alarms = self.alarms.lock();
            (alarms.settle(conditions, now), alarms.counts())
        };
        self.metrics.alarms.hold(AlarmKind::ALL.map(AlarmKind::name).into_iter().zip(counts));
        if beyond > 0 {
            self.metrics.limit_hit("alarms");
        }
        for alarm in &changed {
            let Alarm { name, message, causes, .. } = alarm;
            let what = if alarm.deactivate_at.is_none() {
                self.metrics.alarms.raised(alarm.kind.name());
                let causes = causes.join("; ");
                if alarm.urgent {
                    error!(name, causes, "alarm: {message}")
                } else {
                    warn!(name, causes, "alarm: {message}")
                }
                "activate"
            } else {
                info!(name, "an alarm is over");
                "deactivate"
            };
            let topic = format!("$SYS/brokers/{}/alarms/{what}", self.node);
            self.broker.tell(topic.into(), alarm.payload().into());
        }
    }

    /// The alarms that are raised and the last that are over.
    pub fn alarms(&self) -> AlarmList {
        self.alarms.lock().list()
    }

    fn conditions(&self, now: i64) -> Vec<Condition> {
        let (authorities, shown): (Vec<_>, Vec<_>) =
            self.certificates(now).into_iter().partition(|one| one.usage == Usage::Authority.name());
        let mut found: Vec<Condition> = shown.iter().filter_map(expiry).collect();
        found.extend(self.refused_reload());
        found.extend(self.broker.store().and_then(|store| store_trouble(store.health())));
        let hard = self.is_hard_on_lists();
        found.extend(revocation(&self.revocation.report_without_clients(), hard));
        found.extend(self.revocation.silent_responders().iter().map(silent));
        for listener in &self.listeners {
            let lacking = listener.security().map(|security| security.lacking()).unwrap_or_default();
            found.extend(lacking.iter().map(|list| refused_for_want_of(listener.id(), list)));
        }
        // Last, since they may be many: where there are too many alarms, those of others are raised.
        found.extend(authorities.iter().filter_map(expiry));
        found
    }

    /// A refused reload of the whole configuration lasts until one succeeds: only an operator knows when what is written is complete.
    fn refused_reload(&self) -> Option<Condition> {
        let refused = self.refused.lock();
        let ends = match (refused.whole.is_empty(), refused.files.is_empty()) {
            (true, true) => return None,
            (false, _) => "correct them and run `shangmq ctl reload`, which ends this alarm",
            (true, false) => "correct them, and they are read again by themselves",
        };
        let mut told: Vec<String> = Vec::new();
        for cause in refused.whole.iter().chain(&refused.files) {
            if !told.contains(cause) {
                told.push(cause.clone());
            }
        }
        Some(Condition {
            kind: AlarmKind::ReloadRefused,
            subject: String::new(),
            step: 0,
            urgent: true,
            message: format!(
                "a reload was refused: what the files say is not in force, what was in force before stays so; {ends}"
            ),
            details: json!({}),
            causes: told,
        })
    }

    /// Whether some listener refuses clients of whose certificates no list can tell.
    fn is_hard_on_lists(&self) -> bool {
        let hard = |auth: &ClientAuth| {
            let crl = auth.trust().and_then(|trust| trust.status.crl.as_ref());
            crl.is_some_and(|crl| crl.mode == FailMode::Hard)
        };
        let securities = self.listeners.iter().filter_map(|listener| listener.security());
        securities.into_iter().any(|one| one.config().client_auth().into_iter().any(|(_, auth)| hard(auth)))
    }
}

/// 30, 7 and 1 days before a certificate expires, and when it has.
fn expiry(one: &CertificateReport) -> Option<Condition> {
    let reached = EXPIRY_DAYS.iter().filter(|days| one.seconds_left < **days * DAY).count();
    let within = reached.checked_sub(1).and_then(|last| EXPIRY_DAYS.get(last))?;
    let CertificateReport { listener, protocol, usage, subject, not_after, seconds_left, .. } = one;
    let authority = usage == Usage::Authority.name();
    let message = match within {
        0 if authority => format!(
            "an authority that {listener} trusts for {protocol} has expired: clients whose certificates it issued are refused; put its \
             successor in its place, or take it away; no restart is needed"
        ),
        _ if authority => format!(
            "an authority that {listener} trusts for {protocol} expires in {} days and {} hours: clients whose certificates it issued are \
             refused from then on; put its successor beside it, no restart is needed",
            seconds_left / DAY,
            seconds_left % DAY / 3600
        ),
        0 => format!(
            "the {usage} certificate of {listener} for {protocol} has expired: clients that verify it refuse this listener; put a new \
             one in its place, no restart is needed"
        ),
        _ => format!(
            "the {usage} certificate of {listener} for {protocol} expires in {} days and {} hours; put a new one in its place, no \
             restart is needed",
            seconds_left / DAY,
            seconds_left % DAY / 3600
        ),
    };
    let fingerprint = one.fingerprint_sha256.get(..SHORT).unwrap_or(&one.fingerprint_sha256);
    Some(Condition {
        kind: AlarmKind::CertExpiry,
        subject: format!("{listener}/{protocol}/{usage}/{fingerprint}"),
        step: reached,
        urgent: *within <= 1,
        message,
        details: json!({
            "listener": listener, "protocol": protocol, "usage": usage, "subject": subject, "not_after": not_after,
            "within_days": within,
        }),
        causes: vec![format!("{subject} in {}", one.file)],
    })
}

fn store_trouble(health: Health) -> Option<Condition> {
    let (step, message) = match health {
        Health::Good => return None,
        Health::Full => (1, "no space is left for durable state: what was taken waits, nothing new is taken"),
        Health::Failed => (2, "the store failed: nothing becomes durable until the broker is started again"),
    };
    Some(Condition {
        kind: AlarmKind::Store,
        subject: String::new(),
        step,
        urgent: true,
        message: message.to_owned(),
        details: json!({ "health": if health == Health::Full { "full" } else { "failed" } }),
        causes: Vec::new(),
    })
}

fn refused_for_want_of(listener: &str, lacking: &LackingList) -> Condition {
    let issuer = &lacking.issuer;
    Condition {
        kind: AlarmKind::CrlUnusable,
        subject: format!("{listener}/{issuer}"),
        step: 1,
        urgent: true,
        message: format!(
            "{listener} has no revocation list of {issuer}: clients whose certificates it issued are refused (hard-fail)"
        ),
        details: json!({ "listener": listener, "issuer": issuer }),
        causes: vec![format!("{listener}: {lacking}")],
    }
}

fn silent(one: &SilentResponder) -> Condition {
    let SilentResponder { responder, issuer, error } = one;
    Condition {
        kind: AlarmKind::OcspUnreachable,
        subject: responder.clone(),
        step: 0,
        urgent: true,
        message: format!(
            "the OCSP responder {responder} gives no answer that can be used: clients whose certificates {issuer} issued are refused \
             (hard-fail)"
        ),
        details: json!({ "responder": responder, "issuer": issuer }),
        causes: vec![format!("{responder}: {error}")],
    }
}

fn revocation(report: &Report, hard: bool) -> Vec<Condition> {
    let failing = |state: &str| state == crate::metrics::Held::Failing.name();
    let unusable = move |list: &ListReport| hard && failing(&list.state);
    let mut lists: Vec<Condition> = Vec::new();
    for list in report.crls.iter().filter(|list| unusable(list) || list.outdated) {
        // Clients are not told where files of the broker are.
        let source = match list.kind {
            SourceKind::File => {
                Path::new(&list.source).file_name().map_or_else(String::new, |name| name.display().to_string())
            }
            SourceKind::Url | SourceKind::Upload => list.source.clone(),
        };
        let refuses = unusable(list);
        let message = if refuses {
            format!(
                "no revocation list of {source} can be used: clients whose certificates it is about are refused (hard-fail)"
            )
        } else {
            format!(
                "the file of revocation lists {source} cannot be read any more: the lists read before stay in force"
            )
        };
        lists.push(Condition {
            kind: AlarmKind::CrlUnusable,
            message,
            details: json!({ "issuer": list.issuer, "next_update": list.next_update }),
            subject: source,
            step: usize::from(refuses),
            urgent: refuses,
            causes: list.error.iter().map(|cause| format!("{}: {cause}", list.source)).collect(),
        });
    }
    // Of several lists of one file the worst gives the message.
    lists.sort_by_key(|one| std::cmp::Reverse(one.step));
    let staples = report.staples.iter().filter(|staple| staple.must_staple && failing(&staple.state)).map(|staple| {
        let fingerprint = staple.fingerprint_sha256.get(..SHORT).unwrap_or_default();
        Condition {
            kind: AlarmKind::StapleMissing,
            subject: fingerprint.to_owned(),
            step: 0,
            urgent: true,
            message: format!(
                "there is no OCSP answer for {}, which promises one (must-staple): clients that insist on it refuse the listener",
                staple.subject
            ),
            details: json!({ "subject": staple.subject }),
            causes: staple.error.iter().map(|cause| format!("{}: {cause}", staple.responder)).collect(),
        }
    });
    lists.extend(staples);
    lists
}

#[cfg(test)]
mod tests {
    use super::super::alarms::Alarms;
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
        let mut alarms = Alarms::default();
        let mut told = Vec::new();
        // Ninety days pass, an hour at a time; the encryption certificate lasts a day longer.
        for hour in 0..90 * 24 {
            let left = |days: i64| days * DAY - hour * 3600;
            let shown = [certificate("ssl:a", "signing", left(80)), certificate("ssl:a", "encryption", left(81))];
            let settled = alarms.settle(shown.iter().filter_map(expiry).collect(), hour * 3600);
            told.extend(
                settled.changed.into_iter().map(|one| (one.name, one.details["within_days"].clone(), hour / 24)),
            );
        }
        let of = |usage: &str| {
            let name = format!("cert_expiry/ssl:a/tlcp/{usage}/{usage}");
            let told = told.iter().filter(|(of, ..)| *of == name);
            told.map(|(_, within, day)| (within.as_i64().unwrap(), *day)).collect::<Vec<_>>()
        };
        assert_eq!(of("signing"), [(30, 50), (7, 73), (1, 79), (0, 80)]);
        assert_eq!(of("encryption"), [(30, 51), (7, 74), (1, 80), (0, 81)]);
        assert_eq!(told.len(), 8);
        // A new certificate ends the alarm about the old one.
        let settled = alarms.settle(Vec::new(), 91 * DAY);
        assert!(settled.changed.len() == 2 && settled.changed.iter().all(|one| one.deactivate_at == Some(91 * DAY)));
    }

    #[test]
    fn a_failed_store_is_worse_than_a_full_one() {
        let mut alarms = Alarms::default();
        let mut raised = |health| alarms.settle(store_trouble(health).into_iter().collect(), 0).changed.len();
        assert_eq!(
            [raised(Health::Good), raised(Health::Full), raised(Health::Failed), raised(Health::Good)],
            [0, 1, 1, 1]
        );
    }
}
