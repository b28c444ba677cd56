//! One measured connection: CONNECT by the codec, then bytes in and out in large pieces.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_codec::{
    ConnAck, Connect, ConnectProperties, DecodeError, Encode, EncodeError, FrameLen, Packet, PacketType,
    ProtocolVersion, QoS, ReasonCode, Secret, decode, frame_len,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::wire::{Incoming, read};
use crate::cli::bench::cause;
use crate::client::{ConnectError, Endpoint, Stream, is_end, words};

/// Largest packet taken from a server.
pub(in crate::cli::bench) const MAX_PACKET_SIZE: u32 = 16 << 20;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// How long the orderly end of a connection may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Where clients connect to and how they introduce themselves.
#[derive(Debug)]
pub(in crate::cli::bench) struct Target {
    pub endpoint: Endpoint,
    pub version: ProtocolVersion,
    pub username: Option<ByteString>,
    pub password: Option<Secret>,
    pub keep_alive_secs: u16,
    /// How long sessions outlive their connections.
    pub session_expiry_secs: u32,
}

/// A connection whose CONNECT was accepted.
pub(in crate::cli::bench) struct Link {
    io: Box<dyn Stream>,
    version: ProtocolVersion,
    /// The begin of a packet that has not arrived whole.
    pending: Vec<u8>,
    /// Encoded packets; `written` bytes of them are with the system.
    pub(super) out: Vec<u8>,
    written: usize,
    unflushed: bool,
    ping: Option<(Pin<Box<Sleep>>, Duration)>,
}

/// Why a connection did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli::bench) enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server sent something that is not MQTT: {0}")]
    Decode(#[from] DecodeError),
    #[error("the packet cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    #[error("the server refused the connection: {}", words(*.0))]
    Refused(ReasonCode),
    #[error("the server ended the connection: {}", words(*.0))]
    Disconnected(ReasonCode),
    #[error("the server refused the subscription {:?}: {}", .0, words(*.1))]
    NotSubscribed(ByteString, ReasonCode),
    #[error("the server sent {0:?} where MQTT does not allow it")]
    Unexpected(PacketType),
    #[error("no {0} within {1} seconds")]
    NoAnswer(&'static str, u64),
    #[error("the server takes no QoS above {}", u8::from(*.0))]
    QoS(QoS),
}

impl LinkError {
    /// A cause that many failures share, for counting.
    pub fn cause(&self) -> String {
        match self {
            LinkError::Connect(error) => cause::of_connect(error),
            LinkError::Io(error) => format!("connection: {}", error.kind()),
            LinkError::NotSubscribed(_, reason) => format!("the server refused the subscription: {}", words(*reason)),
            other => other.to_string(),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        error.downcast().map_or_else(LinkError::Io, LinkError::Connect)
    }
}

impl Target {
    /// Connects and completes CONNECT.
    pub async fn open(&self, client_id: ByteString) -> Result<(Link, ConnAck), LinkError> {
        let io = self.endpoint.connect().await?;
        let mut link = Link {
            io,
            version: self.version,
            pending: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            ping: None,
        };
        let expiry = Some(self.session_expiry_secs).filter(|secs| *secs > 0);
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive_secs: self.keep_alive_secs,
            properties: ConnectProperties { session_expiry_interval: expiry, ..ConnectProperties::default() },
            client_id,
            will: None,
            username: self.username.clone(),
            password: self.password.clone(),
        };
        link.queue(&connect)?;
        let answer = self.within("CONNACK", async {
            loop {
                if let Packet::ConnAck(ack) = link.receive().await? {
                    return Ok(*ack);
                }
            }
        });
        let ack = answer.await.map_err(|error| match error {
            LinkError::Io(error) if !is_end(&error) => LinkError::Io(error),
            LinkError::Io(_) | LinkError::Closed => self.endpoint.unanswered().into(),
            other => other,
        })?;
        if ack.reason != ReasonCode::Success {
            return Err(LinkError::Refused(ack.reason));
        }
        let keep_alive_secs = ack.properties.server_keep_alive_secs.unwrap_or(self.keep_alive_secs);
        if keep_alive_secs > 0 {
            let every = Duration::from_secs(u64::from(keep_alive_secs)) / 2;
            link.ping = Some((Box::pin(sleep(every)), every));
        }
        Ok((link, ack))
    }

    /// Waits for an answer of the server as long as a step of connecting may take.
    pub async fn within<T>(
        &self,
        what: &'static str,
        answer: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let limit = self.endpoint.timeout;
        timeout(limit, answer).await.unwrap_or(Err(LinkError::NoAnswer(what, limit.as_secs())))
    }
}

impl Link {
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    pub fn queue(&mut self, packet: &impl Encode) -> Result<(), LinkError> {
        let mut bytes = BytesMut::new();
        packet.encode(self.version, &mut bytes)?;
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what is queued; `Ready` when nothing is left.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and hands over every whole packet.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(Incoming<'_>, &mut Vec<u8>) -> Result<(), LinkError>,
    ) -> Poll<Result<(), LinkError>> {
        let mut scratch = SCRATCH.take();
        let held = self.pending.len();
        if scratch.len() < held + CHUNK {
            scratch.resize(held + CHUNK, 0);
        }
        let result = match scratch.split_at_mut_checked(held) {
            Some((head, space)) => {
                head.copy_from_slice(&self.pending);
                let mut buf = ReadBuf::new(space);
                match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                    Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
                }
            }
            None => Poll::Pending,
        };
        let result = match result {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(LinkError::Closed)),
            Poll::Ready(Ok(count)) => {
                Poll::Ready(self.process(scratch.get(..held + count).unwrap_or_default(), &mut each))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        SCRATCH.set(scratch);
        result
    }

    fn process(
        &mut self,
        mut data: &[u8],
        each: &mut impl FnMut(Incoming<'_>, &mut Vec<u8>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        while let FrameLen::Complete(len) = frame_len(data, MAX_PACKET_SIZE)? {
            let (frame, rest) = data.split_at_checked(len).ok_or(DecodeError::Truncated)?;
            data = rest;
            match read(frame, self.version).ok_or(DecodeError::Truncated)? {
                Incoming::PingResp => {}
                packet => each(packet, &mut self.out)?,
            }
        }
        self.pending.clear();
        self.pending.extend_from_slice(data);
        Ok(())
    }

    /// Queues a PINGREQ when one is due.
    pub fn poll_ping(&mut self, cx: &mut Context<'_>) {
        if let Some((timer, every)) = &mut self.ping
            && timer.as_mut().poll(cx).is_ready()
        {
            timer.as_mut().reset(Instant::now() + *every);
            // The timer has to be polled to wake the task again; it is not due yet.
            let _pending = timer.as_mut().poll(cx);
            self.out.extend_from_slice(&[0xc0, 0]);
        }
    }

    /// The next packet that is neither PUBLISH nor an acknowledgement, writing what is queued meanwhile.
    async fn receive(&mut self) -> Result<Packet, LinkError> {
        let version = self.version;
        let mut packet = None;
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_read(cx, |incoming, _| {
                if let Incoming::Other(frame) = incoming {
                    packet = Some(decode_rare(frame, version)?);
                }
                Ok(())
            })
        })
        .await?;
        packet.ok_or(LinkError::Unexpected(PacketType::Publish))
    }

    /// Does nothing but keep the connection, until it ends.
    pub async fn idle(mut self) -> LinkError {
        let ended: Result<(), LinkError> = poll_fn(|cx| {
            self.poll_ping(cx);
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            loop {
                ready!(self.poll_read(cx, |_, _| Ok(())))?;
            }
        })
        .await;
        ended.err().unwrap_or(LinkError::Closed)
    }

    /// Says DISCONNECT and waits until the server has closed.
    pub async fn close(mut self) {
        let farewell = async {
            self.out.extend_from_slice(&[0xe0, 0]);
            poll_fn(|cx| self.poll_write(cx)).await?;
            loop {
                poll_fn(|cx| self.poll_read(cx, |_, _| Ok(()))).await?;
            }
        };
        let ended: Result<Result<(), LinkError>, _> = timeout(CLOSE_WAIT, farewell).await;
        // A server that has not closed is told once more; what it makes of it is not measured.
        if ended.is_err() {
            let _ = timeout(CLOSE_WAIT, self.io.shutdown()).await;
        }
    }
}

/// Decodes a packet that is none of the measured ones. A DISCONNECT is an error.
pub(super) fn decode_rare(frame: &[u8], version: ProtocolVersion) -> Result<Packet, LinkError> {
    match decode(Bytes::copy_from_slice(frame), version)? {
        Packet::Disconnect(disconnect) => Err(LinkError::Disconnected(disconnect.reason)),
        packet => Ok(packet),
    }
}
