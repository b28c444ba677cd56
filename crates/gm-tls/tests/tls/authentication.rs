//! Which peers are let in, and what is said of those that are not.

use gm_tls::{
    HandshakeError, HandshakeFailure as Failure,
    cert::KeyKind::Sm2,
    client::{ClientIdentity, ClientOptions, ClientProtocol},
    server::{ClientAuth, ServerContexts, ServerOptions, TlcpOptions, VerifyMode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    certificates::{Ca, Leaf, SERVER, Usage, pki},
    harness::{client_options, meet, meet_well, mutual_options, over_every_protocol, send, serve, server},
    raw::{self, Odd},
};

const ECC: &str = "ECC-SM2-SM4-GCM-SM3";
const ECDHE: &str = "ECDHE-SM2-SM4-GCM-SM3";

/// Client certificates of a protocol by an authority of the right kind for it.
fn issued(protocol: ClientProtocol, trusted: bool, change: impl Fn(&mut Leaf<'_>)) -> ClientIdentity {
    let pki = pki();
    let kind = if matches!(protocol, ClientProtocol::Tls12 | ClientProtocol::Tls13) {
        pki.server_p256.key.kind()
    } else {
        Sm2
    };
    let stranger = Ca::root("stranger", kind);
    let ca = match (trusted, kind) {
        (false, _) => &stranger,
        (true, Sm2) => &pki.sm2,
        (true, _) => &pki.p256,
    };
    let leaf = |usage| {
        let mut leaf = Leaf::new("client", kind, usage);
        change(&mut leaf);
        leaf
    };
    if protocol == ClientProtocol::Tlcp {
        let (sign, sign_key) = ca.issue(&leaf(Usage::Sign));
        let (enc, enc_key) = ca.issue(&leaf(Usage::Encrypt));
        let chain = crate::certificates::chain;
        ClientIdentity::Pair(gm_tls::pair::CertificatePair::new(chain(sign), sign_key, chain(enc), enc_key).unwrap())
    } else {
        ClientIdentity::Single(ca.identity(&leaf(Usage::Sign)))
    }
}

async fn refused(options: &ClientOptions) -> Failure {
    let contexts = server(VerifyMode::Required);
    let (accepted, connected) = meet(&contexts, options).await;
    // A TLS 1.3 client is done before the server has judged it, and learns of the refusal by its first read.
    if let Ok(mut stream) = connected {
        assert!(stream.read(&mut [0]).await.is_err());
    }
    accepted.unwrap().expect_err("accepted").reason()
}

over_every_protocol!(accepts_a_client_with_its_certificates, |protocol| async move {
    let contexts = server(VerifyMode::Required);
    let (mut accepted, mut connected) = meet_well(&contexts, &mutual_options(protocol)).await;
    send(&mut connected, &mut accepted, b"hello").await;
    let identity = accepted.peer_identity();
    assert_eq!(identity.signing.as_ref().unwrap().decode().unwrap().common_name().unwrap().unwrap(), "client");
    assert_eq!(identity.encryption.is_some(), protocol == ClientProtocol::Tlcp);
    assert_eq!(identity.sni.as_deref(), Some(SERVER));
    let server = connected.peer_identity();
    assert_eq!(server.signing.as_ref().unwrap().decode().unwrap().common_name().unwrap().unwrap(), SERVER);
    assert_eq!(server.encryption.is_some(), protocol == ClientProtocol::Tlcp);
});

over_every_protocol!(refuses_a_client_without_certificates, |protocol| async move {
    assert_eq!(refused(&client_options(protocol)).await, Failure::NoCertificate);
});

// Before TLS 1.3 the alert is the one that also says that there is no suite in common.
over_every_protocol!(a_client_without_certificates_learns_that_one_was_asked_for, |protocol| async move {
    let (_, connected) = meet(&server(VerifyMode::Required), &client_options(protocol)).await;
    let told = match connected {
        Ok(mut stream) => HandshakeError::after(&stream.read(&mut [0]).await.unwrap_err()).unwrap(),
        Err(error) => error,
    };
    assert_eq!(told.reason(), Failure::NoCertificate, "{told}");
    let stranger = ClientOptions { identity: Some(issued(protocol, false, |_| ())), ..client_options(protocol) };
    let (_, connected) = meet(&server(VerifyMode::Required), &stranger).await;
    let told = match connected {
        Ok(mut stream) => HandshakeError::after(&stream.read(&mut [0]).await.unwrap_err()).unwrap(),
        Err(error) => error,
    };
    assert_eq!(told.reason(), Failure::PeerAlert(48), "{told}");
});

over_every_protocol!(lets_a_client_without_certificates_in_if_they_are_optional, |protocol| async move {
    let (accepted, _) = meet_well(&server(VerifyMode::Optional), &client_options(protocol)).await;
    assert!(accepted.peer_identity().signing.is_none());
});

over_every_protocol!(refuses_bad_certificates_even_if_they_are_optional, |protocol| async move {
    let identity = issued(protocol, false, |_| ());
    let options = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    let (accepted, _) = meet(&server(VerifyMode::Optional), &options).await;
    assert_eq!(accepted.unwrap().unwrap_err().reason(), Failure::UnknownCa);
});

over_every_protocol!(refuses_a_client_of_another_authority, |protocol| async move {
    let identity = issued(protocol, false, |_| ());
    let options = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    assert_eq!(refused(&options).await, Failure::UnknownCa);
});

over_every_protocol!(refuses_a_client_whose_certificates_have_expired, |protocol| async move {
    let identity = issued(protocol, true, |leaf| (leaf.from, leaf.until) = (-10, -1));
    let options = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    assert_eq!(refused(&options).await, Failure::Expired);
});

over_every_protocol!(refuses_a_client_whose_certificates_are_not_valid_yet, |protocol| async move {
    let identity = issued(protocol, true, |leaf| (leaf.from, leaf.until) = (1, 10));
    let options = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    assert_eq!(refused(&options).await, Failure::NotYetValid);
});

over_every_protocol!(refuses_a_client_with_the_certificates_of_a_server, |protocol| async move {
    let identity = issued(protocol, true, |leaf| leaf.server_auth = true);
    let options = ClientOptions { identity: Some(identity), ..client_options(protocol) };
    assert_eq!(refused(&options).await, Failure::BadCertificate);
});

over_every_protocol!(a_client_refuses_a_server_of_another_authority, |protocol| async move {
    let options = ClientOptions { ca: vec![pki().other_sm2.certificate()], ..client_options(protocol) };
    let (accepted, connected) = meet(&server(VerifyMode::None), &options).await;
    assert_eq!(connected.unwrap_err().reason(), Failure::UnknownCa);
    assert_eq!(accepted.unwrap().unwrap_err().reason(), Failure::PeerAlert(48));
});

over_every_protocol!(a_client_refuses_a_server_of_another_name, |protocol| async move {
    let options = ClientOptions { server_name: "else.test".into(), ..client_options(protocol) };
    let (_, connected) = meet(&server(VerifyMode::None), &options).await;
    assert_eq!(connected.unwrap_err().reason(), Failure::WrongHost);
});

// The library looks at the common name where a certificate has no alternative name.
#[tokio::test]
async fn a_client_does_not_take_a_common_name_for_a_host() {
    use gm_tls::cert::KeyKind;
    use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap();
    let profile = AuthorityProfile::new(30, None);
    let authority =
        CertificateAuthority::create(&Subject::common_name("Root"), KeyKind::EcP256, &profile, now).unwrap();
    let issue = |names: &AlternativeNames| {
        let subject = Subject::common_name(SERVER);
        let made = authority.issue_single(&subject, names, KeyKind::EcP256, &Profile::server(30), now).unwrap();
        let identity = gm_tls::server::Identity { chain: made.chain, key: made.key };
        let tls = gm_tls::server::TlsOptions::new(vec![identity]);
        ServerContexts::new(&ServerOptions { tls: Some(tls), ..ServerOptions::default() }).unwrap()
    };
    let ca = vec![authority.certificate().clone()];
    let options = ClientOptions { ca, ..client_options(ClientProtocol::Tls13) };
    let dns = AlternativeNames { dns: vec![SERVER.to_owned()], ..AlternativeNames::default() };
    meet_well(&issue(&dns), &options).await;
    let (_, connected) = meet(&issue(&AlternativeNames::default()), &options).await;
    assert_eq!(connected.unwrap_err().reason(), Failure::WrongHost);
}

over_every_protocol!(a_client_takes_an_address_for_a_name, |protocol| async move {
    let options = ClientOptions { server_name: "127.0.0.1".into(), ..client_options(protocol) };
    let (accepted, _) = meet_well(&server(VerifyMode::None), &options).await;
    assert_eq!(accepted.peer_identity().sni, None);
    let options = ClientOptions { server_name: "127.0.0.2".into(), ..client_options(protocol) };
    let (_, connected) = meet(&server(VerifyMode::None), &options).await;
    assert_eq!(connected.unwrap_err().reason(), Failure::WrongHost);
});

over_every_protocol!(a_client_that_is_told_not_to_verify_does_not, |protocol| async move {
    let options =
        ClientOptions { ca: Vec::new(), verify: false, server_name: "else.test".into(), ..client_options(protocol) };
    meet_well(&server(VerifyMode::None), &options).await;
});

fn leaf(name: &'static str, usage: Usage) -> Leaf<'static> {
    Leaf::new(name, Sm2, usage)
}

/// What a server that trusts both SM2 authorities says to a careless client with these certificates, over both kinds of suites.
async fn odd(make: impl Fn() -> Odd) -> Failure {
    let pki = pki();
    let contexts = ServerContexts::new(&ServerOptions {
        tlcp: Some(TlcpOptions {
            client_auth: ClientAuth {
                verify: VerifyMode::Required,
                ca: vec![pki.sm2.certificate(), pki.other_sm2.certificate()],
                ..ClientAuth::default()
            },
            ..TlcpOptions::new(pki.server_pair.clone())
        }),
        ..ServerOptions::default()
    })
    .unwrap();
    let reason = raw::tlcp_client(&contexts, ECC, Some(make())).await.expect_err("accepted with ECC").reason();
    let other = raw::tlcp_client(&contexts, ECDHE, Some(make())).await.expect_err("accepted with ECDHE").reason();
    assert_eq!(reason, other);
    reason
}

#[tokio::test]
async fn accepts_a_good_pair_of_a_careless_client() {
    let pki = pki();
    let good = || Odd::new(pki.sm2.issue(&leaf("a", Usage::Sign)), pki.sm2.issue(&leaf("a", Usage::Encrypt)));
    for suite in [ECC, ECDHE] {
        raw::tlcp_client(&server(VerifyMode::Required), suite, Some(good())).await.unwrap();
    }
}

#[tokio::test]
async fn accepts_an_encryption_certificate_without_key_agreement() {
    // The library takes the purpose of a client's certificate to be digitalSignature or keyAgreement and refused this one.
    let pki = pki();
    let pair = Odd::new(pki.sm2.issue(&leaf("a", Usage::Sign)), pki.sm2.issue(&leaf("a", Usage::EncipherOnly)));
    raw::tlcp_client(&server(VerifyMode::Required), ECC, Some(pair)).await.unwrap();
}

#[tokio::test]
async fn refuses_an_encryption_certificate_of_another_subject() {
    let ca = &pki().sm2;
    let make = || Odd::new(ca.issue(&leaf("a", Usage::Sign)), ca.issue(&leaf("b", Usage::Encrypt)));
    assert_eq!(odd(make).await, Failure::WrongPair);
}

#[tokio::test]
async fn refuses_an_encryption_certificate_of_another_trusted_issuer() {
    let pki = pki();
    let make = || Odd::new(pki.sm2.issue(&leaf("a", Usage::Sign)), pki.other_sm2.issue(&leaf("a", Usage::Encrypt)));
    assert_eq!(odd(make).await, Failure::WrongPair);
}

#[tokio::test]
async fn refuses_an_encryption_certificate_of_an_untrusted_issuer() {
    let stranger = Ca::root("stranger", Sm2);
    let make = || Odd::new(pki().sm2.issue(&leaf("a", Usage::Sign)), stranger.issue(&leaf("a", Usage::Encrypt)));
    assert_eq!(odd(make).await, Failure::UnknownCa);
}

#[tokio::test]
async fn refuses_a_pair_of_which_one_has_expired() {
    let ca = &pki().sm2;
    let old = |usage| Leaf { from: -10, until: -1, ..leaf("a", usage) };
    let make = || Odd::new(ca.issue(&leaf("a", Usage::Sign)), ca.issue(&old(Usage::Encrypt)));
    assert_eq!(odd(make).await, Failure::Expired);
    let make = || Odd::new(ca.issue(&old(Usage::Sign)), ca.issue(&leaf("a", Usage::Encrypt)));
    assert_eq!(odd(make).await, Failure::Expired);
}

#[tokio::test]
async fn refuses_swapped_and_missing_usages() {
    // The library does not load such certificates, but a hostile client does not load.
    for (sign, enc) in [
        (Usage::Encrypt, Usage::Sign),
        (Usage::Sign, Usage::Sign),
        (Usage::Encrypt, Usage::Encrypt),
        (Usage::Sign, Usage::Both),
        (Usage::Sign, Usage::Absent),
        (Usage::Absent, Usage::Encrypt),
    ] {
        let certificates = [sign, enc].map(|usage| entry(&pki().sm2.issue(&leaf("a", usage)).0.to_der()));
        let outcome = by_hand(&[certificate_message(&certificates.concat())]).await;
        assert_eq!(outcome.reason(), Failure::WrongPair, "{outcome}");
    }
}

#[tokio::test]
async fn refuses_one_certificate_in_both_places() {
    let make = || {
        let both = pki().sm2.issue(&leaf("a", Usage::Both));
        Odd::new(both.clone(), both)
    };
    assert_eq!(odd(make).await, Failure::WrongPair);
}

#[tokio::test]
async fn refuses_an_encryption_certificate_for_servers_only() {
    let ca = &pki().sm2;
    let server_only = || Leaf { server_auth: true, ..leaf("a", Usage::Encrypt) };
    let make = || Odd::new(ca.issue(&leaf("a", Usage::Sign)), ca.issue(&server_only()));
    assert_eq!(odd(make).await, Failure::BadCertificate);
}

#[tokio::test]
async fn refuses_a_key_that_is_not_the_certificates() {
    let ca = &pki().sm2;
    let mine = ca.issue(&leaf("a", Usage::Sign));
    let victim = ca.issue(&leaf("victim", Usage::Sign)).0;
    let victim_enc = ca.issue(&leaf("victim", Usage::Encrypt));
    // The library does not load a certificate with another's key, so that the proof is made by hand: a hello, the victim's
    // certificates, and no way on from there.
    assert!(!victim.x509().public_key().unwrap().public_eq(mine.1.pkey()));
    let certificates: Vec<u8> = [victim.to_der(), victim_enc.0.to_der()].iter().flat_map(|der| entry(der)).collect();
    let outcome = by_hand(&[certificate_message(&certificates), raw::handshake_message(20, &[0; 12])]).await;
    assert_eq!(outcome.reason(), Failure::BadMessage);
}

#[tokio::test]
async fn refuses_one_certificate_of_the_two() {
    let der = pki().sm2.issue(&leaf("a", Usage::Sign)).0.to_der();
    let outcome = by_hand(&[certificate_message(&entry(&der))]).await;
    assert_eq!(outcome.reason(), Failure::NoCertificate);
    assert!(outcome.to_string().contains("only one of the two"), "{outcome}");
}

#[tokio::test]
async fn refuses_more_than_a_certificate_list() {
    let mut message = certificate_message(&[]);
    message.truncate(5);
    message[3] = 1;
    let outcome = by_hand(&[message]).await;
    assert_eq!(outcome.reason(), Failure::BadMessage);
}

fn entry(der: &[u8]) -> Vec<u8> {
    let length = u32::try_from(der.len()).unwrap().to_be_bytes();
    [&length[1..], der].concat()
}

fn certificate_message(entries: &[u8]) -> Vec<u8> {
    raw::handshake_message(11, &entry(entries))
}

/// A client that says hello, waits for the server's flight and sends these messages.
async fn by_hand(messages: &[Vec<u8>]) -> gm_tls::HandshakeError {
    let contexts = server(VerifyMode::Required);
    let (here, mut there) = tokio::io::duplex(64 * 1024);
    let client = async {
        there.write_all(&raw::tlcp_hello(0x0101, &[0xe053])).await.unwrap();
        there.read_exact(&mut [0; 512]).await.unwrap();
        for message in messages {
            there.write_all(&raw::tlcp_record(22, message)).await.unwrap();
        }
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let (outcome, _) = tokio::join!(serve(&contexts, here), client);
    outcome.unwrap().expect_err("accepted")
}

#[tokio::test]
async fn a_client_refuses_a_server_whose_two_certificates_do_not_belong_together() {
    let ca = &pki().sm2;
    let options = client_options(ClientProtocol::Tlcp);
    let good = Odd::new(ca.issue(&leaf(SERVER, Usage::Sign)), ca.issue(&leaf(SERVER, Usage::Encrypt)));
    raw::tlcp_server(&options, good).await.unwrap();

    let other = Odd::new(ca.issue(&leaf(SERVER, Usage::Sign)), ca.issue(&leaf("else.test", Usage::Encrypt)));
    let lax = ClientOptions { verify_hostname: false, ..options.clone() };
    assert_eq!(raw::tlcp_server(&lax, other).await.unwrap_err().reason(), Failure::WrongPair);

    let other = Odd::new(ca.issue(&leaf(SERVER, Usage::Sign)), ca.issue(&leaf("else.test", Usage::Encrypt)));
    assert_eq!(raw::tlcp_server(&options, other).await.unwrap_err().reason(), Failure::WrongHost);

    let old = Leaf { from: -10, until: -1, ..leaf(SERVER, Usage::Encrypt) };
    let expired = Odd::new(ca.issue(&leaf(SERVER, Usage::Sign)), ca.issue(&old));
    assert_eq!(raw::tlcp_server(&options, expired).await.unwrap_err().reason(), Failure::Expired);

    let stranger = Ca::root("stranger", Sm2).issue(&leaf(SERVER, Usage::Encrypt));
    let untrusted = Odd::new(ca.issue(&leaf(SERVER, Usage::Sign)), stranger);
    assert_eq!(raw::tlcp_server(&options, untrusted).await.unwrap_err().reason(), Failure::UnknownCa);
}
