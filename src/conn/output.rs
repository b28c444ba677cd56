//! From packets to written bytes: everything that is due goes out in one write.

use super::{Close, Io};
use bytes::{Buf, BytesMut};
use mqtt_codec::{Encode, EncodeError, ProtocolVersion};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Above this many unwritten bytes nothing is read from the peer and nothing is taken from its outbox.
pub(super) const HIGH_WATER: usize = 64 * 1024;

/// Encoded packets that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: BytesMut,
    unflushed: bool,
}

impl Output {
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= HIGH_WATER
    }

    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    pub fn push(&mut self, packet: &impl Encode, version: ProtocolVersion) -> Result<(), EncodeError> {
        packet.encode(version, &mut self.buffer)
    }

    /// Writes what it can and adds it to `written`; `Ready(Ok(()))` says that nothing is left.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut dyn Io, written: &mut u64) -> Poll<Result<(), Close>> {
        while !self.buffer.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, &self.buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                Poll::Ready(Ok(n)) => {
                    self.buffer.advance(n);
                    self.unflushed = true;
                    *written += n as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Also with nothing of ours to send: the layers below may owe answers, which a peer has to take in time as well.
        match Pin::new(&mut *io).poll_flush(cx) {
            Poll::Ready(result) => result?,
            Poll::Pending => return Poll::Pending,
        }
        if self.unflushed {
            self.unflushed = false;
            self.buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}
