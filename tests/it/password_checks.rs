//! Password checks when there are more clients than can be checked: nobody waits longer than for CONNECT, nor for clients that are gone.

use std::time::Duration;

use testkit::{ConnectExt, Packet, ProtocolVersion, ReasonCode, Transport, connect, publish};

use crate::access::{PASSWORD, with_users};
use crate::broker::{Setup, TestBroker};

/// One user, `ada`, whose password costs this much to check, and as much for a user that is not there.
fn one_slow_check(iterations: u32, auth: &str) -> Setup {
    let setup = with_users(&["ada"], &format!("max_concurrent_checks = 1\n{auth}"));
    let path = setup.dir().join("users");
    let slow = std::fs::read_to_string(&path).unwrap()
        + "slow:$pbkdf2-sm3$i=ITERATIONS$MDEyMzQ1Njc4OWFiY2RlZg$HnSfj6d7npa2JHucQ6Lv+T+ueW6UyIRnYOoMS+JukaA\n";
    std::fs::write(&path, slow.replace("ITERATIONS", &iterations.to_string())).unwrap();
    setup
}

async fn ask(broker: &TestBroker, client_id: &str, user: &str) -> testkit::Client {
    let mut client = broker.open(Transport::Tcp).await;
    client.send(connect(client_id).credentials(user, PASSWORD)).await;
    client
}

fn answered(broker: &TestBroker, code: &str, reason: &str) -> u64 {
    broker.sample(&format!("shangmq_connects_total{{listener=\"tcp:default\",code=\"{code}\",reason=\"{reason}\"}}"))
}

// The deadline for CONNECT ended when CONNECT was read, and a check could wait for ever: 300 attempts with any user name delayed
// the owner of a right password by a minute.
#[tokio::test]
async fn a_check_that_takes_too_long_ends_with_the_deadline_for_connect() {
    let broker = one_slow_check(300_000, "").mqtt("idle_timeout = \"100ms\"").start().await;
    let mut client = broker.raw().await;
    client.expect_refusal(connect("c").credentials("slow", PASSWORD), ReasonCode::ServerBusy).await;
}

// Nobody looked at the sockets of clients that waited: those that were long gone had their passwords checked one by one.
#[tokio::test]
async fn clients_that_are_gone_wait_for_no_check() {
    let broker = one_slow_check(200_000, "max_waiting_checks = 8").start().await;
    let _running = ask(&broker, "running", "nobody").await;
    for number in 0..8 {
        drop(ask(&broker, &format!("gone-{number}"), "nobody").await);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = ask(&broker, "c", "ada").await;
        match client.recv().await {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => break,
            Packet::ConnAck(ack) if ack.reason == ReasonCode::ServerBusy => {}
            other => panic!("{other:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "the places were never free again");
        tokio::task::yield_now().await;
    }
    let checked = answered(&broker, "0x86", "BadUserNameOrPassword");
    assert!(checked <= 4, "{checked} passwords were checked, nearly all for clients that had gone");
}

#[tokio::test]
async fn who_finds_no_place_to_wait_is_refused_as_busy_and_counted() {
    let broker = one_slow_check(50_000, "max_waiting_checks = 0").start().await;
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let mut answers = Vec::new();
        let packet = || connect("c").version(version).credentials("nobody", PASSWORD);
        // Whichever comes first is checked, and the other comes while it is.
        let mut clients = [broker.raw().await, broker.raw().await];
        for client in &mut clients {
            client.send(packet()).await;
        }
        for client in &mut clients {
            match client.recv().await {
                Packet::ConnAck(ack) => answers.push(ack.reason),
                other => panic!("{other:?}"),
            }
        }
        let busy = if version.is_v5() { ReasonCode::ServerBusy } else { ReasonCode::ServerUnavailable };
        assert!(answers.contains(&busy), "{answers:?}");
    }
    assert_eq!(broker.sample("shangmq_limits_hit_total{limit=\"auth.max_waiting_checks\"}"), 2);
}

#[tokio::test]
async fn who_finds_no_place_for_its_address_is_refused_as_busy_and_counted() {
    let broker = one_slow_check(50_000, "max_waiting_checks_per_address = 0").start().await;
    let mut clients = [ask(&broker, "a", "nobody").await, ask(&broker, "b", "nobody").await];
    let mut answers = Vec::new();
    for client in &mut clients {
        match client.recv().await {
            Packet::ConnAck(ack) => answers.push(ack.reason),
            other => panic!("{other:?}"),
        }
    }
    assert!(answers.contains(&ReasonCode::ServerBusy), "{answers:?}");
    assert_eq!(broker.sample("shangmq_limits_hit_total{limit=\"auth.max_waiting_checks_per_address\"}"), 1);
}

#[tokio::test]
async fn an_address_that_guesses_too_often_is_not_checked_for_a_while() {
    let broker = with_users(&["ada"], "max_failures_per_minute = 3").start().await;
    for _ in 0..3 {
        let wrong = connect("c").credentials("ada", "guess");
        broker.raw().await.expect_refusal(wrong, ReasonCode::BadUserNameOrPassword).await;
    }
    let right = || connect("c").credentials("ada", PASSWORD);
    broker.raw().await.expect_refusal(right(), ReasonCode::ServerBusy).await;
    assert_eq!(broker.sample("shangmq_limits_hit_total{limit=\"auth.max_failures_per_minute\"}"), 1);
}

// What a client sends right after CONNECT, without waiting for CONNACK, is handled even if it closes at once.
#[tokio::test]
async fn a_client_that_sends_and_closes_is_heard() {
    let broker = one_slow_check(50_000, "").start().await;
    let mut watcher = broker.connect(connect("watcher").credentials("ada", PASSWORD)).await;
    watcher.subscribe("t", 0).await;
    let mut brief = ask(&broker, "brief", "ada").await;
    brief.send(publish("t", 0, "x")).await;
    brief.shutdown().await;
    watcher.expect_message("t", "x").await;
}
