//! Distinguished names as text (RFC 4514), without ambiguity: what cannot be shown faithfully is shown in hexadecimal.

use openssl::asn1::Asn1StringRef;
use openssl::foreign_types::ForeignTypeRef;
use openssl::nid::Nid;
use openssl::x509::{X509NameEntryRef, X509NameRef};

unsafe extern "C" {
    /// Index of the relative distinguished name an entry belongs to; not declared by the bindings.
    fn X509_NAME_ENTRY_set(entry: *const openssl_sys::X509_NAME_ENTRY) -> std::ffi::c_int;
}

/// Why a name identifies nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("there is more than one such name")]
    Several,
    #[error("the name holds a NUL, a control or an invisible character, or is not valid text")]
    Deceptive,
}

/// Types written by name; RFC 4514 section 3 and the LDAP descriptors of RFC 4519. All others appear as dotted numbers.
const DESCRIPTORS: [(Nid, &str); 14] = [
    (Nid::COMMONNAME, "CN"),
    (Nid::LOCALITYNAME, "L"),
    (Nid::STATEORPROVINCENAME, "ST"),
    (Nid::ORGANIZATIONNAME, "O"),
    (Nid::ORGANIZATIONALUNITNAME, "OU"),
    (Nid::COUNTRYNAME, "C"),
    (Nid::STREETADDRESS, "STREET"),
    (Nid::DOMAINCOMPONENT, "DC"),
    (Nid::USERID, "UID"),
    (Nid::SURNAME, "SN"),
    (Nid::GIVENNAME, "GN"),
    (Nid::SERIALNUMBER, "serialNumber"),
    (Nid::TITLE, "title"),
    (Nid::PKCS9_EMAILADDRESS, "emailAddress"),
];

pub(crate) fn rfc4514(name: &X509NameRef) -> String {
    let mut text = String::new();
    let entries: Vec<_> = name.entries().collect();
    let mut previous = None;
    for entry in entries.into_iter().rev() {
        // SAFETY: the entry is alive for as long as `name` is borrowed, and the function only reads it.
        let group = unsafe { X509_NAME_ENTRY_set(entry.as_ptr()) };
        match previous.replace(group) {
            None => {}
            Some(previous) if previous == group => text.push('+'),
            Some(_) => text.push(','),
        }
        append(&mut text, entry);
    }
    text
}

pub(super) fn common_name(name: &X509NameRef) -> Result<Option<String>, NameError> {
    let mut entries = name.entries_by_nid(Nid::COMMONNAME);
    let Some(entry) = entries.next() else { return Ok(None) };
    if entries.next().is_some() {
        return Err(NameError::Several);
    }
    let value = entry.data().to_string().map_err(|_| NameError::Deceptive)?;
    if value.is_empty() || value.chars().any(|c| c == char::REPLACEMENT_CHARACTER || is_deceptive(c)) {
        return Err(NameError::Deceptive);
    }
    Ok(Some(value))
}

/// The values of a name in their order, each readable in one way only.
pub(super) fn values(name: &X509NameRef) -> Result<Vec<String>, NameError> {
    let readable = |entry: &X509NameEntryRef| {
        let value = entry.data().to_string().map_err(|_| NameError::Deceptive)?;
        let deceptive = value.chars().any(|c| c == char::REPLACEMENT_CHARACTER || is_deceptive(c));
        if deceptive { Err(NameError::Deceptive) } else { Ok(value) }
    };
    name.entries().map(readable).collect()
}

fn append(text: &mut String, entry: &X509NameEntryRef) {
    let nid = entry.object().nid();
    let descriptor = DESCRIPTORS.iter().find(|(known, _)| *known == nid).map(|(_, descriptor)| *descriptor);
    match (descriptor, entry.data().to_string()) {
        (Some(descriptor), Ok(value)) if !value.contains(char::REPLACEMENT_CHARACTER) => {
            text.push_str(descriptor);
            text.push('=');
            append_escaped(text, &value);
        }
        _ => {
            text.push_str(&entry.object().to_string());
            text.push_str("=#");
            text.push_str(&super::hex(&encoded(entry.data())));
        }
    }
}

/// DER of a value: RFC 4514 writes the whole encoding, so that values of different types differ.
fn encoded(value: &Asn1StringRef) -> Vec<u8> {
    // SAFETY: the value is alive for as long as it is borrowed, and the function only reads its type.
    let tag = unsafe { openssl_sys::ASN1_STRING_type(value.as_ptr()) };
    let bytes = value.as_slice();
    let mut der = vec![u8::try_from(tag).unwrap_or(0)];
    match u8::try_from(bytes.len()) {
        Ok(len @ 0..=0x7f) => der.push(len),
        _ => {
            let len = bytes.len().to_be_bytes();
            let significant: Vec<u8> = len.into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
            der.extend(significant);
        }
    }
    der.extend_from_slice(bytes);
    der
}

/// RFC 4514 section 2.4, and a hexadecimal pair for every byte of a character that a terminal hides or obeys.
fn append_escaped(text: &mut String, value: &str) {
    use std::fmt::Write;
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let at_edge = (index == 0 && matches!(c, ' ' | '#')) || (index == last && c == ' ');
        if at_edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            text.push('\\');
            text.push(c);
        } else if is_deceptive(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{byte:02X}");
            }
        } else {
            text.push(c);
        }
    }
}

/// Control characters, and those that are invisible or reorder the text around them.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
