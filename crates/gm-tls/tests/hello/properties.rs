//! What holds for every hello and for every string of bytes.

use gm_tls::hello::{HelloKind, MAX_RECORDS, MAX_WIRE_LEN, Parse, parse};
use proptest::prelude::*;

use crate::accepted;
use crate::build::{Hello, record};

fn hellos() -> impl Strategy<Value = Hello> {
    let base = prop_oneof![Just(Hello::tlcp()), Just(Hello::tls12()), Just(Hello::tls13())];
    let unknown = proptest::collection::vec((0x1000..0x2000u16, proptest::collection::vec(any::<u8>(), 0..40)), 0..6);
    let suites = proptest::collection::vec(any::<u16>(), 1..30);
    (base, "[a-z]{1,20}(\\.[a-z0-9]{1,9}){0,3}", unknown, suites, 0..=32usize).prop_map(
        |(hello, name, unknown, suites, id_len)| {
            let hello = hello.sni(&name).suites(&suites).session_id(&vec![1; id_len]);
            unknown.iter().fold(hello, |hello, (extension, data)| hello.extension(*extension, data))
        },
    )
}

/// Cuts `message` at the given fractions into at most [`MAX_RECORDS`] records.
fn fragmented(version: u16, message: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len())).filter(|at| *at > 0).collect();
    at.push(message.len());
    at.sort_unstable();
    at.dedup();
    let mut start = 0;
    at.iter().flat_map(|end| record(version, &message[std::mem::replace(&mut start, *end)..*end])).collect()
}

/// The answer to each prefix: once it is not `NeedMore`, it never changes.
fn assert_stable(wire: &[u8]) {
    let mut settled = None;
    for end in 0..=wire.len() {
        let answer = parse(&wire[..end]);
        match &settled {
            Some(first) => assert_eq!(&answer, first, "at {end}"),
            None if answer != Ok(Parse::NeedMore) => settled = Some(answer),
            None => {}
        }
    }
}

#[test]
fn every_proper_prefix_needs_more() {
    for hello in [Hello::tlcp(), Hello::tls12().sni("a.example"), Hello::tls13().key_share(&[(29, 32)])] {
        let wire = hello.wire();
        for end in 0..wire.len() {
            assert_eq!(parse(&wire[..end]), Ok(Parse::NeedMore), "at {end}");
        }
        assert_eq!(accepted(&wire).wire_len, wire.len());
    }
}

proptest! {
    #[test]
    fn fragmentation_changes_nothing_but_the_length(
        hello in hellos(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..MAX_RECORDS),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let whole = accepted(&hello.wire());
        prop_assert_eq!(whole.kind() == HelloKind::Tlcp, hello.record_version == 0x0101);
        let mut wire = fragmented(hello.record_version, &hello.message(), &cuts);
        let wire_len = wire.len();
        for end in 0..wire_len {
            prop_assert_eq!(parse(&wire[..end]), Ok(Parse::NeedMore));
        }
        wire.extend(tail);
        let mut split = accepted(&wire);
        prop_assert_eq!(split.wire_len, wire_len);
        split.wire_len = whole.wire_len;
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn one_flipped_byte_has_a_stable_answer(hello in hellos(), at in any::<prop::sample::Index>(), value: u8) {
        let mut wire = hello.wire();
        let index = at.index(wire.len());
        wire[index] = value;
        assert_stable(&wire);
    }

    #[test]
    fn arbitrary_bytes_have_a_stable_answer(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x0301u16), Just(0x0101)],
    ) {
        assert_stable(&bytes);
        assert_stable(&[&record(version, &bytes)[..], &bytes].concat());
    }

    #[test]
    fn a_full_buffer_is_always_enough(
        sizes in proptest::collection::vec(1..1000u16, MAX_RECORDS + 1),
        length in 41..=0x4000u32,
    ) {
        let mut message = vec![1, 0, (length >> 8) as u8, length as u8];
        message.resize(MAX_WIRE_LEN, 0);
        let mut wire = Vec::new();
        for size in sizes.iter().cycle() {
            let take = usize::from(*size).min(message.len());
            if take == 0 || wire.len() >= MAX_WIRE_LEN {
                break;
            }
            wire.extend(record(0x0303, &message.drain(..take).collect::<Vec<_>>()));
        }
        wire.truncate(MAX_WIRE_LEN);
        if wire.len() == MAX_WIRE_LEN {
            prop_assert_ne!(parse(&wire), Ok(Parse::NeedMore));
        }
    }
}
