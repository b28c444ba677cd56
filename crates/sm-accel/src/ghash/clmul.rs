//! GHASH with PCLMULQDQ. Products of several blocks with falling powers of the key are added before one reduction.

use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_setr_epi8, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128, _mm_storeu_si128, _mm_xor_si128,
};

use super::POWERS;

/// Blocks to a reduction.
const AT_ONCE: usize = 8;

/// Low, middle and high part of a product that is not reduced.
type Product = [__m128i; 3];

#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
pub(super) fn from_integer(value: u128) -> __m128i {
    _mm_set_epi64x((value >> 64) as i64, value as i64)
}

#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
pub(super) fn to_integer(value: __m128i) -> u128 {
    let mut integer = 0u128;
    // SAFETY: the integer is as long as the vector; no alignment is asked, and x86 puts the low byte first.
    unsafe { _mm_storeu_si128((&raw mut integer).cast(), value) };
    integer
}

/// Adds `a * b` to a product.
#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
fn accumulate(product: &mut Product, a: __m128i, b: __m128i) {
    let [low, middle, high] = product;
    *low = _mm_xor_si128(*low, _mm_clmulepi64_si128::<0x00>(a, b));
    *high = _mm_xor_si128(*high, _mm_clmulepi64_si128::<0x11>(a, b));
    let middles = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    *middle = _mm_xor_si128(*middle, middles);
}

/// The product with x^-128. Twice the low 64 bits are cancelled by a multiple of the modulus and fall away.
#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
pub(super) fn reduce([low, middle, high]: [__m128i; 3]) -> __m128i {
    let low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    let modulus = _mm_set_epi64x(0, 0xc200_0000_0000_0000_u64 as i64);
    let swap = |x: __m128i| _mm_shuffle_epi32::<0b01_00_11_10>(x);
    let low = _mm_xor_si128(swap(low), _mm_clmulepi64_si128::<0x00>(low, modulus));
    let low = _mm_xor_si128(swap(low), _mm_clmulepi64_si128::<0x00>(low, modulus));
    _mm_xor_si128(high, low)
}

#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
pub(super) fn dot(a: __m128i, b: __m128i) -> __m128i {
    let mut product = [_mm_setzero_si128(); 3];
    accumulate(&mut product, a, b);
    reduce(product)
}

/// As many powers as are used here.
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn powers(first: u128, powers: &mut [u128; POWERS]) {
    let key = from_integer(first);
    let mut power = key;
    for place in powers.iter_mut().rev().take(AT_ONCE) {
        *place = to_integer(power);
        power = dot(power, key);
    }
}

#[target_feature(enable = "avx2,pclmulqdq")]
#[inline]
fn load(block: &[u8; 16]) -> __m128i {
    // SAFETY: a block is as long as the vector; no alignment is asked.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    _mm_shuffle_epi8(block, _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
}

/// Takes data as blocks, the last one filled up with zeros.
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn update(powers: &[u128; POWERS], sum: &mut u128, data: &[u8]) {
    let (blocks, rest) = data.as_chunks::<16>();
    let mut y = from_integer(*sum);
    let (groups, single) = blocks.as_chunks::<AT_ONCE>();
    if let Some(powers) = powers.last_chunk::<AT_ONCE>() {
        for group in groups {
            let mut product = [_mm_setzero_si128(); 3];
            for (block, power) in group.iter().zip(powers) {
                accumulate(&mut product, _mm_xor_si128(y, load(block)), from_integer(*power));
                // Only the first block carries the sum so far.
                y = _mm_setzero_si128();
            }
            y = reduce(product);
        }
    }
    let mut product = [_mm_setzero_si128(); 3];
    let last = single.len() + usize::from(!rest.is_empty());
    if last > 0 {
        let mut powers = powers.iter().skip(POWERS - last);
        for (block, power) in single.iter().zip(&mut powers) {
            accumulate(&mut product, _mm_xor_si128(y, load(block)), from_integer(*power));
            y = _mm_setzero_si128();
        }
        for power in powers {
            accumulate(&mut product, _mm_xor_si128(y, from_integer(super::block(rest))), from_integer(*power));
        }
        y = reduce(product);
    }
    *sum = to_integer(y);
}
