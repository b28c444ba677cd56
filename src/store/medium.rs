//! Where a store's bytes live: a directory, or what a test puts in its place.

use redb::StorageBackend;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The database file.
pub const DATABASE: &str = "store.redb";
/// Held locked by the process that uses the directory.
const LOCK: &str = "store.lock";
/// Written by an orderly shutdown, removed at start: says how many commits the database must hold.
const SEAL: &str = "store.clean";

/// A place for one database and its seal.
pub trait Medium: Debug + Send + Sync {
    /// Opens the database's bytes, empty if there are none.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// The seal's text, if the last shutdown wrote one.
    fn seal(&self) -> io::Result<Option<Vec<u8>>>;
    /// Writes or removes the seal, durably.
    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()>;
    /// What to call the database in messages.
    fn name(&self) -> String;
}

/// A directory of the file system, locked for this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "{} is in use by another process, which holds {}; a data directory belongs to one broker",
        .0.display(), .0.join(LOCK).display()
    )]
    InUse(PathBuf),
    #[error("{}: {cause}", .path.display())]
    Io { path: PathBuf, cause: io::Error },
}

impl Directory {
    /// Locks `path`, which must exist.
    pub fn open(path: &Path) -> Result<Directory, DirectoryError> {
        let lock_path = path.join(LOCK);
        let failed = |cause| DirectoryError::Io { path: lock_path.clone(), cause };
        let lock = options().create(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Directory { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(path.to_owned())),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// The database's bytes, which then cannot be changed.
    pub(super) fn open_read_only(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(DatabaseFile { file: File::open(self.database())? }))
    }

    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Whether there is a store in a directory, which is left as it is.
    pub fn has_store(path: &Path) -> bool {
        path.join(DATABASE).is_file()
    }

    /// A new or removed name is durable only when its directory is.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// The failure with the file that it is about: a store is more than its database.
fn naming(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |cause| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
}

/// Only the broker's user reads what clients sent.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Medium for Directory {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.database();
        let existed = path.try_exists()?;
        let file = options().create(true).open(&path)?;
        if !existed {
            file.sync_all()?;
            self.sync_names()?;
        }
        Ok(Box::new(DatabaseFile { file }))
    }

    fn seal(&self) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(SEAL);
        match std::fs::read(&path) {
            Ok(seal) => Ok(Some(seal)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(naming(&path)(error)),
        }
    }

    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        let path = self.path.join(SEAL);
        match seal {
            Some(seal) => {
                let mut file = options().create(true).truncate(true).open(&path).map_err(naming(&path))?;
                file.write_all(seal).and_then(|()| file.sync_all()).map_err(naming(&path))?;
            }
            None => match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(naming(&path)(error)),
            },
        }
        self.sync_names()
    }

    fn name(&self) -> String {
        self.database().display().to_string()
    }
}

/// The file under the database. The directory's lock stands for its own.
#[derive(Debug)]
struct DatabaseFile {
    file: File,
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The database was blamed for a seal that could not be read or removed.
    #[test]
    fn a_failure_of_the_seal_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join(SEAL)).unwrap();
        let failures = [directory.seal().map(drop), directory.set_seal(None), directory.set_seal(Some(b"1"))];
        for failure in failures {
            let said = failure.unwrap_err().to_string();
            assert!(said.contains("store.clean: "), "{said}");
        }
    }
}
