//! The path of a message: retain it, find its route, hand it to each subscriber's outbox.

use super::durable::Changes;
use super::{Broker, Cache, Subscriber};
use crate::auth::Rights;
use crate::auth::acl::Publishing;
use crate::router::{Choice, Fit, Match, RetainedChange, RetainedError, Route, Stored};
use crate::session::{Delivery, Message, Push, StoredAs, SubscriptionOptions, Ticket, Will};
use crate::store::{Health, Key, MAX_STORED_PAYLOAD, Row};
use mqtt_codec::QoS;
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
    pub crowded: Option<Arc<Subscriber>>,
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
    /// Publishes for the connection whose subscriber is `from`, by way of its route cache.
    ///
    /// A message that should be retained and cannot be is not delivered either, so that an MQTT 5 publisher can be told that it
    /// failed.
    pub fn publish(&self, from: &Subscriber, cache: &mut Cache, message: Message, how: PublishOptions) -> Published {
        let route = cache.route(&message.topic);
        if let Some(health) = self.store_trouble()
            && self.would_store(&route, &message, how)
        {
            self.metrics.store.refused.fetch_add(1, Ordering::Relaxed);
            let retained = RetainedStore::NotAsked;
            return Published { receivers: 0, retained, crowded: None, ticket: 0, refused: Some(health) };
        }
        let mut changes = Changes::new(self.store.as_deref());
        self.publish_on(&route, Some(from), Arc::new(message), how, &mut changes)
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
        let wish = Publishing { topic: &message.topic, qos: message.qos, retain };
        if rights.is_some_and(|rights| !rights.may_publish(wish)) {
            self.metrics.dropped_unauthorized.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The lifetime of a will's message begins with its publication, MQTT 5 section 3.1.3.2.4.
        message = Message::new(message.topic, message.payload, message.qos, message.properties, self.now());
        let route = self.router.route(&message.topic);
        let how = PublishOptions { retain, deliver_anyway: true, inbound: None };
        self.publish_on(&route, None, Arc::new(message), how, changes);
    }

    fn publish_on(
        &self,
        route: &Route<Arc<Subscriber>, SubscriptionOptions>,
        from: Option<&Subscriber>,
        message: Arc<Message>,
        how: PublishOptions,
        changes: &mut Changes<'_>,
    ) -> Published {
        let retain = how.retain;
        let retained = if retain { self.retain(&message, changes) } else { RetainedStore::NotAsked };
        if retained == RetainedStore::Refused && !how.deliver_anyway {
            return Published { receivers: 0, retained, crowded: None, ticket: 0, refused: None };
        }
        if let (Some(from), Some(id)) = (from, how.inbound)
            && let Some(batch) = changes.begin()
        {
            batch.put(Key::Inbound(from.id(), id), Row::Inbound);
        }
        let mut receivers = 0;
        let mut crowded = None;
        // One copy at the highest QoS, with every identifier, [MQTT-3.3.4-2].
        for (subscriber, subscriptions) in route.receivers() {
            let merged = Merged::of(subscriber, subscriptions, from);
            receivers += self.deliver(subscriber, merged, &message, retain, &mut crowded, changes);
        }
        for group in route.groups() {
            let fit = |member: &Match<Arc<Subscriber>, SubscriptionOptions>| {
                if member.subscriber.is_connected() { Fit::Take } else { Fit::Reserve }
            };
            if let Some(member) = group.pick(Choice::RoundRobin, fit) {
                receivers += self.deliver(
                    &member.subscriber,
                    Merged::of(&member.subscriber, std::slice::from_ref(&member.options), from),
                    &message,
                    retain,
                    &mut crowded,
                    changes,
                );
            }
        }
        Published { receivers, retained, crowded, ticket: changes.ticket(), refused: None }
    }

    fn deliver(
        &self,
        subscriber: &Arc<Subscriber>,
        merged: Merged,
        message: &Arc<Message>,
        retain: bool,
        crowded: &mut Option<Arc<Subscriber>>,
        changes: &mut Changes<'_>,
    ) -> usize {
        let Some(granted) = merged.qos else { return 0 };
        let delivery = Delivery {
            message: Arc::clone(message),
            qos: granted.min(message.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: retain && merged.retain_as_published,
            subscription_ids: merged.ids,
            stored: StoredAs::default(),
        };
        let pushed = subscriber.push(delivery, changes);
        if pushed.crowded && crowded.is_none() {
            *crowded = Some(Arc::clone(subscriber));
        }
        match pushed.push {
            Push::Queued => 1,
            Push::Evicted(count) => {
                self.metrics.dropped_queue_full.fetch_add(count as u64, Ordering::Relaxed);
                1
            }
            Push::DroppedAway => 0,
            Push::DroppedFull => {
                self.metrics.dropped_queue_full.fetch_add(1, Ordering::Relaxed);
                0
            }
        }
    }

    fn retain(&self, message: &Arc<Message>, changes: &mut Changes<'_>) -> RetainedStore {
        // [MQTT-3.3.1-6]: an empty payload removes what is retained.
        let stored = if message.payload.is_empty() {
            None
        } else if message.payload.len() > self.retainer.max_payload_size
            || self.store_trouble().is_some()
            || (self.store.is_some() && message.payload.len() > MAX_STORED_PAYLOAD)
        {
            self.metrics.retained_refused.fetch_add(1, Ordering::Relaxed);
            return RetainedStore::Refused;
        } else {
            Some(Stored { message: Arc::clone(message), bytes: message.cost(), expires_at_ms: message.expires_at })
        };
        // The batch comes before the lock under which the change is made.
        let mut batch = changes.begin();
        let written = |change| {
            let Some(batch) = &mut batch else { return };
            let key = Key::Retained(message.topic.clone());
            match change {
                RetainedChange::Stored | RetainedChange::Replaced => batch.put(key, Row::Retained(Arc::clone(message))),
                RetainedChange::Removed => batch.delete(key),
                RetainedChange::Absent => 0,
            };
        };
        match self.retained.set_and(&message.topic, stored, written) {
            Ok(_) => RetainedStore::Done,
            Err(RetainedError::TooManyMessages | RetainedError::TooManyBytes) => {
                self.metrics.retained_refused.fetch_add(1, Ordering::Relaxed);
                RetainedStore::Refused
            }
        }
    }
}

/// The subscriptions of one subscriber that match one message.
#[derive(Debug, Default)]
struct Merged {
    qos: Option<mqtt_codec::QoS>,
    retain_as_published: bool,
    ids: Vec<mqtt_codec::SubscriptionId>,
}

impl Merged {
    fn of(subscriber: &Subscriber, subscriptions: &[SubscriptionOptions], from: Option<&Subscriber>) -> Merged {
        let mut merged = Merged::default();
        for options in subscriptions {
            // [MQTT-3.8.3-3]
            if options.no_local && from.is_some_and(|from| from.id() == subscriber.id()) {
                continue;
            }
            merged.qos = merged.qos.max(Some(options.qos));
            merged.retain_as_published |= options.retain_as_published;
            merged.ids.extend(options.identifier);
        }
        merged
    }
}
