//! Makes one-way handshakes possible for gm-tlcp 0.8.1 with `tlcp-gmssl-compat`.
//!
//! In that dialect the crate reads a record where CertificateRequest may stand and then always another one for ServerHelloDone. A server
//! that asks for no certificate sends one record there, so the crate would wait for ever. A record too short for a handshake message is
//! dropped by its first read and is not put into the transcript: this transport slips one in before ServerHelloDone. Everything
//! else, both ways, passes unchanged, so keys, Finished and records are still checked end to end by two implementations.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HANDSHAKE: u8 = 22;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
/// A handshake record of one byte.
const SPARE: [u8; 6] = [HANDSHAKE, 1, 1, 0, 1, 0];

/// A stream that hands on whole records until ServerHelloDone, and raw bytes after it.
pub struct SpareRecord<S> {
    inner: S,
    /// What has been read and not handed on; while `watching`, a part of it may be an incomplete record.
    held: Vec<u8>,
    /// How many bytes of `held` may be handed on.
    ready: usize,
    watching: bool,
}

impl<S> SpareRecord<S> {
    pub fn new(inner: S) -> SpareRecord<S> {
        SpareRecord { inner, held: Vec::new(), ready: 0, watching: true }
    }

    /// Looks at the records that have become complete.
    fn look(&mut self) {
        while self.watching {
            let record = &self.held[self.ready..];
            if record.len() < 6 {
                return;
            }
            let end = 5 + usize::from(u16::from_be_bytes([record[3], record[4]]));
            if record.len() < end {
                return;
            }
            match (record[0], record[5]) {
                (HANDSHAKE, SERVER_HELLO_DONE) => {
                    let at = self.ready;
                    self.held.splice(at..at, SPARE);
                    self.watching = false;
                }
                (HANDSHAKE, CERTIFICATE_REQUEST) => self.watching = false,
                (HANDSHAKE, _) => self.ready += end,
                _ => self.watching = false,
            }
        }
        self.ready = self.held.len();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SpareRecord<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready == 0 {
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(read.filled());
            this.look();
        }
        let count = this.ready.min(out.remaining());
        out.put_slice(&this.held[..count]);
        this.held.drain(..count);
        this.ready -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SpareRecord<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
