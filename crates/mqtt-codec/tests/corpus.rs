//! The fuzz corpora, replayed: nothing panics, and what is read can be written and read again.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Encode, FrameLen, ProtocolVersion, decode, decode_connect, frame_len};

/// Runs every packet of every file through the decoder; returns how many files there were, packets read and refused.
fn replay(corpus: &str, version: ProtocolVersion) -> (usize, usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
    let (mut files, mut read, mut refused) = (0, 0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        files += 1;
        let mut input = Bytes::from(std::fs::read(entry.unwrap().path()).unwrap());
        let _ = decode_connect(input.clone());
        loop {
            match frame_len(&input, 1 << 20) {
                Ok(FrameLen::Complete(len)) => match decode(input.split_to(len), version) {
                    Ok(packet) => {
                        read += 1;
                        let mut again = BytesMut::new();
                        packet.encode(version, &mut again).unwrap();
                        assert_eq!(decode(again.freeze(), version), Ok(packet));
                    }
                    Err(_) => refused += 1,
                },
                Ok(_) => break,
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
    }
    (files, read, refused)
}

#[test]
fn v3_corpus_is_decoded_or_refused() {
    let (files, read, refused) = replay("decode_v3", ProtocolVersion::V3_1_1);
    assert!(files >= 20 && read >= 14 && refused >= 10, "{files} files, {read} read, {refused} refused");
}

#[test]
fn v5_corpus_is_decoded_or_refused() {
    let (files, read, refused) = replay("decode_v5", ProtocolVersion::V5);
    assert!(files >= 20 && read >= 15 && refused >= 10, "{files} files, {read} read, {refused} refused");
}
