//! SM4-CBC and SM4-ECB: with padding over several calls, and CBC record by record, as TLCP drives it.

use std::ffi::c_void;

use sm_accel::{
    InOut,
    sm4::{Cbc, Key},
};
use zeroize::{Zeroize, Zeroizing};

use super::{BLOCK, Context, Data, Facts, cipher, padding};
use crate::provider::{
    count::{self, Operation},
    ffi::{self, Dispatch},
    param::Param,
};

pub(in crate::provider) static CBC: [Dispatch; 15] = cipher!(SmBlock<true>, gettable_params, settable_params);
pub(in crate::provider) static ECB: [Dispatch; 15] = cipher!(SmBlock<false>, gettable_params, settable_params);

/// The versions in which a record begins with its IV: TLCP, TLS 1.1 and 1.2, DTLS. TLS 1.0 has none, and SSL 3 is not served.
const WITH_IV: [u64; 6] = [0x0101, 0x0302, 0x0303, 0xfeff, 0xfefd, 0x0100];
const WITHOUT_IV: u64 = 0x0301;

#[derive(Clone)]
enum Mode {
    Cbc(Cbc),
    Ecb(Key),
}

#[derive(Clone)]
pub(super) struct SmBlock<const CHAINED: bool> {
    mode: Option<Mode>,
    encrypt: bool,
    pad: bool,
    /// As it was given, and the last block of ciphertext since.
    first_iv: [u8; BLOCK],
    iv: [u8; BLOCK],
    /// What does not make a block yet or, of what is decrypted, may be the last one with its padding.
    rest: [u8; BLOCK],
    rest_length: usize,
    /// A version of TLS: every call takes a record. 0 for none.
    version: u64,
    mac: [u8; padding::MAX_MAC],
    mac_length: usize,
}

impl<const CHAINED: bool> SmBlock<CHAINED> {
    /// Whole blocks.
    fn run(&mut self, data: InOut<'_>) -> Option<()> {
        if !data.len().is_multiple_of(BLOCK) {
            return None;
        }
        match (self.mode.as_mut()?, self.encrypt) {
            (Mode::Ecb(key), true) => {
                key.encrypt_blocks(data);
            }
            (Mode::Ecb(key), false) => {
                key.decrypt_blocks(data);
            }
            (Mode::Cbc(cbc), true) => cbc.encrypt(data).ok()?,
            (Mode::Cbc(cbc), false) => {
                if let Some(last) = data.input().last_chunk() {
                    self.iv = *last;
                }
                cbc.decrypt(data).ok()?;
            }
        }
        Some(())
    }

    /// What was kept back, as a block. It may be plaintext.
    fn run_rest(&mut self) -> Option<Zeroizing<[u8; BLOCK]>> {
        let mut block = Zeroizing::new(self.rest);
        self.run(block.as_mut_slice().into())?;
        Some(block)
    }

    /// Remembers the last block of what was encrypted, for who asks for the IV.
    fn note(&mut self, output: &[u8]) {
        if self.encrypt
            && let Some(last) = output.last_chunk::<BLOCK>()
        {
            self.iv = *last;
        }
    }

    /// A record, in place: padded and encrypted, or decrypted and freed of IV, padding and MAC.
    fn record(&mut self, data: Data) -> Option<usize> {
        if !data.is_in_place() || !self.pad || data.size < data.length {
            return None;
        }
        if self.encrypt {
            let padded = (data.length / BLOCK + 1) * BLOCK;
            if data.size < padded {
                return None;
            }
            // SAFETY: in place, so the caller lets us write what we read, and `size` bytes have room.
            let record = unsafe { ffi::bytes_mut(data.output, padded) }?;
            let count = padded - data.length;
            record.get_mut(data.length..)?.fill(u8::try_from(count - 1).ok()?);
            self.run((&mut *record).into())?;
            self.note(record);
            return Some(padded);
        }
        // SAFETY: in place, so the caller lets us write what we read; nothing else uses it during the call.
        let record = unsafe { ffi::bytes_mut(data.output, data.length) }?;
        self.run((&mut *record).into())?;
        let text = match self.version {
            WITHOUT_IV => &*record,
            _ => record.get(BLOCK..)?,
        };
        padding::remove(text, self.mac.get_mut(..self.mac_length)?)
    }
}

impl<const CHAINED: bool> Context for SmBlock<CHAINED> {
    const FACTS: Facts = Facts {
        mode: if CHAINED { 2 } else { 1 },
        block_size: BLOCK as u64,
        iv_length: if CHAINED { BLOCK as u64 } else { 0 },
        aead: false,
    };

    fn new() -> Self {
        SmBlock {
            mode: None,
            encrypt: false,
            pad: true,
            first_iv: [0; BLOCK],
            iv: [0; BLOCK],
            rest: [0; BLOCK],
            rest_length: 0,
            version: 0,
            mac: [0; padding::MAX_MAC],
            mac_length: 0,
        }
    }

    fn init(&mut self, encrypt: bool, key: Option<Key>, iv: Option<&[u8]>) -> Option<()> {
        self.encrypt = encrypt;
        self.rest_length = 0;
        if CHAINED {
            if let Some(iv) = iv {
                self.first_iv = iv.try_into().ok()?;
            }
            // Without a new one the old one begins anew.
            self.iv = self.first_iv;
        }
        if let Some(key) = key {
            count::one(if CHAINED { Operation::Cbc } else { Operation::OtherMode });
            self.mode = Some(if CHAINED { Mode::Cbc(Cbc::new(key, &self.iv)) } else { Mode::Ecb(key) });
        } else if let Some(Mode::Cbc(cbc)) = &mut self.mode {
            cbc.restart(&self.iv);
        }
        Some(())
    }

    fn update(&mut self, data: Data) -> Option<usize> {
        self.mode.as_ref()?;
        if self.version != 0 {
            return self.record(data);
        }
        let (mut data, mut written) = (data, 0);
        // The output is not asked for before the input at the same place was read: with a rest, output runs ahead of input in place.
        if self.rest_length != 0 && data.is_in_place() && data.length > 0 {
            let copy = Zeroizing::new(data.bytes().to_vec());
            let moved = Data { input: copy.as_ptr(), ..data };
            return self.update(moved);
        }
        if self.rest_length != 0 {
            let (now, later) = data.bytes().split_at(data.length.min(BLOCK - self.rest_length));
            self.rest.get_mut(self.rest_length..self.rest_length + now.len())?.copy_from_slice(now);
            self.rest_length += now.len();
            data = Data { input: later.as_ptr(), length: later.len(), ..data };
            // A block that may be the last is kept back for its padding.
            if self.rest_length == BLOCK && (self.encrypt || !self.pad || data.length > 0) {
                let block = self.run_rest()?;
                // SAFETY: the caller's output, which has `size` bytes; nothing else uses it during the call.
                unsafe { ffi::bytes_mut(data.output, data.size) }?.get_mut(..BLOCK)?.copy_from_slice(block.as_slice());
                self.note(block.as_slice());
                self.rest_length = 0;
                written = BLOCK;
                // SAFETY: a block was written, so there are at least as many bytes.
                data = Data { output: unsafe { data.output.add(BLOCK) }, size: data.size - BLOCK, ..data };
            }
        }
        let mut whole = data.length - data.length % BLOCK;
        if !self.encrypt && self.pad && whole == data.length {
            whole = whole.saturating_sub(BLOCK);
        }
        let tail = data.bytes().get(whole..)?;
        // The rest is copied before the output is written: they may be the same place.
        let mut kept = Zeroizing::new([0; BLOCK]);
        kept.get_mut(..tail.len())?.copy_from_slice(tail);
        if whole > 0 {
            self.run(Data { length: whole, ..data }.in_out()?)?;
            // SAFETY: `whole` bytes of output were just written.
            let output = unsafe { ffi::bytes(data.output, whole) };
            self.note(output);
            written += whole;
        }
        if !tail.is_empty() {
            self.rest = *kept;
            self.rest_length = tail.len();
        }
        Some(written)
    }

    fn finish(&mut self, out: *mut u8, size: usize) -> Option<usize> {
        self.mode.as_ref()?;
        if self.version != 0 {
            return None;
        }
        if self.encrypt && self.pad {
            self.rest.get_mut(self.rest_length..)?.fill(u8::try_from(BLOCK - self.rest_length).ok()?);
        } else if self.rest_length == 0 && !self.pad {
            return Some(0);
        } else if self.rest_length != BLOCK {
            return None;
        }
        let block = self.run_rest()?;
        self.note(block.as_slice());
        let length = if self.encrypt || !self.pad { BLOCK } else { unpadded(&block)? };
        // SAFETY: the caller's output, which has `size` bytes; nothing else uses it during the call.
        unsafe { ffi::bytes_mut(out, size) }?.get_mut(..length)?.copy_from_slice(block.get(..length)?);
        self.rest.zeroize();
        self.rest_length = 0;
        Some(length)
    }

    fn answer(&mut self, params: &mut [Param]) -> Option<()> {
        let iv_length = Self::FACTS.iv_length as usize;
        for param in params {
            if param.is(c"ivlen") {
                param.set_number(Self::FACTS.iv_length)?;
            } else if param.is(c"keylen") {
                param.set_number(super::KEY_LENGTH as u64)?;
            } else if param.is(c"padding") {
                param.set_number(self.pad.into())?;
            } else if param.is(c"num") {
                param.set_number(0)?;
            } else if param.is(c"iv") {
                param.set_octets(self.first_iv.get(..iv_length)?)?;
            } else if param.is(c"updated-iv") {
                param.set_octets(self.iv.get(..iv_length)?)?;
            } else if param.is(c"tls-mac") {
                param.set_pointer(self.mac.as_ptr(), self.mac_length)?;
            }
        }
        Some(())
    }

    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"padding") {
                self.pad = param.as_number()? != 0;
            } else if param.is(c"tls-version") {
                let version = param.as_number()?;
                let served = version == 0 || (CHAINED && (version == WITHOUT_IV || WITH_IV.contains(&version)));
                self.version = served.then_some(version)?;
            } else if param.is(c"tls-mac-size") {
                self.mac_length = param.as_size().filter(|length| *length <= padding::MAX_MAC)?;
            }
        }
        Some(())
    }
}

impl<const CHAINED: bool> Drop for SmBlock<CHAINED> {
    fn drop(&mut self) {
        self.rest.zeroize();
        self.mac.zeroize();
    }
}

/// Bytes of the last block before its padding (PKCS #7). What was padded is authenticated or public: with a record it is another matter.
fn unpadded(block: &[u8; BLOCK]) -> Option<usize> {
    let count = usize::from(*block.last()?);
    let text = BLOCK.checked_sub(count).filter(|_| count != 0)?;
    block.get(text..)?.iter().all(|byte| usize::from(*byte) == count).then_some(text)
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 8] = [
        Param::number(c"keylen"),
        Param::number(c"ivlen"),
        Param::number(c"padding"),
        Param::number(c"num"),
        Param::octets(c"iv"),
        Param::octets(c"updated-iv"),
        Param::octets_pointer(c"tls-mac"),
        Param::END,
    ];
    LIST.as_ptr()
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 5] = [
        Param::number(c"padding"),
        Param::number(c"num"),
        Param::number(c"tls-version"),
        Param::number(c"tls-mac-size"),
        Param::END,
    ];
    LIST.as_ptr()
}
