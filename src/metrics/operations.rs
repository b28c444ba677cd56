//! What operators did to the running broker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauge, load};

/// How much a reload reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The configuration and everything that it names.
    Whole,
    /// The files that listeners name.
    Files,
}

/// Reloads of certificates, options and rules.
#[derive(Debug, Default)]
pub struct Operations {
    succeeded: AtomicU64,
    refused: AtomicU64,
    /// Whether the last reload of everything was refused. Files that are good say nothing of a configuration that is not.
    whole_refused: AtomicBool,
    files_refused: AtomicBool,
}

impl Operations {
    pub fn reloaded(&self, extent: Extent, good: bool) {
        let counter = if good { &self.succeeded } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        match extent {
            Extent::Whole => {
                self.whole_refused.store(!good, Ordering::Relaxed);
                // It reads the files too.
                if good {
                    self.files_refused.store(false, Ordering::Relaxed);
                }
            }
            Extent::Files => self.files_refused.store(!good, Ordering::Relaxed),
        }
    }

    /// The files are those again that are in force.
    pub fn files_in_force(&self) {
        self.files_refused.store(false, Ordering::Relaxed);
    }

    /// Whether what the files say is in force, as far as the last reloads know.
    pub fn is_in_force(&self) -> bool {
        ![Extent::Whole, Extent::Files].into_iter().any(|extent| self.is_refused(extent))
    }

    /// Whether a reload of this extent was refused and what it was to put in force is not, as far as is known.
    pub fn is_refused(&self, extent: Extent) -> bool {
        match extent {
            Extent::Whole => self.whole_refused.load(Ordering::Relaxed),
            Extent::Files => self.files_refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let outcomes = [("success", &self.succeeded), ("failure", &self.refused)];
        let outcomes = outcomes.map(|(outcome, counter)| ([("outcome", outcome)], load(counter)));
        counters(encoder, "reloads", "Reloads of certificates, options and rules", None, outcomes)?;
        let good = usize::from(self.is_in_force());
        let help = "Whether what the files say is in force: 0 after a reload that was refused";
        gauge(encoder, "config_last_reload_successful", help, good)
    }
}
