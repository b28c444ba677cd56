//! One block after another, where each needs the one before it: CBC encryption, CBC-MAC and the key schedule. What counts is the time
//! from a round to the next, in vectors of 128 bits of which one word is used.

use std::arch::x86_64::{
    __m128i, _mm_aesenclast_si128, _mm_and_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_set1_epi8,
    _mm_set1_epi32, _mm_setr_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_srli_epi16,
    _mm_storeu_si128, _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128,
};

use zeroize::Zeroizing;

use super::field::{
    BACK_HIGH, BACK_LOW, GO_ONE_AND_TWO_HIGH, GO_ONE_AND_TWO_LOW, GO_THREE_HIGH, GO_THREE_LOW, Half, INTO_HIGH,
    INTO_LOW, MOVE_LOW, OUT_HIGH, OUT_LOW, STAY_HIGH, STAY_LOW,
};
use super::{BLOCK_LENGTH, RoundKeys, serial};
use crate::inout::InOut;

/// A word of the cipher each, in the first place.
pub(super) type Words = [__m128i; 4];

#[target_feature(enable = "avx2")]
#[inline]
fn turn(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12))
}

/// The four words of a block, as a vector.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load(block: &[u8; BLOCK_LENGTH]) -> __m128i {
    // SAFETY: a block is as long as the vector; no alignment is asked.
    turn(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn apart(words: __m128i) -> Words {
    [
        words,
        _mm_shuffle_epi32::<0b01_01_01_01>(words),
        _mm_shuffle_epi32::<0b10_10_10_10>(words),
        _mm_shuffle_epi32::<0b11_11_11_11>(words),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn together([a, b, c, d]: Words) -> __m128i {
    _mm_unpacklo_epi64(_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d))
}

/// The inverse of [`load`].
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(words: __m128i) -> [u8; BLOCK_LENGTH] {
    let mut block = [0; BLOCK_LENGTH];
    // SAFETY: a block is as long as the vector; no alignment is asked.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), turn(words)) };
    block
}

/// The words stay in the field of the inversion, so that what comes after it - the way back, the mixing of a word's bits, and the way into
/// the field again - is one map of each byte, and only turning by whole bytes is left. Where it is used there are `into_field`, the same
/// for a key with what that way adds, `out_of_field`, and `serial_round`.
macro_rules! in_field {
    ($features:literal) => {
        /// Whole blocks. `before` is the block of ciphertext before the first, and becomes the last.
        #[target_feature(enable = $features)]
        pub(super) fn cbc_encrypt(keys: &RoundKeys, before: &mut [u8; BLOCK_LENGTH], data: InOut<'_>) {
            let keys = field_keys(keys);
            let mut x = serial::apart(into_field(serial::load(before)));
            let mut last = *before;
            data.map::<BLOCK_LENGTH>(|block| {
                x = chained(&keys, x, block);
                last = serial::store(out_of_field(serial::together(x)));
                last
            });
            *before = last;
        }

        /// Encryption of which only the last block is kept.
        #[target_feature(enable = $features)]
        pub(super) fn cbc_mac(keys: &RoundKeys, mac: &mut [u8; BLOCK_LENGTH], blocks: &[[u8; BLOCK_LENGTH]]) {
            let keys = field_keys(keys);
            let mut x = serial::apart(into_field(serial::load(mac)));
            for block in blocks {
                x = chained(&keys, x, block);
            }
            *mac = serial::store(out_of_field(serial::together(x)));
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn chained(keys: &RoundKeys, mut x: serial::Words, block: &[u8; BLOCK_LENGTH]) -> serial::Words {
            let plain = serial::apart(into_field(serial::load(block)));
            for (word, more) in x.iter_mut().zip(plain) {
                *word = _mm_xor_si128(*word, more);
            }
            let [mut x0, mut x1, mut x2, mut x3] = x;
            for [k0, k1, k2, k3] in keys.as_chunks::<4>().0 {
                x0 = serial_round(x0, x1, x2, x3, *k0);
                x1 = serial_round(x1, x2, x3, x0, *k1);
                x2 = serial_round(x2, x3, x0, x1, *k2);
                x3 = serial_round(x3, x0, x1, x2, *k3);
            }
            [x3, x2, x1, x0]
        }

        /// Round keys in the field, with what the way into it adds.
        #[target_feature(enable = $features)]
        #[inline]
        fn field_keys(keys: &RoundKeys) -> Zeroizing<RoundKeys> {
            let mut moved = Zeroizing::new(*keys);
            for four in moved.as_chunks_mut::<4>().0 {
                let place: *mut __m128i = four.as_mut_ptr().cast();
                // SAFETY: four words are as long as the vector; no alignment is asked.
                unsafe { _mm_storeu_si128(place, key_into_field(_mm_loadu_si128(place))) };
            }
            moved
        }
    };
}
pub(super) use in_field;

/// [`in_field`] with GFNI, where one instruction inverts and maps.
macro_rules! serial_gfni {
    ($features:literal) => {
        in_field!($features);

        #[target_feature(enable = $features)]
        #[inline]
        fn out_of_field(words: __m128i) -> __m128i {
            _mm_gf2p8affine_epi64_epi8::<0>(words, _mm_set1_epi64x(OUT as i64))
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn into_field(words: __m128i) -> __m128i {
            _mm_gf2p8affine_epi64_epi8::<0>(words, _mm_set1_epi64x(INTO as i64))
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn key_into_field(keys: __m128i) -> __m128i {
            _mm_gf2p8affine_epi64_epi8::<{ INTO_PLUS as i32 }>(keys, _mm_set1_epi64x(INTO as i64))
        }

        /// `c` is the newest word, and comes last.
        #[target_feature(enable = $features)]
        #[inline]
        fn serial_round(x: __m128i, a: __m128i, b: __m128i, c: __m128i, key: u32) -> __m128i {
            let known = _mm_xor_si128(_mm_xor_si128(a, b), _mm_set1_epi32(key as i32));
            let sum = _mm_xor_si128(known, c);
            let stay = _mm_gf2p8affineinv_epi64_epi8::<{ STAY_PLUS as i32 }>(sum, _mm_set1_epi64x(STAY as i64));
            let go = _mm_gf2p8affineinv_epi64_epi8::<0>(sum, _mm_set1_epi64x(GO_ONE_AND_TWO as i64));
            let three = _mm_gf2p8affineinv_epi64_epi8::<0>(sum, _mm_set1_epi64x(GO_THREE as i64));
            let one = _mm_shuffle_epi8(go, _mm_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14));
            let two = _mm_shuffle_epi8(go, _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
            let three = _mm_shuffle_epi8(three, _mm_setr_epi8(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
            _mm_xor_si128(_mm_xor_si128(_mm_xor_si128(x, stay), one), _mm_xor_si128(two, three))
        }

        /// The S-box on the four bytes of a word.
        #[target_feature(enable = $features)]
        pub(super) fn tau(word: u32) -> u32 {
            let word = _mm_cvtsi32_si128(word as i32);
            let field = _mm_gf2p8affine_epi64_epi8::<{ INTO_PLUS as i32 }>(word, _mm_set1_epi64x(INTO as i64));
            let s = _mm_gf2p8affineinv_epi64_epi8::<{ BACK_PLUS as i32 }>(field, _mm_set1_epi64x(BACK as i64));
            _mm_cvtsi128_si32(s) as u32
        }
    };
}
pub(super) use serial_gfni;

in_field!("avx2,aes");

#[target_feature(enable = "avx2,aes")]
#[inline]
fn out_of_field(words: __m128i) -> __m128i {
    map(words, &OUT_LOW, &OUT_HIGH)
}

#[target_feature(enable = "avx2,aes")]
#[inline]
fn into_field(words: __m128i) -> __m128i {
    map(words, &MOVE_LOW, &INTO_HIGH)
}

#[target_feature(enable = "avx2,aes")]
#[inline]
fn key_into_field(keys: __m128i) -> __m128i {
    map(keys, &INTO_LOW, &INTO_HIGH)
}

/// `c` is the newest word, and comes last.
#[target_feature(enable = "avx2,aes")]
#[inline]
fn serial_round(x: __m128i, a: __m128i, b: __m128i, c: __m128i, key: u32) -> __m128i {
    let known = _mm_xor_si128(_mm_xor_si128(a, b), _mm_set1_epi32(key as i32));
    let aes = _mm_aesenclast_si128(_mm_xor_si128(known, c), _mm_setzero_si128());
    let (stay, go) = (map(aes, &STAY_LOW, &STAY_HIGH), map(aes, &GO_ONE_AND_TWO_LOW, &GO_ONE_AND_TWO_HIGH));
    let three = map(aes, &GO_THREE_LOW, &GO_THREE_HIGH);
    // AESENCLAST has put the bytes of the first word to 0, 13, 10 and 7.
    let stay = _mm_shuffle_epi8(stay, _mm_setr_epi8(0, 13, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    let one = _mm_shuffle_epi8(go, _mm_setr_epi8(7, 0, 13, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    let two = _mm_shuffle_epi8(go, _mm_setr_epi8(10, 7, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    let three = _mm_shuffle_epi8(three, _mm_setr_epi8(13, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    _mm_xor_si128(_mm_xor_si128(_mm_xor_si128(x, stay), one), _mm_xor_si128(two, three))
}

/// The S-box on every byte, its rows shifted as AES does.
#[target_feature(enable = "avx2,aes")]
#[inline]
fn s_box(bytes: __m128i) -> __m128i {
    map(_mm_aesenclast_si128(map(bytes, &INTO_LOW, &INTO_HIGH), _mm_setzero_si128()), &BACK_LOW, &BACK_HIGH)
}

#[target_feature(enable = "avx2,aes")]
#[inline]
fn map(bytes: __m128i, low: &Half, high: &Half) -> __m128i {
    let half = _mm_set1_epi8(15);
    // SAFETY: a table is sixteen bytes; no alignment is asked.
    let (low, high) = unsafe { (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())) };
    _mm_xor_si128(
        _mm_shuffle_epi8(low, _mm_and_si128(bytes, half)),
        _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16::<4>(bytes), half)),
    )
}

/// The S-box on the four bytes of a word.
#[target_feature(enable = "avx2,aes")]
pub(super) fn tau(word: u32) -> u32 {
    let s = s_box(_mm_cvtsi32_si128(word as i32));
    let order = _mm_setr_epi8(0, 13, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_cvtsi128_si32(_mm_shuffle_epi8(s, order)) as u32
}
