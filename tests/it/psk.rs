//! Pre-shared keys by operators while the broker runs: stored, in force, and never shown. That clients prove them is in the tests of
//! `gm-tls` and of the user guide.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shangmq::operator::Trigger;
use shangmq::server::{Prepared, Server};
use testkit::{BrokerProcess, ConnectExt, ReasonCode, connect};

use crate::access::{HASH, PASSWORD};
use crate::broker::{Setup, certificates};
use crate::simulated::SimulatedBroker;

const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const OTHER: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";

fn listener(name: &str, psk_file: &Path) -> String {
    let server = certificates().server_ecdsa();
    format!(
        "[listeners.ssl.{name}]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.{name}.ssl_options]\ncertfile = {:?}\nkeyfile = {:?}\n\
         psk_file = {psk_file:?}\n",
        server.cert, server.key
    )
}

const HEAD: &str = "[node]\ndata_dir = \"data\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n";

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn ctl(broker: &BrokerProcess, arguments: &[&str]) -> Result<String, String> {
    let done = broker.command(&[&["ctl", "psk"], arguments, &["--data", "data"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    for key in [KEY, OTHER] {
        assert!(!out.contains(key) && !err.contains(key), "a key is shown: {out}{err}");
    }
    if done.status.success() { Ok(out) } else { Err(err) }
}

#[tokio::test]
async fn keys_are_added_imported_and_removed_at_run_time_and_stay_over_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("psk");
    write(&path, &format!("# devices\na:{KEY}\n"));
    let text = format!("{HEAD}{}", listener("default", &path));
    let mut broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &text).await;
    write(&broker.dir().join("key"), &format!("{OTHER}\n"));
    write(&broker.dir().join("more"), &format!("c:{KEY}\nb:{KEY}\n"));

    let done = ctl(&broker, &["add", "b", "--key-file", "key"]).unwrap();
    assert!(done.starts_with("1 added, 0 with another key, 0 removed") && done.contains("ssl:default"), "{done}");
    let done = ctl(&broker, &["import", "more"]).unwrap();
    assert!(done.starts_with("1 added, 1 with another key"), "{done}");
    let identities = r#""identities":"\"b\"; \"c\"","added":1,"replaced":1"#;
    broker.logged(&[r#""name":"ctl""#, "an operator added pre-shared keys", identities]).await;
    let done = ctl(&broker, &["remove", "a", "--disconnect"]).unwrap();
    assert!(done.starts_with("0 added, 0 with another key, 1 removed"), "{done}");
    assert!(ctl(&broker, &["remove", "a"]).unwrap().starts_with("nothing to change"));
    let listed = ctl(&broker, &["list"]).unwrap();
    assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), ["b", "c"], "{listed}");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("# devices\nb:{KEY}\nc:{KEY}\n"));

    // What is wrong changes nothing.
    fs::set_permissions(broker.dir().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(ctl(&broker, &["add", "d", "--key-file", "key"]).unwrap_err().contains("chmod 600"));
    write(&broker.dir().join("more"), &format!("d:{KEY}\nbroken\n"));
    assert!(ctl(&broker, &["import", "more"]).unwrap_err().contains("more:2: not of the form identity:hexkey"));
    assert!(ctl(&broker, &["list", "--listener", "ssl:none"]).unwrap_err().contains("ssl:none has no psk_file"));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("# devices\nb:{KEY}\nc:{KEY}\n"));
    assert!(!broker.log().contains(KEY) && !broker.log().contains(OTHER));

    broker.kill();
    broker.restart().await;
    let listed: serde_json::Value = serde_json::from_str(&ctl(&broker, &["list", "--json"]).unwrap()).unwrap();
    assert_eq!(listed["identities"], serde_json::json!(["b", "c"]));
}

#[tokio::test]
async fn a_change_is_for_every_listener_of_the_file_and_no_reload_undoes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, own) = (dir.path().join("shared"), dir.path().join("own"));
    for path in [&shared, &own] {
        write(path, &format!("a:{KEY}\n"));
    }
    write(&dir.path().join("key"), OTHER);
    let config = dir.path().join("shangmq.toml");
    let text = format!("{HEAD}{}{}{}", listener("one", &shared), listener("two", &shared), listener("own", &own));
    write(&config, &text);
    let server = Server::run(Prepared::load(Some(&config), []).unwrap()).await.unwrap();
    let operator = server.operator();
    let names = |listener: &str| operator.psk_list(Some(listener)).unwrap().identities;
    let refused = operator.psk_remove(None, "a", false).unwrap_err().to_string();
    assert!(refused.contains("ssl:own, ssl:one, ssl:two; name one with --listener"), "{refused}");
    let key = dir.path().join("key");
    let done = operator.psk_add(Some("ssl:one"), "b", &key).unwrap();
    assert_eq!(done.listeners, ["ssl:one", "ssl:two"]);
    operator.psk_remove(Some("ssl:two"), "a", false).unwrap();
    for _ in 0..2 {
        assert_eq!(
            (names("ssl:one"), names("ssl:two"), names("ssl:own")),
            (vec!["b".into()], vec!["b".into()], vec!["a".into()])
        );
        for trigger in [Trigger::Command, Trigger::Files] {
            operator.reload_aside(trigger).await.unwrap();
        }
    }
    server.shutdown().await;
}

// A client that showed a password besides belonged to its user alone, and kept its connection when the key was removed; and one that had
// proved the key, and not sent CONNECT yet, was let in.
#[tokio::test(start_paused = true)]
async fn ending_the_connections_of_a_key_reaches_users_who_hold_it_and_whoever_is_not_let_in_yet() {
    let broker = SimulatedBroker::start(Setup::new().auth("[auth.store]\nusers = true"));
    broker.auth().stored_users().add("ada", HASH.parse().unwrap()).unwrap();
    let named = |id| connect(id).credentials("ada", PASSWORD);
    let (mut plain, mut user) = (broker.open_with_key("meter"), broker.open_with_key("meter"));
    plain.connect(connect("plain")).await;
    user.connect(named("user")).await;
    let (mut late, mut other) = (broker.open_with_key("meter"), broker.open_with_key("other"));
    broker.broker().disconnect_key("meter");
    plain.expect_disconnect(ReasonCode::AdministrativeAction).await;
    user.expect_disconnect(ReasonCode::AdministrativeAction).await;
    late.expect_refusal(named("late"), ReasonCode::NotAuthorized).await;
    other.connect(connect("other")).await;
    broker.open_with_key("meter").connect(connect("again")).await;
}
