//! Alarms: what an operator has to see to, from when it begins until it is over. Each is told once when it is raised, again when it gets
//! worse, and once when it is over. Pure: what is wrong now and what time it is are given.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Alarms that are raised at a time.
const MAX_ACTIVE: usize = 1000;
/// Alarms that are over and still listed.
const MAX_PAST: usize = 100;
/// Causes told with an alarm, and the longest of them, in characters.
const MAX_CAUSES: usize = 10;
const MAX_CAUSE: usize = 400;

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// A certificate of a listener expires soon, or has.
    CertExpiry,
    /// What the files say is not in force.
    ReloadRefused,
    /// Durable state cannot be written.
    Store,
    /// Clients are refused because a revocation list cannot be used.
    CrlUnusable,
    /// Clients are refused because an OCSP responder does not answer.
    OcspUnreachable,
    /// A certificate that promises stapled OCSP answers has none.
    StapleMissing,
}

impl AlarmKind {
    pub const ALL: [AlarmKind; 6] = [
        AlarmKind::CertExpiry,
        AlarmKind::ReloadRefused,
        AlarmKind::Store,
        AlarmKind::CrlUnusable,
        AlarmKind::OcspUnreachable,
        AlarmKind::StapleMissing,
    ];

    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::CertExpiry => "cert_expiry",
            AlarmKind::ReloadRefused => "reload_refused",
            AlarmKind::Store => "store",
            AlarmKind::CrlUnusable => "crl_unusable",
            AlarmKind::OcspUnreachable => "ocsp_unreachable",
            AlarmKind::StapleMissing => "staple_missing",
        }
    }
}

/// Something that is wrong now.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub kind: AlarmKind,
    /// What of its kind, such as a certificate; empty where there is one only.
    pub subject: String,
    /// How bad it is; more is worse.
    pub step: usize,
    /// Whether clients suffer by it now, or will in a day.
    pub urgent: bool,
    pub message: String,
    pub details: Value,
    /// For those who operate the broker, and not for its clients.
    pub causes: Vec<String>,
}

/// An alarm. Times are unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub kind: AlarmKind,
    /// Whether clients suffer by it now, or will in a day.
    pub urgent: bool,
    /// The kind, and after a slash what of it.
    pub name: String,
    pub message: String,
    pub details: Value,
    pub causes: Vec<String>,
    pub activate_at: i64,
    /// `None` while it is raised.
    pub deactivate_at: Option<i64>,
}

impl Alarm {
    /// The message that is published, as EMQX writes it: times in microseconds.
    pub(super) fn payload(&self) -> String {
        let micros = |seconds: i64| seconds.saturating_mul(1_000_000);
        json!({
            "name": self.name,
            "message": self.message,
            "details": self.details,
            "activate_at": micros(self.activate_at),
            "deactivate_at": self.deactivate_at.map_or_else(|| json!("infinity"), |at| json!(micros(at))),
            "activated": self.deactivate_at.is_none(),
        })
        .to_string()
    }
}

/// All alarms: those that are raised, and those that are over, the last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmList {
    pub active: Vec<Alarm>,
    pub past: Vec<Alarm>,
}

#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// By name, with how bad each is.
    active: BTreeMap<String, (usize, Alarm)>,
    past: VecDeque<Alarm>,
}

/// What has changed.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Alarms that were raised, got worse or are over.
    pub changed: Vec<Alarm>,
    /// How many could not be raised, since there are too many.
    pub beyond: usize,
}

impl Alarms {
    /// Takes note of everything that is wrong now; what is not among it is over.
    pub fn settle(&mut self, conditions: Vec<Condition>, now: i64) -> Settled {
        let mut settled = Settled::default();
        let mut before = std::mem::take(&mut self.active);
        for condition in conditions {
            let Condition { kind, subject, step, urgent, message, details, mut causes } = condition;
            let name = if subject.is_empty() { kind.name().to_owned() } else { format!("{}/{subject}", kind.name()) };
            causes.truncate(MAX_CAUSES);
            let causes: Vec<String> = causes.iter().map(|cause| cause.chars().take(MAX_CAUSE).collect()).collect();
            if let Some((_, alarm)) = self.active.get_mut(&name) {
                // As two lists of one file: one alarm, with the causes of both.
                let room = MAX_CAUSES.saturating_sub(alarm.causes.len());
                alarm.causes.extend(causes.into_iter().take(room));
                continue;
            }
            let earlier = before.remove(&name);
            let goes_on = earlier.as_ref().filter(|(earlier, _)| *earlier >= step).map(|(_, alarm)| alarm.activate_at);
            if earlier.is_none() && self.active.len() >= MAX_ACTIVE {
                settled.beyond += 1;
                continue;
            }
            let activate_at = goes_on.unwrap_or(now);
            let alarm =
                Alarm { kind, urgent, name: name.clone(), message, details, causes, activate_at, deactivate_at: None };
            if goes_on.is_none() {
                settled.changed.push(alarm.clone());
            }
            self.active.insert(name, (step, alarm));
        }
        for (_, alarm) in before.into_values() {
            let over = Alarm { deactivate_at: Some(now), ..alarm };
            settled.changed.push(over.clone());
            self.past.push_front(over);
        }
        self.past.truncate(MAX_PAST);
        settled
    }

    pub fn list(&self) -> AlarmList {
        let active = self.active.values().map(|(_, alarm)| alarm.clone()).collect();
        AlarmList { active, past: self.past.iter().cloned().collect() }
    }

    /// How many are raised, by kind.
    pub fn counts(&self) -> [usize; AlarmKind::ALL.len()] {
        AlarmKind::ALL.map(|kind| self.active.values().filter(|(_, alarm)| alarm.kind == kind).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(subject: &str, step: usize) -> Condition {
        Condition {
            kind: AlarmKind::Store,
            subject: subject.to_owned(),
            step,
            urgent: true,
            message: format!("step {step}"),
            details: json!({ "step": step }),
            causes: vec!["secret of operators".to_owned()],
        }
    }

    fn told(settled: &Settled) -> Vec<(&str, i64, Option<i64>)> {
        settled.changed.iter().map(|one| (&*one.message, one.activate_at, one.deactivate_at)).collect()
    }

    #[test]
    fn an_alarm_is_told_when_it_is_raised_when_it_gets_worse_and_when_it_is_over() {
        let mut alarms = Alarms::default();
        assert_eq!(told(&alarms.settle(vec![condition("a", 1)], 10)), [("step 1", 10, None)]);
        assert_eq!(told(&alarms.settle(vec![condition("a", 1)], 20)), []);
        assert_eq!(told(&alarms.settle(vec![condition("a", 2)], 30)), [("step 2", 30, None)]);
        assert_eq!(told(&alarms.settle(vec![condition("a", 1)], 40)), [], "it gets better");
        assert_eq!(told(&alarms.settle(vec![], 50)), [("step 1", 30, Some(50))]);
        assert_eq!(told(&alarms.settle(vec![], 60)), []);
        let AlarmList { active, past } = alarms.list();
        assert_eq!((active.len(), past.len()), (0, 1));
        assert_eq!(told(&alarms.settle(vec![condition("a", 1)], 70)), [("step 1", 70, None)], "it comes back");
    }

    #[test]
    fn the_published_message_has_the_fields_of_emqx_and_no_causes() {
        let mut alarms = Alarms::default();
        let raised = alarms.settle(vec![condition("", 1)], 10);
        let payload: Value = serde_json::from_str(&raised.changed[0].payload()).unwrap();
        assert_eq!(
            payload,
            json!({ "name": "store", "message": "step 1", "details": { "step": 1 }, "activate_at": 10_000_000,
                    "deactivate_at": "infinity", "activated": true })
        );
        let over = alarms.settle(vec![], 11);
        let payload: Value = serde_json::from_str(&over.changed[0].payload()).unwrap();
        assert_eq!((&payload["deactivate_at"], &payload["activated"]), (&json!(11_000_000), &json!(false)));
    }

    // Two lists of one file, or of files of one name, were one alarm that was raised anew at every look.
    #[test]
    fn conditions_of_one_name_are_one_alarm_that_is_told_once() {
        let mut alarms = Alarms::default();
        let other = Condition { causes: vec!["another".to_owned()], ..condition("a", 1) };
        let both = vec![condition("a", 1), other];
        assert_eq!(told(&alarms.settle(both.clone(), 10)), [("step 1", 10, None)]);
        assert_eq!(told(&alarms.settle(both, 20)), []);
        let active = alarms.list().active;
        assert_eq!((active.len(), &active[0].causes[..]), (1, &["secret of operators".into(), "another".into()][..]));
        assert_eq!(told(&alarms.settle(vec![condition("a", 1)], 30)), []);
        assert_eq!(told(&alarms.settle(vec![], 40)).len(), 1);
    }

    #[test]
    fn there_is_an_end_to_alarms() {
        let mut alarms = Alarms::default();
        let many: Vec<Condition> = (0..=MAX_ACTIVE).map(|n| condition(&n.to_string(), 1)).collect();
        let settled = alarms.settle(many.clone(), 0);
        assert_eq!((settled.changed.len(), settled.beyond), (MAX_ACTIVE, 1));
        assert_eq!(alarms.settle(many, 1).changed.len(), 0);
        alarms.settle(vec![], 2);
        assert_eq!(alarms.list().past.len(), MAX_PAST);
        let long = Condition { causes: vec!["é".repeat(5000); 50], ..condition("a", 1) };
        let settled = alarms.settle(vec![long], 3);
        assert_eq!(
            (settled.changed[0].causes.len(), settled.changed[0].causes[0].chars().count()),
            (MAX_CAUSES, MAX_CAUSE)
        );
    }
}
