//! Reads rows back on a thread of its own, so that no executor thread waits for the disk.

use super::disk::{Disk, FoundRows, ReadLimit};
use super::key::{Seq, SessionId};
use super::{Fault, Health, Shared, Store};
use crate::session::{LoadedRow, Message};
use bytestring::ByteString;
use hashbrown::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::error;

const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Deliveries of one session, as they are on disk.
#[derive(Debug)]
pub struct QueueRows {
    pub rows: Vec<(Seq, LoadedRow)>,
    /// The numbers of rows among them that cannot be read; the store has said why.
    pub damaged: Vec<Seq>,
    /// There were no more than these.
    pub all: bool,
    /// Every change up to this ticket was there to be read.
    pub committed: u64,
}

/// A read under way; `Err` when the store cannot be read.
#[derive(Debug)]
pub struct Reading(oneshot::Receiver<Result<QueueRows, Fault>>);

/// Retained messages by topic, as far as they are on disk.
#[derive(Debug)]
pub struct RetainedReading(oneshot::Receiver<Result<RetainedMessages, Fault>>);

type RetainedMessages = HashMap<ByteString, Arc<Message>>;

#[derive(Debug)]
pub(super) enum Request {
    Queue { session: SessionId, from: Seq, limit: ReadLimit, reply: oneshot::Sender<Result<QueueRows, Fault>> },
    Retained { topics: Vec<ByteString>, reply: oneshot::Sender<Result<RetainedMessages, Fault>> },
}

impl Store {
    /// Reads the deliveries of a session from a number on: at least one, if there is one, and no more than the limits say.
    pub fn read_queue(&self, session: SessionId, from: Seq, rows: usize, bytes: usize) -> Reading {
        let (reply, reading) = oneshot::channel();
        self.request(Request::Queue { session, from, limit: ReadLimit { rows, bytes }, reply });
        Reading(reading)
    }

    /// Reads the retained messages of these topics.
    pub fn read_retained(&self, topics: Vec<ByteString>) -> RetainedReading {
        let (reply, reading) = oneshot::channel();
        self.request(Request::Retained { topics, reply });
        RetainedReading(reading)
    }

    fn request(&self, request: Request) {
        if let Some(reads) = &*self.reads.lock() {
            // A reader that is gone drops the request, and with it the reply.
            let _unread = reads.send(request);
        }
    }
}

fn closed() -> Fault {
    Fault::Io("the store is closed".to_owned())
}

impl Future for Reading {
    type Output = Result<QueueRows, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|reply| reply.unwrap_or_else(|_| Err(closed())))
    }
}

impl Future for RetainedReading {
    type Output = Result<RetainedMessages, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|reply| reply.unwrap_or_else(|_| Err(closed())))
    }
}

pub(super) fn run(shared: &Shared, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        // The connection may be gone, before or after the read.
        match request {
            Request::Queue { reply, .. } if reply.is_closed() => {}
            Request::Retained { reply, .. } if reply.is_closed() => {}
            Request::Queue { session, from, limit, reply } => {
                let committed = shared.committed.load(Ordering::Acquire);
                let read = read(shared, |disk| disk.deliveries(session, from, limit));
                let _unwanted = reply.send(read.map(|FoundRows { rows, damaged, all }| {
                    let damaged = damaged.into_iter().map(|(seq, cause)| {
                        let store = shared.medium.name();
                        error!(store, session, message = seq, %cause, "a stored message cannot be read");
                        seq
                    });
                    QueueRows { rows, damaged: damaged.collect(), all, committed }
                }));
            }
            Request::Retained { topics, reply } => {
                let _unwanted = reply.send(read(shared, |disk| disk.retained(&topics)));
            }
        }
    }
}

fn read<T>(shared: &Shared, read: impl FnOnce(&Disk) -> Result<T, Fault>) -> Result<T, Fault> {
    let disk = loop {
        let disk = shared.disk.read().clone();
        match disk {
            Some(disk) => break disk,
            // Between two attempts to write on a full disk there is none; nobody can be served until there is.
            None if shared.health() == Health::Full && !shared.closing.load(Ordering::Acquire) => {
                std::thread::sleep(LOOK_AGAIN);
            }
            None => return Err(closed()),
        }
    };
    let result = read(&disk);
    if let Err(fault) = &result
        && shared.health() == Health::Good
    {
        error!(store = shared.medium.name(), cause = %fault, "what is stored cannot be read; who needs it is not served");
    }
    result
}
