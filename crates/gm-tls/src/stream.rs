//! An [`Engine`] driven over any tokio stream.
//!
//! Reads take what the socket has in one call, through a buffer that all connections of a thread share; writes gather records
//! until they are flushed or [`HIGH_WATER`] is reached. An idle stream holds no buffer at all.
//!
//! Every operation is cancel-safe: data that a dropped `write` had taken is in the output already, and nothing is taken while
//! the output is full. There are no timers here: deadlines belong to the caller.

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    client::Session,
    engine::{Engine, Progress, ReadOutcome},
    error::HandshakeError,
    identity::PeerIdentity,
    revocation::PeerChains,
};

/// Bytes of output, beyond which `write` waits for the socket. The output exceeds this by one record at most.
pub const HIGH_WATER: usize = 64 * 1024;
/// Bytes of answers of the protocol itself, such as to key updates, that may wait for a peer to read them. With more it has to read
/// before anything more is read from it.
const MAX_OWED: usize = 16 * 1024;
/// Bytes taken from the socket at once.
const SCRATCH: usize = 32 * 1024;

thread_local! {
    static READ_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection secured by TLS or TLCP, after its handshake.
///
/// `read` returns 0 after the peer's close_notify, and [`io::ErrorKind::UnexpectedEof`] when the peer's bytes end without one.
/// `shutdown` sends close_notify and shuts the transport down, without waiting for the peer's answer.
pub struct TlsStream<S> {
    io: S,
    engine: Engine,
    identity: Arc<PeerIdentity>,
    /// Tasks to wake when the transport can be read or written. They differ when the stream is split.
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// An error met after data was already returned.
    failed: Option<io::Error>,
    /// How many bytes of the output, at most, are answers of the protocol itself, which nobody will flush.
    owed: usize,
    closing: bool,
}

impl<S> TlsStream<S> {
    /// The peer as the handshake established it.
    pub fn peer_identity(&self) -> Arc<PeerIdentity> {
        Arc::clone(&self.identity)
    }

    /// The verified chains of the peer: given out once, and only where an inspector was set.
    pub fn take_peer_chains(&mut self) -> Option<PeerChains> {
        self.engine.take_peer_chains()
    }

    /// Client only: the session, to be given to [`crate::client::Connector::connect_resuming`]. Under TLS 1.3 there is one
    /// only after the server's ticket came with the first data read.
    pub fn session(&self) -> Option<Session> {
        self.engine.session()
    }

    /// Client only: the OCSP response that came with the server's certificate, as it came.
    pub fn stapled_answer(&self) -> Option<Vec<u8>> {
        self.engine.stapled_answer()
    }

    /// The transport below.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The same connection over what `change` makes of its transport, such as the same socket in another runtime. Tasks that waited
    /// for the transport are not woken by the new one.
    ///
    /// # Errors
    /// Those of `change`; the connection is lost then.
    pub fn try_map<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<TlsStream<T>> {
        let TlsStream { io, engine, identity, reader: _, writer: _, failed, owed, closing } = self;
        Ok(TlsStream { io: change(io)?, engine, identity, reader: None, writer: None, failed, owed, closing })
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A handshake that failed, and the transport it failed on. The peer has been sent an alert where the protocol has one, and nothing
/// more will be written.
#[derive(Debug)]
pub struct Failed<S> {
    pub error: HandshakeError,
    pub io: S,
}

/// Who may compute now, of all that would.
pub trait Turns {
    /// A turn, which ends when it is dropped.
    type Turn<'a>
    where
        Self: 'a;

    /// Waits for the next turn. Dropping the future gives the place in the line up.
    fn turn(&self) -> impl Future<Output = Self::Turn<'_>> + Send;
}

/// Everybody, at once.
pub(crate) struct AtOnce;

impl Turns for AtOnce {
    type Turn<'a> = ();

    async fn turn(&self) {}
}

/// Runs the handshake of `engine` over `io`. Each of its steps is computed on the task itself, since none takes a millisecond, that of
/// mutual SM2 included: less than a move to another thread is worth. A step waits for a turn and holds it no longer than it computes: a
/// peer that lets others wait must not be waited for with a turn in hand.
pub(crate) async fn establish<S>(io: S, engine: Engine, turns: &impl Turns) -> Result<TlsStream<S>, Failed<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut transport = Transport { io, engine };
    loop {
        let step = {
            let _turn = turns.turn().await;
            transport.engine.handshake()
        };
        match step {
            Ok(progress) => {
                let done = progress == Progress::Done;
                let moved = match transport.drain().await {
                    Ok(()) if !done => transport.fill().await,
                    drained => drained,
                };
                if let Err(error) = moved {
                    return Err(Failed { error: HandshakeError::io(error), io: transport.io });
                }
                if done {
                    break;
                }
            }
            Err(error) => {
                transport.say_goodbye().await;
                return Err(Failed { error, io: transport.io });
            }
        }
    }
    let Transport { io, engine } = transport;
    let Some(identity) = engine.peer_identity().cloned() else {
        return Err(Failed { error: HandshakeError::closed(), io });
    };
    Ok(TlsStream { io, engine, identity, reader: None, writer: None, failed: None, owed: 0, closing: false })
}

struct Transport<S> {
    io: S,
    engine: Engine,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    async fn drain(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| poll_drain(&mut self.io, &mut self.engine, cx)).await?;
        std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_flush(cx)).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| poll_fill(&mut self.io, &mut self.engine, cx)).await
    }

    /// Lets the peer have the alert. What it sent meanwhile is read first, since a socket closed over unread bytes resets
    /// the connection, which can destroy the alert on its way.
    async fn say_goodbye(&mut self) {
        if self.drain().await.is_err() {
            return;
        }
        std::future::poll_fn(|cx| {
            let _ = poll_fill(&mut self.io, &mut self.engine, cx);
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }
}

/// Writes the engine's output until there is none.
fn poll_drain<S: AsyncWrite + Unpin>(io: &mut S, engine: &mut Engine, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while engine.has_output() {
        let count = ready!(Pin::new(&mut *io).poll_write(cx, engine.output()))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        engine.consume_output(count);
    }
    Poll::Ready(Ok(()))
}

/// Reads from the transport once.
fn poll_fill<S: AsyncRead + Unpin>(io: &mut S, engine: &mut Engine, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    // Taken out rather than borrowed, since the transport may be such a stream itself.
    let mut scratch = READ_BUFFER.take();
    scratch.resize(SCRATCH, 0);
    let mut buffer = ReadBuf::new(&mut scratch);
    let outcome = Pin::new(io).poll_read(cx, &mut buffer);
    if let Poll::Ready(Ok(())) = outcome {
        if buffer.filled().is_empty() {
            engine.receive_end();
        } else {
            engine.receive(buffer.filled());
        }
    }
    READ_BUFFER.set(scratch);
    outcome
}

/// Wakes two tasks that wait for the same direction of the transport.
struct Both(Waker, Waker);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
        self.1.wake_by_ref();
    }
}

/// Notes that the task of `cx` waits here, without a clone when it did before.
fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) => known.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// A waker for `cx` that also wakes the task in `other`, if that is another one: a transport remembers only the last task that
/// polled a direction, and a read may have to write, or a write to read.
fn joined(other: &Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match other {
        Some(other) if !other.will_wake(cx.waker()) => {
            Some(Waker::from(Arc::new(Both(other.clone(), cx.waker().clone()))))
        }
        _ => None,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Writes output on behalf of a reader, without taking the writer's place.
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let both = joined(&self.writer, cx);
        let mut joined_cx = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
        let outcome = poll_drain(&mut self.io, &mut self.engine, &mut joined_cx);
        self.owed = self.owed.min(self.engine.output().len());
        outcome
    }

    fn poll_read_inner(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if self.owed >= MAX_OWED {
                match self.poll_pay(cx) {
                    Poll::Ready(Err(error)) => return self.stop(error, buf.filled().len() > before),
                    Poll::Pending if self.owed >= MAX_OWED => {
                        if buf.filled().len() > before {
                            return Poll::Ready(Ok(()));
                        }
                        remember(&mut self.reader, cx);
                        return Poll::Pending;
                    }
                    _ => {}
                }
            }
            let pending_output = self.engine.output().len();
            // SAFETY: the engine only initialises bytes of the slice, it never de-initialises any.
            let outcome = self.engine.read(unsafe { buf.unfilled_mut() });
            self.owed += self.engine.output().len().saturating_sub(pending_output);
            if self.owed > 0
                && let Poll::Ready(Err(error)) = self.poll_pay(cx)
            {
                return self.stop(error, buf.filled().len() > before);
            }
            match outcome {
                Ok(ReadOutcome::Data(count)) => {
                    // SAFETY: the engine has just initialised `count` bytes at the start of the unfilled part.
                    unsafe { buf.assume_init(count) };
                    buf.advance(count);
                }
                Ok(ReadOutcome::Closed) => return Poll::Ready(Ok(())),
                Ok(ReadOutcome::NeedsInput) => {
                    let both = joined(&self.writer, cx);
                    let mut joined_cx = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
                    match poll_fill(&mut self.io, &mut self.engine, &mut joined_cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return self.stop(error, buf.filled().len() > before),
                        Poll::Pending if buf.filled().len() > before => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            remember(&mut self.reader, cx);
                            return Poll::Pending;
                        }
                    }
                }
                Err(error) => return self.stop(error, buf.filled().len() > before),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn stop(&mut self, error: io::Error, has_data: bool) -> Poll<io::Result<()>> {
        if has_data {
            self.failed = Some(error);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(error))
    }

    fn poll_flush_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let both = if self.owed > 0 { joined(&self.reader, cx) } else { None };
        let mut joined_cx = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
        let outcome = poll_drain(&mut self.io, &mut self.engine, &mut joined_cx);
        self.owed = self.owed.min(self.engine.output().len());
        if outcome.is_pending() {
            remember(&mut self.writer, cx);
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_inner(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            if this.engine.output().len() >= HIGH_WATER {
                match this.poll_flush_output(cx) {
                    Poll::Ready(Ok(())) => {}
                    // Some of the output may have gone, which makes room.
                    Poll::Pending if this.engine.output().len() < HIGH_WATER => {}
                    _ if taken > 0 => return Poll::Ready(Ok(taken)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match this.engine.write(rest) {
                Ok(Some(count)) => taken += count,
                Ok(None) if taken > 0 => return Poll::Ready(Ok(taken)),
                Ok(None) => {
                    let both = joined(&this.reader, cx);
                    let mut joined_cx = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
                    if poll_fill(&mut this.io, &mut this.engine, &mut joined_cx)?.is_pending() {
                        remember(&mut this.writer, cx);
                        return Poll::Pending;
                    }
                    // What came may be the reader's.
                    if let Some(reader) = &this.reader {
                        reader.wake_by_ref();
                    }
                }
                Err(_) if taken > 0 => return Poll::Ready(Ok(taken)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flush_output(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            this.engine.close();
        }
        ready!(this.poll_flush_output(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
