//! Requirements of chapters 1 and 2: strings, integers, fixed headers, packet identifiers, property lengths.

use testkit::{
    ConnectExt, Packet, ProtocolVersion, PublishExt, ReasonCode, connect, in_both_versions, puback, pubcomp, publish,
    pubrec, pubrel, suback, subscribe, unsubscribe,
};

use crate::broker::TestBroker;
use crate::raw::{connect_bytes, ends, field, packet, properties, refuses};

/// Not UTF-8, surrogates, an over-long form, a cut sequence; and the null character.
const BAD_STRINGS: [&[u8]; 6] = [b"\xc3\x28", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\x80", b"a\xe2\x82", b"a\0b"];

in_both_versions!(a_connect_with_a_bad_string_is_refused, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    for bad in BAD_STRINGS {
        // [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
        // [MQTT3-1.5.3-1] [MQTT3-1.5.3-2] [MQTT3-3.1.3-4] [MQTT3-3.1.3-10] [MQTT3-3.1.3-11]
        let will = [&properties(version, &[])[..], &field(bad), &field(b"payload")].concat();
        for bytes in [
            connect_bytes(version, 0x02, &[], &[&field(bad)]),
            connect_bytes(version, 0x06, &[], &[&field(b"c"), &will]),
            connect_bytes(version, 0x82, &[], &[&field(b"c"), &field(bad)]),
        ] {
            refuses(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
});

#[tokio::test]
async fn a_property_with_a_bad_string_is_malformed() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    for bad in BAD_STRINGS {
        // [MQTT-1.5.7-1]: either half of a pair; and the authentication method.
        for props in [
            [&[0x26][..], &field(bad), &field(b"v")].concat(),
            [&[0x26][..], &field(b"n"), &field(bad)].concat(),
            [&[0x15][..], &field(bad)].concat(),
        ] {
            refuses(&broker, v5, &connect_bytes(v5, 2, &props, &[&field(b"c")]), ReasonCode::MalformedPacket).await;
        }
        // Response topic, content type, user property of PUBLISH. [MQTT-3.3.2-13] [MQTT-3.3.2-19]
        for props in [
            [&[0x08][..], &field(bad)].concat(),
            [&[0x03][..], &field(bad)].concat(),
            [&[0x26][..], &field(b"n"), &field(bad)].concat(),
        ] {
            let bytes = packet(0x30, &[&field(b"t"), &properties(v5, &props), b"m"]);
            ends(&broker, v5, &bytes, ReasonCode::MalformedPacket).await;
        }
        // Reason string of DISCONNECT.
        let props = [&[0x1f][..], &field(bad)].concat();
        ends(&broker, v5, &packet(0xe0, &[&[0], &properties(v5, &props)]), ReasonCode::MalformedPacket).await;
    }
}

in_both_versions!(a_topic_that_is_no_string_ends_the_connection, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    for bad in BAD_STRINGS {
        // [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
        // [MQTT3-3.3.2-1] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1] [MQTT3-4.7.3-2]
        let none = properties(version, &[]);
        for bytes in [
            packet(0x30, &[&field(bad), &none, b"m"]),
            packet(0x82, &[&[0, 1], &none, &field(bad), &[0]]),
            packet(0xa2, &[&[0, 1], &none, &field(bad)]),
        ] {
            ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
});

in_both_versions!(a_byte_order_mark_is_a_character_of_its_topic, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 0).await;
    client.send(publish("\u{feff}t", 0, "m")).await;
    // [MQTT-1.5.4-3] [MQTT3-1.5.3-3]: it is not stripped, or the filter above would match.
    client.expect_nothing().await;
    client.subscribe("\u{feff}t", 0).await;
    client.send(publish("\u{feff}t", 0, "m")).await;
    client.expect(publish("\u{feff}t", 0, "m")).await;
});

in_both_versions!(a_length_that_is_longer_than_it_need_be_is_malformed, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    // PINGREQ with its length of zero in two bytes. [MQTT-1.5.5-1]
    ends(&broker, version, &[0xc0, 0x80, 0x00], ReasonCode::MalformedPacket).await;
    ends(&broker, version, &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], ReasonCode::MalformedPacket).await;
    if version.is_v5() {
        // A property length of zero in two bytes; a subscription identifier of one in two.
        let bytes = packet(0x30, &[&field(b"t"), &[0x80, 0x00], b"m"]);
        ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        let bytes = packet(0x82, &[&[0, 1, 3, 0x0b, 0x81, 0x00], &field(b"t"), &[0]]);
        ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
    }
});

in_both_versions!(lengths_are_written_in_as_few_bytes_as_they_need, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 0).await;
    let overhead = if version.is_v5() { 4 } else { 3 };
    // [MQTT-1.5.5-1]
    for (remaining, length) in
        [(127, &[0x7f][..]), (128, &[0x80, 0x01]), (16_383, &[0xff, 0x7f]), (16_384, &[0x80, 0x80, 0x01])]
    {
        client.send(publish("t", 0, vec![b'x'; remaining - overhead])).await;
        let frame = client.recv_frame().await;
        assert_eq!(frame[1..=length.len()], *length);
        assert_eq!(frame.len(), 1 + length.len() + remaining);
    }
});

in_both_versions!(reserved_flags_end_the_connection, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
    // [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1] [MQTT3-3.14.1-1]
    for first in [0x41, 0x42, 0x48, 0x51, 0x60, 0x61, 0x63, 0x6a, 0x71] {
        ends(&broker, version, &packet(first, &[&[0, 1]]), ReasonCode::MalformedPacket).await;
    }
    for first in [0x80, 0x81, 0x83, 0x8a] {
        let bytes = packet(first, &[&[0, 1], &none, &field(b"t"), &[0]]);
        ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
    }
    for first in [0xa0, 0xa1, 0xa3, 0xaa] {
        ends(&broker, version, &packet(first, &[&[0, 1], &none, &field(b"t")]), ReasonCode::MalformedPacket).await;
    }
    for first in [0xc1, 0xc2, 0xe1, 0xe8, 0xf1, 0x00, 0x0f] {
        ends(&broker, version, &packet(first, &[]), ReasonCode::MalformedPacket).await;
    }
    refuses_silently(&broker, 0x11).await;
    // QoS 3, and DUP with QoS 0. [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT3-3.3.1-4] [MQTT3-3.3.1-2]
    for first in [0x36, 0x37, 0x38, 0x39, 0x3e] {
        let bytes = packet(first, &[&field(b"t"), &[0, 1], &none, b"m"]);
        ends(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
    }
});

/// A first packet whose header is wrong is no CONNECT.
async fn refuses_silently(broker: &TestBroker, first: u8) {
    let mut client = broker.raw().await;
    let mut bytes = connect_bytes(ProtocolVersion::V5, 2, &[], &[&field(b"c")]);
    bytes[0] = first;
    client.send_raw(&bytes).await;
    client.expect_closed().await;
}

in_both_versions!(what_the_broker_sends_has_the_flags_of_its_type, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.raw().await;
    client.send(connect("c").version(version)).await;
    // [MQTT-2.1.3-1] [MQTT3-2.2.2-1]: CONNACK, SUBACK, PUBREC, PUBREL, PUBCOMP, PUBACK, UNSUBACK, PINGRESP.
    assert_eq!(client.recv_frame().await[0], 0x20);
    client.send(subscribe(1, &[("t", 2)])).await;
    assert_eq!(client.recv_frame().await[0], 0x90);
    client.send(publish("t", 2, "m").id(1)).await;
    assert_eq!(client.recv_frame().await[0], 0x50);
    assert_eq!(client.recv_frame().await[0], 0x34);
    client.send(pubrec(1)).await;
    assert_eq!(client.recv_frame().await[0], 0x62);
    client.send(pubrel(1)).await;
    assert_eq!(client.recv_frame().await[0], 0x70);
    client.send(publish("other", 1, "m").id(1)).await;
    assert_eq!(client.recv_frame().await[0], 0x40);
    client.send(unsubscribe(2, &["t"])).await;
    assert_eq!(client.recv_frame().await[0], 0xb0);
    client.send(Packet::PingReq).await;
    assert_eq!(*client.recv_frame().await, [0xd0, 0]);
});

in_both_versions!(a_qos_0_publish_is_nothing_but_topic_and_payload, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    client.send(publish("t", 0, "m")).await;
    // No identifier, DUP 0, QoS 0; MQTT 5 says that there are no properties.
    // [MQTT-2.2.1-2] [MQTT-2.2.2-1] [MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT3-2.3.1-5] [MQTT3-4.3.1-1] [MQTT3-3.3.1-2]
    let expected: &[u8] = if version.is_v5() { b"\x30\x05\0\x01t\0m" } else { b"\x30\x04\0\x01tm" };
    assert_eq!(*client.recv_frame().await, *expected);
});

in_both_versions!(identifiers_towards_a_client_are_free_and_not_zero, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 0..6 {
        publisher.publish(publish("t", 1 + n % 2, "m")).await;
    }
    // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT3-2.3.1-4] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..6 {
        assert!(used.insert(client.recv_publish().await.packet_id.unwrap()));
    }
});

in_both_versions!(packets_that_need_an_identifier_are_refused_without_one, |version: ProtocolVersion| async move {
    let broker = TestBroker::start().await;
    let none = properties(version, &[]);
    // [MQTT-2.2.1-3] [MQTT3-2.3.1-1]
    for bytes in [
        packet(0x32, &[&field(b"t"), &[0, 0], &none, b"m"]),
        packet(0x34, &[&field(b"t"), &[0, 0], &none, b"m"]),
        packet(0x82, &[&[0, 0], &none, &field(b"t"), &[0]]),
        packet(0xa2, &[&[0, 0], &none, &field(b"t")]),
        packet(0x40, &[&[0, 0]]),
        packet(0x62, &[&[0, 0]]),
    ] {
        ends(&broker, version, &bytes, ReasonCode::ProtocolError).await;
    }
});

in_both_versions!(answers_carry_the_identifier_of_what_they_answer, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    let mut publisher = broker.client_of(version, "p").await;
    // [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.10.4-5] [MQTT3-2.3.1-7] [MQTT3-3.8.4-2] [MQTT3-3.10.4-4]
    for id in [1, 700, 65_535] {
        client.send(subscribe(id, &[("t", 2)])).await;
        client.expect(suback(id, &[ReasonCode::GrantedQoS2])).await;
        // [MQTT-2.2.1-5] [MQTT3-2.3.1-6]
        publisher.send(publish("t", 1, "m").id(id)).await;
        publisher.expect(puback(id)).await;
        publisher.send(publish("t", 2, "m").id(id)).await;
        publisher.expect(pubrec(id)).await;
        publisher.send(pubrel(id)).await;
        publisher.expect(pubcomp(id)).await;
        for _ in 0..2 {
            let got = client.recv_publish().await;
            client.acknowledge(&got).await;
        }
        client.send(unsubscribe(id, &["t", "none"])).await;
        match client.recv().await {
            Packet::UnsubAck(ack) => assert_eq!(ack.packet_id.get(), id),
            other => panic!("{other:?}"),
        }
    }
});

#[tokio::test]
async fn a_property_in_the_wrong_packet_or_twice_is_refused() {
    let broker = TestBroker::start().await;
    let v5 = ProtocolVersion::V5;
    // MQTT 5 section 2.2.2.2: Server Keep Alive in PUBLISH, an identifier that does not exist, Content Type twice.
    let publish_with = |props: &[u8]| packet(0x30, &[&field(b"t"), &properties(v5, props), b"m"]);
    ends(&broker, v5, &publish_with(&[0x13, 0, 1]), ReasonCode::MalformedPacket).await;
    ends(&broker, v5, &publish_with(&[0x7e, 0]), ReasonCode::MalformedPacket).await;
    ends(&broker, v5, &publish_with(b"\x03\0\x01a\x03\0\x01b"), ReasonCode::ProtocolError).await;
}
