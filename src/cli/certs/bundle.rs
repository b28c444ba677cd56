//! `shangmq certs bundle`: the certificate bundles of a node.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{CertsError, describe};
use crate::bundle::{BundleError, BundleId, BundleInfo, Bundles, Candidate, Part, Parts};
use crate::config::Config;
use crate::dev_certs::now;
use crate::net::mistakes_of_listeners;
use crate::operator::{Client, Request};

/// Largest file that is taken for a part.
const MAX_FILE_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a bundle there, or a new version in the place of the one in force, once everything in it was checked. `show` says all of what
    /// is in it.
    Put(Box<Put>),
    /// Name all bundles, with what they hold and when they expire.
    List(Common),
    /// Say what a bundle holds. Keys and passwords are never shown.
    Show(One),
    /// Delete a bundle with all its versions; refused while the configuration refers to it.
    Delete(One),
    /// Name the versions that are kept of a bundle.
    Versions(One),
    /// Put an earlier version in force again.
    Restore(Restore),
}

#[derive(Debug, Args)]
struct Common {
    /// The broker's configuration: it says where the data directory is, and who uses which bundle.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct One {
    /// NAME, or NAMESPACE/NAME.
    bundle: BundleId,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Restore {
    #[command(flatten)]
    one: One,
    /// The version to go back to.
    #[arg(long, value_name = "NUMBER")]
    version: u32,
}

#[derive(Debug, Args)]
struct Put {
    #[command(flatten)]
    one: One,
    /// Certificate for TLS (ECDSA, RSA, Ed25519), with the issuers above it.
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the password of the key; so for the others below.
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
    /// Single SM2 certificate, for RFC 8998.
    #[arg(long, value_name = "FILE")]
    sm2_chain: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    sm2_key: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    sm2_key_password_file: Option<PathBuf>,
    /// Signing certificate of a TLCP pair.
    #[arg(long, value_name = "FILE")]
    sign_chain: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    sign_key_password_file: Option<PathBuf>,
    /// Encryption certificate of a TLCP pair.
    #[arg(long, value_name = "FILE")]
    enc_chain: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    enc_key: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    enc_key_password_file: Option<PathBuf>,
    /// Authorities of clients.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), CertsError> {
        match self.command {
            Command::Put(put) => {
                let parts = put.parts()?;
                let (one, node) = (&put.one, put.one.common.open()?);
                let candidate = Arc::new(Candidate { id: one.bundle.clone(), parts });
                let fits = || one.fits(&node, &candidate);
                let info = node.bundles.put_if::<CertsError>(&one.bundle, &candidate.parts, now(), fits)?;
                one.common.confirm(out, &info)
            }
            Command::List(common) => {
                let Node { bundles, .. } = common.open()?;
                list(&bundles, common.json, out)
            }
            Command::Show(one) => {
                let Node { bundles, .. } = one.common.open()?;
                one.common.say(out, &bundles.show(&one.bundle)?)
            }
            Command::Delete(one) => {
                let Node { bundles, config, broker } = one.common.open()?;
                let mut users = config.users_of(&one.bundle);
                let running: Option<Vec<String>> =
                    broker.ask_if_running(Request::BundleUsers { bundle: one.bundle.to_string() })?;
                users.extend(running.into_iter().flatten().map(|user| format!("{user} of the running broker")));
                bundles.delete(&one.bundle, users)?;
                if one.common.json {
                    return write_json(out, &json!({ "deleted": one.bundle.to_string() }));
                }
                Ok(writeln!(out, "deleted {}", one.bundle)?)
            }
            Command::Versions(one) => {
                let Node { bundles, .. } = one.common.open()?;
                let versions = bundles.versions(&one.bundle)?;
                if one.common.json {
                    let versions = versions.iter().map(|version| {
                        json!({ "version": version.version, "created": version.created, "in_force": version.in_force })
                    });
                    return write_json(out, &json!({ "versions": versions.collect::<Vec<_>>() }));
                }
                for version in versions {
                    let note = if version.in_force { "  in force" } else { "" };
                    writeln!(out, "{:>5}  {}{note}", version.version, describe::utc(version.created))?;
                }
                Ok(())
            }
            Command::Restore(Restore { one, version }) => {
                let node = one.common.open()?;
                let fits = |candidate: &Arc<Candidate>| one.fits(&node, candidate);
                let info = node.bundles.restore_if::<CertsError>(&one.bundle, version, now(), fits)?;
                one.common.confirm(out, &info)
            }
        }
    }
}

/// The node whose bundles they are, with the broker that may run.
struct Node {
    bundles: Bundles,
    config: Config,
    broker: Client,
}

impl One {
    /// Whether every listener can do with a version: those of the configuration, which a start would open, and those that run, which may be
    /// others.
    fn fits(&self, node: &Node, candidate: &Arc<Candidate>) -> Result<(), CertsError> {
        let unfit = |mistakes| BundleError::Unfit { id: self.bundle.clone(), mistakes };
        let mistakes = mistakes_of_listeners(&node.config, candidate);
        if !mistakes.is_empty() {
            return Err(unfit(mistakes.iter().map(ToString::to_string).collect()).into());
        }
        let request = Request::BundleTry { bundle: self.bundle.to_string() };
        match node.broker.ask_if_running::<Vec<String>>(request)? {
            Some(mistakes) if !mistakes.is_empty() => {
                let running = mistakes.iter().map(|mistake| format!("the running broker: {mistake}"));
                Err(unfit(running.collect()).into())
            }
            _ => Ok(()),
        }
    }
}

impl Common {
    fn open(&self) -> Result<Node, CertsError> {
        let config = Config::load(Some(&self.config), std::env::vars())?;
        let data_dir = &config.node.data_dir;
        Ok(Node { bundles: Bundles::in_data_dir(data_dir), broker: Client::new(data_dir), config })
    }

    /// Says what is in force now, a line for each certificate; `show` says all of it.
    fn confirm(&self, out: &mut impl Write, info: &BundleInfo) -> Result<(), CertsError> {
        if self.json {
            return write_json(out, &to_json(info, now()));
        }
        writeln!(out, "{}", summary(info))?;
        for (part, certificates) in &info.certificates {
            let own =
                if *part == Part::Ca { certificates.as_slice() } else { certificates.get(..1).unwrap_or_default() };
            for certificate in own {
                let (kind, until) = (certificate.key_kind(), describe::utc(certificate.not_after()));
                writeln!(out, "  {:<12}{}, {kind}, until {until}", part.name(), certificate.subject())?;
            }
        }
        Ok(())
    }

    fn say(&self, out: &mut impl Write, info: &BundleInfo) -> Result<(), CertsError> {
        let now = now();
        if self.json {
            return write_json(out, &to_json(info, now));
        }
        writeln!(out, "{}", summary(info))?;
        for (part, certificates) in &info.certificates {
            writeln!(out, "{part}")?;
            let all = if *part == Part::Ca { certificates.len() } else { 1 };
            for certificate in certificates.iter().take(all) {
                describe::certificate(out, certificate, now)?;
            }
            for above in certificates.iter().skip(all) {
                writeln!(out, "  sent with     {}", above.subject())?;
            }
        }
        Ok(())
    }
}

impl Put {
    fn parts(&self) -> Result<Parts, CertsError> {
        let files = [
            (Part::Chain, &self.chain),
            (Part::Key, &self.key),
            (Part::KeyPassword, &self.key_password_file),
            (Part::Sm2Chain, &self.sm2_chain),
            (Part::Sm2Key, &self.sm2_key),
            (Part::Sm2KeyPassword, &self.sm2_key_password_file),
            (Part::SignChain, &self.sign_chain),
            (Part::SignKey, &self.sign_key),
            (Part::SignKeyPassword, &self.sign_key_password_file),
            (Part::EncChain, &self.enc_chain),
            (Part::EncKey, &self.enc_key),
            (Part::EncKeyPassword, &self.enc_key_password_file),
            (Part::Ca, &self.ca),
        ];
        let mut parts = Parts::default();
        for (part, path) in files {
            let Some(path) = path else { continue };
            let unreadable = |error| CertsError::Unreadable { path: path.clone(), error };
            let length = fs::metadata(path).map_err(unreadable)?.len();
            if length > MAX_FILE_BYTES as u64 {
                let error = std::io::Error::other("larger than any certificate or key");
                return Err(unreadable(error));
            }
            let mut text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
            // A line end is no part of a password.
            if part.name().ends_with("password") {
                while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    text.pop();
                }
            }
            parts.insert(part, text);
        }
        Ok(parts)
    }
}

/// Names all bundles, those that cannot be read too.
fn list(bundles: &Bundles, json: bool, out: &mut impl Write) -> Result<(), CertsError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for id in bundles.all()? {
        match bundles.show(&id) {
            Ok(info) => good.push(info),
            Err(cause) => bad.push((id, cause.to_string())),
        }
    }
    if json {
        let good: Vec<Value> = good.iter().map(|info| to_json(info, now())).collect();
        let bad =
            bad.iter().map(|(id, reason)| json!({ "name": id.name(), "namespace": id.namespace(), "reason": reason }));
        write_json(out, &json!({ "bundles": good, "unreadable": bad.collect::<Vec<_>>() }))?;
    } else {
        for info in &good {
            writeln!(out, "{}", summary(info))?;
        }
        let mut said = None;
        for (id, reason) in &bad {
            match said == Some(reason) {
                true => writeln!(out, "{id}  cannot be read for the same reason")?,
                false => writeln!(out, "{id}  cannot be read: {reason}")?,
            }
            said = Some(reason);
        }
    }
    match bad.len() {
        0 => Ok(()),
        count => Err(CertsError::Findings(format!("{count} of {} bundles cannot be read", count + good.len()))),
    }
}

fn summary(info: &BundleInfo) -> String {
    let parts = info.certificates.iter().map(|(part, _)| *part).chain(info.secrets.iter().copied());
    let parts: Vec<&str> = parts.map(Part::name).collect();
    let expires = info.expires().map_or_else(String::new, |at| format!(", expires {}", describe::utc(at)));
    format!("{}  version {}{expires}: {}", info.id, info.version, parts.join(", "))
}

fn to_json(info: &BundleInfo, now: i64) -> Value {
    let parts: serde_json::Map<String, Value> = info
        .certificates
        .iter()
        .map(|(part, all)| {
            let all: Vec<Value> = all.iter().map(|certificate| describe::json(certificate, now)).collect();
            (part.name().to_owned(), Value::from(all))
        })
        .collect();
    json!({
        "name": info.id.name(),
        "namespace": info.id.namespace(),
        "version": info.version,
        "created": info.created,
        "expires": info.expires(),
        "certificates": parts,
        "secrets": info.secrets.iter().map(|part| part.name()).collect::<Vec<_>>(),
    })
}

fn write_json(out: &mut impl Write, answer: &Value) -> Result<(), CertsError> {
    serde_json::to_writer_pretty(&mut *out, answer)?;
    Ok(writeln!(out)?)
}
