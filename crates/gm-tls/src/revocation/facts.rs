//! What a certificate says about where its status can be asked for.

use der::{Decode, Encode, Tag, TagNumber, asn1::ObjectIdentifier};
use x509_cert::ext::{
    Extensions,
    pkix::{
        AuthorityInfoAccessSyntax, BasicConstraints, CrlDistributionPoints,
        name::{DistributionPointName, GeneralName},
    },
};

use super::crl::{canonical, element, value};

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const AUTHORITY_INFO_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
/// RFC 7633.
const TLS_FEATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");
/// The longest address that is taken, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// The number of the extension status_request.
const STATUS_REQUEST: u8 = 5;

/// A certificate that cannot be read for this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the certificate cannot be decoded")]
pub struct FactsError(&'static str);

/// What matters of a certificate to those who look for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The contents of its INTEGER without leading zeros.
    pub serial: Vec<u8>,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// Where a revocation list for all reasons, of its own issuer, is; each may be had from any of its addresses.
    pub crl_urls: Vec<String>,
    /// The names of these distribution points, encoded, for [`Crl::covers`](super::Crl::covers).
    pub points: Vec<Vec<u8>>,
    /// Where its OCSP responder is.
    pub ocsp_urls: Vec<String>,
    /// Whether clients may insist on a stapled answer (TLS feature extension, "must-staple").
    pub must_staple: bool,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It, or one of the extensions that matter here, cannot be decoded.
    pub fn of_der(certificate: &[u8]) -> Result<Facts, FactsError> {
        let structure = || FactsError("structure");
        let (serial, extensions) = parts(certificate).ok_or_else(structure)?;
        let mut facts = Facts {
            serial: canonical(serial).to_vec(),
            is_authority: false,
            crl_urls: Vec::new(),
            points: Vec::new(),
            ocsp_urls: Vec::new(),
            must_staple: false,
        };
        let extensions = extensions.map(|list| Extensions::from_der(list).map_err(|_| structure())).transpose()?;
        for extension in extensions.into_iter().flatten() {
            let contents = extension.extn_value.as_bytes();
            match extension.extn_id {
                BASIC_CONSTRAINTS => {
                    let constraints = BasicConstraints::from_der(contents);
                    facts.is_authority = constraints.map_err(|_| FactsError("basicConstraints"))?.ca;
                }
                CRL_DISTRIBUTION_POINTS => {
                    facts.add_points(contents).ok_or(FactsError("cRLDistributionPoints"))?;
                }
                AUTHORITY_INFO_ACCESS => {
                    let access = AuthorityInfoAccessSyntax::from_der(contents);
                    let access = access.map_err(|_| FactsError("authorityInfoAccess"))?;
                    let responders = access.0.iter().filter(|entry| entry.access_method == OCSP);
                    facts.ocsp_urls.extend(responders.filter_map(|entry| http_url(&entry.access_location)));
                }
                TLS_FEATURE => {
                    facts.must_staple = asks_for_staple(contents).ok_or(FactsError("TLS feature"))?;
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn add_points(&mut self, contents: &[u8]) -> Option<()> {
        for point in CrlDistributionPoints::from_der(contents).ok()?.0 {
            // Such a list is about some reasons, or speaks for other authorities, and would be refused.
            if point.reasons.is_some() || point.crl_issuer.is_some() {
                continue;
            }
            let Some(DistributionPointName::FullName(names)) = point.distribution_point else { continue };
            self.crl_urls.extend(names.iter().filter_map(http_url));
            for name in &names {
                self.points.push(name.to_der().ok()?);
            }
        }
        Some(())
    }
}

/// The serial number and the extensions of a certificate, RFC 5280 section 4.1. Not by a type for certificates, since there are
/// certificates with serial numbers that such a type refuses.
fn parts(certificate: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let explicit = |number| Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    let (certificate, _) = value(certificate, Tag::Sequence)?;
    let (mut rest, _) = value(certificate, Tag::Sequence)?;
    if let Some((_version, after)) = element(rest, explicit(0)) {
        rest = after;
    }
    let (serial, mut rest) = value(rest, Tag::Integer)?;
    // Signature, issuer, validity, subject and key.
    for _ in 0..5 {
        (_, rest) = element(rest, Tag::Sequence)?;
    }
    for number in [1, 2] {
        let unique_id = Tag::ContextSpecific { constructed: false, number: TagNumber(number) };
        if let Some((_, after)) = element(rest, unique_id) {
            rest = after;
        }
    }
    match value(rest, explicit(3)) {
        Some((extensions, [])) => Some((serial, Some(extensions))),
        None if rest.is_empty() => Some((serial, None)),
        _ => None,
    }
}

/// Addresses by the only schemes that anything is fetched by. They end up in logs, so that nothing but visible characters is taken.
fn http_url(name: &GeneralName) -> Option<String> {
    let GeneralName::UniformResourceIdentifier(uri) = name else { return None };
    let uri = uri.as_str();
    if uri.len() > MAX_URL_BYTES || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let is = |scheme: &str| uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    (is("http://") || is("https://")).then(|| uri.to_owned())
}

fn asks_for_staple(contents: &[u8]) -> Option<bool> {
    let (mut list, _) = value(contents, Tag::Sequence)?;
    let mut found = false;
    while !list.is_empty() {
        let (feature, rest) = value(list, Tag::Integer)?;
        found |= feature == [STATUS_REQUEST];
        list = rest;
    }
    Some(found)
}
