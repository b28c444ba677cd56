//! What was measured, before, during and after the storm.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::attack::Attempts;
use crate::newcomers::Newcomer;
use crate::steady::Samples;

/// The goal for those who are connected.
const GOAL: Duration = Duration::from_millis(20);
/// What was sent so shortly before the storm begins belongs to neither time.
const EDGE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Report {
    pub attackers: usize,
    pub from: &'static str,
    pub storm: Range<Duration>,
    pub steady: Samples,
    pub newcomers: Vec<Newcomer>,
    pub attempts: Attempts,
    /// Of the broker, during the storm.
    pub processor: Duration,
}

impl Report {
    pub fn is_good(&self) -> bool {
        let during = self.during();
        let kept = [&self.steady.plain, &self.steady.tlcp].into_iter().all(|samples| {
            let took = samples.iter().filter(|sample| during.contains(&sample.sent)).map(|sample| sample.took);
            Quantiles::of(took).p99 < GOAL
        });
        kept && self.newcomers.iter().all(|newcomer| newcomer.took.is_some())
    }

    fn before(&self) -> Range<Duration> {
        Duration::from_secs(1)..self.storm.start - EDGE
    }

    /// From the first attempt on.
    fn during(&self) -> Range<Duration> {
        self.storm.start - EDGE..self.storm.end
    }

    fn after(&self) -> Range<Duration> {
        self.storm.end..Duration::MAX
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.storm.end - self.storm.start;
        writeln!(f, "{} abusive clients at once for {:.0} s, {}", self.attackers, length.as_secs_f64(), self.from)?;
        writeln!(
            f,
            "{:<28} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "established clients", "messages", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        let times = [("before", self.before()), ("during", self.during()), ("after", self.after())];
        for (time, range) in &times {
            for (kind, samples) in [("plain", &self.steady.plain), ("TLCP", &self.steady.tlcp)] {
                let took = samples.iter().filter(|sample| range.contains(&sample.sent)).map(|sample| sample.took);
                writeln!(f, "{:<28} {}", format!("{kind}, {time}"), Quantiles::of(took))?;
            }
        }
        writeln!(
            f,
            "{:<28} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "new honest clients, TLCP", "got in", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for (time, range) in &times {
            let came = || self.newcomers.iter().filter(|newcomer| range.contains(&newcomer.came));
            let quantiles = Quantiles::of(came().filter_map(|newcomer| newcomer.took));
            writeln!(f, "{:<28} {quantiles}   of {}", time, came().count())?;
        }
        let Attempts { begun, ended, unreachable } = self.attempts;
        let [hellos, handshakes, garbage] = begun;
        let [_, completed, _] = ended;
        writeln!(
            f,
            "connections of the attack: {hellos} with a hello alone, {handshakes} with a handshake of which {completed} were completed, {garbage} with garbage, {unreachable} that found nobody"
        )?;
        writeln!(
            f,
            "processor time of the broker during the storm: {:.1} s in {:.1} s",
            self.processor.as_secs_f64(),
            length.as_secs_f64()
        )?;
        let verdict = if self.is_good() { "met" } else { "missed" };
        writeln!(f, "goal, p99 below {} ms and every honest client in: {verdict}", GOAL.as_millis())
    }
}

#[derive(Debug, Default)]
struct Quantiles {
    count: usize,
    p50: Duration,
    p99: Duration,
    p999: Duration,
    max: Duration,
}

impl Quantiles {
    fn of(took: impl Iterator<Item = Duration>) -> Quantiles {
        let mut sorted: Vec<Duration> = took.collect();
        sorted.sort_unstable();
        let at = |thousandths: usize| {
            sorted
                .get((sorted.len() * thousandths / 1000).min(sorted.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        Quantiles { count: sorted.len(), p50: at(500), p99: at(990), p999: at(999), max: at(1000) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Quantiles { count, p50, p99, p999, max } = self;
        write!(f, "{count:>8} {:>9.2} {:>9.2} {:>9.2} {:>9.2}", ms(*p50), ms(*p99), ms(*p999), ms(*max))
    }
}
