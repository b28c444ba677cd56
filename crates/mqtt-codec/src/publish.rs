//! PUBLISH (section 3.3), as a whole and as a header for a payload that many subscribers share.

use std::fmt;
use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::error::{DecodeError, EncodeError};
use crate::frame::{put_varint, remaining_length, varint_len};
use crate::packet::{Encode, PacketType, ProtocolVersion, QoS};
use crate::properties::{
    PropertyId, PropertySet, PublishProperties, Slot, SubscriptionId, list_len, subscription_ids_len,
};
use crate::topic;
use crate::wire::{Reader, field_len, put_field};

/// An application message. `Debug` shows the payload's length, never the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether the sender may have sent the message before.
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only in MQTT 5 with a topic alias.
    pub topic: ByteString,
    /// Present exactly with QoS 1 and 2.
    pub packet_id: Option<NonZeroU16>,
    pub properties: PublishProperties,
    pub payload: Bytes,
}

impl Publish {
    pub(crate) fn decode(first: u8, r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let dup = first & 0b1000 != 0;
        let qos = QoS::try_from(first >> 1 & 0b11)?;
        let retain = first & 1 != 0;
        // [MQTT-3.3.2-1]
        let topic = r.string()?;
        // [MQTT-2.2.1-2]
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
        let properties = if version.is_v5() { PublishProperties::decode(r)? } else { PublishProperties::default() };
        if topic.is_empty() {
            // [MQTT-4.7.3-1], section 3.3.2.1
            match properties.topic_alias {
                Some(_) => {}
                None if version.is_v5() => return Err(DecodeError::MissingTopic),
                None => return Err(DecodeError::TopicName),
            }
        } else {
            // [MQTT-3.3.2-2]
            topic::validate_name(&topic).map_err(|_| DecodeError::TopicName)?;
        }
        check_response_topic(properties.response_topic.as_ref())?;
        Ok(Self { dup, qos, retain, topic, packet_id, properties, payload: r.rest_as_bytes() })
    }

    fn header(&self) -> PublishHeader<'_> {
        PublishHeader {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties: &self.properties,
            message_expiry_interval: self.properties.message_expiry_interval,
            topic_alias: self.properties.topic_alias,
            subscription_ids: &self.properties.subscription_ids,
            payload_len: self.payload.len(),
        }
    }
}

/// A response topic is a topic name. [MQTT-3.3.2-14]
pub(crate) fn check_response_topic(response_topic: Option<&ByteString>) -> Result<(), DecodeError> {
    match response_topic {
        Some(name) => topic::validate_name(name).map_err(|_| DecodeError::TopicName),
        None => Ok(()),
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.properties)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

impl Encode for Publish {
    fn first_byte(&self) -> u8 {
        self.header().first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        self.header().body_len(version)
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        self.header().write_variable_header(version, dst);
        dst.put_slice(&self.payload);
    }
}

/// Everything of a PUBLISH but its payload, borrowed from a message that goes to many subscribers.
#[derive(Debug, Clone, Copy)]
pub struct PublishHeader<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// May be empty in MQTT 5 when there is a topic alias.
    pub topic: &'a str,
    pub packet_id: Option<NonZeroU16>,
    /// What the publisher said of the message. Its expiry, topic alias and subscription identifiers are not written: they
    /// differ from one delivery to the next and are the fields below.
    pub properties: &'a PublishProperties,
    /// Remaining lifetime in seconds.
    pub message_expiry_interval: Option<u32>,
    pub topic_alias: Option<NonZeroU16>,
    pub subscription_ids: &'a [SubscriptionId],
    /// Bytes of the payload that follows the header.
    pub payload_len: usize,
}

impl PublishHeader<'_> {
    /// Bytes of the whole packet, payload included.
    pub fn packet_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let remaining = remaining_length(self.body_len(version)?)?;
        Ok(1 + varint_len(remaining) + remaining as usize)
    }

    /// Appends the packet up to its payload, which the caller sends right after; on error `dst` is unchanged.
    pub fn encode(&self, version: ProtocolVersion, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let body = self.body_len(version)?;
        let remaining = remaining_length(body)?;
        dst.reserve(5 + body - self.payload_len);
        dst.put_u8(self.first_byte());
        put_varint(dst, remaining);
        self.write_variable_header(version, dst);
        Ok(())
    }

    fn first_byte(&self) -> u8 {
        // [MQTT-2.2.1-2] and [MQTT-3.3.1-2] are kept by `body_len`.
        (PacketType::Publish as u8) << 4 | u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let mut len = field_len(self.topic.as_bytes())? + self.payload_len;
        match (self.qos, self.packet_id) {
            (QoS::AtMostOnce, None) if self.dup => return Err(EncodeError::DupQoS0),
            (QoS::AtMostOnce, None) => {}
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(_)) => len += 2,
            _ => return Err(EncodeError::PacketId),
        }
        if version.is_v5() {
            len += list_len(self.property_len()?)?;
        }
        Ok(len)
    }

    fn property_len(&self) -> Result<usize, EncodeError> {
        let p = self.properties;
        Ok(p.payload_format.wire_len()?
            + self.message_expiry_interval.wire_len()?
            + self.topic_alias.wire_len()?
            + p.response_topic.wire_len()?
            + p.correlation_data.wire_len()?
            + p.user_properties.wire_len()?
            + subscription_ids_len(self.subscription_ids)
            + p.content_type.wire_len()?)
    }

    fn write_variable_header(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        put_field(dst, self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            dst.put_u16(packet_id.get());
        }
        if !version.is_v5() {
            return;
        }
        let p = self.properties;
        put_varint(dst, self.property_len().unwrap_or(0) as u32);
        p.payload_format.write(PropertyId::PayloadFormatIndicator, dst);
        self.message_expiry_interval.write(PropertyId::MessageExpiryInterval, dst);
        self.topic_alias.write(PropertyId::TopicAlias, dst);
        p.response_topic.write(PropertyId::ResponseTopic, dst);
        p.correlation_data.write(PropertyId::CorrelationData, dst);
        p.user_properties.write(PropertyId::UserProperty, dst);
        for id in self.subscription_ids {
            dst.put_u8(PropertyId::SubscriptionIdentifier as u8);
            put_varint(dst, id.get());
        }
        p.content_type.write(PropertyId::ContentType, dst);
    }
}
