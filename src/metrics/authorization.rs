//! What the rules for topics were asked, and what they answered.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;

use super::{ListenerMetrics, counters};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Publish,
    Subscribe,
    Will,
}

const ACTIONS: [&str; 3] = [Checked::Publish.as_str(), Checked::Subscribe.as_str(), Checked::Will.as_str()];

impl Checked {
    pub const fn as_str(self) -> &'static str {
        match self {
            Checked::Publish => "publish",
            Checked::Subscribe => "subscribe",
            Checked::Will => "will",
        }
    }
}

/// Answers of the rules. An allowed publish counts when the rules were asked; a connection remembers their answer.
#[derive(Debug, Default)]
pub struct AuthorizationCounters {
    allowed: [AtomicU64; 3],
    denied: [AtomicU64; 3],
}

impl AuthorizationCounters {
    pub fn count(&self, checked: Checked, allowed: bool) {
        let [publish, subscribe, will] = if allowed { &self.allowed } else { &self.denied };
        let counter = match checked {
            Checked::Publish => publish,
            Checked::Subscribe => subscribe,
            Checked::Will => will,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let samples = listeners.iter().flat_map(|listener| {
        let results = [("allow", &listener.authorization.allowed), ("deny", &listener.authorization.denied)];
        results.into_iter().flat_map(move |(result, counts)| {
            counts.iter().zip(ACTIONS).map(move |(count, action)| {
                let labels = [("listener", listener.id()), ("action", action), ("result", result)];
                (labels, count.load(Ordering::Relaxed))
            })
        })
    });
    counters(encoder, "authorizations", "Answers of the rules for topics", None, samples)
}
