//! `[listeners.KIND.NAME]`: where clients connect, over what, and how many may.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::cidr::Cidr;
use super::client_auth::ClientAuth;
use super::error::ConfigError;
use super::identity::PeerNames;
use super::mqtt::{MqttConfig, deadline, size};
use super::rate::RateConfig;
use super::section::Section;
use super::tls::TlsConfig;
use super::value::Bind;

const MAX_LISTENER_NAME_LEN: usize = 64;
const MAX_MOUNTPOINT_LEN: usize = 1024;
/// More than one host opens by accident, and what a listener can accept at all.
const DEFAULT_CONNECTION_RATE: u32 = 10_000;

/// One enabled listener. A disabled one is checked and then left out of the configuration, so that nobody can open it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// The operator's name for it, unique within its kind: letters, digits, `_` and `-`.
    pub name: String,
    pub kind: ListenerKind,
    pub bind: SocketAddr,
    /// Connections open at once; the next one is closed as soon as it is accepted.
    pub max_connections: usize,
    /// Those of one address.
    pub max_connections_per_address: usize,
    /// Connections that one address may open in a second.
    pub max_connection_rate_per_address: u32,
    /// Time from the accepted (and secured) connection to a complete CONNECT.
    pub connect_timeout: Duration,
    /// What every topic of this listener's clients is put under, with `${clientid}` and `${username}`; empty is nothing.
    pub mountpoint: String,
    pub rates: RateConfig,
    /// Which names clients get from their certificates.
    pub peer_names: PeerNames,
    /// `None` when the PROXY protocol is off.
    pub proxy_protocol: Option<ProxyProtocolConfig>,
    pub tcp: TcpConfig,
}

impl ListenerConfig {
    /// `ssl:default`, as in EMQX.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind.as_str(), self.name)
    }

    /// `listeners.ssl.default`, as the configuration writes it.
    pub fn key(&self) -> String {
        format!("listeners.{}.{}", self.kind.as_str(), self.name)
    }

    /// Whether it can know a client by a certificate.
    pub fn learns_of_certificates(&self) -> bool {
        learns_of_certificates(&self.kind, self.proxy_protocol.as_ref())
    }

    /// What is allowed and may yet not be meant: clients choose by their hello which block they are asked by.
    pub fn warnings(&self) -> Vec<String> {
        let asked = self.kind.tls().map(TlsConfig::client_auth).unwrap_or_default();
        let strictness = |auth: &ClientAuth| match auth {
            ClientAuth::None => (0, "asks for none"),
            ClientAuth::Optional(_) => (1, "lets clients without one in"),
            ClientAuth::Required(_) => (2, "requires one"),
        };
        let strictest = asked.iter().max_by_key(|(_, auth)| strictness(auth).0);
        let laxest = asked.iter().min_by_key(|(_, auth)| strictness(auth).0);
        let (Some((strict_block, strict)), Some((lax_block, lax))) = (strictest, laxest) else { return Vec::new() };
        let ((most, requires), (least, allows)) = (strictness(strict), strictness(lax));
        if most == least {
            return Vec::new();
        }
        vec![format!(
            "{}: of client certificates {strict_block} {requires} and {lax_block} {allows}, and clients choose the block by their protocol",
            self.id()
        )]
    }
}

/// What is spoken on top of TCP.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerKind {
    Tcp,
    Ssl(TlsConfig),
    Ws(WsConfig),
    Wss(TlsConfig, WsConfig),
}

impl ListenerKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            ListenerKind::Tcp => "tcp",
            ListenerKind::Ssl(_) => "ssl",
            ListenerKind::Ws(_) => "ws",
            ListenerKind::Wss(..) => "wss",
        }
    }

    pub fn tls(&self) -> Option<&TlsConfig> {
        match self {
            ListenerKind::Ssl(tls) | ListenerKind::Wss(tls, _) => Some(tls),
            ListenerKind::Tcp | ListenerKind::Ws(_) => None,
        }
    }

    pub fn websocket(&self) -> Option<&WsConfig> {
        match self {
            ListenerKind::Ws(websocket) | ListenerKind::Wss(_, websocket) => Some(websocket),
            ListenerKind::Tcp | ListenerKind::Ssl(_) => None,
        }
    }
}

/// PROXY protocol, versions 1 and 2. When it is on, every connection must begin with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocolConfig {
    /// Time from the accepted connection to a complete header.
    pub timeout: Duration,
    /// The peers whose header is believed; never empty. A connection from elsewhere is refused.
    pub trusted: Vec<Cidr>,
    /// Whether what they say of the client's TLS is believed too.
    pub tls: bool,
}

/// `tcp_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpConfig {
    pub nodelay: bool,
    /// Connections the kernel holds for the accept loop.
    pub backlog: u32,
    pub keepalive: Option<TcpKeepalive>,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig { nodelay: true, backlog: 1024, keepalive: None }
    }
}

/// TCP keep alive, written as EMQX does: `"240,30,5"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is given up.
    pub probes: u32,
}

/// `websocket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WsConfig {
    /// The path of the upgrade request; begins with `/`.
    pub mqtt_path: String,
    /// Largest WebSocket frame and message, in bytes.
    pub max_frame_size: usize,
    /// Origins of pages whose browsers may connect: whole ones, or hosts alone; empty is all.
    pub allowed_origins: Vec<String>,
    /// Whether a client must ask for the subprotocol `mqtt`. \[MQTT-6.0.0-3\]
    pub fail_if_no_subprotocol: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Ssl,
    Ws,
    Wss,
}

const KINDS: [(&str, Kind); 4] = [("tcp", Kind::Tcp), ("ssl", Kind::Ssl), ("ws", Kind::Ws), ("wss", Kind::Wss)];

/// An address taken, by whom, and where that was written.
struct Taken {
    bind: SocketAddr,
    key: String,
}

/// Reads `[listeners]`. `metrics` is the address of the metrics endpoint when that is on, `gm_only` what holds for the whole node.
pub(super) fn read(
    mut section: Section<'_>,
    mqtt: &MqttConfig,
    metrics: Option<SocketAddr>,
    data_dir: &Path,
    gm_only: bool,
) -> Vec<ListenerConfig> {
    let mistakes_before = section.report().count();
    let mut listeners = Vec::new();
    let mut taken: Vec<Taken> =
        metrics.map(|bind| Taken { bind, key: "metrics.bind".to_owned() }).into_iter().collect();
    for (word, kind) in KINDS {
        for (name, entry) in section.named(word) {
            check_name(&entry, &name);
            let (key, place) = (entry.key("bind"), entry.place("bind"));
            let report = entry.report();
            let Some(listener) = read_one(entry, name, kind, mqtt, data_dir, gm_only) else { continue };
            if let Some(other) = taken.iter().find(|other| overlap(other.bind, listener.bind)) {
                let reason = format!("{} is already taken by {}", listener.bind, other.key);
                report.push(ConfigError::new(place, &*key, reason).suggest("give one of them another port"));
            }
            taken.push(Taken { bind: listener.bind, key });
            listeners.push(listener);
        }
    }
    if section.has("quic") {
        section.error("quic", "QUIC is not supported", Some("use tcp, ssl, ws or wss".to_owned()));
        let _ = section.named("quic");
    }
    if listeners.is_empty() && section.report().count() == mistakes_before {
        let error =
            ConfigError::new(section.origin(), "listeners", "no listener is enabled, so no client could connect");
        section
            .report()
            .push(error.suggest("add a table such as [listeners.tcp.default] with bind = \"127.0.0.1:1883\""));
    }
    section.finish();
    listeners
}

fn read_one(
    mut section: Section<'_>,
    name: String,
    kind: Kind,
    mqtt: &MqttConfig,
    data_dir: &Path,
    gm_only: bool,
) -> Option<ListenerConfig> {
    let report = section.report();
    let enabled = section.read("enable", true);
    let bind = section.optional("bind");
    if bind.is_none() && !section.has("bind") && section.exists() {
        section.error(
            "bind",
            "missing",
            Some("write the address to listen on, such as bind = \"0.0.0.0:1883\"".into()),
        );
    }
    let max_connections = section.within("max_connections", 100_000, 1, 10_000_000);
    // An address may be that of a load balancer or an address translator with every client behind it: limits are for operators who
    // know that it is not.
    let max_connections_per_address = section.within("max_connections_per_address", max_connections, 1, 10_000_000);
    let max_connection_rate_per_address =
        section.within("max_connection_rate_per_address", DEFAULT_CONNECTION_RATE, 1, 1_000_000);
    let connect_timeout = deadline(&mut section, "connect_timeout", mqtt.idle_timeout);
    let mountpoint = read_mountpoint(&mut section);
    let rates = RateConfig::read(&mut section);
    let proxy_protocol = read_proxy_protocol(&mut section);
    let tcp = read_tcp(section.section("tcp_options"));
    let loopback = bind.as_ref().is_none_or(|Bind(bind)| bind.ip().to_canonical().is_loopback());
    let gm_only = read_gm_only(&mut section, kind, loopback, gm_only);
    let kind = match kind {
        Kind::Tcp => Some(ListenerKind::Tcp),
        Kind::Ssl => TlsConfig::read(&mut section, data_dir, gm_only).map(ListenerKind::Ssl),
        Kind::Ws => Some(ListenerKind::Ws(read_websocket(section.section("websocket"), mqtt))),
        Kind::Wss => {
            let websocket = read_websocket(section.section("websocket"), mqtt);
            TlsConfig::read(&mut section, data_dir, gm_only).map(|tls| ListenerKind::Wss(tls, websocket))
        }
    };
    let kind = match kind {
        Some(kind) => kind,
        None => {
            let _of_a_listener_with_mistakes = PeerNames::read(&mut section, PeerNames::default());
            section.finish();
            if enabled {
                report.certificates_unseen();
            }
            return None;
        }
    };
    let learns = learns_of_certificates(&kind, proxy_protocol.as_ref());
    let peer_names = PeerNames::read_of_listener(&mut section, mqtt.peer_names, learns);
    section.finish();
    enabled.then_some(())?;
    if bind.is_none() && kind.tls().is_some() {
        report.certificates_unseen();
    }
    let Bind(bind) = bind?;
    Some(ListenerConfig {
        name,
        kind,
        bind,
        max_connections,
        max_connections_per_address,
        max_connection_rate_per_address,
        connect_timeout,
        mountpoint,
        rates,
        peer_names,
        proxy_protocol,
        tcp,
    })
}

/// By a handshake that asks for one, or by what a proxy says.
fn learns_of_certificates(kind: &ListenerKind, proxy: Option<&ProxyProtocolConfig>) -> bool {
    let asks = kind.tls().is_some_and(|tls| tls.client_auth().iter().any(|(_, auth)| auth.trust().is_some()));
    let keys = kind.tls().and_then(|tls| tls.tls.as_ref()).is_some_and(|tls| tls.psk_file.is_some());
    asks || keys || proxy.is_some_and(|proxy| proxy.tls)
}

/// A prefix of topic names. `$` at its start would put clients among the broker's own topics.
fn read_mountpoint(section: &mut Section<'_>) -> String {
    let mountpoint: String = section.read("mountpoint", String::new());
    let plain = mountpoint.replace("${clientid}", "").replace("${username}", "");
    if mountpoint.starts_with('$') && !mountpoint.starts_with("${")
        || plain.contains(['+', '#', '$', '\0'])
        || mountpoint.len() > MAX_MOUNTPOINT_LEN
    {
        let reason = format!("`{}` is not the beginning of a topic name", mountpoint.escape_default());
        let suggestion = "write levels that end in a slash, such as \"site1/${clientid}/\"".to_owned();
        section.error("mountpoint", reason, Some(suggestion));
    }
    mountpoint
}

fn check_name(section: &Section<'_>, name: &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_LISTENER_NAME_LEN || !name.chars().all(allowed) {
        let reason = "the name of a listener has 1 to 64 letters, digits, `_` or `-`";
        section.report().push(ConfigError::new(section.origin(), section.path(), reason));
    }
}

fn read_proxy_protocol(section: &mut Section<'_>) -> Option<ProxyProtocolConfig> {
    let on = section.read("proxy_protocol", false);
    let timeout = deadline(section, "proxy_protocol_timeout", Duration::from_secs(3));
    let trusted: Option<Vec<Cidr>> = section.optional("proxy_protocol_trusted");
    let tls = section.read("proxy_protocol_tls", false);
    if !on {
        if tls {
            let reason = "without proxy_protocol no proxy says anything";
            section.error("proxy_protocol_tls", reason, Some("set proxy_protocol = true as well".to_owned()));
        }
        return None;
    }
    let trusted = trusted.unwrap_or_default();
    if trusted.is_empty() {
        let reason = "without proxy_protocol_trusted every peer could claim any address";
        let suggestion = "list the load balancers, such as proxy_protocol_trusted = [\"10.0.0.0/8\"]";
        section.error("proxy_protocol", reason, Some(suggestion.to_owned()));
    }
    Some(ProxyProtocolConfig { timeout, trusted, tls })
}

fn read_tcp(mut section: Section<'_>) -> TcpConfig {
    let default = TcpConfig::default();
    let nodelay = section.read("nodelay", default.nodelay);
    let backlog = section.within("backlog", default.backlog, 1, 65_535);
    let keepalive = section.optional::<String>("keepalive").filter(|text| text != "none").and_then(|text| {
        let parsed = parse_keepalive(&text);
        if parsed.is_none() {
            let suggestion = "write seconds of silence, seconds between probes and probes (up to 72000, 750 and 90), \
                              such as \"240,30,5\", or \"none\"";
            section.error("keepalive", format!("`{text}` is not a TCP keep alive"), Some(suggestion.to_owned()));
        }
        parsed
    });
    section.finish();
    TcpConfig { nodelay, backlog, keepalive }
}

fn parse_keepalive(text: &str) -> Option<TcpKeepalive> {
    let mut parts = text.split(',').map(|part| part.trim().parse::<u32>().ok());
    let (idle, interval, probes) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = (1..=72_000).contains(&idle) && (1..=750).contains(&interval) && (1..=90).contains(&probes);
    (valid && parts.next().is_none()).then(|| TcpKeepalive {
        idle: Duration::from_secs(idle.into()),
        interval: Duration::from_secs(interval.into()),
        probes,
    })
}

fn read_websocket(mut section: Section<'_>, mqtt: &MqttConfig) -> WsConfig {
    let mqtt_path = section.read("mqtt_path", "/mqtt".to_owned());
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    if !mqtt_path.starts_with('/') || !mqtt_path.chars().all(plain) {
        let reason = format!("`{}` is not a URL path", mqtt_path.escape_default());
        section.error("mqtt_path", reason, Some("write it with a leading slash: \"/mqtt\"".to_owned()));
    }
    let max_frame_size = size(&mut section, "max_frame_size", u64::from(mqtt.max_packet_size), 128, 1 << 30);
    let allowed_origins: Vec<String> = section.read("allowed_origins", Vec::new());
    for origin in &allowed_origins {
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
        if host.is_empty() || host.contains(['/', '*']) || !origin.chars().all(|c| c.is_ascii_graphic()) {
            let reason = format!("`{}` is neither an origin nor a host", origin.escape_default());
            let suggestion = "write \"https://console.example\", or \"console.example\" for any scheme and port";
            section.error("allowed_origins", reason, Some(suggestion.to_owned()));
        }
    }
    let fail_if_no_subprotocol = section.read("fail_if_no_subprotocol", true);
    section.finish();
    WsConfig { mqtt_path, max_frame_size, allowed_origins, fail_if_no_subprotocol }
}

/// Whether a listener serves SM2, SM3 and SM4 alone. One that does not encrypt cannot; where the whole node is to, it has to be excepted
/// by its own key, and be for this machine only.
fn read_gm_only(section: &mut Section<'_>, kind: Kind, loopback: bool, node: bool) -> bool {
    let own: Option<bool> = section.optional("gm_only");
    let secured = matches!(kind, Kind::Ssl | Kind::Wss);
    let advice = "use a listener of kind ssl or wss with rfc8998_options or tlcp_options";
    match (own, node) {
        (Some(false), true) if secured => {
            let reason = "crypto.gm_only holds for every listener that encrypts";
            section.error("gm_only", reason, Some("remove this key, or crypto.gm_only".to_owned()));
        }
        (Some(false), true) if !loopback => {
            let reason =
                "only a listener on loopback can be excepted from crypto.gm_only, since this one does not encrypt";
            section.error("gm_only", reason, Some(advice.to_owned()));
        }
        (Some(true), _) if !secured => {
            section.error("gm_only", "a listener of this kind does not encrypt at all", Some(advice.to_owned()));
        }
        (None, true) if !secured => {
            let reason = "crypto.gm_only is set, and a listener of this kind does not encrypt at all";
            let except = "gm_only = false excepts a listener that is bound to loopback";
            section.error("gm_only", reason, Some(format!("{advice}; {except}")));
        }
        _ => {}
    }
    own.unwrap_or(node)
}

/// Whether two listening sockets would claim the same port of the same address. Port 0 is a new port each time, and an
/// unspecified address includes every other: `[::]` also takes IPv4 on a dual-stack host.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (first, second) = (one.ip(), other.ip());
    let includes = |wide: std::net::IpAddr, narrow: std::net::IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one.port() != 0
        && one.port() == other.port()
        && (first.to_canonical() == second.to_canonical() || includes(first, second) || includes(second, first))
}
