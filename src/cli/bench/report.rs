//! What was measured: latencies by kind of handshake, failures by cause; as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Causes that are counted one by one; what comes after is counted under one name.
const MAX_CAUSES: usize = 32;

/// An empty histogram of microseconds.
///
/// # Errors
/// The bounds are impossible, which these are not.
pub(super) fn latencies() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX), DIGITS)
}

/// Failures by cause.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Failures(BTreeMap<String, Failure>);

/// What one worker, or all together, saw.
#[derive(Debug)]
pub(super) struct Tally {
    /// Latencies in microseconds.
    full: Histogram<u64>,
    resumed: Histogram<u64>,
    failures: Failures,
    /// What was spoken in the first handshake that succeeded: protocol and suite.
    pub(super) spoken: Option<(&'static str, &'static str)>,
    /// Connections after which the server had given no session to resume.
    pub(super) without_session: u64,
}

/// A cause of failure.
#[derive(Debug, Clone, Serialize)]
struct Failure {
    count: u64,
    /// The first message with this cause.
    example: String,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) server: String,
    /// As asked for.
    pub(super) transport: String,
    /// As negotiated; absent without encryption or without a success.
    pub(super) protocol: Option<&'static str>,
    pub(super) suite: Option<&'static str>,
    /// Whether the client showed a certificate.
    pub(super) client_certificate: bool,
    pub(super) mqtt: bool,
    pub(super) concurrency: u16,
    pub(super) seconds: f64,
    pub(super) handshakes: u64,
    pub(super) handshakes_per_second: f64,
    pub(super) full: Latency,
    pub(super) resumed: Latency,
    /// Connections after which the server had given no session to resume; counted with `--resume` alone.
    pub(super) without_session: u64,
    pub(super) failed: u64,
    failures: Failures,
}

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) count: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p99_9_us: u64,
    max_us: u64,
}

/// What a report says of the run besides its tally.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) server: String,
    pub(super) transport: String,
    pub(super) client_certificate: bool,
    pub(super) mqtt: bool,
    pub(super) concurrency: u16,
    pub(super) elapsed: Duration,
}

impl Tally {
    /// An empty tally.
    ///
    /// # Errors
    /// The bounds are impossible, which these are not.
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            full: latencies()?,
            resumed: latencies()?,
            failures: Failures::default(),
            spoken: None,
            without_session: 0,
        })
    }

    /// Counts a handshake.
    pub(super) fn succeed(&mut self, resumed: bool, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let histogram = if resumed { &mut self.resumed } else { &mut self.full };
        histogram.saturating_record(micros);
    }

    /// Counts a failure.
    pub(super) fn fail(&mut self, cause: &str, example: impl FnOnce() -> String) {
        self.failures.count(cause, 1, example);
    }

    /// Counts everything of another tally.
    pub(super) fn add(&mut self, other: &Tally) -> Result<(), hdrhistogram::AdditionError> {
        self.full.add(&other.full)?;
        self.resumed.add(&other.resumed)?;
        self.failures.add(&other.failures);
        self.spoken = self.spoken.or(other.spoken);
        self.without_session += other.without_session;
        Ok(())
    }

    /// The tally as a result.
    pub(super) fn into_report(self, run: Run) -> Report {
        let handshakes = self.full.len() + self.resumed.len();
        let seconds = run.elapsed.as_secs_f64();
        Report {
            server: run.server,
            transport: run.transport,
            protocol: self.spoken.map(|(protocol, _)| protocol),
            suite: self.spoken.map(|(_, suite)| suite),
            client_certificate: run.client_certificate,
            mqtt: run.mqtt,
            concurrency: run.concurrency,
            seconds,
            handshakes,
            handshakes_per_second: if seconds > 0.0 { handshakes as f64 / seconds } else { 0.0 },
            full: Latency::of(&self.full),
            resumed: Latency::of(&self.resumed),
            without_session: self.without_session,
            failed: self.failures.total(),
            failures: self.failures,
        }
    }
}

impl Failures {
    /// Counts failures of one cause; `example` is kept if it is the first.
    pub(super) fn count(&mut self, cause: &str, count: u64, example: impl FnOnce() -> String) {
        let known = self.0.contains_key(cause) || self.0.len() < MAX_CAUSES;
        let cause = if known { cause } else { "other causes" };
        let failure = self.0.entry(cause.to_owned()).or_insert_with(|| Failure { count: 0, example: example() });
        failure.count += count;
    }

    pub(super) fn add(&mut self, other: &Failures) {
        for (cause, failure) in &other.0 {
            self.count(cause, failure.count, || failure.example.clone());
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().map(|failure| failure.count).sum()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{} failed:", self.total())?;
        for (cause, failure) in &self.0 {
            writeln!(f, "{:>10}  {cause}: {}", failure.count, failure.example)?;
        }
        Ok(())
    }
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// A table of latencies, without the rows that have none.
pub(super) fn fmt_latencies(f: &mut fmt::Formatter<'_>, rows: &[(&str, &Latency)]) -> fmt::Result {
    if rows.iter().all(|(_, latency)| latency.count == 0) {
        return Ok(());
    }
    writeln!(f)?;
    for title in ["latency", "count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
        write!(f, "{title:>12}")?;
    }
    writeln!(f, "  (ms)")?;
    for (name, latency) in rows.iter().filter(|(_, latency)| latency.count > 0) {
        writeln!(f, "{name:>12}{latency}")?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "server        {} over {}{}",
            self.server,
            self.transport,
            if self.mqtt { ", with CONNECT" } else { "" }
        )?;
        if let (Some(protocol), Some(suite)) = (self.protocol, self.suite) {
            let sides = if self.client_certificate { "client certificate given" } else { "no client certificate" };
            writeln!(f, "negotiated    {protocol} {suite}, {sides}")?;
        }
        writeln!(f, "concurrency   {}", self.concurrency)?;
        writeln!(f, "handshakes    {} in {:.2} s: {:.1}/s", self.handshakes, self.seconds, self.handshakes_per_second)?;
        fmt_latencies(f, &[("full", &self.full), ("resumed", &self.resumed)])?;
        if self.without_session > 0 {
            writeln!(f, "\nafter {} connections the server had given no session to resume", self.without_session)?;
        }
        write!(f, "{}", self.failures)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}{:>12.3}", self.count, self.mean_us / 1000.0)?;
        for micros in [self.p50_us, self.p90_us, self.p99_us, self.p99_9_us, self.max_us] {
            write!(f, "{:>12.3}", micros as f64 / 1000.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            server: "127.0.0.1:8883".into(),
            transport: "TLCP".into(),
            client_certificate: true,
            mqtt: false,
            concurrency: 4,
            elapsed: Duration::from_secs(2),
        }
    }

    fn tally() -> Tally {
        let mut one = Tally::new().unwrap();
        let mut other = Tally::new().unwrap();
        for millis in 1..=100 {
            one.succeed(false, Duration::from_millis(millis));
            other.succeed(true, Duration::from_micros(millis));
        }
        one.fail("expired", || "first".into());
        other.fail("expired", || "second".into());
        other.spoken = Some(("tlcp", "ECC_SM4_GCM_SM3"));
        one.add(&other).unwrap();
        one
    }

    #[test]
    fn full_and_resumed_handshakes_are_told_apart() {
        let report = tally().into_report(run());
        assert_eq!((report.handshakes, report.full.count, report.resumed.count), (200, 100, 100));
        assert!((report.handshakes_per_second - 100.0).abs() < f64::EPSILON);
        assert!((49_900..50_100).contains(&report.full.p50_us), "{}", report.full.p50_us);
        assert_eq!(report.resumed.p90_us, 90);
    }

    #[test]
    fn the_table_shows_rate_percentiles_and_causes() {
        let table = tally().into_report(run()).to_string();
        for part in ["200 in 2.00 s: 100.0/s", "tlcp ECC_SM4_GCM_SM3", "p99.9", "resumed", "2  expired: first"] {
            assert!(table.contains(part), "{part} is not in:\n{table}");
        }
    }

    #[test]
    fn json_has_the_same_numbers() {
        let json = serde_json::to_value(tally().into_report(run())).unwrap();
        assert_eq!(json["handshakes"], 200);
        assert_eq!(json["failures"]["expired"]["count"], 2);
        assert_eq!(json["suite"], "ECC_SM4_GCM_SM3");
        assert_eq!(json["resumed"]["p90_us"], 90);
    }

    #[test]
    fn causes_are_bounded() {
        let mut tally = Tally::new().unwrap();
        for cause in 0..1000 {
            tally.fail(&cause.to_string(), String::new);
        }
        let report = tally.into_report(run());
        assert_eq!((report.failed, report.failures.0.len()), (1000, MAX_CAUSES + 1));
    }
}
