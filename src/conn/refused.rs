//! Tells the operator and the counters of what the rules for topics refused: so many lines a minute, whatever a client tries.

use std::sync::atomic::Ordering;

use mqtt_codec::topic::SharedFilter;
use mqtt_codec::{QoS, ReasonCode};

use super::{Close, Context};
use crate::auth::acl::Publishing;
use crate::auth::{Access, RefusedBy};
use crate::config::DenyAction;
use crate::metrics::Checked;
use crate::store::Health;
use crate::telemetry::shortened;

/// A refused PUBLISH: its message goes no further. What its publisher is told, or that its connection ends.
pub(super) fn publish(context: &Context, access: &Access, wish: Publishing<'_>) -> Result<ReasonCode, Close> {
    message(context, access, wish.topic, || access.publish_refused_by(wish));
    match context.auth.deny_action() {
        DenyAction::Ignore => Ok(ReasonCode::NotAuthorized),
        DenyAction::Disconnect => Err(Close::Refused(ReasonCode::NotAuthorized, "publish that is not allowed")),
    }
}

/// What the publisher of a message is told that the store cannot take.
pub(super) fn by_store(health: Health) -> ReasonCode {
    match health {
        Health::Full => ReasonCode::QuotaExceeded,
        Health::Good | Health::Failed => ReasonCode::ImplementationSpecificError,
    }
}

/// A PUBLISH to one of the broker's own topics.
pub(super) fn reserved(context: &Context, access: &Access, topic: &str) {
    message(context, access, topic, || RefusedBy::Reserved);
}

/// A will, with which its CONNECT is refused.
pub(super) fn will(context: &Context, access: &Access, wish: Publishing<'_>) {
    say(context, access, Checked::Will, wish.topic, || access.publish_refused_by(wish));
}

/// A filter of a SUBSCRIBE packet or of `[[auto_subscribe]]`, with `$share/GROUP/` where it has that.
pub(super) fn subscribe(context: &Context, access: &Access, filter: &str, qos: QoS) {
    say(context, access, Checked::Subscribe, filter, || {
        let shared = SharedFilter::parse(filter).ok().flatten();
        access.subscribe_refused_by(shared.as_ref().map_or(filter, |shared| shared.filter), qos)
    });
}

fn message(context: &Context, access: &Access, topic: &str, rule: impl FnOnce() -> RefusedBy) {
    context.broker.metrics().dropped_unauthorized.fetch_add(1, Ordering::Relaxed);
    say(context, access, Checked::Publish, topic, rule);
}

/// The rules are asked again for the line alone, so that refusing costs no more when there are too many to tell.
fn say(context: &Context, access: &Access, action: Checked, topic: &str, rule: impl FnOnce() -> RefusedBy) {
    if !context.reports.may_say("acl") {
        return;
    }
    let identity = access.rights().identity();
    tracing::info!(
        listener = &*context.listener,
        remote = %context.remote,
        client_id = shortened(&identity.client_id),
        username = identity.username.as_deref().map(shortened),
        certificate = identity.peer.certificate.as_ref().map(|certificate| shortened(certificate.subject())),
        action = action.as_str(),
        topic = shortened(topic),
        rule = %rule(),
        "refused by the rules for topics"
    );
}
