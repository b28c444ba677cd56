//! Revocation: `[revocation]` for the whole node, and in the options of a protocol `crl` and `ocsp_check` for the certificates of clients,
//! `ocsp` for stapling. What is written here is opened and fetched by `crate::revocation`.

use std::time::Duration;

use super::mqtt::{size, word};
use super::section::{FileRef, Place, Section};
use super::value::{Choice, Span};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[revocation]`: how lists and answers are fetched, and what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationConfig {
    /// Revocation lists are fetched anew this often, and before they get stale.
    pub refresh_interval: Duration,
    /// For one fetch as a whole, redirects included.
    pub http_timeout: Duration,
    /// Fetches under way at once.
    pub max_fetches: usize,
    /// Revocation lists from distribution points that are kept.
    pub capacity: usize,
    /// The longest revocation list that is taken, in bytes.
    pub max_crl_size: usize,
    /// Memory of all revocation lists from distribution points, in bytes.
    pub max_cache_size: usize,
    /// OCSP answers about certificates of clients that are kept.
    pub max_answers: usize,
    /// The only hosts that anything is fetched from; empty: all but those of this machine.
    pub allowed_hosts: Vec<String>,
    /// Whose certificates `https` servers must have.
    pub cacertfile: Option<FileRef>,
}

impl Default for RevocationConfig {
    fn default() -> RevocationConfig {
        RevocationConfig {
            refresh_interval: Duration::from_secs(15 * 60),
            http_timeout: Duration::from_secs(15),
            max_fetches: 8,
            capacity: 100,
            max_crl_size: 16 << 20,
            max_cache_size: 256 << 20,
            max_answers: 10_000,
            allowed_hosts: Vec::new(),
            cacertfile: None,
        }
    }
}

impl RevocationConfig {
    pub(super) fn read(mut section: Section<'_>) -> RevocationConfig {
        let d = RevocationConfig::default();
        let s = &mut section;
        let config = RevocationConfig {
            refresh_interval: span(s, "refresh_interval", d.refresh_interval, Duration::from_secs(60), DAY),
            http_timeout: span(s, "http_timeout", d.http_timeout, Duration::from_millis(100), Duration::from_secs(300)),
            max_fetches: s.within("max_fetches", d.max_fetches, 1, 1000),
            capacity: s.within("capacity", d.capacity, 1, 100_000),
            max_crl_size: size(s, "max_crl_size", 16 << 20, 1 << 10, 1 << 30),
            max_cache_size: size(s, "max_cache_size", 256 << 20, 1 << 20, 64 << 30),
            max_answers: s.within("max_answers", d.max_answers, 1, 10_000_000),
            allowed_hosts: s.read("allowed_hosts", Vec::new()),
            cacertfile: s.file("cacertfile"),
        };
        let bad = |host: &&String| host.is_empty() || host.contains(['/', '*', ' ', '@']);
        if let Some(host) = config.allowed_hosts.iter().find(bad) {
            let suggestion = "write host names or addresses, such as \"crl.example.com\"".to_owned();
            section.error("allowed_hosts", format!("`{}` is not a host", host.escape_default()), Some(suggestion));
        }
        section.finish();
        config
    }
}

fn span(section: &mut Section<'_>, key: &'static str, default: Duration, least: Duration, most: Duration) -> Duration {
    section.within(key, Span(default), Span(least), Span(most)).0
}

/// What is asked about the certificates of clients. `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientStatus {
    pub crl: Option<CrlCheck>,
    pub ocsp: Option<OcspCheck>,
}

/// `crl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlCheck {
    pub place: Place,
    pub depth: CheckDepth,
    pub mode: FailMode,
    pub files: Vec<FileRef>,
    /// Fetch the lists that certificates name.
    pub distribution_points: bool,
    /// Close established connections of which a certificate is revoked.
    pub close_revoked: bool,
}

/// `ocsp_check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspCheck {
    pub place: Place,
    pub depth: CheckDepth,
    pub mode: FailMode,
    /// Instead of the responder that the certificate names.
    pub responder_url: Option<String>,
    /// Ask about the certificates of established connections as well, and close those of which one is revoked.
    pub close_revoked: bool,
}

/// `ocsp`: stapling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stapling {
    pub place: Place,
    /// Instead of the responder that the certificate names.
    pub responder_url: Option<String>,
    /// The issuer of the certificate, where it is not in `certfile`.
    pub issuer: Option<FileRef>,
    pub refresh_interval: Duration,
    pub http_timeout: Duration,
}

/// Which certificates of a chain are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    /// The client's own; of a TLCP pair both.
    Leaf,
    /// Those of the authorities between it and the trusted one as well.
    Chain,
}

impl Choice for CheckDepth {
    const WORDS: &'static [(&'static str, CheckDepth)] = &[("leaf", CheckDepth::Leaf), ("chain", CheckDepth::Chain)];
}

/// What becomes of a client of which it cannot be learned whether its certificate is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// It is refused.
    Hard,
    /// It is let in, and counted.
    Soft,
}

impl Choice for FailMode {
    const WORDS: &'static [(&'static str, FailMode)] = &[("hard-fail", FailMode::Hard), ("soft-fail", FailMode::Soft)];
}

#[derive(Clone, Copy)]
struct OnRevoked(bool);

impl Choice for OnRevoked {
    const WORDS: &'static [(&'static str, OnRevoked)] = &[("keep", OnRevoked(false)), ("close", OnRevoked(true))];
}

/// Reads `enable_crl_check`, `crl` and `ocsp_check` of a protocol's options.
pub(super) fn client_status(section: &mut Section<'_>) -> ClientStatus {
    let enabled = section.optional::<bool>("enable_crl_check");
    let (written, asked) = (section.has("crl"), section.has("ocsp_check"));
    let crl = CrlCheck::read(section.section("crl"));
    let ocsp = OcspCheck::read(section.section("ocsp_check"));
    if enabled == Some(false) && written {
        let suggestion = "remove one of the two".to_owned();
        section.error("enable_crl_check", "is false, and crl says how to check", Some(suggestion));
    }
    let crl = (written || enabled == Some(true)).then_some(crl);
    ClientStatus { crl, ocsp: asked.then_some(ocsp) }
}

impl CrlCheck {
    fn read(mut section: Section<'_>) -> CrlCheck {
        let s = &mut section;
        let check = CrlCheck {
            place: s.own_place(),
            depth: word(s, "check", CheckDepth::Leaf),
            mode: word(s, "mode", FailMode::Hard),
            files: s.files("files"),
            distribution_points: s.read("distribution_points", true),
            close_revoked: word(s, "on_revoked", OnRevoked(false)).0,
        };
        section.finish();
        check
    }
}

impl OcspCheck {
    fn read(mut section: Section<'_>) -> OcspCheck {
        let s = &mut section;
        let check = OcspCheck {
            place: s.own_place(),
            depth: word(s, "check", CheckDepth::Leaf),
            mode: word(s, "mode", FailMode::Hard),
            responder_url: responder_url(s),
            close_revoked: word(s, "on_revoked", OnRevoked(false)).0,
        };
        section.finish();
        check
    }
}

/// Reads `ocsp` of a protocol's options.
pub(super) fn stapling(section: &mut Section<'_>) -> Option<Stapling> {
    let written = section.has("ocsp");
    let mut section = section.section("ocsp");
    let s = &mut section;
    let enabled = s.read("enable_ocsp_stapling", written);
    let stapling = Stapling {
        place: s.own_place(),
        responder_url: responder_url(s),
        issuer: s.file("issuer_pem"),
        refresh_interval: span(s, "refresh_interval", Duration::from_secs(300), Duration::from_secs(60), DAY),
        http_timeout: span(
            s,
            "refresh_http_timeout",
            Duration::from_secs(15),
            Duration::from_millis(100),
            Duration::from_secs(300),
        ),
    };
    section.finish();
    enabled.then_some(stapling)
}

fn responder_url(section: &mut Section<'_>) -> Option<String> {
    let url: String = section.optional("responder_url")?;
    if url.starts_with("http://") || url.starts_with("https://") {
        return Some(url);
    }
    let suggestion = "write it with its scheme: \"http://ocsp.example.com\"".to_owned();
    section.error("responder_url", "neither http:// nor https://", Some(suggestion));
    None
}
