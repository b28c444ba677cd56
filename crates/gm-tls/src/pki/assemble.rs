//! Puts together and signs one certificate; what goes into it is decided by the authority.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, PKeyRef};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage as KeyUsageExtension, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Extension, X509NameRef};

use super::{AlternativeNames, PkiError, StatusServices, status};
use crate::cert::{Certificate, ExtendedKeyUsage as Purposes, KeyKind, KeyUsage};
use crate::key::PrivateKey;

/// Everything in a certificate but its serial number and signature.
pub(super) struct Contents<'a> {
    pub subject: &'a X509NameRef,
    pub names: &'a AlternativeNames,
    pub usage: KeyUsage,
    pub purposes: Purposes,
    /// `Some` for a certification authority, with the number of authorities that may stand below it.
    pub authority: Option<Option<u32>>,
    pub services: &'a StatusServices,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
}

/// Who signs: the certificate is absent when it signs itself.
pub(super) struct Issuer<'a> {
    pub certificate: Option<&'a Certificate>,
    pub key: &'a PrivateKey,
}

pub(super) fn assemble<T: HasPublic>(
    contents: &Contents<'_>,
    public_key: &PKeyRef<T>,
    issuer: &Issuer<'_>,
) -> Result<Certificate, PkiError> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = random_serial()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(contents.subject)?;
    builder.set_issuer_name(issuer.certificate.map_or(contents.subject, |issuer| issuer.x509().subject_name()))?;
    let (not_before, not_after) = (Asn1Time::from_unix(contents.not_before)?, Asn1Time::from_unix(contents.not_after)?);
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    builder.set_pubkey(public_key)?;

    let mut constraints = BasicConstraints::new();
    constraints.critical();
    if let Some(path_len) = contents.authority {
        constraints.ca();
        path_len.map(|path_len| constraints.pathlen(path_len));
    }
    builder.append_extension(constraints.build()?)?;
    builder.append_extension(usage_extension(contents.usage)?)?;
    if let Some(purposes) = purposes_extension(contents.purposes, contents.services.ocsp_signing)? {
        builder.append_extension(purposes)?;
    }
    let issuer_x509 = issuer.certificate.map(Certificate::x509);
    let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(issuer_x509, None))?;
    builder.append_extension(key_id)?;
    let authority_id = AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(issuer_x509, None))?;
    builder.append_extension(authority_id)?;
    if let Some(names) = contents.names.to_extension(&builder.x509v3_context(issuer_x509, None))? {
        builder.append_extension(names)?;
    }
    for extension in status::extensions(contents.services)? {
        builder.append_extension(extension)?;
    }
    builder.sign(issuer.key.pkey(), digest_for(issuer.key.kind())?)?;
    Ok(Certificate::from_x509(builder.build()))
}

/// The digest of signatures by a key of this kind. The library takes the signer ID of GM/T 0009 for SM2.
pub(super) fn digest_for(kind: KeyKind) -> Result<MessageDigest, PkiError> {
    match kind {
        KeyKind::Sm2 => Ok(MessageDigest::sm3()),
        KeyKind::EcP256 | KeyKind::Rsa(_) => Ok(MessageDigest::sha256()),
        KeyKind::EcP384 => Ok(MessageDigest::sha384()),
        KeyKind::Ed25519 => Ok(MessageDigest::null()),
        KeyKind::Other => Err(PkiError::UnsupportedKind { kind }),
    }
}

/// 128 bits of which 126 are random: always positive and always 16 bytes long.
fn random_serial() -> Result<Asn1Integer, PkiError> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    let serial = BigNum::from_slice(&bytes)?;
    Ok(Asn1Integer::from_bn(&serial)?)
}

pub(super) fn usage_extension(usage: KeyUsage) -> Result<X509Extension, PkiError> {
    let mut extension = KeyUsageExtension::new();
    extension.critical();
    type Set = fn(&mut KeyUsageExtension) -> &mut KeyUsageExtension;
    let setters: [(KeyUsage, Set); 9] = [
        (KeyUsage::DIGITAL_SIGNATURE, KeyUsageExtension::digital_signature),
        (KeyUsage::NON_REPUDIATION, KeyUsageExtension::non_repudiation),
        (KeyUsage::KEY_ENCIPHERMENT, KeyUsageExtension::key_encipherment),
        (KeyUsage::DATA_ENCIPHERMENT, KeyUsageExtension::data_encipherment),
        (KeyUsage::KEY_AGREEMENT, KeyUsageExtension::key_agreement),
        (KeyUsage::KEY_CERT_SIGN, KeyUsageExtension::key_cert_sign),
        (KeyUsage::CRL_SIGN, KeyUsageExtension::crl_sign),
        (KeyUsage::ENCIPHER_ONLY, KeyUsageExtension::encipher_only),
        (KeyUsage::DECIPHER_ONLY, KeyUsageExtension::decipher_only),
    ];
    for (bit, set) in setters {
        if usage.contains(bit) {
            set(&mut extension);
        }
    }
    Ok(extension.build()?)
}

pub(super) fn purposes_extension(purposes: Purposes, ocsp_signing: bool) -> Result<Option<X509Extension>, PkiError> {
    let mut extension = ExtendedKeyUsage::new();
    if purposes.server_auth {
        extension.server_auth();
    }
    if purposes.client_auth {
        extension.client_auth();
    }
    if purposes.any {
        extension.other("anyExtendedKeyUsage");
    }
    if ocsp_signing {
        extension.other("OCSPSigning");
    }
    Ok(if purposes == Purposes::default() && !ocsp_signing { None } else { Some(extension.build()?) })
}
