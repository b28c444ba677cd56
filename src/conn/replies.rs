//! Answers that may be sent only when something is durable, in the order in which they were earned, [MQTT-4.6.0-2] to [MQTT-4.6.0-4].

use super::Close;
use super::output::Output;
use crate::session::Ticket;
use crate::store::{Health, Registration, Store};
use mqtt_codec::{Encode, EncodeError, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, ReasonCode, SubAck, UnsubAck};
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::task::Waker;

/// With this many waiting nothing more is read from the client.
pub(super) const MAX_WAITING: usize = 1024;

/// An answer to the client.
#[derive(Debug)]
pub(super) enum Reply {
    PubAck(NonZeroU16, ReasonCode),
    PubRec(NonZeroU16, ReasonCode),
    PubRel(NonZeroU16, ReasonCode),
    PubComp(NonZeroU16, ReasonCode),
    SubAck(Box<SubAck>),
    UnsubAck(Box<UnsubAck>),
}

impl Reply {
    fn encode(&self, version: ProtocolVersion, output: &mut Output) -> Result<(), EncodeError> {
        let mut push = |packet: &dyn Encodable| packet.push(version, output);
        match self {
            Reply::PubAck(id, reason) => push(&PubAck::with_reason(*id, *reason)),
            Reply::PubRec(id, reason) => push(&PubRec::with_reason(*id, *reason)),
            Reply::PubRel(id, reason) => push(&PubRel::with_reason(*id, *reason)),
            Reply::PubComp(id, reason) => push(&PubComp::with_reason(*id, *reason)),
            Reply::SubAck(ack) => push(&**ack),
            Reply::UnsubAck(ack) => push(&**ack),
        }
    }
}

trait Encodable {
    fn push(&self, version: ProtocolVersion, output: &mut Output) -> Result<(), EncodeError>;
}

impl<T: Encode> Encodable for T {
    fn push(&self, version: ProtocolVersion, output: &mut Output) -> Result<(), EncodeError> {
        output.push(self, version)
    }
}

/// The answers of one connection that wait, oldest first, each with the ticket it waits for; 0 waits only for those before it.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: VecDeque<(Ticket, Reply)>,
    seen: Registration,
}

impl Replies {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the client must get some of them before it is heard again.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Sends the answer, now if nothing is in its way.
    pub fn push(
        &mut self,
        reply: Reply,
        ticket: Ticket,
        store: Option<&Store>,
        version: ProtocolVersion,
        output: &mut Output,
    ) -> Result<(), EncodeError> {
        let durable = ticket == 0 || store.is_none_or(|store| store.is_durable(ticket));
        if durable && self.waiting.is_empty() {
            return reply.encode(version, output);
        }
        self.waiting.push_back((ticket, reply));
        Ok(())
    }

    /// Sends what became durable; `true` if that was anything.
    pub fn flush(&mut self, store: &Store, version: ProtocolVersion, output: &mut Output) -> Result<bool, Close> {
        if self.waiting.is_empty() {
            return Ok(false);
        }
        // Before the tickets: what became durable before the failure is told.
        let health = store.health();
        let durable = store.durable();
        let mut sent = false;
        while let Some((ticket, reply)) = self.waiting.front()
            && *ticket <= durable
        {
            reply.encode(version, output)?;
            self.waiting.pop_front();
            sent = true;
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        } else if health == Health::Failed {
            return Err(Close::Store(health));
        }
        Ok(sent)
    }

    /// Has the task woken when the store has made something durable; `false` if that may have happened in between.
    pub fn register(&mut self, store: &Store, waker: &Waker) -> bool {
        store.register(waker, &mut self.seen)
    }
}
