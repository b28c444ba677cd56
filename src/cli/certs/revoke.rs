//! `shangmq certs crl`: the revocation list of an authority, with what was revoked before and now.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use gm_tls::cert::CertificateChain;
use gm_tls::pki::{CertificateAuthority, RevocationList, RevokedCertificate};
use gm_tls::revocation::{Crl, is_issued_by, read_lists};

use super::{CertsError, authority, describe};
use crate::dev_certs::now;

const DAY: i64 = 24 * 3600;
/// The longest list that is taken up again, in bytes.
const MAX_LIST_BYTES: usize = 256 << 20;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of the authority, with ca.crt and ca.key.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Password of the authority's key, like --password of `shangmq certs ca`.
    #[arg(long, value_name = "SOURCE")]
    ca_password: Option<String>,
    /// The list, DER. What it names already stays revoked.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A certificate to revoke; may be given several times. Of a TLCP pair give both.
    #[arg(long, value_name = "FILE")]
    revoke: Vec<PathBuf>,
    /// Days until the next list is due.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let authority = authority::open(&self.ca, self.ca_password.as_ref())?;
        let before = self.before(&authority)?;
        let mut revoked: Vec<RevokedCertificate> = Vec::new();
        if let Some(before) = &before {
            revoked.extend(before.entries().map(|(serial, since, reason)| RevokedCertificate {
                serial: positive(serial),
                since,
                reason: reason.code(),
            }));
        }
        for path in &self.revoke {
            let certificate = CertificateChain::from_file("certificate", path)?.leaf;
            if !is_issued_by(&certificate, authority.certificate()) {
                return Err(CertsError::NotIssued { path: path.clone(), issuer: certificate.issuer() });
            }
            let new = RevokedCertificate::new(&certificate, now());
            if revoked.iter().all(|one| one.serial != new.serial) {
                revoked.push(new);
            }
        }
        let number = before.as_ref().and_then(Crl::number).and_then(|number| u32::from_str_radix(number, 16).ok());
        let list = RevocationList {
            this_update: now(),
            next_update: Some(now() + i64::from(self.days) * DAY),
            number: number.unwrap_or(0).saturating_add(1),
            revoked,
            extensions: Vec::new(),
        };
        write(&self.out, &authority.sign_list(&list)?)?;
        writeln!(out, "{}: list {} of {}", self.out.display(), list.number, authority.certificate().subject())?;
        writeln!(out, "  revoked       {} certificates", list.revoked.len())?;
        writeln!(out, "  next list     due by {}", describe::utc(list.next_update.unwrap_or_default()))?;
        Ok(())
    }

    /// The list that is there, if it is one of this authority.
    fn before(&self, authority: &CertificateAuthority) -> Result<Option<Crl>, CertsError> {
        let contents = match std::fs::read(&self.out) {
            Ok(contents) => contents,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CertsError::Unreadable { path: self.out.clone(), error }),
        };
        let bad = |reason: String| CertsError::BadList { path: self.out.clone(), reason };
        let lists = read_lists(&contents.into(), MAX_LIST_BYTES).map_err(|cause| bad(cause.to_string()))?;
        let Some(list) = lists.into_iter().next() else { return Ok(None) };
        list.verify(authority.certificate()).map_err(|cause| bad(cause.to_string()))?;
        Ok(Some(list))
    }
}

/// The contents of an INTEGER that is positive.
fn positive(serial: &[u8]) -> Vec<u8> {
    match serial.first() {
        Some(..0x80) => serial.to_vec(),
        _ => [&[0][..], serial].concat(),
    }
}

/// Whole or not at all: a broker may be reading the file.
fn write(path: &Path, contents: &[u8]) -> Result<(), CertsError> {
    let part = path.with_extension("part");
    let written = std::fs::write(&part, contents).and_then(|()| std::fs::rename(&part, path));
    written.map_err(|error| CertsError::Unwritable { path: path.to_owned(), error })
}
