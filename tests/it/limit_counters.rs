//! Each limit of docs/limits.md that a client can reach is counted under its key when it is reached, and not before.

use std::time::Duration;

use shangmq::broker::{Ban, Subject};
use shangmq::metrics::LIMITS;
use testkit::{ConnectExt, Packet, PublishExt, ReasonCode, Transport, connect, publish, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker};
use crate::hostile::until;
use crate::simulated::SimulatedBroker;

/// Only this limit has been reached, so many times.
async fn expect_only(broker: &TestBroker, limit: &'static str, times: u64) {
    let metrics = broker.server.metrics();
    until(&format!("{limit} is counted"), || metrics.limit_hits(limit) == times).await;
    let others: Vec<&str> =
        LIMITS.into_iter().filter(|other| *other != limit && metrics.limit_hits(other) > 0).collect();
    assert_eq!(others, [""; 0], "reached beside {limit}");
}

#[tokio::test]
async fn nothing_is_counted_where_nothing_is_reached() {
    let broker = Setup::new().start().await;
    let mut client = broker.connect(connect("c").persistent()).await;
    client.subscribe("t", 2).await;
    client.publish(publish("t", 2, "m").retained()).await;
    client.expect_message("t", "m").await;
    client.disconnect().await;
    assert!(LIMITS.into_iter().all(|limit| broker.server.metrics().limit_hits(limit) == 0));
}

#[tokio::test]
async fn a_packet_that_is_too_large() {
    let broker = Setup::new().mqtt("max_packet_size = \"1KB\"").start().await;
    let mut before = broker.raw().await;
    before.send_raw(&[0x10, 0xff, 0xff, 0x03]).await;
    before.expect_closed().await;
    let mut after = broker.client("c").await;
    after.send_raw(&[0x30, 0xff, 0xff, 0x03]).await;
    after.expect_disconnect(ReasonCode::PacketTooLarge).await;
    expect_only(&broker, "mqtt.max_packet_size", 2).await;
}

#[tokio::test]
async fn a_client_id_that_is_too_long() {
    let broker = Setup::new().mqtt("max_clientid_len = 30").start().await;
    broker.client(&"c".repeat(30)).await.disconnect().await;
    broker.raw().await.expect_refusal(connect(&"c".repeat(31)), ReasonCode::ClientIdentifierNotValid).await;
    expect_only(&broker, "mqtt.max_clientid_len", 1).await;
}

#[tokio::test]
async fn a_topic_or_filter_with_too_many_levels() {
    let broker = Setup::new().mqtt("max_topic_levels = 2").start().await;
    let mut client = broker.client("c").await;
    client.subscribe("a/b", 0).await;
    client.publish(publish("a/c/d", 1, "m")).await;
    client.subscribe_reasons(subscribe(1, &[("a/b/c", 0)])).await;
    expect_only(&broker, "mqtt.max_topic_levels", 2).await;
}

#[tokio::test]
async fn a_topic_alias_that_is_too_great() {
    let broker = Setup::new().mqtt("max_topic_alias = 1").start().await;
    let mut client = broker.client("c").await;
    client.send(publish("t", 0, "m").alias(1)).await;
    client.send(publish("t", 0, "m").alias(2)).await;
    client.expect_disconnect(ReasonCode::TopicAliasInvalid).await;
    expect_only(&broker, "mqtt.max_topic_alias", 1).await;
}

#[tokio::test]
async fn topics_behind_aliases_that_take_too_much() {
    let broker = Setup::new().mqtt("max_topic_alias_bytes = \"1KB\"").start().await;
    let mut client = broker.client("c").await;
    client.publish(publish(&"a".repeat(700), 1, "m").alias(1)).await;
    client.send(publish(&"b".repeat(700), 0, "m").alias(2)).await;
    client.expect_disconnect(ReasonCode::QuotaExceeded).await;
    expect_only(&broker, "mqtt.max_topic_alias_bytes", 1).await;
}

#[tokio::test]
async fn delayed_messages_that_find_no_place() {
    let delayed = "[delayed]\nenable = true\nmax_delayed_messages = 1\nmax_bytes = \"1MB\"";
    let broker = Setup::new().sections(delayed).start().await;
    let mut client = broker.client("c").await;
    client.publish(publish("$delayed/60/t", 1, "m")).await;
    assert_eq!(client.publish(publish("$delayed/60/t", 1, "m")).await, ReasonCode::QuotaExceeded);
    expect_only(&broker, "delayed.max_delayed_messages", 1).await;
}

#[tokio::test]
async fn bans_that_find_no_place() {
    let broker = Setup::new().sections("[banned]\nmax_entries = 1").start().await;
    let core = broker.server.broker();
    let ban = || Ban { until: None, reason: "test".to_owned() };
    core.ban(Subject::ClientId("a".into()), ban()).unwrap();
    core.ban(Subject::ClientId("b".into()), ban()).unwrap_err();
    expect_only(&broker, "banned.max_entries", 1).await;
}

#[tokio::test]
async fn a_quality_of_service_that_is_too_high() {
    let broker = Setup::new().mqtt("max_qos_allowed = 1").start().await;
    let mut client = broker.client("c").await;
    client.subscribe("t", 1).await;
    client.subscribe_reasons(subscribe(1, &[("t", 2)])).await;
    client.send(publish("t", 2, "m")).await;
    client.expect_disconnect(ReasonCode::QoSNotSupported).await;
    expect_only(&broker, "mqtt.max_qos_allowed", 2).await;
}

#[tokio::test]
async fn too_many_messages_that_are_not_released() {
    let broker = Setup::new().mqtt("max_awaiting_rel = 1").start().await;
    let mut client = broker.client("c").await;
    for id in [1, 2] {
        client.send(publish("t", 2, "m").id(id)).await;
    }
    assert!(matches!(client.recv().await, Packet::PubRec(_)));
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
    expect_only(&broker, "mqtt.max_awaiting_rel", 1).await;
}

#[tokio::test]
async fn too_many_sessions() {
    let broker = Setup::new().mqtt("max_sessions = 1").start().await;
    let _first = broker.client("first").await;
    broker.raw().await.expect_refusal(connect("second"), ReasonCode::QuotaExceeded).await;
    expect_only(&broker, "mqtt.max_sessions", 1).await;
}

#[tokio::test]
async fn too_many_subscriptions() {
    let broker = Setup::new().mqtt("max_subscriptions = 1").start().await;
    let mut client = broker.client("c").await;
    let reasons = client.subscribe_reasons(subscribe(1, &[("a", 0), ("b", 0)])).await;
    assert_eq!(reasons, [ReasonCode::Success, ReasonCode::QuotaExceeded]);
    expect_only(&broker, "mqtt.max_subscriptions", 1).await;
}

#[tokio::test]
async fn a_session_that_would_live_too_long() {
    let broker = Setup::new()
        .mqtt("max_session_expiry_interval = \"10s\"")
        .mqtt("session_expiry_interval = \"5s\"")
        .start()
        .await;
    broker.connect(connect("c").persistent()).await;
    expect_only(&broker, "mqtt.max_session_expiry_interval", 1).await;
}

#[tokio::test]
async fn retained_messages_that_find_no_place() {
    for (line, limit) in [
        ("max_retained_messages = 1", "retainer.max_retained_messages"),
        ("max_payload_size = \"5B\"", "retainer.max_payload_size"),
        ("max_bytes = \"1KB\"", "retainer.max_bytes"),
    ] {
        let broker = Setup::new().retainer(line).start().await;
        let mut client = broker.client("c").await;
        client.publish(publish("a", 1, "small").retained()).await;
        client.publish(publish("b", 1, vec![7; 1024]).retained()).await;
        expect_only(&broker, limit, 1).await;
    }
}

#[tokio::test]
async fn a_websocket_frame_that_is_too_large() {
    let broker = Setup::new().listeners(&["ws"]).listener("websocket.max_frame_size = \"128B\"").start().await;
    let mut stream = TcpStream::connect(broker.address(Transport::Ws)).await.unwrap();
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    // A frame that announces 129 bytes, none of which come.
    let announced = [0x82, 0xfe, 0, 129, 0, 0, 0, 0];
    stream.write_all(&[upgrade.as_bytes(), &announced].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A close frame with status 1009.
    assert!(answer.windows(2).any(|status| status == 1009u16.to_be_bytes()), "{answer:x?}");
    expect_only(&broker, "websocket.max_frame_size", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_beyond_its_keep_alive() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut client = broker.connect(connect("c").keep_alive(10)).await;
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(broker.broker().metrics().limit_hits("mqtt.keepalive_multiplier"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_bytes() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("write_timeout = \"5s\""));
    let mut deaf = broker.connect(connect("deaf")).await;
    deaf.subscribe("t", 0).await;
    let mut publisher = broker.connect(connect("publisher")).await;
    for _ in 0..20 {
        publisher.publish(publish("t", 1, vec![7; 16 * 1024])).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(broker.broker().metrics().limit_hits("mqtt.write_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_sends_connect() {
    let broker = SimulatedBroker::start(Setup::new());
    broker.open().expect_closed().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(broker.broker().metrics().limit_hits("connect_timeout"), 1);
}
