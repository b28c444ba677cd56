//! Integers modulo n, the order of the base point (GB/T 32918.5). One product per signature: plain Rust is fast enough, for every processor.

use zeroize::Zeroize;

use super::words::{adc, barrier, from_be_bytes, mac, sbb, to_be_bytes};

/// n, lowest word first.
pub(crate) const N: [u64; 4] =
    [0x53bb_f409_39d5_4123, 0x7203_df6b_21c6_052b, 0xffff_ffff_ffff_ffff, 0xffff_fffe_ffff_ffff];

/// -1/n mod 2^64.
const QUOTIENT: u64 = 0x327f_9e88_7235_0975;

/// R^2 mod n with R = 2^256.
const R2: [u64; 4] = [0x9011_92af_7c11_4f20, 0x3464_504a_de6f_a2fa, 0x620f_c84c_3aff_e0d4, 0x1eb5_e412_a22b_3d3b];

/// n - 2, by digits of four bits, the highest first.
const N_MINUS_2: [u8; 32] = to_be_bytes([N[0] - 2, N[1], N[2], N[3]]);

/// An integer less than n, lowest word first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Zeroize)]
pub(crate) struct Scalar(pub(crate) [u64; 4]);

impl std::fmt::Debug for Scalar {
    /// Most are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scalar(..)")
    }
}

impl Scalar {
    pub(crate) const ONE: Scalar = Scalar([1, 0, 0, 0]);

    /// The integer that 32 bytes, the highest first, say; `None` from n up.
    pub(crate) fn decode(bytes: &[u8; 32]) -> Option<Scalar> {
        let words = from_be_bytes(bytes);
        let borrow = words.iter().zip(&N).fold(0, |borrow, (&a, &n)| sbb(a, n, borrow).1);
        (barrier(borrow) == 1).then_some(Scalar(words))
    }

    /// The same of any 32 bytes, modulo n.
    pub(crate) fn reduce(bytes: &[u8; 32]) -> Scalar {
        less_n(from_be_bytes(bytes), 0)
    }

    pub(crate) fn encode(&self) -> [u8; 32] {
        to_be_bytes(self.0)
    }

    /// Constant in time; the answer is the caller's to branch on.
    pub(crate) fn is_zero(&self) -> bool {
        let [a, b, c, d] = self.0;
        barrier(a | b | c | d) == 0
    }

    pub(crate) fn add(&self, other: &Scalar) -> Scalar {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        let (a, carry) = adc(a, e, 0);
        let (b, carry) = adc(b, f, carry);
        let (c, carry) = adc(c, g, carry);
        let (d, carry) = adc(d, h, carry);
        less_n([a, b, c, d], carry)
    }

    pub(crate) fn sub(&self, other: &Scalar) -> Scalar {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        let (a, borrow) = sbb(a, e, 0);
        let (b, borrow) = sbb(b, f, borrow);
        let (c, borrow) = sbb(c, g, borrow);
        let (d, borrow) = sbb(d, h, borrow);
        let mask = barrier(0u64.wrapping_sub(borrow));
        let (a, carry) = adc(a, N[0] & mask, 0);
        let (b, carry) = adc(b, N[1] & mask, carry);
        let (c, carry) = adc(c, N[2] & mask, carry);
        let (d, _) = adc(d, N[3] & mask, carry);
        Scalar([a, b, c, d])
    }

    pub(crate) fn mul(&self, other: &Scalar) -> Scalar {
        Scalar(montgomery(&montgomery(&self.0, &other.0), &R2))
    }

    /// 1/self, or 0 for 0, as self^(n - 2): the digits of the exponent are public, so its table may be indexed by them.
    pub(crate) fn invert(&self) -> Scalar {
        let one = montgomery(&[1, 0, 0, 0], &R2);
        let base = montgomery(&self.0, &R2);
        let mut powers = [one; 16];
        let mut power = one;
        for slot in powers.iter_mut().skip(1) {
            power = montgomery(&power, &base);
            *slot = power;
        }
        let mut found = one;
        for byte in N_MINUS_2 {
            for digit in [byte >> 4, byte & 15] {
                for _ in 0..4 {
                    found = montgomery(&found, &found);
                }
                found = montgomery(&found, powers.get(usize::from(digit)).unwrap_or(&one));
            }
        }
        powers.zeroize();
        Scalar(montgomery(&found, &[1, 0, 0, 0]))
    }
}

/// Takes n once from the value with that carry above it, if that leaves no less than zero.
fn less_n([a, b, c, d]: [u64; 4], carry: u64) -> Scalar {
    let (w, borrow) = sbb(a, N[0], 0);
    let (x, borrow) = sbb(b, N[1], borrow);
    let (y, borrow) = sbb(c, N[2], borrow);
    let (z, borrow) = sbb(d, N[3], borrow);
    let (_, borrow) = sbb(carry, 0, borrow);
    let keep = barrier(0u64.wrapping_sub(borrow));
    Scalar([w ^ (keep & (w ^ a)), x ^ (keep & (x ^ b)), y ^ (keep & (y ^ c)), z ^ (keep & (z ^ d))])
}

/// `a * b / R mod n` for one factor less than n and the other less than R.
fn montgomery(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    let [a0, a1, a2, a3] = *a;
    let mut t = [0u64; 5];
    for &word in b {
        let [t0, t1, t2, t3, t4] = t;
        let (t0, c) = mac(t0, a0, word, 0);
        let (t1, c) = mac(t1, a1, word, c);
        let (t2, c) = mac(t2, a2, word, c);
        let (t3, c) = mac(t3, a3, word, c);
        let (t4, t5) = adc(t4, c, 0);
        let m = t0.wrapping_mul(QUOTIENT);
        let (_, c) = mac(t0, m, N[0], 0);
        let (t1, c) = mac(t1, m, N[1], c);
        let (t2, c) = mac(t2, m, N[2], c);
        let (t3, c) = mac(t3, m, N[3], c);
        let (t4, c) = adc(t4, c, 0);
        t = [t1, t2, t3, t4, t5 + c];
    }
    let [t0, t1, t2, t3, carry] = t;
    less_n([t0, t1, t2, t3], carry).0
}
