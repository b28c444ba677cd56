//! What operators change while the broker runs goes to the store, where there is one, and they are told when it is durable there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::store::{Batch, Health, Key, Row, Store};

/// The way to the store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    store: OnceLock<Arc<Store>>,
    /// Of the last change that was given to the store.
    written: AtomicU64,
}

/// Changes that come into one transaction. To be begun before what they say is locked, and written while it is.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    batch: Option<Batch<'a>>,
    written: &'a AtomicU64,
}

impl Kept {
    /// Changes are rows of this store from here on.
    pub fn keep_in(&self, store: Arc<Store>) {
        // A broker has one store, and opens it once.
        let _first = self.store.set(store);
    }

    pub fn begin(&self) -> Writing<'_> {
        Writing { batch: self.store.get().map(|store| store.batch()), written: &self.written }
    }

    /// Waits until every change is durable; `false` where nothing is stored.
    pub async fn durable(&self) -> Result<bool, Health> {
        let Some(store) = self.store.get() else { return Ok(false) };
        store.wait(self.written.load(Ordering::Acquire)).await.map(|()| true)
    }
}

impl Writing<'_> {
    /// Writes a row, or deletes the one that is there.
    pub fn write(&mut self, key: Key, row: Option<Row>) {
        let Some(batch) = &mut self.batch else { return };
        let ticket = match row {
            Some(row) => batch.put(key, row),
            None => batch.delete(key),
        };
        self.written.store(ticket, Ordering::Release);
    }
}
