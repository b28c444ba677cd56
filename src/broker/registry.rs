//! Who owns which session: one slot per client identifier, sharded, so that no lock is global.

use super::subscriber::Subscriber;
use crate::auth::Rights;
use crate::session::{Millis, Session, Will};
use bytestring::ByteString;
use hashbrown::{DefaultHashBuilder, HashMap};
use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

const SHARDS: usize = 64;

/// Everything a session is while no connection owns it.
#[derive(Debug)]
pub(super) struct Parked {
    pub session: Session,
    pub subscriber: Arc<Subscriber>,
    /// When the session ends; `None` is never.
    pub ends_at: Option<Millis>,
    /// The will of the last connection and when it is due.
    pub will: Option<(Millis, Will)>,
    /// Of the last connection, for its will.
    pub rights: Option<Rights>,
}

impl Parked {
    /// When the session next needs something done.
    pub fn attention(&self) -> Option<Millis> {
        [self.ends_at, self.will.as_ref().map(|(due, _)| *due)].into_iter().flatten().min()
    }
}

/// The state of one client identifier.
///
/// ```text
///   Vacant ──▶ Owned ──▶ Parked ──▶ Owned ...
///                │          │
///                └────▶ Dead ◀  (out of the registry; whoever waited looks it up again)
/// ```
pub(super) enum SlotState {
    Vacant,
    Owned(Arc<Subscriber>),
    Parked(Box<Parked>),
    Dead,
}

impl fmt::Debug for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SlotState::Vacant => "Vacant",
            SlotState::Owned(_) => "Owned",
            SlotState::Parked(_) => "Parked",
            SlotState::Dead => "Dead",
        })
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    pub client_id: ByteString,
    pub state: Mutex<SlotState>,
    /// Told whenever the slot stops being owned.
    pub released: Notify,
    /// The earliest entry for this slot among the broker's deadlines; `Millis::MAX` is none.
    pub attention: AtomicU64,
}

/// All sessions of the node.
#[derive(Debug)]
pub(super) struct Registry {
    shards: Vec<Mutex<HashMap<ByteString, Arc<Slot>>>>,
    hasher: DefaultHashBuilder,
    count: AtomicUsize,
    connected: AtomicUsize,
    limit: usize,
}

impl Registry {
    pub fn new(limit: usize) -> Registry {
        Registry {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            hasher: DefaultHashBuilder::default(),
            count: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            limit,
        }
    }

    /// Sessions, connected or not.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The slot of `client_id`, made if there is none; `None` when the node holds as many sessions as it may.
    pub fn slot(&self, client_id: &ByteString) -> Option<Arc<Slot>> {
        let mut shard = self.shard(client_id)?.lock();
        if let Some(slot) = shard.get(client_id) {
            return Some(Arc::clone(slot));
        }
        // Two shards may race past the limit by one each; the bound is on memory, not on an exact number.
        if self.count.load(Ordering::Relaxed) >= self.limit {
            return None;
        }
        let slot = Arc::new(Slot {
            client_id: client_id.clone(),
            state: Mutex::new(SlotState::Vacant),
            released: Notify::new(),
            attention: AtomicU64::new(Millis::MAX),
        });
        shard.insert(client_id.clone(), Arc::clone(&slot));
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Adds a session that was stored, whatever the limit: it was granted.
    pub fn recover(&self, client_id: ByteString, parked: Parked, schedule: impl FnOnce(Millis, &Arc<Slot>)) {
        let Some(shard) = self.shard(&client_id) else { return };
        let attention = parked.attention();
        let slot = Arc::new(Slot {
            client_id: client_id.clone(),
            state: Mutex::new(SlotState::Parked(Box::new(parked))),
            released: Notify::new(),
            attention: AtomicU64::new(Millis::MAX),
        });
        shard.lock().insert(client_id, Arc::clone(&slot));
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(at) = attention {
            schedule(at, &slot);
        }
    }

    /// Forgets a slot whose state is [`SlotState::Dead`].
    pub fn remove(&self, slot: &Arc<Slot>) {
        let Some(shard) = self.shard(&slot.client_id) else { return };
        let mut shard = shard.lock();
        if shard.get(&slot.client_id).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            shard.remove(&slot.client_id);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Asks the connection that owns the session of `client_id`, if there is one, to end.
    pub fn kick(&self, client_id: &ByteString, reason: ReasonCode) {
        let slot = self.shard(client_id).and_then(|shard| shard.lock().get(client_id).cloned());
        if let Some(slot) = slot
            && let SlotState::Owned(subscriber) = &*slot.state.lock()
        {
            subscriber.kick(reason);
        }
    }

    /// How many sessions a connection owns.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// A connection took a session, or let one go.
    pub fn count_owner(&self, took: bool) {
        if took {
            self.connected.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Calls `each` for the subscriber of every session that a connection owns.
    pub fn for_each_connected(&self, mut each: impl FnMut(&Arc<Subscriber>)) {
        for shard in &self.shards {
            let slots: Vec<Arc<Slot>> = shard.lock().values().cloned().collect();
            for slot in slots {
                if let SlotState::Owned(subscriber) = &*slot.state.lock() {
                    each(subscriber);
                }
            }
        }
    }

    fn shard(&self, client_id: &ByteString) -> Option<&Mutex<HashMap<ByteString, Arc<Slot>>>> {
        let index = self.hasher.hash_one(client_id) as usize % SHARDS;
        self.shards.get(index)
    }
}
