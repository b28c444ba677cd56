//! Finds what is wrong with single parts of a context's options, so that an operator learns of all mistakes at once and not only
//! of the first one that building a context meets. Each check runs the very step that building runs, on a context of its own.

use openssl::ssl::{SslContextBuilder, SslMethod};

use super::{ContextKind, Identity, VerifyMode, build, gm};
use crate::{cert::Certificate, context, error::ContextError, pair::CertificatePair};

/// Every name of a suite list that the family does not serve; without such names, what is wrong with the list as a whole.
pub fn check_ciphers(kind: ContextKind, names: &[String], verify: VerifyMode) -> Vec<ContextError> {
    one_by_one(names, |names| {
        let mut context = scratch(kind)?;
        match kind {
            ContextKind::Tls => context::set_tls_suites(&mut context, names),
            ContextKind::Rfc8998 => context::set_rfc8998_suites(&mut context, names),
            ContextKind::Tlcp => {
                context::set_tlcp_suites(&mut context, names, build::tlcp_means(verify, false)).map(|_| ())
            }
        }
    })
}

/// Every group of TLS that the library does not know.
pub fn check_groups(names: &[String]) -> Vec<ContextError> {
    one_by_one(names, |names| {
        let list = (!names.is_empty()).then(|| names.join(":"));
        context::set_tls_groups(&mut scratch(ContextKind::Tls)?, list.as_deref())
    })
}

/// Every group of RFC 8998 that the library does not know, or that does not go with the rest.
pub fn check_rfc8998_groups(names: &[String]) -> Vec<ContextError> {
    one_by_one(names, |names| {
        let list = (!names.is_empty()).then(|| names.join(":"));
        if let Some(other) = names.iter().find(|name| !name.contains("SM2")) {
            let (protocol, name) = (ContextKind::Rfc8998.name(), other.clone());
            return Err(ContextError::ForeignGroup { protocol, name });
        }
        context::make_rfc8998(&mut scratch(ContextKind::Rfc8998)?, list.as_deref())
    })
}

/// Every signature algorithm of TLS that the library does not know, or that is too weak.
pub fn check_signature_algorithms(names: &[String]) -> Vec<ContextError> {
    let protocol = ContextKind::Tls.name();
    one_by_one(names, |names| context::set_signature_algorithms(&mut scratch(ContextKind::Tls)?, protocol, names))
}

/// Whether certificates are all of SM2 and SM3.
///
/// # Errors
/// [`ContextError`] names the first that is not.
pub fn check_gm<'a>(
    kind: ContextKind,
    certificates: impl IntoIterator<Item = &'a Certificate>,
) -> Result<(), ContextError> {
    certificates.into_iter().try_for_each(|one| gm::certificate(kind.name(), one))
}

/// Whether a certificate and its key belong together and fit the family.
///
/// # Errors
/// [`ContextError`] says what is wrong with them.
pub fn check_identity(kind: ContextKind, identity: &Identity) -> Result<(), ContextError> {
    build::require_fitting_key(kind, identity)?;
    context::add_identity(&mut scratch(kind)?, kind.name(), identity)
}

/// Whether a pair can be that of a TLCP server here.
///
/// # Errors
/// [`ContextError`] says what is wrong with it.
pub fn check_pair(pair: &CertificatePair) -> Result<(), ContextError> {
    build::require_sm2(pair)?;
    context::add_pair(&mut scratch(ContextKind::Tlcp)?, ContextKind::Tlcp.name(), pair)
}

fn scratch(kind: ContextKind) -> Result<SslContextBuilder, ContextError> {
    let method = if kind == ContextKind::Tlcp { SslMethod::ntls_server() } else { SslMethod::tls_server() };
    let mut context = context::builder(method)?;
    if kind == ContextKind::Tlcp {
        context::make_tlcp(&mut context);
    }
    Ok(context)
}

fn one_by_one(names: &[String], set: impl Fn(&[String]) -> Result<(), ContextError>) -> Vec<ContextError> {
    let single: Vec<ContextError> = names.iter().filter_map(|name| set(std::slice::from_ref(name)).err()).collect();
    if single.is_empty() { set(names).err().into_iter().collect() } else { single }
}
