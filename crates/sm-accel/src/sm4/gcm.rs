//! Galois/counter mode (SP 800-38D, GB/T 36624), at once or in pieces.
//!
//! ```text
//!  start(nonce) ─▶ aad* ─▶ (encrypt | decrypt)* ─▶ finish or verify
//! ```

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::stream::{Carry, Stream};
use super::{BLOCK_LENGTH, Backend, Block, Error, Key};
use crate::ghash::{self, HashKey, to_bytes};
use crate::inout::InOut;

/// Bytes of a whole tag.
pub const TAG_LENGTH: usize = 16;
/// Bytes of data under one nonce: 2^32 - 2 blocks.
pub const MAX_DATA: u64 = (1 << 36) - 32;
/// Bytes of associated data: 2^64 - 1 bits.
const MAX_AAD: u64 = (1 << 61) - 1;
/// What is encrypted before it is hashed: it stays in the first cache.
const PIECE: usize = 4096;

/// A key with what is derived of it. Erased when dropped.
#[derive(Clone)]
pub struct Gcm {
    key: Key,
    hash: HashKey,
}

impl Gcm {
    pub fn new(key: Key) -> Gcm {
        let hash = match key.backend() {
            Backend::Portable => ghash::Backend::Portable,
            Backend::GfniAvx512 if ghash::Backend::Vpclmul512.is_available() => ghash::Backend::Vpclmul512,
            _ => ghash::Backend::Clmul,
        };
        Gcm::with_hash(key, hash)
    }

    /// With this GHASH; if this machine cannot run it, with the portable one.
    #[doc(hidden)]
    pub fn with_hash(key: Key, backend: ghash::Backend) -> Gcm {
        let mut zeros = [0; BLOCK_LENGTH];
        key.encrypt_block(&mut zeros);
        let hash = HashKey::new(&zeros, backend);
        zeros.zeroize();
        Gcm { key, hash }
    }

    /// Encrypts and gives the tag. A pair of key and nonce is never used twice.
    pub fn seal(&self, nonce: &[u8], aad: &[u8], data: InOut<'_>) -> Result<[u8; TAG_LENGTH], Error> {
        let mut message = self.start(nonce)?;
        self.aad(&mut message, aad)?;
        self.encrypt(&mut message, data)?;
        Ok(self.finish(message))
    }

    /// Decrypts, if the tag is right. Else the output is zeros. A tag of 12 to 16 bytes is taken; protocols say which length is right.
    pub fn open(&self, nonce: &[u8], aad: &[u8], data: InOut<'_>, tag: &[u8]) -> Result<(), Error> {
        let mut data = data;
        let right = self.start(nonce).and_then(|mut message| {
            self.aad(&mut message, aad)?;
            self.decrypt(&mut message, data.reborrow())?;
            self.verify(message, tag)
        });
        if right.is_err() {
            data.erase();
        }
        right
    }

    /// Begins a message. Twelve bytes of nonce are the rule; others are hashed. An empty one is refused.
    pub fn start(&self, nonce: &[u8]) -> Result<Message, Error> {
        let mut counter = [0; BLOCK_LENGTH];
        match nonce.len() {
            0 => return Err(Error::Nonce),
            12 => {
                let (start, count) = counter.split_at_mut(12);
                start.copy_from_slice(nonce);
                count.copy_from_slice(&1u32.to_be_bytes());
            }
            length => {
                let mut sum = 0;
                self.hash.update(&mut sum, nonce);
                self.hash.update(&mut sum, &lengths(0, length as u64));
                counter = to_bytes(sum);
            }
        }
        let mut stream = Stream::new(&counter, Carry::Word);
        let mask = stream.next_block(&self.key);
        Ok(Message { stream, mask, sum: 0, partial: [0; BLOCK_LENGTH], aad: 0, data: 0 })
    }

    /// Takes associated data, before any other.
    pub fn aad(&self, message: &mut Message, aad: &[u8]) -> Result<(), Error> {
        if message.data > 0 {
            return Err(Error::Order);
        }
        let total =
            message.aad.checked_add(aad.len() as u64).filter(|total| *total <= MAX_AAD).ok_or(Error::TooLong)?;
        self.absorb(message, message.aad, aad);
        message.aad = total;
        Ok(())
    }

    pub fn encrypt(&self, message: &mut Message, data: InOut<'_>) -> Result<(), Error> {
        self.begin_data(message, data.len())?;
        let mut rest = data;
        while !rest.is_empty() {
            let (mut now, later) = rest.split_at(message.piece());
            message.stream.apply(&self.key, now.reborrow());
            let length = now.len();
            // SAFETY: the stream was added to all of it.
            self.absorb(message, message.data, unsafe { now.written() });
            message.data += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// What comes out is not to be used before [`Gcm::verify`] has said that it is right.
    pub fn decrypt(&self, message: &mut Message, data: InOut<'_>) -> Result<(), Error> {
        self.begin_data(message, data.len())?;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(message.piece());
            let length = now.len();
            self.absorb(message, message.data, now.input());
            message.stream.apply(&self.key, now);
            message.data += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// The tag.
    pub fn finish(&self, message: Message) -> [u8; TAG_LENGTH] {
        let mut message = message;
        let taken = if message.data > 0 { message.data } else { message.aad };
        self.pad(&mut message, taken);
        self.hash.update(&mut message.sum, &lengths(message.aad, message.data));
        (u128::from_ne_bytes(to_bytes(message.sum)) ^ u128::from_ne_bytes(message.mask)).to_ne_bytes()
    }

    /// Whether this is the tag, compared in constant time. A tag of 12 to 16 bytes is taken.
    pub fn verify(&self, message: Message, tag: &[u8]) -> Result<(), Error> {
        let expected = self.finish(message);
        if !(12..=TAG_LENGTH).contains(&tag.len()) {
            return Err(Error::Tag);
        }
        let right: bool = expected.split_at(tag.len()).0.ct_eq(tag).into();
        if right { Ok(()) } else { Err(Error::Tag) }
    }

    fn begin_data(&self, message: &mut Message, more: usize) -> Result<(), Error> {
        message.data.checked_add(more as u64).filter(|total| *total <= MAX_DATA).ok_or(Error::TooLong)?;
        if message.data == 0 && more > 0 {
            self.pad(message, message.aad);
        }
        Ok(())
    }

    /// Hashes what follows `taken` bytes of the same kind; what makes no whole block waits.
    fn absorb(&self, message: &mut Message, taken: u64, bytes: &[u8]) {
        let filled = (taken % BLOCK_LENGTH as u64) as usize;
        let mut bytes = bytes;
        if filled > 0 {
            let room = message.partial.split_at_mut(filled).1;
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            let whole = now.len() == room.len();
            room.split_at_mut(now.len()).0.copy_from_slice(now);
            if !whole {
                return;
            }
            self.hash.update(&mut message.sum, &message.partial);
            bytes = later;
        }
        let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_LENGTH);
        self.hash.update(&mut message.sum, blocks);
        message.partial.split_at_mut(rest.len()).0.copy_from_slice(rest);
    }

    /// Hashes what waits, with zeros after it.
    fn pad(&self, message: &mut Message, taken: u64) {
        let filled = (taken % BLOCK_LENGTH as u64) as usize;
        self.hash.update(&mut message.sum, message.partial.split_at(filled).0);
    }
}

/// A message in the making. Erased when dropped.
#[derive(Clone)]
pub struct Message {
    stream: Stream,
    /// Added to the hash to give the tag.
    mask: Block,
    sum: u128,
    /// What was taken of a block that is not whole, first of associated data and then of ciphertext.
    partial: Block,
    /// Bytes of either kind so far.
    aad: u64,
    data: u64,
}

impl Message {
    /// How much to encrypt before it is hashed, so that the next begins with a whole block and no stock.
    fn piece(&self) -> usize {
        PIECE + self.stream.stock()
    }
}

/// The last block that is hashed: both lengths in bits.
fn lengths(aad: u64, data: u64) -> Block {
    (u128::from(aad << 3) << 64 | u128::from(data << 3)).to_be_bytes()
}

impl Drop for Message {
    fn drop(&mut self) {
        self.mask.zeroize();
        self.sum.zeroize();
        self.partial.zeroize();
    }
}

impl ZeroizeOnDrop for Message {}

impl fmt::Debug for Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gcm").field("key", &self.key).field("hash", &self.hash.backend()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("aad", &self.aad).field("data", &self.data).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_serves_no_more_than_2_to_the_32_less_2_blocks() {
        let gcm = Gcm::new(Key::new(&[7; 16]));
        let mut message = gcm.start(&[1; 12]).unwrap();
        message.data = MAX_DATA - 16;
        let mut data = [0; 17];
        assert_eq!(gcm.encrypt(&mut message, data.as_mut_slice().into()), Err(Error::TooLong));
        assert_eq!(gcm.decrypt(&mut message, data.as_mut_slice().into()), Err(Error::TooLong));
        assert_eq!(data, [0; 17]);
        assert_eq!(gcm.encrypt(&mut message, data[..16].as_mut().into()), Ok(()));
        assert_eq!(gcm.encrypt(&mut message, data[..1].as_mut().into()), Err(Error::TooLong));
        let mut message = gcm.start(&[1; 12]).unwrap();
        message.aad = MAX_AAD;
        assert_eq!(gcm.aad(&mut message, b"a"), Err(Error::TooLong));
    }
}
