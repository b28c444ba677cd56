//! Connections over pipes in memory, so that a test's clock can be paused: waiting costs no time and is exact.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use gm_tls::identity::{PeerIdentity, Protocol};
use shangmq::auth::Auth;
use shangmq::broker::Broker;
use shangmq::conn::{self, Context, Io, Policy};
use shangmq::metrics::{ListenerMetrics, Metrics};
use shangmq::net::Counted;
use shangmq::telemetry::Reports;
use testkit::{Client, Connect};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, JoinSet};

use crate::broker::Setup;

/// The broker's end of a pipe.
pub type Pipe = Counted<DuplexStream>;

/// The broker's end of a pipe whose reads a test can answer itself: `read` says whether it did.
pub struct Answered<F> {
    pub inner: Pipe,
    pub read: F,
}

impl<F: FnMut(&mut ReadBuf<'_>) -> bool + Unpin> AsyncRead for Answered<F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if (this.read)(buf) { Poll::Ready(Ok(())) } else { Pin::new(&mut this.inner).poll_read(cx, buf) }
    }
}

impl<F: Unpin> AsyncWrite for Answered<F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Longer than anything a test simulates.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);
const PIPE_LEN: usize = 64 * 1024;

/// A broker without sockets. To be used with `#[tokio::test(start_paused = true)]`.
#[derive(Debug)]
pub struct SimulatedBroker {
    broker: Arc<Broker>,
    auth: Arc<Auth>,
    metrics: Arc<ListenerMetrics>,
    connect_timeout: Duration,
    policy: Arc<Policy>,
    /// Holds the directory with the files of the configuration.
    setup: Setup,
    /// The janitor.
    _tasks: JoinSet<()>,
}

impl SimulatedBroker {
    pub fn start(setup: Setup) -> SimulatedBroker {
        let config = setup.config();
        let auth = Arc::new(Auth::new(&config.auth).unwrap());
        let connect_timeout = config.mqtt.idle_timeout;
        let first = config.listeners.first().unwrap();
        let policy =
            Arc::new(Policy { mountpoint: first.mountpoint.clone(), rates: first.rates, peer_names: first.peer_names });
        let metrics = Arc::new(Metrics::new());
        let listener = metrics.listener("tcp:default");
        let broker = Broker::new(config.mqtt, config.retainer, config.features, metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&broker).run_janitor());
        tasks.spawn(Arc::clone(&broker).run_sys());
        SimulatedBroker { broker, auth, metrics: listener, connect_timeout, policy, setup, _tasks: tasks }
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// The directory from which relative paths of the configuration start.
    pub fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// A client that has said nothing yet.
    pub fn open(&self) -> Client<DuplexStream> {
        self.open_through(|stream| stream).0
    }

    /// As [`open`](Self::open), at a listener with another mount point.
    pub fn open_below(&self, mountpoint: &str) -> Client<DuplexStream> {
        let policy = Arc::new(Policy { mountpoint: mountpoint.into(), ..(*self.policy).clone() });
        self.open_under(policy, None, |stream| stream).0
    }

    /// As [`open`](Self::open), for a client that has proved a pre-shared key.
    pub fn open_with_key(&self, identity: &str) -> Client<DuplexStream> {
        let peer = PeerIdentity {
            protocol: Protocol::Tls13,
            suite: "TLS_AES_128_GCM_SHA256",
            sni: None,
            alpn: None,
            signing: None,
            encryption: None,
            psk: Some(identity.into()),
            resumed: false,
        };
        self.open_under(Arc::clone(&self.policy), Some(Arc::new(peer)), |stream| stream).0
    }

    /// As [`open`](Self::open), where the broker sees its end of the pipe through a wrapper. The task is the connection's.
    pub fn open_through<S: Io + 'static>(
        &self,
        wrap: impl FnOnce(Pipe) -> S,
    ) -> (Client<DuplexStream>, JoinHandle<()>) {
        self.open_under(Arc::clone(&self.policy), None, wrap)
    }

    fn open_under<S: Io + 'static>(
        &self,
        policy: Arc<Policy>,
        peer: Option<Arc<PeerIdentity>>,
        wrap: impl FnOnce(Pipe) -> S,
    ) -> (Client<DuplexStream>, JoinHandle<()>) {
        let (here, there) = tokio::io::duplex(PIPE_LEN);
        let there = Counted::new(there);
        let context = Context {
            broker: Arc::clone(&self.broker),
            auth: Arc::clone(&self.auth),
            metrics: Arc::clone(&self.metrics),
            reports: Arc::new(Reports::new(Arc::clone(&self.metrics), 60)),
            listener: "tcp:default".into(),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            peer,
            ended: self.broker.ended().times(),
            proxied: None,
            taken: there.written(),
            connect_timeout: self.connect_timeout,
            policy,
        };
        let io = Box::new(wrap(there));
        let task = tokio::spawn(async move {
            if let Some(established) = conn::establish(io, context).await {
                established.run().await;
            }
        });
        (Client::new(here).with_patience(PATIENCE), task)
    }

    pub async fn connect(&self, packet: Connect) -> Client<DuplexStream> {
        let mut client = self.open();
        client.connect(packet).await;
        client
    }

    pub async fn connect_below(&self, mountpoint: &str, packet: Connect) -> Client<DuplexStream> {
        let mut client = self.open_below(mountpoint);
        client.connect(packet).await;
        client
    }
}
