//! Watches a TLCP client's records once its handshake is over, for those of another one.
//!
//! GB/T 38636-2020 has no HelloRequest and no handshake after the first. The library swallows a second hello and says so with a warning that
//! it does not even send; record types are in the clear, so that the connection can be ended here.

const HEADER_BYTES: usize = 5;
const HANDSHAKE: u8 = 22;

/// Where in the stream of records the library is. It reads whole records, so that the first byte after a handshake begins one.
#[derive(Debug, Default)]
pub(crate) struct Records {
    header: [u8; HEADER_BYTES],
    have: usize,
    /// Bytes of the record's body that are still to come.
    left: usize,
}

impl Records {
    /// Takes note of bytes that the library reads; whether a record of a handshake begins among them.
    pub(crate) fn begin_handshake(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let body = self.left.min(bytes.len());
                self.left -= body;
                bytes = bytes.get(body..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEADER_BYTES {
                let [kind, _, _, high, low] = self.header;
                self.have = 0;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                if kind == HANDSHAKE {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart_however_they_are_cut() {
        let record = |kind: u8, length: u8| [vec![kind, 1, 1, 0, length], vec![22; usize::from(length)]].concat();
        let good = [record(23, 200), record(21, 2), record(23, 0), record(23, 255)].concat();
        let bad = [good.clone(), record(22, 40)].concat();
        for step in [1, 2, 3, 5, 7, 100, 1000] {
            let mut records = Records::default();
            assert!(!good.chunks(step).any(|chunk| records.begin_handshake(chunk)), "{step}");
            let mut records = Records::default();
            assert!(bad.chunks(step).any(|chunk| records.begin_handshake(chunk)), "{step}");
        }
    }
}
