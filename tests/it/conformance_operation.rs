//! Requirements of chapters 4 and 6: sessions, the exchanges of QoS 1 and 2, order, topics, shared subscriptions, WebSocket.

use std::time::Duration;

use testkit::{
    AckExt, ConnectExt, Packet, PublishExt, QoS, ReasonCode, Transport, connect, in_both_versions,
    over_every_transport, puback, pubcomp, publish, pubrec, pubrel,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

#[tokio::test(start_paused = true)]
async fn a_session_lasts_as_long_as_its_connection_and_its_expiry() {
    let broker = SimulatedBroker::start(Setup::new());
    let client = || connect("c").resume().expiry(60);
    let mut connected = broker.connect(client()).await;
    // [MQTT-4.1.0-1]: however long that is.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    connected.subscribe("t", 1).await;
    connected.vanish().await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let mut again = broker.open();
    assert!(again.connect(client()).await.session_present);
    again.vanish().await;
    // [MQTT-4.1.0-2]
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((broker.broker().session_count(), broker.broker().subscription_count()), (0, 0));
    assert!(!broker.open().connect(client()).await.session_present);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_mqtt_3_lasts_at_least_as_long_as_its_connection() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("session_expiry_interval = \"60s\""));
    let mut client = broker.connect(connect("c").v311().persistent()).await;
    client.subscribe("t", 1).await;
    // [MQTT3-4.1.0-1] [MQTT3-4.1.0-2]
    tokio::time::sleep(Duration::from_secs(3600)).await;
    client.publish(publish("t", 1, "m")).await;
    client.expect_message("t", "m").await;
}

#[tokio::test(start_paused = true)]
async fn an_expiry_of_all_ones_is_cut_to_the_brokers_maximum_and_does_not_overflow() {
    let broker = SimulatedBroker::start(
        Setup::new().mqtt("max_session_expiry_interval = \"1d\"\nsession_expiry_interval = \"1h\""),
    );
    let mut client = broker.open();
    let ack = client.connect(connect("c").expiry(u32::MAX)).await;
    assert_eq!(ack.properties.session_expiry_interval, Some(86_400));
    client.vanish().await;
    tokio::time::sleep(Duration::from_secs(86_000)).await;
    assert_eq!(broker.broker().session_count(), 1);
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(broker.broker().session_count(), 0);
}

over_every_transport!(bytes_arrive_in_order_and_whole, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.subscribe("t", 0).await;
    // [MQTT-4.2.0-1] [MQTT3-7.1.1-1]
    for n in 0..50usize {
        client.send(publish("t", 0, vec![n as u8; n * 997])).await;
    }
    for n in 0..50usize {
        client.expect_message("t", vec![n as u8; n * 997]).await;
    }
});

in_both_versions!(qos_1_is_under_way_until_its_puback, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "1")).await;
    publisher.publish(publish("t", 1, "2")).await;
    client.expect(publish("t", 1, "1").id(1)).await;
    client.expect(publish("t", 1, "2").id(2)).await;
    client.send(puback(1)).await;
    // At no other time than after a reconnect. [MQTT-4.4.0-1]
    client.expect_nothing().await;
    client.vanish().await;
    // [MQTT-4.3.2-3] [MQTT3-4.3.2-1]
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect(publish("t", 1, "2").id(2).dup()).await;
    client.send(puback(2)).await;
    client.expect_nothing().await;
});

in_both_versions!(after_its_puback_an_identifier_means_a_new_message, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 1).await;
    // [MQTT-4.3.2-5] [MQTT3-4.3.2-2]: whatever DUP says.
    for payload in ["1", "2"] {
        client.send(publish("t", 1, payload).id(7).dup()).await;
        let mut answers = [client.recv().await, client.recv().await];
        answers.sort_by_key(|packet| !matches!(packet, Packet::PubAck(_)));
        assert_eq!(answers[0], puback(7).into());
        match &answers[1] {
            Packet::Publish(message) => {
                assert_eq!(message.payload, payload);
                client.acknowledge(message).await;
            }
            other => panic!("{other:?}"),
        }
    }
});

in_both_versions!(qos_2_goes_through_its_four_packets, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 2).await;
    broker.client_of(version, "p").await.publish(publish("t", 2, "m")).await;
    client.expect(publish("t", 2, "m").id(1)).await;
    client.vanish().await;
    // [MQTT-4.3.3-3] [MQTT3-4.3.3-1]
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect(publish("t", 2, "m").id(1).dup()).await;
    // [MQTT-4.3.3-4]
    client.send(pubrec(1)).await;
    client.expect(pubrel(1)).await;
    client.vanish().await;
    // [MQTT-4.3.3-5] [MQTT-4.3.3-6]: PUBREL again, and not the message.
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect(pubrel(1)).await;
    client.expect_nothing().await;
    client.send(pubcomp(1)).await;
    client.vanish().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect_nothing().await;
});

in_both_versions!(a_qos_2_message_is_taken_once, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("t", 0).await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.send(publish("t", 2, "1").id(7)).await;
    client.expect(pubrec(7)).await;
    // [MQTT-4.3.3-10] [MQTT3-4.3.3-2]: within the connection and across connections.
    client.send(publish("t", 2, "1").id(7).dup()).await;
    client.expect(pubrec(7)).await;
    client.vanish().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.send(publish("t", 2, "1").id(7).dup()).await;
    client.expect(pubrec(7)).await;
    // [MQTT-4.3.3-11]
    client.send(pubrel(7)).await;
    client.expect(pubcomp(7)).await;
    watcher.expect_message("t", "1").await;
    watcher.expect_nothing().await;
    // [MQTT-4.3.3-12]
    client.send(publish("t", 2, "2").id(7).dup()).await;
    client.expect(pubrec(7)).await;
    watcher.expect_message("t", "2").await;
});

#[tokio::test]
async fn after_a_failing_pubrec_an_identifier_means_a_new_message() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe("t", 0).await;
    let mut bad = publish("t", 2, vec![0xff]).id(7);
    bad.properties.payload_format = Some(mqtt_codec::PayloadFormat::Utf8);
    client.send(bad).await;
    match client.recv().await {
        Packet::PubRec(ack) => assert_eq!(ack.reason, ReasonCode::PayloadFormatInvalid),
        other => panic!("{other:?}"),
    }
    // [MQTT-4.3.3-9]
    client.send(publish("t", 2, "good").id(7)).await;
    let answers = [client.recv().await, client.recv().await];
    assert!(answers.contains(&pubrec(7).into()), "{answers:?}");
    assert!(answers.iter().any(|packet| matches!(packet, Packet::Publish(message) if message.payload == "good")));
}

#[tokio::test]
async fn a_failing_acknowledgement_ends_the_exchange() {
    let broker = TestBroker::start().await;
    let client = || connect("c").resume().expiry(600).receive_maximum(1);
    let mut connected = broker.connect(client()).await;
    connected.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    for (level, payload) in [(1, "1"), (2, "2"), (1, "3")] {
        publisher.publish(publish("t", level, payload)).await;
    }
    // [MQTT-4.4.0-2] [MQTT-4.3.3-4]: each frees the window of one, and a failing PUBREC gets no PUBREL.
    connected.expect(publish("t", 1, "1").id(1)).await;
    connected.send(puback(1).reason(ReasonCode::QuotaExceeded)).await;
    connected.expect(publish("t", 2, "2").id(2)).await;
    connected.send(pubrec(2).reason(ReasonCode::QuotaExceeded)).await;
    connected.expect(publish("t", 1, "3").id(3)).await;
    connected.vanish().await;
    let mut connected = broker.connect(client()).await;
    connected.expect(publish("t", 1, "3").id(3).dup()).await;
    connected.send(puback(3)).await;
    connected.expect_nothing().await;
}

in_both_versions!(every_session_with_a_matching_subscription_gets_the_message, |version| async move {
    let broker = TestBroker::start().await;
    let filters = ["a/b", "a/+", "#", "+/b"];
    for (n, filter) in filters.iter().enumerate() {
        let (mut client, _) = broker.persistent(version, &format!("c{n}")).await;
        client.subscribe(filter, 1).await;
        if n % 2 == 0 {
            client.vanish().await;
        } else {
            client.disconnect().await;
        }
    }
    broker.client_of(version, "p").await.publish(publish("a/b", 1, "m")).await;
    for n in 0..filters.len() {
        // [MQTT-4.5.0-1] [MQTT3-4.5.0-1]
        let (mut client, _) = broker.persistent(version, &format!("c{n}")).await;
        client.expect_message("a/b", "m").await;
        client.expect_nothing().await;
    }
});

in_both_versions!(messages_and_answers_keep_their_order, |version| async move {
    let broker = Setup::new().mqtt("max_inflight = 20").start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t/+", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    // Answers come in the order of what they answer. [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]
    for id in 1..=10 {
        publisher.send(publish(&format!("t/{}", id % 2), 1 + (id % 2) as u8, format!("{id}")).id(id)).await;
    }
    for id in 1..=10 {
        let expected: Packet = if id % 2 == 0 { puback(id).into() } else { pubrec(id).into() };
        publisher.expect(expected).await;
    }
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6]
    for id in 1..=10 {
        assert_eq!(client.recv_publish().await.payload, format!("{id}"));
    }
    // PUBREL in the order of PUBREC, which is not that of the messages. [MQTT3-4.6.0-4]
    for id in [5, 1, 9, 3] {
        client.send(pubrec(id)).await;
    }
    for id in [5, 1, 9, 3] {
        client.expect(pubrel(id)).await;
    }
    client.vanish().await;
    // Sent again in the order of the first sending. [MQTT3-4.6.0-1] [MQTT-4.4.0-1]
    let (mut client, _) = broker.persistent(version, "c").await;
    for id in 1..=10u16 {
        match (client.recv().await, [1, 3, 5, 9].contains(&id)) {
            (Packet::PubRel(again), true) => assert_eq!(again.packet_id.get(), id),
            (Packet::Publish(again), false) => {
                assert_eq!((again.packet_id.unwrap().get(), again.dup), (id, true));
            }
            (other, _) => panic!("{other:?} instead of {id}"),
        }
    }
});

in_both_versions!(wildcards_reach_no_topic_that_begins_with_a_dollar, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    for filter in ["#", "+", "+/x", "+/+"] {
        client.subscribe(filter, 0).await;
    }
    // [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
    client.publish(publish("$own/x", 1, "m")).await;
    client.publish(publish("$own", 1, "m")).await;
    client.expect_nothing().await;
    client.subscribe("$own/#", 0).await;
    client.publish(publish("$own/x", 1, "m")).await;
    client.expect_message("$own/x", "m").await;
});

in_both_versions!(topics_of_the_greatest_length_pass, |version| async move {
    let broker = Setup::new().mqtt("max_topic_levels = 65535").start().await;
    let mut client = broker.client_of(version, "c").await;
    // [MQTT-4.7.3-3] [MQTT3-4.7.3-3]
    for topic in ["x".repeat(65_535), "/".repeat(65_534)] {
        client.subscribe(&topic, 1).await;
        client.publish(publish(&topic, 1, "m")).await;
        client.expect_message(&topic, "m").await;
        client.unsubscribe(&topic).await;
    }
});

#[tokio::test]
async fn members_of_a_shared_subscription_have_their_own_qos() {
    let broker = TestBroker::start().await;
    let mut members = Vec::new();
    for level in 0..3u8 {
        let mut member = broker.client(&format!("m{level}")).await;
        member.subscribe("$share/g/t", level).await;
        members.push(member);
    }
    let mut publisher = broker.client("p").await;
    for _ in 0..3 {
        publisher.publish(publish("t", 2, "m")).await;
    }
    // [MQTT-4.8.2-3]
    for (member, qos) in members.iter_mut().zip([QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]) {
        assert_eq!(member.expect_message("t", "m").await.qos, qos);
    }
}

in_both_versions!(a_violation_ends_the_connection, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    // A packet that only servers send. [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT3-4.8.0-1]
    client.send_raw(&[0xd0, 0]).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
});

in_both_versions!(a_passing_error_ends_the_connection, |version| async move {
    let broker = Setup::new().mqtt("max_sessions = 1").start().await;
    let _first = broker.client_of(version, "first").await;
    // [MQTT3-4.8.0-2]: there is no room for the session, and no other way to say so.
    broker.raw().await.expect_refusal(connect("second").version(version), ReasonCode::QuotaExceeded).await;
});

/// The answer to an upgrade request, and what follows it.
async fn upgrade(broker: &TestBroker, subprotocol: Option<&str>) -> (String, tokio::net::TcpStream) {
    let mut socket = tokio::net::TcpStream::connect(broker.address(Transport::Ws)).await.unwrap();
    let offer = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), socket)
}

/// A masked frame of fewer than 126 bytes, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    out.extend_from_slice(payload);
    out
}

#[tokio::test]
async fn websocket_clients_speak_mqtt_in_binary_frames() {
    let broker = Setup::new().every_transport().start().await;
    // [MQTT-6.0.0-3] [MQTT-6.0.0-4] [MQTT3-6.0.0-3] [MQTT3-6.0.0-4]
    let (answer, mut socket) = upgrade(&broker, Some("other, mqtt")).await;
    assert!(answer.starts_with("http/1.1 101") && answer.contains("sec-websocket-protocol: mqtt\r\n"), "{answer}");
    let (refused, _) = upgrade(&broker, None).await;
    assert!(!refused.starts_with("http/1.1 101"), "{refused}");
    // A CONNECT over two frames, the second with a PINGREQ behind it. [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
    let connect = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01c";
    let second = [&connect[5..], &[0xc0, 0][..]].concat();
    socket.write_all(&[frame(2, &connect[..5]), frame(2, &second)].concat()).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(&[0xd0, 0]) {
        received.push(socket.read_u8().await.unwrap());
    }
    // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]: an unmasked binary frame first; a text frame ends it all.
    assert_eq!(received[0], 0x82);
    socket.write_all(&frame(1, &[0xc0, 0])).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await;
    // However the end is told, no PINGRESP comes.
    assert!(ended.is_ok() && !rest.windows(2).any(|bytes| bytes == [0xd0, 0]), "{rest:02x?}");
}
