//! Reason codes of MQTT 5.0, section 2.4, and which packets may carry them.

use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketType, QoS};

macro_rules! reason_codes {
    ($( $(#[$doc:meta])* $name:ident = $code:literal in $($packet:ident)|+ ),* $(,)?) => {
        /// Why something succeeded or failed. Codes from 0x80 are failures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u8)]
        pub enum ReasonCode {
            #[default]
            $( $(#[$doc])* $name = $code, )*
        }

        impl ReasonCode {
            /// Every reason code, in the order of its value.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason code with this value, if MQTT 5 defines one.
            pub fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $( $code => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// Whether a packet of this type may carry the code.
            pub fn allowed_in(self, packet: PacketType) -> bool {
                match self {
                    $( Self::$name => matches!(packet, $(PacketType::$packet)|+), )*
                }
            }
        }
    };
}

reason_codes! {
    /// Success; in DISCONNECT normal disconnection, in SUBACK granted QoS 0.
    Success = 0x00 in ConnAck | PubAck | PubRec | PubRel | PubComp | SubAck | UnsubAck | Disconnect | Auth,
    GrantedQoS1 = 0x01 in SubAck,
    GrantedQoS2 = 0x02 in SubAck,
    DisconnectWithWill = 0x04 in Disconnect,
    NoMatchingSubscribers = 0x10 in PubAck | PubRec,
    NoSubscriptionExisted = 0x11 in UnsubAck,
    ContinueAuthentication = 0x18 in Auth,
    Reauthenticate = 0x19 in Auth,
    UnspecifiedError = 0x80 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect,
    MalformedPacket = 0x81 in ConnAck | Disconnect,
    ProtocolError = 0x82 in ConnAck | Disconnect,
    ImplementationSpecificError = 0x83 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect,
    UnsupportedProtocolVersion = 0x84 in ConnAck,
    ClientIdentifierNotValid = 0x85 in ConnAck,
    BadUserNameOrPassword = 0x86 in ConnAck,
    NotAuthorized = 0x87 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect,
    ServerUnavailable = 0x88 in ConnAck,
    ServerBusy = 0x89 in ConnAck | Disconnect,
    Banned = 0x8a in ConnAck,
    ServerShuttingDown = 0x8b in Disconnect,
    BadAuthenticationMethod = 0x8c in ConnAck | Disconnect,
    KeepAliveTimeout = 0x8d in Disconnect,
    SessionTakenOver = 0x8e in Disconnect,
    TopicFilterInvalid = 0x8f in SubAck | UnsubAck | Disconnect,
    TopicNameInvalid = 0x90 in ConnAck | PubAck | PubRec | Disconnect,
    PacketIdentifierInUse = 0x91 in PubAck | PubRec | SubAck | UnsubAck,
    PacketIdentifierNotFound = 0x92 in PubRel | PubComp,
    ReceiveMaximumExceeded = 0x93 in Disconnect,
    TopicAliasInvalid = 0x94 in Disconnect,
    PacketTooLarge = 0x95 in ConnAck | Disconnect,
    MessageRateTooHigh = 0x96 in Disconnect,
    QuotaExceeded = 0x97 in ConnAck | PubAck | PubRec | SubAck | Disconnect,
    AdministrativeAction = 0x98 in Disconnect,
    PayloadFormatInvalid = 0x99 in ConnAck | PubAck | PubRec | Disconnect,
    RetainNotSupported = 0x9a in ConnAck | Disconnect,
    QoSNotSupported = 0x9b in ConnAck | Disconnect,
    UseAnotherServer = 0x9c in ConnAck | Disconnect,
    ServerMoved = 0x9d in ConnAck | Disconnect,
    SharedSubscriptionsNotSupported = 0x9e in SubAck | Disconnect,
    ConnectionRateExceeded = 0x9f in ConnAck | Disconnect,
    MaximumConnectTime = 0xa0 in Disconnect,
    SubscriptionIdentifiersNotSupported = 0xa1 in SubAck | Disconnect,
    WildcardSubscriptionsNotSupported = 0xa2 in SubAck | Disconnect,
}

impl ReasonCode {
    /// The value on the wire.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the code says that something failed.
    pub fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The SUBACK code that grants a subscription with this maximum QoS.
    pub fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Success,
            QoS::AtLeastOnce => Self::GrantedQoS1,
            QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// The return code that says the same in a CONNACK of MQTT 3.1 and 3.1.1 (section 3.2.2.3).
    pub fn to_connect_return_code(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            code if code.is_error() => 3,
            _ => 0,
        }
    }

    /// The reason code that says the same as a CONNACK return code of MQTT 3.1 and 3.1.1.
    pub fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    pub(crate) fn decode(code: u8, packet: PacketType) -> Result<Self, DecodeError> {
        Self::from_u8(code).filter(|r| r.allowed_in(packet)).ok_or(DecodeError::ReasonCode { packet, code })
    }

    pub(crate) fn check(self, packet: PacketType) -> Result<Self, EncodeError> {
        if self.allowed_in(packet) { Ok(self) } else { Err(EncodeError::ReasonCode { packet, code: self }) }
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> u8 {
        code.as_u8()
    }
}
