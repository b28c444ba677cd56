//! A server with every protocol, clients for each, and a way to run both in memory.

use bytes::BytesMut;
use gm_tls::{
    HandshakeError, TlsStream,
    client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Session},
    hello::{self, Parse},
    server::{ClientAuth, Refusal, Rfc8998Options, ServerContexts, ServerOptions, TlcpOptions, TlsOptions, VerifyMode},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use crate::certificates::{SERVER, pki};

/// Makes a module of tests for each protocol from one body: `over_every_protocol!(name, |protocol| async { ... })`.
macro_rules! over_every_protocol {
    ($name:ident, $body:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            crate::harness::one_protocol!(tls12, Tls12, $body);
            crate::harness::one_protocol!(tls13, Tls13, $body);
            crate::harness::one_protocol!(rfc8998, Rfc8998, $body);
            crate::harness::one_protocol!(tlcp, Tlcp, $body);
        }
    };
}

macro_rules! one_protocol {
    ($name:ident, $variant:ident, $body:expr) => {
        #[tokio::test]
        async fn $name() {
            #[allow(clippy::redundant_closure_call)]
            ($body)(gm_tls::client::ClientProtocol::$variant).await
        }
    };
}

pub(crate) use {one_protocol, over_every_protocol};

/// A server for all protocols, whose clients are verified as `verify` says.
pub fn server_options(verify: VerifyMode) -> ServerOptions {
    let pki = pki();
    let auth = |ca| ClientAuth { verify, ca, ..ClientAuth::default() };
    ServerOptions {
        tls: Some(TlsOptions {
            client_auth: auth(vec![pki.p256.certificate()]),
            ..TlsOptions::new(vec![pki.server_p256.clone(), pki.server_rsa.clone()])
        }),
        rfc8998: Some(Rfc8998Options {
            client_auth: auth(vec![pki.sm2.certificate()]),
            ..Rfc8998Options::new(pki.server_sm2.clone())
        }),
        tlcp: Some(TlcpOptions {
            client_auth: auth(vec![pki.sm2.certificate()]),
            ..TlcpOptions::new(pki.server_pair.clone())
        }),
        ..ServerOptions::default()
    }
}

pub fn server(verify: VerifyMode) -> ServerContexts {
    ServerContexts::new(&server_options(verify)).unwrap()
}

/// A verifying client without certificates.
pub fn client_options(protocol: ClientProtocol) -> ClientOptions {
    let pki = pki();
    ClientOptions {
        ca: vec![pki.sm2.certificate(), pki.p256.certificate(), pki.rsa.certificate()],
        ..ClientOptions::new(protocol, SERVER)
    }
}

/// A verifying client with the right certificates for its protocol.
pub fn mutual_options(protocol: ClientProtocol) -> ClientOptions {
    let pki = pki();
    let identity = match protocol {
        ClientProtocol::Tlcp => ClientIdentity::Pair(pki.client_pair.clone()),
        ClientProtocol::Rfc8998 => ClientIdentity::Single(pki.client_sm2.clone()),
        _ => ClientIdentity::Single(pki.client_p256.clone()),
    };
    ClientOptions { identity: Some(identity), ..client_options(protocol) }
}

pub type Accepted<S> = Result<TlsStream<S>, HandshakeError>;

/// What the broker does: peek, choose, accept.
pub async fn serve<S>(contexts: &ServerContexts, mut io: S) -> Result<Accepted<S>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut prefix = BytesMut::new();
    loop {
        match hello::parse(&prefix).expect("a hello") {
            Parse::NeedMore => {
                assert_ne!(io.read_buf(&mut prefix).await.unwrap(), 0, "the client left before its hello was complete");
            }
            Parse::Hello(hello) => {
                return match contexts.select(&hello) {
                    Ok(context) => Ok(context.accept(io, prefix.freeze()).await),
                    Err(refusal) => {
                        io.write_all(&refusal.alert_record()).await.unwrap();
                        io.shutdown().await.unwrap();
                        Err(refusal)
                    }
                };
            }
        }
    }
}

pub type Both = (Result<Accepted<DuplexStream>, Refusal>, Accepted<DuplexStream>);

/// Runs a server and a client against each other.
pub async fn meet(contexts: &ServerContexts, options: &ClientOptions) -> Both {
    meet_resuming(contexts, &Connector::new(options).unwrap(), None).await
}

pub async fn meet_resuming(contexts: &ServerContexts, connector: &Connector, session: Option<&Session>) -> Both {
    let (here, there) = tokio::io::duplex(64 * 1024);
    tokio::join!(serve(contexts, here), connector.connect_resuming(there, session))
}

/// As [`meet`], where both must succeed. TLS 1.3 clients have then also read what the server sent after its handshake.
pub async fn meet_well(
    contexts: &ServerContexts,
    options: &ClientOptions,
) -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let (server, client) = meet(contexts, options).await;
    (server.unwrap().unwrap(), client.unwrap())
}

/// Sends `data` from one to the other and checks that it arrives.
pub async fn send<A, B>(from: &mut A, to: &mut B, data: &[u8])
where
    A: AsyncWrite + Unpin,
    B: AsyncRead + Unpin,
{
    let mut got = vec![0; data.len()];
    let sending = async {
        from.write_all(data).await.unwrap();
        from.flush().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, to.read_exact(&mut got));
    read.unwrap();
    assert!(got == data, "other bytes arrived than were sent");
}

pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A server and a client without any IO, after their handshake.
pub fn engines(
    contexts: &gm_tls::server::ServerContexts,
    connector: &Connector,
) -> (gm_tls::engine::Engine, gm_tls::engine::Engine) {
    use gm_tls::{engine::Progress, hello};
    let mut client = connector.engine(None).unwrap();
    client.handshake().unwrap();
    let Ok(hello::Parse::Hello(hello)) = hello::parse(client.output()) else { panic!("no hello") };
    let mut server = contexts.select(&hello).unwrap().engine(client.output().to_vec().into()).unwrap();
    client.consume_output(usize::MAX);
    loop {
        let here = server.handshake().unwrap();
        client.receive(server.output());
        server.consume_output(usize::MAX);
        let there = client.handshake().unwrap();
        server.receive(client.output());
        client.consume_output(usize::MAX);
        if (here, there) == (Progress::Done, Progress::Done) {
            return (server, client);
        }
    }
}

/// A record of a CBC suite with MAC-then-encrypt that decrypts to the text alone, whole blocks of it: the client's MAC and padding are cut
/// off, so that text stands where they are looked for.
pub fn cut_record(client: &mut gm_tls::engine::Engine, text: &[u8]) -> Vec<u8> {
    const HEADER_AND_IV: usize = 5 + 16;
    client.write(text).unwrap();
    let mut record = client.output().to_vec();
    client.consume_output(record.len());
    record.truncate(HEADER_AND_IV + text.len());
    let body = u16::try_from(record.len() - 5).unwrap().to_be_bytes();
    record[3..5].copy_from_slice(&body);
    record
}

/// So many bytes of which the last are padding with this length in each of them, and one for the length itself.
pub fn padded_text(length: usize, padding: u8) -> Vec<u8> {
    let mut text = vec![0xaa; length];
    let count = (usize::from(padding) + 1).min(length);
    text[length - count..].fill(padding);
    text
}
