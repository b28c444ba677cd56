//! A published message, shared by everyone it goes to, and one delivery of it.

use super::{Millis, TopicAs};
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
    /// Forwarded unaltered, [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20], but for the expiry,
    /// which is `expires_at`.
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

/// What the packets of one connection are written by.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    pub version: ProtocolVersion,
    /// What the client does not see of its topics: the mount point, or nothing.
    pub hidden_prefix: &'a str,
}

/// What differs between two packets of one message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sending {
    pub packet_id: Option<NonZeroU16>,
    pub dup: bool,
    pub topic_as: TopicAs,
}

/// A shared subscription, `$share/group/filter`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShareName {
    pub group: Box<str>,
    pub filter: Box<str>,
}

/// A message on its way to one subscriber.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    /// Of every subscription it matched, [MQTT-3.3.4-3] [MQTT-3.3.4-4].
    pub subscription_ids: Vec<SubscriptionId>,
    pub stored: StoredAs,
    /// The shared subscription by which it came: another member may get it when this one's session ends.
    pub share: Option<Arc<ShareName>>,
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
        Delivery { message, qos, retain: false, subscription_ids: Vec::new(), stored: StoredAs::default(), share: None }
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

    /// The topic as the client knows it.
    pub fn visible_topic(&self, wire: Wire<'_>) -> &str {
        self.message.topic.strip_prefix(wire.hidden_prefix).unwrap_or(&self.message.topic)
    }

    /// Bytes of the packet.
    pub fn packet_len(&self, wire: Wire<'_>, sending: Sending, now: Millis) -> Result<usize, EncodeError> {
        self.header(wire, sending, now).packet_len(wire.version)
    }

    /// Appends the PUBLISH packet to `out`.
    pub fn encode(&self, wire: Wire<'_>, sending: Sending, now: Millis, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.is_plain() && sending.topic_as == TopicAs::Name && wire.hidden_prefix.is_empty() {
            let [v3, v5] = &self.message.encoded;
            let slot = if wire.version.is_v5() { v5 } else { v3 };
            let bytes = match slot.get() {
                Some(bytes) => bytes,
                None => {
                    let mut packet = BytesMut::new();
                    self.encode_into(wire, sending, now, &mut packet)?;
                    slot.get_or_init(|| packet.freeze())
                }
            };
            out.put_slice(bytes);
            return Ok(());
        }
        self.encode_into(wire, sending, now, out)
    }

    /// Appends the packet as the store keeps it: MQTT 5, without a lifetime, which would be that of this moment.
    pub fn encode_stored(&self, packet_id: Option<NonZeroU16>, out: &mut BytesMut) -> Result<(), EncodeError> {
        let wire = Wire { version: ProtocolVersion::V5, hidden_prefix: "" };
        let sending = Sending { packet_id, ..Sending::default() };
        let header = PublishHeader { message_expiry_interval: None, ..self.header(wire, sending, 0) };
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
        wire: Wire<'_>,
        sending: Sending,
        now: Millis,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.header(wire, sending, now).encode(wire.version, out)?;
        out.put_slice(&self.message.payload);
        Ok(())
    }

    fn header<'a>(&'a self, wire: Wire<'a>, sending: Sending, now: Millis) -> PublishHeader<'a> {
        PublishHeader {
            // [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
            dup: sending.dup,
            qos: self.qos,
            retain: self.retain,
            topic: if matches!(sending.topic_as, TopicAs::Alias(_)) { "" } else { self.visible_topic(wire) },
            packet_id: sending.packet_id,
            properties: &self.message.properties,
            message_expiry_interval: self.message.remaining_secs(now),
            topic_alias: sending.topic_as.alias(),
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

    fn wire(version: ProtocolVersion) -> Wire<'static> {
        Wire { version, hidden_prefix: "" }
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
            d.encode(wire(version), Sending::default(), 0, &mut out).unwrap();
            assert_eq!(decoded(out, version).topic, "t");
        }
        assert!(d.message.encoded.iter().all(|slot| slot.get().is_some()));
    }

    #[test]
    fn the_remaining_lifetime_is_forwarded_and_rounded_up() {
        let mut out = BytesMut::new();
        let sending = Sending { packet_id: NonZeroU16::new(1), dup: true, ..Sending::default() };
        expiring("t", 5_500).encode(wire(ProtocolVersion::V5), sending, 1_000, &mut out).unwrap();
        let publish = decoded(out, ProtocolVersion::V5);
        assert!(publish.dup);
        assert_eq!(publish.properties.message_expiry_interval, Some(5));
    }

    #[test]
    fn the_mount_point_is_hidden_and_never_comes_from_the_shared_packet() {
        let d = delivery("site/a/t", QoS::AtMostOnce);
        let hidden = Wire { version: ProtocolVersion::V5, hidden_prefix: "site/a/" };
        for (wire, topic) in [(wire(ProtocolVersion::V5), "site/a/t"), (hidden, "t")] {
            let mut out = BytesMut::new();
            d.encode(wire, Sending::default(), 0, &mut out).unwrap();
            assert_eq!(decoded(out, ProtocolVersion::V5).topic, topic);
        }
    }

    #[test]
    fn an_alias_replaces_the_topic_and_the_length_knows_it() {
        let d = delivery("a/long/topic", QoS::AtMostOnce);
        let alias = NonZeroU16::new(3).unwrap();
        for (topic_as, topic) in [(TopicAs::NameAndAlias(alias), "a/long/topic"), (TopicAs::Alias(alias), "")] {
            let sending = Sending { topic_as, ..Sending::default() };
            let mut out = BytesMut::new();
            d.encode(wire(ProtocolVersion::V5), sending, 0, &mut out).unwrap();
            assert_eq!(out.len(), d.packet_len(wire(ProtocolVersion::V5), sending, 0).unwrap());
            let publish = decoded(out, ProtocolVersion::V5);
            assert_eq!((&*publish.topic, publish.properties.topic_alias), (topic, Some(alias)));
        }
    }
}
