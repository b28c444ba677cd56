//! The sending half of QoS 1 and 2: packet identifiers, the window, and what is sent again after a reconnect.

use super::Delivery;
use hashbrown::HashMap;
use std::num::NonZeroU16;

/// Where an outgoing message stands.
///
/// ```text
///   QoS 1:  Publish ──PUBACK──▶ (gone)
///   QoS 2:  Publish ──PUBREC──▶ Released ──PUBCOMP──▶ (gone)
///              └──PUBREC with an error──▶ (gone)
/// ```
#[derive(Debug, Clone)]
pub enum Pending {
    /// PUBLISH was sent, PUBACK or PUBREC is awaited.
    Publish(Delivery),
    /// PUBREC came and PUBREL was sent; PUBCOMP is awaited.
    Released,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// The message is done and the window has one more place.
    Done,
    /// PUBREL must be sent.
    Release,
    /// No such identifier is in flight.
    Unknown,
    /// The identifier is in flight, but this packet does not belong to its QoS or state.
    Unexpected,
}

/// One packet to send again after a reconnect, in the order of the first sending, [MQTT-4.4.0-1].
#[derive(Debug, Clone)]
pub enum Resend {
    Publish(NonZeroU16, Delivery),
    Release(NonZeroU16),
}

#[derive(Debug)]
struct Entry {
    order: u64,
    pending: Pending,
}

/// The window of unacknowledged QoS 1 and 2 messages towards a client.
#[derive(Debug)]
pub struct Inflight {
    entries: HashMap<NonZeroU16, Entry>,
    next_id: u16,
    next_order: u64,
}

impl Default for Inflight {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflight {
    pub fn new() -> Inflight {
        Inflight { entries: HashMap::new(), next_id: 1, next_order: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a free packet identifier for `delivery`; `None` when `window` (the client's receive maximum) is used up, [MQTT-3.3.4-9].
    pub fn begin(&mut self, delivery: Delivery, window: usize) -> Option<NonZeroU16> {
        if self.entries.len() >= window.min(usize::from(u16::MAX)) {
            return None;
        }
        // A free identifier exists, since fewer than 65,535 are taken.
        let id = loop {
            let candidate = NonZeroU16::new(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            match candidate {
                Some(id) if !self.entries.contains_key(&id) => break id,
                _ => {}
            }
        };
        let order = self.next_order;
        self.next_order = order.wrapping_add(1);
        self.entries.insert(id, Entry { order, pending: Pending::Publish(delivery) });
        Some(id)
    }

    /// PUBACK.
    pub fn acknowledge(&mut self, id: NonZeroU16) -> Acknowledged {
        match self.entries.get(&id) {
            None => Acknowledged::Unknown,
            Some(Entry { pending: Pending::Publish(delivery), .. }) if delivery.qos == mqtt_codec::QoS::AtLeastOnce => {
                self.forget(id);
                Acknowledged::Done
            }
            Some(_) => Acknowledged::Unexpected,
        }
    }

    /// PUBREC; `failed` is a reason code of 0x80 or above, which ends the exchange, [MQTT-4.3.3-4].
    pub fn received(&mut self, id: NonZeroU16, failed: bool) -> Acknowledged {
        match self.entries.get_mut(&id) {
            None => Acknowledged::Unknown,
            // A second PUBREC: PUBREL was lost or crossed it.
            Some(Entry { pending: Pending::Released, .. }) => Acknowledged::Release,
            Some(Entry { pending: Pending::Publish(delivery), .. }) if delivery.qos != mqtt_codec::QoS::ExactlyOnce => {
                Acknowledged::Unexpected
            }
            Some(_) if failed => {
                self.forget(id);
                Acknowledged::Done
            }
            Some(entry) => {
                entry.pending = Pending::Released;
                Acknowledged::Release
            }
        }
    }

    /// PUBCOMP.
    pub fn complete(&mut self, id: NonZeroU16) -> Acknowledged {
        match self.entries.get(&id) {
            None => Acknowledged::Unknown,
            Some(Entry { pending: Pending::Released, .. }) => {
                self.forget(id);
                Acknowledged::Done
            }
            Some(_) => Acknowledged::Unexpected,
        }
    }

    /// Everything unacknowledged, oldest first, as it must be sent when the client is back.
    pub fn resend(&self) -> Vec<Resend> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.order);
        entries
            .into_iter()
            .map(|(&id, entry)| match &entry.pending {
                Pending::Publish(delivery) => Resend::Publish(id, delivery.clone()),
                Pending::Released => Resend::Release(id),
            })
            .collect()
    }

    /// Forgets messages that were not received yet and are not to be kept; returns how many that were.
    pub fn retain(&mut self, mut keep: impl FnMut(&Delivery) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| match &entry.pending {
            Pending::Publish(delivery) => keep(delivery),
            Pending::Released => true,
        });
        before - self.entries.len()
    }

    /// Forgets an exchange; a large table gives its memory back once it is empty.
    pub fn forget(&mut self, id: NonZeroU16) {
        self.entries.remove(&id);
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::delivery;
    use super::*;
    use mqtt_codec::QoS;

    #[test]
    fn identifiers_are_never_zero_and_never_taken_twice() {
        let mut inflight = Inflight::new();
        inflight.next_id = u16::MAX;
        let a = inflight.begin(delivery("t", QoS::AtLeastOnce), 10).unwrap();
        let b = inflight.begin(delivery("t", QoS::AtLeastOnce), 10).unwrap();
        assert_eq!((a.get(), b.get()), (u16::MAX, 1));
        inflight.next_id = u16::MAX;
        assert_eq!(inflight.begin(delivery("t", QoS::AtLeastOnce), 10).unwrap().get(), 2);
    }

    #[test]
    fn the_window_closes_at_receive_maximum_and_opens_with_an_acknowledgement() {
        let mut inflight = Inflight::new();
        let first = inflight.begin(delivery("t", QoS::AtLeastOnce), 2).unwrap();
        inflight.begin(delivery("t", QoS::ExactlyOnce), 2).unwrap();
        assert!(inflight.begin(delivery("t", QoS::AtLeastOnce), 2).is_none());
        assert_eq!(inflight.acknowledge(first), Acknowledged::Done);
        assert!(inflight.begin(delivery("t", QoS::AtLeastOnce), 2).is_some());
    }

    #[test]
    fn every_identifier_can_be_in_flight_and_no_more() {
        let mut inflight = Inflight::new();
        for _ in 0..u16::MAX {
            assert!(inflight.begin(delivery("t", QoS::AtLeastOnce), 1_000_000).is_some());
        }
        assert!(inflight.begin(delivery("t", QoS::AtLeastOnce), 1_000_000).is_none());
    }

    #[test]
    fn qos_2_passes_through_pubrec_and_pubcomp() {
        let mut inflight = Inflight::new();
        let id = inflight.begin(delivery("t", QoS::ExactlyOnce), 2).unwrap();
        assert_eq!(inflight.complete(id), Acknowledged::Unexpected);
        assert_eq!(inflight.acknowledge(id), Acknowledged::Unexpected);
        assert_eq!(inflight.received(id, false), Acknowledged::Release);
        assert_eq!(inflight.received(id, false), Acknowledged::Release);
        assert_eq!(inflight.complete(id), Acknowledged::Done);
        assert_eq!(inflight.complete(id), Acknowledged::Unknown);
    }

    #[test]
    fn a_refused_qos_2_message_ends_with_its_pubrec() {
        let mut inflight = Inflight::new();
        let id = inflight.begin(delivery("t", QoS::ExactlyOnce), 2).unwrap();
        assert_eq!(inflight.received(id, true), Acknowledged::Done);
        assert!(inflight.is_empty());
    }

    #[test]
    fn pubrec_for_a_qos_1_message_is_unexpected() {
        let mut inflight = Inflight::new();
        let id = inflight.begin(delivery("t", QoS::AtLeastOnce), 2).unwrap();
        assert_eq!(inflight.received(id, false), Acknowledged::Unexpected);
        assert_eq!(inflight.len(), 1);
    }

    #[test]
    fn resends_in_the_order_of_the_first_sending() {
        let mut inflight = Inflight::new();
        let a = inflight.begin(delivery("a", QoS::AtLeastOnce), 9).unwrap();
        let b = inflight.begin(delivery("b", QoS::ExactlyOnce), 9).unwrap();
        let c = inflight.begin(delivery("c", QoS::AtLeastOnce), 9).unwrap();
        inflight.received(b, false);
        let sent: Vec<_> = inflight
            .resend()
            .into_iter()
            .map(|r| match r {
                Resend::Publish(id, d) => (id, Some(d.message.topic.to_string())),
                Resend::Release(id) => (id, None),
            })
            .collect();
        assert_eq!(sent, [(a, Some("a".into())), (b, None), (c, Some("c".into()))]);
    }
}
