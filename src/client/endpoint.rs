//! Opens the byte stream of a connection: TCP, then TLS, RFC 8998 or TLCP, then WebSocket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use gm_tls::client::{Connector, Session};
use gm_tls::{HandshakeError, HandshakeFailure, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::advice::Advice;
use super::unconfirmed::{SessionSlot, Unconfirmed};
use crate::net::websocket::{self, WsError};

/// Any stream that MQTT can be spoken over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The security of an endpoint.
#[derive(Debug, Clone)]
pub struct Security {
    pub connector: Connector,
    /// What is spoken, for messages: "TLS", "RFC 8998", "TLCP".
    pub name: &'static str,
    /// What to say about a handshake that fails.
    pub advice: Advice,
}

/// Where a server is and how to speak to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    pub port: u16,
    /// The addresses to connect to; the host is resolved for each connection as long as there are none.
    pub addresses: Vec<SocketAddr>,
    /// `None` for no encryption.
    pub security: Option<Security>,
    /// Path of the WebSocket; `None` for MQTT straight over the stream.
    pub websocket: Option<String>,
    /// Longest WebSocket message taken, in bytes.
    pub max_message_len: usize,
    /// How long each step may take.
    pub timeout: Duration,
}

/// Why there is no stream to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot resolve {host}")]
    Resolve { host: String, source: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("connection refused at {at}: nothing listens there")]
    Refused { at: String },
    #[error("cannot connect to {at}")]
    Unreachable { at: String, source: io::Error },
    #[error("no answer from {at} within {secs} seconds while {step}")]
    Timeout { at: String, secs: u64, step: &'static str },
    #[error("{name} handshake with {at} failed{}{}", if advice.is_some() { ": " } else { "" }, advice.as_deref().unwrap_or_default())]
    Handshake { name: &'static str, at: String, advice: Option<String>, source: HandshakeError },
    #[error(
        "{at} closed the connection instead of answering CONNECT; is another protocol spoken there (--protocol, --ws)? Or it refuses this \
         client, and its log says why"
    )]
    Unanswered { at: String },
    /// After a handshake in which the client has shown a certificate.
    #[error(
        "{at} completed the handshake and closed the connection instead of answering CONNECT: it refuses this client, and its log says why; \
         perhaps the client certificate is revoked or nobody knows whether it is"
    )]
    LetGo { at: String },
    #[error("WebSocket handshake with {at} failed")]
    WebSocket { at: String, source: WsError },
}

/// A refused handshake but for its cause.
#[derive(Debug)]
pub struct Refusal {
    name: &'static str,
    at: String,
    advice: Advice,
}

impl Refusal {
    /// The whole error.
    pub fn of(&self, source: HandshakeError) -> ConnectError {
        let advice = self.advice.about(self.name, source.reason());
        ConnectError::Handshake { name: self.name, at: self.at.clone(), advice, source }
    }

    /// The refusal that `error` is, met when the client had finished its part.
    pub fn after(&self, error: &io::Error) -> Option<ConnectError> {
        let source = HandshakeError::after(error)?;
        // It did speak the protocol.
        let closed = source.reason() == HandshakeFailure::Closed;
        let advice = if closed { None } else { self.advice.about(self.name, source.reason()) };
        Some(ConnectError::Handshake { name: self.name, at: self.at.clone(), advice, source })
    }
}

impl Endpoint {
    /// Host and port as written in an address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What an end in place of an answer to CONNECT means.
    pub fn unanswered(&self) -> ConnectError {
        let at = self.authority();
        match &self.security {
            Some(security) if security.advice.shown.is_some() => ConnectError::LetGo { at },
            _ => ConnectError::Unanswered { at },
        }
    }

    /// Opens a stream with all its layers.
    ///
    /// # Errors
    /// [`ConnectError`] names the layer that failed.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let tcp = self.dial().await?;
        match &self.security {
            None => self.upgrade(tcp).await,
            Some(security) => {
                let tls = self.secure(security, tcp, None).await?;
                self.upgrade(self.unconfirmed(security, tls, None)).await
            }
        }
    }

    /// Resolves the host once, for all connections to come.
    ///
    /// # Errors
    /// [`ConnectError::Resolve`], [`ConnectError::NoAddress`] or [`ConnectError::Timeout`]
    pub async fn resolve(&mut self) -> Result<(), ConnectError> {
        self.addresses = self.look_up().await?;
        Ok(())
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = || self.host.clone();
        let found: Vec<_> = self
            .within("resolving its name", lookup_host((self.host.as_str(), self.port)))
            .await?
            .map_err(|source| ConnectError::Resolve { host: host(), source })?
            .collect();
        if found.is_empty() { Err(ConnectError::NoAddress { host: host() }) } else { Ok(found) }
    }

    /// Opens the TCP connection, trying every address of the host in turn.
    ///
    /// # Errors
    /// What the last address said.
    pub async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let looked_up;
        let addresses = match self.addresses.as_slice() {
            [] => {
                looked_up = self.look_up().await?;
                &looked_up
            }
            known => known,
        };
        let mut last = ConnectError::NoAddress { host: self.host.clone() };
        for &address in addresses {
            match self.within("connecting", TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Without it only the latency suffers.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(source)) if source.kind() == io::ErrorKind::ConnectionRefused => {
                    last = ConnectError::Refused { at: address.to_string() };
                }
                Ok(Err(source)) => last = ConnectError::Unreachable { at: address.to_string(), source },
                Err(timeout) => last = timeout,
            }
        }
        Err(last)
    }

    /// Runs the handshake of `security` over `io`, resuming `session` if the server still knows it.
    ///
    /// # Errors
    /// [`ConnectError::Handshake`] or [`ConnectError::Timeout`]
    pub async fn secure<S>(
        &self,
        security: &Security,
        io: S,
        session: Option<&Session>,
    ) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.within("in the handshake", security.connector.connect_resuming(io, session))
            .await?
            .map_err(|source| self.refusal(security).of(source))
    }

    /// What a refused handshake is to be called.
    pub fn refusal(&self, security: &Security) -> Refusal {
        Refusal { name: security.name, at: self.authority(), advice: security.advice.clone() }
    }

    /// A connection as it is until the server's first data, which may be a refusal. `session`: where to put the session it gives.
    pub fn unconfirmed<S>(
        &self,
        security: &Security,
        tls: TlsStream<S>,
        session: Option<SessionSlot>,
    ) -> Unconfirmed<S> {
        Unconfirmed::new(tls, self.refusal(security), session)
    }

    /// Opens the WebSocket over `io`, if there is to be one.
    ///
    /// # Errors
    /// [`ConnectError::WebSocket`] or [`ConnectError::Timeout`]
    pub async fn upgrade<S: Stream + 'static>(&self, io: S) -> Result<Box<dyn Stream>, ConnectError> {
        let Some(path) = &self.websocket else { return Ok(Box::new(io)) };
        let at = self.authority();
        match self.within("opening the WebSocket", websocket::connect(io, &at, path, self.max_message_len)).await? {
            Ok(stream) => Ok(Box::new(stream)),
            // A server may refuse the handshake below only now.
            Err(WsError::Io(error)) => {
                Err(error.downcast().unwrap_or_else(|error| ConnectError::WebSocket { at, source: WsError::Io(error) }))
            }
            Err(source) => Err(ConnectError::WebSocket { at, source }),
        }
    }

    async fn within<F: Future>(&self, step: &'static str, future: F) -> Result<F::Output, ConnectError> {
        let secs = self.timeout.as_secs();
        timeout(self.timeout, future).await.map_err(|_elapsed| ConnectError::Timeout {
            at: self.authority(),
            secs,
            step,
        })
    }
}
