//! `shangmq bench` as its users run it: a process of its own against a broker, over every transport, its numbers from its JSON.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::{Behaviour, Transport, over_every_transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::broker::{Secured, Setup, TestBroker, certificates};
use crate::revocation::{CRL, World, accept, https};

/// Longer than any of these runs takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn to_port(port: u16) -> Vec<String> {
    let port = port.to_string();
    ["--json", "--threads", "1", "-h", "localhost", "-p", &port].map(str::to_owned).to_vec()
}

fn command(broker: &TestBroker, transport: Transport, arguments: &[&str]) -> Command {
    command_to(broker.address(transport).port(), transport, arguments)
}

fn command_to(port: u16, transport: Transport, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shangmq"));
    command.arg("bench").args(arguments).args(to_port(port));
    if transport.is_websocket() {
        command.arg("--ws");
    }
    let protocol = match transport {
        Transport::Tcp | Transport::Ws => None,
        Transport::Tls12 => Some("tls1.2"),
        Transport::Tls13 | Transport::WssTls13 => Some("tls1.3"),
        Transport::Rfc8998 => Some("rfc8998"),
        Transport::Tlcp | Transport::WssTlcp => Some("tlcp"),
    };
    if let Some(protocol) = protocol {
        command.args(["--protocol", protocol, "--cafile"]).arg(certificates().ca_bundle());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn start(broker: &TestBroker, transport: Transport, arguments: &[&str]) -> Child {
    command(broker, transport, arguments).spawn().unwrap()
}

async fn finish(child: Child) -> Output {
    timeout(LIMIT, child.wait_with_output()).await.expect("bench ends in time").unwrap()
}

fn report(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON, but: {error}"))
}

async fn bench(broker: &TestBroker, transport: Transport, arguments: &[&str]) -> Value {
    let output = finish(start(broker, transport, arguments)).await;
    let report = report(&output);
    assert!(output.status.success(), "{report:#}\n{}", String::from_utf8_lossy(&output.stderr));
    report
}

fn numbers<const N: usize>(report: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report:#}")))
}

const LOSSES: [&str; 5] = ["missing", "duplicates", "out_of_order", "unsequenced", "failed"];

over_every_transport!(pairs_lose_nothing, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let report = bench(&broker, transport, &["pair", "-c", "2", "-q", "1", "--count", "50"]).await;
    assert_eq!(numbers(&report, ["sent", "acknowledged", "expected", "received"]), [100; 4]);
    assert_eq!(numbers(&report, LOSSES), [0; 5]);
});

over_every_transport!(connections_are_counted, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let report = bench(&broker, transport, &["conn", "-c", "2", "--count", "7"]).await;
    assert_eq!(numbers(&report, ["connections", "failed"]), [7, 0]);
});

#[tokio::test]
async fn subscribers_follow_publishers_of_another_process() {
    let broker = TestBroker::start().await;
    let subscribe = ["sub", "-t", "load/#", "-c", "2", "-q", "1", "--count", "120", "--duration", "60s"];
    let subscribers = start(&broker, Transport::Tcp, &subscribe);
    let subscribed = async {
        while broker.server.broker().subscription_count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, subscribed).await.expect("both subscribe");
    let publish = ["pub", "-t", "load/%i", "-c", "3", "-q", "1", "--count", "20"];
    let published = bench(&broker, Transport::Tcp, &publish).await;
    assert_eq!(numbers(&published, ["sent", "acknowledged", "received", "failed"]), [60, 60, 0, 0]);
    let output = finish(subscribers).await;
    let received = report(&output);
    assert!(output.status.success(), "{received:#}");
    assert_eq!(numbers(&received, ["received", "sent"]), [120, 0]);
    assert_eq!(numbers(&received, LOSSES), [0; 5]);
    assert_eq!(received["delivery"]["count"], 0, "the clock of another process is no use");
}

#[tokio::test]
async fn fan_out_and_fan_in_deliver_everything() {
    let broker = TestBroker::start().await;
    let fanout = ["fanout", "--publishers", "2", "--subscribers", "5", "-q", "1", "--count", "20", "-V", "5"];
    let report = bench(&broker, Transport::Tcp, &fanout).await;
    assert_eq!(numbers(&report, ["sent", "expected", "received", "missing"]), [40, 200, 200, 0]);
    let fanin = ["fanin", "--publishers", "5", "--subscribers", "2", "-q", "2", "--count", "20"];
    let report = bench(&broker, Transport::Tcp, &fanin).await;
    assert_eq!(numbers(&report, ["sent", "expected", "received", "missing"]), [100, 200, 200, 0]);
}

#[tokio::test]
async fn idle_connections_are_opened_and_weighed() {
    let broker = TestBroker::start().await;
    let pid = std::process::id().to_string();
    let report = bench(&broker, Transport::Tcp, &["idle", "-c", "50", "--pid", &pid, "--duration", "100ms"]).await;
    assert_eq!(numbers(&report, ["open", "ended", "failed"]), [50, 0, 0]);
    assert!(report["kib_per_connection"].is_number(), "{report:#}");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_what_was_measured() {
    let broker = TestBroker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe("bench/#", 0).await;
    let child = start(&broker, Transport::Tcp, &["pair", "-c", "1", "-q", "1", "--rate", "50", "--duration", "60m"]);
    let _first = timeout(LIMIT, witness.recv_publish()).await.expect("a message comes");
    let pid = child.id().unwrap().to_string();
    // The shell has a kill of its own; the program of that name is not on every machine.
    assert!(Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status().await.unwrap().success());
    let output = finish(child).await;
    let report = report(&output);
    let [sent, received] = numbers(&report, ["sent", "received"]);
    assert!(sent > 0 && sent == received, "{report:#}");
    assert!(output.status.success());
}

#[tokio::test]
async fn refused_clients_are_named_with_their_reason() {
    let broker = Setup::new().auth("allow_anonymous = false").start().await;
    let output = finish(start(&broker, Transport::Tcp, &["pair", "-c", "3", "--count", "1"])).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("3 of 3 clients could not connect: the server refused the connection"), "{error}");
}

const SECURED: [Transport; 4] = [Transport::Tls12, Transport::Tls13, Transport::Rfc8998, Transport::Tlcp];

// A client of TLS 1.3 has finished before the server looks at its certificate, and every handshake that was refused counted as done.
#[tokio::test]
async fn handshakes_that_the_server_refuses_do_not_count() {
    let broker = Setup::new().secured().secured_by(Secured::mutual()).start().await;
    for transport in SECURED {
        for more in [&[][..], &["--mqtt"]] {
            let arguments = [&["handshake", "-c", "2", "--count", "5"], more].concat();
            let output = finish(start(&broker, transport, &arguments)).await;
            assert!(!output.status.success(), "{transport:?}");
            let report = report(&output);
            assert_eq!(numbers(&report, ["handshakes", "failed"]), [0, 5], "{transport:?}: {report:#}");
            let failure = &report["failures"]["handshake: no_certificate"];
            assert_eq!(failure["count"], 5, "{transport:?}: {report:#}");
            let example = failure["example"].as_str().unwrap();
            assert!(example.contains("the server asks for a client certificate: give --"), "{transport:?}: {example}");
        }
    }
}

// What is known of a certificate only after the handshake, since a list has to be fetched, came too late for every handshake.
#[tokio::test]
async fn clients_that_are_not_let_in_when_the_handshake_is_over_are_not_measured() {
    for transport in SECURED {
        let world = World::new(transport).await;
        world.service.set(CRL, Behaviour::Status(404));
        let client = world.client(transport);
        let mut shown = client.files(&world);
        shown.extend(["--connect-timeout", "20"].map(str::to_owned));
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        let broker = world.broker("crl = { mode = \"hard-fail\" }").await;
        let output = finish(start(&broker, transport, &[&["handshake", "--count", "5"], &shown[..]].concat())).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{transport:?}: {error}");
        assert!(error.contains("ends the connection without an answer to CONNECT"), "{transport:?}: {error}");
        let soft = world.broker("crl = { mode = \"soft-fail\" }").await;
        let report = bench(&soft, transport, &[&["handshake", "-c", "2", "--count", "5"], &shown[..]].concat()).await;
        assert_eq!(numbers(&report, ["handshakes", "failed"]), [5, 0], "{transport:?}: {report:#}");
    }
}

// Silence was taken for consent after a second, over TLS 1.2 and TLCP at once.
#[tokio::test]
async fn a_server_that_says_nothing_after_the_handshake_has_not_taken_it() {
    for transport in SECURED {
        let contexts = https(transport.protocol().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = async {
            let (socket, _) = listener.accept().await.unwrap();
            let _held = accept(&contexts, socket).await.unwrap();
            std::future::pending::<Output>().await
        };
        let arguments = ["handshake", "-c", "1", "--count", "1", "--connect-timeout", "1"];
        let run = command_to(listener.local_addr().unwrap().port(), transport, &arguments).spawn().unwrap();
        let output = tokio::select! {
            output = finish(run) => output,
            output = silent => output,
        };
        let report = report(&output);
        assert_eq!(numbers(&report, ["handshakes", "failed"]), [0, 1], "{transport:?}: {report:#}");
        assert_eq!(report["failures"]["timeout after the handshake"]["count"], 1, "{transport:?}: {report:#}");
    }
}

#[tokio::test]
async fn handshakes_that_the_server_takes_count() {
    let broker = Setup::new().secured().start().await;
    for transport in SECURED {
        let report = bench(&broker, transport, &["handshake", "-c", "2", "--count", "5"]).await;
        assert_eq!(numbers(&report, ["handshakes", "failed"]), [5, 0], "{transport:?}: {report:#}");
    }
}

// A script that looked at the exit code took a server for good that had refused half of its clients.
#[tokio::test]
async fn a_handshake_that_failed_among_others_makes_the_run_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = to_port(listener.local_addr().unwrap().port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_shangmq"));
    command.args(["bench", "handshake", "--mqtt", "-c", "1", "--count", "2"]).args(to).kill_on_drop(true);
    let bench = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let serve = async {
        let (mut accepted, _) = listener.accept().await.unwrap();
        // The CONNACK of MQTT 5 that accepts, without properties.
        accepted.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        let mut said = Vec::new();
        accepted.read_to_end(&mut said).await.unwrap();
        drop(accepted);
        drop(listener.accept().await.unwrap());
    };
    let (output, ()) = tokio::join!(finish(bench), serve);
    let report = report(&output);
    assert_eq!(numbers(&report, ["handshakes", "failed"]), [1, 1], "{report:#}");
    assert_eq!(output.status.code(), Some(1));
}

// A server that gives no session was waited for a second in every connection, and the rate that came of it was told as if it were one.
#[tokio::test]
async fn a_server_that_resumes_nothing_is_not_measured_for_resumption() {
    let broker = Setup::new().secured().start().await;
    for transport in SECURED {
        for more in [&[][..], &["--mqtt"]] {
            let arguments = [&["handshake", "-c", "1", "--resume", "--count", "1000000"], more].concat();
            let output = finish(start(&broker, transport, &arguments)).await;
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && output.stdout.is_empty(), "{transport:?}");
            assert!(error.contains("--resume: the server gives no session"), "{transport:?}: {error}");
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed_where_the_server_gives_some() {
    let others = "session_tickets = \"stateless\"\n".to_owned();
    let secured = Secured { others, tlcp: "reuse_sessions = true\n".to_owned(), ..Secured::default() };
    let broker = Setup::new().secured().secured_by(secured).start().await;
    for transport in SECURED {
        for more in [&[][..], &["--mqtt"]] {
            let arguments = [&["handshake", "-c", "2", "--resume", "--count", "20"], more].concat();
            let report = bench(&broker, transport, &arguments).await;
            assert_eq!(numbers(&report, ["handshakes", "failed", "without_session"]), [20, 0, 0], "{report:#}");
            let resumed = report["resumed"]["count"].as_u64().unwrap();
            assert_eq!(resumed, 18, "{transport:?}: {report:#}");
        }
    }
}

// The cause of a lost connection was told twice in a line.
#[tokio::test]
async fn a_cause_is_told_once() {
    let broker = Setup::new().secured().secured_by(Secured::mutual()).start().await;
    let output = finish(start(&broker, Transport::Tls13, &["pair", "-c", "1", "--count", "1"])).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error.matches("certificate_required").count(), 1, "{error}");
    assert!(error.contains("give --cert and --key"), "{error}");
}
