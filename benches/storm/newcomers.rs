//! Honest clients that come one after the other, complete a handshake of TLCP and a CONNECT, and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gm_tls::client::Connector;
use testkit::{Client, connect};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::{HONEST, dial};

const PACE: Duration = Duration::from_millis(50);
/// As long as the broker lets a handshake take by default.
const PATIENCE: Duration = Duration::from_secs(15);

/// When one came, since the epoch of the measurement, and how long it took to get in, if it did.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    pub came: Duration,
    pub took: Option<Duration>,
}

/// Runs on a thread of its own.
pub struct Newcomers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Newcomer>>,
}

impl Newcomers {
    pub fn start(to: SocketAddr, connector: Connector, epoch: Instant) -> Newcomers {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(come(to, connector, epoch, stopped))
        });
        Newcomers { stop, thread }
    }

    pub fn stop(self) -> Vec<Newcomer> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn come(to: SocketAddr, connector: Connector, epoch: Instant, stop: Arc<AtomicBool>) -> Vec<Newcomer> {
    let mut pace = interval(PACE);
    let mut under_way = JoinSet::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        number += 1;
        let connector = connector.clone();
        under_way.spawn(async move {
            let came = epoch.elapsed();
            let enter = async {
                let stream = dial(HONEST, to).await.ok()?;
                let mut client = Client::new(connector.connect(stream).await.ok()?).with_patience(PATIENCE);
                client.connect(connect(&format!("newcomer-{number}"))).await;
                Some(client)
            };
            let client = timeout(PATIENCE, enter).await.ok().flatten();
            Newcomer { came, took: client.map(|_| epoch.elapsed() - came) }
        });
    }
    let mut all = Vec::new();
    while let Some(newcomer) = under_way.join_next().await {
        // One whose connection was closed instead of answered has not got in.
        all.push(newcomer.unwrap_or(Newcomer { came: epoch.elapsed(), took: None }));
    }
    all
}
