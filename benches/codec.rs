//! Decoding and encoding of the packets that a broker sees most, in memory on one core.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{
    Connect, ConnectProperties, Encode, FrameLen, Packet, ProtocolVersion, PubAck, Publish, PublishProperties, QoS,
    Subscribe, SubscribeProperties, Subscription, SubscriptionOptions, decode, frame_len,
};

const VERSIONS: [(&str, ProtocolVersion); 2] = [("3.1.1", ProtocolVersion::V3_1_1), ("5.0", ProtocolVersion::V5)];

fn publish(qos: QoS, payload: usize) -> Packet {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "plant/7/line/3/sensor/temperature".into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        properties: PublishProperties::default(),
        payload: vec![0x5a; payload].into(),
    }
    .into()
}

fn connect(version: ProtocolVersion) -> Packet {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        properties: ConnectProperties::default(),
        client_id: "sensor-000001".into(),
        will: None,
        username: Some("sensor".into()),
        password: Some(Bytes::from_static(b"correct horse battery staple").into()),
    }
    .into()
}

fn subscribe() -> Packet {
    let subscriptions = (0..10)
        .map(|i| Subscription {
            filter: format!("plant/{i}/+/sensor/#").into(),
            options: SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() },
        })
        .collect();
    Subscribe { packet_id: NonZeroU16::MIN, properties: SubscribeProperties::default(), subscriptions }.into()
}

fn codec(c: &mut Criterion) {
    for (label, version) in VERSIONS {
        let mut packets = vec![
            ("connect".to_owned(), connect(version)),
            ("subscribe_10".to_owned(), subscribe()),
            ("puback".to_owned(), PubAck::new(NonZeroU16::MIN).into()),
        ];
        for payload in [16, 256, 4096] {
            packets.push((format!("publish_qos0_{payload}"), publish(QoS::AtMostOnce, payload)));
            packets.push((format!("publish_qos1_{payload}"), publish(QoS::AtLeastOnce, payload)));
        }
        for (name, packet) in packets {
            let mut written = BytesMut::new();
            packet.encode(version, &mut written).unwrap();
            let frame = written.freeze();
            let mut group = c.benchmark_group(format!("codec/{label}"));
            group.throughput(Throughput::Bytes(frame.len() as u64));
            group.bench_function(format!("decode/{name}"), |b| {
                b.iter(|| {
                    assert_eq!(frame_len(black_box(&frame), 1 << 20), Ok(FrameLen::Complete(frame.len())));
                    decode(frame.clone(), version)
                });
            });
            let mut dst = BytesMut::with_capacity(frame.len());
            group.bench_function(format!("encode/{name}"), |b| {
                b.iter(|| {
                    dst.clear();
                    black_box(&packet).encode(version, &mut dst)
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = codec
}
criterion_main!(benches);
