//! Groups of the key exchange: which are served, the hybrids with ML-KEM-768 among them, and which share of a client decides.

use std::ffi::{c_int, c_long};
use std::ptr;

use gm_tls::{
    HandshakeFailure as Failure,
    cert::KeyKind::{EcP256, Sm2},
    client::{ClientOptions, ClientProtocol},
    server::{Rfc8998Options, ServerContexts, ServerOptions, VerifyMode},
};
use openssl::{foreign_types::ForeignTypeRef, ssl::SslRef};

use crate::{
    certificates::{Leaf, SERVER, Usage, pki},
    harness::{client_options, meet, meet_well, mutual_options, send, server, server_options},
    raw,
};

const CURVE_SM2: c_long = 41;
const CURVE_SM2_MLKEM768: c_long = 4590;
const X25519_MLKEM768: c_long = 4588;

/// The group that was agreed upon, by its number of IANA.
fn agreed(ssl: &SslRef) -> c_long {
    /// `SSL_CTRL_GET_NEGOTIATED_GROUP` of `openssl/ssl.h`.
    const NEGOTIATED_GROUP: c_int = 134;
    // SAFETY: the connection is live; this command takes no argument.
    let found = unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), NEGOTIATED_GROUP, 0, ptr::null_mut()) };
    // Groups that the library has an object identifier for are told by that, others by their number above this bit.
    match found {
        1172 => CURVE_SM2,
        other => other & 0xffff,
    }
}

fn serving(tls: Option<&str>, rfc8998: Option<&str>) -> ServerContexts {
    let mut options = server_options(VerifyMode::Optional);
    options.tls.as_mut().unwrap().groups = tls.map(str::to_owned);
    options.rfc8998.as_mut().unwrap().groups = rfc8998.map(str::to_owned);
    ServerContexts::new(&options).unwrap()
}

fn offering(groups: &str, options: ClientOptions) -> ClientOptions {
    ClientOptions { groups: Some(groups.to_owned()), ..options }
}

// A client that offered curveSM2MLKEM768 alone failed with "no suitable key share", although the listener had the group.
#[tokio::test]
async fn a_client_with_one_group_is_served() {
    let contexts = serving(Some("X25519MLKEM768:X25519:P-256"), None);
    for (protocol, group) in [
        (ClientProtocol::Tls13, "X25519MLKEM768"),
        (ClientProtocol::Tls13, "X25519"),
        // P-256 is the curve of the server's certificate, which a client of TLS 1.2 has to offer as well (RFC 8422 section 5.1.1).
        (ClientProtocol::Tls12, "X25519:P-256"),
        (ClientProtocol::Rfc8998, "curveSM2MLKEM768"),
        (ClientProtocol::Rfc8998, "curveSM2"),
    ] {
        for options in [client_options(protocol), mutual_options(protocol)] {
            let (mut accepted, mut connected) = meet_well(&contexts, &offering(group, options)).await;
            send(&mut connected, &mut accepted, b"to the server").await;
            send(&mut accepted, &mut connected, b"to the client").await;
        }
    }
}

#[tokio::test]
async fn a_hybrid_is_of_tls_1_3_alone() {
    let contexts = serving(Some("X25519MLKEM768"), None);
    let client = offering("X25519:P-256", client_options(ClientProtocol::Tls12));
    let (accepted, connected) = meet(&contexts, &client).await;
    let error = accepted.unwrap().unwrap_err();
    assert_eq!(error.reason(), Failure::NoSharedGroup);
    let words = "no group of the key exchange in common: the client offers x25519 secp256r1";
    assert_eq!(error.to_string(), words);
    assert_eq!(connected.unwrap_err().reason(), Failure::PeerAlert(40));
}

#[tokio::test]
async fn a_hybrid_that_is_not_configured_is_not_served() {
    let contexts = serving(None, Some("curveSM2"));
    for (protocol, group) in [(ClientProtocol::Tls13, "X25519MLKEM768"), (ClientProtocol::Rfc8998, "curveSM2MLKEM768")]
    {
        let (accepted, connected) = meet(&contexts, &offering(group, client_options(protocol))).await;
        let error = accepted.unwrap().unwrap_err();
        assert_eq!(error.reason(), Failure::NoSharedGroup, "{group}");
        assert!(error.to_string().ends_with(&format!("the client offers {group}")), "{error}");
        assert_eq!(connected.unwrap_err().reason(), Failure::PeerAlert(40), "{group}");
    }
}

// The suites were blamed for all of it.
#[tokio::test]
async fn a_server_says_whether_suites_groups_or_signatures_are_apart() {
    let mut options = server_options(VerifyMode::None);
    options.tls.as_mut().unwrap().signature_algorithms = vec!["ecdsa_secp256r1_sha256".to_owned()];
    let contexts = ServerContexts::new(&options).unwrap();
    let refused = |suites: &'static str, signatures: &'static str, groups: &'static str| {
        let accepted = raw::client(&contexts, move |address| {
            raw::refused(&raw::tls_client(suites, signatures, groups), address);
        });
        async { accepted.await.unwrap().unwrap_err() }
    };
    let ecdsa = "ECDHE-ECDSA-AES128-GCM-SHA256";
    let tls13 = "TLS_AES_128_GCM_SHA256";
    for (suites, signatures, groups, failure) in [
        (tls13, "ECDSA+SHA256", "P-521", Failure::NoSharedGroup),
        (tls13, "RSA-PSS+SHA256", "P-256", Failure::NoSharedSignature),
        (ecdsa, "ECDSA+SHA256", "P-521", Failure::NoSharedGroup),
        // The curve of the server's certificate is left out.
        (ecdsa, "ECDSA+SHA256", "X25519", Failure::NoSharedSuite),
    ] {
        let error = refused(suites, signatures, groups).await;
        assert_eq!(error.reason(), failure, "{suites} {signatures} {groups}: {error}");
    }
}

/// The group that a client of the library agrees upon; a star stands before those that it has a share for.
async fn chosen(contexts: &ServerContexts, groups: &'static str, suites: &'static str) -> c_long {
    let (tell, told) = tokio::sync::oneshot::channel();
    let accepted = raw::client(contexts, move |address| {
        raw::connect(&raw::tls13_client(groups, suites), address, None, |stream| {
            tell.send(agreed(stream.ssl())).unwrap()
        });
    });
    accepted.await.unwrap().unwrap();
    told.await.unwrap()
}

#[tokio::test]
async fn the_share_that_a_client_sends_decides_before_the_order_of_the_server() {
    let contexts = serving(Some("X25519MLKEM768:X25519"), None);
    let sm4 = "TLS_SM4_GCM_SM3";
    assert_eq!(chosen(&contexts, "*curveSM2MLKEM768:curveSM2", sm4).await, CURVE_SM2_MLKEM768);
    assert_eq!(chosen(&contexts, "*curveSM2:curveSM2MLKEM768", sm4).await, CURVE_SM2);
    assert_eq!(chosen(&contexts, "*curveSM2MLKEM768:*curveSM2", sm4).await, CURVE_SM2);
    let hybrid_first = serving(None, Some("curveSM2MLKEM768:curveSM2"));
    assert_eq!(chosen(&hybrid_first, "*curveSM2:*curveSM2MLKEM768", sm4).await, CURVE_SM2_MLKEM768);
    let aes = "TLS_AES_128_GCM_SHA256";
    assert_eq!(chosen(&contexts, "*X25519:*X25519MLKEM768", aes).await, X25519_MLKEM768);
}

#[tokio::test]
async fn a_client_is_asked_for_a_share_of_the_group_that_is_served() {
    let curve_alone = serving(None, Some("curveSM2"));
    assert_eq!(chosen(&curve_alone, "*curveSM2MLKEM768:curveSM2", "TLS_SM4_GCM_SM3").await, CURVE_SM2);
    let hybrid_alone = serving(None, Some("curveSM2MLKEM768"));
    assert_eq!(chosen(&hybrid_alone, "*curveSM2:curveSM2MLKEM768", "TLS_SM4_GCM_SM3").await, CURVE_SM2_MLKEM768);
}

// The library asks this of a server's certificate only where it keeps to curveSM2.
#[tokio::test]
async fn a_client_of_rfc8998_takes_no_server_whose_issuer_signs_by_anything_but_sm2() {
    let pki = pki();
    for (ca, fits) in [(&pki.sm2, true), (&pki.p256, false)] {
        let identity = ca.identity(&Leaf::new(SERVER, Sm2, Usage::Sign));
        let rfc8998 = Some(Rfc8998Options::new(identity));
        let contexts = ServerContexts::new(&ServerOptions { rfc8998, ..ServerOptions::default() }).unwrap();
        for groups in ["curveSM2", "curveSM2:curveSM2MLKEM768"] {
            let (accepted, connected) =
                meet(&contexts, &offering(groups, client_options(ClientProtocol::Rfc8998))).await;
            match connected {
                Ok(_) => assert!(fits),
                Err(error) => {
                    assert!(!fits && error.reason() == Failure::BadCertificate, "{error}");
                    assert!(matches!(accepted.unwrap().unwrap_err().reason(), Failure::PeerAlert(_)));
                }
            }
        }
    }
    assert_eq!(pki.p256.certificate().key_kind(), EcP256);
    // With the right certificate the server of all tests is taken.
    meet_well(&server(VerifyMode::None), &client_options(ClientProtocol::Rfc8998)).await;
}
