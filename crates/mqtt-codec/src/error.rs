//! What can be wrong with a packet, and the MQTT 5 reason code that says so to the peer.

use crate::packet::PacketType;
use crate::properties::PropertyId;
use crate::reason::ReasonCode;

/// Why bytes are not the packet they claim to be. The fault is always the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The fixed header announces more bytes than this side takes. Found before anything is allocated.
    #[error("packet of {size} bytes is over the limit of {limit}")]
    PacketTooLarge { size: u32, limit: u32 },
    /// Packet type 0, or AUTH before MQTT 5.
    #[error("packet type {0} is reserved")]
    PacketType(u8),
    /// The low four bits of the first byte are not those of its packet type.
    #[error("fixed header {0:#04x} has invalid flags")]
    FixedHeaderFlags(u8),
    /// A variable byte integer of more than four bytes, or not in its shortest form.
    #[error("invalid variable byte integer")]
    VariableByteInteger,
    /// A field goes on after the end of the packet.
    #[error("packet ends inside a field")]
    Truncated,
    /// The packet goes on after its last field.
    #[error("bytes are left over after the last field")]
    TrailingBytes,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    Utf8,
    /// A string that contains U+0000.
    #[error("string contains U+0000")]
    NullCharacter,
    /// QoS 3.
    #[error("QoS 3 does not exist")]
    QoS,
    /// A reserved bit is set, or a bit that its neighbours forbid.
    #[error("invalid {0}")]
    Flags(&'static str),
    /// A property identifier that MQTT 5 does not define.
    #[error("property identifier {0:#04x} does not exist")]
    UnknownProperty(u32),
    /// A property that does not belong in this packet.
    #[error("property {0:?} is not allowed in this packet")]
    PropertyNotAllowed(PropertyId),
    /// A reason code that MQTT 5 does not define for this packet.
    #[error("reason code {code:#04x} is not allowed in {packet:?}")]
    ReasonCode { packet: PacketType, code: u8 },
    /// A property that may occur once occurs again.
    #[error("property {0:?} occurs twice")]
    DuplicateProperty(PropertyId),
    /// A property with a value outside its range.
    #[error("property {0:?} has a forbidden value")]
    PropertyValue(PropertyId),
    /// Authentication data without an authentication method.
    #[error("authentication method is missing")]
    MissingAuthenticationMethod,
    /// Packet identifier 0.
    #[error("packet identifier is zero")]
    PacketIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter, SUBACK or UNSUBACK without a reason code.
    #[error("list in the payload is empty")]
    EmptyList,
    /// A QoS or a Retain Handling of 3 in the options of a subscription.
    #[error("invalid {0} of a subscription")]
    SubscriptionOption(&'static str),
    /// No Local on a shared subscription.
    #[error("no local is set on a shared subscription")]
    NoLocalOnShared,
    /// The first packet is not CONNECT.
    #[error("{0:?} instead of CONNECT")]
    NotConnect(PacketType),
    /// The protocol name is none of ours.
    #[error("unknown protocol name")]
    ProtocolName,
    /// The protocol name is known, the level is not.
    #[error("unsupported protocol level {0}")]
    ProtocolLevel(u8),
    /// An empty client identifier where the version or a persistent session asks for one.
    #[error("client identifier is empty")]
    ClientId,
    /// A topic name is empty or contains a wildcard.
    #[error("invalid topic name")]
    TopicName,
    /// PUBLISH with neither a topic name nor a topic alias.
    #[error("neither topic name nor topic alias")]
    MissingTopic,
    /// A topic filter is empty, has a misplaced wildcard or is not a well-formed shared subscription.
    #[error("invalid topic filter")]
    TopicFilter,
    /// More user properties than [`Limits`](crate::Limits) allows.
    #[error("too many user properties")]
    TooManyUserProperties,
    /// More filters, reason codes or subscription identifiers than [`Limits`](crate::Limits) allows.
    #[error("too many subscriptions in one packet")]
    TooManySubscriptions,
}

impl DecodeError {
    /// The reason code for the CONNACK or DISCONNECT that answers the packet (MQTT 5.0, section 4.13).
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::PacketType(_)
            | Self::FixedHeaderFlags(_)
            | Self::VariableByteInteger
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Utf8
            | Self::NullCharacter
            | Self::QoS
            | Self::Flags(_)
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed(_)
            | Self::ReasonCode { .. } => ReasonCode::MalformedPacket,
            Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::MissingAuthenticationMethod
            | Self::PacketIdZero
            | Self::EmptyList
            | Self::SubscriptionOption(_)
            | Self::NoLocalOnShared
            | Self::NotConnect(_)
            | Self::MissingTopic => ReasonCode::ProtocolError,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientId => ReasonCode::ClientIdentifierNotValid,
            Self::TopicName => ReasonCode::TopicNameInvalid,
            Self::TopicFilter => ReasonCode::TopicFilterInvalid,
            Self::TooManyUserProperties | Self::TooManySubscriptions => ReasonCode::QuotaExceeded,
        }
    }
}

/// Why a value cannot be written as a packet. The fault is the caller's; nothing has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field longer than 65,535 bytes.
    #[error("field of {0} bytes is longer than 65535")]
    FieldTooLong(usize),
    /// The packet would be longer than 268,435,455 bytes after its fixed header.
    #[error("packet of {0} bytes is longer than MQTT allows")]
    PacketTooLong(usize),
    /// QoS 0 with a packet identifier, or QoS 1 or 2 without one.
    #[error("packet identifier does not fit the QoS")]
    PacketId,
    /// DUP on a QoS 0 message.
    #[error("DUP is set on a QoS 0 message")]
    DupQoS0,
    /// Session present in a CONNACK that refuses.
    #[error("session present in a refusal")]
    SessionPresent,
    /// A reason code that the packet cannot carry.
    #[error("reason code {code:?} is not allowed in {packet:?}")]
    ReasonCode { packet: PacketType, code: ReasonCode },
    /// A list that must have at least one element.
    #[error("list in the payload is empty")]
    EmptyList,
    /// AUTH before MQTT 5.
    #[error("{0:?} does not exist in this protocol version")]
    NotInVersion(PacketType),
    /// AUTH without an authentication method, or authentication data without one.
    #[error("authentication method is missing")]
    MissingAuthenticationMethod,
    /// A password without a user name before MQTT 5.
    #[error("password without user name needs MQTT 5")]
    PasswordWithoutUserName,
}
