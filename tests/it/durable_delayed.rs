//! What waits for `$delayed` on a disk that loses power, is full, or holds its syncs.

use shangmq::store::Health;
use testkit::{ConnectExt, PublishExt, ReasonCode, WillExt, connect, puback, publish, pubrec, will};

use crate::broker::Setup;
use crate::durable::until_full;
use crate::stored::{StoredBroker, until};

const DELAYED: &str = "[delayed]\nenable = true\nmax_delayed_messages = 3\n";

async fn broker() -> StoredBroker {
    StoredBroker::start_with(Setup::new().sections(DELAYED)).await
}

#[tokio::test]
async fn puback_waits_until_a_delayed_message_is_on_disk() {
    let broker = broker().await;
    let mut publisher = broker.client("p").await;
    broker.disk().hold_syncs(true);
    publisher.send(publish("$delayed/600/t", 1, "m").id(1)).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(puback(1)).await;
}

#[tokio::test]
async fn a_delayed_message_survives_a_power_loss_and_is_published_once() {
    let mut broker = broker().await;
    let (mut subscriber, _) = broker.persistent("s").await;
    subscriber.subscribe("t", 2).await;
    subscriber.disconnect().await;
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.send(publish("$delayed/1/t", 2, "m").id(7)).await;
    publisher.expect(pubrec(7)).await;
    broker.lose_power(1).await;
    // Its identifier was stored with it.
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.send(publish("$delayed/1/t", 2, "m").id(7).dup()).await;
    publisher.expect(pubrec(7)).await;
    let server = std::sync::Arc::clone(broker.server().broker());
    until("the time of the message", move || server.delayed_count() == 0).await;
    broker.until_quiet().await;
    broker.lose_power(2).await;
    assert_eq!(broker.server().broker().delayed_count(), 0, "it left the store when it was published");
    let (mut subscriber, _) = broker.persistent("s").await;
    subscriber.expect_message("t", "m").await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn what_waits_keeps_its_place_and_its_bound_over_a_restart() {
    let mut broker = broker().await;
    let mut publisher = broker.client("p").await;
    for (delay, qos) in [(600, 1), (500, 2), (400, 0)] {
        publisher.publish(publish(&format!("$delayed/{delay}/t"), qos, "m").retained().expiry(30)).await;
    }
    broker.restart().await;
    assert_eq!(broker.server().broker().delayed_count(), 2, "QoS 0 ends with the process");
    let mut publisher = broker.client("p").await;
    assert_eq!(publisher.publish(publish("$delayed/1/t", 1, "m")).await, ReasonCode::Success);
    assert_eq!(publisher.publish(publish("$delayed/1/t", 1, "m")).await, ReasonCode::QuotaExceeded);
}

/// What was taken is published, also by a broker that takes no more.
#[tokio::test]
async fn a_stored_delayed_message_is_published_where_delayed_publish_was_turned_off() {
    let mut broker = broker().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("$delayed/1/t", 1, "m").retained()).await;
    broker.set_up(Setup::new());
    broker.restart().await;
    let server = std::sync::Arc::clone(broker.server().broker());
    until("the time of the message", move || server.retained_count() == 1).await;
}

#[tokio::test]
async fn a_will_that_is_delayed_by_its_topic_is_stored() {
    let mut broker = broker().await;
    let client = broker.connect(connect("c").will(will("$delayed/600/t", "gone").level(1))).await;
    client.vanish().await;
    let server = std::sync::Arc::clone(broker.server().broker());
    until("the will", move || server.delayed_count() == 1).await;
    broker.until_quiet().await;
    broker.lose_power(3).await;
    assert_eq!(broker.server().broker().delayed_count(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_delayed_messages_that_must_be_stored() {
    let broker = broker().await;
    let (mut subscriber, _) = broker.persistent("s").await;
    subscriber.subscribe("t", 1).await;
    subscriber.disconnect().await;
    let (mut waiting, id) = until_full(&broker).await;
    let mut publisher = broker.client("p").await;
    assert_eq!(publisher.publish(publish("$delayed/600/t", 1, "m")).await, ReasonCode::QuotaExceeded);
    assert_eq!(publisher.publish(publish("$delayed/600/t", 0, "m")).await, ReasonCode::Success);
    broker.disk().limit_space(None);
    waiting.expect(puback(id)).await;
    broker.until_health(Health::Good).await;
    assert_eq!(publisher.publish(publish("$delayed/600/t", 1, "m")).await, ReasonCode::Success);
}
