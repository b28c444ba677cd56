//! The path of a message: retain it, find its route, hand it to each subscriber's outbox.

use super::delayed::DelayOptions;
use super::durable::Changes;
use super::retained::Held;
use super::{Awaited, Broker, Cache, Delay, Publisher, Subscriber, SubscriberId};
use crate::auth::Rights;
use crate::auth::acl::Publishing;
use crate::router::{Choice, Fit, Match, RetainedChange, RetainedError, Route, Stored};
use crate::session::{Delivery, Message, Millis, Push, StoredAs, SubscriptionOptions, Ticket, Will, millis};
use crate::store::{Health, Key, MAX_STORED_PAYLOAD, Row};
use mqtt_codec::QoS;
use std::hash::BuildHasher;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What became of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Subscribers it was handed to.
    pub receivers: usize,
    pub retained: RetainedStore,
    /// One of them that the publisher is to wait for before its next message.
    pub crowded: Option<Awaited>,
    /// What the publisher may be told only when this is durable; 0 is at once.
    pub ticket: Ticket,
    /// The store cannot take what the message would change; it was given to nobody.
    pub refused: Option<Health>,
}

/// How a message is to be published.
#[derive(Debug, Clone, Copy)]
pub struct PublishOptions {
    pub retain: bool,
    /// For publishers of MQTT 3, which cannot be told that a message was not retained.
    pub deliver_anyway: bool,
    /// The packet identifier of a QoS 2 message from a durable session, which is stored with it.
    pub inbound: Option<NonZeroU16>,
}

/// What became of the wish to retain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainedStore {
    NotAsked,
    Done,
    /// The retained store is full or the payload larger than it takes.
    Refused,
}

impl Broker {
    /// Publishes for the connection of `publisher`, by way of its route cache.
    ///
    /// A message that should be retained and cannot be is not delivered either, so that an MQTT 5 publisher can be told that it
    /// failed.
    pub fn publish(
        &self,
        publisher: &mut Publisher,
        cache: &mut Cache,
        message: Message,
        how: PublishOptions,
    ) -> Published {
        let route = cache.route(&message.topic);
        if let Some(health) = self.store_trouble()
            && self.would_store(&route, &message, how)
        {
            self.metrics.store.refused.fetch_add(1, Ordering::Relaxed);
            let retained = RetainedStore::NotAsked;
            return Published { receivers: 0, retained, crowded: None, ticket: 0, refused: Some(health) };
        }
        let mut changes = Changes::new(self.store.as_deref());
        self.publish_on(&route, publisher, Arc::new(message), how, &mut changes)
    }

    /// Whether an acknowledgement of the message would have to wait for the store.
    fn would_store(
        &self,
        route: &Route<Arc<Subscriber>, SubscriptionOptions>,
        message: &Message,
        how: PublishOptions,
    ) -> bool {
        let durable = |found: &Match<Arc<Subscriber>, SubscriptionOptions>| {
            found.subscriber.is_durable() && found.options.qos != QoS::AtMostOnce
        };
        let in_group = |found: &Match<_, _>| if durable(found) { Fit::Take } else { Fit::Refuse };
        message.qos != QoS::AtMostOnce
            && (how.retain
                || how.inbound.is_some()
                || route.matches().any(durable)
                || route.groups().iter().any(|group| group.pick(Choice::Hash(0), in_group).is_some()))
    }

    /// Publishes the will of a connection that is gone, if its client may still publish it: rights may have been withdrawn since
    /// CONNECT.
    pub(super) fn publish_will(&self, will: Will, rights: Option<&Rights>, changes: &mut Changes<'_>) {
        let Will { mut message, retain, .. } = will;
        let delay = match self.delay_of(&message.topic) {
            Delay::After(after, topic) => {
                message.topic = topic;
                Some(after)
            }
            Delay::None | Delay::Malformed => None,
        };
        let wish = Publishing { topic: &message.topic, qos: message.qos, retain };
        if rights.is_some_and(|rights| !rights.may_publish(wish)) {
            self.metrics.dropped_unauthorized.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match delay {
            Some(after) => {
                // What does not fit was counted.
                let _taken = self.let_wait(None, after, message, DelayOptions { retain, inbound: None }, changes);
            }
            None => self.publish_now(None, message, retain, changes),
        }
    }

    /// Publishes a message that waited. Its lifetime begins now, MQTT 5 section 3.1.3.2.4.
    pub(super) fn publish_now(
        &self,
        from: Option<SubscriberId>,
        message: Message,
        retain: bool,
        changes: &mut Changes<'_>,
    ) {
        let message = Message::new(message.topic, message.payload, message.qos, message.properties, self.now());
        let route = self.router.route(&message.topic);
        // Identifiers of subscribers begin at 1.
        let seed = self.hasher.hash_one(&message.topic).wrapping_add(self.now());
        let mut publisher = Publisher::new(from.unwrap_or(0), seed);
        // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
        let how = PublishOptions { retain, deliver_anyway: true, inbound: None };
        self.publish_on(&route, &mut publisher, Arc::new(message), how, changes);
    }

    pub(super) fn publish_on(
        &self,
        route: &Route<Arc<Subscriber>, SubscriptionOptions>,
        publisher: &mut Publisher,
        message: Arc<Message>,
        how: PublishOptions,
        changes: &mut Changes<'_>,
    ) -> Published {
        let retain = how.retain;
        // [MQTT-3.3.1-8]
        let retained = if retain { self.retain(&message, changes) } else { RetainedStore::NotAsked };
        let cleared = retain && self.retainer.stop_publish_clear_msg && message.payload.is_empty();
        if cleared || retained == RetainedStore::Refused && !how.deliver_anyway {
            return Published { receivers: 0, retained, crowded: None, ticket: changes.ticket(), refused: None };
        }
        if let Some(id) = how.inbound
            && let Some(batch) = changes.begin()
        {
            batch.put(Key::Inbound(publisher.id, id), Row::Inbound);
        }
        let mut receivers = 0;
        let mut crowded = None;
        // One copy at the highest QoS, with every identifier, [MQTT-3.3.4-2].
        // [MQTT-4.5.0-1] [MQTT-3.3.4-4] [MQTT-3.3.2-3]
        for (subscriber, subscriptions) in route.receivers() {
            let merged = Merged::of(subscriber, subscriptions, publisher.id);
            if let Some(delivery) = self.delivery(merged, &message, retain) {
                receivers += received(self.hand_over(subscriber, delivery, &mut crowded, changes));
            }
        }
        for group in route.groups() {
            let push = self.to_member(group, publisher, &message.topic, |member| {
                let options = std::slice::from_ref(&member.options);
                // No Local does not exist for shared subscriptions, [MQTT-3.8.3-4].
                match self.delivery(Merged::of(&member.subscriber, options, 0), &message, retain) {
                    Some(delivery) => {
                        let delivery = Delivery { share: Some(Arc::clone(group.name())), ..delivery };
                        self.hand_over(&member.subscriber, delivery, &mut crowded, changes)
                    }
                    None => Push::DroppedFull,
                }
            });
            receivers += push.map_or(0, received);
        }
        Published { receivers, retained, crowded, ticket: changes.ticket(), refused: None }
    }

    fn delivery(&self, merged: Merged, message: &Arc<Message>, retain: bool) -> Option<Delivery> {
        Some(Delivery {
            message: Arc::clone(message),
            qos: self.qos_of(merged.qos?, message.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: retain && merged.retain_as_published,
            subscription_ids: merged.ids,
            stored: StoredAs::default(),
            share: None,
        })
    }

    /// The QoS of a message for a subscription, [MQTT-3.8.4-8] unless `mqtt.upgrade_qos` says otherwise.
    pub(super) fn qos_of(&self, granted: QoS, published: QoS) -> QoS {
        if self.config.upgrade_qos { granted.max(published) } else { granted.min(published) }
    }

    /// Puts a message into an outbox and counts what that pushed out. The first subscriber with more than it can send becomes `crowded`.
    pub(super) fn hand_over(
        &self,
        subscriber: &Arc<Subscriber>,
        delivery: Delivery,
        crowded: &mut Option<Awaited>,
        changes: &mut Changes<'_>,
    ) -> Push {
        let qos = delivery.qos;
        let pushed = subscriber.push(delivery, changes);
        if pushed.crowded && crowded.is_none() {
            *crowded = Some(Awaited { subscriber: Arc::clone(subscriber), qos });
        }
        let (plain, acknowledged) = match pushed.push {
            Push::Queued | Push::Ended => return pushed.push,
            Push::DroppedAway => {
                self.metrics.dropped_away.fetch_add(1, Ordering::Relaxed);
                return pushed.push;
            }
            Push::Evicted { plain, acknowledged } => (plain, acknowledged),
            Push::DroppedFull => (usize::from(qos == QoS::AtMostOnce), usize::from(qos != QoS::AtMostOnce)),
        };
        self.metrics.dropped_queue_full.fetch_add((plain + acknowledged) as u64, Ordering::Relaxed);
        if acknowledged > 0 {
            self.losses.add(subscriber, acknowledged, self.now());
        }
        pushed.push
    }

    /// How long a message that is retained now stays: its own lifetime, and `retainer.msg_expiry_interval`.
    pub(super) fn retained_until(&self, message: &Message) -> Option<Millis> {
        let limit = self.retainer.msg_expiry_interval;
        let limit = (!limit.is_zero()).then(|| self.now().saturating_add(millis(limit)));
        [message.expires_at, limit].into_iter().flatten().min()
    }

    fn retain(&self, message: &Arc<Message>, changes: &mut Changes<'_>) -> RetainedStore {
        // [MQTT-3.3.1-6] [MQTT-3.3.1-7]: an empty payload removes what is retained, and is not.
        let stored = if message.payload.is_empty() {
            None
        } else if message.payload.len() > self.retainer.max_payload_size {
            return self.not_retained("retainer.max_payload_size");
        } else if self.store_trouble().is_some() || (self.store.is_some() && message.payload.len() > MAX_STORED_PAYLOAD)
        {
            self.metrics.retained_refused.fetch_add(1, Ordering::Relaxed);
            return RetainedStore::Refused;
        } else {
            let expires_at_ms = self.retained_until(message);
            Some(Stored { message: Held::Here(Arc::clone(message)), bytes: message.cost(), expires_at_ms })
        };
        // The batch comes before the lock under which the change is made.
        let mut batch = changes.begin();
        let mut ticket = 0;
        let written = |change| {
            let Some(batch) = &mut batch else { return };
            let key = Key::Retained(message.topic.clone());
            match change {
                RetainedChange::Stored | RetainedChange::Replaced => {
                    ticket = batch.put(key, Row::Retained(Arc::clone(message)));
                }
                RetainedChange::Removed => {
                    batch.delete(key);
                }
                RetainedChange::Absent => {}
            }
        };
        match self.retained.set_and(&message.topic, stored, written) {
            Ok(_) => {
                if let Some(store) = self.store.as_ref().filter(|_| ticket != 0) {
                    self.remember_retained(store, message, ticket);
                }
                RetainedStore::Done
            }
            Err(RetainedError::TooManyMessages) => self.not_retained("retainer.max_retained_messages"),
            Err(RetainedError::TooManyBytes) => self.not_retained("retainer.max_bytes"),
        }
    }

    fn not_retained(&self, limit: &'static str) -> RetainedStore {
        self.metrics.retained_refused.fetch_add(1, Ordering::Relaxed);
        self.metrics.limit_hit(limit);
        RetainedStore::Refused
    }
}

/// The subscriptions of one subscriber that match one message.
#[derive(Debug, Default)]
struct Merged {
    qos: Option<QoS>,
    retain_as_published: bool,
    ids: Vec<mqtt_codec::SubscriptionId>,
}

/// 1 for a message that is on its way.
fn received(push: Push) -> usize {
    usize::from(matches!(push, Push::Queued | Push::Evicted { .. }))
}

impl Merged {
    fn of(subscriber: &Subscriber, subscriptions: &[SubscriptionOptions], from: SubscriberId) -> Merged {
        let mut merged = Merged::default();
        for options in subscriptions {
            // [MQTT-3.8.3-3]
            if options.no_local && from == subscriber.id() {
                continue;
            }
            merged.qos = merged.qos.max(Some(options.qos));
            merged.retain_as_published |= options.retain_as_published;
            merged.ids.extend(options.identifier);
        }
        merged
    }
}
