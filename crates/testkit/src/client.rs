//! The client: it sends what it is told, well formed or not, and says in full what came instead of what was expected.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    ConnAck, Connect, Disconnect, Encode, FrameLen, Packet, PacketType, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, QoS, ReasonCode, Subscribe, Unsubscribe, decode, frame_len,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::packets::{packet_id, subscribe};

/// How long an answer may take before a test fails: long enough for a loaded machine, since no passing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Any transport, so that one test body serves them all.
pub type AnyStream = Box<dyn Stream>;

/// An MQTT client that does nothing by itself: no acknowledgement, no ping, no reconnect. Dropping it drops the stream without a
/// word.
pub struct Client<S = AnyStream> {
    io: S,
    /// By which packets are written and read; [`connect`](Self::connect) takes it from the CONNECT packet.
    version: ProtocolVersion,
    received: BytesMut,
    /// Messages that came while an answer was awaited; they are the next packets to be read.
    aside: VecDeque<Publish>,
    patience: Duration,
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("version", &self.version).field("received", &self.received.len()).finish()
    }
}

impl<S: Stream> Client<S> {
    /// A client that has said nothing yet. It speaks MQTT 5 unless [`connect`](Self::connect) or a CONNECT sent says otherwise.
    pub fn new(io: S) -> Self {
        Client {
            io,
            version: ProtocolVersion::V5,
            received: BytesMut::new(),
            aside: VecDeque::new(),
            patience: PATIENCE,
        }
    }

    /// Waits this long for packets. Tests on a simulated clock wait longer than the time they simulate.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The stream alone; what was read and not asked for yet is lost.
    pub fn into_inner(self) -> S {
        self.io
    }

    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// Sends CONNECT and expects that it is accepted.
    pub async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.send(connect).await;
        match self.recv().await {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => *ack,
            other => panic!("expected an accepting CONNACK, got {}", shown(&other)),
        }
    }

    /// Sends CONNECT and expects the refusal `reason`, which MQTT 3 tells as the nearest return code, and then the end of the
    /// connection. [MQTT-3.1.4-5]
    pub async fn expect_refusal(&mut self, connect: Connect, reason: ReasonCode) {
        self.send(connect).await;
        let got = match self.recv().await {
            Packet::ConnAck(ack) => ack.reason,
            other => panic!("expected a refusing CONNACK, got {}", shown(&other)),
        };
        if self.version.is_v5() {
            assert_eq!(got, reason, "reason code of CONNACK");
        } else {
            assert_eq!(got.to_connect_return_code(), reason.to_connect_return_code(), "return code of CONNACK");
        }
        self.expect_closed().await;
    }

    pub async fn send(&mut self, packet: impl Into<Packet>) {
        let packet = packet.into();
        if let Packet::Connect(connect) = &packet {
            self.version = connect.version;
        }
        let mut bytes = BytesMut::new();
        packet.encode(self.version, &mut bytes).unwrap_or_else(|error| panic!("{error}: {}", shown(&packet)));
        self.send_raw(&bytes).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).await.expect("the peer takes bytes");
    }

    /// As [`send_raw`](Self::send_raw), for a peer that may have closed the connection.
    pub async fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Client { io, patience, .. } = self;
        let write = async {
            io.write_all(bytes).await?;
            io.flush().await
        };
        within(*patience, "writing", write).await
    }

    /// Closes the sending direction in the way of the transport, without DISCONNECT.
    pub async fn shutdown(&mut self) {
        let Client { io, patience, .. } = self;
        within(*patience, "closing", io.shutdown()).await.expect("the stream can be shut down");
    }

    /// The next packet.
    pub async fn recv(&mut self) -> Packet {
        match self.aside.pop_front() {
            Some(message) => message.into(),
            None => self.recv_new().await,
        }
    }

    /// The next packet that is not a PUBLISH: the peer may send messages before it answers. They are kept for later, in their order.
    async fn recv_answer(&mut self) -> Packet {
        loop {
            match self.recv_new().await {
                Packet::Publish(message) => self.aside.push_back(message),
                answer => return answer,
            }
        }
    }

    async fn recv_new(&mut self) -> Packet {
        match self.next().await {
            Ok(Some(packet)) => packet,
            Ok(None) => panic!("the peer closed the connection instead of sending a packet"),
            Err(error) => panic!("the connection failed instead of bringing a packet: {error}"),
        }
    }

    /// The next packet, which must be a PUBLISH. Nothing is acknowledged.
    pub async fn recv_publish(&mut self) -> Publish {
        match self.recv().await {
            Packet::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {}", shown(&other)),
        }
    }

    /// The next packet must be a PUBLISH with this topic and payload. It goes through the whole exchange of its QoS.
    pub async fn expect_message(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        let publish = self.recv_publish().await;
        assert!(
            publish.topic == *topic && publish.payload == payload.as_ref(),
            "expected {topic:?} with {}, got {}",
            bytes_shown(payload.as_ref()),
            shown(&publish.clone().into()),
        );
        self.acknowledge(&publish).await;
        publish
    }

    /// Acknowledges a PUBLISH as its QoS asks: PUBACK, or PUBREC, PUBREL and PUBCOMP.
    pub async fn acknowledge(&mut self, publish: &Publish) {
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(PubAck::new(id)).await,
            (QoS::ExactlyOnce, Some(id)) => {
                self.send(PubRec::new(id)).await;
                self.expect_answer(PubRel::new(id)).await;
                self.send(PubComp::new(id)).await;
            }
            _ => {}
        }
    }

    /// The next packet must be this one.
    pub async fn expect(&mut self, packet: impl Into<Packet>) {
        let got = self.recv().await;
        assert_packet(&got, &packet.into());
    }

    async fn expect_answer(&mut self, packet: impl Into<Packet>) {
        let got = self.recv_answer().await;
        assert_packet(&got, &packet.into());
    }

    /// Publishes and goes through the exchange of the message's QoS. Returns the reason of PUBACK or PUBREC, `Success` for QoS 0.
    /// Messages that come in between are kept for the next [`recv`](Self::recv).
    pub async fn publish(&mut self, publish: Publish) -> ReasonCode {
        let (qos, id) = (publish.qos, publish.packet_id);
        self.send(publish).await;
        match (qos, id) {
            (QoS::AtLeastOnce, Some(id)) => match self.recv_answer().await {
                Packet::PubAck(ack) if ack.packet_id == id => ack.reason,
                other => panic!("expected PUBACK for {id}, got {}", shown(&other)),
            },
            (QoS::ExactlyOnce, Some(id)) => {
                let reason = match self.recv_answer().await {
                    Packet::PubRec(ack) if ack.packet_id == id => ack.reason,
                    other => panic!("expected PUBREC for {id}, got {}", shown(&other)),
                };
                if !reason.is_error() {
                    self.send(PubRel::new(id)).await;
                    self.expect_answer(PubComp::new(id)).await;
                }
                reason
            }
            _ => ReasonCode::Success,
        }
    }

    /// Subscribes to one filter and expects that it is granted as asked.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.subscribe_with(subscribe(1, &[(filter, qos)])).await;
    }

    /// Subscribes and expects that every filter is granted as asked.
    pub async fn subscribe_with(&mut self, subscribe: Subscribe) {
        let granted: Vec<_> = subscribe.subscriptions.iter().map(|s| ReasonCode::granted(s.options.qos)).collect();
        assert_eq!(self.subscribe_reasons(subscribe).await, granted, "reasons of SUBACK");
    }

    /// Subscribes and returns what SUBACK says.
    pub async fn subscribe_reasons(&mut self, subscribe: Subscribe) -> Vec<ReasonCode> {
        let id = subscribe.packet_id;
        self.send(subscribe).await;
        match self.recv().await {
            Packet::SubAck(ack) if ack.packet_id == id => ack.reasons,
            other => panic!("expected SUBACK for {id}, got {}", shown(&other)),
        }
    }

    /// Unsubscribes from one filter and expects UNSUBACK; returns its reason, which is `Success` before MQTT 5.
    pub async fn unsubscribe(&mut self, filter: &str) -> ReasonCode {
        let id = packet_id(1);
        let filters = vec![filter.into()];
        self.send(Unsubscribe { packet_id: id, properties: Default::default(), filters }).await;
        match self.recv().await {
            Packet::UnsubAck(ack) if ack.packet_id == id => ack.reasons.first().copied().unwrap_or_default(),
            other => panic!("expected UNSUBACK for {id}, got {}", shown(&other)),
        }
    }

    /// One PINGREQ and its PINGRESP.
    pub async fn ping(&mut self) {
        self.send(Packet::PingReq).await;
        self.expect(Packet::PingResp).await;
    }

    /// Nothing waits for this client: everything published before this call that was to reach it would come before the second
    /// PINGRESP. (The first may overtake messages that were queued but not yet written when the PINGREQ was read.)
    pub async fn expect_nothing(&mut self) {
        self.ping().await;
        self.ping().await;
    }

    /// Sends DISCONNECT with reason 0x00 and waits until the broker has closed the connection, and so has let go of the session.
    pub async fn disconnect(self) {
        self.disconnect_with(Disconnect::default()).await;
    }

    /// As [`disconnect`](Self::disconnect) with another packet.
    pub async fn disconnect_with(mut self, disconnect: Disconnect) {
        self.send(disconnect).await;
        self.expect_closed().await;
    }

    /// Ends the connection without DISCONNECT and waits until the broker has closed it too.
    pub async fn vanish(mut self) {
        // The peer may have closed first.
        let _ = self.io.shutdown().await;
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// DISCONNECT with this reason, and then the end of the connection; before MQTT 5 only the end.
    pub async fn expect_disconnect(&mut self, reason: ReasonCode) {
        if self.version.is_v5() {
            match self.recv().await {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason, "reason code of DISCONNECT"),
                other => panic!("expected DISCONNECT with {reason:?}, got {}", shown(&other)),
            }
        }
        self.expect_closed().await;
    }

    /// The connection ends, and no packet comes before that.
    pub async fn expect_closed(&mut self) {
        if let Some(message) = self.aside.pop_front() {
            panic!("expected the end of the connection, got {}", shown(&message.into()));
        }
        match self.next().await {
            Ok(None) => {}
            // The peer closed while bytes of ours were on their way.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(Some(packet)) => panic!("expected the end of the connection, got {}", shown(&packet)),
            Err(error) => panic!("expected an orderly end of the connection, got: {error}"),
        }
    }

    /// The bytes of the next packet. Nothing may have been put aside before.
    pub async fn recv_frame(&mut self) -> Bytes {
        assert!(self.aside.is_empty(), "a message was put aside");
        match self.next_frame().await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the peer closed the connection instead of sending a packet"),
            Err(error) => panic!("the connection failed instead of bringing a packet: {error}"),
        }
    }

    /// The next packet, or `None` at the end of the stream. An end in the middle of a packet is an error.
    async fn next(&mut self) -> io::Result<Option<Packet>> {
        match self.next_frame().await? {
            Some(frame) => decode(frame, self.version).map(Some).map_err(invalid),
            None => Ok(None),
        }
    }

    async fn next_frame(&mut self) -> io::Result<Option<Bytes>> {
        let Client { io, received, patience, .. } = self;
        let frame = async {
            loop {
                if let FrameLen::Complete(len) = frame_len(received, u32::MAX).map_err(invalid)? {
                    return Ok(Some(received.split_to(len).freeze()));
                }
                if io.read_buf(received).await? == 0 {
                    return if received.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                }
            }
        };
        within(*patience, "a packet or the end of the connection", frame).await
    }
}

fn invalid(error: mqtt_codec::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(patience, future).await {
        Ok(result) => result,
        Err(_) => panic!("waited {patience:?} in vain for {what}"),
    }
}

fn assert_packet(got: &Packet, expected: &Packet) {
    assert!(got == expected, "expected {}\n     got {}", shown(expected), shown(got));
}

/// A packet in a failure: on several lines, and with the payload that `Debug` leaves out.
fn shown(packet: &Packet) -> String {
    let kind: PacketType = packet.packet_type();
    match packet {
        Packet::Publish(publish) => format!("{kind:?} {publish:#?} with {}", bytes_shown(&publish.payload)),
        other => format!("{kind:?} {other:#?}"),
    }
}

fn bytes_shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let head = bytes.get(..SHOWN).unwrap_or(bytes);
    let more = if head.len() < bytes.len() { "…" } else { "" };
    format!("{} bytes \"{}{more}\"", bytes.len(), head.escape_ascii())
}
