//! Keeps back what the database writes while it is opened, until it is known to be good: a start that refuses has changed nothing.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;

/// A file whose changes are kept in memory until they are let go, in their order and with their syncs. Clones are the same file.
#[derive(Debug, Clone)]
pub(super) struct HeldFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Box<dyn StorageBackend>,
    gone: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    acts: Vec<Act>,
    pages: HashMap<u64, Box<[u8]>>,
    /// Once it was changed.
    len: Option<u64>,
    /// Of the file itself, which does not change before it is let go.
    file_len: Option<u64>,
}

#[derive(Debug)]
enum Act {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl HeldFile {
    pub fn new(file: Box<dyn StorageBackend>) -> HeldFile {
        HeldFile(Arc::new(Inner { file, gone: AtomicBool::new(false), kept: Mutex::default() }))
    }

    /// Makes what was kept back happen, and everything later at once.
    pub fn let_go(&self) -> io::Result<()> {
        let kept = std::mem::take(&mut *self.0.kept.lock());
        for act in kept.acts {
            match act {
                Act::Write(offset, data) => self.0.file.write(offset, &data)?,
                Act::SetLen(len) => self.0.file.set_len(len)?,
                Act::Sync => self.0.file.sync_data()?,
            }
        }
        self.0.gone.store(true, Ordering::Release);
        Ok(())
    }

    fn gone(&self) -> Option<&dyn StorageBackend> {
        self.0.gone.load(Ordering::Acquire).then_some(&*self.0.file)
    }
}

impl Kept {
    /// The page as it is now.
    fn page(&mut self, index: u64, file: &dyn StorageBackend) -> io::Result<&mut Box<[u8]>> {
        Ok(match self.pages.entry(index) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                let mut page = vec![0; PAGE].into_boxed_slice();
                let (start, len) = (index * PAGE as u64, file.len()?);
                let there = usize::try_from(len.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
                if let Some(part) = page.get_mut(..there).filter(|part| !part.is_empty()) {
                    file.read(start, part)?;
                }
                place.insert(page)
            }
        })
    }

    fn len(&self, file: &dyn StorageBackend) -> io::Result<u64> {
        self.len.map_or_else(|| file.len(), Ok)
    }
}

impl StorageBackend for HeldFile {
    fn len(&self) -> io::Result<u64> {
        match self.gone() {
            Some(file) => file.len(),
            None => self.0.kept.lock().len(&*self.0.file),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(file) = self.gone() {
            return file.read(offset, out);
        }
        let mut kept = self.0.kept.lock();
        let file_len = match kept.file_len {
            Some(len) => len,
            None => *kept.file_len.insert(self.0.file.len()?),
        };
        let end = offset.saturating_add(out.len() as u64);
        let pages = offset / PAGE as u64..end.div_ceil(PAGE as u64);
        if kept.acts.is_empty() || (end <= file_len && !pages.into_iter().any(|page| kept.pages.contains_key(&page))) {
            drop(kept);
            return self.0.file.read(offset, out);
        }
        if offset.saturating_add(out.len() as u64) > kept.len(&*self.0.file)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let (index, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (head, tail) = rest.split_at_mut((PAGE - within).min(rest.len()));
            match kept.pages.get(&index) {
                Some(page) => {
                    let found = page.get(within..within + head.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                    head.copy_from_slice(found);
                }
                None => {
                    // Beyond what the file has it was made longer, with zeros.
                    head.fill(0);
                    let there = usize::try_from(file_len.saturating_sub(at)).unwrap_or(usize::MAX);
                    let len = head.len().min(there);
                    if let Some(part) = head.get_mut(..len).filter(|part| !part.is_empty()) {
                        self.0.file.read(at, part)?;
                    }
                }
            }
            at += head.len() as u64;
            rest = tail;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if let Some(file) = self.gone() {
            return file.set_len(len);
        }
        let mut kept = self.0.kept.lock();
        let before = kept.len(&*self.0.file)?;
        if len < before {
            // What is cut off reads as zeros if the file grows again.
            for index in len / PAGE as u64..before.div_ceil(PAGE as u64) {
                let keep = usize::try_from(len.saturating_sub(index * PAGE as u64)).unwrap_or(PAGE).min(PAGE);
                if let Some(cut) = kept.page(index, &*self.0.file)?.get_mut(keep..) {
                    cut.fill(0);
                }
            }
        }
        kept.len = Some(len);
        kept.acts.push(Act::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(file) = self.gone() {
            return file.sync_data();
        }
        let mut kept = self.0.kept.lock();
        kept.acts.push(Act::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(file) = self.gone() {
            return file.write(offset, data);
        }
        let mut kept = self.0.kept.lock();
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (index, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (head, tail) = rest.split_at((PAGE - within).min(rest.len()));
            let place = kept.page(index, &*self.0.file)?.get_mut(within..within + head.len());
            place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(head);
            at += head.len() as u64;
            rest = tail;
        }
        kept.len = Some(kept.len(&*self.0.file)?.max(at));
        kept.acts.push(Act::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }
}
