//! A password for a user: asked for twice on the terminal, or the first line of a file or of standard input. Never an argument, which
//! other users of the machine can see.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::auth::{HashError, MAX_PASSWORD_BYTES, PasswordHash};

#[derive(Debug, Args)]
pub(super) struct PasswordArguments {
    /// Read the password from the first line of standard input instead of asking for it twice.
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the password from the first line of a file instead of asking for it twice.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Keep credentials for SCRAM-SHA-256, with which the user can also connect by password, instead of a PBKDF2-HMAC-SM3 hash.
    #[arg(long)]
    scram: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordError {
    #[error("the two passwords differ")]
    Differ,
    #[error("an empty password")]
    Empty,
    #[error("there is no terminal to ask for the password on: give --password-stdin or --password-file FILE")]
    NoTerminal(#[source] io::Error),
    #[error("the password cannot be read")]
    Unreadable(#[from] io::Error),
    #[error("{}: cannot be read", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Hash(#[from] HashError),
}

impl PasswordArguments {
    /// What is to be kept of the password.
    pub(super) fn hash(&self) -> Result<PasswordHash, PasswordError> {
        let password = match &self.password_file {
            Some(path) => {
                let failed = |cause| PasswordError::File { path: path.clone(), cause };
                from_input(BufReader::new(File::open(path).map_err(failed)?))?
            }
            None if self.password_stdin => from_input(io::stdin().lock())?,
            None => from_terminal(Path::new(TERMINAL))?,
        };
        let password = password.as_bytes();
        Ok(if self.scram { PasswordHash::scram(password)? } else { PasswordHash::new(password)? })
    }
}

/// The terminal that a process was started from, which is asked.
const TERMINAL: &str = "/dev/tty";

fn from_terminal(terminal: &Path) -> Result<Zeroizing<String>, PasswordError> {
    // The prompt opens it too, and does not say what could not be opened.
    File::open(terminal).map_err(PasswordError::NoTerminal)?;
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
    fn who_has_no_terminal_is_told_how_to_give_a_password() {
        let refused = from_terminal(Path::new("/nonexistent/tty")).unwrap_err().to_string();
        assert!(
            refused.contains("no terminal") && refused.contains("--password-stdin or --password-file"),
            "{refused}"
        );
    }

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
