//! `shangmq ctl`: asks the broker that runs on this machine, by the socket in its data directory.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::certs::utc;
use super::{ConfigArguments, Outcome};
use crate::operator::{CertificateReport, Client, ClientError, Reloaded, Request};

const DAY: i64 = 86_400;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Data directory of the broker, instead of the one that its configuration names.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take changed certificates, TLS options and the files of [auth] into the running broker: all of them or none.
    Reload,
    /// List the certificates that the listeners show, and how long they are still valid.
    Certs,
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        let data = match self.data {
            Some(data) => data,
            None => self.config.load()?.node.data_dir,
        };
        let client = Client::new(&data);
        let out = &mut io::stdout().lock();
        let refused = match self.command {
            Command::Reload => match client.ask::<Reloaded>(Request::Reload) {
                Ok(outcome) => return done(reloaded(&outcome, self.json, out)),
                Err(refused) => refused,
            },
            Command::Certs => match client.ask::<Vec<CertificateReport>>(Request::Certs) {
                Ok(found) => return done(certificates(&found, self.json, out)),
                Err(refused) => refused,
            },
        };
        match refused {
            ClientError::Refused { message, mistakes } if !mistakes.is_empty() => {
                done(refusal(&message, &mistakes, self.json, out))?;
                Ok(ExitCode::FAILURE)
            }
            other => Err(other.into()),
        }
    }
}

fn done(written: io::Result<()>) -> Outcome {
    written?;
    Ok(ExitCode::SUCCESS)
}

fn reloaded(outcome: &Reloaded, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(outcome)?);
    }
    match outcome.listeners.as_slice() {
        [] => writeln!(out, "reloaded: nothing has changed for new connections of any listener")?,
        changed => writeln!(out, "reloaded: new connections of {} are secured by what was read", changed.join(", "))?,
    }
    if !outcome.restart_needed.is_empty() {
        writeln!(out, "changed, and in force only after a restart: {}", outcome.restart_needed.join(", "))?;
    }
    outcome.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

fn refusal(message: &str, mistakes: &[Value], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::json!({ "error": message, "mistakes": mistakes }));
    }
    writeln!(out, "not reloaded: {message}")?;
    for mistake in mistakes {
        let text = |field: &str| mistake.get(field).and_then(Value::as_str);
        let number = |field: &str| mistake.get(field).and_then(Value::as_u64);
        match (text("file"), number("line"), text("variable")) {
            (Some(file), Some(line), _) => write!(out, "{file}:{line}: ")?,
            (_, _, Some(variable)) => write!(out, "environment variable {variable}: ")?,
            _ => {}
        }
        match text("key").filter(|key| !key.is_empty()) {
            Some(key) => write!(out, "{key}: {}", text("reason").unwrap_or_default())?,
            None => write!(out, "{}", text("reason").unwrap_or_default())?,
        }
        match text("suggestion") {
            Some(suggestion) => writeln!(out, "; {suggestion}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn certificates(found: &[CertificateReport], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(found)?);
    }
    if found.is_empty() {
        return writeln!(out, "no listener shows a certificate");
    }
    for one in found {
        writeln!(out, "{} {} {}", one.listener, one.protocol, one.usage)?;
        writeln!(out, "  file          {}", one.file)?;
        writeln!(out, "  subject       {}", one.subject)?;
        writeln!(out, "  issuer        {}", one.issuer)?;
        if !one.names.is_empty() {
            writeln!(out, "  names         {}", one.names.join(", "))?;
        }
        writeln!(out, "  key           {}", one.key)?;
        writeln!(out, "  valid until   {}: {}", utc(one.not_after), left(one.seconds_left))?;
        writeln!(out, "  SM3           {}", one.fingerprint_sm3)?;
        writeln!(out, "  SHA-256       {}", one.fingerprint_sha256)?;
    }
    Ok(())
}

fn left(seconds: i64) -> String {
    match seconds {
        ..0 => format!("EXPIRED {} days ago", seconds.saturating_neg() / DAY),
        0..DAY => format!("{} hours left", seconds / 3600),
        _ => format!("{} days left", seconds / DAY),
    }
}
