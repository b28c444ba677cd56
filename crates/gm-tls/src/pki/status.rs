//! What an authority publishes about what it issued: revocation lists (RFC 5280 section 5) and OCSP answers (RFC 6960), and where its
//! certificates say that these are. It keeps no register: whoever calls knows what is revoked.

use der::{Encode, Tag, TagNumber, asn1::ObjectIdentifier};
use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::sign::Signer;
use openssl::x509::X509Extension;
use x509_cert::time::Time;

use super::assemble::digest_for;
use super::{CertificateAuthority, PkiError};
use crate::cert::{Certificate, KeyKind};
use crate::key::PrivateKey;
use crate::revocation::{element, value};

/// Where a certificate says that its status can be learned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusServices {
    /// Addresses of the revocation list, each a distribution point.
    pub crl_urls: Vec<String>,
    /// Addresses of the OCSP responder.
    pub ocsp_urls: Vec<String>,
    /// Clients may insist on a stapled answer (RFC 7633).
    pub must_staple: bool,
    /// The holder may sign OCSP answers for the authority (id-kp-OCSPSigning).
    pub ocsp_signing: bool,
}

/// A certificate as a revocation list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// The contents of the INTEGER.
    pub serial: Vec<u8>,
    /// Unix seconds.
    pub since: i64,
    /// CRLReason; 0, unspecified, is left out as RFC 5280 section 5.3.1 wants.
    pub reason: u8,
}

impl RevokedCertificate {
    /// A certificate for an unspecified reason.
    pub fn new(certificate: &Certificate, since: i64) -> RevokedCertificate {
        RevokedCertificate { serial: serial_bytes(certificate), since, reason: 0 }
    }
}

/// Contents of a revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// Unix seconds, as the next.
    pub this_update: i64,
    pub next_update: Option<i64>,
    pub number: u32,
    pub revoked: Vec<RevokedCertificate>,
    /// Further extensions: identifier, criticality and contents.
    pub extensions: Vec<(&'static str, bool, Vec<u8>)>,
}

/// What a responder says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Good,
    /// Since when, in unix seconds, and why (CRLReason).
    Revoked(i64, u8),
    Unknown,
}

/// Who signs an OCSP answer: the authority itself, or one that it made a responder, whose certificate then comes with the answer.
#[derive(Debug, Clone, Copy)]
pub struct Responder<'a> {
    pub certificate: &'a Certificate,
    pub key: &'a PrivateKey,
    pub delegated: bool,
}

/// Times of an OCSP answer, unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerTimes {
    pub this_update: i64,
    pub next_update: Option<i64>,
}

impl CertificateAuthority {
    /// Signs a revocation list, DER.
    ///
    /// # Errors
    /// A time cannot be written, or the library failed.
    pub fn sign_list(&self, list: &RevocationList) -> Result<Vec<u8>, PkiError> {
        let kind = self.key().kind();
        let issuer = self.certificate().x509().subject_name().to_der()?;
        let algorithm = algorithm(kind)?;
        let mut revoked = Vec::new();
        for entry in &list.revoked {
            let reason = match entry.reason {
                0 => Vec::new(),
                reason => sequence(&[&extension("2.5.29.21", false, &tlv(0x0a, &[&[reason]]))?]),
            };
            revoked.push(sequence(&[&tlv(0x02, &[&entry.serial]), &time(entry.since)?, &reason]));
        }
        // An empty list of revoked certificates must be absent.
        let revoked = if revoked.is_empty() { Vec::new() } else { sequence(&parts(&revoked)) };
        let number = [&[0][..], &list.number.to_be_bytes()].concat();
        let zeros = number.windows(2).take_while(|pair| matches!(pair, [0, next] if *next < 0x80)).count();
        let number = tlv(0x02, &[number.get(zeros..).unwrap_or_default()]);
        let mut extensions = vec![extension("2.5.29.20", false, &number)?];
        for (id, critical, contents) in &list.extensions {
            extensions.push(extension(id, *critical, contents)?);
        }
        let next_update = list.next_update.map(time).transpose()?.unwrap_or_default();
        let extensions = tlv(0xa0, &[&sequence(&parts(&extensions))]);
        let this_update = time(list.this_update)?;
        let body = sequence(&[&[0x02, 1, 1], &algorithm, &issuer, &this_update, &next_update, &revoked, &extensions]);
        signed(&body, &algorithm, self.key(), &[])
    }

    /// Signs the answer to an OCSP request, DER: for each certificate that it asks about, what `status` says of the serial number.
    /// Unlike a real responder this one does not look at which issuer is asked about.
    ///
    /// # Errors
    /// The request cannot be decoded, a time cannot be written, or the library failed.
    pub fn answer_ocsp(
        request: &[u8],
        responder: Responder<'_>,
        times: AnswerTimes,
        status: impl Fn(&[u8]) -> Status,
    ) -> Result<Vec<u8>, PkiError> {
        let asked = asked(request).ok_or(PkiError::NotAnOcspRequest)?;
        let mut answers = Vec::new();
        for (id, serial) in asked {
            let status = match status(serial) {
                Status::Good => vec![0x80, 0],
                Status::Unknown => vec![0x82, 0],
                Status::Revoked(since, reason) => {
                    let reason = tlv(0xa0, &[&[0x0a, 1, reason]]);
                    tlv(0xa1, &[&generalized(since)?, &reason])
                }
            };
            let next = match times.next_update {
                Some(next) => tlv(0xa0, &[&generalized(next)?]),
                None => Vec::new(),
            };
            answers.push(sequence(&[id, &status, &generalized(times.this_update)?, &next]));
        }
        let key_id = key_hash(responder.certificate)?;
        let by_key = tlv(0xa2, &[&tlv(0x04, &[&key_id])]);
        let body = sequence(&[&by_key, &generalized(times.this_update)?, &sequence(&parts(&answers))]);
        let certificates = match responder.delegated {
            true => tlv(0xa0, &[&sequence(&[&responder.certificate.to_der()])]),
            false => Vec::new(),
        };
        let basic = signed(&body, &algorithm(responder.key.kind())?, responder.key, &certificates)?;
        let kind = object("1.3.6.1.5.5.7.48.1.1")?;
        let bytes = tlv(0xa0, &[&sequence(&[&kind, &tlv(0x04, &[&basic])])]);
        Ok(sequence(&[&[0x0a, 1, 0], &bytes]))
    }
}

/// The extensions of a certificate that say where its status is.
pub(super) fn extensions(services: &StatusServices) -> Result<Vec<X509Extension>, PkiError> {
    let mut found = Vec::new();
    let uri = |url: &String| tlv(0x86, &[url.as_bytes()]);
    if !services.crl_urls.is_empty() {
        let points: Vec<Vec<u8>> =
            services.crl_urls.iter().map(|url| sequence(&[&tlv(0xa0, &[&tlv(0xa0, &[&uri(url)])])])).collect();
        found.push(x509_extension("2.5.29.31", &sequence(&parts(&points)))?);
    }
    if !services.ocsp_urls.is_empty() {
        let method = object("1.3.6.1.5.5.7.48.1")?;
        let entries: Vec<Vec<u8>> = services.ocsp_urls.iter().map(|url| sequence(&[&method, &uri(url)])).collect();
        found.push(x509_extension("1.3.6.1.5.5.7.1.1", &sequence(&parts(&entries)))?);
    }
    if services.must_staple {
        found.push(x509_extension("1.3.6.1.5.5.7.1.24", &sequence(&[&[0x02, 1, 5]]))?);
    }
    if services.ocsp_signing {
        // id-pkix-ocsp-nocheck: nobody asks for the status of the responder itself.
        found.push(x509_extension("1.3.6.1.5.5.7.48.1.5", &[0x05, 0])?);
    }
    Ok(found)
}

/// The contents of the serial number's INTEGER.
pub fn serial_bytes(certificate: &Certificate) -> Vec<u8> {
    let serial = certificate.x509().serial_number().to_bn().map(|serial| serial.to_vec()).unwrap_or_default();
    match serial.first() {
        Some(0x80..) | None => [&[0][..], &serial].concat(),
        Some(_) => serial,
    }
}

/// The certificates that a request asks about, each with its serial number: OCSPRequest of RFC 6960 section 4.1.1.
fn asked(request: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let explicit = |number| Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    let (request, _) = value(request, Tag::Sequence)?;
    let (mut body, _) = value(request, Tag::Sequence)?;
    for number in [0, 1] {
        if let Some((_, rest)) = element(body, explicit(number)) {
            body = rest;
        }
    }
    let (mut list, _) = value(body, Tag::Sequence)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let (one, rest) = value(list, Tag::Sequence)?;
        list = rest;
        let (id, _) = element(one, Tag::Sequence)?;
        let (mut inner, _) = value(id, Tag::Sequence)?;
        for tag in [Tag::Sequence, Tag::OctetString, Tag::OctetString] {
            (_, inner) = element(inner, tag)?;
        }
        found.push((id, value(inner, Tag::Integer)?.0));
    }
    Some(found)
}

/// SHA-1 of the key's bits, as ResponderID wants.
fn key_hash(certificate: &Certificate) -> Result<Vec<u8>, PkiError> {
    let key = certificate.x509().public_key()?.public_key_to_der()?;
    let bits = value(&key, Tag::Sequence)
        .and_then(|(key, _)| element(key, Tag::Sequence))
        .and_then(|(_, bits)| value(bits, Tag::BitString))
        .and_then(|(bits, _)| bits.get(1..));
    let kind = certificate.key_kind();
    Ok(hash(MessageDigest::sha1(), bits.ok_or(PkiError::UnsupportedKind { kind })?)?.to_vec())
}

/// A structure of what is signed, the algorithm, the signature and whatever follows.
fn signed(body: &[u8], algorithm: &[u8], key: &PrivateKey, after: &[u8]) -> Result<Vec<u8>, PkiError> {
    let mut signer = match key.kind() {
        KeyKind::Ed25519 => Signer::new_without_digest(key.pkey())?,
        kind => Signer::new(digest_for(kind)?, key.pkey())?,
    };
    let signature = signer.sign_oneshot_to_vec(body)?;
    Ok(sequence(&[body, algorithm, &tlv(0x03, &[&[0], &signature]), after]))
}

fn algorithm(kind: KeyKind) -> Result<Vec<u8>, PkiError> {
    let id = match kind {
        KeyKind::Sm2 => "1.2.156.10197.1.501",
        KeyKind::EcP256 => "1.2.840.10045.4.3.2",
        KeyKind::EcP384 => "1.2.840.10045.4.3.3",
        KeyKind::Rsa(_) => return Ok(sequence(&[&object("1.2.840.113549.1.1.11")?, &[0x05, 0]])),
        KeyKind::Ed25519 => "1.3.101.112",
        KeyKind::Other => return Err(PkiError::UnsupportedKind { kind }),
    };
    Ok(sequence(&[&object(id)?]))
}

fn extension(id: &str, critical: bool, contents: &[u8]) -> Result<Vec<u8>, PkiError> {
    let critical: &[u8] = if critical { &[0x01, 1, 0xff] } else { &[] };
    Ok(sequence(&[&object(id)?, critical, &tlv(0x04, &[contents])]))
}

fn x509_extension(id: &str, contents: &[u8]) -> Result<X509Extension, ErrorStack> {
    let id = Asn1Object::from_str(id)?;
    X509Extension::new_from_der(&id, false, &*Asn1OctetString::new_from_bytes(contents)?)
}

fn object(id: &str) -> Result<Vec<u8>, PkiError> {
    ObjectIdentifier::new(id).ok().and_then(|id| id.to_der().ok()).ok_or(PkiError::Time)
}

/// UTCTime up to 2049, GeneralizedTime from then on (RFC 5280 section 5.1.2.4).
fn time(at: i64) -> Result<Vec<u8>, PkiError> {
    let at = u64::try_from(at).map_err(|_| PkiError::Time)?;
    let time =
        Time::try_from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at)).map_err(|_| PkiError::Time)?;
    time.to_der().map_err(|_| PkiError::Time)
}

fn generalized(at: i64) -> Result<Vec<u8>, PkiError> {
    let at = u64::try_from(at).map_err(|_| PkiError::Time)?;
    let time = der::asn1::GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(at));
    time.and_then(|time| time.to_der()).map_err(|_| PkiError::Time)
}

fn parts(list: &[Vec<u8>]) -> Vec<&[u8]> {
    list.iter().map(Vec::as_slice).collect()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    let significant = bytes.get(significant..).unwrap_or_default();
    let mut out = vec![tag];
    if length >= 0x80 {
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
    }
    out.extend_from_slice(significant);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}
