//! What every context has in common, server and client: the cures of the library's traps, certificates with their explicit
//! chains, trust anchors, and suites pinned one by one.

use std::ffi::c_long;

use openssl::foreign_types::{ForeignType, ForeignTypeRef};
use openssl::{
    error::ErrorStack,
    ssl::{SslCipher, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslVersion, cipher_name},
    stack::StackRef,
    x509::{X509Ref, store::X509StoreBuilder, verify::X509VerifyFlags},
};

use crate::{
    cert::{Certificate, CertificateChain, KeyKind},
    error::ContextError,
    ffi,
    key::PrivateKey,
    pair::CertificatePair,
    provider,
    suites::{self, Suite, SuiteKind, SuiteProtocol},
};

/// A certificate chain and the key of its leaf.
#[derive(Debug, Clone)]
pub struct Identity {
    pub chain: CertificateChain,
    pub key: PrivateKey,
}

/// Groups of TLS 1.2 and 1.3 when none are named. The hybrid X25519MLKEM768 can be named, but is not here: the library keeps
/// its key for the life of the connection, which costs each idle one 7 KiB.
const TLS_GROUPS: &str = "X25519:P-256:P-384";
/// The group of RFC 8998 that is of national algorithms alone.
pub(crate) const GM_GROUP: &str = "curveSM2";
/// Groups of RFC 8998 when none are named. The RFC has curveSM2; its hybrid is of draft-yang-tls-hybrid-sm2-mlkem.
const RFC8998_GROUPS: &str = "curveSM2:curveSM2MLKEM768";
/// TLS 1.2 suites when none are named: authenticated encryption with forward secrecy only.
pub(crate) const TLS12_SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
                            ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305";
const TLS13_SUITES: &str = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";

/// 112 bits: no RSA key below 2048 bits and no SHA-1 in a peer's chain.
pub(crate) const SECURITY_LEVEL: u32 = 2;

/// A context with what every one needs.
pub(crate) fn builder(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    crate::init();
    begin(SslContextBuilder::new(method)?)
}

/// A context for RFC 8998 with these groups, and with what every context needs. Where all groups lie on the curve of SM2, the
/// accelerated provider serves the key exchange and HMAC too.
pub(crate) fn rfc8998_builder(method: SslMethod, groups: Option<&str>) -> Result<SslContextBuilder, ErrorStack> {
    crate::init();
    let on_the_curve = |group: &str| matches!(group, "curveSM2" | "curveSM2MLKEM768");
    if !groups.unwrap_or(RFC8998_GROUPS).split(':').all(on_the_curve) {
        return builder(method);
    }
    gm_builder(method)
}

/// A context for TLCP with these suites, or those that are usual, and with what every context needs. Where SM3 is the digest of all,
/// the accelerated provider serves their MAC and pseudorandom function too.
pub(crate) fn tlcp_builder(method: SslMethod, suites: &[String]) -> Result<SslContextBuilder, ErrorStack> {
    crate::init();
    let of_sm3 = |name: &String| suites::by_name(name).is_some_and(|suite| suite.name.ends_with("_SM3"));
    if !suites.iter().all(of_sm3) {
        return builder(method);
    }
    gm_builder(method)
}

/// A context of national algorithms alone.
fn gm_builder(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    // SAFETY: null is the default library context; the string and the method are static.
    let context =
        unsafe { ffi::SSL_CTX_new_ex(std::ptr::null_mut(), provider::GM_PREFERENCE.as_ptr(), method.as_ptr()) };
    if context.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: checked for null; made above, and the builder alone has it.
    begin(unsafe { SslContextBuilder::from_ptr(context) })
}

fn begin(mut context: SslContextBuilder) -> Result<SslContextBuilder, ErrorStack> {
    // Whatever the library was built with.
    context.set_security_level(SECURITY_LEVEL);
    context.set_options(
        // Without it application data over TLCP cannot be written at all: the library prepends an empty fragment for
        // versions below TLS 1.1, in a buffer that is too small for SM4 and SM3.
        SslOptions::DONT_INSERT_EMPTY_FRAGMENTS
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_SSLV3
            | SslOptions::NO_TLSV1
            | SslOptions::NO_TLSV1_1,
    );
    context.set_mode(
        // Chains are explicit: otherwise the library verifies its own certificate in each handshake to find the chain, which
        // costs a third of a TLCP handshake.
        SslMode::NO_AUTO_CHAIN
            | SslMode::RELEASE_BUFFERS
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::AUTO_RETRY,
    );
    context.set_max_early_data(0)?;
    Ok(context)
}

/// Restricts a context to TLCP.
pub(crate) fn make_tlcp(context: &mut SslContextBuilder) {
    context.enable_ntls();
    // Whether a connection is TLCP was decided before; the library need not look at the record's version again.
    context.enable_force_ntls();
    context.set_ntls_cert_key_usage_check(true);
    // Tickets are not in the standard, and a ticket would lose the peer's encryption certificate.
    context.set_options(SslOptions::NO_TICKET);
}

/// Restricts a context to TLS 1.3 by RFC 8998: its signature algorithm and its groups. Callers give it SM2 certificates alone, and a
/// client verifies by [`crate::policy::Policy::rfc8998`].
pub(crate) fn make_rfc8998(context: &mut SslContextBuilder, groups: Option<&str>) -> Result<(), ContextError> {
    let groups = groups.unwrap_or(RFC8998_GROUPS);
    context.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    // The library's own rules for these suites know no group but curveSM2: a server that keeps them forgets all others once it has
    // chosen a suite, and a client refuses them, so that the hybrid is offered and never agreed upon. What else they ask holds by
    // what is set here.
    if groups == GM_GROUP {
        context.enable_sm_tls13_strict();
    }
    context.set_sigalgs_list("sm2sig_sm3")?;
    set_groups(context, "rfc8998", groups)
}

/// Sets the groups of an ordinary TLS context.
pub(crate) fn set_tls_groups(context: &mut SslContextBuilder, groups: Option<&str>) -> Result<(), ContextError> {
    set_groups(context, "tls", groups.unwrap_or(TLS_GROUPS))
}

/// Sets the signature algorithms of both sides, by their IANA names.
pub(crate) fn set_signature_algorithms(
    context: &mut SslContextBuilder,
    protocol: &'static str,
    names: &[String],
) -> Result<(), ContextError> {
    if names.is_empty() {
        return Ok(());
    }
    // The library takes these and then never uses them at its security level.
    if let Some(weak) = names.iter().find(|name| name.ends_with("sha1") || name.ends_with("sha224")) {
        return Err(ContextError::WeakSignatureAlgorithm { protocol, name: weak.clone() });
    }
    let list = names.join(":");
    context.set_sigalgs_list(&list).map_err(|source| match names {
        [name] => ContextError::UnknownSignatureAlgorithm { protocol, name: name.clone() },
        _ => ContextError::BadList { protocol, field: "signature_algorithms", value: list.clone(), source },
    })
}

fn set_groups(context: &mut SslContextBuilder, protocol: &'static str, groups: &str) -> Result<(), ContextError> {
    let Err(source) = context.set_groups_list(groups) else { return Ok(()) };
    Err(match groups.split(':').find(|name| context.set_groups_list(name).is_err()) {
        Some(name) => ContextError::UnknownGroup { protocol, name: name.to_owned() },
        None => ContextError::BadList { protocol, field: "groups", value: groups.to_owned(), source },
    })
}

/// Adds a certificate, its chain and its key. Several may be added if their keys are of different kinds.
pub(crate) fn add_identity(
    context: &mut SslContextBuilder,
    protocol: &'static str,
    identity: &Identity,
) -> Result<(), ContextError> {
    let unusable = |source| ContextError::Certificate { protocol, source };
    // The library refuses the second of two that do not belong together in words that no operator understands.
    if !identity.chain.leaf.belongs_to(&identity.key) {
        return Err(ContextError::KeyMismatch { protocol, subject: identity.chain.leaf.subject() });
    }
    context.set_certificate(identity.chain.leaf.x509()).map_err(unusable)?;
    context.set_private_key(identity.key.pkey()).map_err(unusable)?;
    for intermediate in &identity.chain.intermediates {
        add_chain_certificate(context, intermediate.x509()).map_err(unusable)?;
    }
    Ok(())
}

/// Adds the two certificates of a pair, their chain and their keys.
pub(crate) fn add_pair(
    context: &mut SslContextBuilder,
    protocol: &'static str,
    pair: &CertificatePair,
) -> Result<(), ContextError> {
    let unusable = |source| ContextError::Certificate { protocol, source };
    context.set_enc_certificate(pair.enc().x509()).map_err(unusable)?;
    context.set_enc_private_key(pair.enc_key().pkey()).map_err(unusable)?;
    context.set_sign_certificate(pair.sign().x509()).map_err(unusable)?;
    context.set_sign_private_key(pair.sign_key().pkey()).map_err(unusable)?;
    for intermediate in pair.intermediates() {
        add_chain_certificate(context, intermediate.x509()).map_err(unusable)?;
    }
    Ok(())
}

/// Adds an issuer to the certificate set last, so that an ECDSA and an RSA certificate keep chains of their own.
fn add_chain_certificate(context: &mut SslContextBuilder, issuer: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: both pointers are live for the call; with 1 as the third argument the library takes a reference of its own to
    // the certificate.
    let done = unsafe {
        openssl_sys::SSL_CTX_ctrl(context.as_ptr(), openssl_sys::SSL_CTRL_CHAIN_CERT, 1, issuer.as_ptr().cast())
    };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Sets the trust anchors. With `partial` an anchor need not be self-signed.
pub(crate) fn set_trust(
    context: &mut SslContextBuilder,
    anchors: &[Certificate],
    partial: bool,
    depth: u32,
) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for anchor in anchors {
        store.add_cert(anchor.x509().to_owned())?;
    }
    if partial {
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    }
    context.set_cert_store(store.build());
    context.set_verify_depth(depth);
    Ok(())
}

/// Pins the suites of a TLS context. `names` may be of TLS 1.2 and 1.3 mixed, by IANA or the library's names; where a version
/// has none, its default list applies.
pub(crate) fn set_tls_suites(context: &mut SslContextBuilder, names: &[String]) -> Result<(), ContextError> {
    let protocol = "tls";
    let (mut tls12, mut tls13) = (Vec::new(), Vec::new());
    for name in names {
        match suites::by_name(name) {
            Some(Suite { protocol: SuiteProtocol::Tls13, library_name, .. }) => tls13.push(*library_name),
            Some(Suite { protocol: SuiteProtocol::Tls12, library_name, .. }) => tls12.push(*library_name),
            Some(_) => return Err(ContextError::ForeignSuite { protocol, name: name.clone() }),
            None => {
                let library_name = match cipher_name(name) {
                    "(NONE)" => name.as_str(),
                    known => known,
                };
                context
                    .set_cipher_list(library_name)
                    .map_err(|_| ContextError::UnknownSuite { protocol, name: name.clone() })?;
                tls12.push(library_name);
            }
        }
    }
    let list = |names: &[&str], default: &str| if names.is_empty() { default.to_owned() } else { names.join(":") };
    let bad = |value: String| move |source| ContextError::BadList { protocol, field: "ciphers", value, source };
    let tls12 = list(&tls12, TLS12_SUITES);
    context.set_cipher_list(&tls12).map_err(bad(tls12.clone()))?;
    let tls13 = list(&tls13, TLS13_SUITES);
    context.set_ciphersuites(&tls13).map_err(bad(tls13.clone()))
}

/// Pins the suites of an RFC 8998 context; by default both.
pub(crate) fn set_rfc8998_suites(context: &mut SslContextBuilder, names: &[String]) -> Result<(), ContextError> {
    let protocol = "rfc8998";
    let chosen = chosen(protocol, SuiteProtocol::Rfc8998, names)?;
    let list = chosen.unwrap_or_else(|| of_protocol(SuiteProtocol::Rfc8998));
    let list = list.iter().map(|suite| suite.library_name).collect::<Vec<_>>().join(":");
    context.set_ciphersuites(&list)?;
    // No suite of TLS 1.2 is ever usable here, but an empty list cannot be set.
    context.set_cipher_list(TLS12_SUITES)?;
    Ok(())
}

/// What the suites of a TLCP context depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlcpMeans {
    pub(crate) sm2: bool,
    pub(crate) rsa: bool,
    /// Both parties have certificates: a server asks for them, a client has a pair.
    pub(crate) mutual: Mutual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutual {
    Never,
    Possible,
    Always,
}

/// Pins the suites of a TLCP context and returns their code points. By default: the SM2 suites that can work, those with
/// forward secrecy first if both parties always have certificates. RSA suites only if named.
pub(crate) fn set_tlcp_suites(
    context: &mut SslContextBuilder,
    names: &[String],
    means: TlcpMeans,
) -> Result<Vec<u16>, ContextError> {
    let protocol = "tlcp";
    let list = match chosen(protocol, SuiteProtocol::Tlcp, names)? {
        Some(named) => {
            for suite in &named {
                if suite.kind == SuiteKind::Ecdhe && means.mutual == Mutual::Never {
                    return Err(ContextError::SuiteNeedsClientCertificates { protocol, name: suite.name });
                }
                if suite.kind == SuiteKind::Rsa && !means.rsa {
                    let why =
                        "the pair here is one of SM2: name ECC_SM4_* or, with client certificates, ECDHE_SM4_* suites";
                    return Err(ContextError::SuiteNeedsRsa { protocol, name: suite.name, why });
                }
            }
            named
        }
        None => {
            let mut list = of_protocol(SuiteProtocol::Tlcp);
            list.retain(|suite| match suite.kind {
                SuiteKind::Ecc => means.sm2,
                SuiteKind::Ecdhe => means.sm2 && means.mutual != Mutual::Never,
                _ => false,
            });
            if means.mutual == Mutual::Always {
                list.sort_by_key(|suite| suite.kind != SuiteKind::Ecdhe);
            }
            list
        }
    };
    if list.is_empty() {
        return Err(ContextError::NoSuites { protocol });
    }
    let value = list.iter().map(|suite| suite.library_name).collect::<Vec<_>>().join(":");
    context.set_cipher_list(&value).map_err(|source| ContextError::BadList {
        protocol,
        field: "ciphers",
        value: value.clone(),
        source,
    })?;
    Ok(list.iter().map(|suite| suite.id).collect())
}

fn of_protocol(protocol: SuiteProtocol) -> Vec<&'static Suite> {
    suites::SUITES.iter().filter(|suite| suite.protocol == protocol).collect()
}

/// The named suites, all of which must be of `wanted`; `None` if none is named.
fn chosen(
    protocol: &'static str,
    wanted: SuiteProtocol,
    names: &[String],
) -> Result<Option<Vec<&'static Suite>>, ContextError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut list: Vec<&'static Suite> = Vec::new();
    for name in names {
        let suite = suites::by_name(name).ok_or_else(|| ContextError::UnknownSuite { protocol, name: name.clone() })?;
        if suite.protocol != wanted {
            return Err(ContextError::ForeignSuite { protocol, name: name.clone() });
        }
        if !list.contains(&suite) {
            list.push(suite);
        }
    }
    Ok(Some(list))
}

/// Lifetime of sessions and tickets.
pub(crate) fn set_session_lifetime(context: &mut SslContextBuilder, seconds: u32) {
    // SAFETY: the pointer is the builder's own live context.
    unsafe { ffi::SSL_CTX_set_timeout(context.as_ptr(), c_long::from(seconds)) };
}

/// Code points of every suite that a finished context accepts.
pub(crate) fn suite_ids(context: &SslContext) -> Vec<u16> {
    // SAFETY: the context is live, the stack belongs to it and is only read here; null is handled.
    let stack = unsafe { ffi::SSL_CTX_get_ciphers(context.as_ptr()) };
    if stack.is_null() {
        return Vec::new();
    }
    // SAFETY: checked for null above.
    let stack: &StackRef<SslCipher> = unsafe { StackRef::from_ptr(stack) };
    stack.iter().map(|cipher| u16::from_be_bytes(cipher.protocol_id())).collect()
}

/// The protocol names in ALPN's wire form.
pub(crate) fn alpn_wire(protocol: &'static str, names: &[Vec<u8>]) -> Result<Vec<u8>, ContextError> {
    let mut wire = Vec::new();
    for name in names {
        match u8::try_from(name.len()) {
            Ok(length) if length > 0 => wire.push(length),
            _ => return Err(ContextError::BadAlpn { protocol }),
        }
        wire.extend_from_slice(name);
    }
    Ok(wire)
}

/// Checks that an identity has the key that a protocol needs.
pub(crate) fn require_key(
    protocol: &'static str,
    identity: &Identity,
    wanted: &'static str,
    accepts: impl Fn(KeyKind) -> bool,
) -> Result<(), ContextError> {
    let found = identity.chain.leaf.key_kind();
    if accepts(found) {
        return Ok(());
    }
    Err(ContextError::WrongKeyKind {
        protocol,
        subject: identity.chain.leaf.subject(),
        found: found.to_string(),
        wanted,
    })
}

/// Whether the server of a client, before TLS 1.3, has asked for a certificate where there is none to show.
pub(crate) fn was_asked_in_vain(ssl: &SslRef) -> bool {
    // SAFETY: the connection is live while it is borrowed; without a place for the kinds the library only counts them.
    let kinds =
        unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), ffi::SSL_CTRL_GET_CLIENT_CERT_TYPES, 0, std::ptr::null_mut()) };
    kinds > 0 && ssl.certificate().is_none()
}
