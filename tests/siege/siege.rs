//! One attack: a broker of its own, a canary that goes on working, and what must hold when the attackers are gone.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::BrokerProcess;
use tokio::sync::{Mutex, MutexGuard};

use crate::canary::Canary;

pub const MIB: u64 = 1 << 20;
/// Time to give everything back.
const RECOVERY: Duration = Duration::from_secs(20);
/// Latency of the canary is an honest figure only while nothing else runs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub struct Siege {
    name: &'static str,
    pub broker: BrokerProcess,
    canary: Canary,
    descriptors: usize,
    resident: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Siege {
    /// Starts a broker with these lines of configuration besides a plain listener, and the canary.
    pub async fn begin(name: &'static str, configuration: &str) -> Siege {
        let alone = ONE_AT_A_TIME.lock().await;
        let broker = BrokerProcess::start(
            env!("CARGO_BIN_EXE_shangmq"),
            &format!(
                "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
                 [listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n{configuration}"
            ),
        )
        .await;
        let canary = Canary::start(broker.address("tcp:default")).await;
        let descriptors = broker.descriptors();
        let resident = broker.peak_resident_set_size();
        Siege { name, broker, canary, descriptors, resident, _alone: alone }
    }

    pub fn address(&self) -> SocketAddr {
        self.broker.address("tcp:default")
    }

    /// The attackers are gone: the broker lives, its memory never grew by more than `growth` bytes, its descriptors are given
    /// back, and the canary lost nothing.
    pub async fn end(mut self, growth: u64) {
        let given_back = async {
            while self.broker.descriptors() > self.descriptors {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(RECOVERY, given_back).await.is_ok();
        let report = self.canary.stop().await;
        let name = self.name;
        assert!(self.broker.ended().is_none(), "{name}: the broker died\n{}", self.broker.log_tail());
        assert!(
            in_time,
            "{name}: {} descriptors are open, {} were before",
            self.broker.descriptors(),
            self.descriptors
        );
        let grown = self.broker.peak_resident_set_size().saturating_sub(self.resident);
        println!(
            "{name}: memory grew by {:.1} MiB at its largest; canary: {} messages, p99 {:.1} ms, slowest {:.1} ms",
            grown as f64 / MIB as f64,
            report.received,
            report.p99.as_secs_f64() * 1e3,
            report.slowest.as_secs_f64() * 1e3,
        );
        assert!(grown <= growth, "{name}: memory grew by {grown} bytes, more than {growth}");
        assert_eq!(report.lost, 0, "{name}: the canary lost messages");
        assert!(!self.broker.log().contains("panicked"), "{name}: something panicked\n{}", self.broker.log_tail());
        if let Some(limit) = latency_limit() {
            assert!(report.p99 <= limit, "{name}: the canary's p99 is {:?}, more than {limit:?}", report.p99);
        }
    }
}

/// `SIEGE_P99_MS` makes latency a condition: for an optimised broker on a machine that does nothing else.
fn latency_limit() -> Option<Duration> {
    let text = std::env::var("SIEGE_P99_MS").ok()?;
    Some(Duration::from_millis(text.parse().expect("SIEGE_P99_MS is a number of milliseconds")))
}
