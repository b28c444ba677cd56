//! SUBACK (section 3.9).

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{PropertySet, SubAckProperties};
use crate::reason::ReasonCode;
use crate::wire::Reader;

/// The answer to SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    pub packet_id: NonZeroU16,
    pub properties: SubAckProperties,
    /// One for each filter, in their order. Before MQTT 5 every failure is written as 0x80. [MQTT-3.9.3-2]
    pub reasons: Vec<ReasonCode>,
}

impl SubAck {
    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = if version.is_v5() { SubAckProperties::decode(r)? } else { SubAckProperties::default() };
        if r.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        if r.remaining() > r.limits.subscriptions {
            return Err(DecodeError::TooManySubscriptions);
        }
        let mut reasons = Vec::with_capacity(r.remaining());
        while !r.is_empty() {
            let code = r.u8()?;
            let reason = ReasonCode::decode(code, PacketType::SubAck)?;
            // [MQTT3-3.9.3-2]
            if !version.is_v5() && code > 0x80 {
                return Err(DecodeError::ReasonCode { packet: PacketType::SubAck, code });
            }
            reasons.push(reason);
        }
        Ok(Self { packet_id, properties, reasons })
    }
}

impl Encode for SubAck {
    fn first_byte(&self) -> u8 {
        PacketType::SubAck.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.reasons.is_empty() {
            return Err(EncodeError::EmptyList);
        }
        for reason in &self.reasons {
            reason.check(PacketType::SubAck)?;
        }
        let properties = if version.is_v5() { self.properties.encoded_len()? } else { 0 };
        Ok(2 + properties + self.reasons.len())
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        dst.put_u16(self.packet_id.get());
        if version.is_v5() {
            self.properties.encode(dst);
        }
        for reason in &self.reasons {
            let failed_v3 = !version.is_v5() && reason.is_error();
            dst.put_u8(if failed_v3 { 0x80 } else { reason.as_u8() });
        }
    }
}
