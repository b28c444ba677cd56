//! The client against a scripted server in memory: `receives` what the client must send, `sends` what it gets.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError, Disconnect, Encode, FrameLen, Packet,
    PacketType, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode, SubAck,
    SubAckProperties, Subscription, SubscriptionOptions, decode, decode_connect, frame_len,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::{Client, ClientError, Event};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// Bounds what would otherwise hang when it fails.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    io: DuplexStream,
    received: BytesMut,
}

impl Server {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let FrameLen::Complete(len) = frame_len(&self.received, u32::MAX).unwrap() {
                return Some(self.received.split_to(len).freeze());
            }
            if self.io.read_buf(&mut self.received).await.unwrap() == 0 {
                assert!(self.received.is_empty(), "the client stopped inside a packet");
                return None;
            }
        }
    }

    async fn receives(&mut self) -> Packet {
        let frame = self.next().await.expect("the client closed the stream");
        decode(frame, V5).unwrap()
    }

    async fn receives_connect(&mut self) -> Connect {
        decode_connect(self.next().await.unwrap()).unwrap()
    }

    async fn sends(&mut self, packet: impl Into<Packet>) {
        let mut bytes = BytesMut::new();
        packet.into().encode(V5, &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }
}

fn hello(keep_alive_secs: u16) -> Connect {
    Connect {
        version: V5,
        clean_start: true,
        keep_alive_secs,
        properties: ConnectProperties::default(),
        client_id: "meter".into(),
        will: None,
        username: None,
        password: None,
    }
}

fn message(qos: QoS, packet_id: Option<u16>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "a".into(),
        packet_id: packet_id.and_then(NonZeroU16::new),
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"x"),
    }
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

fn streams() -> (DuplexStream, Server) {
    let (client, server) = duplex(1 << 20);
    (client, Server { io: server, received: BytesMut::new() })
}

async fn connected_with(keep_alive_secs: u16, properties: ConnAckProperties) -> (Client<DuplexStream>, Server) {
    let (io, mut server) = streams();
    let connack = ConnAck { properties, ..ConnAck::default() };
    let client = Client::connect(io, hello(keep_alive_secs), 1024);
    let script = async {
        server.receives_connect().await;
        server.sends(connack).await;
    };
    let (client, ()) = tokio::join!(client, script);
    (client.unwrap().0, server)
}

async fn connected() -> (Client<DuplexStream>, Server) {
    connected_with(0, ConnAckProperties::default()).await
}

async fn published(client: &mut Client<DuplexStream>) -> (u16, ReasonCode) {
    match timeout(PATIENCE, client.next()).await.expect("no answer came").unwrap() {
        Event::Published { packet_id, reason } => (packet_id.get(), reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connects_in_the_version_asked_for() {
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, V5] {
        let (io, mut server) = streams();
        let client = Client::connect(io, Connect { version, ..hello(5) }, 1024);
        let script = async {
            let connect = server.receives_connect().await;
            let mut bytes = BytesMut::new();
            Packet::from(ConnAck::default()).encode(version, &mut bytes).unwrap();
            server.io.write_all(&bytes).await.unwrap();
            connect
        };
        let (client, connect) = tokio::join!(client, script);
        assert_eq!(client.unwrap().0.version(), version);
        assert_eq!(connect, Connect { version, ..hello(5) });
    }
}

#[tokio::test]
async fn a_refusal_says_why() {
    let (io, mut server) = streams();
    let mut connack = ConnAck::refuse(ReasonCode::NotAuthorized);
    connack.properties.reason_string = Some("ask the operator".into());
    server.sends(connack).await;
    let error = Client::connect(io, hello(0), 1024).await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused the connection: not authorized (\"ask the operator\")");
    assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized));
}

#[tokio::test]
async fn nothing_but_connack_answers_connect() {
    let (io, mut server) = streams();
    server.sends(Packet::PingResp).await;
    let error = Client::connect(io, hello(0), 1024).await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected(PacketType::PingResp)), "{error}");
    let (io, server) = streams();
    drop(server);
    assert!(Client::connect(io, hello(0), 1024).await.is_err());
}

#[tokio::test]
async fn publishes_at_every_qos() {
    let (mut client, mut server) = connected().await;
    assert_eq!(client.publish(message(QoS::AtMostOnce, None)).await.unwrap(), None);
    assert_eq!(client.publish(message(QoS::AtLeastOnce, None)).await.unwrap(), Some(id(1)));
    assert_eq!(client.publish(message(QoS::ExactlyOnce, None)).await.unwrap(), Some(id(2)));
    assert_eq!(client.in_flight(), 2);
    let script = async {
        for sent in
            [message(QoS::AtMostOnce, None), message(QoS::AtLeastOnce, Some(1)), message(QoS::ExactlyOnce, Some(2))]
        {
            assert_eq!(server.receives().await, Packet::Publish(sent));
        }
        server.sends(PubRec::new(id(2))).await;
        assert_eq!(server.receives().await, Packet::PubRel(PubRel::new(id(2))));
        server.sends(PubComp::new(id(2))).await;
        server.sends(PubAck::with_reason(id(1), ReasonCode::QuotaExceeded)).await;
    };
    let events = async { (published(&mut client).await, published(&mut client).await) };
    let (events, ()) = tokio::join!(events, script);
    assert_eq!(events, ((2, ReasonCode::Success), (1, ReasonCode::QuotaExceeded)));
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn no_pubrel_follows_a_refusal() {
    let (mut client, mut server) = connected().await;
    client.publish(message(QoS::ExactlyOnce, None)).await.unwrap();
    server.sends(PubRec::with_reason(id(1), ReasonCode::NotAuthorized)).await;
    assert_eq!(published(&mut client).await, (1, ReasonCode::NotAuthorized));
    client.disconnect().await.unwrap();
    assert!(matches!(server.receives().await, Packet::Publish(_)));
    assert!(matches!(server.receives().await, Packet::Disconnect(_)));
}

#[tokio::test]
async fn acknowledges_messages_and_delivers_qos_2_once() {
    let (mut client, mut server) = connected().await;
    server.sends(message(QoS::AtMostOnce, None)).await;
    server.sends(message(QoS::AtLeastOnce, Some(1))).await;
    server.sends(message(QoS::ExactlyOnce, Some(2))).await;
    server.sends(Publish { dup: true, ..message(QoS::ExactlyOnce, Some(2)) }).await;
    server.sends(PubRel::new(id(2))).await;
    server.sends(message(QoS::ExactlyOnce, Some(2))).await;
    let mut delivered = Vec::new();
    for _ in 0..4 {
        match client.next().await.unwrap() {
            Event::Message(message) => delivered.push(message.qos),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce]);
    client.disconnect().await.unwrap();
    assert_eq!(server.receives().await, Packet::PubAck(PubAck::new(id(1))));
    for answer in [
        Packet::PubRec(PubRec::new(id(2))),
        Packet::PubRec(PubRec::new(id(2))),
        Packet::PubComp(PubComp::new(id(2))),
        Packet::PubRec(PubRec::new(id(2))),
        Packet::Disconnect(Disconnect::default()),
    ] {
        assert_eq!(server.receives().await, answer);
    }
    assert!(server.next().await.is_none(), "the stream goes on after DISCONNECT");
}

#[tokio::test]
async fn an_unknown_pubrel_is_answered_and_an_unknown_puback_is_an_error() {
    let (mut client, mut server) = connected().await;
    server.sends(PubRel::new(id(9))).await;
    server.sends(PubAck::new(id(9))).await;
    let error = client.next().await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownPacketId(9)), "{error}");
    client.disconnect().await.unwrap();
    let answer = PubComp::with_reason(id(9), ReasonCode::PacketIdentifierNotFound);
    assert_eq!(server.receives().await, Packet::PubComp(answer));
}

#[tokio::test]
async fn subscribes_and_learns_what_was_granted() {
    let (mut client, mut server) = connected().await;
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let subscriptions =
        vec![Subscription { filter: "a/#".into(), options }, Subscription { filter: "b".into(), options }];
    let packet_id = client.subscribe(subscriptions.clone()).unwrap();
    let reasons = vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized];
    let script = async {
        match server.receives().await {
            Packet::Subscribe(subscribe) => assert_eq!(subscribe.subscriptions, subscriptions),
            other => panic!("{other:?}"),
        }
        let properties = SubAckProperties::default();
        server.sends(SubAck { packet_id, properties, reasons: reasons.clone() }).await;
    };
    let (event, ()) = tokio::join!(client.next(), script);
    match event.unwrap() {
        Event::Subscribed { packet_id: answered, reasons: granted } => {
            assert_eq!((answered, granted), (packet_id, reasons))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn keeps_within_the_limits_of_the_server() {
    let limits = ConnAckProperties {
        receive_maximum: NonZeroU16::new(1),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: NonZeroU32::new(40),
        ..ConnAckProperties::default()
    };
    let (mut client, _server) = connected_with(0, limits).await;
    let over_qos = client.publish(message(QoS::ExactlyOnce, None)).await;
    assert!(matches!(over_qos, Err(ClientError::QoSNotSupported(QoS::AtLeastOnce))));
    let retained = client.publish(Publish { retain: true, ..message(QoS::AtMostOnce, None) }).await;
    assert!(matches!(retained, Err(ClientError::RetainNotSupported)));
    let large = client.publish(Publish { payload: vec![0; 40].into(), ..message(QoS::AtMostOnce, None) }).await;
    assert!(matches!(large, Err(ClientError::TooLarge { limit: 40, .. })));
    assert!(client.may_publish());
    client.publish(message(QoS::AtLeastOnce, None)).await.unwrap();
    assert!(!client.may_publish());
    let over_receive_maximum = client.publish(message(QoS::AtLeastOnce, None)).await;
    assert!(matches!(over_receive_maximum, Err(ClientError::TooManyInFlight(1))));
}

#[tokio::test(start_paused = true)]
async fn pings_when_nothing_was_sent_for_the_keep_alive_of_the_server() {
    let properties = ConnAckProperties { server_keep_alive_secs: Some(10), ..ConnAckProperties::default() };
    let (mut client, mut server) = connected_with(600, properties).await;
    let start = Instant::now();
    let script = async {
        assert_eq!(server.receives().await, Packet::PingReq);
        assert_eq!(start.elapsed().as_secs(), 10);
        server.sends(Packet::PingResp).await;
        assert_eq!(server.receives().await, Packet::PingReq);
        assert_eq!(start.elapsed().as_secs(), 20);
    };
    // The second PINGREQ has no answer.
    let (ended, ()) = tokio::join!(client.next(), script);
    assert!(matches!(ended, Err(ClientError::NoPingResponse(10))), "{ended:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn the_end_of_a_connection_says_why() {
    let (mut client, mut server) = connected().await;
    server.sends(Disconnect::new(ReasonCode::SessionTakenOver)).await;
    assert_eq!(client.next().await.unwrap_err().reason(), Some(ReasonCode::SessionTakenOver));

    let (mut client, server) = connected().await;
    drop(server);
    let closed = client.next().await.unwrap_err();
    assert_eq!(closed.to_string(), "the server closed the connection without a word");
    let mute = ClientError::Closed(ProtocolVersion::V3_1_1).to_string();
    assert!(mute.contains("before MQTT 5 it has none for why") && mute.contains("-V 5"), "{mute}");

    let (mut client, mut server) = connected().await;
    server.io.write_all(&[0x30, 0x05, 0x00]).await.unwrap();
    drop(server);
    assert!(matches!(client.next().await, Err(ClientError::Decode(DecodeError::Truncated))));

    let (mut client, mut server) = connected().await;
    server.io.write_all(&[0x30, 0xff, 0xff, 0x7f]).await.unwrap();
    assert!(matches!(client.next().await, Err(ClientError::Decode(DecodeError::PacketTooLarge { limit: 1024, .. }))));
}

/// Both sides send more than their streams hold before they read: a client that only wrote would wait forever.
#[tokio::test]
async fn reads_while_a_write_is_stuck() {
    let (io, server) = duplex(64);
    let mut server = Server { io: server, received: BytesMut::new() };
    let client = Client::connect(io, hello(0), 1024);
    let accept = async {
        server.receives_connect().await;
        server.sends(ConnAck::default()).await;
    };
    let (client, ()) = tokio::join!(client, accept);
    let mut client = client.unwrap().0;
    client.publish(Publish { payload: vec![0; 4096].into(), ..message(QoS::AtLeastOnce, None) }).await.unwrap();
    let script = async {
        for _ in 0..100 {
            server.sends(message(QoS::AtMostOnce, None)).await;
        }
        assert!(matches!(server.receives().await, Packet::Publish(_)));
        server.sends(PubAck::new(id(1))).await;
    };
    let events = async {
        for _ in 0..100 {
            assert!(matches!(client.next().await.unwrap(), Event::Message(_)));
        }
        published(&mut client).await
    };
    let both = async { tokio::join!(events, script) };
    let (event, ()) = timeout(PATIENCE, both).await.expect("both sides wait for each other");
    assert_eq!(event, (1, ReasonCode::Success));
}

#[tokio::test]
async fn a_packet_may_come_byte_by_byte() {
    let (mut client, mut server) = connected().await;
    let mut bytes = BytesMut::new();
    Packet::Publish(message(QoS::AtLeastOnce, Some(3))).encode(V5, &mut bytes).unwrap();
    let script = async {
        for byte in bytes {
            server.io.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (event, ()) = tokio::join!(client.next(), script);
    assert!(matches!(event.unwrap(), Event::Message(received) if received == message(QoS::AtLeastOnce, Some(3))));
}
