//! Shared subscriptions: how each strategy chooses, and what happens to messages of a member that goes away.

use std::collections::BTreeMap;

use testkit::{
    Client, ConnectExt, Packet, ProtocolVersion, PublishExt, connect, in_both_versions, puback, publish, pubrec, pubrel,
};

use crate::broker::{Setup, TestBroker};

async fn members(broker: &TestBroker, version: ProtocolVersion, count: usize) -> Vec<Client> {
    let mut members = Vec::new();
    for n in 0..count {
        let mut member = broker.client_of(version, &format!("m{n}")).await;
        member.subscribe("$share/g/#", 1).await;
        members.push(member);
    }
    members
}

/// Reads what came to each member up to now, and acknowledges it.
async fn received(members: &mut [Client]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for member in members {
        let mut payloads = Vec::new();
        // Two pings, as `expect_nothing` has it: what was published before them comes before the second answer.
        for _ in 0..2 {
            member.send(Packet::PingReq).await;
            loop {
                match member.recv().await {
                    Packet::Publish(message) => {
                        member.acknowledge(&message).await;
                        payloads.push(String::from_utf8(message.payload.to_vec()).unwrap());
                    }
                    Packet::PingResp => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        all.push(payloads);
    }
    all
}

async fn with_strategy(strategy: &str) -> TestBroker {
    Setup::new()
        .mqtt(&format!("shared_subscription_strategy = \"{strategy}\""))
        .mqtt("max_inflight = 1000")
        .start()
        .await
}

in_both_versions!(round_robin_gives_every_member_its_turn, |version| async move {
    let broker = with_strategy("round_robin").await;
    let mut members = members(&broker, version, 3).await;
    let mut publisher = broker.client_of(version, "p").await;
    for n in 0..9 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    assert_eq!(received(&mut members).await, [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]);
});

#[tokio::test]
async fn random_reaches_everybody_and_each_message_one_member() {
    for strategy in ["random", "local"] {
        let broker = with_strategy(strategy).await;
        let mut members = members(&broker, ProtocolVersion::V5, 3).await;
        let mut publisher = broker.client("p").await;
        for n in 0..120 {
            publisher.publish(publish("t", 1, format!("{n}"))).await;
        }
        let got = received(&mut members).await;
        assert!(got.iter().all(|payloads| (15..80).contains(&payloads.len())), "{strategy}: {got:?}");
        assert_eq!(got.iter().map(Vec::len).sum::<usize>(), 120);
    }
}

#[tokio::test]
async fn sticky_stays_with_one_member_until_it_goes() {
    let broker = with_strategy("sticky").await;
    let mut members = members(&broker, ProtocolVersion::V5, 4).await;
    let mut publisher = broker.client("p").await;
    for n in 0..10 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    let got = received(&mut members).await;
    let chosen = got.iter().position(|payloads| payloads.len() == 10).expect("one member has them all");
    // A member that joins changes nothing.
    let mut newcomer = broker.client("new").await;
    newcomer.subscribe("$share/g/#", 1).await;
    for n in 10..20 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    assert_eq!(received(&mut members).await[chosen].len(), 10);
    members.remove(chosen).vanish().await;
    members.push(newcomer);
    for n in 20..30 {
        publisher.publish(publish("t", 1, format!("{n}"))).await;
    }
    let got = received(&mut members).await;
    assert_eq!(got.iter().filter(|payloads| payloads.len() == 10).count(), 1, "{got:?}");
}

#[tokio::test]
async fn a_hash_keeps_each_publisher_or_topic_with_one_member() {
    for (strategy, by_topic) in [("hash_clientid", false), ("hash_topic", true)] {
        let broker = with_strategy(strategy).await;
        let mut members = members(&broker, ProtocolVersion::V5, 4).await;
        for client in 0..20 {
            let mut publisher = broker.client(&format!("p{client}")).await;
            for topic in 0..3 {
                for _ in 0..2 {
                    let key = if by_topic { format!("{topic}") } else { format!("{client}") };
                    publisher.publish(publish(&format!("t/{topic}"), 1, key)).await;
                }
            }
        }
        let mut seen = BTreeMap::new();
        for (member, payloads) in received(&mut members).await.into_iter().enumerate() {
            for key in payloads {
                assert_eq!(*seen.entry(key).or_insert(member), member, "{strategy}");
            }
        }
        assert_eq!(seen.len(), if by_topic { 3 } else { 20 });
    }
}

in_both_versions!(what_an_ended_member_did_not_acknowledge_goes_to_another, |version| async move {
    let broker = TestBroker::start().await;
    let mut first = broker.connect(connect("first").version(version)).await;
    first.subscribe("$share/g/t", 2).await;
    let mut publisher = broker.client_of(version, "p").await;
    // Two are sent and not acknowledged; the second is QoS 2 and past the point where another may get it.
    publisher.publish(publish("t", 1, "one")).await;
    publisher.publish(publish("t", 2, "two")).await;
    first.expect(publish("t", 1, "one").id(1)).await;
    first.expect(publish("t", 2, "two").id(2)).await;
    let mut second = broker.client_of(version, "second").await;
    second.subscribe("$share/g/t", 2).await;
    first.vanish().await;
    let got = second.expect_message("t", "one").await;
    assert_eq!(got.qos, testkit::QoS::AtLeastOnce);
    // [MQTT-4.8.2-5]
    second.expect_nothing().await;
});

#[tokio::test]
async fn what_waits_for_an_ended_member_goes_to_another() {
    let broker = TestBroker::start().await;
    let mut first = broker.connect(connect("first").receive_maximum(1)).await;
    first.subscribe("$share/g/t", 2).await;
    let mut publisher = broker.client("p").await;
    for n in 0..5 {
        publisher.publish(publish("t", 2, format!("{n}"))).await;
    }
    first.expect(publish("t", 2, "0").id(1)).await;
    first.send(pubrec(1)).await;
    first.expect(pubrel(1)).await;
    let mut second = broker.client("second").await;
    second.subscribe("$share/g/t", 1).await;
    first.vanish().await;
    for n in 1..5 {
        // With the QoS that this member was granted. [MQTT-4.8.2-3]
        assert_eq!(second.expect_message("t", format!("{n}")).await.qos, testkit::QoS::AtLeastOnce);
    }
    second.expect_nothing().await;
}

#[tokio::test]
async fn a_member_that_comes_back_keeps_its_messages() {
    let broker = TestBroker::start().await;
    let mut first = broker.connect(connect("first").expiry(600)).await;
    first.subscribe("$share/g/t", 2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 2, "m")).await;
    first.expect(publish("t", 2, "m").id(1)).await;
    let mut second = broker.client("second").await;
    second.subscribe("$share/g/t", 2).await;
    first.vanish().await;
    second.expect_nothing().await;
    // [MQTT-4.8.2-4]
    let mut first = broker.connect(connect("first").resume().expiry(600)).await;
    first.expect(publish("t", 2, "m").id(1).dup()).await;
}

#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    use testkit::AckExt;
    let broker = TestBroker::start().await;
    let mut members = members(&broker, ProtocolVersion::V5, 2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(publish("t", 1, "m")).await;
    members[0].expect(publish("t", 1, "m").id(1)).await;
    members[0].send(puback(1).reason(testkit::ReasonCode::UnspecifiedError)).await;
    members[0].ping().await;
    // [MQTT-4.8.2-6]
    members.remove(0).vanish().await;
    members[0].expect_nothing().await;
}
