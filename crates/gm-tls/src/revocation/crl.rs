//! One certificate revocation list: its bytes, and an index of eight bytes for each revoked certificate. What cannot be understood in
//! full is refused by name, since a list that is half understood would let revoked certificates pass.

use std::{fmt, ops::Range};

use bytes::Bytes;
use der::{Decode, Encode, Header, Reader, SliceReader, Tag, TagNumber, asn1::ObjectIdentifier};
use x509_cert::{
    ext::{
        Extensions,
        pkix::{IssuingDistributionPoint, name::DistributionPointName},
    },
    time::Time,
};

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const DELTA_CRL_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// The longest serial number that is read. RFC 5280 allows 20 bytes; some authorities took more.
const MAX_SERIAL_BYTES: usize = 64;

/// Why a revocation list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    #[error("it is {size} bytes long; at most {max} are taken")]
    TooLarge { size: usize, max: usize },
    #[error("it is not a revocation list: {0} cannot be decoded")]
    Malformed(&'static str),
    #[error("it is a delta list, which lists changes to another one; the complete list is needed")]
    Delta,
    #[error(
        "it is an indirect list, which speaks of certificates of several authorities; the list of the issuer itself is needed"
    )]
    Indirect,
    #[error("it lists revocations for some reasons only (onlySomeReasons); a list for all reasons is needed")]
    SomeReasons,
    #[error("it is about attribute certificates only")]
    AttributeCertificates,
    #[error("its distribution point is relative to the name of its issuer, which is not supported")]
    RelativeName,
    #[error("it has a critical extension that is not understood ({0})")]
    UnknownExtension(String),
    #[error("it was issued by \"{found}\" and not by \"{wanted}\", the issuer of the certificate")]
    OtherIssuer { found: String, wanted: String },
    #[error("\"{issuer}\" may not sign revocation lists: its key usage lacks cRLSign")]
    MayNotSign { issuer: String },
    #[error("its signature algorithm {0} is not supported or too weak")]
    Algorithm(String),
    #[error("its signature is not by \"{issuer}\"")]
    Signature { issuer: String },
}

/// Which certificates of its issuer a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    All,
    /// End entities only.
    Users,
    /// Authorities only.
    Authorities,
}

/// Why a certificate was revoked, RFC 5280 section 5.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u8);

impl Reason {
    pub fn from_code(code: u8) -> Reason {
        Reason(code)
    }

    /// The value of CRLReason.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Its name in RFC 5280.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "keyCompromise",
            2 => "cACompromise",
            3 => "affiliationChanged",
            4 => "superseded",
            5 => "cessationOfOperation",
            6 => "certificateHold",
            8 => "removeFromCRL",
            9 => "privilegeWithdrawn",
            10 => "aACompromise",
            _ => "unspecified",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a serial number stands in the list.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: u32,
    length: u8,
    reason: u8,
}

/// A revocation list. Its signature is checked by `verify`, which needs the issuer's certificate.
#[derive(Clone)]
#[cfg_attr(not(feature = "tongsuo"), expect(dead_code, reason = "signatures are checked by the library"))]
pub struct Crl {
    der: Bytes,
    tbs: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
    body: Body,
}

impl Crl {
    /// Reads a list that fills `der`.
    ///
    /// # Errors
    /// [`CrlError`]; nothing of a list that is refused can be used.
    pub fn from_der(der: Bytes, max: usize) -> Result<Crl, CrlError> {
        if der.len() > max.min(u32::MAX as usize) {
            return Err(CrlError::TooLarge { size: der.len(), max });
        }
        let malformed = CrlError::Malformed;
        let (list, rest) = value(&der, Tag::Sequence).ok_or(malformed("CertificateList"))?;
        if !rest.is_empty() {
            return Err(malformed("what follows the list"));
        }
        let (tbs, rest) = element(list, Tag::Sequence).ok_or(malformed("tbsCertList"))?;
        let (algorithm, rest) = element(rest, Tag::Sequence).ok_or(malformed("signatureAlgorithm"))?;
        let (bits, rest) = value(rest, Tag::BitString).ok_or(malformed("signatureValue"))?;
        // The first byte counts unused bits, of which a signature has none.
        let Some((0, signature)) = bits.split_first() else { return Err(malformed("signatureValue")) };
        if !rest.is_empty() {
            return Err(malformed("what follows the signature"));
        }
        let body = Body::read(&der, tbs, algorithm)?;
        let (tbs, algorithm, signature) = (range(&der, tbs), range(&der, algorithm), range(&der, signature));
        Ok(Crl { der, tbs, algorithm, signature, body })
    }

    /// Why the certificate with this serial number, the contents of its INTEGER, was revoked; `None` if the list does not name it.
    pub fn revoked(&self, serial: &[u8]) -> Option<Reason> {
        let serial = canonical(serial);
        let found = self.body.entries.binary_search_by(|entry| order(self.serial(entry)).cmp(&order(serial))).ok()?;
        self.body.entries.get(found).map(|entry| Reason(entry.reason))
    }

    /// Whether it speaks of a certificate: of that kind, and of one that names the distribution point that the list is confined to.
    /// The names are encoded, as [`Facts::points`](super::Facts::points).
    pub fn covers(&self, is_authority: bool, names: &[Vec<u8>]) -> bool {
        let kind = match self.body.scope {
            Scope::All => true,
            Scope::Users => !is_authority,
            Scope::Authorities => is_authority,
        };
        kind && (self.body.points.is_empty() || self.body.points.iter().any(|point| names.contains(point)))
    }

    /// Whether it is of the same authority, by name and key identifier, and about the same certificates, so that the newer of both holds.
    pub fn is_in_series_with(&self, other: &Crl) -> bool {
        self.issuer_der() == other.issuer_der()
            && self.body.authority_key == other.body.authority_key
            && self.body.scope == other.body.scope
            && self.body.points == other.body.points
    }

    pub fn scope(&self) -> Scope {
        self.body.scope
    }

    /// Unix seconds.
    pub fn this_update(&self) -> i64 {
        self.body.this_update
    }

    /// Unix seconds; without it the list never gets stale, and RFC 5280 section 5.1.2.5 does not allow that.
    pub fn next_update(&self) -> Option<i64> {
        self.body.next_update
    }

    /// Whether what it says holds at `now`, unix seconds: no later list should exist.
    pub fn is_current(&self, now: i64) -> bool {
        self.body.this_update <= now.saturating_add(super::CLOCK_SKEW_SECS)
            && self.body.next_update.is_some_and(|next| now < next)
    }

    /// Its CRLNumber in hexadecimal, if it has one.
    pub fn number(&self) -> Option<&str> {
        self.body.number.as_deref()
    }

    /// How many certificates it lists.
    pub fn len(&self) -> usize {
        self.body.entries.len()
    }

    /// The serial numbers of the certificates that it lists, without leading zeros.
    pub fn serials(&self) -> impl Iterator<Item = &[u8]> {
        self.body.entries.iter().map(|entry| self.serial(entry))
    }

    /// As [`serials`](Self::serials), with the time of each revocation in unix seconds and its reason.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], i64, Reason)> {
        self.body.entries.iter().map(|entry| {
            let after = (entry.at as usize).saturating_add(usize::from(entry.length));
            let since = self.der.get(after..).and_then(time).map_or(0, |(since, _)| since);
            (self.serial(entry), since, Reason(entry.reason))
        })
    }

    pub fn is_empty(&self) -> bool {
        self.body.entries.is_empty()
    }

    /// The whole list.
    pub fn as_der(&self) -> &Bytes {
        &self.der
    }

    /// Bytes that it takes in memory.
    pub fn memory(&self) -> usize {
        self.der.len() + std::mem::size_of_val(&*self.body.entries)
    }

    /// The encoded name of its issuer.
    pub fn issuer_der(&self) -> &[u8] {
        self.part(&self.body.issuer)
    }

    #[cfg(feature = "tongsuo")]
    pub(super) fn signed(&self) -> super::signature::Signed<'_> {
        super::signature::Signed {
            message: self.part(&self.tbs),
            algorithm: self.part(&self.algorithm),
            signature: self.part(&self.signature),
        }
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.der.get(range.clone()).unwrap_or_default()
    }

    fn serial(&self, entry: &Entry) -> &[u8] {
        let at = entry.at as usize;
        self.part(&(at..at + usize::from(entry.length)))
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Crl");
        debug.field("this_update", &self.body.this_update).field("next_update", &self.body.next_update);
        debug.field("entries", &self.body.entries.len()).finish_non_exhaustive()
    }
}

/// What is read of tbsCertList.
#[derive(Clone)]
struct Body {
    issuer: Range<usize>,
    this_update: i64,
    next_update: Option<i64>,
    number: Option<String>,
    scope: Scope,
    /// Names of the distribution point that the list is confined to, encoded. Empty: it is not confined.
    points: Vec<Vec<u8>>,
    /// Its authorityKeyIdentifier, encoded.
    authority_key: Option<Box<[u8]>>,
    /// Ordered by serial number.
    entries: Box<[Entry]>,
}

impl Body {
    fn read(der: &[u8], tbs: &[u8], algorithm: &[u8]) -> Result<Body, CrlError> {
        let malformed = CrlError::Malformed;
        let (body, _) = value(tbs, Tag::Sequence).ok_or(malformed("tbsCertList"))?;
        // An INTEGER of one byte with the value 1: version 2.
        let version2 = element(body, Tag::Integer);
        let rest = match version2 {
            Some(([_, 1, 1], rest)) => rest,
            Some(_) => return Err(malformed("version")),
            None => body,
        };
        let (inner, rest) = element(rest, Tag::Sequence).ok_or(malformed("signature"))?;
        if inner != algorithm {
            return Err(malformed("signature, which differs inside and outside of what is signed,"));
        }
        let (issuer, rest) = element(rest, Tag::Sequence).ok_or(malformed("issuer"))?;
        let (this_update, mut rest) = time(rest).ok_or(malformed("thisUpdate"))?;
        let mut next_update = None;
        if let Some((next, after)) = time(rest) {
            (next_update, rest) = (Some(next), after);
        }
        let mut entries = Vec::new();
        if let Some((mut list, after)) = value(rest, Tag::Sequence) {
            rest = after;
            while !list.is_empty() {
                let (entry, after) = value(list, Tag::Sequence).ok_or(malformed("revokedCertificates"))?;
                list = after;
                entries.push(read_entry(der, entry)?);
            }
        }
        let serial = |entry: &Entry| {
            let at = entry.at as usize;
            der.get(at..at + usize::from(entry.length)).unwrap_or_default()
        };
        entries.sort_unstable_by(|one, other| order(serial(one)).cmp(&order(serial(other))));
        let extensions = TagNumber(0);
        let tag = Tag::ContextSpecific { constructed: true, number: extensions };
        let (mut number, mut scope, mut points, mut authority_key) = (None, Scope::All, Vec::new(), None);
        if let Some((list, after)) = value(rest, tag) {
            rest = after;
            if version2.is_none() {
                return Err(malformed("version, which must be 2 in a list with extensions,"));
            }
            for extension in Extensions::from_der(list).map_err(|_| malformed("crlExtensions"))? {
                let contents = extension.extn_value.as_bytes();
                match extension.extn_id {
                    CRL_NUMBER => {
                        let (digits, _) = value(contents, Tag::Integer).ok_or(malformed("cRLNumber"))?;
                        number = Some(digits.iter().take(MAX_SERIAL_BYTES).map(|byte| format!("{byte:02x}")).collect());
                    }
                    DELTA_CRL_INDICATOR => return Err(CrlError::Delta),
                    ISSUING_DISTRIBUTION_POINT => (scope, points) = read_point(contents)?,
                    AUTHORITY_KEY_IDENTIFIER => authority_key = Some(contents.into()),
                    other if extension.critical => return Err(CrlError::UnknownExtension(other.to_string())),
                    _ => {}
                }
            }
        }
        if !rest.is_empty() {
            return Err(malformed("what follows the extensions"));
        }
        let (issuer, entries) = (range(der, issuer), entries.into_boxed_slice());
        Ok(Body { issuer, this_update, next_update, number, scope, points, authority_key, entries })
    }
}

fn read_entry(der: &[u8], entry: &[u8]) -> Result<Entry, CrlError> {
    let malformed = || CrlError::Malformed("revokedCertificates");
    let (serial, rest) = value(entry, Tag::Integer).ok_or_else(malformed)?;
    let serial = canonical(serial);
    if serial.len() > MAX_SERIAL_BYTES {
        return Err(malformed());
    }
    let (_, rest) = time(rest).ok_or_else(malformed)?;
    let mut reason = 0;
    if !rest.is_empty() {
        for extension in Extensions::from_der(rest).map_err(|_| malformed())? {
            match extension.extn_id {
                REASON_CODE => {
                    let (code, _) = value(extension.extn_value.as_bytes(), Tag::Enumerated).ok_or_else(malformed)?;
                    reason = code.first().copied().unwrap_or_default();
                }
                CERTIFICATE_ISSUER => return Err(CrlError::Indirect),
                other if extension.critical => return Err(CrlError::UnknownExtension(other.to_string())),
                _ => {}
            }
        }
    }
    let at = u32::try_from(range(der, serial).start).map_err(|_| malformed())?;
    let length = u8::try_from(serial.len()).map_err(|_| malformed())?;
    Ok(Entry { at, length, reason })
}

fn read_point(contents: &[u8]) -> Result<(Scope, Vec<Vec<u8>>), CrlError> {
    let malformed = || CrlError::Malformed("issuingDistributionPoint");
    let point = IssuingDistributionPoint::from_der(contents).map_err(|_| malformed())?;
    if point.indirect_crl {
        return Err(CrlError::Indirect);
    }
    if point.only_some_reasons.is_some() {
        return Err(CrlError::SomeReasons);
    }
    let scope = match (point.only_contains_user_certs, point.only_contains_ca_certs) {
        _ if point.only_contains_attribute_certs => return Err(CrlError::AttributeCertificates),
        (false, false) => Scope::All,
        (true, false) => Scope::Users,
        (false, true) => Scope::Authorities,
        (true, true) => return Err(malformed()),
    };
    let names = match point.distribution_point {
        None => return Ok((scope, Vec::new())),
        Some(DistributionPointName::FullName(names)) if !names.is_empty() => names,
        Some(DistributionPointName::FullName(_)) => return Err(malformed()),
        Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => return Err(CrlError::RelativeName),
    };
    let names: Result<Vec<Vec<u8>>, _> = names.iter().map(Encode::to_der).collect();
    Ok((scope, names.map_err(|_| malformed())?))
}

/// The first element of `input` with its header, and what follows it; `None` if it is no element with this tag.
pub(crate) fn element(input: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (_, whole, rest) = split(input, tag)?;
    Some((whole, rest))
}

/// As [`element`], without the header.
pub(crate) fn value(input: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (contents, _, rest) = split(input, tag)?;
    Some((contents, rest))
}

fn split(input: &[u8], tag: Tag) -> Option<(&[u8], &[u8], &[u8])> {
    let mut reader = SliceReader::new(input).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    if header.tag() != tag {
        return None;
    }
    let start = usize::try_from(reader.position()).ok()?;
    let end = start.checked_add(usize::try_from(header.length()).ok()?)?;
    Some((input.get(start..end)?, input.get(..end)?, input.get(end..)?))
}

fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    let found = element(input, Tag::UtcTime).or_else(|| element(input, Tag::GeneralizedTime));
    let (whole, rest) = found?;
    let time = Time::from_der(whole).ok()?;
    Some((i64::try_from(time.to_unix_duration().as_secs()).ok()?, rest))
}

/// A number without the leading zeros that say that it is positive, and those that should not be there.
pub(super) fn canonical(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// Any order will do if it is total; this one compares few bytes.
fn order(serial: &[u8]) -> (usize, &[u8]) {
    (serial.len(), serial)
}

/// Where `part`, a slice of `whole`, begins and ends.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}
