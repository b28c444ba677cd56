//! The path of a message: retain it, find its route, hand it to each subscriber's outbox.

use super::{Broker, Cache, Subscriber, SubscriberId};
use crate::router::{Choice, Fit, Match, RetainedError, Route, Stored};
use crate::session::{Delivery, Message, Push, SubscriptionOptions, Will};
use hashbrown::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Subscribers it was handed to.
    pub receivers: usize,
    pub retained: RetainedStore,
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
    pub fn publish(&self, from: SubscriberId, cache: &mut Cache, message: Message, retain: bool, deliver_anyway: bool) -> Published {
        let route = cache.route(&message.topic);
        self.publish_on(&route, Some(from), Arc::new(message), retain, deliver_anyway)
    }

    /// Publishes the will of a connection that is gone.
    pub(super) fn publish_will(&self, will: Will) {
        let Will { mut message, retain, .. } = will;
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
            return Published { receivers: 0, retained };
        }
        let mut receivers = 0;
        if route.filter_count() <= 1 {
            for found in route.matches() {
                receivers += self.deliver(&found.subscriber, Merged::of(found, from), &message, retain);
            }
        } else {
            for (subscriber, merged) in merge(route, from) {
                receivers += self.deliver(subscriber, merged, &message, retain);
            }
        }
        for group in route.groups() {
            let fit = |member: &Match<Arc<Subscriber>, SubscriptionOptions>| {
                if member.subscriber.is_connected() { Fit::Take } else { Fit::Reserve }
            };
            if let Some(member) = group.pick(Choice::RoundRobin, fit) {
                receivers += self.deliver(&member.subscriber, Merged::of(&member, from), &message, retain);
            }
        }
        Published { receivers, retained }
    }

    fn deliver(&self, subscriber: &Subscriber, merged: Merged, message: &Arc<Message>, retain: bool) -> usize {
        let Some(granted) = merged.qos else { return 0 };
        let push = subscriber.push(Delivery {
            message: Arc::clone(message),
            qos: granted.min(message.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: retain && merged.retain_as_published,
            subscription_ids: merged.ids,
        });
        match push {
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

/// One entry for each subscriber of a route whose filters overlap: it gets one copy at the highest QoS, with every identifier,
/// [MQTT-3.3.4-2].
fn merge<'r>(
    route: &'r Route<Arc<Subscriber>, SubscriptionOptions>,
    from: Option<SubscriberId>,
) -> impl Iterator<Item = (&'r Arc<Subscriber>, Merged)> {
    let mut order: Vec<(&Arc<Subscriber>, Merged)> = Vec::with_capacity(route.match_count());
    let mut places: HashMap<SubscriberId, usize> = HashMap::with_capacity(route.match_count());
    for found in route.matches() {
        match places.get(&found.subscriber.id()).and_then(|place| order.get_mut(*place)) {
            Some((_, merged)) => merged.add(found, from),
            None => {
                places.insert(found.subscriber.id(), order.len());
                order.push((&found.subscriber, Merged::of(found, from)));
            }
        }
    }
    order.into_iter()
}

impl Merged {
    fn of(found: &Match<Arc<Subscriber>, SubscriptionOptions>, from: Option<SubscriberId>) -> Merged {
        let mut merged = Merged::default();
        merged.add(found, from);
        merged
    }

    fn add(&mut self, found: &Match<Arc<Subscriber>, SubscriptionOptions>, from: Option<SubscriberId>) {
        let options = &found.options;
        // [MQTT-3.8.3-3]
        if options.no_local && from == Some(found.subscriber.id()) {
            return;
        }
        self.qos = self.qos.max(Some(options.qos));
        self.retain_as_published |= options.retain_as_published;
        self.ids.extend(options.identifier);
    }
}
