//! Refuses certificates that are not of SM2 and SM3, for servers that serve nothing else.

use crate::{
    cert::{Certificate, CertificateChain},
    error::ContextError,
    pair::CertificatePair,
    policy::is_gm,
};

pub(super) fn chain(protocol: &'static str, chain: &CertificateChain) -> Result<(), ContextError> {
    std::iter::once(&chain.leaf).chain(&chain.intermediates).try_for_each(|one| certificate(protocol, one))
}

pub(super) fn pair(protocol: &'static str, pair: &CertificatePair) -> Result<(), ContextError> {
    [pair.sign(), pair.enc()].into_iter().chain(pair.intermediates()).try_for_each(|one| certificate(protocol, one))
}

pub(super) fn all(protocol: &'static str, certificates: &[Certificate]) -> Result<(), ContextError> {
    certificates.iter().try_for_each(|one| certificate(protocol, one))
}

pub(super) fn certificate(protocol: &'static str, one: &Certificate) -> Result<(), ContextError> {
    if is_gm(one) {
        return Ok(());
    }
    let (subject, key, signature) = (one.subject(), one.key_kind(), one.signature_algorithm());
    let what =
        format!("\"{subject}\" has a key of {key} and is signed with {signature}; SM2 and SM2-with-SM3 are needed");
    Err(ContextError::NotGm { protocol, what })
}
