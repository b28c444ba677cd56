//! SM4-GCM: in pieces, as TLS 1.3 and everybody else drives it, and record by record, as TLCP and TLS 1.2 do.

use sm_accel::sm4::{
    Key,
    gcm::{Gcm, Message, TAG_LENGTH},
};
use zeroize::Zeroize;

use super::{
    Context, Data, EXPLICIT_NONCE, FIXED_NONCE, Facts, RECORD_HEADER, aead_gettable_params, aead_settable_params,
    cipher, record_header,
};
use crate::provider::{
    count::{self, Operation},
    ffi::{self, Dispatch},
    param::Param,
};

pub(in crate::provider) static GCM: [Dispatch; 15] = cipher!(SmGcm, aead_gettable_params, aead_settable_params);

/// Bytes of the longest IV that the library takes.
const MAX_IV: usize = 128;
const DEFAULT_IV: usize = 12;

/// What has become of the IV.
///
/// ```text
///  Missing ─▶ Given ─▶ Running ─▶ Spent ─▶ (a new one) Given
/// ```
#[derive(Clone)]
enum Progress {
    Missing,
    Given,
    Running(Box<Message>),
    /// Never used again.
    Spent,
}

#[derive(Clone)]
pub(super) struct SmGcm {
    key: Option<Gcm>,
    encrypt: bool,
    iv: Vec<u8>,
    progress: Progress,
    /// The tag to expect, or the one that was made.
    tag: [u8; TAG_LENGTH],
    tag_length: Option<usize>,
    /// The header of the next record; while there is one, a call takes a whole record.
    header: Option<[u8; RECORD_HEADER]>,
    /// The IV counts records by itself.
    counts: bool,
    random_iv: bool,
    records: u64,
}

impl SmGcm {
    fn message(&mut self) -> Option<(&Gcm, &mut Message)> {
        let key = self.key.as_ref()?;
        if matches!(self.progress, Progress::Missing) && self.encrypt && self.iv.len() >= DEFAULT_IV {
            ffi::random_nonce(&mut self.iv)?;
            self.random_iv = true;
            self.progress = Progress::Given;
        }
        if matches!(self.progress, Progress::Given) {
            self.progress = Progress::Running(Box::new(key.start(&self.iv).ok()?));
        }
        match &mut self.progress {
            Progress::Running(message) => Some((key, message)),
            _ => None,
        }
    }

    /// The last bytes of the IV, which then counts on.
    fn count_iv(&mut self, out: &mut [u8]) -> Option<()> {
        if !self.counts || self.key.is_none() {
            return None;
        }
        let length = if out.is_empty() || out.len() > self.iv.len() { self.iv.len() } else { out.len() };
        let last = self.iv.len().checked_sub(length)?;
        out.get_mut(..length)?.copy_from_slice(self.iv.get(last..)?);
        let (_, number) = self.iv.split_last_chunk_mut::<8>()?;
        *number = u64::from_be_bytes(*number).wrapping_add(1).to_be_bytes();
        Some(())
    }

    fn set_explicit(&mut self, explicit: &[u8]) -> Option<()> {
        if !self.counts || self.key.is_none() || self.encrypt {
            return None;
        }
        let at = self.iv.len().checked_sub(explicit.len())?;
        self.iv.get_mut(at..)?.copy_from_slice(explicit);
        Some(())
    }

    /// A record: explicit nonce, text, tag; all in place.
    fn record(&mut self, header: [u8; RECORD_HEADER], data: Data) -> Option<usize> {
        self.progress = Progress::Spent;
        if !data.is_in_place() || data.length < EXPLICIT_NONCE + TAG_LENGTH || data.size < data.length {
            return None;
        }
        // SAFETY: in place, so the caller lets us write what we read; nothing else uses it during the call.
        let record = unsafe { ffi::bytes_mut(data.output, data.length) }?;
        let (explicit, rest) = record.split_at_mut_checked(EXPLICIT_NONCE)?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_LENGTH>()?;
        if self.encrypt {
            self.records = self.records.checked_add(1)?;
            let mut nonce = self.iv.clone();
            self.count_iv(explicit)?;
            *tag = self.key.as_ref()?.seal(&nonce, &header, text.into()).ok()?;
            nonce.zeroize();
            return Some(data.length);
        }
        self.set_explicit(explicit)?;
        let length = text.len();
        self.key.as_ref()?.open(&self.iv, &header, text.into(), tag).ok()?;
        Some(length)
    }
}

impl Context for SmGcm {
    const FACTS: Facts = Facts { mode: 6, block_size: 1, iv_length: DEFAULT_IV as u64, aead: true };

    fn new() -> SmGcm {
        SmGcm {
            key: None,
            encrypt: false,
            iv: vec![0; DEFAULT_IV],
            progress: Progress::Missing,
            tag: [0; TAG_LENGTH],
            tag_length: None,
            header: None,
            counts: false,
            random_iv: false,
            records: 0,
        }
    }

    fn init(&mut self, encrypt: bool, key: Option<Key>, iv: Option<&[u8]>) -> Option<()> {
        self.encrypt = encrypt;
        if let Some(iv) = iv {
            if iv.is_empty() || iv.len() > MAX_IV {
                return None;
            }
            self.iv.clear();
            self.iv.extend_from_slice(iv);
            self.progress = Progress::Given;
        }
        if let Some(key) = key {
            count::one(Operation::Gcm);
            self.key = Some(Gcm::new(key));
            self.records = 0;
        }
        Some(())
    }

    fn update(&mut self, data: Data) -> Option<usize> {
        if let Some(header) = self.header.take() {
            return self.record(header, data);
        }
        if data.length == 0 {
            return Some(0);
        }
        let encrypt = self.encrypt;
        let (key, message) = self.message()?;
        if data.output.is_null() {
            key.aad(message, data.bytes()).ok()?;
        } else if encrypt {
            key.encrypt(message, data.in_out()?).ok()?;
        } else {
            key.decrypt(message, data.in_out()?).ok()?;
        }
        Some(data.length)
    }

    fn finish(&mut self, _out: *mut u8, _size: usize) -> Option<usize> {
        if self.header.is_some() || (!self.encrypt && self.tag_length.is_none()) {
            return None;
        }
        self.message()?;
        let Progress::Running(message) = std::mem::replace(&mut self.progress, Progress::Spent) else { return None };
        let key = self.key.as_ref()?;
        if self.encrypt {
            self.tag = key.finish(*message);
            self.tag_length = Some(TAG_LENGTH);
        } else {
            key.verify(*message, self.tag.get(..self.tag_length?)?).ok()?;
        }
        Some(0)
    }

    fn answer(&mut self, params: &mut [Param]) -> Option<()> {
        for param in params {
            if param.is(c"ivlen") {
                param.set_number(self.iv.len() as u64)?;
            } else if param.is(c"keylen") {
                param.set_number(super::KEY_LENGTH as u64)?;
            } else if param.is(c"taglen") {
                param.set_number(self.tag_length.unwrap_or(TAG_LENGTH) as u64)?;
            } else if param.is(c"iv") || param.is(c"updated-iv") {
                if matches!(self.progress, Progress::Missing) || self.iv.len() > param.size() {
                    return None;
                }
                param.set_octets(&self.iv)?;
            } else if param.is(c"tlsaadpad") {
                param.set_number(TAG_LENGTH as u64)?;
            } else if param.is(c"tag") {
                let wanted = param.size();
                if !self.encrypt || self.tag_length.is_none() || wanted == 0 {
                    return None;
                }
                param.set_octets(self.tag.get(..wanted)?)?;
            } else if param.is(c"tlsivgen") {
                let iv = self.iv.clone();
                self.count_iv(param.room()?)?;
                let message = self.key.as_ref()?.start(&iv).ok()?;
                self.progress = Progress::Running(Box::new(message));
            } else if param.is(c"iv-generated") {
                param.set_number(self.random_iv.into())?;
            }
        }
        Some(())
    }

    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"tag") {
                let tag = param.as_octets()?;
                if tag.is_empty() || self.encrypt {
                    return None;
                }
                self.tag.get_mut(..tag.len())?.copy_from_slice(tag);
                self.tag_length = Some(tag.len());
            } else if param.is(c"ivlen") {
                let length = param.as_size().filter(|length| (1..=MAX_IV).contains(length))?;
                if length != self.iv.len() {
                    if !matches!(self.progress, Progress::Missing) {
                        self.progress = Progress::Spent;
                    }
                    self.iv.resize(length, 0);
                }
            } else if param.is(c"tlsaad") {
                let overhead = EXPLICIT_NONCE + if self.encrypt { 0 } else { TAG_LENGTH };
                self.header = Some(record_header(param.as_octets()?, overhead)?);
            } else if param.is(c"tlsivfixed") {
                let fixed = param.as_octets()?;
                let explicit = self.iv.len().checked_sub(fixed.len())?;
                if fixed.len() < FIXED_NONCE || explicit < EXPLICIT_NONCE {
                    return None;
                }
                let (head, tail) = self.iv.split_at_mut_checked(fixed.len())?;
                head.copy_from_slice(fixed);
                if self.encrypt {
                    ffi::random_nonce(tail)?;
                    self.random_iv = true;
                }
                self.counts = true;
                self.progress = Progress::Given;
            } else if param.is(c"tlsivinv") {
                self.set_explicit(param.as_octets()?)?;
                let message = self.key.as_ref()?.start(&self.iv).ok()?;
                self.progress = Progress::Running(Box::new(message));
            }
        }
        Some(())
    }
}
