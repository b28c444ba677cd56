//! Digests of several messages at once, for who has them: each takes a lane of the vectors.

use super::{DIGEST_LENGTH, digest};
use crate::cpu::features;

/// How many messages are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    One,
    /// With AVX2.
    Eight,
    /// With AVX-512.
    Sixteen,
}

impl Lanes {
    /// Those this machine can do, the most first.
    pub fn available() -> impl Iterator<Item = Lanes> {
        let has = features();
        [(has.avx2 && has.avx512, Lanes::Sixteen), (has.avx2, Lanes::Eight), (true, Lanes::One)]
            .into_iter()
            .filter_map(|(there, lanes)| there.then_some(lanes))
    }
}

/// The digest of each message, in its place; places without a message are left alone. Messages beside each other that take equally many
/// blocks share vectors, so callers who can order theirs by length should.
pub fn many(messages: &[&[u8]], digests: &mut [[u8; DIGEST_LENGTH]]) {
    many_on(Lanes::available().next().unwrap_or(Lanes::One), messages, digests);
}

/// With so many lanes; if this machine cannot do that, one message after another.
#[doc(hidden)]
pub fn many_on(lanes: Lanes, messages: &[&[u8]], digests: &mut [[u8; DIGEST_LENGTH]]) {
    match lanes {
        #[cfg(target_arch = "x86_64")]
        Lanes::Sixteen if features().avx2 && features().avx512 => vectors::many512(messages, digests),
        #[cfg(target_arch = "x86_64")]
        Lanes::Eight if features().avx2 => vectors::many256(messages, digests),
        _ => digests.iter_mut().zip(messages).for_each(|(place, message)| *place = digest(message)),
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use zeroize::Zeroize;

    use super::super::block::{BLOCK, State};
    use super::super::{DIGEST_LENGTH, INITIAL, digest, lanes256, lanes512, to_bytes};

    /// Fewer messages than this are faster one by one.
    const WORTHWHILE: usize = 3;
    const EMPTY: &[u8; BLOCK] = &[0; BLOCK];

    pub(super) fn many512(messages: &[&[u8]], digests: &mut [[u8; DIGEST_LENGTH]]) {
        // SAFETY: the caller has asked for the instructions.
        in_lanes::<{ lanes512::LANES }>(messages, digests, |states, blocks| unsafe {
            lanes512::compress_each(states, blocks);
        });
    }

    pub(super) fn many256(messages: &[&[u8]], digests: &mut [[u8; DIGEST_LENGTH]]) {
        // SAFETY: the caller has asked for the instructions.
        in_lanes::<{ lanes256::LANES }>(messages, digests, |states, blocks| unsafe {
            lanes256::compress_each(states, blocks);
        });
    }

    /// Blocks with the padding.
    fn blocks(message: &[u8]) -> usize {
        (message.len() + 9).div_ceil(BLOCK)
    }

    fn in_lanes<const LANES: usize>(
        messages: &[&[u8]],
        digests: &mut [[u8; DIGEST_LENGTH]],
        compress: impl Fn(&mut [State; LANES], [&[u8; BLOCK]; LANES]),
    ) {
        let count = messages.len().min(digests.len());
        let (mut messages, mut digests) = (messages.split_at(count).0, digests.split_at_mut(count).0);
        while let Some(first) = messages.first() {
            let alike = messages.iter().take(LANES).take_while(|message| blocks(message) == blocks(first)).count();
            let (now, later) = messages.split_at(alike);
            let (places, later_places) = std::mem::take(&mut digests).split_at_mut(alike);
            if alike < WORTHWHILE {
                places.iter_mut().zip(now).for_each(|(place, message)| *place = digest(message));
            } else {
                together(now, places, &compress);
            }
            (messages, digests) = (later, later_places);
        }
    }

    /// Messages of equally many blocks, at most as many as there are lanes.
    fn together<const LANES: usize>(
        messages: &[&[u8]],
        digests: &mut [[u8; DIGEST_LENGTH]],
        compress: &impl Fn(&mut [State; LANES], [&[u8; BLOCK]; LANES]),
    ) {
        let mut states = [INITIAL; LANES];
        let mut ends = [[[0; BLOCK]; 2]; LANES];
        let total = messages.first().map_or(0, |message| blocks(message));
        for (end, message) in ends.iter_mut().zip(messages) {
            let rest = message.as_chunks::<BLOCK>().1;
            let end = end.as_flattened_mut().split_at_mut((total - message.len() / BLOCK) * BLOCK).0;
            let (text, padding) = end.split_at_mut(rest.len());
            text.copy_from_slice(rest);
            padding.first_mut().into_iter().for_each(|mark| *mark = 0x80);
            let bits = (message.len() as u64).wrapping_mul(8).to_be_bytes();
            padding.last_chunk_mut().into_iter().for_each(|place| *place = bits);
        }
        for at in 0..total {
            let mut blocks = [EMPTY; LANES];
            for (place, (message, end)) in blocks.iter_mut().zip(messages.iter().zip(&ends)) {
                let whole = message.as_chunks::<BLOCK>().0;
                let block = whole.get(at).or_else(|| end.get(at.wrapping_sub(whole.len())));
                *place = block.unwrap_or(EMPTY);
            }
            compress(&mut states, blocks);
        }
        digests.iter_mut().zip(&states).for_each(|(place, state)| *place = to_bytes(state));
        states.zeroize();
        ends.zeroize();
    }
}
