//! Says who serves what, by asking the library for each algorithm as everything else does.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
};

use super::{ffi, table::GM_PREFERENCE};

/// One algorithm and the provider that the library fetches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is used for, as `signature`.
    pub operation: &'static str,
    /// Its name in the library, as `SM2`.
    pub algorithm: &'static str,
    /// The provider's name; `None` if nobody offers it.
    pub provider: Option<String>,
}

struct Kind {
    operation: &'static str,
    algorithms: &'static [&'static CStr],
    /// What is preferred besides the defaults by contexts that use them for this family.
    preference: Option<&'static CStr>,
    fetch: ffi::Fetch,
    provider: unsafe extern "C" fn(*const c_void) -> *const c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

static KINDS: [Kind; 8] = [
    Kind {
        operation: "digest",
        algorithms: &[c"SM3"],
        preference: None,
        fetch: ffi::EVP_MD_fetch,
        provider: ffi::EVP_MD_get0_provider,
        free: ffi::EVP_MD_free,
    },
    Kind {
        operation: "mac",
        algorithms: &[c"HMAC"],
        preference: Some(GM_PREFERENCE),
        fetch: ffi::EVP_MAC_fetch,
        provider: ffi::EVP_MAC_get0_provider,
        free: ffi::EVP_MAC_free,
    },
    Kind {
        operation: "key derivation",
        algorithms: &[c"TLS1-PRF"],
        preference: Some(GM_PREFERENCE),
        fetch: ffi::EVP_KDF_fetch,
        provider: ffi::EVP_KDF_get0_provider,
        free: ffi::EVP_KDF_free,
    },
    Kind {
        operation: "cipher",
        algorithms: &[c"SM4-GCM", c"SM4-CCM", c"SM4-CBC", c"SM4-CTR", c"SM4-ECB"],
        preference: None,
        fetch: ffi::EVP_CIPHER_fetch,
        provider: ffi::EVP_CIPHER_get0_provider,
        free: ffi::EVP_CIPHER_free,
    },
    Kind {
        operation: "keys",
        algorithms: &[c"SM2"],
        preference: None,
        fetch: ffi::EVP_KEYMGMT_fetch,
        provider: ffi::EVP_KEYMGMT_get0_provider,
        free: ffi::EVP_KEYMGMT_free,
    },
    Kind {
        operation: "signature",
        algorithms: &[c"SM2"],
        preference: None,
        fetch: ffi::EVP_SIGNATURE_fetch,
        provider: ffi::EVP_SIGNATURE_get0_provider,
        free: ffi::EVP_SIGNATURE_free,
    },
    Kind {
        operation: "encryption",
        algorithms: &[c"SM2"],
        preference: None,
        fetch: ffi::EVP_ASYM_CIPHER_fetch,
        provider: ffi::EVP_ASYM_CIPHER_get0_provider,
        free: ffi::EVP_ASYM_CIPHER_free,
    },
    Kind {
        operation: "key exchange",
        algorithms: &[c"SM2DH"],
        preference: None,
        fetch: ffi::EVP_KEYEXCH_fetch,
        provider: ffi::EVP_KEYEXCH_get0_provider,
        free: ffi::EVP_KEYEXCH_free,
    },
];

/// Who serves each algorithm of the family at this moment.
pub fn services() -> Vec<Service> {
    crate::init();
    let mut found = Vec::new();
    for kind in &KINDS {
        for algorithm in kind.algorithms {
            found.push(Service {
                operation: kind.operation,
                algorithm: algorithm.to_str().unwrap_or_default(),
                provider: ask(kind, algorithm),
            });
        }
    }
    found
}

fn ask(kind: &Kind, algorithm: &CStr) -> Option<String> {
    let preference = kind.preference.map_or(ptr::null::<c_char>(), CStr::as_ptr);
    // SAFETY: null is the default library context and means no properties besides the defaults; the strings are static.
    let method = unsafe { (kind.fetch)(ptr::null_mut(), algorithm.as_ptr(), preference) };
    if method.is_null() {
        // Nobody offers it; the library's note of that is nobody's error.
        drop(openssl::error::ErrorStack::get());
        return None;
    }
    // SAFETY: the method is live until it is freed below, and its provider for as long as the process.
    let name = unsafe { ffi::OSSL_PROVIDER_get0_name((kind.provider)(method)) };
    // SAFETY: a provider's name is a string that ends with a zero byte and lives as long as the provider, or null.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    // SAFETY: fetched above, freed once.
    unsafe { (kind.free)(method) };
    name
}

/// The instructions of this processor that the accelerated provider can use.
pub fn cpu_features() -> Vec<&'static str> {
    sm_accel::cpu::features().names().collect()
}
