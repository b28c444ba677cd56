//! Passwords of key files and where they come from.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::pem;

/// Longest password the PEM decoder takes, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1023;

/// A password of a private key; wiped when dropped, never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

/// Why a password could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("cannot read the password file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(
        "the password file {} can be read by others (mode {mode:04o}); run `chmod 600 {}`", path.display(), path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the password file {} belongs to user {owner}, who is neither the user of this process nor root; run `chown` on it",
        path.display()
    )]
    Stranger { path: PathBuf, owner: u32 },
    #[error("the environment variable {name}, named as the source of a password, is not set")]
    NotInEnvironment { name: String },
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
}

impl Password {
    /// Takes a password as configuration writes it: `file:///absolute/path`, `env:NAME`, or the password itself.
    ///
    /// One trailing line end is no part of a password that comes from a file or the environment.
    pub fn resolve(value: &str) -> Result<Password, PasswordError> {
        if let Some(path) = value.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return match pem::read_file(&path, MAX_PASSWORD_BYTES + 2) {
                Ok(Some(contents)) if contents.mode & 0o077 != 0 => {
                    Err(PasswordError::TooOpen { path, mode: contents.mode })
                }
                Ok(Some(pem::Contents { stranger: Some(owner), .. })) => Err(PasswordError::Stranger { path, owner }),
                Ok(Some(contents)) => Password::checked(without_line_end(&contents.bytes)),
                Ok(None) => Err(PasswordError::TooLong),
                Err(error) => Err(PasswordError::Unreadable { path, error }),
            };
        }
        if let Some(name) = value.strip_prefix("env:") {
            use std::os::unix::ffi::OsStringExt;
            let found = std::env::var_os(name).map(|value| Zeroizing::new(value.into_vec()));
            let Some(found) = found else { return Err(PasswordError::NotInEnvironment { name: name.to_owned() }) };
            return Password::checked(without_line_end(&found));
        }
        Password::checked(value.as_bytes())
    }

    /// A password given as bytes.
    pub fn inline(value: &[u8]) -> Result<Password, PasswordError> {
        Password::checked(value)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn checked(value: &[u8]) -> Result<Password, PasswordError> {
        match value.len() {
            0 => Err(PasswordError::Empty),
            1..=MAX_PASSWORD_BYTES => Ok(Password(Zeroizing::new(value.to_vec()))),
            _ => Err(PasswordError::TooLong),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

fn without_line_end(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}
