//! Peers that stall, and peers that are too many: each step has its deadline, each listener its bounds, and what they held comes back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::raw::{Ending, HANDSHAKE, RawHello, RawPeer, TLCP, record};
use testkit::{Client, Transport, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::broker::{Secured, Setup};
use crate::hostile::{Scene, until};

const DEADLINE: Duration = Duration::from_millis(300);
/// Longer than the deadline of the step under test, on however busy a machine.
const OTHER_DEADLINE: &str = "60s";

fn keys(handshake: &str, connect: &str) -> Secured {
    let keys = format!("handshake_timeout = \"{handshake}\"\nconnect_timeout = \"{connect}\"\n");
    Secured { keys, ..Secured::default() }
}

/// The peer's connection ends, not before its deadline.
async fn ends_at_the_deadline(stream: &mut (impl tokio::io::AsyncRead + Unpin), started: Instant) {
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
    read.expect("the broker ends the connection").expect("in an orderly way");
    assert!(started.elapsed() >= DEADLINE, "ended after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_peer_that_is_silent_on_a_secured_port_ends_at_the_handshakes_deadline() {
    let mut scene = Scene::secured(keys("300ms", OTHER_DEADLINE)).await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(scene.broker.address(Transport::Tlcp)).await.unwrap();
    ends_at_the_deadline(&mut stream, started).await;
    scene.expect_refusals(1, "handshake_timeout", "unknown").await;
}

#[tokio::test]
async fn a_peer_that_stops_after_one_byte_ends_at_the_handshakes_deadline() {
    let mut scene = Scene::secured(keys("300ms", OTHER_DEADLINE)).await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(scene.broker.address(Transport::Tlcp)).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    ends_at_the_deadline(&mut stream, started).await;
    scene.expect_refusals(1, "handshake_timeout", "unknown").await;
}

#[tokio::test]
async fn a_peer_that_stops_after_its_hello_ends_at_the_handshakes_deadline() {
    for (hello, protocol) in [(RawHello::tlcp(), "tlcp"), (RawHello::tls12(), "tls")] {
        let mut scene = Scene::secured(keys("300ms", OTHER_DEADLINE)).await;
        let started = Instant::now();
        let mut stream = TcpStream::connect(scene.broker.address(Transport::Tlcp)).await.unwrap();
        stream.write_all(&hello.wire()).await.unwrap();
        ends_at_the_deadline(&mut stream, started).await;
        scene.expect_refusals(1, "handshake_timeout", protocol).await;
    }
}

#[tokio::test]
async fn a_peer_that_waits_in_a_later_record_ends_at_the_handshakes_deadline() {
    // The library would wait for ever for the rest of such a record.
    let mut scene = Scene::secured(keys("300ms", OTHER_DEADLINE)).await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(scene.broker.address(Transport::Tlcp)).await.unwrap();
    stream.write_all(&[RawHello::tlcp().wire(), record(HANDSHAKE, TLCP, &[])].concat()).await.unwrap();
    ends_at_the_deadline(&mut stream, started).await;
    scene.expect_refusals(1, "handshake_timeout", "tlcp").await;
}

#[tokio::test]
async fn a_client_that_never_sends_connect_ends_at_the_deadline_for_connect() {
    for transport in [Transport::Tlcp, Transport::Tls12, Transport::Tls13, Transport::Rfc8998] {
        let mut scene = Scene::secured(keys(OTHER_DEADLINE, "300ms")).await;
        let started = Instant::now();
        let mut client = scene.broker.open(transport).await;
        client.expect_closed().await;
        assert!(started.elapsed() >= DEADLINE);
        until("its connection has ended", || scene.open() == 0).await;
        assert_eq!((scene.counters.completed_handshakes(), scene.counters.all_refusals()), (1, 0));
        scene.bystander_is_unharmed().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_silent_on_a_plain_port_ends_at_the_deadline_for_connect() {
    for (kind, transport) in [("tcp", Transport::Tcp), ("ws", Transport::Ws)] {
        let broker = Setup::new().listeners(&[kind]).listener("connect_timeout = \"300ms\"").start().await;
        let counters = broker.counters(kind);
        for first in [&b""[..], &[0x10], &b"GET"[..]] {
            let started = Instant::now();
            let mut stream = TcpStream::connect(broker.address(transport)).await.unwrap();
            stream.write_all(first).await.unwrap();
            if kind == "tcp" && first == b"GET" {
                continue;
            }
            ends_at_the_deadline(&mut stream, started).await;
        }
        until("the connections have ended", || counters.connections.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test]
async fn a_proxy_that_sends_no_header_ends_at_its_deadline() {
    let keys = [
        "proxy_protocol = true",
        "proxy_protocol_trusted = [\"127.0.0.0/8\"]",
        "proxy_protocol_timeout = \"300ms\"",
        "connect_timeout = \"60s\"",
    ];
    let setup = keys.iter().fold(Setup::new(), |setup, key| setup.listener(key));
    let broker = setup.start().await;
    let counters = broker.counters("tcp");
    for first in [&b""[..], b"PROXY TCP4 ", &b"\r\n\r\n\0\r\nQUIT\n\x21"[..]] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
        stream.write_all(first).await.unwrap();
        ends_at_the_deadline(&mut stream, started).await;
    }
    until("the connections have ended", || counters.connections.load(Ordering::Relaxed) == 0).await;
    assert_eq!(counters.refusals("proxy_timeout", "unknown"), 3);
    assert_eq!(broker.server.metrics().limit_hits("proxy_protocol_timeout"), 3);
}

#[tokio::test]
async fn a_full_listener_closes_the_next_connection_and_has_room_again_later() {
    let keys = "max_connections = 2\n".to_owned();
    let mut scene = Scene::secured(Secured { keys, ..Secured::default() }).await;
    let first = scene.broker.connect_over(Transport::Tlcp, connect("first")).await;
    let mut second = scene.broker.connect_over(Transport::Tls13, connect("second")).await;
    for refused in 1..=3 {
        let mut third = scene.peer().await;
        third.send(&RawHello::tlcp().wire()).await;
        // Closed when it was accepted: nothing of it is read, so that the close may be a reset.
        assert!(is_cut_off(scene.broker.address(Transport::Tlcp)).await);
        drop(third);
        until("it is counted", || scene.counters.refused_full.load(Ordering::Relaxed) == 2 * refused).await;
    }
    assert_eq!(scene.broker.server.metrics().limit_hits("max_connections"), 6);
    assert_eq!(scene.open(), 2);
    second.ping().await;
    scene.bystander_is_unharmed().await;
    first.disconnect().await;
    until("its place is free", || scene.open() == 1).await;
    let mut next = scene.broker.connect_over(Transport::Tlcp, connect("next")).await;
    next.ping().await;
}

/// Whether a connection is closed, or reset, without a byte.
async fn is_cut_off(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let read = timeout(Duration::from_secs(20), stream.read(&mut [0; 8])).await.expect("it is closed");
    matches!(read, Ok(0)) || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn stalled_handshakes_are_bounded_and_honest_clients_get_in_after_them() {
    const STALLED: usize = 6;
    let keys = "max_handshakes_per_address = 2\nhandshake_timeout = \"2s\"\n".to_owned();
    let mut scene = Scene::secured(Secured { keys, ..Secured::default() }).await;
    let address = scene.broker.address(Transport::Tlcp);
    let mut begun = Vec::new();
    for _ in 0..2 {
        let mut peer = RawPeer::connect(address).await;
        peer.send(&RawHello::tlcp().wire()).await;
        peer.expect_server_hello().await;
        begun.push(peer);
    }
    let mut waiting = Vec::new();
    for _ in 2..STALLED {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&RawHello::tlcp().wire()).await.unwrap();
        waiting.push(stream);
    }
    until("all are accepted", || scene.open() == STALLED as i64).await;
    // They wait for the first two, however long those stall: no handshake beyond the bound is begun.
    for stream in &mut waiting {
        let early = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "a third handshake began: {early:?}");
    }
    let mut honest: Client = scene.broker.connect_over(Transport::Tlcp, connect("honest")).await;
    honest.ping().await;
    assert_eq!(scene.counters.completed_handshakes(), 1);
    scene.bystander_is_unharmed().await;
    for mut peer in begun {
        assert_eq!(peer.ending().await, Ending::Silence);
    }
    until("only the honest client is left", || scene.open() == 1).await;
    let metrics = scene.broker.server.metrics();
    assert_eq!(metrics.limit_hits("handshake_timeout"), STALLED as u64);
    // Those that had to wait: all but the first two, and the honest one.
    assert_eq!(metrics.limit_hits("max_handshakes_per_address"), STALLED as u64 - 1);
    // The hello of one that waits for its turn is not read.
    let timeouts = ["tlcp", "unknown"].map(|protocol| scene.counters.refusals("handshake_timeout", protocol));
    assert_eq!(timeouts.iter().sum::<u64>(), STALLED as u64);
}
