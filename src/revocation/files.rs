//! Revocation lists that an operator brings: files that a listener names, and lists given to the node under a name. Files that change are
//! read again; a bad new one keeps the old one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use gm_tls::revocation::read_lists;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{error, info};

use super::held::Held;
use super::points::{held_state, not_current};
use super::report::{ListReport, SourceKind};
use crate::metrics::RevocationCounters;

/// Lists that can be given to a node, and how long a name may be.
const MAX_UPLOADS: usize = 1000;
const MAX_NAME_LEN: usize = 100;
/// Files with uploaded lists end so.
const EXTENSION: &str = "crl";

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("`{}` is no name for a list: write 1 to {MAX_NAME_LEN} letters, digits, `_`, `-` or `.`, beginning with a letter or digit", .0.escape_default())]
    Name(String),
    #[error("there are {MAX_UPLOADS} lists already; remove one first")]
    TooMany,
    #[error("{0}")]
    List(#[from] gm_tls::revocation::CrlFileError),
    #[error("{0}")]
    Stale(String),
    #[error("there is no list `{0}`")]
    Unknown(String),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
}

#[derive(Debug)]
pub(super) struct Files {
    max_crl_size: usize,
    /// Where uploaded lists are kept; `None` where nothing is kept.
    directory: Option<PathBuf>,
    files: Mutex<HashMap<PathBuf, Arc<File>>>,
    uploads: Mutex<BTreeMap<String, Vec<Arc<Held>>>>,
    renewed: watch::Sender<u64>,
    counters: Arc<RevocationCounters>,
}

/// A file of lists.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    state: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    lists: Vec<Arc<Held>>,
    stamp: Option<Stamp>,
    error: Option<String>,
}

/// By what a file is seen to have changed.
type Stamp = (SystemTime, u64);

impl File {
    pub(super) fn lists(&self) -> Vec<Arc<Held>> {
        self.state.lock().lists.clone()
    }
}

impl Files {
    pub(super) fn new(
        max_crl_size: usize,
        directory: Option<PathBuf>,
        counters: &Arc<RevocationCounters>,
    ) -> Arc<Files> {
        Arc::new(Files {
            max_crl_size,
            directory,
            files: Mutex::default(),
            uploads: Mutex::default(),
            renewed: watch::Sender::new(0),
            counters: Arc::clone(counters),
        })
    }

    /// Changes with each list that changes.
    pub(super) fn renewed(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// Opens a file that a listener names. One that was opened before is shared, as it was read last.
    ///
    /// # Errors
    /// It cannot be read, or holds no good list.
    pub(super) fn open(&self, path: &Path) -> Result<Arc<File>, String> {
        let contents = self.read(path)?;
        let mut files = self.files.lock();
        let file = files
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(File { path: path.to_owned(), state: Mutex::default() }));
        *file.state.lock() = contents;
        Ok(Arc::clone(file))
    }

    /// Reads files again that have changed, and forgets those that no listener names.
    pub(super) fn poll(&self) {
        let files: Vec<Arc<File>> = {
            let mut files = self.files.lock();
            files.retain(|_, file| Arc::strong_count(file) > 1);
            files.values().cloned().collect()
        };
        for file in files {
            let stamp = stamp(&file.path);
            if stamp.as_ref().is_ok_and(|stamp| file.state.lock().stamp == Some(*stamp)) {
                continue;
            }
            let path = file.path.display();
            match self.read(&file.path) {
                Ok(contents) => {
                    info!(%path, lists = contents.lists.len(), "revocation lists read again");
                    *file.state.lock() = contents;
                    self.renewed.send_modify(|times| *times = times.wrapping_add(1));
                }
                Err(cause) => {
                    let mut state = file.state.lock();
                    // Said once for each change.
                    if state.error.as_ref() != Some(&cause) {
                        error!(%path, %cause, "revocation lists not taken; those read before stay in use");
                        self.counters.event("file_refused");
                    }
                    (state.error, state.stamp) = (Some(cause), stamp.ok());
                }
            }
        }
    }

    pub(super) fn upload_file(&self, name: &str, path: &Path) -> Result<(), UploadError> {
        let read = self.bytes(path);
        let (contents, _) = read.map_err(|reason| UploadError::File { path: path.to_owned(), reason })?;
        self.upload(name, contents)
    }

    fn read(&self, path: &Path) -> Result<Contents, String> {
        let (contents, stamp) = self.bytes(path)?;
        let lists = read_lists(&contents, self.max_crl_size).map_err(|cause| cause.to_string())?;
        let lists = lists.into_iter().map(|crl| Arc::new(Held::new(crl))).collect();
        Ok(Contents { lists, stamp: Some(stamp), error: None })
    }

    fn bytes(&self, path: &Path) -> Result<(Bytes, Stamp), String> {
        // Before the contents, so that a change while they are read is seen the next time.
        let stamp = stamp(path).map_err(|cause| format!("cannot read the file: {cause}"))?;
        // Several lists, in the longer of the two forms.
        let limit = self.max_crl_size.saturating_mul(2) as u64;
        if stamp.1 > limit {
            return Err(format!("larger than {limit} bytes; raise revocation.max_crl_size if that is meant"));
        }
        let contents = std::fs::read(path).map_err(|cause| format!("cannot read the file: {cause}"))?;
        Ok((contents.into(), stamp))
    }

    /// Takes what was uploaded before out of the directory.
    pub(super) fn load_uploads(&self) {
        let Some(directory) = &self.directory else { return };
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()).take(MAX_UPLOADS) {
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            match self.read(&path) {
                Ok(contents) => _ = self.uploads.lock().insert(name.to_owned(), contents.lists),
                Err(cause) => error!(path = %path.display(), %cause, "an uploaded revocation list cannot be used"),
            }
        }
    }

    /// Takes a file of lists under a name, in place of those that had it.
    ///
    /// # Errors
    /// Nothing changes if a list is bad or stale, or if it cannot be kept.
    pub(super) fn upload(&self, name: &str, contents: Bytes) -> Result<(), UploadError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || name.len() > MAX_NAME_LEN || !name.chars().all(good) {
            return Err(UploadError::Name(name.to_owned()));
        }
        let lists = read_lists(&contents, self.max_crl_size)?;
        if let Some(crl) = lists.iter().find(|crl| !crl.is_current(crate::dev_certs::now())) {
            return Err(UploadError::Stale(not_current(crl)));
        }
        let mut uploads = self.uploads.lock();
        if uploads.len() >= MAX_UPLOADS && !uploads.contains_key(name) {
            return Err(UploadError::TooMany);
        }
        if let Some(directory) = &self.directory {
            keep(directory, name, &contents)?;
        }
        uploads.insert(name.to_owned(), lists.into_iter().map(|crl| Arc::new(Held::new(crl))).collect());
        drop(uploads);
        self.renewed.send_modify(|times| *times = times.wrapping_add(1));
        Ok(())
    }

    /// Gives up what was uploaded under a name.
    ///
    /// # Errors
    /// There is nothing under it, or it cannot be removed.
    pub(super) fn remove(&self, name: &str) -> Result<(), UploadError> {
        let mut uploads = self.uploads.lock();
        if !uploads.contains_key(name) {
            return Err(UploadError::Unknown(name.to_owned()));
        }
        if let Some(directory) = &self.directory {
            let path = directory.join(format!("{name}.{EXTENSION}"));
            std::fs::remove_file(&path).map_err(|cause| UploadError::Write { path, cause })?;
        }
        uploads.remove(name);
        Ok(())
    }

    pub(super) fn uploads(&self) -> Vec<Arc<Held>> {
        self.uploads.lock().values().flatten().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        let files: Vec<Arc<File>> = self.files.lock().values().cloned().collect();
        files.iter().flat_map(|file| file.lists()).chain(self.uploads()).collect()
    }

    pub(super) fn report(&self) -> Vec<ListReport> {
        let mut lists = Vec::new();
        let files: Vec<Arc<File>> = self.files.lock().values().cloned().collect();
        for file in files {
            let state = file.state.lock();
            for held in &state.lists {
                let mut report = ListReport::new(SourceKind::File, &file.path.display().to_string(), Some(held));
                report.error = state.error.clone();
                report.state = held_state(Some(held), false).name().to_owned();
                lists.push(report);
            }
        }
        for (name, held) in &*self.uploads.lock() {
            lists.extend(held.iter().map(|held| ListReport::new(SourceKind::Upload, name, Some(held))));
        }
        lists.sort_by(|one, other| one.source.cmp(&other.source));
        lists
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    Ok((metadata.modified()?, metadata.len()))
}

/// Writes a file whole or not at all.
fn keep(directory: &Path, name: &str, contents: &[u8]) -> Result<(), UploadError> {
    let path = directory.join(format!("{name}.{EXTENSION}"));
    let part = directory.join(format!(".{name}.part"));
    let written = (|| {
        use std::io::Write;
        std::fs::create_dir_all(directory)?;
        let mut file = std::fs::File::create(&part)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&part, &path)?;
        std::fs::File::open(directory)?.sync_all()
    })();
    written.map_err(|cause| UploadError::Write { path, cause })
}
