//! HMAC for contexts of national algorithms alone. With SM3 it is computed here; with SHA-256, as the library wants it for tickets, and
//! where a record hides how long it is, each call is passed on to the library's own.

use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::OnceLock,
};

use sm_accel::sm3::{BLOCK_LENGTH, DIGEST_LENGTH, HmacSm3};
use zeroize::Zeroizing;

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    param::{self, Param},
    signature::is_sm3,
};

/// Neither digest nor key is known when a context is made.
#[derive(Default)]
enum Mac {
    #[default]
    Unset,
    Sm3(Box<Sm3>),
    Library(Library),
}

/// The digest is computed here whatever properties are asked of it: who wants another provider's asks for its HMAC.
#[derive(Clone, Default)]
struct Sm3 {
    key: Zeroizing<Vec<u8>>,
    /// Keyed, and has taken nothing.
    start: Option<HmacSm3>,
    running: Option<HmacSm3>,
}

impl Sm3 {
    fn set_key(&mut self, key: &[u8]) {
        self.key = Zeroizing::new(key.to_vec());
        let start = HmacSm3::new(key);
        self.running = Some(start.clone());
        self.start = Some(start);
    }

    /// A record of which a peer must not learn how much is padding: the library reads every block that there can be. It is made of a key
    /// that is set already.
    fn record(&self, params: *const Param) -> Option<Library> {
        let other = Library::new()?;
        let digest = [Param::with_text(c"digest", c"SM3"), Param::END];
        other.set(digest.as_ptr())?;
        other.init(self.key.as_ptr(), self.key.len())?;
        other.set(params)?;
        Some(other)
    }
}

/// A context of the library's own HMAC.
struct Library(*mut c_void);

impl Library {
    fn new() -> Option<Library> {
        static METHOD: OnceLock<usize> = OnceLock::new();
        // Fetched once and kept, as an address, because a pointer is not for all threads; the method is.
        let method = *METHOD.get_or_init(|| {
            // SAFETY: null is the default library context; the strings are static.
            unsafe { ffi::EVP_MAC_fetch(ptr::null_mut(), c"HMAC".as_ptr(), ffi::THEIRS.as_ptr()) }.expose_provenance()
        });
        // SAFETY: a method that lives as long as the process, or null, for which the answer is null.
        let context = unsafe { ffi::EVP_MAC_CTX_new(ptr::with_exposed_provenance_mut(method)) };
        (!context.is_null()).then_some(Library(context))
    }

    fn duplicate(&self) -> Option<Library> {
        // SAFETY: the context is live.
        let context = unsafe { ffi::EVP_MAC_CTX_dup(self.0) };
        (!context.is_null()).then_some(Library(context))
    }

    /// The list is the caller's, and ends with a null name.
    fn set(&self, params: *const Param) -> Option<()> {
        // SAFETY: the context is live; the list is as the library wants it.
        (unsafe { ffi::EVP_MAC_CTX_set_params(self.0, params) } == 1).then_some(())
    }

    fn init(&self, key: *const u8, length: usize) -> Option<()> {
        // SAFETY: the context is live; the key is null or has `length` bytes.
        (unsafe { ffi::EVP_MAC_init(self.0, key, length, ptr::null()) } == 1).then_some(())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: made once and freed once, and nothing uses it any more.
        unsafe { ffi::EVP_MAC_CTX_free(self.0) };
    }
}

impl Mac {
    /// # Safety
    /// `params` is null or a list of the library, alive during the call.
    unsafe fn set(&mut self, params: *const Param) -> Option<()> {
        // SAFETY: the caller's promise.
        let list = unsafe { param::list(params) };
        if let Some(digest) = param::find(list, c"digest") {
            match (is_sm3(digest.as_text()?), &self) {
                (true, Mac::Sm3(_)) | (false, Mac::Library(_)) => {}
                (true, _) => *self = Mac::Sm3(Box::default()),
                (false, _) => *self = Mac::Library(Library::new()?),
            }
        }
        match self {
            Mac::Unset => param::find(list, c"key").is_none().then_some(()),
            Mac::Library(library) => library.set(params),
            Mac::Sm3(sm3) => {
                if let Some(key) = param::find(list, c"key") {
                    sm3.set_key(key.as_octets()?);
                }
                if param::find(list, c"tls-data-size").map_or(Some(0), Param::as_size)? != 0 {
                    *self = Mac::Library(sm3.record(params)?);
                }
                Some(())
            }
        }
    }
}

pub(super) static HMAC: [Dispatch; 11] = dispatch![
    1 => new,
    2 => duplicate,
    3 => ffi::free::<Mac>,
    4 => init,
    5 => update,
    6 => finish,
    8 => params,
    9 => set_params,
    11 => gettable_params,
    12 => settable_params,
];

extern "C" fn new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(ptr::null_mut(), || Some(ffi::hand_out(Mac::default())))
}

unsafe extern "C" fn duplicate(context: *mut c_void) -> *mut c_void {
    ffi::guard(ptr::null_mut(), || {
        // SAFETY: a context of this file, used by nothing else during the call.
        let copy = match unsafe { ffi::borrow::<Mac>(context) }? {
            Mac::Unset => Mac::Unset,
            Mac::Sm3(sm3) => Mac::Sm3(sm3.clone()),
            Mac::Library(library) => Mac::Library(library.duplicate()?),
        };
        Some(ffi::hand_out(copy))
    })
}

unsafe extern "C" fn init(context: *mut c_void, key: *const u8, length: usize, params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call.
        let context = unsafe { ffi::borrow::<Mac>(context) }?;
        // SAFETY: a list of the library, alive during the call.
        unsafe { context.set(params) }?;
        match context {
            Mac::Unset => None,
            Mac::Library(library) => library.init(key, length),
            Mac::Sm3(sm3) => {
                count::one(Operation::Mac);
                if key.is_null() {
                    sm3.running = Some(sm3.start.clone()?);
                } else {
                    // SAFETY: the caller's key for the length of this call.
                    sm3.set_key(unsafe { ffi::bytes(key, length) });
                }
                Some(())
            }
        }
    })
}

unsafe extern "C" fn update(context: *mut c_void, data: *const u8, length: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call.
        match unsafe { ffi::borrow::<Mac>(context) }? {
            Mac::Unset => None,
            // SAFETY: the context is live; the caller's data for the length of this call.
            Mac::Library(library) => (unsafe { ffi::EVP_MAC_update(library.0, data, length) } == 1).then_some(()),
            Mac::Sm3(sm3) => {
                // SAFETY: the caller's data for the length of this call.
                sm3.running.as_mut()?.update(unsafe { ffi::bytes(data, length) });
                Some(())
            }
        }
    })
}

unsafe extern "C" fn finish(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call.
        match unsafe { ffi::borrow::<Mac>(context) }? {
            Mac::Unset => None,
            // SAFETY: the context is live; the caller's buffers.
            Mac::Library(library) => (unsafe { ffi::EVP_MAC_final(library.0, out, length, size) } == 1).then_some(()),
            Mac::Sm3(sm3) => {
                // SAFETY: the caller's buffers: `out` has `size` bytes, and `length` may be null.
                let (out, length) = unsafe { (ffi::bytes_mut(out, size)?, length.as_mut()) };
                let out = out.get_mut(..DIGEST_LENGTH)?;
                out.copy_from_slice(Zeroizing::new(sm3.running.take()?.finalize()).as_slice());
                if let Some(length) = length {
                    *length = DIGEST_LENGTH;
                }
                Some(())
            }
        }
    })
}

unsafe extern "C" fn set_params(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; a list of the library.
    succeeds(|| unsafe { ffi::borrow::<Mac>(context)?.set(params) })
}

unsafe extern "C" fn params(context: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call.
        let (size, block) = match unsafe { ffi::borrow::<Mac>(context) }? {
            Mac::Unset => (0, 0),
            Mac::Library(library) => {
                // SAFETY: the context is live; a list of the library, alive during the call.
                return (unsafe { ffi::EVP_MAC_CTX_get_params(library.0, params) } == 1).then_some(());
            }
            Mac::Sm3(_) => (DIGEST_LENGTH, BLOCK_LENGTH),
        };
        // SAFETY: a list of the library, which only this call uses.
        for param in unsafe { param::list_mut(params) } {
            if param.is(c"size") {
                param.set_number(size as u64)?;
            } else if param.is(c"block-size") {
                param.set_number(block as u64)?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 3] = [Param::number(c"size"), Param::number(c"block-size"), Param::END];
    LIST.as_ptr()
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 7] = [
        Param::text(c"digest"),
        Param::text(c"properties"),
        Param::octets(c"key"),
        Param::signed(c"digest-noinit"),
        Param::signed(c"digest-oneshot"),
        Param::number(c"tls-data-size"),
        Param::END,
    ];
    LIST.as_ptr()
}
