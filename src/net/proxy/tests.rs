//! Tests of the PROXY header parser: both versions, each fault, every prefix.

use std::path::Path;

use proptest::prelude::*;

use super::v2::crc32c_without;
use super::*;

fn header(wire: &[u8]) -> ProxyHeader {
    match parse(wire, 4096).expect("acceptable header") {
        ProxyParse::Header(header) => header,
        ProxyParse::NeedMore => panic!("wants more than the whole header"),
    }
}

#[track_caller]
fn refused(wire: &[u8], error: ProxyError) {
    assert_eq!(parse(wire, DEFAULT_MAX_V2_LEN), Err(error));
    assert_eq!(parse(&[wire, b"\r\n\x10\0rest"].concat(), DEFAULT_MAX_V2_LEN), Err(error));
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[0x20 | command, family], &length, body].concat()
}

fn value(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0x30, 0x39, 0x22, 0xb3];

fn tcp4(values: &[u8]) -> Vec<u8> {
    v2(1, 0x11, &[&TCP4, values].concat())
}

fn tls_value(client: u8, verify: u32, values: &[Vec<u8>]) -> Vec<u8> {
    value(0x20, &[&[client][..], &verify.to_be_bytes(), &values.concat()].concat())
}

/// Appends a checksum value and fills it in.
fn with_crc(values: &[u8]) -> Vec<u8> {
    let mut wire = tcp4(&[values, &value(3, &[0; 4])].concat());
    let crc = crc32c_without(&wire, 0..0).to_be_bytes();
    let at = wire.len() - 4;
    wire[at..].copy_from_slice(&crc);
    wire
}

#[test]
fn reads_version_1_over_both_families() {
    let wire = b"PROXY TCP4 192.0.2.1 198.51.100.7 12345 8883\r\n";
    let read = header(&[wire, &b"\x10"[..]].concat());
    assert_eq!(read.source, Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!(read.destination, Some("198.51.100.7:8883".parse().unwrap()));
    assert_eq!((read.wire_len, read.local), (wire.len(), false));
    let read = header(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
    assert_eq!(read.source, Some("[2001:db8::1]:1".parse().unwrap()));
}

#[test]
fn reads_the_longest_version_1_header() {
    let wire = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:".repeat(7) + "ffff");
    assert_eq!(wire.len(), MAX_V1_LEN);
    assert_eq!(header(wire.as_bytes()), ProxyHeader { wire_len: MAX_V1_LEN, ..ProxyHeader::default() });
    assert_eq!(header(b"PROXY UNKNOWN\r\n").source, None);
}

#[test]
fn refuses_malformed_version_1() {
    use ProxyError as E;
    let v1 = |fields: &str, error| refused(format!("PROXY {fields}\r\n").as_bytes(), error);
    v1("TCP4 1.2.3.4 1.2.3.4 1", E::V1Malformed);
    v1("TCP4 1.2.3.4 1.2.3.4 1 2 3", E::V1Malformed);
    v1("TCP4 1.2.3.4 1.2.3.4 1 2 ", E::V1Malformed);
    v1("TCP4  1.2.3.4 1.2.3.4 1 2", E::V1Malformed);
    v1("TCP4 1.2.3.4 1.2.3.4 1\t2", E::V1Malformed);
    v1("UNKNOWN \0", E::V1Malformed);
    v1("UDP4 1.2.3.4 1.2.3.4 1 2", E::V1Protocol);
    v1("UNKNOWNX", E::V1Protocol);
    v1("TCP4 ::1 1.2.3.4 1 2", E::V1Address { field: "source address" });
    v1("TCP6 1.2.3.4 ::1 1 2", E::V1Address { field: "source address" });
    v1("TCP4 1.2.3.4 1.2.3.04 1 2", E::V1Address { field: "destination address" });
    v1("TCP4 1.2.3.4 1.2.3.4 +1 2", E::V1Address { field: "source port" });
    v1("TCP4 1.2.3.4 1.2.3.4 01 2", E::V1Address { field: "source port" });
    v1("TCP4 1.2.3.4 1.2.3.4 1 65536", E::V1Address { field: "destination port" });
    refused(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", E::V1LineEnd);
    refused(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(), E::V1TooLong);
}

#[test]
fn reads_version_2_addresses() {
    let read = header(&tcp4(&[]));
    assert_eq!(read.source, Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!(read.destination, Some("198.51.100.7:8883".parse().unwrap()));
    assert_eq!(read.wire_len, 28);
    let mut body = [0; 36];
    (body[15], body[31], body[33]) = (1, 2, 80);
    assert_eq!(header(&v2(1, 0x21, &body)).source, Some("[::1]:80".parse().unwrap()));
    let unix = header(&v2(1, 0x31, &[&[b'/'; 216][..], &value(1, b"mqtt")].concat()));
    assert_eq!((unix.source, unix.alpn.as_deref()), (None, Some(&b"mqtt"[..])));
}

#[test]
fn local_and_unspecified_headers_say_nothing_about_a_client() {
    let check = header(&v2(0, 0xff, &[0xee; 40]));
    assert_eq!(check, ProxyHeader { local: true, wire_len: 56, ..ProxyHeader::default() });
    let unknown = header(&v2(1, 0x00, &[&TCP4[..], &value(2, b"h")].concat()));
    assert_eq!((unknown.local, unknown.source, unknown.authority), (false, None, None));
}

#[test]
fn reads_values_and_passes_over_others() {
    let values = [
        value(2, b"broker.example"),
        value(4, &[0; 9]),
        value(0xee, b"\0\xff"),
        value(1, b"mqtt"),
        value(5, &[7; 128]),
        tls_value(
            0x07,
            0,
            &[value(0x21, b"TLSv1.3"), value(0x22, "车间一".as_bytes()), value(0x23, b"TLS_SM4_GCM_SM3")],
        ),
    ];
    let read = header(&with_crc(&values.concat()));
    assert_eq!(read.authority.as_deref(), Some("broker.example"));
    assert_eq!(read.alpn.as_deref(), Some(&b"mqtt"[..]));
    let tls = read.tls.unwrap();
    assert!(tls.verified);
    assert_eq!(tls.version.as_deref(), Some("TLSv1.3"));
    assert_eq!(tls.common_name.as_deref(), Some("车间一"));
    assert_eq!(tls.cipher.as_deref(), Some("TLS_SM4_GCM_SM3"));
}

#[test]
fn a_certificate_is_verified_only_if_present_and_found_good() {
    let verified = |client, verify| header(&tcp4(&tls_value(client, verify, &[]))).tls.map(|tls| tls.verified);
    assert_eq!(verified(0x03, 0), Some(true));
    assert_eq!(verified(0x05, 0), Some(true));
    assert_eq!(verified(0x03, 1), Some(false));
    assert_eq!(verified(0x01, 0), Some(false));
    assert_eq!(verified(0x00, 0), None);
}

#[test]
fn refuses_contradictory_tls() {
    for values in [
        tls_value(0x01, 0, &[value(0x22, b"admin")]),
        tls_value(0x02, 0, &[]),
        tls_value(0x00, 0, &[value(0x21, b"TLSv1.3")]),
    ] {
        refused(&tcp4(&values), ProxyError::ContradictoryTls);
    }
}

#[test]
fn refuses_unknown_versions_commands_and_families_at_once() {
    let start = |byte| [V2_SIGNATURE, &[byte]].concat();
    refused(&start(0x11), ProxyError::Version { version: 1 });
    refused(&start(0x22), ProxyError::Command { command: 2 });
    for family in [0x12, 0x22, 0x32, 0x10, 0x41, 0xff] {
        refused(&[&start(0x21)[..], &[family]].concat(), ProxyError::Family { family });
    }
}

#[test]
fn refuses_headers_over_the_limit_before_they_arrive() {
    let start = [V2_SIGNATURE, &[0x21, 0x11, 0x02, 0x09]].concat();
    refused(&start, ProxyError::TooLong { length: 537, limit: 536 });
    assert_eq!(parse(&start, 537), Ok(ProxyParse::NeedMore));
}

#[test]
fn refuses_lengths_that_overrun() {
    use ProxyError as E;
    refused(&v2(1, 0x11, &TCP4[..11]), E::AddressesTruncated);
    refused(&v2(1, 0x21, &[0; 35]), E::AddressesTruncated);
    refused(&v2(1, 0x31, &[0; 215]), E::AddressesTruncated);
    refused(&tcp4(&[2, 0]), E::ValueOverrun { kind: 2 });
    refused(&tcp4(&[2, 0, 5, b'h']), E::ValueOverrun { kind: 2 });
    refused(&tcp4(&[0xee, 0xff, 0xff]), E::ValueOverrun { kind: 0xee });
    refused(&tcp4(&value(0x20, &[1, 0, 0, 0])), E::ValueLength { kind: 0x20 });
    refused(&tcp4(&tls_value(1, 0, &[vec![0x21, 0, 9, b'x']])), E::ValueOverrun { kind: 0x21 });
    refused(&tcp4(&value(3, &[0; 3])), E::ValueLength { kind: 3 });
    refused(&tcp4(&value(5, &[0; 129])), E::ValueLength { kind: 5 });
    refused(&tcp4(&value(1, &[])), E::ValueLength { kind: 1 });
    refused(&tcp4(&value(2, &[b'h'; 256])), E::ValueLength { kind: 2 });
}

#[test]
fn refuses_values_given_twice() {
    let twice = |one: Vec<u8>| tcp4(&[one.clone(), one].concat());
    refused(&twice(value(1, b"mqtt")), ProxyError::Duplicate { kind: 1 });
    refused(&twice(value(2, b"h")), ProxyError::Duplicate { kind: 2 });
    refused(&twice(tls_value(1, 0, &[])), ProxyError::Duplicate { kind: 0x20 });
    let names = tls_value(3, 0, &[value(0x22, b"a"), value(0x22, b"admin")]);
    refused(&tcp4(&names), ProxyError::Duplicate { kind: 0x22 });
}

#[test]
fn refuses_texts_that_could_deceive_a_log_or_a_lookup() {
    for bad in [&b""[..], b"admin\0", b"a\nb", b"\x1b[2J", b"\xff", "a\u{85}b".as_bytes()] {
        refused(&tcp4(&value(2, bad)), ProxyError::Text { kind: 2 });
        refused(&tcp4(&tls_value(3, 0, &[value(0x22, bad)])), ProxyError::Text { kind: 0x22 });
    }
}

#[test]
fn checks_the_checksum() {
    // The check value of CRC-32C in RFC 3720 appendix B.4: 32 bytes of zero.
    assert_eq!(crc32c_without(&[0; 32], 0..0), 0x8a91_36aa);
    let good = with_crc(&value(2, b"h"));
    assert_eq!(header(&good).authority.as_deref(), Some("h"));
    for at in 16..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(parse(&bad, 4096).is_err(), "flipped bit at {at} was accepted");
    }
}

#[test]
fn demands_a_header() {
    for wire in [&b"\x10\x0c"[..], b"\x16\x03\x01", b"GET /", b"PROXX", b"\r\n\r\n\0\r\nQUIX"] {
        refused(wire, ProxyError::Missing);
    }
}

#[test]
fn every_proper_prefix_needs_more() {
    for wire in [
        b"PROXY TCP4 192.0.2.1 198.51.100.7 12345 8883\r\n".to_vec(),
        with_crc(&tls_value(3, 0, &[value(0x22, b"device")])),
        v2(0, 0, &[]),
    ] {
        for end in 0..wire.len() {
            assert_eq!(parse(&wire[..end], 4096), Ok(ProxyParse::NeedMore), "at {end}");
        }
        assert_eq!(header(&wire).wire_len, wire.len());
    }
}

#[test]
fn every_fuzz_seed_has_one_stable_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_header");
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).expect("folder of seeds") {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap();
        assert_stable(&seed);
        // The name of a seed tells what it is, `ok-…` or `bad-…`; files that a fuzzer left beside them have neither.
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match parse(&seed, 4096) {
            Ok(ProxyParse::Header(_)) => assert!(!name.starts_with("bad-"), "{name} was accepted"),
            other => assert!(!name.starts_with("ok-"), "{name}: {other:?}"),
        }
        seeds += 1;
    }
    assert!(seeds >= 8, "only {seeds} seeds in {}", folder.display());
}

fn assert_stable(wire: &[u8]) {
    let mut settled = None;
    for end in 0..=wire.len() {
        let answer = parse(&wire[..end], 4096);
        match &settled {
            Some(first) => assert_eq!(&answer, first, "at {end}"),
            None if answer != Ok(ProxyParse::NeedMore) => settled = Some(answer),
            None => {}
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_values_have_a_stable_answer(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        kinds in proptest::collection::vec((0..0x30u8, proptest::collection::vec(any::<u8>(), 0..20)), 0..5),
        text in "[ -~]{0,110}",
    ) {
        assert_stable(&bytes);
        assert_stable(&tcp4(&bytes));
        assert_stable(&[V2_SIGNATURE, &bytes].concat());
        let values: Vec<u8> = kinds.iter().flat_map(|(kind, data)| value(*kind, data)).collect();
        assert_stable(&tcp4(&values));
        assert_stable(&[V1_SIGNATURE, text.as_bytes(), b"\r\n", &bytes].concat());
    }
}
