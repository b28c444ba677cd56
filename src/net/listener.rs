//! One listening socket and its accept loop, which only accepts.

use super::accepted;
use super::security::Security;
use super::turns::Turns;
use crate::auth::Auth;
use crate::broker::Broker;
use crate::bundle::Candidate;
use crate::config::{Config, ConfigError, ListenerConfig, LogConfig, TcpConfig, TlsConfig};
use crate::conn::Policy;
use crate::dev_certs::now;
use crate::metrics::ListenerMetrics;
use crate::per_address::{Lines, Place, Places, Rates};
use crate::revocation::Revocation;
use crate::session::{TokenBucket, millis};
use crate::telemetry::Reports;
use gm_tls::tickets::TicketKeys;
use parking_lot::{Mutex, RwLock};
use socket2::{SockRef, TcpKeepalive};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{error, warn};

/// Pause after an error of accept() that concerns the process and not one connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Why a listener whose configuration is right cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("listeners.{}.bind: cannot listen on {bind}: {}", .id.replacen(':', ".", 1), describe_bind(.cause))]
pub struct BindError {
    /// Such as `ssl:default`, which the configuration writes with a point.
    id: String,
    bind: SocketAddr,
    cause: io::Error,
}

fn describe_bind(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another program (see it with: ss -ltnp)".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => cause.to_string(),
    }
}

/// A listener with everything but its socket: whatever its configuration names was found and is good.
#[derive(Debug)]
pub struct PreparedListener {
    config: ListenerConfig,
    security: Option<Security>,
    tickets: TicketKeys,
}

impl PreparedListener {
    /// Loads the certificates.
    ///
    /// # Errors
    /// Every mistake in them and in the options that go with them.
    pub fn new(
        config: ListenerConfig,
        revocation: &Arc<Revocation>,
        tickets: &TicketKeys,
    ) -> Result<PreparedListener, Vec<ConfigError>> {
        let tickets = tickets.clone();
        let load = |tls| Security::load(tls, alpn(&config), revocation, &config.id(), &tickets, None);
        let security = config.kind.tls().map(load).transpose()?;
        Ok(PreparedListener { config, security, tickets })
    }

    pub fn config(&self) -> &ListenerConfig {
        &self.config
    }

    /// What is allowed and may yet not be meant, in the configuration and in the files that it names.
    pub fn warnings(&self) -> Vec<String> {
        let secured = self.security.iter().flat_map(|security| security.warnings(&self.config.id(), now()));
        self.config.warnings().into_iter().chain(secured).collect()
    }

    /// Binds the socket and says where. Nothing is accepted before [`Listener::run`]. Connections that have to be secured belong to
    /// `handshakes` until they are; all others, and the secured ones from there, to the runtime of the caller.
    ///
    /// # Errors
    /// The system does not give the address.
    pub fn bind(
        self,
        broker: Arc<Broker>,
        auth: Arc<Auth>,
        log: &LogConfig,
        handshakes: &Handle,
    ) -> Result<(Arc<Listener>, TcpListener, SocketAddr), BindError> {
        let PreparedListener { config, security, tickets } = self;
        let id = config.id();
        let established = Handle::current();
        let runtime = if security.is_some() { handshakes.clone() } else { established.clone() };
        // The socket, and those of its connections, are the runtime's in which they are made.
        let in_runtime = runtime.enter();
        let bound = bind(&config).and_then(|socket| socket.local_addr().map(|address| (socket, address)));
        let (socket, address) = bound.map_err(|cause| BindError { id: id.clone(), bind: config.bind, cause })?;
        drop(in_runtime);
        let metrics = broker.metrics().listener(&id);
        metrics.certificates.set(security.as_ref().map(Security::expiries).unwrap_or_default());
        let reports = Arc::new(Reports::new(Arc::clone(&metrics), log.max_peer_lines_per_minute));
        let handshakes = Turns::new(config.kind.tls().map_or(0, |tls| tls.max_concurrent_handshakes));
        let handshakes_by_address = Lines::new(config.kind.tls().map_or(0, |tls| tls.max_handshakes_per_address));
        let connections = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        let policy = Arc::new(Policy {
            mountpoint: config.mountpoint.clone(),
            rates: config.rates,
            peer_names: config.peer_names,
        });
        let rate = config.rates.max_conn_rate;
        let rate = rate.map(|r| Mutex::new(TokenBucket::new(r.amount, millis(r.per), r.burst, broker.now())));
        let connections_by_address = Arc::new(Places::new(config.max_connections_per_address));
        let connection_rates = Rates::new(config.max_connection_rate_per_address, Duration::from_secs(1));
        let listener = Listener {
            id: id.into(),
            config,
            broker,
            auth,
            metrics,
            reports,
            security: security.map(|security| RwLock::new(Arc::new(security))),
            tickets,
            runtime,
            established,
            handshakes,
            handshakes_by_address,
            connections,
            policy,
            rate,
            connections_by_address,
            connection_rates,
        };
        Ok((Arc::new(listener), socket, address))
    }
}

/// What every connection of one listener shares.
#[derive(Debug)]
pub struct Listener {
    pub(super) id: Arc<str>,
    pub(super) config: ListenerConfig,
    pub(super) broker: Arc<Broker>,
    pub(super) auth: Arc<Auth>,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) reports: Arc<Reports>,
    /// What the handshakes that begin now are made by. The lock is held to copy or to replace the pointer, no longer.
    security: Option<RwLock<Arc<Security>>>,
    /// Those of the whole process.
    tickets: TicketKeys,
    /// Where it accepts, and where its connections are until they are secured.
    runtime: Handle,
    /// Where connections are from there.
    pub(super) established: Handle,
    /// Handshakes that may be computed at once; waiting is fair to addresses and within each handshake's deadline.
    pub(super) handshakes: Turns,
    /// Handshakes of one address that may be under way at once, for the most part waiting for their peers.
    pub(super) handshakes_by_address: Lines,
    connections: Arc<Semaphore>,
    /// What its clients are held to.
    pub(super) policy: Arc<Policy>,
    /// How fast connections are accepted; the kernel holds those that wait.
    rate: Option<Mutex<TokenBucket>>,
    connections_by_address: Arc<Places>,
    connection_rates: Rates,
}

impl Listener {
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// As the configuration writes it.
    pub fn key(&self) -> String {
        self.config.key()
    }

    /// The address that it was started with.
    pub fn bound_to(&self) -> IpAddr {
        self.config.bind.ip()
    }

    pub(super) fn is_secured(&self) -> bool {
        self.security.is_some()
    }

    /// How its connections are secured, if they are.
    pub fn security(&self) -> Option<Arc<Security>> {
        self.security.as_ref().map(|security| Arc::clone(&security.read()))
    }

    /// Opens the files of `config`, or once more those of the configuration in force, and changes nothing yet. `None` where
    /// connections are not secured.
    ///
    /// # Errors
    /// Every mistake in the files and in the options that go with them.
    pub fn read_security(&self, config: Option<&TlsConfig>) -> Result<Option<Security>, Vec<ConfigError>> {
        let Some(running) = self.security() else { return Ok(None) };
        let config = config.unwrap_or(&running.config);
        self.load(config, &running, None).map(Some)
    }

    /// What would be wrong with its certificates if this bundle were put in force. Nothing is changed.
    pub fn mistakes_with(&self, candidate: &Arc<Candidate>) -> Vec<ConfigError> {
        let Some(running) = self.security() else { return Vec::new() };
        mistakes_with(&running.config, candidate, |candidate| self.load(&running.config, &running, candidate))
    }

    fn load(
        &self,
        config: &TlsConfig,
        running: &Security,
        candidate: Option<&Arc<Candidate>>,
    ) -> Result<Security, Vec<ConfigError>> {
        Security::load(config, alpn(&self.config), &running.revocation, &self.id, &self.tickets, candidate)
    }

    /// Secures connections by `security` from their next handshake on; whether that changes anything.
    pub fn secure_by(&self, security: Security) -> bool {
        let Some(place) = &self.security else { return false };
        let mut place = place.write();
        let (security, changed) = security.in_place_of(&place);
        self.metrics.certificates.set(security.expiries());
        *place = Arc::new(security);
        changed
    }

    /// Where it has to [`run`](Self::run).
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Accepts until `stop` says so. Connections go on after that.
    pub async fn run(self: Arc<Self>, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                // Cancel safe: a connection is either returned or still in the kernel's queue.
                accepted = socket.accept() => match accepted {
                    Ok((stream, remote)) => {
                        self.take(stream, remote);
                        let wait = self.rate.as_ref().map_or(0, |rate| rate.lock().take(1, self.broker.now()));
                        if wait > 0 {
                            self.metrics_hit("max_conn_rate");
                            tokio::select! {
                                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                                _ = stop.changed() => return,
                            }
                        }
                    }
                    Err(cause) => self.survive(&cause).await,
                },
                _ = stop.changed() => return,
            }
        }
    }

    fn metrics_hit(&self, limit: &'static str) {
        self.broker.metrics().limit_hit(limit);
    }

    fn take(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            self.metrics.refused_full.fetch_add(1, Ordering::Relaxed);
            self.metrics_hit("max_connections");
            if self.reports.may_say("max_connections") {
                let limit = self.config.max_connections;
                warn!(listener = &*self.id, %remote, limit, "connection refused: max_connections is reached");
            }
            return;
        };
        let open = Open::new(Arc::clone(&self.metrics), remote, permit);
        let listener = Arc::clone(self);
        accepted::serve(stream, remote, listener, open);
    }

    /// A place for a connection of this address, known only after the PROXY header; the key of the limit that says no otherwise.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, &'static str> {
        if !self.connection_rates.take(address) {
            return Err("max_connection_rate_per_address");
        }
        self.connections_by_address.take(address).ok_or("max_connections_per_address")
    }

    async fn survive(&self, cause: &io::Error) {
        // These concern one connection, which died in the queue.
        let one_connection = matches!(
            cause.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
        );
        if one_connection {
            return;
        }
        self.metrics.accept_errors.fetch_add(1, Ordering::Relaxed);
        if self.reports.may_say("accept") {
            error!(listener = &*self.id, %cause, "cannot accept connections; if descriptors ran out, raise LimitNOFILE or ulimit -n");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What the listeners of a configuration would find wrong if this bundle were put in force.
pub fn mistakes_of_listeners(config: &Config, candidate: &Arc<Candidate>) -> Vec<ConfigError> {
    // Mistakes of its own are for `check-config`, and nothing is served with these keys.
    let (revocation, _) = Revocation::new(&config.revocation, &config.node.data_dir);
    let tickets = TicketKeys::from_seed(Default::default());
    let each = config.listeners.iter().filter_map(|listener| Some((listener, listener.kind.tls()?)));
    each.flat_map(|(listener, tls)| {
        mistakes_with(tls, candidate, |candidate| {
            Security::load(tls, alpn(listener), &revocation, &listener.id(), &tickets, candidate)
        })
    })
    .collect()
}

/// What a listener that refers to a bundle finds wrong with the candidate, and not without it. A part that is missing in both is named.
fn mistakes_with(
    config: &TlsConfig,
    candidate: &Arc<Candidate>,
    load: impl Fn(Option<&Arc<Candidate>>) -> Result<Security, Vec<ConfigError>>,
) -> Vec<ConfigError> {
    let keys: Vec<&str> = config.keys_of(&candidate.id).collect();
    if keys.is_empty() {
        return Vec::new();
    }
    let Err(found) = load(Some(candidate)) else { return Vec::new() };
    let before = load(None).err().unwrap_or_default();
    found.into_iter().filter(|error| keys.contains(&&*error.key) || !before.contains(error)).collect()
}

/// The application protocols of a listener: a WebSocket client speaks HTTP first.
fn alpn(config: &ListenerConfig) -> &'static [&'static [u8]] {
    if config.kind.websocket().is_some() { &[b"http/1.1"] } else { &[b"mqtt"] }
}

/// A connection's place among `max_connections`. It is counted as closed and the place is free again whatever ends the task that has
/// this, a panic too.
pub(super) struct Open {
    metrics: Arc<ListenerMetrics>,
    remote: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: Arc<ListenerMetrics>, remote: SocketAddr, permit: OwnedSemaphorePermit) -> Open {
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        Open { metrics, remote, _permit: permit }
    }

    /// In a box, since an `async fn` keeps room for a future it was given and again for the same future while it awaits it.
    pub(super) fn during(
        self,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        // In this order, so that the place is free when all of the connection is gone.
        let mut held = (Box::pin(connection), self);
        poll_fn(move |cx| {
            // A closure takes only the fields that it names.
            let held = &mut held;
            held.0.as_mut().poll(cx)
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            self.metrics.panics.fetch_add(1, Ordering::Relaxed);
            error!(listener = self.metrics.id(), remote = %self.remote, "a connection was ended by a bug of the broker; please report it with the panic message before this line");
        }
    }
}

// [MQTT-4.2.0-1]
fn bind(config: &ListenerConfig) -> io::Result<TcpListener> {
    let socket = if config.bind.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    set_options(&SockRef::from(&socket), &config.tcp)?;
    socket.bind(config.bind)?;
    socket.listen(config.tcp.backlog)
}

/// Set once on the listening socket, which hands its options on to every connection that it accepts.
fn set_options(socket: &SockRef<'_>, config: &TcpConfig) -> io::Result<()> {
    socket.set_tcp_nodelay(config.nodelay)?;
    if let Some(keepalive) = &config.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::path::Path;

    #[tokio::test]
    async fn accepted_connections_have_the_options_of_their_listener() {
        for (nodelay, keepalive) in [(true, "240,30,5"), (false, "none")] {
            let text = format!(
                "[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\ntcp_options = {{ nodelay = {nodelay}, keepalive = \"{keepalive}\" }}\n"
            );
            let config = Config::parse(Path::new("shangmq.toml"), &text, []).unwrap();
            let socket = bind(&config.listeners[0]).unwrap();
            let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = socket.accept().await.unwrap();
            assert_eq!(accepted.nodelay().unwrap(), nodelay);
            assert_eq!(SockRef::from(&accepted).keepalive().unwrap(), keepalive != "none");
        }
    }

    async fn open_once(connection: impl Future<Output = ()> + Send + 'static) -> (Arc<ListenerMetrics>, usize, bool) {
        let metrics = Arc::new(ListenerMetrics::default());
        let places = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&places).try_acquire_owned().unwrap();
        let open = Open::new(Arc::clone(&metrics), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), permit);
        let outcome = tokio::spawn(open.during(connection)).await;
        (metrics, places.available_permits(), outcome.is_err_and(|error| error.is_panic()))
    }

    #[tokio::test]
    async fn a_panic_gives_the_place_back_and_is_counted_as_a_bug() {
        let (metrics, free, panicked) = open_once(async {
            tokio::task::yield_now().await;
            panic!("a bug");
        })
        .await;
        assert!(panicked);
        assert_eq!(
            (free, metrics.connections.load(Ordering::Relaxed), metrics.panics.load(Ordering::Relaxed)),
            (1, 0, 1)
        );
    }

    #[tokio::test]
    async fn an_orderly_end_is_no_bug() {
        let (metrics, free, panicked) = open_once(async {}).await;
        assert!(!panicked);
        assert_eq!(
            (free, metrics.connections.load(Ordering::Relaxed), metrics.panics.load(Ordering::Relaxed)),
            (1, 0, 0)
        );
    }
}
