//! GHASH (NIST SP 800-38D) by way of POLYVAL (RFC 8452, appendix A): blocks are read from the last byte, so that bits need no reversal,
//! and what the other reading costs, a factor of x, is put into the key once.

#[cfg(target_arch = "x86_64")]
mod clmul;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vpclmul;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cpu::features;

/// A way to compute GHASH. All give the same results, in time that does not depend on keys and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust, by multiplication of integers with gaps between their bits.
    Portable,
    /// PCLMULQDQ, eight blocks to a reduction.
    Clmul,
    /// VPCLMULQDQ on 512 bits, thirty-two blocks to a reduction.
    Vpclmul512,
}

impl Backend {
    /// Every way, the best first.
    pub const ALL: [Backend; 3] = [Backend::Vpclmul512, Backend::Clmul, Backend::Portable];

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        let has = features();
        match self {
            Backend::Portable => true,
            Backend::Clmul => has.avx2 && has.pclmulqdq,
            Backend::Vpclmul512 => has.avx2 && has.pclmulqdq && has.avx512 && has.vpclmulqdq,
        }
    }

    /// The ways this machine can run, the best first.
    pub fn available() -> impl Iterator<Item = Backend> {
        Backend::ALL.into_iter().filter(|way| way.is_available())
    }

    /// As documents and `version` name it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Portable => "portable",
            Backend::Clmul => "PCLMULQDQ",
            Backend::Vpclmul512 => "VPCLMULQDQ + AVX-512",
        }
    }
}

/// Powers of the key that are kept.
const POWERS: usize = 32;

/// The key, and its powers as far as the backend uses them. Erased when dropped.
#[derive(Clone)]
pub(crate) struct HashKey {
    /// The highest power first, the key itself last.
    powers: [u128; POWERS],
    /// Only what this machine can run.
    backend: Backend,
}

impl HashKey {
    /// `key` is the encryption of the block of zeros. The backend has to be available, else the portable one is taken.
    pub(crate) fn new(key: &[u8; 16], backend: Backend) -> HashKey {
        let backend = if backend.is_available() { backend } else { Backend::Portable };
        let first = times_x(u128::from_be_bytes(*key));
        let mut powers = [0; POWERS];
        match backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: it is available.
            Backend::Vpclmul512 => unsafe { vpclmul::powers(first, &mut powers) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: it is available.
            Backend::Clmul => unsafe { clmul::powers(first, &mut powers) },
            _ => powers[POWERS - 1] = first,
        }
        HashKey { powers, backend }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Takes data as blocks, the last one filled up with zeros.
    pub(crate) fn update(&self, sum: &mut u128, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match self.backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` takes no backend that is not available.
            Backend::Vpclmul512 => unsafe { vpclmul::update(&self.powers, sum, data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Backend::Clmul => unsafe { clmul::update(&self.powers, sum, data) },
            _ => portable::update(self.powers[POWERS - 1], sum, data),
        }
    }
}

impl Drop for HashKey {
    fn drop(&mut self) {
        self.powers.zeroize();
    }
}

impl ZeroizeOnDrop for HashKey {}

/// What POLYVAL reduces by is x^128 + x^127 + x^126 + x^121 + 1.
fn times_x(value: u128) -> u128 {
    let carry = 0u128.wrapping_sub(value >> 127);
    (value << 1) ^ (carry & (1 << 127 | 1 << 126 | 1 << 121 | 1))
}

/// The sum as bytes of GHASH.
pub(crate) fn to_bytes(sum: u128) -> [u8; 16] {
    sum.to_be_bytes()
}

/// Up to sixteen bytes as a block with zeros after them.
fn block(bytes: &[u8]) -> u128 {
    let mut block = [0; 16];
    block.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    u128::from_be_bytes(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The algorithm of the standard, bit by bit (SP 800-38D, 6.3).
    fn by_definition(key: &[u8; 16], data: &[u8]) -> [u8; 16] {
        let key = u128::from_be_bytes(*key);
        let mut y = 0u128;
        for bytes in data.chunks(16) {
            let x = y ^ block(bytes);
            let (mut z, mut v) = (0, key);
            for bit in (0..128).rev() {
                z ^= if x >> bit & 1 == 1 { v } else { 0 };
                v = (v >> 1) ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
            }
            y = z;
        }
        y.to_be_bytes()
    }

    #[test]
    fn every_backend_follows_the_definition_at_every_length() {
        let noise: Vec<u8> = (0..1700u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 21) as u8).collect();
        for key in [[0; 16], [0xff; 16], [1; 16], *noise.first_chunk().unwrap()] {
            for length in (0..130).chain([255, 256, 257, 511, 512, 513, 700, 1024, 1111, 1600]) {
                let data = &noise[7..][..length];
                let expected = by_definition(&key, data);
                for backend in Backend::available() {
                    let hash = HashKey::new(&key, backend);
                    let mut sum = 0;
                    hash.update(&mut sum, data);
                    assert_eq!(to_bytes(sum), expected, "{backend:?}, {length} bytes");
                    let mut sum = 0;
                    let (first, second) = data.split_at(length / 2 / 16 * 16);
                    hash.update(&mut sum, first);
                    hash.update(&mut sum, second);
                    assert_eq!(to_bytes(sum), expected, "{backend:?}, {length} bytes in two");
                }
            }
        }
    }
}
