//! Limits over time: rates of a client and of a listener, flapping, bans. And that each limit is counted where it bites.

use std::time::Duration;

use shangmq::broker::{Ban, Subject};
use testkit::{ConnectExt, PublishExt, ReasonCode, WillExt, connect, in_both_versions, publish, subscribe, will};
use tokio::time::Instant;

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

fn metrics(broker: &shangmq::broker::Broker) -> String {
    broker.metrics().encode(Default::default())
}

fn hits(broker: &shangmq::broker::Broker, limit: &str) -> u64 {
    let prefix = format!("shangmq_limits_hit_total{{limit=\"{limit}\"}} ");
    metrics(broker).lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_client_over_its_message_rate_is_slowed_down_and_loses_nothing() {
    let setup = Setup::new().listener("messages_rate = \"10/s\"\nmessages_burst = 5");
    let broker = SimulatedBroker::start(setup);
    let mut subscriber = broker.connect(connect("s")).await;
    subscriber.subscribe("t", 0).await;
    let mut fast = broker.connect(connect("fast").keep_alive(2)).await;
    let start = Instant::now();
    for n in 0..45 {
        fast.send(publish("t", 0, format!("{n}"))).await;
    }
    for n in 0..45 {
        subscriber.expect_message("t", format!("{n}")).await;
    }
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(3_900)..Duration::from_millis(4_200)).contains(&elapsed), "{elapsed:?}");
    assert!(hits(broker.broker(), "messages_rate") > 0);
    // The pause is not silence: the connection lives, and another client was never held up.
    fast.ping().await;
    subscriber.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_over_its_byte_rate_is_slowed_down() {
    let broker = SimulatedBroker::start(Setup::new().listener("bytes_rate = \"10KB/s\""));
    let mut client = broker.connect(connect("c")).await;
    let start = Instant::now();
    for _ in 0..41 {
        client.publish(publish("t", 1, vec![0; 1000])).await;
    }
    // 40 packets of 1,010 bytes less one burst, at 10,240 bytes a second.
    let elapsed = start.elapsed().as_millis();
    assert!((2_850..3_050).contains(&elapsed), "{elapsed}");
    assert!(hits(broker.broker(), "bytes_rate") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_over_its_rate_of_subscriptions_is_slowed_down() {
    let broker = SimulatedBroker::start(Setup::new().listener("subscribes_rate = \"2/s\""));
    let mut client = broker.connect(connect("c")).await;
    let start = Instant::now();
    for n in 0..5 {
        let filters = [format!("a/{n}"), format!("b/{n}")];
        client.subscribe_with(subscribe(1, &[(&filters[0], 0), (&filters[1], 0)])).await;
    }
    let elapsed = start.elapsed().as_millis();
    assert!((2_900..3_200).contains(&elapsed), "{elapsed}");
    assert!(hits(broker.broker(), "subscribes_rate") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_found_after_its_pause() {
    let setup = Setup::new().listener("messages_rate = \"1/10s\"\nmessages_burst = 1");
    let broker = SimulatedBroker::start(setup);
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("gone", 0).await;
    let mut client = broker.connect(connect("c").keep_alive(4).will(will("gone", "c").level(0))).await;
    client.send(publish("t", 0, "1")).await;
    client.send(publish("t", 0, "2")).await;
    let start = Instant::now();
    watcher.expect_message("gone", "c").await;
    assert!((10..=12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_over_the_rate_of_the_listener_wait() {
    let broker = Setup::new().listener("max_conn_rate = \"10/s\"\nmax_conn_burst = 2").start().await;
    let start = Instant::now();
    for n in 0..7 {
        broker.client(&format!("c{n}")).await;
    }
    // The first two and one in debt at once, then one each 100 ms.
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    assert!(hits(broker.server.broker(), "max_conn_rate") > 0);
}

const FLAPPING: &str = "[flapping_detect]\nenable = true\nmax_count = 3\nwindow_time = \"10s\"\nban_time = \"60s\"";

#[tokio::test(start_paused = true)]
async fn a_flapping_client_is_banned_for_a_while() {
    let broker = SimulatedBroker::start(Setup::new().sections(FLAPPING));
    for _ in 0..3 {
        broker.connect(connect("c")).await.disconnect().await;
    }
    broker.open().expect_refusal(connect("c"), ReasonCode::Banned).await;
    broker.open().expect_refusal(connect("c").v311(), ReasonCode::Banned).await;
    broker.connect(connect("other")).await.disconnect().await;
    assert_eq!(hits(broker.broker(), "flapping_detect.max_count"), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    broker.connect(connect("c")).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reconnects_now_and_then_is_not_flapping() {
    let broker = SimulatedBroker::start(Setup::new().sections(FLAPPING));
    for _ in 0..10 {
        broker.connect(connect("c")).await.disconnect().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}

#[tokio::test]
async fn whoever_is_banned_is_refused_and_a_banned_client_is_ended() {
    let broker = TestBroker::start().await;
    let core = broker.server.broker();
    let ban = || Ban { until: None, reason: "test".to_owned() };
    let mut client = broker.client("c").await;
    core.ban(Subject::ClientId("c".into()), ban()).unwrap();
    client.expect_disconnect(ReasonCode::AdministrativeAction).await;
    broker.raw().await.expect_refusal(connect("c"), ReasonCode::Banned).await;
    core.bans().remove(&Subject::ClientId("c".into()));
    broker.client("c").await;
    core.ban(Subject::Username("anna".into()), ban()).unwrap();
    broker.raw().await.expect_refusal(connect("d").credentials("anna", "x"), ReasonCode::Banned).await;
    broker.client("d").await;
    core.ban(Subject::Address("127.0.0.1".parse().unwrap()), ban()).unwrap();
    // Closed before MQTT begins.
    let mut client = broker.raw().await;
    let _refused = client.try_send_raw(&[0x10]).await;
    client.expect_closed().await;
}

in_both_versions!(each_limit_is_counted_where_it_bites, |version| async move {
    let setup = Setup::new()
        .mqtt("max_clientid_len = 23\nmax_topic_levels = 3\nmax_qos_allowed = 1\nretain_available = false")
        .mqtt("max_packet_size = 200\nmax_topic_alias = 2\nmax_awaiting_rel = 1\nmax_mqueue_bytes = \"1KB\"")
        .mqtt("wildcard_subscription = false\nshared_subscription = false");
    let broker = setup.start().await;
    let core = broker.server.broker();
    let long = "x".repeat(24);
    broker.raw().await.expect_refusal(connect(&long).version(version), ReasonCode::ClientIdentifierNotValid).await;
    let mut client = broker.client_of(version, "c").await;
    client.publish(publish("a/b/c/d", 1, "m")).await;
    client.subscribe_reasons(subscribe(1, &[("a/b/c/d", 0), ("+", 0), ("$share/g/t", 0)])).await;
    client.send(publish("t", 2, "m")).await;
    client.expect_disconnect(ReasonCode::QoSNotSupported).await;
    let mut client = broker.client_of(version, "c").await;
    client.send(publish("t", 0, "m").retained()).await;
    client.expect_disconnect(ReasonCode::RetainNotSupported).await;
    let mut client = broker.client_of(version, "c").await;
    client.send(publish("t", 0, vec![0; 300])).await;
    client.expect_disconnect(ReasonCode::PacketTooLarge).await;
    let expected = [
        ("mqtt.max_clientid_len", 1),
        ("mqtt.max_topic_levels", 2),
        ("mqtt.max_qos_allowed", 1),
        ("mqtt.retain_available", 1),
        ("mqtt.max_packet_size", 1),
        ("mqtt.wildcard_subscription", 1),
        ("mqtt.shared_subscription", 1),
    ];
    for (limit, count) in expected {
        assert_eq!(hits(core, limit), count, "{limit}");
    }
});
