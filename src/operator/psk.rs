//! Pre-shared keys by operators: the file of a listener is changed first, so that a restart knows it too, and then what its handshakes
//! look keys up in. Keys come by files and are never shown.

use super::Operator;
use super::fitting::{MAX_LIST, first_few, fitting};
use crate::auth::{NewKeys, PskChanged, PskFileError, add_keys, remove_key};
use crate::net::Listener;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::info;

/// The identities of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PskList {
    pub file: String,
    /// The listeners that use it.
    pub listeners: Vec<String>,
    pub identities: Vec<String>,
    /// How many more there are than an answer has room for.
    pub left_out: usize,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PskChange {
    pub file: String,
    pub listeners: Vec<String>,
    pub added: usize,
    pub replaced: usize,
    pub removed: usize,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PskRefused {
    #[error("no listener has a psk_file")]
    NoFile,
    #[error("{0} has no psk_file; these listeners have one: {1}")]
    NotThere(String, String),
    #[error("listeners have different files of keys: {0}; name one with --listener")]
    Which(String),
    #[error(transparent)]
    File(#[from] PskFileError),
}

/// A file of keys and who uses it.
struct Target {
    path: PathBuf,
    listeners: Vec<Arc<Listener>>,
}

impl Target {
    fn names(&self) -> Vec<String> {
        self.listeners.iter().map(|listener| listener.id().to_string()).collect()
    }

    fn changed(&self, change: PskChanged) -> PskChange {
        let PskChanged { added, replaced, removed } = change;
        PskChange { file: self.path.display().to_string(), listeners: self.names(), added, replaced, removed }
    }
}

impl Operator {
    /// The identities in force.
    ///
    /// # Errors
    /// It is not clear of which file.
    pub fn psk_list(&self, listener: Option<&str>) -> Result<PskList, PskRefused> {
        let target = self.psk_target(listener)?;
        let security = target.listeners.first().and_then(|listener| listener.security());
        let all = security.and_then(|one| one.keys().first().map(|keys| keys.list())).unwrap_or_default();
        let total = all.len();
        let (identities, _) = fitting(all, MAX_LIST);
        let left_out = total - identities.len();
        Ok(PskList { file: target.path.display().to_string(), listeners: target.names(), identities, left_out })
    }

    /// Adds an identity with the key in a file, or gives it another key. Connections that are there go on.
    ///
    /// # Errors
    /// What kept it from being stored; then nothing is changed.
    pub fn psk_add(&self, listener: Option<&str>, identity: &str, key_file: &Path) -> Result<PskChange, PskRefused> {
        self.psk_put(listener, &NewKeys::single(identity, key_file)?)
    }

    /// Adds all identities of a file of keys, or gives them other keys.
    ///
    /// # Errors
    /// As for [`psk_add`](Self::psk_add).
    pub fn psk_import(&self, listener: Option<&str>, file: &Path) -> Result<PskChange, PskRefused> {
        self.psk_put(listener, &NewKeys::load(file)?)
    }

    /// Removes an identity, and ends the connections of its sessions where that is asked for.
    ///
    /// # Errors
    /// What kept it from being stored; then nothing is changed.
    pub fn psk_remove(
        &self,
        listener: Option<&str>,
        identity: &str,
        disconnect: bool,
    ) -> Result<PskChange, PskRefused> {
        let (target, removed) = {
            // A reload that has read the file before would bring it back, and another file could be meant after it.
            let _only = self.reloading.lock();
            let target = self.psk_target(listener)?;
            let mut removed = remove_key(&target.path, identity)?.removed != 0;
            for security in target.listeners.iter().filter_map(|listener| listener.security()) {
                // Somebody may have taken it out of the file already.
                security.keys().iter().for_each(|keys| removed |= keys.remove(identity));
            }
            (target, removed)
        };
        if disconnect {
            self.broker.disconnect_key(identity);
        }
        if removed {
            info!(identity, file = %target.path.display(), disconnect, "an operator removed a pre-shared key");
        }
        Ok(target.changed(PskChanged { removed: usize::from(removed), ..PskChanged::default() }))
    }

    fn psk_put(&self, listener: Option<&str>, new: &NewKeys) -> Result<PskChange, PskRefused> {
        let (target, changed) = {
            let _only = self.reloading.lock();
            let target = self.psk_target(listener)?;
            let changed = add_keys(&target.path, new)?;
            for security in target.listeners.iter().filter_map(|listener| listener.security()) {
                security.keys().iter().for_each(|keys| keys.put(new));
            }
            (target, changed)
        };
        let PskChanged { added, replaced, .. } = changed;
        let identities = first_few(&new.identities());
        info!(%identities, added, replaced, file = %target.path.display(), "an operator added pre-shared keys");
        Ok(target.changed(changed))
    }

    /// The file of a listener, or the only one there is.
    fn psk_target(&self, listener: Option<&str>) -> Result<Target, PskRefused> {
        let mut files: BTreeMap<PathBuf, Vec<Arc<Listener>>> = BTreeMap::new();
        for listener in &self.listeners {
            let security = listener.security();
            let tls = security.as_ref().and_then(|security| security.config().tls.as_ref());
            if let Some(file) = tls.and_then(|tls| tls.psk_file.as_ref()) {
                files.entry(file.path().to_owned()).or_default().push(Arc::clone(listener));
            }
        }
        let all = || {
            let names = files.values().flatten().map(|listener| listener.id().to_string());
            names.collect::<Vec<_>>().join(", ")
        };
        let wanted = |listeners: &[Arc<Listener>]| match listener {
            Some(wanted) => listeners.iter().any(|listener| **listener.id() == *wanted),
            None => true,
        };
        let mut fitting = files.iter().filter(|(_, listeners)| wanted(listeners));
        match (fitting.next(), fitting.next(), listener) {
            (Some((path, listeners)), None, _) => Ok(Target { path: path.clone(), listeners: listeners.clone() }),
            (Some(_), Some(_), _) => Err(PskRefused::Which(all())),
            (None, ..) if files.is_empty() => Err(PskRefused::NoFile),
            (None, _, wanted) => Err(PskRefused::NotThere(wanted.unwrap_or_default().to_owned(), all())),
        }
    }
}
