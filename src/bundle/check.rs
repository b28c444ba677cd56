//! Whether the parts of a bundle are what they should be and belong together. Everything that is wrong is found in one go.

use std::fmt;

use gm_tls::cert::{Certificate, CertificateChain, Source};
use gm_tls::key::{Password, PrivateKey};
use gm_tls::pair::{CertificatePair, check_pair, check_validity};
use gm_tls::pki::{Purpose, verify_chain};
use gm_tls::server::{self, ContextKind, Identity};

use super::{Part, Parts};
use crate::causes::Causes;

/// One thing that is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub part: Part,
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.part.name();
        // Reasons of the library name the part where there are two.
        if self.reason.starts_with(name) { f.write_str(&self.reason) } else { write!(f, "{name}: {}", self.reason) }
    }
}

/// The parts, read.
#[derive(Debug, Default)]
pub struct Material {
    pub standard: Option<Identity>,
    pub sm2: Option<Identity>,
    pub pair: Option<CertificatePair>,
    pub ca: Vec<Certificate>,
}

/// Reads a bundle whole.
///
/// # Errors
/// Every fault there is, never none.
pub fn check(parts: &Parts, now: i64) -> Result<Material, Vec<Fault>> {
    let mut found = Found { parts, now, faults: Vec::new() };
    if parts.is_empty() {
        found.add(Part::Chain, "the bundle is empty; give a chain and its key, a pair, or authorities".to_owned());
    }
    let standard = found.identity(ContextKind::Tls, Part::Chain, Part::Key);
    let sm2 = found.identity(ContextKind::Rfc8998, Part::Sm2Chain, Part::Sm2Key);
    let pair = found.pair();
    let ca = found.authorities();
    if found.faults.is_empty() { Ok(Material { standard, sm2, pair, ca }) } else { Err(found.faults) }
}

/// The certificates of a part.
pub(super) fn certificates(part: Part, text: &[u8]) -> Result<Vec<Certificate>, String> {
    let origin = Source::new(part.name());
    if part == Part::Ca {
        return Certificate::anchors_from_pem(&origin, text).map_err(|cause| Causes(&cause).to_string());
    }
    let chain = CertificateChain::from_pem(origin, text).map_err(|cause| Causes(&cause).to_string())?;
    Ok(std::iter::once(chain.leaf).chain(chain.intermediates).collect())
}

/// The private key of a part.
pub(super) fn key(parts: &Parts, part: Part) -> Result<PrivateKey, String> {
    let text = parts.get(part).unwrap_or_default();
    let password = part.password().and_then(|part| parts.get(part));
    let password = password.map(Password::inline).transpose();
    let password = password.map_err(|cause| Causes(&cause).to_string())?;
    let key = PrivateKey::from_pem(Source::new(part.name()), text, password.as_ref());
    key.map_err(|cause| Causes(&cause).to_string())
}

struct Found<'a> {
    parts: &'a Parts,
    now: i64,
    faults: Vec<Fault>,
}

impl Found<'_> {
    fn add(&mut self, part: Part, reason: String) {
        self.faults.push(Fault { part, reason });
    }

    fn note<T>(&mut self, part: Part, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(part, reason)).ok()
    }

    /// A chain that is valid now, each certificate signed by the next.
    fn chain(&mut self, part: Part) -> Option<CertificateChain> {
        let text = self.parts.get(part)?;
        let read = CertificateChain::from_pem(Source::new(part.name()), text);
        let chain = self.note(part, read.map_err(|cause| Causes(&cause).to_string()))?;
        for certificate in std::iter::once(&chain.leaf).chain(&chain.intermediates) {
            let origin = Source::new(format!("{part} (`{}`)", certificate.subject()));
            self.note(part, check_validity(certificate, &origin, self.now).map_err(|cause| cause.to_string()));
        }
        if chain.leaf.is_ca() {
            self.add(part, "its first certificate is one of an authority, not of a server".to_owned());
        }
        if chain.leaf.extended_key_usage().is_some_and(|usage| !usage.server_auth && !usage.any) {
            self.add(part, "its extended key usage is not serverAuth, so that clients would refuse it".to_owned());
        }
        if let Some(top) = chain.intermediates.last().cloned() {
            // Dates were reported for themselves: signatures are looked at as of a time at which the first certificate is valid.
            let (from, until) = (chain.leaf.not_before(), chain.leaf.not_after());
            let verified = verify_chain(&chain, &[top], Purpose::Any, self.now.min(until).max(from));
            self.note(part, verified.map_err(|cause| Causes(&cause).to_string()));
        }
        Some(chain)
    }

    fn key(&mut self, part: Part) -> Option<PrivateKey> {
        self.parts.get(part)?;
        let key = key(self.parts, part);
        self.note(part, key)
    }

    /// Reports a part without the other that it needs, and a password without its key.
    fn both(&mut self, chain: Part, key: Part) -> bool {
        let (has_chain, has_key) = (self.parts.get(chain).is_some(), self.parts.get(key).is_some());
        match (has_chain, has_key) {
            (true, false) => self.add(key, format!("is missing; {chain} is of no use without it")),
            (false, true) => self.add(chain, format!("is missing; {key} is of no use without it")),
            _ => {}
        }
        if let Some(password) = key.password().filter(|password| !has_key && self.parts.get(*password).is_some()) {
            self.add(password, format!("there is no {key} that it could be for"));
        }
        has_chain && has_key
    }

    fn identity(&mut self, kind: ContextKind, chain_part: Part, key_part: Part) -> Option<Identity> {
        let before = self.faults.len();
        self.both(chain_part, key_part);
        let (chain, key) = (self.chain(chain_part), self.key(key_part));
        let identity = Identity { chain: chain?, key: key? };
        let checked = server::check_identity(kind, &identity);
        self.note(chain_part, checked.map_err(|cause| Causes(&cause).to_string()));
        (self.faults.len() == before).then_some(identity)
    }

    fn pair(&mut self) -> Option<CertificatePair> {
        let before = self.faults.len();
        let signs = self.both(Part::SignChain, Part::SignKey);
        let encrypts = self.both(Part::EncChain, Part::EncKey);
        let half = |one: &str| format!("is missing; TLCP needs a pair, and there is only the {one} certificate");
        match (self.parts.get(Part::SignChain).is_some(), self.parts.get(Part::EncChain).is_some()) {
            (true, false) => self.add(Part::EncChain, half("signing")),
            (false, true) => self.add(Part::SignChain, half("encryption")),
            _ => {}
        }
        let (sign, enc) = (self.chain(Part::SignChain), self.chain(Part::EncChain));
        let (sign_key, enc_key) = (self.key(Part::SignKey), self.key(Part::EncKey));
        let (sign, enc) = (sign?, enc?);
        let pair = match (sign_key, enc_key) {
            (Some(sign_key), Some(enc_key)) if signs && encrypts => CertificatePair::new(sign, sign_key, enc, enc_key),
            _ => {
                let checked = check_pair(&sign, &enc);
                self.note(Part::SignChain, checked.map_err(|cause| cause.to_string()));
                return None;
            }
        };
        let pair = self.note(Part::SignChain, pair.map_err(|cause| cause.to_string()))?;
        let checked = server::check_pair(&pair);
        self.note(Part::SignChain, checked.map_err(|cause| Causes(&cause).to_string()));
        (self.faults.len() == before).then_some(pair)
    }

    fn authorities(&mut self) -> Vec<Certificate> {
        let Some(text) = self.parts.get(Part::Ca) else { return Vec::new() };
        let Some(all) = self.note(Part::Ca, certificates(Part::Ca, text)) else { return Vec::new() };
        for certificate in &all {
            let origin = Source::new(format!("ca (`{}`)", certificate.subject()));
            self.note(Part::Ca, check_validity(certificate, &origin, self.now).map_err(|cause| cause.to_string()));
            if !certificate.is_ca() {
                self.add(Part::Ca, format!("`{}` is no certificate of an authority", certificate.subject()));
            }
        }
        all
    }
}
