//! The will: published when the connection is lost, after its delay or at the end of the session, and never after a goodbye.

use std::time::Duration;

use testkit::{
    ConnectExt, ProtocolVersion, QoS, ReasonCode, WillExt, connect, disconnect, in_both_versions, over_every_transport,
    publish, will,
};
use tokio::time::Instant;

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

over_every_transport!(is_published_when_the_connection_is_lost, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("wills", 2).await;
    let client = broker.connect_over(transport, connect("c").will(will("wills", "lost").level(1))).await;
    // The stream is dropped: no DISCONNECT, no close_notify, no close frame.
    drop(client);
    assert_eq!(watcher.expect_message("wills", "lost").await.qos, QoS::AtLeastOnce);
    watcher.expect_nothing().await;
});

in_both_versions!(is_published_as_it_was_given, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("#", 2).await;
    for level in 0..3 {
        let client = connect("c").version(version).will(will("t", "lost").level(level).retained());
        broker.connect(client).await.vanish().await;
        // [MQTT-3.1.2-8] [MQTT-3.1.2-15]
        let got = watcher.expect_message("t", "lost").await;
        assert_eq!(u8::from(got.qos), level);
        assert!(!got.retain);
        watcher.unsubscribe("#").await;
        watcher.subscribe("#", 2).await;
        assert!(watcher.expect_message("t", "lost").await.retain);
    }
});

in_both_versions!(is_dropped_by_disconnect, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("t", 1).await;
    broker.connect(connect("c").version(version).will(will("t", "lost"))).await.disconnect().await;
    // [MQTT-3.14.4-3]
    watcher.expect_nothing().await;
    // It is gone for good, not waiting for a later loss.
    broker.client_of(version, "c").await.vanish().await;
    watcher.expect_nothing().await;
});

#[tokio::test]
async fn is_published_when_disconnect_asks_for_it() {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("t", 1).await;
    let client = broker.connect(connect("c").will(will("t", "lost"))).await;
    client.disconnect_with(disconnect(ReasonCode::DisconnectWithWill)).await;
    watcher.expect_message("t", "lost").await;
    watcher.expect_nothing().await;
}

in_both_versions!(is_published_after_a_protocol_error, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("t", 1).await;
    let mut client = broker.connect(connect("c").version(version).will(will("t", "lost"))).await;
    client.send_raw(&[0xf7, 0]).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
    watcher.expect_message("t", "lost").await;
});

in_both_versions!(is_published_when_the_session_is_taken_over, |version| async move {
    let broker = TestBroker::start().await;
    let mut watcher = broker.client_of(version, "w").await;
    watcher.subscribe("t", 1).await;
    let mut client = broker.connect(connect("c").version(version).will(will("t", "lost"))).await;
    let _second = broker.client_of(version, "c").await;
    client.expect_disconnect(ReasonCode::SessionTakenOver).await;
    watcher.expect_message("t", "lost").await;
    watcher.expect_nothing().await;
});

#[tokio::test(start_paused = true)]
async fn waits_for_its_delay() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    let client = broker.connect(connect("c").expiry(100).will(will("t", "lost").delay(30))).await;
    let lost = Instant::now();
    client.vanish().await;
    watcher.expect_nothing().await;
    // [MQTT-3.1.3-9]
    watcher.expect_message("t", "lost").await;
    assert_eq!(lost.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn is_not_published_when_the_client_is_back_in_time() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    broker.connect(connect("c").expiry(100).will(will("t", "lost").delay(30))).await.vanish().await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    // [MQTT-3.1.3-9]
    let back = broker.connect(connect("c").resume().expiry(100)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    watcher.expect_nothing().await;
    drop(back);
}

#[tokio::test(start_paused = true)]
async fn is_published_at_once_when_a_clean_start_ends_the_session() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    broker.connect(connect("c").expiry(100).will(will("t", "lost").delay(30))).await.vanish().await;
    let _back = broker.connect(connect("c")).await;
    let back = Instant::now();
    watcher.expect_message("t", "lost").await;
    assert_eq!(back.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn does_not_wait_longer_than_the_session_lasts() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    for (expiry, delay) in [(5, 30), (0, 30)] {
        let client = broker.connect(connect("c").expiry(expiry).will(will("t", "lost").delay(delay))).await;
        let lost = Instant::now();
        client.vanish().await;
        // MQTT 5 section 3.1.3.2.2
        watcher.expect_message("t", "lost").await;
        assert_eq!(lost.elapsed().as_secs(), u64::from(expiry));
    }
    watcher.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_that_ends_the_session_publishes_nothing_either() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    let client = broker.connect(connect("c").expiry(100).will(will("t", "lost").delay(30))).await;
    let mut goodbye = disconnect(ReasonCode::Success);
    goodbye.properties.session_expiry_interval = Some(0);
    client.disconnect_with(goodbye).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    watcher.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn its_lifetime_begins_with_its_publication() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("t", 1).await;
    let mut expiring = will("t", "lost").delay(30);
    expiring.properties.message_expiry_interval = Some(20);
    broker.connect(connect("c").expiry(100).will(expiring)).await.vanish().await;
    let got = watcher.expect_message("t", "lost").await;
    assert_eq!(got.properties.message_expiry_interval, Some(20));
}

#[tokio::test(start_paused = true)]
async fn is_published_when_nothing_is_heard_within_the_keep_alive() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut watcher = broker.connect(connect("w").version(version)).await;
        watcher.subscribe("t", 1).await;
        let mut silent = broker.connect(connect("c").version(version).keep_alive(10).will(will("t", "lost"))).await;
        let since = Instant::now();
        watcher.expect_message("t", "lost").await;
        assert_eq!(since.elapsed().as_secs(), 15);
        silent.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    }
}

#[tokio::test]
async fn reaches_a_persistent_session_that_is_away() {
    let broker = TestBroker::start().await;
    let (mut watcher, _) = broker.persistent(ProtocolVersion::V5, "w").await;
    watcher.subscribe("t", 1).await;
    watcher.disconnect().await;
    broker.connect(connect("c").will(will("t", "lost").level(1))).await.vanish().await;
    let (mut watcher, present) = broker.persistent(ProtocolVersion::V5, "w").await;
    assert!(present);
    watcher.expect(publish("t", 1, "lost")).await;
}
