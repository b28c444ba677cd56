//! The binary header of version 2 and its type-length-value list (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyError, ProxyHeader, ProxyParse, ProxyTls, V2_SIGNATURE};

const FIXED_LEN: usize = V2_SIGNATURE.len() + 4;
const VERSION: u8 = 2;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;

const FAMILY_UNSPECIFIED: u8 = 0x00;
const FAMILY_TCP4: u8 = 0x11;
const FAMILY_TCP6: u8 = 0x21;
const FAMILY_UNIX_STREAM: u8 = 0x31;
const UNIX_ADDRESSES_LEN: usize = 2 * 108;

const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_VERSION: u8 = 0x21;
const SUBTYPE_COMMON_NAME: u8 = 0x22;
const SUBTYPE_CIPHER: u8 = 0x23;
const SUBTYPE_SIGNATURE_ALGORITHM: u8 = 0x24;
const SUBTYPE_KEY_ALGORITHM: u8 = 0x25;

const MAX_AUTHORITY_LEN: usize = 255;
const MAX_ALPN_LEN: usize = 255;
const MAX_UNIQUE_ID_LEN: usize = 128;

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONNECTION: u8 = 0x02;
const CLIENT_CERT_SESSION: u8 = 0x04;

/// `prefix` begins with the signature. The fixed bytes are judged one by one, the rest when all of it is there.
pub(super) fn parse(prefix: &[u8], max_len: usize) -> Result<ProxyParse, ProxyError> {
    let fixed = prefix.get(V2_SIGNATURE.len()..).unwrap_or(&[]);
    let Some(&version_command) = fixed.first() else { return Ok(ProxyParse::NeedMore) };
    let (version, command) = (version_command >> 4, version_command & 0x0f);
    if version != VERSION {
        return Err(ProxyError::Version { version });
    }
    if !matches!(command, COMMAND_LOCAL | COMMAND_PROXY) {
        return Err(ProxyError::Command { command });
    }
    let Some(&family) = fixed.get(1) else { return Ok(ProxyParse::NeedMore) };
    let is_known = matches!(family, FAMILY_UNSPECIFIED | FAMILY_TCP4 | FAMILY_TCP6 | FAMILY_UNIX_STREAM);
    // LOCAL voids the family with everything behind it.
    if command == COMMAND_PROXY && !is_known {
        return Err(ProxyError::Family { family });
    }
    let &[_, _, high, low, ..] = fixed else { return Ok(ProxyParse::NeedMore) };
    let wire_len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if wire_len > max_len {
        return Err(ProxyError::TooLong { length: wire_len, limit: max_len });
    }
    let Some(whole) = prefix.get(..wire_len) else { return Ok(ProxyParse::NeedMore) };
    let mut header = ProxyHeader { local: command == COMMAND_LOCAL, wire_len, ..ProxyHeader::default() };
    if command == COMMAND_PROXY && family != FAMILY_UNSPECIFIED {
        let body = whole.get(FIXED_LEN..).unwrap_or(&[]);
        let values = addresses(family, body, &mut header).ok_or(ProxyError::AddressesTruncated)?;
        read_values(whole, values, &mut header)?;
    }
    Ok(ProxyParse::Header(header))
}

/// Takes the addresses off the front of `body` and returns what follows them; `None` if it is too short.
fn addresses<'a>(family: u8, body: &'a [u8], header: &mut ProxyHeader) -> Option<&'a [u8]> {
    let rest = match family {
        FAMILY_TCP4 => {
            let (source, rest) = body.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            endpoints(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest, header)?
        }
        FAMILY_TCP6 => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            endpoints(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest, header)?
        }
        // The paths of local sockets name no client.
        _ => body.get(UNIX_ADDRESSES_LEN..)?,
    };
    Some(rest)
}

fn endpoints<'a>(source: IpAddr, destination: IpAddr, ports: &'a [u8], header: &mut ProxyHeader) -> Option<&'a [u8]> {
    let (source_port, rest) = ports.split_first_chunk::<2>()?;
    let (destination_port, rest) = rest.split_first_chunk::<2>()?;
    header.source = Some(SocketAddr::new(source, u16::from_be_bytes(*source_port)));
    header.destination = Some(SocketAddr::new(destination, u16::from_be_bytes(*destination_port)));
    Some(rest)
}

fn read_values(whole: &[u8], mut values: &[u8], header: &mut ProxyHeader) -> Result<(), ProxyError> {
    let mut seen = Seen::default();
    while !values.is_empty() {
        let (kind, value) = next_value(&mut values)?;
        match kind {
            TYPE_ALPN => {
                seen.note(kind)?;
                if value.is_empty() || value.len() > MAX_ALPN_LEN {
                    return Err(ProxyError::ValueLength { kind });
                }
                header.alpn = Some(value.to_vec());
            }
            TYPE_AUTHORITY => {
                seen.note(kind)?;
                if value.len() > MAX_AUTHORITY_LEN {
                    return Err(ProxyError::ValueLength { kind });
                }
                header.authority = Some(text(kind, value)?);
            }
            TYPE_CRC32C => {
                seen.note(kind)?;
                let expected = value.try_into().ok().map(u32::from_be_bytes);
                let expected = expected.ok_or(ProxyError::ValueLength { kind })?;
                let offset = whole.len() - values.len() - value.len();
                if crc32c_without(whole, offset..offset + value.len()) != expected {
                    return Err(ProxyError::Checksum);
                }
            }
            TYPE_UNIQUE_ID if value.len() > MAX_UNIQUE_ID_LEN => return Err(ProxyError::ValueLength { kind }),
            TYPE_SSL => {
                seen.note(kind)?;
                header.tls = tls(value)?;
            }
            // Types that are not known, and those without meaning for a broker, are to be passed over.
            _ => {}
        }
    }
    Ok(())
}

fn tls(value: &[u8]) -> Result<Option<ProxyTls>, ProxyError> {
    let &[client, v0, v1, v2, v3, ref values @ ..] = value else {
        return Err(ProxyError::ValueLength { kind: TYPE_SSL });
    };
    let has_certificate = client & (CLIENT_CERT_CONNECTION | CLIENT_CERT_SESSION) != 0;
    let mut tls = ProxyTls {
        verified: has_certificate && u32::from_be_bytes([v0, v1, v2, v3]) == 0,
        version: None,
        common_name: None,
        cipher: None,
        signature_algorithm: None,
        key_algorithm: None,
    };
    let mut values = values;
    let mut seen = Seen::default();
    while !values.is_empty() {
        let (kind, value) = next_value(&mut values)?;
        let field = match kind {
            SUBTYPE_VERSION => &mut tls.version,
            SUBTYPE_COMMON_NAME => &mut tls.common_name,
            SUBTYPE_CIPHER => &mut tls.cipher,
            SUBTYPE_SIGNATURE_ALGORITHM => &mut tls.signature_algorithm,
            SUBTYPE_KEY_ALGORITHM => &mut tls.key_algorithm,
            _ => continue,
        };
        seen.note(kind)?;
        *field = Some(text(kind, value)?);
    }
    // A name without a certificate, or a certificate without TLS, would let a confused proxy vouch for nobody.
    if tls.common_name.is_some() && !has_certificate {
        return Err(ProxyError::ContradictoryTls);
    }
    if client & CLIENT_SSL == 0 {
        let is_bare = !has_certificate && tls.version.is_none() && tls.cipher.is_none();
        return if is_bare { Ok(None) } else { Err(ProxyError::ContradictoryTls) };
    }
    Ok(Some(tls))
}

/// Takes one type-length-value off the front of `values`.
fn next_value<'a>(values: &mut &'a [u8]) -> Result<(u8, &'a [u8]), ProxyError> {
    let (&kind, rest) = values.split_first().ok_or(ProxyError::ValueOverrun { kind: 0 })?;
    let overrun = ProxyError::ValueOverrun { kind };
    let (length, rest) = rest.split_first_chunk().ok_or(overrun)?;
    let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(overrun)?;
    *values = rest;
    Ok((kind, value))
}

fn text(kind: u8, value: &[u8]) -> Result<String, ProxyError> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(ProxyError::Text { kind }),
    }
}

/// The types met so far: all that may occur once are below 64.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    fn note(&mut self, kind: u8) -> Result<(), ProxyError> {
        let bit = 1u64 << (kind & 63);
        if self.0 & bit != 0 {
            return Err(ProxyError::Duplicate { kind });
        }
        self.0 |= bit;
        Ok(())
    }
}

/// CRC-32C (RFC 4960 appendix B) of `bytes`, those in `zeroed` taken as zero.
pub(super) fn crc32c_without(bytes: &[u8], zeroed: std::ops::Range<usize>) -> u32 {
    const REFLECTED_CASTAGNOLI: u32 = 0x82f6_3b78;
    !bytes.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let byte = if zeroed.contains(&at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (REFLECTED_CASTAGNOLI & (crc & 1).wrapping_neg()))
    })
}
