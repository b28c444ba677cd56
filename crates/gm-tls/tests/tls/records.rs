//! Records that somebody between the two has changed, and hellos where none may come. Everything that is wrong with a protected record ends
//! alike, so that nobody learns from the answer what it was (Lucky Thirteen and its kin).

use std::io;
use std::mem::MaybeUninit;

use bytes::Bytes;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use gm_tls::engine::{Engine, Progress, ReadOutcome};
use gm_tls::hello::{self, Parse};
use gm_tls::server::{ServerContexts, VerifyMode};

use crate::harness::{client_options, server};

fn pass(from: &mut Engine, to: &mut Engine) {
    let bytes = from.output().to_vec();
    from.consume_output(bytes.len());
    if !bytes.is_empty() {
        to.receive(&bytes);
    }
}

/// A server and a client after their handshake, without a transport.
fn connected(contexts: &ServerContexts, suite: &str) -> (Engine, Engine) {
    let options = ClientOptions { ciphers: vec![suite.to_owned()], ..client_options(ClientProtocol::Tlcp) };
    let mut client = Connector::new(&options).unwrap().engine(None).unwrap();
    client.handshake().unwrap();
    let first = client.output().to_vec();
    client.consume_output(first.len());
    let Parse::Hello(hello) = hello::parse(&first).unwrap() else { panic!("a whole hello") };
    let mut server = contexts.select(&hello).unwrap().engine(Bytes::from(first)).unwrap();
    loop {
        let accepted = server.handshake().unwrap();
        pass(&mut server, &mut client);
        let connected = client.handshake().unwrap();
        pass(&mut client, &mut server);
        if (accepted, connected) == (Progress::Done, Progress::Done) {
            return (server, client);
        }
    }
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
fn told(contexts: &ServerContexts, suite: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (mut server, mut client) = connected(contexts, suite);
    client.write(b"twenty bytes of data").unwrap();
    let mut record = client.output().to_vec();
    client.consume_output(record.len());
    change(&mut record);
    server.receive(&record);
    read(&mut server).unwrap_err();
    pass(&mut server, &mut client);
    read(&mut client).unwrap_err().to_string()
}

#[test]
fn every_change_of_a_protected_record_is_answered_by_one_alert() {
    let contexts = server(VerifyMode::None);
    for suite in ["ECC_SM4_CBC_SM3", "ECC_SM4_GCM_SM3"] {
        let (mut server, mut client) = connected(&contexts, suite);
        client.write(b"twenty bytes of data").unwrap();
        let length = client.output().len();
        pass(&mut client, &mut server);
        assert_eq!(read(&mut server).unwrap(), b"twenty bytes of data");
        // One bit of each byte: explicit IV or nonce, data, MAC or tag, padding and its length.
        let mut answers: Vec<String> = (5..length).map(|at| told(&contexts, suite, |record| record[at] ^= 1)).collect();
        // Every value of the padding's length, by the block before it.
        if suite.contains("CBC") {
            answers.extend((1..=255).map(|mask| told(&contexts, suite, |record| record[length - 17] ^= mask)));
            // Whole blocks left out, so that MAC and padding are found elsewhere.
            answers.extend((1..(length - 5) / 16 - 3).map(|blocks| {
                told(&contexts, suite, |record| {
                    record.truncate(length - 16 * blocks);
                    let body = u16::try_from(record.len() - 5).unwrap().to_be_bytes();
                    record[3..5].copy_from_slice(&body);
                })
            }));
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers, ["the peer ended the connection with alert 20 (bad_record_mac)"], "{suite}");
    }
}
