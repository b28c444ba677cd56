//! Delayed publish, topic rewrite, automatic subscription, mount points, and what EMQX lets one change about delivery.

use std::time::Duration;

use testkit::{
    ConnectExt, Packet, ProtocolVersion, PublishExt, QoS, ReasonCode, WillExt, connect, in_both_versions, publish,
    subscribe, will,
};
use tokio::time::Instant;

use crate::access::{user, with_users};
use crate::broker::{Setup, TestBroker};
use crate::simulated::SimulatedBroker;

const DELAYED: &str = "[delayed]\nenable = true\nmax_delayed_messages = 3";

#[tokio::test(start_paused = true)]
async fn a_delayed_message_is_published_after_its_time() {
    let broker = SimulatedBroker::start(Setup::new().sections(DELAYED));
    let mut subscriber = broker.connect(connect("s")).await;
    subscriber.subscribe("#", 2).await;
    let mut publisher = broker.connect(connect("p")).await;
    let start = Instant::now();
    assert_eq!(publisher.publish(publish("$delayed/20/a/b", 2, "late")).await, ReasonCode::Success);
    assert_eq!(publisher.publish(publish("$delayed/10/a/b", 1, "soon").expiry(5)).await, ReasonCode::Success);
    assert_eq!(publisher.publish(publish("$delayed/10/a/b", 1, "then").retained()).await, ReasonCode::Success);
    assert_eq!(broker.broker().delayed_count(), 3);
    // The limit.
    assert_eq!(publisher.publish(publish("$delayed/10/a/b", 1, "one too many")).await, ReasonCode::QuotaExceeded);
    // Its lifetime begins with its publication, and those of one moment keep their order.
    assert_eq!(subscriber.expect_message("a/b", "soon").await.qos, QoS::AtLeastOnce);
    assert_eq!(start.elapsed().as_secs(), 10);
    subscriber.expect_message("a/b", "then").await;
    assert_eq!(subscriber.expect_message("a/b", "late").await.qos, QoS::ExactlyOnce);
    assert_eq!(start.elapsed().as_secs(), 20);
    let mut later = broker.connect(connect("later")).await;
    later.subscribe("a/b", 0).await;
    assert!(later.expect_message("a/b", "then").await.retain);
    assert_eq!(broker.broker().delayed_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_mqtt_3_client_is_not_told_that_a_delayed_message_was_taken_which_was_not() {
    let broker = SimulatedBroker::start(Setup::new().sections(DELAYED));
    let mut publisher = broker.connect(connect("p").v311()).await;
    for _ in 0..3 {
        publisher.publish(publish("$delayed/10/a/b", 1, "m")).await;
    }
    // There is no promise to break at QoS 0.
    publisher.send(publish("$delayed/10/a/b", 0, "dropped")).await;
    publisher.ping().await;
    publisher.send(publish("$delayed/10/a/b", 1, "refused")).await;
    publisher.expect_closed().await;
    assert_eq!(broker.broker().delayed_count(), 3);
}

in_both_versions!(a_malformed_delay_is_refused_and_does_not_open_reserved_topics, |version| async move {
    let broker = Setup::new().sections(DELAYED).start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("#", 1).await;
    for topic in ["$delayed/x/t", "$delayed/5", "$delayed/99999999/t", "$delayed/0/$SYS/x"] {
        let reason = client.publish(publish(topic, 1, "m")).await;
        assert_eq!(reason.is_error(), version.is_v5(), "{topic}");
    }
    client.expect_nothing().await;
});

#[tokio::test]
async fn without_delayed_publish_its_topics_are_ordinary() {
    let broker = TestBroker::start().await;
    let mut client = broker.client("c").await;
    client.subscribe("$delayed/#", 1).await;
    client.publish(publish("$delayed/5/t", 1, "m")).await;
    client.expect_message("$delayed/5/t", "m").await;
}

#[tokio::test(start_paused = true)]
async fn a_will_can_be_delayed_by_its_topic() {
    let broker = SimulatedBroker::start(Setup::new().sections(DELAYED));
    let mut watcher = broker.connect(connect("w")).await;
    watcher.subscribe("#", 1).await;
    let client = broker.connect(connect("c").will(will("$delayed/30/gone", "c").level(1))).await;
    let start = Instant::now();
    client.vanish().await;
    watcher.expect_message("gone", "c").await;
    assert_eq!(start.elapsed().as_secs(), 30);
}

const REWRITE: &str = r#"
[[rewrite]]
action = "publish"
source_topic = "old/#"
re = "^old/(.+)/(.+)$"
dest_topic = "new/$2/$1"

[[rewrite]]
action = "subscribe"
source_topic = "mine/#"
re = "^mine/(.+)$"
dest_topic = "users/${username}/$1"

[[rewrite]]
source_topic = "sys/#"
re = "^sys/(.+)$"
dest_topic = "$SYS/$1"
"#;

in_both_versions!(topics_are_rewritten_by_rules, |version| async move {
    let setup = with_users(&["anna"], "allow_anonymous = true");
    let broker = setup.sections(REWRITE).mqtt("sys_interval = \"0s\"").start().await;
    let mut subscriber = broker.connect(user("s", "anna").version(version)).await;
    subscriber.subscribe("new/#", 1).await;
    subscriber.subscribe("mine/inbox", 1).await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("old/a/b", 1, "1")).await;
    publisher.publish(publish("users/anna/inbox", 1, "2")).await;
    publisher.publish(publish("mine/inbox", 1, "not for publishing")).await;
    // Permission is judged by the outcome: the broker's own topics stay closed.
    assert_eq!(publisher.publish(publish("sys/x", 1, "m")).await.is_error(), version.is_v5());
    subscriber.expect_message("new/b/a", "1").await;
    subscriber.expect_message("users/anna/inbox", "2").await;
    subscriber.expect_nothing().await;
    subscriber.unsubscribe("mine/inbox").await;
    publisher.publish(publish("users/anna/inbox", 1, "3")).await;
    subscriber.expect_nothing().await;
});

/// Where nothing judged the user name of CONNECT, a client published and subscribed as any user it named.
#[tokio::test]
async fn topics_by_user_name_take_verified_names_alone() {
    let sections = "[[rewrite]]\nsource_topic = \"mine/#\"\nre = \"^mine/(.+)$\"\ndest_topic = \"users/${username}/$1\"\n\
                    [[auto_subscribe]]\ntopic = \"users/${username}/inbox\"\n";
    let broker = Setup::new().sections(sections).start().await;
    let mut client = broker.connect(connect("c").credentials("anna", "")).await;
    assert_eq!(broker.server.broker().subscription_count(), 0);
    client.send(subscribe(1, &[("mine/inbox", 0)])).await;
    match client.recv().await {
        Packet::SubAck(ack) => assert_eq!(ack.reasons, [ReasonCode::TopicFilterInvalid]),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.publish(publish("mine/inbox", 1, "forged")).await, ReasonCode::TopicNameInvalid);
    let broker = with_users(&["anna"], "").sections(sections).start().await;
    let mut anna = broker.connect(user("c", "anna")).await;
    anna.publish(publish("mine/inbox", 0, "hers")).await;
    anna.expect_message("users/anna/inbox", "hers").await;
}

in_both_versions!(clients_are_subscribed_when_they_connect, |version| async move {
    let sections = r#"
[[auto_subscribe]]
topic = "inbox/${clientid}"
qos = 1
[[auto_subscribe]]
topic = "users/${username}/#"
[[auto_subscribe]]
topic = "all"
qos = 2
rh = 2
"#;
    let broker = Setup::new().sections(sections).start().await;
    let mut publisher = broker.client_of(version, "p").await;
    publisher.publish(publish("inbox/c", 1, "kept").retained()).await;
    publisher.publish(publish("all", 1, "kept too").retained()).await;
    publisher.expect_message("all", "kept too").await;
    let mut client = broker.client_of(version, "c").await;
    assert!(client.expect_message("inbox/c", "kept").await.retain);
    client.expect_nothing().await;
    publisher.publish(publish("inbox/c", 2, "1")).await;
    assert_eq!(client.expect_message("inbox/c", "1").await.qos, QoS::AtLeastOnce);
    publisher.publish(publish("all", 2, "2")).await;
    assert_eq!(client.expect_message("all", "2").await.qos, QoS::ExactlyOnce);
    // Nobody has a user name, so nobody has that subscription; and an identifier with a wildcard gets none by it.
    let mut odd = broker.client_of(version, "#").await;
    odd.expect_nothing().await;
    assert_eq!(broker.server.broker().subscription_count(), 2 + 2 + 1);
});

in_both_versions!(a_mount_point_separates_the_clients_of_a_listener, |version| async move {
    let broker = Setup::new().listener("mountpoint = \"site/${clientid}/\"").start().await;
    let mut a = broker.connect(connect("a").version(version).will(will("gone", "a"))).await;
    let mut b = broker.client_of(version, "b").await;
    for client in [&mut a, &mut b] {
        client.subscribe("#", 1).await;
        client.subscribe("$share/g/t", 1).await;
        client.publish(publish("t", 1, "mine").retained()).await;
        client.expect_message("t", "mine").await;
        client.expect_message("t", "mine").await;
        client.expect_nothing().await;
        assert_eq!(client.unsubscribe("$share/g/t").await, ReasonCode::Success);
    }
    b.subscribe("t", 1).await;
    assert!(b.expect_message("t", "mine").await.retain);
    a.vanish().await;
    b.expect_nothing().await;
    // Who could break out by name is not let in.
    for id in ["#", "+", "x/y"] {
        broker.raw().await.expect_refusal(connect(id).version(version), ReasonCode::NotAuthorized).await;
    }
});

/// A user name that nobody had verified chose the mount point: with certificates or anonymously, any client got into any tenant.
#[tokio::test]
async fn a_mount_point_by_user_name_takes_verified_names_alone() {
    let mount = "mountpoint = \"tenant/${username}/\"";
    let anonymous = Setup::new().listener(mount).start().await;
    for claimed in [connect("c"), connect("c").credentials("anna", "")] {
        anonymous.raw().await.expect_refusal(claimed, ReasonCode::NotAuthorized).await;
    }
    let broker = with_users(&["anna"], "").listener(mount).start().await;
    let mut anna = broker.connect(user("c", "anna")).await;
    anna.subscribe("t", 0).await;
    anna.publish(publish("t", 0, "hers")).await;
    anna.expect_message("t", "hers").await;
    assert_eq!(broker.server.broker().subscription_count(), 1);
}

in_both_versions!(qos_is_raised_to_that_of_the_subscription_when_asked, |version| async move {
    let broker = Setup::new().mqtt("upgrade_qos = true").start().await;
    let mut client = broker.client_of(version, "c").await;
    client.subscribe("t", 1).await;
    for (published, delivered) in [(0, QoS::AtLeastOnce), (1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        client.publish(publish("t", published, "m")).await;
        assert_eq!(client.expect_message("t", "m").await.qos, delivered);
    }
});

#[tokio::test]
async fn clients_of_mqtt_3_are_spared_their_own_messages_when_asked() {
    let broker = Setup::new().mqtt("ignore_loop_deliver = true").start().await;
    let mut old = broker.client_of(ProtocolVersion::V3_1_1, "old").await;
    let mut new = broker.client("new").await;
    old.subscribe("t", 1).await;
    new.subscribe("t", 1).await;
    old.publish(publish("t", 1, "from old")).await;
    new.publish(publish("t", 1, "from new")).await;
    old.expect_message("t", "from new").await;
    old.expect_nothing().await;
    new.expect_message("t", "from old").await;
    // MQTT 5 has No Local for that.
    new.expect_message("t", "from new").await;
}

in_both_versions!(higher_priorities_leave_the_queue_first, |version| async move {
    // Durable queues keep the order in which messages came.
    let setup = Setup::new().store("durability = \"off\"");
    let broker = setup.mqtt("mqueue_priorities = { \"alarm\" = 9, \"status\" = 2 }").start().await;
    let (mut client, _) = broker.persistent(version, "c").await;
    client.send(subscribe(1, &[("#", 1)])).await;
    client.recv().await;
    client.vanish().await;
    let mut publisher = broker.client_of(version, "p").await;
    for topic in ["other", "status", "alarm", "other", "alarm"] {
        publisher.publish(publish(topic, 1, "m")).await;
    }
    let (mut client, _) = broker.persistent(version, "c").await;
    for topic in ["alarm", "alarm", "status", "other", "other"] {
        client.expect_message(topic, "m").await;
    }
});

#[tokio::test(start_paused = true)]
async fn retained_messages_end_with_the_limit_of_the_retainer() {
    let broker = SimulatedBroker::start(Setup::new().retainer("msg_expiry_interval = \"60s\""));
    let mut publisher = broker.connect(connect("p")).await;
    publisher.publish(publish("a", 1, "no expiry of its own").retained()).await;
    publisher.publish(publish("b", 1, "a shorter one").retained().expiry(10)).await;
    publisher.publish(publish("c", 1, "a longer one").retained().expiry(600)).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let mut reader = broker.connect(connect("r")).await;
    reader.subscribe("#", 0).await;
    let mut topics = vec![reader.recv_publish().await.topic, reader.recv_publish().await.topic];
    topics.sort();
    assert_eq!(topics, ["a", "c"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(broker.broker().retained_count(), 0);
}

#[tokio::test]
async fn the_message_that_clears_a_retained_one_can_be_kept_from_subscribers() {
    for (line, seen) in [("stop_publish_clear_msg = true", false), ("stop_publish_clear_msg = false", true)] {
        let broker = Setup::new().retainer(line).start().await;
        let mut client = broker.client("c").await;
        client.subscribe("t", 0).await;
        client.publish(publish("t", 0, "m").retained()).await;
        client.expect_message("t", "m").await;
        client.publish(publish("t", 1, "").retained()).await;
        if seen {
            client.expect_message("t", "").await;
        }
        client.expect_nothing().await;
        assert_eq!(broker.server.broker().retained_count(), 0);
    }
}
