//! A whole broker on loopback ports of its own, and clients for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use shangmq::config::Config;
use shangmq::dev_certs::{self, DevCerts};
use shangmq::metrics::ListenerMetrics;
use shangmq::net::websocket;
use shangmq::server::{Prepared, Server};
use tempfile::TempDir;
use testkit::{AnyStream, Client, Connect, ConnectExt, ProtocolVersion, Transport, connect};
use tokio::runtime::Handle;

/// Longest WebSocket message that a test's client takes.
const MAX_MESSAGE_LEN: usize = 64 << 20;

/// Certificates of every kind, made on the first use and kept below the build directory.
pub fn certificates() -> &'static DevCerts {
    static CERTIFICATES: OnceLock<DevCerts> = OnceLock::new();
    CERTIFICATES.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("development-certificates");
        dev_certs::ensure(&dir).unwrap()
    })
}

/// Waits until something is so that no packet tells of.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What a broker is configured with before it starts.
#[derive(Debug)]
pub struct Setup {
    mqtt: String,
    retainer: String,
    store: String,
    auth: String,
    /// Whether everything is allowed where `auth` says nothing of rules.
    open: bool,
    listeners: Vec<&'static str>,
    listener_keys: String,
    sections: String,
    secured: Secured,
    dir: TempDir,
}

impl Setup {
    /// A broker with one plain listener, open to anonymous clients.
    pub fn new() -> Setup {
        Setup {
            mqtt: String::new(),
            retainer: String::new(),
            store: String::new(),
            auth: "allow_anonymous = true\n".to_owned(),
            open: true,
            listeners: vec!["tcp"],
            listener_keys: String::new(),
            sections: String::new(),
            secured: Secured::default(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Listeners of every kind, with every protocol on the secured ones.
    pub fn every_transport(mut self) -> Setup {
        self.listeners = vec!["tcp", "ssl", "ws", "wss"];
        self
    }

    /// One listener of kind `ssl` and no other.
    pub fn secured(mut self) -> Setup {
        self.listeners = vec!["ssl"];
        self
    }

    /// Listeners of these kinds alone.
    pub fn listeners(mut self, kinds: &[&'static str]) -> Setup {
        self.listeners = kinds.to_vec();
        self
    }

    /// How the `ssl` and `wss` listeners are secured.
    pub fn secured_by(mut self, secured: Secured) -> Setup {
        self.secured = secured;
        self
    }

    /// Adds a line to `[mqtt]`.
    pub fn mqtt(mut self, line: &str) -> Setup {
        self.mqtt += &format!("{line}\n");
        self
    }

    /// Adds a line to `[store]`.
    pub fn store(mut self, line: &str) -> Setup {
        self.store += &format!("{line}\n");
        self
    }

    /// Adds a line to `[retainer]`.
    pub fn retainer(mut self, line: &str) -> Setup {
        self.retainer += &format!("{line}\n");
        self
    }

    /// Replaces the lines of `[auth]`. Where they say nothing of rules for topics, clients may use all of them.
    pub fn auth(mut self, lines: &str) -> Setup {
        self.auth = format!("{lines}\n");
        self
    }

    /// Leaves what no rule allows to the default, also where there are no rules.
    pub fn without_no_match(mut self) -> Setup {
        self.open = false;
        self
    }

    /// Adds a line to every listener.
    pub fn listener(mut self, line: &str) -> Setup {
        self.listener_keys += &format!("{line}\n");
        self
    }

    /// Adds whole sections.
    pub fn sections(mut self, text: &str) -> Setup {
        self.sections += &format!("{text}\n");
        self
    }

    /// The directory from which relative paths of the configuration start; it goes with the broker.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration as an operator would write it.
    pub fn toml(&self) -> String {
        let mut text = format!(
            "[node]\ndata_dir = \"data\"\n[mqtt]\n{}[retainer]\n{}[store]\n{}[auth]\n{}{}",
            self.mqtt,
            self.retainer,
            self.store,
            if self.is_open() { "no_match = \"allow\"\n" } else { "" },
            self.auth
        );
        for kind in &self.listeners {
            text += &format!("[listeners.{kind}.default]\nbind = \"127.0.0.1:0\"\n{}", self.listener_keys);
            if matches!(*kind, "ssl" | "wss") {
                text += &self.secured.toml(kind);
            }
        }
        text + &self.sections
    }

    fn is_open(&self) -> bool {
        self.open && !["acl", "no_match"].iter().any(|word| self.auth.contains(word))
    }

    pub fn config(&self) -> Config {
        Config::parse(&self.dir.path().join("shangmq.toml"), &self.toml(), []).unwrap()
    }

    pub async fn start(self) -> TestBroker {
        let server = Server::start(self.config()).await.unwrap();
        TestBroker { server, _dir: self.dir }
    }

    /// As [`start`](Self::start), with a runtime of their own for connections that are not secured yet.
    pub async fn start_with(self, handshakes: &Handle) -> TestBroker {
        let prepared = Prepared::new(self.config()).unwrap().handshakes_in(handshakes);
        TestBroker { server: Server::run(prepared).await.unwrap(), _dir: self.dir }
    }
}

/// A running broker. Dropping it ends all its tasks.
#[derive(Debug)]
pub struct TestBroker {
    pub server: Server,
    _dir: TempDir,
}

impl TestBroker {
    /// A broker with one plain listener and the defaults for everything.
    pub async fn start() -> TestBroker {
        Setup::new().start().await
    }

    /// The counters of the listener of this kind.
    pub fn counters(&self, kind: &str) -> Arc<ListenerMetrics> {
        self.server.metrics().listener(&format!("{kind}:default"))
    }

    pub fn address(&self, transport: Transport) -> SocketAddr {
        let id = format!("{}:default", transport.listener());
        let found = self.server.addresses().iter().find(|(listener, _)| **listener == *id);
        found.unwrap_or_else(|| panic!("no listener {id}; use Setup::every_transport")).1
    }

    /// What a counter or gauge of the metrics says now, named with its labels; 0 where there is no such sample yet.
    pub fn sample(&self, series: &str) -> u64 {
        let text = self.server.metrics().encode(Default::default());
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    /// A client that has said nothing yet.
    pub async fn open(&self, transport: Transport) -> Client {
        let address = self.address(transport);
        let stream = transport.open(address, certificates()).await;
        self.upgraded(transport, stream).await
    }

    /// As [`open`](Self::open), for a client that shows its certificates.
    pub async fn open_with_identity(&self, transport: Transport) -> Client {
        let address = self.address(transport);
        let stream = transport.open_with_identity(address, certificates()).await;
        self.upgraded(transport, stream).await
    }

    async fn upgraded(&self, transport: Transport, stream: AnyStream) -> Client {
        if !transport.is_websocket() {
            return Client::new(stream);
        }
        let socket = websocket::connect(stream, "localhost", websocket::DEFAULT_PATH, MAX_MESSAGE_LEN).await.unwrap();
        Client::new(Box::new(socket))
    }

    /// A client on the plain listener that has said nothing yet.
    pub async fn raw(&self) -> Client {
        self.open(Transport::Tcp).await
    }

    /// A client on the plain listener whose CONNECT was accepted.
    pub async fn connect(&self, packet: Connect) -> Client {
        self.connect_over(Transport::Tcp, packet).await
    }

    pub async fn connect_over(&self, transport: Transport, packet: Connect) -> Client {
        let mut client = self.open(transport).await;
        client.connect(packet).await;
        client
    }

    /// A client of MQTT 5 on the plain listener, with a session that ends with its connection.
    pub async fn client(&self, id: &str) -> Client {
        self.connect(connect(id)).await
    }

    /// As [`client`](Self::client), in this version.
    pub async fn client_of(&self, version: ProtocolVersion, id: &str) -> Client {
        self.connect(connect(id).version(version)).await
    }

    /// A client with a session that outlives its connection, and whether the session was there before.
    pub async fn persistent(&self, version: ProtocolVersion, id: &str) -> (Client, bool) {
        let mut client = self.raw().await;
        let ack = client.connect(connect(id).version(version).persistent()).await;
        (client, ack.session_present)
    }
}

/// The keys of a listener that is secured with the development set.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Of `protocols`.
    pub protocols: Vec<&'static str>,
    /// Further lines of the listener itself.
    pub keys: String,
    /// Further lines of `tlcp_options`.
    pub tlcp: String,
    /// Further lines of `ssl_options` and `rfc8998_options`.
    pub others: String,
    /// Whom TLCP clients must be certified by, in place of the set's authority.
    pub tlcp_ca: PathBuf,
    /// Whom other clients must be certified by, in place of the set's authorities.
    pub other_ca: Option<PathBuf>,
}

impl Secured {
    /// Clients must show certificates, whatever they speak.
    pub fn mutual() -> Secured {
        let required = "fail_if_no_peer_cert = true\n".to_owned();
        Secured { tlcp: required.clone(), others: required, ..Secured::default() }
    }
}

/// TLS, RFC 8998 and TLCP, with verification of the certificates of clients that show some.
impl Default for Secured {
    fn default() -> Self {
        Secured {
            protocols: vec!["tls", "rfc8998", "tlcp"],
            keys: String::new(),
            tlcp: String::new(),
            others: String::new(),
            tlcp_ca: certificates().sm2_ca(),
            other_ca: None,
        }
    }
}

impl Secured {
    fn toml(&self, kind: &str) -> String {
        let certificates = certificates();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let files = |names: [&str; 2], pair: &dev_certs::CertKey| {
            format!("{} = {:?}\n{} = {:?}\n", names[0], path(&pair.cert), names[1], path(&pair.key))
        };
        let trust = |ca: &Path| format!("verify = \"verify_peer\"\ncacertfile = {:?}\n", path(ca));
        let block = |protocol: &str, name: &str, lines: &[String]| match self.protocols.contains(&protocol) {
            true => format!("[listeners.{kind}.default.{name}]\n{}", lines.concat()),
            false => String::new(),
        };
        let key_names = ["certfile", "keyfile"];
        [
            format!("protocols = {:?}\n{}", self.protocols, self.keys),
            block(
                "tls",
                "ssl_options",
                &[
                    files(key_names, &certificates.server_ecdsa()),
                    trust(self.other_ca.as_ref().unwrap_or(&certificates.ca_bundle())),
                    self.others.clone(),
                ],
            ),
            block(
                "rfc8998",
                "rfc8998_options",
                &[
                    files(key_names, &certificates.server_sm2()),
                    trust(self.other_ca.as_ref().unwrap_or(&certificates.sm2_ca())),
                    self.others.clone(),
                ],
            ),
            block(
                "tlcp",
                "tlcp_options",
                &[
                    files(["sign_certfile", "sign_keyfile"], &certificates.server_sign()),
                    files(["enc_certfile", "enc_keyfile"], &certificates.server_enc()),
                    trust(&self.tlcp_ca),
                    self.tlcp.clone(),
                ],
            ),
        ]
        .concat()
    }
}
