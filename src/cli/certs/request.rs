//! `shangmq certs csr`: keys and the requests to send to an authority.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use gm_tls::cert::KeyKind;
use gm_tls::key::PrivateKey;
use gm_tls::pki::{CertificateRequest, Profile};

use super::issue::file_name;
use super::output::NewFiles;
use super::{CertsError, KeyType, Kind, NamesArguments, SubjectArguments, profile, report_files, resolve};

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value = "pair")]
    kind: Kind,
    /// `server`, `client`, or a profile file: the key usage that is asked for.
    #[arg(long, value_name = "NAME|FILE", default_value = "server")]
    profile: String,
    /// Common name of the subject.
    #[arg(long, value_name = "NAME")]
    cn: String,
    #[command(flatten)]
    subject: SubjectArguments,
    #[command(flatten)]
    names: NamesArguments,
    #[arg(long, value_enum, default_value = "sm2")]
    key_type: KeyType,
    /// Directory of the new files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start of the file names: NAME-sign.csr and NAME-enc.csr of a pair, NAME.csr of a single one, and their keys.
    #[arg(long, value_name = "NAME", default_value = "server", value_parser = file_name)]
    name: String,
    /// Encrypt the keys: `file:///path`, `env:NAME`, or the password itself, which other users can see.
    #[arg(long, value_name = "SOURCE")]
    password: Option<String>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let profile = profile::load(&self.profile)?;
        let kind = KeyKind::from(self.key_type);
        if self.kind == Kind::Pair && !matches!(kind, KeyKind::Sm2 | KeyKind::Rsa(_)) {
            return Err(CertsError::Usage("a TLCP pair is made of SM2 or RSA keys"));
        }
        let subject = self.subject.subject(&self.cn);
        let names = self.names.names_or_host(profile.purposes.server_auth, &self.cn);
        let password = resolve(self.password.as_ref())?;
        let mut files = NewFiles::default();
        for (suffix, usage) in self.usages(&profile, kind) {
            let key = PrivateKey::generate(kind)?;
            let request = CertificateRequest::create(&subject, &names, usage, &key)?;
            let path = |ending| self.out.join(format!("{}{suffix}.{ending}", self.name));
            files.key(path("key"), &key, password.as_ref())?;
            files.public(path("csr"), request.to_pem()?);
        }
        report_files(out, &files.write(self.force)?)?;
        writeln!(out, "Send the .csr files to the authority and keep the .key files to yourself.")?;
        if self.kind == Kind::Pair {
            writeln!(
                out,
                "An authority that makes the encryption key itself, as many do, sends that key back with the \
                 certificate: then it, and not {}-enc.key, belongs to it.",
                self.name
            )?;
        }
        Ok(())
    }

    fn usages(&self, profile: &Profile, kind: KeyKind) -> Vec<(&'static str, gm_tls::cert::KeyUsage)> {
        match (self.kind, kind) {
            (Kind::Pair, _) => vec![("-sign", profile.sign_usage), ("-enc", profile.enc_usage)],
            (Kind::Single, KeyKind::Rsa(_)) => vec![("", profile.rsa_usage)],
            (Kind::Single, _) => vec![("", profile.single_usage)],
        }
    }
}
