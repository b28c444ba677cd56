//! The authority itself: what it is made of, and what it issues for whom.

use openssl::pkey::{HasPublic, PKeyRef};

use super::assemble::{Contents, Issuer, assemble};
use super::request::CertificateRequest;
use super::{AlternativeNames, BACKDATING_SECS, PkiError, StatusServices, Subject};
use crate::cert::{Certificate, CertificateChain, ExtendedKeyUsage, KeyKind, KeyUsage, Source, same_name};
use crate::key::PrivateKey;

/// What certificates of servers or clients look like (GM/T 0015-2012 section 5, RFC 5280 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Validity in days; cut at the end of the authority's own.
    pub days: u32,
    pub purposes: ExtendedKeyUsage,
    /// keyUsage of the signing certificate of a pair.
    pub sign_usage: KeyUsage,
    /// keyUsage of the encryption certificate of a pair.
    pub enc_usage: KeyUsage,
    /// keyUsage of a single certificate of an elliptic-curve key.
    pub single_usage: KeyUsage,
    /// keyUsage of a single certificate of an RSA key, which RSA key exchange needs to be wider.
    pub rsa_usage: KeyUsage,
    /// Where the status of the certificates can be learned.
    pub services: StatusServices,
}

impl Profile {
    /// A server's certificates.
    pub fn server(days: u32) -> Profile {
        Profile::for_purposes(days, ExtendedKeyUsage { server_auth: true, ..ExtendedKeyUsage::default() })
    }

    /// A client's certificates.
    pub fn client(days: u32) -> Profile {
        Profile::for_purposes(days, ExtendedKeyUsage { client_auth: true, ..ExtendedKeyUsage::default() })
    }

    fn for_purposes(days: u32, purposes: ExtendedKeyUsage) -> Profile {
        let encryption = KeyUsage::KEY_ENCIPHERMENT.union(KeyUsage::DATA_ENCIPHERMENT).union(KeyUsage::KEY_AGREEMENT);
        Profile {
            days,
            purposes,
            sign_usage: KeyUsage::DIGITAL_SIGNATURE,
            enc_usage: encryption,
            single_usage: KeyUsage::DIGITAL_SIGNATURE,
            rsa_usage: KeyUsage::DIGITAL_SIGNATURE.union(KeyUsage::KEY_ENCIPHERMENT),
            services: StatusServices::default(),
        }
    }
}

/// What an authority's certificate looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityProfile {
    pub days: u32,
    /// How many authorities may stand below; `None` is no limit.
    pub path_len: Option<u32>,
    pub usage: KeyUsage,
    /// Where the status of the authority can be learned.
    pub services: StatusServices,
}

impl AuthorityProfile {
    /// Signs certificates and revocation lists.
    pub fn new(days: u32, path_len: Option<u32>) -> AuthorityProfile {
        let usage = KeyUsage::KEY_CERT_SIGN.union(KeyUsage::CRL_SIGN);
        AuthorityProfile { days, path_len, usage, services: StatusServices::default() }
    }
}

/// Where the alternative names of a requested certificate come from.
#[derive(Debug, Clone, Copy)]
pub enum Approval<'a> {
    /// As the request asks for them: whoever runs this has looked at them.
    AsRequested,
    /// Chosen by the authority; those of the request are ignored.
    Names(&'a AlternativeNames),
}

/// A new certificate with its chain and its key.
#[derive(Debug, Clone)]
pub struct Issued {
    pub chain: CertificateChain,
    pub key: PrivateKey,
}

/// The two certificates of TLCP with their keys.
#[derive(Debug, Clone)]
pub struct IssuedPair {
    pub sign: Issued,
    pub enc: Issued,
}

/// A certification authority: its certificate, the issuers above it, and its key.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    chain: CertificateChain,
    key: PrivateKey,
}

impl CertificateAuthority {
    /// Makes a root authority with a new key. `now` is unix seconds, here and below.
    pub fn create(
        subject: &Subject,
        kind: KeyKind,
        profile: &AuthorityProfile,
        now: i64,
    ) -> Result<CertificateAuthority, PkiError> {
        let key = PrivateKey::generate(kind)?;
        let subject = subject.to_x509()?;
        let contents = Contents {
            subject: &subject,
            names: &AlternativeNames::default(),
            usage: profile.usage,
            purposes: ExtendedKeyUsage::default(),
            authority: Some(profile.path_len),
            services: &profile.services,
            not_before: now.saturating_sub(BACKDATING_SECS),
            not_after: now.saturating_add(seconds(profile.days)?),
        };
        let leaf = assemble(&contents, key.pkey(), &Issuer { certificate: None, key: &key })?;
        let chain = CertificateChain { origin: Source::new("new authority"), leaf, intermediates: Vec::new() };
        Ok(CertificateAuthority { chain, key })
    }

    /// Takes up an authority that exists.
    pub fn new(chain: CertificateChain, key: PrivateKey) -> Result<CertificateAuthority, PkiError> {
        let subject = chain.leaf.subject();
        let may_sign = chain.leaf.key_usage().is_none_or(|usage| usage.contains(KeyUsage::KEY_CERT_SIGN));
        if !chain.leaf.is_ca() || !may_sign {
            return Err(PkiError::NotAnAuthority { subject });
        }
        if !chain.leaf.has_key(key.pkey()) {
            return Err(PkiError::AuthorityKeyMismatch { subject });
        }
        Ok(CertificateAuthority { chain, key })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.chain.leaf
    }

    /// The authority's own certificate and those above it.
    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The authority's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Makes an authority below this one, with a new key.
    pub fn issue_authority(
        &self,
        subject: &Subject,
        kind: KeyKind,
        profile: &AuthorityProfile,
        now: i64,
    ) -> Result<CertificateAuthority, PkiError> {
        let own_limit = self.certificate().x509().pathlen();
        if own_limit == Some(0) {
            return Err(PkiError::PathLength { subject: self.certificate().subject() });
        }
        let path_len = match (own_limit, profile.path_len) {
            (Some(own), Some(wanted)) => Some(wanted.min(own - 1)),
            (Some(own), None) => Some(own - 1),
            (None, wanted) => wanted,
        };
        let key = PrivateKey::generate(kind)?;
        let subject = subject.to_x509()?;
        let (not_before, not_after) = self.validity(profile.days, now)?;
        let contents = Contents {
            subject: &subject,
            names: &AlternativeNames::default(),
            usage: profile.usage,
            purposes: ExtendedKeyUsage::default(),
            authority: Some(path_len),
            services: &profile.services,
            not_before,
            not_after,
        };
        let chain = self.sign(&contents, key.pkey())?;
        Ok(CertificateAuthority { chain, key })
    }

    /// Issues a TLCP pair with new keys: SM2, or RSA for the RSA suites.
    pub fn issue_pair(
        &self,
        subject: &Subject,
        names: &AlternativeNames,
        kind: KeyKind,
        profile: &Profile,
        now: i64,
    ) -> Result<IssuedPair, PkiError> {
        check_pair_kind(kind)?;
        let sign = self.issue(subject, names, kind, profile.sign_usage, profile, now)?;
        let enc = self.issue(subject, names, kind, profile.enc_usage, profile, now)?;
        Ok(IssuedPair { sign, enc })
    }

    /// Issues one certificate with a new key: SM2 for RFC 8998, ECDSA or RSA.
    pub fn issue_single(
        &self,
        subject: &Subject,
        names: &AlternativeNames,
        kind: KeyKind,
        profile: &Profile,
        now: i64,
    ) -> Result<Issued, PkiError> {
        self.issue(subject, names, kind, single_usage(profile, kind), profile, now)
    }

    /// Issues a single certificate for a request.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        approval: Approval<'_>,
        profile: &Profile,
        now: i64,
    ) -> Result<CertificateChain, PkiError> {
        self.sign_one(request, approval, single_usage(profile, request.key_kind()), profile, now)
    }

    /// Issues a TLCP pair for two requests: the chain of the signing certificate, then that of the encryption one.
    pub fn sign_pair_requests(
        &self,
        sign: &CertificateRequest,
        enc: &CertificateRequest,
        approval: Approval<'_>,
        profile: &Profile,
        now: i64,
    ) -> Result<(CertificateChain, CertificateChain), PkiError> {
        check_pair_kind(sign.key_kind())?;
        check_pair_kind(enc.key_kind())?;
        if !same_name(sign.x509_req().subject_name(), enc.x509_req().subject_name()) {
            return Err(PkiError::DifferentSubjects { sign: sign.subject(), enc: enc.subject() });
        }
        if sign.public_key().public_eq(enc.public_key()) {
            return Err(PkiError::SameKey);
        }
        let first = self.sign_one(sign, approval, profile.sign_usage, profile, now)?;
        Ok((first, self.sign_one(enc, approval, profile.enc_usage, profile, now)?))
    }

    fn sign_one(
        &self,
        request: &CertificateRequest,
        approval: Approval<'_>,
        usage: KeyUsage,
        profile: &Profile,
        now: i64,
    ) -> Result<CertificateChain, PkiError> {
        request.check()?;
        let names = match approval {
            Approval::AsRequested => &request.names()?,
            Approval::Names(names) => names,
        };
        let (not_before, not_after) = self.validity(profile.days, now)?;
        let subject = request.x509_req().subject_name();
        let purposes = profile.purposes;
        let services = &profile.services;
        let contents = Contents { subject, names, usage, purposes, authority: None, services, not_before, not_after };
        self.sign(&contents, request.public_key())
    }

    fn issue(
        &self,
        subject: &Subject,
        names: &AlternativeNames,
        kind: KeyKind,
        usage: KeyUsage,
        profile: &Profile,
        now: i64,
    ) -> Result<Issued, PkiError> {
        let key = PrivateKey::generate(kind)?;
        let subject = subject.to_x509()?;
        let (not_before, not_after) = self.validity(profile.days, now)?;
        let contents = Contents {
            subject: &subject,
            names,
            usage,
            purposes: profile.purposes,
            authority: None,
            services: &profile.services,
            not_before,
            not_after,
        };
        Ok(Issued { chain: self.sign(&contents, key.pkey())?, key })
    }

    fn sign<T: HasPublic>(&self, contents: &Contents<'_>, key: &PKeyRef<T>) -> Result<CertificateChain, PkiError> {
        let issuer = Issuer { certificate: Some(self.certificate()), key: &self.key };
        let leaf = assemble(contents, key, &issuer)?;
        // Peers have the root: sending it would cost them bytes and prove nothing.
        let above = std::iter::once(self.certificate()).chain(&self.chain.intermediates);
        let intermediates = above.filter(|authority| !authority.is_self_issued()).cloned().collect();
        Ok(CertificateChain { origin: Source::new("new certificate"), leaf, intermediates })
    }

    /// First and last second: never beyond the authority's own, since chains are not valid there.
    fn validity(&self, days: u32, now: i64) -> Result<(i64, i64), PkiError> {
        let own = self.certificate();
        if now < own.not_before() || now >= own.not_after() {
            return Err(PkiError::AuthorityNotValid { subject: own.subject() });
        }
        let not_before = now.saturating_sub(BACKDATING_SECS).max(own.not_before());
        Ok((not_before, now.saturating_add(seconds(days)?).min(own.not_after())))
    }
}

fn seconds(days: u32) -> Result<i64, PkiError> {
    match days {
        1..=36_500 => Ok(i64::from(days) * 86_400),
        _ => Err(PkiError::BadValidity { days }),
    }
}

fn single_usage(profile: &Profile, kind: KeyKind) -> KeyUsage {
    if matches!(kind, KeyKind::Rsa(_)) { profile.rsa_usage } else { profile.single_usage }
}

fn check_pair_kind(kind: KeyKind) -> Result<(), PkiError> {
    match kind {
        KeyKind::Sm2 | KeyKind::Rsa(2048..) => Ok(()),
        _ => Err(PkiError::PairKind { kind }),
    }
}
