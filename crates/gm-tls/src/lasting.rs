//! How long the session of a client with a certificate may be resumed: until the first certificate of its chains expires, and no longer
//! than the lifetime of sessions after the handshake in which they were verified. Without this a certificate would be good for as long as
//! its holder keeps resuming, since TLS 1.3 gives a new ticket each time.
//!
//! The time goes with the session, in its ticket as well, as application data of eight bytes. A session that is over is no session: the
//! client is verified anew.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use openssl::error::ErrorStack;
use openssl::foreign_types::ForeignTypeRef;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::x509::X509Ref;
use openssl_sys::{SSL, SSL_SESSION};

use crate::cert::Certificate;
use crate::engine::unix_now;
use crate::ffi;
use crate::revocation::chain;

/// Makes a server's context judge what it resumes and how long its tickets are good for.
pub(crate) fn install(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: the context is the builder's own and live, and the callbacks are functions of this module that take no argument through
    // the pointer.
    let done =
        unsafe { ffi::SSL_CTX_set_session_ticket_cb(context.as_ptr(), Some(sealing), Some(opened), ptr::null_mut()) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Takes note that a chain of the connection's peer was verified of which the first certificate expires at `expires`, unix seconds.
pub(crate) fn limit(ssl: &SslRef, expires: i64) -> Result<(), ErrorStack> {
    // SAFETY: the connection is live and lends its session and its context, which are used here only.
    unsafe {
        let session = openssl_sys::SSL_get_session(ssl.as_ptr());
        if session.is_null() {
            return Err(ErrorStack::get());
        }
        let lifetime = ffi::SSL_CTX_get_timeout(openssl_sys::SSL_get_SSL_CTX(ssl.as_ptr()));
        // Over TLCP there is another chain, verified before.
        let until = expires.min(unix_now().saturating_add(lifetime)).min(until(session).unwrap_or(i64::MAX));
        let data = until.to_be_bytes();
        if ffi::SSL_SESSION_set1_ticket_appdata(session, data.as_ptr().cast(), data.len()) != 1 {
            return Err(ErrorStack::get());
        }
        shorten(session, until, 0);
    }
    Ok(())
}

/// Whether the session that a connection goes on from is over, or is of a peer with a certificate and says nothing of it.
pub(crate) fn is_over(ssl: &SslRef) -> bool {
    // SAFETY: the connection is live and lends its session.
    let until = unsafe {
        let session = openssl_sys::SSL_get_session(ssl.as_ptr());
        if session.is_null() { None } else { until(session) }
    };
    until.is_none_or(|until| until <= unix_now())
}

/// # Safety
/// `session` must be live.
unsafe fn until(session: *mut SSL_SESSION) -> Option<i64> {
    let (mut data, mut length) = (ptr::null_mut::<c_void>(), 0);
    // SAFETY: the caller vouches for the session, and both places are live. The bytes belong to the session and are copied at once.
    unsafe {
        let found = ffi::SSL_SESSION_get0_ticket_appdata(session, &mut data, &mut length);
        if found != 1 || data.is_null() || length != size_of::<i64>() {
            return None;
        }
        Some(i64::from_be_bytes(data.cast::<[u8; 8]>().read_unaligned()))
    }
}

/// Ends a session at a time, if it would last longer, but lets it last for `least` seconds.
///
/// # Safety
/// `session` must be live.
unsafe fn shorten(session: *mut SSL_SESSION, until: i64, least: i64) {
    // SAFETY: the caller vouches for the session.
    unsafe {
        let begun = openssl_sys::SSL_SESSION_get_time(session);
        let lasts = openssl_sys::SSL_SESSION_get_timeout(session);
        // A second less: the library counts from the whole moment of which only the second is told.
        let left = until.saturating_sub(begun).saturating_sub(1).min(lasts).max(least);
        ffi::SSL_SESSION_set_timeout(session, left);
    }
}

/// Called when a ticket is made. In TLS 1.3 the session has just been given the current time, and with it the whole lifetime.
unsafe extern "C" fn sealing(ssl: *mut SSL, _arg: *mut c_void) -> c_int {
    // SAFETY: the library calls with a live connection, whose session is borrowed here only.
    unsafe {
        let session = openssl_sys::SSL_get_session(ssl);
        if !session.is_null()
            && let Some(until) = until(session)
        {
            // The library cannot encode a session that lasts for no time at all.
            shorten(session, until, 1);
        }
    }
    1
}

/// `SSL_TICKET_STATUS` and `SSL_TICKET_RETURN` of `openssl/ssl.h`.
const STATUS_SUCCESS: c_int = 5;
const STATUS_SUCCESS_RENEW: c_int = 6;
const RETURN_IGNORE_RENEW: c_int = 2;
const RETURN_USE: c_int = 3;
const RETURN_USE_RENEW: c_int = 4;

/// Called when a ticket was opened, or could not be.
unsafe extern "C" fn opened(
    ssl: *mut SSL,
    session: *mut SSL_SESSION,
    _key_name: *const u8,
    _key_name_len: usize,
    status: c_int,
    _arg: *mut c_void,
) -> c_int {
    let usable = match status {
        STATUS_SUCCESS => RETURN_USE,
        STATUS_SUCCESS_RENEW => RETURN_USE_RENEW,
        _ => return RETURN_IGNORE_RENEW,
    };
    // SAFETY: the library calls with a live connection and the session of the ticket, both of which outlive the call.
    let good = catch_unwind(AssertUnwindSafe(|| unsafe { may_go_on(SslRef::from_ptr(ssl), session) }));
    // A panic that reached the library's frames would end the process.
    if good.unwrap_or(false) { usable } else { RETURN_IGNORE_RENEW }
}

/// # Safety
/// `session` must be null or live.
unsafe fn may_go_on(ssl: &SslRef, session: *mut SSL_SESSION) -> bool {
    if session.is_null() {
        return false;
    }
    // SAFETY: checked for null; the certificate belongs to the session, which the caller vouches for, and is copied.
    let (peer, until) = unsafe {
        let peer = ffi::SSL_SESSION_get0_peer(session);
        let peer = (!peer.is_null()).then(|| X509Ref::from_ptr(peer).to_owned());
        (peer, until(session))
    };
    let Some(peer) = peer else { return true };
    if until.is_none_or(|until| until <= unix_now()) {
        return false;
    }
    // A session brings no chain. Whoever would be refused for that is asked for it.
    chain::inspector(ssl).is_none_or(|inspector| inspector.knows_issuer(&Certificate::from_x509(peer)))
}
