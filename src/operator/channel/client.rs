//! The side of `shangmq ctl`.

use super::{Request, socket_path};
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A reload may read many files over a slow network.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest answer: some thousand certificates.
const MAX_ANSWER: u64 = 8 << 20;

/// Why the broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no broker answers at {}: {cause}; does it run with this data directory, and may this user speak to it?", path.display())]
    Unreachable { path: PathBuf, cause: io::Error },
    #[error("the broker's answer cannot be read: {0}")]
    Answer(#[source] io::Error),
    #[error("the broker's answer is not understood, it may be of another version: {0}")]
    Format(#[source] serde_json::Error),
    /// The broker's words, and what is wrong with its configuration.
    #[error("{message}")]
    Refused { message: String, mistakes: Vec<serde_json::Value> },
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Ok(T),
    Error {
        message: String,
        #[serde(default)]
        mistakes: Vec<serde_json::Value>,
    },
}

/// Asks the broker with this data directory.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    pub fn new(data_dir: &Path) -> Client {
        Client { path: socket_path(data_dir) }
    }

    /// As [`ask`](Self::ask); `None` where no broker runs.
    ///
    /// # Errors
    /// A broker may run and does not answer, or it refuses.
    pub fn ask_if_running<T: DeserializeOwned>(&self, request: Request) -> Result<Option<T>, ClientError> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        match self.ask(request) {
            Err(ClientError::Unreachable { cause, .. }) if matches!(cause.kind(), NotFound | ConnectionRefused) => {
                Ok(None)
            }
            answered => answered.map(Some),
        }
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// No broker answers, or it refuses.
    pub fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { path: self.path.clone(), cause };
        let mut stream = UnixStream::connect(&self.path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(ClientError::Answer)?;
        let mut line = serde_json::to_vec(&request).map_err(ClientError::Format)?;
        line.push(b'\n');
        stream.write_all(&line).map_err(ClientError::Answer)?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut answer).map_err(ClientError::Answer)?;
        match serde_json::from_slice(&answer).map_err(ClientError::Format)? {
            Answer::Ok(value) => Ok(value),
            Answer::Error { message, mistakes } => Err(ClientError::Refused { message, mistakes }),
        }
    }
}
