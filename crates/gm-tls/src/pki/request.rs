//! Certificate requests (PKCS#10, RFC 2986): making them, and reading them with proof that the key is there.

use std::fmt;
use std::path::Path;

use openssl::pkey::{PKey, Public};
use openssl::stack::Stack;
use openssl::x509::{X509, X509Extension, X509Req};

use super::assemble::{digest_for, usage_extension};
use super::{AlternativeNames, PkiError, Subject};
use crate::cert::{Certificate, KeyKind, KeyUsage};
use crate::key::PrivateKey;
use crate::pem;

const MAX_FILE_BYTES: usize = 64 * 1024;
/// Encoded object identifier of subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME_OID: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];

/// A certificate request whose signature by its own key has been checked.
pub struct CertificateRequest {
    request: X509Req,
    public_key: PKey<Public>,
}

impl CertificateRequest {
    /// Makes a request for the public half of `key`, naming the key usage that is wanted.
    pub fn create(
        subject: &Subject,
        names: &AlternativeNames,
        usage: KeyUsage,
        key: &PrivateKey,
    ) -> Result<CertificateRequest, PkiError> {
        let mut builder = X509Req::builder()?;
        builder.set_version(0)?;
        let name = subject.to_x509()?;
        builder.set_subject_name(&name)?;
        builder.set_pubkey(key.pkey())?;
        let mut extensions = Stack::new()?;
        extensions.push(usage_extension(usage)?)?;
        if let Some(names) = names.to_extension(&builder.x509v3_context(None))? {
            extensions.push(names)?;
        }
        builder.add_extensions(&extensions)?;
        builder.sign(key.pkey(), digest_for(key.kind())?)?;
        let pem = builder.build().to_pem()?;
        CertificateRequest::from_pem("the new request", &pem)
    }

    /// Reads a request from a PEM file.
    pub fn from_file(path: &Path) -> Result<CertificateRequest, PkiError> {
        let origin = path.display().to_string();
        match pem::read_file(path, MAX_FILE_BYTES) {
            Ok(Some(contents)) => CertificateRequest::from_pem(&origin, &contents.bytes),
            Ok(None) => Err(PkiError::NotARequest { origin }),
            Err(error) => Err(PkiError::UnreadableRequest { origin, error }),
        }
    }

    /// Decodes a PEM text; `origin` is what errors name.
    ///
    /// # Errors
    /// [`PkiError::NoProofOfPossession`] when the key in the request did not sign it (RFC 2986 section 3).
    pub fn from_pem(origin: &str, text: &[u8]) -> Result<CertificateRequest, PkiError> {
        crate::init();
        let not_a_request = || PkiError::NotARequest { origin: origin.to_owned() };
        let blocks = pem::blocks(text, 1).map_err(|_| not_a_request())?;
        let block = match blocks.as_slice() {
            [block] if matches!(block.label, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => block,
            _ => return Err(not_a_request()),
        };
        let request = X509Req::from_pem(block.text).map_err(|_| not_a_request())?;
        let public_key = request.public_key().map_err(|_| not_a_request())?;
        if !request.verify(&public_key).unwrap_or(false) {
            return Err(PkiError::NoProofOfPossession { origin: origin.to_owned() });
        }
        Ok(CertificateRequest { request, public_key })
    }

    /// The PEM encoding.
    pub fn to_pem(&self) -> Result<Vec<u8>, PkiError> {
        Ok(self.request.to_pem()?)
    }

    /// The DER encoding.
    pub fn to_der(&self) -> Result<Vec<u8>, PkiError> {
        Ok(self.request.to_der()?)
    }

    /// What the key is.
    pub fn key_kind(&self) -> KeyKind {
        KeyKind::of(&self.public_key)
    }

    /// The requested subject (RFC 4514).
    pub fn subject(&self) -> String {
        crate::cert::rfc4514(self.request.subject_name())
    }

    /// What is asked for, as a certificate that nobody issued: names and key usage can be read from it as from any other.
    pub fn wanted(&self) -> Result<Certificate, PkiError> {
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_subject_name(self.request.subject_name())?;
        builder.set_issuer_name(self.request.subject_name())?;
        builder.set_pubkey(&self.public_key)?;
        // A request without extensions has no attribute that holds them, which the library calls an error.
        if let Ok(extensions) = self.request.extensions() {
            for extension in extensions {
                builder.append_extension(extension)?;
            }
        }
        // The library reads extensions of complete certificates only. Whose signature it is does not matter.
        let nobody = PrivateKey::generate(KeyKind::EcP256)?;
        builder.sign(nobody.pkey(), digest_for(nobody.kind())?)?;
        Ok(Certificate::from_x509(builder.build()))
    }

    /// The alternative names that are asked for.
    ///
    /// # Errors
    /// One of them may not stand in a certificate, is of a kind that is not issued, or cannot be read.
    pub fn names(&self) -> Result<AlternativeNames, PkiError> {
        if self.alternative_names().is_none() {
            return Ok(AlternativeNames::default());
        }
        let wanted = self.wanted()?;
        let names = AlternativeNames {
            dns: wanted.san_dns(),
            ip: wanted.san_ip(),
            uri: wanted.san_uri(),
            email: wanted.san_email(),
        };
        let read = names.dns.len() + names.ip.len() + names.uri.len() + names.email.len();
        if wanted.x509().subject_alt_names().is_none_or(|all| all.len() != read) {
            return Err(PkiError::RequestedNames { subject: self.subject() });
        }
        names.check()?;
        Ok(names)
    }

    /// Refuses what no authority should sign whoever asks.
    pub(super) fn check(&self) -> Result<(), PkiError> {
        let kind = self.key_kind();
        if matches!(kind, KeyKind::Rsa(..2048)) {
            return Err(PkiError::WeakKey { subject: self.subject(), kind });
        }
        if kind == KeyKind::Other {
            return Err(PkiError::UnsupportedKind { kind });
        }
        match self.wanted()?.common_name() {
            Ok(_) => Ok(()),
            Err(source) => Err(PkiError::RequestedSubject { subject: self.subject(), source }),
        }
    }

    pub(super) fn x509_req(&self) -> &X509Req {
        &self.request
    }

    pub(super) fn public_key(&self) -> &PKey<Public> {
        &self.public_key
    }

    /// The subjectAltName extension that is asked for. Other extensions are the authority's to choose.
    fn alternative_names(&self) -> Option<X509Extension> {
        let extensions = self.request.extensions().ok()?;
        extensions.into_iter().find(|extension| {
            let der = extension.to_der().unwrap_or_default();
            // An Extension is a SEQUENCE that begins with its identifier; the length takes one to four bytes.
            (2..=5).any(|start| der.get(start..start + SUBJECT_ALT_NAME_OID.len()) == Some(&SUBJECT_ALT_NAME_OID))
        })
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").field("subject", &self.subject()).finish_non_exhaustive()
    }
}
