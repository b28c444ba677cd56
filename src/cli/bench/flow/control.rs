//! What all clients of a run share: the phase it is in and how far it has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::payload::Clock;
use crate::cli::bench::report::latencies;

/// ```text
///   Ready ──everyone is connected──▶ Running ──time, count, interrupt──▶ Draining ──everything came, or nothing more──▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Ready,
    Running,
    /// Publishers begin no further message.
    Draining,
    Over,
}

/// Counts that are read while the run goes on; clients add to them for each batch, not for each message.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub received: AtomicU64,
}

/// What clients of one thread share, so that a histogram need not be kept for each.
#[derive(Debug)]
pub(super) struct Lane {
    pub delivery: Mutex<Histogram<u64>>,
    pub acknowledgement: Mutex<Histogram<u64>>,
}

/// What a client is given to run with.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub run: u32,
    pub clock: Clock,
    pub live: Arc<Live>,
    pub lane: Arc<Lane>,
    pub phase: watch::Receiver<Phase>,
}

impl Lane {
    /// # Errors
    /// The bounds of a histogram are impossible, which these are not.
    pub fn new() -> Result<Lane, hdrhistogram::CreationError> {
        Ok(Lane { delivery: Mutex::new(latencies()?), acknowledgement: Mutex::new(latencies()?) })
    }
}

impl Live {
    pub fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Sent, acknowledged, received.
    pub fn snapshot(&self) -> [u64; 3] {
        [&self.sent, &self.acknowledged, &self.received].map(|counter| counter.load(Ordering::Relaxed))
    }
}

impl Control {
    /// Waits until the phase is `phase` or a later one. Cancel-safe.
    pub async fn reached(&mut self, phase: Phase) {
        // The sender outlives every client; without it the run is over anyway.
        let _ = self.phase.wait_for(|now| *now as u8 >= phase as u8).await;
    }
}
