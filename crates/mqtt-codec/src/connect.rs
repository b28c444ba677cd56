//! CONNECT (section 3.1): the first packet, which says by which version everything after it is read.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::error::{DecodeError, EncodeError};
use crate::frame::check_flags;
use crate::packet::{Encode, PacketType, ProtocolVersion, QoS, open_frame};
use crate::properties::{ConnectProperties, PropertySet, WillProperties};
use crate::publish::check_response_topic;
use crate::topic;
use crate::wire::{Limits, Reader, field_len, put_field};

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// A client's request for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version that the packet announces; it is written by this version, whichever [`Encode`] is given.
    pub version: ProtocolVersion,
    /// Whether an earlier session is discarded (clean session before MQTT 5).
    pub clean_start: bool,
    /// 0 is no keep alive.
    pub keep_alive_secs: u16,
    pub properties: ConnectProperties,
    /// Empty if the server is to choose one.
    pub client_id: ByteString,
    pub will: Option<Will>,
    pub username: Option<ByteString>,
    pub password: Option<Secret>,
}

/// The message that the server publishes when the connection ends without a normal DISCONNECT. `Debug` shows the
/// payload's length, never the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    pub qos: QoS,
    pub retain: bool,
    pub properties: WillProperties,
    pub topic: ByteString,
    pub payload: Bytes,
}

/// Bytes that never appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

/// Why a first packet is refused, and in which version a CONNACK may say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ConnectError {
    pub error: DecodeError,
    /// The version in which to write a CONNACK with [`DecodeError::reason_code`]; `None` if the connection is to be closed
    /// without one.
    pub answer: Option<ProtocolVersion>,
}

/// Decodes the first packet of a connection with the default [`Limits`].
pub fn decode_connect(frame: Bytes) -> Result<Connect, ConnectError> {
    decode_connect_with(frame, Limits::default())
}

/// Decodes the first packet of a connection, one whole frame, whose version is not known yet.
pub fn decode_connect_with(frame: Bytes, limits: Limits) -> Result<Connect, ConnectError> {
    let silent = |error| ConnectError { error, answer: None };
    let (first, start) = open_frame(&frame).map_err(silent)?;
    match check_flags(first, false).map_err(silent)? {
        PacketType::Connect => decode_connect_body(&mut Reader::new(&frame, start, limits)),
        // [MQTT-3.1.0-1]
        other => Err(silent(DecodeError::NotConnect(other))),
    }
}

/// Decodes what follows the fixed header, to the end of the frame.
pub(crate) fn decode_connect_body(r: &mut Reader<'_>) -> Result<Connect, ConnectError> {
    let version = decode_version(r)?;
    Connect::decode(r, version).and_then(|connect| r.finish().map(|()| connect)).map_err(|error| {
        // Before MQTT 5 a malformed CONNECT is closed without an answer; only an identifier can be refused.
        // [MQTT3-3.1.3-8] [MQTT3-3.1.4-1] [MQTT3-3.2.2-6]
        let answer = (version.is_v5() || error == DecodeError::ClientId).then_some(version);
        ConnectError { error, answer }
    })
}

fn decode_version(r: &mut Reader<'_>) -> Result<ProtocolVersion, ConnectError> {
    let silent = |error| ConnectError { error, answer: None };
    let name = r.binary().map_err(silent)?;
    let level = r.u8().map_err(silent)?;
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2]: whoever names a level from 5 on reads reason codes, others read return codes.
    let answer = Some(if level >= 5 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 });
    match (name.as_ref(), level) {
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V3_1),
        (b"MQTT", 4) => Ok(ProtocolVersion::V3_1_1),
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        (b"MQIsdp" | b"MQTT", level) => Err(ConnectError { error: DecodeError::ProtocolLevel(level), answer }),
        _ => Err(ConnectError { error: DecodeError::ProtocolName, answer }),
    }
}

impl Connect {
    fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = r.u8()?;
        let will_qos = check_connect_flags(flags, version)?;
        let keep_alive_secs = r.u16()?;
        let properties = if version.is_v5() { ConnectProperties::decode(r)? } else { ConnectProperties::default() };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        // [MQTT-3.1.3-1] [MQTT-3.1.3-3]
        let client_id = r.string()?;
        let clean_start = flags & CLEAN_START != 0;
        if client_id.is_empty() && !may_be_empty(version, clean_start) {
            return Err(DecodeError::ClientId);
        }
        let will =
            if flags & WILL != 0 { Some(Will::decode(r, will_qos, flags & WILL_RETAIN != 0, version)?) } else { None };
        // MQTT 3.1, section 3.1: the remaining length takes precedence over these two flags.
        let absent = |r: &Reader<'_>| version == ProtocolVersion::V3_1 && r.is_empty();
        let username = if flags & USERNAME != 0 && !absent(r) { Some(r.string()?) } else { None };
        let password = if flags & PASSWORD != 0 && !absent(r) { Some(Secret(r.binary()?)) } else { None };
        Ok(Self { version, clean_start, keep_alive_secs, properties, client_id, will, username, password })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        flags
    }
}

/// Checks the connect flags and returns the will's QoS.
fn check_connect_flags(flags: u8, version: ProtocolVersion) -> Result<QoS, DecodeError> {
    // [MQTT-3.1.2-3]; MQTT 3.1 leaves the bit unused.
    if flags & RESERVED != 0 && version != ProtocolVersion::V3_1 {
        return Err(DecodeError::Flags("reserved connect flag"));
    }
    // [MQTT-3.1.2-12]
    let will_qos = QoS::try_from(flags >> 3 & 0b11)?;
    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if flags & WILL == 0 && (will_qos != QoS::AtMostOnce || flags & WILL_RETAIN != 0) {
        return Err(DecodeError::Flags("will flags without a will"));
    }
    // [MQTT3-3.1.2-22]
    if !version.is_v5() && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err(DecodeError::Flags("password flag without user name flag"));
    }
    Ok(will_qos)
}

fn may_be_empty(version: ProtocolVersion, clean_start: bool) -> bool {
    match version {
        // MQTT 3.1, section 3.1. Its upper bound of 23 characters is not enforced, as no server does.
        ProtocolVersion::V3_1 => false,
        // [MQTT3-3.1.3-7] [MQTT3-3.1.3-8]
        ProtocolVersion::V3_1_1 => clean_start,
        // [MQTT-3.1.3-6]
        ProtocolVersion::V5 => true,
    }
}

impl Will {
    fn decode(r: &mut Reader<'_>, qos: QoS, retain: bool, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let properties = if version.is_v5() { WillProperties::decode(r)? } else { WillProperties::default() };
        check_response_topic(properties.response_topic.as_ref())?;
        // [MQTT-3.1.3-11]
        let topic = r.string()?;
        topic::validate_name(&topic).map_err(|_| DecodeError::TopicName)?;
        let payload = r.binary()?;
        Ok(Self { qos, retain, properties, topic, payload })
    }
}

impl Encode for Connect {
    fn first_byte(&self) -> u8 {
        PacketType::Connect.first_byte()
    }

    fn body_len(&self, _: ProtocolVersion) -> Result<usize, EncodeError> {
        let v5 = self.version.is_v5();
        if !v5 && self.password.is_some() && self.username.is_none() {
            return Err(EncodeError::PasswordWithoutUserName);
        }
        // Name, level, flags, keep alive.
        let mut len = field_len(self.version.name().as_bytes())? + 1 + 1 + 2;
        if v5 {
            if self.properties.authentication_data.is_some() && self.properties.authentication_method.is_none() {
                return Err(EncodeError::MissingAuthenticationMethod);
            }
            len += self.properties.encoded_len()?;
        }
        len += field_len(self.client_id.as_bytes())?;
        if let Some(will) = &self.will {
            len += if v5 { will.properties.encoded_len()? } else { 0 };
            len += field_len(will.topic.as_bytes())? + field_len(&will.payload)?;
        }
        if let Some(username) = &self.username {
            len += field_len(username.as_bytes())?;
        }
        if let Some(password) = &self.password {
            len += field_len(password.as_bytes())?;
        }
        Ok(len)
    }

    fn write_body(&self, _: ProtocolVersion, dst: &mut BytesMut) {
        put_field(dst, self.version.name().as_bytes());
        dst.put_u8(self.version.level());
        dst.put_u8(self.flags());
        dst.put_u16(self.keep_alive_secs);
        if self.version.is_v5() {
            self.properties.encode(dst);
        }
        put_field(dst, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                will.properties.encode(dst);
            }
            put_field(dst, will.topic.as_bytes());
            put_field(dst, &will.payload);
        }
        if let Some(username) = &self.username {
            put_field(dst, username.as_bytes());
        }
        if let Some(password) = &self.password {
            put_field(dst, password.as_bytes());
        }
    }
}

impl Secret {
    /// The bytes, for comparison or for a key derivation.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Secret {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("properties", &self.properties)
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}
