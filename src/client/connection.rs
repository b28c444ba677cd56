//! Whole packets over a byte stream. Reading and writing go on together, so that neither side can wait for the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use mqtt_codec::{DecodeError, Encode, EncodeError, FrameLen, Packet, ProtocolVersion, decode, frame_len};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::ClientError;

/// Nothing more is read while this many bytes wait to be written.
const HIGH_WATER: usize = 64 * 1024;
const CHUNK: usize = 16 * 1024;

/// A stream of packets in one version of MQTT.
#[derive(Debug)]
pub struct Connection<S> {
    io: S,
    version: ProtocolVersion,
    /// Largest packet taken, in bytes with its fixed header.
    max_packet_size: u32,
    chunk: Box<[u8]>,
    /// Received and not yet decoded: at most one packet and one chunk.
    incoming: BytesMut,
    /// Encoded and not yet written.
    outgoing: BytesMut,
    /// Whether bytes were written since the last flush of `io`.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks `version` over `io`, taking packets of at most `max_packet_size` bytes.
    pub fn new(io: S, version: ProtocolVersion, max_packet_size: u32) -> Self {
        Self {
            io,
            version,
            max_packet_size,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            unflushed: false,
        }
    }

    /// The version of MQTT.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.io
    }

    /// Encodes a packet. It is written by [`Connection::receive`] or [`Connection::flush`].
    ///
    /// # Errors
    /// A packet that this version of MQTT cannot express.
    pub fn queue(&mut self, packet: &Packet) -> Result<(), EncodeError> {
        packet.encode(self.version, &mut self.outgoing)
    }

    /// Whether so much waits to be written that a caller should flush before queueing more.
    pub fn is_congested(&self) -> bool {
        self.outgoing.len() >= HIGH_WATER
    }

    /// Waits for the next packet, writing what is queued meanwhile. `None` when the server closed the stream between
    /// packets. Cancel-safe: nothing received or queued is lost.
    ///
    /// # Errors
    /// A failed stream or bytes that are no packet.
    pub async fn receive(&mut self) -> Result<Option<Packet>, ClientError> {
        loop {
            if let Some(packet) = self.next_packet()? {
                return Ok(Some(packet));
            }
            if poll_fn(|cx| self.poll_drive(cx)).await? == 0 {
                return if self.incoming.is_empty() { Ok(None) } else { Err(DecodeError::Truncated.into()) };
            }
        }
    }

    /// Writes everything that is queued. Cancel-safe.
    ///
    /// # Errors
    /// A failed stream.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Writes everything that is queued and ends the stream in this direction.
    ///
    /// # Errors
    /// A failed stream.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.io.shutdown().await
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, DecodeError> {
        match frame_len(&self.incoming, self.max_packet_size)? {
            FrameLen::NeedMore | FrameLen::Partial { .. } => Ok(None),
            FrameLen::Complete(len) => decode(self.incoming.split_to(len).freeze(), self.version).map(Some),
        }
    }

    /// Writes what can be written and reads once. Ready with the number of bytes read, 0 at the end of the stream.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        if self.is_congested() {
            return Poll::Pending;
        }
        let mut buf = ReadBuf::new(&mut self.chunk);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                self.incoming.extend_from_slice(buf.filled());
                Poll::Ready(Ok(buf.filled().len()))
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outgoing) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.outgoing.advance(written);
                    self.unflushed = true;
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => self.unflushed = false,
            }
        }
        Poll::Ready(Ok(()))
    }
}
