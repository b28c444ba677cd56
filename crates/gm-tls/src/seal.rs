//! Secrets at rest: encrypted and authenticated by AES-256-GCM under a key of the node, and bound to what they belong to.

use std::fmt;

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Why something sealed cannot be opened. Whether key, context or contents are wrong cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key or for another place, or it was changed")]
pub struct Unopened;

/// A key that seals. Wiped when dropped, and never printed. A nonce is drawn for each sealing: a key serves some billions.
pub struct SealKey(Zeroizing<[u8; KEY_BYTES]>);

impl SealKey {
    /// Draws a new one.
    ///
    /// # Errors
    /// The library has no randomness.
    pub fn generate() -> Result<SealKey, ErrorStack> {
        crate::init();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand_bytes(&mut *bytes)?;
        Ok(SealKey(bytes))
    }

    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> SealKey {
        crate::init();
        SealKey(Zeroizing::new(bytes))
    }

    /// For the one place that stores it.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Nonce, ciphertext and tag in one. `context` is not in it, and must be the same when it is opened.
    ///
    /// # Errors
    /// The library has no memory or no randomness.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let (mut nonce, mut tag) = ([0; NONCE_BYTES], [0; TAG_BYTES]);
        rand_bytes(&mut nonce)?;
        let cipher = encrypt_aead(Cipher::aes_256_gcm(), &*self.0, Some(&nonce), context, plain, &mut tag)?;
        Ok([&nonce[..], &cipher, &tag].concat())
    }

    /// What was sealed with this key for this context.
    ///
    /// # Errors
    /// It was not, or it was changed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened)?;
        let (cipher, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Unopened)?;
        let opened = decrypt_aead(Cipher::aes_256_gcm(), &*self.0, Some(nonce), context, cipher, tag);
        opened.map(Zeroizing::new).map_err(|_| {
            let _ = ErrorStack::get();
            Unopened
        })
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_context_open_what_was_not_changed() {
        let key = SealKey::generate().unwrap();
        let sealed = key.seal(b"here", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, key.seal(b"here", b"secret").unwrap());
        let again = SealKey::from_bytes(*key.as_bytes());
        assert_eq!(&**again.open(b"here", &sealed).unwrap(), b"secret");
        assert_eq!(key.open(b"there", &sealed), Err(Unopened));
        assert_eq!(SealKey::generate().unwrap().open(b"here", &sealed), Err(Unopened));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"here", &changed), Err(Unopened), "{at}");
            assert_eq!(key.open(b"here", &sealed[..at]), Err(Unopened), "{at}");
        }
        assert_eq!(format!("{key:?}"), "SealKey(…)");
    }
}
