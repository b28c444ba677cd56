//! Users and rules in the store, as operators change them while the broker runs, over kills and a disk that holds its syncs.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shangmq::auth::acl::{Permit, RuleAction};
use shangmq::auth::{RulesFor, WrittenRule};
use shangmq::broker::{Ban, Subject};
use shangmq::config::Config;
use testkit::{
    AckExt, AnyStream, BrokerProcess, Client, ConnectExt, PublishExt, ReasonCode, connect, puback, publish, suback,
    subscribe, will,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::access::{HASH, PASSWORD, user, with_users};
use crate::broker::Setup;
use crate::simulated::{Pipe, SimulatedBroker};
use crate::stored::StoredBroker;

/// Another hash, of RFC 7677.
const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const LISTENER: &str = "[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n";

fn configuration(keys: &str) -> String {
    format!("[auth.store]\n{keys}\n{LISTENER}")
}

async fn open(broker: &BrokerProcess) -> Client<AnyStream> {
    Client::new(Box::new(TcpStream::connect(broker.address("tcp:default")).await.unwrap()))
}

async fn enters(broker: &BrokerProcess, name: &str, password: &str) -> Client<AnyStream> {
    let mut client = open(broker).await;
    client.connect(connect(name).credentials(name, password)).await;
    client
}

async fn is_refused(broker: &BrokerProcess, name: &str, password: &str) {
    let packet = connect(name).credentials(name, password);
    open(broker).await.expect_refusal(packet, ReasonCode::BadUserNameOrPassword).await;
}

/// The answer of a command that succeeds.
fn ctl(broker: &BrokerProcess, arguments: &[&str]) -> String {
    let done = broker.command(&[&["ctl", "--data", "data"], arguments].concat());
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// What a command that is refused complains of.
fn refused(broker: &BrokerProcess, arguments: &[&str]) -> String {
    let done = broker.command(&[&["ctl", "--data", "data"], arguments].concat());
    assert!(!done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8(done.stderr).unwrap()
}

fn write_users(path: &Path, names: &[&str]) {
    std::fs::write(path, names.iter().map(|name| format!("{name}:{HASH}\n")).collect::<String>()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_user_added_by_hand_can_connect_a_removed_one_cannot_and_both_hold_after_a_kill() {
    let mut broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &configuration("users = true")).await;
    assert_eq!(ctl(&broker, &["user", "list"]), "there are no users in the store\n");
    is_refused(&broker, "ada", "new").await;
    std::fs::write(broker.dir().join("password"), "new\n").unwrap();
    assert_eq!(ctl(&broker, &["user", "add", "ada", "--password-file", "password"]), "the user is added\n");
    let mut ada = enters(&broker, "ada", "new").await;
    write_users(&broker.dir().join("users"), &["bob", "cid"]);
    assert_eq!(ctl(&broker, &["user", "import", "users"]), "the users are added\n");
    enters(&broker, "bob", PASSWORD).await;

    let again = refused(&broker, &["user", "add", "ada", "--password-file", "password"]);
    assert!(again.contains("there is a user `ada` already"), "{again}");
    write_users(&broker.dir().join("users"), &["dan", "bob"]);
    let again = refused(&broker, &["user", "import", "users"]);
    assert!(again.contains("there is a user `bob` already"), "{again}");
    assert!(refused(&broker, &["user", "remove", "eve"]).contains("there is no user \"eve\""));
    assert!(refused(&broker, &["user", "passwd", "eve", "--password-file", "password"]).contains("no user \"eve\""));
    assert!(refused(&broker, &["user", "add", "a:b", "--password-file", "password"]).contains("no colon"));

    assert_eq!(ctl(&broker, &["user", "passwd", "cid", "--password-file", "password"]), "the password is changed\n");
    assert_eq!(ctl(&broker, &["user", "remove", "ada", "--disconnect"]), "the user is removed\n");
    ada.expect_disconnect(ReasonCode::AdministrativeAction).await;
    for round in 0..2 {
        is_refused(&broker, "ada", "new").await;
        is_refused(&broker, "cid", PASSWORD).await;
        enters(&broker, "cid", "new").await;
        enters(&broker, "bob", PASSWORD).await;
        assert_eq!(ctl(&broker, &["user", "list"]), "bob\ncid\n", "{round}");
        assert_eq!(ctl(&broker, &["user", "list", "--json"]), "[\"bob\",\"cid\"]\n");
        broker.kill();
        broker.restart().await;
    }
    let log = broker.log();
    assert!(!log.contains("pbkdf2") && !log.contains("MDEyMzQ1"), "no hash is logged");
    assert!(log.contains("an operator removed a user"), "what operators did is logged");
}

#[tokio::test]
async fn rules_by_hand_hold_for_the_next_packet_and_after_a_kill() {
    let toml = format!("[auth]\nallow_anonymous = true\n{}", configuration("acl = true"));
    let mut broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &toml).await;
    let mut client = open(&broker).await;
    client.connect(connect("c")).await;
    assert_eq!(client.publish(publish("up/c", 1, "no rule")).await, ReasonCode::NotAuthorized);
    let add = |arguments: &[&str]| ctl(&broker, &[&["acl", "add"], arguments].concat());
    assert_eq!(
        add(&["--everyone", "--qos", "0,1", "--retain", "false", "allow", "publish", "up/${clientid}"]),
        "added\n"
    );
    assert_eq!(add(&["--client-id", "c", "allow", "subscribe", "down/#", "eq odd/#"]), "added\n");
    assert_eq!(add(&["--client-id", "c", "--at", "1", "deny", "all", "down/secret"]), "added\n");
    let (who, added) = (r#""name":"ctl""#, "an operator added rules for topics");
    let rules = r#""subject":"client id \"c\"","rules":"deny all \"down/secret\"","place":"at place 1""#;
    broker.logged(&[who, added, rules]).await;
    let rules =
        r#""rules":"allow publish \"up/${clientid}\", qos 0 or 1, not retained","place":"at the end","count":1"#;
    broker.logged(&[who, added, r#""subject":"everyone""#, rules]).await;
    broker.logged(&[added, r#""rules":"allow subscribe \"down/#\"; allow subscribe \"eq odd/#\"""#]).await;
    let bad = refused(&broker, &["acl", "add", "--username", "u", "allow", "all", "a/${nobody}"]);
    assert!(bad.contains("`${nobody}` is no placeholder"), "{bad}");
    assert!(refused(&broker, &["acl", "add", "allow", "all", "a"]).contains("--everyone"));
    let expected = "client id \"c\"\n  1 deny all \"down/secret\"\n  2 allow subscribe \"down/#\"\n  3 allow subscribe \"eq odd/#\"\n\
                    everyone\n  1 allow publish \"up/${clientid}\", qos 0 or 1, not retained\n";
    for _ in 0..2 {
        assert_eq!(ctl(&broker, &["acl", "list"]), expected);
        let mut client = open(&broker).await;
        client.connect(connect("c")).await;
        assert_eq!(client.publish(publish("up/c", 1, "m")).await, ReasonCode::NoMatchingSubscribers);
        assert_eq!(client.publish(publish("up/d", 1, "m")).await, ReasonCode::NotAuthorized);
        client.send(subscribe(1, &[("down/#", 1), ("down/a", 1), ("odd/#", 1), ("odd/a", 1)])).await;
        let (granted, refused) = (ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized);
        client.expect(suback(1, &[refused, granted, granted, refused])).await;
        broker.kill();
        broker.restart().await;
    }
    assert_eq!(ctl(&broker, &["acl", "remove", "--client-id", "c", "--at", "1"]), "removed\n");
    assert_eq!(ctl(&broker, &["acl", "remove", "--everyone", "--whole-list"]), "removed\n");
    let removed = "an operator removed rules for topics";
    broker.logged(&[who, removed, r#""rules":"deny all \"down/secret\"","place":"at place 1""#]).await;
    broker.logged(&[who, removed, r#""subject":"everyone""#, r#""place":"all of the list","count":1"#]).await;
    let left = "client id \"c\"\n  1 allow subscribe \"down/#\"\n  2 allow subscribe \"eq odd/#\"\n";
    assert_eq!(ctl(&broker, &["acl", "list", "--client-id", "c"]), left);
    assert_eq!(ctl(&broker, &["acl", "list"]), left);
    assert!(refused(&broker, &["acl", "remove", "--client-id", "c", "--at", "3"]).contains("there are 2 rules"));
}

/// Whoever is left out could not connect, and a rule that is left out may be one that refuses.
#[tokio::test]
async fn a_broker_does_not_start_with_more_users_in_its_store_than_it_may_have() {
    let mut broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &configuration("")).await;
    write_users(&broker.dir().join("users"), &["ada", "bob"]);
    let said = ctl(&broker, &["user", "import", "users"]);
    assert_eq!(said, "the users are added; it has no effect while auth.store.users is not set\n");
    broker.kill();
    std::fs::write(broker.dir().join("shangmq.toml"), configuration("max_users = 1")).unwrap();
    let started = broker.command(&["start", "--config", "shangmq.toml"]);
    let complaint = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && complaint.contains("auth.store.max_users, 1; raise it"), "{complaint}");
}

#[tokio::test]
async fn a_change_is_answered_when_it_is_on_disk() {
    let mut broker = StoredBroker::start().await;
    let deny = || rule(Permit::Deny, RuleAction::All, "a");
    broker.disk().hold_syncs(true);
    {
        let operator = broker.server().operator();
        let mut user = std::pin::pin!(operator.add_user("ada", HASH));
        let mut rules = std::pin::pin!(operator.add_rules(&RulesFor::Everyone, None, vec![deny()]));
        let pause = Duration::from_millis(50);
        assert!(tokio::time::timeout(pause, &mut user).await.is_err());
        assert!(tokio::time::timeout(pause, &mut rules).await.is_err());
        broker.disk().hold_syncs(false);
        assert!(user.await.unwrap().stored && rules.await.unwrap().stored);
    }
    broker.lose_power(1).await;
    let operator = broker.server().operator();
    assert_eq!(operator.users(None).users, ["ada"]);
    assert_eq!(operator.rules(None, None).lists[0].rules, [deny()]);
}

#[tokio::test]
async fn users_and_rules_beyond_their_limits_are_refused_and_counted() {
    let keys = "[auth.store]\nusers = true\nacl = true\nmax_users = 1\nmax_rules = 1\n";
    let broker = Setup::new().auth(keys).start().await;
    let operator = broker.server.operator();
    assert_eq!(operator.add_user("ada", HASH).await.unwrap().changed, 1);
    let full = operator.add_user("bob", HASH).await.unwrap_err();
    assert_eq!(full, "the limit on users, auth.store.max_users, is reached");
    let add = async |name: &str| {
        let rules = vec![rule(Permit::Allow, RuleAction::All, "a")];
        operator.add_rules(&RulesFor::Username(name.to_owned()), None, rules).await
    };
    assert!(add("ada").await.unwrap().asked);
    assert_eq!(add("bob").await.unwrap_err(), "the limit on rules, auth.store.max_rules, is reached");
    for limit in ["auth.store.max_users", "auth.store.max_rules"] {
        assert_eq!(broker.server.metrics().limit_hits(limit), 1, "{limit}");
    }
}

#[test]
fn users_and_rules_of_a_store_that_there_is_not_are_a_mistake_in_the_configuration() {
    for (keys, wrong) in [("users = true", true), ("acl = true", true), ("max_users = 5", false)] {
        let toml = format!("[store]\ndurability = \"off\"\n{}", configuration(keys));
        let read = Config::parse(Path::new("shangmq.toml"), &toml, []);
        let Err(errors) = read else {
            assert!(!wrong, "{keys}");
            continue;
        };
        let error = errors.as_slice()[0].to_string();
        assert!(error.starts_with("shangmq.toml:3:7: auth.store: users and rules are kept in the store"), "{error}");
    }
}

fn rule(permit: Permit, action: RuleAction, topic: &str) -> WrittenRule {
    WrittenRule { permit, action, topic: topic.to_owned(), qos: None, retain: None }
}

/// The broker's end of a pipe that does something when the broker sends DISCONNECT.
struct OnDisconnect<F> {
    inner: Pipe,
    act: F,
}

impl<F: Unpin> AsyncRead for OnDisconnect<F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<F: FnMut() + Unpin> AsyncWrite for OnDisconnect<F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.first() == Some(&0xe0) {
            (this.act)();
        }
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

// Its password was checked before, and it had no connection yet that could be ended.
#[tokio::test]
async fn a_user_that_is_removed_or_banned_while_a_session_is_taken_over_does_not_get_it() {
    for ban in [false, true] {
        let broker = SimulatedBroker::start(Setup::new().auth("[auth.store]\nusers = true"));
        broker.auth().stored_users().add("ada", HASH.parse().unwrap()).unwrap();
        let (auth, core) = (Arc::clone(broker.auth()), Arc::clone(broker.broker()));
        let act = move || {
            if ban {
                core.ban(Subject::Username("ada".into()), Ban { until: None, reason: String::new() }).unwrap();
            } else if auth.stored_users().remove("ada") {
                core.disconnect_user("ada");
            }
        };
        let (mut old, _task) = broker.open_through(|inner| OnDisconnect { inner, act });
        old.connect(user("c", "ada")).await;
        let reason = if ban { ReasonCode::Banned } else { ReasonCode::NotAuthorized };
        broker.open().expect_refusal(user("c", "ada"), reason).await;
        old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    }
}

/// A broker without an ACL file whose store has these rules for everyone.
fn with_stored_rules(rules: &[(Permit, RuleAction, &str)]) -> SimulatedBroker {
    let broker = SimulatedBroker::start(Setup::new().auth("allow_anonymous = true\n[auth.store]\nacl = true"));
    add_rules(&broker, &RulesFor::Everyone, rules);
    broker
}

fn add_rules(broker: &SimulatedBroker, subject: &RulesFor, rules: &[(Permit, RuleAction, &str)]) {
    let rules = rules.iter().map(|(permit, action, topic)| rule(*permit, *action, topic)).collect();
    broker.auth().add_rules(subject, None, rules).unwrap();
}

fn client_id(id: &str) -> RulesFor {
    RulesFor::ClientId(id.to_owned())
}

#[tokio::test(start_paused = true)]
async fn no_filter_and_no_will_reaches_what_rules_of_the_store_deny() {
    let broker =
        with_stored_rules(&[(Permit::Deny, RuleAction::All, "secret/#"), (Permit::Allow, RuleAction::All, "#")]);
    let filters = ["#", "+/x", "secret/x", "$share/g/#", "secret/#", "+/+", "open/#", "$share/g/open/x"];
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 1)).collect();
    let (granted, refused) = (ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized);
    let mut client = broker.connect(connect("c")).await;
    client.send(subscribe(1, &filters)).await;
    client.expect(suback(1, &[refused, refused, refused, refused, refused, refused, granted, granted])).await;
    let denied = connect("d").will(will("secret/w", "w"));
    broker.open().expect_refusal(denied, ReasonCode::NotAuthorized).await;
    client.subscribe("open/w", 1).await;
    let first = broker.connect(connect("d").will(will("open/w", "kept"))).await;
    first.vanish().await;
    client.expect_message("open/w", "kept").await;
    // A right that is withdrawn later is asked about again when the will is due.
    let second = broker.connect(connect("e").will(will("open/w", "dropped"))).await;
    broker.auth().add_rules(&client_id("e"), None, vec![rule(Permit::Deny, RuleAction::Publish, "open/#")]).unwrap();
    second.vanish().await;
    client.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_rule_of_the_store_names_is_refused() {
    let broker = with_stored_rules(&[]);
    let mut client = broker.connect(connect("c")).await;
    client.send(publish("a", 1, "m").id(1)).await;
    client.expect(puback(1).reason(ReasonCode::NotAuthorized)).await;
    client.send(subscribe(1, &[("a", 0)])).await;
    client.expect(suback(1, &[ReasonCode::NotAuthorized])).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_client_is_dropped_when_a_rule_of_the_store_takes_its_right() {
    let broker = with_stored_rules(&[(Permit::Allow, RuleAction::All, "#")]);
    let mut publisher = broker.connect(connect("p")).await;
    let mut connected = broker.connect(connect("here")).await;
    let mut away = broker.connect(connect("away").persistent()).await;
    for client in [&mut connected, &mut away] {
        client.subscribe("secret/#", 1).await;
        client.subscribe("open", 1).await;
    }
    away.vanish().await;
    publisher.publish(publish("secret/x", 1, "before")).await;
    connected.expect_message("secret/x", "before").await;
    for id in ["here", "away"] {
        let deny = vec![rule(Permit::Deny, RuleAction::Subscribe, "secret/#")];
        broker.auth().add_rules(&client_id(id), None, deny).unwrap();
    }
    publisher.publish(publish("secret/x", 1, "after")).await;
    publisher.publish(publish("open", 1, "still")).await;
    connected.expect_message("open", "still").await;
    connected.expect_nothing().await;
    let mut away = broker.connect(connect("away").persistent()).await;
    away.expect_message("open", "still").await;
    away.expect_nothing().await;
    // The others have their rights as before.
    broker.auth().remove_rules(&client_id("here"), Some(1)).unwrap();
    connected.subscribe("secret/#", 1).await;
    publisher.publish(publish("secret/x", 1, "again")).await;
    connected.expect_message("secret/x", "again").await;
}

#[tokio::test]
async fn a_user_that_no_place_knows_is_refused_after_all_were_asked() {
    let broker = SimulatedBroker::start(with_users(&["ada"], "allow_anonymous = true\n[auth.store]\nusers = true"));
    broker.auth().stored_users().add("bob", HASH.parse().unwrap()).unwrap();
    // The file knows this user, and alone decides.
    broker.auth().stored_users().add("ada", PENCIL.parse().unwrap()).unwrap();
    broker.connect(user("a", "ada")).await;
    let other = connect("a").credentials("ada", "pencil");
    broker.open().expect_refusal(other, ReasonCode::BadUserNameOrPassword).await;
    broker.connect(user("b", "bob")).await;
    for name in ["eve", ""] {
        broker.open().expect_refusal(user("e", name), ReasonCode::BadUserNameOrPassword).await;
    }
    assert!(broker.auth().stored_users().remove("bob"));
    broker.open().expect_refusal(user("b", "bob"), ReasonCode::BadUserNameOrPassword).await;
}
