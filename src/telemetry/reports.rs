//! Lines about peers: so many a minute for each cause. Whoever can make the broker write one line can make it write a million.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::metrics::ListenerMetrics;

const WINDOW: Duration = Duration::from_secs(60);
/// Characters of a peer's word that stand in a line.
const MAX_SHOWN_CHARS: usize = 256;

/// What one listener has said about its peers.
#[derive(Debug)]
pub struct Reports {
    metrics: Arc<ListenerMetrics>,
    most: u32,
    /// By cause, of which there are as many as this program has names.
    windows: Mutex<BTreeMap<&'static str, Window>>,
}

#[derive(Debug)]
struct Window {
    end: Instant,
    said: u32,
    suppressed: u64,
}

impl Reports {
    /// `most` lines a minute for each cause.
    pub fn new(metrics: Arc<ListenerMetrics>, most: u32) -> Reports {
        Reports { metrics, most, windows: Mutex::default() }
    }

    /// Whether a line about this cause may be written. Those that may not are counted, and summed up in one line when their minute
    /// is over.
    pub fn may_say(self: &Arc<Self>, cause: &'static str) -> bool {
        let now = Instant::now();
        let mut windows = self.windows.lock();
        let window = windows.entry(cause).or_insert(Window { end: now, said: 0, suppressed: 0 });
        if window.end <= now && window.suppressed == 0 {
            *window = Window { end: now + WINDOW, said: 0, suppressed: 0 };
        }
        if window.said < self.most {
            window.said += 1;
            return true;
        }
        window.suppressed += 1;
        self.metrics.log_lines_suppressed.fetch_add(1, Ordering::Relaxed);
        if window.suppressed == 1 {
            let end = window.end;
            let reports = Arc::clone(self);
            drop(windows);
            tokio::spawn(async move {
                sleep_until(end).await;
                reports.sum_up(cause);
            });
        }
        false
    }

    fn sum_up(&self, cause: &'static str) {
        let suppressed = self.windows.lock().remove(cause).map_or(0, |window| window.suppressed);
        info!(
            listener = self.metrics.id(),
            about = cause,
            "{suppressed} more suppressed: log.max_peer_lines_per_minute is reached"
        );
    }
}

/// A peer's words, short enough for a line.
pub fn shortened(words: &str) -> &str {
    words.char_indices().nth(MAX_SHOWN_CHARS).and_then(|(end, _)| words.get(..end)).unwrap_or(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn each_cause_has_so_many_lines_a_minute() {
        let metrics = Metrics::new().listener("tcp:default");
        let reports = Arc::new(Reports::new(Arc::clone(&metrics), 3));
        let said = |cause| (0..10).filter(|_| reports.may_say(cause)).count();
        assert_eq!((said("closed"), said("closed"), said("other")), (3, 0, 3));
        assert_eq!(metrics.log_lines_suppressed.load(Ordering::Relaxed), 24);
        // The sum is written although nothing else happens.
        tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
        assert!(reports.windows.lock().is_empty());
        assert_eq!(said("closed"), 3);
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(shortened("\u{56fd}\u{5bc6}"), "\u{56fd}\u{5bc6}");
        assert_eq!(shortened(&"\u{56fd}".repeat(1000)), "\u{56fd}".repeat(MAX_SHOWN_CHARS));
    }
}
