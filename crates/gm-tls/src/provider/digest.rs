//! SM3 as a digest.

use std::ffi::{c_int, c_void};

use sm_accel::sm3::{BLOCK_LENGTH, DIGEST_LENGTH, Sm3};

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    param::{self, Param},
};

pub(super) static SM3: [Dispatch; 11] = dispatch![
    1 => new,
    2 => init,
    3 => update,
    4 => finish,
    5 => digest,
    6 => ffi::free::<Sm3>,
    7 => ffi::duplicate::<Sm3>,
    15 => copy,
    8 => params,
    11 => gettable_params,
];

extern "C" fn new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(Sm3::new())))
}

unsafe extern "C" fn init(context: *mut c_void, _params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: libcrypto passes a context that `new` made, and no other thread uses it meanwhile.
        let hasher = unsafe { ffi::borrow::<Sm3>(context) }?;
        count::one(Operation::Digest);
        hasher.reset();
        Some(())
    })
}

unsafe extern "C" fn update(context: *mut c_void, data: *const u8, length: usize) -> c_int {
    succeeds(|| {
        // SAFETY: as for `init`.
        let hasher = unsafe { ffi::borrow::<Sm3>(context) }?;
        // SAFETY: the caller's data for the length of this call.
        hasher.update(unsafe { ffi::bytes(data, length) });
        Some(())
    })
}

unsafe extern "C" fn finish(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int {
    succeeds(|| {
        // SAFETY: as for `init`.
        let hasher = unsafe { ffi::borrow::<Sm3>(context) }?;
        // SAFETY: `out` has `size` bytes, `length` is the caller's.
        unsafe { answer(std::mem::take(hasher).finalize(), out, length, size) }
    })
}

unsafe extern "C" fn digest(
    _provider: *mut c_void,
    data: *const u8,
    data_length: usize,
    out: *mut u8,
    length: *mut usize,
    size: usize,
) -> c_int {
    succeeds(|| {
        count::one(Operation::Digest);
        // SAFETY: the caller's data for the length of this call.
        let found = sm_accel::sm3::digest(unsafe { ffi::bytes(data, data_length) });
        // SAFETY: `out` has `size` bytes, `length` is the caller's.
        unsafe { answer(found, out, length, size) }
    })
}

/// # Safety
/// `out` is null or has `size` writable bytes, `length` is null or writable.
unsafe fn answer(digest: [u8; DIGEST_LENGTH], out: *mut u8, length: *mut usize, size: usize) -> Option<()> {
    // SAFETY: the caller's promise.
    unsafe { ffi::bytes_mut(out, size) }?.get_mut(..DIGEST_LENGTH)?.copy_from_slice(&digest);
    // SAFETY: the caller's promise.
    *unsafe { length.as_mut() }? = DIGEST_LENGTH;
    Some(())
}

unsafe extern "C" fn copy(to: *mut c_void, from: *mut c_void) {
    ffi::guard((), || {
        // SAFETY: as for `init`; libcrypto copies between two contexts.
        let (to, from) = unsafe { (to.cast::<Sm3>().as_mut()?, from.cast::<Sm3>().as_ref()?) };
        *to = from.clone();
        Some(())
    });
}

unsafe extern "C" fn params(params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: libcrypto's list, which only this call uses.
        for param in unsafe { param::list_mut(params) } {
            if param.is(c"blocksize") {
                param.set_number(BLOCK_LENGTH as u64)?;
            } else if param.is(c"size") {
                param.set_number(DIGEST_LENGTH as u64)?;
            } else if param.is(c"xof") || param.is(c"algid-absent") {
                param.set_number(0)?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_provider: *mut c_void) -> *const Param {
    static LIST: [Param; 5] = [
        Param::number(c"blocksize"),
        Param::number(c"size"),
        Param::signed(c"xof"),
        Param::signed(c"algid-absent"),
        Param::END,
    ];
    LIST.as_ptr()
}
