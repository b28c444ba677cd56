//! What a connection itself says of its client, before CONNECT: how it is secured, and which certificate was verified.

use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use gm_tls::identity::PeerIdentity;
use gm_tls::{Protocol, suites};

use super::VerifiedCertificate;

/// What protects a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Channel {
    /// Of a client that was here before it was kept: meets no condition.
    #[default]
    Unknown,
    Plain,
    /// The client speaks TLS with a trusted proxy, which says so in its PROXY header.
    Proxied,
    Tls12,
    Tls13,
    Rfc8998,
    Tlcp,
}

impl Channel {
    const NAMES: [(&'static str, Channel); 7] = [
        ("unknown", Channel::Unknown),
        ("plain", Channel::Plain),
        ("proxied", Channel::Proxied),
        ("tls1.2", Channel::Tls12),
        ("tls1.3", Channel::Tls13),
        ("rfc8998", Channel::Rfc8998),
        ("tlcp", Channel::Tlcp),
    ];

    pub fn name(self) -> &'static str {
        Channel::NAMES.iter().find(|(_, channel)| *channel == self).map_or("unknown", |(name, _)| name)
    }

    fn from_name(name: &str) -> Channel {
        Channel::NAMES.iter().find(|(known, _)| *known == name).map_or(Channel::Unknown, |(_, channel)| *channel)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    pub channel: Channel,
    /// Name of the cipher suite; empty where the broker does not know it.
    pub suite: &'static str,
}

impl Security {
    /// A connection without TLS or TLCP of its own.
    pub const PLAIN: Security = Security { channel: Channel::Plain, suite: "" };
    /// One whose TLS a trusted proxy ended.
    pub const PROXIED: Security = Security { channel: Channel::Proxied, suite: "" };

    pub fn of(peer: &PeerIdentity) -> Security {
        let channel = match peer.protocol {
            Protocol::Tls12 => Channel::Tls12,
            Protocol::Tls13 => Channel::Tls13,
            Protocol::Rfc8998 => Channel::Rfc8998,
            Protocol::Tlcp => Channel::Tlcp,
        };
        Security { channel, suite: peer.suite }
    }

    /// From the names that a store kept.
    pub fn from_names(channel: &str, suite: &str) -> Security {
        let suite = suites::by_name(suite).map_or("", |suite| suite.name);
        Security { channel: Channel::from_name(channel), suite }
    }
}

/// What a trusted proxy says of the TLS that it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxied {
    /// The common name in a client certificate that the proxy verified.
    pub common_name: Option<ByteString>,
}

/// What is known of a client by its connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub security: Security,
    /// A certificate that the transport verified; over TLCP the signing certificate.
    pub certificate: Option<Arc<VerifiedCertificate>>,
    /// The common name in a certificate that a trusted proxy verified.
    pub proxied_name: Option<ByteString>,
    /// The identity whose pre-shared key it has proved to have.
    pub psk: Option<ByteString>,
    /// The user name that one of these gives to the client, where the listener takes names from there.
    pub username: Option<ByteString>,
}

impl Peer {
    /// Whether a certificate of the client was verified, here or by a trusted proxy, or a pre-shared key.
    pub fn is_vouched_for(&self) -> bool {
        self.certificate.is_some() || self.proxied_name.is_some() || self.psk.is_some()
    }

    /// The certificate's common name, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        match &self.certificate {
            Some(certificate) => certificate.common_name(),
            None => self.proxied_name.as_deref(),
        }
    }
}
