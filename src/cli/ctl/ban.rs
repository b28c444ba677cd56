//! `shangmq ctl ban`: who may not connect to the running broker.

use std::io::{self, Write};
use std::net::IpAddr;

use clap::{Args, Subcommand};

use crate::operator::{BanChange, BanList, Banned, Client, ClientError, Request};

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// List the bans that hold.
    List,
    /// Ban somebody, in place of a ban that is there; clients with the identifier or verified user name are disconnected.
    Add {
        #[command(flatten)]
        subject: SubjectArguments,
        /// How long it holds; without it, until it is lifted.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: Option<u64>,
        /// Why, for operators; clients are not told.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lift a ban.
    Remove {
        #[command(flatten)]
        subject: SubjectArguments,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SubjectArguments {
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Refused when it connects next; its connections stay.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

impl SubjectArguments {
    fn subject(self) -> Option<Banned> {
        let named = self.client_id.map(Banned::ClientId).or(self.username.map(Banned::Username));
        named.or(self.address.map(Banned::Address))
    }
}

impl BanCommand {
    /// Asks, and returns how writing the answer went.
    pub(super) fn run(self, client: &Client, json: bool, out: &mut impl Write) -> Result<io::Result<()>, ClientError> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "name a client id, a user name or an address");
        let (request, done, nothing) = match self {
            BanCommand::List => return Ok(list(&client.ask(Request::Bans)?, json, out)),
            BanCommand::Add { subject, seconds, reason } => {
                let Some(subject) = subject.subject() else { return Ok(Err(none())) };
                (Request::BanAdd { subject, seconds, reason }, "banned", "banned")
            }
            BanCommand::Remove { subject } => {
                let Some(subject) = subject.subject() else { return Ok(Err(none())) };
                (Request::BanRemove { subject }, "the ban is lifted", "there was no such ban")
            }
        };
        let change: BanChange = client.ask(request)?;
        Ok(if json {
            serde_json::to_string(&change).map_err(io::Error::from).and_then(|text| writeln!(out, "{text}"))
        } else {
            let fleeting = if change.stored { "" } else { "; nothing is stored, a restart forgets it" };
            writeln!(out, "{}{fleeting}", if change.changed { done } else { nothing })
        })
    }
}

fn list(found: &BanList, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(found)?);
    }
    if found.bans.is_empty() {
        return writeln!(out, "nobody is banned");
    }
    for ban in &found.bans {
        // Names are what peers chose: quoted, a terminal is not told what to do.
        match &ban.subject {
            Banned::ClientId(id) => write!(out, "client id {id:?}")?,
            Banned::Username(name) => write!(out, "user name {name:?}")?,
            Banned::Address(address) => write!(out, "address {address}")?,
        }
        match ban.seconds_left {
            Some(seconds) => write!(out, ", {seconds} s left")?,
            None => write!(out, ", until it is lifted")?,
        }
        writeln!(out, ": {:?}", ban.reason)?;
    }
    match found.left_out {
        0 => Ok(()),
        more => writeln!(out, "and {more} more"),
    }
}
