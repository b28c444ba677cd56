//! Signatures of revocation lists, and the files that lists come in.

use bytes::Bytes;
use der::{Decode, Tag, asn1::ObjectIdentifier};
use openssl::{
    error::ErrorStack,
    hash::MessageDigest,
    pkey::{Id, PKeyRef, Public},
    rsa::Padding,
    sign::{RsaPssSaltlen, Verifier},
    x509::X509Name,
};

use super::{
    crl::{Crl, CrlError, element, value},
    pss::{self, Digest, RSASSA_PSS},
};
use crate::{
    cert::{Certificate, KeyKind, KeyUsage, rfc4514, same_name},
    pem,
};

/// Lists in one file.
const MAX_LISTS: usize = 64;
/// The shortest RSA modulus whose signatures are taken, in bits.
const MIN_RSA_BITS: u32 = 2048;

/// Something signed, in the parts of RFC 5280: what is signed, the AlgorithmIdentifier and the signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

/// An algorithm that is not supported or too weak, or that is not one of the key.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) String);

/// What a signature algorithm is made of.
#[derive(Clone, Copy)]
pub(crate) struct Algorithm {
    id: ObjectIdentifier,
    digest: Option<fn() -> MessageDigest>,
    fits: fn(KeyKind) -> bool,
    /// Length of the salt where the signature is RSASSA-PSS.
    salt: Option<u16>,
}

const fn algorithm(id: &str, digest: Option<fn() -> MessageDigest>, fits: fn(KeyKind) -> bool) -> Algorithm {
    Algorithm { id: ObjectIdentifier::new_unwrap(id), digest, fits, salt: None }
}

const ALGORITHMS: [Algorithm; 8] = [
    algorithm("1.2.156.10197.1.501", Some(MessageDigest::sm3), |kind| kind == KeyKind::Sm2),
    algorithm("1.2.840.10045.4.3.2", Some(MessageDigest::sha256), is_ecdsa),
    algorithm("1.2.840.10045.4.3.3", Some(MessageDigest::sha384), is_ecdsa),
    algorithm("1.2.840.10045.4.3.4", Some(MessageDigest::sha512), is_ecdsa),
    algorithm("1.2.840.113549.1.1.11", Some(MessageDigest::sha256), is_rsa),
    algorithm("1.2.840.113549.1.1.12", Some(MessageDigest::sha384), is_rsa),
    algorithm("1.2.840.113549.1.1.13", Some(MessageDigest::sha512), is_rsa),
    algorithm("1.3.101.112", None, |kind| kind == KeyKind::Ed25519),
];

fn is_ecdsa(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::EcP256 | KeyKind::EcP384)
}

fn is_rsa(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Rsa(bits) if bits >= MIN_RSA_BITS)
}

impl Algorithm {
    /// Reads an AlgorithmIdentifier.
    pub(crate) fn read(der: &[u8]) -> Result<Algorithm, Unsupported> {
        let undecodable = || Unsupported("(undecodable)".to_owned());
        let (contents, _) = value(der, Tag::Sequence).ok_or_else(undecodable)?;
        let (id, parameters) = element(contents, Tag::ObjectIdentifier).ok_or_else(undecodable)?;
        let id = ObjectIdentifier::from_der(id).map_err(|_| undecodable())?;
        if id == RSASSA_PSS {
            let weak = "rsassaPss with other parameters than SHA-256, SHA-384 or SHA-512 and MGF1 with the same";
            let read = pss::Parameters::read(parameters).ok_or_else(|| Unsupported(weak.to_owned()))?;
            let digest: fn() -> MessageDigest = match read.digest {
                Digest::Sha256 => MessageDigest::sha256,
                Digest::Sha384 => MessageDigest::sha384,
                Digest::Sha512 => MessageDigest::sha512,
            };
            return Ok(Algorithm { id, digest: Some(digest), fits: is_rsa, salt: Some(read.salt) });
        }
        let known = ALGORITHMS.iter().find(|known| known.id == id);
        known.copied().ok_or_else(|| Unsupported(name_of(id)))
    }
}

impl Signed<'_> {
    /// Whether the signature is by `key`. SM2 with the signer ID of GM/T 0009.
    pub(crate) fn is_by(&self, key: &PKeyRef<Public>) -> Result<bool, Unsupported> {
        let algorithm = Algorithm::read(self.algorithm)?;
        let kind = KeyKind::of(key);
        // The library would use a key of another kind on the curve of SM2 for ECDSA.
        let is_true_sm2 = kind != KeyKind::Sm2 || key.id() == Id::SM2;
        if !(algorithm.fits)(kind) || !is_true_sm2 {
            return Err(Unsupported(format!("{} with a key of the kind {kind}", name_of(algorithm.id))));
        }
        let verified = (|| {
            let mut verifier = match algorithm.digest {
                Some(digest) => Verifier::new(digest(), key)?,
                None => Verifier::new_without_digest(key)?,
            };
            if let (Some(salt), Some(digest)) = (algorithm.salt, algorithm.digest) {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_mgf1_md(digest())?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt.into()))?;
            }
            verifier.verify_oneshot(self.signature, self.message)
        })();
        // What was found wrong with a signature must not be taken for an error of the next TLS call.
        let _ = ErrorStack::get();
        Ok(verified.unwrap_or(false))
    }
}

fn name_of(identifier: ObjectIdentifier) -> String {
    let text = identifier.to_string();
    let known = openssl::asn1::Asn1Object::from_str(&text).ok().and_then(|object| object.nid().long_name().ok());
    let _ = ErrorStack::get();
    known.map_or(text, str::to_owned)
}

impl Crl {
    /// Checks that the issuer of a certificate issued this list: its name, its right to sign lists, its signature.
    ///
    /// # Errors
    /// [`CrlError`] says what does not fit.
    pub fn verify(&self, issuer: &Certificate) -> Result<(), CrlError> {
        let name = X509Name::from_der(self.issuer_der()).map_err(|_| CrlError::Malformed("issuer"))?;
        if !same_name(&name, issuer.x509().subject_name()) {
            return Err(CrlError::OtherIssuer { found: rfc4514(&name), wanted: issuer.subject() });
        }
        if issuer.key_usage().is_some_and(|usage| !usage.contains(KeyUsage::CRL_SIGN)) {
            return Err(CrlError::MayNotSign { issuer: issuer.subject() });
        }
        let key = issuer.x509().public_key().map_err(|_| CrlError::Algorithm("of the issuer".to_owned()))?;
        match self.signed().is_by(&key) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CrlError::Signature { issuer: issuer.subject() }),
            Err(Unsupported(name)) => Err(CrlError::Algorithm(name)),
        }
    }

    /// Whether its issuer has the name of this certificate's subject.
    pub fn is_named_after(&self, issuer: &Certificate) -> bool {
        X509Name::from_der(self.issuer_der()).is_ok_and(|name| same_name(&name, issuer.x509().subject_name()))
    }

    /// Its issuer's name as RFC 4514 writes it.
    pub fn issuer(&self) -> String {
        X509Name::from_der(self.issuer_der()).map(|name| rfc4514(&name)).unwrap_or_default()
    }
}

/// Why a file of revocation lists cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlFileError {
    #[error("no revocation list in it: neither DER nor a PEM block `-----BEGIN X509 CRL-----`")]
    NoList,
    #[error("more than {MAX_LISTS} revocation lists")]
    TooMany,
    #[error("a PEM block is damaged")]
    DamagedPem,
    #[error("revocation list number {position}: {cause}")]
    List { position: usize, cause: CrlError },
}

/// Every list of a file, DER or PEM, of which none may be longer than `max` bytes.
///
/// # Errors
/// [`CrlFileError`]: of several lists all must be good.
pub fn read_lists(contents: &Bytes, max: usize) -> Result<Vec<Crl>, CrlFileError> {
    crate::init();
    if contents.first() == Some(&0x30) {
        let list = Crl::from_der(contents.clone(), max).map_err(|cause| CrlFileError::List { position: 1, cause })?;
        return Ok(vec![list]);
    }
    let blocks = pem::blocks(contents, MAX_LISTS).map_err(|error| match error {
        pem::Malformed::TooMany => CrlFileError::TooMany,
        pem::Malformed::BeginLine | pem::Malformed::Unterminated => CrlFileError::DamagedPem,
    })?;
    let mut lists = Vec::new();
    for block in blocks.iter().filter(|block| matches!(block.label, "X509 CRL" | "CRL")) {
        let der = decode(block.text).ok_or(CrlFileError::DamagedPem)?;
        let position = lists.len() + 1;
        lists.push(Crl::from_der(der.into(), max).map_err(|cause| CrlFileError::List { position, cause })?);
    }
    if lists.is_empty() { Err(CrlFileError::NoList) } else { Ok(lists) }
}

/// The base64 between the two armour lines.
fn decode(block: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(block).ok()?;
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).flat_map(str::split_whitespace).collect();
    let decoded = openssl::base64::decode_block(&body).ok();
    let _ = ErrorStack::get();
    decoded
}
