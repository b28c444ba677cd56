//! Revocation lists that an operator brings: files that a listener names, and lists given to the node under a name. Files that change are
//! read again; a bad new one keeps the old one. What handshakes ask for is an immutable value that is put in place when everything has
//! been read and written: they never wait for a disk.

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

use super::directory::Directory;
use super::held::Held;
use super::points::{held_state, not_current};
use super::report::{ListReport, SourceKind};
use crate::metrics::RevocationCounters;

/// Lists that can be given to a node, and how long a name may be.
pub(super) const MAX_UPLOADS: usize = 1000;
const MAX_NAME_LEN: usize = 100;

/// Why a list is not taken, or not given up.
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
    #[error("{0}; to go back to it, remove the lists of that name first")]
    Older(String),
    #[error("there is no list `{0}`")]
    Unknown(String),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error("cannot remove {}: {cause}", path.display())]
    Remove { path: PathBuf, cause: io::Error },
}

#[derive(Debug)]
pub(super) struct Files {
    max_crl_size: usize,
    /// Where uploaded lists are kept; `None` where nothing is kept.
    directory: Option<Directory>,
    files: Mutex<HashMap<PathBuf, Arc<File>>>,
    uploads: Mutex<Arc<Uploads>>,
    /// Held by whoever changes the uploads, while the disk is written too. Handshakes do not take it.
    changing: Mutex<()>,
    renewed: watch::Sender<u64>,
    counters: Arc<RevocationCounters>,
}

/// Lists by the name that they were given under.
type Uploads = BTreeMap<String, Vec<Arc<Held>>>;

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

    /// Takes what was read, unless it is older than what is here; how many lists that are.
    fn take(&self, contents: Contents) -> Result<usize, String> {
        let mut state = self.state.lock();
        if let Some(cause) = older(&contents.lists, &state.lists) {
            return Err(format!("{cause}; to go back to it, start the broker again"));
        }
        *state = contents;
        Ok(state.lists.len())
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
            directory: directory.map(Directory::new),
            files: Mutex::default(),
            uploads: Mutex::default(),
            changing: Mutex::default(),
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
    /// It cannot be read, or holds no good list, or one that is older than the one read before.
    pub(super) fn open(&self, path: &Path) -> Result<Arc<File>, String> {
        let contents = self.read(path)?;
        let mut files = self.files.lock();
        let file = files
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(File { path: path.to_owned(), state: Mutex::default() }));
        file.take(contents)?;
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
            match self.read(&file.path).and_then(|contents| file.take(contents)) {
                Ok(lists) => {
                    info!(%path, lists, "revocation lists read again");
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
        let _changing = self.changing.lock();
        let mut uploads = Uploads::new();
        let files = directory.files().unwrap_or_else(|cause| {
            error!(path = %directory.path().display(), %cause, "uploaded revocation lists cannot be looked for");
            Vec::new()
        });
        for path in files {
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            match self.read(&path) {
                Ok(contents) => _ = uploads.insert(name.to_owned(), contents.lists),
                Err(cause) => error!(path = %path.display(), %cause, "an uploaded revocation list cannot be used"),
            }
        }
        *self.uploads.lock() = Arc::new(uploads);
    }

    /// Takes a file of lists under a name, in place of those that had it.
    ///
    /// # Errors
    /// Nothing changes if a list is bad or stale, or older than the one in its place, or if it cannot be kept.
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
        let _changing = self.changing.lock();
        let mut uploads = Uploads::clone(&self.uploads());
        if uploads.len() >= MAX_UPLOADS && !uploads.contains_key(name) {
            return Err(UploadError::TooMany);
        }
        let lists: Vec<Arc<Held>> = lists.into_iter().map(|crl| Arc::new(Held::new(crl))).collect();
        if let Some(cause) = uploads.get(name).and_then(|held| older(&lists, held)) {
            return Err(UploadError::Older(cause));
        }
        if let Some(directory) = &self.directory {
            directory.keep(name, &contents)?;
        }
        uploads.insert(name.to_owned(), lists);
        *self.uploads.lock() = Arc::new(uploads);
        self.renewed.send_modify(|times| *times = times.wrapping_add(1));
        Ok(())
    }

    /// Gives up what was uploaded under a name.
    ///
    /// # Errors
    /// There is nothing under it, or it cannot be removed.
    pub(super) fn remove(&self, name: &str) -> Result<(), UploadError> {
        let _changing = self.changing.lock();
        let mut uploads = Uploads::clone(&self.uploads());
        if uploads.remove(name).is_none() {
            return Err(UploadError::Unknown(name.to_owned()));
        }
        if let Some(directory) = &self.directory {
            directory.remove(name)?;
        }
        *self.uploads.lock() = Arc::new(uploads);
        Ok(())
    }

    /// What was uploaded, as it is now.
    pub(super) fn uploads(&self) -> Arc<Uploads> {
        Arc::clone(&self.uploads.lock())
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        let files: Vec<Arc<File>> = self.files.lock().values().cloned().collect();
        let uploads = self.uploads();
        files.iter().flat_map(|file| file.lists()).chain(uploads.values().flatten().cloned()).collect()
    }

    pub(super) fn report(&self) -> Vec<ListReport> {
        let mut lists = Vec::new();
        let files: Vec<Arc<File>> = self.files.lock().values().cloned().collect();
        for file in files {
            let state = file.state.lock();
            for held in &state.lists {
                let mut report = ListReport::new(SourceKind::File, &file.path.display().to_string(), Some(held));
                report.outdated = state.error.is_some();
                let causes: Vec<String> = state.error.iter().cloned().chain(report.error.take()).collect();
                report.error = (!causes.is_empty()).then(|| causes.join("; "));
                report.state = held_state(Some(held), false).name().to_owned();
                lists.push(report);
            }
        }
        for (name, held) in &*self.uploads() {
            lists.extend(held.iter().map(|held| ListReport::new(SourceKind::Upload, name, Some(held))));
        }
        lists.sort_by(|one, other| one.source.cmp(&other.source));
        lists
    }
}

/// What is wrong with new lists in the place of others: one is older than the one of its series, and what that one revoked would be
/// forgotten. A list that is left out is given up on purpose.
fn older(new: &[Arc<Held>], old: &[Arc<Held>]) -> Option<String> {
    let newest = |lists: &[Arc<Held>], one: &Held| {
        let series = lists.iter().filter(|held| held.crl.is_in_series_with(&one.crl));
        series.map(|held| held.crl.this_update()).max()
    };
    new.iter().find_map(|one| {
        let (would_be, is) = (newest(new, one)?, newest(old, one)?);
        let issuer = one.crl.issuer();
        (would_be < is).then(|| {
            format!(
                "the list of \"{issuer}\" of {would_be} (thisUpdate, unix time) is older than the one at hand, of {is}"
            )
        })
    })
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    Ok((metadata.modified()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use gm_tls::cert::KeyKind;
    use gm_tls::pki::{AuthorityProfile, CertificateAuthority, RevocationList, Subject};

    use super::*;

    fn authority() -> CertificateAuthority {
        let (subject, profile) = (Subject::common_name("CA"), AuthorityProfile::new(10, None));
        CertificateAuthority::create(&subject, KeyKind::Sm2, &profile, crate::dev_certs::now()).unwrap()
    }

    /// A list of so many seconds ago, with the key identifier of its authority.
    fn list_of(ca: &CertificateAuthority, key: u8, age: i64) -> Bytes {
        let now = crate::dev_certs::now();
        let contents = RevocationList {
            this_update: now - age,
            next_update: Some(now + 3600),
            number: 1,
            revoked: Vec::new(),
            extensions: vec![("2.5.29.35", false, vec![0x30, 3, 0x80, 1, key])],
        };
        ca.sign_list(&contents).unwrap().into()
    }

    fn list() -> Bytes {
        list_of(&authority(), 1, 60)
    }

    fn pem(lists: &[Bytes]) -> Bytes {
        use base64ct::{Base64, Encoding};
        let block =
            |der: &Bytes| format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", Base64::encode_string(der));
        lists.iter().map(block).collect::<String>().into()
    }

    // A file that came from a mirror that lagged behind took back what a newer list had revoked.
    #[test]
    fn an_older_list_of_a_file_or_of_an_upload_replaces_no_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crl");
        let counters: Arc<RevocationCounters> = Arc::default();
        let files = Files::new(1 << 20, None, &counters);
        // A namesake with another key has a series of its own.
        let (ca, namesake) = (authority(), authority());
        let write = |lists: &[Bytes]| std::fs::write(&path, pem(lists)).unwrap();
        write(&[list_of(&ca, 1, 60), list_of(&namesake, 2, 10)]);
        let file = files.open(&path).unwrap();
        let updates = || -> Vec<i64> { file.lists().iter().map(|held| held.crl.this_update()).collect() };
        let first = updates();
        // Files that are written within one tick of the clock differ in length.
        write(&[list_of(&ca, 1, 70), list_of(&namesake, 2, 5), list_of(&namesake, 2, 6)]);
        files.poll();
        assert_eq!((updates(), counters.events("file_refused")), (first.clone(), 1));
        let error = files.report().remove(0).error.unwrap();
        assert!(error.contains("older than the one at hand") && error.contains("start the broker again"), "{error}");
        assert!(files.open(&path).unwrap_err().contains("older than the one at hand"));
        assert_eq!(updates(), first);
        // One that is newer, and one that is left out.
        write(&[list_of(&ca, 1, 50)]);
        files.poll();
        assert_eq!((updates().len(), counters.events("file_refused")), (1, 1));
        assert!(updates()[0] > first[0]);

        files.upload("bank", list_of(&ca, 1, 60)).unwrap();
        let refused = files.upload("bank", list_of(&ca, 1, 61)).unwrap_err();
        assert!(matches!(&refused, UploadError::Older(cause) if cause.contains("CN=CA")), "{refused}");
        files.upload("bank", list_of(&ca, 1, 60)).unwrap();
        files.remove("bank").unwrap();
        files.upload("bank", list_of(&ca, 1, 61)).unwrap();
    }

    // The lock that handshakes take was held while an uploaded list was written: a disk that hung stopped every handshake.
    #[test]
    fn handshakes_are_answered_while_an_upload_waits_for_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(1 << 20, Some(dir.path().join("crl")), &Arc::default());
        files.upload("old", list()).unwrap();
        // The upload is written to a pipe that nobody reads yet.
        let pipe = dir.path().join("crl/.new.part");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::thread::scope(|scope| {
            let upload = scope.spawn(|| files.upload("new", list()));
            while files.changing.try_lock().is_some() {
                std::thread::yield_now();
            }
            assert_eq!(files.uploads().keys().collect::<Vec<_>>(), ["old"]);
            assert_eq!((files.all().len(), files.report().len()), (1, 1));
            assert!(!upload.is_finished());
            // A pipe cannot be synced, so that the upload fails, and nothing has changed.
            std::fs::read(&pipe).unwrap();
            assert!(matches!(upload.join().unwrap(), Err(UploadError::Write { .. })));
        });
        assert_eq!(files.uploads().len(), 1);
        files.upload("new", list()).unwrap();
        files.remove("old").unwrap();
        assert_eq!(files.uploads().keys().collect::<Vec<_>>(), ["new"]);
    }
}
