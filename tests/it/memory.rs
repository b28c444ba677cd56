//! The memory that messages of all sessions may take together: who loses when it is short, and who loses nothing.

use testkit::{AnyStream, Client, ConnectExt, PublishExt, connect, publish};

use crate::broker::{Setup, TestBroker};
use crate::hostile::until;

const LIMIT: &str = "mqtt.max_total_mqueue_bytes";
const MIB: usize = 1 << 20;
const GREEDY: usize = 30;
/// Messages for each of them, of 4 KB: more than there is memory for.
const EACH: u16 = 60;

/// A broker with little memory for messages, and clients that read nothing and have taken all they can of it.
async fn short_of_memory() -> (TestBroker, Vec<Client<AnyStream>>) {
    let settings = "max_total_mqueue_bytes = \"1MB\"\nslow_subscriber_wait = \"0s\"";
    let broker = Setup::new().mqtt(settings).start().await;
    let mut greedy = Vec::new();
    for n in 0..GREEDY {
        let mut client = broker.client(&format!("greedy-{n}")).await;
        client.subscribe(&format!("greedy/{n}"), 1).await;
        greedy.push(client);
    }
    let mut publisher = broker.client("publisher").await;
    for round in 1..=EACH {
        for n in 0..GREEDY {
            publisher.publish(publish(&format!("greedy/{n}"), 1, payload(round, 4096)).id(round)).await;
        }
    }
    publisher.disconnect().await;
    let held = broker.server.broker().message_bytes();
    assert!((MIB / 2..=MIB).contains(&held), "{held} bytes are held");
    assert!(broker.server.metrics().limit_hits(LIMIT) > 0);
    (broker, greedy)
}

fn payload(number: u16, len: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(len, 0);
    payload
}

fn number(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}

/// Takes and acknowledges so many messages.
async fn take(client: &mut Client<AnyStream>, count: u16) -> Vec<u16> {
    let mut taken = Vec::new();
    while taken.len() < usize::from(count) {
        let message = client.recv_publish().await;
        client.acknowledge(&message).await;
        taken.push(number(&message.payload));
    }
    taken
}

#[tokio::test]
async fn those_that_hold_most_lose_the_oldest_and_others_lose_nothing() {
    let (broker, mut greedy) = short_of_memory().await;
    let dropped = || broker.server.metrics().totals().dropped;
    let before = dropped();
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe("alive", 1).await;
    let mut publisher = broker.client("another").await;
    for n in 1..=200 {
        publisher.publish(publish("alive", 1, payload(n, 2048)).id(n)).await;
        assert_eq!(take(&mut subscriber, 1).await, [n]);
    }
    assert_eq!(dropped(), before);

    // What was under way to a greedy one, and then what came last.
    let client = &mut greedy[0];
    let mut taken = take(client, 1).await;
    while taken.last() != Some(&EACH) {
        taken.extend(take(client, 1).await);
    }
    let gaps: Vec<u16> = taken.windows(2).filter(|pair| pair[1] != pair[0] + 1).map(|pair| pair[1]).collect();
    assert!(taken[0] == 1 && gaps.len() == 1 && gaps[0] > EACH / 2, "the oldest of what waited was dropped: {taken:?}");

    for client in greedy {
        client.vanish().await;
    }
    until("all memory is given back", || broker.server.broker().message_bytes() == 0).await;
}

#[tokio::test]
async fn a_durable_session_loses_nothing_for_want_of_memory() {
    const COUNT: u16 = 300;
    let (broker, _greedy) = short_of_memory().await;
    let mut durable = broker.connect(connect("durable").persistent()).await;
    durable.subscribe("durable", 1).await;
    let mut publisher = broker.client("another").await;
    for n in 1..=COUNT {
        publisher.publish(publish("durable", 1, payload(n, 4096)).id(n)).await;
    }
    assert!(broker.server.broker().message_bytes() <= MIB);
    assert_eq!(take(&mut durable, COUNT).await, (1..=COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn retained_messages_come_one_by_one_when_memory_is_short() {
    const COUNT: u16 = 100;
    let (broker, _greedy) = short_of_memory().await;
    let mut publisher = broker.client("another").await;
    for n in 1..=COUNT {
        publisher.publish(publish(&format!("kept/{n}"), 1, payload(n, 16 << 10)).id(n).retained()).await;
    }
    for level in [0, 1] {
        let mut client = broker.client("late").await;
        client.subscribe("kept/#", level).await;
        let mut taken = take(&mut client, COUNT).await;
        taken.sort_unstable();
        assert_eq!(taken, (1..=COUNT).collect::<Vec<_>>(), "QoS {level}");
        client.disconnect().await;
    }
}
