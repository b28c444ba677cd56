//! Questions to OCSP responders and their answers. An answer is believed only if it is signed by the issuer of the certificate or by a
//! responder that the issuer made one (id-kp-OCSPSigning), is about that certificate, and is current.

use std::fmt;

use der::Tag;
use openssl::{
    asn1::{Asn1GeneralizedTimeRef, Asn1TimeRef},
    error::ErrorStack,
    foreign_types::ForeignTypeRef,
    hash::MessageDigest,
    ocsp::{OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus},
    stack::Stack,
    x509::{
        X509,
        store::X509StoreBuilder,
        verify::{X509VerifyFlags, X509VerifyParam},
    },
};

use super::{
    CLOCK_SKEW_SECS,
    crl::{Reason, element, value},
    signature::{Algorithm, Unsupported},
};
use crate::cert::{Certificate, KeyKind, unix_time};

/// The largest answer that is read, in bytes: a few hundred, and the responder's certificates.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// By what digest a question names the issuer. It protects nothing: the answer is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CertIdHash {
    /// SM3 where the issuer's key is SM2, otherwise SHA-1, the one that RFC 5019 section 2.1.1 asks every responder to know.
    #[default]
    ByIssuer,
    Sha1,
    Sha256,
    Sm3,
}

impl CertIdHash {
    fn digest(self, issuer: &Certificate) -> MessageDigest {
        match self {
            Self::ByIssuer if issuer.key_kind() == KeyKind::Sm2 => MessageDigest::sm3(),
            Self::ByIssuer | Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sm3 => MessageDigest::sm3(),
        }
    }
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OcspError {
    #[error("it is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    #[error("it is not an OCSP response")]
    Malformed,
    #[error("the responder refused to answer: {0}")]
    Refused(&'static str),
    #[error("its signature algorithm {0} is not supported or too weak")]
    Algorithm(String),
    #[error(
        "it is signed neither by \"{issuer}\" nor by a responder with a valid certificate for OCSP signing from it{detail}"
    )]
    Authority { issuer: String, detail: String },
    #[error("it is about other certificates")]
    OtherCertificate,
    #[error("its times cannot be read")]
    Time,
    #[error("it is not valid before {0} (unix time); are the clocks right?")]
    NotYetValid(i64),
    #[error("it was valid until {0} (unix time)")]
    Stale(i64),
    #[error("the library failed")]
    Library(#[from] ErrorStack),
}

/// What a responder says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcspState {
    Good,
    Revoked(Reason),
    /// The responder does not know it.
    Unknown,
}

impl fmt::Display for OcspState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Revoked(reason) => write!(f, "revoked ({reason})"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// An answer that was found to be authentic, and current at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspAnswer {
    pub state: OcspState,
    /// Unix seconds, as the next.
    pub this_update: i64,
    /// Without it newer information is always to be had.
    pub next_update: Option<i64>,
}

/// A question for the status of `certificate`, to be sent to its responder. Without a nonce, so that responders may answer with what
/// they have signed beforehand.
///
/// # Errors
/// The library has no memory for it.
pub fn ocsp_request(certificate: &Certificate, issuer: &Certificate, hash: CertIdHash) -> Result<Vec<u8>, ErrorStack> {
    crate::init();
    let mut request = OcspRequest::new()?;
    request.add_id(OcspCertId::from_cert(hash.digest(issuer), certificate.x509(), issuer.x509())?)?;
    request.to_der()
}

impl OcspAnswer {
    /// Reads what a responder answered to [`ocsp_request`] with the same arguments. `now`: unix seconds.
    ///
    /// # Errors
    /// [`OcspError`]; an answer that is refused says nothing, not even that the certificate is revoked.
    pub fn verify(
        der: &[u8],
        certificate: &Certificate,
        issuer: &Certificate,
        hash: CertIdHash,
        now: i64,
    ) -> Result<OcspAnswer, OcspError> {
        crate::init();
        let answer = verify(der, certificate, issuer, hash, now);
        // What was found wrong must not be taken for an error of the next TLS call.
        let _ = ErrorStack::get();
        answer
    }

    /// Whether it holds at `now`. One without nextUpdate holds for `lifetime_secs`.
    pub fn is_current(&self, now: i64, lifetime_secs: i64) -> bool {
        now < self.next_update.unwrap_or_else(|| self.this_update.saturating_add(lifetime_secs))
    }
}

fn verify(
    der: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
    hash: CertIdHash,
    now: i64,
) -> Result<OcspAnswer, OcspError> {
    if der.len() > MAX_ANSWER_BYTES {
        return Err(OcspError::TooLarge);
    }
    let response = OcspResponse::from_der(der).map_err(|_| OcspError::Malformed)?;
    match response.status() {
        OcspResponseStatus::SUCCESSFUL => {}
        OcspResponseStatus::MALFORMED_REQUEST => return Err(OcspError::Refused("malformedRequest")),
        OcspResponseStatus::INTERNAL_ERROR => return Err(OcspError::Refused("internalError")),
        OcspResponseStatus::TRY_LATER => return Err(OcspError::Refused("tryLater")),
        OcspResponseStatus::SIG_REQUIRED => return Err(OcspError::Refused("sigRequired")),
        OcspResponseStatus::UNAUTHORIZED => return Err(OcspError::Refused("unauthorized")),
        _ => return Err(OcspError::Malformed),
    }
    let basic = response.basic().map_err(|_| OcspError::Malformed)?;
    // The library looks at how strong the certificates are, and not at how the answer itself is signed.
    if let Err(Unsupported(name)) = Algorithm::read(signature_algorithm(der).ok_or(OcspError::Malformed)?) {
        return Err(OcspError::Algorithm(name));
    }
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(issuer.x509().to_owned())?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    let mut parameters = X509VerifyParam::new()?;
    // As for the certificates of clients: no SHA-1, no RSA below 2048 bits.
    parameters.set_auth_level(2);
    store.set_param(&parameters)?;
    let mut known = Stack::<X509>::new()?;
    known.push(issuer.x509().to_owned())?;
    if let Err(cause) = basic.verify(&known, &store.build(), OcspFlag::empty()) {
        let detail = cause.errors().last().and_then(|error| error.reason()).map(|reason| format!(" ({reason})"));
        return Err(OcspError::Authority { issuer: issuer.subject(), detail: detail.unwrap_or_default() });
    }
    let id = OcspCertId::from_cert(hash.digest(issuer), certificate.x509(), issuer.x509())?;
    let found = basic.find_status(&id).ok_or(OcspError::OtherCertificate)?;
    let this_update = seconds(found.this_update).ok_or(OcspError::Time)?;
    let next_update = found.next_update().map(|next| seconds(next).ok_or(OcspError::Time)).transpose()?;
    if this_update > now.saturating_add(CLOCK_SKEW_SECS) {
        return Err(OcspError::NotYetValid(this_update));
    }
    if let Some(next) = next_update.filter(|next| *next <= now) {
        return Err(OcspError::Stale(next));
    }
    let state = match found.status {
        OcspCertStatus::GOOD => OcspState::Good,
        OcspCertStatus::REVOKED => {
            OcspState::Revoked(Reason::from_code(u8::try_from(found.reason.as_raw()).unwrap_or_default()))
        }
        _ => OcspState::Unknown,
    };
    Ok(OcspAnswer { state, this_update, next_update })
}

fn seconds(time: &Asn1GeneralizedTimeRef) -> Option<i64> {
    // SAFETY: both are views of one structure of the library, ASN1_STRING, which notes itself which kind of time it holds; the new
    // reference lives no longer than the old one.
    let time = unsafe { Asn1TimeRef::from_ptr(time.as_ptr().cast()) };
    unix_time(time)
}

/// The signatureAlgorithm of the BasicOCSPResponse inside an OCSPResponse (RFC 6960 section 4.2.1) that fills `der`, which the library
/// does not look at.
fn signature_algorithm(der: &[u8]) -> Option<&[u8]> {
    let explicit = Tag::ContextSpecific { constructed: true, number: der::TagNumber(0) };
    let (response, []) = value(der, Tag::Sequence)? else { return None };
    let (_, rest) = element(response, Tag::Enumerated)?;
    let (bytes, _) = value(rest, explicit)?;
    let (bytes, _) = value(bytes, Tag::Sequence)?;
    let (_, rest) = element(bytes, Tag::ObjectIdentifier)?;
    let (basic, _) = value(rest, Tag::OctetString)?;
    let (basic, _) = value(basic, Tag::Sequence)?;
    let (_, rest) = element(basic, Tag::Sequence)?;
    let (algorithm, _) = element(rest, Tag::Sequence)?;
    Some(algorithm)
}
