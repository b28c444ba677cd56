//! Which operations of handshakes and records the accelerated provider serves, by its own counts. In a process of its own, one test at
//! a time, so that nothing else counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(all(feature = "tongsuo", debug_assertions))]
#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../tls/harness.rs"]
mod harness;

use std::sync::{Mutex, PoisonError};

use gm_tls::{
    client::{ClientOptions, ClientProtocol, Connector},
    engine::{Engine, ReadOutcome},
    provider::{self, NAME, Operation, served},
    server::VerifyMode,
};

pub const PROVIDER: provider::Provider = provider::Provider::Accelerated;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What was served while `work` ran, of the kinds given, in their order.
fn counted<T, const N: usize>(kinds: [Operation; N], work: impl FnOnce() -> T) -> (T, [u64; N]) {
    let before = kinds.map(served);
    let done = work();
    let mut after = kinds.map(served);
    after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    (done, after)
}

/// Both sides of a connection with this suite. The first handshake exports the long-lived keys; the second is the one to count.
fn connect(protocol: ClientProtocol, suite: &str, mutual: bool) -> (Engine, Engine) {
    let options = if mutual { harness::mutual_options(protocol) } else { harness::client_options(protocol) };
    let options = ClientOptions { ciphers: vec![suite.to_owned()], ..options };
    let verify = if mutual { VerifyMode::Required } else { VerifyMode::None };
    harness::engines(&harness::server(verify), &Connector::new(&options).unwrap())
}

/// The mode of a suite is keyed four times: each side writes and reads. TLS 1.3 does that for handshake and data.
fn keyed(suite: &str) -> [Operation; 1] {
    [if suite.contains("GCM") {
        Operation::Gcm
    } else if suite.contains("CCM") {
        Operation::Ccm
    } else {
        Operation::Cbc
    }]
}

#[test]
fn records_of_every_suite_are_served() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (protocol, suite, times) in [
        (ClientProtocol::Tlcp, "ECC_SM4_GCM_SM3", 4),
        (ClientProtocol::Tlcp, "ECC_SM4_CBC_SM3", 4),
        (ClientProtocol::Rfc8998, "TLS_SM4_GCM_SM3", 8),
        (ClientProtocol::Rfc8998, "TLS_SM4_CCM_SM3", 8),
    ] {
        let ((mut server, mut client), [count]) = counted(keyed(suite), || connect(protocol, suite, false));
        assert_eq!(count, times, "{suite}");
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        client.write(&[1; 2000]).unwrap();
        server.receive(client.output());
        assert_eq!(server.read(&mut buffer).unwrap(), ReadOutcome::Data(2000), "{suite}");
    }
}

use Operation::{Agree, Decrypt, Derive, Encrypt, KeyGeneration, Sign, Verify};

#[test]
fn the_library_fetches_the_accelerated_provider_without_being_told() {
    certificates::pki();
    let served: Vec<_> = provider::services()
        .into_iter()
        .filter(|service| service.provider.as_deref() == Some(NAME))
        .map(|service| (service.operation, service.algorithm))
        .collect();
    assert_eq!(
        served,
        [
            ("digest", "SM3"),
            ("mac", "HMAC"),
            ("key derivation", "TLS1-PRF"),
            ("cipher", "SM4-GCM"),
            ("cipher", "SM4-CCM"),
            ("cipher", "SM4-CBC"),
            ("cipher", "SM4-CTR"),
            ("cipher", "SM4-ECB"),
            ("keys", "SM2"),
            ("signature", "SM2"),
            ("encryption", "SM2"),
            ("key exchange", "SM2DH"),
        ]
    );
}

/// The server signs its key exchange; the client verifies that and two certificates, and encrypts the premaster secret.
#[test]
fn a_tlcp_handshake_with_encrypted_key_exchange_is_served() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for suite in ["ECC_SM4_GCM_SM3", "ECC_SM4_CBC_SM3"] {
        connect(ClientProtocol::Tlcp, suite, false);
        let (_, counts) =
            counted([Sign, Verify, Encrypt, Decrypt, Agree], || connect(ClientProtocol::Tlcp, suite, false));
        assert_eq!(counts, [1, 3, 1, 1, 0], "{suite}");
    }
}

/// Besides, both sides make an ephemeral key and agree; the client signs, and the server verifies that and two certificates.
#[test]
fn a_mutual_tlcp_handshake_with_key_agreement_is_served() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for suite in ["ECDHE_SM4_GCM_SM3", "ECDHE_SM4_CBC_SM3"] {
        connect(ClientProtocol::Tlcp, suite, true);
        let (_, counts) =
            counted([Sign, Verify, KeyGeneration, Agree, Decrypt], || connect(ClientProtocol::Tlcp, suite, true));
        assert_eq!(counts, [2, 6, 2, 2, 0], "{suite}");
    }
}

/// The library exports long-lived keys to us once, and keys of certificates that come in the handshake never.
#[test]
fn keys_of_a_peers_certificates_are_decoded_to_ours_and_not_exported() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let options = harness::mutual_options(ClientProtocol::Tlcp);
    let options = ClientOptions { ciphers: vec!["ECDHE_SM4_GCM_SM3".to_owned()], ..options };
    let (server, connector) = (harness::server(VerifyMode::Required), Connector::new(&options).unwrap());
    harness::engines(&server, &connector);
    let (_, [decoded, imported]) =
        counted([Operation::KeyDecode, Operation::KeyImport], || harness::engines(&server, &connector));
    // Two certificates of each side.
    assert!(decoded >= 4, "{decoded}");
    assert_eq!(imported, 0);
}

#[test]
fn a_handshake_of_rfc_8998_is_served_with_its_key_exchange() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for suite in ["TLS_SM4_GCM_SM3", "TLS_SM4_CCM_SM3"] {
        connect(ClientProtocol::Rfc8998, suite, false);
        let (_, counts) =
            counted([Sign, Verify, KeyGeneration, Derive], || connect(ClientProtocol::Rfc8998, suite, false));
        assert_eq!(counts, [1, 2, 2, 2], "{suite}");
    }
}

/// In TLCP each side derives the master secret, the keys and both messages that finish the handshake. Records of CBC suites have a MAC, keyed for
/// each direction of each side, and again for each record.
#[test]
fn codes_and_secrets_of_handshakes_with_national_algorithms_are_served() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kinds = [Operation::Prf, Operation::Mac];
    for (suite, mutual) in [("ECC_SM4_GCM_SM3", false), ("ECDHE_SM4_GCM_SM3", true)] {
        let (_, counts) = counted(kinds, || connect(ClientProtocol::Tlcp, suite, mutual));
        assert_eq!(counts, [8, 0], "{suite}");
    }
    for (suite, mutual) in [("ECC_SM4_CBC_SM3", false), ("ECDHE_SM4_CBC_SM3", true)] {
        let (_, [prf, mac]) = counted(kinds, || connect(ClientProtocol::Tlcp, suite, mutual));
        assert_eq!(prf, 8, "{suite}");
        assert!(mac >= 4, "{suite}: {mac}");
    }
    // Two messages that finish the handshake, of which each side makes the codes.
    let (_, counts) = counted(kinds, || connect(ClientProtocol::Rfc8998, "TLS_SM4_GCM_SM3", false));
    assert_eq!(counts, [0, 4]);
}

#[test]
fn a_handshake_with_other_algorithms_is_the_librarys() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (protocol, suite) in
        [(ClientProtocol::Tls12, "ECDHE-ECDSA-AES128-GCM-SHA256"), (ClientProtocol::Tls13, "TLS_AES_128_GCM_SHA256")]
    {
        let kinds =
            [Sign, Verify, Encrypt, Decrypt, KeyGeneration, Derive, Agree, Operation::KeyImport, Operation::KeyDecode];
        connect(protocol, suite, true);
        let (_, counts) = counted(kinds, || connect(protocol, suite, true));
        assert_eq!(counts, [0; 9], "{suite}");
    }
}
