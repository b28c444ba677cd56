//! The end of a connection: the reason reaches a peer that was still sending, and a WebSocket is closed as RFC 6455 says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use mqtt_codec::{Encode, FrameLen, decode, frame_len};
use shangmq::server::Server;
use testkit::{
    Client, ConnectExt, Packet, ProtocolVersion, ReasonCode, Transport, connect, disconnect, in_both_versions,
    over_every_transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker};
use crate::hostile::until;

/// More than any socket of the broker reads at once, so that bytes are unread when it decides to close.
const UNREAD: usize = 200 * 1024;

/// What a client reads that sends all of `bytes` first, and looks for an answer only when the broker has closed. By then a reset would
/// have come: Linux keeps what had arrived before it, other systems throw the unread answer away.
async fn late_answer(broker: &TestBroker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    all_closed(broker, "tcp").await;
    assert!(stream.take_error().unwrap().is_none(), "the broker has reset the connection");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn all_closed(broker: &TestBroker, kind: &str) {
    let counters = broker.counters(kind);
    until("the connection is accepted", || counters.accepted.load(Ordering::Relaxed) > 0).await;
    until("the connection is closed", || counters.connections.load(Ordering::Relaxed) == 0).await;
}

fn encoded(packet: impl Into<Packet>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.into().encode(version, &mut bytes).unwrap();
    bytes.to_vec()
}

#[tokio::test]
async fn a_dropped_server_ends_its_connections_and_those_that_come_to_connect_later() {
    let setup = Setup::new();
    let server = Server::start(setup.config()).await.unwrap();
    let (_, address) = server.addresses()[0];
    let open = async || Client::new(TcpStream::connect(address).await.unwrap());
    let (mut client, mut late) = (open().await, open().await);
    client.connect(connect("c")).await;
    let metrics = Arc::clone(server.metrics());
    until("both are accepted", || metrics.open_connections() == 2).await;
    drop(server);
    client.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    late.connect(connect("late")).await;
    late.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    until("their ends", || metrics.open_connections() == 0).await;
}

in_both_versions!(a_refusing_connack_reaches_a_client_that_went_on_sending, |version| async move {
    let broker = Setup::new().auth("allow_anonymous = false").start().await;
    let mut bytes = encoded(connect("c").version(version), version);
    bytes.extend(vec![0; UNREAD]);
    let answer = late_answer(&broker, &bytes).await;
    // CONNACK: not authorized.
    assert_eq!(answer[0], 0x20);
    assert_eq!(answer[3], if version.is_v5() { 0x87 } else { 5 });
});

#[tokio::test]
async fn the_reason_of_a_disconnect_reaches_a_client_that_went_on_sending() {
    let broker = Setup::new().start().await;
    let mut bytes = encoded(connect("c"), ProtocolVersion::V5);
    // A packet of the reserved type 0, and more.
    bytes.extend(vec![0; UNREAD]);
    let answer = late_answer(&broker, &bytes).await;
    let mut answer = BytesMut::from(&answer[..]);
    let mut last = None;
    while let Ok(FrameLen::Complete(len)) = frame_len(&answer, u32::MAX) {
        last = Some(decode(answer.split_to(len).freeze(), ProtocolVersion::V5).unwrap());
    }
    assert!(matches!(last, Some(Packet::Disconnect(end)) if end.reason == ReasonCode::MalformedPacket));
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_is_closed_upon() {
    let broker = Setup::new().start().await;
    let mut stream = TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
    stream.write_all(&encoded(connect("c"), ProtocolVersion::V5)).await.unwrap();
    while stream.write_all(&[0; 1024]).await.is_ok() {}
    all_closed(&broker, "tcp").await;
}

over_every_transport!(a_client_that_says_goodbye_is_never_reset, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    for n in 0..20 {
        let mut client: Client = broker.connect_over(transport, connect(&format!("c{n}"))).await;
        client.send(disconnect(ReasonCode::Success)).await;
        // The client's own end of the closing handshake, which fails where the broker has closed already.
        client.shutdown().await;
        client.expect_closed().await;
    }
});

/// A client's masked frame, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
}

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

async fn frame_head(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let (first, length) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
    let mut payload = vec![0; length.into()];
    stream.read_exact(&mut payload).await.unwrap();
    (first & 0x0f, payload)
}

/// A WebSocket written by hand, after CONNACK.
async fn websocket(broker: &TestBroker, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address(Transport::Ws)).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(&frame(BINARY, &encoded(connect(id).persistent(), ProtocolVersion::V5))).await.unwrap();
    let (opcode, connack) = frame_head(&mut stream).await;
    assert_eq!((opcode, connack[0]), (BINARY, 0x20));
    stream
}

#[tokio::test]
async fn a_websocket_stays_open_until_its_client_has_answered_the_close_frame() {
    let broker = Setup::new().listeners(&["tcp", "ws"]).start().await;
    let mut stream = websocket(&broker, "c").await;
    stream.write_all(&frame(BINARY, &[0xe0, 0])).await.unwrap();
    assert_eq!(frame_head(&mut stream).await, (CLOSE, vec![0x03, 0xe8]));
    // The session is free meanwhile: its owner comes back on another connection, and is not told of a takeover.
    let mut again = broker.raw().await;
    assert!(again.connect(connect("c").persistent()).await.session_present);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), stream.read_u8()).await;
    assert!(early.is_err(), "the connection below ended before the client's close frame");
    stream.write_all(&frame(CLOSE, &[0x03, 0xe8])).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    again.ping().await;
}

#[tokio::test]
async fn a_websocket_whose_client_never_answers_the_close_frame_is_closed() {
    let broker = Setup::new().listeners(&["tcp", "ws"]).start().await;
    let mut stream = websocket(&broker, "c").await;
    stream.write_all(&frame(BINARY, &[0xe0, 0])).await.unwrap();
    assert_eq!(frame_head(&mut stream).await.0, CLOSE);
    all_closed(&broker, "ws").await;
}
