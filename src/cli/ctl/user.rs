//! `shangmq ctl user`: the users in the store of the running broker.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use super::super::password::PasswordArguments;
use crate::operator::{Client, Request, StoredChange, UserList};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// List the users.
    List,
    /// Add a user.
    Add {
        name: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Give a user another password.
    Passwd {
        name: String,
        #[command(flatten)]
        password: PasswordArguments,
        /// End the connections of the user.
        #[arg(long)]
        disconnect: bool,
    },
    /// Remove a user, who cannot connect any more.
    Remove {
        name: String,
        /// End the connections of the user.
        #[arg(long)]
        disconnect: bool,
    },
    /// Add the users of a password file: all of them or, when one of them is there already, none.
    Import {
        /// Readable by the user of the broker.
        file: PathBuf,
        /// Give users that are there the password of the file.
        #[arg(long)]
        replace: bool,
    },
}

impl UserCommand {
    /// Asks, and writes the answer.
    pub(super) fn run(
        self,
        client: &Client,
        json: bool,
        out: &mut impl Write,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (request, done) = match self {
            UserCommand::List => return list(client, json, out),
            UserCommand::Add { name, password } => {
                let hash = password.hash()?.to_string();
                (Request::UserAdd { name, hash }, "the user is added")
            }
            UserCommand::Passwd { name, password, disconnect } => {
                let hash = password.hash()?.to_string();
                (Request::UserChange { name, hash, disconnect }, "the password is changed")
            }
            UserCommand::Remove { name, disconnect } => {
                (Request::UserRemove { name, disconnect }, "the user is removed")
            }
            UserCommand::Import { file, replace } => {
                (Request::UserImport { path: std::path::absolute(file)?, replace }, "the users are added")
            }
        };
        let change: StoredChange = client.ask(request)?;
        Ok(super::stored(change, json, (done, "there are no users in the file", "auth.store.users"), out)?)
    }
}

fn list(client: &Client, json: bool, out: &mut impl Write) -> Result<(), Box<dyn Error + Send + Sync>> {
    let all = super::every_part(|last: Option<&String>| {
        client.ask(Request::Users { after: last.cloned() }).map(|UserList { users, more }| (users, more))
    })?;
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&all)?)?);
    }
    if all.is_empty() {
        return Ok(writeln!(out, "there are no users in the store")?);
    }
    // Names hold no control characters.
    all.iter().try_for_each(|name| writeln!(out, "{name}")).map_err(|cause: io::Error| cause.into())
}
