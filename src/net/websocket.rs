//! MQTT over WebSocket (MQTT 5 section 6, RFC 6455): a stream of bytes carried in binary messages.
//!
//! Message borders mean nothing to MQTT: packets may be split over them and merged in them. The caller owns all deadlines.

mod upgrade;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{Error as FrameError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

pub use upgrade::{WsError, accept, connect};

use crate::conn::StreamLimit;

/// The path that clients expect when none is configured.
pub const DEFAULT_PATH: &str = "/mqtt";
/// Longest head of an upgrade request accepted by default, in bytes.
pub const DEFAULT_MAX_REQUEST_LEN: usize = 8 * 1024;

/// Read buffer of a connection; it is allocated for as long as the connection lives, and so kept small.
const READ_BUFFER_LEN: usize = 4 * 1024;
/// Longest binary message written: with its header it fits one TLS record, and it bounds the write buffer that stays allocated.
const MAX_WRITE_LEN: usize = 16 * 1024 - 8;

/// What a server accepts as an upgrade and as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// Path of the request, compared exactly and without its query.
    pub path: String,
    /// Longest head of the upgrade request, in bytes. It must not have a body.
    pub max_request_len: usize,
    /// Longest frame and longest message put together from frames, in bytes. As clients send a packet in one message, this should be the
    /// listener's maximum packet size.
    pub max_message_len: usize,
    /// Origins of pages whose browsers may connect, as `websocket.allowed_origins` writes them; empty is all. A client that names none is
    /// no browser.
    pub allowed_origins: Vec<String>,
    /// Refuse a client that does not offer the subprotocol `mqtt`, [MQTT-6.0.0-3].
    pub require_subprotocol: bool,
}

impl WebSocketOptions {
    /// The usual path and request length, with messages of up to `max_message_len` bytes.
    pub fn new(max_message_len: usize) -> Self {
        Self {
            path: DEFAULT_PATH.to_owned(),
            max_request_len: DEFAULT_MAX_REQUEST_LEN,
            max_message_len,
            allowed_origins: Vec::new(),
            require_subprotocol: true,
        }
    }
}

/// The byte stream inside a WebSocket connection, of either role.
///
/// Reading yields the payloads of binary messages; the end of the stream is the peer's close frame. Text messages, protocol errors and
/// messages over the limit are errors, after which a close frame with the fitting code is on its way. Each write makes one message.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What the reader has not yet taken of the last message.
    received: Bytes,
    read_ended: bool,
    close_queued: bool,
    closing: Closing,
}

/// How far a shutdown has come.
#[derive(Debug)]
enum Closing {
    /// The close frame must be written, if a shutdown was asked for at all.
    Sending,
    /// The peer's close frame must come.
    Awaiting,
    /// The connection below must be shut down. The error is that of the close frame.
    Below(Option<io::Error>),
    Done,
}

impl<S> WebSocket<S> {
    fn new(inner: WebSocketStream<S>) -> Self {
        Self { inner, received: Bytes::new(), read_ended: false, close_queued: false, closing: Closing::Sending }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref()
    }

    pub fn get_mut(&mut self) -> &mut S {
        self.inner.get_mut()
    }

    /// Queues a close frame and tries to write it. What could not be written now goes with the next flush or shutdown.
    fn queue_close(&mut self, code: CloseCode, reason: &'static str) {
        if !self.close_queued {
            self.close_queued = true;
            let frame = CloseFrame { code, reason: reason.into() };
            // It fails when the connection is closed already, and then there is nothing left to tell the peer.
            let _ = Pin::new(&mut self.inner).start_send(Message::Close(Some(frame)));
        }
    }

    fn fail(&mut self, code: CloseCode, reason: &'static str) -> io::Error {
        self.read_ended = true;
        self.queue_close(code, reason);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }

    fn read_error(&mut self, error: FrameError) -> io::Error {
        self.read_ended = true;
        match error {
            FrameError::Io(error) => error,
            FrameError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "connection ended without a close frame")
            }
            FrameError::Capacity(_) => {
                self.queue_close(CloseCode::Size, "message longer than the maximum packet size");
                io::Error::new(io::ErrorKind::InvalidData, StreamLimit("websocket.max_frame_size"))
            }
            FrameError::Utf8(_) => self.fail(CloseCode::Unsupported, TEXT_MESSAGE),
            error => {
                self.queue_close(CloseCode::Protocol, "protocol error");
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        }
    }

    /// Makes one message of as much of `parts` as fits, and returns how many bytes that is.
    fn poll_message<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(write_error)?;
        let mut payload = BytesMut::new();
        for part in parts {
            let part = part.get(..MAX_WRITE_LEN - payload.len()).unwrap_or(part);
            payload.extend_from_slice(part);
        }
        let length = payload.len();
        if length > 0 {
            Pin::new(&mut self.inner).start_send(Message::Binary(payload.freeze())).map_err(write_error)?;
        }
        Poll::Ready(Ok(length))
    }
}

const TEXT_MESSAGE: &str = "text message where MQTT demands binary ones";

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.closing, Closing::Done) {
            // No message can come any more. Whoever reads waits for the peer to close the connection below.
            return Pin::new(this.inner.get_mut()).poll_read(cx, buf);
        }
        loop {
            if !this.received.is_empty() || buf.remaining() == 0 {
                let count = this.received.len().min(buf.remaining());
                buf.put_slice(&this.received.split_to(count));
                if !this.received.has_remaining() {
                    // An empty slice would keep the whole message allocated.
                    this.received = Bytes::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.read_ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(payload))) => this.received = payload,
                // [MQTT-6.0.0-1]
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(this.fail(CloseCode::Unsupported, TEXT_MESSAGE)));
                }
                Some(Ok(Message::Close(_))) => {
                    this.read_ended = true;
                    // The answer is queued below this level. The peer may be gone already, which is no error at this point; what cannot
                    // be written at once goes with the shutdown.
                    let _ = Pin::new(&mut this.inner).poll_flush(cx);
                }
                // The answer to a ping is queued below this level too; the next turn of the loop sends it.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(this.read_error(error))),
                None => this.read_ended = true,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_message(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_message(cx, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx).map_err(write_error)
    }

    /// Sends the close frame, waits for the peer's or for its end, and shuts the connection below down (RFC 6455 section 7.1.1). Messages
    /// that still come are thrown away.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.closing {
                Closing::Sending => {
                    this.queue_close(CloseCode::Normal, "");
                    this.closing = match ready!(Pin::new(&mut this.inner).poll_flush(cx)) {
                        Ok(()) => Closing::Awaiting,
                        // It must not keep the connection below from being shut down.
                        Err(error) => Closing::Below(Some(write_error(error))),
                    };
                }
                Closing::Awaiting if this.read_ended => this.closing = Closing::Below(None),
                Closing::Awaiting => match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => this.read_ended = true,
                    Some(Ok(_)) => {}
                },
                Closing::Below(error) => {
                    ready!(Pin::new(this.inner.get_mut()).poll_shutdown(cx))?;
                    let error = error.take();
                    this.closing = Closing::Done;
                    return Poll::Ready(error.map_or(Ok(()), Err));
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

fn write_error(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        FrameError::ConnectionClosed
        | FrameError::AlreadyClosed
        | FrameError::Protocol(ProtocolError::SendAfterClosing) => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

fn config(max_message_len: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_LEN)
        .write_buffer_size(0)
        // A message is accepted only when the last one is written, so that beside one there are but control frames.
        .max_write_buffer_size(2 * MAX_WRITE_LEN)
        .max_frame_size(Some(max_message_len))
        .max_message_size(Some(max_message_len))
}

#[cfg(test)]
mod tests;
