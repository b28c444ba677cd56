//! The handle by which publishers reach a session: its bounded outbox, the waker of the task that drains it, and a way to end that task.

use crate::auth::Owner;
use crate::session::{Delivery, Millis, Push, Queue, QueueLimits};
use bytestring::ByteString;
use futures_util::task::AtomicWaker;
use mqtt_codec::{QoS, ReasonCode};
use parking_lot::Mutex;
use std::hash::{Hash, Hasher};
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
    /// Why the connection must end, if somebody wants it to.
    pub kick: Option<ReasonCode>,
}

/// One session as publishers see it. It is compared and hashed by its id.
#[derive(Debug)]
pub struct Subscriber {
    id: SubscriberId,
    client_id: ByteString,
    /// Who opened the session.
    owner: Owner,
    limits: QueueLimits,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Outbox {
    queue: Queue,
    connected: bool,
    kick: Option<ReasonCode>,
}

impl Subscriber {
    pub fn new(id: SubscriberId, client_id: ByteString, owner: Owner, limits: QueueLimits) -> Subscriber {
        Subscriber { id, client_id, owner, limits, outbox: Mutex::new(Outbox::default()), waker: AtomicWaker::new() }
    }

    pub fn id(&self) -> SubscriberId {
        self.id
    }

    pub fn client_id(&self) -> &ByteString {
        &self.client_id
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether a connection drains the outbox now.
    pub fn is_connected(&self) -> bool {
        self.outbox.lock().connected
    }

    /// Hands a message over. The task is woken only by the first message of an empty outbox: it keeps looking until it has emptied it.
    pub fn push(&self, delivery: Delivery) -> Push {
        let mut outbox = self.outbox.lock();
        let was_empty = outbox.queue.is_empty();
        let away = !outbox.connected;
        let push = outbox.queue.push(delivery, away, &self.limits);
        drop(outbox);
        if was_empty && !away {
            self.waker.wake();
        }
        push
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
        let mut outbox = self.outbox.lock();
        outbox.connected = true;
        outbox.kick = None;
    }

    /// The connection is gone.
    pub(super) fn disconnect(&self) {
        self.outbox.lock().connected = false;
        self.waker.take();
    }

    /// The session ends: what waits is dropped, and nothing is queued any more. Returns how many messages were lost.
    pub(super) fn discard(&self) -> usize {
        let queue = std::mem::take(&mut self.outbox.lock().queue);
        queue.len()
    }

    /// Drops what waits and is not to be kept; returns how many messages that were.
    pub(super) fn retain(&self, keep: impl FnMut(&Delivery) -> bool) -> usize {
        self.outbox.lock().queue.retain(keep)
    }

    /// Who is to be woken when something arrives. Register before [`drain`](Self::drain), or a message may be missed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Moves at most `limit` messages into `batch`, at most `window` of them with QoS 1 or 2.
    pub fn drain(&self, batch: &mut Vec<Delivery>, limit: usize, window: usize, now: Millis) -> Drained {
        let mut drained = Drained::default();
        let mut outbox = self.outbox.lock();
        drained.kick = outbox.kick;
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
        drained
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

    const LIMITS: QueueLimits = QueueLimits { max_messages: 10, max_bytes: 1 << 20, store_qos0: false };

    fn subscriber() -> Subscriber {
        Subscriber::new(1, "c".into(), Owner::default(), LIMITS)
    }

    #[test]
    fn takes_no_more_acknowledged_messages_than_the_window_has_places() {
        let s = subscriber();
        s.connect();
        for qos in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::ExactlyOnce, QoS::AtMostOnce] {
            s.push(delivery("t", qos));
        }
        let mut batch = Vec::new();
        let drained = s.drain(&mut batch, 10, 1, 0);
        assert_eq!((batch.len(), drained.acknowledged, drained.more), (2, 1, true));
        let drained = s.drain(&mut batch, 10, 1, 0);
        assert_eq!((batch.len(), drained.acknowledged, drained.more), (4, 1, false));
    }

    #[test]
    fn the_first_reason_to_end_stands_until_the_next_connection() {
        let s = subscriber();
        s.connect();
        s.kick(ReasonCode::SessionTakenOver);
        s.kick(ReasonCode::ServerShuttingDown);
        assert_eq!(s.drain(&mut Vec::new(), 1, 1, 0).kick, Some(ReasonCode::SessionTakenOver));
        s.connect();
        assert_eq!(s.drain(&mut Vec::new(), 1, 1, 0).kick, None);
    }

    #[test]
    fn qos_0_is_not_kept_for_an_absent_client() {
        let s = subscriber();
        assert_eq!(s.push(delivery("t", QoS::AtMostOnce)), Push::DroppedAway);
        assert_eq!(s.push(delivery("t", QoS::AtLeastOnce)), Push::Queued);
    }
}
