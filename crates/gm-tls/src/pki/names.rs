//! Subjects and alternative names, checked before they reach an encoder.

use std::net::IpAddr;

use openssl::nid::Nid;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509Extension, X509Name, X509v3Context};

use super::PkiError;
use crate::cert::is_deceptive;

/// A distinguished name from its usual parts, encoded from country to common name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizational_unit: Option<String>,
    pub organization: Option<String>,
    pub locality: Option<String>,
    pub state: Option<String>,
    /// Two letters (ISO 3166).
    pub country: Option<String>,
}

impl Subject {
    /// A subject that is a common name alone.
    pub fn common_name(name: impl Into<String>) -> Subject {
        Subject { common_name: name.into(), ..Subject::default() }
    }

    pub(super) fn to_x509(&self) -> Result<X509Name, PkiError> {
        if self.common_name.is_empty() {
            return Err(PkiError::NoCommonName);
        }
        let mut name = X509Name::builder()?;
        // Upper bounds of RFC 5280 appendix A.1, in characters.
        let parts = [
            ("country", Nid::COUNTRYNAME, self.country.as_deref(), 2),
            ("state", Nid::STATEORPROVINCENAME, self.state.as_deref(), 128),
            ("locality", Nid::LOCALITYNAME, self.locality.as_deref(), 128),
            ("organization", Nid::ORGANIZATIONNAME, self.organization.as_deref(), 64),
            ("organizational unit", Nid::ORGANIZATIONALUNITNAME, self.organizational_unit.as_deref(), 64),
            ("common name", Nid::COMMONNAME, Some(self.common_name.as_str()), 64),
        ];
        for (field, nid, value, max) in parts {
            let Some(value) = value else { continue };
            let bad = |reason| PkiError::BadName { field, value: value.to_owned(), reason };
            if value.is_empty() || value.chars().count() > max {
                return Err(bad("it is empty or too long"));
            }
            if value.chars().any(is_deceptive) {
                return Err(bad("it holds a control or an invisible character"));
            }
            if nid == Nid::COUNTRYNAME && (value.len() != 2 || !value.bytes().all(|byte| byte.is_ascii_uppercase())) {
                return Err(bad("it is not two capital letters"));
            }
            name.append_entry_by_nid(nid, value)?;
        }
        Ok(name.build())
    }
}

/// Names of the subjectAltName extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    pub dns: Vec<String>,
    pub ip: Vec<IpAddr>,
    pub uri: Vec<String>,
    pub email: Vec<String>,
}

impl AlternativeNames {
    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.ip.is_empty() && self.uri.is_empty() && self.email.is_empty()
    }

    /// Whether each of them may stand in a certificate.
    pub(super) fn check(&self) -> Result<(), PkiError> {
        self.dns.iter().try_for_each(|name| check_dns(name))?;
        for (field, values) in [("URI", &self.uri), ("mail address", &self.email)] {
            for value in values {
                if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    let reason = "it is not made of visible ASCII characters";
                    return Err(PkiError::BadName { field, value: value.clone(), reason });
                }
            }
        }
        Ok(())
    }

    pub(super) fn to_extension(&self, context: &X509v3Context<'_>) -> Result<Option<X509Extension>, PkiError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.check()?;
        let mut extension = SubjectAlternativeName::new();
        for name in &self.dns {
            extension.dns(name);
        }
        for address in &self.ip {
            extension.ip(&address.to_string());
        }
        for uri in &self.uri {
            extension.uri(uri);
        }
        for address in &self.email {
            extension.email(address);
        }
        Ok(Some(extension.build(context)?))
    }
}

/// Whether a name can stand as dNSName: letters, digits and hyphens (RFC 5280 section 4.2.1.6 and RFC 1123), with `*` as
/// the whole leftmost label allowed (RFC 6125 section 6.4.3).
fn check_dns(name: &str) -> Result<(), PkiError> {
    let bad = |reason| Err(PkiError::BadName { field: "DNS name", value: name.to_owned(), reason });
    if name.is_empty() || name.len() > 253 {
        return bad("it is empty or longer than 253 characters");
    }
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !bare.split('.').all(label_is_good) {
        return bad("a label is not made of letters, digits and hyphens");
    }
    Ok(())
}
