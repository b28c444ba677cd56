//! New certificates and options in a running broker: nobody is cut off, and what is wrong changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gm_tls::cert::Certificate;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use shangmq::dev_certs::{self, DevCerts};
use shangmq::operator::Trigger;
use shangmq::server::{Prepared, Server};
use tempfile::TempDir;
use testkit::{BrokerProcess, Client, connect, publish};
use tokio::net::TcpStream;

use crate::broker::{certificates, eventually};

/// Another set, with authorities of its own.
fn others() -> DevCerts {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-development-certificates");
    dev_certs::ensure(&dir).unwrap()
}

const PROTOCOLS: [ClientProtocol; 4] =
    [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998, ClientProtocol::Tlcp];

/// The files of a server for every protocol, by the names that [`LISTENER`] gives them.
fn server_files(set: &DevCerts) -> [(&'static str, PathBuf); 8] {
    let (tls, sm2, sign, enc) = (set.server_ecdsa(), set.server_sm2(), set.server_sign(), set.server_enc());
    [
        ("tls.crt", tls.cert),
        ("tls.key", tls.key),
        ("sm2.crt", sm2.cert),
        ("sm2.key", sm2.key),
        ("sign.crt", sign.cert),
        ("sign.key", sign.key),
        ("enc.crt", enc.cert),
        ("enc.key", enc.key),
    ]
}

const LISTENER: &str = "
[node]
data_dir = \"data\"
[store]
durability = \"off\"
[auth]
allow_anonymous = true
no_match = \"allow\"
[listeners.ssl.default]
bind = \"127.0.0.1:0\"
[listeners.ssl.default.ssl_options]
certfile = \"certs/tls.crt\"
keyfile = \"certs/tls.key\"
[listeners.ssl.default.rfc8998_options]
certfile = \"certs/sm2.crt\"
keyfile = \"certs/sm2.key\"
[listeners.ssl.default.tlcp_options]
sign_certfile = \"certs/sign.crt\"
sign_keyfile = \"certs/sign.key\"
enc_certfile = \"certs/enc.crt\"
enc_keyfile = \"certs/enc.key\"
";

/// Puts files in place as a careful operator does: each whole or not at all.
fn install(dir: &Path, set: &DevCerts) {
    fs::create_dir_all(dir).unwrap();
    for (name, from) in server_files(set) {
        install_one(dir, name, &from);
    }
}

fn install_one(dir: &Path, name: &str, from: &Path) {
    let new = dir.join(format!("{name}.new"));
    fs::copy(from, &new).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, dir.join(name)).unwrap();
}

/// A client that trusts the authorities of these sets.
fn connector(protocol: ClientProtocol, sets: &[&DevCerts]) -> Connector {
    let anchors = |set: &&DevCerts| Certificate::anchors_from_file("ca", &set.ca_bundle()).unwrap();
    let ca = sets.iter().flat_map(anchors).collect();
    Connector::new(&ClientOptions { ca, ..ClientOptions::new(protocol, "localhost") }).unwrap()
}

async fn visit(connector: &Connector, address: std::net::SocketAddr, id: &str) -> Result<Client, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let secured = connector.connect(stream).await.map_err(|error| error.to_string())?;
    let mut client = Client::new(Box::new(secured) as testkit::AnyStream);
    client.connect(connect(id)).await;
    Ok(client)
}

/// A broker of this process whose configuration is a file.
struct Broker {
    server: Server,
    dir: TempDir,
}

impl Broker {
    async fn start() -> Broker {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("certs"), certificates());
        fs::write(dir.path().join("shangmq.toml"), LISTENER).unwrap();
        let prepared = Prepared::load(Some(&dir.path().join("shangmq.toml")), []).unwrap();
        Broker { server: Server::run(prepared).await.unwrap(), dir }
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    fn address(&self) -> std::net::SocketAddr {
        self.server.addresses()[0].1
    }

    /// Whether every protocol shows the certificates of this set and of no other.
    async fn shows(&self, set: &DevCerts) -> bool {
        for protocol in PROTOCOLS {
            if visit(&connector(protocol, &[set]), self.address(), "look").await.is_err() {
                return false;
            }
        }
        true
    }

    fn sample(&self, series: &str) -> u64 {
        let text = self.server.metrics().encode(Default::default());
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap()
    }

    /// Reloads; the mistakes, one to a line, where there are any.
    async fn reload(&self) -> Result<Vec<String>, String> {
        let outcome = self.server.operator().reload_aside(Trigger::Command).await;
        outcome.map(|done| done.listeners).map_err(|errors| errors.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connections_during_100_reloads_loses_none() {
    let broker = Broker::start().await;
    let (one, other) = (certificates(), others());
    let mut before = Vec::new();
    for protocol in PROTOCOLS {
        let id = format!("{protocol:?}");
        before.push(visit(&connector(protocol, &[one]), broker.address(), &id).await.unwrap());
    }
    let (stop, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let storm: Vec<_> = PROTOCOLS
        .into_iter()
        .map(|protocol| {
            let connector = connector(protocol, &[one, &other]);
            let (stop, visits, address) = (Arc::clone(&stop), Arc::clone(&visits), broker.address());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = visit(&connector, address, "").await.unwrap();
                    client.ping().await;
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..100 {
        install(&broker.certs(), if round % 2 == 0 { &other } else { one });
        assert_eq!(broker.reload().await.unwrap(), ["ssl:default"]);
    }
    stop.store(true, Ordering::Relaxed);
    for task in storm {
        task.await.unwrap();
    }
    assert!(visits.load(Ordering::Relaxed) >= 100, "{} visits are no storm", visits.load(Ordering::Relaxed));
    for client in &mut before {
        client.ping().await;
    }
    assert_eq!(broker.server.metrics().listener("ssl:default").all_refusals(), 0);
    assert!(broker.shows(one).await);
    assert_eq!(broker.sample("shangmq_reloads_total{outcome=\"success\"}"), 100);
}

#[tokio::test]
async fn a_file_that_is_half_written_changes_nothing() {
    let broker = Broker::start().await;
    let whole = fs::read(broker.certs().join("tls.crt")).unwrap();
    // The others are good and new, and have to wait for the one that is not.
    install(&broker.certs(), &others());
    fs::write(broker.certs().join("tls.crt"), &whole[..whole.len() / 2]).unwrap();
    let refused = broker.reload().await.unwrap_err();
    assert!(refused.contains("tls.crt") && refused.contains("ssl_options.certfile"), "{refused}");
    assert!(broker.shows(certificates()).await);
    assert_eq!(broker.sample("shangmq_reloads_total{outcome=\"failure\"}"), 1);
    assert_eq!(broker.sample("shangmq_config_last_reload_successful"), 0);
    install(&broker.certs(), &others());
    broker.reload().await.unwrap();
    assert!(broker.shows(&others()).await);
    assert_eq!(broker.sample("shangmq_config_last_reload_successful"), 1);
}

#[tokio::test]
async fn files_that_are_good_say_nothing_of_a_configuration_that_was_refused() {
    let broker = Broker::start().await;
    let path = broker.dir.path().join("shangmq.toml");
    let files = async || broker.server.operator().reload_aside(Trigger::Files).await;
    let in_force = || broker.sample("shangmq_config_last_reload_successful");
    fs::write(&path, LISTENER.replace("allow_anonymous", "allow_anonymouss")).unwrap();
    broker.reload().await.unwrap_err();
    assert_eq!(in_force(), 0);
    install(&broker.certs(), &others());
    files().await.unwrap();
    assert_eq!(in_force(), 0, "the configuration is still refused");
    fs::write(&path, LISTENER).unwrap();
    broker.reload().await.unwrap();
    assert_eq!(in_force(), 1);
    fs::write(broker.certs().join("tls.crt"), "half").unwrap();
    files().await.unwrap_err();
    assert_eq!(in_force(), 0);
    install(&broker.certs(), &others());
    files().await.unwrap();
    assert_eq!(in_force(), 1);
}

#[tokio::test]
async fn a_certificate_that_comes_before_its_key_waits_for_it() {
    let broker = Broker::start().await;
    let other = others();
    for half in [["sign.crt", "enc.crt"], ["tls.crt", "sm2.crt"]] {
        for (name, from) in server_files(&other).iter().filter(|(name, _)| half.contains(name)) {
            install_one(&broker.certs(), name, from);
        }
        let refused = broker.reload().await.unwrap_err();
        assert!(refused.contains(&half[0].replace(".crt", ".key")), "{refused}");
        assert!(broker.shows(certificates()).await);
    }
    install(&broker.certs(), &other);
    broker.reload().await.unwrap();
    assert!(broker.shows(&other).await);
}

#[tokio::test]
async fn a_reload_of_the_same_files_keeps_the_contexts() {
    let broker = Broker::start().await;
    assert_eq!(broker.reload().await.unwrap(), Vec::<String>::new());
    install(&broker.certs(), certificates());
    assert_eq!(broker.reload().await.unwrap(), Vec::<String>::new(), "copied anew, and the same");
}

#[tokio::test]
async fn both_certificates_of_a_pair_are_listed_and_measured_as_they_are_in_force() {
    let broker = Broker::start().await;
    let shown = || {
        let listed = broker.server.operator().certificates(0);
        listed.into_iter().map(|one| (one.protocol, one.usage, one.fingerprint_sm3)).collect::<Vec<_>>()
    };
    let expected = |set: &DevCerts| {
        let files = [set.server_ecdsa(), set.server_sm2(), set.server_sign(), set.server_enc()];
        let kinds = [("tls", "single"), ("rfc8998", "single"), ("tlcp", "signing"), ("tlcp", "encryption")];
        let print = |files: &dev_certs::CertKey| {
            Certificate::anchors_from_file("certificate", &files.cert).unwrap()[0].fingerprint_sm3()
        };
        let zipped = kinds.into_iter().zip(&files);
        zipped.map(|((kind, usage), files)| (kind.to_owned(), usage.to_owned(), print(files))).collect::<Vec<_>>()
    };
    assert_eq!(shown(), expected(certificates()));
    install(&broker.certs(), &others());
    broker.reload().await.unwrap();
    assert_eq!(shown(), expected(&others()));
    let text = broker.server.metrics().encode(Default::default());
    let left: Vec<i64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("shangmq_cert_expiry_seconds{")?.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(left.len() == 4 && left.iter().all(|left| (0..=825 * 86_400).contains(left)), "{left:?}");
    assert_eq!(broker.sample("shangmq_certs_expiring{within=\"30d\"}"), 0);
}

#[tokio::test]
async fn tickets_survive_new_certificates_and_no_change_of_what_clients_must_show() {
    let broker = Broker::start().await;
    let path = broker.dir.path().join("shangmq.toml");
    let with = |more: &str| {
        let tickets = format!("session_tickets = \"stateless\"\n{more}");
        let text = LISTENER
            .replace("keyfile = \"certs/tls.key\"\n", &format!("keyfile = \"certs/tls.key\"\n{tickets}"))
            .replace("keyfile = \"certs/sm2.key\"\n", &format!("keyfile = \"certs/sm2.key\"\n{tickets}"));
        fs::write(&path, text).unwrap();
    };
    with("");
    broker.reload().await.unwrap();
    for protocol in [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998] {
        let connector = connector(protocol, &[certificates(), &others()]);
        let visit = async |session: Option<&gm_tls::client::Session>| {
            let stream = TcpStream::connect(broker.address()).await.unwrap();
            let secured = connector.connect_resuming(stream, session).await.unwrap();
            let mut client = Client::new(secured);
            client.connect(connect("resuming")).await;
            (client.get_ref().peer_identity().resumed, client.get_ref().session())
        };
        let (_, session) = visit(None).await;
        install(&broker.certs(), &others());
        assert_eq!(broker.reload().await.unwrap(), ["ssl:default"]);
        assert!(visit(session.as_ref()).await.0, "{protocol:?}: other certificates of the server");
        let (_, session) = visit(None).await;
        with(&format!("verify = \"verify_peer\"\ncacertfile = {:?}\n", certificates().ca_bundle()));
        broker.reload().await.unwrap();
        assert!(!visit(session.as_ref()).await.0, "{protocol:?}: clients are asked for certificates now");
        with("");
        install(&broker.certs(), certificates());
        broker.reload().await.unwrap();
    }
}

#[tokio::test]
async fn options_take_effect_and_keys_that_need_a_restart_are_named() {
    let broker = Broker::start().await;
    let path = broker.dir.path().join("shangmq.toml");
    let text = LISTENER
        .replace("keyfile = \"certs/tls.key\"\n", "keyfile = \"certs/tls.key\"\nversions = [\"tlsv1.3\"]\n")
        .replace("allow_anonymous = true", "allow_anonymous = false\nmax_failures_per_minute = 7")
        + "[mqtt]\nmax_inflight = 7\n[listeners.tcp.more]\nbind = \"127.0.0.1:0\"\n";
    fs::write(&path, text).unwrap();
    let done = broker.server.operator().reload_aside(Trigger::Command).await.unwrap();
    assert_eq!(done.listeners, ["ssl:default"]);
    assert_eq!(done.restart_needed, ["auth.max_failures_per_minute", "listeners.tcp.more.bind", "mqtt.max_inflight"]);
    let tls12 = connector(ClientProtocol::Tls12, &[certificates()]);
    assert!(tls12.connect(TcpStream::connect(broker.address()).await.unwrap()).await.is_err());
    let tls13 = connector(ClientProtocol::Tls13, &[certificates()]);
    let stream = tls13.connect(TcpStream::connect(broker.address()).await.unwrap()).await.unwrap();
    let mut client = Client::new(Box::new(stream) as testkit::AnyStream);
    client.expect_refusal(connect("nobody"), testkit::ReasonCode::NotAuthorized).await;

    fs::write(&path, "[node]\ndata_dirr = 1\n").unwrap();
    let refused = broker.reload().await.unwrap_err();
    assert!(refused.contains("did you mean `data_dir`?"), "{refused}");
}

// What is not allowed by a word any more is refused to those who are connected, and the operator who took it out is told.
#[tokio::test]
async fn without_the_word_that_allowed_all_nothing_is_allowed_any_more() {
    let broker = Broker::start().await;
    let tls = connector(ClientProtocol::Tls13, &[certificates()]);
    let stream = tls.connect(TcpStream::connect(broker.address()).await.unwrap()).await.unwrap();
    let mut client = Client::new(Box::new(stream) as testkit::AnyStream);
    client.connect(connect("c")).await;
    client.subscribe("a", 0).await;
    let text = LISTENER.replace("no_match = \"allow\"\n", "");
    fs::write(broker.dir.path().join("shangmq.toml"), text).unwrap();
    let done = broker.server.operator().reload_aside(Trigger::Command).await.unwrap();
    let [warning] = &done.warnings[..] else { panic!("{:?}", done.warnings) };
    assert!(warning.contains("auth.no_match: nobody may publish or subscribe: "), "{warning}");
    assert_eq!(client.publish(publish("a", 1, "x")).await, testkit::ReasonCode::NotAuthorized);
    assert_eq!(broker.server.broker().subscription_count(), 0);
}

/// The broker as a process, with its certificates where Kubernetes would mount them.
async fn mounted() -> BrokerProcess {
    let text = LISTENER.replace("certs/", &format!("{}/", mount().display()));
    BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &text).await
}

fn mount() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mount-{}", std::process::id()))
}

/// Swaps the link that every file is reached by, as the kubelet does.
fn swap(version: &str, set: &DevCerts) {
    let mount = mount();
    install(&mount.join(version), set);
    symlink(version, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    for (name, _) in server_files(set) {
        // There already after the first time.
        let _ = symlink(Path::new("..data").join(name), mount.join(name));
    }
}

#[tokio::test]
async fn a_process_follows_its_files_by_signal_by_command_and_by_itself() {
    let (one, other) = (certificates(), others());
    let _ = fs::remove_dir_all(mount());
    swap("..v1", one);
    let broker = mounted().await;
    let address = broker.address("ssl:default");
    let shows = |set: &DevCerts| {
        let connectors = PROTOCOLS.map(|protocol| connector(protocol, &[set]));
        async move {
            for connector in &connectors {
                if visit(connector, address, "look").await.is_err() {
                    return false;
                }
            }
            true
        }
    };
    assert!(shows(one).await);
    let lines = |words: &str| broker.log().lines().filter(|line| line.contains(words)).count();

    swap("..v2", &other);
    broker.hang_up();
    eventually("SIGHUP is heard", || lines("\"trigger\":\"SIGHUP\"") == 1).await;
    assert!(shows(&other).await);

    swap("..v3", one);
    let done = broker.command(&["ctl", "reload", "--config", "shangmq.toml"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.contains("ssl:default"), "{text}{}", String::from_utf8_lossy(&done.stderr));
    assert!(shows(one).await);

    swap("..v4", &other);
    eventually("the files are seen", || lines("\"trigger\":\"changed files\"") == 1).await;
    assert!(shows(&other).await);

    fs::remove_file(mount().join("tls.key")).unwrap();
    let refused = broker.command(&["ctl", "reload", "--data", "data"]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && text.contains("tls.key") && text.contains("ssl_options.keyfile"), "{text}");
    assert!(shows(&other).await);

    let listed = broker.command(&["ctl", "certs", "--data", "data", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let usages: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["usage"].as_str().unwrap()).collect();
    assert_eq!(usages, ["single", "single", "signing", "encryption"]);
    let mode = fs::metadata(broker.dir().join("data/ctl.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _ = fs::remove_dir_all(mount());
}
