//! Starts and stops the whole broker from one configuration.

use crate::admin;
use crate::auth::{Auth, StoredAuthError};
use crate::broker::{Broker, Held, retained_index};
use crate::causes::Causes;
use crate::config::{Config, ConfigError, ConfigErrors, CryptoConfig, Durability, Examined, NodeConfig};
use crate::metrics::Metrics;
use crate::net::{BindError, PreparedListener};
use crate::operator::{Channel, ChannelError, Operator, Source};
use crate::revocation::Revocation;
use crate::router::Stored;
use crate::session::millis;
use crate::store::{Directory, Loaded, LoadedRetained, Medium, Recovery, Store, StoreError, WallClock};
use gm_tls::key::Password;
use gm_tls::tickets::{MIN_SEED_BYTES, TicketKeys};
use rustix::fs::{Access, access};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// How long the store may take to write what is left at shutdown.
const CLOSE: Duration = Duration::from_secs(30);

/// How long connections may take to say goodbye at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

const NOT_LOOKED_AT: &str =
    "certificates of listeners with mistakes were not looked at; check again when these are mended";

/// Why the broker does not start. Every mistake and every listener that cannot listen is named.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("{}", join(.0))]
    Listeners(Vec<BindError>),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who is left out could not connect, and a rule that is left out may be one that refuses.
    #[error("store: {0}")]
    Auth(#[from] StoredAuthError),
    #[error("node.data_dir: cannot create {}: {cause}", .path.display())]
    DataDir { path: PathBuf, cause: io::Error },
    #[error("metrics.bind: cannot listen on {bind}: {cause}")]
    Metrics { bind: SocketAddr, cause: io::Error },
}

fn join(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A configuration of which everything is known to be good, the files that it names too: all that is left to do is to listen.
#[derive(Debug)]
pub struct Prepared {
    /// Without its listeners.
    config: Config,
    auth: Arc<Auth>,
    revocation: Arc<Revocation>,
    listeners: Vec<PreparedListener>,
    /// Instead of the data directory.
    medium: Option<Arc<dyn Medium>>,
    /// Instead of the runtime that everything runs in.
    handshakes: Option<Handle>,
    /// Where a reload finds the configuration.
    source: Source,
}

impl Prepared {
    /// Reads a configuration, or the one for development when none is named, lays the environment over it, and opens what it
    /// names. Nothing is made or changed.
    ///
    /// # Errors
    /// Every mistake in the configuration and in the files it names.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Prepared, ConfigErrors> {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let Examined { config, errors, written } = Config::examine(file, environment.iter().cloned(), None);
        let source = Source::File { file: file.map(Path::to_owned), environment, written };
        let unseen = config.as_ref().is_some_and(|config| config.certificates_unseen);
        let prepared = match config {
            Some(config) => Prepared::examine(config, errors, source),
            None => ConfigErrors::check(errors).and_then(|()| Prepared::new(Config::development()?)),
        };
        prepared.map_err(|found| if unseen { found.noting(NOT_LOOKED_AT) } else { found })
    }

    /// Opens what a configuration names.
    ///
    /// # Errors
    /// Every mistake in the files.
    pub fn new(config: Config) -> Result<Prepared, ConfigErrors> {
        Prepared::examine(config, Vec::new(), Source::Program)
    }

    fn examine(mut config: Config, mut errors: Vec<ConfigError>, source: Source) -> Result<Prepared, ConfigErrors> {
        errors.extend(check_data_dir(&config.node));
        // Before any key is read.
        if let Err(cause) = gm_tls::provider::choose(config.crypto.provider) {
            errors.push(config.crypto.provider_place.error(cause.to_string()).suggest(CryptoConfig::ADVICE));
            // There is one, so this ends here and no key is read.
            ConfigErrors::check(std::mem::take(&mut errors))?;
        }
        let auth = Auth::new(&config.auth);
        errors.extend(auth.as_ref().err().into_iter().flat_map(|found| found.as_slice().iter().cloned()));
        let (revocation, wrong) = Revocation::new(&config.revocation, &config.node.data_dir);
        errors.extend(wrong);
        let tickets = ticket_keys(&config.node).map_err(|error| errors.push(error)).ok();
        let mut listeners = Vec::new();
        // Without the keys of tickets there is a mistake already; the others are still looked for.
        let tickets = tickets.unwrap_or_else(|| TicketKeys::from_seed(Default::default()));
        for listener in std::mem::take(&mut config.listeners) {
            match PreparedListener::new(listener, &revocation, &tickets) {
                Ok(listener) => listeners.push(listener),
                Err(found) => errors.extend(found),
            }
        }
        ConfigErrors::check(errors)?;
        Ok(Prepared { config, auth: Arc::new(auth?), revocation, listeners, medium: None, handshakes: None, source })
    }

    /// Keeps durable state somewhere else than in the data directory.
    pub fn store_on(self, medium: Arc<dyn Medium>) -> Prepared {
        Prepared { medium: Some(medium), ..self }
    }

    /// Accepts and secures connections in a runtime of their own, such as that of [`net::handshake_runtime`](crate::net::handshake_runtime),
    /// so that established ones do not wait in a queue with them.
    pub fn handshakes_in(self, runtime: &Handle) -> Prepared {
        Prepared { handshakes: Some(runtime.clone()), ..self }
    }

    /// The configuration without its listeners.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn listeners(&self) -> &[PreparedListener] {
        &self.listeners
    }
}

/// The keys of session tickets: of the seed, or of this process alone.
fn ticket_keys(node: &NodeConfig) -> Result<TicketKeys, ConfigError> {
    let refused = |reason: String| node.tickets_seed_place.error(reason);
    let Some(secret) = &node.tickets_seed else {
        return TicketKeys::random().map_err(|cause| refused(format!("the random generator failed: {cause}")));
    };
    let secret = Password::resolve(secret.expose()).map_err(|cause| refused(Causes(&cause).to_string()))?;
    TicketKeys::from_secret(&secret).ok_or_else(|| {
        refused(format!("a seed of less than {MIN_SEED_BYTES} bytes can be guessed"))
            .suggest("make one with: openssl rand -base64 32")
    })
}

/// What would keep the data directory from being made or written to.
fn check_data_dir(node: &NodeConfig) -> Option<ConfigError> {
    let wrong = |path: &Path, reason: &str| {
        let error = node.data_dir_place.error(format!("{}: {reason}", path.display()));
        Some(ConfigError { path: Some(path.into()), ..error })
    };
    // What is not there yet is made at start, in the nearest directory that is.
    let mut nearest = node.data_dir.as_path();
    while let (Err(cause), Some(parent)) = (nearest.symlink_metadata(), nearest.parent()) {
        if cause.kind() != io::ErrorKind::NotFound {
            return wrong(nearest, &cause.to_string());
        }
        nearest = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    }
    match nearest.metadata() {
        Ok(found) if !found.is_dir() => return wrong(nearest, "not a directory"),
        Err(cause) => return wrong(nearest, &cause.to_string()),
        Ok(_) => {}
    }
    let writable = access(nearest, Access::WRITE_OK | Access::EXEC_OK);
    writable.err().and_then(|_| wrong(nearest, "this user may not write to this directory"))
}

/// A running broker. [`shutdown`](Self::shutdown) lets clients know and ends everything in bounded time.
///
/// Dropping it closes the listeners, ends the janitor and the other helpers at once, and asks every connection to end, as
/// [`shutdown`](Self::shutdown) does, but waits for none and leaves the store to whoever holds it last. Connections are tasks of the
/// runtime, which no set here holds, since it would grow with each of them: those that have not come to CONNECT live until their deadline.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    operator: Arc<Operator>,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    metrics_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    helpers: JoinSet<()>,
}

impl Server {
    /// Prepares and runs a configuration.
    ///
    /// # Errors
    /// As [`Prepared::new`] and [`run`](Self::run).
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Server::run(Prepared::new(config)?).await
    }

    /// Binds everything, and only then accepts anything: either all listeners run or none.
    ///
    /// # Errors
    /// Every address that the system does not give.
    pub async fn run(prepared: Prepared) -> Result<Server, StartError> {
        let Prepared { config, auth, revocation, listeners, medium, handshakes, source } = prepared;
        let handshakes = handshakes.unwrap_or_else(Handle::current);
        let metrics = Arc::new(Metrics::new());
        metrics.show_revocation(Arc::clone(revocation.counters()));
        let broker = open_broker(&config, &auth, medium, Arc::clone(&metrics)).await?;
        let mut opened = Vec::new();
        let mut errors = Vec::new();
        for listener in listeners {
            match listener.bind(Arc::clone(&broker), Arc::clone(&auth), &config.log, &handshakes) {
                Ok(listener) => opened.push(listener),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(StartError::Listeners(errors));
        }
        let (stop, stopped) = watch::channel(false);
        let mut helpers = JoinSet::new();
        let mut metrics_address = None;
        if config.metrics.enable {
            let bind = config.metrics.bind;
            let socket = TcpListener::bind(bind).await.map_err(|cause| StartError::Metrics { bind, cause })?;
            metrics_address = socket.local_addr().ok();
            helpers.spawn(admin::serve(socket, Arc::clone(&broker), stopped.clone()));
        }
        helpers.spawn(Arc::clone(&broker).run_janitor());
        helpers.spawn(Arc::clone(&broker).run_estates());
        helpers.spawn(Arc::clone(&broker).run_sys());
        helpers.spawn(Arc::clone(&revocation).run());
        let metrics_bind = config.metrics.enable.then_some(config.metrics.bind);
        let all = opened.iter().map(|(listener, ..)| Arc::clone(listener)).collect();
        let operator =
            Arc::new(Operator::new(source, all, auth, Arc::clone(&broker), revocation, metrics_bind, config.node.name));
        helpers.spawn(Arc::clone(&operator).watch(stopped.clone()));
        helpers.spawn(Arc::clone(&operator).watch_alarms(stopped.clone()));
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for (listener, socket, address) in opened {
            info!(listener = &**listener.id(), %address, "listening");
            addresses.push((Arc::clone(listener.id()), address));
            let runtime = listener.runtime().clone();
            listeners.spawn_on(listener.run(socket, stopped.clone()), &runtime);
        }
        Ok(Server { broker, operator, addresses, metrics_address, stop, listeners, helpers })
    }

    /// Where each listener listens, by its id such as `ssl:default`.
    pub fn addresses(&self) -> &[(Arc<str>, SocketAddr)] {
        &self.addresses
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The service that knows which certificates were revoked.
    pub fn revocation(&self) -> &Arc<Revocation> {
        self.operator.revocation()
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        self.broker.metrics()
    }

    /// What an operator can do to it while it runs.
    pub fn operator(&self) -> &Arc<Operator> {
        &self.operator
    }

    /// Answers `shangmq ctl` by a socket in `data_dir`.
    ///
    /// # Errors
    /// The system does not give the socket, or another broker has it.
    pub fn open_channel(&mut self, data_dir: &Path) -> Result<(), ChannelError> {
        let channel = Channel::open(data_dir)?;
        self.helpers.spawn(channel.serve(Arc::clone(&self.operator), self.stop.subscribe()));
        Ok(())
    }

    /// Stops accepting, tells MQTT 5 clients why, and waits a bounded time for them to go.
    pub async fn shutdown(mut self) {
        info!(sessions = self.broker.session_count(), "shutting down");
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
        self.broker.shut();
        let deadline = tokio::time::Instant::now() + DRAIN;
        while self.metrics().open_connections() > 0 {
            if tokio::time::Instant::now() >= deadline {
                warn!(left = self.metrics().open_connections(), "connections that did not end in time are cut off");
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.helpers.shutdown().await;
        // Wills, the ends of sessions and what was acknowledged last are written before the process may end.
        if let Some(store) = self.broker.store().cloned() {
            let close = tokio::task::spawn_blocking(move || store.close());
            match tokio::time::timeout(CLOSE, close).await {
                Ok(Ok(true)) => {}
                Ok(_) => error!("durable state could not all be written; what was acknowledged is not affected"),
                Err(_) => error!(seconds = CLOSE.as_secs(), "the disk is too slow to close the store in time"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.broker.shut();
    }
}

/// The broker with what its store holds, or with nothing where durability is off.
async fn open_broker(
    config: &Config,
    auth: &Arc<Auth>,
    medium: Option<Arc<dyn Medium>>,
    metrics: Arc<Metrics>,
) -> Result<Arc<Broker>, StartError> {
    let started = tokio::time::Instant::now();
    let (mqtt, retainer, store) = (config.mqtt.clone(), config.retainer, config.store);
    let features = config.features.clone();
    if store.durability == Durability::Off {
        return Ok(Broker::with_store(mqtt, retainer, features, metrics, None, retained_index(&retainer), started));
    }
    let path = config.node.data_dir.clone();
    if medium.is_none() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|cause| StartError::DataDir { path: path.clone(), cause })?;
    }
    let auth = Arc::clone(auth);
    let open = tokio::task::spawn_blocking(move || {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = WallClock { origin: millis(since_epoch.saturating_sub(started.elapsed())) };
        let medium = match medium {
            Some(medium) => medium,
            None => Arc::new(Directory::open(&path).map_err(StoreError::from)?),
        };
        let (mut sessions, mut bans, mut delayed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut users, mut rules) = (Vec::new(), Vec::new());
        let retained = retained_index(&retainer);
        // The broker's own limit begins with each start.
        let limit = retainer.msg_expiry_interval;
        let limit = (!limit.is_zero()).then(|| millis(started.elapsed().saturating_add(limit)));
        let mut beyond = 0u64;
        let each = |item| match item {
            Loaded::Session(session) => sessions.push(*session),
            Loaded::Retained(LoadedRetained { topic, bytes, expires_at }) => {
                let expires_at_ms = [expires_at, limit].into_iter().flatten().min();
                let stored = Stored { message: Held::OnDisk, bytes, expires_at_ms };
                beyond += u64::from(retained.set(&topic, Some(stored)).is_err());
            }
            Loaded::Ban(subject, ban) => bans.push((subject, ban)),
            Loaded::User(name, row) => users.push((name, row)),
            Loaded::Acl(subject, row) => rules.push((subject, row)),
            Loaded::Delayed(number, message) => delayed.push((number, message)),
        };
        let (store, recovery) = Store::open(medium, store, clock, Arc::clone(&metrics), each)?;
        auth.keep_in(&store, users, rules)?;
        if beyond > 0 {
            // They stay in the store: a start with other limits brings them back.
            error!(beyond, "stored retained messages are beyond the limits of [retainer] and are not served");
        }
        let broker = Broker::with_store(mqtt, retainer, features, metrics, Some(store), retained, started);
        broker.bans().recover(bans);
        broker.recover(sessions, &auth);
        broker.recover_delayed(delayed);
        say(&recovery, &path, started.elapsed());
        Ok::<_, StartError>(broker)
    });
    match open.await {
        Ok(broker) => broker,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn say(recovery: &Recovery, path: &Path, elapsed: Duration) {
    let directory = path.display();
    if recovery.new {
        info!(%directory, "durable state begins here");
        return;
    }
    let Recovery { sessions, subscriptions, queued, retained, delayed, clean, .. } = *recovery;
    let last_shutdown = if clean { "clean" } else { "not clean" };
    let milliseconds = millis(elapsed);
    info!(
        %directory, last_shutdown, milliseconds,
        "recovered {sessions} sessions, {subscriptions} subscriptions, {queued} queued messages, {retained} retained messages, \
         {delayed} delayed messages; last shutdown was {last_shutdown}"
    );
}
