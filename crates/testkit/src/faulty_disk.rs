//! A disk in memory that loses power, runs out of space and fails to sync: what a database is tried on.
//!
//! It keeps what was synced apart from what was only written. After a power loss a page that was written and not synced is there, or
//! not, or in part; which one is decided by dice, so that a seed replays it. The file's length is one that it had since the last sync:
//! file systems keep it in a journal or in one sector, so that it is not torn.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::StorageBackend;

const PAGE: usize = 4096;
/// What a disk writes at once: a page can be torn between two of them.
const SECTOR: usize = 512;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// From `from` up to but without `to`.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll() % (to - from))
    }

    /// Other dice, whose numbers do not depend on how often these are rolled later.
    pub fn fork(&mut self) -> Dice {
        Dice(self.roll())
    }
}

/// One file on such a disk. Clones are the same file.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    synced: Vec<u8>,
    written: Vec<u8>,
    /// Lengths of the file since the last sync.
    lengths: Vec<usize>,
    /// Pages that differ between the two, or may.
    dirty: BTreeSet<usize>,
    /// Pages that take space.
    allocated: HashSet<usize>,
    /// Raised by every restart: handles from before it are dead.
    life: u64,
    space: Option<usize>,
    fail_syncs: bool,
    fail_writes: bool,
    hold_syncs: bool,
    syncs: u64,
    /// Power goes before this many more calls that change something.
    power_for: Option<u64>,
    dark: bool,
}

impl FaultyDisk {
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// A disk that holds a file with these bytes, all synced.
    pub fn with(bytes: Vec<u8>) -> FaultyDisk {
        let disk = FaultyDisk::new();
        disk.reset(bytes);
        disk
    }

    /// Opens the file.
    pub fn open(&self) -> FaultyFile {
        FaultyFile { disk: self.clone(), life: self.lock().life }
    }

    /// What was written, whether it was synced or not.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().written.clone()
    }

    /// Syncs that worked.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Lets the file take no more than this many bytes; `None` is no limit.
    pub fn limit_space(&self, bytes: Option<usize>) {
        self.lock().space = bytes;
    }

    /// Bytes that the file takes.
    pub fn space_used(&self) -> usize {
        self.lock().allocated.len() * PAGE
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.lock().fail_syncs = fail;
    }

    /// Lets syncs wait until they are not held any more.
    pub fn hold_syncs(&self, hold: bool) {
        self.lock().hold_syncs = hold;
        self.0.released.notify_all();
    }

    pub fn fail_writes(&self, fail: bool) {
        self.lock().fail_writes = fail;
    }

    /// Power goes after this many more writes, syncs and changes of length.
    pub fn cut_power_after(&self, calls: u64) {
        self.lock().power_for = Some(calls);
    }

    /// Power goes now: every call fails until [`restart`](Self::restart).
    pub fn cut_power(&self) {
        self.lock().dark = true;
        self.0.released.notify_all();
    }

    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// The machine starts again with what survived. Faults are gone, and so are all open files.
    pub fn restart(&self, dice: &mut Dice) {
        let survivor = {
            let inner = self.lock();
            let mut survivor = inner.synced.clone();
            let length = match dice.below(inner.lengths.len() + 1) {
                0 => survivor.len(),
                newer => inner.lengths[newer - 1],
            };
            survivor.resize(length, 0);
            for page in &inner.dirty {
                let start = page * PAGE;
                let keep = match dice.below(3) {
                    0 => 0,
                    1 => PAGE,
                    _ => SECTOR * (1 + dice.below(PAGE / SECTOR - 1)),
                };
                let end = (start + keep).min(length).min(inner.written.len());
                if start < end {
                    survivor[start..end].copy_from_slice(&inner.written[start..end]);
                }
            }
            survivor
        };
        self.reset(survivor);
    }

    fn reset(&self, bytes: Vec<u8>) {
        let mut inner = self.lock();
        let allocated = (0..bytes.len().div_ceil(PAGE)).collect();
        *inner = Inner { synced: bytes.clone(), written: bytes, allocated, life: inner.life + 1, ..Inner::default() };
        self.0.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file on a [`FaultyDisk`].
#[derive(Debug)]
pub struct FaultyFile {
    disk: FaultyDisk,
    life: u64,
}

impl FaultyFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.dark || inner.life != self.life {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(inner)
    }

    /// As [`alive`](Self::alive), for a call that changes something.
    fn changing(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.alive()?;
        if let Some(left) = &mut inner.power_for {
            if *left == 0 {
                inner.dark = true;
                return Err(io::Error::from_raw_os_error(EIO));
            }
            *left -= 1;
        }
        Ok(inner)
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.alive()?;
        let start = offset as usize;
        let found = inner.written.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.changing()?;
        let (before, len) = (inner.written.len(), len as usize);
        inner.written.resize(len, 0);
        inner.lengths.push(len);
        inner.dirty.extend(before.min(len) / PAGE..before.max(len).div_ceil(PAGE));
        inner.allocated.retain(|page| page * PAGE < len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.changing()?;
        while inner.hold_syncs && !inner.dark && inner.life == self.life {
            inner = self.disk.0.released.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.dark || inner.life != self.life {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if inner.fail_syncs {
            // As Linux does it: what could not be written counts as clean from now on.
            inner.dirty.clear();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        inner.synced = inner.written.clone();
        inner.lengths.clear();
        inner.dirty.clear();
        inner.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.changing()?;
        if inner.fail_writes {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = offset as usize;
        for (index, byte_chunk) in data.chunks(PAGE).enumerate() {
            let at = start + index * PAGE;
            for page in at / PAGE..=(at + byte_chunk.len() - 1) / PAGE {
                if !inner.allocated.contains(&page) {
                    if inner.space.is_some_and(|space| (inner.allocated.len() + 1) * PAGE > space) {
                        return Err(io::Error::from_raw_os_error(ENOSPC));
                    }
                    inner.allocated.insert(page);
                }
                inner.dirty.insert(page);
            }
            if inner.written.len() < at + byte_chunk.len() {
                let length = at + byte_chunk.len();
                inner.written.resize(length, 0);
                inner.lengths.push(length);
            }
            inner.written[at..at + byte_chunk.len()].copy_from_slice(byte_chunk);
        }
        Ok(())
    }
}
