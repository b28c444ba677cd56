//! CONNACK (section 3.2): the server's answer to CONNECT.

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{ConnAckProperties, PropertySet};
use crate::reason::ReasonCode;
use crate::wire::Reader;

/// The server's answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck {
    /// Whether the server kept a session for the client; MQTT 3.1 does not say.
    pub session_present: bool,
    /// Before MQTT 5 written as the nearest return code, see [`ReasonCode::to_connect_return_code`].
    pub reason: ReasonCode,
    pub properties: ConnAckProperties,
}

impl ConnAck {
    /// A refusal without properties.
    pub fn refuse(reason: ReasonCode) -> Self {
        Self { session_present: false, reason, properties: ConnAckProperties::default() }
    }

    pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = r.u8()?;
        let code = r.u8()?;
        let session_present = match (version, flags) {
            // MQTT 3.1 reserves the byte and gives it no value.
            (ProtocolVersion::V3_1, _) | (_, 0) => false,
            (_, 1) => true,
            // [MQTT-3.2.2-1]
            _ => return Err(DecodeError::Flags("CONNACK flags")),
        };
        let reason = if version.is_v5() {
            // [MQTT-3.2.2-8]
            ReasonCode::decode(code, PacketType::ConnAck)?
        } else {
            ReasonCode::from_connect_return_code(code)
                .ok_or(DecodeError::ReasonCode { packet: PacketType::ConnAck, code })?
        };
        // [MQTT-3.2.2-6]
        if session_present && reason != ReasonCode::Success {
            return Err(DecodeError::Flags("session present in a refusal"));
        }
        let properties = if version.is_v5() { ConnAckProperties::decode(r)? } else { ConnAckProperties::default() };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        Ok(Self { session_present, reason, properties })
    }
}

impl Encode for ConnAck {
    fn first_byte(&self) -> u8 {
        PacketType::ConnAck.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let reason = self.reason.check(PacketType::ConnAck)?;
        if self.session_present && reason != ReasonCode::Success {
            return Err(EncodeError::SessionPresent);
        }
        if !version.is_v5() {
            return Ok(2);
        }
        if self.properties.authentication_data.is_some() && self.properties.authentication_method.is_none() {
            return Err(EncodeError::MissingAuthenticationMethod);
        }
        Ok(2 + self.properties.encoded_len()?)
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        dst.put_u8(u8::from(self.session_present && version != ProtocolVersion::V3_1));
        if version.is_v5() {
            dst.put_u8(self.reason.as_u8());
            self.properties.encode(dst);
        } else {
            dst.put_u8(self.reason.to_connect_return_code());
        }
    }
}
