//! CONNECT and CONNACK: who is let in, in which version, and under which client identifier.

use testkit::{Packet, ReasonCode, connect, in_both_versions, over_every_transport};

use crate::broker::{Setup, TestBroker};

over_every_transport!(connects_and_pings, |transport| async move {
    let broker = Setup::new().every_transport().start().await;
    let mut client = broker.connect_over(transport, connect("c")).await;
    client.ping().await;
    client.disconnect().await;
});

in_both_versions!(second_connect_is_a_protocol_error, |version| async move {
    use testkit::ConnectExt;
    let broker = TestBroker::start().await;
    let mut client = broker.client_of(version, "c").await;
    client.send(Packet::from(connect("c").version(version))).await;
    // [MQTT-3.1.0-2]
    client.expect_disconnect(ReasonCode::ProtocolError).await;
});
