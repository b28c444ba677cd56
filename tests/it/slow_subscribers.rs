//! Publishers and the subscribers that take more slowly than they publish: who waits for whom, for how long, and what is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_codec::{Encode, FrameLen, Publish, ReasonCode, frame_len};
use testkit::{
    Client, ConnectExt, Packet, ProtocolVersion, connect, packet_id, puback, pubcomp, publish, pubrec, pubrel, will,
};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::Setup;
use crate::simulated::SimulatedBroker;

/// Messages of a flood: many more than a queue holds.
const FLOOD: u16 = 5_000;

fn numbered(topic: &str, level: u8, n: u16) -> Publish {
    let mut packet = publish(topic, level, n.to_string());
    packet.packet_id = (level > 0).then(|| packet_id(n));
    packet
}

/// Everything at once, without a look at the answers.
fn flood(topic: &str, level: u8) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for n in 1..=FLOOD {
        Packet::from(numbered(topic, level, n)).encode(ProtocolVersion::V5, &mut bytes).unwrap();
    }
    bytes.to_vec()
}

/// Publishes a flood and answers what comes back, up to the last PUBACK or PUBCOMP.
async fn publish_flood(mut client: Client<DuplexStream>, topic: &'static str, level: u8) -> Client<DuplexStream> {
    const IN_FLIGHT: u16 = 60;
    let (mut sent, mut done) = (0, 0);
    while done < FLOOD {
        if sent < FLOOD && sent - done < IN_FLIGHT {
            sent += 1;
            client.send(numbered(topic, level, sent)).await;
            continue;
        }
        match client.recv().await {
            Packet::PubAck(_) | Packet::PubComp(_) => done += 1,
            Packet::PubRec(ack) => client.send(pubrel(ack.packet_id.get())).await,
            other => panic!("{other:?}"),
        }
    }
    client
}

/// Takes messages of a flood, each after `pause`, until none comes for a second; returns how many.
async fn take_slowly(client: &mut Client<DuplexStream>, pause: Duration) -> u16 {
    let mut taken = 0;
    while let Ok(packet) = timeout(Duration::from_secs(1) + pause, client.recv()).await {
        let Packet::Publish(message) = packet else { continue };
        taken += 1;
        sleep(pause).await;
        client.acknowledge(&message).await;
    }
    taken
}

fn dropped(broker: &SimulatedBroker) -> u64 {
    broker.broker().metrics().dropped_queue_full.load(Ordering::Relaxed)
}

fn given_up(broker: &SimulatedBroker) -> u64 {
    broker.broker().metrics().limit_hits("mqtt.slow_subscriber_wait")
}

/// 1.3 of 2.9 million acknowledged messages were lost at the defaults, since nobody waited for a closed window.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_the_subscriber_acknowledges_steadily() {
    for level in [1, 2] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut subscriber = broker.connect(connect("s")).await;
        subscriber.subscribe("t", level).await;
        let publisher = broker.connect(connect("p")).await;
        let publishing = tokio::spawn(publish_flood(publisher, "t", level));
        for n in 1..=FLOOD {
            let message = subscriber.recv_publish().await;
            assert_eq!(message.payload, n.to_string(), "QoS {level}");
            sleep(Duration::from_millis(5)).await;
            subscriber.acknowledge(&message).await;
        }
        publishing.await.unwrap();
        assert_eq!((dropped(&broker), given_up(&broker)), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_a_link_with_a_long_way_round() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut subscriber = broker.connect(connect("s")).await;
    subscriber.subscribe("t", 1).await;
    let publisher = broker.connect(connect("p")).await;
    let publishing = tokio::spawn(publish_flood(publisher, "t", 1));
    let mut next = 1;
    while next <= FLOOD {
        // A window, and its acknowledgements 250 ms later.
        let mut window = Vec::new();
        while window.len() < 32 && next <= FLOOD {
            let message = subscriber.recv_publish().await;
            assert_eq!(message.payload, next.to_string());
            window.push(message);
            next += 1;
        }
        sleep(Duration::from_millis(250)).await;
        for message in &window {
            subscriber.acknowledge(message).await;
        }
    }
    publishing.await.unwrap();
    assert_eq!((dropped(&broker), given_up(&broker)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_acknowledges_nothing_holds_others_up_once_and_shortly() {
    for level in [1, 2] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut stuck = broker.connect(connect("stuck")).await;
        stuck.subscribe("t", level).await;
        let mut reader = broker.connect(connect("reader")).await;
        reader.subscribe("t", level).await;
        let publisher = broker.connect(connect("p")).await;
        let begun = Instant::now();
        let publishing = tokio::spawn(publish_flood(publisher, "t", level));
        for n in 1..=FLOOD {
            let message = reader.recv_publish().await;
            assert_eq!(message.payload, n.to_string());
            reader.acknowledge(&message).await;
        }
        publishing.await.unwrap();
        assert!(begun.elapsed() <= Duration::from_millis(510), "{:?}", begun.elapsed());
        // All but its window and its queue, oldest first.
        assert_eq!((dropped(&broker), given_up(&broker)), (u64::from(FLOOD) - 32 - 1000, 1));
        drop(stuck);
    }
}

// The last message of a batch closed the window, nobody looked again before the client sent something, and it seemed to be on its way:
// publishers waited for it without end.
#[tokio::test(start_paused = true)]
async fn a_window_that_a_full_batch_closes_holds_nobody_up_longer() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("max_inflight = 60"));
    let mut stuck = broker.connect(connect("stuck")).await;
    stuck.subscribe("t", 1).await;
    let mut publisher = broker.connect(connect("p")).await;
    let begun = Instant::now();
    let mut bytes = BytesMut::new();
    let levels = [(4, 0), (60, 1), (2000, 0), (1, 1)];
    let levels = levels.into_iter().flat_map(|(times, level)| std::iter::repeat_n(level, times));
    for (n, level) in (1..).zip(levels) {
        Packet::from(numbered("t", level, n)).encode(ProtocolVersion::V5, &mut bytes).unwrap();
    }
    publisher.send_raw(&bytes).await;
    for _ in 0..61 {
        assert!(matches!(publisher.recv().await, Packet::PubAck(_)));
    }
    assert!(begun.elapsed() <= Duration::from_millis(510), "{:?}", begun.elapsed());
    drop(stuck);
}

// It closed the window and was then not sent, so that no acknowledgement could open it.
#[tokio::test(start_paused = true)]
async fn a_message_that_the_client_does_not_take_holds_up_none_behind_it() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut small = broker.connect(connect("small").receive_maximum(1).max_packet_size(100)).await;
    small.subscribe("t", 1).await;
    let mut publisher = broker.connect(connect("p")).await;
    let begun = Instant::now();
    let mut bytes = BytesMut::new();
    for packet in [publish("t", 1, "x".repeat(200)), publish("t", 1, "y")].into_iter().zip(1..) {
        let (mut packet, n) = packet;
        packet.packet_id = Some(packet_id(n));
        Packet::from(packet).encode(ProtocolVersion::V5, &mut bytes).unwrap();
    }
    publisher.send_raw(&bytes).await;
    assert_eq!(small.recv_publish().await.payload, "y");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_one_message_in_50_ms_does_not_set_the_pace() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut slow = broker.connect(connect("slow")).await;
    slow.subscribe("t", 1).await;
    let publisher = broker.connect(connect("p")).await;
    let begun = Instant::now();
    let publishing = tokio::spawn(publish_flood(publisher, "t", 1));
    let taking = tokio::spawn(async move { take_slowly(&mut slow, Duration::from_millis(50)).await });
    publishing.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let taken = u64::from(taking.await.unwrap());
    assert_eq!((taken + dropped(&broker), given_up(&broker)), (u64::from(FLOOD), 1));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_was_given_up_is_waited_for_again_when_it_keeps_pace() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut subscriber = broker.connect(connect("s")).await;
    subscriber.subscribe("t", 1).await;
    let publisher = broker.connect(connect("p")).await;
    let publishing = tokio::spawn(async move {
        let publisher = publish_flood(publisher, "t", 1).await;
        publish_flood(publisher, "t", 1).await
    });
    sleep(Duration::from_secs(1)).await;
    let lost = dropped(&broker);
    assert!(lost > 0);
    take_slowly(&mut subscriber, Duration::from_millis(1)).await;
    publishing.await.unwrap();
    drop(subscriber);
    let mut subscriber = broker.connect(connect("s")).await;
    subscriber.subscribe("t", 1).await;
    let publisher = broker.connect(connect("p2")).await;
    let publishing = tokio::spawn(publish_flood(publisher, "t", 1));
    assert_eq!(take_slowly(&mut subscriber, Duration::from_millis(1)).await, FLOOD);
    publishing.await.unwrap();
    assert_eq!(dropped(&broker), lost);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_it_never_waits_for_a_client() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("slow_subscriber_wait = \"0s\""));
    let mut stuck = broker.connect(connect("stuck")).await;
    stuck.subscribe("t", 1).await;
    let publisher = broker.connect(connect("p")).await;
    let begun = Instant::now();
    publish_flood(publisher, "t", 1).await;
    assert_eq!((begun.elapsed(), dropped(&broker)), (Duration::ZERO, u64::from(FLOOD) - 1032));
}

/// A client that publishes with as many in flight as others have, and acknowledges what it gets as soon as it comes.
async fn converse(mut client: Client<DuplexStream>, to: &'static str, level: u8) {
    const IN_FLIGHT: u16 = 60;
    let (mut sent, mut done, mut received) = (0, 0, 0);
    while done < FLOOD || received < FLOOD {
        if sent < FLOOD && sent - done < IN_FLIGHT {
            sent += 1;
            client.send(numbered(to, level, sent)).await;
            continue;
        }
        match client.recv().await {
            Packet::PubAck(_) | Packet::PubComp(_) => done += 1,
            Packet::PubRec(ack) => client.send(pubrel(ack.packet_id.get())).await,
            Packet::Publish(message) if level == 1 => {
                received += 1;
                client.send(puback(message.packet_id.unwrap().get())).await;
            }
            Packet::Publish(message) => {
                received += 1;
                client.send(pubrec(message.packet_id.unwrap().get())).await;
            }
            Packet::PubRel(ack) => client.send(pubcomp(ack.packet_id.get())).await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_flood_each_other_lose_nothing_and_wait_for_no_deadline() {
    for level in [1, 2] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut a = broker.connect(connect("a")).await;
        a.subscribe("to/a", level).await;
        let mut b = broker.connect(connect("b")).await;
        b.subscribe("to/b", level).await;
        let begun = Instant::now();
        tokio::join!(converse(a, "to/b", level), converse(b, "to/a", level));
        assert_eq!((begun.elapsed(), dropped(&broker), given_up(&broker)), (Duration::ZERO, 0, 0), "QoS {level}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_itself_loses_nothing_and_waits_for_no_deadline() {
    for level in [1, 2] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut client = broker.connect(connect("c")).await;
        client.subscribe("t", level).await;
        let begun = Instant::now();
        converse(client, "t", level).await;
        assert_eq!((begun.elapsed(), dropped(&broker), given_up(&broker)), (Duration::ZERO, 0, 0), "QoS {level}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_that_flood_it_lose_nothing_and_wait_for_no_deadline() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut members = Vec::new();
    for id in ["a", "b"] {
        let mut member = broker.connect(connect(id)).await;
        member.subscribe("$share/g/t", 1).await;
        members.push(member);
    }
    let begun = Instant::now();
    let (a, b) = (members.pop().unwrap(), members.pop().unwrap());
    // Each message goes to one of them, in turn: as many to each as it sends.
    tokio::join!(converse(a, "t", 1), converse(b, "t", 1));
    assert_eq!((begun.elapsed(), dropped(&broker), given_up(&broker)), (Duration::ZERO, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn clients_whose_acknowledgements_are_out_of_reach_wait_for_no_deadline_either() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut clients = Vec::new();
    for id in ["a", "b"] {
        let mut client = broker.connect(connect(id)).await;
        client.subscribe("t", 1).await;
        clients.push(client);
    }
    let begun = Instant::now();
    // 60 messages of 4 KB are more than is read ahead; what is in flight to each other and to themselves is not acknowledged before.
    let mut flood = BytesMut::new();
    for n in 1..=2_000 {
        let mut packet = publish("t", 1, vec![7; 4096]);
        packet.packet_id = Some(packet_id(n));
        Packet::from(packet).encode(ProtocolVersion::V5, &mut flood).unwrap();
    }
    let converse = |client: Client<DuplexStream>, flood: Vec<u8>| async move {
        let (mut reading, mut writing) = tokio::io::split(client.into_inner());
        let sending = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut writing, &flood).await.unwrap();
            writing
        });
        let drain = async {
            let mut sink = vec![0; 64 * 1024];
            loop {
                tokio::io::AsyncReadExt::read(&mut reading, &mut sink).await.unwrap();
            }
        };
        tokio::select! {
            _ = drain => {}
            writing = sending => drop(writing.unwrap()),
        }
    };
    let (a, b) = (clients.pop().unwrap(), clients.pop().unwrap());
    tokio::join!(converse(a, flood.to_vec()), converse(b, flood.to_vec()));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_without_a_member_that_takes_nothing() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut stuck = broker.connect(connect("stuck")).await;
    stuck.subscribe("$share/g/t", 1).await;
    let mut member = broker.connect(connect("member")).await;
    member.subscribe("$share/g/t", 1).await;
    let publisher = broker.connect(connect("p")).await;
    let begun = Instant::now();
    let publishing = tokio::spawn(publish_flood(publisher, "t", 1));
    let taking = tokio::spawn(async move { take_slowly(&mut member, Duration::ZERO).await });
    publishing.await.unwrap();
    assert!(begun.elapsed() <= Duration::from_millis(510), "{:?}", begun.elapsed());
    let taken = u64::from(taking.await.unwrap());
    // The window, and what made its queue crowded.
    assert_eq!((taken, dropped(&broker)), (u64::from(FLOOD) - 32 - 501, 0));
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_is_answered_when_it_pings_and_is_not_silent() {
    let broker = SimulatedBroker::start(Setup::new().mqtt("slow_subscriber_wait = \"1h\""));
    let mut stuck = broker.connect(connect("stuck")).await;
    stuck.subscribe("t", 1).await;
    let mut publisher = broker.connect(connect("p").keep_alive(10)).await;
    publisher.subscribe("other", 1).await;
    publisher.send_raw(whole(&flood("t", 1), 20_000)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(broker.broker().session_count(), 2);
    // Some of its messages are acknowledged, and others wait.
    let mut acknowledged = 0;
    while timeout(Duration::from_millis(1), publisher.recv()).await.is_ok() {
        acknowledged += 1;
    }
    assert_eq!(acknowledged, 501);
    publisher.ping().await;
    drop(stuck);
}

/// The packets that are within the first `len` bytes.
fn whole(stream: &[u8], len: usize) -> &[u8] {
    let mut end = 0;
    while let Ok(FrameLen::Complete(next)) = frame_len(&stream[end..len], 1 << 20) {
        end += next;
    }
    &stream[..end]
}

#[tokio::test(start_paused = true)]
async fn what_a_publisher_sent_before_it_left_is_delivered_although_it_had_to_wait() {
    for says_goodbye in [true, false] {
        let broker = SimulatedBroker::start(Setup::new());
        let mut subscriber = broker.connect(connect("s")).await;
        subscriber.subscribe("t", 1).await;
        subscriber.subscribe("will", 1).await;
        // It has a subscription, so that it is read while it waits.
        let mut publisher = broker.connect(connect("p").will(will("will", "gone"))).await;
        publisher.subscribe("other", 1).await;
        publisher.send_raw(whole(&flood("t", 1), 50_000)).await;
        let leaving = tokio::spawn(async move {
            if says_goodbye {
                publisher.send(testkit::disconnect(ReasonCode::Success)).await;
            }
            publisher.vanish().await;
        });
        let (mut next, mut wills) = (1, 0);
        while let Ok(packet) = timeout(Duration::from_secs(5), subscriber.recv()).await {
            let Packet::Publish(message) = packet else { continue };
            sleep(Duration::from_millis(1)).await;
            subscriber.acknowledge(&message).await;
            if message.topic == "will" {
                wills += 1;
            } else {
                assert_eq!(message.payload, next.to_string());
                next += 1;
            }
        }
        leaving.await.unwrap();
        assert_eq!((wills, dropped(&broker)), (usize::from(!says_goodbye), 0));
        assert!(next > 3_000, "{next}");
    }
}
