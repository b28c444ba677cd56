//! The server's side: one context for each protocol family behind one port, chosen by the client's hello.
//!
//! RFC 8998 has a context of its own, since a context that also has an ECDSA certificate would sign with it in an SM suite,
//! which the RFC forbids. Contexts are immutable; a reload builds new ones.

mod build;
mod check;
mod gm;
mod select;

use std::sync::Arc;

use bytes::Bytes;
use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::check::{
    check_ciphers, check_gm, check_groups, check_identity, check_pair, check_rfc8998_groups, check_signature_algorithms,
};
pub use self::select::{Refusal, RefusalKind};
pub use crate::context::Identity;
use crate::{
    cert::Certificate,
    context,
    engine::{Engine, Role, Sessions},
    error::{ContextError, HandshakeError},
    pair::CertificatePair,
    policy::KeyPurpose,
    psk::PskLookup,
    revocation::{Inspector, StapleSource},
    stream::{self, AtOnce, Failed, TlsStream, Turns},
    tickets::TicketKeys,
};

/// What a port serves. A protocol that is `None` is refused.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// TLS 1.2 and 1.3.
    pub tls: Option<TlsOptions>,
    /// TLS 1.3 with SM suites, RFC 8998.
    pub rfc8998: Option<Rfc8998Options>,
    /// TLCP, GB/T 38636-2020.
    pub tlcp: Option<TlcpOptions>,
    pub alpn: AlpnPolicy,
    /// What protects tickets. Without it each context has keys of its own.
    pub ticket_keys: Option<TicketKeys>,
    /// The name of what is served. A session resumes only under the name, the family and the verification of clients that it began under.
    pub scope: String,
    /// Serve nothing but SM2, SM3 and SM4: no TLS proper, no other certificate in any chain, no hybrid group.
    pub gm_only: bool,
    /// Serve RFC 8998 to every client that is able to, even if it prefers a suite of TLS 1.3 proper. Otherwise the order of
    /// the client's suites decides.
    pub prefer_sm: bool,
    /// Who has the OCSP answers about the certificates, for clients that ask.
    pub staples: Option<Arc<dyn StapleSource>>,
}

/// Application protocols.
#[derive(Debug, Clone, Default)]
pub struct AlpnPolicy {
    /// Names that are served, the preferred first. Empty: ALPN is ignored.
    pub protocols: Vec<Vec<u8>>,
    /// Refuse a client that offers ALPN without any of `protocols`, as RFC 7301 section 3.2 wants. Otherwise it is served as
    /// if it had not offered any, since MQTT clients offer names of many kinds.
    pub strict: bool,
}

/// Resumption of sessions. Off by default: a resumed session brings back certificates that were verified when it began, so
/// that a revocation takes effect only when `lifetime_secs` are over. 0-RTT is never offered.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// Stateless tickets of TLS 1.2 and 1.3. Never for TLCP.
    pub tickets: bool,
    /// Session ids of TLS 1.2 and TLCP, kept in memory; TLS 1.3 tickets that refer to them if `tickets` is off.
    pub ids: bool,
    /// How many sessions each context keeps for `ids`.
    pub cache_size: i32,
    pub lifetime_secs: u32,
}

impl Default for Resumption {
    fn default() -> Self {
        Self { tickets: false, ids: false, cache_size: 1000, lifetime_secs: 7200 }
    }
}

/// Whether clients are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyMode {
    /// Not asked.
    #[default]
    None,
    /// Asked; a client may have none, but one that it sends must be good (`verify_peer`).
    Optional,
    /// Asked and required (`fail_if_no_peer_cert`).
    Required,
}

/// Verification of clients.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    pub verify: VerifyMode,
    /// Trust anchors. Their names are sent to clients as acceptable issuers.
    pub ca: Vec<Certificate>,
    /// How many intermediate certificates a chain may have.
    pub depth: u32,
    /// Trust an anchor that is not self-signed, such as an intermediate CA.
    pub partial_chain: bool,
    /// Extended key usages that a client's certificate must have, all of them; over TLCP its signing certificate.
    pub purposes: Vec<KeyPurpose>,
    /// Who knows which certificates are revoked.
    pub inspector: Option<Arc<dyn Inspector>>,
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self {
            verify: VerifyMode::None,
            ca: Vec::new(),
            depth: 10,
            partial_chain: false,
            purposes: Vec::new(),
            inspector: None,
        }
    }
}

/// Versions of TLS that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// TLS 1.2 and 1.3.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// At most one of each kind of key: ECDSA, RSA, Ed25519. The client's offer decides which is used.
    pub identities: Vec<Identity>,
    pub client_auth: ClientAuth,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Names of suites by IANA or the library, in order of preference. Where a version has none, a default list applies.
    pub ciphers: Vec<String>,
    /// Colon-separated group names; `None` for a default.
    pub groups: Option<String>,
    /// Names of signature algorithms by IANA; empty for the library's choice.
    pub signature_algorithms: Vec<String>,
    /// Choose the suite by the server's order instead of the client's.
    pub honor_cipher_order: bool,
    /// Least strength of keys, signatures and suites, in the levels of the library: 2 is 112 bits, 3 is 128.
    pub security_level: u32,
    pub resumption: Resumption,
    /// Where pre-shared keys are, if clients may show some. Then no session is resumed.
    pub psk: Option<Arc<dyn PskLookup>>,
}

/// 112 bits: no RSA key below 2048 bits and no SHA-1 in a chain.
pub const DEFAULT_SECURITY_LEVEL: u32 = context::SECURITY_LEVEL;

impl TlsOptions {
    /// TLS 1.2 and 1.3 with defaults.
    pub fn new(identities: Vec<Identity>) -> Self {
        Self {
            identities,
            client_auth: ClientAuth::default(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            ciphers: Vec::new(),
            groups: None,
            signature_algorithms: Vec::new(),
            honor_cipher_order: true,
            security_level: DEFAULT_SECURITY_LEVEL,
            resumption: Resumption::default(),
            psk: None,
        }
    }
}

/// TLS 1.3 by RFC 8998.
#[derive(Debug, Clone)]
pub struct Rfc8998Options {
    /// A single SM2 certificate.
    pub identity: Identity,
    pub client_auth: ClientAuth,
    /// `TLS_SM4_GCM_SM3` and `TLS_SM4_CCM_SM3`; empty for both.
    pub ciphers: Vec<String>,
    /// Colon-separated group names; `None` for curveSM2 and its hybrid with ML-KEM-768.
    pub groups: Option<String>,
    /// Choose the suite by the server's order instead of the client's.
    pub honor_cipher_order: bool,
    /// As in [`TlsOptions`].
    pub security_level: u32,
    pub resumption: Resumption,
}

impl Rfc8998Options {
    /// RFC 8998 with defaults.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            client_auth: ClientAuth::default(),
            ciphers: Vec::new(),
            groups: None,
            honor_cipher_order: true,
            security_level: DEFAULT_SECURITY_LEVEL,
            resumption: Resumption::default(),
        }
    }
}

/// TLCP.
#[derive(Debug, Clone)]
pub struct TlcpOptions {
    /// A pair of SM2 certificates.
    pub pair: CertificatePair,
    /// A pair of RSA certificates for the `RSA_SM4_*` suites, which are served only if `ciphers` names them.
    pub rsa_pair: Option<CertificatePair>,
    pub client_auth: ClientAuth,
    /// Names by GB/T 38636-2020 or the library, in order of preference. Empty: the SM2 suites that can work with
    /// `client_auth`. ECDHE suites need client certificates.
    pub ciphers: Vec<String>,
    /// Choose the suite by the server's order instead of the client's.
    pub honor_cipher_order: bool,
    /// As in [`TlsOptions`].
    pub security_level: u32,
    pub resumption: Resumption,
}

impl TlcpOptions {
    /// TLCP with defaults.
    pub fn new(pair: CertificatePair) -> Self {
        Self {
            pair,
            rsa_pair: None,
            client_auth: ClientAuth::default(),
            ciphers: Vec::new(),
            honor_cipher_order: true,
            security_level: DEFAULT_SECURITY_LEVEL,
            resumption: Resumption::default(),
        }
    }
}

/// The contexts behind one port.
#[derive(Debug)]
pub struct ServerContexts {
    tls: Option<ServerContext>,
    rfc8998: Option<ServerContext>,
    tlcp: Option<ServerContext>,
    prefer_sm: bool,
}

/// Which family a context serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContextKind {
    Tls,
    Rfc8998,
    Tlcp,
}

impl ContextKind {
    /// The name of the configuration's block.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Rfc8998 => "rfc8998",
            Self::Tlcp => "tlcp",
        }
    }
}

/// One immutable context.
#[derive(Debug, Clone)]
pub struct ServerContext {
    context: SslContext,
    kind: ContextKind,
    suites: Vec<u16>,
    sessions: Sessions,
    inspector: Option<Arc<dyn Inspector>>,
}

impl ServerContexts {
    /// Builds the contexts.
    ///
    /// # Errors
    /// [`ContextError`] names the protocol and the field that are wrong.
    pub fn new(options: &ServerOptions) -> Result<Self, ContextError> {
        if options.tls.is_none() && options.rfc8998.is_none() && options.tlcp.is_none() {
            return Err(ContextError::NothingEnabled);
        }
        Ok(Self {
            tls: options.tls.as_ref().map(|tls| build::tls(tls, options)).transpose()?,
            rfc8998: options.rfc8998.as_ref().map(|rfc8998| build::rfc8998(rfc8998, options)).transpose()?,
            tlcp: options.tlcp.as_ref().map(|tlcp| build::tlcp(tlcp, options)).transpose()?,
            prefer_sm: options.prefer_sm,
        })
    }

    /// The context of a family, if it is enabled.
    pub fn context(&self, kind: ContextKind) -> Option<&ServerContext> {
        match kind {
            ContextKind::Tls => self.tls.as_ref(),
            ContextKind::Rfc8998 => self.rfc8998.as_ref(),
            ContextKind::Tlcp => self.tlcp.as_ref(),
        }
    }
}

impl ServerContext {
    pub fn kind(&self) -> ContextKind {
        self.kind
    }

    /// Code points of the suites that this context accepts.
    pub fn suites(&self) -> &[u16] {
        &self.suites
    }

    /// Whom the certificates of clients are shown to; it is to be asked to admit each when its handshake is over.
    pub fn inspector(&self) -> Option<&Arc<dyn Inspector>> {
        self.inspector.as_ref()
    }

    /// A new connection without IO. `prefix` holds bytes of the client that were read already, such as its hello.
    ///
    /// # Errors
    /// [`HandshakeError`] if the library has no memory for it.
    pub fn engine(&self, prefix: Bytes) -> Result<Engine, HandshakeError> {
        let ssl = Ssl::new(&self.context).map_err(HandshakeError::setup)?;
        Engine::new(ssl, Role::Server, self.sessions, prefix)
    }

    /// Runs a handshake over `io`. `prefix` holds bytes of the client that were read already, such as its hello.
    ///
    /// There is no deadline here: the caller puts one around this. Dropping the future abandons the handshake.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has then been sent an alert where the protocol has one.
    pub async fn accept<S>(&self, io: S, prefix: Bytes) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream::establish(io, self.engine(prefix)?, &AtOnce).await.map_err(|failed| failed.error)
    }

    /// As [`accept`](Self::accept), computing only in turn, which is not held while the client is waited for, and for a
    /// caller that takes leave of the client in its own way.
    ///
    /// # Errors
    /// [`Failed`] with the transport, shut down for writing where the client was sent an alert. A socket that is closed while
    /// bytes of the peer are unread resets the connection, which can destroy the alert on its way.
    pub async fn accept_in_turn<S>(&self, io: S, prefix: Bytes, turns: &impl Turns) -> Result<TlsStream<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.engine(prefix) {
            Ok(engine) => stream::establish(io, engine, turns).await,
            Err(error) => Err(Failed { error, io }),
        }
    }
}
