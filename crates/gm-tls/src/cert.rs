//! X.509 certificates and chains: loading with bounds, and reading out what an operator or an access rule needs.
//! Nothing here decides whether a certificate is trusted.

mod holder;
mod name;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKeyRef};
use openssl::x509::{GeneralName, X509, X509Ref};

pub use holder::AlternativeName;
pub(crate) use name::rfc4514;
pub use name::{NameError, is_deceptive};

use crate::pem;

/// Certificates in one chain file, and the largest chain file.
pub const MAX_CHAIN_CERTIFICATES: usize = 16;
/// Certificates in one file of trust anchors.
pub const MAX_ANCHORS: usize = 1024;
/// Largest certificate file in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Where a certificate or a key came from, in words of the operator: the configuration field and the file it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Configuration field or command-line option, for example `tlcp_options.sign_certfile`; may be empty where whoever shows
    /// the error names the field.
    pub field: Box<str>,
    /// `None` when the value was not read from a file.
    pub path: Option<Box<Path>>,
}

impl Source {
    /// A value that was given directly, or that came from a peer.
    pub fn new(field: impl Into<Box<str>>) -> Source {
        Source { field: field.into(), path: None }
    }

    /// A value that was read from a file.
    pub fn file(field: impl Into<Box<str>>, path: impl Into<PathBuf>) -> Source {
        Source { field: field.into(), path: Some(path.into().into_boxed_path()) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if self.field.is_empty() => write!(f, "{}", path.display()),
            Some(path) => write!(f, "{} ({})", self.field, path.display()),
            None => f.write_str(&self.field),
        }
    }
}

/// Why certificates could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("{origin}: cannot read the file: {error}")]
    Unreadable { origin: Source, error: std::io::Error },
    #[error("{origin}: larger than {MAX_FILE_BYTES} bytes, which no certificate chain needs")]
    TooLarge { origin: Source },
    #[error("{origin}: holds no certificate; a PEM block `-----BEGIN CERTIFICATE-----` is expected")]
    NoCertificate { origin: Source },
    #[error("{origin}: is binary (DER); convert it with `openssl x509 -inform DER -in FILE -out FILE.pem`")]
    NotPem { origin: Source },
    #[error("{origin}: a PEM block is damaged: its BEGIN and END lines do not match")]
    DamagedPem { origin: Source },
    #[error("{origin}: more than {max} certificates")]
    TooMany { origin: Source, max: usize },
    #[error("{origin}: certificate number {position} cannot be decoded")]
    Malformed { origin: Source, position: usize },
    #[error("{origin}: one certificate is expected, {count} found")]
    NotOne { origin: Source, count: usize },
    #[error(
        "{origin}: certificate number {position} (`{subject}`) did not issue the one before it; \
         the server's own certificate comes first, then each issuer in turn"
    )]
    OutOfOrder { origin: Source, position: usize, subject: String },
}

/// What a public key is, as far as the choice of certificates and suites needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// SM2 on the curve of GB/T 32918.5.
    Sm2,
    EcP256,
    EcP384,
    /// Modulus length in bits.
    Rsa(u32),
    Ed25519,
    /// Anything else; never chosen for a connection.
    Other,
}

impl KeyKind {
    pub(crate) fn of<T: HasPublic>(key: &PKeyRef<T>) -> KeyKind {
        match key.id() {
            Id::SM2 => KeyKind::Sm2,
            Id::RSA => KeyKind::Rsa(key.bits()),
            Id::ED25519 => KeyKind::Ed25519,
            Id::EC => match key.ec_key().ok().and_then(|key| key.group().curve_name()) {
                Some(Nid::SM2) => KeyKind::Sm2,
                Some(Nid::X9_62_PRIME256V1) => KeyKind::EcP256,
                Some(Nid::SECP384R1) => KeyKind::EcP384,
                _ => KeyKind::Other,
            },
            _ => KeyKind::Other,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::Sm2 => f.write_str("SM2"),
            KeyKind::EcP256 => f.write_str("ECDSA P-256"),
            KeyKind::EcP384 => f.write_str("ECDSA P-384"),
            KeyKind::Rsa(bits) => write!(f, "RSA-{bits}"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Other => f.write_str("a kind of key that is not supported"),
        }
    }
}

/// Bits of the keyUsage extension (RFC 5280 section 4.2.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyUsage(u16);

impl KeyUsage {
    pub const DIGITAL_SIGNATURE: KeyUsage = KeyUsage(1 << 0);
    /// Also called contentCommitment.
    pub const NON_REPUDIATION: KeyUsage = KeyUsage(1 << 1);
    pub const KEY_ENCIPHERMENT: KeyUsage = KeyUsage(1 << 2);
    pub const DATA_ENCIPHERMENT: KeyUsage = KeyUsage(1 << 3);
    pub const KEY_AGREEMENT: KeyUsage = KeyUsage(1 << 4);
    pub const KEY_CERT_SIGN: KeyUsage = KeyUsage(1 << 5);
    pub const CRL_SIGN: KeyUsage = KeyUsage(1 << 6);
    pub const ENCIPHER_ONLY: KeyUsage = KeyUsage(1 << 7);
    pub const DECIPHER_ONLY: KeyUsage = KeyUsage(1 << 8);

    /// The bit of a name in [`KeyUsage::NAMES`].
    pub fn from_name(name: &str) -> Option<KeyUsage> {
        KeyUsage::NAMES.iter().find(|(_, known)| *known == name).map(|(bit, _)| *bit)
    }

    /// Each bit with its name in RFC 5280, in the order of the extension.
    pub const NAMES: [(KeyUsage, &'static str); 9] = [
        (KeyUsage::DIGITAL_SIGNATURE, "digitalSignature"),
        (KeyUsage::NON_REPUDIATION, "nonRepudiation"),
        (KeyUsage::KEY_ENCIPHERMENT, "keyEncipherment"),
        (KeyUsage::DATA_ENCIPHERMENT, "dataEncipherment"),
        (KeyUsage::KEY_AGREEMENT, "keyAgreement"),
        (KeyUsage::KEY_CERT_SIGN, "keyCertSign"),
        (KeyUsage::CRL_SIGN, "cRLSign"),
        (KeyUsage::ENCIPHER_ONLY, "encipherOnly"),
        (KeyUsage::DECIPHER_ONLY, "decipherOnly"),
    ];

    /// No bit at all.
    pub const fn empty() -> KeyUsage {
        KeyUsage(0)
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: KeyUsage) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: KeyUsage) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    pub const fn union(self, other: KeyUsage) -> KeyUsage {
        KeyUsage(self.0 | other.0)
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_names(f, KeyUsage::NAMES.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| *name))
    }
}

impl fmt::Debug for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUsage({self})")
    }
}

/// Purposes of the extendedKeyUsage extension (RFC 5280 section 4.2.1.12) that matter to a TLS or TLCP endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtendedKeyUsage {
    pub server_auth: bool,
    pub client_auth: bool,
    /// anyExtendedKeyUsage.
    pub any: bool,
}

impl fmt::Display for ExtendedKeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.server_auth, "serverAuth"), (self.client_auth, "clientAuth"), (self.any, "any")];
        write_names(f, names.iter().filter(|(set, _)| *set).map(|(_, name)| *name))
    }
}

fn write_names<'a>(f: &mut fmt::Formatter<'_>, mut names: impl Iterator<Item = &'a str>) -> fmt::Result {
    let Some(first) = names.next() else { return f.write_str("none") };
    f.write_str(first)?;
    names.try_for_each(|name| write!(f, ", {name}"))
}

/// One X.509 certificate. Clones share the decoded structure.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    x509: X509,
}

impl Certificate {
    /// Wraps what the TLS library decoded.
    #[doc(hidden)]
    pub fn from_x509(x509: X509) -> Certificate {
        Certificate { x509 }
    }

    /// Decodes exactly one PEM certificate; `origin` is what errors name.
    pub fn from_pem(origin: &Source, text: &[u8]) -> Result<Certificate, CertError> {
        let mut certificates = decode_all(origin, text, MAX_CHAIN_CERTIFICATES)?;
        match (certificates.pop(), certificates.len()) {
            (Some(certificate), 0) => Ok(certificate),
            (_, others) => Err(CertError::NotOne { origin: origin.clone(), count: others + 1 }),
        }
    }

    /// Decodes one DER certificate that fills `der`.
    pub fn from_der(origin: &Source, der: &[u8]) -> Result<Certificate, CertError> {
        crate::init();
        let malformed = || CertError::Malformed { origin: origin.clone(), position: 1 };
        let x509 = X509::from_der(der).map_err(|_| malformed())?;
        // The decoder stops at the end of the structure; bytes after it would not be covered by the signature.
        if x509.to_der().map_err(|_| malformed())? != der {
            return Err(malformed());
        }
        Ok(Certificate { x509 })
    }

    /// Every certificate of a file of trust anchors, in any order, at most [`MAX_ANCHORS`].
    pub fn anchors_from_file(field: &str, path: &Path) -> Result<Vec<Certificate>, CertError> {
        let origin = Source::file(field, path);
        decode_all(&origin, &read(&origin, path)?, MAX_ANCHORS)
    }

    /// Every certificate of a text of trust anchors, in any order, at most [`MAX_ANCHORS`].
    pub fn anchors_from_pem(origin: &Source, text: &[u8]) -> Result<Vec<Certificate>, CertError> {
        decode_all(origin, text, MAX_ANCHORS)
    }

    /// The DER encoding; empty only if the library is out of memory.
    pub fn to_der(&self) -> Vec<u8> {
        self.x509.to_der().unwrap_or_default()
    }

    /// The PEM encoding; empty only if the library is out of memory.
    pub fn to_pem(&self) -> Vec<u8> {
        self.x509.to_pem().unwrap_or_default()
    }

    /// The subject as RFC 4514 writes it, most specific part first. Characters that could deceive a reader are
    /// escaped, so two different subjects never print alike.
    pub fn subject(&self) -> String {
        name::rfc4514(self.x509.subject_name())
    }

    /// The issuer, written like [`Certificate::subject`].
    pub fn issuer(&self) -> String {
        name::rfc4514(self.x509.issuer_name())
    }

    /// The subject's common name.
    ///
    /// # Errors
    /// There are two, or it holds bytes that different programs read differently: such a name identifies nobody.
    pub fn common_name(&self) -> Result<Option<String>, NameError> {
        name::common_name(self.x509.subject_name())
    }

    /// The serial number in upper-case hexadecimal.
    pub fn serial_hex(&self) -> String {
        let serial = self.x509.serial_number().to_bn().and_then(|serial| serial.to_hex_str());
        serial.map(|serial| serial.to_string()).unwrap_or_default()
    }

    /// First second of validity, unix time.
    pub fn not_before(&self) -> i64 {
        unix_time(self.x509.not_before()).unwrap_or(i64::MAX)
    }

    /// Last second of validity, unix time.
    pub fn not_after(&self) -> i64 {
        unix_time(self.x509.not_after()).unwrap_or(i64::MIN)
    }

    /// DNS names of the subjectAltName extension, as encoded.
    pub fn san_dns(&self) -> Vec<String> {
        self.san(|name| name.dnsname().map(str::to_owned))
    }

    /// IP addresses of the subjectAltName extension.
    pub fn san_ip(&self) -> Vec<IpAddr> {
        self.san(|name| {
            let bytes = name.ipaddress()?;
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
        })
    }

    /// URIs of the subjectAltName extension, as encoded.
    pub fn san_uri(&self) -> Vec<String> {
        self.san(|name| name.uri().map(str::to_owned))
    }

    /// Mail addresses of the subjectAltName extension, as encoded.
    pub fn san_email(&self) -> Vec<String> {
        self.san(|name| name.email().map(str::to_owned))
    }

    /// What the public key is.
    pub fn key_kind(&self) -> KeyKind {
        self.x509.public_key().map_or(KeyKind::Other, |key| KeyKind::of(&key))
    }

    /// The keyUsage extension; `None` when absent, empty when it cannot be decoded.
    pub fn key_usage(&self) -> Option<KeyUsage> {
        use openssl::x509::X509KeyUsage as Bits;
        let bits = self.x509.key_usage()?;
        let table = [
            (Bits::DIGITAL_SIGNATURE, KeyUsage::DIGITAL_SIGNATURE),
            (Bits::NON_REPUDIATION, KeyUsage::NON_REPUDIATION),
            (Bits::KEY_ENCIPHERMENT, KeyUsage::KEY_ENCIPHERMENT),
            (Bits::DATA_ENCIPHERMENT, KeyUsage::DATA_ENCIPHERMENT),
            (Bits::KEY_AGREEMENT, KeyUsage::KEY_AGREEMENT),
            (Bits::KEY_CERT_SIGN, KeyUsage::KEY_CERT_SIGN),
            (Bits::CRL_SIGN, KeyUsage::CRL_SIGN),
            (Bits::ENCIPHER_ONLY, KeyUsage::ENCIPHER_ONLY),
            (Bits::DECIPHER_ONLY, KeyUsage::DECIPHER_ONLY),
        ];
        Some(
            table
                .iter()
                .filter(|(bit, _)| bits.contains(*bit))
                .fold(KeyUsage::empty(), |all, (_, bit)| all.union(*bit)),
        )
    }

    /// The extendedKeyUsage extension; `None` when absent.
    pub fn extended_key_usage(&self) -> Option<ExtendedKeyUsage> {
        use openssl::x509::X509ExtendedKeyUsage as Bits;
        let bits = self.x509.extended_key_usage()?;
        Some(ExtendedKeyUsage {
            server_auth: bits.contains(Bits::SSL_SERVER),
            client_auth: bits.contains(Bits::SSL_CLIENT),
            any: bits.contains(Bits::ANYEKU),
        })
    }

    /// Name of the signature algorithm, for example `SM2-with-SM3`.
    pub fn signature_algorithm(&self) -> String {
        let object = self.x509.signature_algorithm().object();
        object.nid().long_name().map_or_else(|_| object.to_string(), str::to_owned)
    }

    /// SM3 of the DER encoding, lower-case hexadecimal.
    pub fn fingerprint_sm3(&self) -> String {
        self.fingerprint(MessageDigest::sm3())
    }

    /// SHA-256 of the DER encoding, lower-case hexadecimal.
    pub fn fingerprint_sha256(&self) -> String {
        self.fingerprint(MessageDigest::sha256())
    }

    /// Whether basicConstraints makes it a certification authority.
    pub fn is_ca(&self) -> bool {
        self.x509.basic_constraints().is_some_and(|constraints| constraints.ca())
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        same_name(self.x509.subject_name(), self.x509.issuer_name())
    }

    /// The library's view of the certificate.
    #[doc(hidden)]
    pub fn x509(&self) -> &X509Ref {
        &self.x509
    }

    /// The subjectKeyIdentifier extension.
    pub fn subject_key_id(&self) -> Option<Vec<u8>> {
        self.x509.subject_key_id().map(|id| id.as_slice().to_vec())
    }

    /// The key identifier of the authorityKeyIdentifier extension.
    pub fn authority_key_id(&self) -> Option<Vec<u8>> {
        self.x509.authority_key_id().map(|id| id.as_slice().to_vec())
    }

    /// Whether both have the same alternative names. The order of names is free; names of kinds that cannot be
    /// compared one by one are compared as encoded.
    pub(crate) fn same_alternative_names(&self, other: &Certificate) -> bool {
        let (one, two) = (self.alternative_names_der(), other.alternative_names_der());
        one == two || matches!((self.sorted_san(), other.sorted_san()), (Some(one), Some(two)) if one == two)
    }

    fn alternative_names_der(&self) -> Option<Vec<u8>> {
        let location = self.x509.get_extension_location(Nid::SUBJECT_ALT_NAME, None)?;
        self.x509.get_extension(location).and_then(|extension| extension.to_der()).ok()
    }

    /// `None` when a name is not of the four common kinds.
    fn sorted_san(&self) -> Option<Vec<(u8, Vec<u8>)>> {
        let names = self.x509.subject_alt_names()?;
        let mut sorted = Vec::with_capacity(names.len());
        for name in &names {
            let text = |kind: u8, value: &str| (kind, value.as_bytes().to_vec());
            let dns = name.dnsname().map(|value| text(0, &value.to_ascii_lowercase()));
            let ip = || name.ipaddress().map(|value| (1, value.to_vec()));
            let uri = || name.uri().map(|value| text(2, value));
            let email = || name.email().map(|value| text(3, value));
            sorted.push(dns.or_else(ip).or_else(uri).or_else(email)?);
        }
        sorted.sort();
        sorted.dedup();
        Some(sorted)
    }

    /// Whether `key` is the private key of this certificate.
    pub fn belongs_to(&self, key: &crate::key::PrivateKey) -> bool {
        self.has_key(key.pkey())
    }

    pub(crate) fn has_key<T: HasPublic>(&self, key: &PKeyRef<T>) -> bool {
        self.x509.public_key().is_ok_and(|own| own.public_eq(key))
    }

    fn san<T>(&self, pick: impl Fn(&openssl::x509::GeneralNameRef) -> Option<T>) -> Vec<T> {
        let names: Option<openssl::stack::Stack<GeneralName>> = self.x509.subject_alt_names();
        names.map(|names| names.iter().filter_map(pick).collect()).unwrap_or_default()
    }

    fn fingerprint(&self, digest: MessageDigest) -> String {
        self.x509.digest(digest).map(|digest| hex(&digest)).unwrap_or_default()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.subject()).field("serial", &self.serial_hex()).finish()
    }
}

/// A certificate and the issuers sent with it, nearest first. The trust anchor itself may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain {
    pub origin: Source,
    pub leaf: Certificate,
    pub intermediates: Vec<Certificate>,
}

impl CertificateChain {
    /// Reads a PEM file: the certificate itself, then each issuer in turn. Other PEM blocks are ignored.
    pub fn from_file(field: &str, path: &Path) -> Result<CertificateChain, CertError> {
        let origin = Source::file(field, path);
        let text = read(&origin, path)?;
        CertificateChain::from_pem(origin, &text)
    }

    /// Decodes a PEM text like [`CertificateChain::from_file`].
    pub fn from_pem(origin: Source, text: &[u8]) -> Result<CertificateChain, CertError> {
        let certificates = decode_all(&origin, text, MAX_CHAIN_CERTIFICATES)?;
        for (position, (subject, issuer)) in certificates.iter().zip(certificates.iter().skip(1)).enumerate() {
            if !same_name(subject.x509.issuer_name(), issuer.x509.subject_name()) {
                let subject = issuer.subject();
                return Err(CertError::OutOfOrder { origin, position: position + 2, subject });
            }
        }
        let mut certificates = certificates.into_iter();
        let Some(leaf) = certificates.next() else { return Err(CertError::NoCertificate { origin }) };
        Ok(CertificateChain { origin, leaf, intermediates: certificates.collect() })
    }

    /// The leaf and its issuers as one PEM text.
    pub fn to_pem(&self) -> Vec<u8> {
        std::iter::once(&self.leaf).chain(&self.intermediates).flat_map(Certificate::to_pem).collect()
    }
}

pub(crate) fn same_name(one: &openssl::x509::X509NameRef, other: &openssl::x509::X509NameRef) -> bool {
    one.try_cmp(other).is_ok_and(std::cmp::Ordering::is_eq)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn unix_time(time: &Asn1TimeRef) -> Option<i64> {
    let difference = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    Some(i64::from(difference.days) * 86_400 + i64::from(difference.secs))
}

fn read(origin: &Source, path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, CertError> {
    match pem::read_file(path, MAX_FILE_BYTES) {
        Ok(Some(contents)) => Ok(contents.bytes),
        Ok(None) => Err(CertError::TooLarge { origin: origin.clone() }),
        Err(error) => Err(CertError::Unreadable { origin: origin.clone(), error }),
    }
}

fn decode_all(origin: &Source, text: &[u8], max: usize) -> Result<Vec<Certificate>, CertError> {
    crate::init();
    if text.len() > MAX_FILE_BYTES {
        return Err(CertError::TooLarge { origin: origin.clone() });
    }
    // Twice, since keys and parameters may stand beside the certificates.
    let blocks = pem::blocks(text, max * 2).map_err(|error| match error {
        pem::Malformed::TooMany => CertError::TooMany { origin: origin.clone(), max },
        pem::Malformed::BeginLine | pem::Malformed::Unterminated => CertError::DamagedPem { origin: origin.clone() },
    })?;
    if blocks.is_empty() && X509::from_der(text).is_ok() {
        return Err(CertError::NotPem { origin: origin.clone() });
    }
    let mut certificates = Vec::new();
    for block in blocks.iter().filter(|block| matches!(block.label, "CERTIFICATE" | "X509 CERTIFICATE")) {
        let position = certificates.len() + 1;
        if position > max {
            return Err(CertError::TooMany { origin: origin.clone(), max });
        }
        let x509 = X509::from_pem(block.text).map_err(|_| CertError::Malformed { origin: origin.clone(), position })?;
        certificates.push(Certificate { x509 });
    }
    if certificates.is_empty() {
        return Err(CertError::NoCertificate { origin: origin.clone() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests;
