//! What attackers have in common: sockets that are told nothing, and packets written without waiting.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_codec::{Encode, Packet, ProtocolVersion};
use testkit::{Client, Connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Allows as many sockets as an attack needs.
pub fn allow_descriptors(count: u64) {
    let limit = rlimit::increase_nofile_limit(count + 200).unwrap();
    assert!(limit >= count, "this test needs {count} file descriptors, and the hard limit is {limit} (ulimit -Hn)");
}

pub async fn socket(address: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(address)).await.expect("the listener accepts").expect("the listener accepts")
}

/// An attacker whose CONNECT was accepted.
pub async fn client(address: SocketAddr, packet: Connect) -> Client<TcpStream> {
    let mut client = Client::new(socket(address).await).with_patience(PATIENCE);
    client.connect(packet).await;
    client
}

/// Does `attack` once for each number, at most `at_once` at a time.
pub async fn many<T: Send + 'static, F>(count: usize, at_once: usize, attack: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    for number in 0..count {
        if running.len() == at_once {
            done.push(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(attack(number));
    }
    while let Some(result) = running.join_next().await {
        done.push(result.unwrap());
    }
    done
}

pub fn bytes(packet: impl Into<Packet>) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.into().encode(ProtocolVersion::V5, &mut bytes).unwrap();
    bytes
}

/// Writes `data` as often as the broker takes it, at most `times`; how often it did.
pub async fn pour(stream: &mut TcpStream, data: &[u8], times: usize) -> usize {
    for done in 0..times {
        match timeout(Duration::from_secs(5), stream.write_all(data)).await {
            Ok(Ok(())) => {}
            // The broker has closed the connection, or reads no more.
            _ => return done,
        }
    }
    times
}

/// Reads whatever comes until the broker closes the connection.
pub async fn until_closed(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let end = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
                Ok(_) => {}
            }
        }
    };
    timeout(PATIENCE, end).await.expect("the broker closes the connection");
}
