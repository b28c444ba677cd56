//! Handshakes that never end: they keep others waiting neither for a processor nor, from another address, for a place.

use std::time::Duration;

use shangmq::net::handshake_runtime;
use testkit::{Client, Transport, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker, certificates, eventually};

const SECURED: [Transport; 4] = [Transport::Tls12, Transport::Tls13, Transport::Rfc8998, Transport::Tlcp];

/// A handshake that was begun, as far as the server's answer, and is not continued.
async fn stall(broker: &TestBroker, transport: Transport, proxy: &str) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address(transport)).await.unwrap();
    stream.write_all(proxy.as_bytes()).await.unwrap();
    stream.write_all(&transport.hello(certificates()).await).await.unwrap();
    let mut first = [0];
    let answer = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut first));
    answer.await.expect("an answer to the hello").unwrap();
    stream
}

// A permit was held for the whole handshake, every wait for the peer included: 256 clients that sent a hello and nothing else kept
// all others out of the listener until handshake_timeout.
#[tokio::test]
async fn a_stalled_handshake_keeps_no_other_waiting() {
    let broker =
        Setup::new().secured().listener("max_concurrent_handshakes = 1\nhandshake_timeout = \"10m\"").start().await;
    let mut stalled = Vec::new();
    for transport in SECURED {
        // The second of them is answered although the first goes on holding whatever it holds.
        stalled.push(stall(&broker, transport, "").await);
    }
    for transport in SECURED {
        broker.connect_over(transport, connect("c")).await.ping().await;
    }
}

#[tokio::test]
async fn handshakes_of_one_address_wait_for_each_other_and_no_other_for_them() {
    let lines = "max_handshakes_per_address = 2\nproxy_protocol = true\nproxy_protocol_trusted = [\"127.0.0.1\"]";
    let broker = Setup::new().secured().listener(lines).start().await;
    let (crowded, quiet) = ("PROXY TCP4 192.0.2.1 192.0.2.9 1 1\r\n", "PROXY TCP4 192.0.2.2 192.0.2.9 1 1\r\n");
    let open = async |proxy: &str| {
        let mut stream = TcpStream::connect(broker.address(Transport::Tls13)).await.unwrap();
        stream.write_all(proxy.as_bytes()).await.unwrap();
        let mut client = Client::new(Transport::Tls13.open_on(stream, certificates()).await);
        client.connect(connect("c")).await;
    };
    let first = stall(&broker, Transport::Tls13, crowded).await;
    let _second = stall(&broker, Transport::Tlcp, crowded).await;
    // Behind the load balancer it is the client's address that counts.
    open(quiet).await;
    let waited = || broker.sample("shangmq_limits_hit_total{limit=\"max_handshakes_per_address\"}");
    assert_eq!(waited(), 0);
    let goes = async {
        eventually("the third handshake waits", || waited() == 1).await;
        drop(first);
    };
    tokio::join!(open(crowded), goes);
}

// Messages of established clients waited behind handshakes, in one queue for all.
#[tokio::test]
async fn an_established_connection_needs_nothing_of_the_threads_of_handshakes() {
    let handshakes = handshake_runtime().unwrap();
    let broker = Setup::new().every_transport().start_with(handshakes.handle()).await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(broker.connect_over(transport, connect(transport.name())).await);
    }
    // Whatever is left there ends now.
    handshakes.shutdown_background();
    for client in &mut clients {
        client.ping().await;
    }
    let mut plain = broker.client("another").await;
    plain.ping().await;
}
