//! The handle by which publishers reach a session: its bounded outbox, the waker of the task that drains it, and a way to end that task.

use super::durable::{Changes, InBatch, OneByOne};
use super::losses::Loss;
use super::outbox::{Asked, Outbox, Pace, Turn, Worth};
use crate::auth::Owner;
use crate::session::{Backlog, Delivery, Held, LoadedRow, Millis, Push, Queue, QueueLimits, Ticket};
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
    /// The next message waits for the store, not for the client: until a ticket is durable, or until it was read.
    pub held: Option<Held>,
    /// Why the connection must end, if somebody wants it to.
    pub kick: Option<ReasonCode>,
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
}

/// One session as publishers see it. It is compared and hashed by its id.
#[derive(Debug)]
pub struct Subscriber {
    id: SubscriberId,
    client_id: ByteString,
    /// Who has the session: who opened it, or took it over where sessions are not bound.
    owner: Mutex<Owner>,
    limits: Arc<QueueLimits>,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    loss: Loss,
    /// Set for a durable session, whose queue is a [`Backlog`].
    store: Option<Arc<Store>>,
}

impl Subscriber {
    pub fn new(id: SubscriberId, client_id: ByteString, owner: Owner, limits: Arc<QueueLimits>) -> Subscriber {
        Subscriber {
            id,
            client_id,
            owner: Mutex::new(owner),
            outbox: Mutex::new(Outbox::new(&limits)),
            limits,
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
            return Pushed { push: Push::Ended, crowded: false };
        }
        let away = !outbox.connected;
        let (was_empty, push) = match &mut outbox.backlog {
            None => (outbox.queue.is_empty(), outbox.queue.push(delivery, away, &self.limits)),
            Some(backlog) => {
                let was_empty = backlog.is_empty();
                (was_empty, backlog.push(delivery, away, &self.limits, &mut InBatch { id: self.id, changes }))
            }
        };
        let crowded = outbox.is_crowded(worth, &self.limits);
        drop(outbox);
        if was_empty && !away {
            self.waker.wake();
        }
        Pushed { push, crowded }
    }

    /// Whether a publisher is to wait for this subscriber after a message with this QoS: its connection has more to send than it has
    /// come to, or than its client took until now. `waker` is called when that is over. `turn` is that of the call before, if the wait
    /// goes on.
    pub fn wait(&self, qos: QoS, turn: Option<Turn>, waker: &Waker, now: Millis) -> Asked {
        let (asked, released) = self.outbox.lock().wait(qos.into(), turn, waker, &self.limits, now);
        wake_all(released);
        asked
    }

    /// The connection cannot send now, since its socket is full; the client has taken `bytes` since the last time.
    pub fn stall(&self, bytes: usize, now: Millis) {
        let released = self.outbox.lock().moved(Pace::Held, || (0, bytes), &self.limits, now);
        wake_all(released);
    }

    /// Whether the connection hears no acknowledgements, for what its client publishes. Nobody waits for one that is deaf.
    pub fn set_deaf(&self, deaf: bool) {
        let released = self.outbox.lock().set_deaf(deaf, &self.limits);
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
        let released = self.outbox.lock().disconnect(&self.limits, now);
        wake_all(released);
        self.waker.take();
    }

    /// The session ends: nothing is queued any more. Returns how many stored messages are lost, and the queue of those in memory.
    pub(super) fn end(&self) -> (usize, Queue) {
        let mut outbox = self.outbox.lock();
        outbox.ended = true;
        let stored = outbox.backlog.as_mut().map_or(0, |backlog| backlog.discard());
        (stored, std::mem::take(&mut outbox.queue))
    }

    /// Whether rows of its queue may have come by shared subscriptions.
    pub(super) fn has_shared_rows(&self) -> bool {
        self.outbox.lock().backlog.as_ref().is_some_and(|backlog| backlog.is_shared())
    }

    /// What is stored leaves the memory, since the connection is gone. `in_flight` is the lowest number of a delivery that was sent and
    /// not acknowledged, and the bytes of all that were.
    pub(super) fn park(&self, in_flight: Option<(u64, usize)>) {
        if let Some(backlog) = &mut self.outbox.lock().backlog {
            backlog.park(in_flight);
        }
    }

    /// What a session's row says of its queue: the number of the next delivery, the number below which deliveries may have been sent,
    /// and whether rows are judged.
    pub(super) fn queue_state(&self) -> (u64, u64, bool) {
        let outbox = self.outbox.lock();
        let state = |backlog: &Backlog| (backlog.next(), backlog.sent_below(), backlog.is_judged());
        outbox.backlog.as_deref().map_or((1, 1, false), state)
    }

    /// What is to be read now: from which number, the number of the next delivery, and the ticket of the last change.
    pub fn wants_rows(&self) -> Option<(u64, u64, Ticket)> {
        let outbox = self.outbox.lock();
        let backlog = outbox.backlog.as_ref()?;
        Some((backlog.wants_rows()?, backlog.next(), backlog.last_ticket()))
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
        match &mut self.outbox.lock().backlog {
            Some(backlog) => backlog.loaded(rows, through, keep, &mut InBatch { id: self.id, changes }),
            None => 0,
        }
    }

    /// Drops what waits and is not to be kept; returns how many messages that were.
    pub(super) fn retain(&self, keep: impl FnMut(&Delivery) -> bool, changes: &mut Changes<'_>) -> usize {
        let outbox = &mut *self.outbox.lock();
        match &mut outbox.backlog {
            Some(backlog) => backlog.retain(keep, &mut InBatch { id: self.id, changes }),
            None => outbox.queue.retain(keep),
        }
    }

    /// Who is to be woken when something arrives. Register before [`drain`](Self::drain), or a message may be missed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Moves at most `limit` messages into `batch`, at most `window` of them with QoS 1 or 2. Stored ones from `ids_below` on wait.
    pub fn drain(
        &self,
        batch: &mut Vec<Delivery>,
        limit: usize,
        window: usize,
        ids_below: u64,
        now: Millis,
    ) -> Drained {
        let mut drained = Drained::default();
        let mut outbox = self.outbox.lock();
        drained.kick = outbox.kick;
        if drained.kick.is_some() {
            // The connection ends: what it took now would be sent by nobody.
            return drained;
        }
        if let (Some(backlog), Some(store)) = (&mut outbox.backlog, &self.store) {
            let durable = store.durable();
            let mut rows = OneByOne { id: self.id, store };
            while batch.len() < limit {
                let open = drained.acknowledged < window;
                match backlog.pop(open, ids_below, durable, now, &mut drained.expired, &mut rows) {
                    Ok(delivery) => {
                        drained.acknowledged += usize::from(delivery.qos != QoS::AtMostOnce);
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
            self.drained(outbox, batch, pace, now);
            return drained;
        }
        while batch.len() < limit {
            match outbox.queue.pop(drained.acknowledged < window, now, &mut drained.expired) {
                Some(delivery) => {
                    drained.acknowledged += usize::from(delivery.qos != QoS::AtMostOnce);
                    batch.push(delivery);
                }
                None => break,
            }
        }
        drained.more = !outbox.queue.is_empty();
        // A message that was left although there was room in the batch waits for the window.
        let pace = if drained.more && batch.len() < limit { Pace::Held } else { Pace::Going };
        self.drained(outbox, batch, pace, now);
        drained
    }

    fn drained(&self, mut outbox: MutexGuard<'_, Outbox>, batch: &[Delivery], pace: Pace, now: Millis) {
        let taken = || (batch.len(), batch.iter().map(Delivery::cost).sum());
        let released = outbox.moved(pace, taken, &self.limits, now);
        drop(outbox);
        wake_all(released);
    }
}

fn wake_all(released: Vec<Waker>) {
    for waker in released {
        waker.wake();
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
mod tests {
    use super::*;
    use crate::session::message_for_tests as delivery;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const WAIT: Millis = 500;
    const LIMITS: QueueLimits =
        QueueLimits { max_messages: 10, max_bytes: 1 << 20, store_qos0: false, slow_wait: WAIT, priorities: None };

    /// One whose connection has drained it for the first time.
    fn connected() -> Subscriber {
        let s = subscriber();
        s.connect();
        s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0);
        s
    }

    fn subscriber() -> Subscriber {
        Subscriber::new(1, "c".into(), Owner::default(), Arc::new(LIMITS))
    }

    #[test]
    fn takes_no_more_acknowledged_messages_than_the_window_has_places() {
        let s = subscriber();
        s.connect();
        for qos in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::ExactlyOnce, QoS::AtMostOnce] {
            s.push(delivery("t", qos), &mut Changes::new(None));
        }
        let mut batch = Vec::new();
        let drained = s.drain(&mut batch, 10, 1, u64::MAX, 0);
        assert_eq!((batch.len(), drained.acknowledged, drained.more), (2, 1, true));
        let drained = s.drain(&mut batch, 10, 1, u64::MAX, 0);
        assert_eq!((batch.len(), drained.acknowledged, drained.more), (4, 1, false));
    }

    #[test]
    fn the_first_reason_to_end_stands_until_the_next_connection() {
        let s = subscriber();
        s.connect();
        s.kick(ReasonCode::SessionTakenOver);
        s.kick(ReasonCode::ServerShuttingDown);
        assert_eq!(s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0).kick, Some(ReasonCode::SessionTakenOver));
        s.connect();
        assert_eq!(s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0).kick, None);
    }

    /// A batch was taken and dropped by a connection that was told to go, so that the next one did not send it.
    #[test]
    fn a_connection_that_is_to_end_takes_nothing_more() {
        let s = connected();
        s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
        s.kick(ReasonCode::SessionTakenOver);
        let mut batch = Vec::new();
        assert!(s.drain(&mut batch, 10, 10, u64::MAX, 0).kick.is_some());
        assert!(batch.is_empty());
        s.disconnect(0);
        s.connect();
        s.drain(&mut batch, 10, 10, u64::MAX, 0);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn qos_0_is_not_kept_for_an_absent_client() {
        let s = subscriber();
        assert_eq!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).push, Push::DroppedAway);
        assert_eq!(s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).push, Push::Queued);
    }

    /// A waker, and how often it was called.
    fn counted() -> (Waker, Arc<AtomicUsize>) {
        struct Count(Arc<AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let calls = Arc::new(AtomicUsize::new(0));
        (Waker::from(Arc::new(Count(Arc::clone(&calls)))), calls)
    }

    fn crowded() -> Subscriber {
        let s = connected();
        for _ in 0..5 {
            assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
        }
        assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
        s
    }

    /// The turn of a publisher that waits.
    fn wait(s: &Subscriber, qos: QoS, turn: Option<Turn>, waker: &Waker, now: Millis) -> Option<Turn> {
        s.wait(qos, turn, waker, now).wait.map(|wait| wait.turn)
    }

    #[test]
    fn publishers_wait_for_a_crowded_outbox_and_go_on_when_it_is_half_empty() {
        let s = crowded();
        let (waker, calls) = counted();
        let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
        assert!(turn.is_some());
        assert_eq!(wait(&s, QoS::AtMostOnce, turn, &waker, 0), turn, "asked again, it still waits, once");
        let mut batch = Vec::new();
        s.drain(&mut batch, 3, 10, u64::MAX, 0);
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        s.drain(&mut batch, 4, 10, u64::MAX, 0);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(wait(&s, QoS::AtMostOnce, turn, &waker, 0), None);
    }

    #[test]
    fn nobody_waits_for_a_full_socket_with_messages_that_may_be_lost() {
        let s = crowded();
        let (waker, calls) = counted();
        let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
        s.stall(0, 0);
        assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtMostOnce, turn, &waker, 0)), (1, None));
        assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
        assert!(s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).crowded);
        // Bytes are taken again.
        s.drain(&mut Vec::new(), 1, 10, u64::MAX, 0);
        assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    }

    /// One whose window is closed, and that has more messages than its publishers are to add to.
    fn held() -> Subscriber {
        let s = connected();
        for _ in 0..10 {
            s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
        }
        s.drain(&mut Vec::new(), 10, 2, u64::MAX, 0);
        s
    }

    #[test]
    fn publishers_wait_for_a_client_that_acknowledges() {
        let s = held();
        let (waker, calls) = counted();
        let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 1_000);
        assert!(turn.is_some());
        let until = |now| s.wait(QoS::AtLeastOnce, turn, &waker, now).wait.unwrap().until.unwrap();
        assert_eq!(until(1_000), 1_000 + WAIT);
        // 2 messages after 450 ms are few, but earn some time.
        s.drain(&mut Vec::new(), 10, 2, u64::MAX, 1_450);
        assert!((1_450 + 50 + 20..1_450 + 50 + 25).contains(&until(1_450)));
        s.drain(&mut Vec::new(), 10, 2, u64::MAX, 1_500);
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        // Half of the crowd is gone.
        s.drain(&mut Vec::new(), 10, 2, u64::MAX, 1_510);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(wait(&s, QoS::AtLeastOnce, turn, &waker, 1_510), None);
    }

    #[test]
    fn nobody_waits_long_for_a_client_that_takes_nothing() {
        let s = held();
        let ((waker, calls), (other, others)) = (counted(), counted());
        let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
        assert!(wait(&s, QoS::ExactlyOnce, None, &other, 100).is_some());
        assert_eq!(wait(&s, QoS::AtLeastOnce, turn, &waker, WAIT - 1), turn);
        assert!(s.keeps_up());
        assert_eq!(s.wait(QoS::AtLeastOnce, turn, &waker, WAIT), Asked { wait: None, gave_up: true });
        assert_eq!((calls.load(Ordering::Relaxed), others.load(Ordering::Relaxed)), (1, 1), "all of them go on");
        assert!(!s.keeps_up());
        // Nor after one acknowledgement, until it keeps pace or has caught up.
        s.drain(&mut Vec::new(), 10, 1, u64::MAX, WAIT + 1);
        assert!(!s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).crowded);
        s.drain(&mut Vec::new(), 20, 20, u64::MAX, WAIT + 2);
        for _ in 0..10 {
            s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
        }
        assert!(wait(&s, QoS::AtLeastOnce, None, &waker, WAIT + 3).is_some());
    }

    #[test]
    fn connecting_again_does_not_buy_another_wait() {
        let s = held();
        let (waker, calls) = counted();
        let mut turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
        for at in [200, 400, WAIT] {
            assert!(turn.is_some(), "{at}");
            s.disconnect(at);
            s.connect();
            s.drain(&mut Vec::new(), 10, 0, u64::MAX, at);
            turn = wait(&s, QoS::AtLeastOnce, None, &waker, at);
        }
        assert_eq!((turn, s.keeps_up(), calls.load(Ordering::Relaxed)), (None, false, 3));
        // The time away is not counted.
        let s = held();
        assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 0).is_some());
        s.disconnect(100);
        s.connect();
        s.drain(&mut Vec::new(), 10, 0, u64::MAX, 100_000);
        assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 100_000).is_some());
    }

    #[test]
    fn nobody_waits_for_acknowledgements_that_cannot_be_heard() {
        let s = held();
        let (waker, calls) = counted();
        let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
        s.set_deaf(true);
        assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtLeastOnce, turn, &waker, 0)), (1, None));
        s.set_deaf(false);
        assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 0).is_some());
    }

    #[test]
    fn nobody_waits_for_a_connection_that_has_not_drained_yet() {
        let s = subscriber();
        s.connect();
        for _ in 0..10 {
            assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
        }
        s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0);
        assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    }

    #[test]
    fn nobody_waits_for_a_client_that_has_gone() {
        let s = crowded();
        let (waker, calls) = counted();
        let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
        s.disconnect(0);
        assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtMostOnce, turn, &waker, 0)), (1, None));
    }
}
