//! What outlives a connection, how long, and what is sent again.

use std::time::Duration;

use testkit::{
    AckExt, Client, ConnectExt, Packet, ProtocolVersion, PublishExt, ReasonCode, connect, disconnect, in_both_versions,
    puback, pubcomp, publish, pubrec, pubrel,
};
use tokio::time::Instant;

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

in_both_versions!(a_session_is_there_again_unless_started_clean, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, present) = broker.persistent(version, "c").await;
    assert!(!present);
    client.subscribe("t", 1).await;
    client.disconnect().await;

    // [MQTT-3.1.2-5] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
    let (mut client, present) = broker.persistent(version, "c").await;
    assert!(present);
    client.publish(publish("t", 1, "still subscribed")).await;
    client.expect_message("t", "still subscribed").await;
    client.vanish().await;

    // [MQTT-3.1.2-4]
    let mut client = broker.raw().await;
    assert!(!client.connect(connect("c").version(version)).await.session_present);
    client.publish(publish("t", 1, "not subscribed")).await;
    client.expect_nothing().await;
    client.disconnect().await;

    // A session started clean by an MQTT 3 client ends with its connection, [MQTT3-3.1.2-6].
    let (_, present) = broker.persistent(version, "c").await;
    assert!(!present);
});

in_both_versions!(a_clean_session_leaves_nothing_behind, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 1).await;
    client.vanish().await;
    assert_eq!(broker.server.broker().session_count(), 0);
    assert_eq!(broker.server.broker().subscription_count(), 0);
});

in_both_versions!(messages_wait_for_a_client_that_is_away, |version| async move {
    let broker = Setup::new().mqtt("mqueue_store_qos0 = false").start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 2).await;
    client.disconnect().await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 0..50 {
        publisher.publish(publish("t", (n % 3) as u8, format!("{n}"))).await;
    }
    assert_eq!(broker.sample("shangmq_messages_dropped_total{reason=\"away\"}"), 17);
    let (mut client, _) = broker.persistent(version, "c").await;
    for n in (0..50).filter(|n| n % 3 != 0) {
        let got = client.expect_message("t", format!("{n}")).await;
        assert_eq!(u8::from(got.qos), (n % 3) as u8);
        assert!(!got.dup);
    }
    client.expect_nothing().await;
});

#[tokio::test]
async fn qos_0_waits_as_well_where_configured() {
    let broker = Setup::new().mqtt("mqueue_store_qos0 = true").start().await;
    let (mut client, _) = broker.persistent(ProtocolVersion::V5, "c").await;
    client.subscribe("t", 2).await;
    client.disconnect().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 0, "zero")).await;
    publisher.ping().await;
    broker.persistent(ProtocolVersion::V5, "c").await.0.expect_message("t", "zero").await;
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest_messages() {
    let broker = Setup::new().mqtt("max_mqueue_len = 3").start().await;
    let (mut client, _) = broker.persistent(ProtocolVersion::V5, "c").await;
    client.subscribe("t", 1).await;
    client.disconnect().await;
    let mut publisher = broker.client("p").await;
    for n in 0..5 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    let (mut client, _) = broker.persistent(ProtocolVersion::V5, "c").await;
    for n in 2..5 {
        client.expect_message("t", format!("{n}")).await;
    }
    client.expect_nothing().await;
}

in_both_versions!(unacknowledged_messages_come_again_in_order_and_marked, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 1..=6 {
        publisher.publish(publish("t", 1 + n % 2, format!("{n}"))).await;
    }
    // 1, 3, 5 have QoS 2; 2, 4, 6 have QoS 1.
    for n in 1..=6 {
        client.expect(publish("t", 1 + n % 2, format!("{n}")).id(n.into())).await;
    }
    // 2 is done, 3 got as far as PUBREC, 5 is done.
    client.send(puback(2)).await;
    client.send(pubrec(3)).await;
    client.expect(pubrel(3)).await;
    client.send(pubrec(5)).await;
    client.expect(pubrel(5)).await;
    client.send(pubcomp(5)).await;
    client.ping().await;
    client.vanish().await;

    publisher.publish(publish("t", 1, "7")).await;
    let (mut client, present) = broker.persistent(version, "c").await;
    assert!(present);
    // [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1]
    client.expect(publish("t", 2, "1").id(1).dup()).await;
    client.expect(pubrel(3)).await;
    client.expect(publish("t", 1, "4").id(4).dup()).await;
    client.expect(publish("t", 1, "6").id(6).dup()).await;
    client.expect(publish("t", 1, "7").id(7)).await;
    client.send(pubrec(1)).await;
    client.expect(pubrel(1)).await;
    client.send(pubcomp(1)).await;
    client.send(pubcomp(3)).await;
    for id in [4, 6, 7] {
        client.send(puback(id)).await;
    }
    client.ping().await;
    client.vanish().await;
    broker.persistent(version, "c").await.0.expect_nothing().await;
});

in_both_versions!(nothing_is_sent_again_within_a_connection, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "m")).await;
    client.expect(publish("t", 1, "m")).await;
    // [MQTT-4.4.0-1]
    client.expect_nothing().await;
});

in_both_versions!(packet_identifiers_are_used_again_once_free, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    // The publisher reuses one identifier for every message and kind of packet. [MQTT-2.2.1-3]
    for n in 0..20 {
        publisher.publish(publish("t", 1 + n % 2, format!("{n}")).id(9)).await;
        client.expect_message("t", format!("{n}")).await;
    }
    publisher.subscribe("x", 0).await;
    // An unacknowledged message keeps its identifier while others pass by it.
    publisher.publish(publish("t", 1, "held")).await;
    let held = client.recv_publish().await;
    let mut seen = std::collections::HashSet::new();
    for n in 0..100 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
        let got = client.expect_message("t", format!("{n}")).await;
        assert_ne!(got.packet_id, held.packet_id);
        seen.insert(got.packet_id);
    }
    assert!(!seen.contains(&None));
});

in_both_versions!(a_repeated_qos_2_publish_is_delivered_once, |version| async move {
    let broker = TestBroker::start().await;
    let mut subscriber = broker.client_of(version, "s").await;
    subscriber.subscribe("t", 2).await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.send(publish("t", 2, "once").id(5)).await;
    client.expect(pubrec(5)).await;
    // [MQTT-4.3.3-10]
    client.send(publish("t", 2, "once").id(5).dup()).await;
    client.expect(pubrec(5)).await;
    client.vanish().await;

    // The session remembers over connections.
    let (mut client, present) = broker.persistent(version, "c").await;
    assert!(present);
    client.send(publish("t", 2, "once").id(5).dup()).await;
    client.expect(pubrec(5)).await;
    client.send(pubrel(5)).await;
    client.expect(pubcomp(5)).await;
    // A PUBREL sent again is answered again. MQTT 5 may say that the identifier is unknown.
    client.send(pubrel(5)).await;
    let unknown = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
    client.expect(pubcomp(5).reason(unknown)).await;
    subscriber.expect_message("t", "once").await;
    subscriber.expect_nothing().await;

    // Released, the identifier stands for a new message, [MQTT-4.3.3-12].
    client.publish(publish("t", 2, "twice").id(5)).await;
    subscriber.expect_message("t", "twice").await;
    subscriber.expect_nothing().await;
});

in_both_versions!(a_pubrec_sent_again_gets_its_pubrel_again, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 2).await;
    broker.client_of(version, "p").await.publish(publish("t", 2, "m")).await;
    client.expect(publish("t", 2, "m")).await;
    for _ in 0..2 {
        client.send(pubrec(1)).await;
        client.expect(pubrel(1)).await;
    }
    client.send(pubcomp(1)).await;
    // Acknowledgements of what is not known change nothing.
    client.send(pubcomp(1)).await;
    client.send(puback(77)).await;
    client.ping().await;
});

in_both_versions!(a_second_connection_takes_the_session_over, |version| async move {
    let broker = TestBroker::start().await;
    let (mut first, _) = broker.persistent(version, "c").await;
    first.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("t", 1, "unacknowledged")).await;
    first.expect(publish("t", 1, "unacknowledged")).await;

    // [MQTT-3.1.4-3]
    let (mut second, present) = broker.persistent(version, "c").await;
    assert!(present);
    first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    second.expect(publish("t", 1, "unacknowledged").dup()).await;
    second.send(puback(1)).await;
    publisher.publish(publish("t", 1, "next")).await;
    second.expect_message("t", "next").await;
    second.expect_nothing().await;
});

in_both_versions!(many_connections_fight_for_one_identifier_and_the_last_one_wins, |version| async move {
    let broker = TestBroker::start().await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..20 {
        clients.push(broker.client_of(version, "c").await);
    }
    let mut last = clients.pop().unwrap();
    last.ping().await;
    for client in &mut clients {
        client.expect_disconnect(ReasonCode::SessionTakenOver).await;
    }
    assert_eq!(broker.server.broker().session_count(), 1);
});

in_both_versions!(an_unsubscribed_session_gets_what_was_queued_before, |version| async move {
    let broker = TestBroker::start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.subscribe("t", 1).await;
    client.disconnect().await;
    broker.client_of(version, "p").await.publish(publish("t", 1, "queued")).await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.expect_message("t", "queued").await;
    client.unsubscribe("t").await;
    client.publish(publish("t", 1, "late")).await;
    client.expect_nothing().await;
});

/// Whether the session of `c` is there.
async fn present(broker: &SimulatedBroker, version: ProtocolVersion) -> bool {
    let mut client = broker.open();
    let packet = connect("c").version(version).persistent();
    let present = client.connect(packet).await.session_present;
    client.disconnect().await;
    present
}

#[tokio::test(start_paused = true)]
async fn a_session_expires() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut client = broker.connect(connect("c").expiry(60)).await;
    client.subscribe("t", 1).await;
    client.vanish().await;
    // [MQTT-3.1.2-23]
    tokio::time::sleep(Duration::from_secs(59)).await;
    let mut client = broker.open();
    assert!(client.connect(connect("c").resume().expiry(60)).await.session_present);
    // While it is connected it does not expire.
    tokio::time::sleep(Duration::from_secs(600)).await;
    client.ping().await;
    client.vanish().await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(broker.broker().session_count(), 0);
    assert_eq!(broker.broker().subscription_count(), 0);
    assert!(!present(&broker, ProtocolVersion::V5).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_mqtt_3_lasts_as_long_as_configured() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("session_expiry_interval = \"1h\""));
    assert!(!present(&broker, ProtocolVersion::V3_1_1).await);
    tokio::time::sleep(Duration::from_secs(3599)).await;
    assert!(present(&broker, ProtocolVersion::V3_1_1).await);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert!(!present(&broker, ProtocolVersion::V3_1_1).await);
}

#[tokio::test(start_paused = true)]
async fn no_session_lasts_longer_than_configured() {
    let setup = Setup::new().mqtt("session_expiry_interval = \"1m\"").mqtt("max_session_expiry_interval = \"1m\"");
    let broker = SimulatedBroker::start(setup);
    let mut client = broker.open();
    let ack = client.connect(connect("c").expiry(u32::MAX)).await;
    assert_eq!(ack.properties.session_expiry_interval, Some(60));
    client.vanish().await;
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(broker.broker().session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn disconnect_changes_the_expiry() {
    let broker = SimulatedBroker::start(Setup::new());
    let goodbye = |secs| {
        let mut packet = disconnect(ReasonCode::Success);
        packet.properties.session_expiry_interval = Some(secs);
        packet
    };
    broker.connect(connect("c").expiry(60)).await.disconnect_with(goodbye(0)).await;
    assert_eq!(broker.broker().session_count(), 0);
    broker.connect(connect("c").expiry(60)).await.disconnect_with(goodbye(600)).await;
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(broker.broker().session_count(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(broker.broker().session_count(), 0);

    // [MQTT-3.14.2-2]: what began without an expiry cannot be given one.
    let mut client = broker.connect(connect("c")).await;
    client.send(Packet::from(goodbye(60))).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn a_queued_message_expires_and_its_age_is_told() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut client = broker.connect(connect("c").expiry(600)).await;
    client.subscribe("t", 1).await;
    client.disconnect().await;
    let mut publisher = broker.connect(connect("p")).await;
    publisher.publish(publish("t", 1, "short").expiry(10)).await;
    publisher.publish(publish("t", 1, "long").expiry(100)).await;
    publisher.publish(publish("t", 1, "for ever")).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let mut client = broker.connect(connect("c").resume().expiry(600)).await;
    // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    client.expect(publish("t", 1, "long").id(1).expiry(60)).await;
    client.expect(publish("t", 1, "for ever").id(2)).await;
    client.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut client = broker.connect(connect("c").version(version).keep_alive(10)).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(14)).await;
            client.ping().await;
        }
        let heard = Instant::now();
        // [MQTT-3.1.2-22]
        client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
        assert_eq!(heard.elapsed().as_secs(), 15);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_sends_does_not_keep_a_client_alive() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut client = broker.connect(connect("c").keep_alive(10)).await;
    client.subscribe("t", 0).await;
    let started = Instant::now();
    let mut publisher = broker.connect(connect("p")).await;
    for n in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        publisher.publish(publish("t", 0, format!("{n}"))).await;
        client.expect_message("t", format!("{n}")).await;
    }
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    assert_eq!(started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_zero_lets_a_client_be_silent() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut client = broker.connect(connect("c").keep_alive(0)).await;
    tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn the_brokers_keep_alive_goes_before_the_clients() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("server_keepalive = \"20s\""));
    let mut client = broker.open();
    let ack = client.connect(connect("c").keep_alive(0)).await;
    assert_eq!(ack.properties.server_keep_alive_secs, Some(20));
    let started = Instant::now();
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    assert_eq!(started.elapsed().as_secs(), 30);
}
