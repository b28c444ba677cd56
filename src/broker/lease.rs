//! Opening a session for a connection and giving it back: takeover, clean start, expiry, wills.

use super::Broker;
use super::registry::{Parked, Slot, SlotState};
use super::subscriber::Subscriber;
use crate::auth::{Owner, Rights};
use crate::session::{Session, SessionExpiry, Will};
use bytestring::ByteString;
use mqtt_codec::ReasonCode;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection waits for the one it takes over to let go of the session.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a CONNECT asks of the session store.
#[derive(Debug)]
pub struct OpenRequest {
    pub client_id: ByteString,
    pub clean_start: bool,
    pub expiry: SessionExpiry,
    pub will: Option<Will>,
    /// Who asks; `None` where sessions are not bound to who opened them.
    pub owner: Option<Owner>,
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
    #[error("the session belongs to another user or certificate")]
    NotOwner,
}

impl OpenError {
    pub fn reason_code(self) -> ReasonCode {
        match self {
            OpenError::TooManySessions => ReasonCode::QuotaExceeded,
            OpenError::Busy => ReasonCode::ServerBusy,
            OpenError::NotOwner => ReasonCode::NotAuthorized,
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
    will: Option<Will>,
    rights: Option<Rights>,
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
            Ok(acquired) => acquired.map(|(mut lease, present)| {
                lease.session.expiry = request.expiry;
                lease.will = request.will;
                lease.rights = Some(request.rights);
                Opened { lease, present }
            }),
            Err(_) => Err(OpenError::Busy),
        }
    }

    async fn acquire(self: &Arc<Self>, request: &OpenRequest) -> Result<(Lease, bool), OpenError> {
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
                Attempt::Acquired(lease, present) => return Ok((*lease, present)),
                Attempt::Owned(owner) => {
                    owner.kick(ReasonCode::SessionTakenOver);
                    released.await;
                }
                Attempt::NotOwner => return Err(OpenError::NotOwner),
                Attempt::Dead => {}
            }
        }
    }

    fn try_acquire(self: &Arc<Self>, slot: &Arc<Slot>, request: &OpenRequest) -> Attempt {
        let clean_start = request.clean_start;
        let mut state = slot.state.lock();
        // A clean start and a takeover end what another has: they are refused as well.
        let owner = match &*state {
            SlotState::Owned(subscriber) => Some(subscriber.owner()),
            SlotState::Parked(parked) => Some(parked.subscriber.owner()),
            SlotState::Vacant | SlotState::Dead => None,
        };
        if let (Some(owner), Some(asks)) = (owner, &request.owner)
            && owner != asks
        {
            return Attempt::NotOwner;
        }
        let new_subscriber = || self.new_subscriber(slot, request.owner.clone().unwrap_or_default());
        let (session, subscriber, present, ended) = match std::mem::replace(&mut *state, SlotState::Dead) {
            SlotState::Dead => return Attempt::Dead,
            SlotState::Owned(owner) => {
                *state = SlotState::Owned(Arc::clone(&owner));
                return Attempt::Owned(owner);
            }
            SlotState::Parked(parked) if !clean_start => {
                // The client is back before its will was due: it is not sent, [MQTT-3.1.3-9].
                let Parked { session, subscriber, .. } = *parked;
                (session, subscriber, true, None)
            }
            SlotState::Parked(parked) => {
                (Session::new(SessionExpiry::OnDisconnect), new_subscriber(), false, Some(parked))
            }
            SlotState::Vacant => (Session::new(SessionExpiry::OnDisconnect), new_subscriber(), false, None),
        };
        subscriber.connect();
        *state = SlotState::Owned(Arc::clone(&subscriber));
        drop(state);
        if let Some(parked) = ended {
            self.end_session(*parked);
        }
        let lease =
            Lease { broker: Arc::clone(self), slot: Arc::clone(slot), session, subscriber, will: None, rights: None };
        Attempt::Acquired(Box::new(lease), present)
    }

    fn new_subscriber(&self, slot: &Slot, owner: Owner) -> Arc<Subscriber> {
        Arc::new(Subscriber::new(self.next_subscriber_id(), slot.client_id.clone(), owner, self.queue_limits()))
    }

    /// Ends a session for good: its subscriptions, its queue, and its will, which is now due whatever its delay, [MQTT-3.1.2-8].
    pub(super) fn end_session(&self, parked: Parked) {
        for filter in parked.session.subscriptions.keys() {
            self.remove_route(filter, &parked.subscriber);
        }
        let lost = parked.subscriber.discard();
        self.metrics.session_ended(lost);
        if let Some((_, will)) = parked.will {
            self.publish_will(will, parked.rights.as_ref());
        }
    }

    fn release(
        &self,
        slot: &Arc<Slot>,
        session: Session,
        subscriber: &Arc<Subscriber>,
        will: Option<Will>,
        rights: Option<Rights>,
    ) {
        subscriber.disconnect();
        let now = self.now();
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
            self.end_session(parked);
            return;
        }
        let due_now = parked.will.take_if(|(due, _)| *due <= now);
        let rights = due_now.as_ref().and_then(|_| parked.rights.take());
        let attention = parked.attention();
        *slot.state.lock() = SlotState::Parked(Box::new(parked));
        slot.released.notify_waiters();
        if let Some(at) = attention {
            self.schedule(at, slot);
        }
        if let Some((_, will)) = due_now {
            self.publish_will(will, rights.as_ref());
        }
    }
}

enum Attempt {
    Acquired(Box<Lease>, bool),
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

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The broker, the subscriber and the session at once, for calls that need all three.
    pub fn parts(&mut self) -> (&Arc<Broker>, &Arc<Subscriber>, &mut Session) {
        (&self.broker, &self.subscriber, &mut self.session)
    }

    /// The connection ends with DISCONNECT and reason 0x00, so that nothing is published for it, [MQTT-3.14.4-3].
    pub fn forget_will(&mut self) {
        self.will = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let session = std::mem::replace(&mut self.session, Session::new(SessionExpiry::OnDisconnect));
        self.broker.release(&self.slot, session, &self.subscriber, self.will.take(), self.rights.take());
    }
}
