//! Where the revocation of a peer's certificates enters its handshake: once a chain is found to be good, an [`Inspector`] may refuse it,
//! and the chain is kept until the handshake is over, for whoever has to ask others about it.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use openssl::{
    error::ErrorStack,
    ex_data::Index,
    ssl::{Ssl, SslContext, SslContextBuilder, SslRef},
};

use super::Reason;
use crate::cert::Certificate;

/// Asked about each chain of a client inside its handshake, on the thread that computes it: it answers from what it knows, at once.
pub trait Inspector: Send + Sync + fmt::Debug {
    /// The certificate of `chain` that is known to be revoked. The chain is verified, the client's certificate first, and ends in a
    /// trust anchor.
    fn revoked(&self, chain: &[Certificate]) -> Option<(usize, Reason)>;
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
