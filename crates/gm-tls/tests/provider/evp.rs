//! Operations of the library on keys, from the provider that a query names, which the Rust binding cannot choose.

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    ptr,
};

use openssl::{
    foreign_types::ForeignTypeRef,
    pkey::{HasPrivate, HasPublic, PKeyRef},
};
use openssl_sys::EVP_PKEY;

unsafe extern "C" {
    pub fn EVP_MD_CTX_copy_ex(to: *mut openssl_sys::EVP_MD_CTX, from: *const openssl_sys::EVP_MD_CTX) -> c_int;
    fn EVP_MD_CTX_new() -> *mut c_void;
    fn EVP_MD_CTX_free(context: *mut c_void);
    fn EVP_DigestSignInit_ex(
        context: *mut c_void,
        inner: *mut *mut c_void,
        digest: *const c_char,
        library: *mut c_void,
        properties: *const c_char,
        key: *mut EVP_PKEY,
        params: *const c_void,
    ) -> c_int;
    fn EVP_DigestVerifyInit_ex(
        context: *mut c_void,
        inner: *mut *mut c_void,
        digest: *const c_char,
        library: *mut c_void,
        properties: *const c_char,
        key: *mut EVP_PKEY,
        params: *const c_void,
    ) -> c_int;
    fn EVP_PKEY_CTX_set1_id(context: *mut c_void, id: *const c_void, length: c_int) -> c_int;
    fn EVP_DigestUpdate(context: *mut c_void, data: *const u8, length: usize) -> c_int;
    fn EVP_DigestSign(context: *mut c_void, out: *mut u8, size: *mut usize, data: *const u8, length: usize) -> c_int;
    fn EVP_DigestSignFinal(context: *mut c_void, out: *mut u8, size: *mut usize) -> c_int;
    fn EVP_DigestVerify(context: *mut c_void, sig: *const u8, size: usize, data: *const u8, length: usize) -> c_int;
    fn EVP_DigestVerifyFinal(context: *mut c_void, signature: *const u8, size: usize) -> c_int;
    fn EVP_PKEY_CTX_new_from_pkey(library: *mut c_void, key: *mut EVP_PKEY, properties: *const c_char) -> *mut c_void;
    fn EVP_PKEY_CTX_free(context: *mut c_void);
    fn EVP_PKEY_sign_init(context: *mut c_void) -> c_int;
    fn EVP_PKEY_sign(context: *mut c_void, out: *mut u8, size: *mut usize, data: *const u8, length: usize) -> c_int;
    fn EVP_PKEY_verify_init(context: *mut c_void) -> c_int;
    fn EVP_PKEY_verify(context: *mut c_void, sig: *const u8, size: usize, data: *const u8, length: usize) -> c_int;
    fn EVP_PKEY_encrypt_init(context: *mut c_void) -> c_int;
    fn EVP_PKEY_encrypt(context: *mut c_void, out: *mut u8, size: *mut usize, data: *const u8, length: usize) -> c_int;
    fn EVP_PKEY_decrypt_init(context: *mut c_void) -> c_int;
    fn EVP_PKEY_decrypt(context: *mut c_void, out: *mut u8, size: *mut usize, data: *const u8, length: usize) -> c_int;
    fn EVP_PKEY_CTX_set_params(context: *mut c_void, params: *const OsslParam) -> c_int;
    fn OSSL_PARAM_construct_uint(key: *const c_char, value: *mut c_uint) -> OsslParam;
    fn OSSL_PARAM_construct_end() -> OsslParam;
}

#[repr(C)]
struct OsslParam {
    key: *const c_char,
    kind: c_uint,
    data: *mut c_void,
    size: usize,
    returned: usize,
}

/// Whether a message is passed at once or in pieces.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    AtOnce,
    InPieces,
    /// In pieces, and after the first by a copy of the context, while its original goes on with something else.
    Copied,
}

struct Digesting(*mut c_void);

impl Drop for Digesting {
    fn drop(&mut self) {
        // SAFETY: made by `EVP_MD_CTX_new`, freed once.
        unsafe { EVP_MD_CTX_free(self.0) };
        drop(openssl::error::ErrorStack::get());
    }
}

impl Digesting {
    fn copy(&self) -> Digesting {
        // SAFETY: the context is live.
        unsafe {
            let copy = Digesting(EVP_MD_CTX_new());
            assert_eq!(EVP_MD_CTX_copy_ex(copy.0.cast(), self.0.cast()), 1);
            assert_eq!(EVP_DigestUpdate(self.0, b"else".as_ptr(), 4), 1);
            copy
        }
    }
}

struct Context(*mut c_void);

impl Context {
    fn new(properties: &str, key: *mut EVP_PKEY) -> Context {
        let properties = CString::new(properties).unwrap();
        // SAFETY: the key is live; null is the default library context.
        let context = unsafe { EVP_PKEY_CTX_new_from_pkey(ptr::null_mut(), key, properties.as_ptr()) };
        assert!(!context.is_null());
        Context(context)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `EVP_PKEY_CTX_new_from_pkey`, freed once.
        unsafe { EVP_PKEY_CTX_free(self.0) };
        drop(openssl::error::ErrorStack::get());
    }
}

/// A context that signs with SM3, and the context of the key in it.
fn signing<T: HasPrivate>(properties: &str, key: &PKeyRef<T>) -> (Digesting, *mut c_void) {
    let query = CString::new(properties).unwrap();
    let mut inner = ptr::null_mut();
    // SAFETY: all pointers are live for the call.
    unsafe {
        let context = Digesting(EVP_MD_CTX_new());
        let init = EVP_DigestSignInit_ex(
            context.0,
            &raw mut inner,
            c"SM3".as_ptr(),
            ptr::null_mut(),
            query.as_ptr(),
            key.as_ptr(),
            ptr::null(),
        );
        assert_eq!(init, 1);
        (context, inner)
    }
}

pub fn sign<T: HasPrivate>(properties: &str, key: &PKeyRef<T>, id: Option<&[u8]>, message: &[u8], way: Way) -> Vec<u8> {
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        let (context, inner) = signing(properties, key);
        if let Some(id) = id {
            assert_eq!(EVP_PKEY_CTX_set1_id(inner, id.as_ptr().cast(), id.len() as c_int), 1);
        }
        let (mut signature, mut size) = (vec![0; 128], 128);
        let done = match way {
            Way::AtOnce => {
                EVP_DigestSign(context.0, signature.as_mut_ptr(), &raw mut size, message.as_ptr(), message.len())
            }
            Way::InPieces | Way::Copied => {
                let (head, tail) = message.split_at(message.len() / 2);
                assert_eq!(EVP_DigestUpdate(context.0, head.as_ptr(), head.len()), 1);
                let copy = matches!(way, Way::Copied).then(|| context.copy());
                let context = copy.as_ref().unwrap_or(&context);
                assert_eq!(EVP_DigestUpdate(context.0, tail.as_ptr(), tail.len()), 1);
                EVP_DigestSignFinal(context.0, signature.as_mut_ptr(), &raw mut size)
            }
        };
        assert_eq!(done, 1, "{}", openssl::error::ErrorStack::get());
        signature.truncate(size);
        signature
    }
}

/// Whether an ID is taken when so much of the message has been signed.
pub fn takes_id<T: HasPrivate>(properties: &str, key: &PKeyRef<T>, id: &[u8], begun: &[u8]) -> bool {
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        let (context, inner) = signing(properties, key);
        if !begun.is_empty() {
            assert_eq!(EVP_DigestUpdate(context.0, begun.as_ptr(), begun.len()), 1);
        }
        EVP_PKEY_CTX_set1_id(inner, id.as_ptr().cast(), id.len() as c_int) == 1
    }
}

pub fn verify<T: HasPublic>(
    properties: &str,
    key: &PKeyRef<T>,
    id: Option<&[u8]>,
    message: &[u8],
    signature: &[u8],
    way: Way,
) -> bool {
    let query = CString::new(properties).unwrap();
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        let (context, mut inner) = (Digesting(EVP_MD_CTX_new()), ptr::null_mut());
        let init = EVP_DigestVerifyInit_ex(
            context.0,
            &raw mut inner,
            c"SM3".as_ptr(),
            ptr::null_mut(),
            query.as_ptr(),
            key.as_ptr(),
            ptr::null(),
        );
        assert_eq!(init, 1);
        if let Some(id) = id {
            assert_eq!(EVP_PKEY_CTX_set1_id(inner, id.as_ptr().cast(), id.len() as c_int), 1);
        }
        let done = match way {
            Way::AtOnce => {
                EVP_DigestVerify(context.0, signature.as_ptr(), signature.len(), message.as_ptr(), message.len())
            }
            Way::InPieces | Way::Copied => {
                let (head, tail) = message.split_at(message.len() / 2);
                assert_eq!(EVP_DigestUpdate(context.0, head.as_ptr(), head.len()), 1);
                let copy = matches!(way, Way::Copied).then(|| context.copy());
                let context = copy.as_ref().unwrap_or(&context);
                assert_eq!(EVP_DigestUpdate(context.0, tail.as_ptr(), tail.len()), 1);
                EVP_DigestVerifyFinal(context.0, signature.as_ptr(), signature.len())
            }
        };
        done == 1
    }
}

pub fn sign_digest<T: HasPrivate>(properties: &str, key: &PKeyRef<T>, digest: &[u8]) -> Option<Vec<u8>> {
    let context = Context::new(properties, key.as_ptr());
    let (mut signature, mut size) = (vec![0; 128], 128);
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    let done = unsafe {
        assert_eq!(EVP_PKEY_sign_init(context.0), 1);
        EVP_PKEY_sign(context.0, signature.as_mut_ptr(), &raw mut size, digest.as_ptr(), digest.len())
    };
    signature.truncate(size);
    (done == 1).then_some(signature)
}

pub fn verify_digest<T: HasPublic>(properties: &str, key: &PKeyRef<T>, digest: &[u8], signature: &[u8]) -> bool {
    let context = Context::new(properties, key.as_ptr());
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        assert_eq!(EVP_PKEY_verify_init(context.0), 1);
        EVP_PKEY_verify(context.0, signature.as_ptr(), signature.len(), digest.as_ptr(), digest.len()) == 1
    }
}

pub fn encrypt<T: HasPublic>(properties: &str, key: &PKeyRef<T>, plaintext: &[u8]) -> Vec<u8> {
    let context = Context::new(properties, key.as_ptr());
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        assert_eq!(EVP_PKEY_encrypt_init(context.0), 1);
        let mut size = 0;
        let asked = EVP_PKEY_encrypt(context.0, ptr::null_mut(), &raw mut size, plaintext.as_ptr(), plaintext.len());
        assert_eq!(asked, 1);
        let mut out = vec![0; size];
        let done = EVP_PKEY_encrypt(context.0, out.as_mut_ptr(), &raw mut size, plaintext.as_ptr(), plaintext.len());
        assert_eq!(done, 1);
        out.truncate(size);
        out
    }
}

/// With a version, as the premaster secret of TLCP, which always comes to 48 bytes.
pub fn decrypt<T: HasPrivate>(
    properties: &str,
    key: &PKeyRef<T>,
    ciphertext: &[u8],
    version: Option<u16>,
) -> Option<Vec<u8>> {
    let context = Context::new(properties, key.as_ptr());
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        assert_eq!(EVP_PKEY_decrypt_init(context.0), 1);
        if let Some(version) = version {
            let mut version = c_uint::from(version);
            let params = [
                OSSL_PARAM_construct_uint(c"tls-client-version".as_ptr(), &raw mut version),
                OSSL_PARAM_construct_end(),
            ];
            assert_eq!(EVP_PKEY_CTX_set_params(context.0, params.as_ptr()), 1);
        }
        let (mut out, mut size) = (vec![0; ciphertext.len() + 48], ciphertext.len() + 48);
        let done = EVP_PKEY_decrypt(context.0, out.as_mut_ptr(), &raw mut size, ciphertext.as_ptr(), ciphertext.len());
        out.truncate(size);
        (done == 1).then_some(out)
    }
}
