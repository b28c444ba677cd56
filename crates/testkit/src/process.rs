//! The broker as a process of its own, with a directory that outlives it: to be measured, killed and started again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How long the broker may take until it is ready, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A broker process. It ends when this is dropped, and its directory with it.
#[derive(Debug)]
pub struct BrokerProcess {
    program: PathBuf,
    dir: TempDir,
    child: Child,
    /// Where this start begins in the log, which all starts share.
    log_from: usize,
    /// By listener, such as `tcp:default`.
    addresses: HashMap<String, SocketAddr>,
}

impl BrokerProcess {
    /// Starts `program` with a configuration and waits until it is ready. Paths in the configuration are relative to
    /// [`dir`](Self::dir). `[log]` is added: the addresses of the listeners are read from it.
    pub async fn start(program: impl AsRef<Path>, configuration: &str) -> BrokerProcess {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = program.as_ref().to_owned();
        std::fs::write(dir.path().join("shangmq.toml"), format!("[log]\nformat = \"json\"\n{configuration}"))
            .expect("the configuration can be written");
        let child = spawn(&program, dir.path());
        let mut broker = BrokerProcess { program, dir, child, log_from: 0, addresses: HashMap::new() };
        broker.ready().await;
        broker
    }

    /// Ends the process with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for")
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        let sent = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success(), "the process runs");
    }

    /// Runs the program with other arguments in the directory of the broker.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.dir.path()).output().expect("the program can be run")
    }

    /// Starts the broker again with the same directory. It must have ended.
    pub async fn restart(&mut self) {
        self.log_from = self.log().len();
        self.child = spawn(&self.program, self.dir.path());
        self.ready().await;
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the process can be asked for")
    }

    /// The directory the broker runs in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the listener with this id listens, for instance `tcp:default`.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self
            .addresses
            .get(listener)
            .unwrap_or_else(|| panic!("{listener} does not listen; these do: {:?}", self.addresses))
    }

    /// Bytes of memory that are the process's own, and its part of what it shares.
    pub fn proportional_set_size(&self) -> u64 {
        self.kib("smaps_rollup", "Pss:")
    }

    /// Bytes of memory that the process held at its largest.
    pub fn peak_resident_set_size(&self) -> u64 {
        self.kib("status", "VmHWM:")
    }

    /// Time that all threads of the process have spent on processors.
    pub fn processor_time(&self) -> Duration {
        let text = std::fs::read_to_string(self.proc("stat")).expect("the process runs");
        // Behind the name, which may have blanks: user and system time are the 14th and the 15th field of all.
        let (_, fields) = text.rsplit_once(") ").expect("a name in parentheses");
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every architecture that Rust runs on.
        Duration::from_millis(ticks * 10)
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("the process runs").count()
    }

    /// Everything the broker has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.dir.path())).unwrap_or_default()
    }

    /// Waits until the log, which a thread of its own writes, has a line with all of these words.
    pub async fn logged(&self, words: &[&str]) {
        let has = || self.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
        let said = async {
            while !has() {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), said).await;
        assert!(waited.is_ok(), "no line of the log has {words:?}:\n{}", self.log_tail());
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    async fn ready(&mut self) {
        let ready = async {
            loop {
                let log = self.log();
                if self.read_start(log.get(self.log_from..).unwrap_or_default()) {
                    return;
                }
                if let Some(status) = self.ended() {
                    panic!("the broker ended with {status}:\n{}", self.log_tail());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            panic!("the broker is not ready after {PATIENCE:?}:\n{}", self.log_tail());
        }
    }

    /// Takes the addresses from the log of this start; whether the broker has said that it is ready.
    fn read_start(&mut self, log: &str) -> bool {
        for line in log.lines() {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let text = |field: &str| event.get(field).and_then(|value| value.as_str());
            match text("message") {
                Some("listening") => {
                    let (Some(listener), Some(address)) = (text("listener"), text("address")) else { continue };
                    let address = address.parse().expect("the log names an address");
                    self.addresses.insert(listener.to_owned(), address);
                }
                Some("ready") => return true,
                _ => {}
            }
        }
        false
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    fn kib(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(self.proc(file)).expect("the process runs");
        let line = text.lines().find(|line| line.starts_with(field)).expect("the kernel tells");
        let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        kib.expect("a number") * 1024
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _: io::Result<()> = self.child.kill();
        let _: io::Result<ExitStatus> = self.child.wait();
    }
}

fn spawn(program: &Path, dir: &Path) -> Child {
    let log: File = OpenOptions::new().create(true).append(true).open(log_file(dir)).expect("a log file");
    Command::new(program)
        .args(["start", "--config", "shangmq.toml"])
        .current_dir(dir)
        .env_remove("SHANGMQ_LOG")
        // Its memory is measured, which another user than root may not do otherwise.
        .env("SHANGMQ_NODE__CORE_DUMPS", "true")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("broker.log")
}
