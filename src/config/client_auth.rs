//! Who must show a certificate to an `ssl` or `wss` listener, and which are taken. The same keys in each block.

use gm_tls::policy::KeyPurpose;

use super::mqtt::word;
use super::revocation::{ClientStatus, client_status};
use super::section::{FileRef, Section};
use super::value::Choice;

const DEFAULT_DEPTH: u32 = 10;
const PURPOSES: &str = "verify_peer_ext_key_usage";
const MAX_PURPOSES: usize = 16;

/// Whether a client is asked for a certificate, and what happens without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not asked: `verify = "verify_none"`.
    None,
    /// Asked; one that is shown must be valid: `verify = "verify_peer"`.
    Optional(TrustFiles),
    /// Refused without a valid one: `fail_if_no_peer_cert = true` in addition.
    Required(TrustFiles),
}

impl ClientAuth {
    pub fn trust(&self) -> Option<&TrustFiles> {
        match self {
            ClientAuth::None => None,
            ClientAuth::Optional(trust) | ClientAuth::Required(trust) => Some(trust),
        }
    }
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// PEM, one or more certificates.
    pub cacertfile: FileRef,
    /// Intermediate certificates allowed between a client's certificate and a trusted one.
    pub depth: u32,
    /// What is asked about certificates that lead there.
    pub status: ClientStatus,
    /// Whether a certificate of `cacertfile` is trusted by itself, also when it is that of an intermediate authority.
    pub partial_chain: bool,
    /// `verify_peer_ext_key_usage`: extended key usages that a client's certificate must have, all of them.
    pub purposes: Vec<KeyPurpose>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    None,
    Peer,
}

impl Choice for Verify {
    const WORDS: &'static [(&'static str, Verify)] = &[("verify_none", Verify::None), ("verify_peer", Verify::Peer)];
}

/// Reads the keys of a block that say whether clients show certificates. `managed`: the authorities of the block's bundle, where it has
/// some and no file is named.
pub(super) fn client_auth(section: &mut Section<'_>, managed: Option<FileRef>) -> Option<ClientAuth> {
    let mistakes_before = section.report().count();
    let verify = word(section, "verify", Verify::None);
    let required = section.read("fail_if_no_peer_cert", false);
    let depth = section.within("depth", DEFAULT_DEPTH, 0, 100);
    let cacertfile = section.pem("cacertfile").or(managed);
    let status = client_status(section);
    let partial_chain = section.read("partial_chain", false);
    let purposes = purposes(section);
    for (key, idle) in [("partial_chain", partial_chain), (PURPOSES, !purposes.is_empty())] {
        if idle && verify == Verify::None {
            let suggestion = "add verify = \"verify_peer\", or remove the key".to_owned();
            section.error(key, "has no effect without verify = \"verify_peer\"", Some(suggestion));
        }
    }
    if section.report().count() != mistakes_before {
        return None;
    }
    if section.has("cacertfile") && !section.has("verify") {
        section.warn(
            "cacertfile",
            "clients are not asked for certificates",
            "add verify = \"verify_peer\" to ask for them",
        );
    }
    match (verify, cacertfile) {
        (Verify::None, _) if required => {
            let suggestion = "add verify = \"verify_peer\"".to_owned();
            section.error("fail_if_no_peer_cert", "needs verify = \"verify_peer\"", Some(suggestion));
            None
        }
        (Verify::None, _) if status != ClientStatus::default() => {
            let key =
                ["crl", "enable_crl_check", "ocsp_check"].into_iter().find(|key| section.has(key)).unwrap_or("crl");
            let suggestion = "add verify = \"verify_peer\"".to_owned();
            section.error(
                key,
                "needs verify = \"verify_peer\": without it there are no certificates to check",
                Some(suggestion),
            );
            None
        }
        (Verify::None, _) => Some(ClientAuth::None),
        (Verify::Peer, None) => {
            let suggestion = "add cacertfile = \"PATH\" with the CA of the clients".to_owned();
            section.error("verify", "verify_peer needs cacertfile", Some(suggestion));
            None
        }
        (Verify::Peer, Some(cacertfile)) => {
            let trust = TrustFiles { cacertfile, depth, status, partial_chain, purposes };
            Some(if required { ClientAuth::Required(trust) } else { ClientAuth::Optional(trust) })
        }
    }
}

fn purposes(section: &mut Section<'_>) -> Vec<KeyPurpose> {
    let names: Vec<String> = section.one_or_more(PURPOSES);
    if names.len() > MAX_PURPOSES {
        section.error(PURPOSES, format!("more than {MAX_PURPOSES} names"), None);
    }
    let purpose = |name: &String| {
        let found = KeyPurpose::from_name(name);
        if found.is_none() {
            let known = KeyPurpose::NAMES.join(", ");
            let reason = format!("`{}` is no extended key usage", name.escape_default());
            section.error(PURPOSES, reason, Some(format!("write one of {known}, or OID: with its number")));
        }
        found
    };
    names.iter().take(MAX_PURPOSES).filter_map(purpose).collect()
}
