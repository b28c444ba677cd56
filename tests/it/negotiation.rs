//! What CONNECT and CONNACK settle besides limits: aliases towards the client, words for failures, response information, redirection.

use testkit::{
    AckExt, Client, ConnectExt, Packet, ProtocolVersion, PublishExt, ReasonCode, Stream, connect, in_both_versions,
    puback, publish, subscribe,
};

use crate::broker::{Setup, TestBroker};

async fn refusal(client: &mut Client<impl Stream>, packet: testkit::Connect) -> testkit::ConnAck {
    client.send(packet).await;
    match client.recv().await {
        Packet::ConnAck(ack) => *ack,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn topics_go_out_by_alias_to_a_client_that_takes_aliases() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect(connect("c").topic_alias_maximum(2)).await;
    client.subscribe("#", 1).await;
    let mut publisher = broker.client("p").await;
    // Topic, name in the packet, alias: the third topic takes the alias of the one sent longest ago.
    let script = [
        ("topic/one", "topic/one", Some(1)),
        ("topic/one", "", Some(1)),
        ("topic/two", "topic/two", Some(2)),
        ("topic/one", "", Some(1)),
        ("topic/three", "topic/three", Some(2)),
        ("topic/two", "topic/two", Some(1)),
        ("abc", "abc", None),
    ];
    for (level, (topic, name, alias)) in (0..2).cycle().zip(script) {
        publisher.publish(publish(topic, level, "m")).await;
        let got = client.recv_publish().await;
        client.acknowledge(&got).await;
        // [MQTT-3.1.2-26]: never above the client's maximum.
        let sent = got.properties.topic_alias.map(|alias| alias.get());
        assert_eq!((&*got.topic, sent), (name, alias), "{topic}");
    }
    client.vanish().await;
    // [MQTT-3.3.2-7]: aliases do not outlive the connection.
    let mut client = broker.connect(connect("c").topic_alias_maximum(2)).await;
    client.subscribe("#", 1).await;
    publisher.publish(publish("topic/one", 0, "m")).await;
    client.expect(publish("topic/one", 0, "m").alias(1)).await;
}

#[tokio::test]
async fn no_alias_goes_to_a_client_that_takes_none() {
    for maximum in [None, Some(0)] {
        let broker = TestBroker::start().await;
        let packet = connect("c");
        let packet = match maximum {
            Some(maximum) => packet.topic_alias_maximum(maximum),
            None => packet,
        };
        let mut client = broker.connect(packet).await;
        client.subscribe("topic/one", 0).await;
        let mut publisher = broker.client("p").await;
        for _ in 0..3 {
            publisher.publish(publish("topic/one", 0, "m")).await;
            // [MQTT-3.1.2-27]
            client.expect(publish("topic/one", 0, "m")).await;
        }
    }
}

#[tokio::test]
async fn an_alias_that_would_make_the_packet_too_large_is_left_out() {
    let broker = TestBroker::start().await;
    // Header 2, topic 11, properties 1, payload 16: 30 bytes without an alias, 33 with one.
    let mut client = broker.connect(connect("c").topic_alias_maximum(5).max_packet_size(30)).await;
    client.subscribe("#", 0).await;
    let mut publisher = broker.client("p").await;
    for payload in [&[b'x'; 16][..], &[b'y'; 13], &[b'z'; 22]] {
        publisher.publish(publish("topic/one", 0, payload.to_vec())).await;
    }
    client.expect(publish("topic/one", 0, vec![b'x'; 16])).await;
    client.expect(publish("topic/one", 0, vec![b'y'; 13]).alias(1)).await;
    // By now the alias stands for the topic, so that more payload fits.
    client.expect(publish("", 0, vec![b'z'; 22]).alias(1)).await;
}

#[tokio::test]
async fn failures_are_put_in_words_for_those_who_want_them() {
    let broker = TestBroker::start().await;
    for (wanted, packet) in [
        (true, connect("c")),
        (true, connect("c").problem_information(true)),
        (false, connect("c").problem_information(false)),
    ] {
        let mut client = broker.connect(packet).await;
        // PUBACK, PUBREC, SUBACK and DISCONNECT.
        let deep = "/".repeat(200);
        client.send(publish(&deep, 1, "m").id(1)).await;
        let Packet::PubAck(ack) = client.recv().await else { panic!("no PUBACK") };
        assert_eq!((ack.reason, ack.properties.reason_string.is_some()), (ReasonCode::TopicNameInvalid, wanted));
        client.send(publish(&deep, 2, "m").id(1)).await;
        let Packet::PubRec(ack) = client.recv().await else { panic!("no PUBREC") };
        assert_eq!((ack.reason, ack.properties.reason_string.is_some()), (ReasonCode::TopicNameInvalid, wanted));
        client.send(subscribe(1, &[("ok", 0), (&deep, 0)])).await;
        let Packet::SubAck(ack) = client.recv().await else { panic!("no SUBACK") };
        assert_eq!(ack.reasons, [ReasonCode::Success, ReasonCode::TopicFilterInvalid]);
        assert_eq!(ack.properties.reason_string.is_some(), wanted);
        client.send(publish("", 0, "m").alias(9)).await;
        let Packet::Disconnect(disconnect) = client.recv().await else { panic!("no DISCONNECT") };
        assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
        // [MQTT-3.1.2-29]
        assert_eq!(disconnect.properties.reason_string.is_some(), wanted);
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_why_but_never_why_authentication_failed() {
    let broker = Setup::new().mqtt("max_clientid_len = 23").auth("allow_anonymous = false").start().await;
    let long = "x".repeat(24);
    let mut client = broker.raw().await;
    let ack = refusal(&mut client, connect(&long)).await;
    assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid);
    assert!(ack.properties.reason_string.unwrap().contains("max_clientid_len"));
    let mut client = broker.raw().await;
    let ack = refusal(&mut client, connect(&long).problem_information(false)).await;
    assert_eq!((ack.reason, ack.properties.reason_string), (ReasonCode::ClientIdentifierNotValid, None));
    let mut client = broker.raw().await;
    let ack = refusal(&mut client, connect("c")).await;
    assert_eq!((ack.reason, ack.properties.reason_string), (ReasonCode::NotAuthorized, None));
}

#[tokio::test]
async fn words_that_do_not_fit_the_clients_packet_size_are_left_out() {
    let broker = Setup::new().mqtt("max_clientid_len = 23").start().await;
    // [MQTT-3.2.2-19]
    let mut client = broker.raw().await;
    let ack = refusal(&mut client, connect(&"x".repeat(24)).max_packet_size(10)).await;
    assert_eq!((ack.reason, ack.properties.reason_string), (ReasonCode::ClientIdentifierNotValid, None));
    // The accepting CONNACK takes 3 + 2 + 3 properties of 3, 5 and 3 bytes and their length.
    let mut client = broker.connect(connect("c").max_packet_size(20)).await;
    // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3]
    let deep = "/".repeat(200);
    client.send(publish(&deep, 1, "m").id(1)).await;
    client.expect(puback(1).reason(ReasonCode::TopicNameInvalid)).await;
    client.send(publish(&deep, 2, "m").id(1)).await;
    client.expect(testkit::pubrec(1).reason(ReasonCode::TopicNameInvalid)).await;
    client.send(subscribe(1, &[(&deep, 0)])).await;
    client.expect(testkit::suback(1, &[ReasonCode::TopicFilterInvalid])).await;
    client.send(publish("", 0, "m").alias(9)).await;
    client.expect(testkit::disconnect(ReasonCode::ProtocolError)).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn a_client_too_small_for_its_answer_is_let_go_without_it() {
    let broker = TestBroker::start().await;
    // [MQTT-3.1.2-24]: the CONNACK with properties does not fit, a refusal does.
    let mut client = broker.raw().await;
    assert_eq!(refusal(&mut client, connect("c").max_packet_size(6)).await.reason, ReasonCode::PacketTooLarge);
    client.expect_closed().await;
    // Not even that.
    let mut client = broker.raw().await;
    client.send(connect("c").max_packet_size(4)).await;
    client.expect_closed().await;
    // A SUBACK that is larger than everything before.
    let mut client = broker.connect(connect("c").max_packet_size(20)).await;
    client.send(subscribe(1, &[("t", 0); 16])).await;
    client.expect_disconnect(ReasonCode::PacketTooLarge).await;
}

#[tokio::test]
async fn response_information_is_told_to_those_who_ask() {
    let broker = Setup::new().mqtt("response_information = \"replies/site1\"").start().await;
    for (packet, told) in [
        (connect("c").response_information(true), Some("replies/site1")),
        (connect("c").response_information(false), None),
        (connect("c"), None),
    ] {
        let ack = broker.raw().await.connect(packet).await;
        // [MQTT-3.1.2-28]
        assert_eq!(ack.properties.response_information.as_deref(), told);
    }
    let ack = TestBroker::start().await.raw().await.connect(connect("c").response_information(true)).await;
    assert_eq!(ack.properties.response_information, None);
}

in_both_versions!(clients_are_sent_to_another_server, |version| async move {
    for (word, reason) in
        [("use_another_server", ReasonCode::UseAnotherServer), ("server_moved", ReasonCode::ServerMoved)]
    {
        let broker = Setup::new()
            .mqtt("server_reference = \"mqtt2.example.com:8883\"")
            .mqtt(&format!("redirect_clients = \"{word}\""))
            .start()
            .await;
        let mut client = broker.raw().await;
        let ack = refusal(&mut client, connect("c").version(version)).await;
        if version.is_v5() {
            assert_eq!(ack.reason, reason);
            assert_eq!(ack.properties.server_reference.as_deref(), Some("mqtt2.example.com:8883"));
        } else {
            assert_eq!(ack.reason, ReasonCode::ServerUnavailable);
        }
        client.expect_closed().await;
    }
});

#[tokio::test]
async fn only_who_may_connect_learns_of_the_other_server() {
    let broker = Setup::new()
        .auth("allow_anonymous = false")
        .mqtt("server_reference = \"mqtt2.example.com:8883\"\nredirect_clients = \"server_moved\"")
        .start()
        .await;
    let mut client = broker.raw().await;
    let ack = refusal(&mut client, connect("c")).await;
    assert_eq!((ack.reason, ack.properties.server_reference), (ReasonCode::NotAuthorized, None));
}

#[tokio::test]
async fn a_shutdown_names_the_other_server_if_there_is_one() {
    for (setup, reason, server) in [
        (Setup::new(), ReasonCode::ServerShuttingDown, None),
        (
            Setup::new().mqtt("server_reference = \"mqtt2.example.com:8883\""),
            ReasonCode::UseAnotherServer,
            Some("mqtt2.example.com:8883"),
        ),
    ] {
        let broker = setup.start().await;
        let mut client = broker.client("c").await;
        let mut old = broker.client_of(ProtocolVersion::V3_1_1, "old").await;
        let shutdown = tokio::spawn(broker.server.shutdown());
        let Packet::Disconnect(disconnect) = client.recv().await else { panic!("no DISCONNECT") };
        assert_eq!((disconnect.reason, disconnect.properties.server_reference.as_deref()), (reason, server));
        client.expect_closed().await;
        old.expect_closed().await;
        shutdown.await.unwrap();
    }
}
