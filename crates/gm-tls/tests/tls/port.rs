//! Several protocols behind one port: who gets which context, and what the others are told.

use gm_tls::{
    HandshakeFailure as Failure, Protocol,
    client::{ClientOptions, ClientProtocol},
    hello::{self, Parse},
    server::{AlpnPolicy, ContextKind, RefusalKind, ServerContexts, ServerOptions, VerifyMode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{client_options, meet, meet_well, over_every_protocol, serve, server, server_options},
    raw,
};

fn only(kinds: &[ContextKind]) -> ServerContexts {
    let mut options = server_options(VerifyMode::None);
    options.tls = options.tls.filter(|_| kinds.contains(&ContextKind::Tls));
    options.rfc8998 = options.rfc8998.filter(|_| kinds.contains(&ContextKind::Rfc8998));
    options.tlcp = options.tlcp.filter(|_| kinds.contains(&ContextKind::Tlcp));
    ServerContexts::new(&options).unwrap()
}

async fn refusal(contexts: &ServerContexts, protocol: ClientProtocol) -> (RefusalKind, Failure) {
    let (refused, connected) = meet(contexts, &client_options(protocol)).await;
    (refused.unwrap_err().kind, connected.unwrap_err().reason())
}

over_every_protocol!(each_client_gets_its_own_context, |protocol| async move {
    let (accepted, _) = meet_well(&server(VerifyMode::None), &client_options(protocol)).await;
    let expected = match protocol {
        ClientProtocol::Tls12 => Protocol::Tls12,
        ClientProtocol::Rfc8998 => Protocol::Rfc8998,
        ClientProtocol::Tlcp => Protocol::Tlcp,
        _ => Protocol::Tls13,
    };
    assert_eq!(accepted.peer_identity().protocol, expected);
});

#[tokio::test]
async fn tells_a_tlcp_client_that_the_version_is_not_served() {
    let (kind, failure) = refusal(&only(&[ContextKind::Tls]), ClientProtocol::Tlcp).await;
    assert_eq!((kind.clone(), failure), (RefusalKind::TlcpNotEnabled, Failure::PeerAlert(70)));
    assert!(kind.to_string().contains("\"tlcp\""), "{kind}");
}

#[tokio::test]
async fn tells_a_tls_client_that_the_version_is_not_served() {
    for protocol in [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998] {
        let (kind, failure) = refusal(&only(&[ContextKind::Tlcp]), protocol).await;
        assert_eq!((kind, failure), (RefusalKind::TlsNotEnabled, Failure::PeerAlert(70)));
    }
}

#[tokio::test]
async fn tells_a_client_what_it_lacks_for_rfc8998() {
    let contexts = only(&[ContextKind::Rfc8998]);
    let (kind, failure) = refusal(&contexts, ClientProtocol::Tls13).await;
    assert_eq!(kind, RefusalKind::NotRfc8998 { missing: "TLS_SM4_GCM_SM3 or TLS_SM4_CCM_SM3" });
    assert_eq!(failure, Failure::PeerAlert(40));
    assert_eq!(refusal(&contexts, ClientProtocol::Tls12).await.0, RefusalKind::NotRfc8998 { missing: "TLS 1.3" });
}

#[tokio::test]
async fn refuses_a_suite_that_was_not_configured() {
    let mut options = server_options(VerifyMode::None);
    options.tlcp.as_mut().unwrap().ciphers = vec!["ECC_SM4_GCM_SM3".into()];
    let contexts = ServerContexts::new(&options).unwrap();
    let client = ClientOptions { ciphers: vec!["ECC_SM4_CBC_SM3".into()], ..client_options(ClientProtocol::Tlcp) };
    let (refused, connected) = meet(&contexts, &client).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.alert(), 40);
    assert!(refused.to_string().contains("ECC_SM4_CBC_SM3"), "{refused}");
    assert_eq!(connected.unwrap_err().reason(), Failure::PeerAlert(40));
}

/// What the server answers to bytes.
async fn answer(contexts: &ServerContexts, bytes: &[u8]) -> (RefusalKind, Vec<u8>) {
    let (here, mut there) = tokio::io::duplex(64 * 1024);
    there.write_all(bytes).await.unwrap();
    let refused = serve(contexts, here).await.unwrap_err();
    let mut answer = Vec::new();
    there.read_to_end(&mut answer).await.unwrap();
    (refused.kind, answer)
}

#[tokio::test]
async fn refuses_a_tlcp_record_around_a_hello_of_another_version() {
    // The library accepts it: the record's version is not part of what the handshake protects.
    for version in [0x0303_u16, 0x0302, 0x0304, 0x0100, 0x0102] {
        let hello = raw::tlcp_hello(version, &[0xe053, 0xe013]);
        // Versions that no hello has are refused when the hello is parsed.
        let Ok(Parse::Hello(_)) = hello::parse(&hello) else { continue };
        let (kind, alert) = answer(&server(VerifyMode::None), &hello).await;
        assert_eq!(kind, RefusalKind::VersionsDisagree { client_version: version });
        assert_eq!(alert, [21, 1, 1, 0, 2, 2, 70]);
    }
    assert!(matches!(hello::parse(&raw::tlcp_hello(0x0303, &[0xe053])), Ok(Parse::Hello(_)) | Err(_)));
}

#[tokio::test]
async fn refuses_a_tlcp_client_that_says_it_fell_back() {
    let hello = raw::tlcp_hello(0x0101, &[0xe053, 0x5600]);
    let (kind, alert) = answer(&server(VerifyMode::None), &hello).await;
    assert_eq!(kind, RefusalKind::Fallback);
    assert_eq!(alert, [21, 1, 1, 0, 2, 2, 86]);
    let contexts = only(&[ContextKind::Tlcp]);
    let Ok(Parse::Hello(hello)) = hello::parse(&hello) else { panic!("not a hello") };
    assert!(contexts.select(&hello).is_ok(), "without TLS behind the port there is nothing to fall back from");
}

/// Connects a client of the library with SM suites and others, in this order, and returns what it got.
async fn mixed(prefer_sm: bool, suites: &'static str) -> (Protocol, &'static str) {
    let contexts = ServerContexts::new(&ServerOptions { prefer_sm, ..server_options(VerifyMode::None) }).unwrap();
    let accepted = raw::client(&contexts, move |address| {
        let context = raw::tls13_client("P-256:curveSM2", suites);
        raw::connect(&context, address, None, |stream| {
            let key = stream.ssl().peer_certificate().unwrap().public_key().unwrap();
            let sm = stream.ssl().current_cipher().unwrap().name().contains("SM4");
            // RFC 8998 section 3.2: the SM suites go with SM2 certificates alone.
            assert_eq!(key.id() == openssl::pkey::Id::SM2, sm);
        });
    })
    .await
    .unwrap()
    .unwrap();
    let identity = accepted.peer_identity();
    (identity.protocol, identity.suite)
}

#[tokio::test]
async fn the_clients_order_decides_between_tls_and_rfc8998() {
    let sm_first = mixed(false, "TLS_SM4_GCM_SM3:TLS_AES_128_GCM_SHA256").await;
    assert_eq!(sm_first, (Protocol::Rfc8998, "TLS_SM4_GCM_SM3"));
    assert_eq!(mixed(false, "TLS_AES_128_GCM_SHA256:TLS_SM4_GCM_SM3").await.0, Protocol::Tls13);
    assert_eq!(mixed(true, "TLS_AES_128_GCM_SHA256:TLS_SM4_GCM_SM3").await.0, Protocol::Rfc8998);
}

fn with_alpn(strict: bool) -> ServerContexts {
    let alpn = AlpnPolicy { protocols: vec![b"mqtt".to_vec(), b"http/1.1".to_vec()], strict };
    ServerContexts::new(&ServerOptions { alpn, ..server_options(VerifyMode::None) }).unwrap()
}

fn offering(protocol: ClientProtocol, names: &[&str]) -> ClientOptions {
    ClientOptions { alpn: names.iter().map(|name| name.as_bytes().to_vec()).collect(), ..client_options(protocol) }
}

over_every_protocol!(agrees_on_an_application_protocol, |protocol| async move {
    let (accepted, connected) = meet_well(&with_alpn(true), &offering(protocol, &["x", "http/1.1", "mqtt"])).await;
    assert_eq!(accepted.peer_identity().alpn.as_deref(), Some(&b"mqtt"[..]));
    assert_eq!(connected.peer_identity().alpn.as_deref(), Some(&b"mqtt"[..]));
    let (accepted, _) = meet_well(&with_alpn(true), &client_options(protocol)).await;
    assert_eq!(accepted.peer_identity().alpn, None);
});

over_every_protocol!(refuses_unknown_application_protocols_if_strict, |protocol| async move {
    let (accepted, _) = meet_well(&with_alpn(false), &offering(protocol, &["x"])).await;
    assert_eq!(accepted.peer_identity().alpn, None);
    let (accepted, connected) = meet(&with_alpn(true), &offering(protocol, &["x"])).await;
    assert_eq!(accepted.unwrap().unwrap_err().reason(), Failure::NoSharedAlpn);
    assert_eq!(connected.unwrap_err().reason(), Failure::PeerAlert(120));
});
