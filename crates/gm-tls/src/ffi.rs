//! Functions of the library that its Rust binding does not declare. Each line follows the prototype in the library's public
//! `openssl/ssl.h` or `openssl/x509_vfy.h`; nothing private is touched.

use std::ffi::{c_char, c_int, c_long, c_void};

use openssl_sys::{SSL, SSL_CTX, SSL_METHOD, SSL_SESSION, X509, X509_STORE_CTX, X509_VERIFY_PARAM, stack_st_X509};

/// Purpose that accepts every key usage, `X509_PURPOSE_ANY`.
pub(crate) const X509_PURPOSE_ANY: c_int = 7;

/// `SSL_CTRL_GET_CLIENT_CERT_TYPES`, by which `SSL_get0_certificate_types` is defined.
pub(crate) const SSL_CTRL_GET_CLIENT_CERT_TYPES: c_int = 103;

/// `SSL_CTRL_GET_GROUPS`, by which `SSL_get1_groups` is defined.
pub(crate) const SSL_CTRL_GET_GROUPS: c_int = 90;

/// `SSL_CTRL_GET_SHARED_GROUP`, by which `SSL_get_shared_group` is defined.
pub(crate) const SSL_CTRL_GET_SHARED_GROUP: c_int = 93;

unsafe extern "C" {
    /// The name of a group by what `SSL_get1_groups` gives for it, owned by the library; null where it does not know it.
    pub(crate) fn SSL_group_to_name(ssl: *mut SSL, id: c_int) -> *const c_char;
    /// Replaces the verification of a peer's chain: called exactly once for each chain, where the ordinary callback runs for
    /// each certificate and cannot tell the two chains of a TLCP peer apart.
    pub(crate) fn SSL_CTX_set_cert_verify_callback(
        ctx: *mut SSL_CTX,
        cb: Option<unsafe extern "C" fn(*mut X509_STORE_CTX, *mut c_void) -> c_int>,
        arg: *mut c_void,
    );
    /// A context that fetches what it needs with these properties besides the default ones.
    pub(crate) fn SSL_CTX_new_ex(
        library: *mut c_void,
        properties: *const c_char,
        method: *const SSL_METHOD,
    ) -> *mut SSL_CTX;
    /// Lifetime of sessions and tickets in seconds.
    pub(crate) fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long;
    /// The suites a context accepts, borrowed from it.
    pub(crate) fn SSL_CTX_get_ciphers(ctx: *const SSL_CTX) -> *mut openssl_sys::stack_st_SSL_CIPHER;
    /// Whether a session can be offered again: under TLS 1.3 only once a ticket has come.
    pub(crate) fn SSL_SESSION_is_resumable(session: *const SSL_SESSION) -> c_int;
    /// Lifetime of a context's sessions in seconds.
    pub(crate) fn SSL_CTX_get_timeout(ctx: *const SSL_CTX) -> c_long;
    /// Lifetime of one session in seconds.
    pub(crate) fn SSL_SESSION_set_timeout(session: *mut SSL_SESSION, seconds: c_long) -> c_long;
    /// The peer's certificate, owned by the session.
    pub(crate) fn SSL_SESSION_get0_peer(session: *mut SSL_SESSION) -> *mut X509;
    /// Bytes that go with a session into its ticket; they are copied.
    pub(crate) fn SSL_SESSION_set1_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *const c_void,
        length: usize,
    ) -> c_int;
    /// The same, owned by the session.
    pub(crate) fn SSL_SESSION_get0_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> c_int;
    /// Asks when a ticket is made, and when one was opened.
    pub(crate) fn SSL_CTX_set_session_ticket_cb(
        ctx: *mut SSL_CTX,
        made: Option<unsafe extern "C" fn(*mut SSL, *mut c_void) -> c_int>,
        opened: Option<unsafe extern "C" fn(*mut SSL, *mut SSL_SESSION, *const u8, usize, c_int, *mut c_void) -> c_int>,
        arg: *mut c_void,
    ) -> c_int;
    /// The certificates a peer sent, leaf first, as the verification sees them.
    pub(crate) fn X509_STORE_CTX_get0_untrusted(ctx: *const X509_STORE_CTX) -> *mut stack_st_X509;
    /// Replaces the chain that a verification built, which the connection would keep. Takes `chain` over.
    pub(crate) fn X509_STORE_CTX_set0_verified_chain(ctx: *mut X509_STORE_CTX, chain: *mut stack_st_X509);
    /// The parameters of one verification, owned by it.
    pub(crate) fn X509_STORE_CTX_get0_param(ctx: *const X509_STORE_CTX) -> *mut X509_VERIFY_PARAM;
}

/// `OPENSSL_INIT_NO_LOAD_CONFIG` of `openssl/crypto.h`.
const NO_LOAD_CONFIG: u64 = 0x80;

/// Starts the library. The first call decides for the life of the process whether a configuration is loaded; the options besides are
/// those of the Rust binding.
pub(crate) fn start_without_configuration() {
    let options = NO_LOAD_CONFIG | openssl_sys::OPENSSL_INIT_LOAD_SSL_STRINGS | openssl_sys::OPENSSL_INIT_NO_ATEXIT;
    // SAFETY: the function may be called at any time and by any thread; without settings it takes no pointer. Should it fail, so does
    // everything that is asked of the library afterwards.
    unsafe { openssl_sys::OPENSSL_init_ssl(options, std::ptr::null()) };
}

/// `TONGSUO_VERSION` of `openssl/crypto.h`.
const TONGSUO_VERSION: c_int = 11;

/// Name and version of the linked library.
pub(crate) fn tongsuo_version() -> String {
    // SAFETY: the function takes any number and gives a static string.
    let text = unsafe { openssl_sys::OpenSSL_version(TONGSUO_VERSION) };
    if text.is_null() {
        return "unknown library".to_owned();
    }
    // SAFETY: checked for null above; the string is static and ends with a zero byte.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
