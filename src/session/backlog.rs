//! The queue of a durable session: QoS 1 and 2 messages are rows of the store, and only a bounded run of them is in memory.
//!
//! ```text
//!      acknowledged    sent     in memory      only on disk
//!   ───────────────┬─────────┬──────────────┬────────────────▶ numbers of the session's deliveries
//!                           taken         cursor            next
//! ```
//! Pure: rows are written and deleted through [`Rows`], and read by the caller, who hands them to [`Backlog::loaded`].

use super::message::StoredAs;
use super::queue::{Push, QueueLimits};
use super::{Delivery, Millis};
use mqtt_codec::QoS;
use std::collections::VecDeque;

/// Numbers the changes to the store; a change is durable when the store says that its ticket is.
pub type Ticket = u64;

/// Messages of one session that wait in memory, and the bytes from which no more are taken into it.
pub const IN_MEMORY_MESSAGES: usize = 128;
pub const IN_MEMORY_BYTES: usize = 1 << 20;
/// With fewer than this in memory, more are read.
const READ_BELOW: usize = 32;

/// Writes the rows of one session.
pub trait Rows {
    fn put(&mut self, seq: u64, delivery: &Delivery) -> Ticket;
    fn delete(&mut self, seq: u64) -> Ticket;
}

/// A row as it was read.
#[derive(Debug, Clone)]
pub enum LoadedRow {
    Publish(Delivery),
    /// PUBREC came; PUBREL is to be sent again.
    Released,
}

/// Why nothing is taken out although something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing is there.
    Empty,
    /// The client must acknowledge first.
    Window,
    /// A QoS 2 message waits until its row is durable.
    Ticket(Ticket),
    /// The next message must be read.
    Read,
}

#[derive(Debug)]
pub struct Backlog {
    stored: VecDeque<Delivery>,
    plain: VecDeque<Delivery>,
    /// Of both, in memory.
    bytes: usize,
    /// Of the rows that are only on disk; evicting one takes the average off, so this is near the truth and exact when none is left.
    disk_bytes: u64,
    /// The next row to read.
    cursor: u64,
    next: u64,
    /// Rows below were sent on the last connection, or may have been before a crash: they are never evicted.
    taken_below: u64,
    /// Rows from `taken_below` to here were evicted while they were only on disk.
    evicted_below: u64,
    /// Rows below are sent with the mark of a repetition.
    again_below: u64,
    last_ticket: Ticket,
    /// Rows that are read are shown to whoever may refuse them.
    judged: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Backlog::new()
    }
}

impl Backlog {
    /// The queue of a new session.
    pub fn new() -> Backlog {
        Backlog::recovered(1, 1, 1, 1, 0)
    }

    /// The queue of a session whose rows `first..next` are on disk. Those below `taken_below` are never evicted, and those below
    /// `again_below` may have been sent.
    pub fn recovered(first: u64, next: u64, taken_below: u64, again_below: u64, disk_bytes: u64) -> Backlog {
        Backlog {
            stored: VecDeque::new(),
            plain: VecDeque::new(),
            bytes: 0,
            disk_bytes,
            cursor: first,
            next,
            taken_below,
            evicted_below: 0,
            again_below,
            last_ticket: 0,
            judged: false,
        }
    }

    /// From here on rows that are read are kept only if the session still has a subscription that brings them.
    pub fn judge_rows(&mut self) {
        self.judged = true;
    }

    /// Messages that wait to be sent for the first time. Acknowledged rows of a session that was recovered may be among them.
    pub fn len(&self) -> usize {
        let on_disk = self.next.saturating_sub(self.first_on_disk());
        usize::try_from(on_disk).unwrap_or(usize::MAX).saturating_add(self.stored.len() + self.plain.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.cursor >= self.next
    }

    /// Messages and their bytes that wait in memory.
    pub fn in_memory(&self) -> (usize, usize) {
        (self.stored.len() + self.plain.len(), self.bytes)
    }

    /// The number of the next delivery.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Rows below may have been sent.
    pub fn sent_below(&self) -> u64 {
        self.taken_below
    }

    /// Whether [`judge_rows`](Self::judge_rows) holds.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// The last change that was made for this queue.
    pub fn last_ticket(&self) -> Ticket {
        self.last_ticket
    }

    /// Appends `delivery`; `away` says that no connection drains the queue. A full queue drops an arriving QoS 0 message, and its
    /// oldest messages for one of QoS 1 or 2.
    pub fn push(&mut self, mut delivery: Delivery, away: bool, limits: &QueueLimits, rows: &mut dyn Rows) -> Push {
        let cost = delivery.cost();
        let plain = delivery.qos == QoS::AtMostOnce;
        if plain && away && !limits.store_qos0 {
            return Push::DroppedAway;
        }
        if cost > limits.max_bytes || limits.max_messages == 0 {
            return Push::DroppedFull;
        }
        let mut evicted = [0; 2];
        while self.len() >= limits.max_messages || self.bytes().saturating_add(cost) > limits.max_bytes {
            if plain {
                return Push::DroppedFull;
            }
            // What is left may have been sent; it is not dropped, and the bound is exceeded by no more than the window.
            let Some(oldest) = self.evict_oldest(rows) else { break };
            let [plain, acknowledged] = &mut evicted;
            *(if oldest == QoS::AtMostOnce { plain } else { acknowledged }) += 1;
        }
        if plain {
            delivery.stored = StoredAs { seq: self.next, ..StoredAs::default() };
            self.bytes += cost;
            self.plain.push_back(delivery);
        } else {
            let seq = self.next;
            self.next += 1;
            let ticket = rows.put(seq, &delivery);
            self.last_ticket = ticket;
            let room = self.stored.len() < IN_MEMORY_MESSAGES && self.bytes < IN_MEMORY_BYTES;
            if !away && room && self.cursor == seq {
                delivery.stored = StoredAs { seq, ticket, ..StoredAs::default() };
                self.cursor = self.next;
                self.bytes += cost;
                self.stored.push_back(delivery);
            } else {
                self.disk_bytes = self.disk_bytes.saturating_add(cost as u64);
            }
        }
        Push::queued(evicted)
    }

    /// The next message to send, in the order of arrival. Numbers from `ids_below` on have no packet identifier yet. With the window closed nothing passes a QoS 1 or 2 message at the head, and
    /// nothing passes a QoS 2 message whose row is not durable. Expired messages are deleted and counted.
    pub fn pop(
        &mut self,
        window_open: bool,
        ids_below: u64,
        durable: Ticket,
        now: Millis,
        expired: &mut usize,
        rows: &mut dyn Rows,
    ) -> Result<Delivery, Held> {
        loop {
            let oldest_stored = match self.stored.front() {
                Some(front) => Some(front.stored.seq),
                None => (self.cursor < self.next).then_some(self.cursor),
            };
            if self.plain.front().is_some_and(|front| oldest_stored.is_none_or(|seq| front.stored.seq <= seq)) {
                let Some(delivery) = self.take_plain() else { continue };
                if delivery.message.has_expired(now) {
                    *expired += 1;
                    continue;
                }
                return Ok(delivery);
            }
            let Some(front) = self.stored.front() else {
                return Err(if oldest_stored.is_some() { Held::Read } else { Held::Empty });
            };
            let StoredAs { seq, ticket, again, .. } = front.stored;
            // What may have been sent is sent again even if its time is up: the client may hold a part of the exchange.
            if front.message.has_expired(now) && !again {
                *expired += 1;
                self.take_stored();
                self.last_ticket = rows.delete(seq);
                continue;
            }
            if !window_open {
                return Err(Held::Window);
            }
            if seq >= ids_below {
                return Err(Held::Ticket(self.last_ticket));
            }
            if front.qos == QoS::ExactlyOnce && ticket > durable {
                return Err(Held::Ticket(ticket));
            }
            let Some(delivery) = self.take_stored() else { continue };
            self.taken_below = self.taken_below.max(seq + 1);
            return Ok(delivery);
        }
    }

    /// The number from which rows are to be read now, if so.
    pub fn wants_rows(&self) -> Option<u64> {
        // With none in memory one must come, however much of QoS 0 waits behind it.
        let room = self.stored.len() < READ_BELOW && self.bytes < IN_MEMORY_BYTES || self.stored.is_empty();
        (self.cursor < self.next && room).then_some(self.cursor)
    }

    /// Takes over rows that were read from where [`wants_rows`](Self::wants_rows) said, in rising order. `through` is set when there were
    /// no more rows below it. What `keep` refuses is deleted if rows are judged; returns how many that were.
    pub fn loaded(
        &mut self,
        read: Vec<(u64, LoadedRow)>,
        through: Option<u64>,
        mut keep: impl FnMut(&Delivery) -> bool,
        rows: &mut dyn Rows,
    ) -> usize {
        let mut refused = 0;
        for (seq, row) in read {
            // Evicted or taken over since the read began.
            if seq < self.cursor || (self.taken_below..self.evicted_below).contains(&seq) {
                continue;
            }
            self.cursor = seq + 1;
            match row {
                LoadedRow::Publish(mut delivery) => {
                    let cost = delivery.cost();
                    self.disk_bytes = self.disk_bytes.saturating_sub(cost as u64);
                    if self.judged && !keep(&delivery) {
                        self.last_ticket = rows.delete(seq);
                        refused += 1;
                        continue;
                    }
                    delivery.stored = StoredAs { seq, again: seq < self.again_below, ..StoredAs::default() };
                    self.bytes += cost;
                    self.stored.push_back(delivery);
                }
                LoadedRow::Released => {
                    let delivery = Delivery::released(seq);
                    self.bytes += delivery.cost();
                    self.stored.push_back(delivery);
                }
            }
        }
        if let Some(through) = through {
            self.cursor = self.cursor.max(through.min(self.next));
        }
        if self.cursor >= self.next {
            self.disk_bytes = 0;
        }
        refused
    }

    /// Drops what waits and is not to be kept, what is only on disk when it is read; returns how many messages left the memory.
    pub fn retain(&mut self, mut keep: impl FnMut(&Delivery) -> bool, rows: &mut dyn Rows) -> usize {
        self.judged = true;
        let before = self.stored.len() + self.plain.len();
        let (bytes, last_ticket) = (&mut self.bytes, &mut self.last_ticket);
        for queue in [&mut self.stored, &mut self.plain] {
            queue.retain(|delivery| {
                let kept = delivery.stored.released || keep(delivery);
                if !kept {
                    *bytes = bytes.saturating_sub(delivery.cost());
                    if delivery.is_stored() {
                        *last_ticket = rows.delete(delivery.stored.seq);
                    }
                }
                kept
            });
        }
        before - (self.stored.len() + self.plain.len())
    }

    /// The connection is gone: what is stored leaves the memory. `unacknowledged` is the lowest number in flight, and the bytes of all.
    pub fn park(&mut self, unacknowledged: Option<(u64, usize)>) {
        let in_memory: usize = self.stored.iter().map(Delivery::cost).sum();
        let first = self.stored.front().map_or(self.cursor, |front| front.stored.seq);
        let (lowest, in_flight) = unacknowledged.unwrap_or((first, 0));
        self.cursor = self.cursor.min(first).min(lowest);
        self.disk_bytes = self.disk_bytes.saturating_add((in_memory + in_flight) as u64);
        self.bytes = self.bytes.saturating_sub(in_memory);
        self.stored = VecDeque::new();
        self.again_below = self.again_below.max(self.taken_below);
    }

    /// Drops everything in memory; returns how many messages waited.
    pub fn discard(&mut self) -> usize {
        let lost = self.len();
        *self = Backlog::recovered(self.next, self.next, self.next, self.next, 0);
        lost
    }

    fn first_on_disk(&self) -> u64 {
        self.cursor.max(self.taken_below).max(self.evicted_below)
    }

    /// Of everything that waits, in memory and on disk.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.disk_bytes).unwrap_or(usize::MAX).saturating_add(self.bytes)
    }

    /// Drops the oldest message that was never sent: whether it had QoS 0, or one of the others.
    fn evict_oldest(&mut self, rows: &mut dyn Rows) -> Option<QoS> {
        let on_disk = self.first_on_disk();
        let oldest_stored = match self.stored.front() {
            Some(front) => Some(front.stored.seq),
            None => (on_disk < self.next).then_some(on_disk),
        };
        if self.plain.front().is_some_and(|front| oldest_stored.is_none_or(|seq| front.stored.seq <= seq)) {
            return self.take_plain().map(|delivery| delivery.qos);
        }
        if let Some(position) = self.stored.iter().position(|waiting| !waiting.stored.again) {
            let delivery = self.stored.remove(position)?;
            self.bytes = self.bytes.saturating_sub(delivery.cost());
            self.last_ticket = rows.delete(delivery.stored.seq);
            return Some(delivery.qos);
        }
        if on_disk >= self.next {
            return None;
        }
        let count = self.next - on_disk;
        self.disk_bytes -= self.disk_bytes / count;
        self.evicted_below = on_disk + 1;
        if self.cursor >= on_disk {
            self.cursor = on_disk + 1;
        }
        self.last_ticket = rows.delete(on_disk);
        // Whichever of the two it was.
        Some(QoS::AtLeastOnce)
    }

    fn take_plain(&mut self) -> Option<Delivery> {
        let delivery = self.plain.pop_front()?;
        self.bytes = self.bytes.saturating_sub(delivery.cost());
        // An idle session must not keep the memory of its busiest moment.
        if self.plain.is_empty() && self.plain.capacity() > 16 {
            self.plain = VecDeque::new();
        }
        Some(delivery)
    }

    fn take_stored(&mut self) -> Option<Delivery> {
        let delivery = self.stored.pop_front()?;
        self.bytes = self.bytes.saturating_sub(delivery.cost());
        if self.stored.is_empty() && self.stored.capacity() > 16 {
            self.stored = VecDeque::new();
        }
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{delivery, expiring};
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    const LIMITS: QueueLimits =
        QueueLimits { max_messages: 300, max_bytes: 1 << 20, store_qos0: true, slow_wait: 0, priorities: None };

    /// Rows as a disk has them.
    #[derive(Debug, Default)]
    struct Disk {
        rows: BTreeMap<u64, Delivery>,
        ticket: Ticket,
    }

    impl Rows for Disk {
        fn put(&mut self, seq: u64, delivery: &Delivery) -> Ticket {
            assert!(self.rows.insert(seq, delivery.clone()).is_none(), "{seq} is written twice");
            self.ticket += 1;
            self.ticket
        }

        fn delete(&mut self, seq: u64) -> Ticket {
            assert!(self.rows.remove(&seq).is_some(), "{seq} is deleted, but not there");
            self.ticket += 1;
            self.ticket
        }
    }

    impl Disk {
        /// Reads what the backlog wants, at most `limit` rows.
        fn feed(&mut self, backlog: &mut Backlog, limit: usize) {
            let Some(from) = backlog.wants_rows() else { return };
            let mut found: Vec<_> = self.rows.range(from..).take(limit + 1).map(|(seq, d)| (*seq, d.clone())).collect();
            let through = (found.len() <= limit).then(|| backlog.next());
            found.truncate(limit);
            let found = found.into_iter().map(|(seq, d)| (seq, LoadedRow::Publish(d))).collect();
            backlog.loaded(found, through, |_| true, self);
        }
    }

    fn message(payload: u64, qos: QoS) -> Delivery {
        let mut delivery = delivery("t", qos);
        if let Some(message) = std::sync::Arc::get_mut(&mut delivery.message) {
            message.payload = payload.to_string().into();
        }
        delivery
    }

    fn number(delivery: &Delivery) -> u64 {
        std::str::from_utf8(&delivery.message.payload).unwrap().parse().unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, u8),
        Pop(u8),
        Read(u8),
        Leave,
        Return,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3u8, 1..60u8).prop_map(|(qos, times)| Step::Push(qos, times)),
            6 => (1..60u8).prop_map(Step::Pop),
            4 => (1..100u8).prop_map(Step::Read),
            1 => Just(Step::Leave),
            1 => Just(Step::Return),
        ]
    }

    proptest! {
        /// Whatever is pushed, read and taken in whatever order: messages come out in the order in which they came, none twice, none
        /// lost but those that a full queue dropped, oldest first, and memory stays within its bounds.
        #[test]
        fn gives_out_what_came_in_its_order(steps in prop::collection::vec(step(), 1..80)) {
            let mut backlog = Backlog::new();
            let mut disk = Disk::default();
            let mut model = VecDeque::new();
            let mut next = 0;
            let mut away = false;
            for step in steps {
                match step {
                    Step::Push(qos, times) => {
                        for _ in 0..times {
                            next += 1;
                            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
                            match backlog.push(message(next, qos), away, &LIMITS, &mut disk) {
                                Push::Queued => {}
                                Push::Evicted { plain, acknowledged } => {
                                    model.drain(..plain + acknowledged);
                                }
                                Push::DroppedFull => {
                                    prop_assert_eq!(qos, QoS::AtMostOnce);
                                    continue;
                                }
                                Push::DroppedAway | Push::Ended => prop_assert!(false, "QoS 0 is kept"),
                            }
                            model.push_back(next);
                        }
                    }
                    Step::Pop(times) if !away => {
                        for _ in 0..times {
                            match backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk) {
                                Ok(delivery) => {
                                    prop_assert_eq!(Some(number(&delivery)), model.pop_front());
                                    if delivery.is_stored() {
                                        // Acknowledged at once.
                                        disk.delete(delivery.stored.seq);
                                    }
                                }
                                Err(Held::Empty) => {
                                    prop_assert!(model.is_empty(), "{} are left", model.len());
                                    break;
                                }
                                Err(_) => break,
                            }
                        }
                    }
                    Step::Read(limit) if !away => disk.feed(&mut backlog, usize::from(limit)),
                    Step::Leave => {
                        away = true;
                        backlog.park(None);
                    }
                    Step::Return => away = false,
                    Step::Pop(_) | Step::Read(_) => {}
                }
                prop_assert!(backlog.len() <= LIMITS.max_messages);
                prop_assert_eq!(backlog.len(), model.len());
                prop_assert!(backlog.stored.len() <= IN_MEMORY_MESSAGES + READ_BELOW);
                if away {
                    prop_assert!(backlog.stored.is_empty());
                }
            }
        }
    }

    /// With a megabyte of QoS 0 behind it, a row that was only on disk was never read, and nothing was sent any more.
    #[test]
    fn a_row_is_read_however_much_of_qos_0_waits_behind_it() {
        let limits = QueueLimits { max_bytes: 8 << 20, max_messages: 1000, ..LIMITS };
        let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
        backlog.push(message(1, QoS::AtLeastOnce), true, &limits, &mut disk);
        let mut large = message(2, QoS::AtMostOnce);
        std::sync::Arc::get_mut(&mut large.message).unwrap().payload = vec![0; IN_MEMORY_BYTES].into();
        backlog.push(large, false, &limits, &mut disk);
        let pop = |backlog: &mut Backlog, disk: &mut Disk| {
            backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, disk).map(|delivery| delivery.qos)
        };
        assert_eq!(pop(&mut backlog, &mut disk), Err(Held::Read));
        disk.feed(&mut backlog, 10);
        assert_eq!(pop(&mut backlog, &mut disk), Ok(QoS::AtLeastOnce));
        assert_eq!(pop(&mut backlog, &mut disk), Ok(QoS::AtMostOnce));
    }

    #[test]
    fn what_was_sent_is_not_evicted_and_comes_again_marked() {
        let limits = QueueLimits { max_messages: 2, ..LIMITS };
        let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
        backlog.push(message(1, QoS::ExactlyOnce), false, &limits, &mut disk);
        let sent = backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk).unwrap();
        backlog.park(Some((sent.stored.seq, sent.cost())));
        for n in 2..=5 {
            backlog.push(message(n, QoS::AtLeastOnce), true, &limits, &mut disk);
        }
        assert_eq!(disk.rows.keys().copied().collect::<Vec<_>>(), [1, 4, 5]);
        disk.feed(&mut backlog, 10);
        let mut got = Vec::new();
        while let Ok(delivery) = backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk) {
            got.push((number(&delivery), delivery.stored.again));
        }
        assert_eq!(got, [(1, true), (4, false), (5, false)]);
    }

    #[test]
    fn qos_2_waits_for_its_row_and_holds_what_follows() {
        let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
        backlog.push(message(1, QoS::AtLeastOnce), false, &LIMITS, &mut disk);
        backlog.push(message(2, QoS::ExactlyOnce), false, &LIMITS, &mut disk);
        backlog.push(message(3, QoS::AtLeastOnce), false, &LIMITS, &mut disk);
        let mut pop = |durable| backlog.pop(true, u64::MAX, durable, 0, &mut 0, &mut disk).map(|d| number(&d));
        assert_eq!(pop(0), Ok(1));
        assert_eq!(pop(1), Err(Held::Ticket(2)));
        assert_eq!(pop(2), Ok(2));
        assert_eq!(pop(2), Ok(3));
        assert_eq!(pop(2), Err(Held::Empty));
    }

    #[test]
    fn an_expired_message_leaves_the_disk_when_its_turn_comes() {
        let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
        backlog.push(expiring("t", 100), false, &LIMITS, &mut disk);
        let mut expired = 0;
        assert!(backlog.pop(true, u64::MAX, Ticket::MAX, 100, &mut expired, &mut disk).is_err());
        assert_eq!((expired, disk.rows.len()), (1, 0));
    }

    #[test]
    fn judged_rows_are_dropped_when_they_are_read() {
        let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
        for n in 1..=3 {
            backlog.push(message(n, QoS::AtLeastOnce), true, &LIMITS, &mut disk);
        }
        assert_eq!(backlog.retain(|_| false, &mut disk), 0, "nothing is in memory");
        let read = disk.rows.iter().map(|(seq, d)| (*seq, LoadedRow::Publish(d.clone()))).collect();
        assert_eq!(backlog.loaded(read, Some(4), |d| number(d) == 2, &mut disk), 2);
        assert_eq!(disk.rows.keys().copied().collect::<Vec<_>>(), [2]);
    }
}
