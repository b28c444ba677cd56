//! The client's side: TLS, RFC 8998 and TLCP with verification of the server on unless it is turned off by name.

use std::net::IpAddr;

use bytes::Bytes;
use openssl::foreign_types::{ForeignType, ForeignTypeRef};
use openssl::{
    error::ErrorStack,
    ssl::{
        Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef, SslSession, SslVerifyMode, SslVersion,
        StatusType,
    },
    x509::verify::X509CheckFlags,
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use crate::context::Identity;
use crate::{
    cert::{Certificate, KeyKind},
    context::{self, Mutual, TlcpMeans},
    engine::{Engine, Role, Sessions},
    error::{ContextError, HandshakeError},
    ffi,
    pair::CertificatePair,
    policy::Policy,
    stream::{self, TlsStream},
    verify::{self, Verifier},
};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientProtocol {
    /// TLS 1.2 or 1.3, whichever the server prefers.
    Tls,
    Tls12,
    Tls13,
    /// TLS 1.3 with SM suites alone.
    Rfc8998,
    /// GB/T 38636-2020.
    Tlcp,
}

impl ClientProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
            Self::Rfc8998 => "rfc8998",
            Self::Tlcp => "tlcp",
        }
    }
}

/// A client's certificates.
#[derive(Debug, Clone)]
pub enum ClientIdentity {
    /// For TLS, or an SM2 certificate for RFC 8998.
    Single(Identity),
    /// For TLCP.
    Pair(CertificatePair),
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    pub protocol: ClientProtocol,
    /// Trust anchors.
    pub ca: Vec<Certificate>,
    /// Whether the server's certificates must lead to one of `ca`. Over TLCP both must.
    pub verify: bool,
    /// Whether the certificates must be for `server_name`. Only with `verify`.
    pub verify_hostname: bool,
    /// Trust an anchor that is not self-signed.
    pub partial_chain: bool,
    pub identity: Option<ClientIdentity>,
    /// Names of suites, in order of preference; empty for a default.
    pub ciphers: Vec<String>,
    /// Colon-separated group names; `None` for a default. Not used by TLCP.
    pub groups: Option<String>,
    /// Application protocols to offer, the preferred first; empty for none.
    pub alpn: Vec<Vec<u8>>,
    /// Host name or address of the server. A host name is sent as SNI. Empty: no SNI, and `verify_hostname` must be off.
    pub server_name: String,
    /// Ask for the status of the server's certificate, which [`TlsStream::stapled_answer`] then gives. It is not judged here.
    pub ask_status: bool,
}

impl ClientOptions {
    /// Verifying options for a server, without trust anchors yet.
    pub fn new(protocol: ClientProtocol, server_name: impl Into<String>) -> Self {
        Self {
            protocol,
            ca: Vec::new(),
            verify: true,
            verify_hostname: true,
            partial_chain: false,
            identity: None,
            ciphers: Vec::new(),
            groups: None,
            alpn: Vec::new(),
            server_name: server_name.into(),
            ask_status: false,
        }
    }
}

/// Connects to one server. Cheap to clone; all clones share one context.
#[derive(Debug, Clone)]
pub struct Connector {
    context: SslContext,
    server_name: String,
    address: Option<IpAddr>,
    verify_hostname: bool,
}

/// A session that can be resumed, by a connector of the same context.
#[derive(Clone)]
pub struct Session {
    session: SslSession,
    context: SslContext,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    pub(crate) fn of(ssl: &SslRef) -> Option<Self> {
        let session = ssl.session()?;
        // SAFETY: the session is live while `ssl` is borrowed; the function only reads it.
        let resumable = unsafe { ffi::SSL_SESSION_is_resumable(session.as_ptr()) } == 1;
        resumable.then(|| Self { session: session.to_owned(), context: ssl.ssl_context().to_owned() })
    }
}

impl Connector {
    /// Builds the context.
    ///
    /// # Errors
    /// [`ContextError`] names the protocol and the field that are wrong.
    pub fn new(options: &ClientOptions) -> Result<Self, ContextError> {
        let protocol = options.protocol.name();
        let mut builder = match options.protocol {
            ClientProtocol::Tlcp => tlcp(options)?,
            ClientProtocol::Rfc8998 => rfc8998(options)?,
            _ => tls(options)?,
        };
        if options.verify {
            if options.ca.is_empty() {
                return Err(ContextError::NoCa { protocol });
            }
            builder.set_verify(SslVerifyMode::PEER);
            context::set_trust(&mut builder, &options.ca, options.partial_chain, MAX_CHAIN_DEPTH)?;
        } else {
            builder.set_verify(SslVerifyMode::NONE);
        }
        if options.ask_status {
            builder.set_status_type(StatusType::OCSP)?;
        }
        if !options.alpn.is_empty() {
            builder.set_alpn_protos(&context::alpn_wire(protocol, &options.alpn)?)?;
        }
        let address = options.server_name.parse().ok();
        let verify_hostname = options.verify && options.verify_hostname;
        let unusable = options.server_name.contains('\0') || (verify_hostname && options.server_name.is_empty());
        if unusable {
            return Err(ContextError::BadServerName { protocol, name: options.server_name.clone() });
        }
        Ok(Self { context: builder.build(), server_name: options.server_name.clone(), address, verify_hostname })
    }

    /// A new connection without IO, resuming `session` if there is one and it is of this context.
    ///
    /// # Errors
    /// [`HandshakeError`] if the library has no memory for it.
    pub fn engine(&self, session: Option<&Session>) -> Result<Engine, HandshakeError> {
        let ssl = self.ssl(session).map_err(HandshakeError::setup)?;
        Engine::new(ssl, Role::Client, Sessions::Kept, Bytes::new())
    }

    /// Runs a handshake over `io`. There is no deadline here: the caller puts one around this.
    ///
    /// # Errors
    /// [`HandshakeError`]
    pub async fn connect<S>(&self, io: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_resuming(io, None).await
    }

    /// As [`Connector::connect`], resuming a session if the server still knows it; otherwise the handshake is a full one.
    ///
    /// # Errors
    /// [`HandshakeError`]
    pub async fn connect_resuming<S>(&self, io: S, session: Option<&Session>) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream::establish(io, self.engine(session)?, &stream::AtOnce).await.map_err(|failed| failed.error)
    }

    fn ssl(&self, session: Option<&Session>) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if self.address.is_none() && !self.server_name.is_empty() {
            ssl.set_hostname(&self.server_name)?;
        }
        if self.verify_hostname {
            let param = ssl.param_mut();
            // Without the second the library falls back to the common name where there is no alternative name, against RFC 9525.
            param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT);
            match self.address {
                Some(address) => param.set_ip(address)?,
                None => param.set_host(&self.server_name)?,
            }
        }
        if let Some(session) = session
            && session.context.as_ptr() == self.context.as_ptr()
        {
            // SAFETY: the session came from a connection of this same context, which the comparison has just shown.
            unsafe { ssl.set_session(&session.session)? };
        }
        Ok(ssl)
    }
}

/// How many intermediate certificates a server's chain may have.
const MAX_CHAIN_DEPTH: u32 = 10;

fn tls(options: &ClientOptions) -> Result<SslContextBuilder, ContextError> {
    let mut builder = context::builder(SslMethod::tls_client())?;
    let (min, max) = match options.protocol {
        ClientProtocol::Tls12 => (SslVersion::TLS1_2, SslVersion::TLS1_2),
        ClientProtocol::Tls13 => (SslVersion::TLS1_3, SslVersion::TLS1_3),
        _ => (SslVersion::TLS1_2, SslVersion::TLS1_3),
    };
    builder.set_min_proto_version(Some(min))?;
    builder.set_max_proto_version(Some(max))?;
    context::set_tls_suites(&mut builder, &options.ciphers)?;
    context::set_tls_groups(&mut builder, options.groups.as_deref())?;
    verify::install(&mut builder, Verifier::Client, Policy::default())?;
    if let Some(identity) = single(options)? {
        context::add_identity(&mut builder, options.protocol.name(), identity)?;
    }
    Ok(builder)
}

fn rfc8998(options: &ClientOptions) -> Result<SslContextBuilder, ContextError> {
    let mut builder = context::rfc8998_builder(SslMethod::tls_client(), options.groups.as_deref())?;
    context::make_rfc8998(&mut builder, options.groups.as_deref())?;
    context::set_rfc8998_suites(&mut builder, &options.ciphers)?;
    verify::install(&mut builder, Verifier::Client, Policy { rfc8998: true, ..Policy::default() })?;
    if let Some(identity) = single(options)? {
        context::require_key("rfc8998", identity, "SM2", |kind| kind == KeyKind::Sm2)?;
        context::add_identity(&mut builder, "rfc8998", identity)?;
    }
    Ok(builder)
}

fn tlcp(options: &ClientOptions) -> Result<SslContextBuilder, ContextError> {
    let mut builder = context::tlcp_builder(SslMethod::ntls_client(), &options.ciphers)?;
    context::make_tlcp(&mut builder);
    builder.set_options(SslOptions::NO_TICKET);
    verify::install(&mut builder, Verifier::TlcpClient, Policy::default())?;
    let mutual = match &options.identity {
        None => Mutual::Never,
        Some(ClientIdentity::Pair(pair)) => {
            context::add_pair(&mut builder, "tlcp", pair)?;
            Mutual::Always
        }
        Some(ClientIdentity::Single(identity)) => {
            return Err(ContextError::WrongKeyKind {
                protocol: "tlcp",
                subject: identity.chain.leaf.subject(),
                found: "single".to_owned(),
                wanted: "pair of certificates",
            });
        }
    };
    // A client can speak the RSA suites whatever certificates it has: the server's decide.
    context::set_tlcp_suites(&mut builder, &options.ciphers, TlcpMeans { sm2: true, rsa: true, mutual })?;
    Ok(builder)
}

fn single(options: &ClientOptions) -> Result<Option<&Identity>, ContextError> {
    match &options.identity {
        None => Ok(None),
        Some(ClientIdentity::Single(identity)) => Ok(Some(identity)),
        Some(ClientIdentity::Pair(pair)) => Err(ContextError::WrongKeyKind {
            protocol: options.protocol.name(),
            subject: pair.sign().subject(),
            found: "pair of certificates".to_owned(),
            wanted: "single",
        }),
    }
}
