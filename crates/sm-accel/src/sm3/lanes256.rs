//! Eight lanes, with AVX2.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_setr_epi8, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi32,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srl_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use zeroize::Zeroize;

use super::block::{self, BLOCK, State};
use super::lanes::{lanes, steps};

type Vector = __m256i;
pub(super) const LANES: usize = 8;

lanes!("avx2");

/// Word by word, those of all blocks, the most significant byte first.
#[target_feature(enable = "avx2")]
#[inline]
fn load_words([a, b, c, d, e, f, g, h]: [&[u8; BLOCK]; LANES]) -> [Vector; 16] {
    let [w0, w1, w2, w3, w4, w5, w6, w7] = half::<0>([a, b, c, d], [e, f, g, h]);
    let [w8, w9, w10, w11, w12, w13, w14, w15] = half::<1>([a, b, c, d], [e, f, g, h]);
    [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15]
}

/// Eight words of eight blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn half<const HALF: usize>(first: [&[u8; BLOCK]; 4], second: [&[u8; BLOCK]; 4]) -> [Vector; 8] {
    let [a0, a1, a2, a3] = four_rows::<HALF>(first);
    let [b0, b1, b2, b3] = four_rows::<HALF>(second);
    [
        _mm256_permute2x128_si256::<0x20>(a0, b0),
        _mm256_permute2x128_si256::<0x20>(a1, b1),
        _mm256_permute2x128_si256::<0x20>(a2, b2),
        _mm256_permute2x128_si256::<0x20>(a3, b3),
        _mm256_permute2x128_si256::<0x31>(a0, b0),
        _mm256_permute2x128_si256::<0x31>(a1, b1),
        _mm256_permute2x128_si256::<0x31>(a2, b2),
        _mm256_permute2x128_si256::<0x31>(a3, b3),
    ]
}

/// Lane `l` of vector `k` holds word `4l + k` of the half of each of four blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn four_rows<const HALF: usize>([a, b, c, d]: [&[u8; BLOCK]; 4]) -> [Vector; 4] {
    let (a, b) = (load_half::<HALF>(a), load_half::<HALF>(b));
    let (c, d) = (load_half::<HALF>(c), load_half::<HALF>(d));
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ef, gh) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ef, gh),
        _mm256_unpackhi_epi64(ef, gh),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_half<const HALF: usize>(block: &[u8; BLOCK]) -> Vector {
    const { assert!(HALF < 2) };
    // SAFETY: HALF is 0 or 1, and half a block is as long as the vector; no alignment is asked.
    let half = unsafe { _mm256_loadu_si256(block.as_ptr().add(HALF * BLOCK / 2).cast()) };
    let order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    _mm256_shuffle_epi8(half, _mm256_broadcastsi128_si256(order))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(words: &[u32; LANES]) -> Vector {
    // SAFETY: the words are as long as the vector; no alignment is asked.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(place: &mut [u32; LANES], words: Vector) {
    // SAFETY: the place is as long as the vector; no alignment is asked.
    unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), words) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn splat(word: u32) -> Vector {
    _mm256_set1_epi32(word as i32)
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm256_xor_si256(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn rotate<const BITS: i32>(words: Vector) -> Vector {
    // The other count is 32 less BITS, which a parameter cannot be computed to.
    let right = _mm_cvtsi32_si128(32 - BITS);
    _mm256_or_si256(_mm256_slli_epi32::<BITS>(words), _mm256_srl_epi32(words, right))
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    xor(xor(a, b), c)
}

#[target_feature(enable = "avx2")]
#[inline]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_or_si256(_mm256_and_si256(a, _mm256_or_si256(b, c)), _mm256_and_si256(b, c))
}

#[target_feature(enable = "avx2")]
#[inline]
fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_or_si256(_mm256_and_si256(a, b), _mm256_andnot_si256(a, c))
}
