//! What an operator does to a running broker, as one service: signals, the watch of files and the admin socket call it, and whatever
//! serves operators later calls it too. Nothing here knows how it was called.

mod alarms;
mod bans;
mod bundles;
mod certificates;
mod channel;
mod conditions;
mod fitting;
mod psk;
mod reload;
mod users;
mod watch;

pub use alarms::{Alarm, AlarmKind, AlarmList};
pub use bans::{BanChange, BanList, BanReport, Banned};
pub use certificates::CertificateReport;
pub use channel::{Channel, ChannelError, Client, ClientError, Request, SOCKET, socket_path};
pub use psk::{PskChange, PskList, PskRefused};
pub use reload::{Reloaded, Source, Trigger};
pub use users::{RulesList, RulesReport, StoredChange, UserList};

use crate::auth::Auth;
use crate::broker::Broker;
use crate::metrics::Metrics;
use crate::net::Listener;
use crate::revocation::Revocation;
use crate::store::Health;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinError;
use tracing::Span;

/// The service. Its methods may read files and therefore wait: async callers give them to a thread that may.
#[derive(Debug)]
pub struct Operator {
    source: Source,
    listeners: Vec<Arc<Listener>>,
    auth: Arc<Auth>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    revocation: Arc<Revocation>,
    /// Where metrics are served, if they are.
    metrics_bind: Option<SocketAddr>,
    /// Held by the reload that runs: two at once could each put half of theirs in force.
    reloading: Mutex<()>,
    alarms: Mutex<alarms::Alarms>,
    /// Held by the look for alarms that runs: what a later one sees is told later.
    looking: Mutex<()>,
    /// Why reloads were refused, as long as that lasts.
    refused: Mutex<reload::Refused>,
    /// What messages call this node.
    node: String,
}

impl Operator {
    pub fn new(
        source: Source,
        listeners: Vec<Arc<Listener>>,
        auth: Arc<Auth>,
        broker: Arc<Broker>,
        revocation: Arc<Revocation>,
        metrics_bind: Option<SocketAddr>,
        node: String,
    ) -> Operator {
        let metrics = Arc::clone(broker.metrics());
        Operator {
            source,
            listeners,
            auth,
            broker,
            metrics,
            revocation,
            metrics_bind,
            reloading: Mutex::new(()),
            alarms: Mutex::default(),
            looking: Mutex::new(()),
            refused: Mutex::default(),
            node,
        }
    }

    /// The service that knows which certificates were revoked.
    pub fn revocation(&self) -> &Arc<Revocation> {
        &self.revocation
    }

    /// Does what may wait for files or the disk on a thread that may. Its lines of the log say who asked for it, as those of the caller do.
    ///
    /// # Errors
    /// It panicked.
    async fn aside<F, T>(self: &Arc<Self>, work: F) -> Result<T, JoinError>
    where
        F: FnOnce(&Operator) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (operator, asked) = (Arc::clone(self), Span::current());
        tokio::task::spawn_blocking(move || asked.in_scope(|| work(&operator))).await
    }
}

/// Whether the store keeps a change, or what becomes of one that it does not write.
fn kept(durable: Result<bool, Health>, otherwise: &str) -> Result<bool, String> {
    durable.map_err(|health| format!("{otherwise}: the store does not write ({health:?}); the broker's log says why"))
}
