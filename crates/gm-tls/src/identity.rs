//! What is known of a peer after its handshake: the one value by which the rest of the broker knows how a connection is
//! secured.

use std::{fmt, sync::Arc};

use openssl::{
    error::ErrorStack,
    hash::{MessageDigest, hash},
    ssl::{NameType, SslRef, SslVersion},
};

use crate::{
    cert::{CertError, Certificate, Source, hex},
    psk, suites,
};

/// The protocol that secures a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tls12,
    Tls13,
    /// TLS 1.3 with an SM4 suite, curveSM2 and SM2 signatures (RFC 8998).
    Rfc8998,
    /// GB/T 38636-2020.
    Tlcp,
}

impl Protocol {
    /// A stable name in lower case, for logs, metrics and access rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
            Self::Rfc8998 => "rfc8998",
            Self::Tlcp => "tlcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A peer's certificate as a connection keeps it: encoded, since decoded it would take some times the memory for as long as the
/// connection lives. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PeerCertificate {
    der: Arc<[u8]>,
}

impl PeerCertificate {
    fn of(certificate: &Certificate) -> Result<Self, ErrorStack> {
        Ok(Self { der: certificate.x509().to_der()?.into() })
    }

    /// A certificate that was kept as [`as_der`](Self::as_der) gave it. Nothing is verified.
    pub fn from_kept_der(der: &[u8]) -> Self {
        Self { der: der.into() }
    }

    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// SM3 of the encoding, lower-case hexadecimal.
    pub fn fingerprint_sm3(&self) -> String {
        self.fingerprint(MessageDigest::sm3())
    }

    /// SHA-256 of the encoding, lower-case hexadecimal.
    pub fn fingerprint_sha256(&self) -> String {
        self.fingerprint(MessageDigest::sha256())
    }

    /// MD5 of the encoding, lower-case hexadecimal. Two certificates with one MD5 can be made on purpose: for brokers that knew their
    /// clients by it, and for nothing new.
    pub fn fingerprint_md5(&self) -> String {
        self.fingerprint(MessageDigest::md5())
    }

    fn fingerprint(&self, digest: MessageDigest) -> String {
        hash(digest, &self.der).map(|digest| hex(&digest)).unwrap_or_default()
    }

    /// The certificate to be read.
    ///
    /// # Errors
    /// Only when there is no memory for it: it was decoded before, in the handshake.
    pub fn decode(&self) -> Result<Certificate, CertError> {
        Certificate::from_der(&Source::new("the peer's certificate"), &self.der)
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Ok(certificate) => certificate.fmt(f),
            Err(_) => write!(f, "PeerCertificate({} bytes)", self.der.len()),
        }
    }
}

/// The peer's certificates as the library holds them.
#[derive(Debug)]
pub(crate) struct PeerCertificates {
    pub(crate) signing: Option<Certificate>,
    pub(crate) encryption: Option<Certificate>,
}

impl PeerCertificates {
    pub(crate) fn of(ssl: &mut SslRef) -> Self {
        let owned = |x509: &openssl::x509::X509Ref| Certificate::from_x509(x509.to_owned());
        if ssl.is_ntls() {
            let signing = ssl.ntls_peer_sign_certificate().map(owned);
            Self { signing, encryption: ssl.ntls_peer_enc_certificate().map(owned) }
        } else {
            Self { signing: ssl.peer_certificate().map(Certificate::from_x509), encryption: None }
        }
    }
}

/// A peer after its handshake.
#[derive(Debug, Clone)]
pub struct PeerIdentity {
    pub protocol: Protocol,
    /// Name of the cipher suite: by GB/T 38636-2020 for TLCP, by IANA otherwise.
    pub suite: &'static str,
    /// Server name that the client asked for (RFC 6066 section 3).
    pub sni: Option<String>,
    /// Application protocol agreed upon (RFC 7301).
    pub alpn: Option<Vec<u8>>,
    /// The peer's certificate; over TLCP its signing certificate.
    pub signing: Option<PeerCertificate>,
    /// The peer's encryption certificate, TLCP only.
    pub encryption: Option<PeerCertificate>,
    /// The identity whose pre-shared key the peer has proved to have.
    pub psk: Option<Arc<str>>,
    /// Whether an earlier session was resumed, so that the certificates were verified then and not now.
    pub resumed: bool,
}

impl PeerIdentity {
    /// Reads the identity from a connection whose handshake is complete.
    pub(crate) fn of(ssl: &mut SslRef, certificates: &PeerCertificates) -> Result<Self, ErrorStack> {
        let tlcp = ssl.is_ntls();
        let cipher = ssl.current_cipher();
        let id = cipher.map(|cipher| u16::from_be_bytes(cipher.protocol_id()));
        let known = id.and_then(suites::by_id);
        let suite = known
            .map(|suite| suite.name)
            .or_else(|| cipher.and_then(|cipher| cipher.standard_name().or(Some(cipher.name()))))
            .unwrap_or("unknown");
        let protocol = if tlcp {
            Protocol::Tlcp
        } else if known.is_some_and(|suite| suite.protocol == suites::SuiteProtocol::Rfc8998) {
            Protocol::Rfc8998
        } else if ssl.version2() == Some(SslVersion::TLS1_3) {
            Protocol::Tls13
        } else {
            Protocol::Tls12
        };
        let psk = psk::proved(ssl);
        let kept = |certificate: &Option<Certificate>| certificate.as_ref().map(PeerCertificate::of).transpose();
        Ok(Self {
            protocol,
            suite,
            sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
            signing: kept(&certificates.signing)?,
            encryption: kept(&certificates.encryption)?,
            resumed: psk.is_none() && ssl.session_reused(),
            psk,
        })
    }
}
