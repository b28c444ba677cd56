//! `shangmq bench handshake`: a fixed number of workers connect again and again, each one connection at a time.

use std::io;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use clap::Args;
use gm_tls::client::Session;
use gm_tls::{HandshakeFailure, Protocol, TlsStream};
use mqtt_codec::{Connect, ConnectProperties, ProtocolVersion, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cause;
use super::options::duration;
use super::progress::Progress;
use super::report::{Run, Tally};
use super::write_report;
use crate::causes::Causes;
use crate::cli::Outcome;
use crate::cli::session::{Interrupt, SessionError, password_of_environment, random_id, secret};
use crate::cli::transport::{TransportArguments, hidden};
use crate::cli::url::Hidden;
use crate::client::{Client, ClientError, ConnectError, Endpoint, Security, SessionSlot, words};

/// Largest packet taken from the server; nothing but CONNACK is expected.
const MAX_PACKET_SIZE: u32 = 64 * 1024;

/// Pause of a worker after a failure: a server that is down is not hammered.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the orderly end of a connection may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Connections at the same time
    #[arg(short = 'c', long = "connections", visible_alias = "concurrency", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: u16,
    /// How long to go on, for instance 500ms, 10s or 2m [default: 10s]
    #[arg(long, value_parser = duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Attempts after which to stop
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Resume sessions wherever the server lets it
    #[arg(long)]
    resume: bool,
    /// Complete CONNECT and CONNACK as well
    #[arg(long)]
    mqtt: bool,
    /// User name for --mqtt
    #[arg(short, long, value_name = "NAME", requires = "mqtt")]
    username: Option<String>,
    /// Password for --mqtt, visible to other users of this machine; rather use the variable SHANGMQ_PASSWORD
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", value_parser = hidden)]
    password: Option<Hidden>,
    /// Threads [default: one for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Print a line of progress each second even if standard error is no terminal
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    transport: TransportArguments,
}

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("--resume needs a secured protocol: give --protocol tls, rfc8998 or tlcp")]
    NothingToResume,
    #[error("--ws needs --mqtt: a WebSocket alone is not measured")]
    WebSocketAlone,
    #[error(
        "--resume: the server gives no session, so that nothing can be resumed; shangmq gives some with session_tickets = \"stateless\" or \
         reuse_sessions = true in the options of the protocol"
    )]
    NoSession,
    #[error(
        "{0} completes the handshake and then ends the connection without an answer to CONNECT: it does not let this client in, so that its \
         handshakes are not measured; the server's log says why, perhaps its certificate is revoked or nobody knows whether it is"
    )]
    ShownTheDoor(String),
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no CONNACK within {0} seconds")]
    NoConnAck(u64),
    #[error("the server took no leave within {0} seconds after the handshake")]
    NoEnd(u64),
    #[error("cannot get random bytes for a client identifier: {0}")]
    Random(getrandom::Error),
}

/// What all workers share.
#[derive(Debug)]
struct Plan {
    endpoint: Endpoint,
    resume: bool,
    mqtt: bool,
    username: Option<ByteString>,
    password: Option<Secret>,
    deadline: Option<Instant>,
    /// Attempts that are left to begin, with `--count`.
    left: Option<AtomicU64>,
    stopped: AtomicBool,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Whether the server has given a session to some connection.
    resumable: AtomicBool,
}

/// What came of a successful attempt.
struct Success {
    latency: Duration,
    resumed: bool,
    spoken: Option<(&'static str, &'static str)>,
    session: Option<Session>,
}

impl Arguments {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = self.threads {
            builder.worker_threads(threads.into());
        }
        let runtime = builder.enable_all().build()?;
        let outcome = runtime.block_on(self.measure());
        runtime.shutdown_background();
        outcome
    }

    async fn measure(self) -> Outcome {
        let mut endpoint = self.transport.endpoint(usize::try_from(MAX_PACKET_SIZE).unwrap_or(usize::MAX))?;
        endpoint.resolve().await?;
        if self.resume && endpoint.security.is_none() {
            return Err(BenchError::NothingToResume.into());
        }
        if endpoint.websocket.is_some() && !self.mqtt {
            return Err(BenchError::WebSocketAlone.into());
        }
        let transport = match (&endpoint.security, &endpoint.websocket) {
            (None, None) => "TCP".to_owned(),
            (None, Some(_)) => "WebSocket".to_owned(),
            (Some(security), None) => security.name.to_owned(),
            (Some(security), Some(_)) => format!("WebSocket and {}", security.name),
        };
        let server = endpoint.authority();
        let client_certificate = self.transport.has_identity();
        if client_certificate && !self.mqtt {
            try_out(&endpoint).await?;
        }
        let mut interrupt = Interrupt::install()?;
        let start = Instant::now();
        let plan = Arc::new(self.plan(endpoint, start)?);
        let mut workers = JoinSet::new();
        for _ in 0..self.concurrency {
            workers.spawn(work(Arc::clone(&plan), Tally::new()?));
        }
        let mut tally = Tally::new()?;
        let mut progress = Progress::new(self.progress, start);
        loop {
            // Every branch is cancel-safe.
            tokio::select! {
                worker = workers.join_next() => match worker {
                    Some(worker) => tally.add(&worker?)?,
                    None => break,
                },
                () = interrupt.wait() => plan.stopped.store(true, Ordering::Relaxed),
                () = progress.tick() => {
                    let (done, failed) = (plan.succeeded.load(Ordering::Relaxed), plan.failed.load(Ordering::Relaxed));
                    progress.print(done, format_args!("{done} done  {failed} failed"));
                }
            }
        }
        progress.end();
        let elapsed = start.elapsed();
        let run =
            Run { server, transport, client_certificate, mqtt: self.mqtt, concurrency: self.concurrency, elapsed };
        if self.resume && tally.without_session > 0 && !plan.resumable.load(Ordering::Relaxed) {
            return Err(BenchError::NoSession.into());
        }
        let report = tally.into_report(run);
        write_report(&report, self.json)?;
        Ok(if report.handshakes > 0 && report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn plan(&self, endpoint: Endpoint, start: Instant) -> Result<Plan, SessionError> {
        let deadline = match (self.count, self.duration) {
            (Some(_), _) => None,
            (None, duration) => Some(start + duration.unwrap_or(Duration::from_secs(10))),
        };
        let password = match &self.password {
            Some(given) => Some(secret(given)),
            None if self.username.is_some() => password_of_environment()?,
            None => None,
        };
        Ok(Plan {
            endpoint,
            resume: self.resume,
            mqtt: self.mqtt,
            username: self.username.clone().map(ByteString::from),
            password,
            deadline,
            left: self.count.map(|count| AtomicU64::new(count.get())),
            stopped: AtomicBool::new(false),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            resumable: AtomicBool::new(false),
        })
    }
}

impl Plan {
    /// Whether another attempt is to begin.
    fn begin(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        match &self.left {
            None => true,
            Some(left) => left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok(),
        }
    }

    async fn over(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Connects once.
    async fn attempt(&self, session: Option<&Session>) -> Result<Success, AttemptError> {
        let start = Instant::now();
        let tcp = self.endpoint.dial().await?;
        match &self.endpoint.security {
            Some(security) => self.secured(security, tcp, session, start).await,
            None => self.plain(tcp, start).await,
        }
    }

    async fn plain(&self, tcp: TcpStream, start: Instant) -> Result<Success, AttemptError> {
        if !self.mqtt {
            return Ok(Success { latency: start.elapsed(), resumed: false, spoken: None, session: None });
        }
        let client = self.greet(self.endpoint.upgrade(tcp).await?).await?;
        let latency = start.elapsed();
        // What the server says to the end of a connection is not measured.
        let _ = timeout(CLOSE_WAIT, client.disconnect()).await;
        Ok(Success { latency, resumed: false, spoken: None, session: None })
    }

    async fn secured(
        &self,
        security: &Security,
        tcp: TcpStream,
        session: Option<&Session>,
        start: Instant,
    ) -> Result<Success, AttemptError> {
        let mut tls = self.endpoint.secure(security, tcp, session).await?;
        let mut latency = start.elapsed();
        let identity = tls.peer_identity();
        let spoken = Some((identity.protocol.name(), identity.suite));
        let resumed = identity.resumed;
        let later = matches!(identity.protocol, Protocol::Tls13 | Protocol::Rfc8998);
        // Before TLS 1.3 the session is part of the handshake.
        let mut fresh = if later || resumed { None } else { tls.session() };
        if self.mqtt {
            let slot = SessionSlot::default();
            let wanted = (later && self.resume && !resumed).then(|| Arc::clone(&slot));
            let greeting = Instant::now();
            let io = self.endpoint.unconfirmed(security, tls, wanted);
            let client = self.greet(self.endpoint.upgrade(io).await?).await?;
            latency += greeting.elapsed();
            fresh = fresh.or_else(|| slot.get().cloned());
            let _ = timeout(CLOSE_WAIT, client.disconnect()).await;
        } else {
            let limit = self.endpoint.timeout;
            let ended = timeout(limit, end(&mut tls)).await.map_err(|_elapsed| AttemptError::NoEnd(limit.as_secs()))?;
            if let Err(error) = ended {
                self.endpoint.refusal(security).after(&error).map_or(Ok(()), Err)?;
            }
            if later && !resumed {
                fresh = tls.session();
            }
        }
        Ok(Success { latency, resumed, spoken, session: fresh })
    }

    async fn greet<S: crate::client::Stream>(&self, io: S) -> Result<Client<S>, AttemptError> {
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive_secs: 60,
            properties: ConnectProperties::default(),
            client_id: random_id().map_err(AttemptError::Random)?,
            will: None,
            username: self.username.clone(),
            password: self.password.clone(),
        };
        let limit = self.endpoint.timeout;
        match timeout(limit, Client::connect(io, connect, MAX_PACKET_SIZE)).await {
            Ok(established) => Ok(established.map_err(|error| error.before_connack(|| self.endpoint.unanswered()))?.0),
            Err(_elapsed) => Err(AttemptError::NoConnAck(limit.as_secs())),
        }
    }
}

impl AttemptError {
    /// A cause that many failures share, for counting.
    fn cause(&self) -> String {
        match self {
            AttemptError::Connect(error) | AttemptError::Client(ClientError::Connect(error)) => {
                cause::of_connect(error)
            }
            AttemptError::Client(error) => match error.reason() {
                Some(reason) => format!("mqtt: {}", words(reason)),
                None => "mqtt".to_owned(),
            },
            AttemptError::NoConnAck(_) => "timeout waiting for CONNACK".to_owned(),
            AttemptError::NoEnd(_) => "timeout after the handshake".to_owned(),
            AttemptError::Random(_) => "random bytes".to_owned(),
        }
    }
}

/// Connects until the plan ends. An attempt that the end interrupts is not counted.
async fn work(plan: Arc<Plan>, mut tally: Tally) -> Tally {
    let mut session = None;
    while plan.begin() {
        let attempt = tokio::select! {
            biased;
            attempt = plan.attempt(session.as_ref()) => attempt,
            () = plan.over() => break,
        };
        match attempt {
            Ok(success) => {
                plan.succeeded.fetch_add(1, Ordering::Relaxed);
                tally.succeed(success.resumed, success.latency);
                tally.spoken = tally.spoken.or(success.spoken);
                if !plan.resume || success.resumed {
                    continue;
                }
                if success.session.is_some() {
                    plan.resumable.store(true, Ordering::Relaxed);
                    session = success.session;
                } else {
                    tally.without_session += 1;
                    // Nothing is measured of a server that gives none at all.
                    if !plan.resumable.load(Ordering::Relaxed) {
                        plan.stopped.store(true, Ordering::Relaxed);
                    }
                }
            }
            Err(error) => {
                plan.failed.fetch_add(1, Ordering::Relaxed);
                tally.fail(&error.cause(), || Causes(&error).to_string());
                session = None;
                sleep(PAUSE).await;
            }
        }
    }
    tally
}

/// Ends a connection in order and hears how the server does: the client may have finished the handshake before the server looked at its
/// certificate, and the refusal comes in place of the end. Without close_notify both sides would have to forget the session, too (RFC 5246,
/// section 7.2.1).
async fn end(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tls.shutdown().await?;
    // What the server says besides, such as a ticket, is no consent yet.
    let mut rest = [0; 256];
    while tls.read(&mut rest).await? > 0 {}
    Ok(())
}

/// One connection as far as an answer to CONNECT, before anything is measured. Of some certificates a server knows only after the handshake
/// that they are no good, such as when it has to fetch a revocation list. It then ends the connection, as it does where the client is done.
///
/// # Errors
/// The server does that. Whatever else goes wrong shows in every handshake that is measured.
async fn try_out(endpoint: &Endpoint) -> Result<(), BenchError> {
    let (Ok(io), Ok(client_id)) = (endpoint.connect().await, random_id()) else { return Ok(()) };
    let connect = Connect {
        // Which every server knows.
        version: ProtocolVersion::V3_1_1,
        clean_start: true,
        keep_alive_secs: 60,
        properties: ConnectProperties::default(),
        client_id,
        will: None,
        username: None,
        password: None,
    };
    let at = || endpoint.authority();
    match timeout(endpoint.timeout, Client::connect(io, connect, MAX_PACKET_SIZE)).await {
        Ok(Ok((client, _))) => drop(timeout(CLOSE_WAIT, client.disconnect()).await),
        Ok(Err(error)) => match error.before_connack(|| endpoint.unanswered()) {
            ClientError::Connect(ConnectError::Unanswered { .. } | ConnectError::LetGo { .. }) => {
                return Err(BenchError::ShownTheDoor(at()));
            }
            ClientError::Connect(ConnectError::Handshake { source, .. })
                if source.reason() == HandshakeFailure::Closed =>
            {
                return Err(BenchError::ShownTheDoor(at()));
            }
            _ => {}
        },
        Err(_elapsed) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Arguments {
        crate::cli::tests::try_parse(arguments).unwrap()
    }

    #[tokio::test]
    async fn a_count_is_the_number_of_attempts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let arguments = parse(&["-h", "127.0.0.1", "-p", &port, "--count", "5"]);
        let endpoint = arguments.transport.endpoint(1024).unwrap();
        let plan = Arc::new(arguments.plan(endpoint, Instant::now()).unwrap());
        let (one, other) = tokio::join!(
            work(Arc::clone(&plan), Tally::new().unwrap()),
            work(Arc::clone(&plan), Tally::new().unwrap())
        );
        let mut tally = one;
        tally.add(&other).unwrap();
        let report = tally.into_report(run());
        assert_eq!((report.handshakes, report.failed), (5, 0));
    }

    #[tokio::test]
    async fn failures_are_counted_by_cause() {
        // A listener that is gone leaves a port where nothing listens.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let arguments = parse(&["-h", "127.0.0.1", "-p", &port, "--count", "3"]);
        let endpoint = arguments.transport.endpoint(1024).unwrap();
        let plan = Arc::new(arguments.plan(endpoint, Instant::now()).unwrap());
        let report = work(plan, Tally::new().unwrap()).await.into_report(run());
        assert_eq!((report.handshakes, report.failed), (0, 3));
        assert!(report.to_string().contains("3  connection refused: connection refused at 127.0.0.1:"), "{report}");
    }

    fn run() -> Run {
        Run {
            server: String::new(),
            transport: "TCP".to_owned(),
            client_certificate: false,
            mqtt: false,
            concurrency: 2,
            elapsed: Duration::from_secs(1),
        }
    }
}
