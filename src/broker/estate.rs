//! What an ended session leaves on disk that came by shared subscriptions: other members get it, MQTT 5 section 4.8.2. The rows are read
//! in batches, whose memory is bounded, and each goes in one transaction with what it becomes.

use super::Broker;
use super::durable::Changes;
use crate::session::{IN_MEMORY_BYTES, IN_MEMORY_MESSAGES, LoadedRow, Ticket};
use crate::store::{Key, QueueRows, Row, SessionId, SessionRow};
use mqtt_codec::QoS;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// An ended session whose rows are still there.
#[derive(Debug)]
pub(super) struct Estate {
    pub id: SessionId,
    /// Rows below may have been sent.
    pub sent_below: u64,
    /// When this is durable, everything that it leaves can be read.
    pub left: Ticket,
}

/// Those that wait, oldest first: no more than there may be sessions.
#[derive(Debug, Default)]
pub(super) struct Estates {
    waiting: Mutex<VecDeque<Estate>>,
    added: Notify,
}

impl Estates {
    pub fn add(&self, estate: Estate) {
        self.waiting.lock().push_back(estate);
        self.added.notify_one();
    }

    fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    async fn next(&self) -> Estate {
        loop {
            // One notification is kept for whoever waits next.
            if let Some(estate) = self.waiting.lock().pop_front() {
                return estate;
            }
            self.added.notified().await;
        }
    }
}

impl Broker {
    /// Marks a session as ended and keeps its rows for other members; `false` if no more sessions can be so. `row` is of the session
    /// as it was parked, made before its queue was closed.
    pub(super) fn leave_estate(&self, id: SessionId, mut row: Box<SessionRow>, changes: &mut Changes<'_>) -> bool {
        if self.estates.len() >= self.config.max_sessions {
            self.metrics.limit_hit("mqtt.max_sessions");
            return false;
        }
        let Some(batch) = changes.begin() else { return false };
        row.ended = true;
        // It is published now.
        row.will = None;
        let sent_below = row.sent_below;
        let left = batch.put(Key::Session(id), Row::Session(row));
        self.estates.add(Estate { id, sent_below, left });
        true
    }

    /// Gives to other members what ended sessions left, until its task is dropped.
    pub async fn run_estates(self: Arc<Self>) {
        loop {
            let estate = self.estates.next().await;
            self.settle(estate).await;
        }
    }

    async fn settle(&self, estate: Estate) {
        let Some(store) = &self.store else { return };
        while store.wait(estate.left).await.is_err() {
            store.ready().await;
        }
        let mut from = 0;
        loop {
            store.ready().await;
            // What cannot be read stays for the next start; the store has said why.
            let Ok(read) = store.read_queue(estate.id, from, IN_MEMORY_MESSAGES, IN_MEMORY_BYTES).await else { return };
            let last = read.rows.last().map(|(seq, _)| seq).max(read.damaged.last());
            from = last.map_or(from, |seq| seq.saturating_add(1));
            if self.hand_down(&estate, read) {
                return;
            }
        }
    }

    /// Gives these rows to other members; `true` if they were the last. Those that cannot be read are lost, and keep nobody from the others.
    fn hand_down(&self, estate: &Estate, QueueRows { rows, damaged, all, .. }: QueueRows) -> bool {
        let mut changes = Changes::new(self.store.as_deref());
        let mut lost = damaged.len();
        for seq in damaged {
            if let Some(batch) = changes.begin() {
                batch.delete(Key::Delivery(estate.id, seq));
            }
        }
        for (seq, row) in rows {
            if let Some(batch) = changes.begin() {
                batch.delete(Key::Delivery(estate.id, seq));
            }
            let sent = seq < estate.sent_below;
            let given = match row {
                // [MQTT-4.8.2-5]: with QoS 2 only what was never sent.
                LoadedRow::Publish(delivery) if !sent || delivery.qos == QoS::AtLeastOnce => {
                    self.redispatch(&delivery, &mut changes)
                }
                LoadedRow::Publish(_) | LoadedRow::Released => false,
            };
            lost += usize::from(!given && !sent);
        }
        if all && let Some(batch) = changes.begin() {
            batch.end_session(estate.id);
        }
        self.metrics.lost_with_session(lost);
        all
    }
}
