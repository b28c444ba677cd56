//! Reads rows back on a thread of its own, so that no executor thread waits for the disk.

use super::disk::ReadLimit;
use super::key::{Seq, SessionId};
use super::{Fault, Health, Shared, Store};
use crate::session::LoadedRow;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tracing::error;

/// Deliveries of one session, as they are on disk.
#[derive(Debug)]
pub struct QueueRows {
    pub rows: Vec<(Seq, LoadedRow)>,
    /// There were no more than these.
    pub all: bool,
    /// Every change up to this ticket was there to be read.
    pub committed: u64,
}

/// A read under way; `Err` when the store cannot be read.
#[derive(Debug)]
pub struct Reading(oneshot::Receiver<Result<QueueRows, Fault>>);

#[derive(Debug)]
pub(super) struct Request {
    session: SessionId,
    from: Seq,
    limit: ReadLimit,
    reply: oneshot::Sender<Result<QueueRows, Fault>>,
}

impl Store {
    /// Reads the deliveries of a session from a number on: at least one, if there is one, and no more than the limits say.
    pub fn read_queue(&self, session: SessionId, from: Seq, rows: usize, bytes: usize) -> Reading {
        let (reply, reading) = oneshot::channel();
        let request = Request { session, from, limit: ReadLimit { rows, bytes }, reply };
        if let Some(reads) = &*self.reads.lock() {
            // A reader that is gone drops the request, and with it the reply.
            let _unread = reads.send(request);
        }
        Reading(reading)
    }
}

impl Future for Reading {
    type Output = Result<QueueRows, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|reply| reply.unwrap_or_else(|_| Err(Fault::Io("the store is closed".into()))))
    }
}

pub(super) fn run(shared: &Shared, requests: &Receiver<Request>) {
    while let Ok(Request { session, from, limit, reply }) = requests.recv() {
        if reply.is_closed() {
            continue;
        }
        let committed = shared.committed.load(Ordering::Acquire);
        let disk = shared.disk.read().clone();
        let read = match disk {
            // Between two attempts to write on a full disk, or after the end: nothing to be read at this moment.
            None if shared.health() == Health::Full => Ok(QueueRows { rows: Vec::new(), all: false, committed: 0 }),
            None => Err(Fault::Io("the store is closed".into())),
            Some(disk) => disk.deliveries(session, from, limit).map(|(rows, all)| QueueRows { rows, all, committed }),
        };
        if let Err(fault) = &read
            && shared.health() == Health::Good
        {
            error!(store = shared.medium.name(), session, cause = %fault, "stored messages cannot be read; their session is not served");
        }
        // The connection may be gone.
        let _unwanted = reply.send(read);
    }
}
