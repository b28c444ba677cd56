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

#[cfg(test)]
pub(super) mod tests;

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
    /// Rows came by a shared subscription.
    shared: bool,
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
            shared: false,
        }
    }

    /// From here on rows that are read are kept only if the session still has a subscription that brings them.
    pub fn judge_rows(&mut self) {
        self.judged = true;
    }

    /// Rows of a session that was recovered came by a shared subscription.
    pub fn mark_shared(&mut self) {
        self.shared = true;
    }

    /// Whether a row may have come by a shared subscription.
    pub fn is_shared(&self) -> bool {
        self.shared
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
            self.shared |= delivery.share.is_some();
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
                    delivery.stored = StoredAs { seq, again: seq < self.again_below, ..StoredAs::default() };
                    if self.judged && !keep(&delivery) {
                        self.last_ticket = rows.delete(seq);
                        refused += 1;
                        continue;
                    }
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
        take(&mut self.plain, &mut self.bytes)
    }

    fn take_stored(&mut self) -> Option<Delivery> {
        take(&mut self.stored, &mut self.bytes)
    }
}

fn take(queue: &mut VecDeque<Delivery>, bytes: &mut usize) -> Option<Delivery> {
    let delivery = queue.pop_front()?;
    *bytes = bytes.saturating_sub(delivery.cost());
    // An idle session must not keep the memory of its busiest moment.
    if queue.is_empty() && queue.capacity() > 16 {
        *queue = VecDeque::new();
    }
    Some(delivery)
}
