//! Packets as bytes, laid out by hand from the tables of the specifications, and what they mean.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use mqtt_codec::ProtocolVersion::{V3_1, V3_1_1, V5};
use mqtt_codec::*;

fn hex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn id(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

/// Both directions, and the body cut at each byte: only at `shorter` is the rest a packet, though another one.
fn check(text: &str, version: ProtocolVersion, packet: impl Into<Packet>, shorter: &[usize]) {
    let (frame, packet) = (hex(text), packet.into());
    assert_eq!(decode(frame.clone(), version).as_ref(), Ok(&packet));
    let mut written = BytesMut::new();
    packet.encode(version, &mut written).unwrap();
    assert_eq!(written, frame);
    for len in 0..frame.len() - 2 {
        let cut = [&[frame[0], len as u8], &frame[2..2 + len]].concat();
        let result = decode(cut.into(), version);
        assert_eq!(result.is_ok(), shorter.contains(&len), "cut to {len}: {result:?}");
    }
}

fn connect(version: ProtocolVersion) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 10,
        properties: ConnectProperties::default(),
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
    }
}

#[test]
fn connect_3_1() {
    check("10 0f  0006 4d5149736470 03 02 000a  0001 63", V3_1, connect(V3_1), &[]);
}

#[test]
fn connect_3_1_1_with_will_and_login() {
    // Flags: user name, password, will retain, will QoS 1, will, clean session.
    let packet = Connect {
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: WillProperties::default(),
            topic: "w".into(),
            payload: Bytes::from_static(b"bye"),
        }),
        username: Some("u".into()),
        password: Some(Bytes::from_static(b"pw").into()),
        ..connect(V3_1_1)
    };
    let text = "10 1c  0004 4d515454 04 ee 000a  0001 63  0001 77  0003 627965  0001 75  0002 7077";
    check(text, V3_1_1, packet, &[]);
}

#[test]
fn connect_5_with_properties() {
    let packet = Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_interval: Some(10),
            receive_maximum: NonZeroU16::new(20),
            maximum_packet_size: NonZeroU32::new(256),
            ..ConnectProperties::default()
        },
        ..connect(V5)
    };
    let text = "10 1b  0004 4d515454 05 00 000a  0d 11 0000000a 21 0014 27 00000100  0001 63";
    check(text, V5, packet, &[]);
}

#[test]
fn connect_5_with_will_properties() {
    let mut properties = WillProperties { will_delay_interval: Some(5), ..WillProperties::default() };
    properties.user_properties.push("k", "v");
    let will = Will { qos: QoS::ExactlyOnce, retain: false, properties, topic: "w".into(), payload: Bytes::new() };
    let text = "10 20  0004 4d515454 05 16 000a  00  0001 63  0c 18 00000005 26 0001 6b 0001 76  0001 77  0000";
    check(text, V5, Connect { will: Some(will), ..connect(V5) }, &[]);
}

#[test]
fn connack() {
    let present = ConnAck { session_present: true, ..ConnAck::default() };
    check("20 02  01 00", V3_1_1, present.clone(), &[]);
    check("20 02  00 05", V3_1_1, ConnAck::refuse(ReasonCode::NotAuthorized), &[]);
    check("20 03  01 00  00", V5, present, &[]);
    check("20 03  00 87  00", V5, ConnAck::refuse(ReasonCode::NotAuthorized), &[]);
    let properties = ConnAckProperties {
        maximum_qos: Some(QoS::AtLeastOnce),
        assigned_client_id: Some("x".into()),
        server_keep_alive_secs: Some(30),
        ..ConnAckProperties::default()
    };
    check("20 0c  00 00  09 24 01 12 0001 78 13 001e", V5, ConnAck { properties, ..ConnAck::default() }, &[]);
}

#[test]
fn publish() {
    let packet = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: "a/b".into(),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"hi"),
    };
    check("31 07  0003 612f62  6869", V3_1_1, packet.clone(), &[5, 6]);
    check("31 08  0003 612f62  00  6869", V5, packet.clone(), &[6, 7]);
    let again = Publish { dup: true, qos: QoS::AtLeastOnce, packet_id: Some(id(10)), ..packet.clone() };
    check("3b 09  0003 612f62  000a  6869", V3_1_1, again, &[7, 8]);
    let properties = PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        topic_alias: NonZeroU16::new(3),
        subscription_ids: vec![SubscriptionId::new(128).unwrap()],
        ..PublishProperties::default()
    };
    let alias = Publish {
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "".into(),
        packet_id: Some(id(0x1234)),
        properties,
        ..packet
    };
    check("34 0f  0000  1234  08 01 01 23 0003 0b 8001  6869", V5, alias, &[13, 14]);
}

#[test]
fn acknowledgements_take_the_shortest_form() {
    for version in [V3_1_1, V5] {
        check("40 02 000a", version, PubAck::new(id(10)), &[]);
        check("50 02 000a", version, PubRec::new(id(10)), &[]);
        check("62 02 000a", version, PubRel::new(id(10)), &[]);
        check("70 02 000a", version, PubComp::new(id(10)), &[]);
    }
    check("40 03 000a 10", V5, PubAck::with_reason(id(10), ReasonCode::NoMatchingSubscribers), &[2]);
    check("62 03 000a 92", V5, PubRel::with_reason(id(10), ReasonCode::PacketIdentifierNotFound), &[2]);
    let properties = AckProperties { reason_string: Some("no".into()), ..AckProperties::default() };
    let refused = PubRec { properties, ..PubRec::with_reason(id(10), ReasonCode::NotAuthorized) };
    check("50 09 000a 87 05 1f 0002 6e6f", V5, refused, &[2, 3]);
}

#[test]
fn long_forms_of_success_are_read_too() {
    assert_eq!(decode(hex("40 03 000a 00"), V5), Ok(PubAck::new(id(10)).into()));
    assert_eq!(decode(hex("40 04 000a 00 00"), V5), Ok(PubAck::new(id(10)).into()));
    assert_eq!(decode(hex("e0 01 00"), V5), Ok(Disconnect::default().into()));
    assert_eq!(decode(hex("e0 02 00 00"), V5), Ok(Disconnect::default().into()));
}

#[test]
fn subscribe_and_suback() {
    let plain = |filter: &'static str, qos| Subscription {
        filter: filter.into(),
        options: SubscriptionOptions { qos, ..SubscriptionOptions::default() },
    };
    let packet = Subscribe {
        packet_id: id(10),
        properties: SubscribeProperties::default(),
        subscriptions: vec![plain("a/b", QoS::AtLeastOnce), plain("c/+", QoS::ExactlyOnce)],
    };
    check("82 0e  000a  0003 612f62 01  0003 632f2b 02", V3_1_1, packet, &[8]);
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let packet = Subscribe {
        packet_id: id(10),
        properties: SubscribeProperties { subscription_id: SubscriptionId::new(321), ..Default::default() },
        subscriptions: vec![Subscription { filter: "#".into(), options }],
    };
    check("82 0a  000a  03 0b c102  0001 23 2d", V5, packet, &[]);
    let reasons = vec![ReasonCode::Success, ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];
    let answer = SubAck { packet_id: id(10), properties: SubAckProperties::default(), reasons };
    check("90 05  000a  00 02 80", V3_1_1, answer.clone(), &[3, 4]);
    check("90 06  000a  00  00 02 80", V5, answer, &[4, 5]);
}

#[test]
fn unsubscribe_and_unsuback() {
    let packet = Unsubscribe {
        packet_id: id(10),
        properties: UnsubscribeProperties::default(),
        filters: vec!["a/b".into(), "c".into()],
    };
    check("a2 0a  000a  0003 612f62  0001 63", V3_1_1, packet.clone(), &[7]);
    check("a2 0b  000a  00  0003 612f62  0001 63", V5, packet, &[8]);
    let answer = UnsubAck { packet_id: id(10), properties: UnsubAckProperties::default(), reasons: vec![] };
    check("b0 02  000a", V3_1_1, answer.clone(), &[]);
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    check("b0 05  000a  00  00 11", V5, UnsubAck { reasons, ..answer }, &[4]);
}

#[test]
fn ping_disconnect_and_auth() {
    for version in [V3_1, V3_1_1, V5] {
        check("c0 00", version, Packet::PingReq, &[]);
        check("d0 00", version, Packet::PingResp, &[]);
        check("e0 00", version, Disconnect::default(), &[]);
    }
    check("e0 01 8e", V5, Disconnect::new(ReasonCode::SessionTakenOver), &[0]);
    let properties = DisconnectProperties { session_expiry_interval: Some(0), ..Default::default() };
    check("e0 07 04 05 11 00000000", V5, Disconnect { reason: ReasonCode::DisconnectWithWill, properties }, &[0, 1]);
    check("f0 00", V5, Auth { reason: ReasonCode::Success, properties: AuthProperties::default() }, &[]);
    let properties = AuthProperties {
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::from_static(b"\x01").into()),
        ..AuthProperties::default()
    };
    check(
        "f0 0a 18 08 15 0001 6d 16 0001 01",
        V5,
        Auth { reason: ReasonCode::ContinueAuthentication, properties },
        &[0],
    );
}

#[test]
fn strings_and_payloads_share_the_frames_memory() {
    let frame = hex("31 08  0003 612f62  00  6869");
    let Ok(Packet::Publish(publish)) = decode(frame.clone(), V5) else { unreachable!() };
    assert_eq!(publish.payload.as_ptr(), frame[8..].as_ptr());
    assert_eq!(publish.topic.as_bytes().as_ptr(), frame[4..].as_ptr());
}
