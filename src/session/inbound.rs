//! The receiving half of QoS 2: which packet identifiers wait for their PUBREL, MQTT 5 section 4.3.3.

use super::{Millis, Ticket};
use hashbrown::HashMap;
use std::num::NonZeroU16;

/// What a QoS 2 PUBLISH means for the state of its packet identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// First sight: route it, then send PUBREC.
    New,
    /// Sent again: only send PUBREC again, [MQTT-4.3.3-10].
    Duplicate,
    /// The client holds more unreleased messages than it may.
    Full,
}

/// Packet identifiers of QoS 2 messages that were received and not yet released.
#[derive(Debug, Default)]
pub struct AwaitingRelease {
    ids: HashMap<NonZeroU16, Waiting>,
    /// Given up for new ones since it was last asked.
    forgotten: Vec<NonZeroU16>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Millis,
    /// Of the store, for the row of the identifier and the messages it came with.
    ticket: Ticket,
}

impl AwaitingRelease {
    pub fn new() -> AwaitingRelease {
        AwaitingRelease::default()
    }

    /// Takes note of a QoS 2 PUBLISH; at most `limit` identifiers are held. Only when there is no place left, those that have waited
    /// for their PUBREL longer than `timeout` are forgotten.
    pub fn begin(&mut self, id: NonZeroU16, limit: usize, now: Millis, timeout: Millis) -> Begin {
        if self.ids.contains_key(&id) {
            return Begin::Duplicate;
        }
        if self.ids.len() >= limit {
            let forgotten = &mut self.forgotten;
            self.ids.retain(|id, waiting| {
                let kept = now.saturating_sub(waiting.since) < timeout;
                if !kept {
                    forgotten.push(*id);
                }
                kept
            });
        }
        if self.ids.len() >= limit {
            return Begin::Full;
        }
        self.ids.insert(id, Waiting { since: now, ticket: 0 });
        Begin::New
    }

    /// An identifier that a store kept.
    pub fn recover(&mut self, id: NonZeroU16, now: Millis) {
        self.ids.insert(id, Waiting { since: now, ticket: 0 });
    }

    /// PUBREC for this identifier waits for the ticket, the first one and any that repeats it.
    pub fn set_ticket(&mut self, id: NonZeroU16, ticket: Ticket) {
        if let Some(waiting) = self.ids.get_mut(&id) {
            waiting.ticket = ticket;
        }
    }

    pub fn ticket(&self, id: NonZeroU16) -> Ticket {
        self.ids.get(&id).map_or(0, |waiting| waiting.ticket)
    }

    /// The identifiers that were given up since the last call.
    pub fn take_forgotten(&mut self) -> Vec<NonZeroU16> {
        std::mem::take(&mut self.forgotten)
    }

    /// A PUBREL: whether the identifier was known. Memory goes back when the last one is released.
    pub fn release(&mut self, id: NonZeroU16) -> bool {
        let known = self.ids.remove(&id).is_some();
        if self.ids.is_empty() {
            self.ids = HashMap::new();
        }
        known
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn a_repeated_publish_is_a_duplicate_until_released() {
        let mut ids = AwaitingRelease::new();
        assert_eq!(ids.begin(id(7), 10, 0, 1000), Begin::New);
        assert_eq!(ids.begin(id(7), 10, 0, 1000), Begin::Duplicate);
        assert!(ids.release(id(7)));
        assert!(!ids.release(id(7)));
        assert_eq!(ids.begin(id(7), 10, 0, 1000), Begin::New);
    }

    #[test]
    fn the_number_of_unreleased_messages_is_bounded() {
        let mut ids = AwaitingRelease::new();
        assert_eq!(ids.begin(id(1), 2, 0, 1000), Begin::New);
        assert_eq!(ids.begin(id(2), 2, 0, 1000), Begin::New);
        assert_eq!(ids.begin(id(3), 2, 0, 1000), Begin::Full);
        assert_eq!(ids.begin(id(2), 2, 0, 1000), Begin::Duplicate);
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn a_message_that_is_never_released_gives_its_place_up_after_the_timeout() {
        let mut ids = AwaitingRelease::new();
        assert_eq!(ids.begin(id(1), 1, 0, 1000), Begin::New);
        assert_eq!(ids.begin(id(2), 1, 999, 1000), Begin::Full);
        assert_eq!(ids.begin(id(2), 1, 1000, 1000), Begin::New);
        assert!(!ids.release(id(1)));
        assert_eq!(ids.take_forgotten(), [id(1)]);
        assert!(ids.take_forgotten().is_empty());
    }
}
