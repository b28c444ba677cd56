//! Arguments that the measurements share.

use std::num::NonZeroU64;
use std::time::Duration;

use bytestring::ByteString;
use clap::Args;
use mqtt_codec::ProtocolVersion;

use super::flow::{MAX_PACKET_SIZE, Target};
use crate::cli::session::{password_of_environment, secret, version};
use crate::cli::transport::{TransportArguments, hidden};
use crate::cli::url::Hidden;

/// Descriptors that a process needs besides its connections.
const SPARE_DESCRIPTORS: u64 = 256;

/// How clients introduce themselves, and how the result is shown.
#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    /// User name
    #[arg(short, long, value_name = "NAME", help_heading = "Session")]
    username: Option<String>,
    /// Password, visible to other users of this machine; rather use the variable SHANGMQ_PASSWORD
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", value_parser = hidden, help_heading = "Session")]
    password: Option<Hidden>,
    /// Version of MQTT: 31, 311 or 5
    #[arg(short = 'V', long = "protocol-version", default_value = "311", value_parser = version, help_heading = "Session")]
    version: ProtocolVersion,
    /// Seconds between signs of life; 0 for none
    #[arg(short, long = "keepalive", default_value_t = 60, value_name = "SECS", help_heading = "Session")]
    keep_alive: u16,
    /// Seconds that sessions outlive their connections, as a durable subscriber's do; needs -V 5
    #[arg(long, default_value_t = 0, value_name = "SECS", help_heading = "Session")]
    session_expiry: u32,
    /// Threads [default: one for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Print a line of progress each second even if standard error is no terminal
    #[arg(long)]
    pub(super) progress: bool,
    #[command(flatten)]
    transport: TransportArguments,
}

/// Arguments that cannot be used, or a system that does not allow what they ask for.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionsError {
    #[error("MQTT before version 5 allows no password without a user name: give -u, or -V 5")]
    PasswordWithoutUser,
    #[error("MQTT before version 5 has no session expiry: give -V 5")]
    ExpiryWithoutVersion5,
    #[error(
        "{needed} file descriptors are needed and this process may have {limit}: raise the hard limit (ulimit -Hn, LimitNOFILE= of a systemd service) or use fewer connections"
    )]
    Descriptors { needed: u64, limit: u64 },
    #[error("the limit of file descriptors cannot be raised: {0}")]
    Limit(std::io::Error),
}

impl ClientArguments {
    /// Loads certificates and resolves the server's name, once for all connections.
    pub(super) async fn target(&self) -> Result<Target, Box<dyn std::error::Error + Send + Sync>> {
        let mut endpoint = self.transport.endpoint(usize::try_from(MAX_PACKET_SIZE).unwrap_or(usize::MAX))?;
        endpoint.resolve().await?;
        let url = self.transport.url.as_ref();
        let username = self.username.clone().or_else(|| url.and_then(|url| url.username.clone()));
        let password = match &self.password {
            Some(given) => Some(secret(given)),
            None if username.is_some() => password_of_environment()?,
            None => None,
        };
        let password = password.or_else(|| url.and_then(|url| url.password.as_ref()).map(secret));
        if password.is_some() && username.is_none() && !self.version.is_v5() {
            return Err(OptionsError::PasswordWithoutUser.into());
        }
        if self.session_expiry > 0 && !self.version.is_v5() {
            return Err(OptionsError::ExpiryWithoutVersion5.into());
        }
        Ok(Target {
            endpoint,
            version: self.version,
            username: username.map(ByteString::from),
            password,
            keep_alive_secs: self.keep_alive,
            session_expiry_secs: self.session_expiry,
        })
    }
}

/// Makes sure that the process may have so many connections.
pub(super) fn allow_connections(count: usize) -> Result<(), OptionsError> {
    let needed = u64::try_from(count).unwrap_or(u64::MAX).saturating_add(SPARE_DESCRIPTORS);
    let limit = rlimit::increase_nofile_limit(needed).map_err(OptionsError::Limit)?;
    if limit < needed { Err(OptionsError::Descriptors { needed, limit }) } else { Ok(()) }
}

/// A time as `500ms`, `10s` or `2m`; seconds without a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a time as 500ms, 10s or 2m".to_owned())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("write a time as 500ms, 10s or 2m".to_owned()),
    };
    if duration.is_zero() || duration > Duration::from_secs(86_400) {
        return Err("the time is from 1ms to 24 hours".to_owned());
    }
    Ok(duration)
}

/// Messages a second of one client, which may be a fraction.
pub(super) fn rate(text: &str) -> Result<Duration, String> {
    let rate: f64 = text.parse().map_err(|_| "a rate is a number of messages a second".to_owned())?;
    if !(0.001..=1_000_000.0).contains(&rate) {
        return Err("a rate is from 0.001 to 1000000 messages a second".to_owned());
    }
    Ok(Duration::from_secs_f64(1.0 / rate))
}

/// How long a run goes on: for a time, unless there is a count and no time.
pub(super) fn time_limit(duration: Option<Duration>, count: Option<NonZeroU64>) -> Option<Duration> {
    match (duration, count) {
        (Some(duration), _) => Some(duration),
        (None, Some(_)) => None,
        (None, None) => Some(Duration::from_secs(10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0s", "-1s", "1h", "1.5s", "99999999999999999999s", "9999999m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_may_be_a_fraction() {
        assert_eq!(rate("100"), Ok(Duration::from_millis(10)));
        assert_eq!(rate("0.5"), Ok(Duration::from_secs(2)));
        for wrong in ["0", "-1", "x", "inf", "NaN", "2000000"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn more_connections_than_the_system_allows_are_refused_with_advice() {
        let error = allow_connections(usize::MAX / 2).unwrap_err().to_string();
        assert!(error.contains("ulimit"), "{error}");
    }
}
