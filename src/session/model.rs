//! Sessions against a model of QoS 0, 1 and 2: random schedules of packets, cut connections, time and ends of sessions, without a clock.
//!
//! The subscriber follows the words of MQTT 5 section 4.3. What it hears is judged from what was accepted for it alone. Both kinds of
//! session run: in memory, and with rows of a store. A failure prints the smallest schedule and the seed that found it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;

use mqtt_codec::QoS;
use proptest::prelude::*;

use super::backlog::tests::Disk;
use super::*;

const LIMITS: QueueLimits =
    QueueLimits { max_messages: 10_000, max_bytes: 64 << 20, store_qos0: false, slow_wait: 0, priorities: None };
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const UNRELEASED: usize = 3;
const RELEASE_TIMEOUT: Millis = 500;

#[derive(Debug, Clone)]
enum Step {
    /// Accepted from somebody: QoS, and a lifetime if there is one.
    Accept(u8, Option<u16>),
    /// A QoS 2 PUBLISH with this packet identifier, perhaps a repetition.
    Publish(u16),
    PubRel(u16),
    /// So many messages go out.
    Send(u8),
    /// So many packets arrive at the client, and at the broker.
    Arrive(u8, u8),
    Read(u8),
    Cut,
    Connect,
    Pass(u16),
    /// The session's time is up, if nobody is connected.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, prop::option::weighted(0.2, 1..400u16)).prop_map(|(qos, life)| Step::Accept(qos, life)),
        4 => (1..6u16).prop_map(Step::Publish),
        3 => (1..6u16).prop_map(Step::PubRel),
        8 => (1..6u8).prop_map(Step::Send),
        12 => (0..5u8, 0..5u8).prop_map(|(client, broker)| Step::Arrive(client, broker)),
        4 => (1..6u8).prop_map(Step::Read),
        2 => Just(Step::Cut),
        4 => Just(Step::Connect),
        2 => (1..300u16).prop_map(Step::Pass),
        1 => Just(Step::End),
    ]
}

/// Packets to the subscriber.
#[derive(Debug)]
enum Down {
    Publish(Option<NonZeroU16>, QoS, u64),
    PubRel(NonZeroU16),
}

/// Packets from the subscriber: PUBACK, PUBREC, PUBCOMP.
#[derive(Debug)]
enum Up {
    Ack(NonZeroU16),
    Rec(NonZeroU16),
    Comp(NonZeroU16),
}

/// The subscriber: what it heard, and the QoS 2 messages it holds by packet identifier.
#[derive(Debug, Default)]
struct Client {
    heard: Vec<(u64, QoS)>,
    unreleased: BTreeMap<NonZeroU16, u64>,
}

#[derive(Debug)]
struct World {
    durable: bool,
    window: usize,
    now: Millis,
    connected: bool,
    session: Session,
    queue: Queue,
    backlog: Backlog,
    disk: Disk,
    down: VecDeque<Down>,
    up: VecDeque<Up>,
    client: Client,
    /// What the session owes its client: the end of its life, if it has one.
    owed: BTreeMap<u64, (QoS, Option<Millis>)>,
    /// QoS 2 identifiers of the publisher that are not released, and since when.
    unreleased: BTreeMap<u16, Millis>,
    accepted: u64,
}

impl World {
    fn new(durable: bool, window: usize) -> World {
        World {
            durable,
            window,
            now: 0,
            connected: true,
            session: Session::new(SessionExpiry::Never),
            queue: Queue::new(),
            backlog: Backlog::new(),
            disk: Disk::default(),
            down: VecDeque::new(),
            up: VecDeque::new(),
            client: Client::default(),
            owed: BTreeMap::new(),
            unreleased: BTreeMap::new(),
            accepted: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Accept(qos, life) => self.accept(QOS[usize::from(qos)], life),
            Step::Publish(id) => self.publish(id),
            Step::PubRel(id) => {
                let known = self.session.awaiting_release.release(NonZeroU16::new(id).unwrap());
                assert_eq!(known, self.unreleased.remove(&id).is_some());
            }
            Step::Send(count) if self.connected => {
                for _ in 0..count {
                    self.send();
                }
            }
            Step::Arrive(client, broker) if self.connected => {
                for _ in 0..client {
                    self.client_receives();
                }
                for _ in 0..broker {
                    self.broker_receives();
                }
            }
            Step::Read(limit) if self.connected => self.read(usize::from(limit)),
            Step::Cut if self.connected => self.cut(),
            Step::Connect if !self.connected => self.connect(),
            Step::Pass(time) => self.now += u64::from(time),
            Step::End if !self.connected => self.end(),
            _ => {}
        }
        assert!(self.session.inflight.len() <= self.window, "more than the receive maximum is in flight");
        assert!(self.session.awaiting_release.len() <= UNRELEASED);
    }

    fn accept(&mut self, qos: QoS, life: Option<u16>) {
        self.accepted += 1;
        let mut delivery = message_for_tests("t", qos);
        let message = Arc::get_mut(&mut delivery.message).unwrap();
        message.payload = self.accepted.to_string().into();
        message.expires_at = life.map(|life| self.now + u64::from(life));
        let expires_at = message.expires_at;
        let away = !self.connected;
        let pushed = match self.durable {
            true => self.backlog.push(delivery, away, &LIMITS, &mut self.disk),
            false => self.queue.push(delivery, away, &LIMITS),
        };
        if away && qos == QoS::AtMostOnce {
            assert_eq!(pushed, Push::DroppedAway);
        } else {
            assert_eq!(pushed, Push::Queued);
            self.owed.insert(self.accepted, (qos, expires_at));
        }
    }

    fn publish(&mut self, id: u16) {
        let known = self.unreleased.contains_key(&id);
        if !known && self.unreleased.len() >= UNRELEASED {
            self.unreleased.retain(|_, since| self.now - *since < RELEASE_TIMEOUT);
        }
        let full = self.unreleased.len() >= UNRELEASED;
        let id_of_packet = NonZeroU16::new(id).unwrap();
        match self.session.awaiting_release.begin(id_of_packet, UNRELEASED, self.now, RELEASE_TIMEOUT) {
            Begin::Duplicate => assert!(known, "a message is taken for another"),
            Begin::Full => assert!(full && !known, "a message is refused that there is a place for"),
            Begin::New => {
                assert!(!known && !full, "a message is routed twice");
                self.unreleased.insert(id, self.now);
                self.accept(QoS::ExactlyOnce, None);
            }
        }
    }

    /// Sends the next message; `false` if there is none to send.
    fn send(&mut self) -> bool {
        let inflight = &mut self.session.inflight;
        inflight.settle(self.disk.ticket, self.disk.ticket);
        let open = inflight.len() < self.window;
        let taken = match self.durable {
            false => self.queue.pop(open, self.now, &mut 0),
            true => {
                let (ids, durable) = (inflight.ids_below(), self.disk.ticket);
                self.backlog.pop(open, ids, durable, self.now, &mut 0, &mut self.disk).ok()
            }
        };
        let Some(delivery) = taken else { return false };
        if delivery.stored.released {
            let id = inflight.restore_released(delivery.stored.seq).unwrap();
            self.down.push_back(Down::PubRel(id));
            return true;
        }
        let again = delivery.stored.again;
        assert!(again || !delivery.message.has_expired(self.now), "an expired message is sent");
        let number = number(&delivery);
        let qos = delivery.qos;
        let id = (qos != QoS::AtMostOnce).then(|| inflight.begin(delivery, self.window).unwrap());
        self.down.push_back(Down::Publish(id, qos, number));
        true
    }

    fn client_receives(&mut self) {
        let Client { heard, unreleased } = &mut self.client;
        match self.down.pop_front() {
            None => {}
            Some(Down::Publish(None, qos, number)) => heard.push((number, qos)),
            Some(Down::Publish(Some(id), QoS::ExactlyOnce, number)) => {
                match unreleased.insert(id, number) {
                    None => heard.push((number, QoS::ExactlyOnce)),
                    Some(held) => assert_eq!(held, number, "identifier {id} stands for two messages"),
                }
                self.up.push_back(Up::Rec(id));
            }
            Some(Down::Publish(Some(id), qos, number)) => {
                heard.push((number, qos));
                self.up.push_back(Up::Ack(id));
            }
            Some(Down::PubRel(id)) => {
                unreleased.remove(&id);
                self.up.push_back(Up::Comp(id));
            }
        }
    }

    fn broker_receives(&mut self) {
        let Some(packet) = self.up.pop_front() else { return };
        let inflight = &mut self.session.inflight;
        let (Up::Ack(id) | Up::Rec(id) | Up::Comp(id)) = packet;
        let row = inflight.row(id).filter(|_| self.durable);
        let done = match packet {
            Up::Ack(id) => inflight.acknowledge(id),
            Up::Comp(id) => inflight.complete(id),
            Up::Rec(id) => inflight.received(id, false),
        };
        match done {
            Acknowledged::Release => {
                if let Some(row) = row {
                    self.disk.ticket += 1;
                    self.disk.rows.insert(row, LoadedRow::Released);
                }
                self.down.push_back(Down::PubRel(id));
            }
            Acknowledged::Done => {
                if let Some(row) = row {
                    self.disk.delete(row);
                }
            }
            Acknowledged::Unknown | Acknowledged::Unexpected => panic!("{packet:?} is {done:?}"),
        }
    }

    fn read(&mut self, limit: usize) {
        if self.durable {
            self.disk.feed(&mut self.backlog, limit);
        }
    }

    fn cut(&mut self) {
        self.connected = false;
        self.down.clear();
        self.up.clear();
        if self.durable {
            let inflight = &mut self.session.inflight;
            let lowest = inflight.lowest_stored();
            self.backlog.park(lowest.map(|lowest| (lowest, inflight.bytes())));
            inflight.park();
        }
    }

    fn connect(&mut self) {
        self.connected = true;
        for resend in self.session.inflight.resend() {
            self.down.push_back(match resend {
                Resend::Publish(id, delivery) => Down::Publish(Some(id), delivery.qos, number(&delivery)),
                Resend::Release(id) => Down::PubRel(id),
            });
        }
    }

    /// Nothing is owed any more, and the client is told so by session present 0.
    fn end(&mut self) {
        let (window, durable) = (self.window, self.durable);
        let old = std::mem::replace(self, World::new(durable, window));
        self.now = old.now;
        self.connected = false;
        self.accepted = old.accepted;
        judge(&old.client.heard, &old.owed, None);
    }

    /// Lets everything arrive, and judges what the client heard.
    fn finish(mut self) {
        if !self.connected {
            self.connect();
        }
        loop {
            let more = self.durable && self.backlog.wants_rows().is_some();
            self.read(3);
            if !self.send() && !more && self.down.is_empty() && self.up.is_empty() {
                break;
            }
            self.client_receives();
            self.broker_receives();
        }
        assert!(self.session.inflight.is_empty(), "an exchange does not end");
        assert!(self.disk.rows.is_empty(), "rows are left: {:?}", self.disk.rows.keys());
        assert!(self.client.unreleased.is_empty());
        judge(&self.client.heard, &self.owed, Some(self.now));
    }
}

/// Judges a session's life: with `complete`, a moment when everything had been given the time to arrive.
fn judge(heard: &[(u64, QoS)], owed: &BTreeMap<u64, (QoS, Option<Millis>)>, complete: Option<Millis>) {
    let mut seen = BTreeSet::new();
    for (number, qos) in heard {
        assert_eq!(owed.get(number).map(|(qos, _)| qos), Some(qos), "{number} was not for this session");
        let newest = seen.last().copied().unwrap_or(0);
        if seen.insert(*number) {
            assert!(*number > newest, "{number} came after {newest}");
        } else {
            assert_eq!(*qos, QoS::AtLeastOnce, "{number} came twice");
        }
    }
    let Some(now) = complete else { return };
    for (number, (qos, expires_at)) in owed {
        let excused = *qos == QoS::AtMostOnce || expires_at.is_some_and(|at| at <= now);
        assert!(excused || seen.contains(number), "{number} of {qos:?} is lost");
    }
}

fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.message.payload).unwrap().parse().unwrap()
}

fn run(durable: bool, window: usize, steps: &[Step]) {
    let mut world = World::new(durable, window);
    for step in steps {
        world.step(step);
    }
    world.finish();
}

proptest! {
    #[test]
    fn a_session_in_memory_delivers_as_its_qos_promises(
        window in 1..6usize, steps in prop::collection::vec(step(), 1..150),
    ) {
        run(false, window, &steps);
    }

    #[test]
    fn a_session_of_the_store_delivers_as_its_qos_promises(
        window in 1..6usize, steps in prop::collection::vec(step(), 1..150),
    ) {
        run(true, window, &steps);
    }
}
