//! Gives back what the library keeps of a client's certificates when the handshake is over: decoded, 5 KiB each, for as long as
//! the connection lives. What is known of the peer afterwards is its [`crate::identity::PeerIdentity`].

use std::ptr;

use openssl::foreign_types::{ForeignType, ForeignTypeRef};
use openssl::{error::ErrorStack, ssl::SslRef, x509::X509};
use openssl_sys::SSL_SESSION;
use zeroize::Zeroizing;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
/// The field `peer` of the library's encoding of a session, `[3] EXPLICIT`.
const PEER: u8 = 0xa3;
/// Among the octet strings of the encoding: after the suite and the session id.
const MASTER_KEY: usize = 2;

/// Takes the peer's certificates out of the session of a connection whose handshake is over. The session has no master secret any
/// more either, but its bytes stay in memory until the library frees the session: it only sets their length to zero. Suite, version
/// and extensions stay, since the library looks at them when it writes, when keys change, and when the peer tries to negotiate
/// again. Resumption needs both, so this must not be done to a session that others may find: one in a context's cache.
///
/// The session cannot be taken from the connection as a whole: `SSL_set_session` sets the connection's method back to the one it
/// began with, and with it the state of the protocol.
///
/// # Errors
/// The library has no memory. The session may then be incomplete, and the connection must end.
pub(crate) fn peer_certificates(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    // SAFETY: the connection is live; the session is only borrowed from it.
    let session = unsafe { openssl_sys::SSL_get_session(ssl.as_ptr()) };
    if session.is_null() {
        return Ok(());
    }
    // SAFETY: checked for null above; the connection, which is borrowed here, keeps it alive.
    let encoded = unsafe { encode(session) }?;
    let reduced = without_peer(&encoded).ok_or_else(ErrorStack::get)?;
    let length = reduced.len().try_into().map_err(|_| ErrorStack::get())?;
    let (mut target, mut at) = (session, reduced.as_ptr());
    // SAFETY: decoding into an existing session replaces its fields and frees what they held. Nobody else holds this session: the
    // caller has exclusive use of the connection, and vouches that the session is in no cache. The input is live and has `length` bytes.
    let decoded = unsafe { openssl_sys::d2i_SSL_SESSION(&mut target, &mut at, length) };
    if decoded.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: the connection is live. The stack belongs to its session, of which this is the only user.
    let chain = unsafe { openssl_sys::SSL_get_peer_cert_chain(ssl.as_ptr()) };
    while !chain.is_null() {
        // SAFETY: checked for null; a stack of certificates may be used by the functions for all stacks. It stays behind empty,
        // and the library asks an empty one for a certificate as it would ask one that is too short.
        let certificate = unsafe { openssl_sys::OPENSSL_sk_pop(chain.cast()) };
        if certificate.is_null() {
            break;
        }
        // SAFETY: the stack held one reference to the certificate, which now is ours to drop.
        drop(unsafe { X509::from_ptr(certificate.cast()) });
    }
    Ok(())
}

/// # Safety
/// `session` must be live.
unsafe fn encode(session: *mut SSL_SESSION) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    // SAFETY: the caller vouches for the session; without a place to write to, only the length is returned.
    let length = unsafe { openssl_sys::i2d_SSL_SESSION(session, ptr::null_mut()) };
    let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or_else(ErrorStack::get)?;
    let mut encoded = Zeroizing::new(vec![0; length]);
    let mut at = encoded.as_mut_ptr();
    // SAFETY: as above, and `at` points to as many bytes as the library said it would write.
    let written = unsafe { openssl_sys::i2d_SSL_SESSION(session, &mut at) };
    if usize::try_from(written) == Ok(length) { Ok(encoded) } else { Err(ErrorStack::get()) }
}

/// The encoding of a session without its peer's certificate, and with an empty master secret, so that no copy of it is made.
/// `None` if this is no such encoding.
fn without_peer(encoded: &[u8]) -> Option<Vec<u8>> {
    let Element { tag: SEQUENCE, content, rest: [], .. } = element(encoded)? else { return None };
    let (mut fields, mut octet_strings, mut rest) = (Vec::new(), 0, content);
    while !rest.is_empty() {
        let field = element(rest)?;
        rest = field.rest;
        match field.tag {
            PEER => {}
            OCTET_STRING if octet_strings == MASTER_KEY => {
                octet_strings += 1;
                fields.extend_from_slice(&[OCTET_STRING, 0]);
            }
            OCTET_STRING => {
                octet_strings += 1;
                fields.extend_from_slice(field.whole);
            }
            _ => fields.extend_from_slice(field.whole),
        }
    }
    if octet_strings <= MASTER_KEY {
        return None;
    }
    let length = u16::try_from(fields.len()).ok()?.to_be_bytes();
    let mut reduced = vec![SEQUENCE];
    match length {
        [0, short @ 0..0x80] => reduced.push(short),
        [0, one] => reduced.extend_from_slice(&[0x81, one]),
        two => reduced.extend([0x82].into_iter().chain(two)),
    }
    reduced.extend(fields);
    Some(reduced)
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// Tag, length and content.
    whole: &'a [u8],
    rest: &'a [u8],
}

/// The first element of DER with tags of one byte.
fn element(input: &[u8]) -> Option<Element<'_>> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after_first) = after_tag.split_first()?;
    let (length, body) = if first < 0x80 {
        (usize::from(first), after_first)
    } else {
        let (bytes, body) = after_first.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.is_empty() || bytes.len() > 3 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), body)
    };
    let (content, rest) = body.split_at_checked(length)?;
    let whole = input.get(..input.len() - rest.len())?;
    Some(Element { tag, content, whole, rest })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    }

    #[test]
    fn leaves_out_the_peer_and_the_master_secret_and_nothing_else() {
        let (version, suite, id) = (tlv(2, &[1]), tlv(4, &[0xe0, 0x53]), tlv(4, &[7; 32]));
        let (secret, time, peer) = (tlv(4, &[9; 48]), tlv(0xa1, &tlv(2, &[5])), tlv(0xa3, &tlv(0x30, &[8; 600])));
        let context = tlv(0xa4, &tlv(4, b"tlcp"));
        let all = [&version[..], &suite, &id, &secret, &time, &peer, &context].concat();
        let reduced = without_peer(&tlv(0x30, &all)).unwrap();
        let kept = [&version[..], &suite, &id, &[4, 0], &time, &context].concat();
        assert_eq!(element(&reduced).unwrap().content, kept);
        assert!(element(&reduced).unwrap().rest.is_empty());
    }

    #[test]
    fn refuses_what_is_not_a_session() {
        let session = tlv(0x30, &[tlv(4, &[0, 1]), tlv(4, &[]), tlv(4, &[2; 48])].concat());
        assert!(without_peer(&session).is_some());
        for cut in 0..session.len() {
            assert!(without_peer(&session[..cut]).is_none(), "cut to {cut} bytes");
        }
        assert!(without_peer(&[&session[..], &[0]].concat()).is_none());
        assert!(without_peer(&tlv(0x31, &session)).is_none());
    }
}
