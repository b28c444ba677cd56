//! `shangmq bench idle`: connections that do nothing, and the memory that a server on this machine spends on them.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::flow::{Link, run_number};
use super::options::{ClientArguments, allow_connections, duration};
use super::pool::Pool;
use super::progress::Progress;
use super::report::Failures;
use super::{on_this_thread, write_report};
use crate::causes::Causes;
use crate::cli::Outcome;
use crate::cli::session::Interrupt;

/// Connections being made at once.
const CONNECTING: usize = 64;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Connections
    #[arg(short = 'c', long = "connections", visible_alias = "clients", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Process of the server on this machine, whose memory (PSS, as Linux counts it) is compared before and after
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// How long the connections are held before memory is looked at
    #[arg(short, long, value_parser = duration, default_value = "3s")]
    duration: Duration,
    #[command(flatten)]
    client: ClientArguments,
}

/// The memory of a process cannot be read.
#[derive(Debug, thiserror::Error)]
enum MemoryError {
    #[error("--pid {pid}: cannot read {path}; it needs the same user or root, and Linux")]
    Unreadable { pid: u32, path: String, source: io::Error },
    #[error("--pid {pid}: {path} says nothing of Pss")]
    NoPss { pid: u32, path: String },
}

#[derive(Debug, Serialize)]
struct Report {
    server: String,
    asked_for: u32,
    open: usize,
    connect_seconds: f64,
    /// Connections that the server ended meanwhile.
    ended: usize,
    pss_before_kib: Option<u64>,
    pss_after_kib: Option<u64>,
    kib_per_connection: Option<f64>,
    failed: u64,
    failures: Failures,
}

impl Arguments {
    pub(super) fn run(&self) -> Outcome {
        on_this_thread(self.measure())
    }

    async fn measure(&self) -> Outcome {
        allow_connections(usize::try_from(self.connections).unwrap_or(usize::MAX))?;
        let target = Arc::new(self.client.target().await?);
        let pool = Pool::start(Pool::threads(self.client.threads))?;
        let mut interrupt = Interrupt::install()?;
        let run = run_number()?;
        let before = self.pid.map(pss_kib).transpose()?;
        let start = Instant::now();
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let mut handles = Vec::new();
        for number in 0..self.connections {
            let (target, gate) = (Arc::clone(&target), Arc::clone(&gate));
            handles.extend(pool.spawn(usize::try_from(number).unwrap_or(0), async move {
                // The semaphore is never closed.
                let _permit = gate.acquire().await;
                target.open(format!("bench{run:08x}i{number}").into()).await
            }));
        }
        let mut progress = Progress::new(self.client.progress, start);
        let mut links: Vec<Link> = Vec::new();
        let mut failures = Failures::default();
        let mut interrupted = false;
        for mut handle in handles {
            loop {
                tokio::select! {
                    opened = &mut handle => {
                        match opened? {
                            Ok((link, _)) => links.push(link),
                            Err(error) => failures.count(&error.cause(), 1, || Causes(&error).to_string()),
                        }
                        break;
                    }
                    () = progress.tick() => {
                        progress.print(links.len() as u64, format_args!("{} open  {} failed", links.len(), failures.total()));
                    }
                    () = interrupt.wait(), if !interrupted => {
                        interrupted = true;
                        gate.close();
                    }
                }
                if interrupted {
                    handle.abort();
                    break;
                }
            }
        }
        progress.end();
        let connect_seconds = start.elapsed().as_secs_f64();
        let open = links.len();
        // They answer the server and send signs of life where they are.
        let held: Vec<_> =
            links.into_iter().enumerate().filter_map(|(index, link)| pool.spawn(index, link.idle())).collect();
        if !interrupted {
            tokio::select! {
                () = sleep(self.duration) => {}
                () = interrupt.wait() => {}
            }
        }
        let after = self.pid.map(pss_kib).transpose()?;
        let ended = held.iter().filter(|held| held.is_finished()).count();
        let kib_per_connection = match (before, after) {
            (Some(before), Some(after)) if open > 0 => Some((after as f64 - before as f64) / open as f64),
            _ => None,
        };
        let report = Report {
            server: target.endpoint.authority(),
            asked_for: self.connections,
            open,
            connect_seconds,
            ended,
            pss_before_kib: before,
            pss_after_kib: after,
            kib_per_connection,
            failed: failures.total(),
            failures,
        };
        write_report(&report, self.client.json)?;
        let good = report.failed == 0 && report.ended == 0 && !interrupted;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The memory of a process in KiB, pages shared with others counted by their share.
fn pss_kib(pid: u32) -> Result<u64, MemoryError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text =
        std::fs::read_to_string(&path).map_err(|source| MemoryError::Unreadable { pid, path: path.clone(), source })?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).ok_or(MemoryError::NoPss { pid, path })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "server        {}", self.server)?;
        writeln!(f, "connections   {} of {} open, in {:.2} s", self.open, self.asked_for, self.connect_seconds)?;
        if self.ended > 0 {
            writeln!(f, "ended         {} by the server", self.ended)?;
        }
        if let (Some(before), Some(after), Some(each)) =
            (self.pss_before_kib, self.pss_after_kib, self.kib_per_connection)
        {
            writeln!(f, "server's PSS  {before} KiB before, {after} KiB with them: {each:.2} KiB for each")?;
        }
        write!(f, "{}", self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read() {
        assert!(pss_kib(std::process::id()).unwrap() > 100);
        assert!(matches!(pss_kib(u32::MAX), Err(MemoryError::Unreadable { .. })));
    }
}
