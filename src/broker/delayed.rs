//! Delayed publish: `$delayed/SECONDS/TOPIC` is published to `TOPIC` after that time.
//!
//! What waits is in memory, within its bounds. With a store a message of QoS 1 or 2 is a row too, which goes in one transaction with what
//! its publication writes.

use super::deadlines::Deadlines;
use super::durable::Changes;
use super::{Broker, Subscriber, SubscriberId};
use crate::config::DelayedConfig;
use crate::session::{Message, Millis, Ticket};
use crate::store::{DelayedRow, Health, Key, MAX_STORED_PAYLOAD, Row};
use bytestring::ByteString;
use mqtt_codec::QoS;
use parking_lot::Mutex;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What topics of delayed messages begin with.
const PREFIX: &str = "$delayed/";
/// The longest delay, in seconds; as in EMQX.
const MAX_DELAY_SECS: u64 = 4_294_967;

/// Messages that wait.
#[derive(Debug)]
pub(super) struct Delayed {
    waiting: Mutex<Waiting>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    /// Those that end with the process.
    in_memory: Deadlines<DelayedMessage>,
    /// Those that are rows as well.
    stored: Deadlines<DelayedMessage>,
    bytes: usize,
    next_number: u64,
}

/// A message and what its publication needs.
#[derive(Debug)]
pub(super) struct DelayedMessage {
    /// Of its row, if it has one.
    pub number: Option<u64>,
    pub from: Option<SubscriberId>,
    pub message: Arc<Message>,
    pub retain: bool,
}

/// How a delayed message is to be published.
#[derive(Debug, Clone, Copy)]
pub struct DelayOptions {
    pub retain: bool,
    /// The packet identifier of a QoS 2 message from a durable session, which is stored with it.
    pub inbound: Option<NonZeroU16>,
}

/// What became of a message that is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// Its publisher may be told when this is durable; 0 is at once.
    Taken(Ticket),
    /// No more may wait.
    Full,
    /// The store cannot take it.
    Refused(Health),
}

/// What a topic says about delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delay {
    /// An ordinary topic.
    None,
    After(Millis, ByteString),
    /// It begins as a delayed one and is none.
    Malformed,
}

impl Delayed {
    pub fn new(config: &DelayedConfig) -> Delayed {
        let (in_memory, stored) = (Deadlines::new(), Deadlines::new());
        Delayed {
            waiting: Mutex::new(Waiting { in_memory, stored, bytes: 0, next_number: 1 }),
            max_messages: config.max_delayed_messages,
            max_bytes: config.max_bytes,
        }
    }

    /// When the next message is due, of those with rows only if the store takes changes.
    pub fn next(&self, store_takes: bool) -> Option<Millis> {
        let waiting = self.waiting.lock();
        let stored = waiting.stored.next().filter(|_| store_takes);
        [waiting.in_memory.next(), stored].into_iter().flatten().min()
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// As [`next`](Self::next): a message whose publication the store cannot take stays where it is.
    pub fn pop_due(&self, now: Millis, store_takes: bool) -> Option<DelayedMessage> {
        let mut waiting = self.waiting.lock();
        let stored = if store_takes { waiting.stored.pop_due(now) } else { None };
        let due = stored.or_else(|| waiting.in_memory.pop_due(now))?;
        waiting.bytes = waiting.bytes.saturating_sub(due.message.cost());
        Some(due)
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.in_memory.len() + self.stored.len()
    }

    /// Adds a message and says whether it is now the first of its kind that is due.
    fn push(&mut self, at: Millis, delayed: DelayedMessage) -> bool {
        self.bytes = self.bytes.saturating_add(delayed.message.cost());
        match delayed.number {
            Some(_) => self.stored.push(at, delayed),
            None => self.in_memory.push(at, delayed),
        }
    }
}

impl Broker {
    /// Takes the delay off a topic. Everything is an ordinary topic while delayed publish is off.
    pub fn delay_of(&self, topic: &ByteString) -> Delay {
        if !self.features.delayed.enable {
            return Delay::None;
        }
        topic.strip_prefix(PREFIX).map_or(Delay::None, parse)
    }

    /// Lets the message of a client wait.
    pub fn publish_later(&self, from: &Subscriber, after: Millis, message: Message, how: DelayOptions) -> Later {
        if let Some(health) = self.store_trouble().filter(|_| message.qos != QoS::AtMostOnce) {
            self.metrics.store.refused.fetch_add(1, Ordering::Relaxed);
            return Later::Refused(health);
        }
        let mut changes = Changes::new(self.store.as_deref());
        self.let_wait(Some(from), after, message, how, &mut changes)
    }

    /// Lets a message wait, whatever the health of the store.
    pub(super) fn let_wait(
        &self,
        from: Option<&Subscriber>,
        after: Millis,
        message: Message,
        how: DelayOptions,
        changes: &mut Changes<'_>,
    ) -> Later {
        let (cost, at) = (message.cost(), self.now().saturating_add(after));
        // The batch comes before the lock.
        let mut batch = if message.qos == QoS::AtMostOnce { None } else { changes.begin() };
        let mut waiting = self.delayed.waiting.lock();
        let full = waiting.len() >= self.delayed.max_messages
            || waiting.bytes.saturating_add(cost) > self.delayed.max_bytes
            || batch.is_some() && message.payload.len() > MAX_STORED_PAYLOAD;
        if full {
            drop(waiting);
            self.metrics.limit_hit("delayed.max_delayed_messages");
            return Later::Full;
        }
        let message = Arc::new(message);
        let from_id = from.map(Subscriber::id);
        let mut delayed = DelayedMessage { number: None, from: from_id, message, retain: how.retain };
        let mut ticket = 0;
        if let Some(batch) = &mut batch {
            let number = waiting.next_number;
            waiting.next_number += 1;
            delayed.number = Some(number);
            // Another session may have the identifier of one that is not durable after a restart.
            let from = from.filter(|from| from.is_durable()).map_or(0, Subscriber::id);
            let message = Arc::clone(&delayed.message);
            let row = DelayedRow { due: at, from, retain: how.retain, message };
            ticket = batch.put(Key::Delayed(number), Row::Delayed(Box::new(row)));
        }
        let earliest = waiting.push(at, delayed);
        drop(waiting);
        if let (Some(batch), Some(from), Some(id)) = (batch, from_id, how.inbound) {
            ticket = batch.put(Key::Inbound(from, id), Row::Inbound);
        }
        if earliest {
            self.deadline_changed.notify_one();
        }
        Later::Taken(ticket)
    }

    /// Takes over the messages that the store held, in the order of their numbers, also those beyond today's bounds. To be called
    /// before anything listens.
    pub fn recover_delayed(&self, stored: Vec<(u64, Box<DelayedRow>)>) {
        let mut waiting = self.delayed.waiting.lock();
        for (number, row) in stored {
            let DelayedRow { due, from, retain, message } = *row;
            waiting.next_number = waiting.next_number.max(number.saturating_add(1));
            // No later session is taken for the one that published it.
            self.next_id.fetch_max(from.saturating_add(1), Ordering::Relaxed);
            let from = Some(from).filter(|from| *from != 0);
            waiting.push(due, DelayedMessage { number: Some(number), from, message, retain });
        }
    }

    /// Delayed messages that wait.
    pub fn delayed_count(&self) -> usize {
        self.delayed.len()
    }
}

fn parse(rest: &str) -> Delay {
    let Some((secs, topic)) = rest.split_once('/') else { return Delay::Malformed };
    let digits = !secs.is_empty() && secs.bytes().all(|byte| byte.is_ascii_digit());
    match secs.parse::<u64>() {
        Ok(secs) if digits && secs <= MAX_DELAY_SECS && !topic.is_empty() => {
            Delay::After(secs * 1000, ByteString::from(topic))
        }
        _ => Delay::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_whole_seconds_and_a_topic() {
        assert_eq!(parse("5/a/b"), Delay::After(5000, "a/b".into()));
        assert_eq!(parse("0/t"), Delay::After(0, "t".into()));
        assert_eq!(parse("4294967/t"), Delay::After(4_294_967_000, "t".into()));
        for bad in ["", "5", "5/", "/t", "-1/t", "+1/t", "1.5/t", "x/t", "4294968/t", "99999999999999999999/t"] {
            assert_eq!(parse(bad), Delay::Malformed, "{bad}");
        }
    }
}
