//! Durable publishers and subscribers under load that come and go, and what their own logs say afterwards: every acknowledged
//! message arrived, QoS 2 exactly once, in the order of each topic and publisher. `CRASH_SEED` replays a run's decisions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and says how to repeat it"
)]

mod broker;
#[path = "../it/disk_medium.rs"]
mod disk_medium;
mod history;
mod link;
mod power;
mod publisher;
mod start;
mod subscriber;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use history::Logs;
use publisher::Publisher;
use subscriber::Subscriber;
use testkit::Dice;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Filter and QoS of each subscriber: the topics of publishers are `crash/<publisher>/<0 or 1>`.
const SUBSCRIBERS: [(&str, u8); 4] = [("crash/#", 2), ("crash/+/0", 2), ("crash/+/1", 1), ("crash/1/#", 1)];
/// QoS of each publisher; the last two publish by way of `$delayed`.
const PUBLISHERS: [u8; 6] = [1, 2, 1, 2, 1, 2];
/// How long nothing may arrive or be acknowledged, once nothing disturbs any more, before everything has arrived. A busy machine may take
/// as long as it needs.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What the load is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Publish; come and go.
    Load,
    /// Publish nothing new, finish what is under way.
    Settle,
    /// Everything has arrived, or never will.
    Stop,
}

/// A broker under load.
trait Loaded {
    fn address(&self) -> SocketAddr;
    /// What it said last.
    fn log_tail(&self) -> String;
}

/// Runs the load while `disturb` does its worst to the broker, waits until all is quiet, and judges.
async fn run<B: Loaded>(name: &str, broker: impl Future<Output = B>, disturb: impl AsyncFnOnce(&mut B, &mut Dice)) {
    let seed = seed();
    println!("{name}: CRASH_SEED={seed}");
    let mut random = Dice::new(seed);
    let mut broker = broker.await;
    let address = broker.address();
    let logs = Arc::new(Logs::new(&PUBLISHERS, &SUBSCRIBERS));
    let (phase, watching) = watch::channel(Phase::Load);

    let mut subscribers = JoinSet::new();
    let mut subscribed = Vec::new();
    for (index, (filter, qos)) in SUBSCRIBERS.into_iter().enumerate() {
        let (tell, told) = tokio::sync::oneshot::channel();
        subscribed.push(told);
        let subscriber = Subscriber::new(index, address, filter, qos, Arc::clone(&logs), random.fork());
        subscribers.spawn(subscriber.run(watching.clone(), tell));
    }
    for told in subscribed {
        told.await.expect("a subscriber subscribes");
    }
    let mut publishers = JoinSet::new();
    for (index, qos) in PUBLISHERS.into_iter().enumerate() {
        let publisher = Publisher::new(index, address, qos, Arc::clone(&logs), random.fork());
        publishers.spawn(publisher.run(watching.clone()));
    }

    disturb(&mut broker, &mut random).await;

    phase.send_replace(Phase::Settle);
    let arriving = async {
        while let Some(ended) = publishers.join_next().await {
            ended.expect("a publisher ends by itself");
        }
        logs.all_arrived().await;
    };
    let settled = tokio::select! {
        () = arriving => true,
        () = logs.standstill(STANDSTILL) => false,
    };
    phase.send_replace(Phase::Stop);
    while let Some(ended) = subscribers.join_next().await {
        ended.expect("a subscriber ends by itself");
    }
    let faults = logs.faults();
    println!("{name}: {}", logs.summary());
    if !faults.is_empty() || !settled {
        let shown: Vec<_> = faults.iter().take(30).map(ToString::to_string).collect();
        panic!(
            "{} faults, settled: {settled}, CRASH_SEED={seed}\n{}\nlast of the broker's log:\n{}",
            faults.len(),
            shown.join("\n"),
            broker.log_tail(),
        );
    }
    assert!(logs.acknowledged() > 0, "the load did nothing");
}

/// `CRASH_SEED`, or another one each time.
fn seed() -> u64 {
    match std::env::var("CRASH_SEED") {
        Ok(text) => text.parse().expect("CRASH_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
    }
}

/// `CRASH_KILLS`, or as many as fit into a test run.
fn kills() -> usize {
    std::env::var("CRASH_KILLS").map_or(25, |text| text.parse().expect("CRASH_KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_broker_is_killed() {
    run("kill -9", broker::Process::start(), async |broker, random| {
        for _ in 0..kills() {
            // Long enough for some to come back, short enough that others are still at it.
            tokio::time::sleep(random.millis(20, 1500)).await;
            broker.0.kill();
            broker.0.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_when_power_goes() {
    run("power loss", power::Powered::start(), async |broker, random| {
        for _ in 0..kills() {
            tokio::time::sleep(random.millis(20, 1000)).await;
            broker.lose_power(random).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_clients_come_and_go() {
    run("come and go", broker::Process::start(), async |_, _| tokio::time::sleep(Duration::from_secs(5)).await).await;
}
