//! Requirements of sections 3.8 to 3.15: SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT and AUTH.

use testkit::{
    ConnectExt, Packet, ProtocolVersion, PublishExt, QoS, ReasonCode, RetainHandling, SubscribeExt, WillExt, connect,
    disconnect, in_both_versions, puback, publish, suback, subscribe, unsubscribe, will,
};

use crate::broker::{Setup, TestBroker};
use crate::raw::{ends, field, packet, properties};

in_both_versions!(subscribe_and_unsubscribe_name_at_least_one_filter, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT3-3.8.3-3] [MQTT3-3.10.3-2]
    ends(&broker, version, &packet(0x82, &[&[0, 1], &none]), ReasonCode::ProtocolError).await;
    ends(&broker, version, &packet(0xa2, &[&[0, 1], &none]), ReasonCode::ProtocolError).await;
});

in_both_versions!(reserved_subscription_options_are_malformed, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-3.8.3-5] [MQTT3-3.8.3-4]
    let options: &[u8] = if version.is_v5() { &[0x40, 0x80, 0xc1] } else { &[0x03, 0x04, 0x08, 0x10, 0x80] };
    for options in options {
        let bytes = packet(0x82, &[&[0, 1], &none, &field(b"t"), &[*options]]);
        ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
    }
    if version.is_v5() {
        // QoS 3, a Retain Handling of 3, and No Local on a shared subscription are protocol errors. [MQTT-3.8.3-4]
        let bytes = packet(0x82, &[&[0, 1, 0], &field(b"t"), &[0x03]]);
        ends(&broker, version, &bytes, ReasonCode::ProtocolError).await;
        let bytes = packet(0x82, &[&[0, 1, 0], &field(b"t"), &[0x30]]);
        ends(&broker, version, &bytes, ReasonCode::ProtocolError).await;
        let bytes = packet(0x82, &[&[0, 1, 0], &field(b"$share/g/t"), &[0x04]]);
        ends(&broker, version, &bytes, ReasonCode::ProtocolError).await;
        // A subscription identifier of 0.
        let bytes = packet(0x82, &[&[0, 1, 2, 0x0b, 0], &field(b"t"), &[0]]);
        ends(&broker, version, &bytes, ReasonCode::ProtocolError).await;
    }
});

in_both_versions!(each_filter_has_its_answer_in_order, |version| async move {
    let broker = Setup::new().mqtt("max_topic_levels = 3\nmax_qos_allowed = 1").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(subscribe(7, &[("a", 0), ("a/b/c/d", 1), ("b", 1), ("c", 2)])).await;
    // [MQTT-3.8.4-1] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
    // [MQTT3-3.8.4-1] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2]
    let Packet::SubAck(ack) = client.recv().await else { panic!("no SUBACK") };
    let failed = if version.is_v5() { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
    assert_eq!(ack.packet_id.get(), 7);
    assert_eq!(ack.reasons, [ReasonCode::Success, failed, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1]);
    for topic in ["a", "b", "c"] {
        client.publish(publish(topic, 1, "m")).await;
        client.expect_message(topic, "m").await;
    }
});

in_both_versions!(a_filter_subscribed_to_again_replaces_the_subscription, |version| async move {
    let broker = TestBroker::start().await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "kept").retained()).await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    client.expect_message("t", "kept").await;
    // [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT3-3.8.4-3]: one subscription, of the new QoS; retained messages again.
    client.subscribe("t", 1).await;
    client.expect_message("t", "kept").await;
    publisher.publish(publish("t", 2, "new")).await;
    assert_eq!(client.expect_message("t", "new").await.qos, QoS::AtLeastOnce);
    client.expect_nothing().await;
    assert_eq!(broker.server.broker().subscription_count(), 1);
});

#[tokio::test]
async fn replacing_a_subscription_loses_nothing() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client("p").await;
    // [MQTT-3.8.4-4]
    for n in 0..200 {
        publisher.send(publish("t", 0, format!("{n}"))).await;
        if n % 3 == 0 {
            let again = subscribe(1, &[("t", n as u8 % 2)]).retain_handling(RetainHandling::DoNotSend);
            client.send(again).await;
        }
    }
    publisher.ping().await;
    let mut next = 0;
    while next < 200 {
        match client.recv().await {
            Packet::Publish(message) => {
                assert_eq!(message.payload, format!("{next}"));
                next += 1;
            }
            Packet::SubAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

in_both_versions!(the_lower_qos_of_message_and_grant_counts, |version| async move {
    let broker = TestBroker::start().await;
    for granted in 0..3 {
        let mut client = broker.client_of(version, &format!("c{granted}")).await;
        client.subscribe("t", granted).await;
        for published in 0..3 {
            client.publish(publish("t", published, "m")).await;
            // [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
            assert_eq!(u8::from(client.expect_message("t", "m").await.qos), published.min(granted));
        }
    }
});

#[tokio::test]
async fn no_local_spares_a_client_its_own_messages_alone() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").expiry(600)).await;
    client.subscribe_with(subscribe(1, &[("t", 1)]).no_local()).await;
    let mut other = broker.client("other").await;
    other.subscribe("t", 1).await;
    // [MQTT-3.8.3-3]
    client.publish(publish("t", 1, "mine")).await;
    client.expect_nothing().await;
    other.expect_message("t", "mine").await;
    other.publish(publish("t", 1, "theirs")).await;
    client.expect_message("t", "theirs").await;
    other.expect_message("t", "theirs").await;
    // Also after a reconnect.
    client.vanish().await;
    let mut client = broker.connect(connect("c").resume().expiry(600)).await;
    client.publish(publish("t", 1, "mine")).await;
    client.expect_nothing().await;
}

in_both_versions!(malformed_filters_are_refused, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    // [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-1]
    for filter in [
        &b""[..],
        b"a/#/b",
        b"a#",
        b"#a",
        b"a+",
        b"+a/b",
        b"a/b+",
        b"$share//t",
        b"$share/g",
        b"$share/+/t",
        b"$share/g/",
    ] {
        let bytes = packet(0x82, &[&[0, 1], &none, &field(filter), &[0]]);
        ends(&broker, version, &bytes, ReasonCode::TopicFilterInvalid).await;
        let bytes = packet(0xa2, &[&[0, 1], &none, &field(filter)]);
        ends(&broker, version, &bytes, ReasonCode::TopicFilterInvalid).await;
    }
});

in_both_versions!(wildcards_are_refused_where_they_are_off, |version| async move {
    let broker = Setup::new().mqtt("wildcard_subscription = false\nshared_subscription = false").start().await;
    let mut client = broker.client_of(version, "c").await;
    let [wildcard, shared] = match version.is_v5() {
        true => [ReasonCode::WildcardSubscriptionsNotSupported, ReasonCode::SharedSubscriptionsNotSupported],
        false => [ReasonCode::UnspecifiedError; 2],
    };
    // [MQTT3-3.8.3-2] [MQTT-3.9.3-2]
    let reasons = client.subscribe_reasons(subscribe(1, &[("a/+", 0), ("#", 0), ("$share/g/a", 0), ("a", 0)])).await;
    assert_eq!(reasons, [wildcard, wildcard, shared, ReasonCode::Success]);
});

in_both_versions!(unsubscribe_compares_exactly_and_is_always_answered, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    for filter in ["a/b", "a/+", "A/b"] {
        client.subscribe(filter, 1).await;
    }
    // [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
    // [MQTT3-3.10.4-1] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5] [MQTT3-3.10.4-6]
    client.send(unsubscribe(3, &["a/#", "a/b", "a/b", "a/B"])).await;
    let Packet::UnsubAck(ack) = client.recv().await else { panic!("no UNSUBACK") };
    assert_eq!(ack.packet_id.get(), 3);
    if version.is_v5() {
        let none = ReasonCode::NoSubscriptionExisted;
        assert_eq!(ack.reasons, [none, ReasonCode::Success, none, none]);
    }
    client.publish(publish("a/b", 1, "m")).await;
    client.expect_message("a/b", "m").await;
    client.expect_nothing().await;
    client.send(unsubscribe(4, &["a/+"])).await;
    client.recv().await;
    // [MQTT-3.10.4-2] [MQTT3-3.10.4-2]
    client.publish(publish("a/b", 1, "m")).await;
    client.expect_nothing().await;
});

in_both_versions!(deliveries_that_began_are_completed_after_unsubscribe, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "begun")).await;
    client.expect(publish("t", 1, "begun").id(1)).await;
    client.unsubscribe("t").await;
    client.vanish().await;
    // [MQTT-3.10.4-3] [MQTT3-3.10.4-3]
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect(publish("t", 1, "begun").id(1).dup()).await;
    client.send(puback(1)).await;
    client.expect_nothing().await;
});

in_both_versions!(every_ping_is_answered, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    // [MQTT-3.12.4-1] [MQTT3-3.12.4-1]
    for _ in 0..3 {
        client.send(Packet::PingReq).await;
    }
    for _ in 0..3 {
        client.expect(Packet::PingResp).await;
    }
});

#[tokio::test]
async fn a_disconnect_from_the_broker_is_its_last_word() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe("t", 0).await;
    client.send_raw(&[0x00]).await;
    let Packet::Disconnect(last) = client.recv().await else { panic!("no DISCONNECT") };
    // [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-4.13.1-1]
    assert_eq!((last.reason, last.properties.session_expiry_interval), (ReasonCode::MalformedPacket, None));
    // [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]
    client.expect_closed().await;
}

in_both_versions!(nothing_after_disconnect_is_processed, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("#", 0).await;
    let mut client = broker.connect(connect("c").version(version).will(will("gone", "c").level(0))).await;
    let publish = packet(0x30, &[&field(b"t"), &properties(version, &[]), b"m"]);
    client.send_raw(&[packet(0xe0, &[]), publish].concat()).await;
    // [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.4-3] [MQTT3-3.14.4-1] [MQTT3-3.14.4-2] [MQTT3-3.14.4-3]
    client.expect_closed().await;
    watcher.expect_nothing().await;
});

#[tokio::test]
async fn a_disconnect_may_shorten_the_session_but_not_bring_it_to_life() {
    let broker = TestBroker::start().await;
    // MQTT 5 section 3.14.2.2.2.
    let mut packet = disconnect(ReasonCode::Success);
    packet.properties.session_expiry_interval = Some(10);
    let mut client = broker.client("c").await;
    client.send(packet.clone()).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
    let mut client = broker.connect(connect("c").expiry(600)).await;
    packet.properties.session_expiry_interval = Some(0);
    client.send(packet).await;
    client.expect_closed().await;
    assert!(!broker.raw().await.connect(connect("c").resume()).await.session_present);
}

#[tokio::test]
async fn auth_without_a_method_is_a_protocol_error() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    // [MQTT-4.12.0-7]
    let auth = packet(0xf0, &[&[0x18, 4, 0x15, 0, 1, b'x']]);
    ends(&broker, v5, &auth, ReasonCode::ProtocolError).await;
    let mut client = broker.raw().await;
    let ack = client.connect(connect("c")).await;
    // [MQTT-4.12.0-6]
    assert_eq!((ack.properties.authentication_method, ack.properties.authentication_data), (None, None));
    client.expect_nothing().await;
}

#[tokio::test]
async fn an_unknown_authentication_method_is_refused() {
    let broker = TestBroker::start().await;
    let mut packet = connect("c");
    packet.properties.authentication_method = Some("UNKNOWN-METHOD".into());
    // [MQTT-4.12.0-1] [MQTT-4.12.0-4]
    broker.raw().await.expect_refusal(packet, ReasonCode::BadAuthenticationMethod).await;
}

in_both_versions!(suback_is_the_answer_to_subscribe, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(subscribe(10, &[("t", 2)])).await;
    client.expect(suback(10, &[ReasonCode::GrantedQoS2])).await;
});
