//! Why a connection ends, whose doing it was, and what the peer is told.

use crate::auth::DenyReason;
use crate::broker::OpenError;
use crate::store::Health;
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
    #[error("no complete CONNECT within the deadline")]
    ConnectTimeout,
    #[error("nothing was heard within the keep alive")]
    KeepAlive,
    #[error("the peer took no bytes within mqtt.write_timeout")]
    WriteTimeout,
    #[error("ended by the broker: {0:?}")]
    Kicked(ReasonCode),
    #[error("session not opened: {0}")]
    Session(#[from] OpenError),
    #[error("the store cannot keep what was promised to be kept: {0:?}")]
    Store(Health),
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("packet could not be written: {0}")]
    Encode(#[from] mqtt_codec::EncodeError),
}

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
            Close::Denied(DenyReason::BadCredentials) => Some(ReasonCode::BadUserNameOrPassword),
            Close::Denied(DenyReason::AnonymousNotAllowed | DenyReason::ClientId) => Some(ReasonCode::NotAuthorized),
            // A check that cannot be made refuses, and says that it may go better later.
            Close::Denied(DenyReason::Unavailable) => Some(ReasonCode::ServerUnavailable),
            Close::Refused(reason, _) | Close::Kicked(reason) => Some(*reason),
            Close::ConnectTimeout => None,
            Close::KeepAlive => Some(ReasonCode::KeepAliveTimeout),
            Close::Session(error) => Some(error.reason_code()),
            Close::Store(Health::Full) => Some(ReasonCode::QuotaExceeded),
            Close::Store(_) => Some(ReasonCode::ImplementationSpecificError),
            Close::Encode(_) => Some(ReasonCode::UnspecifiedError),
        }
    }
}
