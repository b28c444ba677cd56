//! SM4 (GB/T 32907-2016) and its modes, on the widest vectors there are. Keys and key streams are erased when they are dropped.
//!
//! A key is expanded once and cloned into what uses it. Data are [`InOut`]: in place or from one buffer to another.

mod cbc;
mod ccm;
mod ctr;
mod field;
pub mod gcm;
mod portable;
mod stream;

#[cfg(target_arch = "x86_64")]
mod aesni;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
#[cfg(target_arch = "x86_64")]
mod serial;
#[cfg(target_arch = "x86_64")]
mod vector256;
#[cfg(target_arch = "x86_64")]
mod vector512;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cpu::features;
use crate::inout::InOut;
pub use cbc::Cbc;
pub use ccm::{Ccm, Tag};
pub use ctr::Ctr;
pub use gcm::Gcm;

/// Bytes of a block.
pub const BLOCK_LENGTH: usize = 16;
/// Bytes of a key.
pub const KEY_LENGTH: usize = 16;

type Block = [u8; BLOCK_LENGTH];
type RoundKeys = [u32; 32];

/// A way to compute SM4. All give the same results, in time that does not depend on keys and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust on planes of bits.
    Portable,
    /// The inversion of AES-NI on vectors of 256 bits.
    AesNiAvx2,
    /// GFNI on vectors of 256 bits.
    GfniAvx2,
    /// GFNI on vectors of 512 bits.
    GfniAvx512,
}

impl Backend {
    /// Every way, the best first.
    pub const ALL: [Backend; 4] = [Backend::GfniAvx512, Backend::GfniAvx2, Backend::AesNiAvx2, Backend::Portable];

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        let has = features();
        match self {
            Backend::Portable => true,
            Backend::AesNiAvx2 => has.avx2 && has.aes,
            Backend::GfniAvx2 => has.avx2 && has.gfni,
            Backend::GfniAvx512 => has.avx2 && has.avx512 && has.gfni,
        }
    }

    /// The ways this machine can run, the best first.
    pub fn available() -> impl Iterator<Item = Backend> {
        Backend::ALL.into_iter().filter(|way| way.is_available())
    }

    /// What is used unless a caller says otherwise.
    pub fn best() -> Backend {
        Backend::available().next().unwrap_or(Backend::Portable)
    }

    /// As documents and `version` name it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Portable => "portable",
            Backend::AesNiAvx2 => "AES-NI + AVX2",
            Backend::GfniAvx2 => "GFNI + AVX2",
            Backend::GfniAvx512 => "GFNI + AVX-512",
        }
    }
}

/// A key, expanded for both directions. Erased when dropped.
#[derive(Clone)]
pub struct Key {
    encrypt: RoundKeys,
    decrypt: RoundKeys,
    /// Only what this machine can run: [`Key::with_backend`] sees to that.
    backend: Backend,
}

/// Enters the code of a key's backend.
macro_rules! on {
    ($backend:expr, $function:ident($($argument:expr),*)) => {
        match $backend {
            // SAFETY: a key holds a backend only if the processor has its instructions.
            #[cfg(target_arch = "x86_64")]
            Backend::GfniAvx512 => unsafe { gfni512::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Backend::GfniAvx2 => unsafe { gfni256::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Backend::AesNiAvx2 => unsafe { aesni::$function($($argument),*) },
            _ => portable::$function($($argument),*),
        }
    };
}
impl Key {
    pub fn new(key: &[u8; KEY_LENGTH]) -> Key {
        Key::expand(key, Backend::best())
    }

    /// `None` if this machine cannot run it.
    #[doc(hidden)]
    pub fn with_backend(key: &[u8; KEY_LENGTH], backend: Backend) -> Option<Key> {
        backend.is_available().then(|| Key::expand(key, backend))
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The key schedule, 7.3 of the standard.
    fn expand(key: &[u8; KEY_LENGTH], backend: Backend) -> Key {
        const FAMILY: [u32; 4] = [0xa3b1_bac6, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];
        let mut words = [0u32; 4];
        for ((word, bytes), family) in words.iter_mut().zip(key.as_chunks().0).zip(FAMILY) {
            *word = u32::from_be_bytes(*bytes) ^ family;
        }
        let mut encrypt = [0; 32];
        for (at, place) in (0u32..).zip(&mut encrypt) {
            let [a, b, c, d] = words;
            let s = on!(backend, tau(b ^ c ^ d ^ constant(at)));
            let new = a ^ s ^ s.rotate_left(13) ^ s.rotate_left(23);
            *place = new;
            words = [b, c, d, new];
        }
        words.zeroize();
        let mut decrypt = encrypt;
        decrypt.reverse();
        Key { encrypt, decrypt, backend }
    }

    pub fn encrypt_block(&self, block: &mut Block) {
        self.encrypt_blocks(InOut::from(block.as_mut_slice()));
    }

    pub fn decrypt_block(&self, block: &mut Block) {
        self.decrypt_blocks(InOut::from(block.as_mut_slice()));
    }

    /// Every block by itself (ECB). Gives back the bytes after the last whole block, which are neither read nor written.
    pub fn encrypt_blocks<'a>(&self, data: InOut<'a>) -> InOut<'a> {
        let whole = data.len() - data.len() % BLOCK_LENGTH;
        let (blocks, rest) = data.split_at(whole);
        on!(self.backend, ecb(&self.encrypt, blocks));
        rest
    }

    /// The inverse of [`Key::encrypt_blocks`].
    pub fn decrypt_blocks<'a>(&self, data: InOut<'a>) -> InOut<'a> {
        let whole = data.len() - data.len() % BLOCK_LENGTH;
        let (blocks, rest) = data.split_at(whole);
        on!(self.backend, ecb(&self.decrypt, blocks));
        rest
    }

    /// Adds the encryption of a counter block and its successors, by its last word alone, which wraps.
    pub(crate) fn ctr32(&self, counter: &[u32; 4], data: InOut<'_>) {
        on!(self.backend, ctr(&self.encrypt, counter, data));
    }

    /// Whole blocks. `before` becomes the last block of ciphertext.
    pub(crate) fn cbc_decrypt(&self, before: &mut Block, data: InOut<'_>) {
        let first = *before;
        if let Some(last) = data.input().last_chunk() {
            *before = *last;
        }
        on!(self.backend, cbc_decrypt(&self.decrypt, &first, data));
    }

    /// Whole blocks. `before` becomes the last block of ciphertext.
    pub(crate) fn cbc_encrypt(&self, before: &mut Block, data: InOut<'_>) {
        on!(self.backend, cbc_encrypt(&self.encrypt, before, data));
    }

    /// CBC-MAC: encryption of which only the last block is kept.
    pub(crate) fn cbc_mac(&self, mac: &mut Block, blocks: &[Block]) {
        on!(self.backend, cbc_mac(&self.encrypt, mac, blocks));
    }
}

/// CK of round `at`: its bytes are 28 times the round and then 7 more each.
const fn constant(at: u32) -> u32 {
    let first = 28 * at;
    u32::from_be_bytes([first as u8, (first + 7) as u8, (first + 14) as u8, (first + 21) as u8])
}

/// The bytes of a counter.
fn counter_block(words: &[u32; 4]) -> Block {
    let mut block = [0; BLOCK_LENGTH];
    for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    block
}

/// What a mode refuses. Only [`Error::Tag`] can be a peer's doing; the others are mistakes of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message was changed, or key, nonce or associated data are others than the sender's, or the tag has a length that is not taken.
    #[error("the tag does not belong to the message")]
    Tag,
    #[error("the nonce has a length that the mode does not take")]
    Nonce,
    #[error("more data than one nonce may serve")]
    TooLong,
    #[error("associated data after the data itself")]
    Order,
    #[error("the data are not whole blocks")]
    PartialBlock,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Zeroize for Key {
    fn zeroize(&mut self) {
        self.encrypt.zeroize();
        self.decrypt.zeroize();
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}
