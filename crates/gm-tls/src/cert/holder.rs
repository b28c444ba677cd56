//! Names by which a certificate's holder can be known: exactly one of a kind, readable in one way only, or none at all.

use std::net::IpAddr;

use openssl::foreign_types::ForeignTypeRef;
use openssl::stack::Stack;
use openssl::x509::{GeneralName, GeneralNameRef};

use super::name::{self, NameError};
use super::{Certificate, is_deceptive};

/// Kinds of names in the subjectAltName extension (RFC 5280 section 4.2.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlternativeName {
    Dns,
    Email,
    Uri,
    Ip,
}

impl AlternativeName {
    /// The tag of the kind in `GeneralName`.
    fn tag(self) -> i32 {
        match self {
            AlternativeName::Email => openssl_sys::GEN_EMAIL,
            AlternativeName::Dns => openssl_sys::GEN_DNS,
            AlternativeName::Uri => openssl_sys::GEN_URI,
            AlternativeName::Ip => openssl_sys::GEN_IPADD,
        }
    }

    fn read(self, name: &GeneralNameRef) -> Option<String> {
        match self {
            AlternativeName::Email => name.email().map(str::to_owned),
            AlternativeName::Dns => name.dnsname().map(str::to_owned),
            AlternativeName::Uri => name.uri().map(str::to_owned),
            AlternativeName::Ip => {
                let bytes = name.ipaddress()?;
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
            }
        }
    }
}

impl Certificate {
    /// The alternative name of a kind.
    ///
    /// # Errors
    /// There are two of the kind, or it holds what different programs read differently: such a name identifies nobody. Names of other
    /// kinds do not matter.
    pub fn alternative_name(&self, kind: AlternativeName) -> Result<Option<String>, NameError> {
        let names: Option<Stack<GeneralName>> = self.x509.subject_alt_names();
        let mut found = None;
        for name in names.iter().flatten() {
            // SAFETY: the name is alive for as long as `names` is borrowed, and its tag is only read.
            if unsafe { (*name.as_ptr()).type_ } != kind.tag() {
                continue;
            }
            if found.is_some() {
                return Err(NameError::Several);
            }
            let text = kind.read(name).filter(|text| !text.is_empty() && !text.chars().any(is_deceptive));
            found = Some(text.ok_or(NameError::Deceptive)?);
        }
        Ok(found)
    }

    /// Every value in the subject, in its order.
    ///
    /// # Errors
    /// One is not text, or holds a NUL, a control or an invisible character.
    pub fn subject_values(&self) -> Result<Vec<String>, NameError> {
        name::values(self.x509.subject_name())
    }
}
