//! Certificates for the tests, good ones and ones that no authority would issue.

use std::sync::OnceLock;

use gm_tls::{
    cert::{Certificate, CertificateChain, KeyKind, Source},
    key::PrivateKey,
    pair::CertificatePair,
    server::Identity,
};
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    hash::MessageDigest,
    x509::{
        X509, X509Builder, X509NameBuilder,
        extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
            SubjectKeyIdentifier,
        },
    },
};

/// Name of the server in all good certificates.
pub const SERVER: &str = "broker.test";

const DAY: i64 = 86_400;

pub struct Ca {
    certificate: X509,
    key: PrivateKey,
}

#[derive(Clone, Copy)]
pub enum Usage {
    Sign,
    Encrypt,
    /// keyEncipherment and dataEncipherment without keyAgreement, as GB/T 20518 allows.
    EncipherOnly,
    Both,
    Absent,
}

#[derive(Clone)]
pub struct Leaf<'a> {
    pub name: &'a str,
    pub kind: KeyKind,
    pub usage: Usage,
    /// Days from now.
    pub from: i64,
    pub until: i64,
    pub client_auth: bool,
    pub server_auth: bool,
}

impl<'a> Leaf<'a> {
    pub fn new(name: &'a str, kind: KeyKind, usage: Usage) -> Self {
        Self { name, kind, usage, from: -1, until: 30, client_auth: false, server_auth: false }
    }
}

fn digest(kind: KeyKind) -> MessageDigest {
    if kind == KeyKind::Sm2 { MessageDigest::sm3() } else { MessageDigest::sha256() }
}

fn time(days: i64) -> Asn1Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Asn1Time::from_unix(i64::try_from(now).unwrap() + days * DAY).unwrap()
}

fn start(name: &str, from: i64, until: i64) -> (X509Builder, openssl::x509::X509Name) {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::ONE, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_not_before(&time(from)).unwrap();
    builder.set_not_after(&time(until)).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("C", "CN").unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    builder.set_subject_name(&subject).unwrap();
    (builder, subject)
}

impl Ca {
    pub fn root(name: &str, kind: KeyKind) -> Self {
        let key = generate(kind);
        let (mut builder, subject) = start(name, -1, 365);
        builder.set_issuer_name(&subject).unwrap();
        builder.set_pubkey(key.pkey()).unwrap();
        Self::finish(builder, None, &key, kind)
    }

    pub fn intermediate(&self, name: &str, kind: KeyKind) -> Self {
        let key = generate(kind);
        let (mut builder, _) = start(name, -1, 365);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        builder.set_pubkey(key.pkey()).unwrap();
        Self::finish(builder, Some(self), &key, kind)
    }

    fn finish(mut builder: X509Builder, issuer: Option<&Ca>, key: &PrivateKey, kind: KeyKind) -> Self {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap()).unwrap();
        let context = builder.x509v3_context(issuer.map(|issuer| &*issuer.certificate), None);
        let id = SubjectKeyIdentifier::new().build(&context).unwrap();
        builder.append_extension(id).unwrap();
        let signer = issuer.map_or(key, |issuer| &issuer.key);
        builder.sign(signer.pkey(), digest(issuer.map_or(kind, |issuer| issuer.key.kind()))).unwrap();
        Self { certificate: builder.build(), key: key.clone() }
    }

    pub fn certificate(&self) -> Certificate {
        Certificate::from_x509(self.certificate.clone())
    }

    pub fn issue(&self, leaf: &Leaf<'_>) -> (Certificate, PrivateKey) {
        let key = generate(leaf.kind);
        (self.certify(leaf, &key), key)
    }

    pub fn certify(&self, leaf: &Leaf<'_>, key: &PrivateKey) -> Certificate {
        let (mut builder, _) = start(leaf.name, leaf.from, leaf.until);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        builder.set_pubkey(key.pkey()).unwrap();
        let mut usage = KeyUsage::new();
        usage.critical();
        let usage = match leaf.usage {
            Usage::Sign => Some(usage.digital_signature()),
            Usage::Encrypt => Some(usage.key_encipherment().data_encipherment().key_agreement()),
            Usage::EncipherOnly => Some(usage.key_encipherment().data_encipherment()),
            Usage::Both => Some(usage.digital_signature().key_encipherment().key_agreement()),
            Usage::Absent => None,
        };
        if let Some(usage) = usage {
            builder.append_extension(usage.build().unwrap()).unwrap();
        }
        let mut extended = ExtendedKeyUsage::new();
        if leaf.client_auth {
            extended.client_auth();
        }
        if leaf.server_auth {
            extended.server_auth();
        }
        if leaf.client_auth || leaf.server_auth {
            builder.append_extension(extended.build().unwrap()).unwrap();
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let names = SubjectAlternativeName::new().dns(leaf.name).ip("127.0.0.1").build(&context).unwrap();
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context).unwrap();
        builder.append_extension(names).unwrap();
        builder.append_extension(authority).unwrap();
        builder.sign(self.key.pkey(), digest(self.key.kind())).unwrap();
        Certificate::from_x509(builder.build())
    }

    pub fn identity(&self, leaf: &Leaf<'_>) -> Identity {
        let (certificate, key) = self.issue(leaf);
        Identity { chain: chain(certificate), key }
    }

    /// A good pair of SM2 or RSA certificates.
    pub fn pair(&self, name: &str, kind: KeyKind) -> CertificatePair {
        let (sign, sign_key) = self.issue(&Leaf::new(name, kind, Usage::Sign));
        let (enc, enc_key) = self.issue(&Leaf::new(name, kind, Usage::Encrypt));
        CertificatePair::new(chain(sign), sign_key, chain(enc), enc_key).unwrap()
    }
}

/// A key that can sign certificates. One fresh from the library cannot, if it is of SM2: only one that was decoded knows its
/// algorithm's identifier.
fn generate(kind: KeyKind) -> PrivateKey {
    let pem = PrivateKey::generate(kind).unwrap().to_pem(None).unwrap();
    PrivateKey::from_pem(Source::new("test"), &pem, None).unwrap()
}

pub fn chain(leaf: Certificate) -> CertificateChain {
    CertificateChain { origin: Source::new("test"), leaf, intermediates: Vec::new() }
}

/// What most tests share.
pub struct Pki {
    pub sm2: Ca,
    pub other_sm2: Ca,
    pub p256: Ca,
    pub rsa: Ca,
    pub server_pair: CertificatePair,
    pub client_pair: CertificatePair,
    pub server_sm2: Identity,
    pub client_sm2: Identity,
    pub server_p256: Identity,
    pub client_p256: Identity,
    pub server_rsa: Identity,
}

pub fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        // What computes SM2, SM3 and SM4 is chosen once for a process: by the binary that these tests are built into.
        gm_tls::provider::choose(crate::PROVIDER).unwrap();
        let sm2 = Ca::root("SM2 root", KeyKind::Sm2);
        let p256 = Ca::root("P-256 root", KeyKind::EcP256);
        let rsa = Ca::root("RSA root", KeyKind::Rsa(2048));
        Pki {
            other_sm2: Ca::root("another SM2 root", KeyKind::Sm2),
            server_pair: sm2.pair(SERVER, KeyKind::Sm2),
            client_pair: sm2.pair("client", KeyKind::Sm2),
            server_sm2: sm2.identity(&Leaf::new(SERVER, KeyKind::Sm2, Usage::Sign)),
            client_sm2: sm2.identity(&Leaf::new("client", KeyKind::Sm2, Usage::Sign)),
            server_p256: p256.identity(&Leaf::new(SERVER, KeyKind::EcP256, Usage::Sign)),
            client_p256: p256.identity(&Leaf::new("client", KeyKind::EcP256, Usage::Sign)),
            server_rsa: rsa.identity(&Leaf::new(SERVER, KeyKind::Rsa(2048), Usage::Both)),
            sm2,
            p256,
            rsa,
        }
    })
}
