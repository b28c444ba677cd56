//! A published message, shared by everyone it goes to, and one delivery of it.

use super::Millis;
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_codec::{EncodeError, ProtocolVersion, PublishHeader, PublishProperties, QoS, SubscriptionId};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};

/// What a queued message costs besides its topic and payload, in bytes; an estimate that errs on the high side.
const OVERHEAD: usize = 256;

/// An application message as the broker holds it. `Debug` never shows the payload.
pub struct Message {
    pub topic: ByteString,
    pub payload: Bytes,
    /// As published; what a subscriber gets is the lower of this and its own.
    pub qos: QoS,
    /// Forwarded unaltered, [MQTT-3.3.2-17] and its neighbours, but for the expiry, which is `expires_at`.
    pub properties: PublishProperties,
    /// When it must no longer be delivered.
    pub expires_at: Option<Millis>,
    /// The whole QoS 0 packet for MQTT 3 and for MQTT 5, written once for all its receivers.
    encoded: [OnceLock<Bytes>; 2],
}

impl Message {
    pub fn new(topic: ByteString, payload: Bytes, qos: QoS, properties: PublishProperties, now: Millis) -> Message {
        let expires_at =
            properties.message_expiry_interval.map(|secs| now.saturating_add(u64::from(secs).saturating_mul(1000)));
        Message { topic, payload, qos, properties, expires_at, encoded: Default::default() }
    }

    pub fn has_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Bytes that holding the message takes, bookkeeping included.
    pub fn cost(&self) -> usize {
        let user: usize =
            self.properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let optional = |len: Option<usize>| len.unwrap_or(0);
        OVERHEAD
            + self.topic.len()
            + self.payload.len()
            + user
            + optional(self.properties.response_topic.as_ref().map(|t| t.len()))
            + optional(self.properties.correlation_data.as_ref().map(|d| d.len()))
            + optional(self.properties.content_type.as_ref().map(|t| t.len()))
    }

    /// Seconds left, rounded up, as MQTT 5 forwards them, [MQTT-3.3.2-6].
    fn remaining_secs(&self, now: Millis) -> Option<u32> {
        self.expires_at.map(|at| u32::try_from(at.saturating_sub(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("qos", &self.qos)
            .field("payload_len", &self.payload.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Clone for Message {
    fn clone(&self) -> Self {
        Message {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            qos: self.qos,
            properties: self.properties.clone(),
            expires_at: self.expires_at,
            encoded: Default::default(),
        }
    }
}

/// A message on its way to one subscriber.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    /// Of every subscription it matched, [MQTT-3.3.4-3] to [MQTT-3.3.4-5].
    pub subscription_ids: Vec<SubscriptionId>,
    pub stored: StoredAs,
}

/// Where a delivery stands in its session's durable queue; the default is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredAs {
    /// Its number, from 1; 0 for a delivery that is not stored. For QoS 0 the number of the next stored delivery when it came, which
    /// keeps its place among them.
    pub seq: u64,
    /// The store's ticket for its row.
    pub ticket: u64,
    /// It may have been sent before.
    pub again: bool,
    /// PUBREC came for it: PUBREL is sent in its place, and there is no message.
    pub released: bool,
}

impl Delivery {
    /// A delivery that is not retained, matched no identifier and is not stored.
    pub fn new(qos: QoS, message: Arc<Message>) -> Delivery {
        Delivery { message, qos, retain: false, subscription_ids: Vec::new(), stored: StoredAs::default() }
    }

    /// The rest of an exchange whose message is gone.
    pub fn released(seq: u64) -> Delivery {
        let message = Message::new("".into(), Bytes::new(), QoS::ExactlyOnce, PublishProperties::default(), 0);
        let mut delivery = Delivery::new(QoS::ExactlyOnce, Arc::new(message));
        delivery.stored = StoredAs { seq, ticket: 0, again: true, released: true };
        delivery
    }

    /// Whether a row of the store stands for it.
    pub fn is_stored(&self) -> bool {
        self.stored.seq != 0 && self.qos != QoS::AtMostOnce
    }

    pub fn cost(&self) -> usize {
        self.message.cost()
    }

    /// Bytes of the packet in `version`.
    pub fn packet_len(
        &self,
        version: ProtocolVersion,
        packet_id: Option<NonZeroU16>,
        now: Millis,
    ) -> Result<usize, EncodeError> {
        self.header(packet_id, false, now).packet_len(version)
    }

    /// Appends the PUBLISH packet to `out`.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        packet_id: Option<NonZeroU16>,
        dup: bool,
        now: Millis,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if self.is_plain() && packet_id.is_none() {
            let [v3, v5] = &self.message.encoded;
            let slot = if version.is_v5() { v5 } else { v3 };
            let bytes = match slot.get() {
                Some(bytes) => bytes,
                None => {
                    let mut packet = BytesMut::new();
                    self.encode_into(version, None, false, now, &mut packet)?;
                    slot.get_or_init(|| packet.freeze())
                }
            };
            out.put_slice(bytes);
            return Ok(());
        }
        self.encode_into(version, packet_id, dup, now, out)
    }

    /// Appends the packet as the store keeps it: MQTT 5, without a lifetime, which would be that of this moment.
    pub fn encode_stored(&self, packet_id: Option<NonZeroU16>, out: &mut BytesMut) -> Result<(), EncodeError> {
        let header = PublishHeader { message_expiry_interval: None, ..self.header(packet_id, false, 0) };
        header.encode(ProtocolVersion::V5, out)?;
        out.put_slice(&self.message.payload);
        Ok(())
    }

    /// Whether the packet is the same for every receiver of one protocol version.
    fn is_plain(&self) -> bool {
        self.qos == QoS::AtMostOnce
            && !self.retain
            && self.subscription_ids.is_empty()
            && self.message.expires_at.is_none()
    }

    fn encode_into(
        &self,
        version: ProtocolVersion,
        packet_id: Option<NonZeroU16>,
        dup: bool,
        now: Millis,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.header(packet_id, dup, now).encode(version, out)?;
        out.put_slice(&self.message.payload);
        Ok(())
    }

    fn header(&self, packet_id: Option<NonZeroU16>, dup: bool, now: Millis) -> PublishHeader<'_> {
        PublishHeader {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.message.topic,
            packet_id,
            properties: &self.message.properties,
            message_expiry_interval: self.message.remaining_secs(now),
            topic_alias: None,
            subscription_ids: &self.subscription_ids,
            payload_len: self.message.payload.len(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mqtt_codec::{Packet, decode};

    pub(crate) fn delivery(topic: &'static str, qos: QoS) -> Delivery {
        let message = Message::new(topic.into(), Bytes::from_static(b"payload"), qos, PublishProperties::default(), 0);
        Delivery::new(qos, Arc::new(message))
    }

    pub(crate) fn expiring(topic: &'static str, at: Millis) -> Delivery {
        let mut delivery = delivery(topic, QoS::AtLeastOnce);
        if let Some(message) = Arc::get_mut(&mut delivery.message) {
            message.expires_at = Some(at);
        }
        delivery
    }

    fn decoded(out: BytesMut, version: ProtocolVersion) -> mqtt_codec::Publish {
        match decode(out.freeze(), version).unwrap() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_qos_0_message_is_encoded_once_per_version() {
        let d = delivery("t", QoS::AtMostOnce);
        for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            let mut out = BytesMut::new();
            d.encode(version, None, false, 0, &mut out).unwrap();
            assert_eq!(decoded(out, version).topic, "t");
        }
        assert!(d.message.encoded.iter().all(|slot| slot.get().is_some()));
    }

    #[test]
    fn the_remaining_lifetime_is_forwarded_and_rounded_up() {
        let mut out = BytesMut::new();
        expiring("t", 5_500).encode(ProtocolVersion::V5, NonZeroU16::new(1), true, 1_000, &mut out).unwrap();
        let publish = decoded(out, ProtocolVersion::V5);
        assert!(publish.dup);
        assert_eq!(publish.properties.message_expiry_interval, Some(5));
    }
}
