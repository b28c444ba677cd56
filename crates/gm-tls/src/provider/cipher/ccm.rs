//! SM4-CCM. A message is one piece, and its length comes before anything else of it, because the first block holds it.

use sm_accel::sm4::{Ccm, Key};

use super::{
    Context, Data, EXPLICIT_NONCE, FIXED_NONCE, Facts, RECORD_HEADER, aead_gettable_params, aead_settable_params,
    cipher, record_header,
};
use crate::provider::{
    count::{self, Operation},
    ffi::{self, Dispatch},
    param::Param,
};

pub(in crate::provider) static CCM: [Dispatch; 15] = cipher!(SmCcm, aead_gettable_params, aead_settable_params);

/// Bytes of a block less the one for flags: for the nonce and the length.
const NONCE_AND_LENGTH: usize = 15;
const MAX_TAG: usize = 16;
/// As the library begins: a length of 8 bytes, a tag of 12.
const DEFAULT_NONCE: usize = 7;
const DEFAULT_TAG: usize = 12;
/// Associated data are kept until the message comes. A record has 13 bytes of them; no one here has this many.
const MAX_AAD: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct SmCcm {
    key: Option<Key>,
    encrypt: bool,
    nonce: [u8; NONCE_AND_LENGTH],
    nonce_length: usize,
    nonce_set: bool,
    /// The tag to expect, or the one that was made.
    tag: [u8; MAX_TAG],
    tag_length: usize,
    tag_set: bool,
    length: Option<usize>,
    aad: Vec<u8>,
    /// The header of the next record, which its nonce comes from; while there is one, a call takes a whole record.
    header: Option<[u8; RECORD_HEADER]>,
}

impl SmCcm {
    fn nonce(&self) -> Option<&[u8]> {
        self.nonce.get(..self.nonce_length)
    }

    /// The whole message.
    fn message(&mut self, data: Data) -> Option<()> {
        let key = self.key.clone()?;
        if !self.nonce_set || self.length.is_some_and(|length| length != data.length) {
            return None;
        }
        let cipher = Ccm::new(key, self.tag_length).ok()?;
        if self.encrypt {
            self.tag = cipher.seal(self.nonce()?, &self.aad, data.in_out()?).ok()?;
            self.tag_set = true;
            // A second message under the same nonce would give away both.
            self.nonce_set = false;
        } else {
            if !self.tag_set {
                return None;
            }
            let tag = self.tag.get(..self.tag_length)?;
            cipher.open(self.nonce()?, &self.aad, data.in_out()?, tag).ok()?;
            self.end();
        }
        Some(())
    }

    /// The next message needs a nonce of its own.
    fn end(&mut self) {
        self.nonce_set = false;
        self.tag_set = false;
        self.length = None;
        self.aad.clear();
    }

    /// A record: explicit nonce, text, tag; all in place.
    fn record(&mut self, header: [u8; RECORD_HEADER], data: Data) -> Option<usize> {
        if !data.is_in_place() || data.size < data.length {
            return None;
        }
        // SAFETY: in place, so the caller lets us write what we read; nothing else uses it during the call.
        let record = unsafe { ffi::bytes_mut(data.output, data.length) }?;
        let (explicit, rest) = record.split_at_mut_checked(EXPLICIT_NONCE)?;
        let (text, tag) = rest.split_at_mut_checked(rest.len().checked_sub(self.tag_length)?)?;
        if self.encrypt {
            // The record's number, with which its header begins.
            explicit.copy_from_slice(header.get(..EXPLICIT_NONCE)?);
        }
        self.nonce.get_mut(FIXED_NONCE..FIXED_NONCE + EXPLICIT_NONCE)?.copy_from_slice(explicit);
        let cipher = Ccm::new(self.key.clone()?, self.tag_length).ok()?;
        let length = text.len();
        if self.encrypt {
            let made = cipher.seal(self.nonce()?, &header, text.into()).ok()?;
            tag.copy_from_slice(made.get(..self.tag_length)?);
            return Some(data.length);
        }
        cipher.open(self.nonce()?, &header, text.into(), tag).ok()?;
        Some(length)
    }
}

impl Context for SmCcm {
    const FACTS: Facts = Facts { mode: 7, block_size: 1, iv_length: 12, aead: true };

    fn new() -> SmCcm {
        SmCcm {
            key: None,
            encrypt: false,
            nonce: [0; NONCE_AND_LENGTH],
            nonce_length: DEFAULT_NONCE,
            nonce_set: false,
            tag: [0; MAX_TAG],
            tag_length: DEFAULT_TAG,
            tag_set: false,
            length: None,
            aad: Vec::new(),
            header: None,
        }
    }

    fn init(&mut self, encrypt: bool, key: Option<Key>, iv: Option<&[u8]>) -> Option<()> {
        self.encrypt = encrypt;
        if let Some(iv) = iv {
            if iv.len() != self.nonce_length {
                return None;
            }
            self.nonce.get_mut(..iv.len())?.copy_from_slice(iv);
            self.nonce_set = true;
            self.length = None;
            self.aad.clear();
        }
        if let Some(key) = key {
            count::one(Operation::Ccm);
            self.key = Some(key);
        }
        Some(())
    }

    fn update(&mut self, data: Data) -> Option<usize> {
        if let Some(header) = self.header.take() {
            return self.record(header, data);
        }
        self.key.as_ref()?;
        if data.input.is_null() && !data.output.is_null() {
            return Some(0);
        }
        if !self.nonce_set {
            return None;
        }
        if data.input.is_null() {
            self.length = Some(data.length);
        } else if data.output.is_null() {
            if (self.length.is_none() && data.length > 0) || self.aad.len().checked_add(data.length)? > MAX_AAD {
                return None;
            }
            self.aad.extend_from_slice(data.bytes());
        } else {
            self.message(data)?;
        }
        Some(data.length)
    }

    fn finish(&mut self, _out: *mut u8, _size: usize) -> Option<usize> {
        self.key.as_ref()?;
        // A message without text comes to its tag here.
        if self.nonce_set && !(self.encrypt && self.tag_set) {
            self.message(Data { input: std::ptr::null(), length: 0, output: std::ptr::null_mut(), size: 0 })?;
        }
        Some(0)
    }

    fn answer(&mut self, params: &mut [Param]) -> Option<()> {
        for param in params {
            if param.is(c"ivlen") {
                param.set_number(self.nonce_length as u64)?;
            } else if param.is(c"keylen") {
                param.set_number(super::KEY_LENGTH as u64)?;
            } else if param.is(c"taglen") || param.is(c"tlsaadpad") {
                param.set_number(self.tag_length as u64)?;
            } else if param.is(c"iv") || param.is(c"updated-iv") {
                param.set_octets(self.nonce()?)?;
            } else if param.is(c"tag") {
                if !self.encrypt || !self.tag_set || param.size() != self.tag_length {
                    return None;
                }
                param.set_octets(self.tag.get(..self.tag_length)?)?;
                self.end();
            }
        }
        Some(())
    }

    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"tag") {
                let length = param.size();
                if length % 2 != 0 || !(4..=MAX_TAG).contains(&length) {
                    return None;
                }
                // Without bytes it is the length alone.
                let tag = param.as_octets()?;
                if !tag.is_empty() {
                    if self.encrypt {
                        return None;
                    }
                    self.tag.get_mut(..length)?.copy_from_slice(tag);
                    self.tag_set = true;
                }
                self.tag_length = length;
            } else if param.is(c"ivlen") {
                let length = param.as_size().filter(|length| (7..=13).contains(length))?;
                if length != self.nonce_length {
                    self.nonce_length = length;
                    self.nonce_set = false;
                }
            } else if param.is(c"tlsaad") {
                let overhead = EXPLICIT_NONCE + if self.encrypt { 0 } else { self.tag_length };
                self.header = Some(record_header(param.as_octets()?, overhead)?);
            } else if param.is(c"tlsivfixed") {
                let fixed = param.as_octets().filter(|fixed| fixed.len() == FIXED_NONCE)?;
                self.nonce.get_mut(..FIXED_NONCE)?.copy_from_slice(fixed);
            }
        }
        Some(())
    }
}
