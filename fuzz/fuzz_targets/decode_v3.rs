//! Feeds arbitrary bytes to `decode_v3`; nothing may panic or take more than linear time.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mqtt_codec::{Encode, ProtocolVersion::V3_1_1, decode, decode_connect};

fuzz_target!(|data: &[u8]| {
    let _ = decode_connect(Bytes::copy_from_slice(data));
    if let Ok(packet) = decode(Bytes::copy_from_slice(data), V3_1_1) {
        let mut again = BytesMut::new();
        assert!(packet.encode(V3_1_1, &mut again).is_ok());
        assert_eq!(decode(again.freeze(), V3_1_1), Ok(packet));
    }
});
