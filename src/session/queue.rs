//! The bounded queue between publishers and one session.

use super::{Delivery, Millis};
use hashbrown::HashMap;
use mqtt_codec::QoS;
use std::collections::VecDeque;

/// Bounds of a session's queue, and the order in it; one value for all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLimits {
    pub max_messages: usize,
    /// Bytes of topics, payloads and bookkeeping.
    pub max_bytes: usize,
    /// Whether QoS 0 messages are kept for a client that is away.
    pub store_qos0: bool,
    /// How long publishers wait for a client that takes nothing, before its queue is left to fill and drop.
    pub slow_wait: Millis,
    /// `None`: one after the other.
    pub priorities: Option<Priorities>,
}

/// Which topics go before others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priorities {
    topics: HashMap<Box<str>, u8>,
    others: u8,
}

impl Priorities {
    /// `others` is the priority of topics that are not named.
    pub fn new(topics: impl IntoIterator<Item = (Box<str>, u8)>, others: u8) -> Priorities {
        Priorities { topics: topics.into_iter().collect(), others }
    }

    fn of(&self, topic: &str) -> u8 {
        self.topics.get(topic).copied().unwrap_or(self.others)
    }
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Queued,
    /// Queued, and so many older messages were dropped for it: with QoS 0, and with QoS 1 or 2.
    Evicted {
        plain: usize,
        acknowledged: usize,
    },
    /// A QoS 0 message for a client that is away.
    DroppedAway,
    /// The queue is full of messages that matter more, or the message alone is larger than the queue.
    DroppedFull,
    /// The session has ended and takes nothing any more.
    Ended,
}

impl Push {
    /// Queued, after messages with QoS 0 and others were dropped for it.
    pub(super) fn queued([plain, acknowledged]: [usize; 2]) -> Push {
        if plain + acknowledged == 0 { Push::Queued } else { Push::Evicted { plain, acknowledged } }
    }
}

/// Messages that a level may send in a row for each step of its priority while lower ones wait, as EMQX does it.
const SHIFT_MULTIPLIER: u32 = 10;

/// Messages that wait for a session, oldest first; with priorities, oldest first in each of them.
///
/// A full queue drops an arriving QoS 0 message; for an arriving QoS 1 or 2 message it drops the oldest ones of the lowest priority,
/// but none of a higher priority than its own. Either is counted by the caller.
#[derive(Debug, Default)]
pub struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Used instead of `deliveries` when there are priorities.
    levels: Option<Box<Levels>>,
}

/// One queue for each priority that has messages, highest first.
#[derive(Debug, Default)]
struct Levels {
    levels: Vec<(u8, VecDeque<Delivery>)>,
    len: usize,
    /// The priority whose turn it is and how many more messages it may send before a lower one gets a turn.
    turn: Option<(u8, u32)>,
}

impl Queue {
    pub fn new() -> Queue {
        Queue::default()
    }

    pub fn len(&self) -> usize {
        self.levels.as_ref().map_or(self.deliveries.len(), |levels| levels.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops what is not to be kept; returns how many messages that were.
    pub fn retain(&mut self, mut keep: impl FnMut(&Delivery) -> bool) -> usize {
        let before = self.len();
        let bytes = &mut self.bytes;
        let mut keep = |delivery: &Delivery| {
            let kept = keep(delivery);
            if !kept {
                *bytes = bytes.saturating_sub(delivery.cost());
            }
            kept
        };
        match &mut self.levels {
            None => self.deliveries.retain(&mut keep),
            Some(levels) => levels.retain(&mut keep),
        }
        before - self.len()
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
        let priority = limits.priorities.as_ref().map(|priorities| priorities.of(&delivery.message.topic));
        let mut evicted = [0; 2];
        while self.len() >= limits.max_messages || self.bytes.saturating_add(cost) > limits.max_bytes {
            if delivery.qos == QoS::AtMostOnce {
                return Push::DroppedFull;
            }
            let Some(oldest) = self.evict(priority.unwrap_or(u8::MAX)) else { return Push::DroppedFull };
            let [plain, acknowledged] = &mut evicted;
            *(if oldest.qos == QoS::AtMostOnce { plain } else { acknowledged }) += 1;
        }
        self.bytes += cost;
        match priority {
            None => self.deliveries.push_back(delivery),
            Some(priority) => self.levels.get_or_insert_default().push(priority, delivery),
        }
        Push::queued(evicted)
    }

    /// The next message to send: with the window closed (`window_open` false) nothing passes a QoS 1 or 2 message at the head, which
    /// keeps the order. Expired messages are skipped and counted in `expired`, [MQTT-3.3.2-5].
    pub fn pop(&mut self, window_open: bool, now: Millis, expired: &mut usize) -> Option<Delivery> {
        loop {
            let head = self.head()?;
            // [MQTT-4.3.3-13]: what was sent left the queue and expires no more.
            if head.message.has_expired(now) {
                *expired += 1;
                self.pop_head();
                continue;
            }
            // [MQTT-4.6.0-5] [MQTT-4.6.0-6]
            if head.qos != QoS::AtMostOnce && !window_open {
                return None;
            }
            return self.pop_head();
        }
    }

    /// Everything that waits, in the order in which it would be sent.
    pub fn into_deliveries(mut self) -> impl Iterator<Item = Delivery> {
        std::iter::from_fn(move || {
            self.head()?;
            self.pop_head()
        })
    }

    fn head(&mut self) -> Option<&Delivery> {
        match &mut self.levels {
            None => self.deliveries.front(),
            Some(levels) => levels.head(),
        }
    }

    /// Takes what [`head`](Self::head) showed.
    fn pop_head(&mut self) -> Option<Delivery> {
        let delivery = match &mut self.levels {
            None => self.deliveries.pop_front(),
            Some(levels) => levels.pop_head(),
        };
        self.taken(delivery)
    }

    /// Drops the oldest message of the lowest priority up to `most`.
    fn evict(&mut self, most: u8) -> Option<Delivery> {
        let delivery = match &mut self.levels {
            None => self.deliveries.pop_front(),
            Some(levels) => levels.pop_lowest(most),
        };
        self.taken(delivery)
    }

    fn taken(&mut self, delivery: Option<Delivery>) -> Option<Delivery> {
        let delivery = delivery?;
        self.bytes = self.bytes.saturating_sub(delivery.cost());
        // An idle session must not keep the memory of its busiest moment.
        if self.is_empty() {
            self.levels = None;
            if self.deliveries.capacity() > 16 {
                self.deliveries = VecDeque::new();
            }
        }
        Some(delivery)
    }
}

impl Levels {
    fn push(&mut self, priority: u8, delivery: Delivery) {
        self.len += 1;
        match self.levels.binary_search_by(|(level, _)| priority.cmp(level)) {
            Ok(position) => {
                if let Some((_, queue)) = self.levels.get_mut(position) {
                    queue.push_back(delivery);
                }
            }
            Err(position) => {
                self.levels.insert(position, (priority, VecDeque::from([delivery])));
                // A higher priority than the one whose turn it is does not wait.
                if self.turn.is_some_and(|(turn, _)| priority > turn) {
                    self.turn = None;
                }
            }
        }
    }

    fn retain(&mut self, keep: &mut impl FnMut(&Delivery) -> bool) {
        for (_, queue) in &mut self.levels {
            queue.retain(&mut *keep);
        }
        self.levels.retain(|(_, queue)| !queue.is_empty());
        self.len = self.levels.iter().map(|(_, queue)| queue.len()).sum();
    }

    fn head(&mut self) -> Option<&Delivery> {
        let position = match self.turn {
            None => 0,
            Some((priority, credit)) => {
                let here = self.levels.iter().position(|(level, _)| *level <= priority);
                // A turn that is used up, or whose level is empty, goes to the next lower level, and from the last one to the first.
                match here.and_then(|at| self.levels.get(at).map(|(level, _)| (at, *level))) {
                    Some((at, level)) if level == priority && credit == 0 => (at + 1) % self.levels.len(),
                    Some((at, _)) => at,
                    None => 0,
                }
            }
        };
        let (priority, queue) = self.levels.get(position)?;
        if self.turn.is_none_or(|(turn, credit)| turn != *priority || credit == 0) {
            self.turn = Some((*priority, (u32::from(*priority) + 1) * SHIFT_MULTIPLIER));
        }
        queue.front()
    }

    fn pop_head(&mut self) -> Option<Delivery> {
        let (priority, credit) = self.turn?;
        let position = self.levels.iter().position(|(level, _)| *level == priority)?;
        self.turn = Some((priority, credit.saturating_sub(1)));
        self.pop_at(position)
    }

    fn pop_lowest(&mut self, most: u8) -> Option<Delivery> {
        let position = self.levels.len().checked_sub(1)?;
        self.levels.get(position).filter(|(level, _)| *level <= most)?;
        self.pop_at(position)
    }

    fn pop_at(&mut self, position: usize) -> Option<Delivery> {
        let (_, queue) = self.levels.get_mut(position)?;
        let delivery = queue.pop_front()?;
        if queue.is_empty() {
            self.levels.remove(position);
        }
        self.len -= 1;
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{delivery, expiring};
    use super::*;

    const LIMITS: QueueLimits =
        QueueLimits { max_messages: 3, max_bytes: 1 << 20, store_qos0: false, slow_wait: 0, priorities: None };

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
        assert_eq!(
            queue.push(delivery("e", QoS::AtLeastOnce), false, &LIMITS),
            Push::Evicted { plain: 0, acknowledged: 1 }
        );
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
        let limits = QueueLimits { max_messages: 100, max_bytes: 2 * cost, ..LIMITS };
        let mut queue = Queue::new();
        queue.push(delivery("a", QoS::AtLeastOnce), false, &limits);
        queue.push(delivery("b", QoS::AtLeastOnce), false, &limits);
        assert_eq!(
            queue.push(delivery("c", QoS::AtLeastOnce), false, &limits),
            Push::Evicted { plain: 0, acknowledged: 1 }
        );
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

    fn prioritised(max_messages: usize) -> QueueLimits {
        let topics = [("high", 2), ("low", 1)].map(|(topic, priority)| (Box::from(topic), priority));
        QueueLimits { max_messages, priorities: Some(Priorities::new(topics, 0)), ..LIMITS }
    }

    #[test]
    fn higher_priorities_go_first_and_each_keeps_its_order() {
        let mut queue = Queue::new();
        let limits = prioritised(10);
        for topic in ["other", "low", "high", "low", "high"] {
            assert_eq!(queue.push(delivery(topic, QoS::AtLeastOnce), false, &limits), Push::Queued);
        }
        assert_eq!(topics(&mut queue), ["high", "high", "low", "low", "other"]);
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
    }

    #[test]
    fn lower_priorities_are_not_starved() {
        let mut queue = Queue::new();
        let limits = prioritised(1000);
        queue.push(delivery("low", QoS::AtLeastOnce), false, &limits);
        queue.push(delivery("other", QoS::AtLeastOnce), false, &limits);
        for _ in 0..70 {
            queue.push(delivery("high", QoS::AtLeastOnce), false, &limits);
        }
        let sent = topics(&mut queue);
        assert_eq!(sent.len(), 72);
        // Priority 2 sends 30 in a row, then the next level has its turn.
        assert_eq!(sent.iter().position(|topic| topic == "low"), Some(30));
        assert_eq!(sent.iter().position(|topic| topic == "other"), Some(31));
    }

    #[test]
    fn a_full_queue_drops_the_lowest_priority_and_never_a_higher_one() {
        let mut queue = Queue::new();
        let limits = prioritised(3);
        for topic in ["other", "high", "low"] {
            queue.push(delivery(topic, QoS::AtLeastOnce), false, &limits);
        }
        assert_eq!(
            queue.push(delivery("high", QoS::AtLeastOnce), false, &limits),
            Push::Evicted { plain: 0, acknowledged: 1 }
        );
        assert_eq!(queue.push(delivery("other", QoS::AtLeastOnce), false, &limits), Push::DroppedFull);
        assert_eq!(queue.retain(|delivery| delivery.message.topic == "high"), 1);
        assert_eq!(queue.bytes(), 2 * delivery("high", QoS::AtLeastOnce).cost());
        assert_eq!(topics(&mut queue), ["high", "high"]);
    }
}
