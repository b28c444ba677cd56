//! SM3 (GB/T 32905-2016) and HMAC with it (GB/T 15852.2). State that may stem from a key is erased when it is dropped.

mod block;
mod hmac;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes256;
#[cfg(target_arch = "x86_64")]
mod lanes512;
mod many;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cpu::features;
use block::{BLOCK, State};
pub use hmac::HmacSm3;
pub use many::{Lanes, many, many_on};

/// Bytes of a digest.
pub const DIGEST_LENGTH: usize = 32;
/// Bytes of a block, as HMAC needs to know them.
pub const BLOCK_LENGTH: usize = BLOCK;

/// So many blocks at once pay for setting up and erasing the schedules.
#[cfg(target_arch = "x86_64")]
const MANY_BLOCKS: usize = 96;

const INITIAL: State =
    [0x7380_166f, 0x4914_b2b9, 0x1724_42d7, 0xda8a_0600, 0xa96f_30bc, 0x1631_38aa, 0xe38d_ee4d, 0xb0fb_0e4e];

/// A way to compute SM3. All give the same digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust.
    Portable,
    /// The same with BMI1 and BMI2.
    Bmi2,
    /// The same with the schedules of sixteen blocks expanded at once, where there are many.
    Avx512,
}

impl Backend {
    /// Every way, the best first.
    pub const ALL: [Backend; 3] = [Backend::Avx512, Backend::Bmi2, Backend::Portable];

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        let has = features();
        match self {
            Backend::Portable => true,
            Backend::Bmi2 => has.bmi2,
            Backend::Avx512 => has.bmi2 && has.avx2 && has.avx512,
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
            Backend::Bmi2 => "BMI2",
            Backend::Avx512 => "AVX-512 + BMI2",
        }
    }

    fn compress(self, state: &mut State, blocks: &[[u8; BLOCK]]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hasher holds a backend only if the processor has its instructions, `Sm3::with_backend` sees to that.
            Backend::Avx512 if blocks.len() >= MANY_BLOCKS => unsafe {
                let rest = lanes512::compress(state, blocks);
                block::compress_bmi2(state, rest);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hasher holds a backend only if the processor has its instructions, `Sm3::with_backend` sees to that.
            Backend::Avx512 | Backend::Bmi2 => unsafe { block::compress_bmi2(state, blocks) },
            _ => block::compress(state, blocks),
        }
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Sm3 {
    state: State,
    /// The bytes after the last whole block, as many as `length` leaves over.
    buffer: [u8; BLOCK],
    /// Bytes taken. The standard ends at 2^64 bits, which no caller reaches.
    length: u64,
    backend: Backend,
}

impl Sm3 {
    pub fn new() -> Sm3 {
        Sm3::start(Backend::best())
    }

    /// `None` if this machine cannot run it.
    #[doc(hidden)]
    pub fn with_backend(backend: Backend) -> Option<Sm3> {
        backend.is_available().then(|| Sm3::start(backend))
    }

    fn start(backend: Backend) -> Sm3 {
        Sm3 { state: INITIAL, buffer: [0; BLOCK], length: 0, backend }
    }

    pub fn update(&mut self, data: &[u8]) {
        let filled = self.filled();
        self.length = self.length.wrapping_add(data.len() as u64);
        let mut data = data;
        if filled != 0 {
            let room = self.buffer.split_at_mut(filled).1;
            let (now, later) = data.split_at(data.len().min(room.len()));
            let whole = now.len() == room.len();
            room.split_at_mut(now.len()).0.copy_from_slice(now);
            if !whole {
                return;
            }
            self.backend.compress(&mut self.state, std::slice::from_ref(&self.buffer));
            data = later;
        }
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        if !blocks.is_empty() {
            self.backend.compress(&mut self.state, blocks);
        }
        self.buffer.split_at_mut(rest.len()).0.copy_from_slice(rest);
    }

    pub fn finalize(mut self) -> [u8; DIGEST_LENGTH] {
        self.finish()
    }

    /// The digest; what is left is of no use but to be dropped or [`reset`](Sm3::reset).
    fn finish(&mut self) -> [u8; DIGEST_LENGTH] {
        let filled = self.filled();
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        let free = self.buffer.split_at_mut(filled).1;
        free.fill(0);
        free.first_mut().into_iter().for_each(|mark| *mark = 0x80);
        if filled >= BLOCK - bits.len() {
            self.backend.compress(&mut self.state, std::slice::from_ref(&self.buffer));
            self.buffer = [0; BLOCK];
        }
        self.buffer.split_at_mut(BLOCK - bits.len()).1.copy_from_slice(&bits);
        self.backend.compress(&mut self.state, std::slice::from_ref(&self.buffer));
        to_bytes(&self.state)
    }

    /// As new, on the same backend. Erases what was taken.
    pub fn reset(&mut self) {
        self.zeroize();
        self.state = INITIAL;
    }

    fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }
}

fn to_bytes(state: &State) -> [u8; DIGEST_LENGTH] {
    let mut digest = [0; DIGEST_LENGTH];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

impl Default for Sm3 {
    fn default() -> Sm3 {
        Sm3::new()
    }
}

impl fmt::Debug for Sm3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sm3").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Zeroize for Sm3 {
    fn zeroize(&mut self) {
        self.state = [0; 8];
        self.buffer = [0; BLOCK];
        self.length = 0;
        zeroize::optimization_barrier(self);
    }
}

impl Drop for Sm3 {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Sm3 {}

/// The digest of one message.
pub fn digest(message: &[u8]) -> [u8; DIGEST_LENGTH] {
    let mut hasher = Sm3::new();
    hasher.update(message);
    hasher.finalize()
}
