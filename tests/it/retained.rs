//! Retained messages: set, replaced, cleared, and sent to whom the subscription's options say.

use std::time::Duration;

use testkit::{
    ConnectExt, ProtocolVersion, PublishExt, QoS, ReasonCode, RetainHandling, SubscribeExt, connect, in_both_versions,
    publish, pubrec, subscribe,
};

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

in_both_versions!(the_last_retained_message_goes_to_new_subscriptions, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "first").retained()).await;
    publisher.publish(publish("t", 1, "second").retained()).await;
    publisher.publish(publish("t", 1, "passing")).await;
    let mut subscriber = broker.client_of(version, "s").await;
    subscriber.subscribe("t", 2).await;
    // [MQTT-3.3.1-5] [MQTT-3.3.1-8]
    let got = subscriber.expect_message("t", "second").await;
    assert!(got.retain);
    assert_eq!(got.qos, QoS::AtLeastOnce);
    subscriber.expect_nothing().await;

    // To a subscription that is there already it is a message like any other, [MQTT-3.3.1-12].
    publisher.publish(publish("t", 1, "third").retained()).await;
    assert!(!subscriber.expect_message("t", "third").await.retain);

    // Subscribing again brings it again, [MQTT-3.8.4-3].
    subscriber.subscribe("t", 0).await;
    let again = subscriber.expect_message("t", "third").await;
    assert!(again.retain);
    assert_eq!(again.qos, QoS::AtMostOnce);
    subscriber.expect_nothing().await;
});

in_both_versions!(an_empty_payload_clears_and_is_delivered, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 0, "kept").retained()).await;
    publisher.ping().await;
    assert_eq!(broker.server.broker().retained_count(), 1);
    let mut subscriber = broker.client_of(version, "s").await;
    subscriber.subscribe("t", 0).await;
    subscriber.expect_message("t", "kept").await;
    // [MQTT-3.3.1-6] [MQTT-3.3.1-7]
    publisher.publish(publish("t", 0, "").retained()).await;
    assert!(!subscriber.expect_message("t", "").await.retain);
    assert_eq!(broker.server.broker().retained_count(), 0);
    subscriber.subscribe("t", 0).await;
    subscriber.expect_nothing().await;
});

in_both_versions!(retained_messages_match_wildcards_but_not_dollar_topics, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    for topic in ["a/b", "a/c", "a", "b/c", "$x/b"] {
        publisher.publish(publish(topic, 1, topic).retained()).await;
    }
    for (filter, expected) in [
        ("#", vec!["a", "a/b", "a/c", "b/c"]),
        ("a/#", vec!["a", "a/b", "a/c"]),
        ("+/c", vec!["a/c", "b/c"]),
        ("$x/+", vec!["$x/b"]),
    ] {
        let mut subscriber = broker.client_of(version, "s").await;
        subscriber.subscribe(filter, 1).await;
        let mut topics = Vec::new();
        for _ in &expected {
            let message = subscriber.recv_publish().await;
            subscriber.acknowledge(&message).await;
            topics.push(message.topic.to_string());
        }
        topics.sort();
        assert_eq!(topics, expected, "of {filter}");
        subscriber.expect_nothing().await;
        subscriber.disconnect().await;
    }
});

in_both_versions!(more_retained_messages_than_one_batch_all_arrive, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 0..500 {
        publisher.publish(publish(&format!("t/{n}"), 1, "m").retained()).await;
    }
    let mut subscriber = broker.client_of(version, "s").await;
    subscriber.subscribe("t/+", 1).await;
    let mut topics = std::collections::HashSet::new();
    for _ in 0..500 {
        let message = subscriber.recv_publish().await;
        subscriber.acknowledge(&message).await;
        assert!(message.retain);
        topics.insert(message.topic);
    }
    assert_eq!(topics.len(), 500);
    subscriber.expect_nothing().await;
});

#[tokio::test]
async fn retain_handling_decides_who_gets_them() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 1, "kept").retained()).await;
    let mut client = broker.client("c").await;
    let with = |handling| subscribe(1, &[("t", 0)]).retain_handling(handling);
    // [MQTT-3.3.1-11]
    client.subscribe_with(with(RetainHandling::DoNotSend)).await;
    client.expect_nothing().await;
    // [MQTT-3.3.1-10]: the subscription exists.
    client.subscribe_with(with(RetainHandling::SendIfNew)).await;
    client.expect_nothing().await;
    // [MQTT-3.3.1-9]
    client.subscribe_with(with(RetainHandling::SendAtSubscribe)).await;
    client.expect_message("t", "kept").await;
    client.unsubscribe("t").await;
    client.subscribe_with(with(RetainHandling::SendIfNew)).await;
    client.expect_message("t", "kept").await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let broker = TestBroker::start().await;
    let mut keeping = broker.client("k").await;
    keeping.subscribe_with(subscribe(1, &[("t", 0)]).retain_as_published()).await;
    let mut clearing = broker.client("c").await;
    clearing.subscribe("t", 0).await;
    let mut publisher = broker.client("p").await;
    for retain in [true, false] {
        let mut message = publish("t", 0, "m");
        message.retain = retain;
        publisher.publish(message).await;
        // [MQTT-3.3.1-13] [MQTT-3.3.1-12]
        assert_eq!(keeping.expect_message("t", "m").await.retain, retain);
        assert!(!clearing.expect_message("t", "m").await.retain);
    }
}

#[tokio::test]
async fn shared_subscriptions_bring_no_retained_messages() {
    let broker = TestBroker::start().await;
    broker.client("p").await.publish(publish("t", 1, "kept").retained()).await;
    let mut client = broker.client("c").await;
    client.subscribe("$share/g/t", 1).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_retained_message_carries_the_identifier_of_the_subscription_that_brought_it() {
    let broker = TestBroker::start().await;
    broker.client("p").await.publish(publish("t", 1, "kept").retained()).await;
    let mut client = broker.client("c").await;
    client.subscribe_with(subscribe(1, &[("t", 1)]).identifier(42)).await;
    client.expect(publish("t", 1, "kept").retained().subscription_ids(&[42])).await;
}

#[tokio::test]
async fn a_full_store_refuses_new_topics_and_still_replaces_and_clears() {
    let broker =
        Setup::new().retainer("max_retained_messages = 1").retainer("max_payload_size = \"10B\"").start().await;
    let mut client = broker.client("c").await;
    let none = ReasonCode::NoMatchingSubscribers;
    assert_eq!(client.publish(publish("a", 1, "1").retained()).await, none);
    for level in [1, 2] {
        assert_eq!(client.publish(publish("b", level, "1").retained()).await, ReasonCode::QuotaExceeded);
        assert_eq!(client.publish(publish("a", level, "longer than 10").retained()).await, ReasonCode::QuotaExceeded);
    }
    assert_eq!(client.publish(publish("a", 1, "2").retained()).await, none);
    assert_eq!(client.publish(publish("a", 1, "").retained()).await, none);
    assert_eq!(client.publish(publish("b", 1, "1").retained()).await, none);
    // MQTT 3 cannot be told, so the message is delivered and only not kept.
    let mut reader = broker.client("r").await;
    reader.subscribe("c", 0).await;
    let mut old = broker.client_of(ProtocolVersion::V3_1_1, "o").await;
    assert_eq!(old.publish(publish("c", 1, "live").retained()).await, ReasonCode::Success);
    reader.expect_message("c", "live").await;
    // It was delivered, so its repetition is not.
    for message in [publish("c", 2, "once"), publish("c", 2, "once").dup()] {
        old.send(message.retained().id(9)).await;
        old.expect(pubrec(9)).await;
    }
    reader.expect_message("c", "once").await;
    reader.expect_nothing().await;
    assert_eq!(broker.server.broker().retained_count(), 1);
}

in_both_versions!(a_retained_publish_is_refused_where_retaining_is_off, |version| async move {
    let broker = Setup::new().mqtt("retain_available = false").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(publish("t", 0, "m").retained()).await;
    // [MQTT-3.2.2-14]
    client.expect_disconnect(ReasonCode::RetainNotSupported).await;
});

#[tokio::test(start_paused = true)]
async fn a_retained_message_expires() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut publisher = broker.connect(connect("p")).await;
    publisher.publish(publish("t", 1, "soon gone").retained().expiry(10)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut subscriber = broker.connect(connect("s").v5()).await;
    subscriber.subscribe("t", 1).await;
    // [MQTT-3.3.2-6]
    let got = subscriber.expect_message("t", "soon gone").await;
    assert_eq!(got.properties.message_expiry_interval, Some(6));
    tokio::time::sleep(Duration::from_secs(6)).await;
    subscriber.subscribe("t", 1).await;
    subscriber.expect_nothing().await;
    // What nobody asks for goes away too.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(broker.broker().retained_count(), 0);
}
