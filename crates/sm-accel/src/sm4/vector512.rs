//! Vectors of 512 bits as the macros of `wide` want them.

use std::arch::x86_64::*;

use super::wide::transpose;

pub(super) type Vector = __m512i;
/// Bytes of a vector.
pub(super) const WIDTH: usize = 64;

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn exchange(set: [Vector; 4]) -> [Vector; 4] {
    transpose!(set, _mm512_unpacklo_epi32, _mm512_unpackhi_epi32, _mm512_unpacklo_epi64, _mm512_unpackhi_epi64)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn turn(block: Vector) -> Vector {
    _mm512_shuffle_epi8(
        block,
        _mm512_broadcast_i32x4(_mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12)),
    )
}

/// Word `k` of lane `l` is block `4k + l`.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn offsets() -> Vector {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn zero() -> Vector {
    _mm512_setzero_si512()
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn splat(word: u32) -> Vector {
    _mm512_set1_epi32(word as i32)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn xor(a: Vector, b: Vector) -> Vector {
    _mm512_xor_si512(a, b)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

/// # Safety
///
/// WIDTH bytes can be read.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn load(from: *const u8) -> Vector {
    // SAFETY: as the caller promises; no alignment is asked.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// # Safety
///
/// WIDTH bytes can be written.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn store(to: *mut u8, vector: Vector) {
    // SAFETY: as the caller promises; no alignment is asked.
    unsafe { _mm512_storeu_si512(to.cast(), vector) }
}
