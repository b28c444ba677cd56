//! Vectors of 256 bits as the macros of `wide` want them.

use std::arch::x86_64::*;

use super::wide::transpose;

pub(super) type Vector = __m256i;
/// Bytes of a vector.
pub(super) const WIDTH: usize = 32;

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn exchange(set: [Vector; 4]) -> [Vector; 4] {
    transpose!(set, _mm256_unpacklo_epi32, _mm256_unpackhi_epi32, _mm256_unpacklo_epi64, _mm256_unpackhi_epi64)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn turn(block: Vector) -> Vector {
    _mm256_shuffle_epi8(
        block,
        _mm256_broadcastsi128_si256(_mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12)),
    )
}

/// Word `k` of lane `l` is block `2k + l`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn offsets() -> Vector {
    _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn zero() -> Vector {
    _mm256_setzero_si256()
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn splat(word: u32) -> Vector {
    _mm256_set1_epi32(word as i32)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn xor(a: Vector, b: Vector) -> Vector {
    _mm256_xor_si256(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

/// # Safety
///
/// WIDTH bytes can be read.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn load(from: *const u8) -> Vector {
    // SAFETY: as the caller promises; no alignment is asked.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// # Safety
///
/// WIDTH bytes can be written.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn store(to: *mut u8, vector: Vector) {
    // SAFETY: as the caller promises; no alignment is asked.
    unsafe { _mm256_storeu_si256(to.cast(), vector) }
}

/// Every word turned left by 8, 16 or 24 bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn turned<const BITS: usize>(words: Vector) -> Vector {
    let order = match BITS {
        8 => _mm_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14),
        16 => _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13),
        _ => _mm_setr_epi8(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12),
    };
    _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(order))
}

/// Adds L of `s` to `x`, given `s` turned by 8, 16 and 24 bits: 2, 10 and 18 are those and two more.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn mix(x: Vector, s: Vector, s8: Vector, s16: Vector, s24: Vector) -> Vector {
    let inner = xor(xor(s, s8), s16);
    let turned = xor(_mm256_slli_epi32::<2>(inner), _mm256_srli_epi32::<30>(inner));
    xor(xor(x, xor(s, s24)), turned)
}
