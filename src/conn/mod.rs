//! One task per connection: CONNECT under its deadline, then a loop that reads, routes, drains the outbox and writes in batches.
//!
//! ```text
//!   AwaitConnect ──CONNECT──▶ AwaitAuth ──accepted──▶ Established ──▶ closed
//!        │ deadline, garbage      │ refused                │ DISCONNECT, error, keep alive, takeover, shutdown
//!        └───────▶ closed ◀───────┘                        ▼
//! ```
//! Each state is a value that the next one consumes. This module knows nothing of what secured the connection but a `PeerIdentity`.

mod ahead;
mod authenticate;
mod close;
mod connect;
mod established;
mod handle;
mod input;
mod linger;
mod names;
mod output;
mod peer;
mod rates;
mod refused;
mod replies;
mod stored;

pub use close::{Close, StreamLimit};
pub use established::Established;
pub use linger::linger;
pub use peer::certificate_shown;

use crate::auth::{Auth, Proxied};
use crate::broker::Broker;
use crate::config::{PeerNames, RateConfig};
use crate::metrics::ListenerMetrics;
use crate::telemetry::Reports;
use connect::AwaitConnect;
use gm_tls::identity::PeerIdentity;
use mqtt_codec::ReasonCode;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

/// A byte stream that MQTT can be spoken over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a connection's task needs to know besides its stream.
#[derive(Debug, Clone)]
pub struct Context {
    pub broker: Arc<Broker>,
    pub auth: Arc<Auth>,
    pub metrics: Arc<ListenerMetrics>,
    /// What may be logged about clients.
    pub reports: Arc<Reports>,
    /// `type:name` of the listener.
    pub listener: Arc<str>,
    /// The client's address, from the PROXY header where there is one.
    pub remote: SocketAddr,
    /// Bytes that the peer's socket took, below all layers that gather some before they write.
    pub taken: Arc<AtomicU64>,
    pub peer: Option<Arc<PeerIdentity>>,
    /// How often operators had ended connections before the peer showed anything: [`Ended::times`](crate::broker::Ended::times).
    pub ended: u64,
    /// The TLS that a trusted proxy ended, where the listener believes it.
    pub proxied: Option<Box<Proxied>>,
    /// Time from here to a complete CONNECT.
    pub connect_timeout: Duration,
    pub policy: Arc<Policy>,
}

/// What a listener asks of its clients, shared by their connections.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What their topics are put under; may have placeholders.
    pub mountpoint: String,
    pub rates: RateConfig,
    /// Which names they get from their certificates.
    pub peer_names: PeerNames,
}

/// Takes a connection up to a session; `None` if it ended before. Every way a connection can end is logged with the peer's address and
/// its fault.
pub async fn establish(io: Box<dyn Io>, context: Context) -> Option<Box<Established>> {
    let (remote, listener) = (context.remote, Arc::clone(&context.listener));
    match AwaitConnect::new(io, context).establish().await {
        Ok(established) => Some(established),
        Err(close) => {
            debug!(%remote, listener = &*listener, cause = %close, "connection ended before CONNECT was accepted");
            None
        }
    }
}

/// Serves a connection of a client whose right to be here may be withdrawn: it is then told to go, `reason`, and its session lets go of it.
pub async fn serve_until(io: Box<dyn Io>, context: Context, withdrawn: impl Future<Output = ()>, reason: ReasonCode) {
    let mut withdrawn = pin!(withdrawn);
    // Cancel safe: what is dropped has not been accepted, and is dropped in any case.
    let established = tokio::select! {
        established = Box::pin(establish(io, context)) => established,
        () = &mut withdrawn => return,
    };
    let Some(established) = established else { return };
    let subscriber = Arc::clone(established.subscriber());
    let mut run = pin!(established.run());
    tokio::select! {
        () = &mut run => {}
        () = withdrawn => {
            subscriber.kick(reason);
            run.await;
        }
    }
}
