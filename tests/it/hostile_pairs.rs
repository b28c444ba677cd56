//! TLCP clients whose certificates no library would load, and key exchanges that none would send, by a client that is written by hand.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gm_tls::cert::{ExtendedKeyUsage, KeyKind, KeyUsage};
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};
use testkit::raw::Ending;
use testkit::raw_tlcp::{RawTlcpClient, Sm2Ciphertext};
use testkit::{Transport, connect};

use crate::broker::Secured;
use crate::hostile::{Scene, until};

const DAY_SECS: i64 = 86_400;
/// ECC_SM4_GCM_SM3 and ECDHE_SM4_GCM_SM3.
const SUITES: [u16; 2] = [0xe053, 0xe051];

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// The authority that the listener trusts, and one of the same name with another key.
struct Authorities {
    trusted: CertificateAuthority,
    other: CertificateAuthority,
    second_trusted: CertificateAuthority,
    /// Not trusted, and of another kind.
    ecdsa: CertificateAuthority,
}

fn authority(name: &str) -> CertificateAuthority {
    authority_of(KeyKind::Sm2, name)
}

fn authority_of(kind: KeyKind, name: &str) -> CertificateAuthority {
    let profile = AuthorityProfile::new(1000, None);
    CertificateAuthority::create(&Subject::common_name(name), kind, &profile, now() - 100 * DAY_SECS).unwrap()
}

fn authorities() -> &'static Authorities {
    static AUTHORITIES: OnceLock<Authorities> = OnceLock::new();
    AUTHORITIES.get_or_init(|| Authorities {
        trusted: authority("clients"),
        other: authority("clients"),
        second_trusted: authority("other clients"),
        ecdsa: authority_of(KeyKind::EcP256, "clients"),
    })
}

/// A certificate of a client, good unless changed.
#[derive(Clone)]
struct Leaf {
    authority: &'static CertificateAuthority,
    name: &'static str,
    kind: KeyKind,
    usage: KeyUsage,
    purposes: ExtendedKeyUsage,
    /// When it was issued, for ten days.
    issued: i64,
}

fn sign() -> Leaf {
    Leaf {
        authority: &authorities().trusted,
        name: "client",
        kind: KeyKind::Sm2,
        usage: KeyUsage::DIGITAL_SIGNATURE,
        purposes: ExtendedKeyUsage { client_auth: true, ..ExtendedKeyUsage::default() },
        issued: now(),
    }
}

fn enc() -> Leaf {
    Leaf { usage: Profile::client(1).enc_usage, ..sign() }
}

impl Leaf {
    fn expired(self) -> Leaf {
        Leaf { issued: now() - 50 * DAY_SECS, ..self }
    }

    fn der(&self) -> Vec<u8> {
        let mut profile = Profile::client(10);
        profile.single_usage = self.usage;
        profile.rsa_usage = self.usage;
        profile.purposes = self.purposes;
        let subject = Subject::common_name(self.name);
        let issued =
            self.authority.issue_single(&subject, &AlternativeNames::default(), self.kind, &profile, self.issued);
        issued.unwrap().chain.leaf.to_der()
    }
}

/// A listener whose TLCP clients must show a pair of one of the trusted authorities.
async fn scene(dir: &tempfile::TempDir) -> Scene {
    let path = dir.path().join("clients.pem");
    let anchors = [&authorities().trusted, &authorities().second_trusted].map(|ca| ca.certificate().to_pem());
    std::fs::write(&path, anchors.concat()).unwrap();
    let tlcp = "fail_if_no_peer_cert = true\n".to_owned();
    Scene::secured(Secured { tlcp, tlcp_ca: path, ..Secured::default() }).await
}

/// A client with these certificates gets this alert over suites of both kinds, is counted once for `reason`, and never accepted.
async fn refused(certificates: &[Vec<u8>], reason: &'static str, alert: u8) {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(&dir).await;
    let mut count = 0;
    for suite in SUITES {
        let mut client = RawTlcpClient::hello(scene.broker.address(Transport::Tlcp), &[suite]).await;
        assert!(client.asked_for_certificate);
        client.send_certificates(certificates).await;
        // A client that does not wait for the verdict: nothing of it may count, and the alert must reach it all the same.
        client.send_rest().await;
        assert_eq!(client.peer.ending().await, Ending::Alert(alert), "suite {suite:04x}");
        drop(client);
        count += 1;
        scene.expect_refusals(count, reason, "tlcp").await;
    }
}

const BAD_RECORD_MAC: u8 = 20;
const ILLEGAL_PARAMETER: u8 = 47;
const HANDSHAKE_FAILURE: u8 = 40;
const BAD_CERTIFICATE: u8 = 42;
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;

#[tokio::test]
async fn accepts_the_pair_that_the_others_are_made_from() {
    // Everything about it is right but the proof of its key, so that each refusal below is for the one thing that was changed.
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(&dir).await;
    let mut client = RawTlcpClient::hello(scene.broker.address(Transport::Tlcp), &SUITES[..1]).await;
    client.send_certificates(&[sign().der(), enc().der()]).await;
    let premaster = Sm2Ciphertext::premaster(&client.server_encryption_point());
    client.send_key_exchange(&premaster.der()).await;
    client.send_finished().await;
    // CertificateVerify was left out.
    assert_eq!(client.peer.ending().await, Ending::Alert(10));
    drop(client);
    scene.expect_refusals(1, "bad_message", "tlcp").await;
}

#[tokio::test]
async fn refuses_a_client_without_certificates() {
    refused(&[], "no_certificate", HANDSHAKE_FAILURE).await;
}

#[tokio::test]
async fn refuses_one_certificate_of_the_two() {
    refused(&[sign().der()], "no_certificate", HANDSHAKE_FAILURE).await;
    refused(&[enc().der()], "no_certificate", HANDSHAKE_FAILURE).await;
}

#[tokio::test]
async fn refuses_a_pair_of_which_one_has_expired() {
    refused(&[sign().expired().der(), enc().der()], "expired", CERTIFICATE_EXPIRED).await;
    refused(&[sign().der(), enc().expired().der()], "expired", CERTIFICATE_EXPIRED).await;
    refused(&[sign().expired().der(), enc().expired().der()], "expired", CERTIFICATE_EXPIRED).await;
}

#[tokio::test]
async fn refuses_a_pair_of_which_one_is_of_another_authority() {
    let foreign = |leaf: Leaf| Leaf { authority: &authorities().other, ..leaf };
    refused(&[foreign(sign()).der(), enc().der()], "unknown_ca", UNKNOWN_CA).await;
    refused(&[sign().der(), foreign(enc()).der()], "unknown_ca", UNKNOWN_CA).await;
    refused(&[foreign(sign()).der(), foreign(enc()).der()], "unknown_ca", UNKNOWN_CA).await;
}

#[tokio::test]
async fn refuses_a_pair_of_two_trusted_issuers() {
    let second = |leaf: Leaf| Leaf { authority: &authorities().second_trusted, ..leaf };
    refused(&[sign().der(), second(enc()).der()], "wrong_pair", BAD_CERTIFICATE).await;
    refused(&[second(sign()).der(), enc().der()], "wrong_pair", BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_an_encryption_certificate_of_another_subject() {
    let victim = Leaf { name: "victim", ..enc() };
    refused(&[sign().der(), victim.der()], "wrong_pair", BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_swapped_usages() {
    refused(&[enc().der(), sign().der()], "wrong_pair", BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_one_certificate_in_both_places() {
    let twice = sign().der();
    refused(&[twice.clone(), twice], "wrong_pair", BAD_CERTIFICATE).await;
    let both = Leaf { usage: sign().usage.union(enc().usage), ..sign() }.der();
    refused(&[both.clone(), both], "wrong_pair", BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_the_pair_of_a_server() {
    let purposes = ExtendedKeyUsage { server_auth: true, ..ExtendedKeyUsage::default() };
    let server = |leaf: Leaf| Leaf { purposes, ..leaf };
    refused(&[server(sign()).der(), server(enc()).der()], "bad_certificate", UNSUPPORTED_CERTIFICATE).await;
    refused(&[server(sign()).der(), enc().der()], "bad_certificate", UNSUPPORTED_CERTIFICATE).await;
    refused(&[sign().der(), server(enc()).der()], "bad_certificate", UNSUPPORTED_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_other_keys_than_sm2_in_either_place() {
    for kind in [KeyKind::EcP256, KeyKind::Rsa(2048)] {
        let other = |leaf: Leaf| Leaf { kind, ..leaf };
        refused(&[other(sign()).der(), enc().der()], "wrong_pair", BAD_CERTIFICATE).await;
        refused(&[sign().der(), other(enc()).der()], "wrong_pair", BAD_CERTIFICATE).await;
    }
}

#[tokio::test]
async fn refuses_certificates_that_are_for_neither_use() {
    let silent = |leaf: Leaf| Leaf { usage: KeyUsage::CRL_SIGN, ..leaf };
    refused(&[silent(sign()).der(), enc().der()], "bad_certificate", UNSUPPORTED_CERTIFICATE).await;
    refused(&[sign().der(), silent(enc()).der()], "wrong_pair", BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn refuses_a_pair_below_an_authority_of_another_kind() {
    let below = |leaf: Leaf| Leaf { authority: &authorities().ecdsa, ..leaf };
    refused(&[below(sign()).der(), below(enc()).der()], "unknown_ca", UNKNOWN_CA).await;
}

#[tokio::test]
async fn refuses_chains_that_are_deeper_than_allowed() {
    let mut profile = Profile::client(10);
    let mut authority = &authorities().trusted;
    let mut above: Vec<CertificateAuthority> = Vec::new();
    for depth in 0..15 {
        let subject = Subject::common_name(format!("authority {depth}"));
        let next = authority.issue_authority(&subject, KeyKind::Sm2, &AuthorityProfile::new(100, None), now()).unwrap();
        above.push(next);
        authority = Box::leak(Box::new(above.pop().unwrap()));
        above.clear();
    }
    let (subject, names) = (Subject::common_name("client"), AlternativeNames::default());
    profile.purposes = sign().purposes;
    let pair = authority.issue_pair(&subject, &names, KeyKind::Sm2, &profile, now()).unwrap();
    let leaves = [&pair.sign.chain.leaf, &pair.enc.chain.leaf].map(gm_tls::cert::Certificate::to_der);
    let chain = pair.sign.chain.intermediates.iter().map(gm_tls::cert::Certificate::to_der);
    let all: Vec<Vec<u8>> = leaves.into_iter().chain(chain).collect();
    assert_eq!(all.len(), 17);
    refused(&all, "unknown_ca", UNKNOWN_CA).await;
}

// GmSSL 1919: what comes after the pair is its chain, in whatever order libraries send it; it is never a third certificate of the client.
#[tokio::test]
async fn what_follows_the_pair_counts_for_nothing_by_itself() {
    let other = Leaf { authority: &authorities().other, ..sign() }.der();
    refused(&[other.clone(), sign().der(), enc().der()], "unknown_ca", UNKNOWN_CA).await;
    let long: Vec<Vec<u8>> = std::iter::once(other).chain((0..16).map(|_| enc().der())).collect();
    refused(&long, "unknown_ca", UNKNOWN_CA).await;
}

/// What a client gets for a key exchange that need not show certificates.
async fn key_exchange(scene: &Scene, ciphertext: &[u8]) -> Ending {
    let mut client = RawTlcpClient::hello(scene.broker.address(Transport::Tlcp), &SUITES[..1]).await;
    if client.asked_for_certificate {
        client.send_certificates(&[]).await;
    }
    client.send_key_exchange(ciphertext).await;
    client.send_finished().await;
    client.peer.ending().await
}

#[tokio::test]
async fn every_key_exchange_that_fails_ends_alike() {
    let mut scene = Scene::new().await;
    let client = RawTlcpClient::hello(scene.broker.address(Transport::Tlcp), &SUITES[..1]).await;
    let point = client.server_encryption_point();
    drop(client);
    until("the first client is gone", || scene.counters.all_refusals() == 1).await;
    let good = Sm2Ciphertext::premaster(&point);
    // The field's prime, which no coordinate reaches.
    let mut prime = [0xff; 32];
    prime[3] = 0xfe;
    prime[16..20].fill(0);
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("for another key", Sm2Ciphertext::garbage().der()),
        ("wrong C3", Sm2Ciphertext { hash: vec![0; 32], ..good.clone() }.der()),
        ("short C3", Sm2Ciphertext { hash: good.hash[..16].to_vec(), ..good.clone() }.der()),
        ("changed C2", Sm2Ciphertext { cipher: vec![0; 48], ..good.clone() }.der()),
        ("empty C2", Sm2Ciphertext { cipher: Vec::new(), ..good.clone() }.der()),
        ("long C2", Sm2Ciphertext { cipher: vec![0; 1000], ..good.clone() }.der()),
        ("C1 off the curve", Sm2Ciphertext { y: vec![5; 32], ..good.clone() }.der()),
        ("C1 with short coordinates", Sm2Ciphertext { x: vec![1], y: vec![1], ..good.clone() }.der()),
        ("C1 with long coordinates", Sm2Ciphertext { x: vec![1; 200], y: vec![1; 200], ..good.clone() }.der()),
        ("C1 at infinity", Sm2Ciphertext { x: Vec::new(), y: Vec::new(), ..good.clone() }.der()),
        ("C1 beyond the field", Sm2Ciphertext { x: prime.to_vec(), ..good.clone() }.der()),
        ("no DER", vec![0xff; 100]),
        ("cut short", good.der()[..50].to_vec()),
        ("nothing", Vec::new()),
    ];
    // The one that decrypts fails by its Finished, which nobody can tell from a failure to decrypt.
    assert_eq!(key_exchange(&scene, &good.der()).await, Ending::Alert(BAD_RECORD_MAC));
    let count = wrong.len() as u64;
    for (what, ciphertext) in wrong {
        assert_eq!(key_exchange(&scene, &ciphertext).await, Ending::Alert(BAD_RECORD_MAC), "{what}");
    }
    until("all are gone", || scene.open() == 0).await;
    assert_eq!(scene.counters.refusals("bad_record", "tlcp"), count + 1);
    // A message that is longer than any is refused by its length, before anything is decrypted.
    let long = Sm2Ciphertext { cipher: vec![0; 4096], ..good }.der();
    assert_eq!(key_exchange(&scene, &long).await, Ending::Alert(ILLEGAL_PARAMETER));
    assert_eq!(scene.counters.completed_handshakes(), 0);
    scene.bystander_is_unharmed().await;
    let honest = scene.broker.connect_over(Transport::Tlcp, connect("honest")).await;
    honest.disconnect().await;
}
