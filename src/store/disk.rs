//! The database: tables of checked rows and a count of commits. The only file that knows redb's transactions.
//!
//! redb verifies its own pages only when asked, and may panic on a file that was changed behind its back: the whole file is checked when
//! it is opened, every row is checked when it is read, and a panic becomes a [`Fault`].

use super::key::{Key, Seq, SessionId, Table};
use super::row::{Row, RowError, WallClock};
use super::watch::{Fault, Faults, Watched};
use crate::session::{LoadedRow, Message};
use bytes::BytesMut;
use bytestring::ByteString;
use hashbrown::HashMap;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Bytes2 = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Bytes2 = TableDefinition::new("meta");
const COMMITS: &[u8] = b"commits";
const FORMAT: &[u8] = b"format";
/// Raised when an older version could not read what this one writes, or would overlook it.
const FORMAT_VERSION: u64 = 2;
/// The oldest that is read. Every row of format 1 is one of format 2 as well, which adds what came by shared subscriptions, ended sessions
/// that leave something, users, rules, bans and delayed messages.
const OLDEST_FORMAT: u64 = 1;

fn definition(table: Table) -> Bytes2 {
    TableDefinition::new(table.name())
}

/// What a transaction does, in the order of tables and keys.
pub(super) type Changes = BTreeMap<Key, Change>;

/// What a transaction does to one key.
#[derive(Debug)]
pub(super) struct Change {
    /// `None` deletes it.
    pub row: Option<Row>,
    /// The key came into being with this change: deleting it before it was written leaves nothing to do.
    pub fresh: bool,
}

/// Rows of each table after a commit, in the order of [`Table::ALL`].
pub(super) type RowCounts = [u64; Table::ALL.len()];

#[derive(Debug)]
pub(super) struct Disk {
    /// `None` once it is closed.
    database: Option<Database>,
    faults: Faults,
    clock: WallClock,
}

/// Deliveries of one session.
#[derive(Debug)]
pub(super) struct FoundRows {
    pub rows: Vec<(Seq, LoadedRow)>,
    /// Rows among them that cannot be read, and why.
    pub damaged: Vec<(Seq, RowError)>,
    /// There were no more than these.
    pub all: bool,
}

/// How much one read returns: at least one row, if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimit {
    pub rows: usize,
    pub bytes: usize,
}

impl Disk {
    /// Opens or makes the database, and with `check` checks every page of it.
    pub fn open(
        backend: Box<dyn redb::StorageBackend>,
        cache_bytes: usize,
        clock: WallClock,
        check: bool,
        progress: impl Fn(f64) + 'static,
    ) -> Result<Disk, Fault> {
        let faults = Faults::default();
        let watched = Watched::new(backend, faults.clone());
        let database = contained(&faults, || {
            Database::builder()
                .set_cache_size(cache_bytes)
                .set_check_integrity_on_open(check)
                .set_repair_callback(move |session| progress(session.progress()))
                .create_with_backend(watched)
                .map_err(redb::Error::from)
        })?;
        let disk = Disk { database: Some(database), faults, clock };
        let format = disk.meta(FORMAT)?;
        if let Some(format) = format.filter(|format| !(OLDEST_FORMAT..=FORMAT_VERSION).contains(format)) {
            let other = if format > FORMAT_VERSION { "a newer" } else { "another" };
            return Err(Fault::Io(format!(
                "it is of format {format}, by {other} version of the broker, and this version reads formats {OLDEST_FORMAT} to \
                 {FORMAT_VERSION}; start the version that wrote it, or restore a backup of the time before it"
            )));
        }
        if format.is_none() && disk.meta(COMMITS)?.is_some() {
            return Err(Fault::Damaged("its format is missing".to_owned()));
        }
        if format != Some(FORMAT_VERSION) {
            disk.contained(|| {
                let transaction = disk.database()?.begin_write()?;
                {
                    let mut meta = transaction.open_table(META)?;
                    meta.insert(FORMAT, meta_value(FORMAT, FORMAT_VERSION).as_slice())?;
                    if format.is_none() {
                        meta.insert(COMMITS, meta_value(COMMITS, 0).as_slice())?;
                    }
                    for table in Table::ALL {
                        transaction.open_table(definition(table))?;
                    }
                }
                Ok(transaction.commit()?)
            })?;
        }
        Ok(disk)
    }

    /// Commits since the database was made.
    pub fn commits(&self) -> Result<u64, Fault> {
        self.meta(COMMITS)?.ok_or_else(|| Fault::Damaged("its count of commits is missing".to_owned()))
    }

    /// Applies everything or nothing. Without `sync` the changes become durable with a later commit that has it.
    pub fn commit(&self, ended: &BTreeSet<SessionId>, changes: &Changes, sync: bool) -> Result<RowCounts, Fault> {
        self.contained(|| {
            let mut transaction = self.database()?.begin_write()?;
            transaction.set_durability(if sync { Durability::Immediate } else { Durability::None })?;
            let mut counts = RowCounts::default();
            let mut key_bytes = Vec::new();
            let mut value = BytesMut::new();
            let mut changes = changes.iter().peekable();
            for (table, count) in Table::ALL.into_iter().zip(&mut counts) {
                let mut rows = transaction.open_table(definition(table))?;
                if Table::OF_SESSIONS.contains(&table) {
                    for id in ended {
                        let (from, to) = session_range(*id);
                        rows.retain_in::<&[u8], _>(
                            (bound(&from), to.as_deref().map_or(Bound::Unbounded, Bound::Excluded)),
                            |_, _| false,
                        )?;
                    }
                }
                while let Some((key, change)) = changes.next_if(|(key, _)| key.table() == table) {
                    key_bytes.clear();
                    key.encode(&mut key_bytes);
                    match &change.row {
                        Some(row) => {
                            value.clear();
                            row.encode(table, &key_bytes, self.clock, &mut value);
                            rows.insert(&*key_bytes, &*value)?;
                        }
                        None => {
                            rows.remove(&*key_bytes)?;
                        }
                    }
                }
                *count = rows.len()?;
            }
            {
                let mut meta = transaction.open_table(META)?;
                let before = meta.get(COMMITS)?.and_then(|found| meta_number(COMMITS, found.value()));
                let before = before.ok_or_else(|| damaged("its count of commits is damaged"))?;
                meta.insert(COMMITS, meta_value(COMMITS, before + 1).as_slice())?;
            }
            transaction.commit()?;
            Ok(counts)
        })
    }

    /// The deliveries of a session from a number on.
    pub fn deliveries(&self, session: SessionId, from: Seq, limit: ReadLimit) -> Result<FoundRows, Fault> {
        let first = Key::Delivery(session, from).to_bytes();
        let last = Key::Delivery(session, Seq::MAX).to_bytes();
        let mut found = FoundRows { rows: Vec::new(), damaged: Vec::new(), all: true };
        let mut bytes = 0;
        self.scan(Table::Deliveries, (Bound::Included(&first), Bound::Included(&last)), |key, row| {
            let Key::Delivery(_, seq) = key else { return Ok(true) };
            let read = found.rows.len() + found.damaged.len();
            if read >= limit.rows.max(1) || (bytes >= limit.bytes && read > 0) {
                found.all = false;
                return Ok(false);
            }
            match row {
                Ok(Row::Delivery(delivery)) => {
                    bytes += delivery.cost();
                    found.rows.push((seq, LoadedRow::Publish(delivery)));
                }
                Ok(_) => found.rows.push((seq, LoadedRow::Released)),
                Err(error) => found.damaged.push((seq, error)),
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// The retained messages of these topics, as far as there are any.
    pub fn retained(&self, topics: &[ByteString]) -> Result<HashMap<ByteString, Arc<Message>>, Fault> {
        self.contained(|| {
            let rows = self.database()?.begin_read()?.open_table(definition(Table::Retained))?;
            let mut found = HashMap::with_capacity(topics.len());
            for topic in topics {
                let Some(value) = rows.get(topic.as_bytes().as_ref())? else { continue };
                let key = Key::Retained(topic.clone());
                let row = Row::decode(&key, topic.as_bytes(), value.value(), self.clock);
                if let Row::Retained(message) = row.map_err(|error| damaged_row(&key, error))? {
                    found.insert(topic.clone(), message);
                }
            }
            Ok(found)
        })
    }

    /// Calls `each` for every row of a table in the order of its keys, until it says no.
    pub fn for_each(&self, table: Table, mut each: impl FnMut(Key, Row) -> bool) -> Result<(), Fault> {
        self.scan(table, (Bound::Unbounded, Bound::Unbounded), |key, row| match row {
            Ok(row) => Ok(each(key, row)),
            Err(error) => Err(damaged_row(&key, error)),
        })
    }

    /// Calls `each` for every row of a table that can be reached, from both ends if there is a gap, and returns what went wrong.
    pub fn survey(&self, table: Table, mut each: impl FnMut(Key, Result<Row, RowError>)) -> Vec<Fault> {
        let mut reached: Option<Vec<u8>> = None;
        let mut faults = Vec::new();
        for backward in [false, true] {
            let walked = self.contained(|| {
                let rows = match self.database()?.begin_read()?.open_table(definition(table)) {
                    Ok(rows) => rows,
                    Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let mut range = rows.iter()?;
                while let Some(entry) = if backward { range.next_back() } else { range.next() } {
                    let (key_bytes, value) = entry?;
                    let key_bytes = key_bytes.value();
                    if backward && reached.as_deref().is_some_and(|reached| key_bytes <= reached) {
                        break;
                    }
                    let key = decode_key(table, key_bytes)?;
                    let row = Row::decode(&key, key_bytes, value.value(), self.clock);
                    each(key, row);
                    if !backward {
                        reached = Some(key_bytes.to_vec());
                    }
                }
                Ok(())
            });
            match walked {
                Ok(()) => break,
                Err(fault) => faults.push(fault),
            }
        }
        faults
    }

    /// Calls `each` with the key and the bytes of every row of a table, whose checksum is verified and whose contents are not read.
    pub fn for_each_key(&self, table: Table, mut each: impl FnMut(Key, &[u8])) -> Result<(), Fault> {
        self.contained(|| {
            let rows = self.database()?.begin_read()?.open_table(definition(table))?;
            for entry in rows.iter()? {
                let (key_bytes, value) = entry?;
                let (key, value) = (decode_key(table, key_bytes.value())?, value.value());
                Row::verify(table, key_bytes.value(), value).map_err(|error| damaged_row(&key, error))?;
                each(key, value);
            }
            Ok(())
        })
    }

    /// Closes the database in order, so that the next start need not repair it.
    pub fn close(mut self) -> Result<(), Fault> {
        let Some(database) = self.database.take() else { return Ok(()) };
        self.contained(|| Ok(database.close()?))
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&Vec<u8>>, Bound<&Vec<u8>>),
        mut each: impl FnMut(Key, Result<Row, RowError>) -> Result<bool, redb::Error>,
    ) -> Result<(), Fault> {
        let range = (range.0.map(Vec::as_slice), range.1.map(Vec::as_slice));
        self.contained(|| {
            let rows = match self.database()?.begin_read()?.open_table(definition(table)) {
                Ok(rows) => rows,
                // A version that did not know it made the file; the first commit makes the table.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for entry in rows.range::<&[u8]>(range)? {
                let (key_bytes, value) = entry?;
                let (key_bytes, value) = (key_bytes.value(), value.value());
                let key = decode_key(table, key_bytes)?;
                let row = Row::decode(&key, key_bytes, value, self.clock);
                if !each(key, row)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Makes a file that another version wrote, as far as it shows: `without` is a table that it did not know.
    #[cfg(test)]
    pub fn make_format(&self, format: u64, without: Table) {
        self.contained(|| {
            let transaction = self.database()?.begin_write()?;
            transaction.open_table(META)?.insert(FORMAT, meta_value(FORMAT, format).as_slice())?;
            transaction.delete_table(definition(without))?;
            Ok(transaction.commit()?)
        })
        .unwrap();
    }

    #[cfg(test)]
    pub fn format(&self) -> Option<u64> {
        self.meta(FORMAT).unwrap()
    }

    fn meta(&self, name: &'static [u8]) -> Result<Option<u64>, Fault> {
        self.contained(|| {
            let meta = match self.database()?.begin_read()?.open_table(META) {
                Ok(meta) => meta,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let Some(found) = meta.get(name)? else { return Ok(None) };
            meta_number(name, found.value()).map(Some).ok_or_else(|| damaged("its description of itself is damaged"))
        })
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn contained<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
        contained(&self.faults, work)
    }
}

impl Drop for Disk {
    /// Letting go of a database brings its bookkeeping in order, and panics where that is damaged.
    fn drop(&mut self) {
        if let Some(database) = self.database.take()
            && let Err(fault) = self.contained(|| {
                drop(database);
                Ok(())
            })
        {
            tracing::debug!(%fault, "the database could not be let go of in order");
        }
    }
}

/// Runs `work` on the database. Whatever goes wrong comes out as a [`Fault`], a panic too.
fn contained<T>(faults: &Faults, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            return Err(faults.take().unwrap_or_else(|| Fault::Damaged(format!("the database gave up on it: {text}"))));
        }
    };
    let fault = match &error {
        redb::Error::Corrupted(what) => Fault::Damaged(what.clone()),
        // Not a database, or one of another version.
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Fault::Damaged(io.to_string()),
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            Fault::Damaged(format!("it ends before its contents do: {io}"))
        }
        other => Fault::Io(other.to_string()),
    };
    let noted = faults.take();
    Err(match (fault, noted) {
        (Fault::Damaged(what), _) => Fault::Damaged(what),
        (_, Some(noted)) => noted,
        (fault, None) => fault,
    })
}

fn damaged(what: &str) -> redb::Error {
    redb::Error::Corrupted(what.to_owned())
}

fn decode_key(table: Table, bytes: &[u8]) -> Result<Key, redb::Error> {
    Key::decode(table, bytes).ok_or_else(|| damaged(&format!("a key of table {} is not one", table.name())))
}

fn damaged_row(key: &Key, error: RowError) -> redb::Error {
    damaged(&format!("the row of {key:?}: {error}"))
}

fn bound(bytes: &[u8]) -> Bound<&[u8]> {
    Bound::Included(bytes)
}

/// The keys of one session's rows in each table; no end for the last session there can be.
fn session_range(id: SessionId) -> (Vec<u8>, Option<Vec<u8>>) {
    (id.to_be_bytes().to_vec(), id.checked_add(1).map(|next| next.to_be_bytes().to_vec()))
}

fn meta_value(name: &[u8], number: u64) -> [u8; 12] {
    let mut value = [0; 12];
    let (head, tail) = value.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    tail.copy_from_slice(&crc32c::crc32c_append(crc32c::crc32c(name), &number.to_le_bytes()).to_le_bytes());
    value
}

fn meta_number(name: &[u8], value: &[u8]) -> Option<u64> {
    let (number, sum) = value.split_first_chunk::<8>()?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(name), number).to_le_bytes();
    (sum == expected).then(|| u64::from_le_bytes(*number))
}
