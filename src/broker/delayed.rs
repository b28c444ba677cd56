//! Delayed publish: `$delayed/SECONDS/TOPIC` is published to `TOPIC` after that time.
//!
//! What waits is in memory and is lost with the process, whatever its QoS: docs say so.

use super::deadlines::Deadlines;
use super::{Broker, SubscriberId};
use crate::config::DelayedConfig;
use crate::session::{Message, Millis};
use bytestring::ByteString;
use parking_lot::Mutex;

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
    deadlines: Deadlines<DelayedMessage>,
    bytes: usize,
}

/// A message and what its publication needs.
#[derive(Debug)]
pub(super) struct DelayedMessage {
    pub from: Option<SubscriberId>,
    pub message: Message,
    pub retain: bool,
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
        Delayed {
            waiting: Mutex::new(Waiting { deadlines: Deadlines::new(), bytes: 0 }),
            max_messages: config.max_delayed_messages,
            max_bytes: config.max_bytes,
        }
    }

    /// When the next message is due.
    pub fn next(&self) -> Option<Millis> {
        self.waiting.lock().deadlines.next()
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().deadlines.len()
    }

    /// `None` when there is no room, else whether the message is now the first that is due.
    fn push(&self, at: Millis, delayed: DelayedMessage) -> Option<bool> {
        let cost = delayed.message.cost();
        let mut waiting = self.waiting.lock();
        if waiting.deadlines.len() >= self.max_messages || waiting.bytes.saturating_add(cost) > self.max_bytes {
            return None;
        }
        waiting.bytes += cost;
        Some(waiting.deadlines.push(at, delayed))
    }

    pub fn pop_due(&self, now: Millis) -> Option<DelayedMessage> {
        let mut waiting = self.waiting.lock();
        let due = waiting.deadlines.pop_due(now)?;
        waiting.bytes = waiting.bytes.saturating_sub(due.message.cost());
        Some(due)
    }
}

impl Broker {
    /// Takes the delay off a topic. Everything is an ordinary topic while delayed publish is off.
    pub fn delay_of(&self, topic: &ByteString) -> Delay {
        if self.delayed.is_none() {
            return Delay::None;
        }
        topic.strip_prefix(PREFIX).map_or(Delay::None, parse)
    }

    /// Lets a message wait; `false` when no more may wait.
    pub fn publish_later(&self, from: Option<SubscriberId>, after: Millis, message: Message, retain: bool) -> bool {
        let Some(delayed) = &self.delayed else { return false };
        let at = self.now().saturating_add(after);
        match delayed.push(at, DelayedMessage { from, message, retain }) {
            Some(earliest) => {
                if earliest {
                    self.deadline_changed.notify_one();
                }
                true
            }
            None => {
                self.metrics.limit_hit("delayed.max_delayed_messages");
                false
            }
        }
    }

    /// Delayed messages that wait.
    pub fn delayed_count(&self) -> usize {
        self.delayed.as_ref().map_or(0, Delayed::len)
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
