//! The S-box as algebra. SM4 inverts in GF(2^8) modulo x^8+x^7+x^6+x^5+x^4+x^2+1 between two equal affine maps; AES inverts modulo
//! x^8+x^4+x^3+x+1. The fields are isomorphic, so an affine map into AES's field, AES's inversion and an affine map back give the
//! S-box of SM4. The maps are those of the isomorphism that takes x to 0x23; the test tries them on all bytes.

/// Matrices are as GFNI has them: row `i`, which gives bit `i` of the product, is byte `7 - i`.
pub(super) const INTO: u64 = 0x4c28_7db9_1a22_505d;
pub(super) const INTO_PLUS: u8 = 0x3e;
pub(super) const BACK: u64 = 0xf3ab_34a9_74a6_b589;
pub(super) const BACK_PLUS: u8 = 0xd3;

/// The matrix that ends the S-box of AES, inverted, and the constant there: what AESENCLAST gives is turned into the bare inverse.
const UNDO_AES: u64 = 0xa449_9225_4a94_2952;
const AES_PLUS: u8 = 0x63;

const fn product(matrix: u64, x: u8) -> u8 {
    let (mut y, mut i) = (0, 0);
    while i < 8 {
        let row = (matrix >> (8 * (7 - i))) as u8;
        y |= (((row & x).count_ones() & 1) as u8) << i;
        i += 1;
    }
    y
}

/// What a map makes of the sixteen values of a half byte: `shift` 0 for the low half, with the constant, or 4 for the high one.
pub(super) type Half = [u8; 16];

pub(super) const INTO_LOW: Half = half(INTO, 0, INTO_PLUS);
pub(super) const INTO_HIGH: Half = half(INTO, 4, 0);
pub(super) const BACK_LOW: Half = half(AES_BACK, 0, product(BACK, AES_ZERO) ^ BACK_PLUS);
pub(super) const BACK_HIGH: Half = half(AES_BACK, 4, 0);
/// The way into the field without what it adds, and out of it.
pub(super) const MOVE_LOW: Half = half(INTO, 0, 0);
pub(super) const OUT_LOW: Half = half(OUT, 0, 0);
pub(super) const OUT_HIGH: Half = half(OUT, 4, 0);
/// As the matrices of these names, after AESENCLAST. What the S-box of AES adds goes one and two bytes up alike, and is gone from the sum.
pub(super) const STAY_LOW: Half =
    half(after(STAY, UNDO_AES), 0, product(STAY, AES_ZERO) ^ product(GO_THREE, AES_ZERO) ^ STAY_PLUS);
pub(super) const STAY_HIGH: Half = half(after(STAY, UNDO_AES), 4, 0);
pub(super) const GO_ONE_AND_TWO_LOW: Half = half(after(GO_ONE_AND_TWO, UNDO_AES), 0, 0);
pub(super) const GO_ONE_AND_TWO_HIGH: Half = half(after(GO_ONE_AND_TWO, UNDO_AES), 4, 0);
pub(super) const GO_THREE_LOW: Half = half(after(GO_THREE, UNDO_AES), 0, 0);
pub(super) const GO_THREE_HIGH: Half = half(after(GO_THREE, UNDO_AES), 4, 0);

const AES_BACK: u64 = after(BACK, UNDO_AES);
const AES_ZERO: u8 = product(UNDO_AES, AES_PLUS);

const fn half(matrix: u64, shift: u32, plus: u8) -> Half {
    let (mut table, mut n) = ([0; 16], 0u8);
    while n < 16 {
        set(&mut table, n, product(matrix, n << shift) ^ plus);
        n += 1;
    }
    table
}

const fn set(table: &mut Half, at: u8, value: u8) {
    let (_, rest) = table.split_at_mut(at as usize);
    if let Some(entry) = rest.first_mut() {
        *entry = value;
    }
}

/// One map after another.
const fn after(second: u64, first: u64) -> u64 {
    let (mut rows, mut i) = (0u64, 0);
    while i < 8 {
        // Row i of the product is the sum of the rows of `first` that row i of `second` names.
        let (mut row, mut k) = (0u8, 0);
        while k < 8 {
            if (second >> (8 * (7 - i) + k)) & 1 == 1 {
                row ^= (first >> (8 * (7 - k))) as u8;
            }
            k += 1;
        }
        rows |= (row as u64) << (8 * (7 - i));
        i += 1;
    }
    rows
}

/// A byte as it is, its low six bits two higher, its high two bits at the bottom.
const SAME: u64 = 0x0102_0408_1020_4080;
const UP: u64 = SAME >> 16;
const DOWN: u64 = SAME << 48;

/// The part that goes back from the field, through L, and into the field again, for words that are kept in the field throughout.
/// L turns by 2, 10, 18 and 24 bits: of each byte one part stays, one part goes one and two bytes up, one part three.
pub(super) const STAY: u64 = after(INTO, after(SAME ^ UP, BACK));
pub(super) const GO_ONE_AND_TWO: u64 = after(INTO, after(UP ^ DOWN, BACK));
pub(super) const GO_THREE: u64 = after(INTO, after(SAME ^ DOWN, BACK));
/// What BACK adds, through L, which turns a word of equal bytes by two bits, and into the field.
pub(super) const STAY_PLUS: u8 = product(INTO, BACK_PLUS.rotate_left(2));
/// The matrix INTO inverted.
pub(super) const OUT: u64 = 0xb3a4_f586_3284_728b;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn times(mut a: u8, mut b: u8, modulus: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 != 0 { modulus } else { 0 };
            b >>= 1;
        }
        product
    }

    fn inverse(a: u8, modulus: u8) -> u8 {
        (0..254).fold(1, |power, _| times(power, a, modulus))
    }

    /// The definition: the matrix has 0xd3, turned right once more in each row, the most significant bit first.
    pub(in crate::sm4) fn s_box(x: u8) -> u8 {
        let map = |x: u8| {
            (0..8).fold(0, |y, i| y | (((0xd3u8.rotate_right(i) & x).count_ones() as u8 & 1) << (7 - i))) ^ 0xd3
        };
        map(inverse(map(x), 0xf5))
    }

    #[test]
    fn the_isomorphism_gives_the_s_box() {
        assert_eq!([s_box(0), s_box(1), s_box(0xef), s_box(0xff)], [0xd6, 0x90, 0x84, 0x48]);
        for x in 0..=255 {
            let y = inverse(product(INTO, x) ^ INTO_PLUS, 0x1b);
            assert_eq!(product(BACK, y) ^ BACK_PLUS, s_box(x), "{x:#x}");
        }
    }

    #[test]
    fn out_undoes_into() {
        assert_eq!((after(OUT, INTO), after(INTO, SAME)), (SAME, INTO));
    }

    #[test]
    fn the_tables_of_halves_are_the_maps() {
        for x in 0..=255u8 {
            let (low, high) = (usize::from(x & 15), usize::from(x >> 4));
            let y = inverse(INTO_LOW[low] ^ INTO_HIGH[high], 0x1b);
            let aes = (0..8).fold(0, |z, i| z | (((0xf1u8.rotate_left(i) & y).count_ones() as u8 & 1) << i)) ^ 0x63;
            let (low, high) = (usize::from(aes & 15), usize::from(aes >> 4));
            assert_eq!(BACK_LOW[low] ^ BACK_HIGH[high], s_box(x), "{x:#x}");
        }
    }
}
