//! Public keys as certificates hold them, decoded to keys of this provider at once: the library's own decoder would build a key of its
//! own first and export it to this provider at its first use. What is not a named, uncompressed key of the curve is left to that decoder,
//! and so is a point that is none, so that the library says what it always says of it.

use std::{
    ffi::{c_int, c_void},
    sync::OnceLock,
};

use sm_accel::sm2::Point;

use super::{
    count::{self, Operation},
    ffi::{self, Callback, Dispatch, dispatch},
    key::Key,
    param::Param,
};

/// SubjectPublicKeyInfo of id-ecPublicKey over the curve by its name (GM/T 0015, 5.2.3.7), up to the point.
const HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf,
    0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00,
];
const POINT_LENGTH: usize = 65;
const LENGTH: usize = HEAD.len() + POINT_LENGTH;

/// `OSSL_FUNC_BIO_read_ex_fn`, of the core.
type Read = unsafe extern "C" fn(source: *mut c_void, data: *mut c_void, length: usize, read: *mut usize) -> c_int;
static READ: OnceLock<Read> = OnceLock::new();

/// Finds what decoding needs of the core.
///
/// # Safety
/// `from_core` is null or the table that the core passes to a provider's entry point.
pub(super) unsafe fn connect(from_core: *const Dispatch) {
    const BIO_READ_EX: c_int = 42;
    let mut at = from_core;
    // SAFETY: every element up to the one with the number 0 belongs to the table.
    while let Some(entry) = unsafe { at.as_ref() }.filter(|entry| entry.id != 0) {
        if entry.id == BIO_READ_EX && !entry.function.is_null() {
            // SAFETY: under this number the core has a function of this type.
            READ.get_or_init(|| unsafe { std::mem::transmute::<*const (), Read>(entry.function) });
        }
        at = at.wrapping_add(1);
    }
}

pub(super) static PUBLIC_KEY: [Dispatch; 5] = dispatch![
    1 => new,
    2 => free,
    10 => does_selection,
    11 => decode,
];

/// Decoding has no state, but null would read as a failure.
extern "C" fn new(provider: *mut c_void) -> *mut c_void {
    provider
}

extern "C" fn free(_context: *mut c_void) {}

/// Only where a public key is asked for: who would take a private one too gets it from the library.
extern "C" fn does_selection(_provider: *mut c_void, selection: c_int) -> c_int {
    const PRIVATE: c_int = 0x01;
    const PUBLIC: c_int = 0x02;
    c_int::from(selection & PUBLIC != 0 && selection & PRIVATE == 0)
}

/// Answers 1 if it is not a key for this decoder, which lets the library go on to the next one.
unsafe extern "C" fn decode(
    _context: *mut c_void,
    source: *mut c_void,
    _selection: c_int,
    callback: Option<Callback>,
    arg: *mut c_void,
    _passphrase: *const c_void,
    _passphrase_arg: *mut c_void,
) -> c_int {
    ffi::guard(0, || {
        // SAFETY: the library's source of bytes, alive during the call.
        let Some(point) = unsafe { read(source) }.as_ref().and_then(point) else { return Some(1) };
        count::one(Operation::KeyDecode);
        let mut key = ffi::hand_out(Key::of_point(point));
        let params = [
            Param::with_number(c"type", &OBJECT_KEY),
            Param::with_text(c"data-type", c"SM2"),
            Param::with_reference(c"reference", &mut key),
            Param::END,
        ];
        // SAFETY: the list ends with a null name, and it and its values outlive the call; `arg` is the caller's own.
        let taken = callback.map(|callback| unsafe { callback(params.as_ptr(), arg) });
        // SAFETY: who takes the key leaves null; a key that nobody took is still this function's.
        unsafe { ffi::free::<Key>(key) };
        taken
    })
}

/// `OSSL_OBJECT_PKEY` as an int of C.
const OBJECT_KEY: [u8; size_of::<c_int>()] = (2 as c_int).to_ne_bytes();

/// Reads as many bytes as a key has; `None` if there are fewer.
///
/// # Safety
/// `source` is what the core gave a decoder to read from.
unsafe fn read(source: *mut c_void) -> Option<[u8; LENGTH]> {
    let (mut bytes, mut filled) = ([0; LENGTH], 0);
    while filled < LENGTH {
        let (room, mut now) = (bytes.get_mut(filled..)?, 0);
        // SAFETY: the source is the caller's; `room` has as many bytes as are asked for.
        let more = unsafe { READ.get()?(source, room.as_mut_ptr().cast(), room.len(), &mut now) };
        if more != 1 || now == 0 {
            return None;
        }
        filled += now;
    }
    Some(bytes)
}

fn point(bytes: &[u8; LENGTH]) -> Option<Point> {
    Point::from_uncompressed(bytes.strip_prefix(&HEAD)?.try_into().ok()?).ok()
}
