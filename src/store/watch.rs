//! Tells what kind of failure the database met: the layer under it, which sees every call, remembers the first.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// A failure of the medium, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing was lost; writing goes on when there is space.
    #[error("no space is left: {0}")]
    Full(String),
    /// After a failed sync the system may have dropped what it could not write, and says so once only: nothing more can be promised
    /// until the file is read from the disk again.
    #[error("a sync failed: {0}")]
    Sync(String),
    #[error("{0}")]
    Io(String),
    #[error("damaged: {0}")]
    Damaged(String),
}

/// The first failure since it was last taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    pub fn take(&self) -> Option<Fault> {
        self.0.lock().take()
    }

    fn note(&self, error: &io::Error, sync: bool) {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let fault = match (sync, full) {
            (true, _) => Fault::Sync(error.to_string()),
            (false, true) => Fault::Full(error.to_string()),
            (false, false) => Fault::Io(error.to_string()),
        };
        let mut first = self.0.lock();
        // A failed sync outweighs what came before it.
        if first.is_none() || sync {
            *first = Some(fault);
        }
    }
}

/// The backend that the database uses.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    faults: Faults,
}

impl Watched {
    pub fn new(inner: Box<dyn StorageBackend>, faults: Faults) -> Watched {
        Watched { inner, faults }
    }

    fn watch<T>(&self, result: io::Result<T>, sync: bool) -> io::Result<T> {
        if let Err(error) = &result {
            self.faults.note(error, sync);
        }
        result
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.watch(self.inner.len(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.watch(self.inner.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch(self.inner.set_len(len), false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch(self.inner.sync_data(), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch(self.inner.write(offset, data), false)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
