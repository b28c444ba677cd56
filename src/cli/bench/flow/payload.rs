//! What a measured message says about itself: whose it is, which in the row, and when it was sent.

use std::time::Instant;

/// Bytes that a payload begins with.
pub(in crate::cli::bench) const STAMP_LEN: usize = 28;

/// Tells our payloads from those of others.
const MAGIC: [u8; 4] = *b"SMQb";

/// The head of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The process that sent it: its clock is no other's.
    pub run: u32,
    pub publisher: u32,
    /// Counts a publisher's messages from 0.
    pub sequence: u64,
    /// Nanoseconds on the run's clock.
    pub nanos: u64,
}

impl Stamp {
    pub fn to_bytes(self) -> [u8; STAMP_LEN] {
        let mut bytes = [0; STAMP_LEN];
        let fields = [
            &MAGIC[..],
            &self.run.to_be_bytes(),
            &self.publisher.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.nanos.to_be_bytes(),
        ];
        let mut rest = &mut bytes[..];
        for field in fields {
            // The fields are as long as the array, so that the split never fails.
            if let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(field.len()) {
                head.copy_from_slice(field);
                rest = tail;
            }
        }
        bytes
    }

    /// The stamp of a payload; `None` if it is not one of ours.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (publisher, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (nanos, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Stamp {
            run: u32::from_be_bytes(*run),
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            nanos: u64::from_be_bytes(*nanos),
        })
    }
}

/// The monotonic clock of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the clock was started.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { run: 1, publisher: u32::MAX, sequence: 1 << 40, nanos: u64::MAX };
        let bytes = stamp.to_bytes();
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        assert_eq!(Stamp::read(&bytes[..STAMP_LEN - 1]), None);
        assert_eq!(Stamp::read(&[b'x'; 256]), None);
    }
}
