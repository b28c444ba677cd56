//! A subscribing client: enters what comes into its books and acknowledges it.

use std::future::poll_fn;
use std::num::NonZeroU16;
use std::task::{Context, Poll};

use bytestring::ByteString;
use mqtt_codec::{Packet, QoS, RetainHandling, Subscribe, SubscribeProperties, Subscription, SubscriptionOptions};

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
    /// SUBACK came.
    subscribed: bool,
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
        let subscriptions = filters.into_iter().map(|filter| Subscription { filter, options }).collect();
        let mut subscriber = Subscriber { link, books, subscribed: false };
        subscriber.link.queue(&Subscribe {
            packet_id: NonZeroU16::MIN,
            properties: SubscribeProperties::default(),
            subscriptions,
        })?;
        let answer = poll_fn(|cx| {
            let polled = subscriber.poll(cx, control)?;
            if subscriber.subscribed { Poll::Ready(Ok(())) } else { polled.map(Ok) }
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
        let Subscriber { link, books, subscribed } = self;
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
                    Packet::SubAck(ack) => match ack.reasons.iter().find(|reason| reason.is_error()) {
                        Some(reason) => return Err(LinkError::NotSubscribed(*reason)),
                        None => *subscribed = true,
                    },
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
