//! Public key encryption (GB/T 32918.4).

use subtle::{ConstantTimeEq, ConstantTimeGreater};
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::backend::on_best;
use super::ciphertext::Ciphertext;
use super::key::{Point, SecretKey, base_multiple, coordinates_of_product, random_scalar};
use super::scalar::Scalar;
use crate::sm3::{DIGEST_LENGTH, Sm3};

/// Encrypts one byte or more for the holder of a key.
pub fn encrypt(key: &Point, plaintext: &[u8]) -> Result<Ciphertext, Error> {
    loop {
        if let Some(ciphertext) = encrypt_with(key, plaintext, &*random_scalar()?)? {
            return Ok(ciphertext);
        }
    }
}

/// `None` if this secret number gives a key stream of zeros and must not be used.
pub(crate) fn encrypt_with(key: &Point, plaintext: &[u8], nonce: &Scalar) -> Result<Option<Ciphertext>, Error> {
    if plaintext.is_empty() || u32::try_from(plaintext.len()).is_err() {
        return Err(Error::Plaintext);
    }
    let point = Point(on_best!(base_multiple, nonce));
    let shared = Shared::new(nonce, key);
    let stream = shared.stream(plaintext.len());
    if all_zero(&stream) {
        return Ok(None);
    }
    let cipher = plaintext.iter().zip(stream.iter()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some(Ciphertext { point, hash: shared.hash(plaintext), cipher }))
}

impl SecretKey {
    /// The plaintext. Every wrong ciphertext is refused with one error, after the same work.
    pub fn decrypt(&self, ciphertext: &Ciphertext) -> Result<Zeroizing<Vec<u8>>, Error> {
        let shared = Shared::new(&self.scalar, &ciphertext.point);
        let mut plaintext = shared.stream(ciphertext.cipher.len());
        let zero = all_zero(&plaintext);
        plaintext.iter_mut().zip(&ciphertext.cipher).for_each(|(byte, cipher)| *byte ^= cipher);
        let same: bool = shared.hash(&plaintext).ct_eq(&ciphertext.hash).into();
        if same & !zero & !plaintext.is_empty() { Ok(plaintext) } else { Err(Error::Decryption) }
    }
}

/// Whether there is nothing but zeros, read to the end.
fn all_zero(bytes: &[u8]) -> bool {
    let any = bytes.iter().fold(0, |any, byte| any | byte);
    (!any.ct_gt(&0)).into()
}

/// The coordinates of the point that both sides compute.
struct Shared([u8; 64]);

impl Shared {
    fn new(scalar: &Scalar, point: &Point) -> Shared {
        let (mut x, mut y) = on_best!(coordinates_of_product, scalar, &point.0);
        let mut both = [0; 64];
        let (left, right) = both.split_at_mut(32);
        left.copy_from_slice(&x);
        right.copy_from_slice(&y);
        x.zeroize();
        y.zeroize();
        Shared(both)
    }

    fn stream(&self, length: usize) -> Zeroizing<Vec<u8>> {
        let mut stream = Zeroizing::new(vec![0; length]);
        derive_key(&[&self.0], &mut stream);
        stream
    }

    /// C3.
    fn hash(&self, plaintext: &[u8]) -> [u8; 32] {
        let (x, y) = self.0.split_at(32);
        let mut hasher = Sm3::new();
        hasher.update(x);
        hasher.update(plaintext);
        hasher.update(y);
        hasher.finalize()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The key derivation function of GB/T 32918.3, 5.4.3: digests of the secret and a count from 1, end to end. No more than 2^32 - 1 digests.
pub(crate) fn derive_key(secret: &[&[u8]], out: &mut [u8]) {
    let mut hasher = Sm3::new();
    secret.iter().for_each(|part| hasher.update(part));
    for (count, chunk) in (1u32..).zip(out.chunks_mut(DIGEST_LENGTH)) {
        let mut hasher = hasher.clone();
        hasher.update(&count.to_be_bytes());
        let mut digest = hasher.finalize();
        chunk.iter_mut().zip(&digest).for_each(|(byte, from)| *byte = *from);
        digest.zeroize();
    }
}
