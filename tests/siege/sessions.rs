//! Floods of sessions, subscriptions, shared groups and retained messages: each stops at its limit.

use testkit::{ConnectExt, PublishExt, ReasonCode, connect, publish, qos, subscribe};

use crate::attacker::{allow_descriptors, client, many};
use crate::siege::{MIB, Siege};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_random_clients_stop_at_their_limit() {
    let siege = Siege::begin("sessions", "[mqtt]\nmax_sessions = 2000\n").await;
    let address = siege.address();
    let refused = many(6_000, 32, move |number| async move {
        let mut client = testkit::Client::new(crate::attacker::socket(address).await);
        client.send(connect(&format!("session {number}")).persistent().expiry(u32::MAX)).await;
        match client.recv().await {
            testkit::Packet::ConnAck(ack) => ack.reason,
            other => panic!("{other:?}"),
        }
    })
    .await;
    let full = refused.iter().filter(|reason| **reason == ReasonCode::QuotaExceeded).count();
    // Two of the sessions are the canary's.
    assert!((3_990..=4_010).contains(&full), "{full} of 6,000 were refused");
    siege.end(48 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_one_client_stop_at_their_limit() {
    let siege = Siege::begin("subscriptions", "[mqtt]\nmax_subscriptions = 1000\nmax_packet_size = \"8MB\"\n").await;
    let mut greedy = client(siege.address(), connect("greedy")).await;
    for round in 0..20 {
        let filters: Vec<String> = (0..10_000).map(|n| format!("{}{round}/{n}", "+/".repeat(60))).collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
        let reasons = greedy.subscribe_reasons(subscribe(1, &filters)).await;
        let granted = reasons.iter().filter(|reason| !reason.is_error()).count();
        assert_eq!(granted, if round == 0 { 1_000 } else { 0 });
    }
    drop(greedy);
    siege.end(96 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_wildcards_do_not_make_a_publish_expensive_for_others() {
    let siege = Siege::begin("overlapping wildcards", "").await;
    let address = siege.address();
    // Every combination of `+` and `a` over ten levels, from several clients.
    let held = many(8, 8, move |number| async move {
        let mut client = client(address, connect(&format!("overlap {number}"))).await;
        let filters: Vec<String> = (0..1_000u32)
            .map(|bits| {
                (0..10).map(|level| if bits >> level & 1 == 1 { "a" } else { "+" }).collect::<Vec<_>>().join("/")
            })
            .collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
        client.subscribe_with(subscribe(1, &filters)).await;
        client
    })
    .await;
    let mut publisher = client(address, connect("publisher")).await;
    for n in 0..2_000u16 {
        // Another topic each time, so that no cache helps.
        let topic = format!("a/a/a/a/a/a/a/a/a/{}", if n % 2 == 0 { "a".to_owned() } else { n.to_string() });
        publisher.publish(publish(&topic, 1, "x").id(1 + n)).await;
    }
    drop((held, publisher));
    siege.end(64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_stop_at_their_limit_and_a_hundred_may_ask_for_all() {
    let limits = "[retainer]\nmax_retained_messages = 5000\nmax_bytes = \"16MB\"\n";
    let siege = Siege::begin("retained", limits).await;
    let address = siege.address();
    let mut flooder = client(address, connect("flooder")).await;
    let mut refused = 0;
    for n in 0..12_000u32 {
        let topic = format!("retained/{n}");
        let message = publish(&topic, 1, vec![b'r'; 1024]).retained().id((n % 60_000) as u16 + 1);
        refused += u32::from(flooder.publish(message).await == ReasonCode::QuotaExceeded);
    }
    assert_eq!(refused, 7_000);
    let held = many(100, 10, move |number| async move {
        let mut client = client(address, connect(&format!("asks {number}"))).await;
        client.subscribe("#", 0).await;
        client
    })
    .await;
    drop((held, flooder));
    siege.end(96 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_shared_group_that_come_and_go_lose_nothing_of_others() {
    const MEMBERS: usize = 2_000;
    allow_descriptors(MEMBERS as u64 * 2);
    let siege = Siege::begin("shared group", "").await;
    let address = siege.address();
    let publishing = tokio::spawn(async move {
        let mut publisher = client(address, connect("publisher")).await;
        for n in 0..4_000u16 {
            publisher.publish(publish("jobs/x", 1, "job").id(1 + n)).await;
        }
    });
    let member = move |number: usize| async move {
        let mut member = client(address, connect(&format!("member {number}"))).await;
        member.send(subscribe(1, &[("$share/group/jobs/#", 1)])).await;
        member
    };
    let held = many(MEMBERS, 32, member).await;
    // Half of them leave while messages are under way to them.
    let (leaving, staying): (Vec<_>, Vec<_>) = held.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    drop(leaving);
    publishing.await.unwrap();
    drop(staying);
    siege.end(64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_properties_cost_their_sender_its_connection_before_they_cost_memory() {
    let siege = Siege::begin("user properties", "").await;
    let address = siege.address();
    for _ in 0..20 {
        let mut packet = connect("properties");
        packet.properties.user_properties = vec![("".into(), "".into()); 100_000].into();
        let mut stream = crate::attacker::socket(address).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &crate::attacker::bytes(packet)).await;
        crate::attacker::until_closed(&mut stream).await;
    }
    let mut subscriber = client(address, connect("away").persistent()).await;
    subscriber.subscribe("p/#", 1).await;
    drop(subscriber);
    let mut publisher = client(address, connect("publisher")).await;
    for n in 0..2_000u16 {
        let mut message = publish("p/x", 1, "").id(1 + n);
        message.qos = qos(1);
        message.properties.user_properties = vec![("".into(), "".into()); 900].into();
        publisher.publish(message).await;
    }
    drop(publisher);
    siege.end(64 * MIB).await;
}

/// Each SUBSCRIBE of a filter began another walk over the retained messages, which waited for the client's window: 500 MiB in 25 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_repeated_behind_a_closed_window_asks_for_retained_messages_once() {
    let siege = Siege::begin("repeated subscription", "").await;
    let address = siege.address();
    let mut publisher = client(address, connect("publisher")).await;
    publisher.publish(publish("kept/x", 1, "r").retained()).await;
    let mut greedy = client(address, connect("greedy").receive_maximum(1)).await;
    greedy.subscribe("open/#", 1).await;
    for id in 1..=2 {
        publisher.publish(publish("open/x", 1, "never acknowledged").id(id)).await;
    }
    let filters = vec![("kept/#", 1); 5_000];
    let mut stream = crate::attacker::bytes(subscribe(1, &filters));
    for id in 2..40 {
        stream.extend_from_slice(&crate::attacker::bytes(subscribe(id, &filters)));
    }
    let mut answers = 0;
    greedy.send_raw(&stream).await;
    while answers < 39 {
        answers += usize::from(matches!(greedy.recv().await, testkit::Packet::SubAck(_)));
    }
    drop((greedy, publisher));
    siege.end(16 * MIB).await;
}
