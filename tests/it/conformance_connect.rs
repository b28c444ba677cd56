//! Requirements of sections 3.1 and 3.2: CONNECT, its flags and payload, and CONNACK.

use std::time::Duration;

use testkit::{
    Client, ConnAck, Connect, ConnectExt, Packet, ProtocolVersion, PublishExt, ReasonCode, Stream, WillExt, connect,
    in_both_versions, puback, publish, subscribe, unsubscribe, will,
};
use tokio::time::Instant;

use crate::broker::{Setup, TestBroker};
use crate::raw::{connect_bytes, ends, field, packet, properties, refuses};
use crate::simulated::SimulatedBroker;

async fn answer(client: &mut Client<impl Stream>, packet: Connect) -> ConnAck {
    client.send(packet).await;
    match client.recv().await {
        Packet::ConnAck(ack) => *ack,
        other => panic!("{other:?}"),
    }
}

in_both_versions!(nothing_but_connect_begins_a_connection, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT3-3.1.0-1]: no DISCONNECT either, there was no CONNACK.
    for bytes in [
        packet(0x30, &[&field(b"t"), &none]),
        packet(0x40, &[&[0, 1]]),
        packet(0x82, &[&[0, 1], &none, &field(b"t"), &[0]]),
        packet(0xa2, &[&[0, 1], &none, &field(b"t")]),
        packet(0xc0, &[]),
        packet(0xe0, &[]),
        packet(0xf0, &[]),
    ] {
        let mut client = broker.raw().await;
        client.send_raw(&bytes).await;
        client.expect_closed().await;
    }
});

in_both_versions!(a_second_connect_ends_the_connection, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(connect("c").version(version)).await;
    // [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT3-3.1.0-2]
    client.expect_disconnect(ReasonCode::ProtocolError).await;
});

#[tokio::test]
async fn other_protocols_and_levels_are_not_served() {
    let broker = TestBroker::start().await;
    // Name, level, the bytes of CONNACK if there is one: those who name a level below 5 read return codes.
    type Case = (&'static [u8], u8, Option<&'static [u8]>);
    let cases: [Case; 8] = [
        // [MQTT-3.1.2-1] [MQTT3-3.1.2-1]
        (b"MQTX", 5, Some(b"\x20\x03\0\x84\0")),
        (b"mqtt", 4, Some(b"\x20\x02\0\x01")),
        (b"HTTP", 4, Some(b"\x20\x02\0\x01")),
        // [MQTT-3.1.2-2]
        (b"MQTT", 6, Some(b"\x20\x03\0\x84\0")),
        (b"MQTT", 255, Some(b"\x20\x03\0\x84\0")),
        // [MQTT3-3.1.2-2]
        (b"MQTT", 3, Some(b"\x20\x02\0\x01")),
        (b"MQTT", 0, Some(b"\x20\x02\0\x01")),
        (b"MQIsdp", 4, Some(b"\x20\x02\0\x01")),
    ];
    for (name, level, answer) in cases {
        let mut client = broker.raw().await;
        client.send_raw(&packet(0x10, &[&field(name), &[level, 2, 0, 0, 0], &field(b"c")])).await;
        if let Some(answer) = answer {
            assert_eq!(*client.recv_frame().await, *answer, "{} {level}", name.escape_ascii());
        }
        client.expect_closed().await;
    }
}

in_both_versions!(connect_flags_that_contradict_each_other_are_refused, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let malformed = ReasonCode::MalformedPacket;
    // [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
    // [MQTT3-3.1.2-3] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-14] [MQTT3-3.1.2-15]
    for flags in [0x03, 0x0a, 0x12, 0x1a, 0x22, 0x1e] {
        let will = [&properties(version, &[])[..], &field(b"t"), &field(b"m")].concat();
        let will: &[u8] = if flags & 4 == 0 { &[] } else { &will };
        refuses(&broker, version, &connect_bytes(version, flags, &[], &[&field(b"c"), will]), malformed).await;
    }
    // Fields that the flags do not announce, and flags whose fields are missing.
    // [MQTT-3.1.2-9] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-3]
    // [MQTT3-3.1.2-9] [MQTT3-3.1.2-18] [MQTT3-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21] [MQTT3-3.1.3-1] [MQTT3-3.1.3-3]
    let (id, name) = (field(b"c"), field(b"u"));
    for (flags, payload) in [
        (0x02, vec![&id[..], &name]),
        (0x82, vec![&id[..]]),
        (0x82, vec![&id[..], &name, &name]),
        (0xc2, vec![&id[..], &name]),
        (0x06, vec![&id[..]]),
        (0x06, vec![&id[..], &properties(version, &[]), &name]),
        (0x02, vec![]),
    ] {
        refuses(&broker, version, &connect_bytes(version, flags, &[], &payload), malformed).await;
    }
    if !version.is_v5() {
        // [MQTT3-3.1.2-22]
        refuses(&broker, version, &connect_bytes(version, 0x42, &[], &[&id, &name]), malformed).await;
    }
});

#[tokio::test]
async fn a_connect_with_impossible_properties_is_refused() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    // Receive Maximum 0, Maximum Packet Size 0, Request Problem Information 2, data without a method, a property twice.
    // [MQTT-3.1.4-1]
    for props in
        [&b"\x21\0\0"[..], b"\x27\0\0\0\0", b"\x17\x02", b"\x19\x02", b"\x16\0\x01x", b"\x11\0\0\0\x01\x11\0\0\0\x01"]
    {
        refuses(&broker, v5, &connect_bytes(v5, 2, props, &[&field(b"c")]), ReasonCode::ProtocolError).await;
    }
}

in_both_versions!(sessions_are_taken_up_begun_and_told, |version| async move {
    let broker = TestBroker::start().await;
    let persistent = || connect("c").version(version).persistent();
    // [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT3-3.1.2-4] [MQTT3-3.2.2-3]: there was none.
    let mut client = broker.raw().await;
    assert!(!answer(&mut client, persistent()).await.session_present);
    client.subscribe("t", 1).await;
    client.vanish().await;
    // [MQTT-3.1.2-23] [MQTT3-3.1.2-5] [MQTT3-4.1.0-1]: it is kept, and collects messages.
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "kept")).await;
    // [MQTT-3.1.2-5] [MQTT-3.1.3-2] [MQTT3-3.2.2-2] [MQTT3-3.1.3-2]: it is found by the identifier, and by no other.
    let mut other = broker.raw().await;
    assert!(!answer(&mut other, connect("other").version(version).persistent()).await.session_present);
    other.expect_nothing().await;
    let mut client = broker.raw().await;
    let ack = answer(&mut client, persistent()).await;
    // [MQTT-3.1.4-5] [MQTT3-3.1.4-4]
    assert_eq!((ack.session_present, ack.reason), (true, ReasonCode::Success));
    client.expect_message("t", "kept").await;
    client.vanish().await;
    // [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3] [MQTT3-3.2.2-1]
    let mut client = broker.raw().await;
    assert!(!answer(&mut client, connect("c").version(version)).await.session_present);
    publisher.publish(publish("t", 1, "not subscribed")).await;
    client.expect_nothing().await;
    client.vanish().await;
    let mut client = broker.raw().await;
    assert!(!answer(&mut client, persistent()).await.session_present);
});

in_both_versions!(retained_messages_outlive_sessions, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.publish(publish("t", 1, "kept").retained()).await;
    client.disconnect().await;
    // [MQTT3-3.1.2-7]
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 0).await;
    client.expect_message("t", "kept").await;
});

in_both_versions!(a_will_is_published_once_and_as_it_was_given, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("gone/#", 2).await;
    // [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT3-3.1.2-8] [MQTT3-3.1.2-16]
    let plain = connect("c").version(version).will(will("gone/plain", "1").level(1));
    broker.connect(plain).await.vanish().await;
    assert_eq!(watcher.expect_message("gone/plain", "1").await.qos, testkit::QoS::AtLeastOnce);
    // [MQTT-3.1.2-10] [MQTT3-3.1.2-10] [MQTT3-3.1.2-12]: it is gone, and a connection without a will publishes none.
    broker.client_of(version, "c").await.vanish().await;
    watcher.expect_nothing().await;
    // [MQTT-3.1.2-15] [MQTT3-3.1.2-17]
    let retained = connect("c").version(version).will(will("gone/kept", "2").retained());
    broker.connect(retained).await.vanish().await;
    watcher.expect_message("gone/kept", "2").await;
    let mut late = broker.client_of(version, "late").await;
    late.subscribe("gone/#", 0).await;
    assert!(late.expect_message("gone/kept", "2").await.retain);
    late.expect_nothing().await;
    // [MQTT-3.14.4-3] [MQTT3-3.14.4-3]
    let clean = connect("c").version(version).will(will("gone/not", "3"));
    broker.connect(clean).await.disconnect().await;
    watcher.expect_nothing().await;
});

#[tokio::test(start_paused = true)]
async fn a_delayed_will_waits_unless_the_client_is_back_or_the_session_ends() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("gone", 0).await;
    let client = || connect("c").resume().expiry(600).will(will("gone", "c").delay(60));
    // [MQTT-3.1.2-8]
    let start = Instant::now();
    broker.connect(client()).await.vanish().await;
    watcher.expect_message("gone", "c").await;
    assert_eq!(start.elapsed().as_secs(), 60);
    // [MQTT-3.1.3-9]
    broker.connect(client()).await.vanish().await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let back = broker.connect(connect("c").resume().expiry(600)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    watcher.expect_nothing().await;
    drop(back);
    // The longest delay there is, and a session that ends before it.
    let endless = connect("d").expiry(30).will(will("gone", "d").delay(u32::MAX));
    let start = Instant::now();
    broker.connect(endless).await.vanish().await;
    watcher.expect_message("gone", "d").await;
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn the_properties_of_a_will_keep_their_order() {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("gone", 0).await;
    let mut message = will("gone", "c");
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "1"), ("c", "")] {
        message.properties.user_properties.push(name, value);
    }
    message.properties.content_type = Some("text".into());
    broker.connect(connect("c").will(message.clone())).await.vanish().await;
    let got = watcher.expect_message("gone", "c").await;
    // [MQTT-3.1.3-10]
    assert_eq!(got.properties.user_properties, message.properties.user_properties);
    assert_eq!(got.properties.content_type.as_deref(), Some("text"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up_and_its_will_published() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut watcher = broker.connect(connect("w")).await;
        watcher.subscribe("gone", 0).await;
        let start = Instant::now();
        let mut client = broker.connect(connect("c").version(version).keep_alive(20).will(will("gone", "c"))).await;
        // Any packet counts. [MQTT-3.2.2-22]: without a keep alive of the server's, the client's holds.
        tokio::time::sleep(Duration::from_secs(29)).await;
        client.send(puback(9)).await;
        tokio::time::sleep(Duration::from_secs(29)).await;
        client.ping().await;
        // [MQTT-3.1.2-22] [MQTT3-3.1.2-24]
        client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
        assert_eq!(start.elapsed().as_secs(), 29 + 29 + 30);
        watcher.expect_message("gone", "c").await;
    }
}

in_both_versions!(identifiers_of_letters_and_digits_are_accepted, |version| async move {
    let broker = TestBroker::start().await;
    // [MQTT-3.1.3-5] [MQTT3-3.1.3-5]
    for id in ["0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
        broker.client_of(version, id).await.disconnect().await;
    }
});

#[tokio::test]
async fn a_client_without_an_identifier_gets_one_of_its_own() {
    let broker = TestBroker::start().await;
    let mut ids = std::collections::BTreeSet::new();
    for clean in [true, false] {
        let packet = connect("").expiry(600);
        let ack = broker.raw().await.connect(if clean { packet } else { packet.resume() }).await;
        // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
        let id = ack.properties.assigned_client_id.expect("an identifier");
        assert!(ids.insert(id.to_string()));
        // Its session is found by it, as if the client had sent it.
        let back = broker.raw().await.connect(connect(&id).resume().expiry(600)).await;
        assert!(back.session_present);
        assert_eq!(back.properties.assigned_client_id, None);
    }
    // MQTT 3.1.1 is told nothing, and two such clients do not meet. [MQTT3-3.1.3-6] [MQTT3-3.1.3-7]
    let mut first = broker.client_of(ProtocolVersion::V3_1_1, "").await;
    let mut second = broker.client_of(ProtocolVersion::V3_1_1, "").await;
    first.ping().await;
    second.ping().await;
}

in_both_versions!(a_refused_identifier_is_told_and_the_connection_closed, |version| async move {
    let broker = Setup::new().mqtt("max_clientid_len = 23").start().await;
    // [MQTT-3.1.3-8] [MQTT-3.2.2-7] [MQTT3-3.1.3-9] [MQTT3-3.2.2-5]
    let long = connect("x123456789012345678901234").version(version);
    broker.raw().await.expect_refusal(long, ReasonCode::ClientIdentifierNotValid).await;
    if !version.is_v5() {
        // [MQTT3-3.1.3-8]: the whole CONNACK, session present 0. [MQTT3-3.2.2-4]
        let mut client = broker.raw().await;
        client.send_raw(&connect_bytes(version, 0, &[], &[&field(b"")])).await;
        assert_eq!(*client.recv_frame().await, *b"\x20\x02\0\x02");
        client.expect_closed().await;
    }
});

in_both_versions!(nothing_after_a_refused_connect_is_processed, |version| async move {
    let broker = Setup::new().mqtt("max_clientid_len = 23").start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("#", 0).await;
    let mut client = broker.raw().await;
    let long = b"x123456789012345678901234";
    let connect = connect_bytes(version, 2, &[], &[&field(long)]);
    let publish = packet(0x30, &[&field(b"t"), &properties(version, &[]), b"m"]);
    client.send_raw(&[connect, publish].concat()).await;
    // [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT3-3.1.4-5] [MQTT3-3.2.2-4]
    let frame = client.recv_frame().await;
    assert_eq!((frame[0], frame[2]), (0x20, 0));
    client.expect_closed().await;
    watcher.expect_nothing().await;
});

in_both_versions!(a_check_beyond_the_format_refuses_too, |version| async move {
    let broker = Setup::new().auth("allow_anonymous = false").start().await;
    // [MQTT-3.1.4-2] [MQTT-4.13.2-1]
    broker.raw().await.expect_refusal(connect("c").version(version), ReasonCode::NotAuthorized).await;
});

in_both_versions!(a_client_that_connects_again_ends_its_first_connection, |version| async move {
    let broker = TestBroker::start().await;
    let mut first = broker.client_of(version, "c").await;
    let mut second = broker.client_of(version, "c").await;
    // [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
    first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    second.ping().await;
});

in_both_versions!(connack_comes_first_and_once, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 1).await;
    client.vanish().await;
    broker.client_of(version, "p").await.publish(publish("t", 1, "m")).await;
    let mut client = broker.raw().await;
    client.send(connect("c").version(version).persistent()).await;
    // [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT-3.2.2-8] [MQTT3-3.2.0-1]: although a message waits.
    let frame = client.recv_frame().await;
    let flags = if version.is_v5() { 3 } else { 2 };
    assert_eq!((frame[0], frame[flags - usize::from(version.is_v5())], frame[3]), (0x20, 1, 0));
    assert_eq!(client.recv_publish().await.payload, "m");
    client.send(Packet::PingReq).await;
    client.expect(Packet::PingResp).await;
});

#[tokio::test]
async fn a_server_that_does_not_take_every_qos_says_so_and_still_grants_subscriptions() {
    for most in 0..2u8 {
        let broker = Setup::new().mqtt(&format!("max_qos_allowed = {most}")).start().await;
        let mut client = broker.raw().await;
        // [MQTT-3.2.2-9]
        let ack = client.connect(connect("c")).await;
        assert_eq!(ack.properties.maximum_qos.map(u8::from), Some(most));
        // [MQTT-3.2.2-10]
        for wish in 0..3 {
            let granted = ReasonCode::granted(testkit::qos(wish.min(most)));
            assert_eq!(client.subscribe_reasons(subscribe(1, &[("t", wish)])).await, [granted]);
        }
        // [MQTT-3.2.2-11]
        client.send(publish("t", most + 1, "m")).await;
        client.expect_disconnect(ReasonCode::QoSNotSupported).await;
        // [MQTT-3.2.2-12]
        let packet = connect("c").will(will("gone", "c").level(most + 1));
        broker.raw().await.expect_refusal(packet, ReasonCode::QoSNotSupported).await;
    }
    let ack = TestBroker::start().await.raw().await.connect(connect("c")).await;
    assert_eq!(ack.properties.maximum_qos, None);
}

#[tokio::test]
async fn a_server_that_retains_nothing_says_so_and_refuses_what_is_to_be_retained() {
    let broker = Setup::new().mqtt("retain_available = false").start().await;
    let mut client = broker.raw().await;
    assert_eq!(client.connect(connect("c")).await.properties.retain_available, Some(false));
    // [MQTT-3.2.2-14]
    client.send(publish("t", 0, "m").retained()).await;
    client.expect_disconnect(ReasonCode::RetainNotSupported).await;
    // [MQTT-3.2.2-13]
    let packet = connect("c").will(will("gone", "c").retained());
    broker.raw().await.expect_refusal(packet, ReasonCode::RetainNotSupported).await;
}

in_both_versions!(
    a_refusal_that_no_return_code_says_is_an_end_without_connack,
    |version: ProtocolVersion| async move {
        let broker = TestBroker::start().await;
        // [MQTT3-3.2.2-6] [MQTT-3.2.2-8]: a will whose topic has a wildcard; MQTT 5 has a code for it.
        let will = [&properties(version, &[])[..], &field(b"a/#"), &field(b"m")].concat();
        let bytes = connect_bytes(version, 0x06, &[], &[&field(b"c"), &will]);
        refuses(&broker, version, &bytes, ReasonCode::TopicNameInvalid).await;
    }
);

in_both_versions!(packets_over_the_brokers_size_are_not_read, |version| async move {
    let broker = Setup::new().mqtt("max_packet_size = 1000").start().await;
    // [MQTT-3.2.2-15]
    ends(&broker, version, &[0x30, 0xff, 0x7f], ReasonCode::PacketTooLarge).await;
});

in_both_versions!(a_subscription_and_its_end_cross_a_reconnect, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("a", 1).await;
    client.subscribe("b", 1).await;
    client.send(unsubscribe(1, &["a"])).await;
    client.recv().await;
    client.disconnect().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.publish(publish("a", 1, "m")).await;
    client.publish(publish("b", 1, "m")).await;
    client.expect_message("b", "m").await;
    client.expect_nothing().await;
});
