//! Clients that are connected: pairs that exchange messages at a fixed rate. A message that is sent late is late from the moment at which it was
//! due, so that what a stalled broker delays is not left out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gm_tls::client::Connector;
use testkit::{AnyStream, Client, PublishExt, connect, publish};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pairs of each kind.
const PAIRS: usize = 20;
/// Between two messages of a publisher.
const PACE: Duration = Duration::from_millis(40);
/// A timer may be late by so much.
const TICK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A message: when it was sent, since the epoch of the measurement, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub sent: Duration,
    pub took: Duration,
}

/// What was received over plain connections and over TLCP.
#[derive(Debug, Default)]
pub struct Samples {
    pub plain: Vec<Sample>,
    pub tlcp: Vec<Sample>,
}

/// Runs on a thread of its own.
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

impl Steady {
    pub fn start(plain: SocketAddr, secured: SocketAddr, connector: Connector, epoch: Instant) -> Steady {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(exchange(plain, secured, connector, epoch, stopped))
        });
        Steady { stop, thread }
    }

    pub fn stop(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("established clients stay connected")
    }
}

async fn exchange(
    plain: SocketAddr,
    secured: SocketAddr,
    connector: Connector,
    epoch: Instant,
    stop: Arc<AtomicBool>,
) -> Samples {
    let found = Arc::new(Mutex::new(Samples::default()));
    let mut publishers = JoinSet::new();
    let mut subscribers = JoinSet::new();
    for number in 0..2 * PAIRS {
        let tlcp = number % 2 == 1;
        let open = async || -> Client {
            let stream = TcpStream::connect(if tlcp { secured } else { plain }).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let stream: AnyStream =
                if tlcp { Box::new(connector.connect(stream).await.unwrap()) } else { Box::new(stream) };
            Client::new(stream).with_patience(PATIENCE)
        };
        let topic = format!("steady/{number}");
        let (mut publisher, mut subscriber) = (open().await, open().await);
        subscriber.connect(connect(&format!("subscriber-{number}"))).await;
        subscriber.subscribe(&topic, 1).await;
        publisher.connect(connect(&format!("publisher-{number}"))).await;
        let shift = PACE * u32::try_from(number).unwrap() / (2 * PAIRS) as u32;
        publishers.spawn(sing(publisher, topic, epoch, Instant::now() + shift, Arc::clone(&stop)));
        let found = Arc::clone(&found);
        subscribers.spawn(async move {
            loop {
                let message = subscriber.recv_publish().await;
                let sent = Duration::from_nanos(u64::from_be_bytes(message.payload[..].try_into().unwrap()));
                let sample = Sample { sent, took: epoch.elapsed().saturating_sub(sent) };
                {
                    let mut found = found.lock().unwrap();
                    if tlcp { &mut found.tlcp } else { &mut found.plain }.push(sample);
                }
                subscriber.acknowledge(&message).await;
            }
        });
    }
    let mut sent = 0;
    while let Some(count) = publishers.join_next().await {
        sent += count.expect("the broker takes messages");
    }
    let all_here = async {
        loop {
            let received = {
                let found = found.lock().unwrap();
                found.plain.len() + found.tlcp.len()
            };
            if received == sent {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_here).await.expect("no message is lost");
    subscribers.shutdown().await;
    std::mem::take(&mut *found.lock().unwrap())
}

async fn sing(mut client: Client, topic: String, epoch: Instant, begin: Instant, stop: Arc<AtomicBool>) -> usize {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return number as usize;
        }
        let due = begin + PACE * number;
        sleep_until(due).await;
        let now = Instant::now();
        let sent = if now - due > TICK { due } else { now };
        let stamp = u64::try_from((sent - epoch).as_nanos()).unwrap();
        let id = (number % 60_000) as u16 + 1;
        client.publish(publish(&topic, 1, stamp.to_be_bytes().to_vec()).id(id)).await;
    }
    unreachable!("it is told to stop before numbers run out")
}
