//! Logging: one subscriber for the process, text or JSON on standard error.
//!
//! Lines go through a bounded queue to a thread that writes them: standard error may be a pipe that nobody reads, and a worker of the
//! runtime that waited for it would stop every connection. What does not fit is counted and lost.

mod reports;

use std::env;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

pub use reports::{Reports, shortened};

/// Overrides `log.level`; takes a level or directives by module, such as `info,shangmq::net=debug`.
const FILTER_VARIABLE: &str = "SHANGMQ_LOG";

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("environment variable {FILTER_VARIABLE} is not a level or a list of directives")]
    Filter(#[source] ParseError),
    #[error("environment variable {FILTER_VARIABLE} is not UTF-8 text")]
    FilterNotText,
    #[error("logging was already started")]
    AlreadyStarted(#[source] TryInitError),
}

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that did not fit into the queue.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX))
}

/// The running log. Dropping it writes what is queued, for as long as somebody reads.
#[must_use = "what is logged is lost without it"]
#[derive(Debug)]
pub struct Logging {
    _writer: WorkerGuard,
}

/// Starts logging.
///
/// # Errors
/// When `SHANGMQ_LOG` is not understood, or on a second call.
pub fn init(config: &LogConfig) -> Result<Logging, TelemetryError> {
    let directives = match env::var(FILTER_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(env::VarError::NotPresent) => config.level.as_str().to_owned(),
        Err(env::VarError::NotUnicode(_)) => return Err(TelemetryError::FilterNotText),
    };
    let filter = EnvFilter::builder().parse(directives).map_err(TelemetryError::Filter)?;
    let queue = NonBlockingBuilder::default().buffered_lines_limit(config.max_queued_lines).lossy(true);
    let (queue, writer) = queue.thread_name("log").finish(std::io::stderr());
    let lost = queue.error_counter();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(TelemetryError::AlreadyStarted)?;
    // Logging starts once, as the line above has made sure.
    let _ = LOST.set(lost);
    Ok(Logging { _writer: writer })
}
