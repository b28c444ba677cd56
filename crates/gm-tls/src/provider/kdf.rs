//! The pseudorandom function of TLCP (GB/T 38636-2020, 5.5), which is that of TLS 1.2 with SM3. With any other digest each call is passed
//! on to the library's own.

use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::OnceLock,
};

use sm_accel::sm3::{DIGEST_LENGTH, HmacSm3};
use zeroize::Zeroizing;

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    param::{self, Param},
    signature::is_sm3,
};

/// No label with its seed comes near.
const LONGEST_SEED: usize = 1 << 16;

/// The digest may come after what it is to work on.
enum Prf {
    Here { inputs: Inputs, digest_known: bool },
    Library(Library),
}

impl Default for Prf {
    fn default() -> Prf {
        Prf::Here { inputs: Inputs::default(), digest_known: false }
    }
}

#[derive(Clone, Default)]
struct Inputs {
    secret: Option<Zeroizing<Vec<u8>>>,
    seed: Zeroizing<Vec<u8>>,
}

impl Inputs {
    /// The secret replaces the one before; seeds follow each other.
    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"secret") {
                self.secret = Some(Zeroizing::new(param.as_octets()?.to_vec()));
            } else if param.is(c"seed") {
                let (more, old) = (param.as_octets()?, &self.seed);
                if old.len() + more.len() > LONGEST_SEED {
                    return None;
                }
                // A new buffer each time: one that grows would leave the old bytes in memory.
                self.seed = Zeroizing::new([old.as_slice(), more].concat());
            }
        }
        Some(())
    }

    /// To the library, which then goes on.
    fn hand_over(&self) -> Option<Library> {
        let library = Library::new()?;
        if let Some(secret) = &self.secret {
            library.set(&[Param::with_octets(c"secret", secret)])?;
        }
        if !self.seed.is_empty() {
            library.set(&[Param::with_octets(c"seed", &self.seed)])?;
        }
        Some(library)
    }

    /// P_hash of RFC 5246, section 5.
    fn derive(&self, out: &mut [u8]) -> Option<()> {
        let (start, seed) = (HmacSm3::new(self.secret.as_ref()?), self.seed.as_slice());
        if seed.is_empty() || out.is_empty() {
            return None;
        }
        let code = |parts: [&[u8]; 2]| {
            let mut mac = start.clone();
            parts.iter().for_each(|part| mac.update(part));
            Zeroizing::new(mac.finalize())
        };
        let mut a = code([seed, &[]]);
        let mut chunks = out.chunks_mut(DIGEST_LENGTH).peekable();
        while let Some(chunk) = chunks.next() {
            chunk.copy_from_slice(code([a.as_slice(), seed]).get(..chunk.len())?);
            if chunks.peek().is_some() {
                a = code([a.as_slice(), &[]]);
            }
        }
        Some(())
    }
}

/// A context of the library's own function.
struct Library(*mut c_void);

impl Library {
    fn new() -> Option<Library> {
        static METHOD: OnceLock<usize> = OnceLock::new();
        // Fetched once and kept, as an address, because a pointer is not for all threads; the method is.
        let method = *METHOD.get_or_init(|| {
            // SAFETY: null is the default library context; the strings are static.
            unsafe { ffi::EVP_KDF_fetch(ptr::null_mut(), c"TLS1-PRF".as_ptr(), ffi::THEIRS.as_ptr()) }
                .expose_provenance()
        });
        // SAFETY: a method that lives as long as the process, or null, for which the answer is null.
        let context = unsafe { ffi::EVP_KDF_CTX_new(ptr::with_exposed_provenance_mut(method)) };
        (!context.is_null()).then_some(Library(context))
    }

    /// With a digest goes whose HMAC is to be used with it: the library would fetch that of this provider, which passes it on again.
    fn set(&self, params: &[Param]) -> Option<()> {
        let mut list = Vec::with_capacity(params.len() + 2);
        if param::find(params, c"digest").is_some() && param::find(params, c"properties").is_none() {
            list.push(Param::with_text(c"properties", ffi::THEIRS));
        }
        list.extend(params.iter().map(Param::again));
        list.push(Param::END);
        // SAFETY: the context is live; the list ends with a null name, and what it points to is the caller's.
        (unsafe { ffi::EVP_KDF_CTX_set_params(self.0, list.as_ptr()) } == 1).then_some(())
    }

    fn duplicate(&self) -> Option<Library> {
        // SAFETY: the context is live.
        let context = unsafe { ffi::EVP_KDF_CTX_dup(self.0) };
        (!context.is_null()).then_some(Library(context))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: made once and freed once, and nothing uses it any more.
        unsafe { ffi::EVP_KDF_CTX_free(self.0) };
    }
}

impl Prf {
    /// # Safety
    /// `params` is null or a list of the library, alive during the call.
    unsafe fn set(&mut self, params: *const Param) -> Option<()> {
        // SAFETY: the caller's promise.
        let list = unsafe { param::list(params) };
        if let Some(digest) = param::find(list, c"digest") {
            match (is_sm3(digest.as_text()?), &mut *self) {
                (true, Prf::Here { digest_known, .. }) => *digest_known = true,
                (false, Prf::Here { inputs, .. }) => *self = Prf::Library(inputs.hand_over()?),
                (false, Prf::Library(_)) => {}
                // What the library has got it does not give back; a context that is reset takes the digest.
                (true, Prf::Library(_)) => return None,
            }
        }
        match self {
            Prf::Here { inputs, .. } => inputs.set(list),
            Prf::Library(library) => library.set(list),
        }
    }
}

pub(super) static TLS1_PRF: [Dispatch; 10] = dispatch![
    1 => new,
    2 => duplicate,
    3 => ffi::free::<Prf>,
    4 => reset,
    5 => derive,
    7 => gettable_params,
    8 => settable_params,
    10 => params,
    11 => set_params,
];

extern "C" fn new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(ptr::null_mut(), || Some(ffi::hand_out(Prf::default())))
}

unsafe extern "C" fn duplicate(context: *mut c_void) -> *mut c_void {
    ffi::guard(ptr::null_mut(), || {
        // SAFETY: a context of this file, used by nothing else during the call.
        let copy = match unsafe { ffi::borrow::<Prf>(context) }? {
            Prf::Here { inputs, digest_known } => Prf::Here { inputs: inputs.clone(), digest_known: *digest_known },
            Prf::Library(library) => Prf::Library(library.duplicate()?),
        };
        Some(ffi::hand_out(copy))
    })
}

unsafe extern "C" fn reset(context: *mut c_void) {
    ffi::guard((), || {
        // SAFETY: a context of this file, used by nothing else during the call.
        *unsafe { ffi::borrow::<Prf>(context) }? = Prf::default();
        Some(())
    });
}

unsafe extern "C" fn derive(context: *mut c_void, out: *mut u8, length: usize, params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call.
        let context = unsafe { ffi::borrow::<Prf>(context) }?;
        // SAFETY: a list of the library, alive during the call.
        unsafe { context.set(params) }?;
        match context {
            Prf::Here { digest_known: false, .. } => None,
            Prf::Here { inputs, .. } => {
                count::one(Operation::Prf);
                // SAFETY: the caller's buffer.
                inputs.derive(unsafe { ffi::bytes_mut(out, length) }?)
            }
            Prf::Library(library) => {
                // SAFETY: the context is live; the caller's buffer.
                (unsafe { ffi::EVP_KDF_derive(library.0, out, length, ptr::null()) } == 1).then_some(())
            }
        }
    })
}

unsafe extern "C" fn set_params(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; a list of the library.
    succeeds(|| unsafe { ffi::borrow::<Prf>(context)?.set(params) })
}

/// There is one thing to ask: how much can be derived, which has no bound.
unsafe extern "C" fn params(_context: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: a list of the library, which only this call uses.
        for param in unsafe { param::list_mut(params) } {
            if param.is(c"size") {
                param.set_number(u64::MAX)?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 2] = [Param::number(c"size"), Param::END];
    LIST.as_ptr()
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 5] = [
        Param::text(c"properties"),
        Param::text(c"digest"),
        Param::octets(c"secret"),
        Param::octets(c"seed"),
        Param::END,
    ];
    LIST.as_ptr()
}
