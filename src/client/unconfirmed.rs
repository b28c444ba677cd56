//! A secured connection that the server may still refuse. In TLS 1.3 the client finishes the handshake before the server has looked at its
//! certificate, so that the refusal comes in place of the server's first data: here it becomes the error of the handshake that it is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use gm_tls::client::Session;
use gm_tls::{Protocol, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::endpoint::Refusal;

/// The session of a connection, once the server has sent it.
pub type SessionSlot = Arc<OnceLock<Session>>;

/// A secured connection from the client's end of the handshake on.
#[derive(Debug)]
pub struct Unconfirmed<S> {
    tls: TlsStream<S>,
    /// Until the server's first data, where there is anything to wait for.
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    refusal: Refusal,
    session: Option<SessionSlot>,
}

impl<S> Unconfirmed<S> {
    /// `session` is filled, where the server has given one, when its first data has come.
    pub(super) fn new(tls: TlsStream<S>, refusal: Refusal, session: Option<SessionSlot>) -> Self {
        let later = matches!(tls.peer_identity().protocol, Protocol::Tls13 | Protocol::Rfc8998);
        Self { tls, waiting: later.then(|| Box::new(Waiting { refusal, session })) }
    }

    /// The error as that of the handshake, where it is one.
    fn explain(&self, error: io::Error) -> io::Error {
        match self.waiting.as_ref().and_then(|waiting| waiting.refusal.after(&error)) {
            Some(refused) => io::Error::new(error.kind(), refused),
            None => error,
        }
    }

    fn hear(&mut self) {
        if let Some(waiting) = self.waiting.take()
            && let Some(slot) = &waiting.session
            && let Some(session) = self.tls.session()
        {
            // Nobody else fills it.
            let _ = slot.set(session);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Unconfirmed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.tls).poll_read(cx, buf);
        if this.waiting.is_some() && buf.filled().len() > before {
            this.hear();
        }
        outcome.map_err(|error| this.explain(error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Unconfirmed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Pin::new(&mut this.tls).poll_write(cx, data).map_err(|error| this.explain(error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.tls).poll_flush(cx).map_err(|error| this.explain(error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}
