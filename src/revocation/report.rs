//! What operators see of revocation: every list and every answer with its source, state, age, next update and error, as JSON.

use serde::{Deserialize, Serialize};

use super::held::Held;
use super::points::not_current;
use crate::dev_certs::now;

/// Everything there is, for `shangmq ctl crl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Unix seconds, as all times here.
    pub now: i64,
    pub crls: Vec<ListReport>,
    pub ocsp_answers: Vec<AnswerReport>,
    pub staples: Vec<StapleReport>,
}

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    Url,
    File,
    Upload,
}

/// A revocation list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListReport {
    pub kind: SourceKind,
    /// The address, the path, or the name it was uploaded under.
    pub source: String,
    /// `current`, `waiting` or `failing`.
    pub state: String,
    pub issuer: String,
    pub entries: usize,
    pub number: Option<String>,
    pub this_update: Option<i64>,
    pub next_update: Option<i64>,
    /// Seconds since thisUpdate.
    pub age: Option<i64>,
    pub fetched_at: Option<i64>,
    pub next_fetch: Option<i64>,
    pub failures: u32,
    /// Why it cannot be used, or no newer one could be had.
    pub error: Option<String>,
    /// Whether its file is broken or gone, and what was read of it before stays in force.
    #[serde(default)]
    pub outdated: bool,
}

impl ListReport {
    pub(super) fn new(kind: SourceKind, source: &str, held: Option<&Held>) -> ListReport {
        let crl = held.map(|held| &held.crl);
        let this_update = crl.map(|crl| crl.this_update());
        ListReport {
            kind,
            source: source.to_owned(),
            state: super::points::held_state(held, false).name().to_owned(),
            issuer: crl.map(|crl| crl.issuer()).unwrap_or_default(),
            entries: crl.map_or(0, |crl| crl.len()),
            number: crl.and_then(|crl| crl.number()).map(str::to_owned),
            this_update,
            next_update: crl.and_then(|crl| crl.next_update()),
            age: this_update.map(|this| now().saturating_sub(this)),
            fetched_at: None,
            next_fetch: None,
            failures: 0,
            error: crl.filter(|crl| !crl.is_current(now())).map(not_current),
            outdated: false,
        }
    }
}

/// An OCSP answer about a client's certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnswerReport {
    pub responder: String,
    pub serial: String,
    pub state: String,
    /// `good`, `revoked (…)` or `unknown`.
    pub status: Option<String>,
    pub this_update: Option<i64>,
    pub next_update: Option<i64>,
    pub failures: u32,
    pub error: Option<String>,
}

/// What is stapled for a certificate of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StapleReport {
    pub subject: String,
    pub fingerprint_sha256: String,
    pub responder: String,
    pub must_staple: bool,
    pub state: String,
    pub this_update: Option<i64>,
    pub next_update: Option<i64>,
    pub next_fetch: Option<i64>,
    pub failures: u32,
    pub error: Option<String>,
}

/// Hexadecimal, for serial numbers and fingerprints.
pub(super) fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}
