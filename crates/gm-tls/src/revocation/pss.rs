//! Parameters of RSASSA-PSS signatures (RFC 4055 section 3.1). Only what is strong is read: one of three digests, MGF1 with the same one, and
//! the trailer field that there is. What is absent has defaults that stand for SHA-1, and is refused.

use der::{Decode, Tag, TagNumber, asn1::ObjectIdentifier};

use super::crl::{element, value};

pub(crate) const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const NULL: [u8; 2] = [0x05, 0];

/// A digest that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// What a signature was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) digest: Digest,
    /// Length of the salt in bytes. The verification takes no other.
    pub(crate) salt: u16,
}

impl Parameters {
    /// Reads RSASSA-PSS-params, which fill `der`. `None`: they are not understood, or too weak.
    pub(crate) fn read(der: &[u8]) -> Option<Parameters> {
        let (mut rest, after) = value(der, Tag::Sequence)?;
        let hash = take(&mut rest, 0).and_then(digest)?;
        let (mgf, none) = value(take(&mut rest, 1)?, Tag::Sequence)?;
        let (mask, of) = element(mgf, Tag::ObjectIdentifier)?;
        let mgf1 = ObjectIdentifier::from_der(mask).ok()? == MGF1 && digest(of)? == hash;
        let salt = match take(&mut rest, 2) {
            Some(salt) => u16::from_der(salt).ok()?,
            None => 20,
        };
        let trailer = match take(&mut rest, 3) {
            Some(trailer) => u16::from_der(trailer).ok()?,
            None => 1,
        };
        let whole = rest.is_empty() && after.is_empty() && none.is_empty();
        (whole && mgf1 && trailer == 1).then_some(Parameters { digest: hash, salt })
    }
}

/// The contents of the field with this number, if it is the next one.
fn take<'a>(rest: &mut &'a [u8], number: u8) -> Option<&'a [u8]> {
    let tag = Tag::ContextSpecific { constructed: true, number: TagNumber(number.into()) };
    let (contents, after) = value(rest, tag)?;
    *rest = after;
    Some(contents)
}

/// The digest that an AlgorithmIdentifier names.
fn digest(der: &[u8]) -> Option<Digest> {
    let (contents, after) = value(der, Tag::Sequence)?;
    let (identifier, parameters) = element(contents, Tag::ObjectIdentifier)?;
    if !after.is_empty() || !(parameters.is_empty() || parameters == NULL) {
        return None;
    }
    match ObjectIdentifier::from_der(identifier).ok()? {
        SHA256 => Some(Digest::Sha256),
        SHA384 => Some(Digest::Sha384),
        SHA512 => Some(Digest::Sha512),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        [&[tag, u8::try_from(contents.len()).unwrap()][..], &contents].concat()
    }

    fn algorithm(id: ObjectIdentifier, parameters: &[u8]) -> Vec<u8> {
        tlv(0x30, &[&tlv(0x06, &[id.as_bytes()]), parameters])
    }

    /// Parameters of a signature with these digests of the message and of MGF1, and a salt of this length.
    pub(crate) fn parameters(hash: &str, mgf: &str, salt: u8, trailer: &[u8]) -> Vec<u8> {
        let digest = |id: &str| algorithm(ObjectIdentifier::new(id).unwrap(), &NULL);
        let mask = algorithm(MGF1, &digest(mgf));
        tlv(0x30, &[&tlv(0xa0, &[&digest(hash)]), &tlv(0xa1, &[&mask]), &tlv(0xa2, &[&[2, 1, salt]]), trailer])
    }

    const SHA1: &str = "1.3.14.3.2.26";
    const SHA2: [(&str, Digest); 3] = [
        ("2.16.840.1.101.3.4.2.1", Digest::Sha256),
        ("2.16.840.1.101.3.4.2.2", Digest::Sha384),
        ("2.16.840.1.101.3.4.2.3", Digest::Sha512),
    ];

    #[test]
    fn strong_parameters_are_read_and_others_are_refused() {
        for (id, digest) in SHA2 {
            let read = Parameters::read(&parameters(id, id, 32, &[]));
            assert_eq!(read, Some(Parameters { digest, salt: 32 }));
            assert_eq!(
                Parameters::read(&parameters(id, id, 0, &[0xa3, 3, 2, 1, 1])),
                Some(Parameters { digest, salt: 0 })
            );
            assert_eq!(Parameters::read(&parameters(id, SHA1, 32, &[])), None, "MGF1 with SHA-1");
            assert_eq!(Parameters::read(&parameters(SHA1, id, 32, &[])), None, "SHA-1");
            assert_eq!(Parameters::read(&parameters(id, id, 32, &[0xa3, 3, 2, 1, 2])), None, "another trailer");
            assert_eq!(Parameters::read(&parameters(id, id, 0x80, &[])), None, "a negative salt");
        }
        assert_eq!(Parameters::read(&parameters(SHA2[0].0, SHA2[1].0, 32, &[])), None, "two digests");
        // The defaults are SHA-1.
        assert_eq!(Parameters::read(&[0x30, 0]), None);
        let good = parameters(SHA2[0].0, SHA2[0].0, 32, &[]);
        for length in 0..good.len() {
            assert_eq!(Parameters::read(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(Parameters::read(&[&good[..], &[0]].concat()), None);
    }
}
