//! Bundles that change under a running broker, by the library and by `shangmq certs bundle`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shangmq::bundle::{BundleError, BundleId, Bundles, Part, Parts};
use shangmq::operator::Trigger;
use shangmq::server::{Prepared, Server};
use testkit::{AnyStream, BrokerProcess, Client};

use crate::broker::eventually;
use crate::bundles::{Authorities, BY_NAME, PROTOCOLS, now};

fn id(name: &str) -> BundleId {
    name.parse().unwrap()
}

/// One listener for every protocol, each block with these bundles.
fn text(data_dir: &Path, managed: &str) -> String {
    let blocks = ["ssl_options", "rfc8998_options", "tlcp_options"];
    let blocks = blocks.map(|block| format!("[listeners.ssl.default.{block}]\nmanaged_certs = {managed}\n")).concat();
    format!(
        "[node]\ndata_dir = {data_dir:?}\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
         [listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n{blocks}"
    )
}

/// Whether clients of every protocol that ask for `asked` are shown certificates of these authorities.
async fn shows(authorities: &Authorities, address: SocketAddr, asked: &str) -> bool {
    for protocol in PROTOCOLS {
        match authorities.visit(address, protocol, asked).await {
            Ok(client) => client.disconnect().await,
            Err(_) => return false,
        }
    }
    true
}

/// One client of every protocol.
async fn clients(authorities: &Authorities, address: SocketAddr, asked: &str) -> Vec<Client<AnyStream>> {
    let mut clients = Vec::new();
    for protocol in PROTOCOLS {
        clients.push(authorities.visit(address, protocol, asked).await.unwrap());
    }
    clients
}

#[tokio::test]
async fn a_new_version_is_for_new_connections_of_every_protocol_and_name_and_the_old_one_comes_back() {
    let (dir, one, other) = (tempfile::tempdir().unwrap(), Authorities::new(), Authorities::new());
    let (path, data_dir) = (dir.path().join("shangmq.toml"), dir.path().join("data"));
    let bundles = Bundles::in_data_dir(&data_dir);
    for (name, host) in [("own", "own.example"), ("wild", "*.plant.example"), ("mqtt", "mqtt.plant.example")] {
        bundles.put(&id(name), &one.bundle(host), now()).unwrap();
    }
    fs::write(&path, text(&data_dir, BY_NAME)).unwrap();
    let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
    let address = server.addresses()[0].1;
    let mut established = clients(&one, address, "mqtt.plant.example").await;
    established.extend(clients(&one, address, "own.example").await);
    let reload = async || {
        let outcome = server.operator().reload_aside(Trigger::Command).await;
        outcome.map_err(|errors| errors.to_string())
    };

    // By itself.
    let reloads = || {
        let text = server.metrics().encode(Default::default());
        let line = text.lines().find_map(|line| line.strip_prefix("shangmq_reloads_total{outcome=\"success\"} "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    bundles.put(&id("mqtt"), &other.bundle("mqtt.plant.example"), now()).unwrap();
    eventually("the new version is seen", || reloads() >= 1).await;
    assert!(shows(&other, address, "mqtt.plant.example").await);
    for asked in ["own.example", "a.plant.example"] {
        assert!(shows(&one, address, asked).await, "{asked} has a bundle of its own");
    }

    // By a reload.
    bundles.put(&id("own"), &other.bundle("own.example"), now()).unwrap();
    reload().await.unwrap();
    assert!(shows(&other, address, "own.example").await);
    bundles.restore_if::<BundleError>(&id("mqtt"), 1, now(), |_| Ok(())).unwrap();
    reload().await.unwrap();
    assert!(shows(&one, address, "mqtt.plant.example").await);

    // A broken one changes nothing, neither its own name nor another that has a new version.
    bundles.put(&id("own"), &one.bundle("own.example"), now()).unwrap();
    fs::write(bundles.directory(&id("mqtt")).join("00000004"), "{").unwrap();
    let refused = reload().await.unwrap_err();
    assert!(refused.contains("mqtt/00000004: damaged") && refused.contains("managed_certs"), "{refused}");
    assert!(shows(&one, address, "mqtt.plant.example").await);
    assert!(shows(&other, address, "own.example").await);
    fs::remove_file(bundles.directory(&id("mqtt")).join("00000004")).unwrap();
    reload().await.unwrap();
    assert!(shows(&one, address, "own.example").await);
    for client in &mut established {
        client.ping().await;
    }
}

/// A broker as a process whose bundle `mqtt` is in a data directory of its own.
struct Managed {
    data: tempfile::TempDir,
    broker: BrokerProcess,
    authorities: Authorities,
}

impl Managed {
    async fn start() -> Managed {
        let (data, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
        Bundles::in_data_dir(data.path()).put(&id("mqtt"), &authorities.bundle("localhost"), now()).unwrap();
        let text = text(data.path(), "{ bundle_name = \"mqtt\" }");
        let broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &text).await;
        Managed { data, broker, authorities }
    }

    /// Writes the configuration anew, with bundles named as `mqtt` is in `managed`, without those blocks.
    fn configure(&self, name: &str, without: &[&str]) {
        let mut text =
            format!("[log]\nformat = \"json\"\n{}", text(self.data.path(), &format!("{{ bundle_name = {name:?} }}")));
        for block in without {
            let block = format!("[listeners.ssl.default.{block}]\nmanaged_certs = {{ bundle_name = {name:?} }}\n");
            text = text.replace(&block, "");
        }
        fs::write(self.broker.dir().join("shangmq.toml"), text).unwrap();
    }

    /// Runs `shangmq certs bundle`; what it printed, or why it refused.
    fn bundle(&self, arguments: &[&str]) -> Result<String, String> {
        let arguments = [&["certs", "bundle"], arguments, &["--config", "shangmq.toml"]].concat();
        let done = self.broker.command(&arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Puts those parts of a new bundle.
    fn put(&self, name: &str, parts: &[Part]) -> Result<String, String> {
        let bundle = self.authorities.bundle("localhost");
        let files: Vec<String> = parts.iter().flat_map(|part| self.write(&bundle, *part)).collect();
        let arguments: Vec<&str> = ["put", name].into_iter().chain(files.iter().map(String::as_str)).collect();
        self.bundle(&arguments)
    }

    fn write(&self, bundle: &Parts, part: Part) -> [String; 2] {
        let path: PathBuf = self.broker.dir().join(part.name());
        fs::write(&path, bundle.get(part).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        [format!("--{}", part.name().replace('_', "-")), path.display().to_string()]
    }

    fn in_force(&self) -> u32 {
        Bundles::in_data_dir(self.data.path()).show(&id("mqtt")).unwrap().version
    }
}

const TLS: [Part; 2] = [Part::Chain, Part::Key];
const SM2: [Part; 2] = [Part::Sm2Chain, Part::Sm2Key];
const PAIR: [Part; 4] = [Part::SignChain, Part::SignKey, Part::EncChain, Part::EncKey];

#[tokio::test]
async fn what_listeners_could_not_serve_with_is_not_put_in_force() {
    let managed = Managed::start().await;
    let refused = managed.put("mqtt", &[TLS, SM2].concat()).unwrap_err();
    assert!(
        refused.contains("listeners.ssl.default.tlcp_options.managed_certs.bundle_name")
            && refused.contains("the bundle mqtt has no sign_chain, which is needed here"),
        "{refused}"
    );
    assert_eq!(managed.in_force(), 1);
    let left: Vec<_> = fs::read_dir(managed.data.path().join("bundles/global/mqtt")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    managed.put("mqtt", &[&TLS[..], &SM2, &PAIR].concat()).unwrap();
    assert_eq!(managed.in_force(), 2);

    // The configuration wants less, and the broker that runs does not know of it.
    managed.configure("mqtt", &["tlcp_options"]);
    let refused = managed.put("mqtt", &[TLS, SM2].concat()).unwrap_err();
    assert!(refused.contains("the running broker: ") && refused.contains("has no sign_chain"), "{refused}");
    assert_eq!(managed.in_force(), 2);
    assert!(managed.broker.command(&["ctl", "reload", "--config", "shangmq.toml"]).status.success());
    managed.put("mqtt", &[TLS, SM2].concat()).unwrap();
    assert_eq!(managed.in_force(), 3);

    // An old version that lacks what a later one had.
    managed.configure("mqtt", &["rfc8998_options", "tlcp_options"]);
    assert!(managed.broker.command(&["ctl", "reload", "--config", "shangmq.toml"]).status.success());
    managed.put("mqtt", &TLS).unwrap();
    managed.bundle(&["restore", "mqtt", "--version", "2"]).unwrap();
    managed.configure("mqtt", &[]);
    let refused = managed.bundle(&["restore", "mqtt", "--version", "3"]).unwrap_err();
    assert!(
        refused.contains("listeners.ssl.default.tlcp_options") && refused.contains("has no sign_chain"),
        "{refused}"
    );
    assert_eq!(managed.in_force(), 5);

    // Nobody refers to this one.
    managed.put("other", &TLS).unwrap();
}

// The directory of the bundle looked as before, so that nobody knew before the next start, which failed.
#[tokio::test]
async fn a_bundle_that_is_damaged_in_place_is_noticed_and_the_one_in_use_stays() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    let (path, data_dir) = (dir.path().join("shangmq.toml"), dir.path().join("data"));
    let bundles = Bundles::in_data_dir(&data_dir);
    bundles.put(&id("mqtt"), &authorities.bundle("localhost"), now()).unwrap();
    fs::write(&path, text(&data_dir, "{ bundle_name = \"mqtt\" }")).unwrap();
    let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
    let address = server.addresses()[0].1;
    let raised = |name: &str| server.operator().alarms().active.iter().any(|alarm| alarm.name == name);
    let (version, node_key) = (bundles.directory(&id("mqtt")).join("00000001"), data_dir.join("bundles/node.key"));
    for damaged in [&version, &node_key] {
        let whole = fs::read(damaged).unwrap();
        fs::write(damaged, &whole[..whole.len() / 2]).unwrap();
        eventually("the damage is noticed", || raised("reload_refused")).await;
        assert!(shows(&authorities, address, "localhost").await);
        fs::write(damaged, whole).unwrap();
        eventually("the cure is noticed", || !raised("reload_refused")).await;
    }
}

#[tokio::test]
async fn bundles_are_listed_beside_one_that_is_damaged_which_is_named() {
    let managed = Managed::start().await;
    managed.put("other", &TLS).unwrap();
    let listed = |more: &[&str]| {
        let arguments = [&["certs", "bundle", "list", "--config", "shangmq.toml"], more].concat();
        let done = managed.broker.command(&arguments);
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, out, _) = listed(&[]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    fs::write(managed.data.path().join("bundles/global/other/00000001"), "{").unwrap();
    let (code, out, err) = listed(&[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.starts_with("mqtt  version 1, expires "), "{out}");
    assert!(out.contains("\nother  cannot be read: ") && out.contains("other/00000001: damaged: "), "{out}");
    assert!(err.contains("1 of 2 bundles cannot be read"), "{err}");
    let (code, out, _) = listed(&["--json"]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(found["bundles"][0]["name"], "mqtt");
    assert_eq!(found["unreadable"][0]["name"], "other");
    assert!(found["unreadable"][0]["reason"].as_str().unwrap().contains("damaged"), "{out}");
    // Of what all of them lack the reason is said once.
    fs::remove_file(managed.data.path().join("bundles/node.key")).unwrap();
    managed.bundle(&["delete", "other"]).unwrap();
    fs::create_dir(managed.data.path().join("bundles/global/second")).unwrap();
    let copy = managed.data.path().join("bundles/global");
    fs::copy(copy.join("mqtt/00000001"), copy.join("second/00000001")).unwrap();
    let (code, out, err) = listed(&[]);
    assert_eq!(
        (code, out.matches("is missing, and without it").count(), out.lines().count()),
        (Some(1), 1, 2),
        "{out}"
    );
    assert!(out.contains("second  cannot be read for the same reason") && err.contains("2 of 2"), "{out}{err}");
}

// The command itself could not read the file, to find the broker by it, and did not say what that meant for the broker.
#[tokio::test]
async fn a_reload_by_a_configuration_that_is_no_toml_says_that_nothing_was_reloaded() {
    let managed = Managed::start().await;
    let path = managed.broker.dir().join("shangmq.toml");
    let whole = fs::read_to_string(&path).unwrap();
    for (text, mistake) in [("[node\n", "not TOML"), ("[node]\ndata_dri = \"x\"\n", "data_dri")] {
        fs::write(&path, text).unwrap();
        let done = managed.broker.command(&["ctl", "reload", "--config", "shangmq.toml"]);
        let said = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(1));
        assert!(said.starts_with("not reloaded: the broker was not asked and goes on as it is"), "{said}");
        assert!(said.contains("shangmq.toml:") && said.contains(mistake), "{said}");
        let done = managed.broker.command(&["ctl", "reload", "--json", "--config", "shangmq.toml"]);
        let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(said["mistakes"][0]["reason"].is_string() && done.status.code() == Some(1), "{said}");
    }
    // What the broker says of it is to be had all the same.
    let done = managed.broker.command(&["ctl", "alarms", "--config", "shangmq.toml"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.code() == Some(1) && said.contains("data_dri") && said.contains("give it with --data DIR"),
        "{said}"
    );
    let data = managed.data.path().to_str().unwrap();
    let done = managed.broker.command(&["ctl", "alarms", "--data", data]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::write(&path, whole).unwrap();
    assert!(managed.broker.command(&["ctl", "reload", "--config", "shangmq.toml"]).status.success());
}

#[tokio::test]
async fn a_bundle_that_a_running_broker_uses_is_not_deleted() {
    let mut managed = Managed::start().await;
    let refused = managed.bundle(&["delete", "mqtt"]).unwrap_err();
    assert!(refused.contains("in use and was not deleted: listeners.ssl.default, "), "{refused}");
    managed.put("other", &[&TLS[..], &SM2, &PAIR].concat()).unwrap();
    managed.configure("other", &[]);
    let refused = managed.bundle(&["delete", "mqtt"]).unwrap_err();
    assert!(refused.contains("not deleted: listeners.ssl.default of the running broker"), "{refused}");
    assert_eq!(managed.in_force(), 1);
    assert!(managed.broker.command(&["ctl", "reload", "--config", "shangmq.toml"]).status.success());
    managed.bundle(&["delete", "mqtt"]).unwrap();
    // Nobody runs: the configuration alone counts, and the socket that was left behind is nobody.
    managed.broker.kill();
    let refused = managed.bundle(&["delete", "other"]).unwrap_err();
    assert!(refused.contains("not deleted: listeners.ssl.default\n"), "{refused}");
    managed.put("third", &TLS).unwrap();
    managed.bundle(&["delete", "third"]).unwrap();
}
