//! SM4 with GFNI on vectors of 256 bits: eight blocks a set.

use std::arch::x86_64::{
    __m128i, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_gf2p8affine_epi64_epi8, _mm_gf2p8affineinv_epi64_epi8,
    _mm_loadu_si128, _mm_set1_epi32, _mm_set1_epi64x, _mm_setr_epi8, _mm_shuffle_epi8, _mm_storeu_si128, _mm_xor_si128,
    _mm256_gf2p8affine_epi64_epi8, _mm256_gf2p8affineinv_epi64_epi8, _mm256_set1_epi64x,
};

use zeroize::{Zeroize, Zeroizing};

use super::field::{BACK, BACK_PLUS, GO_ONE_AND_TWO, GO_THREE, INTO, INTO_PLUS, OUT, STAY, STAY_PLUS};
use super::serial::{self, in_field, serial_gfni};
use super::vector256::{Vector, WIDTH, add, exchange, load, mix, offsets, splat, store, turn, turned, xor, zero};
use super::wide::{by_sets, modes, padded};
use super::{BLOCK_LENGTH, RoundKeys};
use crate::inout::InOut;

/// More state than registers: moving some of it costs less than waiting for the S-box.
const SETS: usize = 4;

modes!("avx2,gfni");
serial_gfni!("avx2,gfni");

#[target_feature(enable = "avx2,gfni")]
#[inline]
fn round(x: Vector, a: Vector, b: Vector, c: Vector, key: Vector) -> Vector {
    let sum = xor(xor(a, b), xor(c, key));
    let into = _mm256_set1_epi64x(INTO as i64);
    let back = _mm256_set1_epi64x(BACK as i64);
    let field = _mm256_gf2p8affine_epi64_epi8::<{ INTO_PLUS as i32 }>(sum, into);
    let s = _mm256_gf2p8affineinv_epi64_epi8::<{ BACK_PLUS as i32 }>(field, back);
    mix(x, s, turned::<8>(s), turned::<16>(s), turned::<24>(s))
}
