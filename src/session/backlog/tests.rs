//! The queue against a disk in memory.

use super::super::message::tests::{delivery, expiring};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const LIMITS: QueueLimits =
    QueueLimits { max_messages: 300, max_bytes: 1 << 20, store_qos0: true, slow_wait: 0, priorities: None };

/// Rows as a disk has them.
#[derive(Debug, Default)]
pub(in crate::session) struct Disk {
    pub rows: BTreeMap<u64, LoadedRow>,
    pub ticket: Ticket,
}

impl Rows for Disk {
    fn put(&mut self, seq: u64, delivery: &Delivery) -> Ticket {
        assert!(self.rows.insert(seq, LoadedRow::Publish(delivery.clone())).is_none(), "{seq} is written twice");
        self.ticket += 1;
        self.ticket
    }

    fn delete(&mut self, seq: u64) -> Ticket {
        assert!(self.rows.remove(&seq).is_some(), "{seq} is deleted, but not there");
        self.ticket += 1;
        self.ticket
    }
}

impl Disk {
    /// Reads what the backlog wants, at most `limit` rows.
    pub fn feed(&mut self, backlog: &mut Backlog, limit: usize) {
        let Some(from) = backlog.wants_rows() else { return };
        let mut found: Vec<_> = self.rows.range(from..).take(limit + 1).map(|(seq, row)| (*seq, row.clone())).collect();
        let through = (found.len() <= limit).then(|| backlog.next());
        found.truncate(limit);
        backlog.loaded(found, through, |_| true, self);
    }
}

fn message(payload: u64, qos: QoS) -> Delivery {
    let mut delivery = delivery("t", qos);
    if let Some(message) = std::sync::Arc::get_mut(&mut delivery.message) {
        message.payload = payload.to_string().into();
    }
    delivery
}

fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.message.payload).unwrap().parse().unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8),
    Pop(u8),
    Read(u8),
    Leave,
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3u8, 1..60u8).prop_map(|(qos, times)| Step::Push(qos, times)),
        6 => (1..60u8).prop_map(Step::Pop),
        4 => (1..100u8).prop_map(Step::Read),
        1 => Just(Step::Leave),
        1 => Just(Step::Return),
    ]
}

proptest! {
    /// Whatever is pushed, read and taken in whatever order: messages come out in the order in which they came, none twice, none
    /// lost but those that a full queue dropped, oldest first, and memory stays within its bounds.
    #[test]
    fn gives_out_what_came_in_its_order(steps in prop::collection::vec(step(), 1..80)) {
        let mut backlog = Backlog::new();
        let mut disk = Disk::default();
        let mut model = VecDeque::new();
        let mut next = 0;
        let mut away = false;
        for step in steps {
            match step {
                Step::Push(qos, times) => {
                    for _ in 0..times {
                        next += 1;
                        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
                        match backlog.push(message(next, qos), away, &LIMITS, &mut disk) {
                            Push::Queued => {}
                            Push::Evicted { plain, acknowledged } => {
                                model.drain(..plain + acknowledged);
                            }
                            Push::DroppedFull => {
                                prop_assert_eq!(qos, QoS::AtMostOnce);
                                continue;
                            }
                            Push::DroppedAway | Push::Ended => prop_assert!(false, "QoS 0 is kept"),
                        }
                        model.push_back(next);
                    }
                }
                Step::Pop(times) if !away => {
                    for _ in 0..times {
                        match backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk) {
                            Ok(delivery) => {
                                prop_assert_eq!(Some(number(&delivery)), model.pop_front());
                                if delivery.is_stored() {
                                    // Acknowledged at once.
                                    disk.delete(delivery.stored.seq);
                                }
                            }
                            Err(Held::Empty) => {
                                prop_assert!(model.is_empty(), "{} are left", model.len());
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                }
                Step::Read(limit) if !away => disk.feed(&mut backlog, usize::from(limit)),
                Step::Leave => {
                    away = true;
                    backlog.park(None);
                }
                Step::Return => away = false,
                Step::Pop(_) | Step::Read(_) => {}
            }
            prop_assert!(backlog.len() <= LIMITS.max_messages);
            prop_assert_eq!(backlog.len(), model.len());
            prop_assert!(backlog.stored.len() <= IN_MEMORY_MESSAGES + READ_BELOW);
            if away {
                prop_assert!(backlog.stored.is_empty());
            }
        }
    }
}

/// With a megabyte of QoS 0 behind it, a row that was only on disk was never read, and nothing was sent any more.
#[test]
fn a_row_is_read_however_much_of_qos_0_waits_behind_it() {
    let limits = QueueLimits { max_bytes: 8 << 20, max_messages: 1000, ..LIMITS };
    let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
    backlog.push(message(1, QoS::AtLeastOnce), true, &limits, &mut disk);
    let mut large = message(2, QoS::AtMostOnce);
    std::sync::Arc::get_mut(&mut large.message).unwrap().payload = vec![0; IN_MEMORY_BYTES].into();
    backlog.push(large, false, &limits, &mut disk);
    let pop = |backlog: &mut Backlog, disk: &mut Disk| {
        backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, disk).map(|delivery| delivery.qos)
    };
    assert_eq!(pop(&mut backlog, &mut disk), Err(Held::Read));
    disk.feed(&mut backlog, 10);
    assert_eq!(pop(&mut backlog, &mut disk), Ok(QoS::AtLeastOnce));
    assert_eq!(pop(&mut backlog, &mut disk), Ok(QoS::AtMostOnce));
}

#[test]
fn what_was_sent_is_not_evicted_and_comes_again_marked() {
    let limits = QueueLimits { max_messages: 2, ..LIMITS };
    let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
    backlog.push(message(1, QoS::ExactlyOnce), false, &limits, &mut disk);
    let sent = backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk).unwrap();
    backlog.park(Some((sent.stored.seq, sent.cost())));
    for n in 2..=5 {
        backlog.push(message(n, QoS::AtLeastOnce), true, &limits, &mut disk);
    }
    assert_eq!(disk.rows.keys().copied().collect::<Vec<_>>(), [1, 4, 5]);
    disk.feed(&mut backlog, 10);
    let mut got = Vec::new();
    while let Ok(delivery) = backlog.pop(true, u64::MAX, Ticket::MAX, 0, &mut 0, &mut disk) {
        got.push((number(&delivery), delivery.stored.again));
    }
    assert_eq!(got, [(1, true), (4, false), (5, false)]);
}

#[test]
fn qos_2_waits_for_its_row_and_holds_what_follows() {
    let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
    backlog.push(message(1, QoS::AtLeastOnce), false, &LIMITS, &mut disk);
    backlog.push(message(2, QoS::ExactlyOnce), false, &LIMITS, &mut disk);
    backlog.push(message(3, QoS::AtLeastOnce), false, &LIMITS, &mut disk);
    let mut pop = |durable| backlog.pop(true, u64::MAX, durable, 0, &mut 0, &mut disk).map(|d| number(&d));
    assert_eq!(pop(0), Ok(1));
    assert_eq!(pop(1), Err(Held::Ticket(2)));
    assert_eq!(pop(2), Ok(2));
    assert_eq!(pop(2), Ok(3));
    assert_eq!(pop(2), Err(Held::Empty));
}

#[test]
fn an_expired_message_leaves_the_disk_when_its_turn_comes() {
    let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
    backlog.push(expiring("t", 100), false, &LIMITS, &mut disk);
    let mut expired = 0;
    assert!(backlog.pop(true, u64::MAX, Ticket::MAX, 100, &mut expired, &mut disk).is_err());
    assert_eq!((expired, disk.rows.len()), (1, 0));
}

#[test]
fn judged_rows_are_dropped_when_they_are_read() {
    let (mut backlog, mut disk) = (Backlog::new(), Disk::default());
    for n in 1..=3 {
        backlog.push(message(n, QoS::AtLeastOnce), true, &LIMITS, &mut disk);
    }
    assert_eq!(backlog.retain(|_| false, &mut disk), 0, "nothing is in memory");
    let read = disk.rows.iter().map(|(seq, row)| (*seq, row.clone())).collect();
    assert_eq!(backlog.loaded(read, Some(4), |d| number(d) == 2, &mut disk), 2);
    assert_eq!(disk.rows.keys().copied().collect::<Vec<_>>(), [2]);
}
