//! The life of one accepted connection up to the point where MQTT begins.
//!
//! ```text
//!   accept ─▶ [PROXY header] ─▶ [hello ─▶ decide ─▶ handshake] ─▶ [WebSocket upgrade] ─▶ conn::establish
//! ```
//! Each step has a deadline of its own; every refusal is one log line with the peer's address and its fault, and one counter.

use super::counted::Counted;
use super::detect::{Detected, Port, detect};
use super::listener::{Listener, Open};
use super::prefixed::Prefixed;
use super::proxy::{self, ProxyParse};
use super::security::Security;
use super::status;
use super::websocket::{self, WebSocketOptions};
use crate::auth::Proxied;
use crate::broker::Subject;
use crate::config::{ProxyProtocolConfig, WsConfig};
use crate::conn::{self, Io};
use crate::metrics::Failed;
use crate::per_address::Place;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use gm_tls::hello::{self, Parse};
use gm_tls::revocation::{Admission, NotAdmitted};
use gm_tls::server::Refusal;
use gm_tls::{HandshakeError, PeerIdentity, TlsStream};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};

/// Time for an alert to reach a peer that reads.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);
/// First read of a hello: most fit in it.
const HELLO_CHUNK: usize = 1024;

/// RFC 6066 section 3.
const UNRECOGNIZED_NAME: u8 = 112;

type Socket = Counted<TcpStream>;
type Stream = Prefixed<Socket>;
type Secured = (TlsStream<Socket>, Arc<PeerIdentity>, Admission);

/// Why a connection ended before MQTT began.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{} is not in proxy_protocol_trusted", .0)]
    Untrusted(SocketAddr),
    #[error("no complete PROXY header within proxy_protocol_timeout")]
    ProxyTimeout,
    #[error("PROXY header: {0}")]
    Proxy(#[from] proxy::ProxyError),
    #[error("{0} is reached")]
    PerAddress(&'static str),
    #[error("{}", .0.describe(*.1))]
    FirstBytes(Detected, Port),
    #[error("hello: {0}")]
    Hello(#[from] hello::HelloError),
    #[error("{0}")]
    Policy(Refusal),
    #[error("the client asks for a server name that no certificate here is for, and unknown_sni = \"refuse\"")]
    UnknownName,
    #[error("no complete handshake within handshake_timeout")]
    HandshakeTimeout,
    #[error("handshake: {0}")]
    Handshake(HandshakeError),
    #[error("{}", .0.detail)]
    NotAdmitted(NotAdmitted),
    #[error("WebSocket upgrade: {0}")]
    WebSocket(#[from] websocket::WsError),
    #[error("no complete WebSocket upgrade within connect_timeout")]
    WebSocketTimeout,
    #[error("the peer's address is banned")]
    Banned,
    #[error("the peer closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Refused {
    /// The word by which it is counted.
    fn label(&self) -> &'static str {
        match self {
            Refused::Untrusted(_) => "proxy_untrusted",
            Refused::ProxyTimeout => "proxy_timeout",
            Refused::Proxy(_) => "proxy_malformed",
            Refused::PerAddress(limit) => limit,
            Refused::FirstBytes(detected, _) => detected.label(),
            Refused::Hello(_) => "hello_malformed",
            Refused::Policy(refusal) => refusal.kind.label(),
            Refused::UnknownName => "unknown_name",
            Refused::HandshakeTimeout => "handshake_timeout",
            Refused::Handshake(error) => error.reason().label(),
            Refused::NotAdmitted(refused) => refused.label,
            Refused::WebSocket(_) => "websocket",
            Refused::WebSocketTimeout => "websocket_timeout",
            Refused::Banned => "banned",
            Refused::Closed => "closed",
            Refused::Io(_) => "io",
        }
    }

    /// The limit that refused it, by its key in the configuration.
    fn limit(&self) -> Option<&'static str> {
        match self {
            Refused::PerAddress(limit) => Some(limit),
            Refused::ProxyTimeout => Some("proxy_protocol_timeout"),
            Refused::HandshakeTimeout => Some("handshake_timeout"),
            Refused::WebSocketTimeout => Some("connect_timeout"),
            _ => None,
        }
    }

    /// The alert by which the peer learns that its first bytes were refused, if it speaks a protocol that has alerts.
    fn hello_alert(&self) -> Option<u8> {
        match self {
            Refused::Hello(error) => Some(error.alert()),
            Refused::FirstBytes(Detected::OtherRecord, _) => Some(hello::alert::UNEXPECTED_MESSAGE),
            Refused::FirstBytes(Detected::Ssl2, _) => Some(hello::alert::PROTOCOL_VERSION),
            _ => None,
        }
    }

    /// Whether an operator wants to see it without asking: a client that is set up wrongly, not one that went away.
    fn is_notable(&self) -> bool {
        !matches!(self, Refused::Closed | Refused::Io(_) | Refused::HandshakeTimeout | Refused::WebSocketTimeout)
    }
}

/// What is known of a peer so far, for the log and the counters.
struct Peer {
    remote: SocketAddr,
    /// What it speaks; its first bytes tell TLCP from TLS, its hello which context serves it.
    protocol: &'static str,
    /// The highest version in its hello.
    offered: &'static str,
}

/// Takes a connection in and runs it to its end. `open` is its place among those of the listener.
///
/// Until it is secured a connection is a task of the listener's runtime; then it moves to that of established ones.
pub(super) fn serve(stream: TcpStream, remote: SocketAddr, listener: Arc<Listener>, open: Open) {
    let peer = Peer { remote, protocol: "unknown", offered: "unknown" };
    let runtime = listener.runtime().clone();
    if listener.is_secured() {
        runtime.spawn(secured(Counted::new(stream), peer, listener, open));
    } else {
        runtime.spawn(open.during(plain(Counted::new(stream), peer, listener)));
    }
}

async fn plain(stream: Socket, peer: Peer, listener: Arc<Listener>) {
    // In a box of its own, so that an idle connection does not keep the state of what came before.
    let begun = Box::pin(async move {
        let mut peer = peer;
        match enter(stream, &mut peer, &listener).await {
            Ok(entered) => establish(entered, peer, listener).await,
            Err(refused) => {
                report(&refused, &peer, &listener);
                None
            }
        }
    });
    if let Some((_place, established)) = begun.await {
        established.await;
    }
}

async fn secured(stream: Socket, mut peer: Peer, listener: Arc<Listener>, open: Open) {
    let entered = Box::pin(enter(stream, &mut peer, &listener)).await;
    let Entered { entrance, proxied, place, ended } = match entered {
        Ok(entered) => entered,
        Err(refused) => return report(&refused, &peer, &listener),
    };
    let Entrance::Secured(stream, identity, admission) = entrance else { return };
    let moving = match stream.try_map(|socket| socket.try_map(TcpStream::into_std)) {
        Ok(moving) => moving,
        Err(cause) => return report(&Refused::Io(cause), &peer, &listener),
    };
    let established = listener.established.clone();
    let rest = async move {
        let begun = Box::pin(async move {
            match moving.try_map(|socket| socket.try_map(TcpStream::from_std)) {
                Ok(stream) => {
                    let entrance = Entrance::Secured(stream, identity, admission);
                    establish(Entered { entrance, proxied, place, ended }, peer, listener).await
                }
                Err(cause) => {
                    report(&Refused::Io(cause), &peer, &listener);
                    None
                }
            }
        });
        if let Some((_place, established)) = begun.await {
            established.await;
        }
    };
    established.spawn(open.during(rest));
}

/// Counts a refusal and logs it.
fn report(refused: &Refused, peer: &Peer, listener: &Listener) {
    let Peer { remote, protocol, offered } = *peer;
    listener.metrics.refused(refused.label(), protocol);
    if let Some(limit) = refused.limit() {
        listener.broker.metrics().limit_hit(limit);
    }
    if refused.is_notable() && listener.reports.may_say(refused.label()) {
        info!(listener = &*listener.id, %remote, protocol, offered, reason = refused.label(), cause = %refused, "connection refused");
    } else {
        debug!(listener = &*listener.id, %remote, protocol, offered, cause = %refused, "connection ended before MQTT");
    }
}

/// A connection that is as secure as it will be.
struct Entered {
    entrance: Entrance,
    proxied: Option<Box<Proxied>>,
    place: Place,
    /// How often operators had ended connections before.
    ended: u64,
}

enum Entrance {
    Plain(Stream),
    Secured(TlsStream<Socket>, Arc<PeerIdentity>, Admission),
}

async fn enter(stream: Socket, peer: &mut Peer, listener: &Listener) -> Result<Entered, Refused> {
    let ended = listener.broker.ended().times();
    let mut stream = Prefixed::new(stream, Bytes::new());
    let mut proxied = None;
    if let Some(config) = &listener.config.proxy_protocol {
        (stream, proxied) = behind_proxy(stream, &mut peer.remote, config).await?;
    }
    if listener.broker.bans().is_banned(&Subject::Address(peer.remote.ip().to_canonical()), listener.broker.now()) {
        return Err(Refused::Banned);
    }
    let place = listener.admit(peer.remote.ip()).map_err(Refused::PerAddress)?;
    let Some(security) = listener.security() else {
        return Ok(Entered { entrance: Entrance::Plain(stream), proxied, place, ended });
    };
    let started = Instant::now();
    let outcome = secure(stream, peer, listener, &security).await;
    if let Err(refused) = &outcome {
        let failed = Failed { protocol: peer.protocol, offered: peer.offered, reason: refused.label() };
        listener.metrics.handshake_failed(failed, started.elapsed());
    }
    let (stream, identity, admission) = outcome?;
    Ok(Entered { entrance: Entrance::Secured(stream, identity, admission), proxied, place, ended })
}

/// Takes the connection up to a session; what is left of it then, and its place among those of its address.
async fn establish(entered: Entered, peer: Peer, listener: Arc<Listener>) -> Option<(Place, BoxFuture<'static, ()>)> {
    let Entered { entrance, proxied, place, ended } = entered;
    let websocket = listener.config.kind.websocket();
    let taken = match &entrance {
        Entrance::Plain(stream) => stream.get_ref().written(),
        Entrance::Secured(stream, ..) => stream.get_ref().written(),
    };
    let (io, identity, revoked) = match entrance {
        Entrance::Plain(stream) => match websocket {
            Some(config) => (upgrade(stream, &listener, config).await, None, None),
            None => (Ok(unwrapped(stream)), None, None),
        },
        Entrance::Secured(stream, identity, admission) => match websocket {
            Some(config) => (upgrade(stream, &listener, config).await, Some(identity), admission.revoked),
            None => (Ok(Box::new(stream) as Box<dyn Io>), Some(identity), admission.revoked),
        },
    };
    let io = io.map_err(|refused| report(&refused, &peer, &listener)).ok()?;
    let context = conn::Context {
        broker: Arc::clone(&listener.broker),
        auth: Arc::clone(&listener.auth),
        metrics: Arc::clone(&listener.metrics),
        reports: Arc::clone(&listener.reports),
        listener: Arc::clone(&listener.id),
        remote: peer.remote,
        peer: identity,
        ended,
        proxied,
        taken,
        connect_timeout: listener.config.connect_timeout,
        policy: Arc::clone(&listener.policy),
    };
    let established = match revoked {
        None => conn::establish(io, context).await?.run().boxed(),
        Some(revoked) => status::serve(io, context, revoked).boxed(),
    };
    Some((place, established))
}

/// Without a PROXY header nothing was read yet and the stream needs no wrapping.
fn unwrapped(stream: Stream) -> Box<dyn Io> {
    match stream.into_parts() {
        (inner, prefix) if prefix.is_empty() => Box::new(inner),
        (inner, prefix) => Box::new(Prefixed::new(inner, prefix)),
    }
}

/// Reads the PROXY header that must be there and takes the client's address from it, and what it says of the client's TLS if that is
/// believed.
async fn behind_proxy(
    stream: Stream,
    remote: &mut SocketAddr,
    config: &ProxyProtocolConfig,
) -> Result<(Stream, Option<Box<Proxied>>), Refused> {
    if !config.trusted.iter().any(|network| network.contains(remote.ip())) {
        return Err(Refused::Untrusted(*remote));
    }
    let (mut inner, prefix) = stream.into_parts();
    let mut read = BytesMut::from(&*prefix);
    let header = timeout(config.timeout, async {
        loop {
            if let ProxyParse::Header(header) = proxy::parse(&read, proxy::DEFAULT_MAX_V2_LEN)? {
                return Ok::<_, Refused>(header);
            }
            fill(&mut inner, &mut read).await?;
        }
    });
    let header = header.await.map_err(|_| Refused::ProxyTimeout)??;
    if let Some(source) = header.source {
        *remote = source;
    }
    let rest = read.split_off(header.wire_len.min(read.len()));
    // A name in a certificate that the proxy did not verify names nobody.
    let proxied = header.tls.filter(|_| config.tls).map(|tls| {
        let common_name = tls.common_name.filter(|_| tls.verified).map(ByteString::from);
        Box::new(Proxied { common_name })
    });
    Ok((Prefixed::new(inner, rest.freeze()), proxied))
}

/// Reads the hello, decides by it, and completes the handshake: all within `handshake_timeout`.
async fn secure(stream: Stream, peer: &mut Peer, listener: &Listener, security: &Security) -> Result<Secured, Refused> {
    let started = Instant::now();
    let deadline = started + security.config.handshake_timeout;
    // Of the client's address, so that whoever lets handshakes hang keeps waiting none but the neighbours behind that address.
    let waits = || listener.broker.metrics().limit_hit("max_handshakes_per_address");
    let turn = listener.handshakes_by_address.turn(peer.remote.ip(), waits);
    let turn = timeout_at(deadline, turn).await.map_err(|_| Refused::HandshakeTimeout)?;
    let (mut inner, prefix) = stream.into_parts();
    let mut read = BytesMut::from(&*prefix);
    let outcome = timeout_at(deadline, read_hello(&mut inner, &mut read)).await;
    match detect(&read) {
        Detected::Tls => peer.protocol = "tls",
        Detected::Tlcp => peer.protocol = "tlcp",
        _ => {}
    }
    let hello = match outcome.map_err(|_| Refused::HandshakeTimeout)? {
        Ok(hello) => hello,
        Err(refused) => {
            if let Some(code) = refused.hello_alert() {
                alert(&mut inner, hello::alert_record(&read, code)).await;
            }
            return Err(refused);
        }
    };
    peer.offered = hello.highest_version();
    let Ok(contexts) = security.contexts.select(hello.sni.as_deref()) else {
        alert(&mut inner, hello::alert_record(&read, UNRECOGNIZED_NAME)).await;
        return Err(Refused::UnknownName);
    };
    let context = match contexts.select(&hello) {
        Ok(context) => context,
        Err(refusal) => {
            alert(&mut inner, refusal.alert_record()).await;
            return Err(Refused::Policy(refusal));
        }
    };
    peer.protocol = context.kind().name();
    let turns = listener.handshakes.of(peer.remote.ip());
    let handshake = Box::pin(context.accept_in_turn(inner, read.freeze(), &turns));
    let outcome = timeout_at(deadline, handshake).await.map_err(|_| Refused::HandshakeTimeout)?;
    let mut stream = match outcome {
        Ok(stream) => stream,
        Err(mut failed) => {
            conn::linger(&mut failed.io).await;
            return Err(Refused::Handshake(failed.error));
        }
    };
    let identity = stream.peer_identity();
    listener.metrics.handshake(identity.protocol.name(), identity.suite, identity.resumed, started.elapsed());
    // Whoever waits for others from here keeps no neighbour waiting.
    drop(turn);
    let admission = status::admit(context, &mut stream, deadline).await.map_err(Refused::NotAdmitted)?;
    Ok((stream, identity, admission))
}

async fn read_hello(io: &mut Socket, read: &mut BytesMut) -> Result<hello::ClientHello, Refused> {
    loop {
        match detect(read) {
            Detected::NeedMore => {}
            Detected::Tls | Detected::Tlcp => {
                if let Parse::Hello(hello) = hello::parse(read)? {
                    return Ok(hello);
                }
            }
            other => return Err(Refused::FirstBytes(other, Port::Secure)),
        }
        fill(io, read).await?;
    }
}

/// Reads some more. The parsers bound what can be read before they answer.
async fn fill(io: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> Result<(), Refused> {
    read.reserve(HELLO_CHUNK);
    match io.read_buf(read).await? {
        0 => Err(Refused::Closed),
        _ => Ok(()),
    }
}

/// Tells the peer why, if it listens, and closes.
async fn alert(io: &mut Socket, record: [u8; 7]) {
    let send = async {
        io.write_all(&record).await?;
        io.shutdown().await
    };
    // The peer may be gone already; there is nobody to tell.
    if let Ok(Ok(())) = timeout(ALERT_TIMEOUT, send).await {
        conn::linger(io).await;
    }
}

async fn upgrade<S>(io: S, listener: &Listener, config: &WsConfig) -> Result<Box<dyn Io>, Refused>
where
    S: Io + 'static,
{
    let options = WebSocketOptions {
        path: config.mqtt_path.clone(),
        allowed_origins: config.allowed_origins.clone(),
        require_subprotocol: config.fail_if_no_subprotocol,
        ..WebSocketOptions::new(config.max_frame_size)
    };
    let accept = Box::pin(websocket::accept(io, &options));
    let stream = timeout(listener.config.connect_timeout, accept).await.map_err(|_| Refused::WebSocketTimeout)??;
    Ok(Box::new(stream))
}
