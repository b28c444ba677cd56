//! What a context asks of certificates beyond what the library asks: national algorithms alone, and extended key usages.

use std::fmt;
use std::ptr;

use openssl::asn1::Asn1Object;
use openssl::foreign_types::{ForeignType, ForeignTypeRef};
use openssl::stack::Stack;
use openssl::x509::X509Ref;

use crate::cert::{Certificate, KeyKind, KeyUsage};

/// SM2 with SM3, 1.2.156.10197.1.501 (GB/T 33560-2017), as an object identifier is encoded.
const SM2_WITH_SM3: [u8; 8] = [0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x83, 0x75];

/// An extended key usage that a peer's certificate must have.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPurpose {
    name: Box<str>,
    encoded: Box<[u8]>,
}

impl KeyPurpose {
    /// The names of RFC 5280 section 4.2.1.12, as configuration writes them.
    pub const NAMES: [&str; 6] =
        ["clientAuth", "serverAuth", "codeSigning", "emailProtection", "timeStamping", "ocspSigning"];

    /// One of [`NAMES`](Self::NAMES), or an object identifier such as `OID:1.3.6.1.5.5.7.3.2`.
    pub fn from_name(name: &str) -> Option<KeyPurpose> {
        let number = match name.strip_prefix("OID:") {
            Some(number) => number.to_owned(),
            None => format!(
                "1.3.6.1.5.5.7.3.{}",
                [2, 1, 3, 4, 8, 9].get(Self::NAMES.iter().position(|known| *known == name)?)?
            ),
        };
        let is_number = number.len() <= 256
            && number.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if !is_number {
            return None;
        }
        crate::init();
        let object = Asn1Object::from_str(&number).ok();
        // A failed attempt leaves errors that the next call would take for its own.
        let _ = openssl::error::ErrorStack::get();
        Some(KeyPurpose { name: name.into(), encoded: object?.as_slice().into() })
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPurpose({})", self.name)
    }
}

/// What is asked of the chains of peers, besides that they are valid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Every certificate must be of SM2 and SM3.
    pub(crate) gm_only: bool,
    /// The peer's own certificate must be one that RFC 8998 section 3.4.1 lets a server have: an SM2 key that may sign, and an issuer
    /// that signs by SM2 with SM3.
    pub(crate) rfc8998: bool,
    /// All of them must be in the certificate that authenticates the peer.
    pub(crate) purposes: Vec<KeyPurpose>,
}

impl Policy {
    /// The first of the purposes that a certificate does not have.
    pub(crate) fn missing_purpose(&self, certificate: &X509Ref) -> Option<&KeyPurpose> {
        if self.purposes.is_empty() {
            return None;
        }
        let found = purposes(certificate);
        self.purposes.iter().find(|wanted| !found.contains(&wanted.encoded))
    }
}

/// What keeps a certificate from authenticating a server by RFC 8998, section 3.4.1.
pub(crate) fn unfit_for_rfc8998(certificate: &Certificate) -> Option<&'static str> {
    if !is_gm(certificate) {
        return Some("its key and the signature on it must be of SM2 with SM3, by RFC 8998");
    }
    // A certificate that says nothing of its use may sign.
    let signs = certificate.key_usage().is_none_or(|usage| usage.contains(KeyUsage::DIGITAL_SIGNATURE));
    (!signs).then_some("its key usage lacks digitalSignature, which RFC 8998 asks for")
}

/// Whether a certificate has an SM2 key and an SM2 signature with SM3.
pub fn is_gm(certificate: &Certificate) -> bool {
    is_gm_x509(certificate.x509()) && certificate.key_kind() == KeyKind::Sm2
}

/// As [`is_gm`].
pub(crate) fn is_gm_x509(certificate: &X509Ref) -> bool {
    let signed = certificate.signature_algorithm().object().to_owned().as_slice() == SM2_WITH_SM3;
    signed && certificate.public_key().is_ok_and(|key| KeyKind::of(&key) == KeyKind::Sm2)
}

/// The extended key usages of a certificate, encoded.
fn purposes(certificate: &X509Ref) -> Vec<Box<[u8]>> {
    // SAFETY: the certificate is live; the function returns null, or an object of the extension's type that the caller owns.
    let found = unsafe {
        openssl_sys::X509_get_ext_d2i(
            certificate.as_ptr(),
            openssl_sys::NID_ext_key_usage,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if found.is_null() {
        return Vec::new();
    }
    // SAFETY: checked for null; for this extension the type is a stack of object identifiers, which is freed with the value.
    let stack: Stack<Asn1Object> = unsafe { Stack::from_ptr(found.cast()) };
    stack.iter().map(|object| object.to_owned().as_slice().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_purposes_mean_the_same() {
        for (name, number) in KeyPurpose::NAMES.into_iter().zip(["2", "1", "3", "4", "8", "9"]) {
            let by_name = KeyPurpose::from_name(name).unwrap();
            let by_number = KeyPurpose::from_name(&format!("OID:1.3.6.1.5.5.7.3.{number}")).unwrap();
            assert_eq!(by_name.encoded, by_number.encoded, "{name}");
        }
        for wrong in ["", "clientauth", "OID:", "OID:1..2", "OID:9.9", "OID:1.2\u{0}", "1.2.3", "OID:clientAuth"] {
            assert!(KeyPurpose::from_name(wrong).is_none(), "{wrong:?}");
        }
    }
}
