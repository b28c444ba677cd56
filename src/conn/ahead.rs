//! A publisher that waits for a subscriber: what it sent stays unhandled, but for what would keep others waiting in turn.
//!
//! Its acknowledgements stand behind its messages in one stream. If they were not read, two clients that publish to each other, or one that
//! publishes to itself, would wait for ever. So they are looked for, as far as a bounded number of bytes reaches.

use super::established::{Established, State};
use super::{Close, Context};
use crate::broker::{Awaited, Wait};
use crate::session::Millis;
use std::task::{self, Poll};

/// Bytes in which acknowledgements are looked for; one read may exceed it by as much.
pub(super) const MOST_AHEAD: usize = 64 * 1024;

/// A subscriber that has to catch up before more is handled from this publisher.
#[derive(Debug)]
pub(super) struct Crowded {
    pub awaited: Awaited,
    /// `None` until it was asked for the first time.
    pub wait: Option<Wait>,
}

/// Whether a packet is handled although others before it wait: PUBACK, PUBREC, PUBCOMP and PINGREQ.
fn goes_ahead(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| matches!(first & 0xf0, 0x40 | 0x50 | 0x70 | 0xc0))
}

impl State {
    /// Whether a subscriber has to catch up before this publisher is heard again.
    pub(super) fn waits(&mut self, context: &Context, waker: &task::Waker) -> bool {
        let Some(Crowded { awaited, wait }) = &mut self.crowded else { return false };
        let turn = wait.map(|wait| wait.turn);
        let asked = awaited.subscriber.wait(awaited.qos, turn, waker, context.broker.now());
        if asked.gave_up {
            context.broker.metrics().limit_hit("mqtt.slow_subscriber_wait");
        }
        *wait = asked.wait;
        if wait.is_none() {
            self.crowded = None;
        }
        self.crowded.is_some()
    }

    /// When to ask again whether it has to wait, whatever happens.
    pub(super) fn waits_until(&self) -> Option<Millis> {
        self.crowded.as_ref()?.wait?.until
    }

    /// Whether acknowledgements may come from the client.
    fn may_acknowledge(&mut self) -> bool {
        let session = self.lease.session();
        !(session.subscriptions.is_empty() && session.inflight.is_empty())
    }
}

impl Established {
    /// Reads while the client waits for a subscriber; `true` if something came.
    pub(super) fn poll_ahead(&mut self, cx: &mut task::Context<'_>) -> Result<bool, Close> {
        let Established { io, context, input, state, .. } = self;
        if self.ended.is_some() || state.output.is_full() || state.poll_must_wait(cx) || !state.may_acknowledge() {
            return Ok(false);
        }
        let max_packet_size = context.broker.config().max_packet_size;
        if input.skim(max_packet_size, goes_ahead, |frame| state.handle_frame(frame, context))? {
            return Ok(true);
        }
        if input.len() >= MOST_AHEAD {
            // Others do not wait for what cannot come.
            if !self.deaf {
                self.deaf = true;
                state.lease.subscriber().set_deaf(true);
            }
            return Ok(false);
        }
        let ended = match input.poll_keep(cx, &mut **io, MOST_AHEAD) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(true)) => {
                self.last_heard = context.broker.now();
                return Ok(true);
            }
            Poll::Ready(Ok(false)) => Close::PeerClosed,
            Poll::Ready(Err(close)) => close,
        };
        // What came before the end is handled first.
        self.ended = Some(Box::new(ended));
        Ok(false)
    }

    /// Everything that came is handled: acknowledgements are heard again. The end of the connection, if it came after that.
    pub(super) fn caught_up(&mut self) -> Result<(), Close> {
        if std::mem::take(&mut self.deaf) {
            self.state.lease.subscriber().set_deaf(false);
        }
        self.ended.take().map_or(Ok(()), |close| Err(*close))
    }
}
