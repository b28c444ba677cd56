//! Opening a session for a connection and giving it back: takeover, clean start, expiry, wills.

use super::Broker;
use super::durable::Changes;
use super::registry::{Parked, Slot, SlotState};
use super::subscriber::Subscriber;
use crate::auth::{Owner, Rights};
use crate::session::{Backlog, Resend, Session, SessionExpiry, Ticket, Will};
use crate::store::{Health, Key, Row, SessionRow, WillAuthor};
use bytestring::ByteString;
use mqtt_codec::{QoS, ReasonCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a connection waits for the one it takes over to let go of the session.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a CONNECT waits for its session to be durable.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a CONNECT asks of the session store.
#[derive(Debug)]
pub struct OpenRequest {
    pub client_id: ByteString,
    pub clean_start: bool,
    pub expiry: SessionExpiry,
    pub will: Option<Will>,
    /// Who asks.
    pub owner: Owner,
    /// Whether sessions are only for who opened them.
    pub bound: bool,
    /// Asked again when the will is published.
    pub rights: Rights,
}

/// Why a session could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the node holds as many sessions as mqtt.max_sessions allows")]
    TooManySessions,
    #[error("the connection that owns the session did not let go of it in time")]
    Busy,
    #[error("the session belongs to another user, certificate or mount point")]
    NotOwner,
    #[error("the store cannot take the session: {0}")]
    Store(Health),
}

impl OpenError {
    pub fn reason_code(self) -> ReasonCode {
        match self {
            OpenError::TooManySessions => ReasonCode::QuotaExceeded,
            OpenError::Busy => ReasonCode::ServerBusy,
            OpenError::NotOwner => ReasonCode::NotAuthorized,
            OpenError::Store(Health::Full) => ReasonCode::QuotaExceeded,
            OpenError::Store(_) => ReasonCode::ServerUnavailable,
        }
    }
}

/// A session that a connection owns. Dropping it gives the session back, whatever ended the connection: a panic too.
#[derive(Debug)]
pub struct Lease {
    broker: Arc<Broker>,
    slot: Arc<Slot>,
    session: Session,
    subscriber: Arc<Subscriber>,
    /// In a box, since most clients have none.
    will: Option<Box<Will>>,
    rights: Option<Rights>,
    inherited: bool,
}

/// A session for a connection, and whether it existed before, [MQTT-3.2.2-2].
#[derive(Debug)]
pub struct Opened {
    pub lease: Lease,
    pub present: bool,
}

impl Broker {
    /// Opens the session of `request.client_id`. A connection that owns it is ended first, [MQTT-3.1.4-3].
    pub async fn open(self: &Arc<Self>, request: OpenRequest) -> Result<Opened, OpenError> {
        match tokio::time::timeout(TAKEOVER_TIMEOUT, self.acquire(&request)).await {
            Ok(acquired) => {
                let (mut lease, present, ended) = acquired?;
                lease.session.expiry = request.expiry;
                lease.will = request.will.map(Box::new);
                lease.rights = Some(request.rights);
                let saved = lease.save();
                if !present {
                    lease.session.created = saved;
                }
                // What changes about a session that was there need not be on the disk. That it was there must be: an earlier
                // connection may not have lived to see it.
                let ticket = lease.session.created.max(ended);
                if let Err(error) = self.wait_for(ticket).await {
                    lease.session.expiry = SessionExpiry::OnDisconnect;
                    lease.will = None;
                    return Err(error);
                }
                Ok(Opened { lease, present })
            }
            Err(_) => Err(OpenError::Busy),
        }
    }

    /// CONNACK says what is durable: that there is a session, or that there is none any more.
    async fn wait_for(&self, ticket: Ticket) -> Result<(), OpenError> {
        let Some(store) = self.store.as_ref().filter(|store| !store.is_durable(ticket)) else { return Ok(()) };
        match tokio::time::timeout(STORE_TIMEOUT, store.wait(ticket)).await {
            Ok(waited) => waited.map_err(OpenError::Store),
            Err(_) => Err(OpenError::Busy),
        }
    }

    async fn acquire(self: &Arc<Self>, request: &OpenRequest) -> Result<(Lease, bool, Ticket), OpenError> {
        loop {
            let Some(slot) = self.sessions.slot(&request.client_id) else {
                self.metrics.limit_hit("mqtt.max_sessions");
                return Err(OpenError::TooManySessions);
            };
            let released = slot.released.notified();
            tokio::pin!(released);
            // Listen before looking, so that a release in between is not missed.
            released.as_mut().enable();
            match self.try_acquire(&slot, request) {
                Attempt::Acquired(lease, present, ended) => return Ok((*lease, present, ended)),
                Attempt::Owned(owner) => {
                    owner.kick(ReasonCode::SessionTakenOver);
                    released.await;
                }
                Attempt::Store(health) => return Err(OpenError::Store(health)),
                Attempt::NotOwner => return Err(OpenError::NotOwner),
                Attempt::Dead => {}
            }
        }
    }

    fn try_acquire(self: &Arc<Self>, slot: &Arc<Slot>, request: &OpenRequest) -> Attempt {
        // [MQTT-3.1.3-2] [MQTT-3.1.4-4]
        let mut clean_start = request.clean_start;
        let mut state = slot.state.lock();
        // A clean start and a takeover end what another has: they are refused as well.
        let owner = match &*state {
            SlotState::Owned(subscriber) => Some(subscriber.owner()),
            SlotState::Parked(parked) => Some(parked.subscriber.owner()),
            SlotState::Vacant | SlotState::Dead => None,
        };
        let mut inherited = false;
        if let Some(owner) = owner {
            let asks = &request.owner;
            inherited = !owner.is_who(asks);
            let same_mount = owner.has_mount_of(asks);
            // What it subscribed to and what waits for it is of the tenant that its mount point stands for. Who is known to have opened it
            // may begin anew elsewhere; anybody else stays out, whether sessions are bound or not.
            let may_begin_anew = same_mount || asks.is_verified() && owner.is_who(asks);
            if !may_begin_anew || request.bound && inherited {
                return Attempt::NotOwner;
            }
            clean_start |= !same_mount;
        }
        let durable = self.store.is_some() && request.expiry != SessionExpiry::OnDisconnect;
        let changes_store = match &*state {
            SlotState::Vacant => durable,
            SlotState::Parked(parked) if clean_start => durable || parked.subscriber.is_durable(),
            // Its row changes, which can wait for space as long as there is room for what waits.
            SlotState::Parked(parked) => parked.subscriber.store().is_some_and(|store| !store.has_room()),
            SlotState::Owned(_) | SlotState::Dead => false,
        };
        if let Some(health) = self.store_trouble().filter(|_| changes_store) {
            if matches!(*state, SlotState::Vacant) {
                *state = SlotState::Dead;
                drop(state);
                self.sessions.remove(slot);
                slot.released.notify_waiters();
            }
            return Attempt::Store(health);
        }
        let new_subscriber = || self.new_subscriber(slot, request.owner.clone(), durable);
        let (session, subscriber, present, ended) = match std::mem::replace(&mut *state, SlotState::Dead) {
            SlotState::Dead => return Attempt::Dead,
            SlotState::Owned(owner) => {
                *state = SlotState::Owned(Arc::clone(&owner));
                return Attempt::Owned(owner);
            }
            SlotState::Parked(parked) if !clean_start => {
                // The client is back before its will was due: it is not sent, [MQTT-3.1.3-9].
                let Parked { session, subscriber, .. } = *parked;
                subscriber.set_owner(request.owner.clone());
                // [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT-4.8.2-4]
                (session, subscriber, true, None)
            }
            SlotState::Parked(parked) => {
                // [MQTT-3.1.2-4] [MQTT-3.2.2-2]
                (Session::new(SessionExpiry::OnDisconnect), new_subscriber(), false, Some(parked))
            }
            // [MQTT-3.1.2-6] [MQTT-3.2.2-3]
            SlotState::Vacant => (Session::new(SessionExpiry::OnDisconnect), new_subscriber(), false, None),
        };
        subscriber.connect();
        *state = SlotState::Owned(Arc::clone(&subscriber));
        drop(state);
        if self.shut.load(Ordering::SeqCst) {
            // Whoever shut the broker may have looked before it was owned.
            subscriber.kick(self.farewell());
        }
        let mut changes = Changes::new(self.store.as_deref());
        if let Some(parked) = ended {
            self.end_session(*parked, &mut changes);
        }
        self.sessions.count_owner(true);
        let (broker, slot, inherited) = (Arc::clone(self), Arc::clone(slot), inherited && present);
        let lease = Lease { broker, slot, session, subscriber, will: None, rights: None, inherited };
        Attempt::Acquired(Box::new(lease), present, changes.ticket())
    }

    fn new_subscriber(&self, slot: &Slot, owner: Owner, durable: bool) -> Arc<Subscriber> {
        let limits = Arc::clone(&self.queue_limits);
        let subscriber = Subscriber::new(self.next_subscriber_id(), slot.client_id.clone(), owner, limits);
        Arc::new(match self.store.as_ref().filter(|_| durable) {
            Some(store) => subscriber.stored(Arc::clone(store), Backlog::new()),
            None => subscriber,
        })
    }

    /// Ends a session for good: its subscriptions, its queue, and its will, which is now due whatever its delay, [MQTT-3.1.2-8].
    pub(super) fn end_session(&self, parked: Parked, changes: &mut Changes<'_>) {
        for filter in parked.session.subscriptions.keys() {
            self.remove_route(filter, &parked.subscriber);
        }
        let lost = self.empty_out(&parked, changes);
        self.metrics.session_ended(lost);
        if let Some((_, will)) = parked.will {
            self.publish_will(will, parked.rights.as_ref(), changes);
        }
    }

    /// What waits for an ended session is lost, but for messages of shared subscriptions, which other members get: at once what is in
    /// memory, and what is only on disk as it is read. Returns how many are lost. A QoS 2 message that was already sent goes to nobody else, [MQTT-4.8.2-5].
    fn empty_out(&self, parked: &Parked, changes: &mut Changes<'_>) -> usize {
        let sent = parked.session.inflight.resend().into_iter().filter_map(|resend| match resend {
            Resend::Publish(_, delivery) if delivery.qos == QoS::AtLeastOnce && delivery.share.is_some() => {
                Some(delivery)
            }
            _ => None,
        });
        for delivery in sent {
            self.redispatch(&delivery, changes);
        }
        let row = parked.subscriber.has_shared_rows().then(|| self.parked_row(parked));
        // What is put from here on comes after the last message for the session.
        let (mut stored, queue) = parked.subscriber.end();
        if parked.subscriber.is_durable() {
            if row.is_some_and(|row| self.leave_estate(parked.subscriber.id(), row, changes)) {
                stored = 0;
            } else if let Some(batch) = changes.begin() {
                batch.end_session(parked.subscriber.id());
            }
        }
        stored + queue.into_deliveries().filter(|delivery| !self.redispatch(delivery, changes)).count()
    }

    fn release(
        &self,
        slot: &Arc<Slot>,
        mut session: Session,
        subscriber: &Arc<Subscriber>,
        will: Option<Will>,
        rights: Option<Rights>,
    ) {
        subscriber.disconnect(self.now());
        self.sessions.count_owner(false);
        let mut changes = Changes::new(self.store.as_deref());
        if subscriber.is_durable() {
            let lowest = session.inflight.lowest_stored();
            subscriber.park(lowest.map(|lowest| (lowest, session.inflight.bytes())));
            session.inflight.park();
            // The batch comes before the lock.
            changes.begin();
        }
        let now = self.now();
        // [MQTT-4.1.0-1]: not before the connection does.
        let ends_at = session.expiry.deadline(now);
        // Without a will there is nothing to ask later.
        let rights = rights.filter(|_| will.is_some());
        let mut parked = Parked {
            session,
            subscriber: Arc::clone(subscriber),
            ends_at,
            will: will.map(|w| (now.saturating_add(w.delay), w)),
            rights,
        };
        if ends_at.is_some_and(|at| at <= now) {
            *slot.state.lock() = SlotState::Dead;
            self.sessions.remove(slot);
            slot.released.notify_waiters();
            self.end_session(parked, &mut changes);
            return;
        }
        // [MQTT-3.1.2-8] [MQTT-3.1.2-10]
        let due_now = parked.will.take_if(|(due, _)| *due <= now);
        let rights = due_now.as_ref().and_then(|_| parked.rights.take());
        let attention = parked.attention();
        if subscriber.is_durable()
            && let Some(batch) = changes.begin()
        {
            batch.put(Key::Session(subscriber.id()), Row::Session(self.parked_row(&parked)));
        }
        *slot.state.lock() = SlotState::Parked(Box::new(parked));
        slot.released.notify_waiters();
        if let Some(at) = attention {
            self.schedule(at, slot);
        }
        if let Some((_, will)) = due_now {
            self.publish_will(will, rights.as_ref(), &mut changes);
        }
    }
}

enum Attempt {
    /// With the ticket for the end of the session that was there before.
    Acquired(Box<Lease>, bool, Ticket),
    Store(Health),
    Owned(Arc<Subscriber>),
    NotOwner,
    Dead,
}

impl Lease {
    pub fn subscriber(&self) -> &Arc<Subscriber> {
        &self.subscriber
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Whether another client had the session before.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The broker, the subscriber and the session at once, for calls that need all three.
    pub fn parts(&mut self) -> (&Arc<Broker>, &Arc<Subscriber>, &mut Session) {
        (&self.broker, &self.subscriber, &mut self.session)
    }

    /// Writes the session as one that has a connection; 0 if it is not durable.
    pub fn save(&self) -> Ticket {
        let Some(store) = self.subscriber.store() else { return 0 };
        let (next_seq, sent_below, judged) = self.subscriber.queue_state();
        let row = SessionRow {
            client_id: self.subscriber.client_id().clone(),
            owner: self.subscriber.owner().as_text().clone(),
            expiry: self.session.expiry,
            connected: true,
            ended: false,
            ends_at: None,
            will: self.will.as_deref().map(|will| (None, will.clone())),
            author: self.rights.as_ref().filter(|_| self.will.is_some()).map(|r| WillAuthor::of(r.identity())),
            sent_below,
            next_seq,
            judged,
        };
        store.put(Key::Session(self.subscriber.id()), Row::Session(Box::new(row)))
    }

    /// The connection ends with DISCONNECT and reason 0x00, so that nothing is published for it, [MQTT-3.14.4-3].
    pub fn forget_will(&mut self) {
        // [MQTT-3.1.2-10]
        self.will = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let session = std::mem::replace(&mut self.session, Session::new(SessionExpiry::OnDisconnect));
        let will = self.will.take().map(|will| *will);
        self.broker.release(&self.slot, session, &self.subscriber, will, self.rights.take());
    }
}
