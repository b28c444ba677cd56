//! Secret numbers of signatures: HMAC-SM3 of fresh random bytes from the system, the digest to be signed and a count, under a key made
//! from the private key.
//!
//! Hedged as in RFC 6979, 3.6: with good random bytes the numbers are unpredictable even to one who knows everything but the key, and if
//! the bytes should ever repeat, as after a machine was cloned, different messages still have unrelated numbers.

use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::scalar::Scalar;
use crate::sm3::HmacSm3;

/// The source of one private key. Erased when it is dropped.
pub(crate) struct Nonces(HmacSm3);

impl Nonces {
    pub(crate) fn new(secret: &[u8; 32]) -> Nonces {
        let mut derive = HmacSm3::new(secret);
        derive.update(b"SM2 signature nonces");
        let mut key = derive.finalize();
        let source = HmacSm3::new(&key);
        key.zeroize();
        Nonces(source)
    }

    /// Uniform from 1 to n - 1. Each call takes random bytes of its own; `attempt` tells apart the calls for one signature even if those
    /// repeated.
    pub(crate) fn next(&self, digest: &[u8; 32], attempt: u32) -> Result<Zeroizing<Scalar>, Error> {
        let mut redraw = 0u32;
        loop {
            let mut entropy = Zeroizing::new([0; 32]);
            getrandom::fill(entropy.as_mut()).map_err(|_| Error::Random)?;
            let nonce = self.derive(&entropy, digest, attempt, redraw);
            if let Some(nonce) = nonce {
                return Ok(nonce);
            }
            redraw = redraw.wrapping_add(1);
        }
    }

    /// `None` if what came out is 0 or not below n, once in 2^32.
    fn derive(&self, entropy: &[u8; 32], digest: &[u8; 32], attempt: u32, redraw: u32) -> Option<Zeroizing<Scalar>> {
        let mut source = self.0.clone();
        source.update(entropy);
        source.update(digest);
        source.update(&attempt.to_be_bytes());
        source.update(&redraw.to_be_bytes());
        let bytes = Zeroizing::new(source.finalize());
        Scalar::decode(&bytes).map(Zeroizing::new).filter(|nonce| !nonce.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_by_key_entropy_digest_and_count() {
        let nonces = Nonces::new(&[7; 32]);
        let base = nonces.derive(&[1; 32], &[2; 32], 0, 0).unwrap();
        assert_eq!(*base, *nonces.derive(&[1; 32], &[2; 32], 0, 0).unwrap());
        for other in [
            nonces.derive(&[3; 32], &[2; 32], 0, 0),
            nonces.derive(&[1; 32], &[3; 32], 0, 0),
            nonces.derive(&[1; 32], &[2; 32], 1, 0),
            nonces.derive(&[1; 32], &[2; 32], 0, 1),
            Nonces::new(&[8; 32]).derive(&[1; 32], &[2; 32], 0, 0),
        ] {
            assert_ne!(*base, *other.unwrap());
        }
    }

    #[test]
    fn a_digest_signed_twice_has_two_nonces() {
        let nonces = Nonces::new(&[7; 32]);
        assert_ne!(*nonces.next(&[2; 32], 0).unwrap(), *nonces.next(&[2; 32], 0).unwrap());
    }
}
