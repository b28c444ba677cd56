//! From received bytes to whole packets. An idle connection holds no read buffer: reading goes through one scratch buffer a thread.

use super::{Close, Io};
use bytes::{Buf, BytesMut};
use mqtt_codec::{DecodeError, FrameLen, frame_len};
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Whether to go on with the next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// Keep what follows for later: the peer takes its answers too slowly, or the state changes with this packet.
    Stop,
}

/// What arrived and is not a whole packet yet, or not handled yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    pending: BytesMut,
    /// Bytes of it that are whole packets which [`skim`](Self::skim) left.
    skimmed: usize,
}

impl Input {
    /// Reads once and hands every whole packet to `each`. `Ready(Ok(false))` is the end of the stream.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut dyn Io,
        max_packet_size: u32,
        each: impl FnMut(&[u8]) -> Result<Flow, Close>,
    ) -> Poll<Result<bool, Close>> {
        let mut buffer = BUFFER.take();
        buffer.resize(SCRATCH, 0);
        let mut read = ReadBuf::new(&mut buffer);
        let result = match Pin::new(io).poll_read(cx, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(Close::from(error))),
            Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(())) => Poll::Ready(self.process(read.filled(), max_packet_size, each).map(|()| true)),
        };
        BUFFER.set(buffer);
        let open = ready!(result)?;
        Poll::Ready(Ok(open))
    }

    /// Reads once and handles nothing yet. `Ready(Ok(false))` is the end of the stream, or that `most` bytes are kept: then nothing is
    /// read. One read may exceed that by as much.
    pub fn poll_keep(&mut self, cx: &mut Context<'_>, io: &mut dyn Io, most: usize) -> Poll<Result<bool, Close>> {
        if self.pending.len() >= most {
            return Poll::Ready(Ok(false));
        }
        let mut buffer = BUFFER.take();
        buffer.resize(SCRATCH, 0);
        let mut read = ReadBuf::new(buffer.get_mut(..most.min(SCRATCH)).unwrap_or_default());
        let result = Pin::new(io).poll_read(cx, &mut read).map_ok(|()| {
            self.pending.extend_from_slice(read.filled());
            !read.filled().is_empty()
        });
        BUFFER.set(buffer);
        result.map_err(Close::from)
    }

    /// Takes whole packets that `wanted` chooses out of what is kept and hands them to `each`; the others stay, in their order. `true` if
    /// there were any.
    pub fn skim(
        &mut self,
        max_packet_size: u32,
        wanted: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&[u8]) -> Result<(), Close>,
    ) -> Result<bool, Close> {
        let mut found = false;
        let mut rest = self.pending.split_off(self.skimmed);
        // What is malformed is found when its turn comes.
        while let Ok(FrameLen::Complete(len)) = frame_len(&rest, max_packet_size) {
            let frame = rest.split_to(len);
            if wanted(&frame) {
                found = true;
                each(&frame)?;
            } else {
                // Without a copy while nothing was taken out.
                self.pending.unsplit(frame);
            }
        }
        self.skimmed = self.pending.len();
        self.pending.unsplit(rest);
        Ok(found)
    }

    /// Hands over whole packets that an earlier [`Flow::Stop`] left behind.
    pub fn resume(
        &mut self,
        max_packet_size: u32,
        each: impl FnMut(&[u8]) -> Result<Flow, Close>,
    ) -> Result<(), Close> {
        self.process(&[], max_packet_size, each)
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether neither a begun packet nor a whole one waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn process(
        &mut self,
        data: &[u8],
        max_packet_size: u32,
        mut each: impl FnMut(&[u8]) -> Result<Flow, Close>,
    ) -> Result<(), Close> {
        // [MQTT-6.0.0-2]: packets are found wherever reads or frames are cut.
        let mut rest = data;
        if self.process_kept(max_packet_size, &mut each)? == Flow::Stop {
            self.pending.extend_from_slice(rest);
            return Ok(());
        }
        while !self.pending.is_empty() {
            let wanted = match frame_len(&self.pending, max_packet_size)? {
                FrameLen::Complete(len) => {
                    if each(&self.pending.split_to(len))? == Flow::Stop {
                        self.pending.extend_from_slice(rest);
                        return Ok(());
                    }
                    continue;
                }
                FrameLen::Partial { total } => total - self.pending.len(),
                FrameLen::NeedMore => 1,
            };
            if rest.is_empty() {
                return Ok(());
            }
            let (taken, left) = rest.split_at(wanted.min(rest.len()));
            self.pending.extend_from_slice(taken);
            rest = left;
        }
        // Nothing is pending: give the memory back, and take packets straight from what was read.
        self.pending = BytesMut::new();
        while let FrameLen::Complete(len) = frame_len(rest, max_packet_size)? {
            let (frame, left) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
            rest = left;
            if each(frame)? == Flow::Stop {
                break;
            }
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Hands over the whole packets that are kept.
    fn process_kept(
        &mut self,
        max_packet_size: u32,
        each: &mut impl FnMut(&[u8]) -> Result<Flow, Close>,
    ) -> Result<Flow, Close> {
        let mut flow = Flow::Continue;
        let mut rest = &*self.pending;
        while flow == Flow::Continue
            && let FrameLen::Complete(len) = frame_len(rest, max_packet_size)?
        {
            let (frame, left) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
            rest = left;
            flow = each(frame)?;
        }
        let handled = self.pending.len() - rest.len();
        self.pending.advance(handled);
        self.skimmed = self.skimmed.saturating_sub(handled);
        Ok(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &[u8] = &[0xc0, 0];
    const PUBLISH: &[u8] = &[0x30, 7, 0, 1, b't', b'd', b'a', b't', b'a'];

    fn feed(input: &mut Input, data: &[u8]) -> Result<Vec<Vec<u8>>, Close> {
        let mut frames = Vec::new();
        input.process(data, 1024, |frame| {
            frames.push(frame.to_vec());
            Ok(Flow::Continue)
        })?;
        Ok(frames)
    }

    #[test]
    fn finds_packets_however_they_are_cut() {
        let stream = [PING, PUBLISH, PING, PUBLISH, PUBLISH].concat();
        for size in 1..=stream.len() {
            let mut input = Input::default();
            let frames: Vec<_> = stream.chunks(size).flat_map(|chunk| feed(&mut input, chunk).unwrap()).collect();
            assert_eq!(frames, [PING, PUBLISH, PING, PUBLISH, PUBLISH], "chunks of {size}");
            assert!(input.is_empty());
            assert_eq!(input.pending.capacity(), 0);
        }
    }

    #[test]
    fn a_stop_keeps_the_rest_for_later() {
        let mut input = Input::default();
        let mut seen = 0;
        let stream = [PUBLISH, PING, PING, &PUBLISH[..3]].concat();
        let stop = |_: &[u8]| {
            seen += 1;
            Ok(Flow::Stop)
        };
        input.process(&stream, 1024, stop).unwrap();
        assert_eq!(seen, 1);
        assert_eq!(feed(&mut input, &[]).unwrap(), [PING, PING]);
        assert_eq!(feed(&mut input, &PUBLISH[3..]).unwrap(), [PUBLISH]);
    }

    #[test]
    fn acknowledgements_are_taken_out_of_what_is_kept_and_the_rest_stays_in_its_order() {
        const ACK: &[u8] = &[0x40, 2, 0, 1];
        let is_ack = |frame: &[u8]| frame[0] == 0x40;
        let stream = [PUBLISH, ACK, ACK, PING, PUBLISH, ACK, PUBLISH].concat();
        for cut in 0..=stream.len() {
            let mut input = Input::default();
            let mut acks = 0;
            for part in [&stream[..cut], &stream[cut..]] {
                input.pending.extend_from_slice(part);
                let before = acks;
                let found = input.skim(1024, is_ack, |frame| {
                    assert_eq!(frame, ACK);
                    acks += 1;
                    Ok(())
                });
                assert_eq!(found.unwrap(), acks > before);
            }
            assert_eq!(acks, 3);
            assert_eq!(feed(&mut input, ACK).unwrap(), [PUBLISH, PING, PUBLISH, PUBLISH, ACK], "cut at {cut}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_malformed_is_left_for_its_turn() {
        let mut input = Input::default();
        input.pending.extend_from_slice(&[PUBLISH, &[0x40, 0xff, 0xff, 0xff, 0xff]].concat());
        assert!(input.skim(1024, |_| true, |_| Ok(())).is_ok());
        assert!(feed(&mut input, &[]).is_err());
    }

    #[test]
    fn an_announced_length_costs_no_memory_until_its_bytes_arrive() {
        let mut input = Input::default();
        input.process(&[0x30, 0xff, 0xff, 0xff, 0x7f], u32::MAX, |_| Ok(Flow::Continue)).unwrap();
        assert!(input.pending.capacity() < 1024);
    }

    #[test]
    fn refuses_an_oversized_packet_at_its_header() {
        let mut input = Input::default();
        assert!(matches!(
            feed(&mut input, &[0x30, 0x80, 0x10]),
            Err(Close::Malformed(DecodeError::PacketTooLarge { .. }))
        ));
    }
}
