//! A revocation list that is kept, and by which issuers it is known to be signed.

use gm_tls::cert::Certificate;
use gm_tls::revocation::{Crl, CrlError, Fingerprint, Reason, fingerprint};
use parking_lot::Mutex;

/// Issuers that are remembered for one list: an authority has a few certificates at most.
const MAX_ISSUERS: usize = 16;

#[derive(Debug)]
pub(super) struct Held {
    pub crl: Crl,
    issuers: Mutex<Vec<(Fingerprint, Result<(), CrlError>)>>,
}

/// A certificate of an issuer and its fingerprint.
#[derive(Debug, Clone)]
pub(super) struct Issuer {
    pub certificate: Certificate,
    pub fingerprint: Fingerprint,
}

impl Issuer {
    pub(super) fn new(certificate: &Certificate) -> Issuer {
        Issuer { certificate: certificate.clone(), fingerprint: fingerprint(certificate) }
    }
}

impl Held {
    pub(super) fn new(crl: Crl) -> Held {
        Held { crl, issuers: Mutex::default() }
    }

    /// Whether the issuer signed it; the signature is checked once for each.
    pub(super) fn verify(&self, issuer: &Issuer) -> Result<(), CrlError> {
        let known = |issuers: &[(Fingerprint, Result<(), CrlError>)]| {
            issuers.iter().find(|(one, _)| *one == issuer.fingerprint).map(|(_, outcome)| outcome.clone())
        };
        if let Some(outcome) = known(&self.issuers.lock()) {
            return outcome;
        }
        let outcome = self.crl.verify(&issuer.certificate);
        let mut issuers = self.issuers.lock();
        if issuers.len() < MAX_ISSUERS && known(&issuers).is_none() {
            issuers.push((issuer.fingerprint, outcome.clone()));
        }
        outcome
    }

    /// Why it revokes a certificate that it covers, current or not: what was revoked stays so.
    pub(super) fn revokes(&self, subject: &Subject) -> Option<Reason> {
        let covered = self.crl.covers(subject.is_authority, &subject.points);
        covered.then(|| self.crl.revoked(&subject.serial)).flatten()
    }
}

/// What identifies a certificate to lists, without the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub issuer: Fingerprint,
    pub serial: Vec<u8>,
    pub is_authority: bool,
    pub points: Vec<Vec<u8>>,
}
