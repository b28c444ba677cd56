//! Bytes to MQTT packets and back, for 3.1, 3.1.1 and 5.0 and for both directions.
//!
//! The layer below state and IO: no sockets, no clock, no tokio, and no panic on any input. What a packet says is
//! checked here as far as the packet alone decides it; what depends on the session is the caller's.
//! `[MQTT-x.y.z-n]` cites the numbered statements of MQTT 5.0, `[MQTT3-x.y.z-n]` those of MQTT 3.1.1 (OASIS).

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod properties;
mod publish;
mod reason;
mod suback;
mod subscribe;
pub mod topic;
mod unsuback;
mod unsubscribe;
mod wire;

pub use ack::{PubAck, PubComp, PubRec, PubRel, decode_ack};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, ConnectError, Secret, Will, decode_connect, decode_connect_with};
pub use disconnect::Disconnect;
pub use error::{DecodeError, EncodeError};
pub use frame::{FrameLen, MAX_REMAINING_LENGTH, frame_len};
pub use packet::{Encode, Packet, PacketType, ProtocolVersion, QoS, decode, decode_with};
pub use properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PayloadFormat,
    PropertyId, PropertyKind, PropertyScope, PublishProperties, SubAckProperties, SubscribeProperties, SubscriptionId,
    UnsubAckProperties, UnsubscribeProperties, UserProperties, WillProperties,
};
pub use publish::{Publish, PublishHeader};
pub use reason::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::Unsubscribe;
pub use wire::Limits;
