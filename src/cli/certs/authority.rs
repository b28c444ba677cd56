//! `shangmq certs ca`: a directory with an authority's certificate and key.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use gm_tls::cert::CertificateChain;
use gm_tls::key::PrivateKey;
use gm_tls::pki::CertificateAuthority;

use super::output::NewFiles;
use super::{CertsError, KeyType, SubjectArguments, describe, profile, report_files, resolve};
use crate::dev_certs::now;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of the new authority; ca.crt and ca.key are written there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Common name of the authority.
    #[arg(long, value_name = "NAME")]
    cn: String,
    #[command(flatten)]
    subject: SubjectArguments,
    #[arg(long, value_enum, default_value = "sm2")]
    key_type: KeyType,
    /// Days of validity, instead of those of the profile.
    #[arg(long)]
    days: Option<u32>,
    /// How many authorities may stand below this one, instead of what the profile says.
    #[arg(long, value_name = "COUNT")]
    path_len: Option<u32>,
    /// Profile file, instead of the built-in gm-certs/ca.toml.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Encrypt ca.key: `file:///path`, `env:NAME`, or the password itself, which other users of this machine can see.
    #[arg(long, value_name = "SOURCE")]
    password: Option<String>,
    /// Directory of the authority that issues this one; without it, it issues itself.
    #[arg(long, value_name = "DIR")]
    parent: Option<PathBuf>,
    /// Password of the parent's key, like --password.
    #[arg(long, value_name = "SOURCE", requires = "parent")]
    parent_password: Option<String>,
    /// Replace an authority that is there. What it issued cannot be renewed without its key.
    #[arg(long)]
    force: bool,
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let (certificate, key) = (self.out.join(CERTIFICATE), self.out.join(KEY));
        NewFiles::check_absent(&[certificate.clone(), key.clone()], self.force)?;
        let mut profile = profile::load_authority(self.profile.as_deref())?;
        profile.days = self.days.unwrap_or(profile.days);
        profile.path_len = self.path_len.or(profile.path_len);
        let subject = self.subject.subject(&self.cn);
        let password = resolve(self.password.as_ref())?;
        let authority = match &self.parent {
            None => CertificateAuthority::create(&subject, self.key_type.into(), &profile, now())?,
            Some(parent) => {
                let parent = open(parent, self.parent_password.as_ref())?;
                parent.issue_authority(&subject, self.key_type.into(), &profile, now())?
            }
        };
        let mut files = NewFiles::default();
        files.key(key, authority.key(), password.as_ref())?;
        files.chain(certificate, authority.chain());
        report_files(out, &files.write(self.force)?)?;
        describe::certificate(out, authority.certificate(), now())?;
        if password.is_none() {
            writeln!(out, "The authority's key is not encrypted: whoever reads {KEY} can issue in its name.")?;
        }
        Ok(())
    }
}

/// Opens the authority in a directory.
pub(super) fn open(dir: &Path, password: Option<&String>) -> Result<CertificateAuthority, CertsError> {
    let chain = CertificateChain::from_file("authority", &dir.join(CERTIFICATE))?;
    let key = PrivateKey::from_file("authority's key", &dir.join(KEY), resolve(password)?.as_ref())?;
    Ok(CertificateAuthority::new(chain, key)?)
}
