//! Each thing that the specification forbids is refused, with the reason code it asks for.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use mqtt_codec::DecodeError as E;
use mqtt_codec::ProtocolVersion::{V3_1, V3_1_1, V5};
use mqtt_codec::*;

fn frame(first: u8, body: &[u8]) -> Bytes {
    assert!(body.len() < 128);
    let mut out = vec![first, body.len() as u8];
    out.extend_from_slice(body);
    out.into()
}

fn error(first: u8, body: &[u8], version: ProtocolVersion) -> E {
    decode(frame(first, body), version).unwrap_err()
}

fn connect_v5(flags: u8, tail: &[u8]) -> Result<Connect, ConnectError> {
    let mut body = b"\0\x04MQTT\x05".to_vec();
    body.extend_from_slice(&[flags, 0, 60]);
    body.extend_from_slice(tail);
    decode_connect(frame(0x10, &body))
}

fn connect_v4(flags: u8, tail: &[u8]) -> Result<Connect, ConnectError> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend_from_slice(&[flags, 0, 60]);
    body.extend_from_slice(tail);
    decode_connect(frame(0x10, &body))
}

macro_rules! rejects {
    ($($name:ident: $actual:expr => $expected:expr, $code:literal;)*) => { $(
        #[test]
        fn $name() {
            let error: E = $actual;
            assert_eq!(error, $expected);
            assert_eq!(error.reason_code().as_u8(), $code);
        }
    )* };
}

rejects! {
    rejects_packet_type_zero: error(0x00, &[], V5) => E::PacketType(0), 0x81;
    rejects_auth_before_mqtt_5: error(0xf0, &[], V3_1_1) => E::PacketType(15), 0x81;
    rejects_connect_flags_in_fixed_header: error(0x11, &[], V5) => E::FixedHeaderFlags(0x11), 0x81;
    rejects_pubrel_without_its_flags: error(0x60, &[0, 1], V5) => E::FixedHeaderFlags(0x60), 0x81; // [MQTT-3.6.1-1]
    rejects_pubrel_with_dup_from_3_1_1: error(0x6a, &[0, 1], V3_1_1) => E::FixedHeaderFlags(0x6a), 0x81;
    rejects_subscribe_without_its_flags: error(0x80, &[0, 1], V5) => E::FixedHeaderFlags(0x80), 0x81; // [MQTT-3.8.1-1]
    rejects_publish_qos_3: error(0x36, b"\0\x01a\0\x01", V5) => E::FixedHeaderFlags(0x36), 0x81; // [MQTT-3.3.1-4]
    rejects_publish_dup_qos_0: error(0x38, b"\0\x01a", V3_1_1) => E::FixedHeaderFlags(0x38), 0x81; // [MQTT-3.3.1-2]
    rejects_bytes_after_pingreq: error(0xc0, &[0], V5) => E::TrailingBytes, 0x81;
    rejects_bytes_after_disconnect_3_1_1: error(0xe0, &[0], V3_1_1) => E::TrailingBytes, 0x81;
    rejects_bytes_after_puback_3_1_1: error(0x40, &[0, 1, 0], V3_1_1) => E::TrailingBytes, 0x81;
    rejects_topic_longer_than_packet: error(0x30, b"\0\x05a", V5) => E::Truncated, 0x81;
    rejects_ill_formed_utf8: error(0x30, b"\0\x02\xc3\x28", V3_1_1) => E::Utf8, 0x81; // [MQTT-1.5.4-1]
    rejects_surrogate_in_utf8: error(0x30, b"\0\x03\xed\xa0\x80", V3_1_1) => E::Utf8, 0x81; // [MQTT-1.5.4-1]
    rejects_null_character: error(0x30, b"\0\x03a\0b", V3_1_1) => E::NullCharacter, 0x81; // [MQTT-1.5.4-2]
    rejects_publish_packet_id_zero: error(0x32, b"\0\x01a\0\0", V3_1_1) => E::PacketIdZero, 0x82; // [MQTT-2.2.1-3]
    rejects_puback_packet_id_zero: error(0x40, &[0, 0], V5) => E::PacketIdZero, 0x82;
    rejects_subscribe_packet_id_zero: error(0x82, b"\0\0\0\x01a\0", V3_1_1) => E::PacketIdZero, 0x82;
    rejects_plus_in_topic_name: error(0x30, b"\0\x03a/+\0", V5) => E::TopicName, 0x90; // [MQTT-3.3.2-2]
    rejects_hash_in_topic_name: error(0x30, b"\0\x01#", V3_1_1) => E::TopicName, 0x90;
    rejects_empty_topic_before_mqtt_5: error(0x30, b"\0\0", V3_1_1) => E::TopicName, 0x90; // [MQTT-4.7.3-1]
    rejects_empty_topic_without_alias: error(0x30, b"\0\0\0", V5) => E::MissingTopic, 0x82;
    rejects_topic_alias_zero: error(0x30, b"\0\0\x03\x23\0\0", V5)
        => E::PropertyValue(PropertyId::TopicAlias), 0x82; // [MQTT-3.3.2-8]
    rejects_payload_format_2: error(0x30, b"\0\x01a\x02\x01\x02", V5)
        => E::PropertyValue(PropertyId::PayloadFormatIndicator), 0x82;
    rejects_subscription_id_zero: error(0x30, b"\0\x01a\x02\x0b\0", V5)
        => E::PropertyValue(PropertyId::SubscriptionIdentifier), 0x82;
    rejects_wildcard_in_response_topic: error(0x30, b"\0\x01a\x04\x08\0\x01#", V5) => E::TopicName, 0x90; // [MQTT-3.3.2-14]
    rejects_property_twice: error(0x30, b"\0\x01a\x04\x01\x01\x01\x01", V5)
        => E::DuplicateProperty(PropertyId::PayloadFormatIndicator), 0x82;
    rejects_property_of_another_packet: error(0x30, b"\0\x01a\x03\x21\0\x01", V5)
        => E::PropertyNotAllowed(PropertyId::ReceiveMaximum), 0x81;
    rejects_unknown_property: error(0x30, b"\0\x01a\x02\x7f\0", V5) => E::UnknownProperty(0x7f), 0x81;
    rejects_property_past_its_list: error(0x30, b"\0\x01a\x02\x02\0\0\0\x01", V5) => E::Truncated, 0x81;
    rejects_property_list_past_the_packet: error(0x30, b"\0\x01a\x7f\x01\x01", V5) => E::Truncated, 0x81;
    rejects_five_byte_property_length: error(0x30, b"\0\x01a\x80\x80\x80\x80\x01", V5) => E::VariableByteInteger, 0x81;
    rejects_over_long_property_length: error(0x30, b"\0\x01a\x80\0", V5) => E::VariableByteInteger, 0x81; // [MQTT-1.5.5-1]
    rejects_empty_subscribe: error(0x82, &[0, 1], V3_1_1) => E::EmptyList, 0x82; // [MQTT-3.8.3-2]
    rejects_empty_subscribe_v5: error(0x82, &[0, 1, 0], V5) => E::EmptyList, 0x82;
    rejects_empty_unsubscribe: error(0xa2, &[0, 1], V3_1_1) => E::EmptyList, 0x82; // [MQTT-3.10.3-2]
    rejects_empty_suback: error(0x90, &[0, 1], V3_1_1) => E::EmptyList, 0x82;
    rejects_subscribe_without_options: error(0x82, b"\0\x01\0\x01a", V3_1_1) => E::Truncated, 0x81;
    rejects_subscribe_qos_3: error(0x82, b"\0\x01\0\x01a\x03", V3_1_1) => E::SubscriptionOption("QoS"), 0x82;
    rejects_mqtt_5_options_before_mqtt_5: error(0x82, b"\0\x01\0\x01a\x04", V3_1_1)
        => E::Flags("subscription options"), 0x81;
    rejects_reserved_subscription_options: error(0x82, b"\0\x01\0\0\x01a\x40", V5)
        => E::Flags("subscription options"), 0x81; // [MQTT-3.8.3-5]
    rejects_retain_handling_3: error(0x82, b"\0\x01\0\0\x01a\x30", V5) => E::SubscriptionOption("retain handling"), 0x82;
    rejects_no_local_on_shared: error(0x82, b"\0\x01\0\0\x0a$share/g/a\x04", V5) => E::NoLocalOnShared, 0x82; // [MQTT-3.8.3-4]
    rejects_invalid_filter: error(0x82, b"\0\x01\0\x02a#\0", V3_1_1) => E::TopicFilter, 0x8f; // [MQTT-4.7.1-1]
    rejects_empty_filter: error(0x82, b"\0\x01\0\0\0", V3_1_1) => E::TopicFilter, 0x8f; // [MQTT-4.7.3-1]
    rejects_share_without_filter: error(0xa2, b"\0\x01\0\0\x08$share/g", V5) => E::TopicFilter, 0x8f; // [MQTT-4.8.2-2]
    rejects_second_subscription_id: error(0x82, b"\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", V5)
        => E::DuplicateProperty(PropertyId::SubscriptionIdentifier), 0x82;
    rejects_puback_reason_of_another_packet: error(0x40, &[0, 1, 0x92], V5)
        => E::ReasonCode { packet: PacketType::PubAck, code: 0x92 }, 0x81;
    rejects_undefined_reason: error(0xe0, &[0x7f], V5)
        => E::ReasonCode { packet: PacketType::Disconnect, code: 0x7f }, 0x81;
    rejects_suback_code_3: error(0x90, &[0, 1, 3], V3_1_1)
        => E::ReasonCode { packet: PacketType::SubAck, code: 3 }, 0x81;
    rejects_suback_mqtt_5_code_before_mqtt_5: error(0x90, &[0, 1, 0x87], V3_1_1)
        => E::ReasonCode { packet: PacketType::SubAck, code: 0x87 }, 0x81;
    rejects_connack_flags: error(0x20, &[2, 0], V3_1_1) => E::Flags("CONNACK flags"), 0x81; // [MQTT-3.2.2-1]
    rejects_session_present_in_refusal: error(0x20, &[1, 5], V3_1_1)
        => E::Flags("session present in a refusal"), 0x81; // [MQTT-3.2.2-6]
    rejects_connack_return_code_6: error(0x20, &[0, 6], V3_1_1)
        => E::ReasonCode { packet: PacketType::ConnAck, code: 6 }, 0x81;
    rejects_maximum_qos_2: error(0x20, &[0, 0, 2, 0x24, 2], V5) => E::PropertyValue(PropertyId::MaximumQoS), 0x82;
    rejects_auth_without_method: error(0xf0, &[0x18, 0], V5) => E::MissingAuthenticationMethod, 0x82;
    rejects_auth_reason_alone: error(0xf0, &[0x18], V5) => E::Truncated, 0x81;
    rejects_first_packet_other_than_connect: decode_connect(frame(0xc0, &[])).unwrap_err().error
        => E::NotConnect(PacketType::PingReq), 0x82; // [MQTT-3.1.0-1]
    rejects_reserved_connect_flag: connect_v5(0x01, b"\0\0\x01c").unwrap_err().error
        => E::Flags("reserved connect flag"), 0x81; // [MQTT-3.1.2-3]
    rejects_will_qos_3: connect_v5(0x1c, b"\0\0\x01c").unwrap_err().error => E::QoS, 0x81; // [MQTT-3.1.2-12]
    rejects_will_qos_without_will: connect_v5(0x08, b"\0\0\x01c").unwrap_err().error
        => E::Flags("will flags without a will"), 0x81; // [MQTT-3.1.2-11]
    rejects_will_retain_without_will: connect_v5(0x20, b"\0\0\x01c").unwrap_err().error
        => E::Flags("will flags without a will"), 0x81; // [MQTT-3.1.2-13]
    rejects_will_topic_with_wildcard: connect_v4(0x06, b"\0\x01c\0\x01#\0\0").unwrap_err().error => E::TopicName, 0x90;
    rejects_property_of_connect_in_will: connect_v5(0x06, b"\0\0\x01c\x05\x11\0\0\0\x01\0\x01t\0\0").unwrap_err().error
        => E::PropertyNotAllowed(PropertyId::SessionExpiryInterval), 0x81;
    rejects_missing_user_name: connect_v5(0x80, b"\0\0\x01c").unwrap_err().error => E::Truncated, 0x81;
    rejects_password_without_user_name: connect_v4(0x42, b"\0\x01c\0\x01p").unwrap_err().error
        => E::Flags("password flag without user name flag"), 0x81; // [MQTT3-3.1.2-22]
    rejects_receive_maximum_zero: connect_v5(0x02, b"\x03\x21\0\0\0\x01c").unwrap_err().error
        => E::PropertyValue(PropertyId::ReceiveMaximum), 0x82;
    rejects_maximum_packet_size_zero: connect_v5(0x02, b"\x05\x27\0\0\0\0\0\x01c").unwrap_err().error
        => E::PropertyValue(PropertyId::MaximumPacketSize), 0x82;
    rejects_request_problem_information_2: connect_v5(0x02, b"\x02\x17\x02\0\x01c").unwrap_err().error
        => E::PropertyValue(PropertyId::RequestProblemInformation), 0x82;
    rejects_authentication_data_alone: connect_v5(0x02, b"\x04\x16\0\x01x\0\x01c").unwrap_err().error
        => E::MissingAuthenticationMethod, 0x82;
    rejects_bytes_after_connect: connect_v4(0x02, b"\0\x01c\0").unwrap_err().error => E::TrailingBytes, 0x81;
}

#[test]
fn accepts_what_only_mqtt_3_1_allows() {
    assert!(decode(frame(0x6a, &[0, 1]), V3_1).is_ok(), "DUP on PUBREL");
    let missing = decode_connect(frame(0x10, b"\0\x06MQIsdp\x03\xc2\0\x0a\0\x01c")).unwrap();
    assert_eq!((missing.version, missing.username, missing.password), (V3_1, None, None));
}

#[test]
fn accepts_password_without_user_name_in_mqtt_5() {
    let connect = connect_v5(0x42, b"\0\0\x01c\0\x01p").unwrap();
    assert_eq!(connect.password.unwrap().as_bytes(), b"p");
}

#[test]
fn unsupported_version_is_answered_in_words_the_client_knows() {
    let of = |body: &[u8]| decode_connect(frame(0x10, body)).unwrap_err();
    let old = of(b"\0\x04MQTT\x03");
    assert_eq!((old.error, old.answer), (E::ProtocolLevel(3), Some(V3_1_1)));
    assert_eq!(old.error.reason_code().to_connect_return_code(), 1);
    let new = of(b"\0\x04MQTT\x06");
    assert_eq!((new.error, new.answer), (E::ProtocolLevel(6), Some(V5)));
    assert_eq!(new.error.reason_code().as_u8(), 0x84);
    assert_eq!(of(b"\0\x04mqtt\x04").error, E::ProtocolName);
}

#[test]
fn empty_client_id_needs_a_clean_session_before_mqtt_5() {
    let refused = connect_v4(0x00, b"\0\0").unwrap_err();
    assert_eq!((refused.error, refused.answer), (E::ClientId, Some(V3_1_1)));
    assert_eq!(refused.error.reason_code().to_connect_return_code(), 2);
    assert!(connect_v4(0x02, b"\0\0").is_ok());
    assert!(connect_v5(0x00, b"\0\0\0").is_ok());
}

#[test]
fn malformed_connect_is_answered_only_in_mqtt_5() {
    assert_eq!(connect_v4(0x01, b"\0\x01c").unwrap_err().answer, None);
    assert_eq!(connect_v5(0x01, b"\0\0\x01c").unwrap_err().answer, Some(V5));
}

#[test]
fn every_property_is_read_in_exactly_the_packets_of_the_table() {
    let value = |id: PropertyId| match id.kind() {
        PropertyKind::Byte => vec![1],
        PropertyKind::TwoByteInteger => vec![0, 1],
        PropertyKind::FourByteInteger => vec![0, 0, 0, 1],
        PropertyKind::VariableByteInteger => vec![1],
        PropertyKind::String | PropertyKind::Binary => vec![0, 1, b'x'],
        PropertyKind::StringPair => vec![0, 1, b'x', 0, 1, b'y'],
    };
    type S = PropertyScope;
    // What stands before and after the property list in each packet.
    let scopes: [(S, u8, &[u8], &[u8]); 10] = [
        (S::Connect, 0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\x01c"),
        (S::Will, 0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\x01c", b"\0\x01t\0\0"),
        (S::ConnAck, 0x20, &[0, 0], &[]),
        (S::Publish, 0x30, b"\0\x01a", &[]),
        (S::Ack, 0x50, &[0, 1, 0], &[]),
        (S::Subscribe, 0x82, &[0, 1], b"\0\x01a\0"),
        (S::SubAck, 0x90, &[0, 1], &[0]),
        (S::Unsubscribe, 0xa2, &[0, 1], b"\0\x01a"),
        (S::UnsubAck, 0xb0, &[0, 1], &[0]),
        (S::Disconnect, 0xe0, &[0], &[]),
    ];
    for &id in PropertyId::ALL {
        assert_eq!(PropertyId::from_u32(id as u32), Some(id));
        for (scope, first, before, after) in scopes {
            let value = value(id);
            let body = [before, &[1 + value.len() as u8, id as u8], &value, after].concat();
            match decode(frame(first, &body), V5) {
                Ok(packet) => {
                    assert!(id.allowed_in(scope), "{id:?} in {scope:?}");
                    let mut again = BytesMut::new();
                    packet.encode(V5, &mut again).unwrap();
                    assert_eq!(again, frame(first, &body), "{id:?} in {scope:?}");
                }
                Err(E::MissingAuthenticationMethod) => assert!(id.allowed_in(scope)),
                Err(e) => {
                    assert_eq!(e, E::PropertyNotAllowed(id), "{scope:?}");
                    assert!(!id.allowed_in(scope), "{id:?} in {scope:?}");
                }
            }
        }
    }
}

#[test]
fn elements_beyond_the_limits_are_refused() {
    let limits = Limits { user_properties: 2, subscriptions: 2 };
    let pair = b"\x26\0\x01a\0\x01b";
    let list = |n: usize| [&b"\0\x01t"[..], &[(n * pair.len()) as u8], &pair.repeat(n)].concat();
    assert!(decode_with(frame(0x30, &list(2)), V5, limits).is_ok());
    let many = decode_with(frame(0x30, &list(3)), V5, limits).unwrap_err();
    assert_eq!((many, many.reason_code()), (E::TooManyUserProperties, ReasonCode::QuotaExceeded));
    let filters = |n: usize| [&[0, 1][..], &b"\0\x01a\0".repeat(n)].concat();
    assert!(decode_with(frame(0x82, &filters(2)), V3_1_1, limits).is_ok());
    assert_eq!(decode_with(frame(0x82, &filters(3)), V3_1_1, limits), Err(E::TooManySubscriptions));
    assert_eq!(decode_with(frame(0x90, &[0, 1, 0, 0, 0]), V3_1_1, limits), Err(E::TooManySubscriptions));
    let ids = b"\0\x01t\x06\x0b\x01\x0b\x02\x0b\x03";
    assert_eq!(decode_with(frame(0x30, ids), V5, limits), Err(E::TooManySubscriptions));
}

#[test]
fn encoder_refuses_what_the_format_cannot_hold_and_writes_nothing() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a".into(),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: Bytes::new(),
    };
    let mut dst = BytesMut::new();
    let mut refuse = |packet: Packet, version, error| {
        assert_eq!(packet.encode(version, &mut dst), Err(error));
        assert!(dst.is_empty());
    };
    let id = std::num::NonZeroU16::MIN;
    refuse(Publish { qos: QoS::AtLeastOnce, ..publish.clone() }.into(), V5, EncodeError::PacketId);
    refuse(Publish { packet_id: Some(id), ..publish.clone() }.into(), V5, EncodeError::PacketId);
    refuse(Publish { dup: true, ..publish.clone() }.into(), V5, EncodeError::DupQoS0);
    refuse(Publish { topic: "a".repeat(65_536).into(), ..publish }.into(), V5, EncodeError::FieldTooLong(65_536));
    let wrong = PubAck::with_reason(id, ReasonCode::KeepAliveTimeout);
    let error = EncodeError::ReasonCode { packet: PacketType::PubAck, code: ReasonCode::KeepAliveTimeout };
    refuse(wrong.into(), V5, error);
    let empty = SubAck { packet_id: id, properties: SubAckProperties::default(), reasons: vec![] };
    refuse(empty.into(), V3_1_1, EncodeError::EmptyList);
    let auth = Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
    refuse(auth.into(), V3_1_1, EncodeError::NotInVersion(PacketType::Auth));
    let refusal = ConnAck { session_present: true, ..ConnAck::refuse(ReasonCode::Banned) };
    refuse(refusal.into(), V5, EncodeError::SessionPresent);
}

#[test]
fn secrets_and_payloads_stay_out_of_debug_output() {
    let connect = connect_v4(0xc6, b"\0\x01c\0\x01t\0\x06hidden\0\x01u\0\x06hidden").unwrap();
    assert!(!format!("{connect:?}").contains("hidden"));
    let publish = decode(frame(0x30, b"\0\x01ahidden"), V3_1_1).unwrap();
    assert!(!format!("{publish:?}").contains("hidden"));
}
