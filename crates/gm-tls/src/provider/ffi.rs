//! The shapes that libcrypto and a provider exchange, after its public `openssl/core.h`, `core_dispatch.h`, `provider.h` and `evp.h`,
//! and the fence that no panic gets over.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// One function of a table. An `id` of 0 ends the table.
#[repr(C)]
pub(super) struct Dispatch {
    pub(super) id: c_int,
    pub(super) function: *const (),
}

// SAFETY: a table holds addresses of functions, which never change.
unsafe impl Sync for Dispatch {}

impl Dispatch {
    pub(super) const END: Dispatch = Dispatch { id: 0, function: std::ptr::null() };
}

/// One algorithm of an operation. Null names end the table.
#[repr(C)]
pub(super) struct Algorithm {
    pub(super) names: *const c_char,
    pub(super) properties: *const c_char,
    pub(super) implementation: *const Dispatch,
    pub(super) description: *const c_char,
}

// SAFETY: it points to static tables and strings only.
unsafe impl Sync for Algorithm {}

impl Algorithm {
    pub(super) const END: Algorithm = Algorithm {
        names: std::ptr::null(),
        properties: std::ptr::null(),
        implementation: std::ptr::null(),
        description: std::ptr::null(),
    };
}

/// `OSSL_CALLBACK`.
pub(super) type Callback = unsafe extern "C" fn(params: *const super::param::Param, arg: *mut c_void) -> c_int;

/// `OSSL_provider_init_fn`.
pub(super) type ProviderInit = unsafe extern "C" fn(
    handle: *const c_void,
    from_core: *const Dispatch,
    to_core: *mut *const Dispatch,
    context: *mut *mut c_void,
) -> c_int;

/// Fetches by name and properties.
pub(super) type Fetch =
    unsafe extern "C" fn(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;

/// Whose what this provider does not do is.
pub(super) const THEIRS: &CStr = c"provider=default";

unsafe extern "C" {
    pub(super) fn OSSL_PROVIDER_add_builtin(library: *mut c_void, name: *const c_char, init: ProviderInit) -> c_int;
    pub(super) fn OSSL_PROVIDER_load(library: *mut c_void, name: *const c_char) -> *mut c_void;
    pub(super) fn OSSL_PROVIDER_unload(provider: *mut c_void) -> c_int;
    pub(super) fn OSSL_PROVIDER_get0_name(provider: *const c_void) -> *const c_char;
    pub(super) fn EVP_set_default_properties(library: *mut c_void, properties: *const c_char) -> c_int;
    pub(super) fn RAND_bytes_ex(library: *mut c_void, bytes: *mut u8, count: usize, strength: c_uint) -> c_int;
    pub(super) fn RAND_priv_bytes_ex(library: *mut c_void, bytes: *mut u8, count: usize, strength: c_uint) -> c_int;

    pub(super) fn EVP_PKEY_get_params(key: *mut c_void, params: *mut super::param::Param) -> c_int;
    pub(super) fn EVP_PKEY_CTX_new_from_pkey(
        library: *mut c_void,
        key: *mut c_void,
        properties: *const c_char,
    ) -> *mut c_void;
    pub(super) fn EVP_PKEY_encrypt_init(context: *mut c_void) -> c_int;
    pub(super) fn EVP_PKEY_CTX_get_params(context: *mut c_void, params: *mut super::param::Param) -> c_int;
    pub(super) fn EVP_PKEY_CTX_free(context: *mut c_void);

    pub(super) fn EVP_MD_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;
    pub(super) fn EVP_MD_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_MD_free(method: *mut c_void);
    pub(super) fn EVP_MAC_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;
    pub(super) fn EVP_MAC_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_MAC_free(method: *mut c_void);
    pub(super) fn EVP_MAC_CTX_new(method: *mut c_void) -> *mut c_void;
    pub(super) fn EVP_MAC_CTX_dup(context: *const c_void) -> *mut c_void;
    pub(super) fn EVP_MAC_CTX_free(context: *mut c_void);
    pub(super) fn EVP_MAC_CTX_set_params(context: *mut c_void, params: *const super::param::Param) -> c_int;
    pub(super) fn EVP_MAC_CTX_get_params(context: *mut c_void, params: *mut super::param::Param) -> c_int;
    pub(super) fn EVP_MAC_init(
        context: *mut c_void,
        key: *const u8,
        length: usize,
        params: *const super::param::Param,
    ) -> c_int;
    pub(super) fn EVP_MAC_update(context: *mut c_void, data: *const u8, length: usize) -> c_int;
    pub(super) fn EVP_MAC_final(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int;
    pub(super) fn EVP_KDF_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;
    pub(super) fn EVP_KDF_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_KDF_free(method: *mut c_void);
    pub(super) fn EVP_KDF_CTX_new(method: *mut c_void) -> *mut c_void;
    pub(super) fn EVP_KDF_CTX_free(context: *mut c_void);
    pub(super) fn EVP_KDF_derive(
        context: *mut c_void,
        key: *mut u8,
        length: usize,
        params: *const super::param::Param,
    ) -> c_int;
    pub(super) fn EVP_CIPHER_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char)
    -> *mut c_void;
    pub(super) fn EVP_CIPHER_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_CIPHER_free(method: *mut c_void);
    pub(super) fn EVP_KEYMGMT_fetch(
        library: *mut c_void,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    pub(super) fn EVP_KEYMGMT_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_KEYMGMT_free(method: *mut c_void);
    pub(super) fn EVP_SIGNATURE_fetch(
        library: *mut c_void,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    pub(super) fn EVP_SIGNATURE_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_SIGNATURE_free(method: *mut c_void);
    pub(super) fn EVP_ASYM_CIPHER_fetch(
        library: *mut c_void,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    pub(super) fn EVP_ASYM_CIPHER_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_ASYM_CIPHER_free(method: *mut c_void);
    pub(super) fn EVP_KEYEXCH_fetch(
        library: *mut c_void,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    pub(super) fn EVP_KEYEXCH_get0_provider(method: *const c_void) -> *const c_void;
    pub(super) fn EVP_KEYEXCH_free(method: *mut c_void);
}

/// Runs what libcrypto asked for. A panic in it is a bug of this crate; it becomes a failed operation, because nothing may unwind into
/// C, and the connection at hand fails instead of the process.
pub(super) fn guard<T>(failed: T, work: impl FnOnce() -> Option<T>) -> T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Some(done)) => done,
        Ok(None) | Err(_) => failed,
    }
}

/// [`guard`] for what answers 1 or 0.
pub(super) fn succeeds(work: impl FnOnce() -> Option<()>) -> c_int {
    guard(0, || work().map(|()| 1))
}

/// A context of ours for libcrypto to keep.
pub(super) fn hand_out<T>(context: T) -> *mut c_void {
    Box::into_raw(Box::new(context)).cast()
}

/// A context for the length of a call.
///
/// # Safety
/// `context` is null or came from [`hand_out`] with the same type, and nothing else uses it while the reference lives.
pub(super) unsafe fn borrow<'a, T>(context: *mut c_void) -> Option<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { context.cast::<T>().as_mut() }
}

/// Takes a context back and drops it, which erases it.
///
/// # Safety
/// `context` is null or came from [`hand_out`] with the same type and is not used again, as a library frees a context once.
pub(super) unsafe extern "C" fn free<T>(context: *mut c_void) {
    if !context.is_null() {
        // SAFETY: the caller's promise.
        let context = unsafe { Box::from_raw(context.cast::<T>()) };
        guard((), || {
            drop(context);
            Some(())
        });
    }
}

/// A second context in the state of the first; null for null.
///
/// # Safety
/// As for [`borrow`], during the call.
pub(super) unsafe extern "C" fn duplicate<T: Clone>(context: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    guard(std::ptr::null_mut(), || Some(hand_out(unsafe { borrow::<T>(context) }?.clone())))
}

/// The bytes that a pointer and a length of C stand for; none for null.
///
/// # Safety
/// `data` is null or points to `length` readable bytes that do not change while the slice lives.
pub(super) unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, length) }
}

/// The bytes to write to; `None` for null.
///
/// # Safety
/// `data` is null or points to `length` writable bytes that nothing else uses while the slice lives.
pub(super) unsafe fn bytes_mut<'a>(data: *mut u8, length: usize) -> Option<&'a mut [u8]> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts_mut(data, length) })
}

/// Random bytes from libcrypto's generator for secrets.
pub(super) fn random(bytes: &mut [u8]) -> Option<()> {
    // SAFETY: the slice is writable for its length; null stands for the default library context.
    let done = unsafe { RAND_priv_bytes_ex(std::ptr::null_mut(), bytes.as_mut_ptr(), bytes.len(), 0) };
    (done == 1).then_some(())
}

/// Random bytes from libcrypto's generator for what others see.
pub(super) fn random_nonce(bytes: &mut [u8]) -> Option<()> {
    // SAFETY: the slice is writable for its length; null stands for the default library context.
    let done = unsafe { RAND_bytes_ex(std::ptr::null_mut(), bytes.as_mut_ptr(), bytes.len(), 0) };
    (done == 1).then_some(())
}

/// A table of functions by their numbers in `core_dispatch.h`.
macro_rules! dispatch {
    ($($id:literal => $function:path),* $(,)?) => {
        [$($crate::provider::ffi::Dispatch { id: $id, function: $function as *const () },)* $crate::provider::ffi::Dispatch::END]
    };
}
pub(super) use dispatch;
