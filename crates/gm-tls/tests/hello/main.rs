//! The ClientHello parser against hellos built byte by byte, whole, cut, spread over records, and broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod build;
mod corpus;
mod properties;
mod refusals;

use build::{Hello, record};
use gm_tls::hello::{ClientHello, HelloKind, MAX_HELLO_LEN, MAX_RECORDS, MAX_WIRE_LEN, Parse, parse};

fn accepted(wire: &[u8]) -> ClientHello {
    match parse(wire).expect("acceptable hello") {
        Parse::Hello(hello) => hello,
        Parse::NeedMore => panic!("wants more than the whole hello"),
    }
}

/// The smallest hello of TLCP, written out: one suite, no session id, no extensions.
#[rustfmt::skip]
const TLCP_MINIMAL: &[u8] = &[
    0x16, 0x01, 0x01, 0x00, 0x2d,                   // handshake record, 0101, 45 bytes
    0x01, 0x00, 0x00, 0x29,                         // ClientHello of 41 bytes
    0x01, 0x01,                                     // client_version
    0x5f, 0x5e, 0x5d, 0x5c, 0x00, 0x01, 0x02, 0x03, // random
    0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
    0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13,
    0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b,
    0x00,                                           // session_id
    0x00, 0x02, 0xe0, 0x53,                         // ECC_SM4_GCM_SM3
    0x01, 0x00,                                     // null compression
];

#[test]
fn reads_a_minimal_tlcp_hello() {
    let hello = accepted(TLCP_MINIMAL);
    assert_eq!(hello.kind(), HelloKind::Tlcp);
    assert_eq!((hello.record_version, hello.client_version), (0x0101, 0x0101));
    assert_eq!(hello.suites, [0xe053]);
    assert_eq!(hello.wire_len, TLCP_MINIMAL.len());
    assert_eq!(hello.sni, None);
    assert!(hello.alpn.is_empty() && hello.groups.is_empty() && hello.extensions.is_empty());
}

#[test]
fn reads_a_tlcp_hello_with_extensions() {
    let hello = accepted(&Hello::tlcp().sni("Broker.Example").alpn(&[b"mqtt"]).wire());
    assert_eq!(hello.kind(), HelloKind::Tlcp);
    assert_eq!(hello.suites, [0xe051, 0xe011, 0xe053, 0xe013]);
    assert_eq!(hello.sni.as_deref(), Some("broker.example"));
    assert_eq!(hello.alpn, [b"mqtt".to_vec()]);
    assert_eq!(hello.extensions, [0, 16]);
}

#[test]
fn reads_a_tls12_hello() {
    let wire = Hello::tls12().session_id(&[7; 32]).wire();
    let hello = accepted(&wire);
    assert_eq!(hello.kind(), HelloKind::Tls);
    assert_eq!((hello.record_version, hello.client_version), (0x0301, 0x0303));
    assert_eq!(hello.groups, [0x001d, 0x0017]);
    assert_eq!(hello.signature_algorithms, [0x0403, 0x0804]);
    assert_eq!(hello.session_id_len, 32);
    assert!(!hello.offers_tls13());
    assert_eq!(hello.wire_len, wire.len());
}

#[test]
fn reads_a_tls13_hello_with_key_shares() {
    let hello = accepted(&Hello::tls13().key_share(&[(0x11ec, 1216), (0x001d, 32)]).wire());
    assert_eq!(hello.kind(), HelloKind::Tls);
    assert_eq!(hello.supported_versions, [0x0304, 0x0303]);
    assert_eq!(hello.key_share_groups, [0x11ec, 0x001d]);
    assert!(hello.offers_tls13() && hello.has_extension(51));
}

#[test]
fn accepts_an_empty_key_share_list() {
    let hello = accepted(&Hello::tls13().key_share(&[]).wire());
    assert!(hello.key_share_groups.is_empty() && hello.has_extension(51));
}

#[test]
fn sees_rfc8998_only_when_all_its_parts_are_offered() {
    for suite in [0x00c6, 0x00c7] {
        for group in [41, 4590] {
            let full = Hello::tls13().suites(&[0x1301, suite]).groups(&[29, group]).signatures(&[0x0403, 0x0708]);
            assert_eq!(accepted(&full.wire()).kind(), HelloKind::Rfc8998Capable, "{suite:#x} {group}");
            for lacking in [
                full.clone().suites(&[0x1301]),
                full.clone().groups(&[29]),
                full.clone().signatures(&[0x0403]),
                full.clone().versions(&[0x0303]),
            ] {
                assert_eq!(accepted(&lacking.wire()).kind(), HelloKind::Tls);
            }
        }
    }
}

#[test]
fn tolerates_grease_and_unknown_extensions() {
    let hello = accepted(
        &Hello::tls13()
            .suites(&[0x2a2a, 0x1301])
            .groups(&[0x4a4a, 29])
            .versions(&[0x6a6a, 0x0304])
            .extension(0x8a8a, &[])
            .extension(0xfafa, &[0])
            .extension(0x7777, &[1, 2, 3])
            .wire(),
    );
    assert_eq!(hello.suites, [0x2a2a, 0x1301]);
    assert_eq!(hello.groups, [0x4a4a, 29]);
    assert!(hello.offers_tls13() && hello.has_extension(0x8a8a) && hello.has_extension(0x7777));
}

#[test]
fn accepts_every_03xx_record_version() {
    for minor in [0, 1, 3, 4, 0x7f] {
        let hello = accepted(&Hello::tls13().record_version(0x0300 | minor).wire());
        assert_eq!(hello.record_version, 0x0300 | minor);
    }
}

#[test]
fn knows_a_fallback_retry() {
    assert!(accepted(&Hello::tlcp().suites(&[0xe013, 0x5600]).wire()).is_fallback());
    assert!(!accepted(&Hello::tlcp().wire()).is_fallback());
}

#[test]
fn takes_addresses_and_unusual_names_in_server_name() {
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(63));
    assert_eq!(long.len(), 255);
    for name in ["10.0.0.1", "::1", "localhost", "_mqtt.example", "xn--fiqs8s.example", &long] {
        assert_eq!(accepted(&Hello::tls12().sni(name).wire()).sni.as_deref(), Some(name));
    }
}

#[test]
fn passes_over_names_of_other_types() {
    let mut list = vec![0x07, 0, 2, 0xff, 0xfe];
    list.extend([0, 0, 1, b'h']);
    let hello = accepted(&Hello::tls12().extension(0, &build::vector_u16(&list)).wire());
    assert_eq!(hello.sni.as_deref(), Some("h"));
}

#[test]
fn ends_at_the_last_record_of_the_hello() {
    let mut wire = Hello::tls13().wire();
    let hello_len = wire.len();
    wire.extend_from_slice(&[0x17, 0x03, 0x03, 0xff, 0xff, 1, 2, 3]);
    assert_eq!(accepted(&wire).wire_len, hello_len);
}

#[test]
fn accepts_the_longest_hello_over_the_most_records() {
    let message = Hello::tls13().padded_to(MAX_HELLO_LEN).message();
    assert_eq!(message.len(), MAX_HELLO_LEN + 4);
    let size = message.len().div_ceil(MAX_RECORDS);
    let wire: Vec<u8> = message.chunks(size).flat_map(|chunk| record(0x0301, chunk)).collect();
    assert_eq!(wire.len(), MAX_WIRE_LEN);
    assert_eq!(accepted(&wire).wire_len, wire.len());
    assert_eq!(parse(&wire[..wire.len() - 1]), Ok(Parse::NeedMore));
}

#[test]
fn accepts_a_handshake_header_spread_over_records() {
    let message = Hello::tlcp().message();
    let mut wire = Vec::new();
    for byte in &message[..4] {
        wire.extend(record(0x0101, &[*byte]));
    }
    wire.extend(record(0x0101, &message[4..]));
    assert_eq!(accepted(&wire).suites, accepted(&Hello::tlcp().wire()).suites);
}
