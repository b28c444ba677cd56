//! A listening socket that bounds how many connections there are and how long each lives.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Pause after a failed accept(): running out of descriptors must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct BoundedListener {
    socket: TcpListener,
    places: Arc<Semaphore>,
    /// From accept to the first byte of an answer.
    request_time: Duration,
    lifetime: Duration,
}

/// A connection whose reads and writes fail once its lifetime is over.
#[derive(Debug)]
pub(super) struct BoundedStream {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// When it ends once it has been answered: until then `end` is the deadline of the request.
    answered_end: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl BoundedListener {
    pub(super) fn new(socket: TcpListener, connections: usize, request_time: Duration, lifetime: Duration) -> Self {
        Self { socket, places: Arc::new(Semaphore::new(connections)), request_time, lifetime }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        loop {
            // Only a closed semaphore fails, and this one is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { std::future::pending().await };
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    let accepted = Instant::now();
                    let end = Box::pin(sleep_until(accepted + self.request_time));
                    let answered_end = Some(accepted + self.lifetime);
                    return (BoundedStream { stream, end, answered_end, _place: place }, remote);
                }
                Err(cause) => {
                    tracing::warn!(%cause, "the metrics endpoint cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl BoundedStream {
    fn poll_alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(context)?;
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(end) = self.answered_end.take() {
            self.end.as_mut().reset(end);
        }
        self.poll_alive(context)?;
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // At the end of its life the socket is closed by being dropped.
        self.poll_alive(context)?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listen(connections: usize, lifetime: Duration) -> (BoundedListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (BoundedListener::new(socket, connections, lifetime, lifetime), address)
    }

    #[tokio::test]
    async fn a_silent_peer_is_cut_off_at_the_end_of_its_life() {
        let (mut listener, address) = listen(1, Duration::from_millis(50)).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await;
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    // Sixteen peers that sent nothing took all places for ten seconds, and a probe for liveness failed.
    #[tokio::test(start_paused = true)]
    async fn a_request_has_less_time_than_its_answer() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seconds = Duration::from_secs;
        let mut listener = BoundedListener::new(socket, 2, seconds(2), seconds(10));
        let _peers = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let started = Instant::now();
        let (mut answered, _) = listener.accept().await;
        let (mut silent, _) = listener.accept().await;
        answered.write_all(b"x").await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 2);
        assert_eq!(answered.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_is_cut_off_as_well() {
        let (mut listener, address) = listen(1, Duration::from_millis(50)).await;
        let _deaf = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await;
        let error = stream.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_next_connection_waits_for_a_place() {
        let (mut listener, address) = listen(1, Duration::from_secs(60)).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await;
        {
            let mut accept = std::pin::pin!(listener.accept());
            let waits = std::future::poll_fn(|context| Poll::Ready(accept.as_mut().poll(context).is_pending()));
            assert!(waits.await, "accepted beyond the limit");
        }
        drop(stream);
        let (_, remote) = listener.accept().await;
        assert!(remote.ip().is_loopback());
    }
}
