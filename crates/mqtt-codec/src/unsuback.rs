//! UNSUBACK (section 3.11).

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{PropertySet, UnsubAckProperties};
use crate::reason::ReasonCode;
use crate::wire::Reader;

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    pub packet_id: NonZeroU16,
    pub properties: UnsubAckProperties,
    /// One for each filter, in their order [MQTT-3.11.3-2]. Not written and empty when read before MQTT 5.
    pub reasons: Vec<ReasonCode>,
}

impl UnsubAck {
    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        if !version.is_v5() {
            return Ok(Self { packet_id, properties: UnsubAckProperties::default(), reasons: Vec::new() });
        }
        let properties = UnsubAckProperties::decode(r)?;
        if r.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        if r.remaining() > r.limits.subscriptions {
            return Err(DecodeError::TooManySubscriptions);
        }
        let mut reasons = Vec::with_capacity(r.remaining());
        while !r.is_empty() {
            reasons.push(ReasonCode::decode(r.u8()?, PacketType::UnsubAck)?);
        }
        Ok(Self { packet_id, properties, reasons })
    }
}

impl Encode for UnsubAck {
    fn first_byte(&self) -> u8 {
        PacketType::UnsubAck.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Ok(2);
        }
        if self.reasons.is_empty() {
            return Err(EncodeError::EmptyList);
        }
        for reason in &self.reasons {
            reason.check(PacketType::UnsubAck)?;
        }
        Ok(2 + self.properties.encoded_len()? + self.reasons.len())
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        dst.put_u16(self.packet_id.get());
        if version.is_v5() {
            self.properties.encode(dst);
            dst.extend(self.reasons.iter().map(|reason| reason.as_u8()));
        }
    }
}
