//! The packet types, the dispatch over them, and what all packets share.

use bytes::{BufMut, Bytes, BytesMut};

use crate::ack::{PubAck, PubComp, PubRec, PubRel};
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::{Connect, decode_connect_body};
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, EncodeError};
use crate::frame::{check_flags, put_varint, read_varint, remaining_length, varint_len};
use crate::publish::Publish;
use crate::suback::SubAck;
use crate::subscribe::Subscribe;
use crate::unsuback::UnsubAck;
use crate::unsubscribe::Unsubscribe;
use crate::wire::{Limits, Reader};

/// A version of the protocol, as CONNECT announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1: name `MQTT`, level 4.
    V3_1_1,
    /// MQTT 5.0: name `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// Whether packets have properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }

    /// The protocol level byte of CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5 => 5,
        }
    }

    /// The protocol name of CONNECT.
    pub fn name(self) -> &'static str {
        match self {
            Self::V3_1 => "MQIsdp",
            Self::V3_1_1 | Self::V5 => "MQTT",
        }
    }
}

/// Quality of service, ordered from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl TryFrom<u8> for QoS {
    type Error = DecodeError;

    fn try_from(value: u8) -> Result<Self, DecodeError> {
        match value {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(DecodeError::QoS),
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> u8 {
        qos as u8
    }
}

/// The type of a packet: the high four bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type that the first byte of a packet announces; its flags are not looked at.
    pub fn from_first_byte(first: u8) -> Result<Self, DecodeError> {
        Ok(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            other => return Err(DecodeError::PacketType(other)),
        })
    }

    /// The first byte of a packet of this type other than PUBLISH.
    pub(crate) fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// A packet that can be written. Values are checked as far as the format needs it (lengths, identifiers, reason codes);
/// that topic names and filters are valid is the caller's business, see [`topic`](crate::topic).
///
/// What a version cannot say is left out: properties before MQTT 5, reason codes of PUBACK before MQTT 5.
pub trait Encode {
    /// The first byte on the wire: packet type and flags.
    fn first_byte(&self) -> u8;

    /// The number of bytes after the fixed header. Finds every reason for which the packet cannot be written.
    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError>;

    /// Writes what follows the fixed header; only for a packet that [`body_len`](Self::body_len) has accepted.
    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut);

    /// The number of bytes that [`encode`](Self::encode) writes.
    fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let remaining = remaining_length(self.body_len(version)?)?;
        Ok(1 + varint_len(remaining) + remaining as usize)
    }

    /// Appends the whole packet to `dst`; on error `dst` is unchanged.
    fn encode(&self, version: ProtocolVersion, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let remaining = remaining_length(self.body_len(version)?)?;
        dst.reserve(1 + varint_len(remaining) + remaining as usize);
        dst.put_u8(self.first_byte());
        put_varint(dst, remaining);
        let start = dst.len();
        self.write_body(version, dst);
        debug_assert_eq!(dst.len() - start, remaining as usize);
        Ok(())
    }
}

/// Any packet of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(PubAck),
    PubRec(PubRec),
    PubRel(PubRel),
    PubComp(PubComp),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

/// Decodes one whole frame, as [`frame_len`](crate::frame_len) delimits it, with the default [`Limits`].
pub fn decode(frame: Bytes, version: ProtocolVersion) -> Result<Packet, DecodeError> {
    decode_with(frame, version, Limits::default())
}

/// Decodes one whole frame. Strings and payloads of the result share the frame's memory.
///
/// A CONNECT is decoded by the version that it announces itself.
pub fn decode_with(frame: Bytes, version: ProtocolVersion, limits: Limits) -> Result<Packet, DecodeError> {
    let (first, start) = open_frame(&frame)?;
    let packet_type = check_flags(first, version == ProtocolVersion::V3_1)?;
    let r = &mut Reader::new(&frame, start, limits);
    let packet = match packet_type {
        PacketType::Connect => Packet::Connect(Box::new(decode_connect_body(r).map_err(|e| e.error)?)),
        PacketType::ConnAck => Packet::ConnAck(Box::new(ConnAck::decode(r, version)?)),
        PacketType::Publish => Packet::Publish(Publish::decode(first, r, version)?),
        PacketType::PubAck => Packet::PubAck(PubAck::decode(r, version)?),
        PacketType::PubRec => Packet::PubRec(PubRec::decode(r, version)?),
        PacketType::PubRel => Packet::PubRel(PubRel::decode(r, version)?),
        PacketType::PubComp => Packet::PubComp(PubComp::decode(r, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(r, version)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode(r, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(r, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(r, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(r, version)?),
        PacketType::Auth if version.is_v5() => Packet::Auth(Auth::decode(r)?),
        PacketType::Auth => return Err(DecodeError::PacketType(PacketType::Auth as u8)),
    };
    r.finish()?;
    Ok(packet)
}

/// The first byte of a frame and where its body starts, once the length is known to be that of the frame.
pub(crate) fn open_frame(frame: &Bytes) -> Result<(u8, usize), DecodeError> {
    let (&first, rest) = frame.split_first().ok_or(DecodeError::Truncated)?;
    let (remaining, used) = read_varint(rest)?.ok_or(DecodeError::Truncated)?;
    let start = 1 + used;
    match (frame.len() - start).cmp(&(remaining as usize)) {
        std::cmp::Ordering::Less => Err(DecodeError::Truncated),
        std::cmp::Ordering::Greater => Err(DecodeError::TrailingBytes),
        std::cmp::Ordering::Equal => Ok((first, start)),
    }
}

impl Packet {
    /// The type of the packet.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// The packet as something to write; PINGREQ and PINGRESP have nothing but a fixed header.
    fn body(&self) -> Option<&dyn Encode> {
        Some(match self {
            Self::Connect(p) => p.as_ref(),
            Self::ConnAck(p) => p.as_ref(),
            Self::Publish(p) => p,
            Self::PubAck(p) => p,
            Self::PubRec(p) => p,
            Self::PubRel(p) => p,
            Self::PubComp(p) => p,
            Self::Subscribe(p) => p,
            Self::SubAck(p) => p,
            Self::Unsubscribe(p) => p,
            Self::UnsubAck(p) => p,
            Self::PingReq | Self::PingResp => return None,
            Self::Disconnect(p) => p,
            Self::Auth(p) => p,
        })
    }
}

impl Encode for Packet {
    fn first_byte(&self) -> u8 {
        self.body().map_or(self.packet_type().first_byte(), Encode::first_byte)
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        self.body().map_or(Ok(0), |body| body.body_len(version))
    }

    fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
        if let Some(body) = self.body() {
            body.write_body(version, dst);
        }
    }
}

macro_rules! from_packet {
    ($($name:ident),*) => { $(
        impl From<$name> for Packet {
            fn from(packet: $name) -> Self {
                Self::$name(packet)
            }
        }
    )* };
}

from_packet!(Publish, PubAck, PubRec, PubRel, PubComp, Subscribe, SubAck, Unsubscribe, UnsubAck, Disconnect, Auth);

impl From<Connect> for Packet {
    fn from(packet: Connect) -> Self {
        Self::Connect(Box::new(packet))
    }
}

impl From<ConnAck> for Packet {
    fn from(packet: ConnAck) -> Self {
        Self::ConnAck(Box::new(packet))
    }
}
