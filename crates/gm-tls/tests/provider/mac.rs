//! HMAC and the pseudorandom function with SM3 against the library's own, and what is fetched for other digests.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr,
};

use gm_tls::provider::{Operation, served};

use crate::{THEIRS, harness::noise, start};

/// How contexts of national algorithms alone ask, without a question mark.
const OURS: &str = "shangmq.gm=yes";

#[repr(C)]
struct Param {
    key: *const c_char,
    kind: c_uint,
    data: *mut c_void,
    size: usize,
    returned: usize,
}

unsafe extern "C" {
    fn EVP_MAC_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;
    fn EVP_MAC_get0_provider(method: *const c_void) -> *const c_void;
    fn EVP_MAC_free(method: *mut c_void);
    fn EVP_MAC_CTX_new(method: *mut c_void) -> *mut c_void;
    fn EVP_MAC_CTX_dup(context: *const c_void) -> *mut c_void;
    fn EVP_MAC_CTX_free(context: *mut c_void);
    fn EVP_MAC_CTX_get_mac_size(context: *mut c_void) -> usize;
    fn EVP_MAC_CTX_get_block_size(context: *mut c_void) -> usize;
    fn EVP_MAC_CTX_set_params(context: *mut c_void, params: *const Param) -> c_int;
    fn EVP_MAC_init(context: *mut c_void, key: *const u8, length: usize, params: *const Param) -> c_int;
    fn EVP_MAC_update(context: *mut c_void, data: *const u8, length: usize) -> c_int;
    fn EVP_MAC_final(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int;
    fn EVP_KDF_fetch(library: *mut c_void, name: *const c_char, properties: *const c_char) -> *mut c_void;
    fn EVP_KDF_get0_provider(method: *const c_void) -> *const c_void;
    fn OSSL_PROVIDER_get0_name(provider: *const c_void) -> *const c_char;
    fn EVP_KDF_free(method: *mut c_void);
    fn EVP_KDF_CTX_new(method: *mut c_void) -> *mut c_void;
    fn EVP_KDF_CTX_free(context: *mut c_void);
    fn EVP_KDF_CTX_reset(context: *mut c_void);
    fn EVP_KDF_CTX_set_params(context: *mut c_void, params: *const Param) -> c_int;
    fn EVP_KDF_derive(context: *mut c_void, key: *mut u8, length: usize, params: *const Param) -> c_int;
}

const END: Param = Param { key: ptr::null(), kind: 0, data: ptr::null_mut(), size: 0, returned: usize::MAX };

fn text(key: &'static CStr, value: &str) -> Param {
    Param {
        key: key.as_ptr(),
        kind: 4,
        data: value.as_ptr().cast_mut().cast(),
        size: value.len(),
        returned: usize::MAX,
    }
}

fn octets(key: &'static CStr, value: &[u8]) -> Param {
    Param {
        key: key.as_ptr(),
        kind: 5,
        data: value.as_ptr().cast_mut().cast(),
        size: value.len(),
        returned: usize::MAX,
    }
}

/// The library reads the name of a digest up to a zero byte.
const SM3: &str = "SM3\0";

fn named(digest: &'static str) -> [Param; 2] {
    let mut param = text(c"digest", digest);
    param.size -= 1;
    [param, END]
}

struct Hmac(*mut c_void);

impl Hmac {
    fn new(properties: &str, digest: &'static str) -> Hmac {
        let hmac = Hmac::unset(properties);
        // SAFETY: the context is live, the list ends with a null name.
        assert_eq!(unsafe { EVP_MAC_CTX_set_params(hmac.0, named(digest).as_ptr()) }, 1);
        hmac
    }

    fn unset(properties: &str) -> Hmac {
        let properties = CString::new(properties).unwrap();
        // SAFETY: all pointers are live for the calls.
        unsafe {
            let method = EVP_MAC_fetch(ptr::null_mut(), c"HMAC".as_ptr(), properties.as_ptr());
            assert!(!method.is_null());
            let context = EVP_MAC_CTX_new(method);
            EVP_MAC_free(method);
            assert!(!context.is_null());
            Hmac(context)
        }
    }

    fn init(&self, key: Option<&[u8]>) -> bool {
        let (data, length) = key.map_or((ptr::null(), 0), |key| (key.as_ptr(), key.len()));
        // SAFETY: the context is live; the key has that length.
        unsafe { EVP_MAC_init(self.0, data, length, ptr::null()) == 1 }
    }

    fn update(&self, data: &[u8]) -> bool {
        // SAFETY: the context is live; the data have that length.
        unsafe { EVP_MAC_update(self.0, data.as_ptr(), data.len()) == 1 }
    }

    fn finish(&self) -> Option<Vec<u8>> {
        let (mut code, mut length) = (vec![0; 64], 0);
        // SAFETY: the context is live; the buffer has that size.
        let done = unsafe { EVP_MAC_final(self.0, code.as_mut_ptr(), &raw mut length, code.len()) };
        code.truncate(length);
        (done == 1).then_some(code)
    }

    fn duplicate(&self) -> Hmac {
        // SAFETY: the context is live.
        let copy = unsafe { EVP_MAC_CTX_dup(self.0) };
        assert!(!copy.is_null());
        Hmac(copy)
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        // SAFETY: made once, freed once.
        unsafe { EVP_MAC_CTX_free(self.0) };
        drop(openssl::error::ErrorStack::get());
    }
}

#[test]
fn codes_are_the_librarys_for_every_length_of_key_and_message() {
    start();
    for key in [0, 1, 31, 32, 63, 64, 65, 127, 128, 129, 300] {
        let key = noise(key);
        let codes = [OURS, THEIRS].map(|properties| {
            let hmac = Hmac::new(properties, SM3);
            let mut codes = Vec::new();
            for length in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000] {
                let message = noise(length);
                assert!(hmac.init(Some(&key)));
                let (head, tail) = message.split_at(length / 3);
                assert!(hmac.update(head));
                let copy = hmac.duplicate();
                assert!(hmac.update(tail) && copy.update(tail));
                let code = hmac.finish().unwrap();
                assert_eq!(copy.finish().unwrap(), code);
                // With the key that is there.
                assert!(hmac.init(None) && hmac.update(&message));
                assert_eq!(hmac.finish().unwrap(), code);
                codes.push(code);
            }
            // SAFETY: the context is live.
            unsafe {
                assert_eq!(EVP_MAC_CTX_get_mac_size(hmac.0), 32);
                assert_eq!(EVP_MAC_CTX_get_block_size(hmac.0), 64);
            }
            codes
        });
        assert_eq!(codes[0], codes[1], "key of {} bytes", key.len());
    }
}

#[test]
fn a_code_without_a_digest_or_a_key_is_refused() {
    start();
    for properties in [OURS, THEIRS] {
        assert!(!Hmac::unset(properties).init(Some(b"key")), "{properties}: no digest");
        assert!(!Hmac::new(properties, SM3).init(None), "{properties}: no key");
    }
    assert!(!Hmac::new(OURS, SM3).update(b"before the key"));
    let unknown = Hmac::unset(OURS);
    // SAFETY: the context is live, the list ends with a null name.
    assert_ne!(unsafe { EVP_MAC_CTX_set_params(unknown.0, named("SM9\0").as_ptr()) }, 1);
}

/// As tickets have them.
#[test]
fn codes_with_another_digest_are_the_librarys() {
    start();
    for key in [0, 32, 64, 65] {
        let (key, message) = (noise(key), noise(200));
        let codes = [OURS, THEIRS].map(|properties| {
            let hmac = Hmac::new(properties, "SHA2-256\0");
            assert!(hmac.init(Some(&key)) && hmac.update(&message));
            let copy = hmac.duplicate();
            assert!(copy.update(&message));
            [hmac.finish().unwrap(), copy.finish().unwrap()]
        });
        assert_eq!(codes[0], codes[1]);
    }
}

/// A record of TLS: the header, then the text, of which only the length of all with padding is public.
#[test]
fn codes_of_padded_records_are_the_librarys() {
    start();
    let key = noise(32);
    for text in [0, 1, 40, 200, 1000] {
        let record = noise(text + 32 + 64);
        let codes = [OURS, THEIRS].map(|properties| {
            let hmac = Hmac::new(properties, SM3);
            assert!(hmac.init(Some(&key)));
            let mut size = record.len();
            let number =
                Param { key: c"tls-data-size".as_ptr(), kind: 2, data: (&raw mut size).cast(), size: 8, returned: 0 };
            // SAFETY: the context is live, the list ends with a null name.
            assert_eq!(unsafe { EVP_MAC_CTX_set_params(hmac.0, [number, END].as_ptr()) }, 1);
            let header = [&noise(11)[..], &(text as u16).to_be_bytes()].concat();
            assert!(hmac.update(&header) && hmac.update(&record[..text]));
            hmac.finish().unwrap()
        });
        assert_eq!(codes[0], codes[1], "{text} bytes");
    }
}

fn prf(properties: &str, digest: &'static str, secret: &[u8], seeds: [&[u8]; 2], length: usize) -> Option<Vec<u8>> {
    let properties = CString::new(properties).unwrap();
    let mut out = vec![0; length];
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    let done = unsafe {
        let method = EVP_KDF_fetch(ptr::null_mut(), c"TLS1-PRF".as_ptr(), properties.as_ptr());
        assert!(!method.is_null());
        let context = EVP_KDF_CTX_new(method);
        EVP_KDF_free(method);
        let [digest, end] = named(digest);
        let list = [digest, octets(c"secret", secret), octets(c"seed", seeds[0]), octets(c"seed", seeds[1]), end];
        let at_once = EVP_KDF_derive(context, out.as_mut_ptr(), length, list.as_ptr());
        // One after the other, the digest last.
        EVP_KDF_CTX_reset(context);
        let [digest, secret, first, second, _] = list;
        for param in [secret, first, second, digest] {
            assert_eq!(EVP_KDF_CTX_set_params(context, [param, END].as_ptr()), 1);
        }
        let mut again = vec![0; length];
        assert_eq!(EVP_KDF_derive(context, again.as_mut_ptr(), length, ptr::null()), at_once);
        assert_eq!(again, out);
        // Nothing of it is left.
        EVP_KDF_CTX_reset(context);
        assert_ne!(EVP_KDF_derive(context, again.as_mut_ptr(), length, ptr::null()), 1);
        EVP_KDF_CTX_free(context);
        at_once
    };
    drop(openssl::error::ErrorStack::get());
    (done == 1).then_some(out)
}

#[test]
fn the_pseudorandom_function_is_the_librarys() {
    start();
    for secret in [0, 1, 48, 64, 65, 200] {
        for length in [1, 12, 31, 32, 33, 48, 64, 128, 250] {
            let (secret, seed) = (noise(secret), noise(77));
            let seeds: [&[u8]; 2] = [b"master secret", &seed];
            let found = prf(OURS, SM3, &secret, seeds, length);
            assert_eq!(found, prf(THEIRS, SM3, &secret, seeds, length), "{} {length}", secret.len());
            assert!(found.is_some());
        }
    }
    let before = served(Operation::Prf);
    assert_eq!(prf(OURS, SM3, b"secret", [b"", b""], 48), None, "without a seed");
    assert_eq!(prf(OURS, SM3, b"secret", [b"seed", b""], 0), None, "nothing to derive");
    assert!(served(Operation::Prf) > before);
}

/// Not of SM3, with the key and the seed before it or after: nothing is derived.
#[test]
fn the_pseudorandom_function_with_another_digest_is_refused() {
    start();
    let mut out = [0; 48];
    let [digest, end] = named("SHA2-256\0");
    let list = [octets(c"secret", b"secret"), octets(c"seed", b"seed"), digest, end];
    // SAFETY: all pointers are live for the calls, and sizes are those of their buffers.
    unsafe {
        let method = EVP_KDF_fetch(ptr::null_mut(), c"TLS1-PRF".as_ptr(), c"shangmq.gm=yes".as_ptr());
        let context = EVP_KDF_CTX_new(method);
        EVP_KDF_free(method);
        assert!(!context.is_null());
        assert_ne!(EVP_KDF_derive(context, out.as_mut_ptr(), out.len(), list.as_ptr()), 1);
        // Even after SM3 was named.
        assert_eq!(EVP_KDF_CTX_set_params(context, named(SM3).as_ptr()), 1);
        assert_ne!(EVP_KDF_derive(context, out.as_mut_ptr(), out.len(), list.as_ptr()), 1);
        assert_ne!(EVP_KDF_derive(context, out.as_mut_ptr(), out.len(), ptr::null()), 1);
        EVP_KDF_CTX_free(context);
    }
    assert_eq!(out, [0; 48]);
    drop(openssl::error::ErrorStack::get());
}

/// Who asks for nothing may mean any digest.
#[test]
fn other_digests_meet_the_librarys_own() {
    start();
    // SAFETY: null is the default library context, the strings are static, and a provider's name lives as long as the provider.
    unsafe {
        let method = EVP_MAC_fetch(ptr::null_mut(), c"HMAC".as_ptr(), ptr::null());
        assert_eq!(CStr::from_ptr(OSSL_PROVIDER_get0_name(EVP_MAC_get0_provider(method))), c"default");
        EVP_MAC_free(method);
        let method = EVP_KDF_fetch(ptr::null_mut(), c"TLS1-PRF".as_ptr(), ptr::null());
        assert_eq!(CStr::from_ptr(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(method))), c"default");
        EVP_KDF_free(method);
    }
    for digest in [SM3, "SHA2-256\0"] {
        let hmac = Hmac::new("", digest);
        assert!(hmac.init(Some(b"key")) && hmac.update(b"message"));
        assert_eq!(hmac.finish().map(|code| code.len()), Some(32), "{digest}");
        assert!(prf("", digest, b"secret", [b"seed", b""], 48).is_some(), "{digest}");
    }
}
