//! DISCONNECT (section 3.14).

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{DisconnectProperties, PropertySet};
use crate::reason::ReasonCode;
use crate::wire::Reader;

/// The last packet of a connection; before MQTT 5 only a client sends it and it says nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disconnect {
    /// `Success` is the normal disconnection. [MQTT-3.14.2-1]
    pub reason: ReasonCode,
    pub properties: DisconnectProperties,
}

impl Disconnect {
    /// A reason code without properties.
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }

    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if !version.is_v5() || r.is_empty() {
            return Ok(Self::default());
        }
        let reason = ReasonCode::decode(r.u8()?, PacketType::Disconnect)?;
        let properties = if r.is_empty() { DisconnectProperties::default() } else { DisconnectProperties::decode(r)? };
        Ok(Self { reason, properties })
    }
}

impl Encode for Disconnect {
    fn first_byte(&self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Ok(0);
        }
        let reason = self.reason.check(PacketType::Disconnect)?;
        Ok(match self.properties.content_len()? {
            0 if reason == ReasonCode::Success => 0,
            0 => 1,
            _ => 1 + self.properties.encoded_len()?,
        })
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        let no_properties = self.properties.is_empty();
        if !version.is_v5() || (self.reason == ReasonCode::Success && no_properties) {
            return;
        }
        dst.put_u8(self.reason.as_u8());
        if !no_properties {
            self.properties.encode(dst);
        }
    }
}
