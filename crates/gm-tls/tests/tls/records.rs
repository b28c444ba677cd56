//! Records that somebody between the two has changed, and hellos where none may come. Everything that is wrong with a protected record ends
//! alike, so that nobody learns from the answer what it was (Lucky Thirteen and its kin).

use std::io;
use std::mem::MaybeUninit;

use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use gm_tls::engine::{Engine, ReadOutcome};
use gm_tls::server::{ServerContexts, VerifyMode};

use crate::harness::{client_options, cut_record, engines, padded_text, server, server_options};

fn pass(from: &mut Engine, to: &mut Engine) {
    let bytes = from.output().to_vec();
    from.consume_output(bytes.len());
    if !bytes.is_empty() {
        to.receive(&bytes);
    }
}

/// A server and a client after their handshake, without a transport.
fn connected(contexts: &ServerContexts, protocol: ClientProtocol, suite: &str) -> (Engine, Engine) {
    let options = ClientOptions { ciphers: vec![suite.to_owned()], ..client_options(protocol) };
    engines(contexts, &Connector::new(&options).unwrap())
}

fn read(engine: &mut Engine) -> io::Result<Vec<u8>> {
    let mut space = [MaybeUninit::uninit(); 64];
    match engine.read(&mut space)? {
        // SAFETY: the engine says that it has written so many bytes.
        ReadOutcome::Data(count) => Ok(space[..count].iter().map(|byte| unsafe { byte.assume_init() }).collect()),
        other => panic!("{other:?}"),
    }
}

/// What the client is told when its record reaches the server changed.
fn told(contexts: &ServerContexts, protocol: ClientProtocol, suite: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (mut server, mut client) = connected(contexts, protocol, suite);
    client.write(b"twenty bytes of data").unwrap();
    let mut record = client.output().to_vec();
    client.consume_output(record.len());
    change(&mut record);
    answer(&mut server, &mut client, &record)
}

/// What the client is told of a record, after it was refused.
fn answer(server: &mut Engine, client: &mut Engine, record: &[u8]) -> String {
    server.receive(record);
    read(server).unwrap_err();
    pass(server, client);
    read(client).unwrap_err().to_string()
}

const BAD_RECORD_MAC: &str = "the peer ended the connection with alert 20 (bad_record_mac)";

#[test]
fn every_change_of_a_protected_record_is_answered_by_one_alert() {
    // A suite of TLS with CBC serves only where it is named.
    let named = "ECDHE-ECDSA-AES128-SHA256";
    let mut options = server_options(VerifyMode::None);
    options.tls.as_mut().unwrap().ciphers = vec![named.to_owned()];
    let contexts = ServerContexts::new(&options).unwrap();
    for (protocol, suite) in [
        (ClientProtocol::Tlcp, "ECC_SM4_CBC_SM3"),
        (ClientProtocol::Tlcp, "ECC_SM4_GCM_SM3"),
        (ClientProtocol::Tls12, named),
    ] {
        let told = |change: &dyn Fn(&mut Vec<u8>)| told(&contexts, protocol, suite, change);
        let (mut server, mut client) = connected(&contexts, protocol, suite);
        client.write(b"twenty bytes of data").unwrap();
        let length = client.output().len();
        pass(&mut client, &mut server);
        assert_eq!(read(&mut server).unwrap(), b"twenty bytes of data");
        // One bit of each byte: explicit IV or nonce, data, MAC or tag, padding and its length.
        let mut answers: Vec<String> = (5..length).map(|at| told(&|record| record[at] ^= 1)).collect();
        // Every value of the padding's length, by the block before it.
        if suite.contains("CBC") {
            answers.extend((1..=255).map(|mask| told(&|record| record[length - 17] ^= mask)));
            // Whole blocks left out, so that MAC and padding are found elsewhere.
            answers.extend((1..(length - 5) / 16 - 3).map(|blocks| {
                told(&|record| {
                    record.truncate(length - 16 * blocks);
                    let body = u16::try_from(record.len() - 5).unwrap().to_be_bytes();
                    record[3..5].copy_from_slice(&body);
                })
            }));
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers, [BAD_RECORD_MAC], "{suite}");
    }
}

/// All lengths of padding, right ones behind a wrong MAC and wrong ones, in records shorter and longer than the longest padding.
#[test]
fn every_length_of_padding_is_answered_by_one_alert() {
    let contexts = server(VerifyMode::None);
    let mut answers = Vec::new();
    for length in [48, 288, 1024] {
        for padding in 0..=255u8 {
            let right = padded_text(length, padding);
            let mut wrong = right.clone();
            let first = length.saturating_sub(usize::from(padding) + 1);
            wrong[first] ^= 1;
            // In one length padding is wrong in its first byte too; padding of one byte has no other than the length.
            for text in [Some(right), (length == 288 && padding > 0).then_some(wrong)].into_iter().flatten() {
                let (mut server, mut client) = connected(&contexts, ClientProtocol::Tlcp, "ECC_SM4_CBC_SM3");
                let record = cut_record(&mut client, &text);
                answers.push(answer(&mut server, &mut client, &record));
            }
        }
    }
    assert_eq!(answers.len(), 3 * 256 + 255);
    answers.sort();
    answers.dedup();
    assert_eq!(answers, [BAD_RECORD_MAC]);
}

/// The explicit nonces of so many records, of both directions. `GM_TLS_RECORDS=1048576` makes it a soak.
#[test]
fn an_explicit_nonce_never_comes_twice() {
    let records = std::env::var("GM_TLS_RECORDS").map_or(5_000, |count| count.parse().unwrap());
    let (mut server, mut client) = connected(&server(VerifyMode::None), ClientProtocol::Tlcp, "ECC_SM4_GCM_SM3");
    for server_writes in [true, false] {
        let (from, to) = if server_writes { (&mut server, &mut client) } else { (&mut client, &mut server) };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..records {
            assert_eq!(from.write(b"x").unwrap(), Some(1));
            assert_eq!(from.output().len(), 5 + 8 + 1 + 16);
            assert!(seen.insert(<[u8; 8]>::try_from(&from.output()[5..13]).unwrap()), "a nonce came twice");
            pass(from, to);
            assert_eq!(read(to).unwrap(), b"x");
        }
    }
}
