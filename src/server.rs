//! Starts and stops the whole broker from one configuration.

use crate::admin;
use crate::auth::{Auth, PasswordFileError};
use crate::broker::Broker;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::net::{Listener, ListenerError};
use mqtt_codec::ReasonCode;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// How long connections may take to say goodbye at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the broker does not start. Every listener that cannot start is named.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}", join(.0))]
    Listeners(Vec<ListenerError>),
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    #[error("metrics.bind: cannot listen on {bind}: {cause}")]
    Metrics { bind: SocketAddr, cause: io::Error },
}

fn join(errors: &[ListenerError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A running broker. Dropping it ends every task at once; [`shutdown`](Self::shutdown) lets clients know first.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    metrics_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    helpers: JoinSet<()>,
}

impl Server {
    /// Loads everything, binds everything, and only then accepts anything: either all listeners run or none.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let metrics = Arc::new(Metrics::new());
        let auth = Arc::new(Auth::new(&config.auth)?);
        let broker = Broker::new(config.mqtt, config.retainer, Arc::clone(&metrics));
        let mut opened = Vec::new();
        let mut errors = Vec::new();
        for listener in config.listeners {
            match open(Listener::open(listener, Arc::clone(&broker), Arc::clone(&auth))) {
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
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for (listener, socket, address) in opened {
            addresses.push((Arc::clone(listener.id()), address));
            listeners.spawn(listener.run(socket, stopped.clone()));
        }
        Ok(Server { broker, addresses, metrics_address, stop, listeners, helpers })
    }

    /// Where each listener listens, by its id such as `ssl:default`.
    pub fn addresses(&self) -> &[(Arc<str>, SocketAddr)] {
        &self.addresses
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        self.broker.metrics()
    }

    /// Stops accepting, tells MQTT 5 clients why, and waits a bounded time for them to go.
    pub async fn shutdown(mut self) {
        info!(sessions = self.broker.session_count(), "shutting down");
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
        self.broker.disconnect_all(ReasonCode::ServerShuttingDown);
        let deadline = tokio::time::Instant::now() + DRAIN;
        while self.metrics().open_connections() > 0 {
            if tokio::time::Instant::now() >= deadline {
                warn!(left = self.metrics().open_connections(), "connections that did not end in time are cut off");
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.helpers.shutdown().await;
    }
}

type Opened = (Arc<Listener>, TcpListener, SocketAddr);

fn open(result: Result<(Arc<Listener>, TcpListener), ListenerError>) -> Result<Opened, ListenerError> {
    let (listener, socket) = result?;
    match socket.local_addr() {
        Ok(address) => Ok((listener, socket, address)),
        Err(cause) => Err(listener.bind_error(cause)),
    }
}
