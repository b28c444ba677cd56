//! Verification of a chain outside a handshake, with a reason an operator understands.

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509PurposeId, X509StoreContext};

use crate::cert::{Certificate, CertificateChain};

/// What a certificate is verified for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The signing or only certificate of a server.
    Server,
    /// The signing or only certificate of a client.
    Client,
    /// Signatures, validity and authorities only.
    Any,
}

/// Why a chain does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("`{subject}` (number {} of the chain): {reason}", depth + 1)]
    Refused { subject: String, depth: u32, reason: String },
    #[error("there is no trust anchor to verify against")]
    NoAnchors,
    #[error("the cryptographic library failed")]
    Library(#[from] ErrorStack),
}

/// Verifies signatures, names, constraints and validity at `now` (unix seconds) up to one of the anchors.
///
/// An anchor may be an intermediate authority: trust in it is complete (partial chain).
pub fn verify_chain(
    chain: &CertificateChain,
    anchors: &[Certificate],
    purpose: Purpose,
    now: i64,
) -> Result<(), VerifyError> {
    if anchors.is_empty() {
        return Err(VerifyError::NoAnchors);
    }
    let mut store = X509StoreBuilder::new()?;
    for anchor in anchors {
        store.add_cert(anchor.x509().to_owned())?;
    }
    let mut param = X509VerifyParam::new()?;
    param.set_time(now);
    param.set_flags(X509VerifyFlags::PARTIAL_CHAIN | X509VerifyFlags::X509_STRICT)?;
    match purpose {
        Purpose::Server => param.set_purpose(X509PurposeId::SSL_SERVER)?,
        Purpose::Client => param.set_purpose(X509PurposeId::SSL_CLIENT)?,
        Purpose::Any => {}
    }
    store.set_param(&param)?;
    let store = store.build();
    let mut untrusted = Stack::new()?;
    for certificate in &chain.intermediates {
        untrusted.push(certificate.x509().to_owned())?;
    }
    let mut context = X509StoreContext::new()?;
    context.init(&store, chain.leaf.x509(), &untrusted, |context| {
        if context.verify_cert()? {
            return Ok(Ok(()));
        }
        let depth = context.error_depth();
        let culprit = context.current_cert().map(|x509| Certificate::from_x509(x509.to_owned()));
        let subject = culprit.map_or_else(|| chain.leaf.subject(), |certificate| certificate.subject());
        Ok(Err(VerifyError::Refused { subject, depth, reason: context.error().error_string().to_owned() }))
    })?
}
