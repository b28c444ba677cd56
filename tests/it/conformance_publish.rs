//! Requirements of sections 3.3 to 3.7: PUBLISH, its properties, and its acknowledgements.

use std::time::Duration;

use bytes::Bytes;
use mqtt_codec::PayloadFormat;
use testkit::{
    AckExt, ConnectExt, Packet, ProtocolVersion, PublishExt, QoS, ReasonCode, RetainHandling, SubscribeExt, connect,
    in_both_versions, puback, pubcomp, publish, pubrec, pubrel, subscribe,
};

use crate::broker::{Setup, TestBroker};
use crate::raw::{ends, field, packet, properties};
use crate::simulated::SimulatedBroker;

in_both_versions!(dup_says_whether_the_broker_sends_again, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    // [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT3-3.3.1-3]: the publisher's DUP goes no further.
    publisher.send(publish("t", 1, "1").id(1).dup()).await;
    publisher.send(publish("t", 2, "2").id(2).dup()).await;
    client.expect(publish("t", 1, "1").id(1)).await;
    client.expect(publish("t", 2, "2").id(2)).await;
    client.vanish().await;
    // [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT3-3.3.1-1] [MQTT3-4.4.0-1]
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect(publish("t", 1, "1").id(1).dup()).await;
    client.expect(publish("t", 2, "2").id(2).dup()).await;
});

in_both_versions!(a_retained_message_replaces_the_one_before_it, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    for (number, level) in [(1, 2), (2, 0), (3, 1)] {
        publisher.publish(publish("t", level, format!("{number}")).retained()).await;
        let mut client = broker.client_of(version, "c").await;
        client.subscribe("t", 2).await;
        // With its own QoS. [MQTT-3.3.1-5] [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-7] [MQTT3-3.3.1-8]
        let got = client.expect_message("t", format!("{number}")).await;
        assert_eq!((u8::from(got.qos), got.retain), (level, true));
        client.expect_nothing().await;
    }
    // [MQTT-3.3.1-8] [MQTT3-3.3.1-12]
    publisher.publish(publish("t", 1, "passing")).await;
    publisher.publish(publish("t", 1, "")).await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 0).await;
    client.expect_message("t", "3").await;
    // Delivered, without RETAIN to an older subscription, and gone.
    // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT3-3.3.1-9] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
    publisher.publish(publish("t", 1, "").retained()).await;
    assert!(!client.expect_message("t", "").await.retain);
    let mut late = broker.client_of(version, "late").await;
    late.subscribe("t", 0).await;
    late.expect_nothing().await;
});

#[tokio::test]
async fn retain_handling_and_retain_as_published_are_obeyed() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 1, "kept").retained()).await;
    let mut client = broker.client("c").await;
    let wish = |handling| subscribe(1, &[("t", 0)]).retain_handling(handling);
    // [MQTT-3.3.1-11]
    client.subscribe_with(wish(RetainHandling::DoNotSend)).await;
    client.expect_nothing().await;
    // [MQTT-3.3.1-10]: the subscription is there already.
    client.subscribe_with(wish(RetainHandling::SendIfNew)).await;
    client.expect_nothing().await;
    client.unsubscribe("t").await;
    client.subscribe_with(wish(RetainHandling::SendIfNew)).await;
    client.expect_message("t", "kept").await;
    // [MQTT-3.3.1-9]
    client.subscribe_with(wish(RetainHandling::SendAtSubscribe)).await;
    client.expect_message("t", "kept").await;
    // [MQTT-3.3.1-12]
    publisher.publish(publish("t", 1, "new").retained()).await;
    assert!(!client.expect_message("t", "new").await.retain);
    // [MQTT-3.3.1-13]
    client.subscribe_with(wish(RetainHandling::DoNotSend).retain_as_published()).await;
    publisher.publish(publish("t", 1, "new").retained()).await;
    assert!(client.expect_message("t", "new").await.retain);
    publisher.publish(publish("t", 1, "passing")).await;
    assert!(!client.expect_message("t", "passing").await.retain);
}

in_both_versions!(a_topic_name_has_no_wildcard, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    for topic in [&b"a/#"[..], b"+", b"a/+/b", b"#"] {
        let bytes = packet(0x30, &[&field(topic), &properties(version, &[]), b"m"]);
        // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
        ends(&broker, version, &bytes, ReasonCode::TopicNameInvalid).await;
    }
    // [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
    let bytes = packet(0x30, &[&field(b""), &properties(version, &[]), b"m"]);
    let reason = if version.is_v5() { ReasonCode::ProtocolError } else { ReasonCode::TopicNameInvalid };
    ends(&broker, version, &bytes, reason).await;
});

in_both_versions!(a_subscriber_gets_what_its_filter_matches_and_nothing_else, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("a/+/c", 0).await;
    let mut publisher = broker.client_of(version, "p").await;
    for topic in ["a/b/c", "a/b", "a/b/c/d", "a//c", "A/b/c", "a/b/c/"] {
        publisher.publish(publish(topic, 1, topic)).await;
    }
    // [MQTT-3.3.2-3] [MQTT-4.7.3-4] [MQTT3-3.3.2-3] [MQTT3-4.7.3-4]
    client.expect_message("a/b/c", "a/b/c").await;
    client.expect_message("a//c", "a//c").await;
    client.expect_nothing().await;
});

#[tokio::test]
async fn the_properties_of_a_message_reach_every_subscriber_as_they_came() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client("p").await;
    for level in 0..3 {
        let mut clients = Vec::new();
        for n in 0..2 {
            let mut client = broker.client(&format!("c{n}")).await;
            client.subscribe("t", 2).await;
            clients.push(client);
        }
        let mut message = publish("t", level, "text");
        let p = &mut message.properties;
        p.payload_format = Some(PayloadFormat::Utf8);
        p.response_topic = Some("reply/to".into());
        p.correlation_data = Some(Bytes::from_static(b"\0\xff1"));
        p.content_type = Some("text/plain; charset=\u{4e2d}".into());
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "1"), ("", "")] {
            p.user_properties.push(name, value);
        }
        publisher.publish(message.clone()).await;
        for client in &mut clients {
            // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
            assert_eq!(client.expect_message("t", "text").await.properties, message.properties);
        }
    }
}

#[tokio::test]
async fn a_response_topic_has_no_wildcard() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    for topic in [&b"a/#"[..], b"+"] {
        let props = [&[0x08][..], &field(topic)].concat();
        let bytes = packet(0x30, &[&field(b"t"), &properties(v5, &props), b"m"]);
        // [MQTT-3.3.2-14]
        ends(&broker, v5, &bytes, ReasonCode::TopicNameInvalid).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_message_is_dropped_and_the_age_of_another_told() {
    let broker = SimulatedBroker::start(Setup::new());
    let persistent = || connect("c").resume().expiry(u32::MAX);
    let mut client = broker.connect(persistent()).await;
    client.subscribe("t", 2).await;
    client.vanish().await;
    let mut publisher = broker.connect(connect("p")).await;
    publisher.publish(publish("t", 1, "short").expiry(10)).await;
    publisher.publish(publish("t", 1, "long").expiry(100)).await;
    publisher.publish(publish("t", 1, "longest").expiry(u32::MAX)).await;
    publisher.publish(publish("t", 1, "endless")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut client = broker.connect(persistent()).await;
    // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    for (payload, left) in [("long", Some(70)), ("longest", Some(u32::MAX - 30)), ("endless", None)] {
        let got = client.expect_message("t", payload).await;
        assert_eq!(got.properties.message_expiry_interval, left);
    }
    client.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_sent_does_not_expire_any_more() {
    let broker = SimulatedBroker::start(Setup::new());
    let persistent = || connect("c").resume().expiry(600);
    let mut client = broker.connect(persistent()).await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.connect(connect("p")).await;
    publisher.publish(publish("t", 2, "m").expiry(10)).await;
    assert_eq!(client.recv_publish().await.payload, "m");
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.vanish().await;
    // [MQTT-4.3.3-7] [MQTT-4.3.3-13]
    let mut client = broker.connect(persistent()).await;
    let got = client.recv_publish().await;
    assert_eq!((&*got.payload, got.dup, got.packet_id.unwrap().get()), (&b"m"[..], true, 1));
    client.acknowledge(&got).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn aliases_from_a_client_work_up_to_the_maximum_and_not_beyond() {
    let broker = Setup::new().mqtt("max_topic_alias = 5").start().await;
    let mut subscriber = broker.client("s").await;
    subscriber.subscribe("#", 0).await;
    let mut client = broker.raw().await;
    assert_eq!(client.connect(connect("c")).await.properties.topic_alias_maximum, Some(5));
    // [MQTT-3.3.2-12]
    for alias in 1..=5 {
        client.send(publish(&format!("t/{alias}"), 0, "m").alias(alias)).await;
    }
    for alias in 1..=5 {
        client.send(publish("", 0, "again").alias(alias)).await;
    }
    for payload in ["m", "again"] {
        for alias in 1..=5 {
            subscriber.expect_message(&format!("t/{alias}"), payload).await;
        }
    }
    client.vanish().await;
    let v5 = ProtocolVersion::V5;
    // [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17]
    let with_alias = |topic: &[u8], alias: u8| packet(0x30, &[&field(topic), &[3, 0x23, 0, alias], b"m"]);
    ends(&broker, v5, &with_alias(b"", 1), ReasonCode::ProtocolError).await;
    ends(&broker, v5, &with_alias(b"t", 0), ReasonCode::ProtocolError).await;
    ends(&broker, v5, &with_alias(b"t", 6), ReasonCode::TopicAliasInvalid).await;
    // [MQTT-3.2.2-18]: where there is none, CONNACK says nothing.
    let broker = Setup::new().mqtt("max_topic_alias = 0").start().await;
    assert_eq!(broker.raw().await.connect(connect("c")).await.properties.topic_alias_maximum, None);
    ends(&broker, v5, &with_alias(b"t", 1), ReasonCode::TopicAliasInvalid).await;
}

#[tokio::test]
async fn aliases_towards_a_client_stay_within_its_maximum() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").topic_alias_maximum(3)).await;
    client.subscribe("#", 0).await;
    let mut publisher = broker.client("p").await;
    for n in 0..20 {
        publisher.publish(publish(&format!("topic/{}", n % 7), 0, "m")).await;
        let got = client.recv_publish().await;
        // [MQTT-3.3.2-8] [MQTT-3.3.2-11] [MQTT-3.1.2-26]
        assert!(got.properties.topic_alias.is_none_or(|alias| (1..=3).contains(&alias.get())));
    }
}

in_both_versions!(a_publish_is_answered_as_its_qos_asks, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("other", 0).await;
    let reason = if version.is_v5() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
    // [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.7.2-1]
    // [MQTT3-3.3.4-1] [MQTT3-4.3.2-2] [MQTT3-4.3.3-2]
    client.send(publish("t", 0, "m")).await;
    client.send(publish("t", 1, "m").id(5)).await;
    client.expect(puback(5).reason(reason)).await;
    client.send(publish("t", 2, "m").id(6)).await;
    client.expect(pubrec(6).reason(reason)).await;
    client.send(pubrel(6)).await;
    client.expect(pubcomp(6)).await;
    client.expect_nothing().await;
});

#[tokio::test]
async fn a_message_carries_the_identifiers_of_all_its_subscriptions() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    for (filter, level, id) in [("a/b", 0, 1), ("a/+", 2, 268_435_455), ("#", 1, 7), ("none", 2, 9)] {
        client.subscribe_with(subscribe(1, &[(filter, level)]).identifier(id)).await;
    }
    client.subscribe("+/b", 0).await;
    client.publish(publish("a/b", 2, "m")).await;
    let got = client.expect_message("a/b", "m").await;
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    assert_eq!(got.qos, QoS::ExactlyOnce);
    let mut ids: Vec<u32> = got.properties.subscription_ids.iter().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 7, 268_435_455]);
    client.expect_nothing().await;
    // [MQTT-3.3.4-6]
    let v5 = ProtocolVersion::V5;
    let bytes = packet(0x30, &[&field(b"t"), &properties(v5, &[0x0b, 1]), b"m"]);
    ends(&broker, v5, &bytes, ReasonCode::ProtocolError).await;
}

in_both_versions!(of_overlapping_subscriptions_the_highest_qos_counts, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("a/+", 0).await;
    client.subscribe("a/b", 2).await;
    client.subscribe("#", 1).await;
    client.publish(publish("a/b", 2, "m")).await;
    // [MQTT-3.3.4-2] [MQTT3-3.3.5-1]
    assert_eq!(client.expect_message("a/b", "m").await.qos, QoS::ExactlyOnce);
    client.expect_nothing().await;
});

in_both_versions!(a_full_window_holds_nothing_up_but_messages, |version| async move {
    let broker = Setup::new().mqtt("max_inflight = 2").start().await;
    let mut client = broker.connect(connect("c").version(version).receive_maximum(2)).await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 1..=4 {
        publisher.publish(publish("t", 2, format!("{n}"))).await;
    }
    // [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
    client.expect(publish("t", 2, "1").id(1)).await;
    client.expect(publish("t", 2, "2").id(2)).await;
    // [MQTT-3.3.4-10] [MQTT-4.9.0-3]: SUBACK, PUBREC, PUBREL, PUBCOMP and PINGRESP still come.
    client.subscribe("other", 0).await;
    client.send(publish("elsewhere", 2, "m").id(9)).await;
    assert!(matches!(client.recv().await, Packet::PubRec(_)));
    client.send(pubrel(9)).await;
    client.expect(pubcomp(9)).await;
    client.send(pubrec(1)).await;
    client.expect(pubrel(1)).await;
    client.expect_nothing().await;
    client.send(pubcomp(1)).await;
    client.expect(publish("t", 2, "3").id(3)).await;
    client.expect_nothing().await;
});

#[tokio::test]
async fn more_unreleased_messages_than_the_receive_maximum_end_the_connection() {
    let broker = Setup::new().mqtt("max_awaiting_rel = 3").start().await;
    let mut client = broker.raw().await;
    assert_eq!(client.connect(connect("c")).await.properties.receive_maximum.unwrap().get(), 3);
    for id in 1..=3 {
        client.send(publish("t", 2, "m").id(id)).await;
        client.expect(pubrec(id).reason(ReasonCode::NoMatchingSubscribers)).await;
    }
    // [MQTT-3.3.4-7] [MQTT-3.3.4-8]: a repetition and other packets are not one too many.
    client.send(publish("t", 2, "m").id(3).dup()).await;
    client.expect(pubrec(3)).await;
    client.ping().await;
    client.send(publish("t", 2, "m").id(4)).await;
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
}

#[tokio::test]
async fn acknowledgements_with_codes_that_are_not_theirs_are_malformed() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
    for (first, code) in [(0x40, 0x92), (0x40, 0x01), (0x50, 0x92), (0x62, 0x10), (0x62, 0x91), (0x70, 0x87)] {
        ends(&broker, v5, &packet(first, &[&[0, 1, code]]), ReasonCode::MalformedPacket).await;
    }
    ends(&broker, v5, &packet(0xe0, &[&[0x01]]), ReasonCode::MalformedPacket).await;
    ends(&broker, v5, &packet(0xf0, &[&[0x01, 0]]), ReasonCode::MalformedPacket).await;
}

#[tokio::test]
async fn the_broker_answers_with_codes_of_each_packet() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    // [MQTT-3.6.2-1] [MQTT-3.7.2-1]: PUBREL and PUBCOMP know only success and an unknown identifier.
    client.send(pubrec(9)).await;
    client.expect(pubrel(9).reason(ReasonCode::PacketIdentifierNotFound)).await;
    client.send(pubrel(8)).await;
    client.expect(pubcomp(8).reason(ReasonCode::PacketIdentifierNotFound)).await;
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
    let mut bad = publish("t", 1, vec![0xff]).id(1);
    bad.properties.payload_format = Some(PayloadFormat::Utf8);
    client.send(bad.clone()).await;
    match client.recv().await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::PayloadFormatInvalid),
        other => panic!("{other:?}"),
    }
}

in_both_versions!(a_message_that_is_not_permitted_is_acknowledged_or_refused, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    // [MQTT3-3.3.5-2]: MQTT 3.1.1 is told nothing.
    let reason = if version.is_v5() { ReasonCode::NotAuthorized } else { ReasonCode::Success };
    assert_eq!(client.publish(publish("$SYS/x", 1, "m")).await, reason);
    assert_eq!(client.publish(publish("$SYS/x", 2, "m")).await, reason);
    client.ping().await;
});
