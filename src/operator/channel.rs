//! How `shangmq ctl` speaks to the broker of the same machine: a Unix socket in the data directory, one line of JSON in, one out.
//!
//! Only the user of the broker and root are heard, by the kernel's word for who they are and not by the mode of a file alone.

mod client;

pub use client::{Client, ClientError};

use super::{Banned, Operator, Trigger};
use crate::auth::{RulesFor, WrittenRule};
use crate::bundle::BadName;
use crate::config::ConfigError;
use crate::dev_certs::now;
use crate::revocation::{Revocation, UploadError};
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{Instrument, info, info_span, warn};

/// Name of the socket in the data directory.
pub const SOCKET: &str = "ctl.sock";
/// Longest request.
const MAX_REQUEST: u64 = 64 << 10;
/// Requests answered at once; the next ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8;
/// For a request to arrive, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failure to accept.
const PAUSE: Duration = Duration::from_millis(250);

/// Where the socket of a broker with this data directory is.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Takes changed files and options into the running broker.
    Reload,
    /// Lists the certificates that clients are shown.
    Certs,
    /// Lists the alarms that are raised, and the last that are over.
    Alarms,
    /// Asks which listeners use a bundle.
    BundleUsers { bundle: String },
    /// Asks what the listeners would find wrong with the version of a bundle that is about to be put in force.
    BundleTry { bundle: String },
    /// Lists the identities of pre-shared keys, of the listener that is named, or of all when they have the same.
    PskList { listener: Option<String> },
    /// Adds an identity with the key that stands in a file, by its absolute path.
    PskAdd { listener: Option<String>, identity: String, key_file: PathBuf },
    /// Adds all identities of a file of keys.
    PskImport { listener: Option<String>, file: PathBuf },
    /// Removes an identity, and ends its connections where that is asked for.
    PskRemove { listener: Option<String>, identity: String, disconnect: bool },
    /// Lists revocation lists, OCSP answers and what is stapled, with their states.
    Crl,
    /// Takes a file of revocation lists, by its absolute path, under a name.
    CrlAdd { name: String, path: PathBuf },
    /// Gives up what was taken under a name.
    CrlRemove { name: String },
    /// Lists the bans that hold.
    Bans,
    /// Bans somebody, for so many seconds or without end.
    BanAdd { subject: Banned, seconds: Option<u64>, reason: String },
    /// Lifts a ban.
    BanRemove { subject: Banned },
    /// Lists users of the store, after one of them.
    Users { after: Option<String> },
    /// Adds a user to the store, with what is kept of the password.
    UserAdd { name: String, hash: String },
    /// Gives a user of the store another password, and ends the user's connections if that is said.
    UserChange { name: String, hash: String, disconnect: bool },
    /// Removes a user from the store, and ends the user's connections if that is said.
    UserRemove { name: String, disconnect: bool },
    /// Adds the users of a password file, by its absolute path, to the store.
    UserImport { path: PathBuf, replace: bool },
    /// Lists the rules of the store: those for `of`, or all lists after one of them.
    Rules { of: Option<RulesFor>, after: Option<RulesFor> },
    /// Adds rules to a list of the store, before the one at a place counted from 1, or at its end.
    RulesAdd { subject: RulesFor, place: Option<usize>, rules: Vec<WrittenRule> },
    /// Takes the rule at a place, or all of them, out of a list of the store.
    RulesRemove { subject: RulesFor, place: Option<usize> },
}

/// An answer: what was asked for, or why not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Ok(serde_json::Value),
    Error {
        message: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        mistakes: Vec<ConfigError>,
    },
}

impl Response {
    fn of(value: &impl Serialize) -> Response {
        match serde_json::to_value(value) {
            Ok(value) => Response::Ok(value),
            Err(cause) => Response::refusal(format!("the answer cannot be written: {cause}")),
        }
    }

    fn refusal(message: impl Into<String>) -> Response {
        Response::Error { message: message.into(), mistakes: Vec::new() }
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("{}: another broker with this data directory answers", .0.display())]
    InUse(PathBuf),
    #[error("{}: there is a file that is no socket; remove it", .0.display())]
    NotASocket(PathBuf),
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

/// An open channel. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct Channel {
    listener: UnixListener,
    path: PathBuf,
    data_dir: Arc<Path>,
}

impl Channel {
    /// Opens the socket in `data_dir`. One that a broker left behind which was killed is replaced.
    ///
    /// # Errors
    /// Another broker answers there, or the system does not give the socket.
    pub fn open(data_dir: &Path) -> Result<Channel, ChannelError> {
        let path = socket_path(data_dir);
        let failed = |cause| ChannelError::Io { path: path.clone(), cause };
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => return Err(ChannelError::NotASocket(path)),
            Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => return Err(ChannelError::InUse(path)),
            Ok(_) => std::fs::remove_file(&path).map_err(failed)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(failed(cause)),
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        // Whoever connected before this line is asked for its user as everybody is.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Channel { listener, path, data_dir: data_dir.into() })
    }

    /// Answers until `stop` says so.
    pub async fn serve(self, operator: Arc<Operator>, mut stop: watch::Receiver<bool>) {
        info!(path = %self.path.display(), "shangmq ctl is served");
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            tokio::select! {
                // Cancel-safe: a connection is either returned or still in the kernel's queue, and a place that is not used is free again.
                (place, accepted) = next => match accepted {
                    Ok((stream, _)) => {
                        let (operator, data_dir) = (Arc::clone(&operator), Arc::clone(&self.data_dir));
                        tokio::spawn(async move {
                            let _place = place;
                            if let Err(cause) = converse(stream, &operator, &data_dir).await {
                                tracing::debug!(%cause, "shangmq ctl went away");
                            }
                        });
                    }
                    Err(cause) => {
                        warn!(%cause, "the socket of shangmq ctl does not accept");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                _ = stop.changed() => return,
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // It may be gone already; a start replaces what is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(mut stream: UnixStream, operator: &Arc<Operator>, data_dir: &Arc<Path>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid();
    let response = if peer != own.as_raw() && peer != 0 {
        warn!(user = peer, "shangmq ctl refused: neither the user of the broker nor root");
        Response::refusal(format!("only root and user {}, who runs the broker, may ask", own.as_raw()))
    } else {
        let mut line = Vec::new();
        let mut reader = BufReader::new((&mut stream).take(MAX_REQUEST));
        timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
        // Every line of the log about what is done then says who asked for it.
        answer(&line, operator, data_dir).instrument(info_span!("ctl", user = peer)).await
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    timeout(PATIENCE, stream.write_all(&text)).await?
}

async fn answer(line: &[u8], operator: &Arc<Operator>, data_dir: &Arc<Path>) -> Response {
    if !line.ends_with(b"\n") {
        return Response::refusal(format!("a request is one line of at most {MAX_REQUEST} bytes"));
    }
    match serde_json::from_slice::<Request>(line) {
        Ok(Request::Reload) => match operator.reload_aside(Trigger::Command).await {
            Ok(outcome) => Response::of(&outcome),
            Err(errors) => Response::Error {
                message: "nothing was changed; correct these mistakes and reload again".to_owned(),
                mistakes: errors.into_errors(),
            },
        },
        Ok(Request::Certs) => Response::of(&operator.certificates(now())),
        Ok(Request::Alarms) => Response::of(&operator.alarms()),
        Ok(Request::BundleUsers { bundle }) => match bundle.parse() {
            Ok(id) => Response::of(&operator.users_of_bundle(&id)),
            Err(bad) => Response::refusal(BadName::to_string(&bad)),
        },
        Ok(Request::BundleTry { bundle }) => {
            let data_dir = Arc::clone(data_dir);
            aside(operator, move |operator| operator.try_bundle(&data_dir, &bundle.parse()?)).await
        }
        Ok(Request::PskList { listener }) => {
            aside(operator, move |operator| operator.psk_list(listener.as_deref())).await
        }
        Ok(Request::PskAdd { listener, identity, key_file }) => {
            aside(operator, move |operator| operator.psk_add(listener.as_deref(), &identity, &key_file)).await
        }
        Ok(Request::PskImport { listener, file }) => {
            aside(operator, move |operator| operator.psk_import(listener.as_deref(), &file)).await
        }
        Ok(Request::PskRemove { listener, identity, disconnect }) => {
            aside(operator, move |operator| operator.psk_remove(listener.as_deref(), &identity, disconnect)).await
        }
        Ok(Request::Crl) => Response::of(&operator.revocation().report()),
        Ok(Request::CrlAdd { name, path }) => revoking(operator, move |all| all.upload_file(&name, &path)).await,
        Ok(Request::CrlRemove { name }) => revoking(operator, move |all| all.remove(&name)).await,
        Ok(Request::Bans) => Response::of(&operator.bans()),
        Ok(Request::BanAdd { subject, seconds, reason }) => changed(operator.ban(&subject, seconds, reason).await),
        Ok(Request::BanRemove { subject }) => changed(operator.unban(&subject).await),
        Ok(Request::Users { after }) => Response::of(&operator.users(after.as_deref())),
        Ok(Request::UserAdd { name, hash }) => changed(operator.add_user(&name, &hash).await),
        Ok(Request::UserChange { name, hash, disconnect }) => {
            changed(operator.change_user(&name, &hash, disconnect).await)
        }
        Ok(Request::UserRemove { name, disconnect }) => changed(operator.remove_user(&name, disconnect).await),
        Ok(Request::UserImport { path, replace }) => changed(operator.import_users(&path, replace).await),
        Ok(Request::Rules { of, after }) => Response::of(&operator.rules(of.as_ref(), after.as_ref())),
        Ok(Request::RulesAdd { subject, place, rules }) => changed(operator.add_rules(&subject, place, rules).await),
        Ok(Request::RulesRemove { subject, place }) => changed(operator.remove_rules(&subject, place).await),
        Err(cause) => Response::refusal(format!("not a request: {cause}")),
    }
}

fn changed(outcome: Result<impl Serialize, String>) -> Response {
    match outcome {
        Ok(change) => Response::of(&change),
        Err(refused) => Response::refusal(refused),
    }
}

/// Changes the lists that were uploaded, and answers with all that there is then.
async fn revoking<F>(operator: &Arc<Operator>, change: F) -> Response
where
    F: FnOnce(&Revocation) -> Result<(), UploadError> + Send + 'static,
{
    aside(operator, move |operator| change(&operator.revocation).map(|()| operator.revocation.report())).await
}

/// Answers with what may wait for a disk.
async fn aside<F, T, E>(operator: &Arc<Operator>, work: F) -> Response
where
    F: FnOnce(&Operator) -> Result<T, E> + Send + 'static,
    T: Serialize + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    match operator.aside(work).await {
        Ok(Ok(done)) => Response::of(&done),
        Ok(Err(refused)) => Response::refusal(refused.to_string()),
        Err(_) => Response::refusal("a bug of the broker; please report it with the panic message in its log"),
    }
}
