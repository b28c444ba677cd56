//! Takes back what a client may no longer have: subscriptions that the rules in force refuse, and what they brought.

use super::{Broker, Subscriber};
use crate::auth::Access;
use crate::session::{Delivery, Session};
use bytestring::ByteString;
use mqtt_codec::topic::{SharedFilter, matches};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Broker {
    /// Ends each subscription that is refused now and returns their filters. Messages that wait in the outbox and that no subscription
    /// left would bring are dropped and counted.
    pub fn withdraw(&self, subscriber: &Arc<Subscriber>, session: &mut Session, access: &Access) -> Vec<ByteString> {
        let refused: Vec<ByteString> = session
            .subscriptions
            .iter()
            .filter(|(filter, options)| !access.may_subscribe(real(filter), options.qos))
            .map(|(filter, _)| filter.clone())
            .collect();
        if refused.is_empty() {
            return refused;
        }
        for filter in &refused {
            self.unsubscribe(subscriber, session, filter);
        }
        let dropped = subscriber.retain(|delivery| brought(session, delivery));
        self.metrics.dropped_unauthorized.fetch_add(dropped as u64, Ordering::Relaxed);
        refused
    }

    /// As [`withdraw`](Self::withdraw), for a session that a client takes up again: what was sent and not received is dropped too. What
    /// another client had subscribed to and has given up is dropped from a session that is inherited.
    pub fn withdraw_resumed(
        &self,
        subscriber: &Arc<Subscriber>,
        session: &mut Session,
        access: &Access,
        inherited: bool,
    ) -> Vec<ByteString> {
        let refused = self.withdraw(subscriber, session, access);
        if inherited && refused.is_empty() {
            let dropped = subscriber.retain(|delivery| brought(session, delivery));
            self.metrics.dropped_unauthorized.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        if inherited || !refused.is_empty() {
            let mut inflight = std::mem::take(&mut session.inflight);
            let dropped = inflight.retain(|delivery| brought(session, delivery));
            session.inflight = inflight;
            self.metrics.dropped_unauthorized.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        refused
    }
}

/// Whether a subscription of the session brings this message.
pub fn brought(session: &Session, delivery: &Delivery) -> bool {
    session.subscriptions.keys().any(|filter| matches(real(filter), &delivery.message.topic))
}

/// The filter without `$share/GROUP/`.
fn real(filter: &str) -> &str {
    match SharedFilter::parse(filter) {
        Ok(Some(shared)) => shared.filter,
        _ => filter,
    }
}
