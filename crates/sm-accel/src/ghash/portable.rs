//! GHASH without carry-less multiplication: integers are multiplied that hold one bit in four, so that carries fall into the gaps.

/// The low half of the carry-less product. Each position sums at most sixteen products, and those of sixteen are the highest, whose
/// carry leaves the word.
fn low_product(a: u64, b: u64) -> u64 {
    const ONE_IN_FOUR: u64 = 0x1111_1111_1111_1111;
    let part = |x: u64, i: u32| x & (ONE_IN_FOUR << i);
    let (a, b) = ([part(a, 0), part(a, 1), part(a, 2), part(a, 3)], [part(b, 0), part(b, 1), part(b, 2), part(b, 3)]);
    let m = u64::wrapping_mul;
    let [a0, a1, a2, a3] = a;
    let [b0, b1, b2, b3] = b;
    part(m(a0, b0) ^ m(a1, b3) ^ m(a2, b2) ^ m(a3, b1), 0)
        | part(m(a0, b1) ^ m(a1, b0) ^ m(a2, b3) ^ m(a3, b2), 1)
        | part(m(a0, b2) ^ m(a1, b1) ^ m(a2, b0) ^ m(a3, b3), 2)
        | part(m(a0, b3) ^ m(a1, b2) ^ m(a2, b1) ^ m(a3, b0), 3)
}

/// The carry-less product. Its high half is the low half of the product of the reversed factors, reversed.
fn product(a: u64, b: u64) -> u128 {
    let high = low_product(a.reverse_bits(), b.reverse_bits()).reverse_bits() >> 1;
    u128::from(high) << 64 | u128::from(low_product(a, b))
}

/// The product with x^-128, reduced.
fn dot(a: u128, b: u128) -> u128 {
    let halves = |x: u128| ((x >> 64) as u64, x as u64);
    let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
    let (low, high) = (product(a0, b0), product(a1, b1));
    let middle = product(a0 ^ a1, b0 ^ b1) ^ low ^ high;
    let (low, high) = (low ^ middle << 64, high ^ middle >> 64);
    // Twice the low 64 bits are cancelled by a multiple of the modulus and fall away.
    let fold = |x: u128| {
        let lowest = x & u128::from(u64::MAX);
        x.rotate_right(64) ^ lowest << 63 ^ lowest << 62 ^ lowest << 57
    };
    high ^ fold(fold(low))
}

pub(super) fn update(key: u128, sum: &mut u128, data: &[u8]) {
    for bytes in data.chunks(16) {
        *sum = dot(*sum ^ super::block(bytes), key);
    }
}
