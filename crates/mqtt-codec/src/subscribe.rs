//! SUBSCRIBE (section 3.8).

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion, QoS};
use crate::properties::{PropertySet, SubscribeProperties};
use crate::topic;
use crate::wire::{Reader, field_len, put_field};

/// A request for one or more subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: NonZeroU16,
    pub properties: SubscribeProperties,
    /// Never empty. [MQTT-3.8.3-2]
    pub subscriptions: Vec<Subscription>,
}

/// A topic filter and how its messages are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    pub filter: ByteString,
    pub options: SubscriptionOptions,
}

/// The options of one subscription (section 3.8.3.1); before MQTT 5 there is only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    /// The highest QoS at which messages are delivered.
    pub qos: QoS,
    /// Do not deliver what the subscriber itself published.
    pub no_local: bool,
    /// Deliver the RETAIN flag as the publisher set it.
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When a new subscription gets the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    SendAtSubscribe = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

impl SubscriptionOptions {
    fn decode(byte: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-5]
        let reserved = if version.is_v5() { 0b1100_0000 } else { 0b1111_1100 };
        if byte & reserved != 0 {
            return Err(DecodeError::Flags("subscription options"));
        }
        Ok(Self {
            // Section 3.8.3.1: reserved bits are malformed, values of 3 are protocol errors.
            qos: QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscriptionOption("QoS"))?,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::SubscriptionOption("retain handling")),
            },
        })
    }

    fn encode(self, version: ProtocolVersion) -> u8 {
        if !version.is_v5() {
            return self.qos as u8;
        }
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl Subscribe {
    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = if version.is_v5() { SubscribeProperties::decode(r)? } else { SubscribeProperties::default() };
        let mut subscriptions = Vec::new();
        while !r.is_empty() {
            if subscriptions.len() >= r.limits.subscriptions {
                return Err(DecodeError::TooManySubscriptions);
            }
            // [MQTT-3.8.3-1]
            let filter = r.string()?;
            topic::validate_filter(&filter).map_err(|_| DecodeError::TopicFilter)?;
            let options = SubscriptionOptions::decode(r.u8()?, version)?;
            // [MQTT-3.8.3-4]
            if options.no_local && topic::is_shared(&filter) {
                return Err(DecodeError::NoLocalOnShared);
            }
            subscriptions.push(Subscription { filter, options });
        }
        // [MQTT-3.8.3-2]
        if subscriptions.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        Ok(Self { packet_id, properties, subscriptions })
    }
}

impl Encode for Subscribe {
    fn first_byte(&self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.subscriptions.is_empty() {
            return Err(EncodeError::EmptyList);
        }
        let properties = if version.is_v5() { self.properties.encoded_len()? } else { 0 };
        self.subscriptions.iter().try_fold(2 + properties, |sum, s| Ok(sum + field_len(s.filter.as_bytes())? + 1))
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        dst.put_u16(self.packet_id.get());
        if version.is_v5() {
            self.properties.encode(dst);
        }
        for subscription in &self.subscriptions {
            put_field(dst, subscription.filter.as_bytes());
            dst.put_u8(subscription.options.encode(version));
        }
    }
}
