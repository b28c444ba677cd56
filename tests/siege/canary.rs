//! An honest pair of clients: 100 messages a second with QoS 1, each stamped with the moment it was sent.

use std::net::SocketAddr;
use std::time::Duration;

use mqtt_codec::Packet;
use testkit::{Client, PublishExt, connect, packet_id, puback, publish};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const PACE: Duration = Duration::from_millis(10);
const TOPIC: &str = "canary/song";

pub struct Canary {
    stop: oneshot::Sender<()>,
    publisher: JoinHandle<u64>,
    subscriber: JoinHandle<(Client<TcpStream>, Vec<Duration>)>,
    watcher: oneshot::Sender<u64>,
}

pub struct Report {
    pub received: usize,
    pub lost: u64,
    pub p99: Duration,
    pub slowest: Duration,
}

impl Canary {
    pub async fn start(address: SocketAddr) -> Canary {
        let mut subscriber = open(address).await;
        subscriber.connect(connect("canary-subscriber")).await;
        subscriber.subscribe(TOPIC, 1).await;
        let mut publisher = open(address).await;
        publisher.connect(connect("canary-publisher")).await;
        let (stop, stopped) = oneshot::channel();
        let (watcher, total) = oneshot::channel();
        let epoch = Instant::now();
        Canary {
            stop,
            publisher: tokio::spawn(sing(publisher, epoch, stopped)),
            subscriber: tokio::spawn(listen(subscriber, epoch, total)),
            watcher,
        }
    }

    pub async fn stop(self) -> Report {
        // The singer may have failed, which is reported by its join.
        let _ = self.stop.send(());
        let sent = self.publisher.await.expect("the canary sings to the end");
        let _ = self.watcher.send(sent);
        let (_client, mut latencies) = self.subscriber.await.expect("the canary is heard to the end");
        latencies.sort_unstable();
        let p99 = latencies.len() * 99 / 100;
        Report {
            received: latencies.len(),
            lost: sent - latencies.len() as u64,
            p99: latencies.get(p99).copied().unwrap_or_default(),
            slowest: latencies.last().copied().unwrap_or_default(),
        }
    }
}

async fn open(address: SocketAddr) -> Client<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("the broker takes honest clients");
    stream.set_nodelay(true).unwrap();
    Client::new(stream).with_patience(Duration::from_secs(60))
}

async fn sing(mut client: Client<TcpStream>, epoch: Instant, mut stop: oneshot::Receiver<()>) -> u64 {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0u64;
    loop {
        tokio::select! {
            _ = pace.tick() => {}
            _ = &mut stop => return sent,
        }
        let stamp = epoch.elapsed().as_nanos() as u64;
        let id = (sent % 60_000) as u16 + 1;
        client.publish(publish(TOPIC, 1, stamp.to_be_bytes().to_vec()).id(id)).await;
        sent += 1;
    }
}

async fn listen(
    mut client: Client<TcpStream>,
    epoch: Instant,
    mut total: oneshot::Receiver<u64>,
) -> (Client<TcpStream>, Vec<Duration>) {
    let mut latencies = Vec::new();
    let mut expected = None;
    while expected.is_none_or(|total| (latencies.len() as u64) < total) {
        tokio::select! {
            sent = &mut total, if expected.is_none() => expected = sent.ok(),
            packet = client.recv() => {
                let Packet::Publish(message) = packet else { panic!("the canary heard {packet:?}") };
                let sent = u64::from_be_bytes(message.payload[..].try_into().unwrap());
                latencies.push(epoch.elapsed() - Duration::from_nanos(sent));
                let id = message.packet_id.unwrap_or(packet_id(1));
                timeout(Duration::from_secs(60), client.send(puback(id.get()))).await.expect("the broker reads");
            }
        }
    }
    (client, latencies)
}
