//! SM4 with AES-NI and AVX2: eight blocks a set. AESENCLAST inverts in the field of AES; the maps before and after it are looked up by
//! half bytes, in registers.

use std::arch::x86_64::{
    __m128i, _mm_aesenclast_si128, _mm_loadu_si128, _mm_setr_epi8, _mm_setzero_si128, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_set_m128i, _mm256_set1_epi8,
    _mm256_shuffle_epi8, _mm256_srli_epi16,
};

use zeroize::Zeroize;

use super::field::{BACK_HIGH, BACK_LOW, Half, INTO_HIGH, INTO_LOW};
use super::vector256::{Vector, WIDTH, add, exchange, load, mix, offsets, splat, store, turn, xor, zero};
use super::wide::{by_sets, modes, padded};
use super::{BLOCK_LENGTH, RoundKeys};
use crate::inout::InOut;

/// More state than registers: moving some of it costs less than waiting for the S-box.
const SETS: usize = 4;

pub(super) use super::serial::{cbc_encrypt, cbc_mac, tau};

modes!("avx2,aes");

#[target_feature(enable = "avx2,aes")]
#[inline]
fn round(x: Vector, a: Vector, b: Vector, c: Vector, key: Vector) -> Vector {
    let field = map(xor(xor(a, b), xor(c, key)), &INTO_LOW, &INTO_HIGH);
    let none = _mm_setzero_si128();
    let low = _mm_aesenclast_si128(_mm256_castsi256_si128(field), none);
    let high = _mm_aesenclast_si128(_mm256_extracti128_si256::<1>(field), none);
    let s = map(_mm256_set_m128i(high, low), &BACK_LOW, &BACK_HIGH);
    // AESENCLAST has shifted the rows as well: bytes go back to where they were, and round their words at once.
    let place = |order: __m128i| _mm256_shuffle_epi8(s, _mm256_broadcastsi128_si256(order));
    let s0 = place(_mm_setr_epi8(0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3));
    let s8 = place(_mm_setr_epi8(7, 0, 13, 10, 11, 4, 1, 14, 15, 8, 5, 2, 3, 12, 9, 6));
    let s16 = place(_mm_setr_epi8(10, 7, 0, 13, 14, 11, 4, 1, 2, 15, 8, 5, 6, 3, 12, 9));
    let s24 = place(_mm_setr_epi8(13, 10, 7, 0, 1, 14, 11, 4, 5, 2, 15, 8, 9, 6, 3, 12));
    mix(x, s0, s8, s16, s24)
}

/// What two tables make of the halves of every byte.
#[target_feature(enable = "avx2,aes")]
#[inline]
fn map(bytes: Vector, low: &Half, high: &Half) -> Vector {
    let half = _mm256_set1_epi8(15);
    // SAFETY: a table is sixteen bytes; no alignment is asked.
    let (low, high) = unsafe { (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())) };
    xor(
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low), _mm256_and_si256(bytes, half)),
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half)),
    )
}
