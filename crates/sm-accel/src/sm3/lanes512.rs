//! Sixteen lanes, with AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_setr_epi8, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_rol_epi32,
    _mm512_set1_epi32, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use zeroize::Zeroize;

use super::block::{
    self, BLOCK, State, all_rounds, chosen_early, constant, four, kept, most, parity, parity_early, round,
};
use super::lanes::{lanes, steps};

type Vector = __m512i;
pub(super) const LANES: usize = 16;

lanes!("avx2,avx512f,avx512bw,avx512vl");

/// Blocks of one message, as many at once as there are lanes. Gives back those that are left over. With their schedules computed beforehand
/// there are operations to spare for shorter ways from round to round.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,bmi1,bmi2")]
pub(super) fn compress<'a>(state: &mut State, blocks: &'a [[u8; BLOCK]]) -> &'a [[u8; BLOCK]] {
    let (groups, rest) = blocks.as_chunks::<LANES>();
    if groups.is_empty() {
        return rest;
    }
    let mut schedule = Schedule::EMPTY;
    for group in groups {
        expand(&mut schedule, group.each_ref());
        for lane in 0..LANES {
            let first = schedule.first.split_at(lane).1.first_chunk();
            let second = schedule.second.split_at(lane).1.first_chunk();
            if let (Some(first), Some(second)) = (first, second) {
                rounds_of_lane(state, first, second);
            }
        }
    }
    schedule.erase();
    rest
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,bmi1,bmi2")]
fn rounds_of_lane(state: &mut State, words: &[u32; FIRST - LANES + 1], pairs: &[u32; SECOND - LANES + 1]) {
    macro_rules! first {
        ($j:expr) => {
            words[$j * LANES]
        };
    }
    macro_rules! second {
        ($j:expr) => {
            pairs[$j * LANES]
        };
    }
    let [_, _, _, _, e, _, _, _] = *state;
    let mut rounds = (*state, e, 0);
    all_rounds!(rounds, first, second, parity_early, chosen_early);
    let (v, _, _) = rounds;
    for (old, new) in state.iter_mut().zip(v) {
        *old ^= new;
    }
}

/// Word by word, those of all blocks, the most significant byte first.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn load_words(blocks: [&[u8; BLOCK]; LANES]) -> [Vector; 16] {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = blocks;
    let [b0, b1, b2, b3] = [
        four_rows([a0, a1, a2, a3]),
        four_rows([a4, a5, a6, a7]),
        four_rows([a8, a9, a10, a11]),
        four_rows([a12, a13, a14, a15]),
    ];
    let [w0, w4, w8, w12] = four_columns([b0[0], b1[0], b2[0], b3[0]]);
    let [w1, w5, w9, w13] = four_columns([b0[1], b1[1], b2[1], b3[1]]);
    let [w2, w6, w10, w14] = four_columns([b0[2], b1[2], b2[2], b3[2]]);
    let [w3, w7, w11, w15] = four_columns([b0[3], b1[3], b2[3], b3[3]]);
    [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15]
}

/// Lane `l` of vector `k` holds word `4l + k` of each of four blocks.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn four_rows([a, b, c, d]: [&[u8; BLOCK]; 4]) -> [Vector; 4] {
    let (a, b, c, d) = (load_block(a), load_block(b), load_block(c), load_block(d));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ef, gh) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ef, gh),
        _mm512_unpackhi_epi64(ef, gh),
    ]
}

/// Rows and columns of four by four lanes of 128 bits exchanged.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn four_columns([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    let (ab, cd) = (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d));
    let (ef, gh) = (_mm512_shuffle_i32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ef, gh),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ef, gh),
    ]
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn load_block(block: &[u8; BLOCK]) -> Vector {
    // SAFETY: a block is as long as the vector; no alignment is asked.
    let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    _mm512_shuffle_epi8(block, _mm512_broadcast_i32x4(order))
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn load(words: &[u32; LANES]) -> Vector {
    // SAFETY: the words are as long as the vector; no alignment is asked.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn store(place: &mut [u32; LANES], words: Vector) {
    // SAFETY: the place is as long as the vector; no alignment is asked.
    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), words) };
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn splat(word: u32) -> Vector {
    _mm512_set1_epi32(word as i32)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm512_xor_si512(a, b)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn rotate<const BITS: i32>(words: Vector) -> Vector {
    _mm512_rol_epi32::<BITS>(words)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xca>(a, b, c)
}
