//! What the broker keeps of a client between packets and between connections: pure state, no IO, no clock.
//!
//! Time is an argument ([`Millis`]); what must be sent comes out as values. A [`Session`] is owned by one connection's task at a
//! time; the [`Queue`] in front of it is what publishers fill.

mod alias;
mod backlog;
mod inbound;
mod inflight;
mod message;
#[cfg(test)]
mod model;
mod queue;
mod rate;

pub use alias::{AliasError, InboundAliases, OutboundAliases, TopicAs};
pub use backlog::{Backlog, Held, IN_MEMORY_BYTES, IN_MEMORY_MESSAGES, LoadedRow, Rows, Ticket};
pub use inbound::{AwaitingRelease, Begin};
pub use inflight::{Acknowledged, Inflight, Pending, Resend};
pub use message::{Delivery, Message, Sending, ShareName, StoredAs, Wire};
pub use queue::{Priorities, Push, Queue, QueueLimits};
pub use rate::TokenBucket;

#[cfg(test)]
pub(crate) use message::tests::delivery as message_for_tests;

use bytestring::ByteString;
use hashbrown::HashMap;
use mqtt_codec::{QoS, SubscriptionId};
use std::time::Duration;

/// Milliseconds on the broker's monotonic clock.
pub type Millis = u64;

/// A configured time on that clock; what is too long for it counts as the longest.
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// What a client asked for when it subscribed, [MQTT-3.8.3-1] and MQTT 5 section 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub identifier: Option<SubscriptionId>,
}

/// How long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionExpiry {
    /// It ends with the connection.
    OnDisconnect,
    After(Millis),
    /// MQTT 5 value 0xFFFF_FFFF, or MQTT 3 clean session 0 where the configuration sets no limit.
    Never,
}

impl SessionExpiry {
    /// The shorter of the two.
    pub fn at_most(self, limit: SessionExpiry) -> SessionExpiry {
        match (self, limit) {
            (SessionExpiry::OnDisconnect, _) | (_, SessionExpiry::OnDisconnect) => SessionExpiry::OnDisconnect,
            (SessionExpiry::Never, other) | (other, SessionExpiry::Never) => other,
            (SessionExpiry::After(a), SessionExpiry::After(b)) => SessionExpiry::After(a.min(b)),
        }
    }

    /// The moment it ends when the connection ends at `now`; `None` means never.
    pub fn deadline(self, now: Millis) -> Option<Millis> {
        match self {
            SessionExpiry::OnDisconnect => Some(now),
            SessionExpiry::After(after) => Some(now.saturating_add(after)),
            SessionExpiry::Never => None,
        }
    }
}

/// A message the broker publishes on a client's behalf once it is gone, MQTT 5 section 3.1.2.5.
#[derive(Debug, Clone)]
pub struct Will {
    pub message: Message,
    pub retain: bool,
    /// Milliseconds between the loss of the connection and the publication.
    pub delay: Millis,
}

/// The state of one client that outlives its connections (MQTT 5 section 4.1).
///
/// ```text
///             CONNECT                      connection ends, expiry > 0
///  (absent) ───────────▶ owned by a task ─────────────────────────────▶ parked
///      ▲                     │   ▲                                        │ │
///      └─────────────────────┘   └────────────── CONNECT ─────────────────┘ │
///        expiry = 0 or clean start                                          │
///      ◀────────────────────────────── expiry passes ───────────────────────┘
/// ```
#[derive(Debug)]
pub struct Session {
    /// Filters as the client sent them, `$share` prefix included.
    pub subscriptions: HashMap<ByteString, SubscriptionOptions>,
    /// QoS 1 and 2 messages on their way to the client.
    pub inflight: Inflight,
    /// QoS 2 messages received from the client and not yet released.
    pub awaiting_release: AwaitingRelease,
    pub expiry: SessionExpiry,
    /// When this is durable, the session is.
    pub created: Ticket,
    /// The last change to its subscriptions and to what awaits release. What is said of something that is not there waits for it: the
    /// change that removed it, on this connection or an earlier one, may not be durable yet.
    pub changed: Ticket,
    /// The last change to rows of its queue that were sent.
    pub rows_changed: Ticket,
}

impl Session {
    pub fn new(expiry: SessionExpiry) -> Session {
        Session {
            subscriptions: HashMap::new(),
            inflight: Inflight::new(),
            awaiting_release: AwaitingRelease::new(),
            expiry,
            created: 0,
            changed: 0,
            rows_changed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_expiry_wins() {
        let hour = SessionExpiry::After(3_600_000);
        let day = SessionExpiry::After(86_400_000);
        assert_eq!(day.at_most(hour), hour);
        assert_eq!(SessionExpiry::Never.at_most(hour), hour);
        assert_eq!(hour.at_most(SessionExpiry::Never), hour);
        assert_eq!(SessionExpiry::OnDisconnect.at_most(SessionExpiry::Never), SessionExpiry::OnDisconnect);
    }

    #[test]
    fn expiry_far_in_the_future_does_not_overflow() {
        assert_eq!(SessionExpiry::After(u64::MAX).deadline(10), Some(u64::MAX));
        assert_eq!(SessionExpiry::Never.deadline(10), None);
        assert_eq!(SessionExpiry::OnDisconnect.deadline(10), Some(10));
    }
}
