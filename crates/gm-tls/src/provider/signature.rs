//! SM2 signatures with SM3 and the signer's ID (GB/T 32918.2), over messages and over digests.

use std::ffi::{CStr, c_char, c_int, c_void};

use sm_accel::{
    sm2::Signature,
    sm3::{DIGEST_LENGTH, Sm3},
};

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    key::{Key, SIGNATURE_LENGTH},
    param::{self, Param},
};

/// An ID has at most 8,191 bytes: its length in bits has two.
const MAX_ID: usize = 8191;

/// The DER of the AlgorithmIdentifier of SM2 with SM3 (GM/T 0006), without parameters.
const ALGORITHM: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x83, 0x75];

#[derive(Clone, Default)]
struct Context {
    key: Key,
    /// The signer's ID; `None` is the default one.
    id: Option<Vec<u8>>,
    /// Of a message; `None` while a digest is signed.
    hasher: Option<Sm3>,
    /// Whether the digest of the ID goes before the message and did not yet.
    z_pending: bool,
}

impl Context {
    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"sm2-za") {
                if param.as_text()?.eq_ignore_ascii_case(b"no") {
                    self.z_pending = false;
                }
            } else if param.is(c"distid") {
                let id = param.as_octets()?;
                // Too late once the digest has gone in.
                if !self.z_pending || id.len() > MAX_ID {
                    return None;
                }
                self.id = (!id.is_empty()).then(|| id.to_vec());
            } else if param.is(c"digest") {
                is_sm3(param.as_text()?).then_some(())?;
            } else if param.is(c"digest-size") && param.as_size()? != DIGEST_LENGTH {
                return None;
            }
        }
        Some(())
    }

    fn begin(&mut self, key: *const c_void, params: *const Param) -> Option<()> {
        // SAFETY: null, or a key of this provider, alive during the call.
        if let Some(key) = unsafe { Key::borrow(key) } {
            self.key = key.clone();
        }
        if self.key.secret.is_none() && self.key.public.is_none() {
            return None;
        }
        // SAFETY: a list of the library, alive during the call.
        self.set(unsafe { param::list(params) })
    }

    fn begin_message(&mut self, digest: *const c_char, key: *const c_void, params: *const Param) -> Option<()> {
        // SAFETY: null, or a string that ends with a zero byte.
        if !digest.is_null() && !is_sm3(unsafe { CStr::from_ptr(digest) }.to_bytes()) {
            return None;
        }
        self.z_pending = true;
        self.begin(key, params)?;
        self.hasher = Some(Sm3::new());
        Some(())
    }

    fn update(&mut self, data: &[u8]) -> Option<()> {
        let hasher = self.hasher.as_mut()?;
        if self.z_pending {
            hasher.update(&self.key.public.as_ref()?.z(self.id.as_deref())?);
            self.z_pending = false;
        }
        hasher.update(data);
        Some(())
    }

    /// The digest of the message. Further data would begin another one without an ID, so there is none.
    fn digest(&mut self) -> Option<[u8; DIGEST_LENGTH]> {
        self.update(&[])?;
        Some(self.hasher.take()?.finalize())
    }

    fn sign(&self, digest: &[u8; DIGEST_LENGTH]) -> Option<Vec<u8>> {
        count::one(Operation::Sign);
        Some(self.key.secret.as_ref()?.sign_digest(digest).ok()?.to_der())
    }

    fn verify(&self, digest: &[u8; DIGEST_LENGTH], signature: &[u8]) -> Option<()> {
        count::one(Operation::Verify);
        let signature = Signature::from_der(signature).ok()?;
        self.key.public.as_ref()?.verifying().verify_digest(digest, &signature).then_some(())
    }
}

pub(super) fn is_sm3(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"SM3") || name == b"1.2.156.10197.1.401"
}

pub(super) static SM2: [Dispatch; 20] = dispatch![
    1 => new,
    2 => init,
    3 => sign,
    4 => init,
    5 => verify,
    8 => message_init,
    9 => message_update,
    10 => sign_final,
    11 => sign_message,
    12 => message_init,
    13 => message_update,
    14 => verify_final,
    15 => verify_message,
    16 => ffi::free::<Context>,
    17 => ffi::duplicate::<Context>,
    18 => params,
    19 => gettable_params,
    20 => set_params,
    21 => settable_params,
];

extern "C" fn new(_provider: *mut c_void, _properties: *const c_char) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(Context { z_pending: true, ..Context::default() })))
}

unsafe extern "C" fn init(context: *mut c_void, key: *const c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call.
    succeeds(|| unsafe { ffi::borrow::<Context>(context) }?.begin(key, params))
}

unsafe extern "C" fn message_init(
    context: *mut c_void,
    digest: *const c_char,
    key: *const c_void,
    params: *const Param,
) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call.
    succeeds(|| unsafe { ffi::borrow::<Context>(context) }?.begin_message(digest, key, params))
}

unsafe extern "C" fn message_update(context: *mut c_void, data: *const u8, length: usize) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; the caller's data.
    succeeds(|| unsafe { ffi::borrow::<Context>(context)?.update(ffi::bytes(data, length)) })
}

/// Writes a signature, or says how long one can be if there is nowhere to write.
///
/// # Safety
/// `out` is null or has `size` writable bytes, `length` is null or writable.
unsafe fn write(
    out: *mut u8,
    length: *mut usize,
    size: usize,
    signature: impl FnOnce() -> Option<Vec<u8>>,
) -> Option<()> {
    // SAFETY: the caller's promise.
    let (out, length) = unsafe { (ffi::bytes_mut(out, size), length.as_mut()?) };
    let Some(out) = out else {
        *length = SIGNATURE_LENGTH;
        return Some(());
    };
    if size < SIGNATURE_LENGTH {
        return None;
    }
    let signature = signature()?;
    out.get_mut(..signature.len())?.copy_from_slice(&signature);
    *length = signature.len();
    Some(())
}

unsafe extern "C" fn sign(
    context: *mut c_void,
    out: *mut u8,
    length: *mut usize,
    size: usize,
    digest: *const u8,
    digest_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        unsafe {
            let context = ffi::borrow::<Context>(context)?;
            let digest = ffi::bytes(digest, digest_length);
            write(out, length, size, || context.sign(digest.try_into().ok()?))
        }
    })
}

unsafe extern "C" fn sign_final(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        unsafe {
            let context = ffi::borrow::<Context>(context)?;
            write(out, length, size, || {
                let digest = context.digest()?;
                context.sign(&digest)
            })
        }
    })
}

unsafe extern "C" fn sign_message(
    context: *mut c_void,
    out: *mut u8,
    length: *mut usize,
    size: usize,
    data: *const u8,
    data_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        unsafe {
            let context = ffi::borrow::<Context>(context)?;
            let data = ffi::bytes(data, data_length);
            write(out, length, size, || {
                context.update(data)?;
                let digest = context.digest()?;
                context.sign(&digest)
            })
        }
    })
}

unsafe extern "C" fn verify(
    context: *mut c_void,
    signature: *const u8,
    length: usize,
    digest: *const u8,
    digest_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        unsafe {
            let digest = ffi::bytes(digest, digest_length);
            ffi::borrow::<Context>(context)?.verify(digest.try_into().ok()?, ffi::bytes(signature, length))
        }
    })
}

unsafe extern "C" fn verify_final(context: *mut c_void, signature: *const u8, length: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffer.
        let (context, signature) = unsafe { (ffi::borrow::<Context>(context)?, ffi::bytes(signature, length)) };
        let digest = context.digest()?;
        context.verify(&digest, signature)
    })
}

unsafe extern "C" fn verify_message(
    context: *mut c_void,
    signature: *const u8,
    length: usize,
    data: *const u8,
    data_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        let (context, signature, data) =
            unsafe { (ffi::borrow::<Context>(context)?, ffi::bytes(signature, length), ffi::bytes(data, data_length)) };
        context.update(data)?;
        let digest = context.digest()?;
        context.verify(&digest, signature)
    })
}

unsafe extern "C" fn params(context: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        if context.is_null() {
            return None;
        }
        // SAFETY: the library's list, which only this call uses.
        for param in unsafe { param::list_mut(params) } {
            if param.is(c"algorithm-id") {
                param.set_octets(&ALGORITHM)?;
            } else if param.is(c"digest-size") {
                param.set_number(DIGEST_LENGTH as u64)?;
            } else if param.is(c"digest") {
                param.set_text(c"SM3")?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 4] =
        [Param::octets(c"algorithm-id"), Param::number(c"digest-size"), Param::text(c"digest"), Param::END];
    LIST.as_ptr()
}

unsafe extern "C" fn set_params(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; the library's list.
    succeeds(|| unsafe { ffi::borrow::<Context>(context)?.set(param::list(params)) })
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 5] = [
        Param::number(c"digest-size"),
        Param::text(c"digest"),
        Param::octets(c"distid"),
        Param::text(c"sm2-za"),
        Param::END,
    ];
    LIST.as_ptr()
}
