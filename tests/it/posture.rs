//! What a secured port serves and nothing besides: every number that a suite can have is offered, in each protocol, until only such
//! are left that are refused. Scanners of other makers do not know TLCP and RFC 8998.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use testkit::Transport;
use testkit::raw::{ALERT, HANDSHAKE, RawHello, RawPeer, vector_u8, vector_u16};

use crate::broker::{Secured, Setup};

/// As many suites as a hello holds.
const AT_ONCE: usize = 8000;
/// Not a suite, but the word of a client that fell back to a lower version (RFC 7507).
const FALLBACK: u16 = 0x5600;
const HANDSHAKE_FAILURE: [u8; 2] = [2, 40];

/// The suite that the server chose among these, or `None` if it refused them all as it should.
async fn chosen(address: SocketAddr, hello: &RawHello, suites: &[u16]) -> Option<u16> {
    let mut peer = RawPeer::connect(address).await;
    peer.send(&hello.clone().suites(suites).wire()).await;
    match peer.read_record().await.expect("an answer") {
        (HANDSHAKE, version, body) => {
            assert!(version == hello.record_version || hello.record_version != 0x0101, "version {version:04x}");
            // A ServerHello: its header, the version, random bytes, the session identifier, and the suite.
            assert_eq!(body.first(), Some(&2), "{body:x?}");
            let suite = 4 + 2 + 32 + 1 + usize::from(body[38]);
            Some(u16::from_be_bytes([body[suite], body[suite + 1]]))
        }
        (ALERT, _, body) => {
            assert_eq!(body, HANDSHAKE_FAILURE);
            None
        }
        other => panic!("{other:x?}"),
    }
}

/// Every suite that the port answers such a hello with.
async fn served(address: SocketAddr, hello: &RawHello) -> BTreeSet<u16> {
    let all: Vec<u16> = (0..=u16::MAX).filter(|suite| *suite != FALLBACK).collect();
    let mut found = BTreeSet::new();
    for part in all.chunks(AT_ONCE) {
        let mut left = part.to_vec();
        while let Some(suite) = chosen(address, hello, &left).await {
            assert!(found.insert(suite), "{suite:04x} was not offered");
            left.retain(|offered| *offered != suite);
        }
    }
    found
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A hello of TLS with what every context here needs; TLS 1.3 without a key share, for which the server then asks.
fn tls(versions: &[u16]) -> RawHello {
    RawHello { record_version: 0x0301, client_version: 0x0303, ..RawHello::tlcp() }
        .extension(10, &vector_u16(&numbers(&[0x001d, 0x0017, 41])))
        .extension(13, &vector_u16(&numbers(&[0x0403, 0x0804, 0x0708])))
        .extension(43, &vector_u8(&numbers(versions)))
        .extension(51, &vector_u16(&[]))
}

fn suites<const N: usize>(list: [u16; N]) -> BTreeSet<u16> {
    BTreeSet::from(list)
}

#[tokio::test]
async fn a_port_serves_exactly_the_suites_of_its_configuration() {
    let broker = Setup::new().secured().start().await;
    let address = broker.address(Transport::Tlcp);
    assert_eq!(served(address, &RawHello::tlcp()).await, suites([0xe011, 0xe013, 0xe051, 0xe053]));
    // The certificate is one of ECDSA: AES-GCM and ChaCha20-Poly1305 with ECDHE.
    assert_eq!(served(address, &tls(&[0x0303])).await, suites([0xc02b, 0xc02c, 0xcca9]));
    // Those of RFC 8998 beside those of RFC 8446.
    assert_eq!(served(address, &tls(&[0x0304])).await, suites([0x00c6, 0x00c7, 0x1301, 0x1302, 0x1303]));
    for broken in [0x0300, 0x0301, 0x0302] {
        let mut peer = RawPeer::connect(address).await;
        peer.send(&tls(&[broken]).suites(&[0xc02b, 0xc009, 0x002f]).wire()).await;
        let (kind, _, body) = peer.read_record().await.unwrap();
        assert_eq!((kind, body[0], body[1]), (ALERT, 2, 70), "{broken:04x}: protocol_version");
    }
}

#[tokio::test]
async fn a_port_with_one_suite_serves_no_other() {
    let tlcp = "ciphers = [\"ECC_SM4_GCM_SM3\"]\n".to_owned();
    let secured = Secured { protocols: vec!["tlcp"], tlcp, ..Secured::default() };
    let broker = Setup::new().secured().secured_by(secured).start().await;
    let address = broker.address(Transport::Tlcp);
    assert_eq!(served(address, &RawHello::tlcp()).await, suites([0xe053]));
    // One by one, as a client would that has a single suite.
    for suite in [0xe011, 0xe013, 0xe051, 0xe019, 0xe01c, 0xe059, 0xe05a, 0x1301, 0x00c6, 0xc02b, 0x0000] {
        assert_eq!(chosen(address, &RawHello::tlcp(), &[suite]).await, None, "{suite:04x}");
    }
}
