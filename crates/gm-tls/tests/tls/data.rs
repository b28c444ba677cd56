//! Application data over every suite.

use gm_tls::{
    Protocol,
    client::{ClientOptions, ClientProtocol},
    server::VerifyMode,
    suites,
};

use crate::harness::{client_options, meet_well, mutual_options, noise, send, server, server_options};

const SIZES: [usize; 3] = [1, 16 * 1024, 1024 * 1024];

async fn crosses(suite: &str, options: ClientOptions, protocol: Protocol) {
    let options = ClientOptions { ciphers: vec![suite.to_owned()], ..options };
    let verify = if options.identity.is_some() { VerifyMode::Required } else { VerifyMode::None };
    let (mut server, mut client) = meet_well(&server(verify), &options).await;
    for size in SIZES {
        let data = noise(size);
        send(&mut client, &mut server, &data).await;
        send(&mut server, &mut client, &data).await;
    }
    for identity in [server.peer_identity(), client.peer_identity()] {
        assert_eq!(identity.suite, suite);
        assert_eq!(identity.protocol, protocol);
        assert!(!identity.resumed);
    }
}

macro_rules! suite_tests {
    ($($name:ident: $suite:literal, $options:expr, $protocol:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                crosses($suite, $options, Protocol::$protocol).await;
            }
        )*
    };
}

suite_tests! {
    tlcp_ecc_gcm: "ECC_SM4_GCM_SM3", client_options(ClientProtocol::Tlcp), Tlcp;
    tlcp_ecc_cbc: "ECC_SM4_CBC_SM3", client_options(ClientProtocol::Tlcp), Tlcp;
    tlcp_ecc_gcm_mutual: "ECC_SM4_GCM_SM3", mutual_options(ClientProtocol::Tlcp), Tlcp;
    tlcp_ecc_cbc_mutual: "ECC_SM4_CBC_SM3", mutual_options(ClientProtocol::Tlcp), Tlcp;
    tlcp_ecdhe_gcm_mutual: "ECDHE_SM4_GCM_SM3", mutual_options(ClientProtocol::Tlcp), Tlcp;
    tlcp_ecdhe_cbc_mutual: "ECDHE_SM4_CBC_SM3", mutual_options(ClientProtocol::Tlcp), Tlcp;
    rfc8998_gcm: "TLS_SM4_GCM_SM3", client_options(ClientProtocol::Rfc8998), Rfc8998;
    rfc8998_ccm: "TLS_SM4_CCM_SM3", client_options(ClientProtocol::Rfc8998), Rfc8998;
    rfc8998_gcm_mutual: "TLS_SM4_GCM_SM3", mutual_options(ClientProtocol::Rfc8998), Rfc8998;
    tls13_aes256: "TLS_AES_256_GCM_SHA384", client_options(ClientProtocol::Tls13), Tls13;
    tls13_aes128_mutual: "TLS_AES_128_GCM_SHA256", mutual_options(ClientProtocol::Tls13), Tls13;
    tls13_chacha: "TLS_CHACHA20_POLY1305_SHA256", client_options(ClientProtocol::Tls13), Tls13;
    tls12_ecdsa_aes128: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", client_options(ClientProtocol::Tls12), Tls12;
    tls12_ecdsa_aes256: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", mutual_options(ClientProtocol::Tls12), Tls12;
    tls12_ecdsa_chacha: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", client_options(ClientProtocol::Tls12), Tls12;
    tls12_rsa_aes128: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", client_options(ClientProtocol::Tls12), Tls12;
    tls12_rsa_aes256: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", client_options(ClientProtocol::Tls12), Tls12;
    tls12_rsa_chacha: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", client_options(ClientProtocol::Tls12), Tls12;
}

#[test]
fn every_suite_that_is_on_by_default_has_its_code_point_pinned() {
    use gm_tls::server::{ContextKind, ServerContexts};
    let contexts = ServerContexts::new(&server_options(VerifyMode::Required)).unwrap();
    let tlcp = contexts.context(ContextKind::Tlcp).unwrap();
    assert_eq!(tlcp.suites(), [0xe051, 0xe011, 0xe053, 0xe013]);
    let sm: Vec<u16> = contexts.context(ContextKind::Rfc8998).unwrap().suites().to_vec();
    assert!(sm.contains(&0x00c6) && sm.contains(&0x00c7));
    assert!(!sm.iter().any(|suite| (0x1301..=0x1303).contains(suite)), "{sm:04x?}");
    for suite in contexts.context(ContextKind::Tls).unwrap().suites() {
        assert!(suites::by_id(*suite).is_some(), "{suite:04x}");
    }
}
