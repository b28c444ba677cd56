//! A disk that fails when it is told to, with the seal beside it, as a place for a broker's store.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use shangmq::store::Medium;
use testkit::FaultyDisk;

#[derive(Debug, Clone, Default)]
pub struct DiskMedium {
    pub disk: FaultyDisk,
    seal: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Medium for DiskMedium {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.disk.open()))
    }

    fn seal(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.seal.lock().unwrap().clone())
    }

    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        *self.seal.lock().unwrap() = seal.map(<[u8]>::to_vec);
        Ok(())
    }

    fn name(&self) -> String {
        "the disk of the test".to_owned()
    }
}
