//! The last step with a peer that was told why its connection ends.
//!
//! A socket closed over unread bytes resets the connection, and a reset can destroy an answer that the peer has not read yet. So what
//! it still sends is read and thrown away until it closes too, for a bounded time and length.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};

/// How long a peer may take to close: more than the round trip that the answer needs.
const LINGER: Duration = Duration::from_millis(500);
/// How much of a peer's input is thrown away.
const MAX_DISCARDED: usize = 256 * 1024;
const CHUNK: usize = 4096;

/// Waits for the peer's end of the stream. The sending direction has been shut down, so that the peer knows of ours.
pub async fn linger(io: &mut (impl AsyncRead + Unpin + ?Sized)) {
    let mut left = MAX_DISCARDED;
    let end = poll_fn(|cx| {
        while left > 0 {
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            if ready!(Pin::new(&mut *io).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                break;
            }
            left = left.saturating_sub(read.filled().len());
        }
        Poll::Ready(())
    });
    // Whoever does not close in time is closed upon.
    let _late = tokio::time::timeout(LINGER, end).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_peer() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let started = Instant::now();
        let peer = async {
            there.write_all(&[0; 10_000]).await.unwrap();
            tokio::time::sleep(LINGER / 2).await;
            drop(there);
        };
        tokio::join!(linger(&mut here), peer);
        assert_eq!(started.elapsed(), LINGER / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_no_longer_than_its_bound_for_a_silent_peer() {
        let (mut here, _there) = tokio::io::duplex(64);
        let started = Instant::now();
        linger(&mut here).await;
        assert_eq!(started.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn takes_no_more_than_its_bound_from_a_peer_that_does_not_stop() {
        let (mut here, mut there) = tokio::io::duplex(CHUNK);
        let started = Instant::now();
        let sent = async {
            let mut sent = 0;
            while there.write_all(&[0; CHUNK]).await.is_ok() {
                sent += CHUNK;
            }
            sent
        };
        let close = async {
            linger(&mut here).await;
            drop(here);
        };
        let (sent, ()) = tokio::join!(sent, close);
        assert!((MAX_DISCARDED..MAX_DISCARDED + 2 * CHUNK).contains(&sent), "{sent}");
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn ends_at_an_error() {
        let mut broken = fails_once();
        linger(&mut broken).await;
        assert_eq!(broken.read(&mut [0]).await.unwrap(), 0);
    }

    /// Fails once, then ends.
    fn fails_once() -> impl AsyncRead + Unpin {
        struct Broken(bool);
        impl AsyncRead for Broken {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
                _buf: &mut ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                let failed = std::mem::replace(&mut self.0, true);
                Poll::Ready(if failed { Ok(()) } else { Err(std::io::ErrorKind::ConnectionReset.into()) })
            }
        }
        Broken(false)
    }
}
