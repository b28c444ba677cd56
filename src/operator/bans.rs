//! Bans by operators: each is answered when the store holds it.

use super::fitting::{MAX_LIST, fitting};
use super::{Operator, kept};
use crate::broker::{Ban, Subject};
use crate::telemetry::shortened;
use serde::{Deserialize, Serialize};
use std::fmt;
use tracing::info;

/// Whom a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Banned {
    ClientId(String),
    Username(String),
    Address(std::net::IpAddr),
}

/// A ban that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanReport {
    pub subject: Banned,
    /// `None` is without end.
    pub seconds_left: Option<u64>,
    pub reason: String,
}

/// The bans that hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanList {
    pub bans: Vec<BanReport>,
    /// How many more there are than an answer has room for.
    pub left_out: usize,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanChange {
    /// Whether there was something to change.
    pub changed: bool,
    /// Whether a store keeps it over a restart.
    pub stored: bool,
}

impl Banned {
    fn subject(&self) -> Subject {
        match self {
            Banned::ClientId(id) => Subject::ClientId(id.as_str().into()),
            Banned::Username(name) => Subject::Username(name.as_str().into()),
            Banned::Address(address) => Subject::Address(address.to_canonical()),
        }
    }

    fn of(subject: Subject) -> Banned {
        match subject {
            Subject::ClientId(id) => Banned::ClientId(id.to_string()),
            Subject::Username(name) => Banned::Username(name.to_string()),
            Subject::Address(address) => Banned::Address(address),
        }
    }
}

/// Names are quoted, so that a log is not told what to do.
impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Banned::ClientId(id) => write!(f, "client id {:?}", shortened(id)),
            Banned::Username(name) => write!(f, "user name {:?}", shortened(name)),
            Banned::Address(address) => write!(f, "address {address}"),
        }
    }
}

impl Operator {
    /// The bans that hold, in the order of their ends.
    pub fn bans(&self) -> BanList {
        let now = self.broker.now();
        let mut all = self.broker.bans().all(now);
        all.sort_by_key(|(_, ban)| ban.until.unwrap_or(u64::MAX));
        let total = all.len();
        let reports = all.into_iter().map(|(subject, ban)| {
            let seconds_left = ban.until.map(|until| until.saturating_sub(now).div_ceil(1000));
            BanReport { subject: Banned::of(subject), seconds_left, reason: ban.reason }
        });
        let (bans, _) = fitting(reports, MAX_LIST);
        BanList { left_out: total - bans.len(), bans }
    }

    /// Bans somebody for so many seconds or without end.
    ///
    /// # Errors
    /// There is no room for it, or the store does not take it. In the latter case it holds until the broker stops.
    pub async fn ban(&self, banned: &Banned, seconds: Option<u64>, reason: String) -> Result<BanChange, String> {
        let until = seconds.map(|seconds| self.broker.now().saturating_add(seconds.saturating_mul(1000)));
        let (lasts, why) = (seconds.map_or("without end".to_owned(), |secs| format!("{secs} s")), reason.clone());
        self.broker.ban(banned.subject(), Ban { until, reason }).map_err(|full| full.to_string())?;
        info!(subject = %banned, %lasts, reason = shortened(&why), "an operator added a ban");
        self.changed(true, "the ban holds now, but may be gone after a restart").await
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// The store does not take it. The ban is lifted until the broker stops.
    pub async fn unban(&self, banned: &Banned) -> Result<BanChange, String> {
        let changed = self.broker.bans().remove(&banned.subject());
        if changed {
            info!(subject = %banned, "an operator lifted a ban");
        }
        self.changed(changed, "the ban is lifted now, but may be back after a restart").await
    }

    async fn changed(&self, changed: bool, otherwise: &str) -> Result<BanChange, String> {
        let stored = kept(self.broker.bans().durable().await, otherwise)?;
        Ok(BanChange { changed, stored })
    }
}
