//! The two certificates of TLCP, a signing and an encryption one, as one value that cannot be wrong: halves, keys that
//! do not belong, certificates of different subjects or authorities and swapped roles are refused where it is built.
//!
//! Source: GB/T 38636-2020 and its certificate message, GM/T 0015 (keyUsage of the two certificates).

pub use crate::cert::Source;
use crate::cert::{Certificate, CertificateChain, ExtendedKeyUsage, KeyKind, KeyUsage, same_name};
use crate::key::PrivateKey;

/// Uses that belong to an encryption certificate alone.
const ENCRYPTION_USES: KeyUsage =
    KeyUsage::KEY_ENCIPHERMENT.union(KeyUsage::DATA_ENCIPHERMENT).union(KeyUsage::KEY_AGREEMENT);
/// Uses that belong to a signing certificate alone.
const SIGNING_USES: KeyUsage = KeyUsage::DIGITAL_SIGNATURE.union(KeyUsage::NON_REPUDIATION);
/// Smallest RSA modulus of a pair in bits.
const MIN_RSA_BITS: u32 = 2048;

/// Why two certificates, or two certificates and their keys, are not a TLCP pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    #[error(
        "{missing} is not set, and a TLCP pair needs all four: a signing and an encryption certificate with their keys"
    )]
    Half { missing: String },
    #[error("{sign} and {enc} are swapped: the first holds the encryption certificate and the second the signing one")]
    Swapped { sign: Source, enc: Source },
    #[error("{sign_key} and {enc_key} are swapped: each is the key of the other certificate")]
    KeysSwapped { sign_key: Source, enc_key: Source },
    #[error("{sign} and {enc} hold the same certificate; a TLCP pair has one for signing and another for encryption")]
    SameCertificate { sign: Source, enc: Source },
    #[error("{sign} and {enc} hold certificates of the same key; the two keys of a TLCP pair must differ")]
    SameKey { sign: Source, enc: Source },
    #[error("{key} is not the key of the signing certificate in {certificate}")]
    SignKeyMismatch { certificate: Source, key: Source },
    #[error("{key} is not the key of the encryption certificate in {certificate}")]
    EncKeyMismatch { certificate: Source, key: Source },
    #[error("{sign} is for `{sign_subject}` and {enc} for `{enc_subject}`; both must have the same subject")]
    DifferentSubject { sign: Source, sign_subject: String, enc: Source, enc_subject: String },
    #[error("{sign} was issued by `{sign_issuer}` and {enc} by `{enc_issuer}`; both must have the same issuer")]
    DifferentIssuer { sign: Source, sign_issuer: String, enc: Source, enc_issuer: String },
    #[error(
        "{sign} and {enc} were issued by different authorities of the same name (their authority key identifiers differ)"
    )]
    DifferentAuthority { sign: Source, enc: Source },
    #[error("{sign} and {enc} have different alternative names (subjectAltName); both must have the same")]
    DifferentNames { sign: Source, enc: Source },
    #[error("{certificate} has no keyUsage, so its role in a TLCP pair is unknown; a certificate for {role} is needed")]
    NoUsage { certificate: Source, role: Role },
    #[error("{certificate} may be used for {found}, which is not what a certificate for {role} needs: {}", role.requirement())]
    WrongUsage { certificate: Source, role: Role, found: KeyUsage },
    #[error("{certificate} has a key of {kind}; a TLCP pair is of SM2 keys, or both of RSA with at least 2048 bits")]
    WrongKind { certificate: Source, kind: KeyKind },
    #[error("{certificate} is the certificate of a certification authority, not of a server or a client")]
    IsAuthority { certificate: Source },
}

impl PairError {
    /// The part that is wrong, or the first of those that do not belong together; `None` where one is absent.
    pub fn at_fault(&self) -> Option<&Source> {
        match self {
            Self::Half { .. } => None,
            Self::SignKeyMismatch { key, .. } | Self::EncKeyMismatch { key, .. } => Some(key),
            Self::KeysSwapped { sign_key, .. } => Some(sign_key),
            Self::Swapped { sign, .. }
            | Self::SameCertificate { sign, .. }
            | Self::SameKey { sign, .. }
            | Self::DifferentSubject { sign, .. }
            | Self::DifferentIssuer { sign, .. }
            | Self::DifferentAuthority { sign, .. }
            | Self::DifferentNames { sign, .. } => Some(sign),
            Self::NoUsage { certificate, .. }
            | Self::WrongUsage { certificate, .. }
            | Self::WrongKind { certificate, .. }
            | Self::IsAuthority { certificate } => Some(certificate),
        }
    }
}

/// Why a certificate is not valid now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    #[error("{certificate} expired {}", ago(*.days))]
    Expired { certificate: Source, days: i64 },
    #[error("{certificate} is not valid yet; it will be in {seconds} seconds (is the clock right?)")]
    NotYet { certificate: Source, seconds: i64 },
}

/// A certificate that may not be a server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{certificate} is not for a server: its extendedKeyUsage is {purposes}, and clients that check it refuse the broker; serverAuth is needed"
)]
pub struct PurposeError {
    certificate: Source,
    purposes: ExtendedKeyUsage,
}

/// Whether a certificate may be a server's (RFC 5280 section 4.2.1.12); one without the extension may.
///
/// # Errors
/// It lists its purposes, and to be a server is none of them.
pub fn check_server_purpose(certificate: &Certificate, origin: &Source) -> Result<(), PurposeError> {
    match certificate.extended_key_usage() {
        Some(purposes) if !purposes.server_auth && !purposes.any => {
            Err(PurposeError { certificate: origin.clone(), purposes })
        }
        _ => Ok(()),
    }
}

/// How long ago something was, in words.
pub fn ago(days: i64) -> String {
    match days {
        0 => "today".to_owned(),
        1 => "1 day ago".to_owned(),
        days => format!("{days} days ago"),
    }
}

/// The role of a certificate in a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Signing,
    Encryption,
}

impl Role {
    fn requirement(self) -> &'static str {
        match self {
            Role::Signing => "digitalSignature, and no encryption",
            Role::Encryption => "one of keyEncipherment, dataEncipherment and keyAgreement, and no signature",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Signing => "signing",
            Role::Encryption => "encryption",
        })
    }
}

/// The four parts of a pair before it is known that they belong together.
#[derive(Debug, Default)]
pub struct PairParts {
    pub sign: Option<CertificateChain>,
    pub sign_key: Option<PrivateKey>,
    pub enc: Option<CertificateChain>,
    pub enc_key: Option<PrivateKey>,
}

/// A signing and an encryption certificate with their keys, known to belong together.
#[derive(Debug, Clone)]
pub struct CertificatePair {
    sign: CertificateChain,
    sign_key: PrivateKey,
    enc: CertificateChain,
    enc_key: PrivateKey,
}

impl CertificatePair {
    /// Builds a pair from parts that may be absent; `fields` are the names of the four in the order of [`PairParts`].
    pub fn from_parts(parts: PairParts, fields: [&str; 4]) -> Result<CertificatePair, PairError> {
        let half = |missing: &str| PairError::Half { missing: missing.to_owned() };
        let [sign_field, sign_key_field, enc_field, enc_key_field] = fields;
        CertificatePair::new(
            parts.sign.ok_or_else(|| half(sign_field))?,
            parts.sign_key.ok_or_else(|| half(sign_key_field))?,
            parts.enc.ok_or_else(|| half(enc_field))?,
            parts.enc_key.ok_or_else(|| half(enc_key_field))?,
        )
    }

    /// Builds a pair, refusing every combination that is not one. Whether it is valid now is asked of
    /// [`CertificatePair::check_validity`].
    pub fn new(
        sign: CertificateChain,
        sign_key: PrivateKey,
        enc: CertificateChain,
        enc_key: PrivateKey,
    ) -> Result<CertificatePair, PairError> {
        check_binding((&sign.leaf, &sign.origin), (&enc.leaf, &enc.origin))?;
        let sign_matches = sign.leaf.has_key(sign_key.pkey());
        let enc_matches = enc.leaf.has_key(enc_key.pkey());
        if !sign_matches && !enc_matches && sign.leaf.has_key(enc_key.pkey()) && enc.leaf.has_key(sign_key.pkey()) {
            let (sign_key, enc_key) = (sign_key.origin().clone(), enc_key.origin().clone());
            return Err(PairError::KeysSwapped { sign_key, enc_key });
        }
        if !sign_matches {
            let (certificate, key) = (sign.origin, sign_key.origin().clone());
            return Err(PairError::SignKeyMismatch { certificate, key });
        }
        if !enc_matches {
            let (certificate, key) = (enc.origin, enc_key.origin().clone());
            return Err(PairError::EncKeyMismatch { certificate, key });
        }
        Ok(CertificatePair { sign, sign_key, enc, enc_key })
    }

    /// The signing certificate.
    pub fn sign(&self) -> &Certificate {
        &self.sign.leaf
    }

    /// The key of the signing certificate.
    pub fn sign_key(&self) -> &PrivateKey {
        &self.sign_key
    }

    /// The encryption certificate.
    pub fn enc(&self) -> &Certificate {
        &self.enc.leaf
    }

    /// The key of the encryption certificate.
    pub fn enc_key(&self) -> &PrivateKey {
        &self.enc_key
    }

    /// The issuers sent after both certificates: those of the signing file, or of the encryption file if it has none.
    pub fn intermediates(&self) -> &[Certificate] {
        if self.sign.intermediates.is_empty() { &self.enc.intermediates } else { &self.sign.intermediates }
    }

    /// What the keys of both certificates are: SM2 or RSA.
    pub fn key_kind(&self) -> KeyKind {
        self.sign_key.kind()
    }

    /// Whether both certificates are valid at `now`, unix seconds.
    pub fn check_validity(&self, now: i64) -> Result<(), ValidityError> {
        check_validity(&self.sign.leaf, &self.sign.origin, now)?;
        check_validity(&self.enc.leaf, &self.enc.origin, now)
    }
}

/// Applies to a peer's two certificates the rules that bind the two of a [`CertificatePair`]. Trust, validity and
/// possession of the keys are the business of the handshake, which does not bind the certificates to each other.
pub fn check_peer_pair(sign: &Certificate, enc: &Certificate) -> Result<(), PairError> {
    let sign_source = Source::new("the peer's signing certificate");
    let enc_source = Source::new("the peer's encryption certificate");
    check_binding((sign, &sign_source), (enc, &enc_source))
}

/// Applies the rules of a pair to two certificates without their keys.
pub fn check_pair(sign: &CertificateChain, enc: &CertificateChain) -> Result<(), PairError> {
    check_binding((&sign.leaf, &sign.origin), (&enc.leaf, &enc.origin))
}

/// Whether a certificate is valid at `now`, unix seconds.
pub fn check_validity(certificate: &Certificate, origin: &Source, now: i64) -> Result<(), ValidityError> {
    if now < certificate.not_before() {
        let seconds = certificate.not_before().saturating_sub(now);
        return Err(ValidityError::NotYet { certificate: origin.clone(), seconds });
    }
    if now > certificate.not_after() {
        let days = now.saturating_sub(certificate.not_after()) / 86_400;
        return Err(ValidityError::Expired { certificate: origin.clone(), days });
    }
    Ok(())
}

type Sourced<'a> = (&'a Certificate, &'a Source);

fn check_binding(sign: Sourced<'_>, enc: Sourced<'_>) -> Result<(), PairError> {
    let ((sign, sign_source), (enc, enc_source)) = (sign, enc);
    let sources = || (sign_source.clone(), enc_source.clone());
    if sign == enc {
        let (sign, enc) = sources();
        return Err(PairError::SameCertificate { sign, enc });
    }
    for (certificate, source) in [(sign, sign_source), (enc, enc_source)] {
        if certificate.is_ca() {
            return Err(PairError::IsAuthority { certificate: source.clone() });
        }
        let kind = certificate.key_kind();
        if !matches!(kind, KeyKind::Sm2 | KeyKind::Rsa(MIN_RSA_BITS..)) {
            return Err(PairError::WrongKind { certificate: source.clone(), kind });
        }
    }
    if (sign.key_kind() == KeyKind::Sm2) != (enc.key_kind() == KeyKind::Sm2) {
        let (certificate, kind) =
            if sign.key_kind() == KeyKind::Sm2 { (enc_source, enc.key_kind()) } else { (sign_source, sign.key_kind()) };
        return Err(PairError::WrongKind { certificate: certificate.clone(), kind });
    }
    check_usage((sign, sign_source), (enc, enc_source))?;
    if sign.x509().public_key().is_ok_and(|key| enc.has_key(&key)) {
        let (sign, enc) = sources();
        return Err(PairError::SameKey { sign, enc });
    }
    if !same_name(sign.x509().subject_name(), enc.x509().subject_name()) {
        let (sign_subject, enc_subject) = (sign.subject(), enc.subject());
        let (sign, enc) = sources();
        return Err(PairError::DifferentSubject { sign, sign_subject, enc, enc_subject });
    }
    if !same_name(sign.x509().issuer_name(), enc.x509().issuer_name()) {
        let (sign_issuer, enc_issuer) = (sign.issuer(), enc.issuer());
        let (sign, enc) = sources();
        return Err(PairError::DifferentIssuer { sign, sign_issuer, enc, enc_issuer });
    }
    if let (Some(one), Some(other)) = (sign.authority_key_id(), enc.authority_key_id())
        && one != other
    {
        let (sign, enc) = sources();
        return Err(PairError::DifferentAuthority { sign, enc });
    }
    if !sign.same_alternative_names(enc) {
        let (sign, enc) = sources();
        return Err(PairError::DifferentNames { sign, enc });
    }
    Ok(())
}

fn check_usage(sign: Sourced<'_>, enc: Sourced<'_>) -> Result<(), PairError> {
    let can_sign = |usage: KeyUsage| usage.contains(KeyUsage::DIGITAL_SIGNATURE) && !usage.intersects(ENCRYPTION_USES);
    let can_encrypt = |usage: KeyUsage| usage.intersects(ENCRYPTION_USES) && !usage.intersects(SIGNING_USES);
    let usage_of = |(certificate, source): Sourced<'_>, role| {
        certificate.key_usage().ok_or_else(|| PairError::NoUsage { certificate: source.clone(), role })
    };
    let sign_usage = usage_of(sign, Role::Signing)?;
    let enc_usage = usage_of(enc, Role::Encryption)?;
    if can_encrypt(sign_usage) && can_sign(enc_usage) {
        return Err(PairError::Swapped { sign: sign.1.clone(), enc: enc.1.clone() });
    }
    if !can_sign(sign_usage) {
        let certificate = sign.1.clone();
        return Err(PairError::WrongUsage { certificate, role: Role::Signing, found: sign_usage });
    }
    if !can_encrypt(enc_usage) {
        let certificate = enc.1.clone();
        return Err(PairError::WrongUsage { certificate, role: Role::Encryption, found: enc_usage });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
