//! What each packet of an accepted connection does.

use super::ahead::Crowded;
use super::established::State;
use super::input::Flow;
use super::names::ClientNames;
use super::replies::Reply;
use super::{Close, Context, refused};
use crate::auth::acl::Publishing;
use crate::broker::{Delay, DelayOptions, Later, PublishOptions, RetainedStore, SubscribeRequest};
use crate::config::{DenyAction, MqttConfig};
use crate::metrics::Checked;
use crate::session::{Acknowledged, AliasError, Begin, Message, Millis, SessionExpiry, Ticket, millis};
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{
    Disconnect, Packet, PayloadFormat, PubRec, PubRel, Publish, QoS, ReasonCode, SubAck, Subscribe, UnsubAck,
    Unsubscribe, decode, decode_ack, topic,
};
use std::num::NonZeroU16;
use std::sync::atomic::Ordering;

/// A topic as far as the configuration limits it, [MQTT-4.7.3-4].
pub(super) fn check_topic(topic: &str, config: &MqttConfig) -> Result<(), Close> {
    if mqtt_codec::topic::levels(topic).count() > usize::from(config.max_topic_levels) {
        return Err(Close::OverLimit(ReasonCode::TopicNameInvalid, "mqtt.max_topic_levels"));
    }
    if is_reserved(topic) {
        return Err(Close::Refused(ReasonCode::NotAuthorized, "clients do not publish to $SYS or $share"));
    }
    Ok(())
}

/// Topics that belong to the broker, [MQTT-4.7.2-1].
fn is_reserved(topic: &str) -> bool {
    let first = topic.split('/').next().unwrap_or(topic);
    matches!(first, "$SYS" | "$share" | "$queue" | "$exclusive")
}

/// What a PUBLISH asks for besides its message.
#[derive(Debug, Clone, Copy)]
struct Wish {
    retain: bool,
    delay: Option<Millis>,
    packet_id: Option<NonZeroU16>,
}

impl State {
    /// Handles one packet and says whether the peer's answers leave room for another.
    pub(super) fn handle_next(&mut self, frame: &[u8], context: &Context) -> Result<Flow, Close> {
        self.handle_frame(frame, context)?;
        let paused = || self.rates.as_ref().is_some_and(|rates| rates.paused_until(context.broker.now()).is_some());
        let stop = self.output.is_full() || self.crowded.is_some() || self.must_wait() || paused();
        Ok(if stop { Flow::Stop } else { Flow::Continue })
    }

    pub(super) fn handle_frame(&mut self, frame: &[u8], context: &Context) -> Result<(), Close> {
        self.traffic.bytes_received += frame.len() as u64;
        if let Some(rates) = &mut self.rates
            && rates.bytes(frame.len(), context.broker.now())
        {
            context.broker.metrics().limit_hit("bytes_rate");
        }
        let packet = match decode_ack(frame) {
            Some(acknowledgement) => acknowledgement,
            // The packet's own copy, which its strings and its payload share.
            None => decode(Bytes::copy_from_slice(frame), self.negotiated.version)?,
        };
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, context),
            Packet::PubAck(ack) => {
                let inflight = &mut self.lease.session().inflight;
                let row = inflight.row(ack.packet_id);
                // [MQTT-4.4.0-2] [MQTT-4.8.2-6]: whatever its reason code.
                if inflight.acknowledge(ack.packet_id) == Acknowledged::Done {
                    self.row_done(row);
                }
                Ok(())
            }
            Packet::PubRec(ack) => self.handle_pubrec(&ack),
            Packet::PubRel(ack) => self.handle_pubrel(&ack),
            Packet::PubComp(ack) => {
                let inflight = &mut self.lease.session().inflight;
                let row = inflight.row(ack.packet_id);
                if inflight.complete(ack.packet_id) == Acknowledged::Done {
                    self.row_done(row);
                }
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe, context),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe, context),
            // [MQTT-3.12.4-1]
            Packet::PingReq => Ok(self.output.push(&mqtt_codec::Packet::PingResp, self.negotiated.version)?),
            Packet::Disconnect(disconnect) => Err(self.handle_disconnect(&disconnect, context)),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(Close::Protocol("second CONNECT")),
            Packet::Auth(auth) => self.handle_auth(auth, context),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Close::Protocol("packet that only a server sends"))
            }
        }
    }

    fn handle_publish(&mut self, publish: Publish, context: &Context) -> Result<(), Close> {
        let broker = &context.broker;
        let config = broker.config();
        self.traffic.received(publish.qos);
        if let Some(rates) = &mut self.rates
            && rates.message(broker.now())
        {
            broker.metrics().limit_hit("messages_rate");
        }
        // [MQTT-3.2.2-11]
        if publish.qos > config.max_qos() {
            return Err(Close::OverLimit(ReasonCode::QoSNotSupported, "mqtt.max_qos_allowed"));
        }
        // [MQTT-3.2.2-14]
        if publish.retain && !config.retain_available {
            return Err(Close::OverLimit(ReasonCode::RetainNotSupported, "mqtt.retain_available"));
        }
        // [MQTT-3.3.4-6]
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Close::Protocol("subscription identifier in a PUBLISH from a client"));
        }
        let Publish { qos, retain, topic, packet_id, mut properties, payload, .. } = publish;
        let alias = properties.topic_alias.take();
        let topic = self.aliases.resolve(topic, alias, config.max_topic_alias, config.max_topic_alias_bytes);
        let topic = topic.map_err(|error| match error {
            AliasError::OutOfRange => Close::OverLimit(ReasonCode::TopicAliasInvalid, "mqtt.max_topic_alias"),
            AliasError::TooManyBytes => Close::OverLimit(ReasonCode::QuotaExceeded, "mqtt.max_topic_alias_bytes"),
            AliasError::Unknown => Close::Protocol("topic alias was never set"),
        })?;
        if properties.payload_format == Some(PayloadFormat::Utf8) && std::str::from_utf8(&payload).is_err() {
            return self.answer_publish(qos, packet_id, ReasonCode::PayloadFormatInvalid);
        }
        // The packet is well formed and only this message is refused, [MQTT3-3.3.5-2].
        let (delay, topic) = match self.publish_topic(topic, context) {
            Ok(topic) => topic,
            Err(reason) => return self.answer_publish(qos, packet_id, reason),
        };
        let now = context.broker.now();
        if let (QoS::ExactlyOnce, Some(id)) = (qos, packet_id) {
            let limit = usize::from(config.max_awaiting_rel);
            match self.lease.session().awaiting_release.begin(id, limit, now, millis(config.await_rel_timeout)) {
                Begin::New => self.drop_forgotten(),
                Begin::Duplicate => {
                    // What the first one waits for, its repetition waits for too.
                    let ticket = self.lease.session().awaiting_release.ticket(id);
                    return self.answer_when_durable(qos, packet_id, ReasonCode::Success, ticket);
                }
                Begin::Full => {
                    return Err(Close::OverLimit(ReasonCode::ReceiveMaximumExceeded, "mqtt.max_awaiting_rel"));
                }
            }
        }
        // [MQTT-3.3.1-3] [MQTT-4.3.2-5]: neither the identifier nor DUP goes any further.
        let message = Message::new(topic, payload, qos, properties, now);
        let taken = self.take_message(message, Wish { retain, delay, packet_id }, context);
        if let (QoS::ExactlyOnce, Some(id)) = (qos, packet_id) {
            let waiting = &mut self.lease.session().awaiting_release;
            match &taken {
                Ok((reason, ticket)) if !reason.is_error() => waiting.set_ticket(id, *ticket),
                // [MQTT-4.3.3-9]: what was not taken is no repetition when it comes again. Nothing of it is in the store.
                _ => {
                    waiting.release(id);
                }
            }
        }
        let (reason, ticket) = taken?;
        self.answer_when_durable(qos, packet_id, reason, ticket)
    }

    /// Publishes a message, at once or later: what its publisher is told, and when that may be.
    fn take_message(&mut self, message: Message, wish: Wish, context: &Context) -> Result<(ReasonCode, Ticket), Close> {
        let broker = &context.broker;
        let Wish { retain, delay, packet_id } = wish;
        let qos = message.qos;
        if !self.may_publish(Publishing { topic: &message.topic, qos, retain }, context) {
            let wish = Publishing { topic: &message.topic, qos, retain };
            return refused::publish(context, &self.access, wish).map(|reason| (reason, 0));
        }
        let v5 = self.negotiated.version.is_v5();
        let inbound = packet_id.filter(|_| qos == QoS::ExactlyOnce && self.lease.subscriber().is_durable());
        if let Some(after) = delay {
            let from = self.lease.subscriber();
            return match broker.publish_later(from, after, message, DelayOptions { retain, inbound }) {
                Later::Taken(ticket) => Ok((ReasonCode::Success, ticket)),
                // It has no answer that says no, and what is acknowledged must not be lost.
                Later::Full if !v5 && qos != QoS::AtMostOnce => Err(Close::Refused(
                    ReasonCode::QuotaExceeded,
                    "no more delayed messages may wait (delayed.max_delayed_messages, delayed.max_bytes)",
                )),
                Later::Full => Ok((ReasonCode::QuotaExceeded, 0)),
                Later::Refused(health) if !v5 => Err(Close::Store(health)),
                Later::Refused(health) => Ok((refused::by_store(health), 0)),
            };
        }
        let how = PublishOptions { retain, deliver_anyway: !v5, inbound };
        let published = broker.publish(&mut self.publisher, &mut self.cache, message, how);
        self.crowded = published.crowded.map(|awaited| Crowded { awaited, wait: None });
        let reason = match (published.refused, published.retained) {
            (Some(health), _) if !v5 => return Err(Close::Store(health)),
            (Some(health), _) => refused::by_store(health),
            // With MQTT 3 it was delivered all the same: its repetition is one.
            (None, RetainedStore::Refused) if v5 => ReasonCode::QuotaExceeded,
            _ if published.receivers == 0 => ReasonCode::NoMatchingSubscribers,
            _ => ReasonCode::Success,
        };
        Ok((reason, published.ticket))
    }

    fn may_publish(&mut self, wish: Publishing<'_>, context: &Context) -> bool {
        let answer = self.access.may_publish(wish);
        if answer.asked || !answer.allowed {
            context.metrics.authorization.count(Checked::Publish, answer.allowed);
        }
        answer.allowed
    }

    /// The topic that a client's topic stands for, and by how much its publication is delayed.
    fn publish_topic(&self, topic: ByteString, context: &Context) -> Result<(Option<Millis>, ByteString), ReasonCode> {
        let broker = &context.broker;
        let (delay, mut topic) = match broker.delay_of(&topic) {
            Delay::None => (None, topic),
            Delay::After(after, topic) => (Some(after), topic),
            Delay::Malformed => return Err(ReasonCode::TopicNameInvalid),
        };
        if !self.topics.is_plain() {
            topic = self.topics.rewrite_name(topic, &broker.features().rewrite)?;
        }
        check_topic(&topic, broker.config()).map_err(|close| {
            close.limit().into_iter().for_each(|limit| broker.metrics().limit_hit(limit));
            let reason = close.disconnect_reason().unwrap_or(ReasonCode::TopicNameInvalid);
            if reason == ReasonCode::NotAuthorized {
                refused::reserved(context, &self.access, &topic);
            }
            reason
        })?;
        if !self.topics.is_plain() {
            topic = self.topics.mount_name(topic)?;
        }
        Ok((delay, topic))
    }

    /// PUBACK or PUBREC. MQTT 3 has no way to refuse a message and is told that it was taken, 3.1.1 section 3.3.5.
    fn answer_publish(&mut self, qos: QoS, packet_id: Option<NonZeroU16>, reason: ReasonCode) -> Result<(), Close> {
        self.answer_when_durable(qos, packet_id, reason, 0)
    }

    fn answer_when_durable(
        &mut self,
        qos: QoS,
        packet_id: Option<NonZeroU16>,
        reason: ReasonCode,
        ticket: Ticket,
    ) -> Result<(), Close> {
        match (qos, packet_id) {
            // [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4]
            (QoS::AtLeastOnce, Some(id)) => self.reply(Reply::PubAck(id, reason), ticket),
            // [MQTT-4.3.3-8]
            (QoS::ExactlyOnce, Some(id)) => self.reply(Reply::PubRec(id, reason), ticket),
            _ => Ok(()),
        }
    }

    fn handle_pubrec(&mut self, ack: &PubRec) -> Result<(), Close> {
        let id = ack.packet_id;
        let inflight = &mut self.lease.session().inflight;
        let (row, again) = (inflight.row(id), inflight.is_released(id));
        match inflight.received(id, ack.reason.is_error()) {
            // The first PUBREL waits; one that answers a repetition waits behind it.
            Acknowledged::Release => {
                let ticket = if again { 0 } else { self.row_released(row) };
                self.reply(Reply::PubRel(id, ReasonCode::Success), ticket)?;
            }
            // [MQTT-4.3.3-4] asks for a PUBREL whatever the state; it says that nothing is known of the identifier.
            Acknowledged::Unknown | Acknowledged::Unexpected => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.reply(Reply::PubRel(id, reason), 0)?;
            }
            Acknowledged::Done => self.row_done(row),
        }
        Ok(())
    }

    fn handle_pubrel(&mut self, ack: &PubRel) -> Result<(), Close> {
        let id = ack.packet_id;
        // Not before the identifier is gone from the disk: after a crash its next use would be taken for a repetition.
        let (known, ticket) = self.release_inbound(id);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
        self.reply(Reply::PubComp(id, reason), ticket)
    }

    /// A filter as the broker keeps it.
    fn subscribe_filter(&self, filter: &ByteString, context: &Context) -> Result<ByteString, ReasonCode> {
        // A copy of its own: the filter must not keep the whole packet in memory.
        let filter = ByteString::from(String::from(&**filter));
        if self.topics.is_plain() {
            return Ok(filter);
        }
        let filter = self.topics.rewrite_filter(filter, &context.broker.features().rewrite)?;
        self.topics.mount_filter(filter)
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe, context: &Context) -> Result<(), Close> {
        let identifier = subscribe.properties.subscription_id;
        let config = context.broker.config();
        if let Some(rates) = &mut self.rates
            && rates.subscribes(subscribe.subscriptions.len(), context.broker.now())
        {
            context.broker.metrics().limit_hit("subscribes_rate");
        }
        let spare_own = config.ignore_loop_deliver && !self.negotiated.version.is_v5();
        let mut ticket = 0;
        let mut reasons = Vec::with_capacity(subscribe.subscriptions.len());
        for subscription in subscribe.subscriptions {
            let options = subscription.options;
            let filter = match self.subscribe_filter(&subscription.filter, context) {
                Ok(filter) => filter,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            let request = SubscribeRequest {
                qos: options.qos,
                no_local: options.no_local || spare_own && !topic::is_shared(&filter),
                retain_as_published: options.retain_as_published,
                retain_handling: options.retain_handling,
                identifier,
                filter: filter.clone(),
            };
            let (broker, subscriber, session) = self.lease.parts();
            let outcome = broker.subscribe(subscriber, session, &self.access, request);
            let allowed = outcome.reason != ReasonCode::NotAuthorized;
            context.metrics.authorization.count(Checked::Subscribe, allowed);
            if !allowed {
                refused::subscribe(context, &self.access, &filter, options.qos);
            }
            if !allowed && context.auth.deny_action() == DenyAction::Disconnect {
                return Err(Close::Refused(ReasonCode::NotAuthorized, "subscription that is not allowed"));
            }
            ticket = outcome.ticket.max(ticket);
            self.start_scan(outcome.retained);
            reasons.push(outcome.reason);
        }
        context.metrics.subscribes.fetch_add(reasons.len() as u64, Ordering::Relaxed);
        // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1] [MQTT-2.2.1-6]
        let ack = SubAck { packet_id: subscribe.packet_id, properties: Default::default(), reasons };
        self.reply(Reply::SubAck(Box::new(ack)), ticket)
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe, context: &Context) -> Result<(), Close> {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            let filter = match self.subscribe_filter(filter, context) {
                Ok(filter) => filter,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            let (broker, subscriber, session) = self.lease.parts();
            reasons.push(match broker.unsubscribe(subscriber, session, &filter) {
                true => ReasonCode::Success,
                false => ReasonCode::NoSubscriptionExisted,
            });
            self.stop_scan(&filter);
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
        let ack = UnsubAck { packet_id: unsubscribe.packet_id, properties: Default::default(), reasons };
        let ticket = self.lease.session().changed;
        self.reply(Reply::UnsubAck(Box::new(ack)), ticket)
    }

    /// Subscribes the client to what `[[auto_subscribe]]` lists; its retained messages follow CONNACK.
    pub(super) fn auto_subscribe(&mut self, names: &ClientNames, context: &Context) {
        for entry in &context.broker.features().auto_subscribe {
            let filter = names.expand(&entry.topic).map(ByteString::from);
            let filter = filter.ok().and_then(|filter| self.topics.mount_filter(filter).ok());
            let Some(filter) = filter else {
                tracing::debug!(
                    topic = entry.topic,
                    client_id = &*names.client_id,
                    "no automatic subscription: a placeholder does not fit"
                );
                continue;
            };
            let request = SubscribeRequest {
                qos: entry.qos,
                no_local: entry.nl,
                retain_as_published: entry.rap,
                retain_handling: entry.rh,
                identifier: None,
                filter: filter.clone(),
            };
            let (broker, subscriber, session) = self.lease.parts();
            let outcome = broker.subscribe(subscriber, session, &self.access, request);
            if outcome.reason == ReasonCode::NotAuthorized {
                refused::subscribe(context, &self.access, &filter, entry.qos);
            } else if outcome.reason.is_error() {
                tracing::debug!(topic = entry.topic, reason = ?outcome.reason, "automatic subscription refused");
            }
            self.start_scan(outcome.retained);
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect, context: &Context) -> Close {
        if let Some(secs) = disconnect.properties.session_expiry_interval {
            if secs != 0 && self.negotiated.connected_without_expiry {
                return Close::Protocol("DISCONNECT sets a session expiry that CONNECT did not");
            }
            let wished = match secs {
                0 => SessionExpiry::OnDisconnect,
                u32::MAX => SessionExpiry::Never,
                secs => SessionExpiry::After(u64::from(secs) * 1000),
            };
            let limit = millis(context.broker.config().max_session_expiry_interval);
            self.lease.session().expiry = wished.at_most(SessionExpiry::After(limit));
        }
        match disconnect.reason {
            ReasonCode::Success => Close::Disconnected,
            _ => Close::DisconnectedWithWill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_own_topics_are_reserved() {
        for topic in ["$SYS/broker/uptime", "$SYS", "$share/g/t", "$queue/t"] {
            assert!(is_reserved(topic), "{topic}");
        }
        for topic in ["$SYSTEM/x", "a/$SYS", "$delayed/5/t", "SYS"] {
            assert!(!is_reserved(topic), "{topic}");
        }
    }
}
