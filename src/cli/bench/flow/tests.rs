//! Flows through a broker in this process: what is counted adds up, and what is lost is seen.

use super::*;
use crate::cli::bench::shapes::{fanin, fanout, pair};
use crate::cli::tests::try_parse;
use crate::config::Config;
use crate::server::Server;

struct Broker {
    server: Server,
    port: String,
    _dir: tempfile::TempDir,
}

async fn broker(mqtt: &str) -> Broker {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shangmq.toml");
    let text = format!(
        "[mqtt]\n{mqtt}\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&path, text).unwrap();
    let server = Server::start(Config::load(Some(&path), Vec::new()).unwrap()).await.unwrap();
    let port = server.addresses()[0].1.port().to_string();
    Broker { server, port, _dir: dir }
}

async fn measure(broker: &Broker, arguments: &[&str], shape: impl FnOnce(u32) -> Shape) -> FlowReport {
    let line = ["-h", "127.0.0.1", "-p", &broker.port, "--threads", "1"];
    let flow: FlowArguments = try_parse(&[&line, arguments].concat()).unwrap();
    let report = flow.measure(&shape(5), 5).await.unwrap();
    println!("{report}");
    report
}

fn adds_up(report: &FlowReport, sent: u64, received: u64) {
    assert_eq!((report.sent, report.expected, report.received), (sent, Some(received), received));
    assert_eq!((report.missing, report.duplicates, report.out_of_order, report.failed), (0, 0, 0, 0));
    assert_eq!(report.delivery.count, received);
    assert!(report.is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pairs_receive_what_was_sent_at_every_qos_and_version() {
    let broker = broker("max_mqueue_len = 100000").await;
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let arguments = ["-q", qos, "-V", version, "--count", "200"];
            let report = measure(&broker, &arguments, |run| pair(run, 3, 0)).await;
            adds_up(&report, 600, 600);
            let acknowledged = if qos == "0" { 0 } else { 600 };
            assert_eq!((report.acknowledged, report.acknowledgement.count), (acknowledged, acknowledged));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_subscriber_of_a_fan_out_receives_every_message() {
    let broker = broker("max_mqueue_len = 100000").await;
    let report = measure(&broker, &["-q", "1", "--count", "50"], |run| fanout(run, 2, 7)).await;
    adds_up(&report, 100, 700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fan_in_brings_all_publishers_to_each_subscriber() {
    let broker = broker("max_mqueue_len = 100000").await;
    let report = measure(&broker, &["-q", "1", "--count", "50"], |run| fanin(run, 8, 2)).await;
    adds_up(&report, 400, 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn publishing_at_a_rate_sends_all_that_was_asked_for() {
    // That the rate is kept is shown without a clock, where messages become due.
    let broker = broker("max_mqueue_len = 100000").await;
    let arguments = ["-q", "1", "--rate", "500", "--count", "20"];
    let report = measure(&broker, &arguments, |run| pair(run, 2, 0)).await;
    adds_up(&report, 40, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn idle_subscriptions_are_held_and_receive_nothing() {
    let broker = broker("max_subscriptions = 1000").await;
    let report = measure(&broker, &["-q", "1", "--count", "10"], |run| pair(run, 1, 1500)).await;
    adds_up(&report, 10, 10);
    assert_eq!(report.failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn publishing_alone_expects_no_delivery() {
    let broker = broker("max_mqueue_len = 100000").await;
    let shape = |_| Shape { name: "pub", topics: vec!["t".into(); 2], ..Shape::default() };
    let report = measure(&broker, &["-q", "2", "--count", "30"], shape).await;
    assert_eq!((report.sent, report.acknowledged, report.expected, report.received), (60, 60, None, 0));
    assert!(report.is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_broker_drops_is_missing() {
    // One message on its way and one queued: what comes faster than the subscriber acknowledges drives the queued one out, since the
    // publisher is not made to wait.
    let broker = broker("max_inflight = 1\nmax_mqueue_len = 1\nslow_subscriber_wait = \"0s\"").await;
    let arguments = ["-q", "1", "--count", "2000", "--drain", "200ms"];
    let report = measure(&broker, &arguments, |run| pair(run, 1, 0)).await;
    let dropped = broker.server.metrics().dropped_queue_full.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((report.sent, report.acknowledged), (2000, 2000));
    assert!(dropped > 0, "the broker dropped nothing, so that this test shows nothing");
    assert_eq!((report.missing, report.received), (dropped, 2000 - dropped));
    assert!(!report.is_good(), "QoS 1 promises more");
    assert!(report.to_string().contains("mqtt.max_mqueue_len"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_missing_with_the_brokers_defaults() {
    // More in flight from all publishers than fit into the queue, and 32 to the subscriber: publishers are slowed.
    let broker = broker("").await;
    for (qos, in_flight) in [("1", "1000"), ("2", "100")] {
        let arguments = ["-q", qos, "--count", "800", "--inflight", in_flight];
        let report = measure(&broker, &arguments, |run| fanin(run, 12, 1)).await;
        adds_up(&report, 9600, 9600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_not_there_is_an_error() {
    let broker = broker("max_mqueue_len = 100000").await;
    let flow: FlowArguments = try_parse(&["-h", "127.0.0.1", "-p", &broker.port, "--count", "1"]).unwrap();
    broker.server.shutdown().await;
    let error = flow.measure(&pair(5, 2, 0), 5).await.unwrap_err().to_string();
    assert!(error.starts_with("2 of 2 clients could not connect: connection refused"), "{error}");
}
