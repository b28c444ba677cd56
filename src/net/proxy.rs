//! PROXY protocol headers, versions 1 and 2, as a load balancer puts them before a connection (haproxy.org, `proxy-protocol.txt`).
//!
//! Pure and stable over prefixes. Written here because the header is an identity that the broker trusts: the crates `ppp` 2.3 and
//! `proxy-header` 0.1 neither verify the CRC32C nor bound the header below 64 KiB nor refuse contradictory values.

mod v1;
mod v2;

use std::net::SocketAddr;

use thiserror::Error;

/// How a version 1 header begins.
pub const V1_SIGNATURE: &[u8] = b"PROXY ";
/// How a version 2 header begins.
pub const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 header, its line end included (section 2.1).
pub const MAX_V1_LEN: usize = 107;
/// A bound on version 2 headers that holds every usual one: section 2.2 asks senders to stay below it, as it fits a first segment.
pub const DEFAULT_MAX_V2_LEN: usize = 536;

/// What a prefix of a connection's bytes amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one value for each connection, taken apart where it is returned")]
pub enum ProxyParse {
    /// So far a header, but not all of it.
    NeedMore,
    Header(ProxyHeader),
}

/// What the proxy says about the connection that it forwards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyHeader {
    /// The proxy opened this connection on its own account (a health check): there is no client behind it.
    pub local: bool,
    /// Address of the client; `None` if the proxy does not know it, and then that of the connection holds.
    pub source: Option<SocketAddr>,
    /// Address the client connected to.
    pub destination: Option<SocketAddr>,
    /// What the proxy saw of the client's TLS; `None` if the client used none, or the proxy does not say.
    pub tls: Option<ProxyTls>,
    /// Host name the client asked for, from SNI or another protocol.
    pub authority: Option<String>,
    /// Application protocol the client negotiated.
    pub alpn: Option<Vec<u8>>,
    /// How many bytes of the input the header takes.
    pub wire_len: usize,
}

/// The `PP2_TYPE_SSL` value of a version 2 header (section 2.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyTls {
    /// The client presented a certificate and the proxy verified it. Without this, `common_name` proves nothing.
    pub verified: bool,
    /// Protocol version in the proxy's words, such as `TLSv1.3`.
    pub version: Option<String>,
    /// Common name of the client's certificate.
    pub common_name: Option<String>,
    pub cipher: Option<String>,
    /// Algorithm that the client's certificate is signed with.
    pub signature_algorithm: Option<String>,
    /// Algorithm of the key in the client's certificate.
    pub key_algorithm: Option<String>,
}

/// Why a header is refused; final, and always the fault of the peer, which is either a proxy or not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    #[error("the connection does not begin with a PROXY header, which this listener demands")]
    Missing,
    #[error("the version 1 header is longer than 107 bytes or its line never ends")]
    V1TooLong,
    #[error("the version 1 header does not end with CR LF")]
    V1LineEnd,
    #[error("the version 1 header has a wrong number of fields or a character that is not allowed")]
    V1Malformed,
    #[error("the version 1 header names an unknown protocol")]
    V1Protocol,
    #[error("the {field} of the version 1 header is not valid")]
    V1Address { field: &'static str },
    #[error("version {version} in a header with the signature of version 2")]
    Version { version: u8 },
    #[error("unknown command {command}")]
    Command { command: u8 },
    #[error("address family and transport {family:#04x} are unknown or not those of a stream")]
    Family { family: u8 },
    #[error("the header announces {length} bytes; at most {limit} are accepted")]
    TooLong { length: usize, limit: usize },
    #[error("the header is too short for the addresses of its family")]
    AddressesTruncated,
    #[error("a value of type {kind:#04x} runs over the end of what holds it")]
    ValueOverrun { kind: u8 },
    #[error("a value of type {kind:#04x} has a length that its type does not allow")]
    ValueLength { kind: u8 },
    #[error("a value of type {kind:#04x} is there twice")]
    Duplicate { kind: u8 },
    #[error("the text of type {kind:#04x} is empty, not UTF-8, or holds control characters")]
    Text { kind: u8 },
    #[error("the checksum does not match")]
    Checksum,
    #[error("the TLS values contradict their flags")]
    ContradictoryTls,
}

/// Reads the header at the start of `prefix`. A version 2 header may take at most `max_v2_len` bytes, signature included.
///
/// # Errors
/// [`ProxyError`] when no continuation of `prefix` could be an acceptable header.
pub fn parse(prefix: &[u8], max_v2_len: usize) -> Result<ProxyParse, ProxyError> {
    if prefix.starts_with(V2_SIGNATURE) {
        v2::parse(prefix, max_v2_len)
    } else if prefix.starts_with(V1_SIGNATURE) {
        v1::parse(prefix)
    } else if V1_SIGNATURE.starts_with(prefix) || V2_SIGNATURE.starts_with(prefix) {
        Ok(ProxyParse::NeedMore)
    } else {
        Err(ProxyError::Missing)
    }
}

#[cfg(test)]
mod tests;
