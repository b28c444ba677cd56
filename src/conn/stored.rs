//! What a connection does for durable state: answers that wait for it, its client's acknowledgements, and messages read back.

use super::Close;
use super::established::State;
use super::replies::Reply;
use crate::session::{IN_MEMORY_BYTES, IN_MEMORY_MESSAGES, Ticket};
use crate::store::{Fault, Health, Key, QueueRows, Reading, Row};
use std::future::Future;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A read of the session's queue.
#[derive(Debug)]
pub(super) struct QueueRead {
    reading: Reading,
    /// The number of the next delivery and the last change to the queue when it began.
    next: u64,
    last_ticket: Ticket,
}

/// The connection's side of its session's durable queue.
#[derive(Debug, Default)]
pub(super) struct StoredSide {
    reading: Option<QueueRead>,
    /// Nothing new can be read until this is durable.
    read_after: Ticket,
    /// A ticket was handed to this connection: its client makes durable changes.
    pub used: bool,
}

impl StoredSide {
    /// For a session whose rows were changed last with this ticket: rows that are gone by then must not be read and sent again.
    pub fn new(rows_changed: Ticket) -> StoredSide {
        StoredSide { read_after: rows_changed, ..StoredSide::default() }
    }
}

impl State {
    /// Sends an answer that may be sent once `ticket` is durable, after those before it.
    pub(super) fn reply(&mut self, reply: Reply, ticket: Ticket) -> Result<(), Close> {
        self.stored.used |= ticket != 0;
        let store = self.lease.broker().store().map(|store| &**store);
        self.replies.push(reply, ticket, store, self.negotiated.audience(), &mut self.output)
    }

    /// Sends the answers that became durable, and has the task woken for the others.
    pub(super) fn flush_replies(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        if self.replies.is_empty() {
            return Ok(false);
        }
        let Some(store) = self.lease.broker().store() else { return Ok(false) };
        let mut sent = false;
        loop {
            sent |= self.replies.flush(store, self.negotiated.audience(), &mut self.output)?;
            if self.replies.is_empty() || self.replies.register(store, cx.waker()) {
                return Ok(sent);
            }
        }
    }

    /// Whether the client must not be heard: too much of what it sent is not durable yet.
    pub(super) fn must_wait(&self) -> bool {
        if self.replies.is_full() {
            return true;
        }
        let full = |store: &crate::store::Store| !store.has_room() && store.health() == Health::Good;
        self.stored.used && self.lease.broker().store().is_some_and(|store| full(store))
    }

    /// As [`must_wait`](Self::must_wait), and has the task woken.
    pub(super) fn poll_must_wait(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if !self.must_wait() {
                self.stored.used &= !self.replies.is_empty();
                return false;
            }
            let Some(store) = self.lease.broker().store() else { return false };
            if self.replies.register(store, cx.waker()) {
                return true;
            }
        }
    }

    /// A delivery is done: its row goes.
    pub(super) fn row_done(&mut self, row: Option<u64>) {
        if let (Some(seq), Some(store)) = (row, self.lease.subscriber().store()) {
            let ticket = store.delete(Key::Delivery(self.lease.subscriber().id(), seq));
            self.lease.session().rows_changed = ticket;
        }
    }

    /// PUBREC came: PUBREL may follow when that is durable.
    pub(super) fn row_released(&mut self, row: Option<u64>) -> Ticket {
        match (row, self.lease.subscriber().store()) {
            (Some(seq), Some(store)) => {
                let ticket = store.put(Key::Delivery(self.lease.subscriber().id(), seq), Row::Released);
                self.lease.session().rows_changed = ticket;
                ticket
            }
            _ => 0,
        }
    }

    /// Forgets the packet identifier of a QoS 2 message from the client: whether it was known, and when it is gone for good.
    pub(super) fn release_inbound(&mut self, id: NonZeroU16) -> (bool, Ticket) {
        let known = self.lease.session().awaiting_release.release(id);
        if let Some(store) = self.lease.subscriber().store().filter(|_| known) {
            let ticket = store.delete(Key::Inbound(self.lease.subscriber().id(), id));
            self.lease.session().changed = ticket;
        }
        (known, self.lease.session().changed)
    }

    /// Identifiers that were given up leave the store too.
    pub(super) fn drop_forgotten(&mut self) {
        let forgotten = self.lease.session().awaiting_release.take_forgotten();
        if let Some(store) = self.lease.subscriber().store() {
            for id in forgotten {
                store.delete(Key::Inbound(self.lease.subscriber().id(), id));
            }
        }
    }

    /// Frees packet identifiers whose rows are gone, and has the task woken when more are.
    pub(super) fn settle(&mut self) {
        if let Some(store) = self.lease.subscriber().store() {
            let durable = store.durable();
            let session = self.lease.session();
            session.inflight.settle(session.rows_changed, durable);
        }
    }

    /// Has the task woken when the store has made something durable; `false` if that may have happened in between.
    pub(super) fn poll_commit(&mut self, cx: &mut Context<'_>) -> bool {
        match self.lease.broker().store() {
            Some(store) => self.replies.register(store, cx.waker()),
            None => true,
        }
    }

    /// Reads on in the session's queue; `true` if something was read.
    pub(super) fn poll_queue(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        loop {
            if let Some(read) = &mut self.stored.reading {
                let Poll::Ready(rows) = Pin::new(&mut read.reading).poll(cx) else { return Ok(false) };
                let Some(QueueRead { next, last_ticket, .. }) = self.stored.reading.take() else { return Ok(false) };
                return self.loaded(rows, next, last_ticket).map(|()| true);
            }
            let subscriber = self.lease.subscriber();
            let Some(store) = subscriber.store() else { return Ok(false) };
            if !store.is_durable(self.stored.read_after) {
                if self.replies.register(store, cx.waker()) {
                    return Ok(false);
                }
                continue;
            }
            let Some((from, next, last_ticket)) = subscriber.wants_rows() else { return Ok(false) };
            let reading = store.read_queue(subscriber.id(), from, IN_MEMORY_MESSAGES, IN_MEMORY_BYTES);
            self.stored.reading = Some(QueueRead { reading, next, last_ticket });
        }
    }

    fn loaded(&mut self, read: Result<QueueRows, Fault>, next: u64, last_ticket: Ticket) -> Result<(), Close> {
        // The store has said why.
        let QueueRows { rows, damaged, all, committed } = read.map_err(|_| Close::Store(Health::Failed))?;
        if !damaged.is_empty() {
            return Err(Close::Store(Health::Failed));
        }
        let through = (all && committed >= last_ticket).then_some(next);
        if rows.is_empty() && through.is_none() {
            // The rows are on their way to the disk.
            self.stored.read_after = last_ticket;
        }
        let (broker, subscriber, session) = self.lease.parts();
        broker.take_rows(subscriber, session, rows, through);
        Ok(())
    }
}
