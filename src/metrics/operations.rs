//! What operators did to the running broker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauge, load};

/// Reloads of certificates, options and rules.
#[derive(Debug, Default)]
pub struct Operations {
    succeeded: AtomicU64,
    refused: AtomicU64,
    /// Whether a reload was refused and what it was to put in force is not.
    refusal_lasts: AtomicBool,
}

impl Operations {
    pub fn reloaded(&self, good: bool) {
        let counter = if good { &self.succeeded } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Says whether what the files say is in force, as far as is known.
    pub fn hold_in_force(&self, in_force: bool) {
        self.refusal_lasts.store(!in_force, Ordering::Relaxed);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let outcomes = [("success", &self.succeeded), ("failure", &self.refused)];
        let outcomes = outcomes.map(|(outcome, counter)| ([("outcome", outcome)], load(counter)));
        counters(encoder, "reloads", "Reloads of certificates, options and rules", None, outcomes)?;
        let good = usize::from(!self.refusal_lasts.load(Ordering::Relaxed));
        let help = "Whether what the files say is in force: 0 after a reload that was refused";
        gauge(encoder, "config_last_reload_successful", help, good)
    }
}
