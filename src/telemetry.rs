//! Logging: one subscriber for the process, text or JSON on standard error.

use std::env;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

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

/// Starts logging.
///
/// # Errors
/// When `SHANGMQ_LOG` is not understood, or on a second call.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let directives = match env::var(FILTER_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(env::VarError::NotPresent) => config.level.as_str().to_owned(),
        Err(env::VarError::NotUnicode(_)) => return Err(TelemetryError::FilterNotText),
    };
    let filter = EnvFilter::builder().parse(directives).map_err(TelemetryError::Filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(TelemetryError::AlreadyStarted)
}
