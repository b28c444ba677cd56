//! From options to contexts.

use std::sync::Arc;

use openssl::{
    error::ErrorStack,
    hash::{DigestBytes, Hasher, MessageDigest},
    ssl::{AlpnError, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion},
    stack::Stack,
    x509::X509Name,
};

use super::gm;
use super::{
    ClientAuth, ContextKind, Identity, Resumption, Rfc8998Options, ServerContext, ServerOptions, TlcpOptions,
    TlsOptions, TlsVersion, VerifyMode,
};
use crate::{
    cert::KeyKind,
    context::{self, Mutual, TlcpMeans},
    engine::Sessions,
    error::ContextError,
    lasting,
    pair::CertificatePair,
    policy::Policy,
    psk,
    revocation::{chain, staple},
    suites::{self, SuiteProtocol},
    verify::{self, Verifier},
};

pub(super) fn tls(options: &TlsOptions, common: &ServerOptions) -> Result<ServerContext, ContextError> {
    let protocol = "tls";
    let mut builder = context::builder(SslMethod::tls_server())?;
    if common.gm_only {
        let what = "TLS with international suites is not of SM2, SM3 and SM4; remove ssl_options".to_owned();
        return Err(ContextError::NotGm { protocol, what });
    }
    builder.set_security_level(options.security_level);
    if options.min_version > options.max_version {
        return Err(ContextError::VersionRange { protocol, min: options.min_version, max: options.max_version });
    }
    builder.set_min_proto_version(Some(library_version(options.min_version)))?;
    builder.set_max_proto_version(Some(library_version(options.max_version)))?;
    if options.identities.is_empty() {
        return Err(ContextError::NoCertificate { protocol });
    }
    let mut kinds = Vec::new();
    for identity in &options.identities {
        require_fitting_key(ContextKind::Tls, identity)?;
        let kind = match identity.chain.leaf.key_kind() {
            KeyKind::EcP256 | KeyKind::EcP384 => "ECDSA",
            KeyKind::Rsa(_) => "RSA",
            _ => "Ed25519",
        };
        if kinds.contains(&kind) {
            return Err(ContextError::DuplicateKeyKind { protocol, kind: kind.to_owned() });
        }
        kinds.push(kind);
        context::add_identity(&mut builder, protocol, identity)?;
    }
    fit_suites(options, &kinds)?;
    let mut resumption = options.resumption.clone();
    match &options.psk {
        Some(keys) => {
            context::set_tls_suites(&mut builder, &psk::suites(&options.ciphers))?;
            psk::install(&mut builder, Arc::clone(keys));
            // That a session goes on is how it is known in TLS 1.3 that a key was used.
            (resumption.tickets, resumption.ids) = (false, false);
        }
        None => context::set_tls_suites(&mut builder, &options.ciphers)?,
    }
    context::set_tls_groups(&mut builder, options.groups.as_deref())?;
    fit_signature_algorithms(options, &kinds)?;
    context::set_signature_algorithms(&mut builder, protocol, &options.signature_algorithms)?;
    prefer_own_order(&mut builder, options.honor_cipher_order);
    finish(builder, ContextKind::Tls, &options.client_auth, &resumption, common, None)
}

pub(super) fn rfc8998(options: &Rfc8998Options, common: &ServerOptions) -> Result<ServerContext, ContextError> {
    let protocol = "rfc8998";
    let mut builder = context::rfc8998_builder(SslMethod::tls_server(), options.groups.as_deref())?;
    builder.set_security_level(options.security_level);
    require_fitting_key(ContextKind::Rfc8998, &options.identity)?;
    let mut groups = options.groups.as_deref();
    if common.gm_only {
        gm::chain(protocol, &options.identity.chain)?;
        if let Some(other) = groups.and_then(|groups| groups.split(':').find(|name| *name != context::GM_GROUP)) {
            let what = format!("group {other} is not of SM2 alone; name {} or none", context::GM_GROUP);
            return Err(ContextError::NotGm { protocol, what });
        }
        groups = Some(context::GM_GROUP);
    }
    context::add_identity(&mut builder, protocol, &options.identity)?;
    context::make_rfc8998(&mut builder, groups)?;
    context::set_rfc8998_suites(&mut builder, &options.ciphers)?;
    prefer_own_order(&mut builder, options.honor_cipher_order);
    finish(builder, ContextKind::Rfc8998, &options.client_auth, &options.resumption, common, None)
}

pub(super) fn tlcp(options: &TlcpOptions, common: &ServerOptions) -> Result<ServerContext, ContextError> {
    let protocol = "tlcp";
    let mut builder = context::tlcp_builder(SslMethod::ntls_server(), &options.ciphers)?;
    context::make_tlcp(&mut builder);
    builder.set_security_level(options.security_level);
    if common.gm_only {
        gm::pair(protocol, &options.pair)?;
        if options.rsa_pair.is_some() {
            let what = "the RSA pair is not of SM2".to_owned();
            return Err(ContextError::NotGm { protocol, what });
        }
    }
    if let Some(rsa_pair) = &options.rsa_pair {
        if !matches!(rsa_pair.key_kind(), KeyKind::Rsa(_)) {
            return Err(ContextError::WrongKeyKind {
                protocol,
                subject: rsa_pair.sign().subject(),
                found: rsa_pair.key_kind().to_string(),
                wanted: "RSA",
            });
        }
        context::add_pair(&mut builder, protocol, rsa_pair)?;
    }
    require_sm2(&options.pair)?;
    context::add_pair(&mut builder, protocol, &options.pair)?;
    let means = tlcp_means(options.client_auth.verify, options.rsa_pair.is_some());
    let suites = context::set_tlcp_suites(&mut builder, &options.ciphers, means)?;
    prefer_own_order(&mut builder, options.honor_cipher_order);
    finish(builder, ContextKind::Tlcp, &options.client_auth, &options.resumption, common, Some(suites))
}

fn prefer_own_order(builder: &mut SslContextBuilder, own: bool) {
    if own {
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
    }
}

/// Refuses suites that could never be chosen, because of the versions or of the certificates.
fn fit_suites(options: &TlsOptions, kinds: &[&str]) -> Result<(), ContextError> {
    let protocol = "tls";
    let mut signed_by: Vec<Option<&str>> = Vec::new();
    for name in &options.ciphers {
        let suite = suites::by_name(name);
        let (version, of) = match suite.map(|suite| suite.protocol) {
            Some(SuiteProtocol::Tls13) => (TlsVersion::Tls13, "TLS 1.3"),
            // Whether the library has one of this name is found out when it is set.
            Some(SuiteProtocol::Tls12) | None => (TlsVersion::Tls12, "TLS 1.2"),
            // Refused where the suites are set.
            Some(_) => continue,
        };
        if !(options.min_version..=options.max_version).contains(&version) {
            return Err(ContextError::SuiteOfOtherVersion { protocol, name: name.clone(), of });
        }
        if version == TlsVersion::Tls12 {
            signed_by.push(suite.and_then(|suite| ["ECDSA", "RSA"].into_iter().find(|key| suite.name.contains(key))));
        }
    }
    // Ed25519 signs in the suites of ECDSA.
    let fits = |key: &str| kinds.contains(&key) || (key == "ECDSA" && kinds.contains(&"Ed25519"));
    if signed_by.is_empty() || signed_by.iter().any(|key| key.is_none_or(fits)) {
        return Ok(());
    }
    Err(ContextError::NoSuiteForCertificates { protocol, keys: kinds.join(", ") })
}

/// Refuses signature algorithms of which none is for a key of the server.
fn fit_signature_algorithms(options: &TlsOptions, kinds: &[&str]) -> Result<(), ContextError> {
    let names = &options.signature_algorithms;
    let signs = |name: &String| {
        let name = name.to_ascii_lowercase();
        kinds.iter().any(|kind| name.starts_with(&kind.to_ascii_lowercase()))
    };
    if names.is_empty() || names.iter().any(signs) {
        return Ok(());
    }
    Err(ContextError::NoSignatureAlgorithm { protocol: "tls", names: names.join(", ") })
}

/// Checks that the key is of a kind that the family signs with.
pub(super) fn require_fitting_key(kind: ContextKind, identity: &Identity) -> Result<(), ContextError> {
    match kind {
        ContextKind::Tls => context::require_key(kind.name(), identity, "ECDSA, RSA or Ed25519", |kind| {
            matches!(kind, KeyKind::EcP256 | KeyKind::EcP384 | KeyKind::Rsa(_) | KeyKind::Ed25519)
        }),
        ContextKind::Rfc8998 | ContextKind::Tlcp => {
            context::require_key(kind.name(), identity, "SM2", |kind| kind == KeyKind::Sm2)
        }
    }
}

/// Checks that the main pair of TLCP is of SM2 keys.
pub(super) fn require_sm2(pair: &CertificatePair) -> Result<(), ContextError> {
    if pair.key_kind() == KeyKind::Sm2 {
        return Ok(());
    }
    Err(ContextError::WrongKeyKind {
        protocol: ContextKind::Tlcp.name(),
        subject: pair.sign().subject(),
        found: pair.key_kind().to_string(),
        wanted: "SM2",
    })
}

/// What the suites of a TLCP server with an SM2 pair depend on.
pub(super) fn tlcp_means(verify: VerifyMode, rsa: bool) -> TlcpMeans {
    let mutual = match verify {
        VerifyMode::None => Mutual::Never,
        VerifyMode::Optional => Mutual::Possible,
        VerifyMode::Required => Mutual::Always,
    };
    TlcpMeans { sm2: true, rsa, mutual }
}

/// What all three have in common. `suites`: the code points, if known; otherwise the context is asked.
fn finish(
    mut builder: SslContextBuilder,
    kind: ContextKind,
    client_auth: &ClientAuth,
    resumption: &Resumption,
    common: &ServerOptions,
    suites: Option<Vec<u16>>,
) -> Result<ServerContext, ContextError> {
    set_client_auth(&mut builder, kind, client_auth, common.gm_only)?;
    set_resumption(&mut builder, kind, resumption, &scope(kind, client_auth, common)?)?;
    if let Some(keys) = common.ticket_keys.as_ref().filter(|_| resumption.tickets && kind != ContextKind::Tlcp) {
        keys.install(&mut builder, kind, resumption.lifetime_secs)?;
    }
    lasting::install(&mut builder)?;
    set_alpn(&mut builder, kind, common)?;
    if let Some(staples) = &common.staples {
        staple::install(&mut builder, staples)?;
    }
    // Takes note of the name, so that it can be asked for after the handshake.
    builder.set_servername_callback(|_, _| Ok(()));
    let context = builder.build();
    let suites = suites.unwrap_or_else(|| context::suite_ids(&context));
    let sessions = if resumption.ids { Sessions::Kept } else { Sessions::Private };
    let verifies = client_auth.verify != VerifyMode::None;
    let inspector = client_auth.inspector.clone().filter(|_| verifies);
    Ok(ServerContext { context, kind, suites, sessions, inspector })
}

fn set_client_auth(
    builder: &mut SslContextBuilder,
    kind: ContextKind,
    client_auth: &ClientAuth,
    gm_only: bool,
) -> Result<(), ContextError> {
    let mode = match client_auth.verify {
        VerifyMode::None => SslVerifyMode::NONE,
        VerifyMode::Optional => SslVerifyMode::PEER,
        VerifyMode::Required => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
    };
    builder.set_verify(mode);
    let verifier = if kind == ContextKind::Tlcp { Verifier::TlcpServer } else { Verifier::Server };
    verify::install(
        builder,
        verifier,
        Policy { gm_only, purposes: client_auth.purposes.clone(), ..Policy::default() },
    )?;
    if client_auth.verify == VerifyMode::None {
        return Ok(());
    }
    if client_auth.ca.is_empty() {
        return Err(ContextError::NoCa { protocol: kind.name() });
    }
    if gm_only {
        gm::all(kind.name(), &client_auth.ca)?;
    }
    context::set_trust(builder, &client_auth.ca, client_auth.partial_chain, client_auth.depth)?;
    let mut names = Stack::<X509Name>::new()?;
    for ca in &client_auth.ca {
        names.push(ca.x509().subject_name().to_owned()?)?;
    }
    builder.set_client_ca_list(names);
    if let Some(inspector) = &client_auth.inspector {
        chain::install(builder, inspector)?;
    }
    Ok(())
}

/// What a session may be resumed in: the same family of the same listener, with the same idea of whose certificates are good. A session
/// of any other is no session, so that a client begins anew and is verified by today's rules.
fn scope(kind: ContextKind, auth: &ClientAuth, common: &ServerOptions) -> Result<DigestBytes, ErrorStack> {
    let ClientAuth { verify, ca, depth, partial_chain, purposes, .. } = auth;
    let mut hasher = Hasher::new(MessageDigest::sha256())?;
    let rules = format!("{:?} {verify:?} {depth} {partial_chain} {purposes:?} {}", kind.name(), common.gm_only);
    let anchors: Vec<Vec<u8>> = ca.iter().map(crate::cert::Certificate::to_der).collect();
    let parts = [common.scope.as_bytes(), rules.as_bytes()];
    for part in parts.into_iter().chain(anchors.iter().map(Vec::as_slice)) {
        hasher.update(&part.len().to_be_bytes())?;
        hasher.update(part)?;
    }
    hasher.finish()
}

fn set_resumption(
    builder: &mut SslContextBuilder,
    kind: ContextKind,
    resumption: &Resumption,
    scope: &[u8],
) -> Result<(), ContextError> {
    builder.set_session_id_context(scope)?;
    let tickets = resumption.tickets && kind != ContextKind::Tlcp;
    if !tickets {
        builder.set_options(SslOptions::NO_TICKET);
    }
    builder.set_num_tickets(usize::from(tickets || resumption.ids))?;
    builder.set_session_cache_mode(if resumption.ids { SslSessionCacheMode::SERVER } else { SslSessionCacheMode::OFF });
    builder.set_session_cache_size(resumption.cache_size.max(1));
    context::set_session_lifetime(builder, resumption.lifetime_secs);
    Ok(())
}

fn set_alpn(builder: &mut SslContextBuilder, kind: ContextKind, common: &ServerOptions) -> Result<(), ContextError> {
    if common.alpn.protocols.is_empty() {
        return Ok(());
    }
    context::alpn_wire(kind.name(), &common.alpn.protocols)?;
    let ours = common.alpn.protocols.clone();
    let strict = common.alpn.strict;
    builder.set_alpn_select_callback(move |_, theirs| {
        let miss = if strict { AlpnError::ALERT_FATAL } else { AlpnError::NOACK };
        ours.iter().find_map(|name| offered(theirs).find(|offer| offer == name)).ok_or(miss)
    });
    Ok(())
}

/// The names in ALPN's wire form, whose lengths the library has checked.
fn offered(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = wire.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        wire = rest;
        Some(name)
    })
}

fn library_version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }
}
