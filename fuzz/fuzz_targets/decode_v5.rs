//! Feeds arbitrary bytes to `decode_v5`; nothing may panic or take more than linear time.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mqtt_codec::{Encode, ProtocolVersion::V5, decode, decode_connect};

fuzz_target!(|data: &[u8]| {
    let _ = decode_connect(Bytes::copy_from_slice(data));
    if let Ok(packet) = decode(Bytes::copy_from_slice(data), V5) {
        let mut again = BytesMut::new();
        assert!(packet.encode(V5, &mut again).is_ok());
        assert_eq!(decode(again.freeze(), V5), Ok(packet));
    }
});
