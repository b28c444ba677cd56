//! The configuration: TOML text and environment variables, parsed once into values that need no further check.
//!
//! Files mirror the runtime: `listener.rs` and `tls.rs` describe what `net` opens, `mqtt.rs` what `session` keeps.
//! Nothing here opens a certificate, a socket or a database.

mod acl;
mod auth;
mod cidr;
mod client_auth;
mod crypto;
mod emqx;
mod error;
mod features;
mod identity;
mod listener;
mod managed;
mod mqtt;
mod node;
mod rate;
mod revocation;
mod section;
mod store;
mod tls;
mod tree;
mod value;
mod written;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::bundle::BundleId;

pub use acl::{load_acl, parse_acl};
pub use auth::{AuthConfig, ClientIdBinding, DenyAction, JwtConfig, JwtKeys, StoredAuthConfig};
pub use cidr::Cidr;
pub use client_auth::{ClientAuth, TrustFiles};
pub use crypto::CryptoConfig;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use features::{AutoSubscribe, DelayedConfig, Features, FlappingConfig, Pattern, RewriteAction, RewriteRule};
pub use identity::{PeerCertAs, PeerNames};
pub use listener::{ListenerConfig, ListenerKind, ProxyProtocolConfig, TcpConfig, TcpKeepalive, WsConfig};
pub use managed::ServerName;
pub use mqtt::{DefaultPriority, MaxQos, MqttConfig, Redirect, RetainerConfig, SharedStrategy};
pub use node::{LogConfig, LogFormat, LogLevel, MetricsConfig, NodeConfig};
pub use rate::{Rate, RateConfig};
pub use revocation::{CheckDepth, ClientStatus, CrlCheck, FailMode, OcspCheck, RevocationConfig, Stapling};
pub use section::{Contents, FileRef, Place};
pub use store::{Durability, StoreConfig};
pub use tls::{IdentityFiles, Names, Rfc8998Options, TlcpOptions, TlsConfig, TlsOptions, TlsVersion, TlsVersions};
pub use tree::ENVIRONMENT_PREFIX;
pub(crate) use value::Choice;
pub use value::Secret;
pub use written::Written;

use section::{Report, Section};

/// What the broker runs with when no file is named: loopback only, development certificates, anonymous clients.
const DEVELOPMENT: &str = include_str!("development.toml");
/// What errors call [`DEVELOPMENT`].
const DEVELOPMENT_NAME: &str = "(embedded development configuration)";
/// A configuration file larger than this is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Everything the broker was told, valid by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node: NodeConfig,
    pub crypto: CryptoConfig,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    pub mqtt: MqttConfig,
    pub retainer: RetainerConfig,
    pub store: StoreConfig,
    pub revocation: RevocationConfig,
    pub features: Features,
    pub auth: AuthConfig,
    /// The enabled listeners; never empty, no two on one address.
    pub listeners: Vec<ListenerConfig>,
    /// What is written and may not be meant, one line each.
    pub warnings: Vec<String>,
    /// Whether mistakes keep the certificates of a listener from being known.
    pub(crate) certificates_unseen: bool,
}

/// A configuration with the mistakes in it.
#[derive(Debug)]
pub(crate) struct Examined {
    /// `None` when the text could not be read.
    pub(crate) config: Option<Config>,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) written: Written,
}

impl Examined {
    fn unreadable(errors: Vec<ConfigError>) -> Examined {
        Examined { config: None, errors, written: Written::default() }
    }
}

impl Config {
    /// Reads a file, or the development configuration when none is named, and lays the environment over it.
    ///
    /// Relative paths in the file are relative to its directory; those from the environment and in the development
    /// configuration to the working directory.
    ///
    /// # Errors
    /// Every mistake there is, each with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let Examined { config, errors, .. } = Config::examine(file, environment, None);
        Config::faultless(config, errors)
    }

    /// As [`load`](Self::load), for a look at the files it names in spite of mistakes. Where there are any, the configuration
    /// lacks the listeners that have one and holds defaults in place of bad values: it must not be run.
    ///
    /// What was written can be compared with `earlier`, where that is given.
    pub(crate) fn examine(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        earlier: Option<&Written>,
    ) -> Examined {
        let Some(path) = file else {
            let name = Path::new(DEVELOPMENT_NAME);
            let mut examined = Config::examine_text(name, DEVELOPMENT, environment, earlier);
            examined.errors.extend(examined.config.iter().flat_map(Config::beyond_loopback));
            return examined;
        };
        let refused = |reason: String| {
            let origin = Origin::File { path: PathBuf::from(path).into(), line: 1, column: 1 };
            ConfigError::new(origin, "", reason)
        };
        match read_file(path, refused) {
            Ok(text) => Config::examine_text(path, &text, environment, earlier),
            Err(error) => Examined::unreadable(vec![error]),
        }
    }

    /// The configuration for development as it is embedded, without the environment.
    ///
    /// # Errors
    /// None that a released binary can give; a test parses the same text.
    pub fn development() -> Result<Config, ConfigErrors> {
        Config::load(None, [])
    }

    /// Parses configuration text; `path` names it in errors, and its directory is what relative paths start from.
    ///
    /// # Errors
    /// Every mistake there is, each with its place.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let Examined { config, errors, .. } = Config::examine_text(path, text, environment, None);
        Config::faultless(config, errors)
    }

    fn examine_text(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        earlier: Option<&Written>,
    ) -> Examined {
        let mut errors = Vec::new();
        let mut root = match tree::parse(path.to_owned(), text) {
            Ok(root) => root,
            Err(found) => return Examined::unreadable(found.into_errors()),
        };
        tree::overlay(&mut root, environment, &mut errors);
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        let report = Report::new(base, errors);
        let mut config = Config::read(Section::root(&report, &root));
        config.warnings = report.warnings();
        config.certificates_unseen = report.are_certificates_unseen();
        let written = earlier.map_or_else(|| Written::of(&root), |earlier| Written::of_as(&root, earlier));
        Examined { config: Some(config), errors: report.into_errors(), written }
    }

    /// What the environment has opened to other machines. The configuration for development lets anybody in.
    fn beyond_loopback(&self) -> Vec<ConfigError> {
        let listeners =
            self.listeners.iter().map(|one| (format!("listeners.{}.{}.bind", one.kind.as_str(), one.name), one.bind));
        let metrics = self.metrics.enable.then(|| ("metrics.bind".to_owned(), self.metrics.bind));
        let open = listeners.chain(metrics).filter(|(_, bind)| !bind.ip().to_canonical().is_loopback());
        let refused = open.map(|(key, bind)| {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase());
            let reason = format!(
                "without a configuration file the broker lets anonymous clients in and serves loopback only, not {bind}"
            );
            ConfigError::new(Origin::Environment(variable.into()), key, reason)
                .suggest("write a configuration file that says who may connect, and name it with --config")
        });
        refused.collect()
    }

    /// Who refers to a bundle, in words for the operator.
    pub fn users_of(&self, id: &BundleId) -> Vec<String> {
        let uses = |tls: &TlsConfig| tls.keys_of(id).next().is_some();
        let users = self.listeners.iter().filter(|listener| listener.kind.tls().is_some_and(uses));
        users.map(ListenerConfig::key).collect()
    }

    fn faultless(config: Option<Config>, errors: Vec<ConfigError>) -> Result<Config, ConfigErrors> {
        ConfigErrors::check(errors)?;
        // Without a configuration there is at least one error.
        config.ok_or_else(|| ConfigErrors::from(ConfigError::new(Origin::Default, "", "nothing could be read")))
    }

    fn read(mut root: Section<'_>) -> Config {
        let node = NodeConfig::read(root.section("node"));
        let crypto = CryptoConfig::read(root.section("crypto"));
        let log = LogConfig::read(root.section("log"));
        let metrics = MetricsConfig::read(root.section("metrics"));
        if crypto.gm_only && metrics.enable && !metrics.bind.ip().to_canonical().is_loopback() {
            let reason = "crypto.gm_only is set, and the metrics endpoint does not encrypt";
            root.error("metrics", reason, Some("bind it to loopback".to_owned()));
        }
        let store = StoreConfig::read(root.section("store"));
        let mqtt = MqttConfig::read(root.section("mqtt"), store.durability);
        let store = store.with_window(mqtt.max_inflight);
        let retainer = RetainerConfig::read(root.section("retainer"));
        let revocation = RevocationConfig::read(root.section("revocation"));
        let features = Features::read(&mut root);
        let auth = AuthConfig::read(root.section("auth"));
        if let Some(error) = auth.store.without_store(store.durability) {
            root.report().push(error);
        }
        let metrics_at = metrics.enable.then_some(metrics.bind);
        let listeners = listener::read(root.section("listeners"), &mqtt, metrics_at, &node.data_dir, crypto.gm_only);
        if !auth.lets_clients_in() && !listeners.iter().any(ListenerConfig::learns_of_certificates) {
            root.section("auth").warn(
                "allow_anonymous",
                "nobody may connect: there are no passwords, tokens, certificates or pre-shared keys to know clients by",
                "name a file with password_file under [auth], write verify = \"verify_peer\" where a listener names its certificate, or \
                 write allow_anonymous = true under [auth] to let everybody in",
            );
        }
        if let Some(error) = mqtt.peer_names.useless(&listeners) {
            root.report().push(error);
        }
        root.finish();
        Config {
            node,
            crypto,
            log,
            metrics,
            mqtt,
            retainer,
            store,
            revocation,
            features,
            auth,
            listeners,
            warnings: Vec::new(),
            certificates_unseen: false,
        }
    }
}

/// Reads a configuration file whole; `refused` names it where it cannot be read. The text may hold passwords, so it is zeroed after use.
fn read_file(path: &Path, refused: impl Fn(String) -> ConfigError) -> Result<Zeroizing<String>, ConfigError> {
    use std::io::Read;

    let file = std::fs::File::open(path).map_err(|error| refused(format!("cannot open the file: {error}")))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(format!("cannot read the file: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(refused("larger than 1MB".to_owned()).suggest("is this the right file?"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let origin = Origin::File { path: PathBuf::from(path).into(), line, column: 1 };
            Err(ConfigError::new(origin, "", "not UTF-8 text").suggest("save the file as UTF-8"))
        }
    }
}
