//! What the provider tells libcrypto: its entry point and the tables of its algorithms.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
};

use super::{
    cipher::{block, ccm, ctr, gcm},
    decoder, digest, encryption, exchange,
    ffi::{Algorithm, Dispatch, dispatch, succeeds},
    kdf, key, mac,
    param::{self, Param},
    signature,
};

/// [`super::NAME`] for C.
pub(super) const C_NAME: &CStr = c"shangmq-accel";

static BASE: [Dispatch; 4] = dispatch![
    1025 => gettable_params,
    1026 => params,
    1027 => query,
];

/// The provider's entry point. It has no state.
pub(super) unsafe extern "C" fn init(
    handle: *const c_void,
    from_core: *const Dispatch,
    to_core: *mut *const Dispatch,
    context: *mut *mut c_void,
) -> c_int {
    succeeds(|| {
        // SAFETY: libcrypto passes its table and places for the two answers.
        unsafe {
            decoder::connect(from_core);
            *to_core.as_mut()? = BASE.as_ptr();
            // Never used, but null would read as a failure here and there.
            *context.as_mut()? = handle.cast_mut();
        }
        Some(())
    })
}

extern "C" fn gettable_params(_provider: *mut c_void) -> *const Param {
    static LIST: [Param; 4] = [Param::text(c"name"), Param::text(c"version"), Param::signed(c"status"), Param::END];
    LIST.as_ptr()
}

unsafe extern "C" fn params(_provider: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: libcrypto's list, which only this call uses.
        for param in unsafe { param::list_mut(params) } {
            if param.is(c"name") {
                param.set_text(c"ShangMQ accelerated SM2, SM3 and SM4")?;
            } else if param.is(c"version") {
                param.set_text(VERSION)?;
            } else if param.is(c"status") {
                param.set_number(1)?;
            }
        }
        Some(())
    })
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

const fn algorithm(names: &'static CStr, implementation: &'static [Dispatch]) -> Algorithm {
    with_properties(names, c"provider=shangmq-accel", implementation)
}

const fn with_properties(
    names: &'static CStr,
    properties: &'static CStr,
    implementation: &'static [Dispatch],
) -> Algorithm {
    Algorithm {
        names: names.as_ptr(),
        properties: properties.as_ptr(),
        implementation: implementation.as_ptr(),
        description: ptr::null(),
    }
}

/// Names as Tongsuo's own provider has them, with their object identifiers.
static DIGESTS: [Algorithm; 2] = [algorithm(c"SM3:1.2.156.10197.1.401", &digest::SM3), Algorithm::END];

static MACS: [Algorithm; 2] = [with_properties(c"HMAC", GM_PROPERTIES, &mac::HMAC), Algorithm::END];
static KDFS: [Algorithm; 2] = [with_properties(c"TLS1-PRF", GM_PROPERTIES, &kdf::TLS1_PRF), Algorithm::END];

static CIPHERS: [Algorithm; 6] = [
    algorithm(c"SM4-GCM:1.2.156.10197.1.104.8", &gcm::GCM),
    algorithm(c"SM4-CCM:1.2.156.10197.1.104.9", &ccm::CCM),
    algorithm(c"SM4-CBC:SM4:1.2.156.10197.1.104.2", &block::CBC),
    algorithm(c"SM4-CTR:1.2.156.10197.1.104.7", &ctr::CTR),
    algorithm(c"SM4-ECB:1.2.156.10197.1.104.1", &block::ECB),
    Algorithm::END,
];

const SM2_NAMES: &CStr = c"SM2:1.2.156.10197.1.301";
static SIGNATURES: [Algorithm; 2] = [algorithm(SM2_NAMES, &signature::SM2), Algorithm::END];
static ENCRYPTION: [Algorithm; 2] = [algorithm(SM2_NAMES, &encryption::SM2), Algorithm::END];

/// What every process prefers: this provider, but not what of it is for contexts of national algorithms alone. The question mark makes
/// each a preference: what the provider lacks is fetched elsewhere.
pub(super) const PREFERENCE: &CStr = c"?provider=shangmq-accel,?shangmq.gm!=yes";
/// What contexts prefer besides whose only curve is that of SM2 and whose only digest is SM3. The library names keys of every curve EC in a
/// handshake of TLS 1.3, and fetches HMAC and the pseudorandom function before it says for which digest; the provider does not know the
/// other curves and digests. The library hashes the text at each fetch, so that it is short.
pub(crate) const GM_PREFERENCE: &CStr = c"?shangmq.gm";
/// A name with a point in it, as the library wants of those that it does not define.
pub(super) const GM_PROPERTIES: &CStr = c"shangmq.gm=yes";
static KEYS: [Algorithm; 3] = [
    algorithm(SM2_NAMES, &key::SM2),
    with_properties(c"EC:id-ecPublicKey:1.2.840.10045.2.1", GM_PROPERTIES, &key::CURVE_KEYS),
    Algorithm::END,
];
static EXCHANGES: [Algorithm; 3] = [
    algorithm(c"SM2DH", &exchange::SM2DH),
    with_properties(c"ECDH", GM_PROPERTIES, &exchange::CURVE_DH),
    Algorithm::END,
];

/// The properties that a decoder must have besides: what it reads, and in what structure.
const PUBLIC_KEY_PROPERTIES: &CStr = c"provider=shangmq-accel,input=der,structure=SubjectPublicKeyInfo";
static DECODERS: [Algorithm; 2] =
    [with_properties(SM2_NAMES, PUBLIC_KEY_PROPERTIES, &decoder::PUBLIC_KEY), Algorithm::END];

unsafe extern "C" fn query(_provider: *mut c_void, operation: c_int, may_not_cache: *mut c_int) -> *const Algorithm {
    if !may_not_cache.is_null() {
        // SAFETY: checked for null; libcrypto passes a place for the answer.
        unsafe { *may_not_cache = 0 };
    }
    // Numbers of `core_dispatch.h`.
    match operation {
        1 => DIGESTS.as_ptr(),
        2 => CIPHERS.as_ptr(),
        3 => MACS.as_ptr(),
        4 => KDFS.as_ptr(),
        10 => KEYS.as_ptr(),
        11 => EXCHANGES.as_ptr(),
        12 => SIGNATURES.as_ptr(),
        13 => ENCRYPTION.as_ptr(),
        21 => DECODERS.as_ptr(),
        _ => ptr::null(),
    }
}
