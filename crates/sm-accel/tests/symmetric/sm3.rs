//! SM3 and HMAC-SM3.

use ::sm3::Digest;
use sm_accel::sm3::{Backend, HmacSm3, Lanes, Sm3, digest, many_on};

use crate::{Noise, hex, lengths};

fn digest_on(backend: Backend, pieces: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Sm3::with_backend(backend).unwrap();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().to_vec()
}

#[test]
fn gives_the_digests_of_gb_t_32905() {
    let abc = hex("66c7f0f4 62eeedd9 d1f2d46b dc10e4e2 4167c487 5cf2f7a2 297da02b 8f4ba8e0");
    let abcd = hex("debe9ff9 2275b8a1 38604889 c18e5a4d 6fdb70e5 387e5765 293dcba3 9c0c5732");
    for backend in Backend::available() {
        assert_eq!(digest_on(backend, &[b"abc"]), abc, "{backend:?}");
        assert_eq!(digest_on(backend, &[&b"abcd".repeat(16)]), abcd, "{backend:?}");
    }
    assert_eq!(digest(b"abc").to_vec(), abc);
}

/// Appendix of the Chinese HMAC standard's draft and RFC 4231's messages, as computed by several libraries.
#[test]
fn gives_known_codes() {
    let code = |key: &[u8], data: &[u8]| {
        let mut mac = HmacSm3::new(key);
        mac.update(data);
        mac.finalize().to_vec()
    };
    assert_eq!(
        code(b"Jefe", b"what do ya want for nothing?"),
        hex("2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882")
    );
}

#[test]
fn agrees_with_other_implementations_at_every_length_and_offset() {
    let mut noise = Noise(1);
    let text = noise.bytes(70_000 + 64);
    // From 96 blocks on there is code of its own.
    let long = [6_143, 6_144, 6_145, 6_208, 7_200, 9_999, 16_384, 65_541, 70_000];
    for length in lengths().into_iter().chain(long) {
        let message = &text[noise.below(64)..][..length];
        let expected = ::sm3::Sm3::digest(message).to_vec();
        assert_eq!(libsm::sm3::hash::Sm3Hash::new(message).get_hash().to_vec(), expected, "the others differ");
        for backend in Backend::available() {
            assert_eq!(digest_on(backend, &[message]), expected, "{backend:?}, {length} bytes");
            let pieces = noise.pieces(message);
            assert_eq!(digest_on(backend, &pieces), expected, "{backend:?}, {length} bytes in {} pieces", pieces.len());
        }
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut first = Sm3::new();
    first.update(b"the same beginning, ");
    let mut second = first.clone();
    first.update(b"one end");
    second.update(b"another");
    assert_eq!(first.finalize(), digest(b"the same beginning, one end"));
    assert_eq!(second.finalize(), digest(b"the same beginning, another"));
}

#[test]
fn a_reset_hasher_is_as_new() {
    let mut hasher = Sm3::new();
    hasher.update(&[7; 100]);
    hasher.reset();
    hasher.update(b"abc");
    assert_eq!(hasher.finalize(), digest(b"abc"));
}

/// HMAC by its definition, over the other implementation.
fn hmac_by_definition(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 { ::sm3::Sm3::digest(key).to_vec() } else { key.to_vec() };
    block.resize(64, 0);
    let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = ::sm3::Sm3::new().chain_update(pad(0x36)).chain_update(data).finalize();
    ::sm3::Sm3::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[test]
fn hmac_takes_keys_of_any_length_and_data_in_pieces() {
    let mut noise = Noise(2);
    for key_length in (0..140).chain([4096]) {
        let key = noise.bytes(key_length);
        let length = noise.below(300);
        let data = noise.bytes(length);
        let expected = hmac_by_definition(&key, &data);
        for backend in Backend::available() {
            let mut mac = HmacSm3::on(Sm3::with_backend(backend).unwrap(), &key);
            let keyed = mac.clone();
            noise.pieces(&data).into_iter().for_each(|piece| mac.update(piece));
            assert!(mac.clone().verify(&expected));
            assert!(!mac.clone().verify(&expected[..31]), "a shortened code is taken");
            assert_eq!(mac.finalize().to_vec(), expected, "{backend:?}, key of {key_length}");
            assert_eq!(
                keyed.finalize().to_vec(),
                hmac_by_definition(&key, b""),
                "a clone keeps what its original took"
            );
        }
    }
}

#[test]
fn several_messages_at_once_have_the_digests_of_each() {
    let mut noise = Noise(10);
    let text = noise.bytes(5000);
    for round in 0..60 {
        let count = noise.below(40);
        let spread = [1, 30, 200, 3000][noise.below(4)];
        let base = noise.below(1500);
        let messages: Vec<&[u8]> = (0..count).map(|at| &text[at..][..base + noise.below(spread)]).collect();
        let expected: Vec<[u8; 32]> = messages.iter().map(|message| ::sm3::Sm3::digest(message).into()).collect();
        for lanes in Lanes::available() {
            let mut digests = vec![[7; 32]; count + 1];
            many_on(lanes, &messages, &mut digests);
            assert_eq!(digests[..count], expected, "{lanes:?}, round {round}");
            assert_eq!(digests[count], [7; 32], "a place without a message");
        }
    }
    for length in (0..300).chain([1000, 4096]) {
        let messages: Vec<&[u8]> = (0..20).map(|at| &text[at..][..length]).collect();
        let expected: Vec<[u8; 32]> = messages.iter().map(|message| ::sm3::Sm3::digest(message).into()).collect();
        for lanes in Lanes::available() {
            let mut digests = [[0; 32]; 20];
            many_on(lanes, &messages, &mut digests);
            assert_eq!(digests.to_vec(), expected, "{lanes:?}, {length} bytes");
        }
    }
}
