//! Shorthand for packets: constructors for the usual ones, and methods that change one thing about them.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{
    Connect, ConnectProperties, Disconnect, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish,
    PublishProperties, QoS, ReasonCode, RetainHandling, Secret, SubAck, Subscribe, Subscription, SubscriptionId,
    SubscriptionOptions, Unsubscribe, Will,
};

/// Panics unless `n` is 1 to 65,535.
pub fn packet_id(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("packet identifiers begin at 1")
}

/// Panics unless `n` is 0 to 2.
pub fn qos(n: u8) -> QoS {
    QoS::try_from(n).expect("QoS is 0, 1 or 2")
}

/// CONNECT of MQTT 5 with clean start and no keep alive.
pub fn connect(client_id: &str) -> Connect {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive_secs: 0,
        properties: ConnectProperties::default(),
        client_id: client_id.into(),
        will: None,
        username: None,
        password: None,
    }
}

/// PUBLISH; with QoS 1 or 2 its packet identifier is 1 unless [`PublishExt::id`] says otherwise.
pub fn publish(topic: &str, level: u8, payload: impl Into<Bytes>) -> Publish {
    Publish {
        dup: false,
        qos: qos(level),
        retain: false,
        topic: topic.into(),
        packet_id: (level > 0).then(|| packet_id(1)),
        properties: PublishProperties::default(),
        payload: payload.into(),
    }
}

/// SUBSCRIBE to filters with their QoS.
pub fn subscribe(id: u16, filters: &[(&str, u8)]) -> Subscribe {
    let subscriptions = filters
        .iter()
        .map(|(filter, level)| Subscription {
            filter: ByteString::from(*filter),
            options: SubscriptionOptions { qos: qos(*level), ..SubscriptionOptions::default() },
        })
        .collect();
    Subscribe { packet_id: packet_id(id), properties: Default::default(), subscriptions }
}

/// SUBACK with these codes.
pub fn suback(id: u16, reasons: &[ReasonCode]) -> SubAck {
    SubAck { packet_id: packet_id(id), properties: Default::default(), reasons: reasons.to_vec() }
}

/// UNSUBSCRIBE from filters.
pub fn unsubscribe(id: u16, filters: &[&str]) -> Unsubscribe {
    let filters = filters.iter().map(|filter| ByteString::from(*filter)).collect();
    Unsubscribe { packet_id: packet_id(id), properties: Default::default(), filters }
}

/// A will of QoS 0 that is not retained.
pub fn will(topic: &str, payload: impl Into<Bytes>) -> Will {
    Will {
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Default::default(),
        topic: topic.into(),
        payload: payload.into(),
    }
}

pub fn disconnect(reason: ReasonCode) -> Disconnect {
    Disconnect::new(reason)
}

pub fn puback(id: u16) -> PubAck {
    PubAck::new(packet_id(id))
}

pub fn pubrec(id: u16) -> PubRec {
    PubRec::new(packet_id(id))
}

pub fn pubrel(id: u16) -> PubRel {
    PubRel::new(packet_id(id))
}

pub fn pubcomp(id: u16) -> PubComp {
    PubComp::new(packet_id(id))
}

/// Changes to CONNECT.
pub trait ConnectExt: Sized {
    fn version(self, version: ProtocolVersion) -> Self;
    /// Clean start off: an earlier session is taken up again.
    fn resume(self) -> Self;
    fn keep_alive(self, secs: u16) -> Self;
    /// Session Expiry Interval.
    fn expiry(self, secs: u32) -> Self;
    fn receive_maximum(self, messages: u16) -> Self;
    fn max_packet_size(self, bytes: u32) -> Self;
    /// Topic Alias Maximum.
    fn topic_alias_maximum(self, aliases: u16) -> Self;
    /// Request Problem Information.
    fn problem_information(self, wanted: bool) -> Self;
    /// Request Response Information.
    fn response_information(self, wanted: bool) -> Self;
    fn will(self, will: Will) -> Self;
    fn credentials(self, username: &str, password: &str) -> Self;
    /// A session that outlives its connection in either version: clean session off, or clean start off and an expiry of an hour.
    fn persistent(self) -> Self;
    fn v311(self) -> Self {
        self.version(ProtocolVersion::V3_1_1)
    }
    fn v5(self) -> Self {
        self.version(ProtocolVersion::V5)
    }
}

impl ConnectExt for Connect {
    fn version(mut self, version: ProtocolVersion) -> Self {
        self.version = version;
        self
    }

    fn resume(mut self) -> Self {
        self.clean_start = false;
        self
    }

    fn keep_alive(mut self, secs: u16) -> Self {
        self.keep_alive_secs = secs;
        self
    }

    fn expiry(mut self, secs: u32) -> Self {
        self.properties.session_expiry_interval = Some(secs);
        self
    }

    fn receive_maximum(mut self, messages: u16) -> Self {
        self.properties.receive_maximum = Some(packet_id(messages));
        self
    }

    fn max_packet_size(mut self, bytes: u32) -> Self {
        self.properties.maximum_packet_size = NonZeroU32::new(bytes);
        self
    }

    fn topic_alias_maximum(mut self, aliases: u16) -> Self {
        self.properties.topic_alias_maximum = Some(aliases);
        self
    }

    fn problem_information(mut self, wanted: bool) -> Self {
        self.properties.request_problem_information = Some(wanted);
        self
    }

    fn response_information(mut self, wanted: bool) -> Self {
        self.properties.request_response_information = Some(wanted);
        self
    }

    fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    fn credentials(mut self, username: &str, password: &str) -> Self {
        self.username = Some(username.into());
        self.password = Some(Secret::from(Bytes::copy_from_slice(password.as_bytes())));
        self
    }

    fn persistent(mut self) -> Self {
        self.clean_start = false;
        // Before MQTT 5 it is not written.
        self.properties.session_expiry_interval = Some(3600);
        self
    }
}

/// Changes to PUBLISH.
pub trait PublishExt: Sized {
    fn id(self, id: u16) -> Self;
    fn dup(self) -> Self;
    fn retained(self) -> Self;
    /// Message Expiry Interval.
    fn expiry(self, secs: u32) -> Self;
    fn alias(self, alias: u16) -> Self;
    fn subscription_ids(self, ids: &[u32]) -> Self;
}

impl PublishExt for Publish {
    fn id(mut self, id: u16) -> Self {
        self.packet_id = Some(packet_id(id));
        self
    }

    fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    fn expiry(mut self, secs: u32) -> Self {
        self.properties.message_expiry_interval = Some(secs);
        self
    }

    fn alias(mut self, alias: u16) -> Self {
        self.properties.topic_alias = Some(packet_id(alias));
        self
    }

    fn subscription_ids(mut self, ids: &[u32]) -> Self {
        self.properties.subscription_ids = ids.iter().map(|id| subscription_id(*id)).collect();
        self
    }
}

/// Changes to SUBSCRIBE; those of options concern every filter in it.
pub trait SubscribeExt: Sized {
    fn identifier(self, id: u32) -> Self;
    fn no_local(self) -> Self;
    fn retain_as_published(self) -> Self;
    fn retain_handling(self, handling: RetainHandling) -> Self;
}

impl SubscribeExt for Subscribe {
    fn identifier(mut self, id: u32) -> Self {
        self.properties.subscription_id = Some(subscription_id(id));
        self
    }

    fn no_local(mut self) -> Self {
        self.subscriptions.iter_mut().for_each(|s| s.options.no_local = true);
        self
    }

    fn retain_as_published(mut self) -> Self {
        self.subscriptions.iter_mut().for_each(|s| s.options.retain_as_published = true);
        self
    }

    fn retain_handling(mut self, handling: RetainHandling) -> Self {
        self.subscriptions.iter_mut().for_each(|s| s.options.retain_handling = handling);
        self
    }
}

/// Changes to a will.
pub trait WillExt: Sized {
    fn level(self, qos: u8) -> Self;
    fn retained(self) -> Self;
    /// Will Delay Interval.
    fn delay(self, secs: u32) -> Self;
}

impl WillExt for Will {
    fn level(mut self, level: u8) -> Self {
        self.qos = qos(level);
        self
    }

    fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    fn delay(mut self, secs: u32) -> Self {
        self.properties.will_delay_interval = Some(secs);
        self
    }
}

/// The reason code of an acknowledgement.
pub trait AckExt: Sized {
    fn reason(self, reason: ReasonCode) -> Self;
}

macro_rules! acks {
    ($($ack:ident)*) => {$(
        impl AckExt for $ack {
            fn reason(mut self, reason: ReasonCode) -> Self {
                self.reason = reason;
                self
            }
        }
    )*};
}

acks!(PubAck PubRec PubRel PubComp);

fn subscription_id(id: u32) -> SubscriptionId {
    SubscriptionId::new(id).expect("subscription identifiers are 1 to 268,435,455")
}
