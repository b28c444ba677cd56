//! Where the broker keeps retained messages: topics in memory, and with a store the messages on disk behind a bounded cache.

use super::durable::Changes;
use super::{Broker, Subscriber};
use crate::config::RetainerConfig;
use crate::router::{Retained, RetainedLimits, RetainedWalk};
use crate::session::{Delivery, Message, StoredAs, Ticket};
use crate::store::{RetainedReading, Store};
use bytestring::ByteString;
use mqtt_codec::{QoS, SubscriptionId};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A retained message, or where it is.
#[derive(Debug, Clone)]
pub enum Held {
    Here(Arc<Message>),
    OnDisk,
}

/// All retained messages of the node.
pub type RetainedIndex = Retained<Held>;

/// An index without messages.
pub fn retained_index(config: &RetainerConfig) -> RetainedIndex {
    Retained::new(RetainedLimits {
        max_messages: config.max_retained_messages,
        max_bytes: config.max_bytes,
        ..RetainedLimits::default()
    })
}

/// Messages that were retained last and are in memory, oldest first, with the tickets of their rows.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    messages: VecDeque<(Arc<Message>, Ticket)>,
    bytes: usize,
}

/// Retained messages on their way to a new subscription, read in bounded batches.
#[derive(Debug)]
pub struct RetainedScan {
    /// As the client sent it.
    filter: ByteString,
    walk: RetainedWalk,
    /// Over `$SYS` topics instead of clients' messages.
    sys: bool,
    qos: QoS,
    identifier: Option<SubscriptionId>,
    found: Vec<(ByteString, Held)>,
    reading: Option<RetainedReading>,
    /// There may be more than was found.
    more: bool,
}

/// Where a scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    More,
    Done,
    /// Messages are being read; the task is woken.
    Reading,
}

impl RetainedScan {
    /// For the subscription to `filter`, which is `real` without its group.
    pub(super) fn new(
        filter: ByteString,
        real: &str,
        sys: bool,
        qos: QoS,
        identifier: Option<SubscriptionId>,
    ) -> RetainedScan {
        let walk = RetainedWalk::new(real);
        RetainedScan { filter, walk, sys, qos, identifier, found: Vec::new(), reading: None, more: true }
    }

    /// The filter of the subscription it serves.
    pub fn filter(&self) -> &ByteString {
        &self.filter
    }
}

impl Broker {
    /// A message was retained with this ticket: it stays in memory until its row can be read, and as long as there is room.
    pub(super) fn remember_retained(&self, store: &Store, message: &Arc<Message>, ticket: Ticket) {
        let mut evicted = Vec::new();
        {
            let mut recent = self.recent.0.lock();
            recent.bytes += message.cost();
            recent.messages.push_back((Arc::clone(message), ticket));
            while recent.bytes > store.retained_cache_bytes()
                && recent.messages.front().is_some_and(|(_, ticket)| store.is_durable(*ticket))
            {
                let Some((oldest, _)) = recent.messages.pop_front() else { break };
                recent.bytes = recent.bytes.saturating_sub(oldest.cost());
                evicted.push(oldest);
            }
        }
        for oldest in evicted {
            self.retained.update(&oldest.topic, |held| {
                if matches!(held, Held::Here(message) if Arc::ptr_eq(message, &oldest)) {
                    *held = Held::OnDisk;
                }
            });
        }
    }

    /// Moves the next retained messages of `scan` into the subscriber's outbox, at most `limit`.
    pub fn poll_retained(
        &self,
        cx: &mut Context<'_>,
        subscriber: &Subscriber,
        scan: &mut RetainedScan,
        limit: usize,
    ) -> Scanned {
        if scan.reading.is_none() && scan.found.is_empty() {
            if scan.sys {
                let mut found = Vec::new();
                scan.more = self.sys.topics.next_batch(&mut scan.walk, limit, self.now(), &mut found);
                scan.found.extend(found.into_iter().map(|(topic, message)| (topic, Held::Here(message))));
            } else {
                scan.more = self.retained.next_batch(&mut scan.walk, limit, self.now(), &mut scan.found);
            }
            let on_disk = scan.found.iter().filter(|(_, held)| matches!(held, Held::OnDisk));
            let topics: Vec<ByteString> = on_disk.map(|(topic, _)| topic.clone()).collect();
            if let Some(store) = self.store.as_ref().filter(|_| !topics.is_empty()) {
                scan.reading = Some(store.read_retained(topics));
            }
        }
        let mut read = match &mut scan.reading {
            None => Default::default(),
            Some(reading) => match Pin::new(reading).poll(cx) {
                Poll::Pending => return Scanned::Reading,
                // The store has said what is wrong; what cannot be read is not sent.
                Poll::Ready(read) => read.unwrap_or_default(),
            },
        };
        scan.reading = None;
        let mut changes = Changes::new(self.store.as_deref());
        for (topic, held) in scan.found.drain(..) {
            let message = match held {
                Held::Here(message) => message,
                // It may have been replaced or removed while it was read.
                Held::OnDisk => match (self.retained.get(&topic, self.now()), read.remove(&topic)) {
                    (Some(Held::Here(newer)), _) => newer,
                    (Some(Held::OnDisk), Some(message)) => message,
                    _ => continue,
                },
            };
            let delivery = Delivery {
                qos: self.qos_of(scan.qos, message.qos),
                retain: true,
                subscription_ids: scan.identifier.into_iter().collect(),
                message,
                stored: StoredAs::default(),
                share: None,
            };
            subscriber.push(delivery, &mut changes);
        }
        if scan.more { Scanned::More } else { Scanned::Done }
    }
}
