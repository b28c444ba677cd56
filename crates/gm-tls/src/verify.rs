//! Verification of a peer's chains inside the handshake, before the peer is told that it succeeded.
//!
//! The library verifies both chains of a TLCP peer, the encryption certificate's first, but binds nothing to anything: that
//! the two belong together is checked here, so that a peer which fails gets an alert and never a session to resume.

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, OnceLock},
};

use openssl::foreign_types::ForeignTypeRef;
use openssl::{
    error::ErrorStack,
    ex_data::Index,
    ssl::{SslContext, SslContextBuilder},
    stack::StackRef,
    x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult},
};
use openssl_sys::X509_STORE_CTX;

use crate::{
    cert::{Certificate, unix_time},
    error::VerifyFailure,
    ffi, lasting, pair,
    policy::{self, Policy},
    revocation::chain,
};

/// Which side verifies, and how many certificates the peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verifier {
    Server,
    Client,
    TlcpServer,
    TlcpClient,
}

impl Verifier {
    fn is_tlcp(self) -> bool {
        matches!(self, Self::TlcpServer | Self::TlcpClient)
    }

    fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::TlcpServer)
    }

    fn callback(self) -> unsafe extern "C" fn(*mut X509_STORE_CTX, *mut c_void) -> c_int {
        match self {
            Self::Server => server,
            Self::Client => client,
            Self::TlcpServer => tlcp_server,
            Self::TlcpClient => tlcp_client,
        }
    }
}

/// What the verification found during the current step of a handshake. A step runs on one thread from beginning to end, so
/// that this needs no place in the connection.
#[derive(Default)]
struct Findings {
    chains: u8,
    failure: Option<VerifyFailure>,
}

thread_local! {
    static FINDINGS: RefCell<Findings> = RefCell::default();
}

/// Forgets what an earlier step found.
pub(crate) fn begin_step() {
    FINDINGS.with_borrow_mut(|findings| *findings = Findings::default());
}

/// Why the step that just failed refused the peer's certificates, if that was the cause.
pub(crate) fn take_failure() -> Option<VerifyFailure> {
    FINDINGS.with_borrow_mut(|findings| findings.failure.take())
}

/// Where a context keeps its policy, which goes with it.
fn policy_index() -> Result<Index<SslContext, Arc<Policy>>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Arc<Policy>>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        // Of two that are made at the same time one is never used.
        None => SslContext::new_ex_index().map(|index| *INDEX.get_or_init(|| index)),
    }
}

/// The policy of the connection whose peer is verified.
fn policy_of(store: &X509StoreContextRef) -> Option<Arc<Policy>> {
    let ssl = store.ex_data(X509StoreContext::ssl_idx().ok()?)?;
    ssl.ssl_context().ex_data(policy_index().ok()?).cloned()
}

/// Makes a context verify by this module.
pub(crate) fn install(context: &mut SslContextBuilder, verifier: Verifier, policy: Policy) -> Result<(), ErrorStack> {
    context.set_ex_data(policy_index()?, Arc::new(policy));
    // SAFETY: the pointer is the builder's own live context, and the callback is a function of this module that takes no
    // argument through the pointer.
    unsafe { ffi::SSL_CTX_set_cert_verify_callback(context.as_ptr(), Some(verifier.callback()), ptr::null_mut()) };
    Ok(())
}

unsafe extern "C" fn server(store: *mut X509_STORE_CTX, _arg: *mut c_void) -> c_int {
    // SAFETY: the library calls with a store context that lives until this returns and that nothing else uses meanwhile.
    unsafe { guarded(store, Verifier::Server) }
}

unsafe extern "C" fn client(store: *mut X509_STORE_CTX, _arg: *mut c_void) -> c_int {
    // SAFETY: as in `server`.
    unsafe { guarded(store, Verifier::Client) }
}

unsafe extern "C" fn tlcp_server(store: *mut X509_STORE_CTX, _arg: *mut c_void) -> c_int {
    // SAFETY: as in `server`.
    unsafe { guarded(store, Verifier::TlcpServer) }
}

unsafe extern "C" fn tlcp_client(store: *mut X509_STORE_CTX, _arg: *mut c_void) -> c_int {
    // SAFETY: as in `server`.
    unsafe { guarded(store, Verifier::TlcpClient) }
}

/// Refuses the peer if the verification panics: a panic that reached the library's frames would end the process.
///
/// # Safety
/// As [`run`].
unsafe fn guarded(store: *mut X509_STORE_CTX, verifier: Verifier) -> c_int {
    // SAFETY: the caller vouches for the pointer.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { run(store, verifier) }));
    outcome.unwrap_or_else(|_| {
        // SAFETY: the caller vouches for the pointer; the code is a constant of the library.
        unsafe {
            let unspecified = X509VerifyResult::from_raw(openssl_sys::X509_V_ERR_UNSPECIFIED);
            X509StoreContextRef::from_ptr_mut(store).set_error(unspecified);
        }
        0
    })
}

/// # Safety
/// `store` must be a live store context, set up with the peer's certificates, that nothing else uses during the call.
unsafe fn run(store: *mut X509_STORE_CTX, verifier: Verifier) -> c_int {
    // SAFETY: the caller vouches for the pointer, and the reference ends with this function.
    let context = unsafe { X509StoreContextRef::from_ptr_mut(store) };
    let chain_number = FINDINGS.with_borrow_mut(|findings| {
        findings.chains = findings.chains.saturating_add(1);
        findings.chains
    });
    // Tongsuo's order: the encryption certificate's chain, then the signing one's.
    let encryption = verifier.is_tlcp() && chain_number == 1;
    let role = match (verifier.is_tlcp(), encryption) {
        (false, _) => "certificate",
        (true, true) => "encryption certificate",
        (true, false) => "signing certificate",
    };
    if encryption && verifier.is_server() {
        // The library's purpose for client certificates wants digitalSignature or keyAgreement, but an encryption
        // certificate of GB/T 20518 may have keyEncipherment or dataEncipherment alone. Its usage is checked by the library's
        // own rule for TLCP and by the pair's, its extended usage below.
        // SAFETY: the store context is live and owns the parameters; the function copies the number into them.
        unsafe {
            let parameters = ffi::X509_STORE_CTX_get0_param(store);
            openssl_sys::X509_VERIFY_PARAM_set_purpose(parameters, ffi::X509_PURPOSE_ANY);
        }
    }
    let valid = context.verify_cert().unwrap_or(false);
    if !valid {
        let result = context.error();
        let subject = context.current_cert().map(subject_of).unwrap_or_default();
        let role = if context.error_depth() == 0 { role.to_owned() } else { format!("{role}'s issuer") };
        return refuse(context, None, VerifyFailure::of_chain(result, &role, &subject));
    }
    // Without it nobody knows what to ask for.
    let Some(policy) = policy_of(context) else {
        let failure = VerifyFailure::of_usage(role, "", "its context has no policy");
        return refuse(context, Some(openssl_sys::X509_V_ERR_UNSPECIFIED), failure);
    };
    if policy.gm_only
        && let Some(subject) = first_stranger(context)
    {
        let failure = VerifyFailure::of_algorithm(role, &subject);
        return refuse(context, Some(openssl_sys::X509_V_ERR_CERT_REJECTED), failure);
    }
    // SAFETY: the stack belongs to the store context and outlives this use; a null pointer is handled.
    let sent = unsafe { ffi::X509_STORE_CTX_get0_untrusted(store) };
    let sent: Vec<Certificate> = if sent.is_null() {
        Vec::new()
    } else {
        // SAFETY: checked for null above, and the certificates are only borrowed to be cloned.
        let stack: &StackRef<X509> = unsafe { StackRef::from_ptr(sent) };
        stack.iter().take(2).map(|x509| Certificate::from_x509(x509.to_owned())).collect()
    };
    if encryption
        && verifier.is_server()
        && let Some(certificate) = sent.first()
        && certificate.extended_key_usage().is_some_and(|usage| !usage.client_auth && !usage.any)
    {
        let failure = VerifyFailure::of_usage(role, &certificate.subject(), "its extended key usage is not clientAuth");
        return refuse(context, Some(openssl_sys::X509_V_ERR_INVALID_PURPOSE), failure);
    }
    // The encryption certificate authenticates nobody.
    if !encryption
        && let Some(certificate) = sent.first()
        && let Some(missing) = policy.missing_purpose(certificate.x509())
    {
        let what = format!("its extended key usage lacks {missing}, which verify_peer_ext_key_usage asks for");
        let failure = VerifyFailure::of_usage(role, &certificate.subject(), &what);
        return refuse(context, Some(openssl_sys::X509_V_ERR_INVALID_PURPOSE), failure);
    }
    if policy.rfc8998
        && let Some(certificate) = sent.first()
        && let Some(what) = policy::unfit_for_rfc8998(certificate)
    {
        let failure = VerifyFailure::of_usage(role, &certificate.subject(), what);
        return refuse(context, Some(openssl_sys::X509_V_ERR_CERT_REJECTED), failure);
    }
    if verifier.is_tlcp()
        && !encryption
        && let [sign, enc] = sent.as_slice()
        && let Err(error) = pair::check_peer_pair(sign, enc)
    {
        return refuse(context, Some(openssl_sys::X509_V_ERR_CERT_REJECTED), VerifyFailure::of_pair(&error));
    }
    if verifier.is_server()
        && let Some(failure) = inspect(context, role)
    {
        return refuse(context, Some(openssl_sys::X509_V_ERR_CERT_REVOKED), failure);
    }
    if verifier.is_server()
        && let Err(cause) = last(context)
    {
        let failure = VerifyFailure::of_usage(role, "", &format!("its session cannot be limited: {cause}"));
        return refuse(context, Some(openssl_sys::X509_V_ERR_UNSPECIFIED), failure);
    }
    if verifier.is_server() {
        // The library would keep the chain, decoded, for the life of the connection; nothing asks a server for it.
        // SAFETY: the store context is live and frees the chain that it has.
        unsafe { ffi::X509_STORE_CTX_set0_verified_chain(store, ptr::null_mut()) };
    }
    1
}

/// Asks the inspector of the connection's context, if it has one, and keeps the chain for after the handshake.
fn inspect(context: &X509StoreContextRef, role: &str) -> Option<VerifyFailure> {
    let ssl = context.ex_data(X509StoreContext::ssl_idx().ok()?)?;
    let inspector = chain::inspector(ssl)?;
    let verified = context.chain().into_iter().flatten();
    let certificates: Vec<Certificate> = verified.map(|x509| Certificate::from_x509(x509.to_owned())).collect();
    if let Some((depth, reason)) = inspector.revoked(&certificates) {
        let subject = certificates.get(depth).map(Certificate::subject).unwrap_or_default();
        let role = if depth == 0 { role.to_owned() } else { format!("{role}'s issuer") };
        return Some(VerifyFailure::of_revocation(&role, &subject, reason));
    }
    chain::keep(ssl, certificates);
    None
}

/// Lets the session end with the first certificate of the chain that expires.
fn last(context: &X509StoreContextRef) -> Result<(), ErrorStack> {
    let ends = context.chain().into_iter().flatten().filter_map(|x509| unix_time(x509.not_after()));
    let ssl = context.ex_data(X509StoreContext::ssl_idx()?).ok_or_else(ErrorStack::get)?;
    lasting::limit(ssl, ends.min().unwrap_or(0))
}

fn refuse(context: &mut X509StoreContextRef, code: Option<c_int>, failure: VerifyFailure) -> c_int {
    if let Some(code) = code {
        // SAFETY: the codes passed are constants of the library.
        context.set_error(unsafe { X509VerifyResult::from_raw(code) });
    }
    FINDINGS.with_borrow_mut(|findings| findings.failure = Some(failure));
    0
}

/// The subject of the first certificate of a verified chain that is not of SM2 and SM3.
fn first_stranger(context: &X509StoreContextRef) -> Option<String> {
    // A chain that is valid has at least its leaf.
    let Some(chain) = context.chain() else { return Some(String::new()) };
    chain.iter().find(|certificate| !policy::is_gm_x509(certificate)).map(subject_of)
}

fn subject_of(x509: &X509Ref) -> String {
    Certificate::from_x509(x509.to_owned()).subject()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A panic in a callback of the library ended the process, and every connection with it.
    #[test]
    fn a_panic_refuses_the_peer_and_nothing_else() {
        let store = X509StoreContext::new().unwrap();
        let verdict = FINDINGS.with_borrow_mut(|_in_use| {
            // SAFETY: the store context is live and nothing else uses it.
            unsafe { server(store.as_ptr(), ptr::null_mut()) }
        });
        assert_eq!((verdict, store.error().as_raw()), (0, openssl_sys::X509_V_ERR_UNSPECIFIED));
    }
}
