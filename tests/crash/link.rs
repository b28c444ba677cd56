//! One connection of a client that keeps its state itself: packets out, packets in, and every failure is just the end of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_codec::{Encode, FrameLen, Packet, ProtocolVersion, ReasonCode, decode, frame_len};
use testkit::{ConnectExt, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A broker that has just been started again does not listen yet.
const RETRY: Duration = Duration::from_millis(20);
/// Longer than a broker takes to answer CONNECT, even one that has just recovered.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    received: BytesMut,
}

impl Link {
    /// Connects as often as it takes, with a session that outlives connections; returns whether the broker knew it.
    pub async fn open(address: SocketAddr, client_id: &str, receive_maximum: u16) -> (Link, bool) {
        loop {
            if let Ok(Some(opened)) =
                tokio::time::timeout(ANSWER, Self::try_open(address, client_id, receive_maximum)).await
            {
                return opened;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_open(address: SocketAddr, client_id: &str, receive_maximum: u16) -> Option<(Link, bool)> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut link = Link { stream, received: BytesMut::new() };
        link.send(connect(client_id).persistent().receive_maximum(receive_maximum)).await.ok()?;
        match link.recv().await.ok()? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => Some((link, ack.session_present)),
            _ => None,
        }
    }

    pub async fn send(&mut self, packet: impl Into<Packet>) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        packet.into().encode(ProtocolVersion::V5, &mut bytes).expect("a packet that can be written");
        self.stream.write_all(&bytes).await
    }

    /// The next packet. Safe to cancel: what was read of a packet stays.
    pub async fn recv(&mut self) -> io::Result<Packet> {
        loop {
            match frame_len(&self.received, u32::MAX).expect("the broker sends well-formed packets") {
                FrameLen::Complete(len) => {
                    let frame = self.received.split_to(len).freeze();
                    return Ok(decode(frame, ProtocolVersion::V5).expect("the broker sends well-formed packets"));
                }
                _ if self.stream.read_buf(&mut self.received).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                _ => {}
            }
        }
    }
}
