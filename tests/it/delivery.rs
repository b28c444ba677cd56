//! The path of a message: every QoS in both directions, filters, overlaps, shared groups, order.

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Encode, PayloadFormat, PublishProperties, UserProperties};
use testkit::{
    AckExt, Client, ConnectExt, Packet, ProtocolVersion, PublishExt, QoS, ReasonCode, SubscribeExt, connect,
    in_both_versions, over_every_transport, puback, pubcomp, publish, pubrec, pubrel, qos, suback, subscribe,
    unsubscribe,
};

use crate::broker::{Setup, TestBroker};

over_every_transport!(delivers_every_qos, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut subscriber = broker.connect_over(transport, connect("s")).await;
    let mut publisher = broker.connect_over(transport, connect("p")).await;
    subscriber.subscribe("a/b", 2).await;
    for level in 0..3 {
        publisher.publish(publish("a/b", level, "hello")).await;
        let got = subscriber.expect_message("a/b", "hello").await;
        assert_eq!(got.qos, qos(level));
    }
    subscriber.disconnect().await;
    publisher.disconnect().await;
});

in_both_versions!(each_qos_has_its_own_packets, |version| async move {
    let broker = TestBroker::start().await;
    let mut subscriber = broker.client_of(version, "s").await;
    let mut publisher = broker.client_of(version, "p").await;
    subscriber.send(subscribe(10, &[("t", 2)])).await;
    subscriber.expect(suback(10, &[ReasonCode::GrantedQoS2])).await;

    publisher.send(publish("t", 0, "zero")).await;
    subscriber.expect(publish("t", 0, "zero")).await;

    publisher.send(publish("t", 1, "one").id(7)).await;
    publisher.expect(puback(7)).await;
    subscriber.expect(publish("t", 1, "one").id(1)).await;
    subscriber.send(puback(1)).await;

    publisher.send(publish("t", 2, "two").id(8)).await;
    publisher.expect(pubrec(8)).await;
    // The message is passed on before its PUBREL: method A and B of MQTT 5 figure 4.3 are both exactly once.
    subscriber.expect(publish("t", 2, "two").id(2)).await;
    publisher.send(pubrel(8)).await;
    publisher.expect(pubcomp(8)).await;
    subscriber.send(pubrec(2)).await;
    subscriber.expect(pubrel(2)).await;
    subscriber.send(pubcomp(2)).await;
    subscriber.expect_nothing().await;
});

in_both_versions!(qos_is_the_lower_of_publication_and_subscription, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    for granted in 0..3 {
        let mut subscriber = broker.client_of(version, &format!("s{granted}")).await;
        subscriber.subscribe("t", granted).await;
        for published in 0..3 {
            publisher.publish(publish("t", published, "m")).await;
            // [MQTT-3.8.4-8]
            let got = subscriber.expect_message("t", "m").await;
            assert_eq!(got.qos, qos(published.min(granted)), "published {published}, granted {granted}");
        }
        subscriber.disconnect().await;
    }
});

in_both_versions!(no_qos_above_the_configured_one_is_granted_or_taken, |version| async move {
    let broker = Setup::new().mqtt("max_qos_allowed = 1").start().await;
    let mut client = broker.client_of(version, "c").await;
    let reasons = client.subscribe_reasons(subscribe(1, &[("t", 2)])).await;
    assert_eq!(reasons, [ReasonCode::GrantedQoS1]);
    client.send(publish("t", 2, "m")).await;
    // [MQTT-3.2.2-11]
    client.expect_disconnect(ReasonCode::QoSNotSupported).await;
});

in_both_versions!(wildcards_match_as_specified, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    // MQTT 5 section 4.7.1: filter, topics it matches, topics it does not.
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("sport/tennis/#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"], &["sport", "sport/tennisx"]),
        ("#", &["sport", "a/b/c", "/"], &["$x/y"]),
        ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
        ("+", &["finance"], &["/finance", "$x"]),
        ("+/+", &["/finance", "a/b"], &["finance", "a/b/c", "$x/y"]),
        ("/+", &["/finance"], &["finance", "//finance"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/b", "a/b/c/d"]),
        ("+/tennis/#", &["sport/tennis", "x/tennis/a/b"], &["tennis", "$x/tennis"]),
        ("$x/#", &["$x", "$x/y"], &["x", "$y/x"]),
    ];
    for (number, (filter, matching, others)) in cases.into_iter().enumerate() {
        let mut subscriber = broker.client_of(version, &format!("s{number}")).await;
        subscriber.subscribe(filter, 0).await;
        for topic in others.iter().chain(matching) {
            publisher.publish(publish(topic, 1, *topic)).await;
        }
        for topic in matching {
            let got = subscriber.recv_publish().await;
            assert_eq!(got.topic, *topic, "of {filter}");
        }
        subscriber.expect_nothing().await;
        subscriber.disconnect().await;
    }
});

in_both_versions!(a_topic_with_a_wildcard_cannot_be_published_to, |version| async move {
    let broker = TestBroker::start().await;
    for topic in ["a/#", "+/b", "#"] {
        let mut client = broker.client_of(version, "c").await;
        let mut packet = vec![0x30, 0, 0, u8::try_from(topic.len()).unwrap()];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend(version.is_v5().then_some(0));
        packet[1] = u8::try_from(packet.len() - 2).unwrap();
        client.send_raw(&packet).await;
        // [MQTT-3.3.2-2]
        client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
    }
});

#[tokio::test]
async fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_every_identifier() {
    let broker = TestBroker::start().await;
    let mut subscriber = broker.client("s").await;
    subscriber.subscribe_with(subscribe(1, &[("a/+", 0)]).identifier(5)).await;
    subscriber.subscribe_with(subscribe(2, &[("a/b", 1)]).identifier(268_435_455)).await;
    subscriber.subscribe_with(subscribe(3, &[("#", 2)])).await;
    subscriber.subscribe_with(subscribe(4, &[("other", 2)]).identifier(9)).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("a/b", 2, "once")).await;
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    let got = subscriber.expect_message("a/b", "once").await;
    assert_eq!(got.qos, QoS::ExactlyOnce);
    let mut ids: Vec<u32> = got.properties.subscription_ids.iter().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [5, 268_435_455]);
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn overlapping_subscriptions_of_an_mqtt_3_client_bring_one_copy_at_the_highest_qos() {
    let broker = TestBroker::start().await;
    let mut subscriber = broker.client_of(ProtocolVersion::V3_1_1, "s").await;
    subscriber.subscribe_with(subscribe(1, &[("a/+", 0), ("a/b", 1), ("#", 2)])).await;
    let mut publisher = broker.client_of(ProtocolVersion::V3_1_1, "p").await;
    publisher.publish(publish("a/b", 2, "once")).await;
    // [MQTT3-3.3.5-1]
    assert_eq!(subscriber.expect_message("a/b", "once").await.qos, QoS::ExactlyOnce);
    subscriber.expect_nothing().await;
}

in_both_versions!(subscribing_again_replaces_the_subscription, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    client.subscribe("t", 0).await;
    client.send(publish("t", 0, "m")).await;
    // [MQTT-3.8.4-3]
    assert_eq!(client.expect_message("t", "m").await.qos, QoS::AtMostOnce);
    client.expect_nothing().await;
    assert_eq!(broker.server.broker().subscription_count(), 1);
});

in_both_versions!(suback_answers_each_filter_in_order, |version| async move {
    let broker = Setup::new().mqtt("max_topic_levels = 3").mqtt("max_subscriptions = 3").start().await;
    let mut client = broker.client_of(version, "c").await;
    let filters = [("a", 1), ("a/b/c/d", 1), ("b", 0), ("c", 2), ("d", 0), ("a", 2)];
    let got = client.subscribe_reasons(subscribe(1, &filters)).await;
    let failed = |reason| if version.is_v5() { reason } else { ReasonCode::UnspecifiedError };
    let expected = [
        ReasonCode::GrantedQoS1,
        failed(ReasonCode::TopicFilterInvalid),
        ReasonCode::Success,
        ReasonCode::GrantedQoS2,
        failed(ReasonCode::QuotaExceeded),
        ReasonCode::GrantedQoS2,
    ];
    assert_eq!(got, expected);
});

in_both_versions!(unsubscribe_ends_the_messages, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe_with(subscribe(1, &[("a", 0), ("b", 0)])).await;
    assert_eq!(client.unsubscribe("a").await, ReasonCode::Success);
    client.send(publish("a", 0, "gone")).await;
    client.send(publish("b", 0, "kept")).await;
    client.expect_message("b", "kept").await;
    client.expect_nothing().await;
    assert_eq!(broker.server.broker().subscription_count(), 1);
});

#[tokio::test]
async fn unsuback_says_of_each_filter_whether_it_was_there() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe_with(subscribe(1, &[("a", 0), ("$share/g/a", 0)])).await;
    client.send(unsubscribe(9, &["a", "a", "b", "$share/h/a", "$share/g/a"])).await;
    let Packet::UnsubAck(ack) = client.recv().await else { panic!("not UNSUBACK") };
    // [MQTT-3.11.3-1]
    let none = ReasonCode::NoSubscriptionExisted;
    assert_eq!(ack.reasons, [ReasonCode::Success, none, none, none, ReasonCode::Success]);
}

#[tokio::test]
async fn no_local_spares_a_client_its_own_messages() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe_with(subscribe(1, &[("t", 1)]).no_local()).await;
    let mut other = broker.client("o").await;
    // [MQTT-3.8.3-3]
    assert_eq!(client.publish(publish("t", 1, "mine")).await, ReasonCode::NoMatchingSubscribers);
    assert_eq!(other.publish(publish("t", 1, "theirs")).await, ReasonCode::Success);
    client.expect_message("t", "theirs").await;
    client.expect_nothing().await;
    // Another subscription that matches and wants them brings them.
    client.subscribe_with(subscribe(2, &[("#", 0)])).await;
    client.send(publish("t", 0, "mine")).await;
    client.expect_message("t", "mine").await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.send(subscribe(1, &[("$share/g/t", 1)]).no_local()).await;
    // [MQTT-3.8.3-4]
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

in_both_versions!(a_shared_subscription_gives_each_message_to_one_member, |version| async move {
    let broker = TestBroker::start().await;
    let mut members = Vec::new();
    for n in 0..3 {
        let mut member = broker.client_of(version, &format!("m{n}")).await;
        member.subscribe("$share/g/jobs/#", 1).await;
        members.push(member);
    }
    let mut alone = broker.client_of(version, "alone").await;
    alone.subscribe("$share/other/jobs/#", 0).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 0..30 {
        publisher.publish(publish("jobs/x", 1, format!("{n:02}"))).await;
    }
    let mut seen = Vec::new();
    for member in &mut members {
        let got = until_pong(member).await;
        assert!(got.len() >= 5, "one member got only {} of 30", got.len());
        seen.extend(got);
    }
    seen.sort();
    let all: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    assert_eq!(seen, all);
    // Another group gets its own copy of everything.
    assert_eq!(until_pong(&mut alone).await, all);

    // What a member that left would have got goes to the others.
    members.pop().unwrap().disconnect().await;
    members.pop().unwrap().vanish().await;
    for n in 0..4 {
        publisher.publish(publish("jobs/x", 1, format!("{n}"))).await;
    }
    assert_eq!(until_pong(&mut members[0]).await, ["0", "1", "2", "3"]);
});

/// The payloads of all messages that wait for `client`, acknowledged.
async fn until_pong(client: &mut Client) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..2 {
        client.send(Packet::PingReq).await;
        loop {
            match client.recv().await {
                Packet::PingResp => break,
                Packet::Publish(message) => {
                    payloads.push(String::from_utf8(message.payload.to_vec()).unwrap());
                    client.acknowledge(&message).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    payloads
}

in_both_versions!(clients_do_not_publish_to_the_brokers_own_topics, |version| async move {
    // Nothing but a client could publish there.
    let broker = Setup::new().mqtt("sys_interval = \"0s\"").start().await;
    let mut reader = broker.client_of(version, "r").await;
    reader.subscribe("$SYS/#", 1).await;
    let mut client = broker.client_of(version, "c").await;
    let expected = if version.is_v5() { ReasonCode::NotAuthorized } else { ReasonCode::Success };
    assert_eq!(client.publish(publish("$SYS/broker/uptime", 1, "0")).await, expected);
    client.send(publish("$SYS/broker/uptime", 0, "0")).await;
    // The connection lives on, and nobody got anything.
    client.ping().await;
    reader.expect_nothing().await;
});

#[tokio::test]
async fn a_publisher_is_told_when_nobody_subscribes() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    assert_eq!(client.publish(publish("t", 1, "m")).await, ReasonCode::NoMatchingSubscribers);
    assert_eq!(client.publish(publish("t", 2, "m")).await, ReasonCode::NoMatchingSubscribers);
    client.subscribe("t", 0).await;
    client.send(publish("t", 1, "m").id(3)).await;
    client.expect(puback(3)).await;
}

#[tokio::test]
async fn properties_are_passed_on_unaltered() {
    let broker = TestBroker::start().await;
    let mut subscriber = broker.client("s").await;
    subscriber.subscribe("t", 1).await;
    let mut old = broker.client_of(ProtocolVersion::V3_1_1, "o").await;
    old.subscribe("t", 1).await;
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")];
    let properties = PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(Bytes::from_static(b"\0\xff")),
        content_type: Some("text/plain".into()),
        user_properties: UserProperties::from(pairs.map(|(name, value)| (name.into(), value.into())).to_vec()),
        ..PublishProperties::default()
    };
    let mut message = publish("t", 1, "körper");
    message.properties = properties.clone();
    broker.client("p").await.publish(message).await;
    // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    assert_eq!(subscriber.expect_message("t", "körper").await.properties, properties);
    assert_eq!(old.expect_message("t", "körper").await.properties, PublishProperties::default());
}

#[tokio::test]
async fn a_payload_that_is_not_the_text_it_claims_to_be_is_refused() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe("t", 2).await;
    for level in [1, 2] {
        let mut message = publish("t", level, &b"\xff"[..]);
        message.properties.payload_format = Some(PayloadFormat::Utf8);
        assert_eq!(client.publish(message).await, ReasonCode::PayloadFormatInvalid);
    }
    client.expect_nothing().await;
}

in_both_versions!(ten_thousand_messages_arrive_in_order, |version| async move {
    const MESSAGES: u32 = 10_000;
    // As many as the broker says that it takes unacknowledged.
    const BATCH: u32 = 100;
    let broker = Setup::new().mqtt("max_mqueue_len = 20000").start().await;
    let mut subscriber = broker.client_of(version, "s").await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    let publishing = async {
        for batch in 0..MESSAGES / BATCH {
            let mut packets = BytesMut::new();
            for n in 0..BATCH {
                let message = publish("t", 1, (batch * BATCH + n).to_be_bytes().to_vec()).id(1 + n as u16);
                message.encode(version, &mut packets).unwrap();
            }
            publisher.send_raw(&packets).await;
            for n in 0..BATCH {
                publisher.expect(puback(1 + n as u16)).await;
            }
        }
    };
    let receiving = async {
        // [MQTT-4.6.0-6]
        for n in 0..MESSAGES {
            let message = subscriber.recv_publish().await;
            assert_eq!(*message.payload, n.to_be_bytes(), "message {n}");
            subscriber.acknowledge(&message).await;
        }
    };
    tokio::join!(publishing, receiving);
    subscriber.expect_nothing().await;
});

#[tokio::test]
async fn a_message_refused_by_its_receiver_is_not_sent_again() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").receive_maximum(1)).await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 2, "a")).await;
    publisher.publish(publish("t", 1, "b")).await;
    let first = client.recv_publish().await;
    // [MQTT-4.3.3-4]: an error in PUBREC ends the exchange and frees its place.
    client.send(pubrec(first.packet_id.unwrap().get()).reason(ReasonCode::QuotaExceeded)).await;
    client.expect_message("t", "b").await;
    client.expect_nothing().await;
}
