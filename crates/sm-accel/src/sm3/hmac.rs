//! HMAC-SM3 (RFC 2104 with SM3, GB/T 15852.2). The two blocks that depend on the key alone are compressed once.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{BLOCK_LENGTH, DIGEST_LENGTH, Sm3};

/// A code in the making. A clone costs a copy of the state and no compression: keep one that took nothing for each key.
#[derive(Clone)]
pub struct HmacSm3 {
    inner: Sm3,
    /// After the outer block of the key.
    outer: Sm3,
}

impl HmacSm3 {
    /// Any length of key is taken; one longer than a block is hashed first.
    pub fn new(key: &[u8]) -> HmacSm3 {
        HmacSm3::on(Sm3::new(), key)
    }

    /// Over hashers like this new one.
    #[doc(hidden)]
    pub fn on(hasher: Sm3, key: &[u8]) -> HmacSm3 {
        let mut block = [0u8; BLOCK_LENGTH];
        if key.len() > BLOCK_LENGTH {
            let mut long = hasher.clone();
            long.update(key);
            let mut short = long.finalize();
            block.split_at_mut(DIGEST_LENGTH).0.copy_from_slice(&short);
            short.zeroize();
        } else {
            block.split_at_mut(key.len()).0.copy_from_slice(key);
        }
        let (mut inner, mut outer) = (hasher.clone(), hasher);
        block.iter_mut().for_each(|byte| *byte ^= 0x36);
        inner.update(&block);
        block.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
        outer.update(&block);
        block.zeroize();
        HmacSm3 { inner, outer }
    }

    pub fn update(&mut self, data: &[u8]) {
        self.inner.update(data);
    }

    pub fn finalize(self) -> [u8; DIGEST_LENGTH] {
        let HmacSm3 { inner, mut outer } = self;
        let mut digest = inner.finalize();
        outer.update(&digest);
        digest.zeroize();
        outer.finalize()
    }

    /// Whether this is the code, compared in constant time. A shortened code is another code.
    pub fn verify(self, code: &[u8]) -> bool {
        self.finalize().ct_eq(code).into()
    }
}

impl fmt::Debug for HmacSm3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacSm3").finish_non_exhaustive()
    }
}

impl Zeroize for HmacSm3 {
    fn zeroize(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// Its parts erase themselves.
impl ZeroizeOnDrop for HmacSm3 {}
