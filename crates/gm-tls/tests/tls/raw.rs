//! Peers that a well-behaved library would not be: contexts of the C library with its own checks off, over real sockets, and
//! bytes written by hand.

use std::net::SocketAddr;

use gm_tls::{
    cert::Certificate,
    client::{ClientOptions, Connector},
    key::PrivateKey,
    server::{Refusal, ServerContexts},
};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSession, SslStream, SslVerifyMode, SslVersion,
};
use std::io::{Read, Write};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Accepted, serve};

/// The two certificates of a TLCP peer, which need not belong together.
pub struct Odd {
    pub sign: (Certificate, PrivateKey),
    pub enc: (Certificate, PrivateKey),
    pub extra: Vec<Certificate>,
}

impl Odd {
    pub fn new(sign: (Certificate, PrivateKey), enc: (Certificate, PrivateKey)) -> Self {
        Self { sign, enc, extra: Vec::new() }
    }

    fn load(&self, builder: &mut SslContextBuilder) {
        builder.set_sign_certificate(self.sign.0.x509()).unwrap();
        builder.set_sign_private_key(self.sign.1.pkey()).unwrap();
        builder.set_enc_certificate(self.enc.0.x509()).unwrap();
        builder.set_enc_private_key(self.enc.1.pkey()).unwrap();
        for certificate in &self.extra {
            builder.add_extra_chain_cert(certificate.x509().to_owned()).unwrap();
        }
    }
}

/// A TLCP context without any check.
fn careless(method: SslMethod, suites: &str, odd: Option<&Odd>) -> SslContext {
    let mut builder = SslContextBuilder::new(method).unwrap();
    builder.enable_ntls();
    builder.set_options(SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
    builder.set_ntls_cert_key_usage_check(false);
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_cipher_list(suites).unwrap();
    if let Some(odd) = odd {
        odd.load(&mut builder);
    }
    builder.build()
}

/// What a careless TLCP client with `odd` certificates gets from a server, over a real socket.
pub async fn tlcp_client(contexts: &ServerContexts, suites: &'static str, odd: Option<Odd>) -> Accepted<TcpStream> {
    client(contexts, move |address| {
        let context = careless(SslMethod::ntls_client(), suites, odd.as_ref());
        let Ok(mut stream) = Ssl::new(&context).unwrap().connect(std::net::TcpStream::connect(address).unwrap()) else {
            return;
        };
        let _ = stream.write_all(b"x");
        let _ = stream.read(&mut [0]);
    })
    .await
    .unwrap()
}

/// What a server makes of a client that runs in a thread of its own.
pub async fn client<F>(contexts: &ServerContexts, run: F) -> Result<Accepted<TcpStream>, Refusal>
where
    F: FnOnce(SocketAddr) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = tokio::task::spawn_blocking(move || run(address));
    let socket = tokio::select! {
        accepted = listener.accept() => accepted.unwrap().0,
        outcome = &mut client => panic!("the client ended before it connected: {outcome:?}"),
    };
    let outcome = serve(contexts, socket).await;
    if let Ok(Err(_)) | Err(_) = outcome {
        client.await.unwrap();
    }
    outcome
}

/// What our client makes of a careless TLCP server with `odd` certificates.
pub async fn tlcp_server(options: &ClientOptions, odd: Odd) -> Accepted<TcpStream> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::task::spawn_blocking(move || {
        let context = careless(SslMethod::ntls_server(), "ECC-SM2-SM4-GCM-SM3", Some(&odd));
        let (socket, _) = listener.accept().unwrap();
        if let Ok(mut stream) = Ssl::new(&context).unwrap().accept(socket) {
            let _ = stream.write_all(b"x");
        }
    });
    let outcome = Connector::new(options).unwrap().connect(TcpStream::connect(address).await.unwrap()).await;
    server.await.unwrap();
    outcome
}

/// A TLS context of the library as it comes, with everything that version 1.3 has, SM and not.
pub fn tls13_client(groups: &str, suites: &str) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_ciphersuites(suites).unwrap();
    builder.set_groups_list(groups).unwrap();
    builder.build()
}

/// The same with what either version has, of suites of one of them.
pub fn tls_client(suites: &str, signatures: &str, groups: &str) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    if suites.starts_with("TLS_") {
        builder.set_ciphersuites(suites).unwrap();
        builder.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
    } else {
        builder.set_cipher_list(suites).unwrap();
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    }
    builder.set_sigalgs_list(signatures).unwrap();
    builder.set_groups_list(groups).unwrap();
    builder.build()
}

/// Connects with a context that the server has nothing in common with.
pub fn refused(context: &SslContext, address: SocketAddr) {
    let socket = std::net::TcpStream::connect(address).unwrap();
    assert!(Ssl::new(context).unwrap().connect(socket).is_err());
}

/// Connects with a context, optionally resuming; calls `then` with the stream.
pub fn connect<T>(
    context: &SslContext,
    address: SocketAddr,
    session: Option<&SslSession>,
    then: impl FnOnce(&mut SslStream<std::net::TcpStream>) -> T,
) -> T {
    let mut ssl = Ssl::new(context).unwrap();
    if let Some(session) = session {
        // SAFETY: the session came from this very context in every test.
        unsafe { ssl.set_session(session).unwrap() };
    }
    then(&mut ssl.connect(std::net::TcpStream::connect(address).unwrap()).unwrap())
}

/// A handshake record of TLCP.
pub fn tlcp_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 1, 1];
    record.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    record.extend_from_slice(body);
    record
}

pub fn handshake_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// A hello of TLCP with the given version inside and suites.
pub fn tlcp_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&u16::try_from(suites.len() * 2).unwrap().to_be_bytes());
    suites.iter().for_each(|suite| body.extend_from_slice(&suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    tlcp_record(22, &handshake_message(1, &body))
}
