//! Reading and writing the data types of MQTT 5.0, section 1.5, within the bounds of one frame.

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::error::{DecodeError, EncodeError};
use crate::frame::read_varint;

/// How many elements a packet may carry, whatever its size: elements cost more memory than the bytes they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// User properties in one property list. Default 1,000.
    pub user_properties: usize,
    /// Topic filters in SUBSCRIBE and UNSUBSCRIBE, reason codes in their answers, subscription identifiers in PUBLISH.
    /// Default 10,000.
    pub subscriptions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { user_properties: 1_000, subscriptions: 10_000 }
    }
}

/// A cursor over one frame. Strings and payloads are slices that share the frame's memory.
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    pos: usize,
    end: usize,
    pub(crate) limits: Limits,
}

impl<'a> Reader<'a> {
    /// A cursor over `frame` from `pos` to its end.
    pub(crate) fn new(frame: &'a Bytes, pos: usize, limits: Limits) -> Self {
        Self { frame, pos: pos.min(frame.len()), end: frame.len(), limits }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.end - self.pos
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// A cursor over the next `len` bytes, which this one skips.
    pub(crate) fn sub(&mut self, len: usize) -> Result<Reader<'a>, DecodeError> {
        let start = self.pos;
        self.advance(len)?;
        Ok(Reader { frame: self.frame, pos: start, end: self.pos, limits: self.limits })
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, used) = read_varint(self.rest())?.ok_or(DecodeError::Truncated)?;
        self.advance(used)?;
        Ok(value)
    }

    /// A packet identifier. [MQTT-2.2.1-3] [MQTT-2.2.1-4] [MQTT3-2.3.1-1]
    pub(crate) fn packet_id(&mut self) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    pub(crate) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        self.bytes(len)
    }

    pub(crate) fn string(&mut self) -> Result<ByteString, DecodeError> {
        let bytes = self.binary()?;
        // [MQTT-1.5.4-2]
        if bytes.contains(&0) {
            return Err(DecodeError::NullCharacter);
        }
        // [MQTT-1.5.4-1]; U+FEFF stays what it is [MQTT-1.5.4-3]
        ByteString::try_from(bytes).map_err(|_| DecodeError::Utf8)
    }

    pub(crate) fn rest_as_bytes(&mut self) -> Bytes {
        let bytes = self.frame.slice(self.pos..self.end);
        self.pos = self.end;
        bytes
    }

    fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let start = self.pos;
        self.advance(len)?;
        // An empty slice would keep the whole frame alive for nothing.
        Ok(if len == 0 { Bytes::new() } else { self.frame.slice(start..self.pos) })
    }

    fn rest(&self) -> &'a [u8] {
        self.frame.get(self.pos..self.end).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.rest().first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.pos += N;
        Ok(array)
    }

    fn advance(&mut self, len: usize) -> Result<(), DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        self.pos += len;
        Ok(())
    }
}

/// The length of a string or binary field with its two-byte prefix.
pub(crate) fn field_len(field: &[u8]) -> Result<usize, EncodeError> {
    if field.len() > usize::from(u16::MAX) { Err(EncodeError::FieldTooLong(field.len())) } else { Ok(2 + field.len()) }
}

/// Writes a field that [`field_len`] has accepted.
pub(crate) fn put_field(dst: &mut BytesMut, field: &[u8]) {
    dst.put_u16(field.len() as u16);
    dst.put_slice(field);
}
