//! Revocation lists that are missing, out of date or broken: alarms say so, and why, before clients are refused or as soon as they are.

use std::path::PathBuf;

use bytes::Bytes;
use shangmq::operator::{Alarm, AlarmKind, Trigger};
use testkit::Transport;

use crate::broker::{TestBroker, eventually};
use crate::revocation::{World, contents, now, refused};

const TRANSPORT: Transport = Transport::Tls13;

fn lines(file: &std::path::Path, mode: &str) -> String {
    format!("crl = {{ files = [{file:?}], distribution_points = false, mode = {mode:?} }}")
}

fn unusable(broker: &TestBroker) -> Vec<Alarm> {
    let operator = broker.server.operator();
    operator.look_for_alarms(now());
    operator.alarms().active.into_iter().filter(|alarm| alarm.kind == AlarmKind::CrlUnusable).collect()
}

/// A broker trusts two authorities, and a file has the list of the one that issued to them.
async fn with_list() -> (World, PathBuf) {
    let world = World::new(TRANSPORT).await;
    let file = world.path("ca.crl");
    std::fs::write(&file, world.list(&[])).unwrap();
    let both = [world.root.certificate().to_pem(), world.ca.certificate().to_pem()].concat();
    std::fs::write(world.path("root.pem"), both).unwrap();
    (world, file)
}

// Every client was refused, and neither check-config nor any alarm said a word.
#[tokio::test]
async fn hard_fail_without_a_list_of_an_issuer_is_an_alarm_and_a_warning_that_name_listener_and_issuer() {
    let (world, stranger) = (World::new(TRANSPORT).await, World::new(TRANSPORT).await);
    let file = world.path("other.crl");
    std::fs::write(&file, stranger.list(&[])).unwrap();
    let broker = world.broker(&lines(&file, "hard-fail")).await;
    let alarms = unusable(&broker);
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    let alarm = &alarms[0];
    assert!(alarm.name.starts_with("crl_unusable/ssl:default/") && alarm.name.contains("Root"), "{alarm:?}");
    assert!(alarm.urgent && !alarm.message.contains("other.crl"), "{alarm:?}");
    for words in ["ssl:default", "Root", "other.crl", "distribution_points"] {
        assert!(alarm.causes[0].contains(words), "{alarm:?}");
    }
    let reloaded = broker.server.operator().reload_aside(Trigger::Command).await.unwrap();
    let warned = |one: &String| one.contains("ssl:default") && one.contains("Root") && one.contains("other.crl");
    assert!(reloaded.warnings.iter().any(warned), "{reloaded:?}");

    // The list of the authority below the root is known for what it is once a client has shown its chain.
    let client = world.client(TRANSPORT);
    refused(&client, &broker, TRANSPORT, "revocation_unknown").await;
    broker.server.revocation().upload("one", world.list(&[])).unwrap();
    client.enter(&broker, TRANSPORT).await.unwrap();
    assert_eq!(unusable(&broker), []);

    let soft = world.broker(&lines(&file, "soft-fail")).await;
    assert_eq!(unusable(&soft), []);
}

#[tokio::test]
async fn an_issuer_with_a_list_and_the_authorities_above_it_are_not_missed() {
    let (world, file) = with_list().await;
    let broker = world.broker(&lines(&file, "hard-fail")).await;
    assert_eq!(unusable(&broker), []);
    world.client(TRANSPORT).enter(&broker, TRANSPORT).await.unwrap();
    // Where whole chains are checked, the root needs a list about the authority.
    let chain = lines(&file, "hard-fail").replace("mode", "check = \"chain\", mode");
    let broker = world.broker(&chain).await;
    let alarms = unusable(&broker);
    assert!(alarms.len() == 1 && alarms[0].name.contains("Root"), "{alarms:?}");
}

// The log had an error once, and nothing else told of it.
#[tokio::test]
async fn a_file_of_lists_that_breaks_or_goes_away_is_an_alarm_and_its_lists_stay_in_force() {
    let (world, file) = with_list().await;
    let broker = world.broker(&lines(&file, "hard-fail")).await;
    std::fs::write(&file, "broken").unwrap();
    eventually("the broken file is seen", || unusable(&broker).len() == 1).await;
    let alarm = unusable(&broker).remove(0);
    assert_eq!((&*alarm.name, alarm.urgent), ("crl_unusable/ca.crl", false));
    assert!(alarm.message.contains("stay in force"), "{alarm:?}");
    world.client(TRANSPORT).enter(&broker, TRANSPORT).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    eventually("its absence is seen", || unusable(&broker)[0].causes[0].contains("cannot read the file")).await;
    let list = broker.server.revocation().report().crls.remove(0);
    assert!(list.outdated && list.state == "current" && list.error.is_some(), "{list:?}");
    std::fs::write(&file, world.list(&[])).unwrap();
    eventually("the good file is read", || unusable(&broker).is_empty()).await;
}

#[tokio::test]
async fn the_alarm_about_a_stale_list_says_since_when_as_a_date() {
    let world = World::new(TRANSPORT).await;
    let file = world.path("ca.crl");
    let mut stale = contents(&[]);
    stale.this_update = 1_700_000_000;
    stale.next_update = Some(1_750_000_000);
    std::fs::write(&file, Bytes::from(world.ca.sign_list(&stale).unwrap())).unwrap();
    let broker = world.broker(&lines(&file, "hard-fail")).await;
    let alarms = unusable(&broker);
    let alarm = alarms.iter().find(|alarm| alarm.name == "crl_unusable/ca.crl").unwrap();
    assert!(alarm.urgent, "{alarm:?}");
    assert!(alarm.causes[0].contains("a newer one was due at 2025-06-15T15:06:40Z"), "{alarm:?}");
}
