//! `shangmq certs`: makes authorities, certificates, TLCP pairs and requests, and explains those that exist.

mod authority;
mod bundle;
mod describe;
mod inspect;
mod issue;
mod output;
mod profile;
mod request;
mod revoke;
mod verify;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gm_tls::cert::{CertError, KeyKind};
use gm_tls::key::{KeyError, Password, PasswordError};
use gm_tls::pair::PairError;
use gm_tls::pki::{AlternativeNames, PkiError, Subject};

use crate::bundle::BundleError;
use crate::config::ConfigErrors;
use crate::dev_certs::{self, DevelopmentError};
use crate::operator::ClientError;

pub(super) use describe::utc;

/// What `shangmq certs` can do.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make the certificates for development: every protocol, a server and a client, valid on this machine only.
    Dev(DevArguments),
    /// Make a certification authority (SM2 unless said otherwise), or one below another.
    Ca(authority::Arguments),
    /// Issue a TLCP pair or a single certificate, with new keys or for certificate requests.
    Issue(issue::Arguments),
    /// Make keys and certificate requests to send to an authority; for a TLCP pair two of each.
    Csr(request::Arguments),
    /// Sign the revocation list of an authority, with what was revoked before and the certificates that are given.
    Crl(revoke::Arguments),
    /// Say in plain words what certificates, requests and keys are, and whether they belong together.
    Inspect(inspect::Arguments),
    /// Verify certificates, and TLCP pairs, up to an authority.
    Verify(verify::Arguments),
    /// Keep certificates and keys under names in the broker's data directory, for listeners to refer to.
    Bundle(bundle::Arguments),
}

/// Why a command did not do what was asked; the text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{} exists already and was not changed; another --out or --name avoids it, --force replaces it", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the profile {profile} cannot be used: {reason}")]
    BadProfile { profile: String, reason: String },
    #[error(
        "{} asks for the names {names}; if they are right add --accept-names, otherwise give the right ones by --dns, --ip, --uri \
         or --email", path.display()
    )]
    Names { path: PathBuf, names: String },
    #[error("{} was issued by \"{issuer}\" and not by this authority, which cannot revoke it", path.display())]
    NotIssued { path: PathBuf, issuer: String },
    #[error("{} is there and is no revocation list of this authority that could be continued: {reason}", path.display())]
    BadList { path: PathBuf, reason: String },
    #[error("{0}")]
    Usage(&'static str),
    #[error("{} is neither a certificate, a certificate request nor a private key in PEM", path.display())]
    Unknown { path: PathBuf },
    /// The findings are on standard output already.
    #[error("{0}")]
    Findings(String),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Development(#[from] DevelopmentError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Broker(#[from] ClientError),
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("cannot encode the answer")]
    Json(#[from] serde_json::Error),
}

impl CertsCommand {
    /// Runs the command, writing its answer to standard output.
    ///
    /// # Errors
    /// What kept it from doing its work, or that what it looked at is wrong.
    pub fn run(self) -> Result<(), CertsError> {
        let mut out = io::stdout().lock();
        match self {
            CertsCommand::Dev(arguments) => arguments.run(&mut out),
            CertsCommand::Ca(arguments) => arguments.run(&mut out),
            CertsCommand::Issue(arguments) => arguments.run(&mut out),
            CertsCommand::Csr(arguments) => arguments.run(&mut out),
            CertsCommand::Crl(arguments) => arguments.run(&mut out),
            CertsCommand::Inspect(arguments) => arguments.run(&mut out),
            CertsCommand::Verify(arguments) => arguments.run(&mut out),
            CertsCommand::Bundle(arguments) => arguments.run(&mut out),
        }
    }
}

#[derive(Debug, Args)]
pub struct DevArguments {
    /// Directory of the certificates.
    #[arg(long, value_name = "DIR", default_value = dev_certs::DEFAULT_DIR)]
    out: PathBuf,
}

impl DevArguments {
    fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let set = dev_certs::ensure(&self.out)?;
        let did = if set.created() { "made" } else { "exist already, are complete and valid" };
        writeln!(out, "Development certificates {did}: {}", set.dir().display())?;
        writeln!(out, "For this machine only: their authorities' keys lie beside them, unencrypted.")?;
        Ok(())
    }
}

/// The kinds of key that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyType {
    Sm2,
    P256,
    P384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl From<KeyType> for KeyKind {
    fn from(key_type: KeyType) -> KeyKind {
        match key_type {
            KeyType::Sm2 => KeyKind::Sm2,
            KeyType::P256 => KeyKind::EcP256,
            KeyType::P384 => KeyKind::EcP384,
            KeyType::Rsa2048 => KeyKind::Rsa(2048),
            KeyType::Rsa3072 => KeyKind::Rsa(3072),
            KeyType::Rsa4096 => KeyKind::Rsa(4096),
        }
    }
}

/// Whether one certificate is meant or the two of TLCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A signing and an encryption certificate, for TLCP.
    Pair,
    /// One certificate, for TLS or RFC 8998.
    Single,
}

#[derive(Debug, Args)]
struct SubjectArguments {
    /// Organizational unit of the subject.
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// Organization of the subject.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// Locality of the subject.
    #[arg(long, value_name = "NAME")]
    locality: Option<String>,
    /// State or province of the subject.
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// Country of the subject, two capital letters.
    #[arg(long, value_name = "CC")]
    country: Option<String>,
}

impl SubjectArguments {
    fn subject(&self, common_name: &str) -> Subject {
        Subject {
            common_name: common_name.to_owned(),
            organizational_unit: self.unit.clone(),
            organization: self.organization.clone(),
            locality: self.locality.clone(),
            state: self.state.clone(),
            country: self.country.clone(),
        }
    }
}

#[derive(Debug, Args)]
struct NamesArguments {
    /// DNS name (subjectAltName); may be given several times.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// IP address (subjectAltName); may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// URI (subjectAltName); may be given several times.
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    /// Mail address (subjectAltName); may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
}

impl NamesArguments {
    fn names(&self) -> AlternativeNames {
        AlternativeNames {
            dns: self.dns.clone(),
            ip: self.ip.clone(),
            uri: self.uri.clone(),
            email: self.email.clone(),
        }
    }

    /// The names given, or for a server without any its common name, which clients no longer look at.
    fn names_or_host(&self, is_server: bool, common_name: &str) -> AlternativeNames {
        let mut names = self.names();
        if is_server && names.is_empty() {
            match common_name.parse() {
                Ok(address) => names.ip.push(address),
                Err(_) => names.dns.push(common_name.to_owned()),
            }
        }
        names
    }
}

fn resolve(password: Option<&String>) -> Result<Option<Password>, CertsError> {
    Ok(password.map(|value| Password::resolve(value)).transpose()?)
}

fn report_files(out: &mut impl Write, paths: &[PathBuf]) -> Result<(), CertsError> {
    for path in paths {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
