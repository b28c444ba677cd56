//! How a listener secures connections: one value that never changes. A reload makes another and puts it in its place, for the
//! handshakes that begin from there.

use super::secure;
use super::sites::Sites;
use super::stamp::Stamped;
use crate::auth::PskStore;
use crate::bundle::Candidate;
use crate::config::{ConfigError, TlsConfig};
use crate::metrics::Expiry;
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
    served: Vec<Served>,
    /// The certificates that were read, to tell whether others are there now. A key that fits the same certificate is the same key.
    material: Vec<Arc<[u8]>>,
    files: Stamped,
    /// Pre-shared keys of the contexts, which operators change in place: one for each server name.
    keys: Vec<Arc<PskStore>>,
    /// What the contexts ask about the certificates of clients.
    policies: Vec<Arc<Policy>>,
}

/// A certificate that a listener shows.
#[derive(Debug, Clone)]
pub struct Served {
    pub kind: ContextKind,
    pub usage: Usage,
    pub file: PathBuf,
    pub certificate: Certificate,
}

impl Served {
    /// Whether it is the same certificate for the same use.
    pub(super) fn is_same(&self, other: &Served) -> bool {
        (self.kind, self.usage) == (other.kind, other.usage)
            && self.file == other.file
            && self.certificate == other.certificate
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
}

impl Usage {
    /// A stable name for metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Usage::Single => "single",
            Usage::Signing => "signing",
            Usage::Encryption => "encryption",
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
        let secure::Loaded { contexts, served, material, keys, policies } =
            secure::load(config, alpn, revocation, scope, tickets, candidate)?;
        let (config, revocation) = (config.clone(), Arc::clone(revocation));
        Ok(Security { config, revocation, contexts: Arc::new(contexts), served, material, files, keys, policies })
    }

    /// The certificates shown to clients.
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// The files that it was read from, as they were then.
    pub fn files(&self) -> &Stamped {
        &self.files
    }

    /// When they expire, for the metrics.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        let expiry = |one: &Served| Expiry {
            protocol: one.kind.name(),
            usage: one.usage.name(),
            file: one.file.display().to_string(),
            not_after: one.certificate.not_after(),
        };
        self.served.iter().map(expiry).collect()
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
