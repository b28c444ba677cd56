//! `[node]`, `[log]` and `[metrics]`: where the broker lives and how it is watched.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::{Place, Section};
use super::tree::Value;
use super::value::{Bind, Choice, FromValue, Problem, Secret, Word};

/// As in EMQX.
const TICKETS_SEED: &str = "tls_stateless_tickets_seed";

/// `[node]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// What messages call it: a level of `$SYS/brokers/NAME/…`.
    pub name: String,
    /// Directory of everything durable; made at start if its parent exists.
    pub data_dir: PathBuf,
    /// Whether a crash may write the memory of the process, keys and messages with it, to a file.
    pub core_dumps: bool,
    /// What the keys of session tickets are made from, on every node alike: the seed itself, `file://PATH` or `env:NAME`.
    pub tickets_seed: Option<Secret>,
    /// Where that was written.
    pub tickets_seed_place: Place,
    /// Where `data_dir` was written.
    pub data_dir_place: Place,
}

impl NodeConfig {
    pub(super) fn read(mut section: Section<'_>) -> NodeConfig {
        let name = section.read("name", NodeName("shangmq".to_owned())).0;
        let data_dir = match section.file("data_dir") {
            Some(file) => file.path().to_owned(),
            None => section.default_path("data"),
        };
        let data_dir_place = section.place_of("data_dir");
        let tickets_seed = section.optional(TICKETS_SEED);
        let tickets_seed_place = section.place_of(TICKETS_SEED);
        let core_dumps = section.read("core_dumps", false);
        section.finish();
        NodeConfig { name, data_dir, core_dumps, tickets_seed, tickets_seed_place, data_dir_place }
    }
}

/// Longest name of a node, in bytes.
const MAX_NODE_NAME: usize = 128;

/// A name that is one level of a topic.
struct NodeName(String);

impl FromValue for NodeName {
    fn from_value(value: &Value) -> Result<NodeName, Problem> {
        let name = String::from_value(value)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
        if (1..=MAX_NODE_NAME).contains(&name.len()) && name.chars().all(fits) {
            return Ok(NodeName(name));
        }
        Err(Problem::new(format!("not 1 to {MAX_NODE_NAME} letters, digits, `-`, `_`, `.`, `@` and `:`"))
            .suggest("write \"shangmq-1\" or \"shangmq@192.0.2.1\""))
    }
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Lines that wait to be written; further ones are lost and counted.
    pub max_queued_lines: usize,
    /// Lines about peers that a listener writes a minute for each cause.
    pub max_peer_lines_per_minute: u32,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            level: LogLevel::Info,
            format: LogFormat::Text,
            max_queued_lines: 8192,
            max_peer_lines_per_minute: 60,
        }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> LogConfig {
        let default = LogConfig::default();
        let Word(level) = section.read("level", Word(default.level));
        let Word(format) = section.read("format", Word(default.format));
        let max_queued_lines = section.within("max_queued_lines", default.max_queued_lines, 16, 1_000_000);
        let max_peer_lines_per_minute =
            section.within("max_peer_lines_per_minute", default.max_peer_lines_per_minute, 1, 1_000_000);
        section.finish();
        LogConfig { level, format, max_queued_lines, max_peer_lines_per_minute }
    }
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word for this level, which is also a directive of `tracing`.
    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, LogLevel)] = &[
        ("off", LogLevel::Off),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("warning", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object on each line.
    Json,
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// `[metrics]`: an OpenMetrics endpoint, without authentication, so on loopback unless written otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsConfig {
    pub enable: bool,
    pub bind: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig { enable: false, bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)) }
    }
}

impl MetricsConfig {
    pub(super) fn read(mut section: Section<'_>) -> MetricsConfig {
        let default = MetricsConfig::default();
        let enable = section.read("enable", default.enable);
        let Bind(bind) = section.read("bind", Bind(default.bind));
        if section.has("bind") && !section.has("enable") {
            section.warn("bind", "no metrics are served", "add enable = true");
        }
        section.finish();
        MetricsConfig { enable, bind }
    }
}
