//! Where the revocation of a peer's certificates enters its handshake: once a chain is found to be good, an [`Inspector`] may refuse it,
//! and the chain is kept until the handshake is over, for whoever has to ask others about it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use openssl::{
    error::ErrorStack,
    ex_data::Index,
    ssl::{Ssl, SslContext, SslContextBuilder, SslRef},
};

use tokio::sync::oneshot;

use super::Reason;
use crate::{
    cert::{Certificate, same_name},
    identity::PeerIdentity,
};

/// Asked about each chain of a client inside its handshake, on the thread that computes it: it answers from what it knows, at once.
pub trait Inspector: Send + Sync + fmt::Debug {
    /// The certificate of `chain` that is known to be revoked. The chain is verified, the client's certificate first, and ends in a
    /// trust anchor.
    fn revoked(&self, chain: &[Certificate]) -> Option<(usize, Reason)>;

    /// Whether it knows who issued a client's certificate. A ticket brings no chain: where this is needed and not known, the ticket is
    /// passed over and the client shows its chain again.
    fn knows_issuer(&self, certificate: &Certificate) -> bool;

    /// Asked once when the handshake is over, a resumed one as well, before anything that the client says is heard: what has to be asked
    /// of others is asked now, and not longer than `wait`.
    fn admit(
        self: Arc<Self>,
        peer: Arc<PeerIdentity>,
        chains: PeerChains,
        wait: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Admission, NotAdmitted>> + Send>>;
}

/// A client that may come in.
#[derive(Debug, Default)]
pub struct Admission {
    /// Tells that a certificate of the client was revoked since. Nobody watches when it is dropped.
    pub revoked: Option<oneshot::Receiver<Reason>>,
}

/// Why a client may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    /// A stable name in snake case, for metrics and logs.
    pub label: &'static str,
    pub detail: String,
}

/// Whether the key of `issuer` signed `certificate`, and the names fit.
pub fn is_issued_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let names = same_name(certificate.x509().issuer_name(), issuer.x509().subject_name());
    let signed = names && issuer.x509().public_key().and_then(|key| certificate.x509().verify(&key)).unwrap_or(false);
    // What was found wrong with a signature must not be taken for an error of the next TLS call.
    let _ = ErrorStack::get();
    signed
}

/// The verified chains of a peer, each with its own certificate first and the trust anchor last: one, or over TLCP that of the
/// encryption certificate and then that of the signing certificate. None where a session was resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerChains(pub Vec<Vec<Certificate>>);

type Slot = Mutex<PeerChains>;

/// Makes a context ask.
pub(crate) fn install(context: &mut SslContextBuilder, inspector: &Arc<dyn Inspector>) -> Result<(), ErrorStack> {
    context.set_ex_data(inspector_index()?, Arc::clone(inspector));
    Ok(())
}

/// Makes room for the chains of a connection whose context asks.
pub(crate) fn prepare(ssl: &mut Ssl) -> Result<(), ErrorStack> {
    if inspector(ssl).is_some() {
        ssl.set_ex_data(chains_index()?, Slot::default());
    }
    Ok(())
}

/// Whom the context of a connection asks.
pub(crate) fn inspector(ssl: &SslRef) -> Option<Arc<dyn Inspector>> {
    ssl.ssl_context().ex_data(inspector_index().ok()?).map(Arc::clone)
}

/// Keeps a chain for the end of the handshake.
pub(crate) fn keep(ssl: &SslRef, chain: Vec<Certificate>) {
    if let Some(slot) = chains_index().ok().and_then(|index| ssl.ex_data(index)) {
        slot.lock().unwrap_or_else(PoisonError::into_inner).0.push(chain);
    }
}

/// Takes the chains out. `None` where the context asks nobody.
pub(crate) fn take(ssl: &SslRef) -> Option<PeerChains> {
    let slot = ssl.ex_data(chains_index().ok()?)?;
    Some(std::mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn inspector_index() -> Result<Index<SslContext, Arc<dyn Inspector>>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Arc<dyn Inspector>>> = OnceLock::new();
    index(&INDEX, SslContext::new_ex_index)
}

fn chains_index() -> Result<Index<Ssl, Slot>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Slot>> = OnceLock::new();
    index(&INDEX, Ssl::new_ex_index)
}

/// Two threads may both make one; the second is then never used.
fn index<S, T>(
    known: &OnceLock<Index<S, T>>,
    make: fn() -> Result<Index<S, T>, ErrorStack>,
) -> Result<Index<S, T>, ErrorStack> {
    if let Some(index) = known.get() {
        return Ok(*index);
    }
    let made = make()?;
    Ok(*known.get_or_init(|| made))
}
