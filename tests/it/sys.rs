//! `$SYS` topics: what the broker says about itself, to those who ask by name.

use std::time::Duration;

use testkit::{connect, in_both_versions, publish};

use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

in_both_versions!(a_subscriber_finds_current_values_at_once, |version| async move {
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("$SYS/broker/clients/connected", 1).await;
    let got = client.expect_message("$SYS/broker/clients/connected", "1").await;
    assert!(got.retain);
    client.subscribe("$SYS/broker/version", 0).await;
    let expected = format!("shangmq {}", env!("CARGO_PKG_VERSION"));
    client.expect_message("$SYS/broker/version", expected).await;
});

#[tokio::test]
async fn wildcards_reach_sys_only_behind_its_name() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    // Values exist from here on.
    client.subscribe("$SYS/broker/uptime", 0).await;
    client.recv_publish().await;
    client.unsubscribe("$SYS/broker/uptime").await;
    for filter in ["#", "+/broker/uptime", "+/#", "$share/g/#", "$share/g/+/broker/#"] {
        // [MQTT-4.7.2-1]
        client.subscribe(filter, 0).await;
        client.expect_nothing().await;
    }
    client.subscribe("$SYS/broker/clients/+", 0).await;
    for _ in 0..7 {
        assert!(client.recv_publish().await.topic.starts_with("$SYS/broker/clients/"));
    }
    client.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn values_come_at_every_interval() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("sys_interval = \"10s\""));
    let mut client = broker.connect(connect("c")).await;
    client.subscribe("$SYS/broker/publish/messages/received", 1).await;
    client.expect_message("$SYS/broker/publish/messages/received", "0").await;
    for n in 1..4 {
        client.send(publish("t", 0, "m")).await;
        let got = client.expect_message("$SYS/broker/publish/messages/received", format!("{n}")).await;
        assert!(!got.retain);
    }
    // Whoever listens to everything else hears nothing of it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut all = broker.connect(connect("all")).await;
    all.subscribe("#", 0).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    all.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_zero_turns_them_off() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("sys_interval = \"0s\""));
    let mut client = broker.connect(connect("c")).await;
    client.subscribe("$SYS/#", 1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    client.expect_nothing().await;
}
