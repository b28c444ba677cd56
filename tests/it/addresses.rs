//! What one address may have of a listener. Addresses are those of PROXY headers here, as behind a load balancer.

use testkit::{Client, Transport, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker, eventually};

fn setup(limit: &str) -> Setup {
    Setup::new().listener(&format!("{limit}\nproxy_protocol = true\nproxy_protocol_trusted = [\"127.0.0.1\"]"))
}

async fn open(broker: &TestBroker, from: &str) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
    stream.write_all(format!("PROXY TCP4 {from} 192.0.2.9 1 1\r\n").as_bytes()).await.unwrap();
    stream
}

async fn client(broker: &TestBroker, from: &str, id: &str) -> Client<TcpStream> {
    let mut client = Client::new(open(broker, from).await);
    client.connect(connect(id)).await;
    client
}

fn refused(broker: &TestBroker, limit: &str) -> u64 {
    let counted = broker.sample(&format!("shangmq_limits_hit_total{{limit=\"{limit}\"}}"));
    let of_listener = format!(
        "shangmq_connections_refused_total{{listener=\"tcp:default\",reason=\"{limit}\",protocol=\"unknown\"}}"
    );
    assert_eq!(counted, broker.sample(&of_listener));
    counted
}

// One host could take every connection of a listener.
#[tokio::test]
async fn an_address_has_its_share_of_the_connections() {
    let limit = "max_connections_per_address";
    let broker = setup(&format!("{limit} = 2")).start().await;
    let first = client(&broker, "192.0.2.1", "a").await;
    let mut second = client(&broker, "192.0.2.1", "b").await;
    assert_eq!(open(&broker, "192.0.2.1").await.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(refused(&broker, limit), 1);
    client(&broker, "192.0.2.2", "c").await.ping().await;
    // A place is free again when its connection has ended.
    first.disconnect().await;
    let open = || broker.sample("shangmq_connections{listener=\"tcp:default\"}");
    eventually("one connection is left", || open() == 1).await;
    client(&broker, "192.0.2.1", "a").await.ping().await;
    second.ping().await;
    assert_eq!(refused(&broker, limit), 1);
}

#[tokio::test]
async fn an_address_opens_only_so_many_connections_in_a_second() {
    let limit = "max_connection_rate_per_address";
    let broker = setup(&format!("{limit} = 1")).start().await;
    let mut held = Vec::new();
    // However slow the machine, of twenty in a row two come within a second.
    for _ in 0..20 {
        held.push(open(&broker, "192.0.2.1").await);
    }
    eventually("some are refused", || refused(&broker, limit) >= 1).await;
    client(&broker, "192.0.2.2", "c").await.ping().await;
}
