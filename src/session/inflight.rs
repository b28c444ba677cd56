//! The sending half of QoS 1 and 2: packet identifiers, the window, and what is sent again after a reconnect.

use super::{Delivery, Ticket};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::num::NonZeroU16;

/// Packet identifiers that there are.
const IDS: u64 = u16::MAX as u64;

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
    /// Of the first sending; the number of its row for a stored delivery.
    order: u64,
    pending: Pending,
}

/// The window of unacknowledged QoS 1 and 2 messages towards a client.
///
/// The packet identifier of a stored delivery is a function of its number, so that it is the same after a crash without having been
/// written. The numbers in flight, and those whose rows may still be on disk, span fewer than there are identifiers.
#[derive(Debug)]
pub struct Inflight {
    entries: HashMap<NonZeroU16, Entry>,
    next_id: u16,
    next_order: u64,
    /// Numbers of stored deliveries in flight, rising; those that are done leave when they come to the front.
    stored: VecDeque<u64>,
    /// No row below this number can be on disk.
    floor: u64,
    /// What `floor` becomes when this ticket is durable.
    rising: Option<(u64, Ticket)>,
}

/// The packet identifier of a stored delivery.
fn id_of(seq: u64) -> NonZeroU16 {
    let id = u16::try_from(seq.saturating_sub(1) % IDS + 1).ok();
    id.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

impl Default for Inflight {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflight {
    pub fn new() -> Inflight {
        Inflight { entries: HashMap::new(), next_id: 1, next_order: 0, stored: VecDeque::new(), floor: 1, rising: None }
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
        if delivery.is_stored() {
            return self.begin_stored(delivery.stored.seq, Pending::Publish(delivery));
        }
        // A free identifier exists, since fewer than 65,535 are taken.
        // [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.9.0-1]
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

    fn begin_stored(&mut self, seq: u64, pending: Pending) -> Option<NonZeroU16> {
        if !self.has_id_for(seq) {
            return None;
        }
        let id = id_of(seq);
        self.entries.insert(id, Entry { order: seq, pending });
        self.stored.push_back(seq);
        self.next_order = seq.saturating_add(1);
        Some(id)
    }

    /// Numbers from here on have no packet identifier of their own.
    pub fn ids_below(&self) -> u64 {
        self.floor.saturating_add(IDS)
    }

    /// Whether PUBREC came for this identifier before.
    pub fn is_released(&self, id: NonZeroU16) -> bool {
        self.entries.get(&id).is_some_and(|entry| matches!(entry.pending, Pending::Released))
    }

    /// Whether the packet identifier of a stored delivery can belong to no other.
    fn has_id_for(&self, seq: u64) -> bool {
        seq.saturating_sub(self.floor) < IDS && !self.entries.contains_key(&id_of(seq))
    }

    /// A stored exchange that had come to PUBREC: PUBREL is to be sent again with this identifier.
    pub fn restore_released(&mut self, seq: u64) -> Option<NonZeroU16> {
        self.begin_stored(seq, Pending::Released)
    }

    /// For a session that was recovered: the lowest number whose row is on disk.
    pub fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// Takes note of what is durable: `last_change` is the last change to rows of this window, made before the call.
    pub fn settle(&mut self, last_change: Ticket, durable: Ticket) {
        if let Some((floor, ticket)) = self.rising
            && ticket <= durable
        {
            self.floor = floor;
            self.rising = None;
        }
        if self.rising.is_none() {
            let lowest = self.lowest_stored().unwrap_or(self.next_order);
            if lowest > self.floor && last_change <= durable {
                // No later commit would say so.
                self.floor = lowest;
            } else if lowest > self.floor {
                self.rising = Some((lowest, last_change));
            }
        }
    }

    /// The lowest number in flight of a stored delivery.
    pub fn lowest_stored(&mut self) -> Option<u64> {
        while let Some(seq) = self.stored.front() {
            if self.entries.get(&id_of(*seq)).is_some_and(|entry| entry.order == *seq) {
                return Some(*seq);
            }
            self.stored.pop_front();
        }
        None
    }

    /// The number of the row behind an identifier in flight, for a session whose deliveries are stored.
    pub fn row(&self, id: NonZeroU16) -> Option<u64> {
        self.entries.get(&id).map(|entry| entry.order)
    }

    /// Bytes of the messages in flight.
    pub fn bytes(&self) -> usize {
        let cost = |entry: &Entry| match &entry.pending {
            Pending::Publish(delivery) => delivery.cost(),
            Pending::Released => 0,
        };
        self.entries.values().map(cost).sum()
    }

    /// Forgets what is in flight, since the store has it, and keeps what tells identifiers apart.
    pub fn park(&mut self) {
        self.entries = HashMap::new();
        self.stored = VecDeque::new();
    }

    /// PUBACK.
    pub fn acknowledge(&mut self, id: NonZeroU16) -> Acknowledged {
        match self.entries.get(&id) {
            None => Acknowledged::Unknown,
            // [MQTT-4.3.2-3]
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
            // [MQTT-4.3.3-3] [MQTT-4.4.0-2]
            Some(_) if failed => {
                self.forget(id);
                Acknowledged::Done
            }
            Some(entry) => {
                // [MQTT-4.3.3-6]: the message itself is not kept any longer.
                entry.pending = Pending::Released;
                Acknowledged::Release
            }
        }
    }

    /// PUBCOMP.
    pub fn complete(&mut self, id: NonZeroU16) -> Acknowledged {
        match self.entries.get(&id) {
            None => Acknowledged::Unknown,
            // [MQTT-4.3.3-5]
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
        // [MQTT-4.3.3-7]: no expiry, and the order of the first sending.
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

    fn stored(seq: u64) -> Delivery {
        let mut delivery = delivery("t", QoS::AtLeastOnce);
        delivery.stored.seq = seq;
        delivery
    }

    #[test]
    fn the_identifier_of_a_stored_delivery_follows_from_its_number() {
        let mut inflight = Inflight::new();
        let id = |inflight: &mut Inflight, seq| inflight.begin(stored(seq), 10).map(NonZeroU16::get);
        assert_eq!(id(&mut inflight, 1), Some(1));
        assert_eq!(id(&mut inflight, 65_535), Some(65_535));
        // The first one is still in flight.
        assert_eq!(id(&mut inflight, 65_536), None);
        assert_eq!(inflight.acknowledge(id_of(1)), Acknowledged::Done);
        // Its row may still be on disk: after a crash both would have one identifier.
        inflight.settle(7, 6);
        assert_eq!(id(&mut inflight, 65_536), None);
        inflight.settle(7, 7);
        assert_eq!(id(&mut inflight, 65_536), Some(1));
        // What is durable already is taken note of at once: there may be no later commit that would wake anybody.
        assert_eq!(inflight.acknowledge(id_of(65_535)), Acknowledged::Done);
        assert_eq!(inflight.acknowledge(id_of(65_536)), Acknowledged::Done);
        inflight.settle(9, 9);
        assert_eq!(inflight.ids_below(), 65_537 + IDS);
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
