//! The way of a table in memory to the store: what changes goes there, where there is one, and whoever changes it is told when it is
//! durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Batch, Health, Key, Row, Store, Ticket};

/// Where a table is kept; nowhere until it is said.
#[derive(Debug, Default)]
pub struct Kept {
    store: OnceLock<Arc<Store>>,
    /// Of the last change that was given to the store.
    written: AtomicU64,
}

/// Changes that come into one transaction. To be begun before what they say is locked, and written while it is.
#[derive(Debug)]
pub struct Writing<'a> {
    batch: Option<Batch<'a>>,
    kept: &'a Kept,
}

impl Kept {
    /// Changes are rows of this store from here on.
    pub fn keep_in(&self, store: Arc<Store>) {
        // A broker has one store, and opens it once.
        let _first = self.store.set(store);
    }

    /// Writes a row by itself, or deletes the one that is there. To be called while what it says is locked.
    pub fn write(&self, key: Key, row: Option<Row>) {
        let Some(store) = self.store.get() else { return };
        self.note(match row {
            Some(row) => store.put(key, row),
            None => store.delete(key),
        });
    }

    pub fn begin(&self) -> Writing<'_> {
        Writing { batch: self.store.get().map(|store| store.batch()), kept: self }
    }

    /// Waits until every change is durable; `false` where nothing is stored.
    pub async fn durable(&self) -> Result<bool, Health> {
        let Some(store) = self.store.get() else { return Ok(false) };
        store.wait(self.written.load(Ordering::Acquire)).await.map(|()| true)
    }

    fn note(&self, ticket: Ticket) {
        self.written.store(ticket, Ordering::Release);
    }
}

impl Writing<'_> {
    /// Writes a row, or deletes the one that is there.
    pub fn write(&mut self, key: Key, row: Option<Row>) {
        let Some(batch) = &mut self.batch else { return };
        self.kept.note(match row {
            Some(row) => batch.put(key, row),
            None => batch.delete(key),
        });
    }
}
