//! Attacks before and around CONNECT: announced lengths, silence, storms of one client identifier.

use testkit::{ConnectExt, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attacker::{allow_descriptors, bytes, client, many, socket, until_closed};
use crate::siege::{MIB, Siege};

/// Mosquitto allocated what a first packet announced: CVE-2023-0809.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_packet_that_announces_256_mb_costs_nothing() {
    let siege =
        Siege::begin("announced lengths", "[mqtt]\nmax_packet_size = \"256MB\"\nmax_mqueue_bytes = \"256MB\"\n").await;
    let address = siege.address();
    for packet_type in 1..16u8 {
        let flags = if matches!(packet_type, 6 | 8 | 10) { 2 } else { 0 };
        let held = many(60, 60, move |_| async move {
            let mut stream = socket(address).await;
            let mut head = vec![packet_type << 4 | flags, 0xf0, 0xff, 0xff, 0x7f];
            head.extend_from_slice(b"\x00\x04MQTT\x05");
            // The broker may refuse it at the first byte.
            let _ = stream.write_all(&head).await;
            stream
        })
        .await;
        drop(held);
    }
    siege.end(24 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sockets_without_connect_end_in_time_and_cost_little() {
    const SOCKETS: usize = 10_000;
    allow_descriptors(SOCKETS as u64);
    let siege = Siege::begin("silent sockets", "[mqtt]\nidle_timeout = \"3s\"\n").await;
    let address = siege.address();
    let held = many(SOCKETS, 64, move |number| async move {
        let mut stream = socket(address).await;
        if number % 2 == 0 {
            // Half of them begin a packet.
            let _ = stream.write_all(&[0x10, 0x20, 0, 4, b'M']).await;
        }
        stream
    })
    .await;
    for mut stream in held {
        until_closed(&mut stream).await;
    }
    siege.end(80 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_one_client_identifier_leaves_one_session() {
    let siege = Siege::begin("one identifier", "").await;
    let address = siege.address();
    let mut streams = many(2_000, 50, move |_| async move {
        let mut stream = socket(address).await;
        stream.write_all(&bytes(connect("the same").persistent())).await.unwrap();
        // CONNACK, after which it is taken over by another. A connection that had to wait too long gets none.
        let _ = stream.read_u8().await;
        stream
    })
    .await;
    let mut last = client(address, connect("the same").resume().expiry(3600)).await;
    last.ping().await;
    for stream in &mut streams {
        until_closed(stream).await;
    }
    last.ping().await;
    last.disconnect().await;
    drop(streams);
    siege.end(64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_with_wills_cost_what_their_subscribers_may_queue() {
    const CLIENTS: usize = 2_000;
    allow_descriptors(CLIENTS as u64);
    let siege = Siege::begin("wills", "").await;
    let address = siege.address();
    let held = many(CLIENTS, 64, move |number| async move {
        let mut will = testkit::will(&format!("wills/{number}"), vec![b'x'; 16 * 1024]);
        will.qos = testkit::qos(1);
        client(address, connect(&format!("doomed {number}")).will(will)).await
    })
    .await;
    drop(held);
    // 2,000 wills of 16 KiB are the clients' own share, 31 MiB.
    siege.end(128 * MIB).await;
}
