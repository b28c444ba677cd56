//! GHASH with VPCLMULQDQ on vectors of four blocks. Products of up to thirty-two blocks with falling powers of the key are added before
//! one reduction, however many there are: fewer blocks begin at a lower power.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_setr_epi8, _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256,
    _mm512_broadcast_i32x4, _mm512_bslli_epi128, _mm512_bsrli_epi128, _mm512_castsi512_si256, _mm512_clmulepi64_epi128,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_maskz_loadu_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_epi32, _mm512_storeu_si512,
    _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};

use zeroize::Zeroize;

use super::POWERS;
use super::clmul::{dot, from_integer, to_integer};

/// Bytes of a vector.
const WIDTH: usize = 64;
/// Bytes to a reduction.
const AT_ONCE: usize = POWERS * 16;

const XOR3: i32 = 0x96;

/// Low, middle and high parts of four products that are not reduced.
type Products = [__m512i; 3];

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
#[inline]
fn accumulate([low, middle, high]: Products, a: __m512i, b: __m512i) -> Products {
    let one = _mm512_clmulepi64_epi128::<0x01>(a, b);
    let other = _mm512_clmulepi64_epi128::<0x10>(a, b);
    [
        _mm512_xor_si512(low, _mm512_clmulepi64_epi128::<0x00>(a, b)),
        _mm512_ternarylogic_epi64::<XOR3>(middle, one, other),
        _mm512_xor_si512(high, _mm512_clmulepi64_epi128::<0x11>(a, b)),
    ]
}

/// Each product with x^-128, as in `clmul`.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
#[inline]
fn reduce([low, middle, high]: Products) -> __m512i {
    let low = _mm512_xor_si512(low, _mm512_bslli_epi128::<8>(middle));
    let high = _mm512_xor_si512(high, _mm512_bsrli_epi128::<8>(middle));
    let modulus = _mm512_set1_epi64(0xc200_0000_0000_0000_u64 as i64);
    let fold = _mm512_clmulepi64_epi128::<0x00>(low, modulus);
    let low = _mm512_xor_si512(_mm512_shuffle_epi32::<0b01_00_11_10>(low), fold);
    let fold = _mm512_clmulepi64_epi128::<0x00>(low, modulus);
    _mm512_ternarylogic_epi64::<XOR3>(high, _mm512_shuffle_epi32::<0b01_00_11_10>(low), fold)
}

/// The sum of the four.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
#[inline]
fn sum_of(four: __m512i) -> __m128i {
    let two = _mm256_xor_si256(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64::<1>(four));
    _mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two))
}

/// All of them: four by single steps, the others four at a time.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
pub(super) fn powers(first: u128, powers: &mut [u128; POWERS]) {
    let one = from_integer(first);
    let two = dot(one, one);
    let (three, four) = (dot(two, one), dot(two, two));
    let mut vector = [to_integer(four), to_integer(three), to_integer(two), to_integer(one)];
    let step = _mm512_broadcast_i32x4(four);
    for place in powers.as_chunks_mut::<4>().0.iter_mut().rev() {
        *place = vector;
        // SAFETY: four integers are as long as the vector; no alignment is asked.
        unsafe {
            let power = _mm512_loadu_si512(vector.as_ptr().cast());
            let next = reduce(accumulate([_mm512_setzero_si512(); 3], power, step));
            _mm512_storeu_si512(vector.as_mut_ptr().cast(), next);
        }
    }
    vector.zeroize();
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
#[inline]
fn from_last_byte(blocks: __m512i) -> __m512i {
    let order = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

/// Up to WIDTH bytes, zeros after them.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
#[inline]
fn load(bytes: &[u8]) -> __m512i {
    let mask = if bytes.len() >= WIDTH { u64::MAX } else { (1u64 << bytes.len()) - 1 };
    // SAFETY: no byte is read beyond the slice, the mask has no more bits; no alignment is asked.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// Takes data as blocks, the last one filled up with zeros.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,pclmulqdq,vpclmulqdq")]
pub(super) fn update(powers: &[u128; POWERS], sum: &mut u128, data: &[u8]) {
    let mut y = from_integer(*sum);
    let (groups, rest) = data.as_chunks::<AT_ONCE>();
    for group in groups {
        let mut products = [_mm512_setzero_si512(); 3];
        let mut carried = _mm512_zextsi128_si512(y);
        for (blocks, powers) in group.as_chunks::<WIDTH>().0.iter().zip(powers.as_chunks::<4>().0) {
            // SAFETY: four integers are as long as the vector; no alignment is asked.
            let powers = unsafe { _mm512_loadu_si512(powers.as_ptr().cast()) };
            // Only the first block carries the sum so far.
            products = accumulate(products, _mm512_xor_si512(carried, from_last_byte(load(blocks))), powers);
            carried = _mm512_setzero_si512();
        }
        y = sum_of(reduce(products));
    }
    if !rest.is_empty() {
        let mut products = [_mm512_setzero_si512(); 3];
        let mut carried = _mm512_zextsi128_si512(y);
        let mut powers = powers.split_at(POWERS - rest.len().div_ceil(16)).1;
        for blocks in rest.chunks(WIDTH) {
            let (now, later) = powers.split_at(powers.len().min(4));
            let mask = (1u16 << (2 * now.len())).wrapping_sub(1) as u8;
            // SAFETY: no power is read that is not there, the mask has two bits for each; no alignment is asked.
            let factors = unsafe { _mm512_maskz_loadu_epi64(mask, now.as_ptr().cast()) };
            products = accumulate(products, _mm512_xor_si512(carried, from_last_byte(load(blocks))), factors);
            carried = _mm512_setzero_si512();
            powers = later;
        }
        y = sum_of(reduce(products));
    }
    *sum = to_integer(y);
}
