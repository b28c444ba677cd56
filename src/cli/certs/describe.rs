//! Certificates in plain words and as JSON.

use std::io::{self, Write};

use gm_tls::cert::{Certificate, KeyUsage};
use gm_tls::revocation::Facts;
use serde_json::{Value, json};

const DAY: i64 = 86_400;

/// Writes what a certificate is, for a reader who does not know ASN.1.
pub(super) fn certificate(out: &mut impl Write, certificate: &Certificate, now: i64) -> io::Result<()> {
    writeln!(out, "  subject       {}", certificate.subject())?;
    writeln!(out, "  issuer        {}", certificate.issuer())?;
    let names = alternative_names(certificate);
    if !names.is_empty() {
        writeln!(out, "  names         {}", names.join(", "))?;
    }
    writeln!(out, "  role          {}", role(certificate))?;
    writeln!(
        out,
        "  key usage     {}",
        certificate.key_usage().map_or("not limited".to_owned(), |usage| usage.to_string())
    )?;
    if let Some(purposes) = certificate.extended_key_usage() {
        writeln!(out, "  purposes      {purposes}")?;
    }
    if let Ok(facts) = Facts::of_der(&certificate.to_der()) {
        for (name, urls) in [("CRL at", facts.crl_urls), ("OCSP at", facts.ocsp_urls)] {
            if !urls.is_empty() {
                writeln!(out, "  {name:<13} {}", urls.join(", "))?;
            }
        }
    }
    let (from, until) = (utc(certificate.not_before()), utc(certificate.not_after()));
    writeln!(out, "  validity      {from} to {until}: {}", validity(certificate, now))?;
    writeln!(out, "  key           {}", certificate.key_kind())?;
    writeln!(out, "  signature     {}", certificate.signature_algorithm())?;
    writeln!(out, "  serial        {}", certificate.serial_hex())?;
    writeln!(out, "  SM3           {}", certificate.fingerprint_sm3())?;
    writeln!(out, "  SHA-256       {}", certificate.fingerprint_sha256())
}

/// Writes what a request asks for. The authority decides whether it is given.
pub(super) fn request(out: &mut impl Write, wanted: &Certificate) -> io::Result<()> {
    writeln!(out, "  subject       {}", wanted.subject())?;
    let names = alternative_names(wanted);
    if !names.is_empty() {
        writeln!(out, "  names         {}", names.join(", "))?;
    }
    if let Some(usage) = wanted.key_usage() {
        writeln!(out, "  key usage     {usage}")?;
    }
    writeln!(out, "  key           {}", wanted.key_kind())
}

/// What a request asks for, for programs.
pub(super) fn request_json(wanted: &Certificate) -> Value {
    json!({
        "subject": wanted.subject(),
        "dns": wanted.san_dns(),
        "ip": wanted.san_ip(),
        "uri": wanted.san_uri(),
        "email": wanted.san_email(),
        "key_usage": wanted.key_usage().map(|usage| usage.to_string()),
        "key": wanted.key_kind().to_string(),
    })
}

/// A certificate for programs. Times are unix seconds.
pub(super) fn json(certificate: &Certificate, now: i64) -> Value {
    let (crl_urls, ocsp_urls) =
        Facts::of_der(&certificate.to_der()).map(|facts| (facts.crl_urls, facts.ocsp_urls)).unwrap_or_default();
    json!({
        "subject": certificate.subject(),
        "common_name": certificate.common_name().ok().flatten(),
        "issuer": certificate.issuer(),
        "serial": certificate.serial_hex(),
        "dns": certificate.san_dns(),
        "ip": certificate.san_ip(),
        "uri": certificate.san_uri(),
        "email": certificate.san_email(),
        "ca": certificate.is_ca(),
        "role": role(certificate),
        "key_usage": certificate.key_usage().map(|usage| usage.to_string()),
        "extended_key_usage": certificate.extended_key_usage().map(|purposes| purposes.to_string()),
        "crl_urls": crl_urls,
        "ocsp_urls": ocsp_urls,
        "not_before": certificate.not_before(),
        "not_after": certificate.not_after(),
        "days_left": (certificate.not_after() - now).div_euclid(DAY),
        "key": certificate.key_kind().to_string(),
        "signature_algorithm": certificate.signature_algorithm(),
        "fingerprint_sm3": certificate.fingerprint_sm3(),
        "fingerprint_sha256": certificate.fingerprint_sha256(),
    })
}

/// Whether a keyUsage names encryption and no signature, as that of an encryption certificate does.
pub(super) fn is_for_encryption(certificate: &Certificate) -> bool {
    let encryption = KeyUsage::KEY_ENCIPHERMENT.union(KeyUsage::DATA_ENCIPHERMENT).union(KeyUsage::KEY_AGREEMENT);
    certificate
        .key_usage()
        .is_some_and(|usage| usage.intersects(encryption) && !usage.contains(KeyUsage::DIGITAL_SIGNATURE))
}

fn role(certificate: &Certificate) -> &'static str {
    let signs = certificate.key_usage().is_none_or(|usage| usage.contains(KeyUsage::DIGITAL_SIGNATURE));
    match (certificate.is_ca(), signs) {
        (true, _) if certificate.is_self_issued() => "root authority",
        (true, _) => "intermediate authority",
        (false, _) if is_for_encryption(certificate) => "encryption certificate of a TLCP pair",
        (false, true) => "signing certificate: TLS, RFC 8998, or the first of a TLCP pair",
        (false, false) => "neither for signing nor for encryption",
    }
}

fn validity(certificate: &Certificate, now: i64) -> String {
    let (from, until) = (certificate.not_before(), certificate.not_after());
    if now < from {
        format!("not valid yet, in {} days", (from - now) / DAY + 1)
    } else if now > until {
        format!("EXPIRED {}", gm_tls::pair::ago((now - until) / DAY))
    } else {
        format!("valid, {} days left", (until - now) / DAY)
    }
}

pub(super) fn alternative_names(certificate: &Certificate) -> Vec<String> {
    // Encoded names are bytes of anyone's choice, and this goes to a terminal.
    let shown = |kind: &str, name: &str| format!("{kind}:{}", name.escape_debug());
    let dns = certificate.san_dns().into_iter().map(|name| shown("DNS", &name));
    let ip = certificate.san_ip().into_iter().map(|address| format!("IP:{address}"));
    let uri = certificate.san_uri().into_iter().map(|uri| shown("URI", &uri));
    let email = certificate.san_email().into_iter().map(|address| shown("email", &address));
    dns.chain(ip).chain(uri).chain(email).collect()
}

/// A time as `2026-01-31 23:59:59 UTC`.
pub(in crate::cli) fn utc(seconds: i64) -> String {
    let (date, time) = crate::calendar::date_and_time(seconds);
    format!("{date} {time} UTC")
}
