//! The store over a disk that loses power, has no space, fails to sync, or gives back other bytes than it was given.

mod damage;

use super::*;
use crate::config::Durability;
use crate::session::{Delivery, LoadedRow, Message, SessionExpiry, SubscriptionOptions, Will};
use mqtt_codec::{PublishProperties, QoS};
use proptest::prelude::*;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};
use testkit::{Dice, FaultyDisk};

#[derive(Debug, Clone, Default)]
struct TestMedium {
    disk: FaultyDisk,
    seal: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Medium for TestMedium {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.disk.open()))
    }

    fn seal(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.seal.lock().clone())
    }

    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        *self.seal.lock() = seal.map(<[u8]>::to_vec);
        Ok(())
    }

    fn name(&self) -> String {
        "the test's disk".to_owned()
    }
}

const ALWAYS: StoreConfig = StoreConfig {
    durability: Durability::Always,
    sync_interval: Duration::from_millis(50),
    cache_size: 1 << 20,
    retained_cache_size: 1 << 20,
    max_pending_bytes: 1 << 20,
    max_in_flight: 100,
};

/// Everything a database holds, in a form that can be compared.
type Contents = BTreeMap<Key, String>;

fn open(medium: &TestMedium, config: StoreConfig) -> Result<(Arc<Store>, Recovery), StoreError> {
    Store::open(Arc::new(medium.clone()), config, WallClock::default(), Arc::new(Metrics::new()), |_| {})
}

/// Reads the whole database of a medium that no store uses.
fn contents(medium: &TestMedium) -> Result<Contents, Fault> {
    let (disk, ..) = load::load(medium, &ALWAYS, WallClock::default(), |_| {})?;
    let mut contents = Contents::new();
    for table in Table::ALL {
        disk.for_each(table, |key, row| {
            contents.insert(key, shown(&row));
            true
        })?;
    }
    Ok(contents)
}

fn shown(row: &Row) -> String {
    match row {
        Row::Delivery(delivery) => format!("{:?} {:?}", delivery.message.payload, delivery.qos),
        Row::Retained(message) => format!("{:?} {:?}", message.payload, message.qos),
        Row::User(UserRow(text)) => text.to_string(),
        Row::Delayed(delayed) => {
            let DelayedRow { due, from, retain, message } = &**delayed;
            let lifetime = message.properties.message_expiry_interval;
            format!("{due} {from} {retain} {:?} {lifetime:?}", message.payload)
        }
        other => format!("{other:?}"),
    }
}

fn message(payload: String) -> Arc<Message> {
    Arc::new(Message::new("a/b".into(), payload.into(), QoS::AtLeastOnce, PublishProperties::default(), 0))
}

fn delivery(payload: String) -> Row {
    Row::Delivery(Delivery::new(QoS::AtLeastOnce, message(payload)))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn until_durable(store: &Store, ticket: Ticket) {
    until("a ticket to be durable", || store.is_durable(ticket));
}

#[derive(Debug, Clone)]
enum Step {
    Put(Key, u8),
    Delete(Key),
    End(SessionId),
}

fn key() -> impl Strategy<Value = Key> {
    let session = 1..4u64;
    let id = (1..4u16).prop_map(|id| NonZeroU16::new(id).unwrap());
    prop_oneof![
        session.clone().prop_map(Key::Session),
        (session.clone(), "[ab]{1,2}").prop_map(|(id, filter)| Key::Subscription(id, filter.into())),
        (session.clone(), 1..40u64).prop_map(|(id, seq)| Key::Delivery(id, seq)),
        (session, id).prop_map(|(session, id)| Key::Inbound(session, id)),
        "[ab]{1,2}".prop_map(|topic| Key::Retained(topic.into())),
        "[ab]{1,2}".prop_map(|name| Key::Ban(format!("username {name}").into())),
        ("[ab]{1,2}", any::<bool>()).prop_map(|(n, user)| if user { Key::User(n.into()) } else { Key::Acl(n.into()) }),
        (1..40u64).prop_map(Key::Delayed),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => key().prop_map(Step::Delete),
        1 => (1..4u64).prop_map(Step::End),
    ]
}

fn row_for(key: &Key, value: u8) -> Row {
    match key {
        Key::Session(id) => Row::Session(Box::new(SessionRow {
            client_id: format!("client {id}").into(),
            expiry: SessionExpiry::After(u64::from(value) + 1),
            owner: "user a".into(),
            connected: value.is_multiple_of(2),
            ended: value.is_multiple_of(11),
            ends_at: value.is_multiple_of(3).then_some(u64::from(value)),
            will: value.is_multiple_of(5).then(|| {
                let will = Will { message: (*message("will".into())).clone(), retain: true, delay: 7 };
                (Some(u64::from(value)), will)
            }),
            author: value.is_multiple_of(5).then(|| WillAuthor::sample(value)),
            sent_below: u64::from(value),
            next_seq: 9,
            judged: value.is_multiple_of(7),
        })),
        Key::Subscription(..) => Row::Subscription(SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: value & 1 == 1,
            retain_as_published: value & 2 == 2,
            identifier: mqtt_codec::SubscriptionId::new(u32::from(value)),
        }),
        // Some are larger than a page.
        Key::Delivery(..) => delivery(format!("{value}").repeat(1 + usize::from(value) * 10)),
        Key::Inbound(..) => Row::Inbound,
        Key::Retained(_) => Row::Retained(message(format!("{value}"))),
        Key::Ban(_) => Row::Ban(BanRow { until: Some(value.into()), reason: format!("{value}").into() }),
        Key::User(_) => Row::User(UserRow(format!("{value}").into())),
        Key::Acl(_) => Row::Acl(format!("{value}").into()),
        Key::Delayed(_) => {
            let mut delayed = (*message(format!("{value}"))).clone();
            delayed.properties.message_expiry_interval = value.is_multiple_of(2).then_some(value.into());
            let (due, from, retain) = (u64::from(value) + 1, value.into(), value.is_multiple_of(3));
            Row::Delayed(Box::new(DelayedRow { due, from, retain, message: Arc::new(delayed) }))
        }
    }
}

fn apply(contents: &mut Contents, step: &Step) {
    match step {
        Step::Put(key, value) => {
            contents.insert(key.clone(), shown(&row_for(key, *value)));
        }
        Step::Delete(key) => {
            contents.remove(key);
        }
        Step::End(id) => contents.retain(|key, _| key.session() != Some(*id)),
    }
}

/// Numbers of deliveries and of delayed messages are used once: puts of one that exists become another step.
fn once_only(steps: Vec<Vec<Step>>) -> Vec<Vec<Step>> {
    let mut used = std::collections::HashSet::new();
    let mut fresh = |step: &Step| match step {
        Step::Put(key @ (Key::Delivery(..) | Key::Delayed(_)), _) => used.insert(key.clone()),
        _ => true,
    };
    steps.into_iter().map(|batch| batch.into_iter().filter(&mut fresh).collect()).collect()
}

fn submit(store: &Store, batch: &[Step]) -> Ticket {
    if let [Step::End(id)] = batch {
        return store.end_session(*id);
    }
    let mut changes = store.batch();
    for step in batch {
        match step {
            Step::Put(key, value) => changes.put(key.clone(), row_for(key, *value)),
            Step::Delete(key) => changes.delete(key.clone()),
            Step::End(_) => 0,
        };
    }
    changes.ticket()
}

/// The ends of sessions stand alone, since a batch does not end one.
fn batches() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 1..5), 1..60).prop_map(|batches| {
        let mut split = Vec::new();
        for batch in once_only(batches) {
            let (ends, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(|step| matches!(step, Step::End(_)));
            split.extend(ends.into_iter().map(|end| vec![end]));
            split.extend((!others.is_empty()).then_some(others));
        }
        split
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// After a power loss the database holds what some moment after the last durable ticket held, and no batch in part.
    #[test]
    fn a_power_loss_takes_nothing_that_was_durable(
        batches in batches(),
        calls in 0..160u64,
        pauses in any::<u64>(),
        seed in any::<u64>(),
        interval in any::<bool>(),
    ) {
        let medium = TestMedium::default();
        let config = match interval {
            true => StoreConfig { durability: Durability::Interval, sync_interval: Duration::from_millis(2), ..ALWAYS },
            false => ALWAYS,
        };
        let (store, recovery) = open(&medium, config).unwrap();
        prop_assert!(recovery.new && !recovery.clean);
        medium.disk.cut_power_after(calls);
        let mut dice = Dice::new(pauses);
        let mut tickets = vec![0];
        for batch in &batches {
            tickets.push(submit(&store, batch));
            if dice.chance(30) {
                let ticket = *tickets.last().unwrap();
                until("durability or the end", || store.is_durable(ticket) || store.health() == Health::Failed);
            }
        }
        medium.disk.cut_power();
        let durable = store.durable();
        drop(store);
        medium.disk.restart(&mut Dice::new(seed));
        let found = contents(&medium).unwrap();
        let mut expected = Contents::new();
        let mut possible = Vec::new();
        for (index, ticket) in tickets.iter().enumerate() {
            if let Some(batch) = index.checked_sub(1).and_then(|index| batches.get(index)) {
                batch.iter().for_each(|step| apply(&mut expected, step));
            }
            if *ticket >= durable || interval {
                possible.push(expected.clone());
            }
        }
        prop_assert!(possible.contains(&found), "durable {durable} of {tickets:?}: {found:?}");
    }

    #[test]
    fn what_was_closed_in_order_is_there_again(batches in batches()) {
        let medium = TestMedium::default();
        let (store, _) = open(&medium, ALWAYS).unwrap();
        let mut expected = Contents::new();
        for batch in &batches {
            submit(&store, batch);
            batch.iter().for_each(|step| apply(&mut expected, step));
        }
        prop_assert!(store.close());
        drop(store);
        prop_assert!(medium.seal.lock().is_some());
        prop_assert_eq!(contents(&medium).unwrap(), expected);
        prop_assert!(medium.seal.lock().is_none(), "a seal holds for one start");
    }
}

#[test]
fn nothing_is_durable_after_a_failed_sync() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    until_durable(&store, store.put(Key::Delivery(1, 1), delivery("kept".into())));
    store.put(Key::Session(1), row_for(&Key::Session(1), 0));
    until_durable(&store, store.put(Key::Delivery(1, 2), delivery("kept".into())));
    medium.disk.fail_syncs(true);
    let lost = store.put(Key::Delivery(1, 3), delivery("lost".into()));
    until("the failure", || store.health() == Health::Failed);
    medium.disk.fail_syncs(false);
    let later = store.put(Key::Delivery(1, 4), delivery("later".into()));
    assert!(!store.is_durable(lost) && !store.is_durable(later));
    assert!(!store.close());
    drop(store);
    medium.disk.restart(&mut Dice::new(1));
    let found = contents(&medium).unwrap();
    assert!(found.contains_key(&Key::Delivery(1, 2)) && !found.contains_key(&Key::Delivery(1, 4)));
}

#[test]
fn a_failed_write_stops_the_store() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    medium.disk.fail_writes(true);
    let ticket = store.put(Key::Delivery(1, 1), delivery("lost".into()));
    until("the failure", || store.health() == Health::Failed);
    medium.disk.fail_writes(false);
    assert!(!store.is_durable(ticket));
    assert_eq!(store.shared.metrics.store.failures.load(Ordering::Relaxed), 1);
}

fn a_full_disk_stops_writing_until_there_is_space(durability: Durability) {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, StoreConfig { durability, ..ALWAYS }).unwrap();
    store.put(Key::Session(1), row_for(&Key::Session(1), 0));
    until_durable(&store, store.put(Key::Delivery(1, 1), delivery("first".into())));
    medium.disk.limit_space(Some(medium.disk.space_used() + (64 << 10)));
    let large = |n: u64| delivery(format!("{n}").repeat(10_000));
    let (mut ticket, mut n) = (0, 1);
    until("the disk to be full", || {
        n += 1;
        ticket = store.put(Key::Delivery(1, n), large(n));
        let fills = store.is_durable(ticket) || store.health() == Health::Full;
        if !fills {
            until("a commit or a full disk", || store.is_durable(ticket) || store.health() == Health::Full);
        }
        store.health() == Health::Full
    });
    // In interval mode a ticket is good before the sync, which may be what finds the disk full.
    assert!(durability == Durability::Interval || !store.is_durable(ticket));
    // Deletions are taken, and wait.
    let deleted = store.delete(Key::Delivery(1, 1));
    assert!(!store.is_durable(deleted));
    medium.disk.limit_space(None);
    until_durable(&store, deleted);
    until("health", || store.health() == Health::Good);
    assert!(store.close());
    drop(store);
    let found = contents(&medium).unwrap();
    assert!(!found.contains_key(&Key::Delivery(1, 1)));
    for seq in 2..=n {
        assert!(found.contains_key(&Key::Delivery(1, seq)), "{seq} of {n}");
    }
}

#[test]
fn a_full_disk_stops_writing_until_there_is_space_always() {
    a_full_disk_stops_writing_until_there_is_space(Durability::Always);
}

#[test]
fn a_full_disk_stops_writing_until_there_is_space_interval() {
    a_full_disk_stops_writing_until_there_is_space(Durability::Interval);
}

#[test]
fn what_waits_for_space_is_bounded_by_the_keys_that_change() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    until_durable(&store, store.put(Key::Retained("a".into()), Row::Retained(message("old".into()))));
    medium.disk.limit_space(Some(medium.disk.space_used()));
    let large = |n: u64| Row::Retained(message(format!("{n:06}").repeat(10_000)));
    let mut n = 0;
    until("the disk to be full", || {
        n += 1;
        store.put(Key::Retained(format!("{n}").into()), large(n));
        store.health() == Health::Full
    });
    for n in 0..100 {
        store.put(Key::Retained("a".into()), large(n));
        store.put(Key::Delivery(1, n + 1), delivery("gone before it was written".into()));
        store.delete(Key::Delivery(1, n + 1));
    }
    let last = store.put(Key::Retained("a".into()), Row::Retained(message("last".into())));
    let expected = (n as usize + 1) * 61_000;
    until("what waits to become one change for each key", || {
        store.shared.pending_bytes.load(Ordering::Relaxed) < expected
    });
    assert!(!store.is_durable(last));
    assert_eq!(store.health(), Health::Full);
    medium.disk.limit_space(None);
    until_durable(&store, last);
    assert_eq!(store.shared.pending_bytes.load(Ordering::Relaxed), 0);
    assert!(store.close());
    drop(store);
    let found = contents(&medium).unwrap();
    assert_eq!(found.len() as u64, n + 1);
    assert_eq!(found[&Key::Retained("a".into())], shown(&Row::Retained(message("last".into()))));
}

#[test]
fn what_is_deleted_before_it_is_written_costs_no_write() {
    let mut transaction = pending::Transaction::default();
    transaction.add(pending::Op::Put(Key::Delivery(1, 1), delivery("x".into())));
    transaction.add(pending::Op::Put(Key::Delivery(1, 1), Row::Released));
    transaction.add(pending::Op::Delete(Key::Delivery(1, 1)));
    assert!(transaction.is_empty());
    // This one may be on disk.
    transaction.add(pending::Op::Put(Key::Delivery(1, 2), Row::Released));
    transaction.add(pending::Op::Delete(Key::Delivery(1, 2)));
    assert_eq!(transaction.changes.len(), 1);
    transaction.add(pending::Op::EndSession(1));
    assert!(transaction.changes.is_empty() && transaction.ended.contains(&1));
}

#[test]
fn interval_mode_syncs_within_its_interval_and_when_it_is_closed() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, StoreConfig { durability: Durability::Interval, ..ALWAYS }).unwrap();
    let before = medium.disk.syncs();
    until_durable(&store, store.put(Key::Delivery(1, 1), delivery("x".into())));
    until("a sync", || medium.disk.syncs() > before);
    until_durable(&store, store.put(Key::Retained("t".into()), Row::Retained(message("y".into()))));
    assert!(store.close());
    medium.disk.cut_power();
    medium.disk.restart(&mut Dice::new(3));
    assert!(contents(&medium).unwrap().contains_key(&Key::Retained("t".into())));
}

#[test]
fn the_reader_gives_back_rows_in_order_and_within_its_limits() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    let mut ticket = 0;
    for seq in 1..=10 {
        store.put(Key::Delivery(6, seq), delivery("other".into()));
        store.put(Key::Delivery(8, seq), delivery("other".into()));
        ticket = store.put(Key::Delivery(7, seq), delivery(format!("{seq}")));
    }
    store.put(Key::Delivery(7, 4), Row::Released);
    until_durable(&store, store.delete(Key::Delivery(7, 5)));
    let read = |from, rows, bytes| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(store.read_queue(7, from, rows, bytes)).unwrap();
        assert!(read.committed >= ticket);
        let shown = read.rows.into_iter().map(|(seq, row)| match row {
            LoadedRow::Publish(delivery) => format!("{seq} {}", delivery.message.payload.escape_ascii()),
            LoadedRow::Released => format!("{seq} released"),
        });
        (shown.collect::<Vec<_>>().join(", "), read.all)
    };
    assert_eq!(read(2, 4, usize::MAX), ("2 2, 3 3, 4 released, 6 6".into(), false));
    assert_eq!(read(9, 4, usize::MAX), ("9 9, 10 10".into(), true));
    assert_eq!(read(1, 9, 1), ("1 1".into(), false));
    assert_eq!(read(11, 9, 1), (String::new(), true));
}

#[test]
fn orphans_of_sessions_that_are_gone_are_removed_at_start() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    store.put(Key::Subscription(5, "a".into()), row_for(&Key::Subscription(5, "a".into()), 1));
    store.put(Key::Delivery(5, 1), delivery("x".into()));
    assert!(store.close());
    drop(store);
    let (store, recovery) = open(&medium, ALWAYS).unwrap();
    assert_eq!((recovery.sessions, recovery.queued, recovery.subscriptions), (0, 0, 0));
    assert!(store.close());
    drop(store);
    assert_eq!(contents(&medium).unwrap(), Contents::new());
}

#[test]
fn a_directory_belongs_to_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Directory::open(dir.path()).unwrap();
    let error = Directory::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another process") && error.contains(&*dir.path().to_string_lossy()), "{error}");
    drop(first);
    assert!(Directory::open(dir.path()).is_ok());
}
