//! What ended members of shared subscriptions leave on disk.

use shangmq::store::{Key, Row, Store};
use testkit::{PublishExt, QoS, connect, publish};

use crate::access::{with_rules, write_acl};
use crate::stored::{StoredBroker, until};

/// More than is read at once.
const MESSAGES: usize = 300;

/// `first` is away, and everything that was published since waits for it on disk.
async fn absent_member(broker: &StoredBroker, qos: u8) {
    let (mut first, _) = broker.persistent("first").await;
    first.subscribe("$share/g/t", 2).await;
    first.disconnect().await;
    let mut publisher = broker.client("p").await;
    for n in 0..MESSAGES {
        publisher.publish(publish("t", qos, format!("{n}"))).await;
    }
}

async fn until_no_rows(broker: &StoredBroker) {
    let metrics = std::sync::Arc::clone(broker.server().metrics());
    let line = "shangmq_store_rows{table=\"deliveries\"} 0";
    until("the rows to be gone", move || metrics.encode(Default::default()).lines().any(|found| found == line)).await;
}

#[tokio::test]
async fn what_is_only_on_disk_for_an_ended_member_goes_to_another() {
    let broker = StoredBroker::start().await;
    absent_member(&broker, 1).await;
    let (mut second, _) = broker.persistent("second").await;
    second.subscribe("$share/g/t", 1).await;
    broker.client("first").await;
    for n in 0..MESSAGES {
        second.expect_message("t", format!("{n}")).await;
    }
    second.expect_nothing().await;
    until_no_rows(&broker).await;
}

#[tokio::test]
async fn a_power_loss_on_the_way_to_another_member_neither_loses_nor_doubles() {
    let mut broker = StoredBroker::start().await;
    absent_member(&broker, 2).await;
    // After a restart as well: the rows say by which subscription they came.
    broker.restart().await;
    let (mut second, _) = broker.persistent("second").await;
    second.subscribe("$share/g/t", 2).await;
    second.disconnect().await;
    broker.client("first").await;
    broker.lose_power(4).await;
    let (mut second, _) = broker.persistent("second").await;
    for n in 0..MESSAGES {
        second.expect_message("t", format!("{n}")).await;
    }
    second.expect_nothing().await;
    until_no_rows(&broker).await;
    broker.lose_power(5).await;
    let (mut second, present) = broker.persistent("second").await;
    assert!(present);
    second.expect_nothing().await;
    let (_, present) = broker.persistent("first").await;
    assert!(!present, "an ended session does not come back");
}

#[tokio::test]
async fn what_is_only_on_disk_goes_to_another_member_when_the_right_to_it_is_withdrawn() {
    let setup = with_rules("allow all all #");
    let dir = setup.dir().to_owned();
    let mut broker = StoredBroker::start_with(setup).await;
    absent_member(&broker, 1).await;
    let (mut second, _) = broker.persistent("second").await;
    second.subscribe("$share/g/t", 1).await;
    second.disconnect().await;
    write_acl(&dir, "allow second all t\nallow p all t");
    broker.restart().await;
    let (mut second, _) = broker.persistent("second").await;
    let (mut first, _) = broker.persistent("first").await;
    for n in 0..MESSAGES {
        second.expect_message("t", format!("{n}")).await;
    }
    second.expect_nothing().await;
    first.expect_nothing().await;
    until_no_rows(&broker).await;
}

#[tokio::test]
async fn a_stored_message_that_was_sent_with_qos_2_goes_to_nobody_else() {
    let broker = StoredBroker::start().await;
    let (mut first, _) = broker.persistent("first").await;
    first.subscribe("$share/g/t", 2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 2, "two")).await;
    publisher.publish(publish("t", 1, "one")).await;
    first.expect(publish("t", 2, "two").id(1)).await;
    first.expect(publish("t", 1, "one").id(2)).await;
    let mut second = broker.client("second").await;
    second.subscribe("$share/g/t", 2).await;
    first.vanish().await;
    // [MQTT-4.8.2-4]
    second.expect_nothing().await;
    broker.connect(connect("first")).await;
    assert_eq!(second.expect_message("t", "one").await.qos, QoS::AtLeastOnce);
    // [MQTT-4.8.2-5]
    second.expect_nothing().await;
    until_no_rows(&broker).await;
}

/// The session whose rows are stored, and their numbers.
async fn stored_rows(store: &Store) -> (u64, Vec<u64>) {
    for id in 0..100 {
        let read = store.read_queue(id, 0, MESSAGES, usize::MAX).await.unwrap();
        if !read.rows.is_empty() {
            return (id, read.rows.into_iter().map(|(seq, _)| seq).collect());
        }
    }
    panic!("no rows");
}

// Reading stopped at the first row that was damaged, and what stood behind it went to nobody.
#[tokio::test]
async fn a_damaged_row_of_an_ended_member_keeps_nobody_from_the_others() {
    let broker = StoredBroker::start().await;
    absent_member(&broker, 1).await;
    let store = std::sync::Arc::clone(broker.server().broker().store().unwrap());
    broker.until_quiet().await;
    let (id, rows) = stored_rows(&store).await;
    assert_eq!(rows.len(), MESSAGES);
    // The first, one between, and the last: bytes that are no message.
    for at in [0, 150, MESSAGES - 1] {
        store.put(Key::Delivery(id, rows[at]), Row::Inbound);
    }
    broker.until_quiet().await;
    let (mut second, _) = broker.persistent("second").await;
    second.subscribe("$share/g/t", 1).await;
    broker.client("first").await;
    for n in (0..MESSAGES).filter(|n| ![0, 150, MESSAGES - 1].contains(n)) {
        second.expect_message("t", format!("{n}")).await;
    }
    second.expect_nothing().await;
    until_no_rows(&broker).await;
    let line = "shangmq_messages_dropped_total{reason=\"session_ended\"} 3";
    assert!(broker.server().metrics().encode(Default::default()).lines().any(|found| found == line));
}
