//! `shangmq ctl psk`: the pre-shared keys of the running broker, of which only the names are shown.

use std::io::{self, Write};
use std::path::{PathBuf, absolute};

use clap::{Args, Subcommand};

use crate::operator::{Client, ClientError, PskChange, PskList, Request};

#[derive(Debug, Args)]
pub(super) struct PskArguments {
    /// The listener whose psk_file it is about, such as ssl:default, where listeners have different ones.
    #[arg(long, value_name = "ID", global = true)]
    listener: Option<String>,
    #[command(subcommand)]
    command: PskCommand,
}

#[derive(Debug, Subcommand)]
enum PskCommand {
    /// List the identities.
    List,
    /// Add an identity, or give it another key: for new connections at once, and in the psk_file.
    Add {
        identity: String,
        /// File with the key in hexadecimal. The broker reads it: it belongs to the broker's user, and nobody else can read it.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
    /// Add all identities of a file with lines `identity:hexkey`, which the broker reads: all of them or, with one mistake, none.
    Import { file: PathBuf },
    /// Remove an identity: new connections with its key are refused from now on.
    Remove {
        identity: String,
        /// Close the connections of sessions that belong to it, or to a user of that name.
        #[arg(long)]
        disconnect: bool,
    },
}

impl PskArguments {
    /// Asks, and returns how writing the answer went.
    pub(super) fn run(self, client: &Client, json: bool, out: &mut impl Write) -> Result<io::Result<()>, ClientError> {
        let listener = self.listener;
        let request = match self.command {
            PskCommand::List => return Ok(list(&client.ask(Request::PskList { listener })?, json, out)),
            PskCommand::Add { identity, key_file } => match absolute(key_file) {
                Ok(key_file) => Request::PskAdd { listener, identity, key_file },
                Err(cause) => return Ok(Err(cause)),
            },
            PskCommand::Import { file } => match absolute(file) {
                Ok(file) => Request::PskImport { listener, file },
                Err(cause) => return Ok(Err(cause)),
            },
            PskCommand::Remove { identity, disconnect } => Request::PskRemove { listener, identity, disconnect },
        };
        let change: PskChange = client.ask(request)?;
        Ok(if json {
            serde_json::to_string(&change).map_err(io::Error::from).and_then(|text| writeln!(out, "{text}"))
        } else {
            let PskChange { file, listeners, added, replaced, removed } = change;
            let listeners = listeners.join(", ");
            match (added, replaced, removed) {
                (0, 0, 0) => writeln!(out, "nothing to change in {file}"),
                _ => writeln!(
                    out,
                    "{added} added, {replaced} with another key, {removed} removed in {file}; in force for new connections of {listeners}"
                ),
            }
        })
    }
}

fn list(found: &PskList, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(found)?);
    }
    writeln!(out, "{}, for {}", found.file, found.listeners.join(", "))?;
    found.identities.iter().try_for_each(|identity| writeln!(out, "{identity}"))?;
    match found.left_out {
        0 => Ok(()),
        more => writeln!(out, "and {more} more"),
    }
}
