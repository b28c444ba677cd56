//! MQTT 5 properties: the table of section 2.2.2.2 and one typed set per packet.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Deref;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::connect::Secret;
use crate::error::{DecodeError, EncodeError};
use crate::frame::{MAX_REMAINING_LENGTH, put_varint, remaining_length, varint_len};
use crate::packet::QoS;
use crate::wire::{Reader, field_len, put_field};

/// What a property list belongs to. The will is part of CONNECT with a list of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PropertyScope {
    Connect,
    Will,
    ConnAck,
    Publish,
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Ack,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth,
}

/// The data type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PropertyKind {
    Byte,
    TwoByteInteger,
    FourByteInteger,
    VariableByteInteger,
    String,
    Binary,
    StringPair,
}

macro_rules! property_table {
    ($( $code:literal $name:ident $kind:ident [$($scope:ident)|+] )*) => {
        /// The identifier of a property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $( $name = $code, )*
        }

        impl PropertyId {
            /// Every property, in the order of its identifier.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The property with this identifier, if MQTT 5 defines one.
            pub fn from_u32(id: u32) -> Option<Self> {
                match id {
                    $( $code => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// The data type of the property's value.
            pub fn kind(self) -> PropertyKind {
                match self {
                    $( Self::$name => PropertyKind::$kind, )*
                }
            }

            /// Whether a list of this scope may contain the property.
            pub fn allowed_in(self, scope: PropertyScope) -> bool {
                match self {
                    $( Self::$name => matches!(scope, $(PropertyScope::$scope)|+), )*
                }
            }
        }
    };
}

property_table! {
    0x01 PayloadFormatIndicator          Byte                [Publish | Will]
    0x02 MessageExpiryInterval           FourByteInteger     [Publish | Will]
    0x03 ContentType                     String              [Publish | Will]
    0x08 ResponseTopic                   String              [Publish | Will]
    0x09 CorrelationData                 Binary              [Publish | Will]
    0x0b SubscriptionIdentifier          VariableByteInteger [Publish | Subscribe]
    0x11 SessionExpiryInterval           FourByteInteger     [Connect | ConnAck | Disconnect]
    0x12 AssignedClientIdentifier        String              [ConnAck]
    0x13 ServerKeepAlive                 TwoByteInteger      [ConnAck]
    0x15 AuthenticationMethod            String              [Connect | ConnAck | Auth]
    0x16 AuthenticationData              Binary              [Connect | ConnAck | Auth]
    0x17 RequestProblemInformation       Byte                [Connect]
    0x18 WillDelayInterval               FourByteInteger     [Will]
    0x19 RequestResponseInformation      Byte                [Connect]
    0x1a ResponseInformation             String              [ConnAck]
    0x1c ServerReference                 String              [ConnAck | Disconnect]
    0x1f ReasonString                    String              [ConnAck | Ack | SubAck | UnsubAck | Disconnect | Auth]
    0x21 ReceiveMaximum                  TwoByteInteger      [Connect | ConnAck]
    0x22 TopicAliasMaximum               TwoByteInteger      [Connect | ConnAck]
    0x23 TopicAlias                      TwoByteInteger      [Publish]
    0x24 MaximumQoS                      Byte                [ConnAck]
    0x25 RetainAvailable                 Byte                [ConnAck]
    0x26 UserProperty                    StringPair          [Connect | Will | ConnAck | Publish | Ack | Subscribe | SubAck
                                                              | Unsubscribe | UnsubAck | Disconnect | Auth]
    0x27 MaximumPacketSize               FourByteInteger     [Connect | ConnAck]
    0x28 WildcardSubscriptionAvailable   Byte                [ConnAck]
    0x29 SubscriptionIdentifierAvailable Byte                [ConnAck]
    0x2a SharedSubscriptionAvailable     Byte                [ConnAck]
}

macro_rules! property_set {
    (
        $(#[$doc:meta])*
        $name:ident in $scope:ident { $( $(#[$field_doc:meta])* $field:ident: $ty:ty = $id:ident, )* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $ty, )*
        }

        impl PropertySet for $name {
            fn read_one(&mut self, id: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError> {
                if !id.allowed_in(PropertyScope::$scope) {
                    return Err(DecodeError::PropertyNotAllowed(id));
                }
                match id {
                    $( PropertyId::$id => self.$field.read(id, r), )*
                    other => Err(DecodeError::PropertyNotAllowed(other)),
                }
            }

            fn content_len(&self) -> Result<usize, EncodeError> {
                Ok(0 $( + self.$field.wire_len()? )*)
            }

            fn write_content(&self, dst: &mut BytesMut) {
                $( self.$field.write(PropertyId::$id, dst); )*
            }
        }
    };
}

property_set! {
    /// Properties of CONNECT (section 3.1.2.11).
    ConnectProperties in Connect {
        /// Seconds that the session outlives the connection; absent is 0, `u32::MAX` is for ever.
        session_expiry_interval: Option<u32> = SessionExpiryInterval,
        /// How many QoS 1 and 2 messages the client takes at once; absent is 65,535.
        receive_maximum: Option<NonZeroU16> = ReceiveMaximum,
        /// The largest packet that the client takes, in bytes with the fixed header; absent is no limit.
        maximum_packet_size: Option<NonZeroU32> = MaximumPacketSize,
        /// The highest topic alias that the client takes; absent is 0, none.
        topic_alias_maximum: Option<u16> = TopicAliasMaximum,
        request_response_information: Option<bool> = RequestResponseInformation,
        /// Whether the server may send reason strings and user properties with failures; absent is true.
        request_problem_information: Option<bool> = RequestProblemInformation,
        user_properties: UserProperties = UserProperty,
        authentication_method: Option<ByteString> = AuthenticationMethod,
        authentication_data: Option<Secret> = AuthenticationData,
    }
}

property_set! {
    /// Properties of the will in CONNECT (section 3.1.3.2).
    WillProperties in Will {
        /// Seconds between the end of the connection and the will's publication; absent is 0.
        will_delay_interval: Option<u32> = WillDelayInterval,
        payload_format: Option<PayloadFormat> = PayloadFormatIndicator,
        /// Lifetime of the message in seconds, from its publication.
        message_expiry_interval: Option<u32> = MessageExpiryInterval,
        content_type: Option<ByteString> = ContentType,
        response_topic: Option<ByteString> = ResponseTopic,
        correlation_data: Option<Bytes> = CorrelationData,
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of CONNACK (section 3.2.2.3).
    ConnAckProperties in ConnAck {
        /// What the server uses instead of the client's value, in seconds.
        session_expiry_interval: Option<u32> = SessionExpiryInterval,
        /// How many QoS 1 and 2 messages the server takes at once; absent is 65,535.
        receive_maximum: Option<NonZeroU16> = ReceiveMaximum,
        /// The highest QoS that the server takes. QoS 2 is said by absence and never written.
        maximum_qos: Option<QoS> = MaximumQoS,
        retain_available: Option<bool> = RetainAvailable,
        /// The largest packet that the server takes, in bytes with the fixed header.
        maximum_packet_size: Option<NonZeroU32> = MaximumPacketSize,
        assigned_client_id: Option<ByteString> = AssignedClientIdentifier,
        /// The highest topic alias that the server takes; absent is 0, none.
        topic_alias_maximum: Option<u16> = TopicAliasMaximum,
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
        wildcard_subscription_available: Option<bool> = WildcardSubscriptionAvailable,
        subscription_ids_available: Option<bool> = SubscriptionIdentifierAvailable,
        shared_subscription_available: Option<bool> = SharedSubscriptionAvailable,
        /// The keep alive that the client must use instead of its own, in seconds.
        server_keep_alive_secs: Option<u16> = ServerKeepAlive,
        response_information: Option<ByteString> = ResponseInformation,
        server_reference: Option<ByteString> = ServerReference,
        authentication_method: Option<ByteString> = AuthenticationMethod,
        authentication_data: Option<Secret> = AuthenticationData,
    }
}

property_set! {
    /// Properties of PUBLISH (section 3.3.2.3). The default owns no memory; a clone copies reference counts only, but for
    /// the subscription identifiers.
    PublishProperties in Publish {
        payload_format: Option<PayloadFormat> = PayloadFormatIndicator,
        /// Remaining lifetime of the message in seconds.
        message_expiry_interval: Option<u32> = MessageExpiryInterval,
        /// Belongs to one direction of one connection, never forwarded.
        topic_alias: Option<NonZeroU16> = TopicAlias,
        response_topic: Option<ByteString> = ResponseTopic,
        correlation_data: Option<Bytes> = CorrelationData,
        user_properties: UserProperties = UserProperty,
        /// Identifiers of the matching subscriptions; only from server to client.
        subscription_ids: Vec<SubscriptionId> = SubscriptionIdentifier,
        content_type: Option<ByteString> = ContentType,
    }
}

property_set! {
    /// Properties of PUBACK, PUBREC, PUBREL and PUBCOMP (section 3.4.2.2).
    AckProperties in Ack {
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of SUBSCRIBE (section 3.8.2.1).
    SubscribeProperties in Subscribe {
        /// Comes back with every message that matches one of the packet's filters.
        subscription_id: Option<SubscriptionId> = SubscriptionIdentifier,
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of SUBACK (section 3.9.2.1).
    SubAckProperties in SubAck {
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of UNSUBSCRIBE (section 3.10.2.1).
    UnsubscribeProperties in Unsubscribe {
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of UNSUBACK (section 3.11.2.1).
    UnsubAckProperties in UnsubAck {
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
    }
}

property_set! {
    /// Properties of DISCONNECT (section 3.14.2.2).
    DisconnectProperties in Disconnect {
        /// Replaces the value of CONNECT, in seconds; only from client to server.
        session_expiry_interval: Option<u32> = SessionExpiryInterval,
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
        server_reference: Option<ByteString> = ServerReference,
    }
}

property_set! {
    /// Properties of AUTH (section 3.15.2.2).
    AuthProperties in Auth {
        authentication_method: Option<ByteString> = AuthenticationMethod,
        authentication_data: Option<Secret> = AuthenticationData,
        reason_string: Option<ByteString> = ReasonString,
        user_properties: UserProperties = UserProperty,
    }
}

/// What the payload of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadFormat {
    Unspecified = 0,
    Utf8 = 1,
}

/// A subscription identifier, 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// `None` if the value is out of range.
    pub fn new(value: u32) -> Option<Self> {
        NonZeroU32::new(value).filter(|v| v.get() <= MAX_REMAINING_LENGTH).map(Self)
    }

    /// The value.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Name and value pairs, in the order of the packet; names may repeat. [MQTT-3.1.3-10] [MQTT-3.3.2-18] Clones share memory.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserProperties(Option<Arc<Vec<(ByteString, ByteString)>>>);

impl UserProperties {
    /// Appends a pair.
    pub fn push(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) {
        Arc::make_mut(self.0.get_or_insert_default()).push((name.into(), value.into()));
    }
}

impl Deref for UserProperties {
    type Target = [(ByteString, ByteString)];

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().map_or(&[], |pairs| pairs.as_slice())
    }
}

impl From<Vec<(ByteString, ByteString)>> for UserProperties {
    fn from(pairs: Vec<(ByteString, ByteString)>) -> Self {
        Self(if pairs.is_empty() { None } else { Some(Arc::new(pairs)) })
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The property list of one packet.
pub(crate) trait PropertySet: Default {
    fn read_one(&mut self, id: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError>;

    /// Bytes of the properties without the length in front of them.
    fn content_len(&self) -> Result<usize, EncodeError>;

    fn write_content(&self, dst: &mut BytesMut);

    /// Reads the length and the properties.
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut set = Self::default();
        let len = r.varint()? as usize;
        let mut list = r.sub(len)?;
        while !list.is_empty() {
            let id = list.varint()?;
            let id = PropertyId::from_u32(id).ok_or(DecodeError::UnknownProperty(id))?;
            set.read_one(id, &mut list)?;
        }
        Ok(set)
    }

    /// Bytes of the length and the properties. [MQTT-2.2.2-1]
    fn encoded_len(&self) -> Result<usize, EncodeError> {
        list_len(self.content_len()?)
    }

    /// Writes a list that [`encoded_len`](Self::encoded_len) has accepted.
    fn encode(&self, dst: &mut BytesMut) {
        put_varint(dst, self.content_len().unwrap_or(0) as u32);
        self.write_content(dst);
    }

    fn is_empty(&self) -> bool {
        matches!(self.content_len(), Ok(0))
    }
}

/// Bytes of a property list with `content` bytes of properties.
pub(crate) fn list_len(content: usize) -> Result<usize, EncodeError> {
    Ok(varint_len(remaining_length(content)?) + content)
}

/// One field of a property set.
pub(crate) trait Slot {
    fn read(&mut self, id: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError>;

    /// Bytes on the wire, identifiers included.
    fn wire_len(&self) -> Result<usize, EncodeError>;

    fn write(&self, id: PropertyId, dst: &mut BytesMut);
}

/// The value of a property that may occur once.
pub(crate) trait Value: Sized {
    fn read(id: PropertyId, r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Whether the value is said by leaving the property out.
    fn is_implied(&self) -> bool {
        false
    }

    fn len(&self) -> Result<usize, EncodeError>;

    fn write(&self, dst: &mut BytesMut);
}

impl<T: Value> Slot for Option<T> {
    fn read(&mut self, id: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.is_some() {
            return Err(DecodeError::DuplicateProperty(id));
        }
        *self = Some(T::read(id, r)?);
        Ok(())
    }

    fn wire_len(&self) -> Result<usize, EncodeError> {
        match self {
            Some(value) if !value.is_implied() => Ok(1 + value.len()?),
            _ => Ok(0),
        }
    }

    fn write(&self, id: PropertyId, dst: &mut BytesMut) {
        if let Some(value) = self.as_ref().filter(|value| !value.is_implied()) {
            dst.put_u8(id as u8);
            value.write(dst);
        }
    }
}

impl Slot for UserProperties {
    fn read(&mut self, _: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.len() >= r.limits.user_properties {
            return Err(DecodeError::TooManyUserProperties);
        }
        // [MQTT-1.5.7-1]
        let name = r.string()?;
        let value = r.string()?;
        self.push(name, value);
        Ok(())
    }

    fn wire_len(&self) -> Result<usize, EncodeError> {
        self.iter()
            .try_fold(0, |sum, (name, value)| Ok(sum + 1 + field_len(name.as_bytes())? + field_len(value.as_bytes())?))
    }

    fn write(&self, id: PropertyId, dst: &mut BytesMut) {
        for (name, value) in self.iter() {
            dst.put_u8(id as u8);
            put_field(dst, name.as_bytes());
            put_field(dst, value.as_bytes());
        }
    }
}

impl Slot for Vec<SubscriptionId> {
    fn read(&mut self, id: PropertyId, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.len() >= r.limits.subscriptions {
            return Err(DecodeError::TooManySubscriptions);
        }
        self.push(<SubscriptionId as Value>::read(id, r)?);
        Ok(())
    }

    fn wire_len(&self) -> Result<usize, EncodeError> {
        Ok(subscription_ids_len(self))
    }

    fn write(&self, id: PropertyId, dst: &mut BytesMut) {
        for value in self {
            dst.put_u8(id as u8);
            value.write(dst);
        }
    }
}

/// Bytes of subscription identifiers as properties of PUBLISH.
pub(crate) fn subscription_ids_len(ids: &[SubscriptionId]) -> usize {
    ids.iter().map(|id| 1 + varint_len(id.get())).sum()
}

macro_rules! fixed_value {
    ($ty:ty, $len:literal, $r:ident, $id:ident => $read:expr, $dst:ident, $value:ident => $write:expr) => {
        impl Value for $ty {
            fn read($id: PropertyId, $r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $read
            }

            fn len(&self) -> Result<usize, EncodeError> {
                Ok($len)
            }

            fn write(&self, $dst: &mut BytesMut) {
                let $value = self;
                $write
            }
        }
    };
}

fixed_value!(u16, 2, r, _id => r.u16(), dst, v => dst.put_u16(*v));
fixed_value!(u32, 4, r, _id => r.u32(), dst, v => dst.put_u32(*v));
fixed_value!(NonZeroU16, 2, r, id => NonZeroU16::new(r.u16()?).ok_or(DecodeError::PropertyValue(id)),
    dst, v => dst.put_u16(v.get()));
fixed_value!(NonZeroU32, 4, r, id => NonZeroU32::new(r.u32()?).ok_or(DecodeError::PropertyValue(id)),
    dst, v => dst.put_u32(v.get()));
fixed_value!(bool, 1, r, id => flag(id, r), dst, v => dst.put_u8(u8::from(*v)));
fixed_value!(PayloadFormat, 1, r, id => {
    Ok(if flag(id, r)? { PayloadFormat::Utf8 } else { PayloadFormat::Unspecified })
}, dst, v => dst.put_u8(*v as u8));

/// A byte that may be 0 or 1.
fn flag(id: PropertyId, r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

impl Value for QoS {
    fn read(id: PropertyId, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if flag(id, r)? { Self::AtLeastOnce } else { Self::AtMostOnce })
    }

    fn is_implied(&self) -> bool {
        *self == Self::ExactlyOnce
    }

    fn len(&self) -> Result<usize, EncodeError> {
        Ok(1)
    }

    fn write(&self, dst: &mut BytesMut) {
        dst.put_u8(*self as u8);
    }
}

impl Value for SubscriptionId {
    fn read(id: PropertyId, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(r.varint()?).ok_or(DecodeError::PropertyValue(id))
    }

    fn len(&self) -> Result<usize, EncodeError> {
        Ok(varint_len(self.get()))
    }

    fn write(&self, dst: &mut BytesMut) {
        put_varint(dst, self.get());
    }
}

macro_rules! field_value {
    ($ty:ty, $r:ident => $read:expr, $value:ident => $bytes:expr) => {
        impl Value for $ty {
            fn read(_: PropertyId, $r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $read
            }

            fn len(&self) -> Result<usize, EncodeError> {
                let $value = self;
                field_len($bytes)
            }

            fn write(&self, dst: &mut BytesMut) {
                let $value = self;
                put_field(dst, $bytes);
            }
        }
    };
}

field_value!(ByteString, r => r.string(), v => v.as_bytes());
field_value!(Bytes, r => r.binary(), v => v);
field_value!(Secret, r => r.binary().map(Secret::from), v => v.as_bytes());
