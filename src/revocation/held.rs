//! A revocation list that is kept, and by which issuers it is known to be signed.

use gm_tls::cert::Certificate;
use gm_tls::revocation::{Crl, CrlError, Fingerprint, Reason, fingerprint};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

/// Issuers that are remembered for one list: an authority has a few certificates at most.
const MAX_ISSUERS: usize = 16;
/// Issuers that are remembered for sessions that are resumed, which come without their chains.
const MAX_REMEMBERED: usize = 256;

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

/// Authorities that verified chains had between the client and the trust anchor. They outlive the contexts that met them, so that a reload
/// takes no client its session.
#[derive(Debug, Default)]
pub(super) struct Issuers(Mutex<HashMap<Fingerprint, Arc<Issuer>>>);

impl Issuers {
    pub(super) fn remember(&self, certificate: &Certificate) -> Arc<Issuer> {
        let fingerprint = fingerprint(certificate);
        let mut issuers = self.0.lock();
        if let Some(known) = issuers.get(&fingerprint) {
            return Arc::clone(known);
        }
        let issuer = Arc::new(Issuer { certificate: certificate.clone(), fingerprint });
        if issuers.len() < MAX_REMEMBERED {
            issuers.insert(fingerprint, Arc::clone(&issuer));
        }
        issuer
    }

    pub(super) fn all(&self) -> Vec<Arc<Issuer>> {
        self.0.lock().values().cloned().collect()
    }
}

impl Held {
    pub(super) fn new(crl: Crl) -> Held {
        Held { crl, issuers: Mutex::default() }
    }

    /// Whether the issuer signed it, by its key and not by its name alone; the signature is checked once for each certificate of an
    /// issuer of that name. Issuers of other names take no place, however many there are.
    pub(super) fn verify(&self, issuer: &Issuer) -> Result<(), CrlError> {
        let known = |issuers: &[(Fingerprint, Result<(), CrlError>)]| {
            issuers.iter().find(|(one, _)| *one == issuer.fingerprint).map(|(_, outcome)| outcome.clone())
        };
        if let Some(outcome) = known(&self.issuers.lock()) {
            return outcome;
        }
        let outcome = self.crl.verify(&issuer.certificate);
        let mut issuers = self.issuers.lock();
        let namesake = !matches!(outcome, Err(CrlError::OtherIssuer { .. }));
        if namesake && issuers.len() < MAX_ISSUERS && known(&issuers).is_none() {
            issuers.push((issuer.fingerprint, outcome.clone()));
        }
        outcome
    }

    /// Whether its issuer has the name of this one, which is found without a signature.
    pub(super) fn is_named_after(&self, issuer: &Issuer) -> bool {
        self.crl.is_named_after(&issuer.certificate)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gm_tls::cert::KeyKind;
    use gm_tls::pki::{AuthorityProfile, CertificateAuthority, RevocationList, Subject as Name};

    use super::*;

    fn authority(name: &str) -> CertificateAuthority {
        let now = crate::dev_certs::now();
        CertificateAuthority::create(&Name::common_name(name), KeyKind::Sm2, &AuthorityProfile::new(10, None), now)
            .unwrap()
    }

    // Each issuer of another name took one of the places for outcomes, and with the last of them the signature of a list of megabytes
    // was checked in every handshake.
    #[test]
    fn issuers_of_other_names_keep_no_outcome_from_being_remembered() {
        let (ca, now) = (authority("CA"), crate::dev_certs::now());
        let (this_update, next_update) = (now, Some(now + 60));
        let list = RevocationList { this_update, next_update, number: 1, revoked: Vec::new(), extensions: Vec::new() };
        let der: Bytes = ca.sign_list(&list).unwrap().into();
        let held = Held::new(Crl::from_der(der, 1 << 20).unwrap());
        for number in 0..2 * MAX_ISSUERS {
            let other = authority(&format!("Other {number}"));
            assert!(matches!(held.verify(&Issuer::new(other.certificate())), Err(CrlError::OtherIssuer { .. })));
        }
        let namesake = authority("CA");
        assert!(matches!(held.verify(&Issuer::new(namesake.certificate())), Err(CrlError::Signature { .. })));
        held.verify(&Issuer::new(ca.certificate())).unwrap();
        assert_eq!(held.issuers.lock().len(), 2);
    }
}
