//! Rates as EMQX writes them, `"1000/s"` or `"1MB/10s"`, and the limits of a listener that are rates.

use std::fmt;
use std::time::Duration;

use super::section::Section;
use super::tree::Value;
use super::value::{ByteSize, FromValue, Problem, Span};

/// So many in that time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub amount: u64,
    pub per: Duration,
    /// What may come at once after a silence.
    pub burst: u64,
}

/// The rates of one listener; `None` sets no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateConfig {
    /// Connections accepted on the listener.
    pub max_conn_rate: Option<Rate>,
    /// PUBLISH packets of one client.
    pub messages_rate: Option<Rate>,
    /// Bytes of one client.
    pub bytes_rate: Option<Rate>,
    /// Topic filters that one client subscribes to.
    pub subscribes_rate: Option<Rate>,
}

impl RateConfig {
    pub(super) fn read(section: &mut Section<'_>) -> RateConfig {
        RateConfig {
            max_conn_rate: rate(section, "max_conn_rate", "max_conn_burst"),
            messages_rate: rate(section, "messages_rate", "messages_burst"),
            bytes_rate: rate(section, "bytes_rate", "bytes_burst"),
            subscribes_rate: rate(section, "subscribes_rate", "subscribes_burst"),
        }
    }
}

fn rate(section: &mut Section<'_>, key: &'static str, burst_key: &'static str) -> Option<Rate> {
    let written: Option<PerTime> = section.optional(key);
    let burst: Option<ByteSize> = section.optional(burst_key);
    let Some(PerTime(limit)) = written else {
        if burst.is_some() && !section.has(key) {
            section.error(burst_key, format!("means nothing without {key}"), None);
        }
        return None;
    };
    let (amount, per) = limit?;
    let burst = burst.map_or(amount, |ByteSize(burst)| burst);
    if burst == 0 {
        section.error(burst_key, "must be at least 1", None);
    }
    Some(Rate { amount, per, burst })
}

/// `None` is `"infinity"`.
struct PerTime(Option<(u64, Duration)>);

impl FromValue for PerTime {
    fn from_value(value: &Value) -> Result<PerTime, Problem> {
        const EXAMPLE: &str = "write an amount and a time: \"1000/s\", \"500/10s\" or \"1MB/s\"";
        let text = String::from_value(value).map_err(|problem| problem.suggest(EXAMPLE))?;
        if text == "infinity" {
            return Ok(PerTime(None));
        }
        let invalid = || Problem::new(format!("`{text}` is not a rate")).suggest(EXAMPLE);
        let (amount, per) = text.split_once('/').ok_or_else(invalid)?;
        let ByteSize(amount) = ByteSize::parse(amount).ok_or_else(invalid)?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let Span(per) = Span::parse(&per).ok_or_else(invalid)?;
        let most = Duration::from_secs(24 * 3600);
        if amount == 0 || amount > 1 << 40 || per < Duration::from_millis(1) || per > most {
            return Err(Problem::new(format!("`{text}` is out of range")).suggest(EXAMPLE));
        }
        Ok(PerTime(Some((amount, per))))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, Span(self.per))
    }
}
