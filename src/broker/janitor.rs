//! Ends parked sessions whose time is up, publishes wills whose delay has passed, and says what queues dropped.

use super::Broker;
use super::durable::Changes;
use super::registry::{Slot, SlotState};
use crate::router::RetainedSweep;
use crate::session::{Millis, millis};
use crate::store::{Key, Row};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sessions handled before other tasks get a turn.
const BATCH: usize = 256;
/// Entries of ended sessions that are tolerated before they are swept out.
const SLACK: usize = 4096;
/// How often ended bans are forgotten, at least.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Retained messages looked at each time.
const SWEEP_WORK: usize = 4096;

impl Broker {
    /// Runs until its task is dropped.
    pub async fn run_janitor(self: Arc<Self>) {
        let mut sweep = RetainedSweep::default();
        let clear_every = millis(self.retainer.msg_clear_interval);
        let mut clear_at = 0;
        loop {
            let due = [self.deadlines.lock().next(), self.delayed.next(self.store_takes()), Some(clear_at)];
            let wait = match due.into_iter().flatten().min() {
                Some(at) => Duration::from_millis(at.saturating_sub(self.now())).min(SWEEP_EVERY),
                None => SWEEP_EVERY,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.deadline_changed.notified() => {}
            }
            while self.tend_due(BATCH) {
                tokio::task::yield_now().await;
            }
            while self.publish_due(BATCH) {
                tokio::task::yield_now().await;
            }
            self.report_losses();
            let now = self.now();
            if now >= clear_at {
                self.retained.remove_expired(&mut sweep, SWEEP_WORK, now, |topic| {
                    if let Some(store) = &self.store {
                        store.delete(Key::Retained(topic.into()));
                    }
                });
                clear_at = now.saturating_add(clear_every);
                self.bans.remove_ended(now);
            }
        }
    }

    /// Publishes at most `limit` delayed messages that are due; `true` if there may be more.
    fn publish_due(&self, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(due) = self.delayed.pop_due(self.now(), self.store_takes()) else { return false };
            let mut changes = Changes::new(self.store.as_deref());
            // In one transaction with what it becomes: a crash publishes it neither twice nor not at all.
            if let (Some(number), Some(batch)) = (due.number, changes.begin()) {
                batch.delete(Key::Delayed(number));
            }
            self.publish_now(due.from, Arc::unwrap_or_clone(due.message), due.retain, &mut changes);
        }
        true
    }

    /// Asks for attention to a parked session at `at`. A slot has no more than one useful entry: a later wish waits for the earlier one.
    pub(super) fn schedule(&self, at: Millis, slot: &Arc<Slot>) {
        if slot.attention.fetch_min(at, Ordering::AcqRel) <= at {
            return;
        }
        let mut deadlines = self.deadlines.lock();
        // Sessions that ended early leave their entries behind; the heap stays within twice the living.
        if deadlines.len() > 2 * self.sessions.len() + SLACK {
            deadlines.retain(|slot| slot.strong_count() > 0);
        }
        if deadlines.push(at, Arc::downgrade(slot)) {
            self.deadline_changed.notify_one();
        }
    }

    /// Handles at most `limit` due entries; `true` if there may be more.
    fn tend_due(&self, limit: usize) -> bool {
        for _ in 0..limit {
            let now = self.now();
            let Some(entry) = self.deadlines.lock().pop_due(now) else { return false };
            if let Some(slot) = entry.upgrade() {
                slot.attention.store(Millis::MAX, Ordering::Release);
                self.tend(&slot, now);
            }
        }
        true
    }

    fn tend(&self, slot: &Arc<Slot>, now: Millis) {
        let mut changes = Changes::new(self.store.as_deref());
        // The batch comes before the lock.
        changes.begin();
        let mut state = slot.state.lock();
        // The client may have come back, or come back and left again with other deadlines.
        let SlotState::Parked(parked) = &mut *state else { return };
        // [MQTT-4.1.0-2]
        if parked.ends_at.is_some_and(|at| at <= now) {
            if let SlotState::Parked(parked) = std::mem::replace(&mut *state, SlotState::Dead) {
                drop(state);
                self.sessions.remove(slot);
                slot.released.notify_waiters();
                self.end_session(*parked, &mut changes);
            }
            return;
        }
        let will = parked.will.take_if(|(due, _)| *due <= now);
        let rights = will.as_ref().and_then(|_| parked.rights.clone());
        let again = parked.attention();
        if will.is_some()
            && parked.subscriber.is_durable()
            && let Some(batch) = changes.begin()
        {
            batch.put(Key::Session(parked.subscriber.id()), Row::Session(self.parked_row(parked)));
        }
        drop(state);
        if let Some(at) = again {
            self.schedule(at, slot);
        }
        if let Some((_, will)) = will {
            self.publish_will(will, rights.as_ref(), &mut changes);
        }
    }
}
