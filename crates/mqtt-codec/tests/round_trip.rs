//! Whatever can be written is read back as it was, and its frame has no valid prefix.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_codec::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn string() -> impl Strategy<Value = ByteString> {
    "[^\u{0}]{0,12}".prop_map(ByteString::from)
}

fn name() -> impl Strategy<Value = ByteString> {
    "[^\u{0}+#]{1,12}".prop_map(ByteString::from)
}

fn filter() -> impl Strategy<Value = ByteString> {
    ("(\\$share/[a-z]{1,3}/)?([a-zü ]{0,3}/|\\+/){0,4}(#|\\+|[a-z]{1,2})").prop_map(ByteString::from)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn secret() -> impl Strategy<Value = Secret> {
    bytes().prop_map(Secret::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((string(), string()), 0..4).prop_map(UserProperties::from)
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..=MAX_REMAINING_LENGTH).prop_map(|v| SubscriptionId::new(v).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn format() -> impl Strategy<Value = PayloadFormat> {
    select(&[PayloadFormat::Unspecified, PayloadFormat::Utf8][..])
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    select(ReasonCode::ALL.iter().copied().filter(|r| r.allowed_in(packet)).collect::<Vec<_>>())
}

prop_compose! {
    fn connect_properties()(
        session_expiry_interval in of(any::<u32>()),
        receive_maximum in of(id()),
        maximum_packet_size in of(any::<NonZeroU32>()),
        topic_alias_maximum in of(any::<u16>()),
        request_response_information in of(any::<bool>()),
        request_problem_information in of(any::<bool>()),
        user_properties in user(),
        auth in of((string(), of(secret()))),
    ) -> ConnectProperties {
        let (authentication_method, authentication_data) = auth.map_or((None, None), |(m, d)| (Some(m), d));
        ConnectProperties {
            session_expiry_interval, receive_maximum, maximum_packet_size, topic_alias_maximum,
            request_response_information, request_problem_information, user_properties,
            authentication_method, authentication_data,
        }
    }
}

prop_compose! {
    fn will()(
        qos in qos(), retain in any::<bool>(), topic in name(), payload in bytes(),
        will_delay_interval in of(any::<u32>()), payload_format in of(format()),
        message_expiry_interval in of(any::<u32>()), content_type in of(string()), response_topic in of(name()),
        correlation_data in of(bytes()), user_properties in user(),
    ) -> Will {
        let properties = WillProperties {
            will_delay_interval, payload_format, message_expiry_interval, content_type, response_topic,
            correlation_data, user_properties,
        };
        Will { qos, retain, properties, topic, payload }
    }
}

prop_compose! {
    fn connect()(
        clean_start in any::<bool>(), keep_alive_secs in any::<u16>(), properties in connect_properties(),
        client_id in string(), will in of(will()), username in of(string()), password in of(secret()),
    ) -> Packet {
        Connect {
            version: ProtocolVersion::V5,
            clean_start, keep_alive_secs, properties, client_id, will, username, password,
        }.into()
    }
}

prop_compose! {
    fn connect_v3()(
        version in select(&[ProtocolVersion::V3_1, ProtocolVersion::V3_1_1][..]),
        clean_start in any::<bool>(), keep_alive_secs in any::<u16>(), client_id in name(), will in of(will()),
        login in of((string(), of(secret()))),
    ) -> Connect {
        let (username, password) = login.map_or((None, None), |(u, p)| (Some(u), p));
        let will = will.map(|w| Will { properties: WillProperties::default(), ..w });
        let properties = ConnectProperties::default();
        Connect { version, clean_start, keep_alive_secs, properties, client_id, will, username, password }
    }
}

prop_compose! {
    fn connack_properties()(
        numbers in (of(any::<u32>()), of(id()), of(any::<NonZeroU32>()), of(any::<u16>()), of(any::<u16>())),
        flags in (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>())),
        maximum_qos in of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
        strings in (of(string()), of(string()), of(string()), of(string())),
        user_properties in user(),
        auth in of((string(), of(secret()))),
    ) -> ConnAckProperties {
        let (authentication_method, authentication_data) = auth.map_or((None, None), |(m, d)| (Some(m), d));
        ConnAckProperties {
            session_expiry_interval: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_size: numbers.2,
            topic_alias_maximum: numbers.3,
            server_keep_alive_secs: numbers.4,
            retain_available: flags.0,
            wildcard_subscription_available: flags.1,
            subscription_ids_available: flags.2,
            shared_subscription_available: flags.3,
            maximum_qos,
            assigned_client_id: strings.0,
            reason_string: strings.1,
            response_information: strings.2,
            server_reference: strings.3,
            user_properties, authentication_method, authentication_data,
        }
    }
}

prop_compose! {
    fn connack()(
        present in any::<bool>(), reason in reason(PacketType::ConnAck), properties in connack_properties(),
    ) -> Packet {
        ConnAck { session_present: present && reason == ReasonCode::Success, reason, properties }.into()
    }
}

prop_compose! {
    fn publish()(
        qos in qos(), dup in any::<bool>(), retain in any::<bool>(), topic in name(), packet_id in id(),
        payload_format in of(format()), message_expiry_interval in of(any::<u32>()), topic_alias in of(id()),
        response_topic in of(name()), correlation_data in of(bytes()),
        more in (user(), vec(subscription_id(), 0..4), of(string()), bytes()),
    ) -> Publish {
        let (user_properties, subscription_ids, content_type, payload) = more;
        let acked = qos != QoS::AtMostOnce;
        Publish {
            dup: dup && acked, qos, retain, topic, packet_id: acked.then_some(packet_id), payload,
            properties: PublishProperties {
                payload_format, message_expiry_interval, topic_alias, response_topic, correlation_data,
                user_properties, subscription_ids, content_type,
            },
        }
    }
}

macro_rules! ack {
    ($fn:ident, $name:ident) => {
        fn $fn() -> impl Strategy<Value = Packet> {
            (id(), reason(PacketType::$name), of(string()), user()).prop_map(|(packet_id, reason, s, u)| {
                let properties = AckProperties { reason_string: s, user_properties: u };
                $name { packet_id, reason, properties }.into()
            })
        }
    };
}
ack!(puback, PubAck);
ack!(pubrec, PubRec);
ack!(pubrel, PubRel);
ack!(pubcomp, PubComp);

fn subscription() -> impl Strategy<Value = Subscription> {
    let handling = select(&[RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(|(filter, qos, nl, rap, retain_handling)| {
        let no_local = nl && !topic::is_shared(&filter);
        Subscription {
            filter,
            options: SubscriptionOptions { qos, no_local, retain_as_published: rap, retain_handling },
        }
    })
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    (id(), of(subscription_id()), user(), vec(subscription(), 1..6)).prop_map(
        |(packet_id, subscription_id, user_properties, subscriptions)| Subscribe {
            packet_id,
            properties: SubscribeProperties { subscription_id, user_properties },
            subscriptions,
        },
    )
}

fn suback() -> impl Strategy<Value = Packet> {
    (id(), of(string()), user(), vec(reason(PacketType::SubAck), 1..6)).prop_map(|(packet_id, s, u, reasons)| {
        let properties = SubAckProperties { reason_string: s, user_properties: u };
        SubAck { packet_id, properties, reasons }.into()
    })
}

fn unsubscribe() -> impl Strategy<Value = Unsubscribe> {
    (id(), user(), vec(filter(), 1..6)).prop_map(|(packet_id, user_properties, filters)| Unsubscribe {
        packet_id,
        properties: UnsubscribeProperties { user_properties },
        filters,
    })
}

fn unsuback() -> impl Strategy<Value = Packet> {
    (id(), of(string()), user(), vec(reason(PacketType::UnsubAck), 1..6)).prop_map(|(packet_id, s, u, reasons)| {
        let properties = UnsubAckProperties { reason_string: s, user_properties: u };
        UnsubAck { packet_id, properties, reasons }.into()
    })
}

fn disconnect() -> impl Strategy<Value = Packet> {
    (reason(PacketType::Disconnect), of(any::<u32>()), of(string()), user(), of(string())).prop_map(
        |(reason, session_expiry_interval, reason_string, user_properties, server_reference)| {
            let properties =
                DisconnectProperties { session_expiry_interval, reason_string, user_properties, server_reference };
            Disconnect { reason, properties }.into()
        },
    )
}

fn auth() -> impl Strategy<Value = Packet> {
    (reason(PacketType::Auth), string(), of(secret()), of(string()), user()).prop_map(
        |(reason, method, authentication_data, reason_string, user_properties)| {
            let authentication_method = Some(method);
            let properties =
                AuthProperties { authentication_method, authentication_data, reason_string, user_properties };
            Auth { reason, properties }.into()
        },
    )
}

fn any_v5() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect(),
        connack(),
        publish().prop_map(Packet::from),
        prop_oneof![puback(), pubrec(), pubrel(), pubcomp()],
        subscribe().prop_map(Packet::from),
        suback(),
        unsubscribe().prop_map(Packet::from),
        unsuback(),
        select(vec![Packet::PingReq, Packet::PingResp]),
        disconnect(),
        auth(),
    ]
}

/// Packets as MQTT 3.1 and 3.1.1 can say them.
fn any_v3() -> impl Strategy<Value = Packet> {
    let plain_ack = id().prop_flat_map(|i| {
        select(vec![
            Packet::from(PubAck::new(i)),
            PubRec::new(i).into(),
            PubRel::new(i).into(),
            PubComp::new(i).into(),
            UnsubAck { packet_id: i, properties: UnsubAckProperties::default(), reasons: vec![] }.into(),
        ])
    });
    let granted = select(vec![
        ReasonCode::Success,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ]);
    prop_oneof![
        connect_v3().prop_map(Packet::from),
        (0..=5u8).prop_map(|c| ConnAck::refuse(ReasonCode::from_connect_return_code(c).unwrap()).into()),
        publish().prop_map(|p| Publish { properties: PublishProperties::default(), ..p }.into()),
        plain_ack,
        subscribe().prop_map(|mut s| {
            s.properties = SubscribeProperties::default();
            for entry in &mut s.subscriptions {
                entry.options = SubscriptionOptions { qos: entry.options.qos, ..Default::default() };
            }
            s.into()
        }),
        (id(), vec(granted, 1..6)).prop_map(|(packet_id, reasons)| {
            SubAck { packet_id, properties: SubAckProperties::default(), reasons }.into()
        }),
        unsubscribe().prop_map(|u| Unsubscribe { properties: UnsubscribeProperties::default(), ..u }.into()),
        select(vec![Packet::PingReq, Packet::PingResp, Disconnect::default().into()]),
    ]
}

fn encode(packet: &Packet, version: ProtocolVersion) -> Bytes {
    let mut dst = BytesMut::new();
    packet.encode(version, &mut dst).unwrap();
    assert_eq!(dst.len(), packet.encoded_len(version).unwrap());
    dst.freeze()
}

/// The frame with only the first `len` bytes of its body and a length that says so.
fn cut(frame: &Bytes, len: usize) -> Bytes {
    let header = 1 + frame[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
    let mut out = vec![frame[0]];
    let mut rest = len;
    loop {
        let more = rest > 0x7f;
        out.push((rest & 0x7f) as u8 | if more { 0x80 } else { 0 });
        rest >>= 7;
        if !more {
            break;
        }
    }
    out.extend_from_slice(&frame[header..header + len]);
    out.into()
}

fn check(packet: &Packet, version: ProtocolVersion) {
    let frame = encode(packet, version);
    assert_eq!(decode(frame.clone(), version).as_ref(), Ok(packet));
    for end in 0..frame.len() {
        let prefix = frame_len(&frame[..end], u32::MAX).unwrap();
        assert!(matches!(prefix, FrameLen::NeedMore | FrameLen::Partial { .. }), "{end}: {prefix:?}");
        assert!(decode(frame.slice(..end), version).is_err());
    }
    assert_eq!(frame_len(&frame, u32::MAX), Ok(FrameLen::Complete(frame.len())));
    let mut longer = frame.to_vec();
    longer.push(0);
    assert_eq!(decode(longer.into(), version), Err(DecodeError::TrailingBytes));
    let header = 1 + frame[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
    for len in 0..frame.len() - header {
        // A list, a payload or an optional tail may end earlier; then it is another packet.
        if let Ok(shorter) = decode(cut(&frame, len), version) {
            assert_ne!(&shorter, packet, "cut to {len}");
        }
    }
}

proptest! {
    #[test]
    fn v5_packets_round_trip(packet in any_v5()) {
        check(&packet, ProtocolVersion::V5);
    }

    #[test]
    fn v3_packets_round_trip(packet in any_v3()) {
        check(&packet, ProtocolVersion::V3_1_1);
        check(&packet, ProtocolVersion::V3_1);
    }

    #[test]
    fn first_connect_round_trips(packet in prop_oneof![connect(), connect_v3().prop_map(Packet::from)]) {
        let Packet::Connect(connect) = &packet else { unreachable!() };
        prop_assert_eq!(&decode_connect(encode(&packet, connect.version)).unwrap(), connect.as_ref());
    }

    #[test]
    fn header_and_payload_are_the_publish(publish in publish(), v5 in any::<bool>()) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 };
        let header = PublishHeader {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: &publish.topic,
            packet_id: publish.packet_id,
            properties: &publish.properties,
            message_expiry_interval: publish.properties.message_expiry_interval,
            topic_alias: publish.properties.topic_alias,
            subscription_ids: &publish.properties.subscription_ids,
            payload_len: publish.payload.len(),
        };
        let mut dst = BytesMut::new();
        header.encode(version, &mut dst).unwrap();
        dst.extend_from_slice(&publish.payload);
        prop_assert_eq!(dst.len(), header.packet_len(version).unwrap());
        prop_assert_eq!(dst.freeze(), encode(&publish.clone().into(), version));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_survive_re_encoding(mut body in vec(any::<u8>(), 0..80), first in any::<u8>()) {
        let mut frame = vec![first, body.len() as u8];
        frame.append(&mut body);
        for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            if let Ok(packet) = decode(frame.clone().into(), version) {
                let again = encode(&packet, version);
                prop_assert_eq!(decode(again, version), Ok(packet));
            }
        }
        let _ = decode_connect(frame.into());
    }
}
