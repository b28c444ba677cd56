//! The certificates that listeners show, and the authorities that they trust: what they are, and how long they are still good.

use super::Operator;
use crate::net::InUse;
use serde::{Deserialize, Serialize};

/// One certificate of one listener. Times are unix seconds, fingerprints lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    pub listener: String,
    /// `tls`, `rfc8998` or `tlcp`.
    pub protocol: String,
    /// `single`, the place in a TLCP pair: `signing` or `encryption`; or `authority`, for one of `cacertfile`.
    pub usage: String,
    pub file: String,
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    pub key: String,
    pub not_before: i64,
    pub not_after: i64,
    /// Negative when it has expired.
    pub seconds_left: i64,
    pub fingerprint_sha256: String,
    pub fingerprint_sm3: String,
}

impl Operator {
    /// Every certificate that a client may be shown now, and the authorities that those of clients must come from.
    pub fn certificates(&self, now: i64) -> Vec<CertificateReport> {
        let secured = self.listeners.iter().filter_map(|listener| Some((listener.id(), listener.security()?)));
        secured
            .flat_map(|(id, security)| security.in_use().iter().map(|one| report(id, one, now)).collect::<Vec<_>>())
            .collect()
    }
}

fn report(listener: &str, one: &InUse, now: i64) -> CertificateReport {
    let InUse { kind, usage, file, certificate } = one;
    let texts = |kind: &str, names: Vec<String>| names.into_iter().map(|name| format!("{kind}:{name}")).collect();
    let ip = certificate.san_ip().iter().map(ToString::to_string).collect();
    let names: [Vec<String>; 4] = [
        texts("dns", certificate.san_dns()),
        texts("ip", ip),
        texts("uri", certificate.san_uri()),
        texts("email", certificate.san_email()),
    ];
    CertificateReport {
        listener: listener.to_owned(),
        protocol: kind.name().to_owned(),
        usage: usage.name().to_owned(),
        file: file.display().to_string(),
        subject: certificate.subject(),
        issuer: certificate.issuer(),
        names: names.concat(),
        key: certificate.key_kind().to_string(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        seconds_left: certificate.not_after().saturating_sub(now),
        fingerprint_sha256: certificate.fingerprint_sha256(),
        fingerprint_sm3: certificate.fingerprint_sm3(),
    }
}
