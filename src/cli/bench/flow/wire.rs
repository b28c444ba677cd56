//! Packets without allocation: a PUBLISH made once and stamped for each message, and what is read of arriving packets in place.
//!
//! Fixed headers are checked by `mqtt_codec::frame_len`; here only what a measurement needs is looked at.

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Encode, EncodeError, ProtocolVersion, Publish, PublishProperties, QoS};
use std::num::NonZeroU16;

use super::payload::{STAMP_LEN, Stamp};

const PUBREL: u8 = 0x62;

/// A PUBLISH packet of which packet identifier and stamp are written anew for each message.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

/// What an arriving packet is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    Publish {
        qos: QoS,
        packet_id: u16,
        payload: &'a [u8],
    },
    /// With whether the server took the message.
    PubAck(u16, bool),
    PubRec(u16, bool),
    PubRel(u16),
    PubComp(u16),
    PingResp,
    /// Any other packet, whole.
    Other(&'a [u8]),
}

/// The second half of a QoS exchange.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// PUBACK
    Acknowledged,
    /// PUBREC
    Received,
    /// PUBREL
    Release,
    /// PUBCOMP
    Complete,
}

impl Template {
    /// A message of `payload_len` bytes, which is at least [`STAMP_LEN`].
    ///
    /// # Errors
    /// The topic or the packet is too long.
    pub fn new(version: ProtocolVersion, topic: &str, qos: QoS, payload_len: usize) -> Result<Template, EncodeError> {
        let payload = vec![b'.'; payload_len.max(STAMP_LEN)];
        let stamp_back = payload.len();
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id: if qos == QoS::AtMostOnce { None } else { Some(NonZeroU16::MIN) },
            properties: PublishProperties::default(),
            payload: Bytes::from(payload),
        };
        let mut bytes = BytesMut::new();
        publish.encode(version, &mut bytes)?;
        let stamp_at = bytes.len() - stamp_back;
        // Between identifier and payload MQTT 5 has one byte: no properties.
        let packet_id_at = publish.packet_id.map(|_| stamp_at - 2 - usize::from(version.is_v5()));
        Ok(Template { bytes: bytes.to_vec(), packet_id_at, stamp_at })
    }

    /// Appends one message.
    pub fn append(&self, out: &mut Vec<u8>, packet_id: u16, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.packet_id_at
            && let Some(slot) = out.get_mut(start + at..start + at + 2)
        {
            slot.copy_from_slice(&packet_id.to_be_bytes());
        }
        let at = start + self.stamp_at;
        if let Some(slot) = out.get_mut(at..at + STAMP_LEN) {
            slot.copy_from_slice(&stamp.to_bytes());
        }
    }
}

impl Answer {
    /// Appends the packet with reason "success".
    pub fn append(self, out: &mut Vec<u8>, packet_id: u16) {
        let first = match self {
            Answer::Acknowledged => 0x40,
            Answer::Received => 0x50,
            Answer::Release => PUBREL,
            Answer::Complete => 0x70,
        };
        let [high, low] = packet_id.to_be_bytes();
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Looks into one whole packet; `None` if it is shorter than its type says.
pub(super) fn read(frame: &[u8], version: ProtocolVersion) -> Option<Incoming<'_>> {
    let (&first, rest) = frame.split_first()?;
    let (_, body) = varint(rest)?;
    Some(match first >> 4 {
        3 => {
            let qos = QoS::try_from(first >> 1 & 0b11).ok()?;
            let (topic_len, rest) = number(body)?;
            let mut rest = rest.get(usize::from(topic_len)..)?;
            let mut packet_id = 0;
            if qos != QoS::AtMostOnce {
                (packet_id, rest) = number(rest)?;
            }
            if version.is_v5() {
                let (len, after) = varint(rest)?;
                rest = after.get(len as usize..)?;
            }
            Incoming::Publish { qos, packet_id, payload: rest }
        }
        kind @ 4..=7 => {
            let (packet_id, rest) = number(body)?;
            let taken = rest.first().is_none_or(|reason| *reason < 0x80);
            match kind {
                4 => Incoming::PubAck(packet_id, taken),
                5 => Incoming::PubRec(packet_id, taken),
                6 => Incoming::PubRel(packet_id),
                _ => Incoming::PubComp(packet_id),
            }
        }
        13 => Incoming::PingResp,
        _ => Incoming::Other(frame),
    })
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk::<2>().map(|(number, rest)| (u16::from_be_bytes(*number), rest))
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    let mut rest = bytes;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        value |= u32::from(byte & 0x7f) << shift;
        rest = after;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::{Packet, PubRel, decode};

    const STAMP: Stamp = Stamp { run: 1, publisher: 2, sequence: 3, nanos: 4 };

    #[test]
    fn a_stamped_template_is_what_the_codec_reads() {
        for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            for (qos, packet_id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 0x1234), (QoS::ExactlyOnce, 0xffff)] {
                let template = Template::new(version, "a/b", qos, 200).unwrap();
                let mut out = Vec::new();
                template.append(&mut out, packet_id, STAMP);
                assert_eq!(out.len(), template.bytes.len());
                let Packet::Publish(publish) = decode(Bytes::from(out.clone()), version).unwrap() else { panic!() };
                assert_eq!((&*publish.topic, publish.qos, publish.payload.len()), ("a/b", qos, 200));
                assert_eq!(publish.packet_id.map_or(0, NonZeroU16::get), packet_id);
                let Some(Incoming::Publish { payload, packet_id: seen, .. }) = read(&out, version) else { panic!() };
                assert_eq!((Stamp::read(payload), seen), (Some(STAMP), packet_id));
            }
        }
    }

    #[test]
    fn answers_are_what_the_codec_reads() {
        let mut out = Vec::new();
        Answer::Release.append(&mut out, 9);
        assert_eq!(read(&out, ProtocolVersion::V5), Some(Incoming::PubRel(9)));
        let packet = decode(Bytes::from(out), ProtocolVersion::V5).unwrap();
        assert_eq!(packet, Packet::PubRel(PubRel::new(NonZeroU16::new(9).unwrap())));
    }

    #[test]
    fn a_reason_of_0x80_or_above_is_a_refusal() {
        assert_eq!(read(&[0x40, 3, 0, 1, 0x97], ProtocolVersion::V5), Some(Incoming::PubAck(1, false)));
        assert_eq!(read(&[0x40, 3, 0, 1, 0x10], ProtocolVersion::V5), Some(Incoming::PubAck(1, true)));
        assert_eq!(read(&[0x50, 2, 0, 1], ProtocolVersion::V3_1_1), Some(Incoming::PubRec(1, true)));
    }

    #[test]
    fn cut_packets_are_no_packets() {
        for frame in [&[0x30, 1, 0][..], &[0x40, 1, 0], &[0x32, 4, 0, 1, b't', 0], &[0x30, 3, 0, 1, b't']] {
            assert_eq!(read(frame, ProtocolVersion::V5), None, "{frame:02x?}");
        }
    }
}
