//! What is counted about the revocation of certificates.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Labelled, counters, encode_gauge, families};

/// In which state a list or an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It can be used.
    Current,
    /// It was not fetched yet.
    Waiting,
    /// There is none, or none that is current, and the last attempt failed.
    Failing,
}

impl Held {
    pub const ALL: [Held; 3] = [Held::Current, Held::Waiting, Held::Failing];

    pub fn name(self) -> &'static str {
        match self {
            Held::Current => "current",
            Held::Waiting => "waiting",
            Held::Failing => "failing",
        }
    }
}

/// How many are in each state, in the order of [`Held::ALL`].
pub type HeldCounts = [i64; 3];

/// Counters of everything that has to do with revocation.
#[derive(Debug, Default)]
pub struct RevocationCounters {
    /// Certificates of clients asked about, by source and outcome.
    checks: Labelled<(&'static str, &'static str)>,
    /// Fetches, by what was fetched and outcome.
    fetches: Labelled<(&'static str, &'static str)>,
    /// Clients that asked for the status of a server's certificate, by what they got.
    staples: Labelled<&'static str>,
    /// Established connections closed because a certificate was revoked, and files that were not taken.
    events: Labelled<&'static str>,
    lists: [AtomicI64; 3],
    answers: [AtomicI64; 3],
    stapled: [AtomicI64; 3],
}

impl RevocationCounters {
    pub fn checked(&self, source: &'static str, outcome: &'static str) {
        self.checks.add((source, outcome));
    }

    pub fn checks(&self, source: &'static str, outcome: &'static str) -> u64 {
        self.checks.count(&(source, outcome))
    }

    pub fn fetched(&self, what: &'static str, outcome: &'static str) {
        self.fetches.add((what, outcome));
    }

    pub fn fetches(&self, what: &'static str, outcome: &'static str) -> u64 {
        self.fetches.count(&(what, outcome))
    }

    pub fn stapled(&self, outcome: &'static str) {
        self.staples.add(outcome);
    }

    pub fn event(&self, event: &'static str) {
        self.events.add(event);
    }

    pub fn events(&self, event: &'static str) -> u64 {
        self.events.count(&event)
    }

    /// Notes how many lists, answers and answers to be stapled are in which state.
    pub fn hold(&self, lists: HeldCounts, answers: HeldCounts, stapled: HeldCounts) {
        let pairs = [(&self.lists, lists), (&self.answers, answers), (&self.stapled, stapled)];
        for (gauges, counts) in pairs {
            gauges.iter().zip(counts).for_each(|(gauge, count)| gauge.store(count, Ordering::Relaxed));
        }
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &RevocationCounters) -> fmt::Result {
    let two = |first, second, ((one, other), count): ((&'static str, &'static str), u64)| {
        ([(first, one), (second, other)], count)
    };
    let checks = all.checks.all().into_iter().map(|one| two("source", "outcome", one));
    counters(encoder, "revocation_checks", "Certificates of clients asked about", None, checks)?;
    let fetches = all.fetches.all().into_iter().map(|one| two("what", "outcome", one));
    counters(encoder, "revocation_fetches", "Revocation lists and OCSP answers fetched", None, fetches)?;
    let staples = all.staples.all().into_iter().map(|(outcome, count)| ([("outcome", outcome)], count));
    let help = "Handshakes that asked for the status of the server's certificate";
    counters(encoder, "ocsp_staples", help, None, staples)?;
    let events = all.events.all().into_iter().map(|(event, count)| ([("event", event)], count));
    counters(encoder, "revocation_events", "Connections closed, files refused", None, events)?;
    let held = [("crl", &all.lists), ("ocsp", &all.answers), ("staple", &all.stapled)];
    let held = held.into_iter().flat_map(|(what, gauges)| {
        let states = Held::ALL.into_iter().zip(gauges);
        states.map(move |(state, gauge)| ([("what", what), ("state", state.name())], gauge.load(Ordering::Relaxed)))
    });
    families(encoder, "revocation_held", "Lists and answers by state", None, MetricType::Gauge, held, encode_gauge)
}
