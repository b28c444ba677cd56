//! CONNECT and CONNACK: who is let in, in which version, under which client identifier, and what it is told.

use std::time::Duration;

use testkit::{
    ConnectExt, Packet, ProtocolVersion, QoS, ReasonCode, Transport, WillExt, connect, in_both_versions,
    over_every_transport, will,
};
use tokio::time::Instant;

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

over_every_transport!(connects_and_pings, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.ping().await;
    client.disconnect().await;
});

/// CONNECT with client identifier `c`, no properties, clean start.
fn connect_bytes(name: &[u8], level: u8) -> Vec<u8> {
    let name_len = u8::try_from(name.len()).unwrap();
    let mut body = vec![0, name_len];
    body.extend_from_slice(name);
    body.extend_from_slice(&[level, 0b10, 0, 0, 0, 1, b'c']);
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

#[tokio::test]
async fn accepts_mqtt_3_1() {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(ProtocolVersion::V3_1, "c").await;
    client.subscribe("t", 1).await;
    client.ping().await;
}

#[tokio::test]
async fn refuses_protocol_levels_that_do_not_exist() {
    let broker = TestBroker::start().await;
    // [MQTT3-3.1.2-2]: return code 1; [MQTT-3.1.2-2]: reason code 0x84.
    for (name, level, answer) in [
        (&b"MQTT"[..], 3, &[0x20, 2, 0, 1][..]),
        (&b"MQTT"[..], 6, &[0x20, 3, 0, 0x84, 0][..]),
        (&b"MQIsdp"[..], 4, &[0x20, 2, 0, 1][..]),
        (&b"AMQP"[..], 0, &[0x20, 2, 0, 1][..]),
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
        stream.write_all(&connect_bytes(name, level)).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, answer, "{} level {level}", name.escape_ascii());
    }
}

#[tokio::test]
async fn closes_without_a_word_when_the_first_packet_is_not_connect() {
    let broker = TestBroker::start().await;
    // [MQTT-3.1.0-1]
    for packet in [&[0xc0, 0][..], &[0xe0, 0], &[0x30, 3, 0, 1, b't'], &[0xff, 0xff, 0xff, 0xff, 0xff]] {
        let mut client = broker.raw().await;
        client.send_raw(packet).await;
        client.expect_closed().await;
    }
}

in_both_versions!(a_second_connect_is_a_protocol_error, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(connect("c").version(version)).await;
    // [MQTT-3.1.0-2]
    client.expect_disconnect(ReasonCode::ProtocolError).await;
});

#[tokio::test]
async fn an_mqtt_5_client_without_an_identifier_is_given_one() {
    let broker = TestBroker::start().await;
    let mut ids = Vec::new();
    for packet in [connect(""), connect("").resume()] {
        let mut client = broker.raw().await;
        let ack = client.connect(packet).await;
        assert!(!ack.session_present);
        // [MQTT-3.1.3-7]
        ids.push((ack.properties.assigned_client_id.expect("an assigned client identifier"), client));
    }
    assert_ne!(ids[0].0, ids[1].0);
    for (_, client) in &mut ids {
        client.ping().await;
    }
    // The identifier can be used to come back.
    let id = ids[0].0.to_string();
    let _second = broker.client(&id).await;
    ids[0].1.expect_disconnect(ReasonCode::SessionTakenOver).await;
}

#[tokio::test]
async fn an_mqtt_3_client_may_leave_its_identifier_out_only_with_a_clean_session() {
    let broker = TestBroker::start().await;
    let mut first = broker.connect(connect("").v311()).await;
    let mut second = broker.connect(connect("").v311()).await;
    first.ping().await;
    second.ping().await;
    // [MQTT3-3.1.3-8]
    let mut third = broker.raw().await;
    third.expect_refusal(connect("").v311().resume(), ReasonCode::ClientIdentifierNotValid).await;
}

in_both_versions!(an_identifier_over_the_limit_is_refused, |version| async move {
    let broker = Setup::new().mqtt("max_clientid_len = 30").start().await;
    broker.client_of(version, &"i".repeat(30)).await.ping().await;
    let longer = connect(&"i".repeat(31)).version(version);
    broker.raw().await.expect_refusal(longer, ReasonCode::ClientIdentifierNotValid).await;
});

in_both_versions!(anonymous_clients_are_refused_unless_allowed, |version| async move {
    let broker = Setup::new().auth("allow_anonymous = false").start().await;
    let anonymous = connect("c").version(version);
    broker.raw().await.expect_refusal(anonymous, ReasonCode::NotAuthorized).await;
    // Where nothing can judge a password, it opens no door.
    let claimed = connect("c").version(version).credentials("ada", "guess");
    broker.raw().await.expect_refusal(claimed, ReasonCode::BadUserNameOrPassword).await;
});

in_both_versions!(passwords_are_checked_against_the_file, |version| async move {
    let setup = Setup::new().auth("allow_anonymous = true\npassword_file = \"users\"");
    write_private(&setup.dir().join("users"), &format!("ada:{OPEN_SESAME}\n"));
    let broker = setup.start().await;
    let with = |name, password| connect("c").version(version).credentials(name, password);
    broker.connect(with("ada", "opensesame")).await.ping().await;
    // A wrong password is refused even where anonymous clients are welcome.
    for (name, password) in [("ada", "opensesamE"), ("ada", ""), ("bob", "opensesame"), ("", "opensesame")] {
        broker.raw().await.expect_refusal(with(name, password), ReasonCode::BadUserNameOrPassword).await;
    }
    let mut half = with("ada", "");
    half.password = None;
    broker.raw().await.expect_refusal(half, ReasonCode::BadUserNameOrPassword).await;
    broker.client_of(version, "c").await.ping().await;
});

/// Of "opensesame", by `openssl kdf -kdfopt digest:SM3 PBKDF2`.
const OPEN_SESAME: &str = "$pbkdf2-sm3$i=1000$c2FsdHNhbHRzYWx0c2FsdA$NUI/D5mnt6CBVsTiNfWTnVjgr5y+67m7l6Wiey4Cwck";

fn write_private(path: &std::path::Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A verified certificate opens the door that is closed to anonymous clients, whichever protocol carried it.
mod a_verified_certificate_is_enough {
    use super::*;

    async fn check(transport: Transport) {
        let broker = Setup::new().every_transport().auth("allow_anonymous = false").start().await;
        let mut anonymous = broker.open(transport).await;
        anonymous.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
        let mut known = broker.open_with_identity(transport).await;
        known.connect(connect("c")).await;
        known.ping().await;
    }

    testkit::test_with!(tls12, Transport::Tls12, check);
    testkit::test_with!(tls13, Transport::Tls13, check);
    testkit::test_with!(rfc8998, Transport::Rfc8998, check);
    testkit::test_with!(tlcp, Transport::Tlcp, check);
    testkit::test_with!(wss_tls13, Transport::WssTls13, check);
    testkit::test_with!(wss_tlcp, Transport::WssTlcp, check);
}

#[tokio::test]
async fn unknown_authentication_methods_are_refused() {
    let broker = TestBroker::start().await;
    let mut packet = connect("c");
    packet.properties.authentication_method = Some("SCRAM-SHA-1".into());
    // [MQTT-4.12.0-1]
    broker.raw().await.expect_refusal(packet, ReasonCode::BadAuthenticationMethod).await;
}

#[tokio::test]
async fn connack_tells_the_limits() {
    let broker = Setup::new()
        .mqtt("max_packet_size = \"64KB\"")
        .mqtt("max_awaiting_rel = 7")
        .mqtt("max_topic_alias = 5")
        .mqtt("max_qos_allowed = 1")
        .mqtt("retain_available = false")
        .mqtt("wildcard_subscription = false")
        .mqtt("shared_subscription = false")
        .mqtt("server_keepalive = \"77s\"")
        .mqtt("session_expiry_interval = \"1h\"")
        .mqtt("max_session_expiry_interval = \"1h\"")
        .start()
        .await;
    let mut client = broker.raw().await;
    let told = client.connect(connect("c").expiry(7200)).await.properties;
    assert_eq!(told.maximum_packet_size.map(u32::from), Some(64 * 1024));
    assert_eq!(told.receive_maximum.map(u16::from), Some(7));
    assert_eq!(told.topic_alias_maximum, Some(5));
    assert_eq!(told.maximum_qos, Some(QoS::AtLeastOnce));
    assert_eq!(told.retain_available, Some(false));
    assert_eq!(told.wildcard_subscription_available, Some(false));
    assert_eq!(told.shared_subscription_available, Some(false));
    // [MQTT-3.1.2-21]
    assert_eq!(told.server_keep_alive_secs, Some(77));
    assert_eq!(told.session_expiry_interval, Some(3600));
    assert_eq!(told.assigned_client_id, None);
}

in_both_versions!(a_will_that_could_not_be_published_is_refused, |version| async move {
    let broker = Setup::new().mqtt("max_qos_allowed = 1").mqtt("retain_available = false").start().await;
    let with = |will| connect("c").version(version).will(will);
    // [MQTT-3.2.2-12]
    broker.raw().await.expect_refusal(with(will("t", "w").level(2)), ReasonCode::QoSNotSupported).await;
    // [MQTT-3.2.2-13]
    broker.raw().await.expect_refusal(with(will("t", "w").retained()), ReasonCode::RetainNotSupported).await;
    broker.raw().await.expect_refusal(with(will("$SYS/broker", "w")), ReasonCode::NotAuthorized).await;
    broker.connect(with(will("t", "w").level(1))).await.ping().await;
});

in_both_versions!(no_more_sessions_than_configured, |version| async move {
    let broker = Setup::new().mqtt("max_sessions = 1").start().await;
    let first = broker.client_of(version, "a").await;
    let next = || connect("b").version(version);
    broker.raw().await.expect_refusal(next(), ReasonCode::QuotaExceeded).await;
    first.disconnect().await;
    broker.connect(next()).await.ping().await;
});

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_connect_in_time_is_closed() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("idle_timeout = \"5s\""));
    let started = Instant::now();
    let mut silent = broker.open();
    silent.expect_closed().await;
    assert_eq!(started.elapsed().as_secs(), 5);

    // A byte now and then does not help: the deadline is for the whole packet.
    let started = Instant::now();
    let mut slow = broker.open();
    for byte in &connect_bytes(b"MQTT", 5)[..8] {
        if slow.try_send_raw(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    slow.expect_closed().await;
    assert!(started.elapsed() < Duration::from_secs(9));
}

in_both_versions!(a_packet_only_servers_send_is_a_protocol_error, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(Packet::PingResp).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
});

#[tokio::test]
async fn a_listener_takes_no_more_connections_than_configured() {
    let broker = Setup::new().listener("max_connections = 1").start().await;
    let mut first = broker.client("first").await;
    broker.raw().await.expect_closed().await;
    first.ping().await;
}
