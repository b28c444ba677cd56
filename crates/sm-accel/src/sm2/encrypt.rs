//! Public key encryption (GB/T 32918.4).

use subtle::{ConstantTimeEq, ConstantTimeGreater};
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::backend::on_best;
use super::ciphertext::Ciphertext;
use super::curve::G;
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

    /// The plaintext of a ciphertext in the ASN.1 of GM/T 0009. What is malformed, or has a point off the curve, is refused with the error
    /// of a wrong ciphertext, after the work of one that holds a premaster secret of TLCP.
    pub fn decrypt_der(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let decoy = Ciphertext { point: Point(G), hash: [0; DIGEST_LENGTH], cipher: vec![0; 48] };
        let ciphertext = Ciphertext::from_der(bytes);
        let plaintext = self.decrypt(ciphertext.as_ref().unwrap_or(&decoy));
        ciphertext.map_err(|_| Error::Decryption).and(plaintext)
    }
}

/// Whether there is nothing but zeros, read to the end.
fn all_zero(bytes: &[u8]) -> bool {
    let any = bytes.iter().fold(0, |any, byte| any | byte);
    (!any.ct_gt(&0)).into()
}

/// The coordinates of the point that both sides compute.
struct Shared(Zeroizing<[u8; 64]>);

impl Shared {
    fn new(scalar: &Scalar, point: &Point) -> Shared {
        let product = Zeroizing::new(on_best!(coordinates_of_product, scalar, &point.0));
        let mut both = Zeroizing::new([0; 64]);
        let (left, right) = both.split_at_mut(32);
        left.copy_from_slice(&product.0);
        right.copy_from_slice(&product.1);
        Shared(both)
    }

    fn stream(&self, length: usize) -> Zeroizing<Vec<u8>> {
        let mut stream = Zeroizing::new(vec![0; length]);
        derive_key(&[self.0.as_slice()], &mut stream);
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
