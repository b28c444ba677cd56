//! What an operator can ask of suites, algorithms and certificates beyond the defaults.

use gm_tls::{
    HandshakeFailure as Failure,
    cert::KeyKind::{self, EcP256, Sm2},
    client::{ClientIdentity, ClientOptions, ClientProtocol},
    error::ContextError,
    pair::CertificatePair,
    policy::KeyPurpose,
    server::{ClientAuth, Identity, ServerContexts, ServerOptions, TlsVersion, VerifyMode},
};
use tokio::io::AsyncReadExt;

use crate::{
    certificates::{Ca, Leaf, Usage, chain, pki},
    harness::{client_options, meet, meet_well, mutual_options, over_every_protocol, send, server_options},
};

/// A server of every protocol, whose client verification is changed alike.
fn with_auth(verify: VerifyMode, change: impl Fn(&mut ClientAuth)) -> ServerOptions {
    let mut options = server_options(verify);
    change(&mut options.tls.as_mut().unwrap().client_auth);
    change(&mut options.rfc8998.as_mut().unwrap().client_auth);
    change(&mut options.tlcp.as_mut().unwrap().client_auth);
    options
}

async fn verdict(options: &ServerOptions, client: &ClientOptions) -> Result<(), (Failure, String)> {
    let (accepted, connected) = meet(&ServerContexts::new(options).unwrap(), client).await;
    if let Ok(mut stream) = connected {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), stream.read(&mut [0])).await;
    }
    accepted.unwrap().map(|_| ()).map_err(|error| (error.reason(), error.to_string()))
}

/// Client certificates with an extended key usage, below `ca`.
fn client_of(ca: &Ca, protocol: ClientProtocol, client_auth: bool, kind: KeyKind) -> ClientIdentity {
    let leaf = |usage| Leaf { client_auth, ..Leaf::new("client", kind, usage) };
    let intermediate = || vec![ca.certificate()];
    let issue = |usage| {
        let (certificate, key) = ca.issue(&leaf(usage));
        (gm_tls::cert::CertificateChain { intermediates: intermediate(), ..chain(certificate) }, key)
    };
    let (sign, sign_key) = issue(Usage::Sign);
    if protocol != ClientProtocol::Tlcp {
        return ClientIdentity::Single(Identity { chain: sign, key: sign_key });
    }
    let (enc, enc_key) = issue(Usage::Encrypt);
    ClientIdentity::Pair(CertificatePair::new(sign, sign_key, enc, enc_key).unwrap())
}

fn kind_of(protocol: ClientProtocol) -> KeyKind {
    if matches!(protocol, ClientProtocol::Rfc8998 | ClientProtocol::Tlcp) { Sm2 } else { EcP256 }
}

fn root_of(protocol: ClientProtocol) -> &'static Ca {
    if kind_of(protocol) == Sm2 { &pki().sm2 } else { &pki().p256 }
}

over_every_protocol!(an_extended_key_usage_that_is_asked_for_must_be_there, |protocol| async move {
    let asks = |name: &str| {
        let purpose = KeyPurpose::from_name(name).unwrap();
        with_auth(VerifyMode::Required, |auth| auth.purposes = vec![purpose.clone()])
    };
    let client = |client_auth| {
        let identity = client_of(root_of(protocol), protocol, client_auth, kind_of(protocol));
        ClientOptions { identity: Some(identity), ..client_options(protocol) }
    };
    assert_eq!(verdict(&asks("clientAuth"), &client(true)).await, Ok(()));
    assert_eq!(verdict(&asks("OID:1.3.6.1.5.5.7.3.2"), &client(true)).await, Ok(()));
    for (asked, client) in [("clientAuth", client(false)), ("codeSigning", client(true))] {
        let (reason, words) = verdict(&asks(asked), &client).await.unwrap_err();
        assert_eq!(reason, Failure::BadCertificate);
        assert!(words.contains(&format!("lacks {asked}")), "{words}");
    }
});

over_every_protocol!(an_intermediate_authority_is_trusted_where_partial_chains_are_allowed, |protocol| async move {
    let intermediate = root_of(protocol).intermediate("an intermediate", kind_of(protocol));
    let identity = client_of(&intermediate, protocol, false, kind_of(protocol));
    let client = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    let trusting = |partial_chain| {
        with_auth(VerifyMode::Required, |auth| {
            auth.ca = vec![intermediate.certificate()];
            auth.partial_chain = partial_chain;
        })
    };
    assert_eq!(verdict(&trusting(true), &client).await, Ok(()));
    assert_eq!(verdict(&trusting(false), &client).await.unwrap_err().0, Failure::UnknownCa);
});

over_every_protocol!(level_3_serves_keys_of_128_bits, |protocol| async move {
    let mut options = server_options(VerifyMode::Required);
    let tls = options.tls.as_mut().unwrap();
    tls.security_level = 3;
    tls.identities.truncate(1);
    options.rfc8998.as_mut().unwrap().security_level = 3;
    options.tlcp.as_mut().unwrap().security_level = 3;
    let contexts = ServerContexts::new(&options).unwrap();
    let (mut accepted, mut connected) = meet_well(&contexts, &mutual_options(protocol)).await;
    send(&mut connected, &mut accepted, b"hello").await;
});

#[test]
fn level_3_refuses_a_certificate_of_112_bits() {
    let mut options = server_options(VerifyMode::None);
    options.tls.as_mut().unwrap().security_level = 3;
    let error = ServerContexts::new(&options).unwrap_err();
    assert!(matches!(error, ContextError::Certificate { protocol: "tls", .. }), "{error}");
}

fn tls_error(change: impl FnOnce(&mut gm_tls::server::TlsOptions)) -> String {
    let mut options = server_options(VerifyMode::None);
    change(options.tls.as_mut().unwrap());
    ServerContexts::new(&options).unwrap_err().to_string()
}

#[test]
fn what_could_never_be_chosen_is_refused_with_its_reason() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let text = tls_error(|tls| {
        tls.min_version = TlsVersion::Tls13;
        tls.ciphers = names(&["TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"]);
    });
    assert_eq!(text, "tls: cipher suite ECDHE-ECDSA-AES128-GCM-SHA256 is of TLS 1.2, which versions leaves out");
    let text = tls_error(|tls| {
        tls.max_version = TlsVersion::Tls12;
        tls.ciphers = names(&["TLS_AES_128_GCM_SHA256"]);
    });
    assert_eq!(text, "tls: cipher suite TLS_AES_128_GCM_SHA256 is of TLS 1.3, which versions leaves out");
    let text = tls_error(|tls| {
        tls.identities.truncate(1);
        tls.ciphers = names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    });
    assert!(text.contains("none works with a certificate of this listener, whose keys are ECDSA"), "{text}");
    let text = tls_error(|tls| {
        tls.identities.truncate(1);
        tls.signature_algorithms = names(&["rsa_pss_rsae_sha256"]);
    });
    assert!(text.contains("can sign by any of the signature algorithms rsa_pss_rsae_sha256"), "{text}");
    let text = tls_error(|tls| tls.signature_algorithms = names(&["rsa_pkcs1_sha1"]));
    assert!(text.contains("too weak"), "{text}");
    let text = tls_error(|tls| tls.signature_algorithms = names(&["rsa_nonsense"]));
    assert!(text.contains("unknown signature algorithm \"rsa_nonsense\""), "{text}");
}

#[tokio::test]
async fn signature_algorithms_choose_the_certificate() {
    for (algorithm, subject) in [("rsa_pss_rsae_sha256", "rsaEncryption"), ("ecdsa_secp256r1_sha256", "P-256")] {
        let mut options = server_options(VerifyMode::None);
        options.tls.as_mut().unwrap().signature_algorithms = vec![algorithm.to_owned()];
        let contexts = ServerContexts::new(&options).unwrap();
        let (_, connected) = meet_well(&contexts, &client_options(ClientProtocol::Tls13)).await;
        let shown = connected.peer_identity().signing.as_ref().unwrap().decode().unwrap().key_kind();
        assert_eq!(matches!(shown, KeyKind::Rsa(_)), subject == "rsaEncryption", "{algorithm}: {shown}");
    }
}

#[tokio::test]
async fn the_order_of_suites_is_the_servers_or_the_clients() {
    let cases = [
        (ClientProtocol::Tls13, ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]),
        (ClientProtocol::Rfc8998, ["TLS_SM4_GCM_SM3", "TLS_SM4_CCM_SM3"]),
        (ClientProtocol::Tlcp, ["ECC_SM4_GCM_SM3", "ECC_SM4_CBC_SM3"]),
    ];
    for (protocol, [first, second]) in cases {
        for own in [true, false] {
            let mut options = server_options(VerifyMode::None);
            let ciphers = vec![first.to_owned(), second.to_owned()];
            match protocol {
                ClientProtocol::Tlcp => {
                    let tlcp = options.tlcp.as_mut().unwrap();
                    (tlcp.ciphers, tlcp.honor_cipher_order) = (ciphers, own);
                }
                ClientProtocol::Rfc8998 => {
                    let rfc8998 = options.rfc8998.as_mut().unwrap();
                    (rfc8998.ciphers, rfc8998.honor_cipher_order) = (ciphers, own);
                }
                _ => {
                    let tls = options.tls.as_mut().unwrap();
                    (tls.ciphers, tls.honor_cipher_order) = (ciphers, own);
                }
            }
            let client =
                ClientOptions { ciphers: vec![second.to_owned(), first.to_owned()], ..client_options(protocol) };
            let (accepted, _) = meet_well(&ServerContexts::new(&options).unwrap(), &client).await;
            assert_eq!(accepted.peer_identity().suite, if own { first } else { second }, "own order: {own}");
        }
    }
}

fn gm_only(verify: VerifyMode) -> ServerOptions {
    ServerOptions { gm_only: true, tls: None, ..server_options(verify) }
}

#[tokio::test]
async fn gm_only_serves_rfc8998_and_tlcp_to_clients_of_sm2_alone() {
    for protocol in [ClientProtocol::Rfc8998, ClientProtocol::Tlcp] {
        assert_eq!(verdict(&gm_only(VerifyMode::None), &client_options(protocol)).await, Ok(()));
        assert_eq!(verdict(&gm_only(VerifyMode::Required), &mutual_options(protocol)).await, Ok(()));
        // An ECDSA authority in the middle of a chain from SM2 to SM2.
        let middle = pki().sm2.intermediate("in the middle", EcP256);
        let identity = client_of(&middle, protocol, false, Sm2);
        let client = ClientOptions { identity: Some(identity), ..client_options(protocol) };
        let lax = server_options(VerifyMode::Required);
        assert_eq!(verdict(&lax, &client).await, Ok(()), "the chain is valid");
        let (reason, words) = verdict(&gm_only(VerifyMode::Required), &client).await.unwrap_err();
        assert_eq!(reason, Failure::NotGm, "{words}");
    }
}

#[test]
fn gm_only_refuses_what_is_not_sm2_where_it_is_configured() {
    let error = |options: &ServerOptions| ServerContexts::new(options).unwrap_err().to_string();
    let with_tls = ServerOptions { gm_only: true, ..server_options(VerifyMode::None) };
    assert!(error(&with_tls).contains("gm_only is set, and TLS with international suites"), "{}", error(&with_tls));

    let mut hybrid = gm_only(VerifyMode::None);
    hybrid.rfc8998.as_mut().unwrap().groups = Some("curveSM2:curveSM2MLKEM768".to_owned());
    assert!(error(&hybrid).contains("group curveSM2MLKEM768"), "{}", error(&hybrid));

    let mut trusting = gm_only(VerifyMode::Required);
    trusting.tlcp.as_mut().unwrap().client_auth.ca.push(pki().p256.certificate());
    assert!(error(&trusting).contains("P-256 root"), "{}", error(&trusting));

    let middle = pki().sm2.intermediate("in the middle", EcP256);
    let mut chained = gm_only(VerifyMode::None);
    let rfc8998 = chained.rfc8998.as_mut().unwrap();
    rfc8998.identity = middle.identity(&Leaf::new("broker.test", Sm2, Usage::Sign));
    assert!(error(&chained).contains("ecdsa-with-SHA256"), "{}", error(&chained));
}
