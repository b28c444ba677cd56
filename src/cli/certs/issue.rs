//! `shangmq certs issue`: certificates from an authority made by `shangmq certs ca`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use gm_tls::cert::CertificateChain;
use gm_tls::key::{Password, PrivateKey};
use gm_tls::pki::{Approval, CertificateAuthority, CertificateRequest, Profile};

use super::output::NewFiles;
use super::{
    CertsError, KeyType, Kind, NamesArguments, SubjectArguments, authority, describe, profile, report_files, resolve,
};
use crate::dev_certs::now;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of the authority (ca.crt and ca.key).
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Password of the authority's key: `file:///path`, `env:NAME`, or the password itself.
    #[arg(long, value_name = "SOURCE")]
    ca_password: Option<String>,
    #[arg(long, value_enum, default_value = "pair")]
    kind: Kind,
    /// `server`, `client`, or a profile file like those in gm-certs/.
    #[arg(long, value_name = "NAME|FILE", default_value = "server")]
    profile: String,
    /// Common name of the subject; with --csr the request has it.
    #[arg(long, value_name = "NAME", required_unless_present = "csr", conflicts_with = "csr")]
    cn: Option<String>,
    #[command(flatten)]
    subject: SubjectArguments,
    #[command(flatten)]
    names: NamesArguments,
    /// Days of validity, instead of those of the profile.
    #[arg(long)]
    days: Option<u32>,
    #[arg(long, value_enum, default_value = "sm2", conflicts_with = "csr")]
    key_type: KeyType,
    /// Certificate request; of a pair, the one for the signing certificate. `inspect` shows what it asks for.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Certificate request for the encryption certificate of a pair.
    #[arg(long, value_name = "FILE", requires = "csr")]
    enc_csr: Option<PathBuf>,
    /// Put the alternative names into the certificates that the requests ask for.
    #[arg(long, requires = "csr", conflicts_with_all = ["dns", "ip", "uri", "email"])]
    accept_names: bool,
    /// Where the authority publishes its revocation list, for the certificates to say so; may be given several times.
    #[arg(long, value_name = "URL", value_parser = status_url)]
    crl_url: Vec<String>,
    /// Where the authority's OCSP responder answers, for the certificates to say so; may be given several times.
    #[arg(long, value_name = "URL", value_parser = status_url)]
    ocsp_url: Vec<String>,
    /// Directory of the new files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start of the file names: NAME-sign.crt and NAME-enc.crt of a pair, NAME.crt of a single certificate.
    #[arg(long, value_name = "NAME", default_value = "server", value_parser = file_name)]
    name: String,
    /// Encrypt the new keys: `file:///path`, `env:NAME`, or the password itself, which other users can see.
    #[arg(long, value_name = "SOURCE", conflicts_with = "csr")]
    password: Option<String>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// A name that stays within the directory it is written to.
pub(super) fn file_name(value: &str) -> Result<String, &'static str> {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.is_empty() || value.starts_with('.') || !value.chars().all(good) {
        return Err("letters, digits, `-`, `_` and `.` are allowed, and no `.` at the start");
    }
    Ok(value.to_owned())
}

/// An address as certificates may carry it: an IA5String.
fn status_url(value: &str) -> Result<String, &'static str> {
    let host = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    match host.filter(|host| host.starts_with(|c: char| c != '/') && value.chars().all(|c| c.is_ascii_graphic())) {
        Some(_) => Ok(value.to_owned()),
        None => Err("an address begins with http:// or https:// and a host, and has no spaces and only ASCII"),
    }
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let mut profile = profile::load(&self.profile)?;
        profile.days = self.days.unwrap_or(profile.days);
        profile.services.crl_urls.clone_from(&self.crl_url);
        profile.services.ocsp_urls.clone_from(&self.ocsp_url);
        let suffixes: &[&str] = match self.kind {
            Kind::Pair => &["-sign", "-enc"],
            Kind::Single => &[""],
        };
        let endings: &[&str] = if self.csr.is_some() { &["crt"] } else { &["crt", "key"] };
        let targets: Vec<PathBuf> =
            suffixes.iter().flat_map(|suffix| endings.iter().map(|ending| self.path(suffix, ending))).collect();
        NewFiles::check_absent(&targets, self.force)?;
        let authority = authority::open(&self.ca, self.ca_password.as_ref())?;
        let made = match &self.csr {
            Some(csr) => self.for_requests(&authority, csr, &profile)?,
            None => self.with_new_keys(&authority, &profile)?,
        };

        let password = resolve(self.password.as_ref())?;
        let mut files = NewFiles::default();
        for (suffix, chain, key) in &made {
            self.add(&mut files, suffix, chain, key.as_ref(), password.as_ref())?;
        }
        report_files(out, &files.write(self.force)?)?;
        for (_, chain, _) in &made {
            describe::certificate(out, &chain.leaf, now())?;
        }
        Ok(())
    }

    fn with_new_keys(&self, authority: &CertificateAuthority, profile: &Profile) -> Result<Vec<Made>, CertsError> {
        let common_name = self.cn.as_deref().unwrap_or_default();
        let subject = self.subject.subject(common_name);
        let names = self.names.names_or_host(profile.purposes.server_auth, common_name);
        let kind = self.key_type.into();
        Ok(match self.kind {
            Kind::Pair => {
                let pair = authority.issue_pair(&subject, &names, kind, profile, now())?;
                vec![("-sign", pair.sign.chain, Some(pair.sign.key)), ("-enc", pair.enc.chain, Some(pair.enc.key))]
            }
            Kind::Single => {
                let issued = authority.issue_single(&subject, &names, kind, profile, now())?;
                vec![("", issued.chain, Some(issued.key))]
            }
        })
    }

    fn for_requests(
        &self,
        authority: &CertificateAuthority,
        csr: &std::path::Path,
        profile: &Profile,
    ) -> Result<Vec<Made>, CertsError> {
        match (self.kind, &self.enc_csr) {
            (Kind::Pair, None) => {
                return Err(CertsError::Usage("a pair needs two requests: add --enc-csr, or --kind single"));
            }
            (Kind::Single, Some(_)) => return Err(CertsError::Usage("--enc-csr is for --kind pair")),
            _ => {}
        }
        let request = CertificateRequest::from_file(csr)?;
        let names = self.names.names();
        let approval = if self.accept_names {
            Approval::AsRequested
        } else {
            for path in std::iter::once(csr).chain(self.enc_csr.as_deref()).filter(|_| names.is_empty()) {
                unasked(path)?;
            }
            Approval::Names(&names)
        };
        let Some(enc) = &self.enc_csr else {
            return Ok(vec![("", authority.sign_request(&request, approval, profile, now())?, None)]);
        };
        let enc = CertificateRequest::from_file(enc)?;
        let (sign, enc) = authority.sign_pair_requests(&request, &enc, approval, profile, now())?;
        Ok(vec![("-sign", sign, None), ("-enc", enc, None)])
    }

    fn add(
        &self,
        files: &mut NewFiles,
        suffix: &str,
        chain: &CertificateChain,
        key: Option<&PrivateKey>,
        password: Option<&Password>,
    ) -> Result<(), CertsError> {
        files.chain(self.path(suffix, "crt"), chain);
        match key {
            Some(key) => files.key(self.path(suffix, "key"), key, password),
            None => Ok(()),
        }
    }

    fn path(&self, suffix: &str, ending: &str) -> PathBuf {
        self.out.join(format!("{}{suffix}.{ending}", self.name))
    }
}

/// Refuses a request that asks for names which nobody has agreed to: whoever wrote it chose them.
fn unasked(path: &std::path::Path) -> Result<(), CertsError> {
    let request = CertificateRequest::from_file(path)?;
    let names = describe::alternative_names(&request.wanted()?);
    if names.is_empty() {
        return Ok(());
    }
    Err(CertsError::Names { path: path.to_owned(), names: names.join(", ") })
}

/// What was made: suffix of the file name, chain, and the key if it is new.
type Made = (&'static str, CertificateChain, Option<PrivateKey>);
