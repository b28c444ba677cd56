//! SM4 and its modes as ciphers. What the modes have in common: the facts about a cipher, the shapes of its functions, and buffers.

pub(super) mod block;
pub(super) mod ccm;
pub(super) mod ctr;
pub(super) mod gcm;
mod padding;

use std::ffi::{c_int, c_void};

use sm_accel::{InOut, sm4::Key};

use super::{
    ffi::{self, succeeds},
    param::{self, Param},
};

/// Bytes of a block and of a key.
const BLOCK: usize = 16;
const KEY_LENGTH: usize = 16;

/// Bytes of the header of a record that a TLS cipher authenticates, `EVP_AEAD_TLS1_AAD_LEN`.
const RECORD_HEADER: usize = 13;
/// Bytes of the nonce that go with a record of TLS 1.2 and TLCP, and before them those that do not.
const EXPLICIT_NONCE: usize = 8;
const FIXED_NONCE: usize = 4;

/// What the library asks of a cipher before it has one.
struct Facts {
    /// `EVP_CIPH_…_MODE`.
    mode: u64,
    block_size: u64,
    iv_length: u64,
    aead: bool,
}

impl Facts {
    fn answer(&self, params: &mut [Param]) -> Option<()> {
        for param in params {
            if param.is(c"mode") {
                param.set_number(self.mode)?;
            } else if param.is(c"keylen") {
                param.set_number(KEY_LENGTH as u64)?;
            } else if param.is(c"ivlen") {
                param.set_number(self.iv_length)?;
            } else if param.is(c"blocksize") {
                param.set_number(self.block_size)?;
            } else if param.is(c"aead") || param.is(c"custom-iv") {
                param.set_number(self.aead.into())?;
            } else if param.is(c"cts") || param.is(c"tls-multi") || param.is(c"has-randkey") {
                param.set_number(0)?;
            }
        }
        Some(())
    }
}

extern "C" fn gettable_params(_provider: *mut c_void) -> *const Param {
    static LIST: [Param; 10] = [
        Param::number(c"mode"),
        Param::number(c"keylen"),
        Param::number(c"ivlen"),
        Param::number(c"blocksize"),
        Param::signed(c"aead"),
        Param::signed(c"custom-iv"),
        Param::signed(c"cts"),
        Param::signed(c"tls-multi"),
        Param::signed(c"has-randkey"),
        Param::END,
    ];
    LIST.as_ptr()
}

extern "C" fn aead_gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 10] = [
        Param::number(c"keylen"),
        Param::number(c"ivlen"),
        Param::number(c"taglen"),
        Param::octets(c"iv"),
        Param::octets(c"updated-iv"),
        Param::octets(c"tag"),
        Param::number(c"tlsaadpad"),
        Param::octets(c"tlsivgen"),
        Param::number(c"iv-generated"),
        Param::END,
    ];
    LIST.as_ptr()
}

extern "C" fn aead_settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 6] = [
        Param::number(c"ivlen"),
        Param::octets(c"tag"),
        Param::octets(c"tlsaad"),
        Param::octets(c"tlsivfixed"),
        Param::octets(c"tlsivinv"),
        Param::END,
    ];
    LIST.as_ptr()
}

/// A mode's context as the library drives it.
trait Context: Clone + Sized {
    const FACTS: Facts;

    fn new() -> Self;
    fn init(&mut self, encrypt: bool, key: Option<Key>, iv: Option<&[u8]>) -> Option<()>;
    /// Takes input and says how many bytes came out.
    fn update(&mut self, data: Data) -> Option<usize>;
    fn finish(&mut self, out: *mut u8, size: usize) -> Option<usize>;
    fn answer(&mut self, params: &mut [Param]) -> Option<()>;
    fn set(&mut self, params: &[Param]) -> Option<()>;
}

/// Input and output of a call as the library passes them: either may be null, which means something in some modes.
#[derive(Clone, Copy)]
struct Data {
    input: *const u8,
    length: usize,
    output: *mut u8,
    size: usize,
}

impl Data {
    /// Both, of the input's length, if the output has room. They must be equal or apart; what overlaps in part is refused.
    fn in_out<'a>(self) -> Option<InOut<'a>> {
        if self.length == 0 {
            return Some(InOut::from([].as_mut_slice()));
        }
        let (input, output) = (self.input as usize, self.output as usize);
        let apart = input.checked_add(self.length)? <= output || output.checked_add(self.length)? <= input;
        if self.input.is_null() || self.output.is_null() || self.size < self.length || (input != output && !apart) {
            return None;
        }
        // SAFETY: the library's caller owns both buffers during the call, they have `length` bytes, and they are equal or apart.
        Some(unsafe { InOut::from_raw(self.input, self.output, self.length) })
    }

    fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: the caller's input, which nothing changes before the call's output is written.
        unsafe { ffi::bytes(self.input, self.length) }
    }

    fn is_in_place(self) -> bool {
        !self.input.is_null() && self.input == self.output
    }
}

extern "C" fn new<T: Context>(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(T::new())))
}

unsafe extern "C" fn facts<T: Context>(params: *mut Param) -> c_int {
    // SAFETY: the library's list, which only this call uses.
    succeeds(|| T::FACTS.answer(unsafe { param::list_mut(params) }))
}

unsafe extern "C" fn init<T: Context, const ENCRYPT: bool>(
    context: *mut c_void,
    key: *const u8,
    key_length: usize,
    iv: *const u8,
    iv_length: usize,
    params: *const Param,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this mode, used by nothing else during the call; the caller's buffers and the library's list.
        let (context, params) = unsafe { (ffi::borrow::<T>(context)?, param::list(params)) };
        let key = if key.is_null() {
            None
        } else {
            // SAFETY: checked for null; the caller's key of that length.
            Some(Key::new(unsafe { ffi::bytes(key, key_length) }.try_into().ok()?))
        };
        // SAFETY: as above.
        let iv = if iv.is_null() { None } else { Some(unsafe { ffi::bytes(iv, iv_length) }) };
        context.init(ENCRYPT, key, iv)?;
        context.set(params)
    })
}

unsafe extern "C" fn update<T: Context>(
    context: *mut c_void,
    output: *mut u8,
    output_length: *mut usize,
    size: usize,
    input: *const u8,
    length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this mode, used by nothing else during the call; the caller's place for the length.
        let (context, output_length) = unsafe { (ffi::borrow::<T>(context)?, output_length.as_mut()?) };
        *output_length = context.update(Data { input, length, output, size })?;
        Some(())
    })
}

unsafe extern "C" fn finish<T: Context>(
    context: *mut c_void,
    output: *mut u8,
    output_length: *mut usize,
    size: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this mode, used by nothing else during the call; the caller's place for the length.
        let (context, output_length) = unsafe { (ffi::borrow::<T>(context)?, output_length.as_mut()?) };
        *output_length = context.finish(output, size)?;
        Some(())
    })
}

/// One call for both, `EVP_Cipher`: without input it is the end.
unsafe extern "C" fn at_once<T: Context>(
    context: *mut c_void,
    output: *mut u8,
    output_length: *mut usize,
    size: usize,
    input: *const u8,
    length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this mode, used by nothing else during the call; the caller's place for the length.
        let (context, output_length) = unsafe { (ffi::borrow::<T>(context)?, output_length.as_mut()?) };
        *output_length = if input.is_null() {
            context.finish(output, size)?
        } else {
            context.update(Data { input, length, output, size })?
        };
        Some(())
    })
}

unsafe extern "C" fn params<T: Context>(context: *mut c_void, params: *mut Param) -> c_int {
    // SAFETY: a context of this mode, used by nothing else during the call; the library's list.
    succeeds(|| unsafe { ffi::borrow::<T>(context)?.answer(param::list_mut(params)) })
}

unsafe extern "C" fn set_params<T: Context>(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this mode, used by nothing else during the call; the library's list.
    succeeds(|| unsafe { ffi::borrow::<T>(context)?.set(param::list(params)) })
}

/// The table of a mode with what it lets set and get.
macro_rules! cipher {
    ($context:ty, $gettable:path, $settable:path) => {
        $crate::provider::ffi::dispatch![
            1 => $crate::provider::cipher::new::<$context>,
            2 => $crate::provider::cipher::init::<$context, true>,
            3 => $crate::provider::cipher::init::<$context, false>,
            4 => $crate::provider::cipher::update::<$context>,
            5 => $crate::provider::cipher::finish::<$context>,
            6 => $crate::provider::cipher::at_once::<$context>,
            7 => $crate::provider::ffi::free::<$context>,
            8 => $crate::provider::ffi::duplicate::<$context>,
            9 => $crate::provider::cipher::facts::<$context>,
            10 => $crate::provider::cipher::params::<$context>,
            11 => $crate::provider::cipher::set_params::<$context>,
            12 => $crate::provider::cipher::gettable_params,
            13 => $gettable,
            14 => $settable,
        ]
    };
}
use cipher;

/// A record's header as a TLS cipher takes it, with the length of the text in the place of the record's: less the explicit nonce and,
/// when it is decrypted, the tag.
fn record_header(header: &[u8], overhead: usize) -> Option<[u8; RECORD_HEADER]> {
    let mut header: [u8; RECORD_HEADER] = header.try_into().ok()?;
    let (_, length) = header.split_last_chunk_mut::<2>()?;
    let text = usize::from(u16::from_be_bytes(*length)).checked_sub(overhead)?;
    *length = u16::try_from(text).ok()?.to_be_bytes();
    Some(header)
}
