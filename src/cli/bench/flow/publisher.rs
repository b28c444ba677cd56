//! A publishing client: as fast as window and socket let it, or at a rate.

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_codec::QoS;
use tokio::time::{Instant, Sleep, sleep_until};

use super::control::{Control, Live, Phase};
use super::link::{Link, LinkError, decode_rare};
use super::payload::Stamp;
use super::wire::{Answer, Incoming, Template};

/// Messages are made until this many bytes wait for the socket.
const FILL: usize = 32 * 1024;

/// Rounds of reading and writing before other clients of the thread get a turn.
const ROUNDS: usize = 8;

/// What a publisher has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    /// Messages that were begun.
    pub sent: u64,
    /// Messages whose QoS 1 or 2 exchange is complete.
    pub acknowledged: u64,
    /// Messages that the server refused by reason code.
    pub refused: u64,
}

/// What a publisher does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub index: u32,
    pub qos: QoS,
    pub window: u16,
    /// Messages to send; `None` is as many as the time allows.
    pub count: Option<NonZeroU64>,
    /// Time between two messages; `None` is none.
    pub every: Option<Duration>,
    /// When the first one is due after the start.
    pub delay: Duration,
}

pub(super) struct Publisher {
    link: Link,
    template: Template,
    plan: Plan,
    flights: Flights,
    pace: Option<Pace>,
    done: Sent,
    stopping: bool,
}

/// Messages in flight by packet identifier, which are 1 to the size of the window.
#[derive(Debug)]
struct Flights {
    slots: Vec<Flight>,
    free: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    None,
    /// PUBLISH was sent at this time.
    Published(u64),
    /// PUBREL was sent.
    Released(u64),
}

/// Has the task woken when messages are due.
struct Pace {
    due: Due,
    started: Instant,
    timer: Pin<Box<Sleep>>,
}

/// When messages are due, in nanoseconds of the run; without a clock of its own.
#[derive(Debug, Clone, Copy)]
struct Due {
    every: u64,
    next: u64,
    /// Whether the last message that was due could not be sent at once: it then counts from when it was due, so that a server that
    /// stalls is not excused from the messages it kept from being sent.
    late: bool,
}

impl Publisher {
    pub fn new(link: Link, template: Template, plan: Plan) -> Publisher {
        let flights = Flights::new(if plan.qos == QoS::AtMostOnce { 0 } else { plan.window });
        Publisher { link, template, plan, flights, pace: None, done: Sent::default(), stopping: false }
    }

    /// Publishes from the start of the run to its end, and then until everything is acknowledged or the run is over. Says what was
    /// done in any case.
    pub async fn run(mut self, mut control: Control) -> (Sent, Result<(), LinkError>) {
        control.reached(Phase::Running).await;
        if let Some(every) = self.plan.every {
            let started = Instant::now();
            let base = control.clock.nanos();
            self.pace = Some(Pace {
                due: Due { every: nanos(every), next: base + nanos(self.plan.delay), late: false },
                started: started.checked_sub(Duration::from_nanos(base)).unwrap_or(started),
                timer: Box::pin(sleep_until(started)),
            });
        }
        let mut phases = control.clone();
        let result = tokio::select! {
            result = poll_fn(|cx| self.poll(cx, &control)) => Some(result),
            () = phases.reached(Phase::Draining) => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                self.stopping = true;
                tokio::select! {
                    result = poll_fn(|cx| self.poll(cx, &control)) => result,
                    () = phases.reached(Phase::Over) => Ok(()),
                }
            }
        };
        if result.is_ok() {
            self.link.close().await;
        }
        (self.done, result)
    }

    fn poll(&mut self, cx: &mut Context<'_>, control: &Control) -> Poll<Result<(), LinkError>> {
        self.link.poll_ping(cx);
        for _ in 0..ROUNDS {
            let read = self.poll_acknowledgements(cx, control)?;
            self.fill(cx, control);
            let waiting = self.link.unwritten();
            let written = self.link.poll_write(cx)?.is_ready();
            if written && self.is_finished() {
                return Poll::Ready(Ok(()));
            }
            let more = written && waiting > 0 && self.pace.is_none() && self.may_send();
            if !read && !more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_finished(&self) -> bool {
        (self.stopping || self.is_exhausted()) && self.flights.is_empty()
    }

    fn is_exhausted(&self) -> bool {
        self.plan.count.is_some_and(|count| self.done.sent >= count.get())
    }

    fn may_send(&self) -> bool {
        !self.stopping && !self.is_exhausted() && (self.plan.qos == QoS::AtMostOnce || !self.flights.free.is_empty())
    }

    /// Makes the messages that are due and that the window has places for.
    fn fill(&mut self, cx: &mut Context<'_>, control: &Control) {
        let before = self.done.sent;
        let now = control.clock.nanos();
        while self.link.unwritten() < FILL && self.may_send() {
            let nanos = match &mut self.pace {
                None => now,
                Some(pace) => match pace.due.take(now) {
                    None => break,
                    Some(nanos) => nanos,
                },
            };
            let packet_id = if self.plan.qos == QoS::AtMostOnce { 0 } else { self.flights.begin(nanos) };
            let stamp = Stamp { run: control.run, publisher: self.plan.index, sequence: self.done.sent, nanos };
            self.template.append(&mut self.link.out, packet_id, stamp);
            self.done.sent += 1;
        }
        Live::add(&control.live.sent, self.done.sent - before);
        if let Some(pace) = &mut self.pace
            && !pace.due.paused(now)
            && !self.stopping
        {
            pace.poll_timer(cx);
        }
    }

    /// Reads once and takes acknowledgements; `true` if something came.
    fn poll_acknowledgements(&mut self, cx: &mut Context<'_>, control: &Control) -> Result<bool, LinkError> {
        let version = self.link.version();
        let now = control.clock.nanos();
        let mut latencies = control.lane.acknowledgement.lock();
        let Publisher { link, flights, done, .. } = self;
        let before = done.acknowledged;
        let read = link.poll_read(cx, |packet, out| {
            let finished = match packet {
                Incoming::PubAck(id, taken) => flights.finish(id).map(|sent| (sent, taken)),
                Incoming::PubRec(id, false) => flights.finish(id).map(|sent| (sent, false)),
                Incoming::PubRec(id, true) => {
                    if flights.release(id) {
                        Answer::Release.append(out, id);
                    }
                    None
                }
                Incoming::PubComp(id, ..) => flights.finish(id).map(|sent| (sent, true)),
                Incoming::Other(frame) => {
                    let packet = decode_rare(frame, version)?;
                    return Err(LinkError::Unexpected(packet.packet_type()));
                }
                _ => None,
            };
            match finished {
                Some((sent, true)) => {
                    done.acknowledged += 1;
                    latencies.saturating_record(now.saturating_sub(sent) / 1000);
                }
                Some((_, false)) => done.refused += 1,
                None => {}
            }
            Ok(())
        });
        drop(latencies);
        Live::add(&control.live.acknowledged, self.done.acknowledged - before);
        match read {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }
}

impl Flights {
    fn new(window: u16) -> Flights {
        Flights { slots: vec![Flight::None; usize::from(window)], free: (1..=window).rev().collect() }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// A free identifier; 0 if there is none.
    fn begin(&mut self, nanos: u64) -> u16 {
        let id = self.free.pop().unwrap_or(0);
        if let Some(slot) = self.slot(id) {
            *slot = Flight::Published(nanos);
        }
        id
    }

    fn release(&mut self, id: u16) -> bool {
        match self.slot(id) {
            Some(slot) if *slot != Flight::None => {
                if let Flight::Published(nanos) = *slot {
                    *slot = Flight::Released(nanos);
                }
                true
            }
            _ => false,
        }
    }

    /// The exchange is complete: when it began, if it was under way.
    fn finish(&mut self, id: u16) -> Option<u64> {
        let slot = self.slot(id)?;
        let (Flight::Published(nanos) | Flight::Released(nanos)) = *slot else { return None };
        *slot = Flight::None;
        self.free.push(id);
        Some(nanos)
    }

    fn slot(&mut self, id: u16) -> Option<&mut Flight> {
        self.slots.get_mut(usize::from(id).checked_sub(1)?)
    }
}

impl Due {
    /// Takes a message that is due: from when it counts.
    fn take(&mut self, now: u64) -> Option<u64> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.next = due.saturating_add(self.every);
        Some(if self.late { due } else { now })
    }

    /// No more is taken at `now`: whether something that is due is left behind.
    fn paused(&mut self, now: u64) -> bool {
        self.late = self.next <= now;
        self.late
    }
}

impl Pace {
    /// Has the task woken when the next message is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        let at = self.started + Duration::from_nanos(self.due.next);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_counts_once() {
        let mut flights = Flights::new(2);
        let (one, other) = (flights.begin(10), flights.begin(20));
        assert_eq!((one, other), (1, 2));
        assert!(flights.free.is_empty());
        assert_eq!(flights.finish(one), Some(10));
        assert_eq!(flights.finish(one), None);
        assert_eq!(flights.finish(9), None);
        assert!(flights.release(other));
        assert_eq!(flights.finish(other), Some(20));
        assert!(flights.is_empty());
    }
    /// Takes all that is due at `now`, as a window with `room` lets it.
    fn take(due: &mut Due, now: u64, room: usize) -> Vec<u64> {
        let taken = std::iter::from_fn(|| due.take(now)).take(room).collect();
        due.paused(now);
        taken
    }

    #[test]
    fn a_rate_is_kept_however_rarely_the_task_runs() {
        const EVERY: u64 = 10;
        for step in [1, 3, 10, 25, 400] {
            let mut due = Due { every: EVERY, next: 5, late: false };
            let mut sent = 0;
            for moment in (0..=2000).step_by(step) {
                sent += take(&mut due, moment, usize::MAX).len() as u64;
                // The first after 5, then one every 10: never early, and none left out.
                assert_eq!(sent, (moment + EVERY - 5) / EVERY, "at {moment}, looking every {step}");
            }
        }
    }

    #[test]
    fn what_a_server_kept_from_being_sent_counts_from_when_it_was_due() {
        let mut due = Due { every: 10, next: 0, late: false };
        assert_eq!(take(&mut due, 2, 5), [2], "that the task woke late is not the server's fault");
        assert_eq!(take(&mut due, 35, 1), [35], "the window has one place, two more are due");
        assert_eq!(take(&mut due, 60, 9), [20, 30, 40, 50, 60]);
        assert_eq!(take(&mut due, 71, 9), [71], "nothing was left behind");
    }
}
