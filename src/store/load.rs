//! The start: opens the database, checks it against its seal, and reads what it holds.

use super::disk::Disk;
use super::held::HeldFile;
use super::key::{Key, Seq, SessionId, Table};
use super::medium::Medium;
use super::row::{BanRow, DelayedRow, Row, SessionRow, UserRow, WallClock};
use super::watch::Fault;
use crate::config::StoreConfig;
use crate::session::{Millis, SubscriptionOptions};
use bytestring::ByteString;
use hashbrown::HashMap;
use std::cell::Cell;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::info;

/// A start that takes longer says how far it is, this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What the database holds, one by one.
#[derive(Debug)]
pub enum Loaded {
    Session(Box<RecoveredSession>),
    Retained(LoadedRetained),
    /// Whom it is about, and the ban.
    Ban(ByteString, BanRow),
    User(ByteString, UserRow),
    /// Whom they are for, and rules for topics.
    Acl(ByteString, ByteString),
    /// Its number, and the message; in the order of their numbers.
    Delayed(u64, Box<DelayedRow>),
}

/// A retained message without its contents, which stay on disk.
#[derive(Debug)]
pub struct LoadedRetained {
    pub topic: ByteString,
    /// What it counts towards the limits.
    pub bytes: usize,
    pub expires_at: Option<Millis>,
}

/// A session with all that belongs to it but its messages.
#[derive(Debug)]
pub struct RecoveredSession {
    pub id: SessionId,
    pub row: SessionRow,
    pub subscriptions: Vec<(ByteString, SubscriptionOptions)>,
    pub inbound: Vec<NonZeroU16>,
    pub queue: RecoveredQueue,
}

/// The deliveries of a session that are on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecoveredQueue {
    pub rows: u64,
    pub bytes: u64,
    /// The numbers of the first and last row; 0 without rows.
    pub first: Seq,
    pub last: Seq,
    /// The number of the last among those that can have been in flight.
    pub in_flight: Seq,
    /// One of them came by a shared subscription.
    pub shared: bool,
}

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    pub sessions: usize,
    pub subscriptions: usize,
    pub queued: u64,
    pub retained: usize,
    pub delayed: usize,
    /// The last shutdown closed the database in order.
    pub clean: bool,
    /// There was no database yet.
    pub new: bool,
}

/// Tells the log how far a long start is.
struct Progress {
    name: String,
    begun: Instant,
    told: Instant,
}

impl Progress {
    fn new(name: String) -> Progress {
        Progress { name, begun: Instant::now(), told: Instant::now() }
    }

    fn at(&mut self, what: &str, count: usize) {
        if count.is_multiple_of(4096) && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            info!(store = self.name, seconds = self.begun.elapsed().as_secs(), count, "reading {what}");
        }
    }
}

/// Opens the database for writing.
pub(super) fn open_disk(medium: &dyn Medium, config: &StoreConfig, clock: WallClock) -> Result<Disk, Fault> {
    let (disk, file) = open_verified(medium, config, clock)?;
    file.let_go().map_err(io_fault)?;
    Ok(disk)
}

/// Opens the database with every page of it verified: by its repair if it was not closed in order, and by a check if it was. What that
/// writes is kept back.
fn open_verified(medium: &dyn Medium, config: &StoreConfig, clock: WallClock) -> Result<(Disk, HeldFile), Fault> {
    let open = |check| {
        let file = HeldFile::new(medium.open().map_err(io_fault)?);
        let repaired = Rc::new(Cell::new(false));
        let told = Cell::new(Instant::now());
        let (name, begun, repairing) = (medium.name(), Instant::now(), Rc::clone(&repaired));
        let progress = move |progress: f64| {
            repairing.set(true);
            if told.get().elapsed() >= PROGRESS_EVERY {
                told.set(Instant::now());
                info!(
                    store = name,
                    seconds = begun.elapsed().as_secs(),
                    "checking the database: {:.0} %",
                    progress * 100.0
                );
            }
        };
        let disk = Disk::open(Box::new(file.clone()), config.cache_size, clock, check, progress)?;
        Ok::<_, Fault>((disk, file, repaired.get()))
    };
    let (disk, file, repaired) = open(false)?;
    if repaired {
        return Ok((disk, file));
    }
    drop(disk);
    let (disk, file, _) = open(true)?;
    Ok((disk, file))
}

pub(super) fn io_fault(cause: std::io::Error) -> Fault {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Fault::Full(cause.to_string()),
        _ => Fault::Io(cause.to_string()),
    }
}

/// Opens and reads the database. Also returns rows that belong to no session; they are to be deleted.
pub(super) fn load(
    medium: &dyn Medium,
    config: &StoreConfig,
    clock: WallClock,
    mut each: impl FnMut(Loaded),
) -> Result<(Disk, Recovery, Vec<Key>), Fault> {
    let seal = medium.seal().map_err(io_fault)?.and_then(|text| read_seal(&text));
    let new = medium.open().and_then(|file| file.len()).map_err(io_fault)? == 0;
    if let Some(commits) = seal.filter(|_| new) {
        return Err(Fault::Damaged(format!("it is empty, but {commits} commits were made to it")));
    }
    let (disk, file) = open_verified(medium, config, clock)?;
    if let Some(expected) = seal {
        let found = disk.commits()?;
        if found != expected {
            return Err(Fault::Damaged(format!(
                "it holds {found} commits, but the last orderly shutdown left {expected}: its last part is lost or it is another file"
            )));
        }
    }
    let mut recovery = Recovery { clean: seal.is_some(), new, ..Recovery::default() };
    let mut progress = Progress::new(medium.name());
    let orphans = load_sessions(&disk, config, &mut recovery, &mut progress, &mut each)?;
    disk.for_each(Table::Retained, |_, row| {
        if let Row::Retained(message) = row {
            recovery.retained += 1;
            progress.at("retained messages", recovery.retained);
            // A copy of its own: the topic must not keep the whole message in memory.
            let topic = ByteString::from(String::from(&*message.topic));
            each(Loaded::Retained(LoadedRetained { topic, bytes: message.cost(), expires_at: message.expires_at }));
        }
        true
    })?;
    disk.for_each(Table::Bans, |key, row| {
        if let (Key::Ban(subject), Row::Ban(ban)) = (key, row) {
            each(Loaded::Ban(subject, ban));
        }
        true
    })?;
    for table in [Table::Users, Table::Acl] {
        disk.for_each(table, |key, row| {
            match (key, row) {
                (Key::User(name), Row::User(row)) => each(Loaded::User(name, row)),
                (Key::Acl(subject), Row::Acl(rules)) => each(Loaded::Acl(subject, rules)),
                _ => {}
            }
            true
        })?;
    }
    disk.for_each(Table::Delayed, |key, row| {
        if let (Key::Delayed(number), Row::Delayed(delayed)) = (key, row) {
            recovery.delayed += 1;
            progress.at("delayed messages", recovery.delayed);
            each(Loaded::Delayed(number, delayed));
        }
        true
    })?;
    // From here on the seal does not hold.
    medium.set_seal(None).map_err(io_fault)?;
    file.let_go().map_err(io_fault)?;
    Ok((disk, recovery, orphans))
}

fn load_sessions(
    disk: &Disk,
    config: &StoreConfig,
    recovery: &mut Recovery,
    progress: &mut Progress,
    each: &mut impl FnMut(Loaded),
) -> Result<Vec<Key>, Fault> {
    let mut sessions: HashMap<SessionId, RecoveredSession> = HashMap::new();
    let mut orphans = Vec::new();
    disk.for_each(Table::Sessions, |key, row| {
        if let (Key::Session(id), Row::Session(row)) = (key, row) {
            let (subscriptions, inbound) = (Vec::new(), Vec::new());
            let session = RecoveredSession { id, row: *row, subscriptions, inbound, queue: RecoveredQueue::default() };
            sessions.insert(id, session);
            progress.at("sessions", sessions.len());
        }
        true
    })?;
    recovery.sessions = sessions.len();
    disk.for_each(Table::Subscriptions, |key, row| {
        if let (Key::Subscription(id, filter), Row::Subscription(options)) = (&key, row) {
            match sessions.get_mut(id) {
                Some(session) => {
                    session.subscriptions.push((filter.clone(), options));
                    recovery.subscriptions += 1;
                    progress.at("subscriptions", recovery.subscriptions);
                }
                None => orphans.push(key),
            }
        }
        true
    })?;
    disk.for_each_key(Table::Deliveries, |key, value| {
        let Key::Delivery(id, seq) = key else { return };
        match sessions.get_mut(&id) {
            Some(RecoveredSession { queue, .. }) => {
                queue.rows += 1;
                queue.bytes += value.len() as u64;
                queue.shared |= Row::is_shared(value);
                queue.last = seq;
                if queue.rows == 1 {
                    queue.first = seq;
                }
                if queue.rows <= config.max_in_flight {
                    queue.in_flight = seq;
                }
                recovery.queued += 1;
                progress.at("queued messages", usize::try_from(recovery.queued).unwrap_or(usize::MAX));
            }
            None => orphans.push(key),
        }
    })?;
    disk.for_each_key(Table::Inbound, |key, _| {
        let Key::Inbound(id, packet_id) = key else { return };
        match sessions.get_mut(&id) {
            Some(session) => session.inbound.push(packet_id),
            None => orphans.push(key),
        }
    })?;
    for session in sessions.into_values() {
        each(Loaded::Session(Box::new(session)));
    }
    Ok(orphans)
}

/// The seal of a database that holds so many commits.
pub(super) fn seal_text(commits: u64) -> Vec<u8> {
    let line = format!("closed after commit {commits}");
    format!("{line}\n{:08x}\n", crc32c::crc32c(line.as_bytes())).into_bytes()
}

/// The commits that a seal speaks of. A seal that is damaged is none: the start is then as after a crash.
fn read_seal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (line, sum) = text.strip_suffix('\n')?.split_once('\n')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(line.as_bytes()) {
        return None;
    }
    line.strip_prefix("closed after commit ")?.parse().ok()
}
