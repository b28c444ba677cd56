//! The bounded queue between publishers and one session.

use super::{Delivery, Millis};
use mqtt_codec::QoS;
use std::collections::VecDeque;

/// Bounds of one session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    pub max_messages: usize,
    /// Bytes of topics, payloads and bookkeeping.
    pub max_bytes: usize,
    /// Whether QoS 0 messages are kept for a client that is away.
    pub store_qos0: bool,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Queued,
    /// Queued, and this many older messages were dropped for it.
    Evicted(usize),
    /// A QoS 0 message for a client that is away.
    DroppedAway,
    /// The queue is full of messages that matter more, or the message alone is larger than the queue.
    DroppedFull,
}

/// Messages that wait for a session, oldest first.
///
/// A full queue drops an arriving QoS 0 message; for an arriving QoS 1 or 2 message it drops the oldest ones. Either is counted by the caller.
#[derive(Debug, Default)]
pub struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Queue {
    pub fn new() -> Queue {
        Queue::default()
    }

    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops what is not to be kept; returns how many messages that were.
    pub fn retain(&mut self, mut keep: impl FnMut(&Delivery) -> bool) -> usize {
        let before = self.deliveries.len();
        let bytes = &mut self.bytes;
        self.deliveries.retain(|delivery| {
            let kept = keep(delivery);
            if !kept {
                *bytes = bytes.saturating_sub(delivery.cost());
            }
            kept
        });
        before - self.deliveries.len()
    }

    /// Appends `delivery`; `away` says that no connection drains the queue.
    pub fn push(&mut self, delivery: Delivery, away: bool, limits: &QueueLimits) -> Push {
        if away && delivery.qos == QoS::AtMostOnce && !limits.store_qos0 {
            return Push::DroppedAway;
        }
        let cost = delivery.cost();
        if cost > limits.max_bytes || limits.max_messages == 0 {
            return Push::DroppedFull;
        }
        let mut evicted = 0;
        while self.deliveries.len() >= limits.max_messages || self.bytes.saturating_add(cost) > limits.max_bytes {
            if delivery.qos == QoS::AtMostOnce || self.pop_oldest().is_none() {
                return Push::DroppedFull;
            }
            evicted += 1;
        }
        self.bytes += cost;
        self.deliveries.push_back(delivery);
        if evicted == 0 { Push::Queued } else { Push::Evicted(evicted) }
    }

    /// The next message to send: with the window closed (`window_open` false) nothing passes a QoS 1 or 2 message at the head, which
    /// keeps the order. Expired messages are skipped and counted in `expired`, [MQTT-3.3.2-5].
    pub fn pop(&mut self, window_open: bool, now: Millis, expired: &mut usize) -> Option<Delivery> {
        loop {
            let head = self.deliveries.front()?;
            if head.message.has_expired(now) {
                *expired += 1;
                self.pop_oldest();
                continue;
            }
            if head.qos != QoS::AtMostOnce && !window_open {
                return None;
            }
            return self.pop_oldest();
        }
    }

    fn pop_oldest(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(delivery.cost());
        // An idle session must not keep the memory of its busiest moment.
        if self.deliveries.is_empty() && self.deliveries.capacity() > 16 {
            self.deliveries = VecDeque::new();
        }
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{delivery, expiring};
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { max_messages: 3, max_bytes: 1 << 20, store_qos0: false };

    fn topics(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(true, 0, &mut 0)).map(|d| d.message.topic.to_string()).collect()
    }

    #[test]
    fn keeps_the_order_across_qos() {
        let mut queue = Queue::new();
        for (topic, qos) in [("a", QoS::AtLeastOnce), ("b", QoS::AtMostOnce), ("c", QoS::ExactlyOnce)] {
            assert_eq!(queue.push(delivery(topic, qos), false, &LIMITS), Push::Queued);
        }
        assert!(queue.pop(false, 0, &mut 0).is_none());
        assert_eq!(topics(&mut queue), ["a", "b", "c"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_full_queue_drops_arriving_qos_0_and_the_oldest_for_qos_1() {
        let mut queue = Queue::new();
        for topic in ["a", "b", "c"] {
            queue.push(delivery(topic, QoS::AtLeastOnce), false, &LIMITS);
        }
        assert_eq!(queue.push(delivery("d", QoS::AtMostOnce), false, &LIMITS), Push::DroppedFull);
        assert_eq!(queue.push(delivery("e", QoS::AtLeastOnce), false, &LIMITS), Push::Evicted(1));
        assert_eq!(topics(&mut queue), ["b", "c", "e"]);
    }

    #[test]
    fn qos_0_is_kept_for_an_absent_client_only_when_asked() {
        let mut queue = Queue::new();
        assert_eq!(queue.push(delivery("a", QoS::AtMostOnce), true, &LIMITS), Push::DroppedAway);
        let keep = QueueLimits { store_qos0: true, ..LIMITS };
        assert_eq!(queue.push(delivery("a", QoS::AtMostOnce), true, &keep), Push::Queued);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let cost = delivery("a", QoS::AtLeastOnce).cost();
        let limits = QueueLimits { max_messages: 100, max_bytes: 2 * cost, store_qos0: false };
        let mut queue = Queue::new();
        queue.push(delivery("a", QoS::AtLeastOnce), false, &limits);
        queue.push(delivery("b", QoS::AtLeastOnce), false, &limits);
        assert_eq!(queue.push(delivery("c", QoS::AtLeastOnce), false, &limits), Push::Evicted(1));
        assert_eq!(queue.bytes(), 2 * cost);
        let tiny = QueueLimits { max_bytes: cost - 1, ..limits };
        assert_eq!(queue.push(delivery("d", QoS::AtLeastOnce), false, &tiny), Push::DroppedFull);
    }

    #[test]
    fn what_is_not_kept_leaves_with_its_bytes() {
        let mut queue = Queue::new();
        for topic in ["a", "b", "c"] {
            queue.push(delivery(topic, QoS::AtLeastOnce), false, &LIMITS);
        }
        assert_eq!(queue.retain(|delivery| delivery.message.topic == "b"), 2);
        assert_eq!(queue.bytes(), delivery("b", QoS::AtLeastOnce).cost());
        assert_eq!(topics(&mut queue), ["b"]);
    }

    #[test]
    fn expired_messages_are_skipped_and_counted() {
        let mut queue = Queue::new();
        queue.push(expiring("a", 100), false, &LIMITS);
        queue.push(delivery("b", QoS::AtLeastOnce), false, &LIMITS);
        let mut expired = 0;
        assert_eq!(queue.pop(true, 100, &mut expired).unwrap().message.topic, "b");
        assert_eq!(expired, 1);
    }
}
