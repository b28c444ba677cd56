//! `shangmq bench conn`: a fixed number of workers connect, are greeted, say DISCONNECT, and begin again.

use std::fmt;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::flow::{LinkError, Target, run_number};
use super::options::{ClientArguments, allow_connections, duration, time_limit};
use super::pool::Pool;
use super::progress::Progress;
use super::report::{Failures, Latency, fmt_latencies, latencies};
use super::{on_this_thread, write_report};
use crate::causes::Causes;
use crate::cli::Outcome;
use crate::cli::session::Interrupt;

/// Pause of a worker after a failure: a server that is down is not hammered.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the end of the run is looked for.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Connections at the same time
    #[arg(short = 'c', long = "connections", visible_alias = "concurrency", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: u16,
    /// How long to go on, for instance 500ms, 10s or 2m [default: 10s without --count]
    #[arg(short, long, value_parser = duration)]
    duration: Option<Duration>,
    /// Attempts after which to stop
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    run: u32,
    deadline: Option<Instant>,
    /// Attempts that are left to begin, with `--count`.
    left: Option<AtomicU64>,
    stopped: AtomicBool,
    /// Numbers the clients.
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

struct Worker {
    connected: Histogram<u64>,
    whole: Histogram<u64>,
    failures: Failures,
}

#[derive(Debug, Serialize)]
struct Report {
    server: String,
    concurrency: u16,
    seconds: f64,
    connections: u64,
    connections_per_second: f64,
    /// From the first packet to CONNACK.
    connect: Latency,
    /// From the first packet until the server has closed.
    whole: Latency,
    failed: u64,
    failures: Failures,
}

impl Arguments {
    pub(super) fn run(&self) -> Outcome {
        on_this_thread(self.measure())
    }

    async fn measure(&self) -> Outcome {
        allow_connections(usize::from(self.concurrency))?;
        let target = self.client.target().await?;
        let pool = Pool::start(Pool::threads(self.client.threads))?;
        let mut interrupt = Interrupt::install()?;
        let start = Instant::now();
        let shared = Arc::new(Shared {
            target,
            run: run_number()?,
            deadline: time_limit(self.duration, self.count).map(|limit| start + limit),
            left: self.count.map(|count| AtomicU64::new(count.get())),
            stopped: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let mut workers = Vec::new();
        for index in 0..usize::from(self.concurrency) {
            let worker = Worker { connected: latencies()?, whole: latencies()?, failures: Failures::default() };
            workers.extend(pool.spawn(index, worker.work(Arc::clone(&shared))));
        }
        let mut progress = Progress::new(self.client.progress, start);
        while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = interrupt.wait() => shared.stopped.store(true, Ordering::Relaxed),
                () = progress.tick() => {
                    let (done, failed) = (shared.done.load(Ordering::Relaxed), shared.failed.load(Ordering::Relaxed));
                    progress.print(done, format_args!("{done} connected  {failed} failed"));
                }
            }
        }
        progress.end();
        let seconds = shared.deadline.map_or_else(Instant::now, |deadline| deadline.min(Instant::now()));
        let seconds = (seconds - start).as_secs_f64();
        let (mut connected, mut whole, mut failures) = (latencies()?, latencies()?, Failures::default());
        for worker in workers {
            let worker = worker.await?;
            connected.add(&worker.connected)?;
            whole.add(&worker.whole)?;
            failures.add(&worker.failures);
        }
        let report = Report {
            server: shared.target.endpoint.authority(),
            concurrency: self.concurrency,
            seconds,
            connections: whole.len(),
            connections_per_second: if seconds > 0.0 { whole.len() as f64 / seconds } else { 0.0 },
            connect: Latency::of(&connected),
            whole: Latency::of(&whole),
            failed: failures.total(),
            failures,
        };
        write_report(&report, self.client.json)?;
        Ok(if report.connections > 0 && report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Shared {
    /// Whether another attempt is to begin.
    fn begin(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        match &self.left {
            None => true,
            Some(left) => left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok(),
        }
    }
}

impl Worker {
    async fn work(mut self, shared: Arc<Shared>) -> Worker {
        while shared.begin() {
            let start = Instant::now();
            let attempt = self.attempt(&shared, start);
            // An attempt that the end interrupts is not counted.
            let outcome = match shared.deadline {
                Some(deadline) => match timeout_at(deadline, attempt).await {
                    Ok(outcome) => outcome,
                    Err(_over) => break,
                },
                None => attempt.await,
            };
            match outcome {
                Ok(()) => {
                    self.whole.saturating_record(micros(start));
                    shared.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.failures.count(&error.cause(), 1, || Causes(&error).to_string());
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    let pause = Instant::now() + PAUSE;
                    sleep_until(shared.deadline.map_or(pause, |deadline| pause.min(deadline))).await;
                }
            }
        }
        self
    }

    async fn attempt(&mut self, shared: &Shared, start: Instant) -> Result<(), LinkError> {
        let number = shared.begun.fetch_add(1, Ordering::Relaxed);
        let (link, _) = shared.target.open(format!("bench{:08x}c{number}", shared.run).into()).await?;
        self.connected.saturating_record(micros(start));
        link.close().await;
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "server        {}", self.server)?;
        writeln!(f, "concurrency   {}", self.concurrency)?;
        let rate = self.connections_per_second;
        writeln!(f, "connections   {} in {:.2} s: {rate:.1}/s", self.connections, self.seconds)?;
        fmt_latencies(f, &[("connect", &self.connect), ("whole", &self.whole)])?;
        write!(f, "{}", self.failures)
    }
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
