//! A subscribing client: enters what comes into its books and acknowledges it.

use std::future::poll_fn;
use std::num::NonZeroU16;
use std::task::{Context, Poll};

use bytestring::ByteString;
use mqtt_codec::{
    Packet, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeProperties, Subscription, SubscriptionOptions,
};

use super::account::{Account, Books};
use super::control::{Control, Live, Phase};
use super::link::{Link, LinkError, Target, decode_rare};
use super::wire::{Answer, Incoming};

/// Rounds of reading and writing before other clients of the thread get a turn.
const ROUNDS: usize = 8;

/// Nothing is read while this many bytes of acknowledgements wait to be written.
const HIGH_WATER: usize = 256 * 1024;

pub(super) struct Subscriber {
    link: Link,
    books: Books,
    /// What was asked for, until SUBACK has come.
    awaited: Option<Vec<ByteString>>,
}

/// The first of the filters that a server has refused.
fn refused(reasons: &[ReasonCode], filters: Vec<ByteString>) -> Option<(ReasonCode, ByteString)> {
    reasons.iter().copied().zip(filters).find(|(reason, _)| reason.is_error())
}

impl Subscriber {
    /// Subscribes to `filters` and waits for SUBACK. What arrives meanwhile is entered.
    pub async fn subscribe(
        target: &Target,
        link: Link,
        books: Books,
        filters: impl IntoIterator<Item = ByteString>,
        qos: QoS,
        control: &Control,
    ) -> Result<Subscriber, LinkError> {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::DoNotSend,
        };
        let filters: Vec<ByteString> = filters.into_iter().collect();
        let subscriptions = filters.iter().map(|filter| Subscription { filter: filter.clone(), options }).collect();
        let mut subscriber = Subscriber { link, books, awaited: Some(filters) };
        subscriber.link.queue(&Subscribe {
            packet_id: NonZeroU16::MIN,
            properties: SubscribeProperties::default(),
            subscriptions,
        })?;
        let answer = poll_fn(|cx| {
            let polled = subscriber.poll(cx, control)?;
            if subscriber.awaited.is_none() { Poll::Ready(Ok(())) } else { polled.map(Ok) }
        });
        target.within("SUBACK", answer).await?;
        Ok(subscriber)
    }

    /// Receives until the run is over. Says what came in any case.
    pub async fn run(mut self, mut control: Control) -> (Account, Result<(), LinkError>) {
        let mut phases = control.clone();
        let result = tokio::select! {
            result = poll_fn(|cx| self.poll(cx, &control)) => result,
            () = phases.reached(Phase::Over) => Ok(()),
        };
        control.reached(Phase::Over).await;
        if result.is_ok() {
            self.link.close().await;
        }
        (self.books.close(), result)
    }

    fn poll(&mut self, cx: &mut Context<'_>, control: &Control) -> Poll<Result<(), LinkError>> {
        self.link.poll_ping(cx);
        for _ in 0..ROUNDS {
            let read = self.link.unwritten() < HIGH_WATER && self.poll_messages(cx, control)?;
            let waiting = self.link.unwritten() >= HIGH_WATER;
            let room_again = self.link.poll_write(cx)?.is_ready() && waiting;
            if !read && !room_again {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_messages(&mut self, cx: &mut Context<'_>, control: &Control) -> Result<bool, LinkError> {
        let version = self.link.version();
        let before = self.books.received();
        let now = control.clock.nanos();
        let mut latencies = control.lane.delivery.lock();
        let Subscriber { link, books, awaited } = self;
        let read = link.poll_read(cx, |packet, out| {
            match packet {
                Incoming::Publish { qos, packet_id, payload } => {
                    if let Some(stamp) = books.enter(payload) {
                        latencies.saturating_record(now.saturating_sub(stamp.nanos) / 1000);
                    }
                    match qos {
                        QoS::AtMostOnce => {}
                        QoS::AtLeastOnce => Answer::Acknowledged.append(out, packet_id),
                        QoS::ExactlyOnce => Answer::Received.append(out, packet_id),
                    }
                }
                Incoming::PubRel(id) => Answer::Complete.append(out, id),
                Incoming::Other(frame) => match decode_rare(frame, version)? {
                    Packet::SubAck(ack) => {
                        let filters = awaited.take().unwrap_or_default();
                        if let Some((reason, filter)) = refused(&ack.reasons, filters) {
                            return Err(LinkError::NotSubscribed(filter, reason));
                        }
                    }
                    other => return Err(LinkError::Unexpected(other.packet_type())),
                },
                _ => {}
            }
            Ok(())
        });
        drop(latencies);
        Live::add(&control.live.received, self.books.received() - before);
        match read {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // "the server refused the subscription: unspecified error" left open which topic a rule was missing for.
    #[test]
    fn a_refused_subscription_is_named() {
        let reasons = [ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError];
        let (reason, filter) = refused(&reasons, vec!["bench/1/0".into(), "bench/1/#".into()]).unwrap();
        let error = LinkError::NotSubscribed(filter, reason);
        assert_eq!(error.to_string(), "the server refused the subscription \"bench/1/#\": unspecified error");
        assert_eq!(error.cause(), "the server refused the subscription: unspecified error");
        assert_eq!(refused(&reasons[..1], vec!["a".into()]), None);
    }
}
