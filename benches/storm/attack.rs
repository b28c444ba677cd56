//! Abusive clients, all at once, each beginning anew when its connection has ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gm_tls::client::Connector;
use socket2::SockRef;
use testkit::raw::RawHello;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};

use crate::{From, dial};

/// Pause of one that could not connect.
const PAUSE: Duration = Duration::from_millis(10);
/// Patience for a connection; the kernel of a busy machine answers a second attempt.
const CONNECTING: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A hello of TLCP, and nothing more however long the server waits.
    HelloAndStop,
    /// A whole handshake, and away without a word.
    HandshakeAndGone,
    /// The header of a TLCP record, and then what is none.
    Garbage,
}

const KINDS: [Kind; 3] = [Kind::HelloAndStop, Kind::HandshakeAndGone, Kind::Garbage];

/// How many connections were begun by each kind, and how many of them came to their end.
#[derive(Debug, Default)]
struct Counts {
    begun: [AtomicU64; 3],
    ended: [AtomicU64; 3],
    unreachable: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    pub begun: [u64; 3],
    pub ended: [u64; 3],
    pub unreachable: u64,
}

pub struct Attack {
    runtime: Runtime,
    counts: Arc<Counts>,
}

impl Attack {
    /// All attackers are there before the first connects.
    pub async fn begin(attackers: usize, from: From, to: SocketAddr, connector: Connector) -> Attack {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let counts = Arc::new(Counts::default());
        let ready = Arc::new(Barrier::new(attackers + 1));
        for number in 0..attackers {
            let (counts, ready, connector) = (Arc::clone(&counts), Arc::clone(&ready), connector.clone());
            let kind = number % KINDS.len();
            runtime.spawn(async move {
                ready.wait().await;
                loop {
                    attempt(kind, from.address(number), to, &connector, &counts).await;
                }
            });
        }
        ready.wait().await;
        Attack { runtime, counts }
    }

    /// Cuts off all of them.
    pub fn end(self) -> Attempts {
        self.runtime.shutdown_background();
        let all = |counts: &[AtomicU64; 3]| counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let Counts { begun, ended, unreachable } = &*self.counts;
        Attempts { begun: all(begun), ended: all(ended), unreachable: unreachable.load(Ordering::Relaxed) }
    }
}

async fn attempt(kind: usize, from: Ipv4Addr, to: SocketAddr, connector: &Connector, counts: &Counts) {
    let (Some(what), Some(begun), Some(ended)) = (KINDS.get(kind), counts.begun.get(kind), counts.ended.get(kind))
    else {
        return;
    };
    let Ok(Ok(stream)) = timeout(CONNECTING, dial(from, to)).await else {
        counts.unreachable.fetch_add(1, Ordering::Relaxed);
        return sleep(PAUSE).await;
    };
    // Ends in a reset, which leaves the port free for the next.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    begun.fetch_add(1, Ordering::Relaxed);
    let outcome = match what {
        Kind::HelloAndStop => say(stream, &RawHello::tlcp().wire()).await,
        Kind::HandshakeAndGone => connector.connect(stream).await.map(drop).map_err(io::Error::other),
        Kind::Garbage => say(stream, &garbage()).await,
    };
    if outcome.is_ok() {
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends this and nothing more, and waits for the server to end it.
async fn say(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn garbage() -> Vec<u8> {
    let mut bytes = vec![0x16, 0x01, 0x01, 0x01, 0x00];
    bytes.resize(5 + 256, 0xa5);
    bytes
}
