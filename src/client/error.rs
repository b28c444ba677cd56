//! Why a client's connection ended or a request was not sent.

use std::io;

use bytestring::ByteString;
use mqtt_codec::{DecodeError, EncodeError, PacketType, ProtocolVersion, QoS, ReasonCode};

use super::{ConnectError, ScramError, words};

/// A connection that failed, or a request that this server does not take.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// Below MQTT: a handshake that the server refused when the client took it for complete.
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the server sent something that is not MQTT")]
    Decode(#[from] DecodeError),
    #[error("the packet cannot be sent")]
    Encode(#[from] EncodeError),
    /// The server's CONNACK.
    #[error("the server refused the connection: {}{}{}", words(*reason), said(text.as_ref()), coarse(*version))]
    Refused { version: ProtocolVersion, reason: ReasonCode, text: Option<ByteString> },
    /// The server's DISCONNECT.
    #[error("the server ended the connection: {}{}", words(*reason), said(text.as_ref()))]
    Disconnected { reason: ReasonCode, text: Option<ByteString> },
    #[error(transparent)]
    Scram(#[from] ScramError),
    #[error("the server closed the connection without a word{}", mute(*.0))]
    Closed(ProtocolVersion),
    #[error("the server closed the connection instead of answering CONNECT")]
    ClosedBeforeConnAck,
    #[error("the server sent {0:?} where MQTT does not allow it")]
    Unexpected(PacketType),
    #[error("the server acknowledged packet identifier {0}, which was not sent")]
    UnknownPacketId(u16),
    #[error("the server did not answer PINGREQ within {0} seconds")]
    NoPingResponse(u64),
    #[error("the server takes no QoS above {0:?}")]
    QoSNotSupported(QoS),
    #[error("the server takes no retained messages")]
    RetainNotSupported,
    #[error("the packet has {size} bytes and the server takes {limit} at most")]
    TooLarge { size: usize, limit: u32 },
    #[error("{0} requests are in flight, which is the most there may be")]
    TooManyInFlight(usize),
}

impl ClientError {
    /// The same error before CONNACK, where one that is only an end says whose end it was, and what may have been the cause.
    #[must_use]
    pub fn before_connack(self, unanswered: impl FnOnce() -> ConnectError) -> ClientError {
        match self {
            ClientError::Io(error) if !is_end(&error) => ClientError::Io(error),
            ClientError::Io(_) | ClientError::ClosedBeforeConnAck => ClientError::Connect(unanswered()),
            other => other,
        }
    }

    /// The server's reason code, if it gave one.
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            ClientError::Refused { reason, .. } | ClientError::Disconnected { reason, .. } => Some(*reason),
            _ => None,
        }
    }
}

/// Whether the peer has ended the connection, in whatever way.
pub fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        error.downcast().map_or_else(ClientError::Io, ClientError::Connect)
    }
}

/// What a version that has no DISCONNECT of the server leaves open.
fn mute(version: ProtocolVersion) -> &'static str {
    if version.is_v5() { "" } else { ": before MQTT 5 it has none for why; its log says it, or connect with -V 5" }
}

/// What a version leaves open whose CONNACK has six codes.
fn coarse(version: ProtocolVersion) -> &'static str {
    if version.is_v5() { "" } else { "; before MQTT 5 a server can say no more, but its log does" }
}

/// The reason string as an addition to a sentence.
fn said(text: Option<&ByteString>) -> String {
    text.map(|text| format!(" ({text:?})")).unwrap_or_default()
}
