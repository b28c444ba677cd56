//! The broker as a process of its own, with a data directory that outlives it.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Broker {
    dir: TempDir,
    address: SocketAddr,
    process: Child,
}

impl Broker {
    pub async fn start() -> Broker {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; the same port is taken after each restart, so that clients find the broker again.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let configuration = format!(
            "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\n\
             [mqtt]\nmax_mqueue_len = 1000000\nmax_mqueue_bytes = \"1GB\"\n\
             [listeners.tcp.default]\nbind = \"{address}\"\n"
        );
        std::fs::write(dir.path().join("shangmq.toml"), configuration).unwrap();
        let process = spawn(dir.path());
        let mut broker = Broker { dir, address, process };
        broker.ready().await;
        broker
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the broker said last.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(log_file(self.dir.path())).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    async fn ready(&mut self) {
        let listening = async {
            while TcpStream::connect(self.address).await.is_err() {
                if let Some(status) = self.process.try_wait().unwrap() {
                    panic!("the broker ended with {status}:\n{}", self.log_tail());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(START, listening).await.is_err() {
            panic!("the broker does not listen:\n{}", self.log_tail());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    let log: File = OpenOptions::new().create(true).append(true).open(log_file(dir)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_shangmq"))
        .args(["start", "--config", "shangmq.toml"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("broker.log")
}
