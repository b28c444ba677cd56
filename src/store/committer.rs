//! The one writer: takes what waits, writes it in one transaction, and tells who waits.

use super::disk::RowCounts;
use super::pending::Transaction;
use super::watch::Fault;
use super::{Health, Shared, Ticket, load};
use crate::config::Durability;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Between attempts to write on a disk without space.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// What was taken from those that wait.
struct Taken {
    transaction: Transaction,
    bytes: usize,
    ticket: Ticket,
}

/// What was committed without a sync. It is kept until it is synced, since the database forgets it when it has to be opened anew.
#[derive(Default)]
struct Unsynced {
    since: Option<Instant>,
    transaction: Transaction,
    bytes: usize,
}

/// Runs until the store closes.
pub(super) fn run(shared: &Shared) {
    let mut unsynced = Unsynced::default();
    loop {
        let mut taken = take(shared, unsynced.since);
        let closing = shared.closing.load(Ordering::Acquire);
        if shared.health() == Health::Failed {
            if closing {
                return;
            }
            unsynced = Unsynced::default();
            continue;
        }
        let sync = closing
            || shared.config.durability == Durability::Always
            || unsynced.since.is_some_and(|since| since.elapsed() >= shared.config.sync_interval)
            || unsynced.bytes > shared.config.max_pending_bytes / 2;
        if !taken.transaction.is_empty() || (sync && unsynced.since.is_some()) {
            match write(shared, &mut taken, &mut unsynced, sync) {
                None => continue,
                Some(Synced(true)) => {
                    shared.release(taken.bytes + unsynced.bytes);
                    unsynced = Unsynced::default();
                }
                Some(Synced(false)) => {
                    unsynced.transaction.absorb(taken.transaction);
                    unsynced.bytes += taken.bytes;
                    unsynced.since.get_or_insert_with(Instant::now);
                }
            }
        } else {
            shared.release(taken.bytes);
        }
        shared.committed.store(taken.ticket, Ordering::Release);
        shared.durable.store(taken.ticket, Ordering::Release);
        shared.wake_all();
        if closing && shared.pending.lock().ops.is_empty() {
            close(shared);
            return;
        }
    }
}

impl Shared {
    fn release(&self, bytes: usize) {
        let left = self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        self.metrics.store.pending_bytes.store(left as u64, Ordering::Relaxed);
    }
}

/// Waits for something to do and takes it.
fn take(shared: &Shared, unsynced_since: Option<Instant>) -> Taken {
    {
        let mut pending = shared.pending.lock();
        while pending.ops.is_empty() && !shared.closing.load(Ordering::Acquire) {
            match unsynced_since {
                None => shared.work.wait(&mut pending),
                Some(since) => {
                    if shared.work.wait_until(&mut pending, since + shared.config.sync_interval).timed_out() {
                        break;
                    }
                }
            }
        }
    }
    let mut taken = Taken { transaction: Transaction::default(), bytes: 0, ticket: 0 };
    taken.take_more(shared);
    taken
}

impl Taken {
    /// Takes what waits; `false` if nothing did.
    fn take_more(&mut self, shared: &Shared) -> bool {
        let (ops, bytes) = {
            // Nobody is between the first and the last change of a message now.
            let _gate = shared.gate.write();
            let mut pending = shared.pending.lock();
            self.ticket = pending.ticket;
            (std::mem::take(&mut pending.ops), std::mem::take(&mut pending.bytes))
        };
        let some = !ops.is_empty();
        self.bytes += bytes;
        for op in ops {
            self.transaction.add(op);
        }
        some
    }

    /// Takes what waits while there is no space. Changes of one key become one, so that it is bounded by the keys that change, and counts
    /// as what it became.
    fn merge(&mut self, shared: &Shared) {
        if !self.take_more(shared) {
            return;
        }
        let merged = self.transaction.cost().min(self.bytes);
        shared.release(self.bytes - merged);
        self.bytes = merged;
    }
}

/// Whether what was written survives the loss of power.
struct Synced(bool);

/// Writes the transaction, if need be when there is space again and with what was not synced; `None` if it cannot be written.
fn write(shared: &Shared, taken: &mut Taken, unsynced: &mut Unsynced, mut sync: bool) -> Option<Synced> {
    loop {
        let disk = shared.disk.read().clone();
        let disk = disk?;
        let begun = Instant::now();
        match disk.commit(&taken.transaction.ended, &taken.transaction.changes, sync) {
            Ok(counts) => {
                count(shared, begun.elapsed(), counts);
                if shared.health() != Health::Good {
                    info!(
                        store = shared.medium.name(),
                        "there is space again: what waited was written, and messages are taken again"
                    );
                    shared.set_health(Health::Good);
                }
                return Some(Synced(sync));
            }
            Err(fault) => {
                shared.metrics.store.failures.fetch_add(1, Ordering::Relaxed);
                drop(disk);
                if !matches!(fault, Fault::Full(_)) {
                    fail(shared, &fault);
                    return None;
                }
                let mut all = std::mem::take(&mut unsynced.transaction);
                all.absorb(std::mem::take(&mut taken.transaction));
                all.written_perhaps();
                taken.transaction = all;
                taken.bytes += std::mem::take(&mut unsynced.bytes);
                sync = true;
                if shared.health() == Health::Good {
                    error!(
                        store = shared.medium.name(),
                        cause = %fault,
                        "the store cannot be written: no durable message is taken and none that waits is acknowledged until there is space"
                    );
                    shared.set_health(Health::Full);
                }
                if !reopen(shared, taken) {
                    return None;
                }
            }
        }
    }
}

/// Opens the database anew until that works; what failed left it unusable. What comes meanwhile is taken.
fn reopen(shared: &Shared, taken: &mut Taken) -> bool {
    let mut wait = FIRST_RETRY;
    loop {
        // Whoever reads holds the old one for a moment longer.
        if let Some(old) = shared.disk.write().take() {
            let mut old = Some(old);
            while let Some(held) = old.take() {
                match Arc::try_unwrap(held) {
                    // Its own way of closing would write.
                    Ok(disk) => drop(disk.close()),
                    Err(held) => {
                        std::thread::sleep(Duration::from_millis(1));
                        old = Some(held);
                    }
                }
            }
        }
        if shared.closing.load(Ordering::Acquire) {
            warn!(store = shared.medium.name(), "closed without space for what waited; it was not acknowledged");
            shared.set_health(Health::Failed);
            return false;
        }
        let next_try = Instant::now() + wait;
        while let Some(left) = next_try.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(FIRST_RETRY));
            taken.merge(shared);
        }
        wait = (wait * 2).min(LAST_RETRY);
        match load::open_disk(&*shared.medium, &shared.config, shared.clock) {
            Ok(disk) => {
                *shared.disk.write() = Some(Arc::new(disk));
                return true;
            }
            Err(Fault::Full(_)) => {}
            Err(fault) => {
                fail(shared, &fault);
                return false;
            }
        }
    }
}

/// Nothing becomes durable any more.
fn fail(shared: &Shared, fault: &Fault) {
    error!(
        store = shared.medium.name(),
        cause = %fault,
        "the store failed: nothing that was not durable is acknowledged, and no durable session or message is taken. Check the disk \
         and the system's log, then start the broker again; it checks the whole file and goes on from the last commit"
    );
    {
        let mut pending = shared.pending.lock();
        shared.health.store(Health::Failed as u8, Ordering::Release);
        pending.ops = Vec::new();
        pending.bytes = 0;
        shared.pending_bytes.store(0, Ordering::Relaxed);
    }
    shared.set_health(Health::Failed);
}

fn count(shared: &Shared, elapsed: Duration, counts: RowCounts) {
    let metrics = &shared.metrics.store;
    metrics.commits.fetch_add(1, Ordering::Relaxed);
    metrics.commit_seconds.observe(elapsed.as_secs_f64());
    for (gauge, rows) in metrics.rows.iter().zip(counts) {
        gauge.store(rows, Ordering::Relaxed);
    }
}

/// Closes the database and says in the seal what it must hold when it is opened again.
fn close(shared: &Shared) {
    let Some(mut disk) = shared.disk.write().take() else { return };
    let disk = loop {
        match Arc::try_unwrap(disk) {
            Ok(disk) => break disk,
            Err(held) => {
                std::thread::sleep(Duration::from_millis(1));
                disk = held;
            }
        }
    };
    let closed = disk.commits().and_then(|commits| disk.close().map(|()| commits));
    let sealed = closed.and_then(|commits| {
        let seal = load::seal_text(commits);
        shared.medium.set_seal(Some(&seal)).map_err(|cause| Fault::Io(cause.to_string()))
    });
    if let Err(fault) = sealed {
        warn!(store = shared.medium.name(), cause = %fault, "the store was not closed in order; the next start checks it as after a crash");
    }
}
