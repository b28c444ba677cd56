//! The pseudorandom function of TLCP (GB/T 38636-2020, 5.5), which is that of TLS 1.2 with SM3. It is for contexts of national algorithms
//! alone; other digests are refused.

use std::{
    ffi::{c_int, c_void},
    ptr,
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
#[derive(Clone, Default)]
struct Prf {
    inputs: Inputs,
    digest_known: bool,
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

impl Prf {
    /// # Safety
    /// `params` is null or a list of the library, alive during the call.
    unsafe fn set(&mut self, params: *const Param) -> Option<()> {
        // SAFETY: the caller's promise.
        let list = unsafe { param::list(params) };
        if let Some(digest) = param::find(list, c"digest") {
            self.digest_known = is_sm3(digest.as_text()?);
            self.digest_known.then_some(())?;
        }
        self.inputs.set(list)
    }
}

pub(super) static TLS1_PRF: [Dispatch; 10] = dispatch![
    1 => new,
    2 => ffi::duplicate::<Prf>,
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
        context.digest_known.then_some(())?;
        count::one(Operation::Prf);
        // SAFETY: the caller's buffer.
        context.inputs.derive(unsafe { ffi::bytes_mut(out, length) }?)
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
