//! Decodes a reassembled ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2, GB/T 38636-2020 clause 6.4.5.2.1).

use std::net::IpAddr;

use super::error::HelloError;
use super::record::Message;
use super::{ClientHello, TLCP_VERSION};

const RANDOM_LEN: usize = 32;
const MAX_SESSION_ID_LEN: usize = 32;
const NULL_COMPRESSION: u8 = 0;
const HOST_NAME: u8 = 0;
const MAX_HOST_NAME_LEN: usize = 255;
const MAX_LABEL_LEN: usize = 63;

const EXT_SERVER_NAME: u16 = 0;
const EXT_SUPPORTED_GROUPS: u16 = 10;
const EXT_SIGNATURE_ALGORITHMS: u16 = 13;
const EXT_ALPN: u16 = 16;
const EXT_PRE_SHARED_KEY: u16 = 41;
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const EXT_KEY_SHARE: u16 = 51;

pub(super) fn decode(message: &Message<'_>) -> Result<ClientHello, HelloError> {
    let mut body = Reader(&message.body);
    let client_version = body.u16("client_version")?;
    check_versions(message.record_version, client_version)?;
    body.take(RANDOM_LEN, "random")?;
    let session_id = body.vector_u8("session_id")?;
    if session_id.0.len() > MAX_SESSION_ID_LEN {
        return Err(HelloError::SessionIdTooLong { length: session_id.0.len() });
    }
    let suites = suites(body.vector_u16("cipher_suites")?)?;
    if !body.vector_u8("compression_methods")?.0.contains(&NULL_COMPRESSION) {
        return Err(HelloError::NoNullCompression);
    }
    let mut hello = ClientHello {
        record_version: message.record_version,
        client_version,
        suites,
        sni: None,
        alpn: Vec::new(),
        groups: Vec::new(),
        key_share_groups: Vec::new(),
        signature_algorithms: Vec::new(),
        supported_versions: Vec::new(),
        extensions: Vec::new(),
        session_id_len: session_id.0.len(),
        wire_len: message.wire_len,
    };
    // A hello of TLS 1.2 or TLCP may end here, without even the length of a list of extensions.
    if !body.is_empty() {
        extensions(body.vector_u16("extensions")?, &mut hello)?;
        body.finish("extensions")?;
    }
    Ok(hello)
}

/// The record header alone decides which protocol answers, and it is not part of the transcript that the handshake
/// authenticates. So it must agree with the version inside, which is.
fn check_versions(record: u16, client: u16) -> Result<(), HelloError> {
    if (record == TLCP_VERSION) != (client == TLCP_VERSION) {
        return Err(HelloError::VersionMismatch { record, client });
    }
    if record != TLCP_VERSION && client >> 8 != 3 {
        return Err(HelloError::UnknownClientVersion { version: client });
    }
    Ok(())
}

fn suites(list: Reader<'_>) -> Result<Vec<u16>, HelloError> {
    let (pairs, odd) = list.0.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(HelloError::OddSuites { length: list.0.len() });
    }
    if pairs.is_empty() {
        return Err(HelloError::NoSuites);
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

fn extensions(mut list: Reader<'_>, hello: &mut ClientHello) -> Result<(), HelloError> {
    while !list.is_empty() {
        let extension = list.u16("extension type")?;
        let data = list.vector_u16("extension")?;
        hello.extensions.push(extension);
        match extension {
            EXT_SERVER_NAME => hello.sni = server_name(data)?,
            EXT_SUPPORTED_GROUPS => hello.groups = data.only_list_u16(Reader::vector_u16, "supported_groups")?,
            EXT_SIGNATURE_ALGORITHMS => {
                hello.signature_algorithms = data.only_list_u16(Reader::vector_u16, "signature_algorithms")?;
            }
            EXT_ALPN => hello.alpn = alpn(data)?,
            EXT_SUPPORTED_VERSIONS => {
                hello.supported_versions = data.only_list_u16(Reader::vector_u8, "supported_versions")?;
            }
            EXT_KEY_SHARE => hello.key_share_groups = key_share(data)?,
            EXT_PRE_SHARED_KEY if !list.is_empty() => return Err(HelloError::PreSharedKeyNotLast),
            _ => {}
        }
    }
    // Sorted, so that four thousand empty extensions cost no quadratic search.
    let mut sorted = hello.extensions.clone();
    sorted.sort_unstable();
    match sorted.windows(2).find_map(|pair| if let [a, b] = pair { (a == b).then_some(*a) } else { None }) {
        Some(extension) => Err(HelloError::DuplicateExtension { extension }),
        None => Ok(()),
    }
}

/// RFC 6066 section 3. Names of other types than host_name are passed over, as that section lays out their form too.
fn server_name(mut data: Reader<'_>) -> Result<Option<String>, HelloError> {
    const FIELD: &str = "server_name";
    let mut list = data.vector_u16(FIELD)?;
    data.finish(FIELD)?;
    if list.is_empty() {
        return Err(HelloError::BadLength { field: FIELD });
    }
    let mut found = None;
    while !list.is_empty() {
        let name_type = list.u8(FIELD)?;
        let name = list.vector_u16(FIELD)?.0;
        if name_type != HOST_NAME {
            continue;
        }
        if found.is_some() {
            return Err(HelloError::SeveralHostNames);
        }
        found = Some(host_name(name)?);
    }
    Ok(found)
}

/// Addresses are not allowed in server_name, but clients send them; they match no name and do no harm.
fn host_name(name: &[u8]) -> Result<String, HelloError> {
    if name.len() > MAX_HOST_NAME_LEN {
        return Err(HelloError::HostNameTooLong { length: name.len() });
    }
    let name = std::str::from_utf8(name).map_err(|_| HelloError::BadHostName)?;
    let is_label = |label: &str| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.split('.').all(is_label) || name.parse::<IpAddr>().is_ok() {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(HelloError::BadHostName)
    }
}

/// RFC 7301 section 3.1.
fn alpn(mut data: Reader<'_>) -> Result<Vec<Vec<u8>>, HelloError> {
    const FIELD: &str = "application_layer_protocol_negotiation";
    let mut list = data.vector_u16(FIELD)?;
    data.finish(FIELD)?;
    let mut names = Vec::new();
    while !list.is_empty() {
        let name = list.vector_u8(FIELD)?.0;
        if name.is_empty() {
            return Err(HelloError::BadLength { field: FIELD });
        }
        names.push(name.to_vec());
    }
    if names.is_empty() { Err(HelloError::BadLength { field: FIELD }) } else { Ok(names) }
}

/// RFC 8446 section 4.2.8. An empty list is allowed: it asks for a HelloRetryRequest.
fn key_share(mut data: Reader<'_>) -> Result<Vec<u16>, HelloError> {
    const FIELD: &str = "key_share";
    let mut list = data.vector_u16(FIELD)?;
    data.finish(FIELD)?;
    let mut groups = Vec::new();
    while !list.is_empty() {
        groups.push(list.u16(FIELD)?);
        if list.vector_u16(FIELD)?.is_empty() {
            return Err(HelloError::BadLength { field: FIELD });
        }
    }
    Ok(groups)
}

/// Reads big-endian fields off the front of a slice.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(HelloError::Truncated { field })?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, HelloError> {
        let (&byte, rest) = self.0.split_first().ok_or(HelloError::Truncated { field })?;
        self.0 = rest;
        Ok(byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, HelloError> {
        let (&bytes, rest) = self.0.split_first_chunk().ok_or(HelloError::Truncated { field })?;
        self.0 = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    fn vector_u8(&mut self, field: &'static str) -> Result<Reader<'a>, HelloError> {
        let length = self.u8(field)?;
        self.take(length.into(), field).map(Reader)
    }

    fn vector_u16(&mut self, field: &'static str) -> Result<Reader<'a>, HelloError> {
        let length = self.u16(field)?;
        self.take(length.into(), field).map(Reader)
    }

    fn finish(&self, field: &'static str) -> Result<(), HelloError> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(HelloError::TrailingBytes { field, extra }),
        }
    }

    /// The whole of `self` as one vector of 16-bit values that is not empty.
    fn only_list_u16(
        mut self,
        vector: fn(&mut Self, &'static str) -> Result<Reader<'a>, HelloError>,
        field: &'static str,
    ) -> Result<Vec<u16>, HelloError> {
        let list = vector(&mut self, field)?;
        self.finish(field)?;
        match list.0.as_chunks::<2>() {
            ([], _) | (_, [_, ..]) => Err(HelloError::BadLength { field }),
            (values, []) => Ok(values.iter().map(|value| u16::from_be_bytes(*value)).collect()),
        }
    }
}
