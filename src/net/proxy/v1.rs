//! The one-line header of version 1 (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAX_V1_LEN, ProxyError, ProxyHeader, ProxyParse, V1_SIGNATURE};

pub(super) fn parse(prefix: &[u8]) -> Result<ProxyParse, ProxyError> {
    let window = prefix.get(..MAX_V1_LEN).unwrap_or(prefix);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == MAX_V1_LEN { Err(ProxyError::V1TooLong) } else { Ok(ProxyParse::NeedMore) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ProxyError::V1LineEnd)?;
    let fields = line.strip_prefix(V1_SIGNATURE).ok_or(ProxyError::V1Malformed)?;
    if fields.iter().any(u8::is_ascii_control) {
        return Err(ProxyError::V1Malformed);
    }
    let fields = std::str::from_utf8(fields).map_err(|_| ProxyError::V1Malformed)?;
    let mut header = ProxyHeader { wire_len: end + 1, ..ProxyHeader::default() };
    // Behind UNKNOWN anything may follow, and is to be passed over.
    if fields != "UNKNOWN" && !fields.starts_with("UNKNOWN ") {
        let (source, destination) = addresses(fields)?;
        header.source = Some(source);
        header.destination = Some(destination);
    }
    Ok(ProxyParse::Header(header))
}

fn addresses(fields: &str) -> Result<(SocketAddr, SocketAddr), ProxyError> {
    let mut fields = fields.split(' ');
    let mut next = || fields.next().ok_or(ProxyError::V1Malformed);
    let address: fn(&str) -> Option<IpAddr> = match next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(ProxyError::V1Protocol),
    };
    let (source, destination, source_port, destination_port) = (next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err(ProxyError::V1Malformed);
    }
    let source = address(source).ok_or(ProxyError::V1Address { field: "source address" })?;
    let destination = address(destination).ok_or(ProxyError::V1Address { field: "destination address" })?;
    let source_port = port(source_port).ok_or(ProxyError::V1Address { field: "source port" })?;
    let destination_port = port(destination_port).ok_or(ProxyError::V1Address { field: "destination port" })?;
    Ok((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))
}

/// Decimal without sign and leading zeros, as the section demands.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
