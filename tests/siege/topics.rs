//! Topics made to hurt: as many levels as fit, none at all, and names that only the broker may use.

use testkit::{PublishExt, ReasonCode, connect, publish, subscribe};
use tokio::io::AsyncWriteExt;

use crate::attacker::{bytes, client, socket, until_closed};
use crate::siege::{MIB, Siege};

/// Mosquitto overran its stack on a topic of 65,535 slashes: CVE-2019-11779.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_filters_of_65535_levels_are_refused() {
    let siege = Siege::begin("deep topics", "").await;
    let deep = "/".repeat(65_535);
    for _ in 0..200 {
        let mut client = client(siege.address(), connect("deep")).await;
        assert_eq!(client.publish(publish(&deep, 1, "")).await, ReasonCode::TopicNameInvalid);
        let reasons = client.subscribe_reasons(subscribe(2, &[(&deep, 1), (&"+/".repeat(30_000), 1)])).await;
        assert_eq!(reasons, [ReasonCode::TopicFilterInvalid; 2]);
        client.disconnect().await;
    }
    siege.end(24 * MIB).await;
}

/// Mosquitto crashed on a PUBLISH without a topic: CVE-2021-34432.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packets_end_their_own_connection_alone() {
    let siege = Siege::begin("malformed packets", "").await;
    let hostile: [&[u8]; 12] = [
        b"\x30\x03\x00\x00\x00",           // PUBLISH without a topic
        b"\x32\x07\x00\x01t\x00\x00\x00x", // QoS 1 with identifier 0
        b"\x30\x05\x00\x02+/\x00",         // wildcard in a topic name
        b"\x30\x04\x00\x01\x00\x00",       // U+0000
        b"\x36\x06\x00\x01t\x00\x01\x00",  // QoS 3
        b"\x38\x04\x00\x01t\x00",          // DUP with QoS 0
        b"\x82\x02\x00\x01",               // SUBSCRIBE without a filter
        b"\x20\x03\x00\x00\x00",           // CONNACK from a client
        b"\x90\x04\x00\x01\x00\x00",       // SUBACK from a client
        b"\xb0\x04\x00\x01\x00\x00",       // UNSUBACK from a client
        b"\xd0\x00",                       // PINGRESP from a client
        b"\x00\x00",                       // no packet type
    ];
    for round in 0..100 {
        for packet in hostile {
            let mut stream = socket(siege.address()).await;
            let mut all = bytes(connect(&format!("hostile {round}"))).to_vec();
            all.extend_from_slice(packet);
            let _ = stream.write_all(&all).await;
            until_closed(&mut stream).await;
        }
    }
    siege.end(24 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_only_the_broker_may_use_are_refused() {
    let siege = Siege::begin("reserved names", "").await;
    let mut client = client(siege.address(), connect("pretender")).await;
    for (id, topic) in (1..).zip(["$SYS/broker/uptime", "$share/g/t"]) {
        assert_eq!(client.publish(publish(topic, 1, "").id(id)).await, ReasonCode::NotAuthorized, "{topic}");
    }
    client.disconnect().await;
    siege.end(24 * MIB).await;
}
