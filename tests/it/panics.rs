//! A bug that panics in one connection's task ends that connection alone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use testkit::{ConnectExt, ProtocolVersion, connect, publish};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::broker::Setup;
use crate::simulated::SimulatedBroker;

/// A stream that panics when it is read after it was armed.
struct Trap {
    inner: DuplexStream,
    armed: Arc<AtomicBool>,
}

impl AsyncRead for Trap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(!self.armed.load(Ordering::Relaxed), "the bug that this test is about");
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, bufs.first().map_or(&[], |buf| &**buf))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_connection_and_leaves_its_session_to_the_next() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut other = broker.connect(connect("other")).await;
    other.subscribe("t", 1).await;

    let armed = Arc::new(AtomicBool::new(false));
    let (mut victim, task) = broker.open_through(|inner| Trap { inner, armed: Arc::clone(&armed) });
    victim.connect(connect("victim").version(ProtocolVersion::V5).persistent()).await;
    victim.subscribe("t", 1).await;
    armed.store(true, Ordering::Relaxed);
    // Wakes the connection's task, which reads.
    other.publish(publish("t", 1, "one")).await;
    other.expect_message("t", "one").await;
    assert!(task.await.unwrap_err().is_panic());
    victim.expect_closed().await;

    // The broker goes on for the others, and the session is there for its owner, with what came meanwhile.
    other.publish(publish("t", 1, "two")).await;
    other.expect_message("t", "two").await;
    let mut again = broker.open();
    let ack = again.connect(connect("victim").version(ProtocolVersion::V5).persistent()).await;
    assert!(ack.session_present);
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let message = again.recv_publish().await;
        again.acknowledge(&message).await;
        payloads.push(message.payload);
    }
    assert_eq!(payloads, ["one", "two"]);
    assert_eq!(broker.broker().session_count(), 2);
}
