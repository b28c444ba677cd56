//! The fixed header: where a packet ends, decided from at most its first five bytes.

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::PacketType;

/// The largest number of bytes that can follow a fixed header.
pub const MAX_REMAINING_LENGTH: u32 = 268_435_455;

/// What the bytes received so far say about the packet they begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameLen {
    /// The fixed header is not complete.
    NeedMore,
    /// The whole packet takes `total` bytes, header included, and some are missing.
    Partial { total: usize },
    /// The first `usize` bytes are one whole packet.
    Complete(usize),
}

/// Finds the end of the packet that `buf` begins with, without looking past its fixed header.
///
/// `max_packet_size` counts bytes with the fixed header, as MQTT 5's Maximum Packet Size does. A type or flags that no
/// protocol version allows are refused at the first byte, a limit overrun as soon as the length is known.
pub fn frame_len(buf: &[u8], max_packet_size: u32) -> Result<FrameLen, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else {
        return Ok(FrameLen::NeedMore);
    };
    check_first_byte(first)?;
    let Some((remaining, used)) = read_varint(rest)? else {
        return Ok(FrameLen::NeedMore);
    };
    let header = 1 + used;
    let size = remaining + header as u32;
    if size > max_packet_size {
        return Err(DecodeError::PacketTooLarge { size, limit: max_packet_size });
    }
    let total = size as usize;
    Ok(if buf.len() < total { FrameLen::Partial { total } } else { FrameLen::Complete(total) })
}

/// Accepts what some protocol version accepts; [`check_flags`] is exact once the version is known.
fn check_first_byte(first: u8) -> Result<PacketType, DecodeError> {
    let packet_type = PacketType::from_first_byte(first)?;
    let flags = first & 0x0f;
    let valid = match packet_type {
        // [MQTT-3.3.1-4] QoS 3, [MQTT-3.3.1-2] DUP with QoS 0
        PacketType::Publish => flags & 0b0110 != 0b0110 && (flags & 0b1000 == 0 || flags & 0b0110 != 0),
        // MQTT 3.1 sets DUP when it sends one of these again.
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => flags & 0b0111 == 0b0010,
        _ => flags == 0,
    };
    if valid { Ok(packet_type) } else { Err(DecodeError::FixedHeaderFlags(first)) }
}

/// Checks the first byte for one version and returns its packet type.
pub(crate) fn check_flags(first: u8, allow_dup: bool) -> Result<PacketType, DecodeError> {
    let packet_type = check_first_byte(first)?;
    // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
    if packet_type != PacketType::Publish && first & 0b1000 != 0 && !allow_dup {
        return Err(DecodeError::FixedHeaderFlags(first));
    }
    Ok(packet_type)
}

/// A variable byte integer at the start of `buf`: its value and its length of one to four bytes, `None` if it goes on.
pub(crate) fn read_varint(buf: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0u32;
    for (i, &byte) in buf.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            return if byte == 0 && i > 0 { Err(DecodeError::VariableByteInteger) } else { Ok(Some((value, i + 1))) };
        }
        if i == 3 {
            return Err(DecodeError::VariableByteInteger);
        }
    }
    Ok(None)
}

pub(crate) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x001f_ffff => 3,
        _ => 4,
    }
}

pub(crate) fn put_varint(dst: &mut BytesMut, mut value: u32) {
    while value > 0x7f {
        dst.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    dst.put_u8(value as u8);
}

/// Checks that `body` bytes can follow a fixed header.
pub(crate) fn remaining_length(body: usize) -> Result<u32, EncodeError> {
    match u32::try_from(body) {
        Ok(len) if len <= MAX_REMAINING_LENGTH => Ok(len),
        _ => Err(EncodeError::PacketTooLong(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = MAX_REMAINING_LENGTH + 5;

    #[test]
    fn needs_more_until_the_header_is_complete() {
        assert_eq!(frame_len(&[], MAX), Ok(FrameLen::NeedMore));
        assert_eq!(frame_len(&[0x30], MAX), Ok(FrameLen::NeedMore));
        assert_eq!(frame_len(&[0x30, 0x80, 0x80, 0x80], MAX), Ok(FrameLen::NeedMore));
        assert_eq!(frame_len(&[0x30, 0x80, 0x01], MAX), Ok(FrameLen::Partial { total: 131 }));
        assert_eq!(frame_len(&[0xc0, 0x00, 0xff], MAX), Ok(FrameLen::Complete(2)));
    }

    #[test]
    fn refuses_five_byte_length_without_waiting_for_the_fifth() {
        assert_eq!(frame_len(&[0x30, 0xff, 0xff, 0xff, 0xff], MAX), Err(DecodeError::VariableByteInteger));
        assert_eq!(
            frame_len(&[0x30, 0xff, 0xff, 0xff, 0x7f], MAX),
            Ok(FrameLen::Partial { total: MAX_REMAINING_LENGTH as usize + 5 })
        );
    }

    #[test]
    fn refuses_over_long_lengths() {
        for bytes in [&[0x30, 0x80, 0x00][..], &[0x30, 0xff, 0x80, 0x00], &[0x30, 0x81, 0x80, 0x80, 0x00]] {
            assert_eq!(frame_len(bytes, MAX), Err(DecodeError::VariableByteInteger), "{bytes:02x?}");
        }
    }

    #[test]
    fn limit_counts_the_fixed_header() {
        assert_eq!(frame_len(&[0x30, 0x7f], 129), Ok(FrameLen::Partial { total: 129 }));
        assert_eq!(frame_len(&[0x30, 0x7f], 128), Err(DecodeError::PacketTooLarge { size: 129, limit: 128 }));
    }

    #[test]
    fn first_byte_alone_is_refused_when_no_version_allows_it() {
        let allowed = |b: u8| {
            matches!(b, 0x30..=0x35 | 0x3a..=0x3d | 0x62 | 0x6a | 0x82 | 0x8a | 0xa2 | 0xaa)
                || (b & 0x0f == 0 && !matches!(b >> 4, 0 | 3 | 6 | 8 | 10))
        };
        for b in 0..=255u8 {
            assert_eq!(frame_len(&[b], MAX).is_ok(), allowed(b), "{b:#04x}");
        }
        assert_eq!(frame_len(&[0x00], MAX), Err(DecodeError::PacketType(0)));
        assert_eq!(frame_len(&[0x36], MAX), Err(DecodeError::FixedHeaderFlags(0x36)));
    }

    #[test]
    fn varints_round_trip_at_their_borders() {
        for value in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_REMAINING_LENGTH] {
            let mut buf = BytesMut::new();
            put_varint(&mut buf, value);
            assert_eq!(buf.len(), varint_len(value));
            assert_eq!(read_varint(&buf), Ok(Some((value, buf.len()))));
        }
    }
}
