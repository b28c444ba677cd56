//! AUTH (section 3.15), MQTT 5 only: a step of an extended authentication.

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, PacketType, ProtocolVersion};
use crate::properties::{AuthProperties, PropertySet};
use crate::reason::ReasonCode;
use crate::wire::Reader;

/// A step of an extended authentication, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `Reauthenticate`. [MQTT-3.15.2-1]
    pub reason: ReasonCode,
    pub properties: AuthProperties,
}

impl Auth {
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.is_empty() {
            return Ok(Self { reason: ReasonCode::Success, properties: AuthProperties::default() });
        }
        let reason = ReasonCode::decode(r.u8()?, PacketType::Auth)?;
        let properties = AuthProperties::decode(r)?;
        let auth = Self { reason, properties };
        // Section 3.15.2.2.2: only the empty success may leave the method out.
        if auth.properties.authentication_method.is_none() && !auth.is_short() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        Ok(auth)
    }

    fn is_short(&self) -> bool {
        self.reason == ReasonCode::Success && self.properties.is_empty()
    }
}

impl Encode for Auth {
    fn first_byte(&self) -> u8 {
        PacketType::Auth.first_byte()
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Err(EncodeError::NotInVersion(PacketType::Auth));
        }
        self.reason.check(PacketType::Auth)?;
        let properties = self.properties.encoded_len()?;
        if self.is_short() {
            return Ok(0);
        }
        if self.properties.authentication_method.is_none() {
            return Err(EncodeError::MissingAuthenticationMethod);
        }
        Ok(1 + properties)
    }

    fn write_body(&self, _: ProtocolVersion, dst: &mut BytesMut) {
        if !self.is_short() {
            dst.put_u8(self.reason.as_u8());
            self.properties.encode(dst);
        }
    }
}
