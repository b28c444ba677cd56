//! Integers of 256 bits as four words, the lowest first: carries, bytes, and a wall against the optimiser for masks made of secrets.

/// The sum with a carry in and out.
#[inline(always)]
pub(crate) const fn adc(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(carry);
    (sum, (first | second) as u64)
}

/// The difference with a borrow in and out.
#[inline(always)]
pub(crate) const fn sbb(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(borrow);
    (difference, (first | second) as u64)
}

/// `t + a * b + carry`, as its low word and the rest; it cannot overflow 128 bits.
#[inline(always)]
pub(crate) const fn mac(t: u64, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let wide = t as u128 + a as u128 * b as u128 + carry as u128;
    (wide as u64, (wide >> 64) as u64)
}

/// The value itself, of which the compiler is told nothing: a mask that passed here is not turned into a branch.
#[inline(always)]
pub(crate) fn barrier(value: u64) -> u64 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut value = value;
        // SAFETY: no instruction at all; the value stays in its register.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
        value
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::hint::black_box(value)
}

/// All ones if the two are equal, else zero.
#[inline(always)]
pub(crate) fn equal_mask(a: u64, b: u64) -> u64 {
    let differ = a ^ b;
    barrier(((differ | differ.wrapping_neg()) >> 63).wrapping_sub(1))
}

/// An integer from its bytes, the highest first.
pub(crate) const fn from_be_bytes(bytes: &[u8; 32]) -> [u64; 4] {
    let ([a, b, c, d], _) = bytes.as_chunks::<8>() else { return [0; 4] };
    [u64::from_be_bytes(*d), u64::from_be_bytes(*c), u64::from_be_bytes(*b), u64::from_be_bytes(*a)]
}

/// The bytes of an integer, the highest first.
pub(crate) const fn to_be_bytes([a, b, c, d]: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (chunks, _) = bytes.as_chunks_mut::<8>();
    if let [w, x, y, z] = chunks {
        *w = d.to_be_bytes();
        *x = c.to_be_bytes();
        *y = b.to_be_bytes();
        *z = a.to_be_bytes();
    }
    bytes
}
