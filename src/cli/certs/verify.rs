//! `shangmq certs verify`: whether certificates lead up to an authority, and why not.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::pair::check_pair;
use gm_tls::pki::{Purpose, verify_chain};

use super::{CertsError, describe};
use crate::dev_certs::now;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Certificates of the authorities to trust (PEM, one file).
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Certificates to verify, each with the issuers sent with it; two of a TLCP pair are also checked as a pair.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the certificates are for. An encryption certificate is verified without this.
    #[arg(long, value_enum, default_value = "any")]
    purpose: PurposeName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PurposeName {
    Any,
    Server,
    Client,
}

impl Arguments {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), CertsError> {
        let anchors = Certificate::anchors_from_file("--ca", &self.ca)?;
        let purpose = match self.purpose {
            PurposeName::Any => Purpose::Any,
            PurposeName::Server => Purpose::Server,
            PurposeName::Client => Purpose::Client,
        };
        let mut refused = 0;
        let mut chains = Vec::with_capacity(self.files.len());
        for path in &self.files {
            let chain = CertificateChain::from_file("certificate", path)?;
            let purpose = if describe::is_for_encryption(&chain.leaf) { Purpose::Any } else { purpose };
            match verify_chain(&chain, &anchors, purpose, now()) {
                Ok(()) => writeln!(out, "{}: verified up to {}", path.display(), self.ca.display())?,
                Err(error) => {
                    refused += 1;
                    writeln!(out, "{}: REFUSED: {error}", path.display())?;
                }
            }
            chains.push(chain);
        }
        if let [sign, enc] = chains.as_slice()
            && (describe::is_for_encryption(&sign.leaf) || describe::is_for_encryption(&enc.leaf))
        {
            let reversed = describe::is_for_encryption(&sign.leaf) && !describe::is_for_encryption(&enc.leaf);
            let (sign, enc) = if reversed { (enc, sign) } else { (sign, enc) };
            match check_pair(sign, enc) {
                Ok(()) => writeln!(out, "The two certificates are a consistent TLCP pair.")?,
                Err(error) => {
                    refused += 1;
                    writeln!(out, "The two certificates are NOT a TLCP pair: {error}.")?;
                }
            }
        }
        match refused {
            0 => Ok(()),
            count => Err(CertsError::Findings(format!("{count} of the checks failed"))),
        }
    }
}
