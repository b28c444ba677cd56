//! Limits that both sides set on each other: receive maximum, packet size, topic aliases, and peers that do not read.

use std::io;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mqtt_codec::Encode;
use testkit::{
    ConnectExt, Packet, ProtocolVersion, PublishExt, ReasonCode, connect, in_both_versions, puback, pubcomp, publish,
    pubrec, pubrel,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::broker::{Setup, TestBroker};
use crate::simulated::{Pipe, SimulatedBroker};

#[tokio::test]
async fn no_more_messages_are_under_way_than_the_client_takes() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").receive_maximum(2)).await;
    client.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    for n in 1..=5 {
        publisher.publish(publish("t", 1 + n % 2, format!("{n}"))).await;
    }
    // [MQTT-3.3.4-9]
    client.expect(publish("t", 2, "1").id(1)).await;
    client.expect(publish("t", 1, "2").id(2)).await;
    client.expect_nothing().await;
    // PUBREC frees no place, PUBCOMP does. [MQTT-4.9.0-2]
    client.send(pubrec(1)).await;
    client.expect(pubrel(1)).await;
    client.expect_nothing().await;
    client.send(pubcomp(1)).await;
    client.expect(publish("t", 2, "3").id(3)).await;
    client.send(puback(2)).await;
    client.expect(publish("t", 1, "4").id(4)).await;
    client.expect_nothing().await;
    client.send(puback(4)).await;
    client.expect(publish("t", 2, "5").id(5)).await;
    client.expect_nothing().await;
}

in_both_versions!(the_brokers_own_window_holds_for_clients_that_set_none, |version| async move {
    let broker = Setup::new().mqtt("max_inflight = 3").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 1..=5 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    for n in 1..=3 {
        client.expect(publish("t", 1, format!("{n}")).id(n)).await;
    }
    client.expect_nothing().await;
    client.send(puback(1)).await;
    client.send(puback(2)).await;
    client.expect(publish("t", 1, "4").id(4)).await;
    client.expect(publish("t", 1, "5").id(5)).await;
});

#[tokio::test]
async fn a_client_that_comes_back_with_a_smaller_window_is_not_flooded() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").expiry(600)).await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client("p").await;
    for n in 1..=4 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
        client.expect(publish("t", 1, format!("{n}")).id(n)).await;
    }
    client.vanish().await;
    let mut client = broker.connect(connect("c").resume().expiry(600).receive_maximum(2)).await;
    // [MQTT-3.1.2-11]: the Receive Maximum of this connection holds for what is sent again, too.
    client.expect(publish("t", 1, "1").id(1).dup()).await;
    client.expect(publish("t", 1, "2").id(2).dup()).await;
    client.expect_nothing().await;
    client.send(puback(1)).await;
    client.expect(publish("t", 1, "3").id(3).dup()).await;
    client.expect_nothing().await;
    client.send(puback(2)).await;
    client.send(puback(3)).await;
    client.expect(publish("t", 1, "4").id(4).dup()).await;
    client.expect_nothing().await;
}

in_both_versions!(a_client_with_too_many_unreleased_messages_is_disconnected, |version| async move {
    let broker = Setup::new().mqtt("max_awaiting_rel = 2").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("other", 0).await;
    let none = |id| {
        let mut ack = pubrec(id);
        if version.is_v5() {
            ack.reason = ReasonCode::NoMatchingSubscribers;
        }
        ack
    };
    for id in [1, 2] {
        client.send(publish("t", 2, "m").id(id)).await;
        client.expect(none(id)).await;
    }
    client.send(pubrel(1)).await;
    client.expect(pubcomp(1)).await;
    client.send(publish("t", 2, "m").id(3)).await;
    client.expect(none(3)).await;
    client.send(publish("t", 2, "m").id(4)).await;
    // [MQTT-3.3.4-7]
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
});

#[tokio::test]
async fn messages_larger_than_the_client_takes_are_left_out() {
    let broker = TestBroker::start().await;
    let mut small = broker.connect(connect("s").max_packet_size(50)).await;
    let mut large = broker.client("l").await;
    let mut publisher = broker.client("p").await;
    for level in 0..3 {
        small.subscribe("t", level).await;
        large.subscribe("t", level).await;
        publisher.publish(publish("t", level, vec![b'x'; 60])).await;
        publisher.publish(publish("t", level, "fits")).await;
        // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
        small.expect_message("t", "fits").await;
        small.expect_nothing().await;
        large.expect_message("t", vec![b'x'; 60]).await;
        large.expect_message("t", "fits").await;
    }
}

#[tokio::test]
async fn the_size_limit_counts_every_byte_of_the_packet() {
    let broker = TestBroker::start().await;
    // Fixed header 2, topic 3, properties 1: 44 bytes of payload make 50.
    let mut client = broker.connect(connect("s").max_packet_size(50)).await;
    client.subscribe("t", 0).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 0, vec![b'x'; 45])).await;
    publisher.publish(publish("t", 0, vec![b'y'; 44])).await;
    client.expect_message("t", vec![b'y'; 44]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_client_that_comes_back_with_a_smaller_packet_size_gets_none_larger() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").expiry(600)).await;
    client.subscribe("t", 1).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 1, vec![b'x'; 60])).await;
    publisher.publish(publish("t", 1, "fits")).await;
    client.expect(publish("t", 1, vec![b'x'; 60]).id(1)).await;
    client.expect(publish("t", 1, "fits").id(2)).await;
    client.vanish().await;
    let mut client = broker.connect(connect("c").resume().expiry(600).max_packet_size(50)).await;
    // [MQTT-3.1.2-24]
    client.expect(publish("t", 1, "fits").id(2).dup()).await;
    client.send(puback(2)).await;
    client.expect_nothing().await;
    client.vanish().await;
    broker.connect(connect("c").resume().expiry(600)).await.expect_nothing().await;
}

in_both_versions!(a_packet_over_the_limit_ends_the_connection_at_its_header, |version| async move {
    let broker = Setup::new().mqtt("max_packet_size = \"1KB\"").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 0).await;
    // Fixed header 3, topic 3, and in MQTT 5 the length of the properties: together 1024 bytes.
    let fits = if version.is_v5() { 1017 } else { 1018 };
    client.send(publish("t", 0, vec![0; fits])).await;
    client.expect_message("t", vec![0; fits]).await;
    // Only the fixed header of one byte more is sent.
    client.send_raw(&[0x30, 0xfe, 0x07]).await;
    client.expect_disconnect(ReasonCode::PacketTooLarge).await;
});

#[tokio::test]
async fn an_alias_stands_for_its_topic_within_one_connection() {
    let broker = Setup::new().mqtt("max_topic_alias = 3").start().await;
    let mut subscriber = broker.client("s").await;
    subscriber.subscribe("#", 0).await;
    let mut client = broker.client("c").await;
    client.send(publish("first", 0, "1").alias(3)).await;
    client.send(publish("", 0, "2").alias(3)).await;
    client.send(publish("second", 0, "3").alias(3)).await;
    client.send(publish("", 0, "4").alias(3)).await;
    for (topic, payload) in [("first", "1"), ("first", "2"), ("second", "3"), ("second", "4")] {
        let got = subscriber.expect_message(topic, payload).await;
        assert_eq!(got.properties.topic_alias, None);
    }
    // [MQTT-3.3.2-7]
    client.disconnect().await;
    let mut client = broker.client("c").await;
    client.send(publish("", 0, "5").alias(3)).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
    // [MQTT-3.3.2-9]
    let mut client = broker.client("c").await;
    client.send(publish("t", 0, "6").alias(4)).await;
    client.expect_disconnect(ReasonCode::TopicAliasInvalid).await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn alias_zero_is_invalid() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    // PUBLISH to "t" with Topic Alias 0. [MQTT-3.3.2-8]
    client.send_raw(&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0]).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

#[tokio::test]
async fn a_client_does_not_send_subscription_identifiers() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.send(publish("t", 0, "m").subscription_ids(&[1])).await;
    // [MQTT-3.3.4-6]
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_id_that_is_never_released_gives_its_place_up_in_time() {
    let setup = Setup::new().mqtt("max_awaiting_rel = 1").mqtt("await_rel_timeout = \"60s\"");
    let broker = SimulatedBroker::start(setup);
    let mut client = broker.connect(connect("c").v311()).await;
    client.send(publish("t", 2, "m").id(1)).await;
    client.expect(pubrec(1)).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    client.send(publish("t", 2, "m").id(2)).await;
    client.expect(pubrec(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_bytes_is_disconnected() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let broker = SimulatedBroker::start(Setup::new().mqtt("write_timeout = \"20s\""));
        let mut stuck = broker.connect(connect("stuck").version(version)).await;
        stuck.subscribe("t", 0).await;
        let mut publisher = broker.connect(connect("p")).await;
        for _ in 0..20 {
            publisher.publish(publish("t", 0, vec![0; 32 * 1024])).await;
        }
        publisher.ping().await;
        assert_eq!(broker.broker().session_count(), 2);
        tokio::time::sleep(Duration::from_secs(19)).await;
        assert_eq!(broker.broker().session_count(), 2);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(broker.broker().session_count(), 1);
        publisher.ping().await;
    }
}

/// Takes 64 KB at once and says so only when all of it is through, as a layer of TLS does.
struct Records {
    inner: Pipe,
    record: Bytes,
    taken: usize,
}

impl AsyncRead for Records {
    fn poll_read(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Records {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken == 0 {
            this.record = Bytes::copy_from_slice(&buf[..buf.len().min(64 * 1024)]);
            this.taken = this.record.len();
        }
        while !this.record.is_empty() {
            let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.record))?;
            this.record.advance(written);
        }
        Poll::Ready(Ok(std::mem::take(&mut this.taken)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Only whole records were counted, so that a link that takes longer than the timeout for one was cut while it took bytes all the time.
#[tokio::test(start_paused = true)]
async fn a_slow_link_is_not_cut_while_it_takes_a_part_of_a_record() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("write_timeout = \"20s\""));
    let (mut slow, _task) = broker.open_through(|inner| Records { inner, record: Bytes::new(), taken: 0 });
    slow.connect(connect("slow")).await;
    slow.subscribe("t", 0).await;
    let mut publisher = broker.connect(connect("p")).await;
    for _ in 0..20 {
        publisher.publish(publish("t", 0, vec![0; 32 * 1024])).await;
    }
    let mut link = slow.into_inner();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        link.read_exact(&mut [0; 1024]).await.unwrap();
    }
    assert_eq!(broker.broker().session_count(), 2);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(broker.broker().session_count(), 1, "it takes nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_nobody_else_up() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("write_timeout = \"20s\""));
    let mut stuck = broker.connect(connect("stuck")).await;
    stuck.subscribe("t", 0).await;
    let mut reader = broker.connect(connect("reader")).await;
    reader.subscribe("t", 0).await;
    let mut publisher = broker.connect(connect("p")).await;
    let payload = vec![7; 32 * 1024];
    for _ in 0..100 {
        publisher.publish(publish("t", 0, payload.clone())).await;
        reader.expect_message("t", &payload).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_waits_for_the_subscriber_instead_of_being_dropped() {
    // Far more messages in one read than the queue holds, QoS 0 which would be dropped and QoS 1 for which the oldest would be.
    for (level, count) in [(0, 1000), (1, 30)] {
        let broker = SimulatedBroker::start(Setup::new().mqtt("max_mqueue_len = 10").mqtt("max_inflight = 100"));
        let mut subscriber = broker.connect(connect("s")).await;
        subscriber.subscribe("t", level).await;
        let mut publisher = broker.connect(connect("p")).await;
        let mut burst = BytesMut::new();
        for n in 1..=count {
            let mut packet = publish("t", level, format!("{n}"));
            packet.packet_id = NonZeroU16::new(n).filter(|_| level > 0);
            Packet::from(packet).encode(ProtocolVersion::V5, &mut burst).unwrap();
        }
        publisher.send_raw(&burst).await;
        for n in 1..=count {
            assert_eq!(subscriber.recv_publish().await.payload, format!("{n}"), "QoS {level}");
        }
        assert_eq!(broker.broker().metrics().dropped_queue_full.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_subscriber_that_does_not_read() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("max_mqueue_len = 10").mqtt("write_timeout = \"1h\""));
    let mut deaf = broker.connect(connect("deaf")).await;
    deaf.subscribe("t", 0).await;
    let mut reader = broker.connect(connect("reader")).await;
    reader.subscribe("t", 0).await;
    let mut publisher = broker.connect(connect("p")).await;
    let begun = tokio::time::Instant::now();
    // More than the pipe and the broker's buffers take for one client.
    for n in 0..1000 {
        publisher.send(publish("t", 0, format!("{n:0>1024}"))).await;
        assert_eq!(reader.recv_publish().await.payload, format!("{n:0>1024}"));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "the publisher or the reader had to wait");
    assert!(broker.broker().metrics().dropped_queue_full.load(Ordering::Relaxed) > 0);
    drop(deaf);
}
