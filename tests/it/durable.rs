//! What an acknowledgement promises: each rule of docs/durability.md, tried with a disk that holds its syncs, loses power, is full or
//! fails.

use mqtt_codec::Packet;
use shangmq::broker::{Ban, Subject};
use shangmq::store::Health;
use testkit::{
    AckExt, AnyStream, Client, ConnectExt, ProtocolVersion, PublishExt, ReasonCode, WillExt, connect, disconnect,
    puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, unsubscribe, will,
};

use crate::broker::Setup;
use crate::stored::{StoredBroker, until};

/// A durable subscriber of `t` that is away.
pub async fn absent_subscriber(broker: &StoredBroker, qos: u8) {
    let (mut client, _) = broker.persistent("subscriber").await;
    client.subscribe("t", qos).await;
    client.disconnect().await;
    broker.until_quiet().await;
}

/// Sends to the absent subscriber of `t` until the disk is full: the client whose last message waits for space, and its identifier.
pub async fn until_full(broker: &StoredBroker) -> (Client<AnyStream>, u16) {
    // What a client that left wrote would fill the disk otherwise.
    broker.until_quiet().await;
    broker.disk().limit_space(Some(broker.disk().space_used()));
    let mut waiting = broker.client("w").await;
    let mut id = 0;
    while broker.server().broker().store().unwrap().health() == Health::Good {
        id += 1;
        waiting.send(publish("t", 1, vec![b'x'; 20_000]).id(id)).await;
        tokio::select! {
            packet = waiting.recv() => assert!(matches!(packet, Packet::PubAck(_))),
            () = broker.until_health(Health::Full) => {}
        }
    }
    (waiting, id)
}

#[tokio::test]
async fn puback_waits_until_the_message_is_on_disk() {
    let broker = StoredBroker::start().await;
    absent_subscriber(&broker, 1).await;
    let mut publisher = broker.client("p").await;
    broker.disk().hold_syncs(true);
    publisher.send(publish("t", 1, "m").id(1)).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(puback(1)).await;
}

#[tokio::test]
async fn puback_waits_until_the_retained_message_is_on_disk() {
    let broker = StoredBroker::start().await;
    let mut publisher = broker.client("p").await;
    broker.disk().hold_syncs(true);
    publisher.send(publish("t", 1, "m").id(1).retained()).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(puback(1).reason(ReasonCode::NoMatchingSubscribers)).await;
}

#[tokio::test]
async fn pubrec_waits_until_the_message_and_its_identifier_are_on_disk() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let (mut publisher, _) = broker.persistent("p").await;
    broker.until_quiet().await;
    broker.disk().hold_syncs(true);
    publisher.send(publish("t", 2, "m").id(7)).await;
    publisher.expect_nothing().await;
    // Its repetition is not answered earlier.
    publisher.send(publish("t", 2, "m").id(7).dup()).await;
    publisher.expect_nothing().await;
    // Nor on another connection.
    publisher.vanish().await;
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.send(publish("t", 2, "m").id(7).dup()).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(pubrec(7)).await;
    broker.lose_power(1).await;
    // The identifier was stored with the message: what is sent again is recognised.
    let (mut publisher, present) = broker.persistent("p").await;
    assert!(present);
    publisher.send(publish("t", 2, "m").id(7).dup()).await;
    publisher.expect(pubrec(7)).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect_message("t", "m").await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn pubcomp_waits_until_the_identifier_is_gone_from_the_disk() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.send(publish("t", 2, "one").id(7)).await;
    publisher.expect(pubrec(7)).await;
    broker.until_quiet().await;
    broker.disk().hold_syncs(true);
    publisher.send(pubrel(7)).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(pubcomp(7)).await;
    broker.lose_power(2).await;
    // The next use of the identifier is another message.
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.publish(publish("t", 2, "two").id(7)).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect_message("t", "one").await;
    subscriber.expect_message("t", "two").await;
}

/// PUBCOMP for an identifier that is not there was sent at once, although the deletion of it on an earlier connection was not durable: the
/// publisher used the identifier again, a power loss brought it back, and the new message was taken for a repetition of the old one.
#[tokio::test]
async fn pubcomp_waits_for_a_release_on_an_earlier_connection_too() {
    let broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let (mut publisher, _) = broker.persistent("p").await;
    publisher.send(publish("t", 2, "one").id(7)).await;
    publisher.expect(pubrec(7)).await;
    broker.until_quiet().await;
    broker.disk().hold_syncs(true);
    publisher.send(pubrel(7)).await;
    publisher.expect_nothing().await;
    publisher.vanish().await;
    let (mut publisher, present) = broker.persistent("p").await;
    assert!(present);
    publisher.send(pubrel(7)).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(pubcomp(7).reason(ReasonCode::PacketIdentifierNotFound)).await;
}

#[tokio::test]
async fn what_was_done_on_an_earlier_connection_is_not_read_and_sent_again() {
    let broker = StoredBroker::start().await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 1, "one")).await;
    publisher.publish(publish("t", 2, "two")).await;
    subscriber.expect(publish("t", 1, "one").id(1)).await;
    subscriber.expect(publish("t", 2, "two").id(2)).await;
    subscriber.send(pubrec(2)).await;
    subscriber.expect(pubrel(2)).await;
    broker.until_quiet().await;
    broker.disk().hold_syncs(true);
    // The row is still on the disk when the client comes back.
    subscriber.send(pubcomp(2)).await;
    subscriber.expect_nothing().await;
    subscriber.vanish().await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect_nothing().await;
    broker.disk().hold_syncs(false);
    subscriber.expect(publish("t", 1, "one").id(1).dup()).await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_their_messages() {
    let broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let mut publisher = broker.client("p").await;
    broker.disk().hold_syncs(true);
    publisher.send(publish("t", 1, "m").id(1)).await;
    // This one concerns nobody and could be answered at once. [MQTT-4.6.0-2]
    publisher.send(publish("nobody", 1, "m").id(2)).await;
    publisher.send(publish("t", 2, "m").id(3)).await;
    publisher.send(publish("nobody", 2, "m").id(4)).await;
    publisher.expect_nothing().await;
    broker.disk().hold_syncs(false);
    publisher.expect(puback(1)).await;
    publisher.expect(puback(2).reason(ReasonCode::NoMatchingSubscribers)).await;
    publisher.expect(pubrec(3)).await;
    publisher.expect(pubrec(4).reason(ReasonCode::NoMatchingSubscribers)).await;
}

#[tokio::test]
async fn qos_2_is_sent_to_a_durable_session_only_when_it_is_on_disk() {
    let broker = StoredBroker::start().await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.subscribe("t", 2).await;
    let mut other = broker.client("other").await;
    other.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    broker.disk().hold_syncs(true);
    // QoS 1 may be sent early: it can come twice.
    publisher.send(publish("t", 1, "one").id(1)).await;
    subscriber.expect(publish("t", 1, "one").id(1)).await;
    publisher.send(publish("t", 2, "two").id(2)).await;
    subscriber.expect_nothing().await;
    // A session that ends with its connection promises nothing beyond it.
    other.expect_message("t", "one").await;
    other.expect_message("t", "two").await;
    broker.disk().hold_syncs(false);
    subscriber.expect(publish("t", 2, "two").id(2)).await;
}

#[tokio::test]
async fn pubrel_waits_until_the_release_is_on_disk() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    broker.client("p").await.publish(publish("t", 2, "m")).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect(publish("t", 2, "m").id(1)).await;
    broker.until_quiet().await;
    broker.disk().hold_syncs(true);
    subscriber.send(pubrec(1)).await;
    subscriber.expect_nothing().await;
    broker.disk().hold_syncs(false);
    subscriber.expect(pubrel(1)).await;
    broker.lose_power(3).await;
    // The message is not sent again, its release is. [MQTT-4.4.0-1]
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect(pubrel(1)).await;
    subscriber.send(pubcomp(1)).await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn connack_and_suback_wait_until_the_session_and_the_subscription_are_on_disk() {
    let mut broker = StoredBroker::start().await;
    broker.disk().hold_syncs(true);
    let mut client = broker.open().await;
    client.send(connect("c").persistent()).await;
    let mut other = broker.client("other").await;
    tokio::select! {
        early = client.recv() => panic!("{early:?} came before the session was on the disk"),
        () = async {
            for _ in 0..50 {
                other.ping().await;
            }
        } => {}
    }
    broker.disk().hold_syncs(false);
    assert!(matches!(client.recv().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
    broker.disk().hold_syncs(true);
    client.send(subscribe(1, &[("t", 1)])).await;
    client.expect_nothing().await;
    client.send(unsubscribe(2, &["t"])).await;
    client.expect_nothing().await;
    client.send(subscribe(3, &[("t", 2)])).await;
    broker.disk().hold_syncs(false);
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    assert!(matches!(client.recv().await, Packet::UnsubAck(_)));
    client.expect(suback(3, &[ReasonCode::GrantedQoS2])).await;
    broker.lose_power(4).await;
    let (mut client, present) = broker.persistent("c").await;
    assert!(present);
    broker.client("p").await.publish(publish("t", 2, "m")).await;
    client.expect_message("t", "m").await;
}

#[tokio::test]
async fn a_message_has_the_same_identifier_after_a_crash() {
    let mut broker = StoredBroker::start().await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = broker.client("p").await;
    for n in 1..=3u16 {
        publisher.publish(publish("t", 1 + (n % 2) as u8, format!("{n}"))).await;
        subscriber.expect(publish("t", 1 + (n % 2) as u8, format!("{n}")).id(n)).await;
    }
    subscriber.send(puback(2)).await;
    subscriber.ping().await;
    broker.until_quiet().await;
    broker.lose_power(5).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    for n in [1u16, 3] {
        subscriber.expect(publish("t", 2, format!("{n}")).id(n).dup()).await;
    }
    broker.client("p").await.publish(publish("t", 1, "4")).await;
    subscriber.expect(publish("t", 1, "4").id(4)).await;
}

#[tokio::test]
async fn what_concerns_no_durable_session_does_not_touch_the_store() {
    let broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let mut subscriber = broker.client("s").await;
    subscriber.subscribe("other/#", 2).await;
    let mut publisher = broker.client("p").await;
    let before = broker.commits();
    broker.disk().hold_syncs(true);
    for qos in 0..3 {
        publisher.publish(publish("other/t", qos, "m")).await;
        subscriber.expect_message("other/t", "m").await;
        publisher.publish(publish("nobody", qos, "m")).await;
    }
    // QoS 0 to a durable session is promised to nobody.
    publisher.publish(publish("t", 0, "m")).await;
    publisher.ping().await;
    assert_eq!(broker.commits(), before);
    broker.disk().hold_syncs(false);
}

#[tokio::test]
async fn a_long_queue_of_an_absent_client_comes_from_the_disk_in_order() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let mut publisher = broker.client("p").await;
    for n in 0..900 {
        publisher.publish(publish("t", 1 + (n % 2) as u8, format!("{n}"))).await;
    }
    broker.lose_power(6).await;
    let (mut subscriber, present) = broker.persistent("subscriber").await;
    assert!(present);
    for n in 0..900 {
        subscriber.expect_message("t", format!("{n}")).await;
    }
    subscriber.expect_nothing().await;
    broker.until_quiet().await;
    assert_eq!(broker.server().metrics().store.rows[2].load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_full_queue_of_an_absent_client_drops_its_oldest_after_a_crash_too() {
    let mut broker = StoredBroker::start_with(Setup::new().mqtt("max_mqueue_len = 300")).await;
    absent_subscriber(&broker, 1).await;
    let mut publisher = broker.client("p").await;
    for n in 0..200 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    broker.restart().await;
    let mut publisher = broker.client("p").await;
    for n in 200..400 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    for n in 100..400 {
        subscriber.expect_message("t", format!("{n}")).await;
    }
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn retained_messages_survive_and_removed_ones_stay_removed() {
    let mut broker = StoredBroker::start().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("kept", 1, "m").retained().expiry(3600)).await;
    publisher.publish(publish("removed", 1, "m").retained()).await;
    publisher.publish(publish("removed", 1, "").retained()).await;
    broker.lose_power(7).await;
    let mut client = broker.client("c").await;
    client.send(subscribe(1, &[("#", 1)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    let got = client.recv_publish().await;
    assert!(got.retain && got.topic == "kept");
    assert!(got.properties.message_expiry_interval.is_some_and(|secs| (3590..=3600).contains(&secs)));
    client.acknowledge(&got).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn retained_messages_that_left_the_memory_are_read_from_the_disk() {
    let broker = StoredBroker::start_with(Setup::new().store("retained_cache_size = \"0B\"")).await;
    let mut publisher = broker.client("p").await;
    for n in 0..300 {
        publisher.publish(publish(&format!("r/{n:03}"), 1, format!("{n}")).retained()).await;
    }
    publisher.publish(publish("r/007", 1, "newer").retained()).await;
    publisher.publish(publish("r/008", 1, "").retained()).await;
    broker.until_quiet().await;
    // Whatever is written next makes room.
    publisher.publish(publish("other", 1, "m").retained()).await;
    let mut client = broker.client("c").await;
    client.send(subscribe(1, &[("r/#", 1)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    let mut got = std::collections::BTreeMap::new();
    for _ in 0..299 {
        let message = client.recv_publish().await;
        client.acknowledge(&message).await;
        got.insert(message.topic.to_string(), message.payload);
    }
    client.expect_nothing().await;
    assert_eq!((got.len(), &*got["r/007"], &*got["r/299"]), (299, &b"newer"[..], &b"299"[..]));
}

#[tokio::test]
async fn a_session_that_was_started_clean_or_ended_is_gone_after_a_crash() {
    let mut broker = StoredBroker::start().await;
    for id in ["cleaned", "ended", "kept"] {
        let (mut client, _) = broker.persistent(id).await;
        client.subscribe("t", 1).await;
        client.disconnect().await;
    }
    broker.client("cleaned").await.disconnect().await;
    let (client, _) = broker.persistent("ended").await;
    let mut packet = disconnect(ReasonCode::Success);
    packet.properties.session_expiry_interval = Some(0);
    client.disconnect_with(packet).await;
    broker.until_quiet().await;
    broker.lose_power(8).await;
    for (id, expected) in [("cleaned", false), ("ended", false), ("kept", true)] {
        assert_eq!(broker.persistent(id).await.1, expected, "{id}");
    }
}

#[tokio::test]
async fn the_will_of_a_durable_client_is_published_after_a_crash() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 1).await;
    let at_once = connect("w").expiry(600).will(will("t", "at once").level(1));
    let _connected = broker.connect(at_once).await;
    let later = connect("l").expiry(600).will(will("t", "later").level(1).delay(500));
    let _connected_too = broker.connect(later).await;
    broker.until_quiet().await;
    broker.lose_power(9).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    subscriber.expect_message("t", "at once").await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn bans_hold_after_a_crash_and_lifted_ones_do_not() {
    let mut broker = StoredBroker::start().await;
    let subjects = ["forever", "for-a-while", "lifted", "over"].map(|id| Subject::ClientId(id.into()));
    let core = broker.server().broker();
    let ban = |until| Ban { until, reason: "test".to_owned() };
    let untils = [None, Some(core.now() + 600_000), None, Some(core.now() + 1)];
    for (subject, until) in subjects.iter().zip(untils) {
        core.ban(subject.clone(), ban(until)).unwrap();
    }
    assert!(core.bans().remove(&subjects[2]));
    // What is acknowledged after them is on the disk after them.
    broker.client("p").await.publish(publish("t", 1, "m").retained()).await;
    for seed in 0..2 {
        broker.lose_power(seed).await;
        for id in ["forever", "for-a-while"] {
            broker.open().await.expect_refusal(connect(id), ReasonCode::Banned).await;
        }
        broker.client("lifted").await;
        broker.client("over").await;
    }
    let core = broker.server().broker();
    let mut left = core.bans().all(core.now());
    left.sort_by_key(|(_, ban)| ban.until);
    assert_eq!(left.len(), 2);
    assert_eq!(left[0], (subjects[0].clone(), ban(None)));
    let until = left[1].1.until.unwrap();
    assert!((590_000..=600_000).contains(&(until - core.now())), "{until}");
}

#[tokio::test]
async fn a_shutdown_publishes_wills_tells_clients_and_seals_the_store() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 1).await;
    let mut leaving = broker.connect(connect("w").expiry(600).will(will("t", "gone").level(1))).await;
    let farewell = tokio::spawn(async move { leaving.expect_disconnect(ReasonCode::ServerShuttingDown).await });
    broker.restart().await;
    farewell.await.unwrap();
    let (mut subscriber, present) = broker.persistent("subscriber").await;
    assert!(present);
    subscriber.expect_message("t", "gone").await;
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let mut publisher = broker.client("p").await;
    let mut old = broker.connect(connect("old").v311()).await;
    let mut bystander = broker.client("b").await;
    bystander.subscribe("zero", 0).await;
    broker.disk().fail_syncs(true);
    publisher.send(publish("t", 1, "m").id(1)).await;
    publisher.expect_disconnect(ReasonCode::ImplementationSpecificError).await;
    broker.until_health(Health::Failed).await;
    broker.disk().fail_syncs(false);
    // Later messages are refused, in MQTT 3 by the end of the connection; QoS 0 goes on.
    let mut publisher = broker.client("p").await;
    let refused = publisher.publish(publish("t", 2, "m")).await;
    assert_eq!(refused, ReasonCode::ImplementationSpecificError);
    old.send(publish("t", 1, "m").id(1)).await;
    old.expect_closed().await;
    publisher.publish(publish("zero", 0, "m")).await;
    bystander.expect_message("zero", "m").await;
    // So are sessions that could not be kept.
    broker.open().await.expect_refusal(connect("new").persistent(), ReasonCode::ServerUnavailable).await;
    broker.lose_power(10).await;
    let (mut subscriber, present) = broker.persistent("subscriber").await;
    assert!(present);
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn a_full_disk_refuses_durable_messages_serves_qos_0_and_recovers_without_a_restart() {
    let mut broker = StoredBroker::start().await;
    absent_subscriber(&broker, 2).await;
    let mut publisher = broker.client("p").await;
    let mut old = broker.connect(connect("old").v311()).await;
    let mut bystander = broker.client("b").await;
    bystander.subscribe("zero", 0).await;
    let (mut waiting, id) = until_full(&broker).await;
    assert_eq!(publisher.publish(publish("t", 1, "refused")).await, ReasonCode::QuotaExceeded);
    assert_eq!(publisher.publish(publish("t", 2, "refused")).await, ReasonCode::QuotaExceeded);
    assert_eq!(publisher.publish(publish("r", 1, "refused").retained()).await, ReasonCode::QuotaExceeded);
    old.send(publish("t", 1, "refused").id(1)).await;
    old.expect_closed().await;
    broker.open().await.expect_refusal(connect("new").persistent(), ReasonCode::QuotaExceeded).await;
    publisher.publish(publish("zero", 0, "m")).await;
    bystander.expect_message("zero", "m").await;
    // Messages that need no disk are taken.
    assert_eq!(publisher.publish(publish("zero", 1, "m")).await, ReasonCode::Success);
    bystander.expect_message("zero", "m").await;
    waiting.ping().await;
    broker.disk().limit_space(None);
    waiting.expect(puback(id)).await;
    broker.until_health(Health::Good).await;
    assert_eq!(publisher.publish(publish("t", 1, "taken again")).await, ReasonCode::Success);
    broker.lose_power(11).await;
    let (mut subscriber, _) = broker.persistent("subscriber").await;
    for _ in 0..id {
        subscriber.expect_message("t", vec![b'x'; 20_000]).await;
    }
    subscriber.expect_message("t", "taken again").await;
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn a_qos_2_message_that_a_full_disk_refused_is_taken_when_it_is_repeated() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let broker = StoredBroker::start().await;
        absent_subscriber(&broker, 1).await;
        let mut subscriber = broker.client("s").await;
        subscriber.subscribe("wanted", 2).await;
        let (mut publisher, _) = broker.persistent_of(version, "p").await;
        let (mut waiting, id) = until_full(&broker).await;
        let first = publish("wanted", 2, "m").id(7);
        if version == ProtocolVersion::V5 {
            assert_eq!(publisher.publish(first).await, ReasonCode::QuotaExceeded);
        } else {
            publisher.send(first).await;
            publisher.expect_closed().await;
        }
        publisher.vanish().await;
        let (mut publisher, present) = broker.persistent_of(version, "p").await;
        assert!(present);
        broker.disk().limit_space(None);
        waiting.expect(puback(id)).await;
        broker.until_health(Health::Good).await;
        publisher.send(publish("wanted", 2, "m").id(7).dup()).await;
        publisher.expect(pubrec(7)).await;
        subscriber.expect_message("wanted", "m").await;
        subscriber.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_return_to_a_session_when_too_much_waits_for_space() {
    let broker = StoredBroker::start_with(Setup::new().store("max_pending_bytes = \"1MB\"")).await;
    absent_subscriber(&broker, 1).await;
    let mut with_wills = Vec::new();
    for n in 0..20 {
        let will = will("t", vec![b'w'; 60_000]).level(1).delay(500);
        with_wills.push(broker.connect(connect(&format!("c{n}")).expiry(600).will(will)).await);
    }
    broker.until_quiet().await;
    let (_waiting, _) = until_full(&broker).await;
    let (client, present) = broker.persistent("subscriber").await;
    assert!(present);
    client.vanish().await;
    for client in with_wills {
        client.vanish().await;
    }
    let store = std::sync::Arc::clone(broker.server().broker().store().unwrap());
    until("too much to wait for space", || !store.has_room()).await;
    broker.open().await.expect_refusal(connect("subscriber").persistent(), ReasonCode::QuotaExceeded).await;
    broker.disk().limit_space(None);
    broker.until_health(Health::Good).await;
    assert!(broker.persistent("subscriber").await.1);
}

#[tokio::test]
async fn a_restart_in_mqtt_3_keeps_the_session_too() {
    let mut broker = StoredBroker::start().await;
    let (mut subscriber, _) = broker.persistent_of(ProtocolVersion::V3_1_1, "s").await;
    subscriber.subscribe("t", 1).await;
    subscriber.disconnect().await;
    broker.client("p").await.publish(publish("t", 1, "m")).await;
    broker.restart().await;
    let (mut subscriber, present) = broker.persistent_of(ProtocolVersion::V3_1_1, "s").await;
    assert!(present);
    let got = subscriber.expect_message("t", "m").await;
    assert!(!got.dup, "an orderly shutdown knows what was sent");
}
