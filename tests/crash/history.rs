//! What the clients saw, and the judgement over it. Nothing here comes from the broker's own word.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use mqtt_codec::topic::matches;
use mqtt_codec::{Publish, QoS};
use tokio::sync::Notify;

/// Topics of a publisher, in turn.
const TOPICS: u64 = 2;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Lost { subscriber: usize, publisher: usize, seq: u64 },
    Doubled { subscriber: usize, publisher: usize, seq: u64 },
    OutOfOrder { subscriber: usize, publisher: usize, seq: u64, after: u64 },
    NeverSent { subscriber: usize, what: String },
    SessionLost(String),
    Disorder(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Lost { subscriber, publisher, seq } => {
                write!(
                    f,
                    "subscriber {subscriber} never got message {seq} of publisher {publisher}, which was acknowledged"
                )
            }
            Fault::Doubled { subscriber, publisher, seq } => {
                write!(f, "subscriber {subscriber} got the QoS 2 message {seq} of publisher {publisher} twice")
            }
            Fault::OutOfOrder { subscriber, publisher, seq, after } => {
                write!(f, "subscriber {subscriber} got message {seq} of publisher {publisher} after {after}")
            }
            Fault::NeverSent { subscriber, what } => write!(f, "subscriber {subscriber} got what nobody sent: {what}"),
            Fault::SessionLost(client) => write!(f, "the broker forgot the session of {client}"),
            Fault::Disorder(what) => f.write_str(what),
        }
    }
}

#[derive(Debug, Default)]
struct Sent {
    count: u64,
    acknowledged: HashSet<u64>,
}

/// One delivery, as far as it is a message of the load at all.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    publisher: usize,
    seq: u64,
}

#[derive(Debug, Default)]
struct State {
    sent: Vec<Sent>,
    delivered: Vec<Vec<Delivered>>,
    arrived: Vec<HashSet<(usize, u64)>>,
    faults: Vec<Fault>,
}

/// The logs of all clients of one run.
#[derive(Debug)]
pub struct Logs {
    publishers: Vec<u8>,
    subscribers: Vec<(&'static str, u8)>,
    state: Mutex<State>,
    changed: Notify,
}

impl Logs {
    /// By the QoS of each publisher, and filter and QoS of each subscriber.
    pub fn new(publishers: &[u8], subscribers: &[(&'static str, u8)]) -> Logs {
        let mut state = State::default();
        state.sent.resize_with(publishers.len(), Sent::default);
        state.delivered.resize_with(subscribers.len(), Vec::new);
        state.arrived.resize_with(subscribers.len(), HashSet::new);
        Logs {
            publishers: publishers.to_vec(),
            subscribers: subscribers.to_vec(),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    pub fn sent(&self, publisher: usize, seq: u64) {
        self.state.lock().unwrap().sent[publisher].count = seq + 1;
    }

    pub fn acknowledge(&self, publisher: usize, seq: u64) {
        self.state.lock().unwrap().sent[publisher].acknowledged.insert(seq);
    }

    /// A message that the application of `subscriber` got; one that QoS 2 recognises as sent again is not.
    pub fn delivered(&self, subscriber: usize, message: &Publish) {
        let mut state = self.state.lock().unwrap();
        match parse(&message.topic, &message.payload) {
            Some((publisher, seq)) => {
                state.delivered[subscriber].push(Delivered { publisher, seq });
                state.arrived[subscriber].insert((publisher, seq));
            }
            None => state.faults.push(Fault::NeverSent { subscriber, what: message.topic.to_string() }),
        }
        let qos = QoS::try_from(self.qos(subscriber, parse(&message.topic, &message.payload).map_or(0, |(p, _)| p)));
        if qos != Ok(message.qos) {
            state.faults.push(Fault::Disorder(format!("{} came with {:?}", message.topic, message.qos)));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn session_lost(&self, client: String) {
        self.state.lock().unwrap().faults.push(Fault::SessionLost(client));
    }

    pub fn disorder(&self, what: String) {
        self.state.lock().unwrap().faults.push(Fault::Disorder(what));
    }

    pub fn acknowledged(&self) -> usize {
        self.progress().0
    }

    /// Waits until nothing that was acknowledged is missing.
    pub async fn all_arrived(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.missing().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Ends when nothing new has arrived or been acknowledged for so long.
    pub async fn standstill(&self, limit: Duration) {
        let mut last = self.progress();
        loop {
            tokio::time::sleep(limit).await;
            let now = self.progress();
            if now == last {
                return;
            }
            last = now;
        }
    }

    /// Messages that were acknowledged, and distinct ones that arrived.
    fn progress(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        let acknowledged = state.sent.iter().map(|sent| sent.acknowledged.len()).sum();
        (acknowledged, state.arrived.iter().map(HashSet::len).sum())
    }

    pub fn summary(&self) -> String {
        let state = self.state.lock().unwrap();
        let sent: u64 = state.sent.iter().map(|sent| sent.count).sum();
        let delivered: usize = state.delivered.iter().map(Vec::len).sum();
        drop(state);
        let (acknowledged, distinct) = self.progress();
        format!("{sent} sent, {acknowledged} acknowledged, {delivered} delivered of which {distinct} distinct")
    }

    /// Every broken promise.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = self.missing();
        let state = self.state.lock().unwrap();
        faults.extend(state.faults.iter().cloned());
        for (subscriber, delivered) in state.delivered.iter().enumerate() {
            let mut seen = HashSet::new();
            let mut last: HashMap<(usize, u64), u64> = HashMap::new();
            for &Delivered { publisher, seq } in delivered {
                if state.sent[publisher].count <= seq {
                    faults
                        .push(Fault::NeverSent { subscriber, what: format!("message {seq} of publisher {publisher}") });
                }
                if !seen.insert((publisher, seq)) {
                    if self.qos(subscriber, publisher) == 2 {
                        faults.push(Fault::Doubled { subscriber, publisher, seq });
                    }
                    // QoS 1 may repeat; order is that of first arrivals, [MQTT-4.6.0-6].
                    continue;
                }
                let last = last.entry((publisher, seq % TOPICS)).or_insert(seq);
                if *last > seq {
                    faults.push(Fault::OutOfOrder { subscriber, publisher, seq, after: *last });
                }
                *last = seq.max(*last);
            }
        }
        faults
    }

    fn missing(&self) -> Vec<Fault> {
        let state = self.state.lock().unwrap();
        let mut faults = Vec::new();
        for (subscriber, (filter, _)) in self.subscribers.iter().enumerate() {
            for (publisher, sent) in state.sent.iter().enumerate() {
                for &seq in &sent.acknowledged {
                    let wanted = matches(filter, &topic(publisher, seq));
                    if wanted && !state.arrived[subscriber].contains(&(publisher, seq)) {
                        faults.push(Fault::Lost { subscriber, publisher, seq });
                    }
                }
            }
        }
        faults
    }

    /// QoS of a delivery: the lower of what was published and what was subscribed.
    fn qos(&self, subscriber: usize, publisher: usize) -> u8 {
        self.subscribers[subscriber].1.min(self.publishers[publisher])
    }
}

/// Where a publisher sends a message: the later ones let it wait for a second.
pub fn address(publisher: usize, seq: u64) -> String {
    let delay = if publisher < 4 { "" } else { "$delayed/1/" };
    format!("{delay}{}", topic(publisher, seq))
}

/// The topic of a message.
pub fn topic(publisher: usize, seq: u64) -> String {
    format!("crash/{publisher}/{}", seq % TOPICS)
}

/// The payload of a message: its name, and bytes that only it has, of a length that only it has.
pub fn payload(publisher: usize, seq: u64) -> Vec<u8> {
    let mut payload = format!("{publisher} {seq} ").into_bytes();
    payload.extend((0..seq * 7 % 300).map(|i| (seq.wrapping_mul(31).wrapping_add(i) % 251) as u8));
    payload
}

fn parse(name: &str, bytes: &[u8]) -> Option<(usize, u64)> {
    let mut words = bytes.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
    let (publisher, seq) = (number()? as usize, number()?);
    let right = name == topic(publisher, seq) && bytes == payload(publisher, seq);
    right.then_some((publisher, seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::publish;

    /// Publisher 0 has QoS 1, publisher 1 QoS 2.
    fn logs() -> Logs {
        Logs::new(&[1, 2], &[("crash/#", 2)])
    }

    fn deliver(logs: &Logs, publisher: usize, seq: u64) {
        logs.delivered(0, &publish(&topic(publisher, seq), logs.publishers[publisher], payload(publisher, seq)));
    }

    #[test]
    fn a_history_that_keeps_every_promise_has_no_fault() {
        let logs = logs();
        for seq in 0..4 {
            for publisher in [0, 1] {
                logs.sent(publisher, seq);
                logs.acknowledge(publisher, seq);
                deliver(&logs, publisher, seq);
            }
        }
        // QoS 1 may repeat.
        deliver(&logs, 0, 1);
        assert_eq!(logs.faults(), []);
    }

    #[test]
    fn a_lost_message_is_a_fault_only_if_it_was_acknowledged() {
        let logs = logs();
        logs.sent(0, 0);
        assert_eq!(logs.faults(), []);
        logs.acknowledge(0, 0);
        assert_eq!(logs.faults(), [Fault::Lost { subscriber: 0, publisher: 0, seq: 0 }]);
    }

    #[test]
    fn qos_2_twice_is_a_fault() {
        let logs = logs();
        logs.sent(1, 0);
        deliver(&logs, 1, 0);
        deliver(&logs, 1, 0);
        assert_eq!(logs.faults(), [Fault::Doubled { subscriber: 0, publisher: 1, seq: 0 }]);
    }

    #[test]
    fn order_is_that_of_first_arrivals_in_each_topic() {
        let logs = logs();
        logs.sent(0, 4);
        for seq in [0, 3, 2, 1] {
            deliver(&logs, 0, seq);
        }
        assert_eq!(logs.faults(), [Fault::OutOfOrder { subscriber: 0, publisher: 0, seq: 1, after: 3 }]);
    }

    #[test]
    fn what_was_never_sent_is_a_fault() {
        let logs = logs();
        deliver(&logs, 0, 9);
        logs.delivered(0, &publish("crash/0/0", 1, "0 0 altered"));
        assert_eq!(logs.faults().len(), 2, "{:?}", logs.faults());
    }
}
