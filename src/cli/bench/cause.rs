//! Causes that many failures share, for counting.

use std::io;

use crate::client::ConnectError;

/// Why a connection did not come about, without what is peculiar to this one.
pub(super) fn of_connect(error: &ConnectError) -> String {
    match error {
        ConnectError::Unreachable { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
            "this machine is out of ports; use fewer connections, or more client addresses".to_owned()
        }
        ConnectError::Unreachable { source, .. } if is_out_of_descriptors(source) => {
            "out of file descriptors; raise the hard limit (ulimit -Hn)".to_owned()
        }
        ConnectError::Unreachable { source, .. } => format!("connect: {}", source.kind()),
        ConnectError::Refused { .. } => "connection refused".to_owned(),
        ConnectError::Timeout { step, .. } => format!("timeout {step}"),
        ConnectError::Handshake { source, .. } => format!("handshake: {}", source.reason().label()),
        ConnectError::Resolve { .. } | ConnectError::NoAddress { .. } => "name".to_owned(),
        ConnectError::Unanswered { .. } | ConnectError::LetGo { .. } => "closed before CONNACK".to_owned(),
        ConnectError::WebSocket { .. } => "websocket".to_owned(),
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE have no kind of their own.
    matches!(error.raw_os_error(), Some(24 | 23))
}
