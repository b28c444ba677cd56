//! Answers that may be sent only when something is durable, in the order in which they were earned, [MQTT-4.6.0-2] to [MQTT-4.6.0-4].

use super::Close;
use super::close::explain;
use super::output::Output;
use crate::session::Ticket;
use crate::store::{Health, Registration, Store};
use bytestring::ByteString;
use mqtt_codec::{Encode, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, ReasonCode, SubAck, UnsubAck};
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

/// For whom answers are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audience {
    pub version: ProtocolVersion,
    /// Whether failures are put in words, [MQTT-3.1.2-29].
    pub explain: bool,
    pub max_packet_size: usize,
}

impl Reply {
    fn encode(&self, to: Audience, output: &mut Output) -> Result<(), Close> {
        match self {
            Reply::PubAck(id, reason) => {
                let ack = PubAck::with_reason(*id, *reason);
                // [MQTT-3.4.2-2]
                to.send(ack, *reason, |ack, words| ack.properties.reason_string = words, output)
            }
            Reply::PubRec(id, reason) => {
                let ack = PubRec::with_reason(*id, *reason);
                // [MQTT-3.5.2-2]
                to.send(ack, *reason, |ack, words| ack.properties.reason_string = words, output)
            }
            // Neither says more than its code: they know but one failure.
            Reply::PubRel(id, reason) => Ok(output.push(&PubRel::with_reason(*id, *reason), to.version)?),
            Reply::PubComp(id, reason) => Ok(output.push(&PubComp::with_reason(*id, *reason), to.version)?),
            Reply::SubAck(ack) => {
                let failed = ack.reasons.iter().copied().find(|reason| explain(*reason).is_some());
                match failed.filter(|_| to.explain) {
                    // [MQTT-3.9.2-1]
                    Some(reason) => {
                        to.send((**ack).clone(), reason, |ack, words| ack.properties.reason_string = words, output)
                    }
                    None => to.fit(&**ack, output),
                }
            }
            Reply::UnsubAck(ack) => to.fit(&**ack, output),
        }
    }
}

impl Audience {
    /// Writes a packet with words for its failure, or without them if they make it too large.
    fn send<P: Encode>(
        self,
        mut packet: P,
        reason: ReasonCode,
        put: impl Fn(&mut P, Option<ByteString>),
        output: &mut Output,
    ) -> Result<(), Close> {
        let words = explain(reason).filter(|_| self.explain && reason.is_error());
        if words.is_some() {
            put(&mut packet, words.map(ByteString::from_static));
            if packet.encoded_len(self.version)? > self.max_packet_size {
                put(&mut packet, None);
            }
        }
        self.fit(&packet, output)
    }

    /// Writes a packet that the client must take, [MQTT-3.1.2-24].
    pub fn fit(self, packet: &impl Encode, output: &mut Output) -> Result<(), Close> {
        if self.max_packet_size < usize::MAX && packet.encoded_len(self.version)? > self.max_packet_size {
            return Err(Close::AnswerTooLarge);
        }
        Ok(output.push(packet, self.version)?)
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
        to: Audience,
        output: &mut Output,
    ) -> Result<(), Close> {
        let durable = ticket == 0 || store.is_none_or(|store| store.is_durable(ticket));
        if durable && self.waiting.is_empty() {
            return reply.encode(to, output);
        }
        self.waiting.push_back((ticket, reply));
        Ok(())
    }

    /// Sends what became durable; `true` if that was anything.
    pub fn flush(&mut self, store: &Store, to: Audience, output: &mut Output) -> Result<bool, Close> {
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
            reply.encode(to, output)?;
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
