//! Takes back what a client may no longer have: subscriptions that the rules in force refuse, and what they brought.

use super::durable::Changes;
use super::{Broker, Subscriber};
use crate::auth::Access;
use crate::session::{Delivery, LoadedRow, Session};
use bytestring::ByteString;
use mqtt_codec::QoS;
use mqtt_codec::topic::{SharedFilter, matches};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Broker {
    /// Ends each subscription that is refused now and returns their filters. Messages that wait in the outbox and that no subscription
    /// left would bring are given up.
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
        self.give_up(session, |keep, changes| subscriber.retain(keep, changes));
        refused
    }

    /// Takes over rows of a session's queue, and gives up what no subscription left would bring, if rows are judged.
    pub fn take_rows(
        &self,
        subscriber: &Subscriber,
        session: &Session,
        rows: Vec<(u64, LoadedRow)>,
        through: Option<u64>,
    ) {
        if !subscriber.judges_rows() {
            // Nothing is refused, so nothing is written, and the store need not be waited for.
            subscriber.loaded(rows, through, |_| true, &mut Changes::new(self.store.as_deref()));
            return;
        }
        self.give_up(session, |keep, changes| subscriber.loaded(rows, through, keep, changes));
    }

    /// Of the messages that `refuse` finds not to be kept, other members get those that came by shared subscriptions, MQTT 5 section 4.8.2,
    /// in one transaction with what becomes of their rows. The others are dropped and counted.
    fn give_up(
        &self,
        session: &Session,
        refuse: impl FnOnce(&mut dyn FnMut(&Delivery) -> bool, &mut Changes<'_>) -> usize,
    ) {
        let mut changes = Changes::new(self.store.as_deref());
        changes.begin();
        let mut shared = Vec::new();
        let mut keep = |delivery: &Delivery| {
            let kept = brought(session, delivery);
            // With QoS 2 only what was never sent, as of an ended session.
            let was_begun = delivery.qos == QoS::ExactlyOnce && delivery.stored.again;
            if !kept && delivery.share.is_some() && !was_begun {
                shared.push(delivery.clone());
            }
            kept
        };
        let refused = refuse(&mut keep, &mut changes);
        let given = shared.iter().filter(|delivery| self.redispatch(delivery, &mut changes)).count();
        self.metrics.dropped_unauthorized.fetch_add(refused.saturating_sub(given) as u64, Ordering::Relaxed);
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
            self.give_up(session, |keep, changes| subscriber.retain(keep, changes));
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
fn brought(session: &Session, delivery: &Delivery) -> bool {
    session.subscriptions.keys().any(|filter| matches(real(filter), &delivery.message.topic))
}

/// The filter without `$share/GROUP/`.
fn real(filter: &str) -> &str {
    match SharedFilter::parse(filter) {
        Ok(Some(shared)) => shared.filter,
        _ => filter,
    }
}
