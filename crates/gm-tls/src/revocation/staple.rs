//! OCSP stapling: what a server sends with its certificate when a client asks for its status (RFC 6066 section 8). Over TLCP the answer is
//! about the signing certificate, by which the server proves who it is; the message has room for one.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use openssl::{
    error::ErrorStack,
    hash::MessageDigest,
    ssl::{SslContextBuilder, SslRef},
    x509::X509Ref,
};

use crate::cert::Certificate;

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate.
pub fn fingerprint(certificate: &Certificate) -> Fingerprint {
    digest(certificate.x509()).unwrap_or_default()
}

fn digest(certificate: &X509Ref) -> Option<Fingerprint> {
    certificate.digest(MessageDigest::sha256()).ok().and_then(|digest| Fingerprint::try_from(&*digest).ok())
}

/// What becomes of a client that asked for the status of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staple {
    /// It gets this OCSP response.
    Answer(Bytes),
    /// It gets none, and judges for itself.
    Nothing,
    /// The handshake fails: the certificate promises an answer, and there is none that is good.
    Refuse,
}

/// Who has the answers. Asked inside handshakes, so that it answers from memory.
pub trait StapleSource: Send + Sync + fmt::Debug {
    fn staple(&self, certificate: &Fingerprint) -> Staple;
}

/// Makes a server's context answer with what `source` has.
pub(crate) fn install(context: &mut SslContextBuilder, source: &Arc<dyn StapleSource>) -> Result<(), ErrorStack> {
    let source = Arc::clone(source);
    context.set_status_callback(move |ssl| match answer(ssl, &*source) {
        Staple::Answer(answer) => ssl.set_ocsp_status(&answer).map(|()| true),
        Staple::Nothing => Ok(false),
        // An empty stack makes the handshake fail all the same.
        Staple::Refuse => Err(ErrorStack::get()),
    })
}

fn answer(ssl: &SslRef, source: &dyn StapleSource) -> Staple {
    match ssl.certificate().and_then(digest) {
        Some(fingerprint) => source.staple(&fingerprint),
        None => Staple::Nothing,
    }
}
