//! Durable state: sessions, subscriptions, messages under way, retained messages, bans, users and rules, in one database with one writer.
//!
//! ```text
//!   connections ──put, delete──▶ pending ──▶ committer ──one transaction, one sync──▶ disk
//!        ▲     ticket                            │                                     │
//!        └── woken when tickets are durable ◀────┘       reader ◀── rows read back ────┘
//! ```
//! A change gets a rising ticket at once and is durable when [`Store::is_durable`] says so; what must not be said before waits for that.
//! The committer takes everything that waits, leaves out what was deleted before it was written, and writes one transaction. Nothing
//! here blocks an executor's thread on the disk.

mod committer;
mod disk;
mod held;
mod kept;
mod key;
mod load;
mod medium;
mod pending;
mod reader;
mod repair;
mod row;
mod watch;

#[cfg(test)]
mod tests;

pub use kept::{Kept, Writing};
pub use key::{Key, Seq, SessionId, Table};
pub use load::{Loaded, LoadedRetained, RecoveredQueue, RecoveredSession, Recovery};
pub use medium::{DATABASE, Directory, DirectoryError, Medium};
pub use pending::Batch;
pub use reader::{QueueRows, Reading, RetainedReading};
pub use repair::{Findings, check, recover};
pub use row::{BanRow, DelayedRow, MAX_STORED_PAYLOAD, Row, RowError, SessionRow, UserRow, WallClock, WillAuthor};
pub use watch::Fault;

pub use crate::session::Ticket;

use crate::config::StoreConfig;
use crate::metrics::Metrics;
use disk::Disk;
use parking_lot::{Condvar, Mutex, RwLock};
use pending::Pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

/// Whether changes can become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    Good = 0,
    /// There is no space. What was taken waits and is written when there is some; nothing new is taken.
    Full = 1,
    /// Nothing becomes durable until the broker is started again.
    Failed = 2,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Health::Good => "it is in order",
            Health::Full => "there is no space on its disk",
            Health::Failed => "its disk has failed, and it takes nothing until the next start",
        })
    }
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store: {0}")]
    Directory(#[from] DirectoryError),
    #[error("store: {name}: {cause}{}", advice(.cause))]
    Open { name: String, cause: Fault },
    #[error("store: {name}: cannot start a thread: {cause}")]
    Thread { name: String, cause: std::io::Error },
}

fn advice(fault: &Fault) -> &'static str {
    match fault {
        Fault::Damaged(_) => {
            "; the file was changed or the disk lost what was written, and the start changed nothing. `shangmq store check` says what can be read, \
             `shangmq store recover` writes what can be read into a new file; or restore the file from a backup"
        }
        Fault::Full(_) => "; make space and start again",
        Fault::Sync(_) | Fault::Io(_) => "",
    }
}

/// The store of one broker.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    reads: Mutex<Option<std::sync::mpsc::Sender<reader::Request>>>,
}

#[derive(Debug)]
struct Shared {
    config: StoreConfig,
    medium: Arc<dyn Medium>,
    clock: WallClock,
    metrics: Arc<Metrics>,
    /// Held for reading while the changes of one message are submitted, for writing while the committer takes what waits: so that they
    /// come into one transaction. Never taken by whoever holds a lock under which changes are submitted.
    gate: RwLock<()>,
    pending: Mutex<Pending>,
    work: Condvar,
    /// Of changes that wait or are being written.
    pending_bytes: AtomicUsize,
    /// Changes up to this ticket can be read back.
    committed: AtomicU64,
    /// Changes up to this ticket are as durable as the configuration asks.
    durable: AtomicU64,
    health: AtomicU8,
    closing: AtomicBool,
    waiters: Mutex<Waiters>,
    disk: RwLock<Option<Arc<Disk>>>,
}

/// Tasks that wait for the next commit. The epoch counts commits, so that a task registers once for each.
#[derive(Debug, Default)]
struct Waiters {
    epoch: u64,
    wakers: Vec<Waker>,
}

/// What a waiting task remembers of its registration.
#[derive(Debug, Default, Clone, Copy)]
pub struct Registration(Option<u64>);

impl Store {
    /// Opens the database, checks it whole, and hands everything it holds to `each`.
    pub fn open(
        medium: Arc<dyn Medium>,
        config: StoreConfig,
        clock: WallClock,
        metrics: Arc<Metrics>,
        each: impl FnMut(Loaded),
    ) -> Result<(Arc<Store>, Recovery), StoreError> {
        let name = medium.name();
        let failed = |cause| StoreError::Open { name: name.clone(), cause };
        let (disk, recovery, orphans) = load::load(&*medium, &config, clock, each).map_err(failed)?;
        let shared = Arc::new(Shared {
            config,
            medium,
            clock,
            metrics,
            gate: RwLock::new(()),
            pending: Mutex::new(Pending::default()),
            work: Condvar::new(),
            pending_bytes: AtomicUsize::new(0),
            committed: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            health: AtomicU8::new(Health::Good as u8),
            closing: AtomicBool::new(false),
            waiters: Mutex::default(),
            disk: RwLock::new(Some(Arc::new(disk))),
        });
        let spawn =
            |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = |cause| StoreError::Thread { name: name.clone(), cause };
        let (reads, requests) = std::sync::mpsc::channel();
        let for_reader = Arc::clone(&shared);
        let reader = spawn("store-reader", Box::new(move || reader::run(&for_reader, &requests))).map_err(thread)?;
        let for_committer = Arc::clone(&shared);
        let committer = spawn("store-committer", Box::new(move || committer::run(&for_committer))).map_err(thread)?;
        let store = Store { shared, threads: Mutex::new(vec![committer, reader]), reads: Mutex::new(Some(reads)) };
        for key in orphans {
            store.delete(key);
        }
        Ok((Arc::new(store), recovery))
    }

    /// Changes that belong together: they are durable together or not at all. It must not be held across an await.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.shared)
    }

    /// Writes a row.
    pub fn put(&self, key: Key, row: Row) -> Ticket {
        self.shared.submit(pending::Op::Put(key, row))
    }

    pub fn delete(&self, key: Key) -> Ticket {
        self.shared.submit(pending::Op::Delete(key))
    }

    /// Deletes every row of a session. No change for it may follow.
    pub fn end_session(&self, id: SessionId) -> Ticket {
        self.shared.submit(pending::Op::EndSession(id))
    }

    pub fn is_durable(&self, ticket: Ticket) -> bool {
        ticket <= self.durable()
    }

    /// The highest ticket whose change, and every one before it, is durable.
    pub fn durable(&self) -> Ticket {
        self.shared.durable.load(Ordering::Acquire)
    }

    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Bytes of retained messages that are kept in memory besides those that are not written yet.
    pub fn retained_cache_bytes(&self) -> usize {
        self.shared.config.retained_cache_size
    }

    /// Whether publishers may go on; with `false` they are to stop reading until a commit.
    pub fn has_room(&self) -> bool {
        self.shared.pending_bytes.load(Ordering::Relaxed) < self.shared.config.max_pending_bytes
    }

    /// Whether it takes changes that nobody is told of.
    pub fn takes(&self) -> bool {
        self.health() == Health::Good && self.has_room()
    }

    /// Has the task woken at the next commit or change of health. `false` if it was not registered before: look again, and call again.
    pub fn register(&self, waker: &Waker, seen: &mut Registration) -> bool {
        let mut waiters = self.shared.waiters.lock();
        if seen.0 == Some(waiters.epoch) {
            return true;
        }
        seen.0 = Some(waiters.epoch);
        waiters.wakers.push(waker.clone());
        // What the caller saw may be from before the last commit.
        false
    }

    /// Waits until it [`takes`](Self::takes) changes; for ever when it has failed.
    pub async fn ready(&self) {
        let mut seen = Registration::default();
        std::future::poll_fn(|cx| {
            loop {
                if self.takes() {
                    return Poll::Ready(());
                }
                if self.register(cx.waker(), &mut seen) {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Waits until a ticket is durable.
    pub async fn wait(&self, ticket: Ticket) -> Result<(), Health> {
        let mut seen = Registration::default();
        std::future::poll_fn(|cx| {
            loop {
                let health = self.health();
                if self.is_durable(ticket) {
                    return Poll::Ready(Ok(()));
                }
                if health != Health::Good {
                    return Poll::Ready(Err(health));
                }
                if self.register(cx.waker(), &mut seen) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Writes everything that waits and closes the database in order. Blocks; `false` if that was not possible.
    pub fn close(&self) -> bool {
        self.stop();
        self.shared.disk.read().is_none() && self.health() == Health::Good
    }

    fn stop(&self) {
        self.shared.closing.store(true, Ordering::Release);
        *self.reads.lock() = None;
        {
            let _pending = self.shared.pending.lock();
            self.shared.work.notify_all();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // Its panics are contained where they can happen; one that was not has been printed.
            let _ended = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Good,
            1 => Health::Full,
            _ => Health::Failed,
        }
    }

    fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
        self.wake_all();
    }

    fn wake_all(&self) {
        let wakers = {
            let mut waiters = self.waiters.lock();
            waiters.epoch += 1;
            std::mem::take(&mut waiters.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }
}
