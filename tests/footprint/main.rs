//! What an idle connection costs the process of the broker, by protocol: the real binary, 2,000 connections of each kind, and its
//! proportional set size as the kernel counts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod broker;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use shangmq::dev_certs::{self, DevCerts};
use shangmq::net::websocket;
use testkit::{Client, ConnectExt, Dialer, Transport, connect};
use tokio::task::JoinSet;

/// Connections whose growth is measured.
const CONNECTIONS: usize = 2000;
/// Connections before that: what the first ones leave in the allocator, the library and the runtime is no connection's own.
const WARM_UP: usize = 300;
/// Connections that are opened at once.
const AT_ONCE: usize = 16;
/// Bytes that the record layer of an installed Tongsuo takes more than that of our recipe (vendor/README.md).
const WIDE_RECORD_LAYER: u64 = if option_env!("TONGSUO_NO_VENDOR").is_some() { 10 * KIB } else { 0 };
const KIB: u64 = 1024;
const PLAIN: u64 = 4 * KIB;
/// A WebSocket holds a read buffer of 4 KiB besides.
const WEBSOCKET: u64 = 10 * KIB;
const SECURED: u64 = 20 * KIB + WIDE_RECORD_LAYER;

struct Kind {
    name: &'static str,
    transport: Transport,
    mutual: bool,
    /// Bytes that a connection may cost.
    ceiling: u64,
}

const fn kind(name: &'static str, transport: Transport, mutual: bool, ceiling: u64) -> Kind {
    Kind { name, transport, mutual, ceiling }
}

const KINDS: [Kind; 11] = [
    kind("plain", Transport::Tcp, false, PLAIN),
    kind("ws", Transport::Ws, false, WEBSOCKET),
    kind("tls1.2", Transport::Tls12, false, SECURED),
    kind("tls1.3", Transport::Tls13, false, SECURED),
    kind("rfc8998", Transport::Rfc8998, false, SECURED),
    kind("tlcp", Transport::Tlcp, false, SECURED),
    kind("tls1.2 mutual", Transport::Tls12, true, SECURED),
    kind("tls1.3 mutual", Transport::Tls13, true, SECURED),
    kind("rfc8998 mutual", Transport::Rfc8998, true, SECURED),
    kind("tlcp mutual", Transport::Tlcp, true, SECURED),
    kind("wss over tlcp", Transport::WssTlcp, false, WEBSOCKET + SECURED),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_stays_below_its_ceiling_in_the_broker_process() {
    let needed = (WARM_UP + CONNECTIONS + 100) as u64;
    let limit = rlimit::increase_nofile_limit(needed).unwrap();
    assert!(limit >= needed, "this test needs {needed} file descriptors, and the hard limit is {limit} (ulimit -Hn)");
    let certificates = dev_certs::ensure(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("development-certificates"));
    let certificates = certificates.unwrap();
    let mut failures = Vec::new();
    for kind in &KINDS {
        let each = measure(kind, &certificates).await;
        say(&format!("{:<16} {:>5.1} KiB for an idle connection", kind.name, each as f64 / KIB as f64));
        if each > kind.ceiling {
            failures.push(format!("{}: {each} bytes, more than {}", kind.name, kind.ceiling));
        }
    }
    assert!(failures.is_empty(), "an idle connection costs too much:\n{}", failures.join("\n"));
}

/// Bytes that each of [`CONNECTIONS`] idle connections adds to a broker of its own.
async fn measure(kind: &Kind, certificates: &DevCerts) -> u64 {
    let (broker, address) = broker::start(kind.transport.listener(), kind.mutual, certificates).await;
    let dialer = kind.transport.dialer(certificates, kind.mutual);
    let mut idle = open(kind, &dialer, address, 0..WARM_UP).await;
    let before = broker.proportional_set_size();
    idle.extend(open(kind, &dialer, address, WARM_UP..WARM_UP + CONNECTIONS).await);
    let after = broker.proportional_set_size();
    drop(idle);
    after.saturating_sub(before) / CONNECTIONS as u64
}

/// Clients that have connected, subscribed, and had the answer to a ping, after which the broker has nothing to do for them.
async fn open(kind: &Kind, dialer: &Dialer, address: SocketAddr, numbers: std::ops::Range<usize>) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut opening = JoinSet::new();
    for number in numbers {
        if opening.len() == AT_ONCE {
            clients.push(opening.join_next().await.unwrap().unwrap());
        }
        let (dialer, websocket) = (dialer.clone(), kind.transport.is_websocket());
        opening.spawn(async move {
            let mut client = client(&dialer, address, websocket).await;
            client.connect(connect(&format!("device-{number:08}")).keep_alive(600)).await;
            client.subscribe(&format!("devices/{number:08}/commands"), 1).await;
            client.ping().await;
            client
        });
    }
    clients.extend(opening.join_all().await);
    clients
}

async fn client(dialer: &Dialer, address: SocketAddr, websocket: bool) -> Client {
    let stream = dialer.open(address).await;
    if !websocket {
        return Client::new(stream);
    }
    let stream = websocket::connect(stream, "localhost", websocket::DEFAULT_PATH, 1 << 20).await.unwrap();
    Client::new(Box::new(stream))
}

/// Prints at once, whether or not the test runner shows the output of tests that pass.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
