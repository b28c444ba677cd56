//! The security of `ssl` and `wss` listeners: which protocols, with which certificates, and who must show one.
//!
//! Only paths and options are here. Certificates and keys are opened by `gm-tls` when the listener starts.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gm_tls::server::DEFAULT_SECURITY_LEVEL;

use super::client_auth::{ClientAuth, client_auth};
use super::managed::{self, ServerName, UnknownName, named};
use super::mqtt::{deadline, word};
use super::revocation::{Stapling, stapling};
use super::section::{Contents, FileRef, Place, Section};
use super::value::{Choice, Secret};
use crate::bundle::Part;

const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_HANDSHAKES_PER_ADDRESS: usize = 1024;
const MAX_ALPN: usize = 16;
/// 192 bits.
const MAX_SECURITY_LEVEL: u32 = 4;
const MAX_CERTIFICATES: usize = 8;
const MAX_NAMES: usize = 64;

/// How a listener is secured. At least one protocol is there; a protocol that is `None` is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsConfig {
    /// TLS 1.2 and 1.3 with international suites.
    pub tls: Option<TlsOptions>,
    /// TLS 1.3 with SM2, SM3 and SM4, RFC 8998.
    pub rfc8998: Option<Rfc8998Options>,
    /// TLCP, GB/T 38636-2020.
    pub tlcp: Option<TlcpOptions>,
    /// Time from the accepted connection (or the end of its PROXY header) to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes this listener computes at once; further ones wait within their deadline.
    pub max_concurrent_handshakes: usize,
    /// Handshakes of one address under way at once; further ones wait within their deadline.
    pub max_handshakes_per_address: usize,
    /// Whether a client that asks for a name which no bundle is for is refused, instead of being shown the block's own certificate.
    pub refuse_unknown_names: bool,
    /// Nothing but SM2, SM3 and SM4 is served.
    pub gm_only: bool,
    /// Application protocols to choose from, the preferred first; `None` is that of the listener's kind.
    pub alpn: Option<Vec<String>>,
    /// Whether a client that offers application protocols, and none of these, is refused.
    pub alpn_required: bool,
}

/// `ssl_options`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsOptions {
    /// The block itself, for what concerns no single key of it.
    pub place: Place,
    /// Stapling of OCSP answers.
    pub stapling: Option<Stapling>,
    /// Never empty; several when a listener has both an ECDSA and an RSA certificate.
    pub identities: Vec<IdentityFiles>,
    /// Others for clients that ask for these names.
    pub by_name: Vec<(ServerName, IdentityFiles)>,
    pub client_auth: ClientAuth,
    pub versions: TlsVersions,
    /// OpenSSL or IANA names in order of preference; empty means the built-in choice.
    pub ciphers: Names,
    /// Key exchange groups in order of preference; empty means the built-in choice.
    pub groups: Names,
    /// IANA names; empty means the built-in choice.
    pub signature_algorithms: Names,
    pub honor_cipher_order: bool,
    /// Least strength of keys, signatures and suites: 2 is 112 bits, 3 is 128.
    pub security_level: u32,
    /// Resumption by session identifier, TLS 1.2.
    pub reuse_sessions: bool,
    /// Resumption by stateless ticket.
    pub session_tickets: bool,
    /// Pre-shared keys of clients, `identity:hexkey` on each line.
    pub psk_file: Option<FileRef>,
}

/// `rfc8998_options`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rfc8998Options {
    /// The block itself, for what concerns no single key of it.
    pub place: Place,
    /// Stapling of OCSP answers.
    pub stapling: Option<Stapling>,
    /// A single SM2 certificate.
    pub identity: IdentityFiles,
    /// Others for clients that ask for these names.
    pub by_name: Vec<(ServerName, IdentityFiles)>,
    pub client_auth: ClientAuth,
    /// `TLS_SM4_GCM_SM3` and `TLS_SM4_CCM_SM3` in order of preference; empty means both.
    pub ciphers: Names,
    /// curveSM2 and its hybrid with ML-KEM-768; empty means both.
    pub groups: Names,
    pub honor_cipher_order: bool,
    /// As in [`TlsOptions`].
    pub security_level: u32,
    pub session_tickets: bool,
}

/// `tlcp_options`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlcpOptions {
    /// The block itself, for what concerns no single key of it.
    pub place: Place,
    /// Stapling of OCSP answers.
    pub stapling: Option<Stapling>,
    pub sign: IdentityFiles,
    pub enc: IdentityFiles,
    /// Other pairs for clients that ask for these names.
    pub by_name: Vec<(ServerName, [IdentityFiles; 2])>,
    pub client_auth: ClientAuth,
    /// Names of GB/T 38636-2020 in order of preference; empty means the built-in choice.
    pub ciphers: Names,
    pub honor_cipher_order: bool,
    /// As in [`TlsOptions`].
    pub security_level: u32,
    /// Resumption by session identifier.
    pub reuse_sessions: bool,
}

/// A list of names whose meaning `gm-tls` knows, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub names: Vec<String>,
    pub place: Place,
}

/// A certificate (with the chain above it) and its key. The files are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    pub certfile: FileRef,
    pub keyfile: FileRef,
    /// Of an encrypted key: the password itself, `file://PATH` or `env:NAME`.
    pub password: Option<Secret>,
    /// Where that is written, or would be.
    pub password_place: Place,
}

/// The TLS versions a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    pub min: TlsVersion,
    pub max: TlsVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl Choice for TlsVersion {
    const WORDS: &'static [(&'static str, TlsVersion)] =
        &[("tlsv1.3", TlsVersion::V1_3), ("tlsv1.2", TlsVersion::V1_2)];

    fn unsupported(word: &str) -> Option<&'static str> {
        let old = matches!(word, "tlsv1.1" | "tlsv1" | "tlsv1.0" | "sslv3");
        old.then_some("RFC 8996 forbids versions before TLS 1.2")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tls,
    Rfc8998,
    Tlcp,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Tls, Protocol::Rfc8998, Protocol::Tlcp];

    fn word(self) -> &'static str {
        match self {
            Protocol::Tls => "tls",
            Protocol::Rfc8998 => "rfc8998",
            Protocol::Tlcp => "tlcp",
        }
    }

    fn options_key(self) -> &'static str {
        match self {
            Protocol::Tls => "ssl_options",
            Protocol::Rfc8998 => "rfc8998_options",
            Protocol::Tlcp => "tlcp_options",
        }
    }
}

impl Choice for Protocol {
    const WORDS: &'static [(&'static str, Protocol)] =
        &[("tls", Protocol::Tls), ("rfc8998", Protocol::Rfc8998), ("tlcp", Protocol::Tlcp)];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tickets {
    Disabled,
    Stateless,
}

impl Choice for Tickets {
    const WORDS: &'static [(&'static str, Tickets)] =
        &[("disabled", Tickets::Disabled), ("stateless", Tickets::Stateless)];

    fn unsupported(word: &str) -> Option<&'static str> {
        (word == "stateless_with_cert").then_some("tickets always carry the client's certificate here")
    }
}

impl TlsConfig {
    /// What each block asks of clients.
    pub fn client_auth(&self) -> Vec<(&'static str, &ClientAuth)> {
        let tls = self.tls.as_ref().map(|block| ("ssl_options", &block.client_auth));
        let rfc8998 = self.rfc8998.as_ref().map(|block| ("rfc8998_options", &block.client_auth));
        let tlcp = self.tlcp.as_ref().map(|block| ("tlcp_options", &block.client_auth));
        tls.into_iter().chain(rfc8998).chain(tlcp).collect()
    }

    /// Every file of the blocks' own certificates, of passwords too, and the directories of their bundles.
    pub(super) fn own_files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|block| &block.identities);
        let rfc8998 = self.rfc8998.iter().map(|block| &block.identity);
        let tlcp = self.tlcp.iter().flat_map(|block| [&block.sign, &block.enc]);
        let identities = tls.chain(rfc8998).chain(tlcp).flat_map(|files| {
            let password = files.password.as_ref().and_then(|secret| secret.expose().strip_prefix("file://"));
            let named = [&files.certfile, &files.keyfile].map(|file| file.path().to_owned());
            named.into_iter().chain(password.map(PathBuf::from))
        });
        let auth = self.client_auth();
        let trusted = auth.iter().filter_map(|(_, auth)| auth.trust()).map(|trust| trust.cacertfile.path().to_owned());
        identities.chain(trusted).collect()
    }

    /// Reads the keys of an `ssl` or `wss` listener; `None` after a mistake was reported.
    pub(super) fn read(section: &mut Section<'_>, data_dir: &Path, gm_only: bool) -> Option<TlsConfig> {
        let mistakes_before = section.report().count();
        let protocols = read_protocols(section);
        if gm_only && protocols.contains(&Protocol::Tls) {
            let reason = "gm_only is set, and TLS with international suites is not of SM2, SM3 and SM4";
            let suggestion = "remove ssl_options, and use rfc8998_options or tlcp_options".to_owned();
            section.error("ssl_options", reason, Some(suggestion));
        }
        let (alpn, alpn_required) = alpn(section);
        let max_concurrent_handshakes = section.within("max_concurrent_handshakes", cores(), 1, 100_000);
        let max_handshakes_per_address =
            section.within("max_handshakes_per_address", DEFAULT_HANDSHAKES_PER_ADDRESS, 1, 1_000_000);
        let own_timeout = section.has("handshake_timeout");
        let mut handshake_timeout = deadline(section, "handshake_timeout", DEFAULT_HANDSHAKE_TIMEOUT);

        let mut ssl_options = section.section("ssl_options");
        let emqx_timeout = ssl_options.has("handshake_timeout");
        let timeout_in_options = deadline(&mut ssl_options, "handshake_timeout", handshake_timeout);
        if own_timeout && emqx_timeout && timeout_in_options != handshake_timeout {
            let reason = "contradicts the handshake_timeout of the listener";
            ssl_options.error("handshake_timeout", reason, Some("keep one of the two".to_owned()));
        }
        handshake_timeout = timeout_in_options;
        let tls = TlsOptions::read(ssl_options, data_dir);
        let rfc8998 = Rfc8998Options::read(section.section("rfc8998_options"), data_dir);
        let tlcp = TlcpOptions::read(section.section("tlcp_options"), data_dir);
        let refuse_unknown_names = word(section, "unknown_sni", UnknownName::Default) == UnknownName::Refuse;

        let has = |protocol| protocols.contains(&protocol);
        let config = TlsConfig {
            tls: tls.filter(|_| has(Protocol::Tls)),
            rfc8998: rfc8998.filter(|_| has(Protocol::Rfc8998)),
            tlcp: tlcp.filter(|_| has(Protocol::Tlcp)),
            handshake_timeout,
            max_concurrent_handshakes,
            max_handshakes_per_address,
            refuse_unknown_names,
            gm_only,
            alpn,
            alpn_required,
        };
        if refuse_unknown_names && config.server_names().is_empty() {
            let reason = "no bundle has a name, so that every client that asks for one would be refused";
            section.error("unknown_sni", reason, Some("give bundles in managed_certs an sni, or remove it".to_owned()));
        }
        (section.report().count() == mistakes_before).then_some(config)
    }
}

/// More handshakes than this would wait for each other in an order that is fair to nobody.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The protocols of a listener: those it lists, or else those it has options for.
fn read_protocols(section: &mut Section<'_>) -> Vec<Protocol> {
    let written = section.optional::<Vec<super::value::Word<Protocol>>>("protocols");
    let with_options = || Protocol::ALL.into_iter().filter(|protocol| section.has(protocol.options_key()));
    let Some(written) = written else {
        let present: Vec<Protocol> = with_options().collect();
        if present.is_empty() && section.exists() && !section.has("protocols") {
            let reason = "a listener of this kind needs a certificate";
            let suggestion = "add ssl_options with certfile and keyfile, or tlcp_options with a pair".to_owned();
            section.error("ssl_options", reason, Some(suggestion));
        }
        return present;
    };
    let listed: Vec<Protocol> = written.into_iter().map(|word| word.0).collect();
    if listed.is_empty() {
        let words: Vec<&str> = Protocol::ALL.into_iter().map(Protocol::word).collect();
        section.error("protocols", "no protocol is listed", Some(format!("list some of {}", words.join(", "))));
        return listed;
    }
    for protocol in Protocol::ALL {
        let (word, key) = (protocol.word(), protocol.options_key());
        match (listed.contains(&protocol), section.has(key)) {
            (true, false) => {
                let reason = format!("`{word}` is listed but {key} is missing");
                section.error("protocols", reason, Some(format!("add {key} or remove `{word}`")));
            }
            (false, true) => {
                let reason = format!("`{word}` is not in protocols, so these options would have no effect");
                section.error(key, reason, Some(format!("add `{word}` to protocols or remove {key}")));
            }
            _ => {}
        }
    }
    listed
}

impl TlsOptions {
    fn read(mut section: Section<'_>, data_dir: &Path) -> Option<TlsOptions> {
        if !section.exists() {
            return None;
        }
        let single = ["certfile", "keyfile", "password"].into_iter().any(|key| section.has(key));
        let mut further = section.list("certificates");
        if further.len() > MAX_CERTIFICATES {
            section.error("certificates", format!("more than {MAX_CERTIFICATES} certificates"), None);
            further.truncate(MAX_CERTIFICATES);
        }
        let own = single || !further.is_empty();
        let managed = managed::read(&mut section, own);
        let chosen = managed.as_ref().and_then(|managed| managed.default.clone());
        let first = if let Some(managed) = &chosen {
            Some(Some(managed.identity(data_dir, Part::Chain, Part::Key)))
        } else if managed.is_none() && !own {
            // What is wrong with the bundles was said; files are not missed besides.
            Some(None)
        } else {
            (single || further.is_empty()).then(|| identity(&mut section, "certfile", "keyfile", "password"))
        };
        // The keys are known even when the list alone is used.
        if first.is_none() || !single {
            let _: [Option<String>; 3] = ["certfile", "keyfile", "password"].map(|key| section.optional(key));
        }
        let further = further.into_iter().map(|mut entry| {
            let files = identity(&mut entry, "certfile", "keyfile", "password");
            entry.finish();
            files
        });
        let identities: Option<Vec<IdentityFiles>> = first.into_iter().chain(further).collect();
        let client_auth = client_auth(&mut section, chosen.map(|managed| managed.file(data_dir, Part::Ca)));
        let by_name = named(managed, |managed| managed.identity(data_dir, Part::Chain, Part::Key));
        let stapling = stapling(&mut section);
        let versions = versions(&mut section);
        let ciphers = names(&mut section, "ciphers");
        let groups = names(&mut section, "groups");
        let signature_algorithms = names(&mut section, "signature_algorithms");
        let honor_cipher_order = section.read("honor_cipher_order", true);
        let security_level = security_level(&mut section);
        refuse_renegotiation(&mut section);
        let reuse_sessions = section.read("reuse_sessions", false);
        let session_tickets = word(&mut section, "session_tickets", Tickets::Disabled) == Tickets::Stateless;
        let psk_file = section.file("psk_file");
        if psk_file.is_some() && (reuse_sessions || session_tickets) {
            let key = if reuse_sessions { "reuse_sessions" } else { "session_tickets" };
            section.error(
                key,
                "sessions are not resumed where pre-shared keys are taken",
                Some("remove it, or psk_file".to_owned()),
            );
        }
        let place = section.own_place();
        section.finish();
        Some(TlsOptions {
            place,
            stapling,
            identities: identities?,
            by_name,
            client_auth: client_auth?,
            versions,
            ciphers,
            groups,
            signature_algorithms,
            honor_cipher_order,
            security_level,
            reuse_sessions,
            session_tickets,
            psk_file,
        })
    }
}

impl Rfc8998Options {
    fn read(mut section: Section<'_>, data_dir: &Path) -> Option<Rfc8998Options> {
        if !section.exists() {
            return None;
        }
        let own = ["certfile", "keyfile", "password"].into_iter().any(|key| section.has(key));
        let managed = managed::read(&mut section, own)?;
        let chosen = managed.default.clone();
        let of_bundle = chosen.as_ref().map(|managed| managed.identity(data_dir, Part::Sm2Chain, Part::Sm2Key));
        let files = of_bundle.or_else(|| identity(&mut section, "certfile", "keyfile", "password"));
        let client_auth = client_auth(&mut section, chosen.map(|managed| managed.file(data_dir, Part::Ca)));
        let by_name = named(Some(managed), |managed| managed.identity(data_dir, Part::Sm2Chain, Part::Sm2Key));
        let stapling = stapling(&mut section);
        let ciphers = names(&mut section, "ciphers");
        let groups = names(&mut section, "groups");
        let honor_cipher_order = section.read("honor_cipher_order", true);
        let security_level = security_level(&mut section);
        let session_tickets = word(&mut section, "session_tickets", Tickets::Disabled) == Tickets::Stateless;
        let place = section.own_place();
        section.finish();
        Some(Rfc8998Options {
            place,
            identity: files?,
            by_name,
            stapling,
            client_auth: client_auth?,
            ciphers,
            groups,
            honor_cipher_order,
            security_level,
            session_tickets,
        })
    }
}

impl TlcpOptions {
    fn read(mut section: Section<'_>, data_dir: &Path) -> Option<TlcpOptions> {
        if !section.exists() {
            return None;
        }
        let keys = ["sign_certfile", "sign_keyfile", "sign_password", "enc_certfile", "enc_keyfile", "enc_password"];
        let own = keys.into_iter().any(|key| section.has(key));
        let managed = managed::read(&mut section, own)?;
        let chosen = managed.default.clone();
        let pair = |managed: &managed::Managed| {
            [(Part::SignChain, Part::SignKey), (Part::EncChain, Part::EncKey)]
                .map(|(chain, key)| managed.identity(data_dir, chain, key))
        };
        let (sign, enc) = match chosen.as_ref().map(pair) {
            Some([sign, enc]) => (Some(sign), Some(enc)),
            None => (
                identity(&mut section, "sign_certfile", "sign_keyfile", "sign_password"),
                identity(&mut section, "enc_certfile", "enc_keyfile", "enc_password"),
            ),
        };
        let client_auth = client_auth(&mut section, chosen.map(|managed| managed.file(data_dir, Part::Ca)));
        let by_name = named(Some(managed), pair);
        let stapling = stapling(&mut section);
        let ciphers = names(&mut section, "ciphers");
        let honor_cipher_order = section.read("honor_cipher_order", true);
        let security_level = security_level(&mut section);
        let reuse_sessions = section.read("reuse_sessions", false);
        for key in ["certfile", "keyfile"] {
            if section.has(key) {
                let suggestion = format!("use sign_{key} and enc_{key}");
                section.error(key, "TLCP has two certificates, one to sign and one to encrypt", Some(suggestion));
                let _: Option<String> = section.optional(key);
            }
        }
        let place = section.own_place();
        section.finish();
        Some(TlcpOptions {
            place,
            sign: sign?,
            enc: enc?,
            by_name,
            stapling,
            client_auth: client_auth?,
            ciphers,
            honor_cipher_order,
            security_level,
            reuse_sessions,
        })
    }
}

/// Reads a certificate and its key; reports the half that is missing.
fn identity(
    section: &mut Section<'_>,
    certfile_key: &'static str,
    keyfile_key: &'static str,
    password_key: &'static str,
) -> Option<IdentityFiles> {
    let certfile = section.pem(certfile_key);
    let keyfile = section.pem(keyfile_key);
    if let Some(file) = &keyfile
        && matches!(file.contents(), Contents::Inline(_))
        && let Some(mode) = file.open_to_others()
    {
        let reason = format!("the private key stands in a file that others can read (mode {mode:04o})");
        section.error(keyfile_key, reason, Some("run `chmod 600` on the configuration file".to_owned()));
    }
    let password = section.optional::<Secret>(password_key);
    let password_place = section.place_of(password_key);
    for (key, what) in [(certfile_key, "certificate"), (keyfile_key, "private key")] {
        if !section.has(key) {
            section.error(key, format!("missing: the {what} file"), Some(format!("add {key} = \"PATH\"")));
        }
    }
    Some(IdentityFiles { certfile: certfile?, keyfile: keyfile?, password, password_place })
}

/// Application protocols, and whether a client must offer one of them.
fn alpn(section: &mut Section<'_>) -> (Option<Vec<String>>, bool) {
    let names: Option<Vec<String>> = section.optional("alpn");
    let required = section.read("alpn_required", false);
    let listed = names.as_deref().unwrap_or_default();
    if listed.len() > MAX_ALPN || listed.iter().any(|name| name.is_empty() || name.len() > 255) {
        section.error("alpn", format!("write at most {MAX_ALPN} names of 1 to 255 bytes"), None);
    }
    if required && names.as_ref().is_some_and(Vec::is_empty) {
        section.error(
            "alpn_required",
            "no protocol is listed in alpn, so every client that offers one would be refused",
            None,
        );
    }
    (names, required)
}

/// Levels of the library that keep to what this broker promises.
fn security_level(section: &mut Section<'_>) -> u32 {
    let level = section.read("security_level", DEFAULT_SECURITY_LEVEL);
    if (DEFAULT_SECURITY_LEVEL..=MAX_SECURITY_LEVEL).contains(&level) {
        return level;
    }
    let reason = if level < DEFAULT_SECURITY_LEVEL {
        "below 2, keys and signatures are accepted that can be broken: RSA of 1024 bits, SHA-1"
    } else {
        "above 4, no certificate that clients know would be left"
    };
    section.error(
        "security_level",
        reason,
        Some("write 2 (112 bits, the default), 3 (128 bits) or 4 (192 bits)".to_owned()),
    );
    DEFAULT_SECURITY_LEVEL
}

/// What EMQX lets an operator choose and this broker does not: the keys are known, so that a configuration that agrees is taken.
fn refuse_renegotiation(section: &mut Section<'_>) {
    if section.read("client_renegotiation", false) {
        let reason = "a renegotiation would change who the client is under its session, and costs the server more than the client";
        section.error("client_renegotiation", reason, Some("remove the key: it is always refused".to_owned()));
    }
    if !section.read("secure_renegotiate", true) {
        let reason = "renegotiation is always refused, so that there is none to be insecure (RFC 5746)";
        section.error("secure_renegotiate", reason, Some("remove the key".to_owned()));
    }
}

fn versions(section: &mut Section<'_>) -> TlsVersions {
    let written = section.optional::<Vec<super::value::Word<TlsVersion>>>("versions");
    let all = TlsVersions { min: TlsVersion::V1_2, max: TlsVersion::V1_3 };
    let Some(written) = written else { return all };
    let listed = || written.iter().map(|word| word.0);
    match (listed().min(), listed().max()) {
        (Some(min), Some(max)) => TlsVersions { min, max },
        _ => {
            let suggestion = "the default is [\"tlsv1.3\", \"tlsv1.2\"]".to_owned();
            section.error("versions", "no version is listed", Some(suggestion));
            all
        }
    }
}

/// Names of suites or groups. Which names exist is known to `gm-tls`; here it is only made sure that each is one name,
/// since the library below joins them with `:` and gives meaning to `!`, `+`, `-` and `@`.
fn names(section: &mut Section<'_>, key: &'static str) -> Names {
    let names: Vec<String> = section.read(key, Vec::new());
    if names.len() > MAX_NAMES {
        section.error(key, format!("more than {MAX_NAMES} names"), None);
    }
    for (index, name) in names.iter().enumerate() {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(inner) {
            let reason = format!("`{}` is not a name", name.escape_default());
            section.error(key, reason, Some("write one name per item, without operators".to_owned()));
        } else if names.iter().take(index).any(|other| other == name) {
            section.error(key, format!("`{name}` is listed twice"), None);
        }
    }
    Names { names, place: section.place_of(key) }
}
