//! Reassembles the first handshake message from its records without looking at any byte behind it.

use std::borrow::Cow;

use super::error::HelloError;
use super::{MAX_HELLO_LEN, MAX_RECORDS, TLCP_VERSION};

/// RFC 8446 section 5.1: a plaintext record carries at most 2^14 bytes.
const MAX_RECORD_LEN: usize = 1 << 14;
const RECORD_HEADER_LEN: usize = 5;
const HANDSHAKE_HEADER_LEN: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;

/// A whole ClientHello message, its four header bytes removed.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub record_version: u16,
    pub body: Cow<'a, [u8]>,
    /// Bytes of the input that the records of the message take.
    pub wire_len: usize,
}

/// `Ok(None)` asks for more bytes. Every decision is made in wire order and from the bytes up to it, so that it stays the
/// same however much follows.
pub(super) fn reassemble(prefix: &[u8]) -> Result<Option<Message<'_>>, HelloError> {
    let mut rest = prefix;
    let mut first_version = None;
    let mut header = HandshakeHeader::default();
    // The one record that has held the body so far; a second one forces the copy.
    let mut body: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut wire_len = 0;
    for _ in 0..MAX_RECORDS {
        let Some(record) = record_header(rest, first_version)? else { return Ok(None) };
        first_version = Some(record.version);
        let (_, after_header) = rest.split_at_checked(RECORD_HEADER_LEN).unwrap_or((&[], &[]));
        let present = after_header.get(..record.length).unwrap_or(after_header);
        let fragment = header.take(present);
        let Some(message_len) = header.message_len()? else {
            if present.len() < record.length {
                return Ok(None);
            }
            rest = after_header.get(record.length..).unwrap_or(&[]);
            wire_len += RECORD_HEADER_LEN + record.length;
            continue;
        };
        let header_bytes = present.len() - fragment.len();
        let missing = message_len - body.len();
        let announced = record.length - header_bytes;
        if announced > missing {
            return Err(HelloError::DataAfterHello { extra: announced - missing });
        }
        if present.len() < record.length {
            return Ok(None);
        }
        if body.is_empty() {
            body = Cow::Borrowed(fragment);
        } else {
            body.to_mut().extend_from_slice(fragment);
        }
        wire_len += RECORD_HEADER_LEN + record.length;
        if body.len() == message_len {
            return Ok(Some(Message { record_version: record.version, body, wire_len }));
        }
        rest = after_header.get(record.length..).unwrap_or(&[]);
    }
    Err(HelloError::TooManyRecords { limit: MAX_RECORDS })
}

struct RecordHeader {
    version: u16,
    length: usize,
}

/// Judges a record header byte by byte; `first_version` is that of the hello's first record, when this is a later one.
fn record_header(input: &[u8], first_version: Option<u16>) -> Result<Option<RecordHeader>, HelloError> {
    let Some(&content_type) = input.first() else { return Ok(None) };
    if content_type != CONTENT_HANDSHAKE {
        return match (first_version, input) {
            (Some(_), _) => Err(HelloError::Interleaved { content_type }),
            // An SSL 2.0 record: high bit, fifteen bits of length, then message type 1 (RFC 5246 appendix E.2).
            (None, [0x80..=0xff, _, MESSAGE_CLIENT_HELLO, ..]) => Err(HelloError::Ssl2),
            (None, [0x80..=0xff, _, _, ..]) => Err(HelloError::NotHandshake { first: content_type }),
            (None, [0x80..=0xff, ..]) => Ok(None),
            (None, _) => Err(HelloError::NotHandshake { first: content_type }),
        };
    }
    let &[_, major, minor, ref rest @ ..] = input else { return Ok(None) };
    let version = u16::from_be_bytes([major, minor]);
    if major != 3 && version != TLCP_VERSION {
        return Err(HelloError::UnknownRecordVersion { version });
    }
    if let Some(first) = first_version
        && first != version
    {
        return Err(HelloError::RecordVersionChanged { first, later: version });
    }
    let &[high, low, ..] = rest else { return Ok(None) };
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(HelloError::EmptyRecord),
        length if length > MAX_RECORD_LEN => Err(HelloError::RecordTooLong { length }),
        length => Ok(Some(RecordHeader { version, length })),
    }
}

/// The four bytes before the body, which may themselves be spread over records.
#[derive(Default)]
struct HandshakeHeader {
    bytes: [u8; HANDSHAKE_HEADER_LEN],
    filled: usize,
}

impl HandshakeHeader {
    /// Takes what it still lacks from the front of `fragment` and returns the remainder.
    fn take<'a>(&mut self, fragment: &'a [u8]) -> &'a [u8] {
        let free = self.bytes.get_mut(self.filled..).unwrap_or(&mut []);
        let count = free.len().min(fragment.len());
        for (slot, byte) in free.iter_mut().zip(fragment) {
            *slot = *byte;
        }
        self.filled += count;
        fragment.get(count..).unwrap_or(&[])
    }

    /// The length of the body once all four bytes are there; the type is judged as soon as it is.
    fn message_len(&self) -> Result<Option<usize>, HelloError> {
        let [message_type, high, middle, low] = self.bytes;
        if self.filled > 0 && message_type != MESSAGE_CLIENT_HELLO {
            return Err(HelloError::NotClientHello { message_type });
        }
        if self.filled < HANDSHAKE_HEADER_LEN {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > MAX_HELLO_LEN {
            return Err(HelloError::TooLong { length, limit: MAX_HELLO_LEN });
        }
        Ok(Some(length))
    }
}
