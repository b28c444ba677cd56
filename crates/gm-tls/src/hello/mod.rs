//! The first flight of a TLS or TLCP client, read without any library: which protocol it speaks and what it offers.
//!
//! Pure and bounded: no IO, no clock, at most [`MAX_WIRE_LEN`] bytes are ever needed. The answer is stable: what is returned
//! for a prefix, other than [`Parse::NeedMore`], is returned for every longer input that begins with it.

mod body;
mod error;
mod record;

#[cfg(feature = "tongsuo")]
pub(crate) use error::fatal_alert;
pub use error::{HelloError, alert, alert_record};

/// The version in record headers and hellos of TLCP, GB/T 38636-2020 clause 6.4.5.2.1.
pub const TLCP_VERSION: u16 = 0x0101;
/// Longest ClientHello accepted, without its handshake header.
pub const MAX_HELLO_LEN: usize = 16 * 1024;
/// Over how many records a hello may be spread.
pub const MAX_RECORDS: usize = 64;
/// A buffer of this size always suffices: with as many bytes at hand, [`parse`] never answers [`Parse::NeedMore`].
pub const MAX_WIRE_LEN: usize = 4 + MAX_HELLO_LEN + MAX_RECORDS * 5;

const TLS13_VERSION: u16 = 0x0304;
const TLS_SM4_GCM_SM3: u16 = 0x00c6;
const TLS_SM4_CCM_SM3: u16 = 0x00c7;
const GROUP_CURVE_SM2: u16 = 41;
const GROUP_CURVE_SM2_MLKEM768: u16 = 4590;
const SM2SIG_SM3: u16 = 0x0708;
const TLS_FALLBACK_SCSV: u16 = 0x5600;

/// What a prefix of a connection's bytes amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one value for each connection, taken apart where it is returned")]
pub enum Parse {
    /// So far a hello, but not all of it.
    NeedMore,
    Hello(ClientHello),
}

/// The parts of a ClientHello that choosing a context needs, in the order the client sent them and GREASE values included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// Version in the record header: `0x0101` for TLCP, `0x03xx` for TLS (where RFC 8446 gives it no meaning).
    pub record_version: u16,
    /// `client_version` of TLCP and TLS 1.2, `legacy_version` of TLS 1.3.
    pub client_version: u16,
    /// Cipher suites, never empty.
    pub suites: Vec<u16>,
    /// Host name of the server_name extension in lower case (RFC 6066 section 3): a DNS name, or an address in text form.
    pub sni: Option<String>,
    /// Protocol names of the ALPN extension (RFC 7301), each 1 to 255 bytes; empty if the extension is absent.
    pub alpn: Vec<Vec<u8>>,
    /// supported_groups (RFC 8446 section 4.2.7); empty if absent.
    pub groups: Vec<u16>,
    /// Groups for which key_share holds a share (RFC 8446 section 4.2.8); empty if absent.
    pub key_share_groups: Vec<u16>,
    /// signature_algorithms (RFC 8446 section 4.2.3); empty if absent.
    pub signature_algorithms: Vec<u16>,
    /// supported_versions (RFC 8446 section 4.2.1); empty if absent.
    pub supported_versions: Vec<u16>,
    /// Type of each extension.
    pub extensions: Vec<u16>,
    /// Length of the session id: not 0 when a TLS 1.2 or TLCP client asks for its session, or a TLS 1.3 client for compatibility mode.
    pub session_id_len: usize,
    /// How many bytes of the input the hello's records take. What follows them is not part of the hello.
    pub wire_len: usize,
}

/// Which family of contexts a hello asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HelloKind {
    /// TLS 1.2 or 1.3 without all of what RFC 8998 needs.
    Tls,
    /// TLS 1.3 that can also run by RFC 8998: an SM4 suite, sm2sig_sm3, and curveSM2 or its hybrid are all offered.
    Rfc8998Capable,
    /// TLCP, GB/T 38636-2020.
    Tlcp,
}

/// Reads the first flight of a client from the first bytes of its connection.
///
/// # Errors
/// [`HelloError`] when no continuation of `prefix` could be an acceptable hello.
pub fn parse(prefix: &[u8]) -> Result<Parse, HelloError> {
    match record::reassemble(prefix)? {
        None => Ok(Parse::NeedMore),
        Some(message) => body::decode(&message).map(Parse::Hello),
    }
}

impl ClientHello {
    pub fn kind(&self) -> HelloKind {
        if self.record_version == TLCP_VERSION {
            HelloKind::Tlcp
        } else if self.offers_rfc8998() {
            HelloKind::Rfc8998Capable
        } else {
            HelloKind::Tls
        }
    }

    pub fn offers_suite(&self, suite: u16) -> bool {
        self.suites.contains(&suite)
    }

    pub fn has_extension(&self, extension: u16) -> bool {
        self.extensions.contains(&extension)
    }

    /// The client says that it retries with a lower version than it could speak (RFC 7507).
    pub fn is_fallback(&self) -> bool {
        self.offers_suite(TLS_FALLBACK_SCSV)
    }

    /// Whether TLS 1.3 is among the versions offered.
    pub fn offers_tls13(&self) -> bool {
        self.supported_versions.contains(&TLS13_VERSION)
    }

    /// The name of the highest version that the client offers and that has a name here, else `unknown`.
    pub fn highest_version(&self) -> &'static str {
        if self.kind() == HelloKind::Tlcp {
            return "tlcp";
        }
        let listed = [(0x0304, "tls1.3"), (0x0303, "tls1.2"), (0x0302, "tls1.1"), (0x0301, "tls1.0")];
        let offered = |version: u16| match self.supported_versions.as_slice() {
            [] => self.client_version == version,
            versions => versions.contains(&version),
        };
        listed.iter().find(|(version, _)| offered(*version)).map_or("unknown", |(_, name)| *name)
    }

    fn offers_rfc8998(&self) -> bool {
        self.offers_tls13()
            && self.suites.iter().any(|suite| matches!(*suite, TLS_SM4_GCM_SM3 | TLS_SM4_CCM_SM3))
            && self.groups.iter().any(|group| matches!(*group, GROUP_CURVE_SM2 | GROUP_CURVE_SM2_MLKEM768))
            && self.signature_algorithms.contains(&SM2SIG_SM3)
    }
}
