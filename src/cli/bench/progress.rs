//! The line on standard error that shows how a run goes.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// A run that is over before this shows nothing.
const QUIET: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    ticks: Option<Interval>,
    /// A terminal gets one line that is written over again.
    rewrite: bool,
    start: Instant,
    /// When and at what count the last line was printed.
    last: (Instant, u64),
}

impl Progress {
    /// `forced` prints even if standard error is no terminal.
    pub fn new(forced: bool, start: Instant) -> Self {
        let rewrite = io::stderr().is_terminal();
        let ticks = (rewrite || forced).then(|| {
            let mut ticks = interval_at(start + QUIET, Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, rewrite, start, last: (start, 0) }
    }

    /// Waits until a line is due. Cancel-safe.
    pub async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Prints the rate at which `count` grows, and what else there is to say.
    pub fn print(&mut self, count: u64, rest: std::fmt::Arguments<'_>) {
        let now = Instant::now();
        let rate = count.saturating_sub(self.last.1) as f64 / (now - self.last.0).as_secs_f64().max(f64::MIN_POSITIVE);
        self.last = (now, count);
        let secs = (now - self.start).as_secs();
        let (before, after) = if self.rewrite { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut err = io::stderr().lock();
        // Progress that nobody can see is not missed.
        let _ = write!(err, "{before}{secs:>4} s  {rate:>9.1}/s  {rest}{after}");
        let _ = err.flush();
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.rewrite && self.ticks.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
