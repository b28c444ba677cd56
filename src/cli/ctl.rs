//! `shangmq ctl`: asks the broker that runs on this machine, by the socket in its data directory.

mod acl;
mod alarms;
mod ban;
mod psk;
mod user;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::certs::utc;
use super::{ConfigArguments, Outcome};
use crate::operator::{CertificateReport, Client, ClientError, Reloaded, Request, StoredChange};
use crate::revocation::report::{Report, SourceKind};

const DAY: i64 = 86_400;
/// Why nothing was reloaded where the configuration, which names the broker's data directory, has mistakes.
const NOT_ASKED: &str = "the broker was not asked and goes on as it is; correct these mistakes and reload again";
/// How the broker is asked all the same.
const NAME_DATA: &str =
    "the broker was not asked: its data directory is named by this configuration; give it with --data DIR";

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
    /// Take changed certificates, TLS options and the files of section auth into the running broker: all of them or none.
    Reload,
    /// List the certificates that the listeners show, and how long they are still valid.
    Certs,
    /// List revocation lists, OCSP answers and what is stapled: where each comes from, its state, age, next update and error. With
    /// `add` or `remove`, take revocation lists of a file for all listeners, or give them up.
    Crl {
        #[command(subcommand)]
        change: Option<CrlChange>,
    },
    /// List the alarms that are raised, and the last that are over.
    Alarms,
    /// List, add and lift bans of client ids, user names and addresses.
    #[command(subcommand)]
    Ban(ban::BanCommand),
    /// List, add, change, remove and import the users in the store, who may connect where auth.store.users is set.
    #[command(subcommand)]
    User(user::UserCommand),
    /// List, add and remove the rules for topics in the store, which are asked where auth.store.acl is set.
    #[command(subcommand)]
    Acl(acl::AclCommand),
    /// List, add and remove pre-shared keys, which are never shown.
    Psk(psk::PskArguments),
}

/// A name is easily taken for the file.
const CRL_ADD: &str = "\
shangmq ctl crl add [OPTIONS] <NAME> <FILE>
       NAME is yours to choose, FILE holds the revocation lists, such as
       shangmq ctl crl add company company-ca.crl";

#[derive(Debug, Subcommand)]
enum CrlChange {
    /// Take the lists of a file, DER or PEM, under a name; they replace those that had it, and stay over restarts.
    #[command(override_usage = CRL_ADD)]
    Add {
        /// What they are to be called, for `ctl crl` and `ctl crl remove`.
        name: String,
        /// Revocation lists, readable by the user of the broker.
        file: PathBuf,
    },
    /// Give up the lists under a name.
    Remove { name: String },
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        let out = &mut io::stdout().lock();
        let data = match self.data.map_or_else(|| self.config.load().map(|config| config.node.data_dir), Ok) {
            Ok(data) => data,
            Err(errors) if matches!(self.command, Command::Reload) => {
                let mistakes = errors.as_slice().iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
                done(refusal(NOT_ASKED, &mistakes, self.json, out))?;
                return Ok(ExitCode::FAILURE);
            }
            Err(errors) => return Err(format!("{errors}\n{NAME_DATA}").into()),
        };
        let client = Client::new(&data);
        let refused = match self.command {
            Command::Reload => match client.ask::<Reloaded>(Request::Reload) {
                Ok(outcome) => return done(reloaded(&outcome, self.json, out)),
                Err(refused) => refused,
            },
            Command::Certs => match client.ask::<Vec<CertificateReport>>(Request::Certs) {
                Ok(found) => return done(certificates(&found, self.json, out)),
                Err(refused) => refused,
            },
            Command::Alarms => match client.ask(Request::Alarms) {
                Ok(found) => return done(alarms::list(&found, self.json, out)),
                Err(refused) => refused,
            },
            Command::Crl { change } => {
                let request = match change {
                    None => Request::Crl,
                    Some(CrlChange::Add { name, file }) => Request::CrlAdd { name, path: std::path::absolute(file)? },
                    Some(CrlChange::Remove { name }) => Request::CrlRemove { name },
                };
                match client.ask::<Report>(request) {
                    Ok(found) => return done(revocation(&found, self.json, out)),
                    Err(refused) => refused,
                }
            }
            Command::User(command) => {
                return command.run(&client, self.json, out).map(|()| ExitCode::SUCCESS);
            }
            Command::Acl(command) => {
                return command.run(&client, self.json, out).map(|()| ExitCode::SUCCESS);
            }
            Command::Psk(arguments) => match arguments.run(&client, self.json, out) {
                Ok(written) => return done(written),
                Err(refused) => refused,
            },
            Command::Ban(command) => match command.run(&client, self.json, out) {
                Ok(written) => return done(written),
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

/// Says what became of a change to users or rules: `said` are the words for one, the words for none, and the key that asks for them.
fn stored(change: StoredChange, json: bool, said: (&str, &str, &str), out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(&change)?);
    }
    let (done, nothing, key) = said;
    if change.changed == 0 {
        return writeln!(out, "{nothing}");
    }
    write!(out, "{done}")?;
    if !change.asked {
        write!(out, "; it has no effect while {key} is not set")?;
    }
    if !change.stored {
        write!(out, "; nothing is stored, a restart forgets it")?;
    }
    writeln!(out)
}

/// A list that comes in parts, each asked for by the last entry of the one before; `ask` gives a part, and whether there are more.
fn every_part<T, E>(mut ask: impl FnMut(Option<&T>) -> Result<(Vec<T>, bool), E>) -> Result<Vec<T>, E> {
    let mut all = Vec::new();
    loop {
        let (part, more) = ask(all.last())?;
        all.extend(part);
        if !more || all.is_empty() {
            return Ok(all);
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
    writeln!(out, "reloaded: {}", outcome.effect())?;
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
        match (text("file"), number("line").zip(number("column")), text("variable")) {
            (Some(file), Some((line, column)), _) => write!(out, "{file}:{line}:{column}: ")?,
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
        return writeln!(out, "no listener shows a certificate or trusts an authority");
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

fn revocation(found: &Report, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(found)?);
    }
    if found.crls.is_empty() && found.ocsp_answers.is_empty() && found.staples.is_empty() {
        return writeln!(out, "no revocation list was needed yet, and nothing is asked of an OCSP responder");
    }
    for list in &found.crls {
        let kind = match list.kind {
            SourceKind::Url => "crl",
            SourceKind::File => "crl file",
            SourceKind::Upload => "crl added",
        };
        writeln!(out, "{kind} {}: {}", list.source, list.state)?;
        if let Some(this_update) = list.this_update {
            writeln!(out, "  issuer        {}", list.issuer)?;
            writeln!(out, "  entries       {}", list.entries)?;
            writeln!(out, "  issued        {}: {} ago", utc(this_update), span(found.now.saturating_sub(this_update)))?;
        }
        times(found.now, list.next_update, list.next_fetch, list.error.as_deref(), out)?;
    }
    for answer in &found.ocsp_answers {
        writeln!(out, "ocsp {} serial {}: {}", answer.responder, answer.serial, answer.state)?;
        if let Some(status) = &answer.status {
            writeln!(out, "  status        {status}")?;
        }
        times(found.now, answer.next_update, None, answer.error.as_deref(), out)?;
    }
    for staple in &found.staples {
        let must = if staple.must_staple { ", must-staple" } else { "" };
        writeln!(out, "staple {}{must}: {}", staple.subject, staple.state)?;
        writeln!(out, "  responder     {}", staple.responder)?;
        times(found.now, staple.next_update, staple.next_fetch, staple.error.as_deref(), out)?;
    }
    Ok(())
}

fn times(
    now: i64,
    next_update: Option<i64>,
    next_fetch: Option<i64>,
    error: Option<&str>,
    out: &mut impl Write,
) -> io::Result<()> {
    if let Some(next) = next_update {
        let left = next.saturating_sub(now);
        let left = if left < 0 { format!("STALE for {}", span(-left)) } else { format!("in {}", span(left)) };
        writeln!(out, "  next update   {}: {left}", utc(next))?;
    }
    if let Some(next) = next_fetch {
        writeln!(out, "  next fetch    in {}", span(next.saturating_sub(now).max(0)))?;
    }
    error.map_or(Ok(()), |error| writeln!(out, "  error         {error}"))
}

fn span(seconds: i64) -> String {
    match seconds {
        DAY.. => format!("{} days", seconds / DAY),
        3600..DAY => format!("{} hours", seconds / 3600),
        60..3600 => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}
