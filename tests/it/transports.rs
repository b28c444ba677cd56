//! Every transport carries the same: large messages both ways, messages from any to any other, broken connections, the goodbye.

use bytes::BytesMut;
use mqtt_codec::Encode;
use testkit::{
    Client, ConnectExt, Packet, ProtocolVersion, QoS, ReasonCode, Transport, connect, in_both_versions,
    over_every_transport, publish, qos,
};

use crate::broker::Setup;

/// Bytes that do not repeat with any block length of the layers below.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

over_every_transport!(carries_a_mebibyte_both_ways, |transport| async move {
    let broker = Setup::new().every_transport().mqtt("max_packet_size = \"2MB\"").start().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.subscribe("big", 2).await;
    let payload = noise(1 << 20);
    for level in 0..3 {
        // Read and written at the same time by both sides: neither may wait for the other to finish.
        client.publish(publish("big", level, payload.clone())).await;
        assert_eq!(client.expect_message("big", &payload).await.qos, qos(level));
    }
    client.disconnect().await;
});

over_every_transport!(takes_packets_in_pieces_and_in_heaps, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.subscribe("t", 0).await;
    let mut packets = BytesMut::new();
    for n in 0..20 {
        Packet::from(publish("t", 0, format!("{n}"))).encode(ProtocolVersion::V5, &mut packets).unwrap();
    }
    client.send_raw(&packets).await;
    for piece in packets.chunks(3) {
        client.send_raw(piece).await;
    }
    for n in (0..20).chain(0..20) {
        client.expect_message("t", format!("{n}")).await;
    }
});

#[tokio::test]
async fn messages_cross_between_every_pair_of_transports() {
    let broker = Setup::new().every_transport().start().await;
    let mut subscribers: Vec<(Transport, Client)> = Vec::new();
    for (n, transport) in Transport::ALL.into_iter().enumerate() {
        let version = if n % 2 == 0 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 };
        let packet = connect(&format!("to-{}", transport.name())).version(version);
        let mut client = broker.connect_over(transport, packet).await;
        client.subscribe("from/+", 1).await;
        subscribers.push((transport, client));
    }
    for from in Transport::ALL {
        let mut publisher = broker.connect_over(from, connect("publisher")).await;
        let topic = format!("from/{}", from.name());
        let payload = noise(3000);
        publisher.publish(publish(&topic, 1, payload.clone())).await;
        for (_, subscriber) in &mut subscribers {
            let got = subscriber.expect_message(&topic, &payload).await;
            assert_eq!(got.qos, QoS::AtLeastOnce);
        }
        publisher.disconnect().await;
    }
    for (_, mut subscriber) in subscribers {
        subscriber.expect_nothing().await;
    }
}

over_every_transport!(a_connection_lost_within_a_packet_harms_nobody, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("#", 1).await;
    let mut packet = BytesMut::new();
    publish("t", 1, noise(100)).encode(ProtocolVersion::V5, &mut packet).unwrap();
    for cut in [1, 2, 7, packet.len() - 1] {
        let mut client = broker.connect_over(transport, connect("c")).await;
        client.send_raw(&packet[..cut]).await;
        client.vanish().await;
    }
    // Nothing of it was taken for a message, and the identifier is free at once.
    watcher.expect_nothing().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.publish(publish("t", 1, "whole")).await;
    watcher.expect_message("t", "whole").await;
    client.disconnect().await;
    assert_eq!(broker.server.broker().session_count(), 1);
});

over_every_transport!(says_goodbye_at_shutdown, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut new = broker.connect_over(transport, connect("new")).await;
    let mut old = broker.connect_over(transport, connect("old").v311()).await;
    let goodbye = async {
        new.expect_disconnect(ReasonCode::ServerShuttingDown).await;
        old.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    };
    tokio::join!(broker.server.shutdown(), goodbye);
});

in_both_versions!(answers_are_written_before_a_farewell, |version| async move {
    let broker = Setup::new().start().await;
    let mut client = broker.client_of(version, "c").await;
    let mut packets = BytesMut::new();
    for n in 1..=5 {
        use testkit::PublishExt;
        publish("t", 1, "m").id(n).encode(version, &mut packets).unwrap();
    }
    packets.extend_from_slice(&[0xe0, 0]);
    client.send_raw(&packets).await;
    for n in 1..=5 {
        match client.recv().await {
            Packet::PubAck(ack) => assert_eq!(ack.packet_id.get(), n),
            other => panic!("{other:?}"),
        }
    }
    client.expect_closed().await;
});
