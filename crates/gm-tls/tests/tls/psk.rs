//! Clients that show pre-shared keys, by the library's own client.

use std::io::{Read, Write};
use std::sync::Arc;

use gm_tls::HandshakeFailure;
use gm_tls::psk::PskLookup;
use gm_tls::server::{ServerContexts, ServerOptions, VerifyMode};
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::harness::{server, server_options};
use crate::raw;

const KEY: [u8; 32] = [7; 32];

#[derive(Debug)]
struct One;

impl PskLookup for One {
    fn key(&self, identity: &str) -> Option<Zeroizing<Vec<u8>>> {
        (identity == "meter").then(|| Zeroizing::new(KEY.to_vec()))
    }
}

/// A server that takes keys, and certificates from who shows none.
fn with_keys(verify: VerifyMode) -> ServerContexts {
    let mut options = server_options(verify);
    let tls = options.tls.as_mut().unwrap();
    tls.psk = Some(Arc::new(One));
    tls.resumption.tickets = true;
    ServerContexts::new(&ServerOptions { tls: options.tls, ..ServerOptions::default() }).unwrap()
}

fn client(version: SslVersion, suites: &str, identity: &'static str, key: [u8; 32]) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    if !suites.is_empty() {
        builder.set_cipher_list(suites).unwrap();
    }
    builder.set_psk_client_callback(move |_, _, name, space| {
        name[..identity.len()].copy_from_slice(identity.as_bytes());
        name[identity.len()] = 0;
        space[..key.len()].copy_from_slice(&key);
        Ok(key.len())
    });
    builder.build()
}

/// The identity that the server knows the client by after data went both ways; what the client is told where there is no connection.
async fn known(contexts: &ServerContexts, context: SslContext) -> Result<Option<Arc<str>>, String> {
    let (tell, told) = std::sync::mpsc::channel();
    let accepted = raw::client(contexts, move |address| {
        let socket = std::net::TcpStream::connect(address).unwrap();
        let outcome = openssl::ssl::Ssl::new(&context).unwrap().connect(socket);
        let outcome = outcome.map_err(|error| error.to_string()).and_then(|mut stream| {
            stream.write_all(b"ping").map_err(|error| error.to_string())?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).map_err(|error| error.to_string())
        });
        tell.send(outcome).unwrap();
    })
    .await;
    match accepted {
        Ok(Ok(mut stream)) => {
            let mut data = [0; 4];
            stream.read_exact(&mut data).await.map_err(|error| error.to_string())?;
            stream.write_all(b"pong").await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap()?;
            let peer = stream.peer_identity();
            assert!(!peer.resumed && peer.signing.is_none());
            Ok(peer.psk.clone())
        }
        Ok(Err(_)) => Err(told.recv().unwrap().expect_err("the server refused it")),
        Err(refusal) => Err(refusal.to_string()),
    }
}

const PSK12: [&str; 4] =
    ["ECDHE-PSK-CHACHA20-POLY1305", "PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384", "PSK-CHACHA20-POLY1305"];

#[tokio::test]
async fn who_proves_a_key_is_known_by_its_identity_and_needs_no_certificate() {
    for verify in [VerifyMode::None, VerifyMode::Required] {
        let contexts = with_keys(verify);
        for suite in PSK12 {
            let found = known(&contexts, client(SslVersion::TLS1_2, suite, "meter", KEY)).await;
            assert_eq!(found.unwrap().as_deref(), Some("meter"), "{suite}");
        }
        let found = known(&contexts, client(SslVersion::TLS1_3, "", "meter", KEY)).await;
        assert_eq!(found.unwrap().as_deref(), Some("meter"));
    }
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_identity_get_nowhere() {
    let contexts = with_keys(VerifyMode::Required);
    let wrong = known(&contexts, client(SslVersion::TLS1_2, PSK12[1], "meter", [8; 32])).await.unwrap_err();
    let unknown = known(&contexts, client(SslVersion::TLS1_2, PSK12[1], "other", KEY)).await.unwrap_err();
    assert_eq!(wrong, unknown, "TLS 1.2 does not tell which identities are known");
    known(&contexts, client(SslVersion::TLS1_3, "", "meter", [8; 32])).await.unwrap_err();
    known(&contexts, client(SslVersion::TLS1_3, "", "other", KEY)).await.unwrap_err();
}

// What the log said was of binders and certificates, and not whose key it was.
#[tokio::test]
async fn the_failure_names_the_identity_and_what_is_wrong_with_its_key() {
    let contexts = with_keys(VerifyMode::Required);
    for (version, suite) in [(SslVersion::TLS1_2, PSK12[1]), (SslVersion::TLS1_3, "")] {
        let of = async |identity, key| {
            let context = client(version, suite, identity, key);
            let accepted = raw::client(&contexts, move |address| {
                let socket = std::net::TcpStream::connect(address).unwrap();
                let connected = openssl::ssl::Ssl::new(&context).unwrap().connect(socket);
                // A client of TLS 1.3 learns of a refusal by its first read.
                let _told = connected.map(|mut stream| stream.read(&mut [0]));
            });
            let error = accepted.await.unwrap().unwrap_err();
            (error.reason(), error.to_string())
        };
        let (reason, text) = of("meter", [8; 32]).await;
        assert_eq!(reason, HandshakeFailure::WrongPsk, "{text}");
        assert!(text.starts_with("the client offers a pre-shared key as \"meter\", and it is not the key"), "{text}");
        let (reason, text) = of("bad\u{1b}[2J\u{202e}", KEY).await;
        assert_eq!(reason, HandshakeFailure::UnknownPsk, "{text}");
        assert!(
            text.starts_with(
                "the client offers a pre-shared key as \"bad\\u{1b}[2J\\u{202e}\", which is not known here"
            ),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_unknown_identity_of_tls13_is_nobody_where_no_certificate_is_needed() {
    let contexts = with_keys(VerifyMode::None);
    assert_eq!(known(&contexts, client(SslVersion::TLS1_3, "", "other", KEY)).await, Ok(None));
    // As one that shows none.
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    assert_eq!(known(&contexts, builder.build()).await, Ok(None));
}

#[tokio::test]
async fn keys_are_off_unless_there_are_some() {
    let contexts = server(VerifyMode::None);
    for suite in PSK12 {
        let refused = known(&contexts, client(SslVersion::TLS1_2, suite, "meter", KEY)).await.unwrap_err();
        assert!(refused.contains("no cipher suite in common"), "{refused}");
    }
    assert_eq!(known(&contexts, client(SslVersion::TLS1_3, "", "meter", KEY)).await, Ok(None));
}
