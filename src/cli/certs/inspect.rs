//! `shangmq certs inspect`: what files hold, and whether they belong together.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use gm_tls::cert::{CertError, Certificate, CertificateChain, KeyKind, Source};
use gm_tls::key::{Password, PrivateKey};
use gm_tls::pair::{CertificatePair, check_pair};
use gm_tls::pki::{CertificateRequest, PkiError};
use serde_json::{Value, json};

use super::{CertsError, describe, resolve};
use crate::dev_certs::now;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Certificates, chains, requests and keys (PEM). Two certificates of a TLCP pair are checked as a pair, and keys
    /// against certificates.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Password of encrypted keys: `file:///path`, `env:NAME`, or the password itself.
    #[arg(long, value_name = "SOURCE")]
    password: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What a file holds.
enum Item {
    Chain(CertificateChain),
    /// Certificates that are no chain, such as several authorities.
    Bundle(Vec<Certificate>),
    /// What a request asks for.
    Request(Certificate),
    Key(PrivateKey),
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let password = resolve(self.password.as_ref())?;
        let mut items = Vec::with_capacity(self.files.len());
        for path in &self.files {
            items.push((path, Item::read(path, password.as_ref())?));
        }
        let findings = Findings::of(items.iter().map(|(_, item)| item));
        let now = now();
        if self.json {
            let files: Vec<Value> = items.iter().map(|(path, item)| item.json(path, now)).collect();
            let answer = json!({
                "files": files,
                "consistent": findings.wrong.is_empty(),
                "findings": findings.good.iter().chain(&findings.wrong).collect::<Vec<_>>(),
            });
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)?;
        } else {
            for (path, item) in &items {
                item.describe(out, path, now)?;
            }
            for finding in findings.good.iter().chain(&findings.wrong) {
                writeln!(out, "{finding}")?;
            }
        }
        if findings.wrong.is_empty() {
            Ok(())
        } else {
            Err(CertsError::Findings("the files do not belong together".into()))
        }
    }
}

impl Item {
    fn read(path: &Path, password: Option<&Password>) -> Result<Item, CertsError> {
        match CertificateChain::from_file("certificate", path) {
            Ok(chain) => return Ok(Item::Chain(chain)),
            Err(CertError::OutOfOrder { .. } | CertError::TooMany { .. }) => {
                return Ok(Item::Bundle(Certificate::anchors_from_file("certificates", path)?));
            }
            Err(CertError::NoCertificate { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match CertificateRequest::from_file(path) {
            Ok(request) => return Ok(Item::Request(request.wanted()?)),
            Err(PkiError::NotARequest { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match PrivateKey::from_file("private key", path, password) {
            Ok(key) => Ok(Item::Key(key)),
            Err(gm_tls::key::KeyError::NotAKey { .. }) => Err(CertsError::Unknown { path: path.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    fn describe(&self, out: &mut impl Write, path: &Path, now: i64) -> Result<(), CertsError> {
        let path = path.display();
        match self {
            Item::Chain(chain) => {
                writeln!(out, "{path}: certificate")?;
                describe::certificate(out, &chain.leaf, now)?;
                for above in &chain.intermediates {
                    writeln!(out, "  sent with     {}", above.subject())?;
                }
            }
            Item::Bundle(certificates) => {
                writeln!(out, "{path}: {} certificates that are no chain", certificates.len())?;
                for certificate in certificates {
                    describe::certificate(out, certificate, now)?;
                    writeln!(out)?;
                }
            }
            Item::Request(wanted) => {
                writeln!(out, "{path}: certificate request, signed by its own key")?;
                describe::request(out, wanted)?;
            }
            Item::Key(key) => {
                writeln!(out, "{path}: private key")?;
                writeln!(out, "  key           {}", key.kind())?;
            }
        }
        Ok(writeln!(out)?)
    }

    fn json(&self, path: &Path, now: i64) -> Value {
        let path = path.to_string_lossy();
        match self {
            Item::Chain(chain) => {
                let sent: Vec<Value> = chain.intermediates.iter().map(|above| describe::json(above, now)).collect();
                json!({ "file": path, "type": "certificate", "certificate": describe::json(&chain.leaf, now), "chain": sent })
            }
            Item::Bundle(certificates) => {
                let all: Vec<Value> = certificates.iter().map(|certificate| describe::json(certificate, now)).collect();
                json!({ "file": path, "type": "bundle", "certificates": all })
            }
            Item::Request(wanted) => {
                json!({ "file": path, "type": "request", "request": describe::request_json(wanted) })
            }
            Item::Key(key) => json!({ "file": path, "type": "key", "key": key.kind().to_string() }),
        }
    }
}

/// What the files are to each other, in sentences.
#[derive(Default)]
struct Findings {
    good: Vec<String>,
    wrong: Vec<String>,
}

impl Findings {
    fn of<'a>(items: impl Iterator<Item = &'a Item> + Clone) -> Findings {
        let chains = items.clone().filter_map(|item| if let Item::Chain(chain) = item { Some(chain) } else { None });
        let leaves: Vec<&CertificateChain> = chains.clone().filter(|chain| !chain.leaf.is_ca()).collect();
        let chains: Vec<&CertificateChain> = chains.collect();
        let keys: Vec<&PrivateKey> =
            items.filter_map(|item| if let Item::Key(key) = item { Some(key) } else { None }).collect();
        let mut findings = Findings::default();
        if !chains.is_empty() {
            for key in &keys {
                let owner = chains.iter().find(|chain| chain.leaf.belongs_to(key));
                match owner {
                    Some(chain) => findings.good.push(format!("{} is the key of {}.", key.origin(), chain.origin)),
                    None => findings.wrong.push(format!("{} is the key of none of these certificates.", key.origin())),
                }
            }
        }
        if let [one, two] = leaves.as_slice()
            && looks_like_a_pair(one, two)
        {
            findings.pair(one, two, &keys);
        }
        findings
    }

    /// Two certificates and as many of their keys as there are. The order in which they were named does not matter
    /// where their usage tells them apart.
    fn pair(&mut self, one: &CertificateChain, two: &CertificateChain, keys: &[&PrivateKey]) {
        let reversed = describe::is_for_encryption(&one.leaf) && !describe::is_for_encryption(&two.leaf);
        let (sign, enc) = if reversed { (two, one) } else { (one, two) };
        let role = |chain: &CertificateChain, role: &str| CertificateChain {
            origin: Source { field: role.into(), path: chain.origin.path.clone() },
            ..chain.clone()
        };
        let (sign, enc) = (role(sign, "signing certificate"), role(enc, "encryption certificate"));
        let sign_key = keys.iter().find(|key| sign.leaf.belongs_to(key));
        let enc_key = keys.iter().find(|key| enc.leaf.belongs_to(key));
        let outcome = match (sign_key, enc_key) {
            (Some(sign_key), Some(enc_key)) => {
                CertificatePair::new(sign, (*sign_key).clone(), enc, (*enc_key).clone()).map(|_| "with both keys")
            }
            _ => {
                check_pair(&sign, &enc).map(|()| "as far as the certificates tell; give both keys to have them checked")
            }
        };
        match outcome {
            Ok(extent) => self.good.push(format!("The two certificates are a consistent TLCP pair, {extent}.")),
            Err(error) => self.wrong.push(format!("The two certificates are NOT a TLCP pair: {error}.")),
        }
    }
}

fn looks_like_a_pair(one: &CertificateChain, two: &CertificateChain) -> bool {
    let sm2 = one.leaf.key_kind() == KeyKind::Sm2 && two.leaf.key_kind() == KeyKind::Sm2;
    sm2 || describe::is_for_encryption(&one.leaf) || describe::is_for_encryption(&two.leaf)
}
