//! What a client offered that a server has nothing in common with, in words for the operator of the server.
//!
//! TLS 1.3 agrees upon suite, group and signature algorithm each by itself. In TLS 1.2 a suite needs a group and a certificate that fit, so that
//! the library misses a suite whichever of them is not there.

use std::ffi::{CStr, c_int};

use openssl::{foreign_types::ForeignTypeRef, ssl::SslRef};

use crate::{
    error::{HandshakeError, HandshakeFailure},
    ffi,
};

/// Most groups that are repeated.
const MAX_GROUPS_SHOWN: usize = 16;

/// The same failure of a server with what the client offered.
pub(crate) fn explain(ssl: &SslRef, error: HandshakeError) -> HandshakeError {
    use HandshakeFailure::{NoSharedGroup, NoSharedSignature, NoSharedSuite};
    let groups = Groups::of(ssl);
    let detail = match error.reason() {
        NoSharedGroup => groups.apart(),
        NoSharedSuite if groups.are_apart(ssl) => return HandshakeError::new(NoSharedGroup, groups.apart()),
        NoSharedSuite => format!(
            "no cipher suite in common that can be used: what both have is of another version or for certificates with other keys, or \
             needs another group than {groups}, or another signature algorithm, than the client offers"
        ),
        NoSharedSignature => {
            "the client accepts no signature algorithm that a certificate of this listener can sign by".to_owned()
        }
        _ => return error,
    };
    HandshakeError::new(error.reason(), detail)
}

/// The groups in a client's hello, in its order. None where it did not come to reading them, or a client of TLS 1.2 leaves them open.
struct Groups {
    names: Vec<String>,
    more: bool,
}

impl Groups {
    fn of(ssl: &SslRef) -> Groups {
        // SAFETY: the connection is live; without a place for them this command gives their number.
        let count = unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), ffi::SSL_CTRL_GET_GROUPS, 0, std::ptr::null_mut()) };
        let mut groups = vec![0; usize::try_from(count).unwrap_or(0)];
        if !groups.is_empty() {
            // SAFETY: as above, and there is room for as many as it said there are.
            unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), ffi::SSL_CTRL_GET_GROUPS, 0, groups.as_mut_ptr().cast()) };
        }
        let more = groups.len() > MAX_GROUPS_SHOWN;
        Groups { names: groups.iter().take(MAX_GROUPS_SHOWN).map(|group| name(ssl, *group)).collect(), more }
    }

    /// Whether the client named groups, and none that the server has for the version.
    fn are_apart(&self, ssl: &SslRef) -> bool {
        // SAFETY: the connection is live; with -1 this command counts and takes no pointer.
        let shared =
            unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), ffi::SSL_CTRL_GET_SHARED_GROUP, -1, std::ptr::null_mut()) };
        !self.names.is_empty() && shared == 0
    }

    fn apart(&self) -> String {
        format!("no group of the key exchange in common: the client offers {self}")
    }
}

impl std::fmt::Display for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.names.as_slice() {
            [] => f.write_str("none by name"),
            names => write!(f, "{}{}", names.join(" "), if self.more { " ..." } else { "" }),
        }
    }
}

/// The name of a group that the library knows, or the number that a client gave.
fn name(ssl: &SslRef, group: c_int) -> String {
    // SAFETY: the connection is live, and only read; the function takes any number.
    let name = unsafe { ffi::SSL_group_to_name(ssl.as_ptr(), group) };
    if name.is_null() {
        return format!("{:04x}", group & 0xffff);
    }
    // SAFETY: checked for null above; the string ends with a zero byte and is the context's, which the connection keeps.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
