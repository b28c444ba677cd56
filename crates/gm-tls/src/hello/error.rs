//! Why a first flight is not a usable ClientHello: one variant for each cause, the alert the peer gets, and words for the operator.

use thiserror::Error;

/// `AlertDescription` values of RFC 8446 section 6 and GB/T 38636-2020 that a refused hello is answered with.
pub mod alert {
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    pub const RECORD_OVERFLOW: u8 = 22;
    pub const ILLEGAL_PARAMETER: u8 = 47;
    pub const DECODE_ERROR: u8 = 50;
    pub const PROTOCOL_VERSION: u8 = 70;
}

/// A defect of the first flight. It is always the peer's fault, and final: no further byte can heal it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HelloError {
    #[error("an SSL 2.0 hello; this protocol is not spoken here, the client needs TLS 1.2, TLS 1.3 or TLCP")]
    Ssl2,
    #[error("the first byte {first:#04x} opens no TLS or TLCP handshake record")]
    NotHandshake { first: u8 },
    #[error("the record header names version {version:#06x}, which is neither TLS (03xx) nor TLCP (0101)")]
    UnknownRecordVersion { version: u16 },
    #[error("the records of one hello name different versions, {first:#06x} and {later:#06x}")]
    RecordVersionChanged { first: u16, later: u16 },
    #[error("a record of another type ({content_type}) in the middle of the hello")]
    Interleaved { content_type: u8 },
    #[error("an empty handshake record")]
    EmptyRecord,
    #[error("a record of {length} bytes; at most 16384 are allowed")]
    RecordTooLong { length: usize },
    #[error("the hello is spread over more than {limit} records")]
    TooManyRecords { limit: usize },
    #[error("the first handshake message is of type {message_type}, not a ClientHello")]
    NotClientHello { message_type: u8 },
    #[error("the hello announces {length} bytes; at most {limit} are accepted")]
    TooLong { length: usize, limit: usize },
    #[error("{extra} bytes follow the hello in its last record")]
    DataAfterHello { extra: usize },
    #[error(
        "the record header names version {record:#06x} but the hello inside names {client:#06x}; one of them was forged or the client is broken"
    )]
    VersionMismatch { record: u16, client: u16 },
    #[error("the hello names version {version:#06x}, which is no version of TLS")]
    UnknownClientVersion { version: u16 },
    #[error("the hello ends inside its {field}")]
    Truncated { field: &'static str },
    #[error("the length of the {field} does not agree with what it holds")]
    BadLength { field: &'static str },
    #[error("{extra} bytes are left over after the {field}")]
    TrailingBytes { field: &'static str, extra: usize },
    #[error("the session id has {length} bytes; at most 32 are allowed")]
    SessionIdTooLong { length: usize },
    #[error("the hello offers no cipher suite")]
    NoSuites,
    #[error("the list of cipher suites has an odd number of bytes ({length})")]
    OddSuites { length: usize },
    #[error("the hello does not offer the null compression method")]
    NoNullCompression,
    #[error("extension {extension} is there twice")]
    DuplicateExtension { extension: u16 },
    #[error("the pre_shared_key extension is not the last one")]
    PreSharedKeyNotLast,
    #[error("the server_name extension holds more than one host name")]
    SeveralHostNames,
    #[error("the host name in server_name has {length} bytes; at most 255 are allowed")]
    HostNameTooLong { length: usize },
    #[error("the host name in server_name is neither a DNS name nor an address")]
    BadHostName,
}

impl HelloError {
    /// The `AlertDescription` to send to the peer, always at level fatal.
    pub const fn alert(&self) -> u8 {
        match self {
            Self::Ssl2
            | Self::UnknownRecordVersion { .. }
            | Self::RecordVersionChanged { .. }
            | Self::VersionMismatch { .. }
            | Self::UnknownClientVersion { .. } => alert::PROTOCOL_VERSION,
            Self::NotHandshake { .. }
            | Self::Interleaved { .. }
            | Self::EmptyRecord
            | Self::TooManyRecords { .. }
            | Self::NotClientHello { .. }
            | Self::DataAfterHello { .. } => alert::UNEXPECTED_MESSAGE,
            Self::RecordTooLong { .. } => alert::RECORD_OVERFLOW,
            Self::TooLong { .. }
            | Self::NoNullCompression
            | Self::DuplicateExtension { .. }
            | Self::PreSharedKeyNotLast
            | Self::SeveralHostNames
            | Self::HostNameTooLong { .. }
            | Self::BadHostName => alert::ILLEGAL_PARAMETER,
            Self::Truncated { .. }
            | Self::BadLength { .. }
            | Self::TrailingBytes { .. }
            | Self::SessionIdTooLong { .. }
            | Self::NoSuites
            | Self::OddSuites { .. } => alert::DECODE_ERROR,
        }
    }
}

/// A fatal alert as the record that answers the hello `received` begins with: in version 0101 to a TLCP record, else in 0303.
pub fn alert_record(received: &[u8], alert: u8) -> [u8; 7] {
    let version = match received {
        [_, 1, 1, ..] => 0x0101,
        _ => 0x0303,
    };
    fatal_alert(version, alert)
}

/// A fatal alert as a record of this version (RFC 5246 section 6.2.1, GB/T 38636-2020).
pub(crate) fn fatal_alert(record_version: u16, alert: u8) -> [u8; 7] {
    let [major, minor] = record_version.to_be_bytes();
    [21, major, minor, 0, 2, 2, alert]
}
