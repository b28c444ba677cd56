//! Traps of the library that have no other test, each with what goes wrong without its cure. The others: empty fragments and
//! the security level in `data`, certificates of the wrong usage and pairs in `authentication`, versions that disagree and
//! RFC 8998 with an ECDSA certificate in `port`.

use std::ffi::c_int;

use gm_tls::{
    HandshakeFailure as Failure,
    cert::KeyKind,
    client::{ClientOptions, ClientProtocol},
    pair::CertificatePair,
    server::{
        ClientAuth, Identity, Rfc8998Options, ServerContexts, ServerOptions, TlcpOptions, TlsOptions, VerifyMode,
    },
};
use openssl::{
    foreign_types::ForeignTypeRef,
    ssl::{SslContextBuilder, SslMethod, SslVerifyMode, SslVersion},
};

use crate::{
    certificates::{Ca, Leaf, SERVER, Usage, chain, pki},
    harness::{client_options, meet, over_every_protocol, server},
    raw,
};

/// A server whose certificates come from an intermediate authority, which is also a trust anchor for its clients, so that the
/// library could find it to complete the chain.
fn below_an_intermediate(root: &Ca, kind: KeyKind, sends_it: bool) -> ServerContexts {
    let intermediate = root.intermediate("intermediate", kind);
    let issue = |usage| {
        let (leaf, key) = intermediate.issue(&Leaf::new(SERVER, kind, usage));
        let mut chain = chain(leaf);
        chain.intermediates.extend(sends_it.then(|| intermediate.certificate()));
        Identity { chain, key }
    };
    let client_auth = ClientAuth {
        verify: VerifyMode::Optional,
        ca: vec![root.certificate(), intermediate.certificate()],
        ..ClientAuth::default()
    };
    let mut options = ServerOptions::default();
    if kind == KeyKind::Sm2 {
        let (sign, enc) = (issue(Usage::Sign), issue(Usage::Encrypt));
        let pair = CertificatePair::new(sign.chain, sign.key, enc.chain, enc.key).unwrap();
        options.tlcp = Some(TlcpOptions { client_auth: client_auth.clone(), ..TlcpOptions::new(pair) });
        options.rfc8998 = Some(Rfc8998Options { client_auth, ..Rfc8998Options::new(issue(Usage::Sign)) });
    } else {
        options.tls = Some(TlsOptions { client_auth, ..TlsOptions::new(vec![issue(Usage::Sign)]) });
    }
    ServerContexts::new(&options).unwrap()
}

over_every_protocol!(the_configured_chain_is_sent_and_no_other, |protocol: ClientProtocol| async move {
    let pki = pki();
    let sm = matches!(protocol, ClientProtocol::Rfc8998 | ClientProtocol::Tlcp);
    let (root, kind) = if sm { (&pki.sm2, KeyKind::Sm2) } else { (&pki.p256, KeyKind::EcP256) };
    let options = ClientOptions { ca: vec![root.certificate()], ..client_options(protocol) };
    let (accepted, connected) = meet(&below_an_intermediate(root, kind, true), &options).await;
    accepted.unwrap().unwrap();
    connected.unwrap();
    // Without the cure the library looks for a chain in each handshake, verifies it, and this one succeeds too.
    let (_, connected) = meet(&below_an_intermediate(root, kind, false), &options).await;
    assert_eq!(connected.unwrap_err().reason(), Failure::UnknownCa);
});

#[test]
fn ecdhe_over_tlcp_cannot_be_configured_without_client_certificates() {
    let pki = pki();
    let mut tlcp = TlcpOptions::new(pki.server_pair.clone());
    tlcp.ciphers = vec!["ECDHE_SM4_GCM_SM3".into()];
    let error = ServerContexts::new(&ServerOptions { tlcp: Some(tlcp), ..ServerOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("verify_peer"), "{error}");
}

#[test]
fn each_wrong_configuration_is_an_error_of_its_own() {
    use gm_tls::ContextError as Error;
    let pki = pki();
    let build = |options: ServerOptions| ServerContexts::new(&options).expect_err("built");
    assert!(matches!(build(ServerOptions::default()), Error::NothingEnabled));
    let tls = |change: &dyn Fn(&mut TlsOptions)| {
        let mut tls = TlsOptions::new(vec![pki.server_p256.clone()]);
        change(&mut tls);
        build(ServerOptions { tls: Some(tls), ..ServerOptions::default() })
    };
    assert!(matches!(tls(&|tls| tls.identities.clear()), Error::NoCertificate { .. }));
    assert!(matches!(tls(&|tls| tls.identities.push(pki.client_p256.clone())), Error::DuplicateKeyKind { .. }));
    assert!(matches!(tls(&|tls| tls.identities = vec![pki.server_sm2.clone()]), Error::WrongKeyKind { .. }));
    assert!(matches!(
        tls(&|tls| tls.identities[0].key = pki.client_p256.key.clone()),
        Error::KeyMismatch { .. } | Error::Certificate { .. }
    ));
    assert!(matches!(tls(&|tls| tls.client_auth.verify = VerifyMode::Required), Error::NoCa { .. }));
    assert!(matches!(tls(&|tls| tls.ciphers = vec!["NO-SUCH-SUITE".into()]), Error::UnknownSuite { .. }));
    assert!(matches!(tls(&|tls| tls.ciphers = vec!["ECC_SM4_GCM_SM3".into()]), Error::ForeignSuite { .. }));
    assert!(matches!(tls(&|tls| tls.groups = Some("no-such-group".into())), Error::UnknownGroup { .. }));
    assert!(matches!(tls(&|tls| tls.groups = Some("X25519:no-such".into())), Error::UnknownGroup { .. }));
    assert!(matches!(
        tls(&|tls| (tls.min_version, tls.max_version) =
            (gm_tls::server::TlsVersion::Tls13, gm_tls::server::TlsVersion::Tls12)),
        Error::VersionRange { .. }
    ));
    let rfc8998 = Rfc8998Options::new(pki.server_p256.clone());
    let error = build(ServerOptions { rfc8998: Some(rfc8998), ..ServerOptions::default() });
    assert!(matches!(error, Error::WrongKeyKind { .. }));
    let mut tlcp = TlcpOptions::new(pki.server_pair.clone());
    tlcp.ciphers = vec!["RSA_SM4_GCM_SM3".into()];
    let error = build(ServerOptions { tlcp: Some(tlcp), ..ServerOptions::default() });
    assert!(matches!(error, Error::SuiteNeedsRsa { .. }));
}

unsafe extern "C" {
    fn SSL_renegotiate(ssl: *mut openssl_sys::SSL) -> c_int;
}

#[tokio::test]
async fn refuses_to_renegotiate() {
    let contexts = server(VerifyMode::None);
    let accepted = raw::client(&contexts, |address| {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        raw::connect(&builder.build(), address, None, |stream| {
            // SAFETY: the connection is live and used by this thread alone.
            assert_eq!(unsafe { SSL_renegotiate(stream.ssl().as_ptr()) }, 1);
            let error = stream.do_handshake().expect_err("renegotiated").to_string();
            assert!(error.contains("no renegotiation"), "{error}");
        });
    })
    .await;
    let mut accepted = accepted.unwrap().unwrap();
    let mut buffer = [0; 16];
    let read = tokio::io::AsyncReadExt::read(&mut accepted, &mut buffer).await;
    assert!(!matches!(read, Ok(count) if count > 0), "{read:?}");
}

#[tokio::test]
async fn rsa_pairs_serve_the_rsa_suites_only_if_they_are_named() {
    let pki = pki();
    for suite in ["RSA_SM4_GCM_SM3", "RSA_SM4_CBC_SM3", "RSA_SM4_GCM_SHA256", "RSA_SM4_CBC_SHA256"] {
        let mut tlcp = TlcpOptions::new(pki.server_pair.clone());
        tlcp.rsa_pair = Some(pki.rsa.pair(SERVER, KeyKind::Rsa(2048)));
        let unnamed =
            ServerContexts::new(&ServerOptions { tlcp: Some(tlcp.clone()), ..ServerOptions::default() }).unwrap();
        let options = ClientOptions { ciphers: vec![suite.into()], ..client_options(ClientProtocol::Tlcp) };
        assert!(meet(&unnamed, &options).await.0.is_err(), "{suite} is served without having been named");
        tlcp.ciphers = vec![suite.into(), "ECC_SM4_GCM_SM3".into()];
        let named = ServerContexts::new(&ServerOptions { tlcp: Some(tlcp), ..ServerOptions::default() }).unwrap();
        let (accepted, connected) = meet(&named, &options).await;
        let (mut accepted, mut connected) = (accepted.unwrap().unwrap(), connected.unwrap());
        crate::harness::send(&mut accepted, &mut connected, b"over RSA").await;
        assert_eq!(accepted.peer_identity().suite, suite);
    }
}

const CHILD: &str = "GM_TLS_TEST_CHILD";

// A file outside of the configuration, in a place of the library's or named by OPENSSL_CONF, let certificates with RSA-1024 and SHA-1 in.
// The library reads it once in a process, so this test runs itself again as another one.
#[test]
fn the_library_reads_no_configuration_of_its_own() {
    if std::env::var_os(CHILD).is_some() {
        let _contexts = server(VerifyMode::Required);
        let bare = SslContextBuilder::new(SslMethod::tls_server()).unwrap().build();
        assert_eq!(bare.security_level(), 2, "the file was read");
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nCipherString = DEFAULT@SECLEVEL=0\n";
    std::fs::write(file.path(), text).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "traps::the_library_reads_no_configuration_of_its_own", "--nocapture"])
        .envs([("OPENSSL_CONF", file.path().as_os_str()), (CHILD, "1".as_ref())])
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}
