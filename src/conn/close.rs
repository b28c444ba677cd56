//! Why a connection ends, whose doing it was, and what the peer is told.

use crate::auth::DenyReason;
use crate::broker::OpenError;
use crate::metrics::Metrics;
use crate::store::Health;
use bytestring::ByteString;
use mqtt_codec::{DecodeError, ReasonCode};
use std::io;

/// The end of a connection.
#[derive(Debug, thiserror::Error)]
pub enum Close {
    #[error("the client said goodbye")]
    Disconnected,
    #[error("the client said goodbye and asked for its will to be published")]
    DisconnectedWithWill,
    #[error("the client closed the connection without DISCONNECT")]
    PeerClosed,
    #[error("malformed packet: {0}")]
    Malformed(#[from] DecodeError),
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("not authenticated: {0}")]
    Denied(DenyReason),
    #[error("{1}")]
    Refused(ReasonCode, &'static str),
    /// By what of it the client is banned, which it is not told.
    #[error("banned by its {0}; shangmq ctl ban list says for how long")]
    Banned(&'static str),
    /// A limit of the configuration, by its key.
    #[error("limit reached: {1}")]
    OverLimit(ReasonCode, &'static str),
    #[error("clients are sent to another server")]
    Redirected(ReasonCode, ByteString),
    #[error("an answer is larger than the client's Maximum Packet Size")]
    AnswerTooLarge,
    #[error("no complete CONNECT within the deadline")]
    ConnectTimeout,
    #[error("not authenticated within the deadline for CONNECT")]
    AuthTimeout,
    #[error("nothing was heard within the keep alive")]
    KeepAlive,
    #[error("the peer took no bytes within mqtt.write_timeout")]
    WriteTimeout,
    #[error("ended by the broker: {0:?}")]
    Kicked(ReasonCode),
    #[error("session not opened: {0}")]
    Session(#[from] OpenError),
    #[error("the store cannot keep what was promised to be kept: {0}")]
    Store(Health),
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("packet could not be written: {0}")]
    Encode(#[from] mqtt_codec::EncodeError),
}

/// An error of a stream whose framing has a limit that the peer went beyond: the limit's key in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("longer than {0}")]
pub struct StreamLimit(pub &'static str);

impl Close {
    /// The reason code of the DISCONNECT that tells an MQTT 5 client; `None` where there is nobody left to tell.
    pub fn disconnect_reason(&self) -> Option<ReasonCode> {
        match self {
            Close::Disconnected
            | Close::DisconnectedWithWill
            | Close::PeerClosed
            | Close::Io(_)
            | Close::WriteTimeout => None,
            Close::Malformed(error) => Some(error.reason_code()),
            Close::Protocol(_) => Some(ReasonCode::ProtocolError),
            Close::Denied(DenyReason::BadCredentials | DenyReason::Token(_)) => Some(ReasonCode::BadUserNameOrPassword),
            Close::Denied(
                DenyReason::AnonymousNotAllowed | DenyReason::ClientId | DenyReason::PeerName(..) | DenyReason::Pinned,
            ) => Some(ReasonCode::NotAuthorized),
            // A check that cannot be made refuses, and says that it may go better later.
            Close::Denied(DenyReason::Unavailable) => Some(ReasonCode::ServerUnavailable),
            Close::Denied(DenyReason::Busy(_)) => Some(ReasonCode::ServerBusy),
            Close::Refused(reason, _)
            | Close::OverLimit(reason, _)
            | Close::Redirected(reason, _)
            | Close::Kicked(reason) => Some(*reason),
            Close::Banned(_) => Some(ReasonCode::Banned),
            Close::AnswerTooLarge => Some(ReasonCode::PacketTooLarge),
            Close::ConnectTimeout => None,
            Close::AuthTimeout => Some(ReasonCode::ServerBusy),
            Close::KeepAlive => Some(ReasonCode::KeepAliveTimeout),
            // [MQTT3-4.8.0-2]
            Close::Session(error) => Some(error.reason_code()),
            Close::Store(Health::Full) => Some(ReasonCode::QuotaExceeded),
            Close::Store(_) => Some(ReasonCode::ImplementationSpecificError),
            Close::Encode(_) => Some(ReasonCode::UnspecifiedError),
        }
    }

    /// The limit that ended the connection, by its key in the configuration.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Close::OverLimit(_, name) | Close::Denied(DenyReason::Busy(name)) => Some(name),
            Close::Malformed(DecodeError::PacketTooLarge { .. }) => Some("mqtt.max_packet_size"),
            Close::ConnectTimeout => Some("connect_timeout"),
            Close::WriteTimeout => Some("mqtt.write_timeout"),
            Close::KeepAlive => Some("mqtt.keepalive_multiplier"),
            Close::Io(error) => error.get_ref()?.downcast_ref::<StreamLimit>().map(|limit| limit.0),
            _ => None,
        }
    }

    /// Counts the limit that ended the connection, if one did. To be called before the peer is told, who may come back at once.
    pub(super) fn count_limit(&self, metrics: &Metrics) {
        self.limit().into_iter().for_each(|limit| metrics.limit_hit(limit));
    }

    /// What a client is told in words. Nothing about authentication, and nothing about the broker's own faults.
    pub fn reason_string(&self) -> Option<ByteString> {
        match self {
            Close::Malformed(_)
            | Close::Protocol(_)
            | Close::Refused(..)
            | Close::OverLimit(..)
            | Close::Redirected(..)
            | Close::AnswerTooLarge
            | Close::KeepAlive
            | Close::Session(_) => Some(self.to_string().into()),
            // Nothing else withdraws what an established connection was let in by.
            Close::Kicked(ReasonCode::NotAuthorized) => {
                Some(ByteString::from_static("a certificate of the client was revoked"))
            }
            Close::Kicked(reason) => explain(*reason).map(ByteString::from_static),
            _ => None,
        }
    }

    /// Where else the client may go.
    pub fn server_reference(&self) -> Option<&ByteString> {
        match self {
            Close::Redirected(_, server) => Some(server),
            _ => None,
        }
    }
}

/// A failure in words, for clients that want them; `None` where the code says all there is, or all a peer may know.
pub(super) fn explain(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason {
        ReasonCode::TopicNameInvalid => "the broker takes no such topic",
        ReasonCode::TopicFilterInvalid => "the broker takes no such topic filter",
        ReasonCode::QuotaExceeded => "a limit of the broker is reached",
        ReasonCode::PayloadFormatInvalid => "the payload is not the UTF-8 it is said to be",
        ReasonCode::SharedSubscriptionsNotSupported => "shared subscriptions are off",
        ReasonCode::WildcardSubscriptionsNotSupported => "wildcard subscriptions are off",
        ReasonCode::PacketIdentifierNotFound => "the packet identifier is not in use",
        ReasonCode::SessionTakenOver => "another connection uses this client identifier",
        ReasonCode::ServerShuttingDown => "the broker is shutting down",
        ReasonCode::AdministrativeAction => "ended by an administrator",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A client whose certificate was revoked meanwhile was told that it is not authorized, as if by a rule.
    #[test]
    fn a_client_is_told_that_its_certificate_was_revoked() {
        let revoked = Close::Kicked(ReasonCode::NotAuthorized);
        assert_eq!(revoked.reason_string().as_deref(), Some("a certificate of the client was revoked"));
        assert_eq!(Close::Kicked(ReasonCode::MalformedPacket).reason_string(), None);
    }
}
