//! Counter with CBC-MAC (SP 800-38C, RFC 3610), whole messages only: the first block already holds the length.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::stream::{Carry, Stream};
use super::{BLOCK_LENGTH, Block, Error, Key};
use crate::inout::InOut;

/// A key for messages with tags of one length.
#[derive(Clone)]
pub struct Ccm {
    key: Key,
    tag_length: usize,
}

/// A tag; as many bytes count as the [`Ccm`] was made for.
pub type Tag = [u8; 16];

impl Ccm {
    /// Tags are 4, 6, 8, 10, 12, 14 or 16 bytes long, else [`Error::Tag`]. RFC 8998 uses 16, the suites `CCM_8` use 8.
    pub fn new(key: Key, tag_length: usize) -> Result<Ccm, Error> {
        if !matches!(tag_length, 4 | 6 | 8 | 10 | 12 | 14 | 16) {
            return Err(Error::Tag);
        }
        Ok(Ccm { key, tag_length })
    }

    pub fn tag_length(&self) -> usize {
        self.tag_length
    }

    /// Encrypts and gives the tag, whose bytes after [`Ccm::tag_length`] are zeros. A nonce has 7 to 13 bytes, is never used twice under
    /// the same key, and with 12 of them a message may have 16 MiB less a byte.
    pub fn seal(&self, nonce: &[u8], aad: &[u8], data: InOut<'_>) -> Result<Tag, Error> {
        let (mut stream, mut mac) = self.start(nonce, aad, data.len())?;
        self.absorb(&mut mac, data.input());
        let mask = stream.next_block(&self.key);
        stream.apply(&self.key, data);
        Ok(self.tag(mac, mask))
    }

    /// Decrypts, if the tag is right. Else the output is zeros.
    pub fn open(&self, nonce: &[u8], aad: &[u8], data: InOut<'_>, tag: &[u8]) -> Result<(), Error> {
        let mut data = data;
        let right = self.decrypt(nonce, aad, data.reborrow(), tag);
        if right.is_err() {
            data.erase();
        }
        right
    }

    fn decrypt(&self, nonce: &[u8], aad: &[u8], mut data: InOut<'_>, tag: &[u8]) -> Result<(), Error> {
        let (mut stream, mut mac) = self.start(nonce, aad, data.len())?;
        let mask = stream.next_block(&self.key);
        stream.apply(&self.key, data.reborrow());
        // SAFETY: the stream was added to all of it.
        self.absorb(&mut mac, unsafe { data.written() });
        let mut expected = self.tag(mac, mask);
        let right: bool = expected.split_at(self.tag_length).0.ct_eq(tag).into();
        expected.zeroize();
        if right { Ok(()) } else { Err(Error::Tag) }
    }

    /// The key stream, whose first block masks the tag, and the MAC over the first block and the associated data.
    fn start(&self, nonce: &[u8], aad: &[u8], length: usize) -> Result<(Stream, Block), Error> {
        if !(7..=13).contains(&nonce.len()) {
            return Err(Error::Nonce);
        }
        // Bytes that hold the length of the data.
        let size = BLOCK_LENGTH - 1 - nonce.len();
        let length = length as u64;
        if size < 8 && length >> (8 * size) != 0 {
            return Err(Error::TooLong);
        }
        let block = |flags: usize, number: u64| {
            let mut block = u128::from(number).to_be_bytes();
            let (first, rest) = block.split_at_mut(1);
            first.fill(flags as u8);
            rest.split_at_mut(nonce.len()).0.copy_from_slice(nonce);
            block
        };
        let flags = (usize::from(!aad.is_empty()) << 6) | (((self.tag_length - 2) / 2) << 3) | (size - 1);
        let mut mac = [0; BLOCK_LENGTH];
        self.absorb(&mut mac, &block(flags, length));
        self.absorb_aad(&mut mac, aad);
        Ok((Stream::new(&block(size - 1, 0), Carry::Block), mac))
    }

    /// Associated data behind its length, filled up with zeros (SP 800-38C, A.2.2).
    fn absorb_aad(&self, mac: &mut Block, aad: &[u8]) {
        let length = aad.len() as u64;
        let mut prefix = [0; 10];
        let prefix = match length {
            0 => return,
            1..0xff00 => {
                let (head, _) = prefix.split_at_mut(2);
                head.copy_from_slice(&(length as u16).to_be_bytes());
                head
            }
            0xff00..=0xffff_ffff => {
                let (head, _) = prefix.split_at_mut(6);
                head.copy_from_slice((0xfffe_0000_0000 | length).to_be_bytes().split_at(2).1);
                head
            }
            _ => {
                let (mark, number) = prefix.split_at_mut(2);
                mark.fill(0xff);
                number.copy_from_slice(&length.to_be_bytes());
                &mut prefix
            }
        };
        let mut first = [0; BLOCK_LENGTH];
        let (head, room) = first.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        let (now, later) = aad.split_at(aad.len().min(room.len()));
        room.split_at_mut(now.len()).0.copy_from_slice(now);
        self.absorb(mac, &first);
        self.absorb(mac, later);
    }

    /// CBC-MAC of bytes that are filled up with zeros.
    fn absorb(&self, mac: &mut Block, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_LENGTH>();
        self.key.cbc_mac(mac, blocks);
        if !rest.is_empty() {
            let mut last = [0; BLOCK_LENGTH];
            last.split_at_mut(rest.len()).0.copy_from_slice(rest);
            self.key.cbc_mac(mac, &[last]);
            last.zeroize();
        }
    }

    fn tag(&self, mac: Block, mask: Block) -> Tag {
        let mut tag = (u128::from_ne_bytes(mac) ^ u128::from_ne_bytes(mask)).to_ne_bytes();
        tag.split_at_mut(self.tag_length).1.fill(0);
        tag
    }
}

impl fmt::Debug for Ccm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ccm").field("key", &self.key).field("tag_length", &self.tag_length).finish()
    }
}
