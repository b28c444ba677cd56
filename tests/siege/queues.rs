//! Clients that take too slowly or never acknowledge: what waits for them is bounded by count and by bytes.

use std::time::Duration;

use testkit::{Client, ConnectExt, Packet, PublishExt, connect, publish, pubrec, subscribe};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::attacker::{bytes, client, pour, socket, until_closed};
use crate::siege::{MIB, Siege};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_never_reads_does_not_hold_what_others_publish() {
    let siege = Siege::begin("slow reader", "[mqtt]\nwrite_timeout = \"3s\"\nmax_mqueue_bytes = \"8MB\"\n").await;
    let address = siege.address();
    // A small window, so that it is the broker that waits, and not the kernel that takes everything.
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4 * 1024).unwrap();
    let mut reader = small.connect(address).await.unwrap();
    reader.write_all(&bytes(connect("slow"))).await.unwrap();
    reader.write_all(&bytes(subscribe(1, &[("flood/#", 1)]))).await.unwrap();
    let mut publisher = socket(address).await;
    publisher.write_all(&bytes(connect("flood"))).await.unwrap();
    // 400 MB, half of it with QoS 1.
    let mut chunk = bytes(publish("flood/0", 0, vec![7; 64 * 1024]));
    chunk.extend_from_slice(&bytes(publish("flood/1", 1, vec![7; 64 * 1024])));
    let (mut answers, mut writing) = publisher.into_split();
    let drain = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await });
    for _ in 0..3_200 {
        writing.write_all(&chunk).await.expect("the broker reads what an honest publisher sends");
    }
    drop(writing);
    drain.abort();
    // It goes on reading nothing; the broker ends it.
    siege.end(64 * MIB).await;
    drop(reader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_never_acknowledges_holds_no_more_than_its_queue() {
    let siege = Siege::begin("never acknowledges", "[mqtt]\nmax_mqueue_len = 1000\n").await;
    let address = siege.address();
    let mut lazy = client(address, connect("lazy").receive_maximum(65_535)).await;
    lazy.subscribe("work/#", 2).await;
    let mut publisher = client(address, connect("busy")).await;
    for n in 0..20_000u16 {
        let id = n + 1;
        publisher.publish(publish("work/x", 1, vec![1; 1024]).id(id)).await;
    }
    // It reads, and answers nothing.
    let mut received = 0;
    while received < 32 {
        received += usize::from(matches!(lazy.recv().await, Packet::Publish(_)));
    }
    drop((lazy, publisher));
    siege.end(32 * MIB).await;
}

/// Mosquitto kept the state of QoS 2 messages that were never released: CVE-2023-28366.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_messages_that_are_never_released_are_bounded_however_often_the_client_returns() {
    let siege = Siege::begin("never releases", "[mqtt]\nmax_awaiting_rel = 100\n").await;
    let address = siege.address();
    for round in 0..50u16 {
        let mut stream = socket(address).await;
        let mut all = bytes(connect("hoarder").persistent());
        for n in 0..300u16 {
            all.extend_from_slice(&bytes(publish("hoard", 2, vec![1; 1024]).id(1 + (round * 300 + n) % 65_000)));
        }
        // It is closed in the middle: Receive Maximum is exceeded.
        let _ = stream.write_all(&all).await;
        until_closed(&mut stream).await;
    }
    siege.end(24 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_nothing_are_answered_and_cost_nothing() {
    let siege = Siege::begin("acknowledges nothing", "").await;
    let mut stream = socket(siege.address()).await;
    stream.write_all(&bytes(connect("odd"))).await.unwrap();
    let mut all = bytes(pubrec(1));
    for id in 2..2_000 {
        all.extend_from_slice(&bytes(pubrec(id)));
    }
    // It takes no answer: the broker stops reading before its own answers grow.
    pour(&mut stream, &all, 2_000).await;
    drop(stream);
    siege.end(24 * MIB).await;
}

/// 65,535 aliases of 64 KB each were 4 GB for one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_aliases_hold_a_bounded_number_of_bytes() {
    let siege = Siege::begin("topic aliases", "[mqtt]\nmax_topic_alias = 65535\n").await;
    let mut hoarder = Client::new(socket(siege.address()).await).with_patience(Duration::from_secs(60));
    hoarder.connect(connect("aliases")).await;
    let mut sent = 0u32;
    for alias in 1..=8_000u16 {
        let topic = format!("{alias}/{}", "x".repeat(60_000));
        if hoarder.try_send_raw(&bytes(publish(&topic, 0, "").alias(alias))).await.is_err() {
            break;
        }
        sent += 1;
    }
    println!("topic aliases: the broker took {sent} of 60 KB each");
    drop(hoarder);
    siege.end(16 * MIB).await;
}
