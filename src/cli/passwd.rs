//! `shangmq passwd`: sets the password of a user in a password file, or takes a user out of it.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::Outcome;
use crate::auth::{MAX_PASSWORD_BYTES, PasswordHash, delete_user, set_password};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The password file; made when it is not there.
    file: PathBuf,
    /// The user to add, change or delete.
    user: String,
    /// Read the password from the first line of standard input instead of asking for it twice.
    #[arg(long)]
    password_stdin: bool,
    /// Keep credentials for SCRAM-SHA-256, with which the user can also connect by password, instead of a PBKDF2-HMAC-SM3 hash.
    #[arg(long)]
    scram: bool,
    /// Delete the user. A running broker refuses the user from its next SIGHUP on.
    #[arg(short = 'D', long, conflicts_with_all = ["password_stdin", "scram"])]
    delete: bool,
}

#[derive(Debug, thiserror::Error)]
enum PasswordError {
    #[error("the two passwords differ")]
    Differ,
    #[error("an empty password")]
    Empty,
    #[error("the password cannot be read")]
    Unreadable(#[from] io::Error),
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        if self.delete {
            delete_user(&self.file, &self.user)?;
            writeln!(io::stdout().lock(), "{} is deleted from {}", self.user, self.file.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let password = if self.password_stdin { from_input(io::stdin().lock())? } else { from_terminal()? };
        let password = password.as_bytes();
        let hash = if self.scram { PasswordHash::scram(password)? } else { PasswordHash::new(password)? };
        set_password(&self.file, &self.user, &hash)?;
        writeln!(io::stdout().lock(), "the password of {} is set in {}", self.user, self.file.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn from_terminal() -> Result<Zeroizing<String>, PasswordError> {
    let password = Zeroizing::new(rpassword::prompt_password("Password: ")?);
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    let again = Zeroizing::new(rpassword::prompt_password("Again: ")?);
    if password == again { Ok(password) } else { Err(PasswordError::Differ) }
}

/// The first line, without its end.
fn from_input(input: impl BufRead) -> Result<Zeroizing<String>, PasswordError> {
    let most = u64::try_from(MAX_PASSWORD_BYTES).unwrap_or(u64::MAX).saturating_add(2);
    let mut line = Zeroizing::new(String::new());
    input.take(most).read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    Ok(Zeroizing::new(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for input in ["secret", "secret\n", "secret\r\n", "secret\nmore"] {
            assert_eq!(from_input(input.as_bytes()).unwrap().as_str(), "secret");
        }
        for input in ["", "\n", "\r\n"] {
            assert!(matches!(from_input(input.as_bytes()), Err(PasswordError::Empty)));
        }
        assert!(matches!(from_input(&b"\xff\n"[..]), Err(PasswordError::Unreadable(_))));
    }
}
