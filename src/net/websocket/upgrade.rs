//! The HTTP request that turns a connection into a WebSocket, bounded in length and refused with a status that says why.

use std::io;

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::{Error as FrameError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{WebSocket, WebSocketOptions, config};

/// What MQTT 5 section 6 registers, and the name that clients of MQTT 3.1 use.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const READ_STEP: usize = 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";
/// How much of a peer's text goes into an error.
const MAX_SHOWN_CHARS: usize = 64;

/// Why a connection did not become a WebSocket.
#[derive(Debug, Error)]
pub enum WsError {
    #[error("the connection failed during the WebSocket upgrade")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection during the WebSocket upgrade")]
    Closed,
    #[error("the head of the upgrade request is longer than {limit} bytes")]
    RequestTooLong { limit: usize },
    #[error("not a valid upgrade request")]
    BadRequest(#[source] Box<FrameError>),
    #[error("the upgrade request is malformed or carries a body")]
    Malformed,
    #[error("the request asks for path {path:?}, which is not served here")]
    UnknownPath { path: String },
    #[error("the request comes from a page of {origin:?}, which is not in websocket.allowed_origins")]
    Origin { origin: String },
    #[error("the request offers the subprotocols {offered:?}, none of which is mqtt")]
    NoSubprotocol { offered: String },
    #[error("{host:?} with {path:?} is not a valid address")]
    Address { host: String, path: String },
    #[error("the server refused the WebSocket upgrade")]
    Refused(#[source] Box<FrameError>),
}

/// Reads the upgrade request from `io` and answers it.
///
/// # Errors
/// [`WsError`] when the request is not acceptable; the peer has then got a response that says why, and `io` is shut down.
pub async fn accept<S>(mut io: S, options: &WebSocketOptions) -> Result<WebSocket<S>, WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received = BytesMut::new();
    let outcome = match read_head(&mut io, &mut received, options.max_request_len).await {
        Ok(head_len) => answer(&received, head_len, options),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Upgrade { response, head_len }) => {
            io.write_all(&response).await?;
            io.flush().await?;
            let rest = received.get(head_len..).unwrap_or(&[]).to_vec();
            let config = config(options.max_message_len);
            Ok(WebSocket::new(WebSocketStream::from_partially_read(io, rest, Role::Server, Some(config)).await))
        }
        Err(error) => {
            if let Some(response) = error.response() {
                io.write_all(response.as_bytes()).await?;
                io.shutdown().await?;
                crate::conn::linger(&mut io).await;
            }
            Err(error)
        }
    }
}

/// Asks the server behind `io` for an upgrade. `host` is what the Host header shall say, a name or address with an optional port.
///
/// # Errors
/// [`WsError`] when `host` and `path` make no address, or the server does not switch to the subprotocol `mqtt`.
pub async fn connect<S>(io: S, host: &str, path: &str, max_message_len: usize) -> Result<WebSocket<S>, WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let uri = Uri::builder().scheme("ws").authority(host).path_and_query(path).build();
    let uri = uri.map_err(|_| WsError::Address { host: host.to_owned(), path: path.to_owned() })?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOLS[0]);
    match client_async_with_config(request, io, Some(config(max_message_len))).await {
        Ok((inner, _)) => Ok(WebSocket::new(inner)),
        Err(FrameError::Io(error)) => Err(WsError::Io(error)),
        Err(FrameError::Protocol(ProtocolError::HandshakeIncomplete)) => Err(WsError::Closed),
        Err(error) => Err(WsError::Refused(Box::new(error))),
    }
}

/// Reads until the empty line behind the headers is in `received`, and returns where it ends.
async fn read_head<S>(io: &mut S, received: &mut BytesMut, limit: usize) -> Result<usize, WsError>
where
    S: AsyncRead + Unpin,
{
    loop {
        let searched = received.len().saturating_sub(HEAD_END.len() - 1);
        if received.len() >= limit {
            return Err(WsError::RequestTooLong { limit });
        }
        let step = READ_STEP.min(limit - received.len());
        received.reserve(step);
        if io.read_buf(&mut received.limit(step)).await? == 0 {
            return Err(WsError::Closed);
        }
        let fresh = received.get(searched..).unwrap_or(&[]);
        if let Some(at) = fresh.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            return Ok(searched + at + HEAD_END.len());
        }
    }
}

struct Upgrade {
    response: Vec<u8>,
    head_len: usize,
}

fn answer(received: &[u8], head_len: usize, options: &WebSocketOptions) -> Result<Upgrade, WsError> {
    let head = received.get(..head_len).unwrap_or(received);
    let bad_request = |error| WsError::BadRequest(Box::new(error));
    let request = match Request::try_parse(head).map_err(bad_request)? {
        Some((length, request)) if length == head.len() => request,
        // Another reader of the same bytes would see the request end elsewhere.
        _ => return Err(WsError::Malformed),
    };
    let headers = request.headers();
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(WsError::Malformed);
    }
    if request.uri().path() != options.path {
        return Err(WsError::UnknownPath { path: shown(request.uri().path()) });
    }
    check_origin(&request, &options.allowed_origins)?;
    let mut response = create_response(&request).map_err(bad_request)?;
    match subprotocol(&request) {
        Ok(subprotocol) => {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        Err(error) if options.require_subprotocol => return Err(error),
        // RFC 6455 section 4.2.2: without a choice there is no header.
        Err(_) => {}
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(bad_request)?;
    Ok(Upgrade { response: bytes, head_len })
}

/// Refuses a browser that shows a page of somebody else: it connects wherever a page wants it to, from inside of the network.
fn check_origin(request: &Request, allowed: &[String]) -> Result<(), WsError> {
    if allowed.is_empty() {
        return Ok(());
    }
    for origin in request.headers().get_all(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        if !allowed.iter().any(|allowed| is_origin(allowed, &origin)) {
            return Err(WsError::Origin { origin: shown(&origin) });
        }
    }
    Ok(())
}

/// With a scheme `allowed` is the whole origin, without one the host of any scheme and port.
fn is_origin(allowed: &str, origin: &str) -> bool {
    if allowed.contains("://") {
        return allowed.eq_ignore_ascii_case(origin);
    }
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    allowed.eq_ignore_ascii_case(host)
}

/// The first subprotocol in the client's order that is spoken here. [MQTT-6.0.0-3], [MQTT-6.0.0-4]
fn subprotocol(request: &Request) -> Result<&'static str, WsError> {
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let spoken = |offer: &&str| SUBPROTOCOLS.into_iter().find(|known| known == offer);
    offered.iter().find_map(spoken).ok_or_else(|| WsError::NoSubprotocol { offered: shown(&offered.join(", ")) })
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

impl WsError {
    /// The whole response for a request refused with this error; `None` if there is nobody to answer.
    fn response(&self) -> Option<String> {
        let (status, more, body) = match self {
            Self::Io(_) | Self::Closed | Self::Address { .. } | Self::Refused(_) => return None,
            Self::RequestTooLong { .. } => ("431 Request Header Fields Too Large", "", "request too long\n"),
            Self::UnknownPath { .. } => ("404 Not Found", "", "no such path\n"),
            Self::Origin { .. } => ("403 Forbidden", "", "not from this origin\n"),
            Self::NoSubprotocol { .. } => ("400 Bad Request", "", "offer the WebSocket subprotocol mqtt\n"),
            Self::Malformed => ("400 Bad Request", "", "malformed request\n"),
            Self::BadRequest(error) => match **error {
                FrameError::Protocol(ProtocolError::WrongHttpMethod) => {
                    ("405 Method Not Allowed", "Allow: GET\r\n", "use GET\n")
                }
                FrameError::Protocol(ProtocolError::WrongHttpVersion) => {
                    ("505 HTTP Version Not Supported", "", "use HTTP/1.1\n")
                }
                FrameError::Protocol(
                    ProtocolError::MissingSecWebSocketVersionHeader
                    | ProtocolError::MissingConnectionUpgradeHeader
                    | ProtocolError::MissingUpgradeWebSocketHeader,
                ) => (
                    "426 Upgrade Required",
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                    "this is an MQTT over WebSocket port\n",
                ),
                _ => ("400 Bad Request", "", "malformed request\n"),
            },
        };
        // RFC 9110 section 7.8: a sender of Upgrade names it in Connection.
        let connection = if more.starts_with("Upgrade") { "Upgrade, close" } else { "close" };
        Some(format!(
            "HTTP/1.1 {status}\r\n{more}Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}
