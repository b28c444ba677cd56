//! For an operator with a damaged file: what it holds, and everything that can be read of it in a new one. Neither changes the file.

use super::disk::{Change, Changes, Disk};
use super::held::HeldFile;
use super::key::Table;
use super::load::{self, seal_text};
use super::medium::{Directory, Medium};
use super::row::WallClock;
use super::watch::Fault;
use super::{Key, Row, StoreError};
use std::collections::BTreeSet;
use std::path::Path;

const CACHE: usize = 64 << 20;
/// Rows in one transaction of the new file.
const BATCH: usize = 10_000;
/// Faults that are described; the others are counted.
const DESCRIBED: usize = 20;

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Findings {
    /// Rows that can be read, in the order of [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
    pub damaged_rows: u64,
    /// What is wrong, beginning with the file as a whole.
    pub faults: Vec<String>,
}

impl Findings {
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    fn note(&mut self, fault: String) {
        if self.faults.len() < DESCRIBED {
            self.faults.push(fault);
        }
    }
}

/// Reads the whole file.
///
/// # Errors
/// When the directory cannot be used; damage is no error.
pub fn check(directory: &Directory) -> Result<Findings, StoreError> {
    survey(directory, |_, _| Ok(()))
}

/// Writes every row that can be read to a new database in `to`, which must have none.
///
/// # Errors
/// When one of the directories cannot be used or the new file cannot be written.
pub fn recover(from: &Directory, to: &Path) -> Result<Findings, StoreError> {
    let to = Directory::open(to)?;
    let failed = |cause| StoreError::Open { name: to.name(), cause };
    if to.database().exists() {
        return Err(failed(Fault::Io("there is a database already".to_owned())));
    }
    let file = to.open().map_err(|cause| failed(Fault::Io(cause.to_string())))?;
    let disk = Disk::open(file, CACHE, WallClock::default(), true, |_| {}).map_err(failed)?;
    let mut changes = Changes::new();
    let write = |changes: &mut Changes| {
        let written = disk.commit(&BTreeSet::new(), changes, true);
        changes.clear();
        written.map(|_| ())
    };
    let findings = survey(from, |key, row| {
        changes.insert(key, Change { row: Some(row), fresh: false });
        if changes.len() < BATCH { Ok(()) } else { write(&mut changes) }
    })?;
    write(&mut changes).map_err(failed)?;
    let commits = disk.commits().map_err(failed)?;
    disk.close().map_err(failed)?;
    to.set_seal(Some(&seal_text(commits))).map_err(|cause| failed(Fault::Io(cause.to_string())))?;
    Ok(findings)
}

fn survey(directory: &Directory, mut each: impl FnMut(Key, Row) -> Result<(), Fault>) -> Result<Findings, StoreError> {
    let failed = |cause| StoreError::Open { name: directory.name(), cause };
    // Nothing is let go, so nothing is changed.
    let open = |check| {
        let file = directory.open_read_only().map_err(load::io_fault)?;
        Disk::open(Box::new(HeldFile::new(file)), CACHE, WallClock::default(), check, |_| {})
    };
    let mut findings = Findings::default();
    let disk = match open(true) {
        Ok(disk) => Some(disk),
        Err(fault @ Fault::Damaged(_)) => {
            findings.note(fault.to_string());
            // What a check refuses may be readable in part.
            open(false).map_err(|fault| findings.note(format!("nothing can be read: {fault}"))).ok()
        }
        Err(other) => return Err(failed(other)),
    };
    let Some(disk) = disk else { return Ok(findings) };
    if let (Ok(Some(seal)), Ok(found)) = (directory.seal(), disk.commits())
        && seal != seal_text(found)
    {
        findings.note(format!("it holds {found} commits, which is not what the last orderly shutdown left"));
    }
    let mut trouble = None;
    for (table, count) in Table::ALL.into_iter().zip(0..) {
        let mut read = 0;
        let faults = disk.survey(table, |key, row| match row {
            Ok(row) => {
                read += 1;
                if trouble.is_none() {
                    trouble = each(key, row).err();
                }
            }
            Err(error) => {
                findings.damaged_rows += 1;
                findings.note(format!("the row of {key:?}: {error}"));
            }
        });
        if let Some(place) = findings.rows.get_mut(count) {
            *place = read;
        }
        for fault in faults {
            findings.note(format!("table {}: {fault}", table.name()));
        }
    }
    match trouble {
        Some(cause) => Err(failed(cause)),
        None => Ok(findings),
    }
}
