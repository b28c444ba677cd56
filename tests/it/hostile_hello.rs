//! Hellos that no client should send, written to a live listener byte by byte.

use std::time::Duration;

use testkit::raw::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, Ending, HANDSHAKE, RawHello, RawPeer, TLCP, handshake, record,
};
use testkit::{Transport, connect};
use tokio::time::Instant;

use crate::broker::Secured;
use crate::hostile::{Scene, answer_of, answer_to, until};

const UNEXPECTED_MESSAGE: Ending = Ending::Alert(10);
const RECORD_OVERFLOW: Ending = Ending::Alert(22);
const HANDSHAKE_FAILURE: Ending = Ending::Alert(40);
const ILLEGAL_PARAMETER: Ending = Ending::Alert(47);
const DECODE_ERROR: Ending = Ending::Alert(50);
const PROTOCOL_VERSION: Ending = Ending::Alert(70);

fn every_kind() -> [(RawHello, &'static str); 3] {
    [(RawHello::tlcp(), "tlcp"), (RawHello::tls12(), "tls"), (RawHello::tls13(), "tls")]
}

#[tokio::test]
async fn answers_a_hello_that_comes_byte_by_byte() {
    let scene = Scene::new().await;
    for (hello, _) in every_kind() {
        let mut peer = scene.peer().await;
        peer.send_byte_by_byte(&hello.wire()).await;
        peer.expect_server_hello().await;
    }
}

#[tokio::test]
async fn answers_a_hello_that_is_spread_over_records() {
    let scene = Scene::new().await;
    for (hello, _) in every_kind() {
        for len in [2, 3, 7, 40] {
            let mut peer = scene.peer().await;
            peer.send(&hello.in_records_of(len)).await;
            peer.expect_server_hello().await;
        }
        // And both at once.
        let mut peer = scene.peer().await;
        peer.send_byte_by_byte(&hello.in_records_of(5)).await;
        peer.expect_server_hello().await;
    }
}

#[tokio::test]
async fn refuses_a_hello_that_ends_within_its_fields() {
    for (hello, protocol) in every_kind() {
        let body = hello.body();
        for len in [0, 1, 33, 34, 36, body.len() - 1] {
            let cut = record(HANDSHAKE, hello.record_version, &handshake(1, &body[..len]));
            assert_eq!(answer_to(&cut, "hello_malformed", protocol).await, DECODE_ERROR, "{protocol} cut at {len}");
        }
    }
}

#[tokio::test]
async fn notices_a_peer_that_leaves_within_its_hello() {
    for (hello, protocol) in every_kind() {
        let mut scene = Scene::new().await;
        let mut peer = scene.peer().await;
        let wire = hello.wire();
        peer.send(&wire[..wire.len() - 1]).await;
        peer.close_sending().await;
        assert_eq!(peer.ending().await, Ending::Silence);
        scene.expect_refusals(1, "closed", protocol).await;
    }
}

#[tokio::test]
async fn refuses_a_hello_that_announces_too_much_before_it_arrives() {
    for (version, protocol) in [(TLCP, "tlcp"), (0x0301, "tls")] {
        let header = record(HANDSHAKE, version, &[1, 0xff, 0xff, 0xff]);
        assert_eq!(answer_to(&header, "hello_malformed", protocol).await, ILLEGAL_PARAMETER);
        // The lengths alone, without a byte of what they announce.
        let mut long_record = record(HANDSHAKE, version, &[]);
        long_record.truncate(3);
        long_record.extend([0xff, 0xff]);
        assert_eq!(answer_to(&long_record, "hello_malformed", protocol).await, RECORD_OVERFLOW);
    }
}

#[tokio::test]
async fn refuses_hellos_that_contradict_themselves() {
    let twice = |hello: RawHello| hello.extension(0x1234, b"a").extension(0x1234, b"b");
    let odd = |hello: RawHello| RawHello { suites: vec![0xe0, 0x53, 0xe0], ..hello };
    let none = |hello: RawHello| hello.suites(&[]);
    let compressed = |hello: RawHello| RawHello { compression: vec![1], ..hello };
    for (hello, protocol) in every_kind() {
        for (wrong, expected) in [
            (twice(hello.clone()), ILLEGAL_PARAMETER),
            (odd(hello.clone()), DECODE_ERROR),
            (none(hello.clone()), DECODE_ERROR),
            (compressed(hello.clone()), ILLEGAL_PARAMETER),
        ] {
            assert_eq!(answer_to(&wrong.wire(), "hello_malformed", protocol).await, expected, "{wrong:x?}");
        }
        let mut longer = handshake(1, &[hello.body(), vec![0]].concat());
        longer = record(HANDSHAKE, hello.record_version, &longer);
        assert_eq!(answer_to(&longer, "hello_malformed", protocol).await, DECODE_ERROR);
        let followed = [hello.message(), hello.message()].concat();
        let followed = record(HANDSHAKE, hello.record_version, &followed);
        assert_eq!(answer_to(&followed, "hello_malformed", protocol).await, UNEXPECTED_MESSAGE);
    }
}

#[tokio::test]
async fn refuses_a_tlcp_record_around_a_hello_of_tls() {
    for version in [0x0301, 0x0302, 0x0303, 0x0304] {
        let lie = RawHello { client_version: version, ..RawHello::tlcp() };
        let reason = "hello_malformed";
        assert_eq!(answer_to(&lie.wire(), reason, "tlcp").await, PROTOCOL_VERSION, "{version:04x}");
    }
    let whole_hello = RawHello { record_version: TLCP, ..RawHello::tls12() };
    assert_eq!(answer_to(&whole_hello.wire(), "hello_malformed", "tlcp").await, PROTOCOL_VERSION);
}

#[tokio::test]
async fn refuses_a_tls_record_around_a_hello_of_tlcp() {
    for version in [0x0300, 0x0301, 0x0303, 0x0304] {
        let lie = RawHello { record_version: version, ..RawHello::tlcp() };
        assert_eq!(answer_to(&lie.wire(), "hello_malformed", "tls").await, PROTOCOL_VERSION, "{version:04x}");
    }
}

#[tokio::test]
async fn refuses_records_of_one_hello_that_disagree() {
    let (first, second) = (RawHello::tlcp().message(), 40);
    let wire = [record(HANDSHAKE, TLCP, &first[..second]), record(HANDSHAKE, 0x0303, &first[second..])].concat();
    assert_eq!(answer_to(&wire, "hello_malformed", "tlcp").await, PROTOCOL_VERSION);
    let wire = [record(HANDSHAKE, TLCP, &first[..second]), record(APPLICATION_DATA, TLCP, &first[second..])].concat();
    assert_eq!(answer_to(&wire, "hello_malformed", "tlcp").await, UNEXPECTED_MESSAGE);
}

#[tokio::test]
async fn refuses_a_hello_that_never_ends() {
    // A record for each byte: it would go on for 16384 records.
    for (version, protocol) in [(TLCP, "tlcp"), (0x0303, "tls")] {
        let endless: Vec<u8> = [1, 0, 0x40, 0].into_iter().chain(std::iter::repeat_n(7, 1000)).collect();
        let wire: Vec<u8> = endless.iter().flat_map(|byte| record(HANDSHAKE, version, &[*byte])).collect();
        assert_eq!(answer_to(&wire, "hello_malformed", protocol).await, UNEXPECTED_MESSAGE);
    }
}

#[tokio::test]
async fn cuts_a_hello_that_trickles_at_the_handshakes_deadline() {
    let keys = "handshake_timeout = \"300ms\"\n".to_owned();
    let mut scene = Scene::secured(Secured { keys, ..Secured::default() }).await;
    let started = Instant::now();
    let mut peer = scene.peer().await;
    let endless = record(HANDSHAKE, TLCP, &handshake(1, &[7; 16_000]));
    // Each byte is progress, but the deadline is that of the whole.
    let mut bytes = endless.iter();
    while scene.counters.all_refusals() == 0 {
        peer.send(&[*bytes.next().expect("the broker took the whole hello")]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(300));
    drop(peer);
    scene.expect_refusals(1, "handshake_timeout", "tlcp").await;
}

#[tokio::test]
async fn refuses_empty_records() {
    for (version, protocol) in [(TLCP, "tlcp"), (0x0303, "tls")] {
        let empty = record(HANDSHAKE, version, &[]);
        assert_eq!(answer_to(&empty, "hello_malformed", protocol).await, UNEXPECTED_MESSAGE);
        let begun = [record(HANDSHAKE, version, &[1, 0]), record(HANDSHAKE, version, &[])].concat();
        assert_eq!(answer_to(&begun, "hello_malformed", protocol).await, UNEXPECTED_MESSAGE);
    }
}

#[tokio::test]
async fn refuses_other_records_where_a_hello_belongs() {
    for version in [TLCP, 0x0303] {
        for (kind, body) in [(ALERT, &[2, 40][..]), (CHANGE_CIPHER_SPEC, &[1]), (APPLICATION_DATA, b"data")] {
            let first = record(kind, version, body);
            assert_eq!(answer_to(&first, "no_hello", "unknown").await, UNEXPECTED_MESSAGE, "{kind} {version:04x}");
        }
    }
}

#[tokio::test]
async fn refuses_another_handshake_message_in_place_of_the_hello() {
    for (version, protocol) in [(TLCP, "tlcp"), (0x0303, "tls")] {
        for kind in [0, 2, 11, 16, 20] {
            let message = record(HANDSHAKE, version, &handshake(kind, &[0; 12]));
            assert_eq!(answer_to(&message, "hello_malformed", protocol).await, UNEXPECTED_MESSAGE, "message {kind}");
        }
    }
}

#[tokio::test]
async fn notices_a_peer_that_leaves_without_a_word() {
    let mut scene = Scene::new().await;
    let mut peer = scene.peer().await;
    peer.close_sending().await;
    assert_eq!(peer.ending().await, Ending::Silence);
    scene.expect_refusals(1, "closed", "unknown").await;
}

#[tokio::test]
async fn tells_a_tlcp_client_that_the_port_speaks_tls() {
    let secured = || Secured { protocols: vec!["tls", "rfc8998"], ..Secured::default() };
    let answer = answer_of(secured(), &RawHello::tlcp().wire(), "tlcp_not_enabled", "tlcp").await;
    assert_eq!(answer, PROTOCOL_VERSION);
}

#[tokio::test]
async fn tells_a_tls_client_that_the_port_speaks_tlcp() {
    for hello in [RawHello::tls12(), RawHello::tls13()] {
        let secured = Secured { protocols: vec!["tlcp"], ..Secured::default() };
        assert_eq!(answer_of(secured, &hello.wire(), "tls_not_enabled", "tls").await, PROTOCOL_VERSION);
    }
}

#[tokio::test]
async fn refuses_suites_that_are_not_configured() {
    let tlcp = "ciphers = [\"ECC_SM4_GCM_SM3\"]\n".to_owned();
    let secured = || Secured { tlcp: tlcp.clone(), ..Secured::default() };
    let other = RawHello::tlcp().suites(&[0xe013, 0xe011, 0xe019]);
    assert_eq!(answer_of(secured(), &other.wire(), "no_shared_suite", "tlcp").await, HANDSHAKE_FAILURE);
    // TLS_RSA_WITH_AES_128_CBC_SHA and TLS_RSA_WITH_NULL_SHA.
    let weak = RawHello::tls12().suites(&[0x002f, 0x0002]);
    assert_eq!(answer_of(secured(), &weak.wire(), "no_shared_suite", "tls").await, HANDSHAKE_FAILURE);
}

/// What is logged while the test runs, all of which is on this thread.
fn captured_log() -> (impl Sized, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let writer = std::sync::Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Tee(writer.clone())).finish();
    // As long as there is one subscriber alone, `tracing` asks that of whichever thread comes to a place in the code first whether
    // anybody wants its lines; where that is the thread of another test, which has none, this one would never see them.
    let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    ((tracing::subscriber::set_default(subscriber), second), log)
}

struct Tee(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn names_the_mistake_of_who_speaks_plainly_to_a_secured_port() {
    let (_guard, log) = captured_log();
    let mqtt = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
    assert_eq!(answer_to(&mqtt, "plain_mqtt", "unknown").await, Ending::Silence);
    let http = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(answer_to(http, "http", "unknown").await, Ending::Silence);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let line =
        |words: &str| log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words}: {log}"));
    let line_of_mqtt = line("a plain MQTT CONNECT arrived on a TLS port; the client must use mqtts://");
    assert!(line_of_mqtt.contains("INFO") && line_of_mqtt.contains("remote=127.0.0.1:"), "{line_of_mqtt}");
    assert!(line_of_mqtt.contains("listener=\"ssl:default\""), "{line_of_mqtt}");
    line("a plain HTTP request arrived on a TLS port");
}

#[tokio::test]
async fn survives_ten_thousand_malformed_hellos() {
    const PEERS: u64 = 10_000;
    const AT_ONCE: u64 = 50;
    let mut scene = Scene::new().await;
    let address = scene.broker.address(Transport::Tlcp);
    let wires = [
        record(HANDSHAKE, TLCP, &handshake(1, &[7; 5000])),
        record(HANDSHAKE, TLCP, &handshake(1, &[])),
        record(HANDSHAKE, TLCP, &[1, 0xff, 0xff, 0xff]),
        RawHello { client_version: 0x0303, ..RawHello::tlcp() }.wire(),
    ];
    let before = resident_kib();
    for _ in 0..PEERS / AT_ONCE {
        let mut peers = tokio::task::JoinSet::new();
        for n in 0..AT_ONCE {
            let wire = wires[n as usize % wires.len()].clone();
            peers.spawn(async move {
                let mut peer = RawPeer::connect(address).await;
                peer.send(&wire).await;
                assert!(matches!(peer.ending().await, Ending::Alert(_)));
            });
        }
        while let Some(outcome) = peers.join_next().await {
            outcome.unwrap();
        }
    }
    scene.expect_refusals(PEERS, "hello_malformed", "tlcp").await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "the process grew by {grown} KiB");
    let mut honest = scene.broker.connect_over(Transport::Tlcp, connect("honest")).await;
    honest.ping().await;
    honest.disconnect().await;
    until("the honest client's connection has ended", || scene.open() == 0).await;
}

/// Memory of this process that is in RAM.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
