//! SM4 in plain Rust, in constant time: sixteen blocks at once as planes of bits, the S-box as a circuit over GF(((2^2)^2)^2).
//!
//! Bit `16p + k` of plane `b` is bit `b` of byte `p` (0 the least significant) of the same word in block `k`.

use std::array;

use crate::inout::InOut;
use crate::sm4::{BLOCK_LENGTH, RoundKeys, counter_block};
use zeroize::Zeroize;

/// Blocks in a plane.
const LANES: usize = 16;
/// Bytes of a pass.
const PASS: usize = LANES * BLOCK_LENGTH;

/// One word of each block.
type Word = [u64; 8];

/// Field elements of four and two bits, most significant plane first.
type Four = [u64; 4];
type Two = [u64; 2];

/// In GF(4) with w^2 = w + 1.
#[inline(always)]
fn times_two([a1, a0]: Two, [b1, b0]: Two) -> Two {
    let (low, high, both) = (a0 & b0, a1 & b1, (a1 ^ a0) & (b1 ^ b0));
    [both ^ low, low ^ high]
}

#[inline(always)]
fn plus(a: Two, b: Two) -> Two {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

#[inline(always)]
fn times_w([a1, a0]: Two) -> Two {
    [a1 ^ a0, a1]
}

#[inline(always)]
fn squared([a1, a0]: Two) -> Two {
    [a1, a1 ^ a0]
}

#[inline(always)]
fn sum_of([a3, a2, a1, a0]: Four, [b3, b2, b1, b0]: Four) -> Four {
    [a3 ^ b3, a2 ^ b2, a1 ^ b1, a0 ^ b0]
}

/// In GF(16), over GF(4) with x^2 = x + w.
#[inline(always)]
fn times_four([a3, a2, a1, a0]: Four, [b3, b2, b1, b0]: Four) -> Four {
    let low = times_two([a1, a0], [b1, b0]);
    let high = times_two([a3, a2], [b3, b2]);
    let both = times_two(plus([a3, a2], [a1, a0]), plus([b3, b2], [b1, b0]));
    let ([c1, c0], [c3, c2]) = (plus(low, times_w(high)), plus(both, low));
    [c3, c2, c1, c0]
}

#[inline(always)]
fn inverse_four([a3, a2, a1, a0]: Four) -> Four {
    let (high, low) = ([a3, a2], [a1, a0]);
    let norm = plus(plus(times_w(squared(high)), times_two(high, low)), squared(low));
    // The inverse in GF(4) is the square.
    let norm = squared(norm);
    let ([c3, c2], [c1, c0]) = (times_two(high, norm), times_two(plus(high, low), norm));
    [c3, c2, c1, c0]
}

/// The S-box on planes: an affine map into the tower, inversion over GF(16) with y^2 = y + 9, an affine map back.
#[inline(always)]
fn s_box([x0, x1, x2, x3, x4, x5, x6, x7]: Word) -> Word {
    let t8 = x0 ^ x6;
    let t9 = x1 ^ x2;
    let t10 = x4 ^ x5;
    let t11 = t8 ^ t9;
    let t12 = x2 ^ x7;
    let t13 = t8 ^ t10;
    let t14 = x1 ^ t10;
    let t15 = x3 ^ t10;
    let t16 = x5 ^ t11;
    let t17 = x4 ^ t11;
    let t18 = t11 ^ t15;
    // Plus 0xe4.
    let low = [t16, !x5, t14, t13];
    let high = [!t18, !t12, !x6, t17];
    let sum = sum_of(low, high);

    // 9 times the square of the high half, which is linear.
    let [h3, h2, h1, h0] = high;
    let scaled = [h0, h1, h1 ^ h3, h0 ^ h1 ^ h2 ^ h3];
    let norm = times_four(low, sum);
    let inverse = inverse_four(sum_of(norm, scaled));
    let [x7, x6, x5, x4] = times_four(high, inverse);
    let [x3, x2, x1, x0] = times_four(sum, inverse);

    let t8 = x1 ^ x3;
    let t9 = x0 ^ x4;
    let t10 = x6 ^ x7;
    let t11 = x0 ^ x2;
    let t12 = x1 ^ x2;
    let t13 = x1 ^ x5;
    let t14 = x5 ^ t8;
    let t15 = x7 ^ t8;
    let t16 = x2 ^ t8;
    let t17 = x6 ^ t9;
    let t18 = x0 ^ t10;
    let t19 = t9 ^ t10;
    let t20 = x4 ^ t12;
    let t21 = t9 ^ t13;
    let t22 = t16 ^ t19;
    // Plus 0xd3.
    [!t11, !t17, t20, t18, !t14, t15, !t21, !t22]
}

/// Bytes of a word apart, in the low halves of four lanes.
#[inline(always)]
fn spread(word: u32) -> u64 {
    let x = u64::from(word);
    let x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    (x | x << 8) & 0x00ff_00ff_00ff_00ff
}

#[inline(always)]
fn gather(x: u64) -> u32 {
    let x = x & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

/// Exchanges rows and columns of every 8 by 8 bits across the eight values. Its own inverse.
#[inline(always)]
fn transpose(planes: &mut Word) {
    let [a, b, c, d, e, f, g, h] = planes;
    let swap = |x: &mut u64, y: &mut u64, shift: u32, mask: u64| {
        let difference = ((*x >> shift) ^ *y) & mask;
        *y ^= difference;
        *x ^= difference << shift;
    };
    const ONE: u64 = 0x5555_5555_5555_5555;
    const TWO: u64 = 0x3333_3333_3333_3333;
    const FOUR: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    swap(a, b, 1, ONE);
    swap(c, d, 1, ONE);
    swap(e, f, 1, ONE);
    swap(g, h, 1, ONE);
    swap(a, c, 2, TWO);
    swap(b, d, 2, TWO);
    swap(e, g, 2, TWO);
    swap(f, h, 2, TWO);
    swap(a, e, 4, FOUR);
    swap(b, f, 4, FOUR);
    swap(c, g, 4, FOUR);
    swap(d, h, 4, FOUR);
}

/// Every bit of a round key in all lanes of its place.
#[inline(always)]
fn broadcast(key: u32) -> Word {
    let key = spread(key);
    array::from_fn(|bit| ((key >> bit) & 0x0001_0001_0001_0001).wrapping_mul(0xffff))
}

/// The linear map L: the word with itself turned by 2, 10, 18 and 24.
#[inline(always)]
fn mix([x0, x1, x2, x3, x4, x5, x6, x7]: Word) -> Word {
    // Turning a word by a byte turns every plane by its lanes.
    let outer = |x: u64| x ^ x.rotate_left(48);
    let inner = |x: u64| x ^ x.rotate_left(16) ^ x.rotate_left(32);
    let wrapped = |x: u64| inner(x).rotate_left(16);
    [
        outer(x0) ^ wrapped(x6),
        outer(x1) ^ wrapped(x7),
        outer(x2) ^ inner(x0),
        outer(x3) ^ inner(x1),
        outer(x4) ^ inner(x2),
        outer(x5) ^ inner(x3),
        outer(x6) ^ inner(x4),
        outer(x7) ^ inner(x5),
    ]
}

#[inline(always)]
fn round(x: &mut Word, a: &Word, b: &Word, c: &Word, key: u32) {
    let key = broadcast(key);
    let [k0, k1, k2, k3, k4, k5, k6, k7] = key;
    macro_rules! sums { ($($k:ident $i:literal),*) => { [$(a[$i] ^ b[$i] ^ c[$i] ^ $k),*] } }
    let mixed = mix(s_box(sums!(k0 0, k1 1, k2 2, k3 3, k4 4, k5 5, k6 6, k7 7)));
    for (plane, more) in x.iter_mut().zip(mixed) {
        *plane ^= more;
    }
}

/// Sixteen blocks.
fn pass(keys: &RoundKeys, blocks: &mut [u8; PASS]) {
    let mut words = [[0u64; 8]; 4];
    let (first, second) = blocks.split_at(PASS / 2);
    let pairs = || first.as_chunks::<BLOCK_LENGTH>().0.iter().zip(second.as_chunks::<BLOCK_LENGTH>().0);
    for (at, (low, high)) in pairs().enumerate() {
        let (low, high) = (low.as_chunks::<4>().0, high.as_chunks::<4>().0);
        for (planes, (low, high)) in words.iter_mut().zip(low.iter().zip(high)) {
            if let Some(plane) = planes.get_mut(at) {
                *plane = spread(u32::from_be_bytes(*low)) | spread(u32::from_be_bytes(*high)) << 8;
            }
        }
    }
    words.iter_mut().for_each(transpose);
    let [mut x0, mut x1, mut x2, mut x3] = words;
    for [k0, k1, k2, k3] in keys.as_chunks::<4>().0 {
        round(&mut x0, &x1, &x2, &x3, *k0);
        round(&mut x1, &x2, &x3, &x0, *k1);
        round(&mut x2, &x3, &x0, &x1, *k2);
        round(&mut x3, &x0, &x1, &x2, *k3);
    }
    let mut words = [x3, x2, x1, x0];
    words.iter_mut().for_each(transpose);
    let (first, second) = blocks.split_at_mut(PASS / 2);
    let pairs = first.as_chunks_mut::<BLOCK_LENGTH>().0.iter_mut().zip(second.as_chunks_mut::<BLOCK_LENGTH>().0);
    for (at, (low, high)) in pairs.enumerate() {
        let (low, high) = (low.as_chunks_mut::<4>().0, high.as_chunks_mut::<4>().0);
        for (planes, (low, high)) in words.iter().zip(low.iter_mut().zip(high)) {
            if let Some(plane) = planes.get(at) {
                *low = gather(*plane).to_be_bytes();
                *high = gather(plane >> 8).to_be_bytes();
            }
        }
    }
}

/// The S-box on the four bytes of a word.
pub(super) fn tau(word: u32) -> u32 {
    let mut planes = [spread(word), 0, 0, 0, 0, 0, 0, 0];
    transpose(&mut planes);
    let mut planes = s_box(planes);
    transpose(&mut planes);
    gather(planes[0])
}

/// Whole blocks. `before` is the block of ciphertext before the first, and becomes the last.
pub(super) fn cbc_encrypt(keys: &RoundKeys, before: &mut [u8; BLOCK_LENGTH], data: InOut<'_>) {
    let mut last = *before;
    data.map::<BLOCK_LENGTH>(|block| {
        last.iter_mut().zip(block).for_each(|(byte, more)| *byte ^= more);
        // One lane of sixteen.
        ecb(keys, InOut::from(last.as_mut_slice()));
        last
    });
    *before = last;
}

/// Encryption of which only the last block is kept.
pub(super) fn cbc_mac(keys: &RoundKeys, mac: &mut [u8; BLOCK_LENGTH], blocks: &[[u8; BLOCK_LENGTH]]) {
    for block in blocks {
        mac.iter_mut().zip(block).for_each(|(byte, more)| *byte ^= more);
        ecb(keys, InOut::from(mac.as_mut_slice()));
    }
}

/// Every whole block by itself.
pub(super) fn ecb(keys: &RoundKeys, data: InOut<'_>) {
    let rest = data.map::<PASS>(|blocks| {
        let mut blocks = *blocks;
        pass(keys, &mut blocks);
        blocks
    });
    if !rest.is_empty() {
        let mut blocks = padded(rest.input());
        pass(keys, &mut blocks);
        rest.put(&blocks);
        blocks.zeroize();
    }
}

/// Adds the encryption of the counter and its successors; the last word counts and wraps.
pub(super) fn ctr(keys: &RoundKeys, counter: &[u32; 4], data: InOut<'_>) {
    let [a, b, c, mut count] = *counter;
    let mut rest = data;
    while !rest.is_empty() {
        let mut stream = [0; PASS];
        for block in stream.as_chunks_mut::<BLOCK_LENGTH>().0 {
            *block = counter_block(&[a, b, c, count]);
            count = count.wrapping_add(1);
        }
        pass(keys, &mut stream);
        let (now, later) = rest.split_at(PASS);
        now.xor(&stream);
        stream.zeroize();
        rest = later;
    }
}

/// Decrypts whole blocks and adds the block of ciphertext before each; `before` is that of the first.
pub(super) fn cbc_decrypt(keys: &RoundKeys, before: &[u8; BLOCK_LENGTH], data: InOut<'_>) {
    let mut before = *before;
    let mut rest = data;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(PASS);
        let cipher = padded(now.input());
        let mut plain = cipher;
        pass(keys, &mut plain);
        for (plain, cipher) in plain.as_chunks_mut::<BLOCK_LENGTH>().0.iter_mut().zip(cipher.as_chunks().0) {
            plain.iter_mut().zip(before).for_each(|(byte, more)| *byte ^= more);
            before = *cipher;
        }
        now.put(&plain);
        plain.zeroize();
        rest = later;
    }
}

fn padded(bytes: &[u8]) -> [u8; PASS] {
    let mut blocks = [0; PASS];
    blocks.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circuit_is_the_s_box_in_every_lane() {
        for x in 0..=255u8 {
            let s = crate::sm4::field::tests::s_box(x);
            let word = u32::from_be_bytes([x, !x, x.rotate_left(3), 7]);
            let [a, _, c, d] = tau(word).to_be_bytes();
            assert_eq!((a, d), (s, crate::sm4::field::tests::s_box(7)), "{x:#x}");
            assert_eq!(c, crate::sm4::field::tests::s_box(x.rotate_left(3)));
        }
    }
}
