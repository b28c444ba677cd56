//! The path of a message: retain it, find its route, hand it to each subscriber's outbox.

use super::{Broker, Cache, Subscriber, SubscriberId};
use crate::auth::Rights;
use crate::auth::acl::Publishing;
use crate::router::{Choice, Fit, Match, RetainedError, Route, Stored};
use crate::session::{Delivery, Message, Push, StoredAs, SubscriptionOptions, Will};
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
    /// failed; `deliver_anyway` is for publishers of MQTT 3, which cannot.
    pub fn publish(
        &self,
        from: SubscriberId,
        cache: &mut Cache,
        message: Message,
        retain: bool,
        deliver_anyway: bool,
    ) -> Published {
        let route = cache.route(&message.topic);
        self.publish_on(&route, Some(from), Arc::new(message), retain, deliver_anyway)
    }

    /// Publishes the will of a connection that is gone, if its client may still publish it: rights may have been withdrawn since
    /// CONNECT.
    pub(super) fn publish_will(&self, will: Will, rights: Option<&Rights>) {
        let Will { mut message, retain, .. } = will;
        let wish = Publishing { topic: &message.topic, qos: message.qos, retain };
        if rights.is_some_and(|rights| !rights.may_publish(wish)) {
            self.metrics.dropped_unauthorized.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The lifetime of a will's message begins with its publication, MQTT 5 section 3.1.3.2.4.
        message = Message::new(message.topic, message.payload, message.qos, message.properties, self.now());
        let route = self.router.route(&message.topic);
        self.publish_on(&route, None, Arc::new(message), retain, true);
    }

    fn publish_on(
        &self,
        route: &Route<Arc<Subscriber>, SubscriptionOptions>,
        from: Option<SubscriberId>,
        message: Arc<Message>,
        retain: bool,
        deliver_anyway: bool,
    ) -> Published {
        let retained = if retain { self.retain(&message) } else { RetainedStore::NotAsked };
        if retained == RetainedStore::Refused && !deliver_anyway {
            return Published { receivers: 0, retained, crowded: None };
        }
        let mut receivers = 0;
        let mut crowded = None;
        // One copy at the highest QoS, with every identifier, [MQTT-3.3.4-2].
        for (subscriber, subscriptions) in route.receivers() {
            let merged = Merged::of(subscriber, subscriptions, from);
            receivers += self.deliver(subscriber, merged, &message, retain, &mut crowded);
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
                );
            }
        }
        Published { receivers, retained, crowded }
    }

    fn deliver(
        &self,
        subscriber: &Arc<Subscriber>,
        merged: Merged,
        message: &Arc<Message>,
        retain: bool,
        crowded: &mut Option<Arc<Subscriber>>,
    ) -> usize {
        let Some(granted) = merged.qos else { return 0 };
        let pushed = subscriber.push(Delivery {
            message: Arc::clone(message),
            qos: granted.min(message.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: retain && merged.retain_as_published,
            subscription_ids: merged.ids,
            stored: StoredAs::default(),
        });
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

    fn retain(&self, message: &Arc<Message>) -> RetainedStore {
        // [MQTT-3.3.1-6]: an empty payload removes what is retained.
        let stored = if message.payload.is_empty() {
            None
        } else if message.payload.len() > self.retainer.max_payload_size {
            self.metrics.retained_refused.fetch_add(1, Ordering::Relaxed);
            return RetainedStore::Refused;
        } else {
            Some(Stored { message: Arc::clone(message), bytes: message.cost(), expires_at_ms: message.expires_at })
        };
        match self.retained.set(&message.topic, stored) {
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
    fn of(subscriber: &Subscriber, subscriptions: &[SubscriptionOptions], from: Option<SubscriberId>) -> Merged {
        let mut merged = Merged::default();
        for options in subscriptions {
            // [MQTT-3.8.3-3]
            if options.no_local && from == Some(subscriber.id()) {
                continue;
            }
            merged.qos = merged.qos.max(Some(options.qos));
            merged.retain_as_published |= options.retain_as_published;
            merged.ids.extend(options.identifier);
        }
        merged
    }
}
