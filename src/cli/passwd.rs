//! `shangmq passwd`: sets the password of a user in a password file, or takes a user out of it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::password::PasswordArguments;
use crate::auth::{delete_user, set_password};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The password file; made when it is not there.
    file: PathBuf,
    /// The user to add, change or delete.
    user: String,
    #[command(flatten)]
    password: PasswordArguments,
    /// Delete the user. A running broker refuses the user from its next SIGHUP on.
    #[arg(short = 'D', long, conflicts_with_all = ["password_stdin", "password_file", "scram"])]
    delete: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        if self.delete {
            delete_user(&self.file, &self.user)?;
            writeln!(io::stdout().lock(), "{} is deleted from {}", self.user, self.file.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        set_password(&self.file, &self.user, &self.password.hash()?)?;
        writeln!(io::stdout().lock(), "the password of {} is set in {}", self.user, self.file.display())?;
        Ok(ExitCode::SUCCESS)
    }
}
