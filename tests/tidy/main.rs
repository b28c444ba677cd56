//! Invariants of the source text: what each layer may import, where `unsafe` may stand, how long a file may be, which words may not
//! be committed. A check is a function from a file to its faults; each is tried on text that must fail, and then on the repository.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod documents;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A file as the checks see it: its path from the root of the repository, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

/// One violation. `line` counts from 1.
#[derive(Debug, PartialEq)]
struct Fault {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn fault(&self, line: usize, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), line, what: what.into() }
    }

    /// Lines with their number from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines that hold code: without `//` comments. A `//` in a string literal cuts that line short, which can hide a fault there
    /// but never invents one.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(number, line)| (number, line.split("//").next().unwrap_or(line)))
    }
}

/// The layers without IO: bytes, state and the index of subscriptions.
const PURE: [&str; 3] = ["crates/mqtt-codec/src/", "src/session/", "src/router/"];
/// What makes them impure, with the reason.
const IMPURE: [(&str, &str); 11] = [
    ("tokio", "an async runtime"),
    ("std::net", "sockets"),
    ("std::fs", "files"),
    ("std::io::stdin", "the terminal"),
    ("std::io::stdout", "the terminal"),
    ("std::thread", "threads"),
    ("std::env", "the environment"),
    ("std::process", "processes"),
    ("std::time::Instant", "a clock"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
];

/// Bytes and state import no runtime, socket, file or clock: time is an argument there.
fn purity(source: &Source) -> Vec<Fault> {
    if !PURE.iter().any(|layer| source.path.starts_with(layer)) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, line) in source.code() {
        // `use std::{net::…, fs}` names the module without the path that is searched for.
        let grouped = line.trim_start().starts_with("use std::{")
            && ["net", "fs", "thread", "env", "process"].iter().any(|m| has_word(line, m));
        for (import, what) in IMPURE {
            if has_word(line, import) {
                faults.push(source.fault(number, format!("a pure layer uses {what}: {import}")));
            }
        }
        if grouped {
            faults.push(source.fault(number, "a pure layer imports more of std than it may"));
        }
        if line.trim_start().starts_with("use std::time::")
            && has_word(line, "Instant")
            && !line.contains("std::time::Instant")
        {
            faults.push(source.fault(number, "a pure layer uses a clock: Instant"));
        }
    }
    faults
}

/// The crates that may hold `unsafe` code: the user of the C library, and the one that uses the processor's vectors.
const UNSAFE_CRATES: [&str; 2] = ["crates/gm-tls/", "crates/sm-accel/"];

/// `unsafe` stands in two crates alone, where it can be audited.
fn unsafe_code(source: &Source) -> Vec<Fault> {
    if UNSAFE_CRATES.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let keyword = concat!("un", "safe");
    let opens = ["{", "fn", "impl", "trait", "extern"];
    let mut faults = Vec::new();
    for (number, line) in source.code() {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if word == keyword && words.next().is_none_or(|next| opens.iter().any(|o| next.starts_with(o))) {
                faults.push(source.fault(number, format!("{keyword} code outside {}", UNSAFE_CRATES.join(" and "))));
            }
        }
    }
    faults
}

/// Who may ask for the time of day, with the reason; everything else runs on monotonic time.
const WALL_CLOCK_READERS: [(&str, &str); 5] = [
    ("src/server.rs", "the offset of stored moments, once at start"),
    ("src/auth/jwt/mod.rs", "`exp` and `nbf` are times of day"),
    ("src/dev_certs.rs", "certificates are valid between times of day"),
    ("crates/gm-tls/src/engine.rs", "certificates and revocation lists are valid between times of day"),
    ("crates/gm-tls/src/tickets.rs", "nodes with one secret change the keys of tickets at the same times of day"),
];

/// Keep-alive, will delay, expiry, rates, bans and timeouts follow a clock that nobody can set: where the wall clock is not read, its
/// jump by a day changes nothing.
fn wall_clock(source: &Source) -> Vec<Fault> {
    let product = source.path.starts_with("src/") || source.path.contains("/src/");
    if !product || source.path.ends_with("/tests.rs") || WALL_CLOCK_READERS.iter().any(|(path, _)| source.path == *path)
    {
        return Vec::new();
    }
    let readers = ["SystemTime::now", "UNIX_EPOCH.elapsed", "Utc::now", "Local::now", "now_utc", "now_local"];
    let mut faults = Vec::new();
    for (number, line) in source.code() {
        if readers.iter().any(|reader| line.contains(reader)) {
            faults.push(source.fault(number, "reads the wall clock, which may jump: use monotonic time"));
        }
    }
    faults
}

const MAX_LINES: usize = 600;

/// A file of the product that is too long to be read at once.
fn length(source: &Source) -> Vec<Fault> {
    let product =
        source.path.starts_with("src/") || (source.path.starts_with("crates/") && source.path.contains("/src/"));
    let lines = source.text.lines().count();
    if product && lines > MAX_LINES {
        return vec![source.fault(lines, format!("{lines} lines; a file holds at most {MAX_LINES}"))];
    }
    Vec::new()
}

/// Words that mark work as unfinished, and the attribute that hides a test. Spelled in two halves so that this file passes.
const WORDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const PHRASES: [&str; 4] =
    [concat!("for", " now"), concat!("unimple", "mented!"), concat!("to", "do!("), concat!("#[ig", "nore")];

/// Nothing is committed unfinished, and no test is switched off.
fn words(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in source.lines() {
        for word in WORDS.iter().filter(|word| has_word(line, word)) {
            faults.push(source.fault(number, format!("{word} is not committed")));
        }
        for phrase in PHRASES.iter().filter(|phrase| contains_phrase(line, phrase)) {
            faults.push(source.fault(number, format!("'{phrase}' is not committed")));
        }
    }
    faults
}

/// A file says first what it is for.
fn opening(source: &Source) -> Vec<Fault> {
    let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    match first {
        Some(line) if line.starts_with("//! ") => Vec::new(),
        _ => vec![source.fault(1, "opens without a //! line that says its job")],
    }
}

/// Each limit that docs/limits.md names, by the code span in the first cell of a table row, is a key of the example configuration.
fn limits(doc: &Source, example: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in doc.lines() {
        let Some(row) = line.trim_start().strip_prefix('|') else { continue };
        let first_cell = row.split('|').next().unwrap_or("");
        let Some(key) = first_cell.split('`').nth(1) else { continue };
        let leaf = key.rsplit('.').next().unwrap_or(key);
        let shown = example.lines().any(|line| {
            let line = line.trim_start().trim_start_matches('#').trim_start();
            line.strip_prefix(leaf).is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        if !shown {
            faults.push(doc.fault(number, format!("the example configuration does not show '{key}'")));
        }
    }
    faults
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` occurs in `line` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        !before.is_some_and(is_word_char) && !after.is_some_and(is_word_char)
    })
}

fn contains_phrase(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        let ends_in_letter = phrase.ends_with(is_word_char) && !phrase.starts_with('#');
        !(before.is_some_and(is_word_char) || ends_in_letter && after.is_some_and(is_word_char))
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project below the directories that hold its own code, in a stable order.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for dir in ["src", "crates", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        collect(&root().join(dir), &mut files);
    }
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let relative = file.strip_prefix(root()).expect("collected below the root");
            Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                text: fs::read_to_string(&file).expect("a source file is UTF-8"),
            }
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Runs one check over the repository and reports every fault at once.
fn hold(check: impl Fn(&Source) -> Vec<Fault>) {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "found no sources to check");
    let faults: Vec<String> = sources.iter().flat_map(check).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn pure_layers_import_no_runtime_socket_file_or_clock() {
    let bad = |text: &str| purity(&Source::new("src/session/queue.rs", text)).len();
    assert_eq!(bad("use tokio::sync::mpsc;"), 1);
    assert_eq!(bad("let at = std::time::SystemTime::now();"), 1);
    assert_eq!(bad("use std::time::{Duration, Instant};"), 1);
    assert_eq!(bad("use std::{net::SocketAddr, fmt};"), 1);
    assert_eq!(bad("use std::fs::File;"), 1);
    assert_eq!(bad("// tokio calls this\nuse std::time::Duration;"), 0);
    assert!(purity(&Source::new("src/net/listener.rs", "use tokio::net::TcpListener;")).is_empty());
    hold(purity);
}

#[test]
fn a_jump_of_the_wall_clock_concerns_certificates_tokens_and_the_start_alone() {
    let bad = |path: &str, text: &str| wall_clock(&Source::new(path, text)).len();
    assert_eq!(bad("src/broker/bans.rs", "let now = SystemTime::now();"), 1);
    assert_eq!(bad("src/conn/established.rs", "let now = std::time::SystemTime::now();"), 1);
    assert_eq!(bad("crates/mqtt-codec/src/lib.rs", "let now = OffsetDateTime::now_utc();"), 1);
    assert_eq!(bad("src/broker/bans.rs", "let now = Instant::now(); // SystemTime::now jumps"), 0);
    assert_eq!(bad("src/server.rs", "let now = SystemTime::now();"), 0);
    for (path, reason) in WALL_CLOCK_READERS {
        let text = fs::read_to_string(root().join(path)).expect("a reader of the wall clock is a file");
        let calls = text.matches("SystemTime::now").count();
        assert_eq!(calls, 1, "{path} reads the wall clock at one place: {reason}");
    }
    hold(wall_clock);
}

#[test]
fn unsafe_code_stands_in_gm_tls_and_sm_accel_alone() {
    let block = concat!("let x = un", "safe { *pointer };");
    assert_eq!(unsafe_code(&Source::new("src/net/socket.rs", block)).len(), 1);
    assert_eq!(unsafe_code(&Source::new("src/net/socket.rs", concat!("un", "safe impl Send for Socket {}"))).len(), 1);
    assert_eq!(unsafe_code(&Source::new("src/net/socket.rs", concat!("un", "safe\n{ f() }"))).len(), 1);
    assert!(
        unsafe_code(&Source::new("src/lib.rs", concat!("#![forbid(un", "safe_code)] // un", "safe { }"))).is_empty()
    );
    assert!(unsafe_code(&Source::new("crates/gm-tls/src/ffi.rs", block)).is_empty());
    assert!(unsafe_code(&Source::new("crates/sm-accel/src/sm3.rs", block)).is_empty());
    assert_eq!(unsafe_code(&Source::new("crates/mqtt-codec/src/lib.rs", block)).len(), 1);
    hold(unsafe_code);
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    assert_eq!(length(&Source::new("src/conn/mod.rs", &"\n".repeat(MAX_LINES + 1))).len(), 1);
    assert!(length(&Source::new("src/conn/mod.rs", &"\n".repeat(MAX_LINES))).is_empty());
    assert!(length(&Source::new("tests/it/main.rs", &"\n".repeat(MAX_LINES + 1))).is_empty());
    hold(length);
}

#[test]
fn nothing_is_marked_unfinished_and_no_test_is_switched_off() {
    let bad = |text: &str| words(&Source::new("src/lib.rs", text)).len();
    for word in WORDS {
        assert_eq!(bad(&format!("// {word}: later")), 1, "{word}");
        assert_eq!(bad(&format!("let a{word}b = 1;")), 0, "{word}");
    }
    assert_eq!(bad(concat!("// enough for", " now, it seems")), 1);
    assert_eq!(bad(concat!("    to", "do!()")), 1);
    assert_eq!(bad(concat!("unimple", "mented!(\"x\")")), 1);
    assert_eq!(bad(concat!("#[ig", "nore = \"slow\"]")), 1);
    assert_eq!(bad("// waits for nowhere"), 0);
    hold(words);
}

#[test]
fn every_file_opens_with_its_job() {
    assert_eq!(opening(&Source::new("src/lib.rs", "use std::fmt;\n//! Late.")).len(), 1);
    assert_eq!(opening(&Source::new("src/lib.rs", "")).len(), 1);
    assert!(opening(&Source::new("fuzz/fuzz_targets/a.rs", "#![no_main]\n//! Feeds the decoder.\n")).is_empty());
    hold(opening);
}

/// Rows of docs/limits.md whose limit is not among those that the program counts, and which do not say how it is counted or why not.
fn uncounted(doc: &str, counted: &[&str]) -> Vec<String> {
    let rows = doc.lines().filter_map(|line| line.strip_prefix("| `").and_then(|row| row.split_once('`')));
    let explained =
        |rest: &str| ["counted by `", "counted as `", "not counted, since"].iter().any(|word| rest.contains(word));
    rows.filter(|(key, rest)| !counted.contains(key) && !explained(rest)).map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn every_documented_limit_is_counted() {
    let doc = "| Key | x |\n|---|---|\n| `a` | 1 |\n| `b` | 2 | waits; not counted, since it waits |\n| `c` | 3 | closed |\n| text | x |";
    assert_eq!(uncounted(doc, &["a"]), ["c"]);
    let limits = shangmq::metrics::LIMITS;
    if let Ok(doc) = fs::read_to_string(root().join("docs/limits.md")) {
        assert_eq!(uncounted(&doc, &limits), [""; 0]);
        let undocumented = limits.iter().filter(|key| !doc.contains(&format!("| `{key}`")));
        assert_eq!(undocumented.collect::<Vec<_>>(), [&""; 0]);
        // A label that nothing counts would promise in vain.
        let is_product = |source: &Source| source.path.starts_with("src/") && !source.path.starts_with("src/metrics");
        let sources: Vec<Source> = sources().into_iter().filter(is_product).collect();
        let unused =
            limits.iter().filter(|key| !sources.iter().any(|source| source.text.contains(&format!("\"{key}\""))));
        assert_eq!(unused.collect::<Vec<_>>(), [&""; 0]);
    }
}

#[test]
fn every_documented_limit_is_a_key_of_the_example_configuration() {
    let doc = Source::new(
        "docs/limits.md",
        "| key | default |\n|---|---|\n| `mqtt.max_inflight` | 32 |\n| `mqtt.max_queue` | 1000 |\n| text | x |",
    );
    assert_eq!(limits(&doc, "[mqtt]\n# max_inflight = 32\nmax_queue = 1000\n"), []);
    assert_eq!(limits(&doc, "[mqtt]\nmax_inflight_total = 32\nmax_queue=1000\n")[0].line, 3);
    let read = |name: &str| fs::read_to_string(root().join(name)).ok();
    if let (Some(text), Some(example)) = (read("docs/limits.md"), read("shangmq.example.toml")) {
        let faults: Vec<String> = limits(&Source { path: "docs/limits.md".to_owned(), text }, &example)
            .iter()
            .map(Fault::to_string)
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
