//! Each defect of a first flight has its own error, and the alert that fits it.

use gm_tls::hello::{HelloError as E, MAX_HELLO_LEN, MAX_RECORDS, Parse, alert, parse};

use crate::build::{Hello, handshake, record, vector_u8, vector_u16};

#[track_caller]
fn refused(wire: &[u8], error: E, alert: u8) {
    assert_eq!(parse(wire), Err(error));
    assert_eq!(error.alert(), alert);
    // Whatever arrives later, the answer stays.
    assert_eq!(parse(&[wire, &[0x16; 64]].concat()), Err(error));
}

#[test]
fn refuses_an_ssl2_hello() {
    refused(&[0x80, 0x2e, 0x01, 0x03, 0x01], E::Ssl2, alert::PROTOCOL_VERSION);
    assert_eq!(parse(&[0x80, 0x2e]), Ok(Parse::NeedMore));
    refused(&[0x80, 0x2e, 0x02], E::NotHandshake { first: 0x80 }, alert::UNEXPECTED_MESSAGE);
}

#[test]
fn refuses_other_protocols_at_their_first_byte() {
    for first in [0x10, b'G', 0x14, 0x15, 0x17, 0x00, 0x0d] {
        refused(&[first], E::NotHandshake { first }, alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn refuses_record_versions_of_no_protocol() {
    for version in [0x0000, 0x0100, 0x0102, 0x0200, 0x0401, 0xfeff] {
        let wire = Hello::tls12().record_version(version).wire();
        refused(&wire[..3], E::UnknownRecordVersion { version }, alert::PROTOCOL_VERSION);
    }
}

#[test]
fn refuses_a_tlcp_record_around_a_hello_of_another_version() {
    for client in [0x0303, 0x0301, 0x0100, 0x0102] {
        let wire = Hello::tlcp().client_version(client).wire();
        refused(&wire, E::VersionMismatch { record: 0x0101, client }, alert::PROTOCOL_VERSION);
    }
}

#[test]
fn refuses_a_tls_record_around_a_tlcp_hello() {
    for record in [0x0301, 0x0303] {
        let wire = Hello::tlcp().record_version(record).wire();
        refused(&wire, E::VersionMismatch { record, client: 0x0101 }, alert::PROTOCOL_VERSION);
    }
}

#[test]
fn refuses_client_versions_that_are_no_tls() {
    for version in [0x0000, 0x0002, 0x0200, 0x0400, 0xfefd] {
        let wire = Hello::tls12().client_version(version).wire();
        refused(&wire, E::UnknownClientVersion { version }, alert::PROTOCOL_VERSION);
    }
}

#[test]
fn refuses_empty_and_oversized_records() {
    refused(&[22, 3, 1, 0, 0], E::EmptyRecord, alert::UNEXPECTED_MESSAGE);
    refused(&[22, 3, 1, 0x40, 0x01], E::RecordTooLong { length: 16385 }, alert::RECORD_OVERFLOW);
    let mut wire = record(0x0301, &Hello::tls12().message()[..10]);
    wire.extend([22, 3, 1, 0, 0]);
    refused(&wire, E::EmptyRecord, alert::UNEXPECTED_MESSAGE);
}

#[test]
fn refuses_a_hello_over_too_many_records() {
    let message = Hello::tls12().message();
    let wire: Vec<u8> = message.iter().take(MAX_RECORDS).flat_map(|byte| record(0x0301, &[*byte])).collect();
    refused(&wire, E::TooManyRecords { limit: MAX_RECORDS }, alert::UNEXPECTED_MESSAGE);
    assert_eq!(parse(&wire[..wire.len() - 1]), Ok(Parse::NeedMore));
}

#[test]
fn refuses_records_of_another_kind_or_version_inside_a_hello() {
    let message = Hello::tls12().message();
    let first = record(0x0301, &message[..20]);
    let rest = record(0x0303, &message[20..]);
    let changed = E::RecordVersionChanged { first: 0x0301, later: 0x0303 };
    refused(&[&first[..], &rest].concat(), changed, alert::PROTOCOL_VERSION);
    refused(&[&first[..], &[21]].concat(), E::Interleaved { content_type: 21 }, alert::UNEXPECTED_MESSAGE);
    refused(&[&first[..], &[20]].concat(), E::Interleaved { content_type: 20 }, alert::UNEXPECTED_MESSAGE);
}

#[test]
fn refuses_other_handshake_messages_at_their_type() {
    for message_type in [0, 2, 11, 16, 24] {
        let wire = record(0x0303, &handshake(message_type, &[0; 40]));
        refused(&wire[..6], E::NotClientHello { message_type }, alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn refuses_an_overlong_hello_before_it_arrives() {
    let wire = record(0x0303, &[1, 0, 0x40, 0x01, 3, 3]);
    let too_long = E::TooLong { length: MAX_HELLO_LEN + 1, limit: MAX_HELLO_LEN };
    refused(&wire[..9], too_long, alert::ILLEGAL_PARAMETER);
    let wire = record(0x0303, &[1, 0xff, 0xff, 0xff]);
    refused(&wire, E::TooLong { length: 0xff_ffff, limit: MAX_HELLO_LEN }, alert::ILLEGAL_PARAMETER);
}

#[test]
fn refuses_data_behind_the_hello_in_its_record() {
    let mut message = Hello::tls13().message();
    message.extend([20, 0, 0, 0]);
    let wire = record(0x0301, &message);
    refused(&wire[..9], E::DataAfterHello { extra: 4 }, alert::UNEXPECTED_MESSAGE);
}

#[test]
fn refuses_a_body_that_ends_early_wherever_it_ends() {
    let hello = Hello::tls13().sni("h").alpn(&[b"mqtt"]).key_share(&[(29, 32)]);
    let (body, without) = (hello.body(), hello.no_extensions().body().len());
    for end in (0..body.len()).filter(|end| *end != without) {
        let error = parse(&record(0x0301, &handshake(1, &body[..end]))).unwrap_err();
        assert!(matches!(error, E::Truncated { .. }), "{end}: {error}");
        assert_eq!(error.alert(), alert::DECODE_ERROR);
    }
}

#[test]
fn refuses_bytes_behind_the_extensions() {
    let mut body = Hello::tls12().body();
    body.push(0);
    let trailing = E::TrailingBytes { field: "extensions", extra: 1 };
    refused(&record(0x0301, &handshake(1, &body)), trailing, alert::DECODE_ERROR);
}

#[test]
fn refuses_bad_lists_before_the_extensions() {
    let hello = Hello::tls12();
    let long_id = hello.clone().session_id(&[0; 33]).wire();
    refused(&long_id, E::SessionIdTooLong { length: 33 }, alert::DECODE_ERROR);
    refused(&hello.clone().suites(&[]).wire(), E::NoSuites, alert::DECODE_ERROR);
    refused(&hello.clone().raw_suites(&[0xe0, 0x13, 0xe0]).wire(), E::OddSuites { length: 3 }, alert::DECODE_ERROR);
    refused(&hello.clone().compression(&[]).wire(), E::NoNullCompression, alert::ILLEGAL_PARAMETER);
    refused(&hello.compression(&[1]).wire(), E::NoNullCompression, alert::ILLEGAL_PARAMETER);
}

#[test]
fn refuses_duplicate_extensions_known_or_not() {
    for extension in [0x7777, 23, 10] {
        let wire = Hello::tls12().extension(0x7777, &[]).second_extension(extension, &[0, 2, 0, 29]).wire();
        refused(&wire, E::DuplicateExtension { extension }, alert::ILLEGAL_PARAMETER);
    }
}

#[test]
fn refuses_thousands_of_equal_extensions() {
    let mut hello = Hello::tls12();
    for _ in 0..4000 {
        hello = hello.second_extension(0xaaaa, &[]);
    }
    refused(&hello.wire(), E::DuplicateExtension { extension: 0xaaaa }, alert::ILLEGAL_PARAMETER);
}

#[test]
fn refuses_a_pre_shared_key_before_other_extensions() {
    let wire = Hello::tls13().extension(41, &[0; 8]).extension(45, &[1, 1]).wire();
    refused(&wire, E::PreSharedKeyNotLast, alert::ILLEGAL_PARAMETER);
    assert!(matches!(parse(&Hello::tls13().extension(41, &[0; 8]).wire()), Ok(Parse::Hello(_))));
}

#[test]
fn refuses_ambiguous_or_unprintable_host_names() {
    let sni = |names: &[&[u8]]| Hello::tls12().raw_sni(names).wire();
    refused(&sni(&[b"a.example", b"b.example"]), E::SeveralHostNames, alert::ILLEGAL_PARAMETER);
    refused(&sni(&[&[b'a'; 256]]), E::HostNameTooLong { length: 256 }, alert::ILLEGAL_PARAMETER);
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"a..b",
        b"a.",
        b".a",
        b"a\0.example",
        b"a b",
        b"a\n",
        b"*.example",
        "商.example".as_bytes(),
        b"\xff",
        &[b'a'; 64],
    ];
    for name in bad {
        refused(&sni(&[name]), E::BadHostName, alert::ILLEGAL_PARAMETER);
    }
}

#[test]
fn refuses_extensions_whose_lengths_disagree() {
    let cases: [(u16, &str, Vec<u8>); 12] = [
        (0, "server_name", vector_u16(&[])),
        (10, "supported_groups", vector_u16(&[])),
        (10, "supported_groups", vector_u16(&[0, 29, 0])),
        (13, "signature_algorithms", vector_u16(&[])),
        (13, "signature_algorithms", vector_u16(&[4])),
        (16, "application_layer_protocol_negotiation", vector_u16(&[])),
        (16, "application_layer_protocol_negotiation", vector_u16(&[0])),
        (16, "application_layer_protocol_negotiation", vector_u16(&[1, b'h', 0])),
        (43, "supported_versions", vector_u8(&[])),
        (43, "supported_versions", vector_u8(&[3])),
        (43, "supported_versions", vector_u8(&[3, 4, 3])),
        (51, "key_share", vector_u16(&[0, 29, 0, 0])),
    ];
    for (extension, field, data) in cases {
        refused(&Hello::tls12().extension(extension, &data).wire(), E::BadLength { field }, alert::DECODE_ERROR);
    }
    for (extension, field) in [
        (0, "server_name"),
        (10, "supported_groups"),
        (13, "signature_algorithms"),
        (16, "application_layer_protocol_negotiation"),
        (51, "key_share"),
    ] {
        let over = Hello::tls12().extension(extension, &[0, 9, 0]).wire();
        refused(&over, E::Truncated { field }, alert::DECODE_ERROR);
    }
    let mut extra = vector_u16(&[0, 29]);
    extra.push(0);
    let trailing = E::TrailingBytes { field: "supported_groups", extra: 1 };
    refused(&Hello::tls12().extension(10, &extra).wire(), trailing, alert::DECODE_ERROR);
}
