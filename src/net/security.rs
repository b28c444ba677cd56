//! How a listener secures connections: one value that never changes. A reload makes another and puts it in its place, for the
//! handshakes that begin from there.

use super::secure;
use super::sites::Sites;
use super::stamp::Stamped;
use crate::auth::PskStore;
use crate::bundle::Candidate;
use crate::config::{ConfigError, TlsConfig};
use crate::metrics::{EXPIRY_DAYS, Expiry};
use crate::revocation::{LackingList, Policy, Revocation};
use gm_tls::cert::Certificate;
use gm_tls::server::ContextKind;
use gm_tls::tickets::TicketKeys;
use std::path::PathBuf;
use std::sync::Arc;

/// The contexts of a listener with all that they were made from.
#[derive(Debug, Clone)]
pub struct Security {
    pub(super) config: TlsConfig,
    /// Whom the contexts ask what was revoked.
    pub(super) revocation: Arc<Revocation>,
    pub(super) contexts: Arc<Sites>,
    in_use: Vec<InUse>,
    /// Files with more authorities than are watched.
    crowded: Vec<Crowded>,
    /// The certificates that were read, to tell whether others are there now. A key that fits the same certificate is the same key.
    material: Vec<Arc<[u8]>>,
    files: Stamped,
    /// Pre-shared keys of the contexts, which operators change in place: one for each server name.
    keys: Vec<Arc<PskStore>>,
    /// What the contexts ask about the certificates of clients.
    policies: Vec<Arc<Policy>>,
}

/// A certificate that a listener shows, or an authority that it trusts.
#[derive(Debug, Clone)]
pub struct InUse {
    pub kind: ContextKind,
    pub usage: Usage,
    pub file: PathBuf,
    pub certificate: Certificate,
}

/// A file with more authorities than are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crowded {
    pub(super) kind: ContextKind,
    pub(super) file: PathBuf,
    pub(super) count: usize,
}

/// Authorities of one file whose end is watched.
pub(super) const MAX_AUTHORITIES: usize = 100;
/// How long before the end of a certificate it is a warning.
const SOON: i64 = EXPIRY_DAYS[0] * 86_400;

impl InUse {
    /// What is said of a certificate in its last days, and of an authority after them.
    fn ends_soon(&self, now: i64) -> Option<String> {
        let not_after = self.certificate.not_after();
        let left = not_after.saturating_sub(now);
        if left >= SOON {
            return None;
        }
        let (kind, usage, end) = (self.kind.name(), self.usage.name(), crate::calendar::rfc3339(not_after));
        let what = match self.usage {
            Usage::Authority => format!("the authority \"{}\", trusted for {kind},", self.certificate.subject()),
            _ => format!("the {usage} certificate \"{}\" for {kind}", self.certificate.subject()),
        };
        let (verb, follows) = match (left < 0, self.usage) {
            (true, Usage::Authority) => ("expired", ": clients whose certificates it issued are refused"),
            (true, _) => ("expired", ": clients that verify it refuse this listener"),
            (false, Usage::Authority) => ("expires", ": clients whose certificates it issued are refused from then on"),
            (false, _) => ("expires", ""),
        };
        Some(format!("{}: {what} {verb} at {end}{follows}", self.file.display()))
    }

    /// Which certificate it is, and for what.
    pub(super) fn identity(&self) -> (ContextKind, Usage, PathBuf, Vec<u8>) {
        (self.kind, self.usage, self.file.clone(), self.certificate.to_der())
    }
}

/// What a certificate is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    Single,
    /// The signing one of a TLCP pair.
    Signing,
    /// The encryption one of a TLCP pair.
    Encryption,
    /// Of `cacertfile`: whose clients are let in.
    Authority,
}

impl Usage {
    /// A stable name for metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Usage::Single => "single",
            Usage::Signing => "signing",
            Usage::Encryption => "encryption",
            Usage::Authority => "authority",
        }
    }
}

impl Security {
    /// Opens what `config` names and builds the contexts. `alpn` are the application protocols to choose from, `scope` is the listener
    /// that its sessions are for, `candidate` a bundle to try in the place of the one in force.
    ///
    /// # Errors
    /// Every mistake there is, each with the key that is at fault or that names the file which is.
    pub fn load(
        config: &TlsConfig,
        alpn: &[&[u8]],
        revocation: &Arc<Revocation>,
        scope: &str,
        tickets: &TicketKeys,
        candidate: Option<&Arc<Candidate>>,
    ) -> Result<Security, Vec<ConfigError>> {
        // Before the files are read: one that changes meanwhile has another stamp afterwards, and is read again.
        let files = Stamped::take(config.files());
        let secure::Loaded { contexts, in_use, crowded, material, keys, policies } =
            secure::load(config, alpn, revocation, scope, tickets, candidate)?;
        let (config, revocation) = (config.clone(), Arc::clone(revocation));
        let contexts = Arc::new(contexts);
        Ok(Security { config, revocation, contexts, in_use, crowded, material, files, keys, policies })
    }

    /// The certificates shown to clients, and the authorities that theirs must come from: of each file those that expire first.
    pub fn in_use(&self) -> &[InUse] {
        &self.in_use
    }

    /// The files that it was read from, as they were then.
    pub fn files(&self) -> &Stamped {
        &self.files
    }

    /// When they expire, for the metrics.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        let expiry = |one: &InUse| Expiry {
            protocol: one.kind.name(),
            usage: one.usage.name(),
            file: one.file.display().to_string(),
            subject: one.certificate.subject(),
            not_after: one.certificate.not_after(),
        };
        self.in_use.iter().map(expiry).collect()
    }

    /// What the handshakes look pre-shared keys up in.
    pub fn keys(&self) -> &[Arc<PskStore>] {
        &self.keys
    }

    /// Authorities whose clients are refused, since there is no revocation list of them; each once.
    pub fn lacking(&self) -> Vec<LackingList> {
        let mut lacking: Vec<LackingList> = Vec::new();
        for one in self.policies.iter().flat_map(|policy| policy.lacking()) {
            if !lacking.contains(&one) {
                lacking.push(one);
            }
        }
        lacking
    }

    /// What an operator of `listener` should see to although it can be used: authorities whose clients are refused, and certificates that
    /// expire soon or, being authorities, have.
    pub fn warnings(&self, listener: &str, now: i64) -> Vec<String> {
        let lacking = self.lacking().into_iter().map(|list| {
            let issuer = &list.issuer;
            format!("{listener}: clients whose certificates \"{issuer}\" issued are refused (hard-fail): {list}")
        });
        let ending = self.in_use.iter().filter_map(|one| Some(format!("{listener}: {}", one.ends_soon(now)?)));
        let crowded = self.crowded.iter().map(|Crowded { kind, file, count }| {
            format!(
                "{listener}: {} has {count} authorities for {}: that they expire is told of the {MAX_AUTHORITIES} that do so first",
                file.display(),
                kind.name()
            )
        });
        lacking.chain(ending).chain(crowded).collect()
    }

    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// This one in place of `running`, and whether that changes anything. Contexts that would be the same are kept, and with them the
    /// sessions of clients that may resume.
    pub(super) fn in_place_of(self, running: &Security) -> (Security, bool) {
        let changed = self.config != running.config || self.material != running.material;
        if changed {
            return (self, true);
        }
        let (contexts, keys) = (Arc::clone(&running.contexts), running.keys.clone());
        (Security { contexts, keys, policies: running.policies.clone(), ..self }, false)
    }
}
