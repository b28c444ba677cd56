//! SUBSCRIBE and UNSUBSCRIBE against the shared index, and the retained messages that a new subscription brings.

use super::retained::RetainedScan;
use super::{Broker, Subscriber, sys};
use crate::auth::Access;
use crate::router::{InsertError, Inserted};
use crate::session::{Session, SubscriptionOptions, Ticket};
use crate::store::{Health, Key, Row};
use bytestring::ByteString;
use mqtt_codec::topic::SharedFilter;
use mqtt_codec::{QoS, ReasonCode, RetainHandling, SubscriptionId};
use std::sync::Arc;

/// One filter of a SUBSCRIBE packet.
#[derive(Debug, Clone)]
pub struct SubscribeRequest {
    pub filter: ByteString,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
    pub identifier: Option<SubscriptionId>,
}

/// The answer to one filter, and the retained messages to send for it, if any.
#[derive(Debug)]
pub struct SubscribeOutcome {
    pub reason: ReasonCode,
    pub retained: Option<RetainedScan>,
    /// The client may be told when this is durable.
    pub ticket: Ticket,
}

impl Broker {
    /// Subscribes, or says why not. Granted is the lower of the wish and `mqtt.max_qos_allowed`.
    pub fn subscribe(
        &self,
        subscriber: &Arc<Subscriber>,
        session: &mut Session,
        access: &Access,
        request: SubscribeRequest,
    ) -> SubscribeOutcome {
        let refuse = |reason| SubscribeOutcome { reason, retained: None, ticket: 0 };
        let Ok(shared) = SharedFilter::parse(&request.filter) else { return refuse(ReasonCode::TopicFilterInvalid) };
        let (group, filter) = match &shared {
            Some(shared) => (Some(shared.group), shared.filter),
            None => (None, &*request.filter),
        };
        if group.is_some() && !self.config.shared_subscription {
            self.metrics.limit_hit("mqtt.shared_subscription");
            return refuse(ReasonCode::SharedSubscriptionsNotSupported);
        }
        // [MQTT3-3.8.3-2]
        if !self.config.wildcard_subscription && filter.contains(['+', '#']) {
            self.metrics.limit_hit("mqtt.wildcard_subscription");
            return refuse(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if mqtt_codec::topic::levels(filter).count() > usize::from(self.config.max_topic_levels) {
            self.metrics.limit_hit("mqtt.max_topic_levels");
            return refuse(ReasonCode::TopicFilterInvalid);
        }
        // The filter itself is judged, whatever group it is shared in.
        if !access.may_subscribe(filter, request.qos) {
            return refuse(ReasonCode::NotAuthorized);
        }
        if session.subscriptions.len() >= self.config.max_subscriptions
            && !session.subscriptions.contains_key(&request.filter)
        {
            self.metrics.limit_hit("mqtt.max_subscriptions");
            return refuse(ReasonCode::QuotaExceeded);
        }
        if subscriber.is_durable()
            && let Some(health) = self.store_trouble()
        {
            return refuse(match health {
                Health::Full => ReasonCode::QuotaExceeded,
                _ => ReasonCode::ImplementationSpecificError,
            });
        }
        if request.qos > self.config.max_qos() {
            self.metrics.limit_hit("mqtt.max_qos_allowed");
        }
        let options = SubscriptionOptions {
            // [MQTT-3.2.2-10] [MQTT-3.8.4-7]
            qos: request.qos.min(self.config.max_qos()),
            no_local: request.no_local,
            retain_as_published: request.retain_as_published,
            identifier: request.identifier,
        };
        let inserted = match self.router.insert(filter, group, Arc::clone(subscriber), options) {
            Ok(inserted) => inserted,
            Err(InsertError::Full) => {
                self.metrics.limit_hit("subscriptions");
                return refuse(ReasonCode::QuotaExceeded);
            }
            Err(InsertError::InvalidFilter) => return refuse(ReasonCode::TopicFilterInvalid),
        };
        // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]; a shared subscription brings none, MQTT 5 section 4.8.2.
        let wanted = match request.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => inserted == Inserted::New,
            RetainHandling::DoNotSend => false,
        };
        let sys = sys::is_sys(filter);
        if sys && wanted && group.is_none() {
            self.refresh_sys();
        }
        let empty = if sys { self.sys.topics.is_empty() } else { self.retained.is_empty() };
        let retained = (wanted && group.is_none() && !empty)
            .then(|| RetainedScan::new(request.filter.clone(), filter, sys, options.qos, options.identifier));
        session.subscriptions.insert(request.filter.clone(), options);
        let key = || Key::Subscription(subscriber.id(), request.filter.clone());
        let ticket = subscriber.store().map_or(0, |store| store.put(key(), Row::Subscription(options)));
        session.changed = ticket;
        SubscribeOutcome { reason: ReasonCode::granted(options.qos), retained, ticket }
    }

    /// Unsubscribes; `false` if there was no such subscription. Either is durable with the session's last change.
    pub fn unsubscribe(&self, subscriber: &Arc<Subscriber>, session: &mut Session, filter: &ByteString) -> bool {
        // [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3]: what is on its way stays.
        if session.subscriptions.remove(filter).is_none() {
            return false;
        }
        self.remove_route(filter, subscriber);
        let key = || Key::Subscription(subscriber.id(), filter.clone());
        session.changed = subscriber.store().map_or(0, |store| store.delete(key()));
        true
    }

    pub(super) fn remove_route(&self, filter: &str, subscriber: &Arc<Subscriber>) -> bool {
        match SharedFilter::parse(filter) {
            Ok(Some(shared)) => self.router.remove(shared.filter, Some(shared.group), subscriber),
            Ok(None) => self.router.remove(filter, None, subscriber),
            Err(_) => false,
        }
    }
}
