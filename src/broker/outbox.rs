//! What waits for one session, and the publishers that wait until there is room for more.

use super::patience::Patience;
use crate::session::{Backlog, Millis, Queue, QueueLimits};
use mqtt_codec::{QoS, ReasonCode};
use std::task::Waker;

/// Messages and bytes in an outbox above which its publishers wait, and below which they go on; within half of the outbox's own limits.
/// Enough for full batches, and little enough that a message does not grow old in the queue.
const CROWDED_MESSAGES: usize = 1024;
const CROWDED_BYTES: usize = 1 << 20;

/// What keeps the connection from sending more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pace {
    /// It has not drained for the first time, or what waits is kept back by a store that takes nothing.
    #[default]
    Unready,
    /// Nothing, or the broker itself: it has not come to it, or the store is busy.
    Going,
    /// Its client: the window is closed, or the socket full.
    Held,
}

/// Whether the message after which a publisher waits is acknowledged: one that is not is dropped rather than waited with for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    Plain,
    Acknowledged,
}

impl From<QoS> for Worth {
    fn from(qos: QoS) -> Worth {
        if qos == QoS::AtMostOnce { Worth::Plain } else { Worth::Acknowledged }
    }
}

/// Which of the waits for a subscriber a publisher takes part in; it changes with each release.
pub type Turn = u64;

/// How long a publisher waits for a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub turn: Turn,
    /// When to ask again, whatever happens.
    pub until: Option<Millis>,
}

/// What a publisher is told that asks whether to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub wait: Option<Wait>,
    /// The client took nothing for too long, and nobody waits for it any more.
    pub gave_up: bool,
}

/// Publishers that wait until the outbox is no longer crowded; each connection once at most.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Waker>,
    turn: Turn,
}

#[derive(Debug)]
pub(super) struct Outbox {
    pub queue: Queue,
    /// Instead of `queue`, for a durable session.
    pub backlog: Option<Box<Backlog>>,
    pub ended: bool,
    pub connected: bool,
    pub kick: Option<ReasonCode>,
    pace: Pace,
    /// The connection does not hear its client, since it publishes more than it is let: acknowledgements cannot come.
    deaf: bool,
    patience: Patience,
    /// It was given up and nobody who waited was told.
    gave_up: bool,
    plain: Waiting,
    acknowledged: Waiting,
}

impl Outbox {
    pub fn new(limits: &QueueLimits) -> Outbox {
        Outbox {
            queue: Queue::new(),
            backlog: None,
            ended: false,
            connected: false,
            kick: None,
            pace: Pace::Unready,
            deaf: false,
            patience: Patience::new(limits.slow_wait),
            gave_up: false,
            plain: Waiting::default(),
            acknowledged: Waiting::default(),
        }
    }

    /// A connection takes the session over.
    pub fn connect(&mut self) {
        self.connected = true;
        // Nobody waits for it before it drains for the first time: CONNECT may still be refused, slowly.
        self.pace = Pace::Unready;
        self.deaf = false;
        // What was used up before stays used up: otherwise a client would be waited for anew as often as it connects.
        self.kick = None;
    }

    /// Messages that wait and their bytes.
    pub fn load(&self) -> (usize, usize) {
        match &self.backlog {
            None => (self.queue.len(), self.queue.bytes()),
            Some(backlog) => (backlog.len(), backlog.bytes()),
        }
    }

    /// Whether the client takes what waits for it, or has not been waited for in vain.
    pub fn keeps_up(&self) -> bool {
        self.connected && (self.pace != Pace::Held || !self.patience.is_given_up())
    }

    /// Whether a publisher waits after such a message.
    pub fn is_crowded(&self, worth: Worth, limits: &QueueLimits) -> bool {
        self.is_awaited(worth) && self.is_above(1, limits)
    }

    /// Whether anybody waits who has to be counted.
    fn is_awaited(&self, worth: Worth) -> bool {
        let held = worth == Worth::Acknowledged && !self.patience.is_given_up();
        self.connected && !self.deaf && (self.pace == Pace::Going || self.pace == Pace::Held && held)
    }

    fn is_above(&self, divisor: usize, limits: &QueueLimits) -> bool {
        let (messages, bytes) = self.load();
        messages > CROWDED_MESSAGES.min(limits.max_messages / 2) / divisor
            || bytes > CROWDED_BYTES.min(limits.max_bytes / 2) / divisor
    }

    /// Has the waker called when the outbox is not crowded any more: how long to wait, and whom to wake.
    pub fn wait(
        &mut self,
        worth: Worth,
        turn: Option<Turn>,
        waker: &Waker,
        limits: &QueueLimits,
        now: Millis,
    ) -> (Asked, Vec<Waker>) {
        // Whoever waits looks at the clock, since a client that takes nothing wakes nobody.
        let over = self.patience.spend(0, 0, now);
        let released = if over { self.release(limits) } else { Vec::new() };
        let gave_up = std::mem::take(&mut self.gave_up) || over;
        let crowded = self.is_crowded(worth, limits);
        let waiting = self.waiting(worth);
        let waits = if turn == Some(waiting.turn) {
            true
        } else if crowded {
            waiting.wakers.push(waker.clone());
            true
        } else {
            false
        };
        let turn = waiting.turn;
        self.count(now);
        let until = (worth == Worth::Acknowledged).then(|| self.patience.until(now));
        (Asked { wait: waits.then_some(Wait { turn, until }), gave_up }, released)
    }

    /// The connection drained, or tried to: the messages and bytes that its client took since the last time, and what keeps it from taking more. Returns whom
    /// to wake.
    pub fn moved(
        &mut self,
        pace: Pace,
        taken: impl FnOnce() -> (usize, usize),
        limits: &QueueLimits,
        now: Millis,
    ) -> Vec<Waker> {
        if self.patience.counts() {
            let (messages, bytes) = taken();
            self.gave_up |= self.patience.spend(messages, bytes, now);
        }
        self.pace = pace;
        // Later than they were stopped, so that they do not stop again with the next message.
        if (self.patience.is_given_up() || !self.nobody_waits()) && !self.is_above(2, limits) {
            self.patience.restore();
        }
        let released = self.release(limits);
        self.count(now);
        released
    }

    /// Whether the connection's client can be heard.
    pub fn set_deaf(&mut self, deaf: bool, limits: &QueueLimits) -> Vec<Waker> {
        self.deaf = deaf;
        self.release(limits)
    }

    pub fn disconnect(&mut self, limits: &QueueLimits, now: Millis) -> Vec<Waker> {
        self.connected = false;
        self.patience.spend(0, 0, now);
        // Nobody waits for it while it is away.
        self.patience.count(false, now);
        self.release(limits)
    }

    /// The publishers to wake, if there is no reason any more to wait.
    fn release(&mut self, limits: &QueueLimits) -> Vec<Waker> {
        let mut released = Vec::new();
        if self.nobody_waits() {
            return released;
        }
        let full = self.is_above(2, limits);
        for worth in [Worth::Plain, Worth::Acknowledged] {
            let awaited = full && self.is_awaited(worth);
            let waiting = self.waiting(worth);
            if !awaited && !waiting.wakers.is_empty() {
                waiting.turn += 1;
                released.append(&mut waiting.wakers);
            }
        }
        released
    }

    /// Time counts while the client keeps somebody waiting, or would.
    fn count(&mut self, now: Millis) {
        let keeps = self.pace == Pace::Held && (self.patience.is_given_up() || !self.acknowledged.wakers.is_empty());
        self.patience.count(keeps, now);
    }

    fn nobody_waits(&self) -> bool {
        self.plain.wakers.is_empty() && self.acknowledged.wakers.is_empty()
    }

    fn waiting(&mut self, worth: Worth) -> &mut Waiting {
        match worth {
            Worth::Plain => &mut self.plain,
            Worth::Acknowledged => &mut self.acknowledged,
        }
    }
}
