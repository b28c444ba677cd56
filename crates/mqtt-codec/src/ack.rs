//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape, four types, so that none is taken for another.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, EncodeError};
use crate::packet::{Encode, Packet, PacketType, ProtocolVersion};
use crate::properties::{AckProperties, PropertySet};
use crate::reason::ReasonCode;
use crate::wire::Reader;

macro_rules! ack_packet {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            pub packet_id: NonZeroU16,
            /// `Success` before MQTT 5, which cannot say anything else.
            pub reason: ReasonCode,
            pub properties: AckProperties,
        }

        impl $name {
            /// A success without properties.
            pub fn new(packet_id: NonZeroU16) -> Self {
                Self::with_reason(packet_id, ReasonCode::Success)
            }

            /// A reason code without properties.
            pub fn with_reason(packet_id: NonZeroU16, reason: ReasonCode) -> Self {
                Self { packet_id, reason, properties: AckProperties::default() }
            }

            pub(crate) fn decode(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
                let packet_id = r.packet_id()?;
                if !version.is_v5() || r.is_empty() {
                    return Ok(Self::new(packet_id));
                }
                let reason = ReasonCode::decode(r.u8()?, PacketType::$name)?;
                let properties = if r.is_empty() { AckProperties::default() } else { AckProperties::decode(r)? };
                Ok(Self { packet_id, reason, properties })
            }
        }

        impl Encode for $name {
            fn first_byte(&self) -> u8 {
                PacketType::$name.first_byte()
            }

            fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
                if !version.is_v5() {
                    return Ok(2);
                }
                let reason = self.reason.check(PacketType::$name)?;
                Ok(match self.properties.content_len()? {
                    0 if reason == ReasonCode::Success => 2,
                    0 => 3,
                    _ => 3 + self.properties.encoded_len()?,
                })
            }

            fn write_body(&self, version: ProtocolVersion, dst: &mut BytesMut) {
                dst.put_u16(self.packet_id.get());
                let no_properties = self.properties.is_empty();
                if !version.is_v5() || (self.reason == ReasonCode::Success && no_properties) {
                    return;
                }
                dst.put_u8(self.reason.as_u8());
                if !no_properties {
                    self.properties.encode(dst);
                }
            }
        }
    };
}

/// An acknowledgement that says nothing but success, the same in every version: decoded without taking a copy of the frame. `None` for
/// every other frame, which [`decode`](crate::decode) judges.
pub fn decode_ack(frame: &[u8]) -> Option<Packet> {
    let &[first, 2, high, low] = frame else { return None };
    let packet_id = NonZeroU16::new(u16::from_be_bytes([high, low]))?;
    Some(match first {
        0x40 => PubAck::new(packet_id).into(),
        0x50 => PubRec::new(packet_id).into(),
        0x62 => PubRel::new(packet_id).into(),
        0x70 => PubComp::new(packet_id).into(),
        _ => return None,
    })
}

ack_packet! {
    /// Answers a QoS 1 PUBLISH (section 3.4). [MQTT-3.4.2-1]
    PubAck
}
ack_packet! {
    /// First answer to a QoS 2 PUBLISH (section 3.5). [MQTT-3.5.2-1]
    PubRec
}
ack_packet! {
    /// Answers PUBREC (section 3.6). [MQTT-3.6.2-1]
    PubRel
}
ack_packet! {
    /// Answers PUBREL (section 3.7). [MQTT-3.7.2-1]
    PubComp
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::decode;

    #[test]
    fn a_short_acknowledgement_is_what_the_whole_decoder_reads() {
        for first in 0..=255u8 {
            for frame in [&[first, 2, 0, 7][..], &[first, 2, 0, 0], &[first, 3, 0, 7, 0], &[first, 0]] {
                let Some(packet) = decode_ack(frame) else { continue };
                for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
                    assert_eq!(decode(Bytes::copy_from_slice(frame), version).as_ref(), Ok(&packet), "{frame:02x?}");
                }
            }
        }
        for first in [0x40, 0x50, 0x62, 0x70] {
            assert!(decode_ack(&[first, 2, 0, 7]).is_some(), "{first:#04x}");
        }
    }
}
