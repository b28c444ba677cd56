//! Pre-shared keys of TLS 1.2 and 1.3 (RFC 4279, RFC 8446 section 4.2.11): who asks for them, and who was known by one.
//!
//! A key proves its holder as a certificate does, so that no certificate is asked for besides. In TLS 1.2 a client that names an unknown
//! identity is answered as one with a wrong key is: a key is drawn for it. In TLS 1.3 the handshake goes on with the server's certificate,
//! as the RFC wants, so that there who asks can learn which identities are known.

use std::fmt;
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::rand::rand_bytes;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslVersion};
use zeroize::Zeroizing;

use crate::error::{HandshakeError, HandshakeFailure};

/// Longest identity, in bytes: what RFC 4279 section 5.3 asks to be supported, and all that the library takes.
pub const MAX_IDENTITY_BYTES: usize = 128;
/// Shortest and longest key, in bytes. The shortest has the 128 bits that every suite here is good for.
pub const MIN_KEY_BYTES: usize = 16;
pub const MAX_KEY_BYTES: usize = 64;

/// Suites of TLS 1.2 with a pre-shared key: authenticated encryption, those with forward secrecy first.
pub const TLS12_SUITES: [&str; 4] =
    ["ECDHE-PSK-CHACHA20-POLY1305", "PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384", "PSK-CHACHA20-POLY1305"];
/// Suites of TLS 1.3 that a pre-shared key can be used with: its hash is SHA-256, and with another the library would pass it over.
const TLS13_SUITES: [&str; 2] = ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"];

/// The suites of a context whose clients may show keys: those that are named, or by default these beside the usual ones.
pub(crate) fn suites(named: &[String]) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let usual = crate::context::TLS12_SUITES.split(':');
    TLS12_SUITES.into_iter().chain(usual).chain(TLS13_SUITES).map(str::to_owned).collect()
}

/// Where keys are.
pub trait PskLookup: fmt::Debug + Send + Sync {
    /// The key of an identity. Called within handshakes: it must not wait, and must not panic.
    fn key(&self, identity: &str) -> Option<Zeroizing<Vec<u8>>>;
}

/// What a client has offered: its identity, and whether there is a key for it, which was then given to the library.
#[derive(Debug)]
struct Offered {
    /// As it came where it is known; otherwise its beginning.
    identity: Arc<str>,
    known: bool,
}

fn offers() -> Option<Index<Ssl, Offered>> {
    static INDEX: OnceLock<Option<Index<Ssl, Offered>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().ok())
}

/// Lets clients of a context show pre-shared keys.
pub(crate) fn install(context: &mut SslContextBuilder, keys: Arc<dyn PskLookup>) {
    context.set_psk_server_callback(move |ssl, identity, space| {
        let (Some(index), Some(identity)) = (offers(), identity) else { return unknown(ssl, space) };
        let known = Some(identity)
            .filter(|identity| identity.len() <= MAX_IDENTITY_BYTES)
            .and_then(|identity| std::str::from_utf8(identity).ok())
            .and_then(|identity| Some((identity, keys.key(identity)?)));
        let Some((identity, key)) = known else {
            ssl.set_ex_data(index, Offered { identity: beginning(identity).into(), known: false });
            return unknown(ssl, space);
        };
        let Some(place) = space.get_mut(..key.len()) else { return Ok(0) };
        place.copy_from_slice(&key);
        ssl.set_ex_data(index, Offered { identity: Arc::from(identity), known: true });
        Ok(key.len())
    });
}

/// As much of an identity that nobody here knows as may stand in a log.
fn beginning(identity: &[u8]) -> String {
    let cut = identity.get(..MAX_IDENTITY_BYTES).unwrap_or(identity);
    let text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < identity.len() { text + "…" } else { text }
}

/// The failure of a handshake in which the client has offered a key: for which identity, and what became of it. An identity is no secret.
pub(crate) fn explain(ssl: &SslRef, error: HandshakeError) -> HandshakeError {
    let offered = offers().and_then(|index| ssl.ex_data(index));
    let Some(Offered { identity, known }) = offered else { return error };
    let offer = format!("the client offers a pre-shared key as \"{}\"", identity.escape_debug());
    match (known, error.reason()) {
        // In TLS 1.2 a wrong key shows when the first record cannot be read.
        (true, HandshakeFailure::BadRecord | HandshakeFailure::WrongPsk) => {
            error.because(HandshakeFailure::WrongPsk, &format!("{offer}, and it is not the key kept here"))
        }
        (true, reason) => error.because(reason, &offer),
        (false, _) if ssl.version2() != Some(SslVersion::TLS1_3) => {
            error.because(HandshakeFailure::UnknownPsk, &format!("{offer}, which is not known here"))
        }
        (false, reason) => {
            let shown = format!("{offer}, which is not known here, and was shown the certificate instead");
            match reason {
                HandshakeFailure::PeerAlert(_) | HandshakeFailure::NoCertificate | HandshakeFailure::Closed => {
                    error.because(HandshakeFailure::UnknownPsk, &shown)
                }
                other => error.because(other, &shown),
            }
        }
    }
}

fn unknown(ssl: &SslRef, space: &mut [u8]) -> Result<usize, ErrorStack> {
    if ssl.version2() == Some(SslVersion::TLS1_3) {
        return Ok(0);
    }
    let Some(key) = space.get_mut(..MIN_KEY_BYTES) else { return Ok(0) };
    rand_bytes(key)?;
    Ok(MIN_KEY_BYTES)
}

/// The identity that a client has proved in a handshake that is complete. In TLS 1.3 only a connection of which the key was used goes on
/// from a session, since contexts with keys resume none.
pub(crate) fn proved(ssl: &SslRef) -> Option<Arc<str>> {
    let used = if ssl.version2() == Some(SslVersion::TLS1_3) {
        ssl.session_reused()
    } else {
        ssl.current_cipher().is_some_and(|cipher| cipher.name().contains("PSK"))
    };
    let offered = ssl.ex_data(offers()?).filter(|offered| offered.known)?;
    used.then(|| Arc::clone(&offered.identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_identity_is_repeated_in_part() {
        assert_eq!(beginning(b"meter"), "meter");
        assert_eq!(beginning(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(beginning(&[b'x'; 200]), format!("{}…", "x".repeat(MAX_IDENTITY_BYTES)));
    }
}
