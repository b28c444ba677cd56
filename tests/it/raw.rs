//! Packets byte by byte, for what no encoder would write.

use testkit::{Client, ConnectExt, Packet, ProtocolVersion, ReasonCode, Stream, connect};

use crate::broker::TestBroker;

/// A string or binary field.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A packet of fewer than 16,384 bytes.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    if body.len() < 128 {
        out.push(u8::try_from(body.len()).unwrap());
    } else {
        out.extend([u8::try_from(body.len() % 128).unwrap() | 0x80, u8::try_from(body.len() / 128).unwrap()]);
    }
    out.extend(body);
    out
}

/// What a packet of this version has where MQTT 5 has properties.
pub fn properties(version: ProtocolVersion, bytes: &[u8]) -> Vec<u8> {
    if !version.is_v5() {
        return Vec::new();
    }
    let mut out = vec![u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

/// CONNECT with these flags, properties and payload, and no keep alive.
pub fn connect_bytes(version: ProtocolVersion, flags: u8, props: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let level = if version.is_v5() { 5 } else { 4 };
    packet(0x10, &[b"\0\x04MQTT", &[level, flags, 0, 0], &properties(version, props), &payload.concat()])
}

/// The CONNECT is refused: MQTT 5 is told why, MQTT 3.1.1 only finds the connection closed. [MQTT-3.1.4-1] [MQTT3-3.1.4-1]
pub async fn refuses(broker: &TestBroker, version: ProtocolVersion, bytes: &[u8], reason: ReasonCode) {
    let mut client = broker.raw().await;
    client.send_raw(bytes).await;
    if version.is_v5() {
        match client.recv().await {
            Packet::ConnAck(ack) => assert_eq!((ack.reason, ack.session_present), (reason, false), "{bytes:02x?}"),
            other => panic!("{other:?} to {bytes:02x?}"),
        }
    }
    client.expect_closed().await;
}

/// These bytes end an accepted connection, and MQTT 5 is told why. [MQTT-4.13.1-1] [MQTT3-4.8.0-1]
pub async fn ends(broker: &TestBroker, version: ProtocolVersion, bytes: &[u8], reason: ReasonCode) {
    let mut client = broker.connect(connect("c").version(version)).await;
    client.send_raw(bytes).await;
    ended(&mut client, bytes, reason).await;
}

async fn ended(client: &mut Client<impl Stream>, bytes: &[u8], reason: ReasonCode) {
    if client.version().is_v5() {
        match client.recv().await {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason, "{bytes:02x?}"),
            other => panic!("{other:?} to {bytes:02x?}"),
        }
    }
    client.expect_closed().await;
}
