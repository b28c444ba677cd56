//! Why a context could not be built and why a handshake failed, in words for an operator and as a small set of reasons for
//! metrics. The peer is told no more than an alert.

use std::{borrow::Cow, fmt, io};

use openssl::{
    error::ErrorStack,
    ssl::{self, ErrorCode},
    x509::X509VerifyResult,
};

use crate::{
    alert::{self, PeerAlert},
    pair::PairError,
    revocation::Reason,
};

/// A configuration that no context can be built from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    #[error("no protocol is enabled: configure at least one of tls, rfc8998 and tlcp")]
    NothingEnabled,
    #[error("{protocol}: no certificate is configured")]
    NoCertificate { protocol: &'static str },
    #[error("{protocol}: the certificate of \"{subject}\" has {} {found} key where {wanted} is needed", article(.found))]
    WrongKeyKind { protocol: &'static str, subject: String, found: String, wanted: &'static str },
    #[error("{protocol}: two certificates have a {kind} key, and a peer could only ever get one of them")]
    DuplicateKeyKind { protocol: &'static str, kind: String },
    #[error("{protocol}: the private key does not belong to the certificate of \"{subject}\"")]
    KeyMismatch { protocol: &'static str, subject: String },
    #[error("{protocol}: client certificates are to be verified but no ca is configured")]
    NoCa { protocol: &'static str },
    #[error("{protocol}: min_version {min:?} is above max_version {max:?}")]
    VersionRange { protocol: &'static str, min: crate::server::TlsVersion, max: crate::server::TlsVersion },
    #[error("{protocol}: unknown cipher suite \"{name}\"")]
    UnknownSuite { protocol: &'static str, name: String },
    #[error("{protocol}: cipher suite {name} does not belong to this protocol")]
    ForeignSuite { protocol: &'static str, name: String },
    #[error("{protocol}: cipher suite {name} needs client certificates: set verify to verify_peer and configure a ca")]
    SuiteNeedsClientCertificates { protocol: &'static str, name: &'static str },
    #[error("{protocol}: cipher suite {name} needs an RSA pair, and {why}")]
    SuiteNeedsRsa { protocol: &'static str, name: &'static str, why: &'static str },
    #[error("{protocol}: the suite list is empty")]
    NoSuites { protocol: &'static str },
    #[error("{protocol}: bad {field}: \"{value}\"")]
    BadList { protocol: &'static str, field: &'static str, value: String, source: ErrorStack },
    #[error("{protocol}: unknown signature algorithm \"{name}\"")]
    UnknownSignatureAlgorithm { protocol: &'static str, name: String },
    #[error("{protocol}: signature algorithm {name} hashes with SHA-1 or SHA-224, which is too weak to be accepted")]
    WeakSignatureAlgorithm { protocol: &'static str, name: String },
    #[error("{protocol}: no certificate of this listener can sign by any of the signature algorithms {names}")]
    NoSignatureAlgorithm { protocol: &'static str, names: String },
    #[error("{protocol}: cipher suite {name} is of {of}, which versions leaves out")]
    SuiteOfOtherVersion { protocol: &'static str, name: String, of: &'static str },
    #[error(
        "{protocol}: of the TLS 1.2 suites in ciphers none works with a certificate of this listener, whose keys are {keys}"
    )]
    NoSuiteForCertificates { protocol: &'static str, keys: String },
    #[error("{protocol}: gm_only is set, and {what}")]
    NotGm { protocol: &'static str, what: String },
    #[error(
        "{protocol}: group {name} is not allowed by RFC 8998, which has curveSM2 and, here, its hybrid curveSM2MLKEM768"
    )]
    ForeignGroup { protocol: &'static str, name: String },
    #[error("{protocol}: unknown group \"{name}\"")]
    UnknownGroup { protocol: &'static str, name: String },
    #[error("{protocol}: protocol name for alpn must have 1 to 255 bytes")]
    BadAlpn { protocol: &'static str },
    #[error("{protocol}: bad server name \"{name}\"")]
    BadServerName { protocol: &'static str, name: String },
    #[error("{protocol}: the certificates cannot be used")]
    Certificate { protocol: &'static str, source: ErrorStack },
    #[error("the TLS library failed")]
    Library(#[from] ErrorStack),
}

/// Before the name of a kind of key, letters of which are said one by one but in words such as `single`.
fn article(kind: &str) -> &'static str {
    if kind.starts_with(['E', 'R', 'S']) { "an" } else { "a" }
}

impl ContextError {
    /// The family whose options are wrong, by the name of its block; `None` when no single one is.
    pub fn protocol(&self) -> Option<&'static str> {
        match self {
            Self::NothingEnabled | Self::Library(_) => None,
            Self::NoCertificate { protocol }
            | Self::WrongKeyKind { protocol, .. }
            | Self::DuplicateKeyKind { protocol, .. }
            | Self::KeyMismatch { protocol, .. }
            | Self::NoCa { protocol }
            | Self::VersionRange { protocol, .. }
            | Self::UnknownSuite { protocol, .. }
            | Self::ForeignSuite { protocol, .. }
            | Self::SuiteNeedsClientCertificates { protocol, .. }
            | Self::SuiteNeedsRsa { protocol, .. }
            | Self::NoSuites { protocol }
            | Self::BadList { protocol, .. }
            | Self::UnknownSignatureAlgorithm { protocol, .. }
            | Self::WeakSignatureAlgorithm { protocol, .. }
            | Self::NoSignatureAlgorithm { protocol, .. }
            | Self::SuiteOfOtherVersion { protocol, .. }
            | Self::NoSuiteForCertificates { protocol, .. }
            | Self::NotGm { protocol, .. }
            | Self::ForeignGroup { protocol, .. }
            | Self::UnknownGroup { protocol, .. }
            | Self::BadAlpn { protocol }
            | Self::BadServerName { protocol, .. }
            | Self::Certificate { protocol, .. } => Some(protocol),
        }
    }
}

/// Why a handshake failed, coarse enough for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// No cipher suite in common, or none that the rest of what both have lets them use.
    NoSharedSuite,
    /// No group of the key exchange in common.
    NoSharedGroup,
    /// No signature algorithm in common that a certificate at hand can sign by.
    NoSharedSignature,
    /// No protocol version in common, or versions that contradict each other.
    Version,
    /// ALPN was offered and nothing in it is served.
    NoSharedAlpn,
    /// A certificate was required and none came; over TLCP also: only one of the two. To a client: the server has asked for one.
    NoCertificate,
    /// The chain does not end in a configured CA.
    UnknownCa,
    Expired,
    NotYetValid,
    Revoked,
    /// The two certificates of a TLCP peer do not belong together, or have the wrong key usage.
    WrongPair,
    /// A certificate of the chain is not of SM2 and SM3 where nothing else is taken.
    NotGm,
    /// The certificate is not for this host.
    WrongHost,
    /// Any other fault of a certificate.
    BadCertificate,
    /// The client has another pre-shared key for its identity.
    WrongPsk,
    /// The client's pre-shared key has an identity that is not known.
    UnknownPsk,
    /// A record or signature that fails its integrity check.
    BadRecord,
    /// A message that the protocol does not allow here.
    BadMessage,
    /// The peer sent a fatal alert with this code.
    PeerAlert(u8),
    /// The peer closed the connection.
    Closed,
    /// The transport failed.
    Io,
    Other,
}

impl HandshakeFailure {
    /// A stable name in snake case, for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoSharedSuite => "no_shared_suite",
            Self::NoSharedGroup => "no_shared_group",
            Self::NoSharedSignature => "no_shared_signature",
            Self::Version => "version",
            Self::NoSharedAlpn => "no_shared_alpn",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongPair => "wrong_pair",
            Self::NotGm => "not_gm",
            Self::WrongHost => "wrong_host",
            Self::BadCertificate => "bad_certificate",
            Self::WrongPsk => "wrong_psk",
            Self::UnknownPsk => "unknown_psk",
            Self::BadRecord => "bad_record",
            Self::BadMessage => "bad_message",
            Self::PeerAlert(code) => alert::label(code),
            Self::Closed => "closed",
            Self::Io => "io",
            Self::Other => "other",
        }
    }
}

/// A handshake that failed.
#[derive(Debug)]
pub struct HandshakeError {
    reason: HandshakeFailure,
    detail: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HandshakeError {
    pub(crate) fn new(reason: HandshakeFailure, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL_CHARS) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { reason, detail, source: None }
    }

    pub(crate) fn io(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => HandshakeFailure::Closed,
            _ => HandshakeFailure::Io,
        };
        // In the detail too, since logs show only that.
        let detail = format!("the connection failed during the handshake: {error}");
        Self { reason, detail, source: Some(Box::new(error)) }
    }

    pub(crate) fn closed() -> Self {
        Self::new(HandshakeFailure::Closed, "the peer closed the connection during the handshake")
    }

    pub(crate) fn setup(error: ErrorStack) -> Self {
        Self {
            reason: HandshakeFailure::Other,
            detail: "the TLS library could not set the connection up".into(),
            source: Some(Box::new(error)),
        }
    }

    /// Maps what the library says of a failed step. `verify` is what the verification of the peer's chain found, if it ran.
    pub(crate) fn from_library(error: ssl::Error, verify: Option<VerifyFailure>, client_cert_pair: bool) -> Self {
        if let Some(verify) = verify {
            return Self::new(verify.reason, verify.detail);
        }
        let stack = match error.ssl_error() {
            Some(stack) => stack,
            None if error.code() == ErrorCode::SYSCALL => return Self::closed(),
            None => return Self::new(HandshakeFailure::Other, error.to_string()),
        };
        let mut found = (HandshakeFailure::Other, String::new());
        for item in stack.errors() {
            let (reason, detail) =
                classify(item.reason_code(), item.reason().unwrap_or("unknown error"), client_cert_pair);
            if found.1.is_empty() || found.0 == HandshakeFailure::Other {
                found = (reason, detail);
            }
        }
        let (reason, detail) = found;
        let detail = if detail.is_empty() { "the TLS library gave no reason".to_owned() } else { detail };
        // An alert says all there is; the library would repeat its number.
        let source = (!matches!(reason, HandshakeFailure::PeerAlert(_))).then(|| Box::new(stack.clone()) as _);
        Self { reason, detail, source }
    }

    /// Client only: what the server said of the client's part of the handshake, where `error` of reading or writing is that. A server of
    /// TLS 1.3 looks at that part when the client has finished, and refuses by an alert, or by an end, in place of its first data.
    pub fn after(error: &io::Error) -> Option<Self> {
        if let Some(alert) = PeerAlert::in_io(error) {
            let refused = Self::new(HandshakeFailure::PeerAlert(alert.0), refused_by(alert));
            return Some(if alert.0 == CERTIFICATE_REQUIRED { refused.for_want_of_a_certificate() } else { refused });
        }
        let cut = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        cut.then(|| {
            Self::new(
                HandshakeFailure::Closed,
                format!("the peer cut the connection off as one does that refuses: {error}"),
            )
        })
    }

    /// The same failure with what it is about in front, and the reason that then is known.
    pub(crate) fn because(self, reason: HandshakeFailure, what: &str) -> Self {
        Self { source: self.source, ..Self::new(reason, format!("{what}: {}", self.detail)) }
    }

    /// The same refusal by a peer that had asked for a certificate and got none.
    pub(crate) fn for_want_of_a_certificate(self) -> Self {
        match self.reason {
            HandshakeFailure::PeerAlert(code @ (40..=43 | 46 | CERTIFICATE_REQUIRED)) => Self::new(
                HandshakeFailure::NoCertificate,
                format!("the peer asked for a certificate, got none, and refused with {}", PeerAlert(code)),
            ),
            _ => self,
        }
    }

    /// The reason as a metric's label.
    pub fn reason(&self) -> HandshakeFailure {
        self.reason
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// A peer's certificate that was refused.
#[derive(Debug, Clone)]
pub(crate) struct VerifyFailure {
    pub(crate) reason: HandshakeFailure,
    pub(crate) detail: String,
}

impl VerifyFailure {
    /// `role` says which certificate of the peer is meant, e.g. "encryption certificate".
    pub(crate) fn of_chain(result: X509VerifyResult, role: &str, subject: &str) -> Self {
        let reason = match result.as_raw() {
            openssl_sys::X509_V_ERR_CERT_HAS_EXPIRED => HandshakeFailure::Expired,
            openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID => HandshakeFailure::NotYetValid,
            openssl_sys::X509_V_ERR_CERT_REVOKED => HandshakeFailure::Revoked,
            openssl_sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
            | openssl_sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
            | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
            | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | openssl_sys::X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
            | openssl_sys::X509_V_ERR_CERT_SIGNATURE_FAILURE
            | openssl_sys::X509_V_ERR_CERT_UNTRUSTED
            | openssl_sys::X509_V_ERR_CERT_CHAIN_TOO_LONG
            | openssl_sys::X509_V_ERR_INVALID_CA
            | openssl_sys::X509_V_ERR_PATH_LENGTH_EXCEEDED => HandshakeFailure::UnknownCa,
            openssl_sys::X509_V_ERR_HOSTNAME_MISMATCH | openssl_sys::X509_V_ERR_IP_ADDRESS_MISMATCH => {
                HandshakeFailure::WrongHost
            }
            _ => HandshakeFailure::BadCertificate,
        };
        let subject = shortened(subject);
        Self { reason, detail: format!("the peer's {role} was refused: \"{subject}\": {}", result.error_string()) }
    }

    pub(crate) fn of_pair(error: &PairError) -> Self {
        Self {
            reason: HandshakeFailure::WrongPair,
            detail: format!("the peer's two certificates do not belong together: {error}"),
        }
    }

    pub(crate) fn of_revocation(role: &str, subject: &str, reason: Reason) -> Self {
        let subject = shortened(subject);
        Self {
            reason: HandshakeFailure::Revoked,
            detail: format!("the peer's {role} was refused: \"{subject}\": revoked ({reason})"),
        }
    }

    pub(crate) fn of_algorithm(role: &str, subject: &str) -> Self {
        let subject = shortened(subject);
        let words = "is not of SM2 and SM3, and this listener takes nothing else (gm_only)";
        Self {
            reason: HandshakeFailure::NotGm,
            detail: format!("the peer's {role} was refused: \"{subject}\" in its chain {words}"),
        }
    }

    pub(crate) fn of_usage(role: &str, subject: &str, what: &str) -> Self {
        let subject = shortened(subject);
        Self {
            reason: HandshakeFailure::BadCertificate,
            detail: format!("the peer's {role} was refused: \"{subject}\": {what}"),
        }
    }
}

/// Characters of what a peer calls itself that are repeated: a certificate may have a subject of 95 kB.
const MAX_NAME_CHARS: usize = 256;
/// Characters of a handshake's error, which may hold two such names and what was wrong with them.
const MAX_DETAIL_CHARS: usize = 1024;

/// The beginning of what a peer calls itself.
pub(crate) fn shortened(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", name.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(name),
    }
}

/// What a peer's alert in a handshake comes to.
fn refused_by(alert: PeerAlert) -> String {
    match alert::meaning(alert.0) {
        Some(meaning) => format!("the peer refused with {alert}: {meaning}"),
        None => format!("the peer refused with {alert}"),
    }
}

/// RFC 8446 section 6.2: what a server of TLS 1.3 says to a client that has shown no certificate.
const CERTIFICATE_REQUIRED: u8 = 116;

/// Reason codes of `openssl/sslerr.h`.
fn classify(code: i32, words: &str, pair: bool) -> (HandshakeFailure, String) {
    if let Some(alert) = PeerAlert::from_library(code) {
        return (HandshakeFailure::PeerAlert(alert.0), refused_by(alert));
    }
    let reason = match code {
        193 => HandshakeFailure::NoSharedSuite,
        101 | 295 | 315 | 410 => HandshakeFailure::NoSharedGroup,
        118 | 297 | 376 => HandshakeFailure::NoSharedSignature,
        258 | 267 | 166 | 396 | 292 | 373 | 191 => HandshakeFailure::Version,
        235 => HandshakeFailure::NoSharedAlpn,
        199 | 176 => HandshakeFailure::NoCertificate,
        134 | 397 | 399 => HandshakeFailure::BadCertificate,
        383 => HandshakeFailure::WrongPair,
        253 => HandshakeFailure::WrongPsk,
        281 | 149 | 123 | 147 | 264 | 265 | 370 => HandshakeFailure::BadRecord,
        244 | 133 | 240 | 115 | 159 | 213 | 198 | 152 | 443 | 339 | 108 => HandshakeFailure::BadMessage,
        294 => HandshakeFailure::Closed,
        _ => HandshakeFailure::Other,
    };
    let detail = match reason {
        HandshakeFailure::NoSharedSuite => format!("no cipher suite in common with the peer: {words}"),
        HandshakeFailure::NoSharedGroup => format!("no group of the key exchange in common with the peer: {words}"),
        HandshakeFailure::NoSharedSignature => {
            format!("no signature algorithm in common with the peer that a certificate here can sign by: {words}")
        }
        HandshakeFailure::NoCertificate if pair => {
            "the client sent no certificate or only one of the two that TLCP needs".to_owned()
        }
        HandshakeFailure::NoCertificate => "the client sent no certificate, and one is required".to_owned(),
        HandshakeFailure::WrongPair if pair => {
            "the peer's two certificates have the wrong key usage: one must sign, the other encrypt".to_owned()
        }
        HandshakeFailure::WrongPair => format!("the peer's certificate is of the wrong kind: {words}"),
        HandshakeFailure::Closed => "the peer closed the connection during the handshake".to_owned(),
        _ => words.to_owned(),
    };
    (reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_keys_have_their_article() {
        let kinds = ["ECDSA P-256", "RSA 2048", "SM2", "Ed25519", "single", "pair of certificates"];
        assert_eq!(kinds.map(article), ["an", "an", "an", "an", "a", "a"]);
    }

    // A certificate of 95 kB, from anybody, made a line of 131 kB.
    #[test]
    fn what_a_peer_calls_itself_is_repeated_in_part() {
        let subject = format!("CN={}", "国".repeat(30_000));
        let chain = VerifyFailure::of_chain(X509VerifyResult::OK, "certificate", &subject);
        let usage = VerifyFailure::of_usage("certificate", &subject, "wrong");
        for failure in [chain, usage] {
            let text = HandshakeError::new(failure.reason, failure.detail).to_string();
            assert!(text.contains("CN=国") && text.chars().count() < 400, "{} characters", text.chars().count());
        }
        let text = HandshakeError::new(HandshakeFailure::WrongPair, subject).to_string();
        assert_eq!(text.chars().count(), MAX_DETAIL_CHARS + 1);
    }
}
