//! A small certification authority: SM2 with SM3 and the signer ID of GM/T 0009, ECDSA P-256 and RSA; dual certificate
//! pairs for TLCP, single certificates, certificate requests and chain verification. It keeps no register of what it
//! issued; what it revokes it is told by whoever asks for a list. A bank's production certificates come from its own authority.

mod assemble;
mod authority;
pub mod development;
mod names;
mod request;
mod status;
mod verify;

use openssl::error::ErrorStack;

pub use authority::{Approval, AuthorityProfile, CertificateAuthority, Issued, IssuedPair, Profile};
pub use names::{AlternativeNames, Subject};
pub use request::CertificateRequest;
pub use status::{AnswerTimes, Responder, RevocationList, RevokedCertificate, Status, StatusServices, serial_bytes};
pub use verify::{Purpose, VerifyError, verify_chain};

use crate::cert::{CertError, KeyKind, NameError};
use crate::key::KeyError;

/// The signer ID of SM2 signatures in certificates and requests (GM/T 0009-2012 section 10).
pub const SM2_SIGNER_ID: &str = "1234567812345678";

/// Certificates are valid from this long before they are issued, for peers whose clocks are slow.
pub const BACKDATING_SECS: i64 = 3600;

/// Why something could not be issued or requested.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("the {field} `{}` cannot stand in a certificate: {reason}", value.escape_debug())]
    BadName { field: &'static str, value: String, reason: &'static str },
    #[error("the subject has no common name")]
    NoCommonName,
    #[error("`{subject}` is not a certification authority (basicConstraints) or may not sign certificates (keyUsage)")]
    NotAnAuthority { subject: String },
    #[error("the private key does not belong to the authority `{subject}`")]
    AuthorityKeyMismatch { subject: String },
    #[error("the authority `{subject}` is not valid now, so nothing that it issues would be")]
    AuthorityNotValid { subject: String },
    #[error("the authority `{subject}` may not have an authority below it (path length constraint)")]
    PathLength { subject: String },
    #[error("a TLCP pair cannot be made of {kind} keys; it needs SM2, or RSA with at least 2048 bits")]
    PairKind { kind: KeyKind },
    #[error("a certificate cannot be made for a key of the kind {kind}")]
    UnsupportedKind { kind: KeyKind },
    #[error("the request of `{subject}` is for a key of the kind {kind}, which is too weak; RSA needs 2048 bits")]
    WeakKey { subject: String, kind: KeyKind },
    #[error("the request of `{subject}` cannot be granted: {source}")]
    RequestedSubject { subject: String, source: NameError },
    #[error(
        "the request of `{subject}` asks for alternative names that cannot be read or are of a kind that is not issued"
    )]
    RequestedNames { subject: String },
    #[error("the validity of {days} days is not between 1 and 36500")]
    BadValidity { days: u32 },
    #[error("{origin}: is not a certificate request; a PEM block `-----BEGIN CERTIFICATE REQUEST-----` is expected")]
    NotARequest { origin: String },
    #[error("{origin}: cannot read the file: {error}")]
    UnreadableRequest { origin: String, error: std::io::Error },
    #[error("{origin}: the request is not signed by the key in it, so whoever made it may not have that key")]
    NoProofOfPossession { origin: String },
    #[error("the two requests of a pair must be for the same subject; they are for `{sign}` and `{enc}`")]
    DifferentSubjects { sign: String, enc: String },
    #[error("the two requests of a pair must be for different keys")]
    SameKey,
    #[error("a time or an identifier cannot be written")]
    Time,
    #[error("is not an OCSP request")]
    NotAnOcspRequest,
    #[error("the encoded certificate cannot be read back")]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the cryptographic library failed")]
    Library(#[from] ErrorStack),
}

#[cfg(test)]
mod tests;
