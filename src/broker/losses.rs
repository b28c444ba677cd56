//! What full queues drop of QoS 1 and 2, in the log: soon after it begins and then once a minute for each client, and not more lines than
//! an operator reads.

use super::{Broker, Subscriber};
use crate::session::Millis;
use crate::telemetry::shortened;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Clients that are watched at once.
const MAX_WATCHED: usize = 1024;
/// Time from the first loss to its line, so that the line has a number that says something.
const SOON: Millis = 1000;
/// Time between lines about one client.
const AGAIN: Millis = 60_000;
/// Lines in that time, about all clients.
const MAX_LINES: u32 = 20;

/// What the queue of one session has dropped and nobody was told of.
#[derive(Debug, Default)]
pub(super) struct Loss {
    messages: AtomicU64,
    watched: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<Report>);

#[derive(Debug, Default)]
struct Report {
    watched: Vec<Watched>,
    /// The end of the time in which `lines` were written.
    window_end: Millis,
    lines: u32,
    /// Clients and messages about which no line was written in it.
    others: (u64, u64),
}

#[derive(Debug)]
struct Watched {
    subscriber: Arc<Subscriber>,
    since: Millis,
    due: Millis,
}

/// A line about one client.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    client_id: bytestring::ByteString,
    messages: u64,
    over: Millis,
}

impl Losses {
    /// Takes note of dropped messages. A lock is taken only for the first of a client in a minute.
    pub fn add(&self, subscriber: &Arc<Subscriber>, messages: usize, now: Millis) {
        let loss = subscriber.loss();
        loss.messages.fetch_add(messages as u64, Ordering::AcqRel);
        if loss.watched.load(Ordering::Acquire) || loss.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut report = self.0.lock();
        if report.watched.len() < MAX_WATCHED {
            report.watched.push(Watched { subscriber: Arc::clone(subscriber), since: now, due: now + SOON });
        } else {
            loss.watched.store(false, Ordering::Release);
        }
    }

    /// The lines that are due, and the clients and messages about which none was written in the time that is over.
    fn due(&self, now: Millis) -> (Vec<Line>, (u64, u64)) {
        let mut report = self.0.lock();
        let mut others = (0, 0);
        if now >= report.window_end {
            others = std::mem::take(&mut report.others);
            report.window_end = now + AGAIN;
            report.lines = 0;
        }
        let mut lines = Vec::new();
        let Report { watched, lines: said, others: unsaid, .. } = &mut *report;
        watched.retain_mut(|entry| {
            if entry.due > now {
                return true;
            }
            let loss = entry.subscriber.loss();
            let messages = loss.messages.swap(0, Ordering::AcqRel);
            if messages == 0 {
                loss.watched.store(false, Ordering::Release);
                // One that came in between is found by whoever counted it only if it was not taken for watched.
                return loss.messages.load(Ordering::Acquire) > 0 && !loss.watched.swap(true, Ordering::AcqRel);
            }
            if *said < MAX_LINES {
                *said += 1;
                let client_id = entry.subscriber.client_id().clone();
                lines.push(Line { client_id, messages, over: now.saturating_sub(entry.since) });
            } else {
                unsaid.0 += 1;
                unsaid.1 += messages;
            }
            entry.since = now;
            entry.due = now + AGAIN;
            true
        });
        (lines, others)
    }
}

impl Broker {
    /// Writes what is due. Called about once a second.
    pub(super) fn report_losses(&self) {
        let (lines, (clients, messages)) = self.losses.due(self.now());
        let (max_mqueue_len, max_mqueue_bytes) = (self.config.max_mqueue_len, self.config.max_mqueue_bytes);
        for Line { client_id, messages, over } in lines {
            tracing::warn!(
                client_id = shortened(&client_id),
                dropped = messages,
                seconds = over.div_ceil(1000),
                max_mqueue_len,
                max_mqueue_bytes,
                "messages of QoS 1 or 2 were dropped, since the client's queue was full: it is away, or takes too slowly; see to the \
                 client, or raise mqtt.max_mqueue_len or mqtt.max_mqueue_bytes"
            );
        }
        if clients > 0 {
            tracing::warn!(
                clients,
                dropped = messages,
                max_mqueue_len,
                max_mqueue_bytes,
                "messages of QoS 1 or 2 were dropped, since the queues of more clients were full than have a line each"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Owner;
    use crate::session::QueueLimits;

    fn subscriber(n: usize) -> Arc<Subscriber> {
        let limits = QueueLimits { max_messages: 1, max_bytes: 1, store_qos0: false, slow_wait: 0, priorities: None };
        Arc::new(Subscriber::new(n as u64, n.to_string().into(), Owner::default(), Arc::new(limits)))
    }

    fn line(client: &str, messages: u64, over: Millis) -> Line {
        Line { client_id: client.into(), messages, over }
    }

    #[test]
    fn a_client_has_a_line_soon_and_then_one_a_minute_while_it_loses_messages() {
        let (losses, client) = (Losses::default(), subscriber(1));
        for _ in 0..100 {
            losses.add(&client, 3, 5_000);
        }
        assert_eq!(losses.due(5_999).0, []);
        assert_eq!(losses.due(6_000).0, [line("1", 300, 1_000)]);
        losses.add(&client, 1, 7_000);
        losses.add(&client, 1, 60_000);
        assert_eq!(losses.due(65_999).0, []);
        assert_eq!(losses.due(66_000).0, [line("1", 2, 60_000)]);
        // A minute without a loss ends the episode.
        assert_eq!(losses.due(126_000).0, []);
        losses.add(&client, 1, 200_000);
        assert_eq!(losses.due(201_000).0, [line("1", 1, 1_000)]);
    }

    #[test]
    fn many_clients_have_some_lines_and_a_sum() {
        let losses = Losses::default();
        let clients: Vec<_> = (0..3_000).map(subscriber).collect();
        for client in &clients {
            losses.add(client, 2, 0);
        }
        assert_eq!(losses.due(SOON).0.len(), 20);
        assert_eq!(losses.due(SOON + 1), (Vec::new(), (0, 0)));
        assert_eq!(losses.due(SOON + AGAIN).1, (1004, 2008));
        assert!(losses.0.lock().watched.len() <= MAX_WATCHED);
    }
}
