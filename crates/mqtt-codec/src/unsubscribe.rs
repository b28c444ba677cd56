//! UNSUBSCRIBE (section 3.10).

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{PropertySet, UnsubscribeProperties};
use crate::topic;
use crate::wire::{Reader, field_len, put_field};

/// A request to end subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: NonZeroU16,
    pub properties: UnsubscribeProperties,
    /// Never empty. [MQTT-3.10.3-2]
    pub filters: Vec<ByteString>,
}

impl Unsubscribe {
    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties =
            if version.is_v5() { UnsubscribeProperties::decode(r)? } else { UnsubscribeProperties::default() };
        let mut filters = Vec::new();
        while !r.is_empty() {
            if filters.len() >= r.limits.subscriptions {
                return Err(DecodeError::TooManySubscriptions);
            }
            // [MQTT-3.10.3-1]
            let filter = r.string()?;
            topic::validate_filter(&filter).map_err(|_| DecodeError::TopicFilter)?;
            filters.push(filter);
        }
        // [MQTT-3.10.3-2]
        if filters.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        Ok(Self { packet_id, properties, filters })
    }
}

impl Encode for Unsubscribe {
    fn first_byte(&self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyList);
        }
        let properties = if version.is_v5() { self.properties.encoded_len()? } else { 0 };
        self.filters.iter().try_fold(2 + properties, |sum, filter| Ok(sum + field_len(filter.as_bytes())?))
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        dst.put_u16(self.packet_id.get());
        if version.is_v5() {
            self.properties.encode(dst);
        }
        for filter in &self.filters {
            put_field(dst, filter.as_bytes());
        }
    }
}
