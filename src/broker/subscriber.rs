//! The handle by which publishers reach a session: its bounded outbox, the waker of the task that drains it, and a way to end that task.

use super::durable::{Changes, InBatch, OneByOne};
use super::losses::Loss;
use super::outbox::{Asked, Bounds, Outbox, Pace, Turn, Worth};
use crate::auth::Owner;
use crate::session::{Backlog, Delivery, Held, LoadedRow, Millis, Push, Queue, Ticket};
use crate::store::{Health, Store};
use bytestring::ByteString;
use futures_util::task::AtomicWaker;
use mqtt_codec::{QoS, ReasonCode};
use parking_lot::{Mutex, MutexGuard};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::Waker;

/// Identifies a session for as long as the process lives.
pub type SubscriberId = u64;

/// What a connection's task finds when it looks into its outbox.
#[derive(Debug, Default)]
pub struct Drained {
    /// QoS 1 and 2 messages among them; they need a packet identifier each.
    pub acknowledged: usize,
    pub expired: usize,
    /// The outbox holds more than was taken.
    pub more: bool,
    /// The client may be sent more with QoS 1 or 2.
    pub open: bool,
    /// The next message waits for the store, not for the client: until a ticket is durable, or until it was read.
    pub held: Option<Held>,
    /// Why the connection must end, if somebody wants it to.
    pub kick: Option<ReasonCode>,
    /// Bytes that were taken out now, and those that were taken out now or before and are not done.
    bytes: usize,
    pub under_way: usize,
}

impl Drained {
    fn take(&mut self, delivery: &Delivery, window: usize, most: usize) {
        self.acknowledged += usize::from(delivery.qos != QoS::AtMostOnce);
        self.bytes += delivery.cost();
        self.under_way += delivery.cost();
        self.open = self.is_open(window, most);
    }

    /// Whether the client may be sent more with QoS 1 or 2: as messages, and as bytes where memory is short.
    fn is_open(&self, window: usize, most: usize) -> bool {
        self.acknowledged < window && self.under_way <= most
    }
}

/// A subscriber that a publisher is to wait for, and the QoS of the message after which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    pub subscriber: Arc<Subscriber>,
    pub qos: QoS,
}

/// What became of a message, and whether its publisher is to wait before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    pub push: Push,
    pub crowded: bool,
    /// Something was dropped for want of memory that all sessions share.
    pub squeezed: bool,
}

/// Rows of a session's queue that are to be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedRows {
    /// The number of the first, and of the next delivery.
    pub from: u64,
    pub next: u64,
    pub bytes: usize,
    /// The ticket of the last change to the queue.
    pub last_ticket: Ticket,
}

/// One session as publishers see it. It is compared and hashed by its id.
#[derive(Debug)]
pub struct Subscriber {
    id: SubscriberId,
    client_id: ByteString,
    /// Who has the session: who opened it, or took it over where sessions are not bound.
    owner: Mutex<Owner>,
    bounds: Arc<Bounds>,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    loss: Loss,
    /// Set for a durable session, whose queue is a [`Backlog`].
    store: Option<Arc<Store>>,
}

impl Subscriber {
    pub fn new(id: SubscriberId, client_id: ByteString, owner: Owner, bounds: Arc<Bounds>) -> Subscriber {
        Subscriber {
            id,
            client_id,
            owner: Mutex::new(owner),
            outbox: Mutex::new(Outbox::new(&bounds)),
            bounds,
            waker: AtomicWaker::new(),
            loss: Loss::default(),
            store: None,
        }
    }

    /// Makes it the subscriber of a durable session.
    pub(super) fn stored(mut self, store: Arc<Store>, backlog: Backlog) -> Subscriber {
        self.outbox.get_mut().backlog = Some(Box::new(backlog));
        self.store = Some(store);
        self
    }

    /// Whether the session outlives the process.
    pub fn is_durable(&self) -> bool {
        self.store.is_some()
    }

    /// The store of a durable session.
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// What its queue dropped.
    pub(super) fn loss(&self) -> &Loss {
        &self.loss
    }

    pub fn id(&self) -> SubscriberId {
        self.id
    }

    pub fn client_id(&self) -> &ByteString {
        &self.client_id
    }

    pub fn owner(&self) -> Owner {
        self.owner.lock().clone()
    }

    pub fn set_owner(&self, owner: Owner) {
        *self.owner.lock() = owner;
    }

    /// Whether a connection drains the outbox now, and its client takes what it is given.
    pub fn keeps_up(&self) -> bool {
        self.outbox.lock().keeps_up()
    }

    /// Hands a message over. The task is woken only by the first message of an empty outbox: it keeps looking until it has emptied it.
    pub fn push(&self, delivery: Delivery, changes: &mut Changes<'_>) -> Pushed {
        if self.is_durable() && delivery.qos != QoS::AtMostOnce {
            // The batch comes before the lock.
            changes.begin();
        }
        let worth = Worth::from(delivery.qos);
        let mut outbox = self.outbox.lock();
        if outbox.ended {
            return Pushed { push: Push::Ended, crowded: false, squeezed: false };
        }
        let mut rows = InBatch { id: self.id, changes };
        let (push, was_empty, squeezed) = outbox.push(delivery, &self.bounds, &mut rows);
        let crowded = outbox.is_crowded(worth, &self.bounds);
        let connected = outbox.connected;
        drop(outbox);
        if was_empty && connected {
            self.waker.wake();
        }
        Pushed { push, crowded, squeezed }
    }

    /// Whether a publisher is to wait for this subscriber after a message with this QoS: its connection has more to send than it has
    /// come to, or than its client took until now. `waker` is called when that is over. `turn` is that of the call before, if the wait
    /// goes on.
    pub fn wait(&self, qos: QoS, turn: Option<Turn>, waker: &Waker, now: Millis) -> Asked {
        let (asked, released) = self.outbox.lock().wait(qos.into(), turn, waker, &self.bounds, now);
        wake_all(released);
        asked
    }

    /// The connection cannot send now, since its socket is full; the client has taken `bytes` since the last time, and `under_way` are
    /// not done.
    pub fn stall(&self, bytes: usize, under_way: usize, now: Millis) {
        let mut outbox = self.outbox.lock();
        outbox.hold(under_way, &self.bounds);
        let released = outbox.moved(Pace::Held, || (0, bytes), &self.bounds, now);
        drop(outbox);
        wake_all(released);
    }

    /// So many bytes of what was taken out of the queue are not done.
    pub fn hold(&self, under_way: usize) {
        self.outbox.lock().hold(under_way, &self.bounds);
    }

    /// How many messages of up to `largest` bytes the session has memory for, `most` at once; one if nothing else is on its way.
    pub fn appetite(&self, most: usize, largest: usize) -> usize {
        let (room, idle) = self.outbox.lock().room(&self.bounds.memory);
        if room >= most.saturating_mul(largest) { most } else { usize::from(idle || room >= largest) }
    }

    /// Whether the connection hears no acknowledgements, for what its client publishes. Nobody waits for one that is deaf.
    pub fn set_deaf(&self, deaf: bool) {
        let released = self.outbox.lock().set_deaf(deaf, &self.bounds);
        wake_all(released);
    }

    /// Asks the connection that owns the session to end with `reason`. The first reason stands.
    pub fn kick(&self, reason: ReasonCode) {
        self.outbox.lock().kick.get_or_insert(reason);
        self.waker.wake();
    }

    /// The reason to end, if somebody gave one.
    pub fn kicked(&self) -> Option<ReasonCode> {
        self.outbox.lock().kick
    }

    /// A connection takes the session over.
    pub(super) fn connect(&self) {
        self.outbox.lock().connect();
    }

    /// The connection is gone.
    pub(super) fn disconnect(&self, now: Millis) {
        let released = self.outbox.lock().disconnect(&self.bounds, now);
        wake_all(released);
        self.waker.take();
    }

    /// The session ends: nothing is queued any more. Returns how many stored messages are lost, and the queue of those in memory.
    pub(super) fn end(&self) -> (usize, Queue) {
        let mut outbox = self.outbox.lock();
        outbox.ended = true;
        let stored = outbox.backlog.as_mut().map_or(0, |backlog| backlog.discard());
        let queue = std::mem::take(&mut outbox.queue);
        outbox.hold(0, &self.bounds);
        (stored, queue)
    }

    /// Whether rows of its queue may have come by shared subscriptions.
    pub(super) fn has_shared_rows(&self) -> bool {
        self.outbox.lock().backlog.as_ref().is_some_and(|backlog| backlog.is_shared())
    }

    /// What is stored leaves the memory, since the connection is gone. `in_flight` is the lowest number of a delivery that was sent and
    /// not acknowledged, and the bytes of all that were.
    pub(super) fn park(&self, in_flight: Option<(u64, usize)>) {
        let outbox = &mut *self.outbox.lock();
        if let Some(backlog) = &mut outbox.backlog {
            backlog.park(in_flight);
            outbox.hold(0, &self.bounds);
        }
    }

    /// What a session's row says of its queue: the number of the next delivery, the number below which deliveries may have been sent,
    /// and whether rows are judged.
    pub(super) fn queue_state(&self) -> (u64, u64, bool) {
        let outbox = self.outbox.lock();
        let state = |backlog: &Backlog| (backlog.next(), backlog.sent_below(), backlog.is_judged());
        outbox.backlog.as_deref().map_or((1, 1, false), state)
    }

    /// What is to be read now.
    pub fn wants_rows(&self) -> Option<WantedRows> {
        let outbox = self.outbox.lock();
        let backlog = outbox.backlog.as_ref()?;
        let (room, idle) = outbox.room(&self.bounds.memory);
        let (from, bytes) = backlog.wants_rows(room, idle)?;
        Some(WantedRows { from, next: backlog.next(), bytes, last_ticket: backlog.last_ticket() })
    }

    /// Whether rows that are read are shown to whoever may refuse them, which only the session's own connection changes.
    pub(super) fn judges_rows(&self) -> bool {
        self.outbox.lock().backlog.as_ref().is_some_and(|backlog| backlog.is_judged())
    }

    /// Takes over rows that were read; see [`Backlog::loaded`].
    pub(super) fn loaded(
        &self,
        rows: Vec<(u64, LoadedRow)>,
        through: Option<u64>,
        keep: impl FnMut(&Delivery) -> bool,
        changes: &mut Changes<'_>,
    ) -> usize {
        let outbox = &mut *self.outbox.lock();
        let Some(backlog) = &mut outbox.backlog else { return 0 };
        let refused = backlog.loaded(rows, through, keep, &mut InBatch { id: self.id, changes });
        outbox.recount(&self.bounds);
        refused
    }

    /// Drops what waits and is not to be kept; returns how many messages that were.
    pub(super) fn retain(&self, keep: impl FnMut(&Delivery) -> bool, changes: &mut Changes<'_>) -> usize {
        let outbox = &mut *self.outbox.lock();
        let dropped = match &mut outbox.backlog {
            Some(backlog) => backlog.retain(keep, &mut InBatch { id: self.id, changes }),
            None => outbox.queue.retain(keep),
        };
        outbox.recount(&self.bounds);
        dropped
    }

    /// Who is to be woken when something arrives. Register before [`drain`](Self::drain), or a message may be missed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Moves at most `limit` messages into `batch`, at most `window` of them with QoS 1 or 2. Stored ones from `ids_below` on wait.
    /// `under_way` bytes of earlier ones are not done.
    pub fn drain(
        &self,
        batch: &mut Vec<Delivery>,
        limit: usize,
        window: usize,
        ids_below: u64,
        under_way: usize,
        now: Millis,
    ) -> Drained {
        let mut drained = Drained::default();
        let mut outbox = self.outbox.lock();
        drained.kick = outbox.kick;
        if drained.kick.is_some() {
            // The connection ends: what it took now would be sent by nobody.
            return drained;
        }
        let most = self.bounds.memory.most_under_way();
        drained.under_way = under_way;
        drained.open = drained.is_open(window, most);
        if let (Some(backlog), Some(store)) = (&mut outbox.backlog, &self.store) {
            let durable = store.durable();
            let mut rows = OneByOne { id: self.id, store };
            while batch.len() < limit {
                match backlog.pop(drained.open, ids_below, durable, now, &mut drained.expired, &mut rows) {
                    Ok(delivery) => {
                        drained.take(&delivery, window, most);
                        batch.push(delivery);
                    }
                    Err(held) => {
                        drained.held = Some(held).filter(|held| matches!(held, Held::Ticket(_) | Held::Read));
                        break;
                    }
                }
            }
            drained.more = !backlog.is_empty();
            let pace = match drained.held {
                _ if !drained.more || batch.len() >= limit => Pace::Going,
                None => Pace::Held,
                Some(_) if store.health() == Health::Good => Pace::Going,
                // Nobody waits for a store that can take nothing.
                Some(_) => Pace::Unready,
            };
            self.drained(outbox, &drained, batch.len(), pace, now);
            return drained;
        }
        while batch.len() < limit {
            match outbox.queue.pop(drained.open, now, &mut drained.expired) {
                Some(delivery) => {
                    drained.take(&delivery, window, most);
                    batch.push(delivery);
                }
                None => break,
            }
        }
        drained.more = !outbox.queue.is_empty();
        // A message that was left although there was room in the batch waits for the window.
        let pace = if drained.more && batch.len() < limit { Pace::Held } else { Pace::Going };
        self.drained(outbox, &drained, batch.len(), pace, now);
        drained
    }

    fn drained(&self, mut outbox: MutexGuard<'_, Outbox>, drained: &Drained, messages: usize, pace: Pace, now: Millis) {
        outbox.hold(drained.under_way, &self.bounds);
        let released = outbox.moved(pace, || (messages, drained.bytes), &self.bounds, now);
        drop(outbox);
        wake_all(released);
    }
}

fn wake_all(released: Vec<Waker>) {
    for waker in released {
        waker.wake();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let bounds = Arc::clone(&self.bounds);
        self.outbox.get_mut().give_back(&bounds);
    }
}

impl PartialEq for Subscriber {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Subscriber {}

impl Hash for Subscriber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

#[cfg(test)]
mod tests;
