//! From received bytes to whole packets. An idle connection holds no read buffer: reading goes through one scratch buffer a thread.

use super::{Close, Io};
use bytes::BytesMut;
use mqtt_codec::{DecodeError, FrameLen, frame_len};
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

/// Bytes read from a client that is not let in yet, after which it has to wait; one read may exceed it by as much.
const MAX_KEPT: usize = 4 * 1024;

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

    /// Reads once and handles nothing yet. `Ready(Ok(false))` is the end of the stream, or that no more is kept: then nothing is read.
    pub fn poll_keep(&mut self, cx: &mut Context<'_>, io: &mut dyn Io) -> Poll<Result<bool, Close>> {
        if self.pending.len() >= MAX_KEPT {
            return Poll::Ready(Ok(false));
        }
        let mut buffer = BUFFER.take();
        buffer.resize(SCRATCH, 0);
        let mut read = ReadBuf::new(buffer.get_mut(..MAX_KEPT).unwrap_or_default());
        let result = Pin::new(io).poll_read(cx, &mut read).map_ok(|()| {
            self.pending.extend_from_slice(read.filled());
            !read.filled().is_empty()
        });
        BUFFER.set(buffer);
        result.map_err(Close::from)
    }

    /// Hands over whole packets that an earlier [`Flow::Stop`] left behind.
    pub fn resume(
        &mut self,
        max_packet_size: u32,
        each: impl FnMut(&[u8]) -> Result<Flow, Close>,
    ) -> Result<(), Close> {
        self.process(&[], max_packet_size, each)
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
