//! From the files that a listener's configuration names to the contexts that its handshakes use.

use crate::config::{self, ConfigError, FileRef, IdentityFiles, TlsConfig};
use crate::dev_certs::now;
use gm_tls::ContextError;
use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::key::{Password, PrivateKey};
use gm_tls::pair::{CertificatePair, check_validity};
use gm_tls::server::{
    AlpnPolicy, ClientAuth, Identity, Resumption, Rfc8998Options, ServerContexts, ServerOptions, TlcpOptions,
    TlsOptions, TlsVersion, VerifyMode,
};

/// Why a listener cannot be secured. The cause names the key, the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    #[error("{0}")]
    File(ConfigError),
    #[error("{listener}: {cause}")]
    Context { listener: String, cause: ContextError },
}

/// Opens every file that `config` names, checks that what belongs together fits, and builds the contexts.
///
/// `alpn` are the application protocols to choose from, such as `mqtt` or `http/1.1`.
pub fn load_contexts(listener: &str, config: &TlsConfig, alpn: &[&[u8]]) -> Result<ServerContexts, SecureError> {
    let options = ServerOptions {
        tls: config.tls.as_ref().map(tls_options).transpose()?,
        rfc8998: config.rfc8998.as_ref().map(rfc8998_options).transpose()?,
        tlcp: config.tlcp.as_ref().map(tlcp_options).transpose()?,
        alpn: AlpnPolicy { protocols: alpn.iter().map(|name| name.to_vec()).collect(), strict: false },
        prefer_sm: false,
    };
    ServerContexts::new(&options).map_err(|cause| SecureError::Context { listener: listener.to_owned(), cause })
}

fn tls_options(config: &config::TlsOptions) -> Result<TlsOptions, SecureError> {
    let identities = config.identities.iter().map(identity).collect::<Result<_, _>>()?;
    Ok(TlsOptions {
        client_auth: client_auth(&config.client_auth)?,
        min_version: version(config.versions.min),
        max_version: version(config.versions.max),
        ciphers: config.ciphers.clone(),
        groups: (!config.groups.is_empty()).then(|| config.groups.join(":")),
        honor_cipher_order: config.honor_cipher_order,
        resumption: Resumption { tickets: config.session_tickets, ids: config.reuse_sessions, ..Resumption::default() },
        ..TlsOptions::new(identities)
    })
}

fn rfc8998_options(config: &config::Rfc8998Options) -> Result<Rfc8998Options, SecureError> {
    Ok(Rfc8998Options {
        client_auth: client_auth(&config.client_auth)?,
        ciphers: config.ciphers.clone(),
        resumption: Resumption { tickets: config.session_tickets, ..Resumption::default() },
        ..Rfc8998Options::new(identity(&config.identity)?)
    })
}

fn tlcp_options(config: &config::TlcpOptions) -> Result<TlcpOptions, SecureError> {
    let sign = load_chain(&config.sign.certfile)?;
    let sign_key = load_key(&config.sign)?;
    let enc = load_chain(&config.enc.certfile)?;
    let enc_key = load_key(&config.enc)?;
    let pair =
        CertificatePair::new(sign, sign_key, enc, enc_key).map_err(|cause| in_file(&config.sign.certfile, cause))?;
    pair.check_validity(now()).map_err(|cause| in_file(&config.sign.certfile, cause))?;
    Ok(TlcpOptions {
        client_auth: client_auth(&config.client_auth)?,
        ciphers: config.ciphers.clone(),
        resumption: Resumption { ids: config.reuse_sessions, ..Resumption::default() },
        ..TlcpOptions::new(pair)
    })
}

fn identity(files: &IdentityFiles) -> Result<Identity, SecureError> {
    let chain = load_chain(&files.certfile)?;
    let key = load_key(files)?;
    check_validity(&chain.leaf, &chain.origin, now()).map_err(|cause| in_file(&files.certfile, cause))?;
    Ok(Identity { chain, key })
}

fn load_chain(file: &FileRef) -> Result<CertificateChain, SecureError> {
    CertificateChain::from_file(file.key(), file.path()).map_err(|cause| in_file(file, cause))
}

fn load_key(files: &IdentityFiles) -> Result<PrivateKey, SecureError> {
    let password = files.password.as_ref().map(|secret| Password::resolve(secret.expose())).transpose();
    let password = password.map_err(|cause| in_file(&files.keyfile, cause))?;
    PrivateKey::from_file(files.keyfile.key(), files.keyfile.path(), password.as_ref())
        .map_err(|cause| in_file(&files.keyfile, cause))
}

fn client_auth(config: &config::ClientAuth) -> Result<ClientAuth, SecureError> {
    let verify = match config {
        config::ClientAuth::None => VerifyMode::None,
        config::ClientAuth::Optional(_) => VerifyMode::Optional,
        config::ClientAuth::Required(_) => VerifyMode::Required,
    };
    let Some(trust) = config.trust() else { return Ok(ClientAuth::default()) };
    let file = &trust.cacertfile;
    let ca = Certificate::anchors_from_file(file.key(), file.path()).map_err(|cause| in_file(file, cause))?;
    Ok(ClientAuth { verify, ca, depth: trust.depth, ..ClientAuth::default() })
}

fn version(version: config::TlsVersion) -> TlsVersion {
    match version {
        config::TlsVersion::V1_2 => TlsVersion::Tls12,
        config::TlsVersion::V1_3 => TlsVersion::Tls13,
    }
}

fn in_file(file: &FileRef, cause: impl std::fmt::Display) -> SecureError {
    SecureError::File(file.error(cause.to_string()))
}
