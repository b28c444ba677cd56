//! SM4 with GFNI on vectors of 512 bits: sixteen blocks a set.

use std::arch::x86_64::{
    __m128i, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_gf2p8affine_epi64_epi8, _mm_gf2p8affineinv_epi64_epi8,
    _mm_loadu_si128, _mm_set1_epi32, _mm_set1_epi64x, _mm_setr_epi8, _mm_shuffle_epi8, _mm_storeu_si128, _mm_xor_si128,
    _mm512_gf2p8affine_epi64_epi8, _mm512_gf2p8affineinv_epi64_epi8, _mm512_rol_epi32, _mm512_set1_epi64,
    _mm512_ternarylogic_epi32,
};

use zeroize::{Zeroize, Zeroizing};

use super::field::{BACK, BACK_PLUS, GO_ONE_AND_TWO, GO_THREE, INTO, INTO_PLUS, OUT, STAY, STAY_PLUS};
use super::serial::{self, in_field, serial_gfni};
use super::vector512::{Vector, WIDTH, add, exchange, load, offsets, splat, store, turn, xor, zero};
use super::wide::{by_sets, modes, padded};
use super::{BLOCK_LENGTH, RoundKeys};
use crate::inout::InOut;

/// Sixteen of the thirty-two registers hold state.
const SETS: usize = 4;

const XOR3: i32 = 0x96;

modes!("avx2,avx512f,avx512bw,avx512vl,gfni");
serial_gfni!("avx2,avx512f,avx512bw,avx512vl,gfni");

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,gfni")]
#[inline]
fn round(x: Vector, a: Vector, b: Vector, c: Vector, key: Vector) -> Vector {
    let sum = xor(_mm512_ternarylogic_epi32::<XOR3>(a, b, c), key);
    let into = _mm512_set1_epi64(INTO as i64);
    let back = _mm512_set1_epi64(BACK as i64);
    let field = _mm512_gf2p8affine_epi64_epi8::<{ INTO_PLUS as i32 }>(sum, into);
    let s = _mm512_gf2p8affineinv_epi64_epi8::<{ BACK_PLUS as i32 }>(field, back);
    let near = _mm512_ternarylogic_epi32::<XOR3>(x, s, _mm512_rol_epi32::<2>(s));
    let far = _mm512_ternarylogic_epi32::<XOR3>(
        _mm512_rol_epi32::<10>(s),
        _mm512_rol_epi32::<18>(s),
        _mm512_rol_epi32::<24>(s),
    );
    xor(near, far)
}
