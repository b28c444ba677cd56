//! Rules for topics as clients meet them: publishing, subscribing, wills, what was stored or queued before rights were withdrawn.
//!
//! Numbers are those of the attacks that other brokers have let through.

use std::path::Path;

use shangmq::server::Server;
use testkit::{
    AckExt, Client, Connect, ConnectExt, ProtocolVersion, PublishExt, ReasonCode, WillExt, connect, in_both_versions,
    puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, will,
};
use tokio::io::DuplexStream;

use crate::broker::Setup;
use crate::simulated::SimulatedBroker;

/// The hash of `correct horse`, cheap to check.
pub const HASH: &str = "$pbkdf2-sm3$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$HnSfj6d7npa2JHucQ6Lv+T+ueW6UyIRnYOoMS+JukaA";
pub const PASSWORD: &str = "correct horse";

/// Rules from lines of `allow|deny WHO ACTION TOPIC`, where WHO is `all` or a client identifier.
fn acl(lines: &str) -> String {
    let mut text = "rules = []\n".to_owned();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [permit, who, action, topic] = words[..] else { panic!("{line}") };
        let who = if who == "all" { "\"all\"".to_owned() } else { format!("{{ clientid = {who:?} }}") };
        text = text.replace("rules = []\n", "");
        text += &format!("[[rules]]\npermit = {permit:?}\nwho = {who}\naction = {action:?}\ntopics = {topic:?}\n");
    }
    text
}

pub fn write_acl(dir: &Path, lines: &str) {
    std::fs::write(dir.join("acl.toml"), acl(lines)).unwrap();
}

fn write_users(dir: &Path, users: &[&str]) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("users");
    let lines: String = users.iter().map(|user| format!("{user}:{HASH}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A setup for anonymous clients with these rules.
pub fn with_rules(lines: &str) -> Setup {
    with_rules_and(lines, "")
}

fn with_rules_and(lines: &str, auth: &str) -> Setup {
    let setup = Setup::new().auth(&format!("allow_anonymous = true\nacl_file = \"acl.toml\"\n{auth}"));
    write_acl(setup.dir(), lines);
    setup
}

/// A setup for these users, all with one password.
pub fn with_users(users: &[&str], auth: &str) -> Setup {
    let setup = Setup::new().auth(&format!("password_file = \"users\"\n{auth}"));
    write_users(setup.dir(), users);
    setup
}

pub fn user(client_id: &str, name: &str) -> Connect {
    connect(client_id).credentials(name, PASSWORD)
}

/// Puts other rules in force, as SIGHUP does.
fn change_rules(broker: &SimulatedBroker, lines: &str) {
    write_acl(broker.dir(), lines);
    broker.auth().reload().unwrap();
}

async fn watcher(broker: &SimulatedBroker, filter: &str) -> Client<DuplexStream> {
    let mut watcher = broker.connect(connect("watcher")).await;
    watcher.subscribe(filter, 2).await;
    watcher
}

const ALL_FOR_WATCHER: &str = "allow watcher all #";

#[tokio::test(start_paused = true)]
async fn a_refused_publish_is_answered_with_0x87_and_not_delivered() {
    let rules = format!("{ALL_FOR_WATCHER}\nallow all publish open/#");
    let broker = SimulatedBroker::start(with_rules(&rules));
    let mut watcher = watcher(&broker, "#").await;
    let mut client = broker.connect(connect("c")).await;
    client.send(publish("closed", 0, "0")).await;
    client.send(publish("closed", 1, "1").id(1)).await;
    client.expect(puback(1).reason(ReasonCode::NotAuthorized)).await;
    client.send(publish("closed", 2, "2").id(2)).await;
    client.expect(pubrec(2).reason(ReasonCode::NotAuthorized)).await;
    // The identifier is free again, [MQTT-4.3.3-9]: the next message with it is no repetition.
    client.send(publish("open/a", 2, "3").id(2)).await;
    client.expect(pubrec(2)).await;
    client.send(pubrel(2)).await;
    client.expect(pubcomp(2)).await;
    watcher.expect_message("open/a", "3").await;
    watcher.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn mqtt_3_is_told_nothing_and_the_message_is_dropped() {
    let rules = format!("{ALL_FOR_WATCHER}\nallow all publish open/#");
    let broker = SimulatedBroker::start(with_rules(&rules));
    let mut watcher = watcher(&broker, "#").await;
    let mut client = broker.connect(connect("c").v311()).await;
    client.send(publish("closed", 1, "1").id(1)).await;
    client.expect(puback(1)).await;
    client.send(publish("closed", 2, "2").id(2)).await;
    client.expect(pubrec(2)).await;
    client.send(pubrel(2)).await;
    client.expect(pubcomp(2)).await;
    client.publish(publish("open/a", 1, "3")).await;
    watcher.expect_message("open/a", "3").await;
    watcher.expect_nothing().await;
}

in_both_versions!(without_rules_nothing_is_allowed, |version| async move {
    let broker = Setup::new().without_no_match().start().await;
    let dropped = || broker.sample("shangmq_messages_dropped_total{reason=\"unauthorized\"}");
    let (told, refused) = match version {
        ProtocolVersion::V5 => (ReasonCode::NotAuthorized, ReasonCode::NotAuthorized),
        // It has no way to refuse a message.
        _ => (ReasonCode::Success, ReasonCode::UnspecifiedError),
    };
    let mut client = broker.client_of(version, "c").await;
    client.send(subscribe(1, &[("a", 0), ("#", 1), ("$share/g/a", 2)])).await;
    client.expect(suback(1, &[refused; 3])).await;
    client.send(publish("a", 0, "0")).await;
    client.send(publish("a", 1, "1").id(2)).await;
    client.expect(puback(2).reason(told)).await;
    client.send(publish("a", 2, "2").id(3)).await;
    client.expect(pubrec(3).reason(told)).await;
    client.send(publish("a", 1, "3").id(4).retained()).await;
    client.expect(puback(4).reason(told)).await;
    assert_eq!((dropped(), broker.server.broker().retained_count()), (4, 0));
    let with_will = connect("w").version(version).will(will("a", "w"));
    broker.raw().await.expect_refusal(with_will, ReasonCode::NotAuthorized).await;
});

in_both_versions!(without_rules_all_is_allowed_where_the_configuration_says_so, |version| async move {
    let broker = Setup::new().auth("allow_anonymous = true\nno_match = \"allow\"").start().await;
    let mut watcher = broker.client("watcher").await;
    watcher.subscribe("#", 2).await;
    let mut client = broker.connect(connect("c").version(version).will(will("w", "w"))).await;
    client.subscribe("a", 0).await;
    for qos in 0..=2 {
        client.publish(publish("a", qos, "x")).await;
        client.expect_message("a", "x").await;
        watcher.expect_message("a", "x").await;
    }
    client.vanish().await;
    watcher.expect_message("w", "w").await;
    assert_eq!(broker.sample("shangmq_messages_dropped_total{reason=\"unauthorized\"}"), 0);
});

/// `$SYS` stays readable on the same machine.
#[tokio::test]
async fn without_rules_what_is_built_in_holds() {
    let broker = Setup::new().without_no_match().start().await;
    let mut client = broker.client("c").await;
    client.send(subscribe(1, &[("$SYS/#", 0), ("+/broker", 0)])).await;
    client.expect(suback(1, &[ReasonCode::Success, ReasonCode::NotAuthorized])).await;
    assert_eq!(client.publish(publish("$SYS/x", 1, "x")).await, ReasonCode::NotAuthorized);
}

in_both_versions!(a_refused_client_is_disconnected_where_configured, |version| async move {
    let broker = with_rules_and("allow all publish open", "deny_action = \"disconnect\"").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(publish("closed", 0, "0")).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
    let mut client = broker.client_of(version, "c").await;
    client.send(subscribe(1, &[("closed", 0)])).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
});

#[tokio::test(start_paused = true)]
async fn a_filter_is_granted_when_all_it_can_match_is_allowed() {
    let rules = "deny all subscribe a/secret\nallow all subscribe a/#\nallow all subscribe eq wild/#";
    let broker = SimulatedBroker::start(with_rules(rules));
    let filters = ["a/b", "a/secret", "a/+", "a/#", "#", "+/b", "a/b/#", "b", "wild/#", "wild/x", "$share/g/a/b"];
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 1)).collect();
    let (granted, refused) = (ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized);
    let expected = [granted, refused, refused, refused, refused, refused, granted, refused, granted, refused, granted];
    let mut client = broker.connect(connect("c")).await;
    client.send(subscribe(1, &filters)).await;
    client.expect(suback(1, &expected)).await;
    let mut client = broker.connect(connect("old").v311()).await;
    client.send(subscribe(1, &[("b", 1)])).await;
    client.expect(suback(1, &[ReasonCode::UnspecifiedError])).await;
}

#[tokio::test(start_paused = true)]
async fn attack_28_a_will_that_is_not_allowed_refuses_connect() {
    let broker = SimulatedBroker::start(with_rules("allow all publish open/#"));
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let refused = connect("c").version(version).will(will("closed", "w"));
        broker.open().expect_refusal(refused, ReasonCode::NotAuthorized).await;
        broker.connect(connect("c").version(version).will(will("open/w", "w"))).await;
    }
    // A rule may be about the flags of the message.
    let broker = SimulatedBroker::start(with_rules("allow all publish open/#"));
    let text = acl("allow all publish open/#").replace("action", "retain = false\naction");
    std::fs::write(broker.dir().join("acl.toml"), text).unwrap();
    broker.auth().reload().unwrap();
    let retained = connect("c").will(will("open/w", "w").retained());
    broker.open().expect_refusal(retained, ReasonCode::NotAuthorized).await;
}

#[tokio::test(start_paused = true)]
async fn attack_28_a_will_is_not_published_after_the_right_was_withdrawn() {
    let rules = format!("{ALL_FOR_WATCHER}\nallow all publish wills/#");
    let broker = SimulatedBroker::start(with_rules(&rules));
    let mut watcher = watcher(&broker, "#").await;
    let connected = broker.connect(connect("a").will(will("wills/a", "a"))).await;
    let away = broker.connect(connect("b").expiry(3600).will(will("wills/b", "b").delay(60))).await;
    away.vanish().await;
    change_rules(&broker, ALL_FOR_WATCHER);
    connected.vanish().await;
    watcher.expect_nothing().await;
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    watcher.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn attack_29_what_waits_for_a_client_is_dropped_with_its_right() {
    let rules = "allow watcher all #\nallow c subscribe secret/#\nallow c subscribe open/#";
    let broker = SimulatedBroker::start(with_rules(rules));
    let mut client = broker.connect(connect("c").persistent()).await;
    client.subscribe("secret/#", 1).await;
    client.subscribe("open/#", 1).await;
    let mut publisher = broker.connect(connect("watcher")).await;
    publisher.publish(publish("secret/inflight", 1, "sent")).await;
    // Received by the client's side of the stream and never acknowledged: it would be sent again.
    assert_eq!(client.recv_publish().await.topic, "secret/inflight");
    client.vanish().await;
    for topic in ["secret/a", "open/a"] {
        publisher.publish(publish(topic, 1, topic).retained()).await;
    }
    change_rules(&broker, "allow watcher all #\nallow c subscribe open/#");
    let mut client = broker.connect(connect("c").persistent()).await;
    client.expect_message("open/a", "open/a").await;
    client.expect_nothing().await;
    // Nor is the retained message to be had any more.
    client.send(subscribe(9, &[("secret/a", 1), ("#", 1)])).await;
    client.expect(suback(9, &[ReasonCode::NotAuthorized, ReasonCode::NotAuthorized])).await;
    client.expect_nothing().await;
}

// It was dropped, though another member of the group could have had it.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_member_of_a_group_goes_to_another_when_its_right_is_withdrawn() {
    let broker = SimulatedBroker::start(with_rules("allow all all #"));
    let mut first = broker.connect(connect("first").persistent()).await;
    first.subscribe("$share/g/t", 1).await;
    first.subscribe("own", 1).await;
    first.disconnect().await;
    let mut publisher = broker.connect(connect("watcher")).await;
    for (topic, text) in [("t", "one"), ("own", "alone"), ("t", "two")] {
        publisher.publish(publish(topic, 1, text)).await;
    }
    let mut second = broker.connect(connect("second")).await;
    second.subscribe("$share/g/t", 1).await;
    change_rules(&broker, "allow second subscribe t\nallow watcher all #");
    let mut first = broker.connect(connect("first").persistent()).await;
    second.expect_message("t", "one").await;
    second.expect_message("t", "two").await;
    first.expect_nothing().await;
    second.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn attack_30_a_stored_subscription_is_asked_again_at_reconnect() {
    let broker = SimulatedBroker::start(with_rules("allow all all #"));
    let mut client = broker.connect(connect("c").persistent()).await;
    client.subscribe("secret/#", 1).await;
    client.subscribe("$share/g/secret/x", 1).await;
    client.subscribe("open", 1).await;
    client.disconnect().await;
    change_rules(&broker, "allow c subscribe open\nallow watcher all #");
    let mut client = broker.connect(connect("c").persistent()).await;
    assert_eq!(broker.broker().subscription_count(), 1);
    let mut publisher = broker.connect(connect("watcher")).await;
    for topic in ["secret/x", "open"] {
        publisher.publish(publish(topic, 1, topic)).await;
    }
    client.expect_message("open", "open").await;
    client.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_connected_client_keeps_its_connection_and_loses_its_subscription_when_rules_change() {
    let broker = SimulatedBroker::start(with_rules("allow all all #"));
    let mut client = broker.connect(connect("c")).await;
    client.subscribe("secret/#", 1).await;
    client.subscribe("open", 1).await;
    let mut publisher = broker.connect(connect("watcher")).await;
    publisher.publish(publish("secret/x", 1, "before")).await;
    client.expect_message("secret/x", "before").await;
    change_rules(&broker, "allow c subscribe open\nallow watcher all #");
    publisher.publish(publish("secret/x", 1, "after")).await;
    publisher.publish(publish("open", 1, "still")).await;
    client.expect_message("open", "still").await;
    client.send(publish("open", 1, "mine")).await;
    client.expect(puback(1).reason(ReasonCode::NotAuthorized)).await;
}

#[tokio::test(start_paused = true)]
async fn attack_31_wildcards_do_not_reach_what_begins_with_a_dollar() {
    let broker = SimulatedBroker::start(with_rules("deny all all $SYS/#\nallow all all #"));
    let mut client = broker.connect(connect("c")).await;
    let filters = [("$SYS/#", 0), ("$SYS/broker/uptime", 0), ("$share/g/$SYS/#", 0), ("#", 0), ("+/broker/#", 0)];
    client.send(subscribe(1, &filters)).await;
    let (granted, refused) = (ReasonCode::Success, ReasonCode::NotAuthorized);
    client.expect(suback(1, &[refused, refused, refused, granted, granted])).await;
}

#[tokio::test(start_paused = true)]
async fn attack_32_a_shared_subscription_is_judged_by_its_filter() {
    let broker = SimulatedBroker::start(with_rules("deny all all denied/#\nallow all all #"));
    let mut client = broker.connect(connect("c")).await;
    client.send(subscribe(1, &[("$share/G/denied/topic", 1), ("$share/G/#", 1), ("$share/G/ok", 1)])).await;
    let refused = ReasonCode::NotAuthorized;
    client.expect(suback(1, &[refused, refused, ReasonCode::GrantedQoS1])).await;
}

#[tokio::test(start_paused = true)]
async fn attack_33_no_rule_lets_clients_publish_to_the_broker_s_own_topics() {
    let broker = SimulatedBroker::start(with_rules("allow all all #\nallow all all $SYS/#"));
    let mut client = broker.connect(connect("c")).await;
    for topic in ["$SYS/broker/uptime", "$share/g/t", "$queue/t"] {
        assert_eq!(client.publish(publish(topic, 1, "forged")).await, ReasonCode::NotAuthorized, "{topic}");
    }
    let forged = connect("d").will(will("$SYS/broker/uptime", "forged"));
    broker.open().expect_refusal(forged, ReasonCode::NotAuthorized).await;
}

#[tokio::test(start_paused = true)]
async fn attack_34_names_with_wildcards_gain_no_topic() {
    let setup = with_users(&["+", "a/b", "$SYS", "ada"], "acl_file = \"acl.toml\"");
    write_acl(setup.dir(), "allow all all home/${username}/#\nallow all all dev/${clientid}/#");
    let broker = SimulatedBroker::start(setup);
    let refused = ReasonCode::NotAuthorized;
    for (id, name) in [("#", "+"), ("+", "a/b"), ("a/b", "+"), ("$SYS", "$SYS")] {
        let mut client = broker.connect(user(id, name)).await;
        let filters = [("home/+/#", 0), ("home/a/b/#", 0), ("dev/#", 0), ("dev/+/x", 0), ("dev/a/b/x", 0), ("#", 0)];
        client.send(subscribe(1, &filters)).await;
        client.expect(suback(1, &[refused; 6])).await;
        assert_eq!(client.publish(publish("home/ada/x", 1, "x")).await, refused);
    }
    let mut ada = broker.connect(user("dev1", "ada")).await;
    ada.send(subscribe(1, &[("home/ada/#", 0), ("dev/dev1/+", 0), ("home/bob/#", 0)])).await;
    ada.expect(suback(1, &[ReasonCode::Success, ReasonCode::Success, refused])).await;
}

#[tokio::test]
async fn attack_35_a_file_that_is_empty_broken_or_missing_keeps_the_broker_from_starting() {
    for text in [None, Some(""), Some("[[rules]]\n"), Some("rules = [\n"), Some("\u{0}")] {
        let setup = Setup::new().auth("allow_anonymous = true\nacl_file = \"acl.toml\"");
        if let Some(text) = text {
            std::fs::write(setup.dir().join("acl.toml"), text).unwrap();
        }
        let error = Server::start(setup.config()).await.unwrap_err().to_string();
        // A file that is not there has no lines.
        let expected = if text.is_some() { "acl.toml:1" } else { "auth.acl_file: " };
        assert!(error.contains(expected), "{error}");
    }
    for lines in ["ada", "ada:x\n", "ada:$pbkdf2-sm3$i=1000$AAAA$BBBB\n"] {
        let setup = Setup::new().auth("password_file = \"users\"");
        write_users(setup.dir(), &[]);
        std::fs::write(setup.dir().join("users"), lines).unwrap();
        let error = Server::start(setup.config()).await.unwrap_err().to_string();
        assert!(error.contains("auth.password_file: ") && error.contains("users:1"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn attack_35_a_broken_file_at_reload_leaves_the_rules_in_force() {
    let broker = SimulatedBroker::start(with_rules("deny all all secret\nallow all all #"));
    std::fs::write(broker.dir().join("acl.toml"), "").unwrap();
    assert!(broker.auth().reload().is_err());
    let mut client = broker.connect(connect("c")).await;
    assert_eq!(client.publish(publish("secret", 1, "x")).await, ReasonCode::NotAuthorized);
    assert_eq!(client.publish(publish("open", 1, "x")).await, ReasonCode::NoMatchingSubscribers);
}

#[tokio::test(start_paused = true)]
async fn attack_36_the_broker_s_own_topics_are_refused_where_no_rule_names_them() {
    let broker = SimulatedBroker::start(with_rules_and("deny all all nothing", "no_match = \"allow\""));
    let mut client = broker.connect(connect("c")).await;
    // Clients on the same machine may read `$SYS`; tests of the rules have those on others.
    client.send(subscribe(1, &[("$SYS/#", 0), ("any", 0)])).await;
    client.expect(suback(1, &[ReasonCode::Success, ReasonCode::Success])).await;
    assert_eq!(client.publish(publish("$SYS/x", 1, "x")).await, ReasonCode::NotAuthorized);
}

#[tokio::test(start_paused = true)]
async fn attack_37_a_client_without_user_name_gains_nothing_by_rules_about_user_names() {
    let rules = "deny all all private/${username}/#\nallow all all home/${username}/#\nallow all all open";
    let broker = SimulatedBroker::start(with_rules(rules));
    // The second sends a name that nothing verifies.
    for packet in [connect("c"), connect("c").credentials("ada", "guess")] {
        let mut client = broker.connect(packet).await;
        let filters = [("home/ada/#", 0), ("home/#", 0), ("home//#", 0), ("private/ada/x", 0), ("open", 0)];
        client.send(subscribe(1, &filters)).await;
        let refused = ReasonCode::NotAuthorized;
        client.expect(suback(1, &[refused, refused, refused, refused, ReasonCode::Success])).await;
        assert_eq!(client.publish(publish("home//x", 1, "x")).await, refused);
    }
}

#[tokio::test(start_paused = true)]
async fn attack_40_an_unknown_user_is_answered_as_a_wrong_password_is() {
    let broker = SimulatedBroker::start(with_users(&["ada"], ""));
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        for packet in [
            connect("c").credentials("ada", "wrong"),
            connect("c").credentials("eve", "wrong"),
            connect("c").credentials("eve", PASSWORD),
            connect("c").credentials("ada", ""),
        ] {
            broker.open().expect_refusal(packet.version(version), ReasonCode::BadUserNameOrPassword).await;
        }
    }
    broker.connect(user("c", "ada")).await;
}

#[tokio::test]
async fn answers_of_the_rules_are_counted() {
    let broker = with_rules("allow all all open").start().await;
    let mut client = broker.client("c").await;
    for _ in 0..3 {
        client.publish(publish("open", 1, "x")).await;
        client.publish(publish("closed", 1, "x")).await;
    }
    client.send(subscribe(1, &[("closed", 0)])).await;
    client.expect(suback(1, &[ReasonCode::NotAuthorized])).await;
    let text = broker.server.metrics().encode(Default::default());
    for (action, result, count) in [("publish", "allow", 1), ("publish", "deny", 3), ("subscribe", "deny", 1)] {
        let sample = format!(
            "shangmq_authorizations_total{{listener=\"tcp:default\",action=\"{action}\",result=\"{result}\"}} {count}\n"
        );
        assert!(text.contains(&sample), "no {sample} in\n{text}");
    }
}
