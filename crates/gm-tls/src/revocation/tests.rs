//! Lists and answers of an authority of each kind of key, and what must not be believed.

use bytes::Bytes;
use der::{
    Encode, Tag, TagNumber,
    asn1::{AnyRef, Ia5String},
};
use openssl::{
    hash::MessageDigest,
    rsa::Padding,
    sign::{RsaPssSaltlen, Signer},
};
use x509_cert::ext::pkix::{
    IssuingDistributionPoint,
    name::{DistributionPointName, GeneralName},
};

use super::pss::tests::parameters;
use super::*;
use crate::{
    cert::{Certificate, KeyKind},
    pki::{
        AlternativeNames, AnswerTimes, AuthorityProfile, CertificateAuthority, Issued, Profile, Responder,
        RevocationList, RevokedCertificate, Status, StatusServices, Subject, serial_bytes,
    },
};

const MAX: usize = 1 << 20;
const KINDS: [KeyKind; 3] = [KeyKind::Sm2, KeyKind::EcP256, KeyKind::Rsa(2048)];
const URL: &str = "http://crl.example/ca.crl";

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

fn authority(kind: KeyKind) -> CertificateAuthority {
    let profile = AuthorityProfile::new(100, None);
    CertificateAuthority::create(&Subject::common_name("Root"), kind, &profile, now()).unwrap()
}

fn issue(ca: &CertificateAuthority, name: &str, services: StatusServices) -> Issued {
    let profile = Profile { services, ..Profile::client(10) };
    let kind = ca.key().kind();
    ca.issue_single(&Subject::common_name(name), &AlternativeNames::default(), kind, &profile, now()).unwrap()
}

fn client(ca: &CertificateAuthority) -> Certificate {
    issue(ca, "client", StatusServices::default()).chain.leaf
}

fn list(revoked: &[&Certificate]) -> RevocationList {
    RevocationList {
        this_update: now() - 60,
        next_update: Some(now() + 3600),
        number: 7,
        revoked: revoked.iter().map(|one| RevokedCertificate::new(one, now() - 100)).collect(),
        extensions: Vec::new(),
    }
}

fn read(der: Vec<u8>) -> Result<Crl, CrlError> {
    Crl::from_der(der.into(), MAX)
}

fn serial(certificate: &Certificate) -> Vec<u8> {
    Facts::of_der(&certificate.to_der()).unwrap().serial
}

#[test]
fn a_list_names_what_is_revoked_and_nothing_else() {
    for kind in KINDS {
        let ca = authority(kind);
        let (good, bad, worse) = (client(&ca), client(&ca), client(&ca));
        let mut contents = list(&[&bad, &worse]);
        contents.revoked[1].reason = 1;
        let crl = read(ca.sign_list(&contents).unwrap()).unwrap();
        crl.verify(ca.certificate()).unwrap();
        assert_eq!(crl.revoked(&serial(&good)), None);
        assert_eq!(crl.revoked(&serial(&bad)).unwrap().name(), "unspecified");
        assert_eq!(crl.revoked(&serial(&worse)).unwrap().name(), "keyCompromise");
        assert_eq!((crl.len(), crl.number(), crl.issuer().as_str()), (2, Some("07"), "CN=Root"));
        assert!(crl.entries().all(|(_, since, _)| since.abs_diff(now() - 100) < 60));
        assert!(crl.is_current(now()) && !crl.is_current(now() + 3600) && !crl.is_current(now() - 3600));
        assert!(read(ca.sign_list(&list(&[])).unwrap()).unwrap().is_empty());
    }
}

#[test]
fn a_list_is_believed_only_if_the_issuer_signed_it() {
    for kind in KINDS {
        let (ca, namesake) = (authority(kind), authority(kind));
        let crl = read(ca.sign_list(&list(&[])).unwrap()).unwrap();
        assert!(matches!(crl.verify(namesake.certificate()), Err(CrlError::Signature { .. })), "{kind}");
        let other = CertificateAuthority::create(
            &Subject::common_name("Other"),
            kind,
            &AuthorityProfile::new(100, None),
            now(),
        );
        assert!(matches!(crl.verify(other.unwrap().certificate()), Err(CrlError::OtherIssuer { .. })));
        let mut profile = AuthorityProfile::new(100, None);
        profile.usage = crate::cert::KeyUsage::KEY_CERT_SIGN;
        let certs_only = CertificateAuthority::create(&Subject::common_name("Root"), kind, &profile, now()).unwrap();
        let crl = read(certs_only.sign_list(&list(&[])).unwrap()).unwrap();
        assert!(matches!(crl.verify(certs_only.certificate()), Err(CrlError::MayNotSign { .. })));
    }
}

/// Under the curve of SM2 a signature by ECDSA, or with another signer ID, is none.
#[test]
fn a_list_of_an_authority_of_another_kind_is_refused_by_the_algorithm() {
    let (sm2, ec) = (authority(KeyKind::Sm2), authority(KeyKind::EcP256));
    let crl = read(sm2.sign_list(&list(&[])).unwrap()).unwrap();
    let refused = crl.verify(ec.certificate()).unwrap_err().to_string();
    assert!(refused.contains("SM2-with-SM3"), "{refused}");
}

#[test]
fn every_truncation_and_every_changed_byte_of_a_list_is_refused() {
    let ca = authority(KeyKind::Sm2);
    let bad = client(&ca);
    let der = ca.sign_list(&list(&[&bad])).unwrap();
    for length in 0..der.len() {
        assert!(read(der[..length].to_vec()).is_err(), "{length} bytes");
    }
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let believed = read(changed).and_then(|crl| crl.verify(ca.certificate()));
        assert!(believed.is_err(), "byte {at}");
    }
    assert!(read([&der[..], &[0]].concat()).is_err());
    assert!(matches!(Crl::from_der(der.into(), 100), Err(CrlError::TooLarge { .. })));
}

fn with_extension(id: &'static str, critical: bool, contents: Vec<u8>) -> Result<Crl, CrlError> {
    let ca = authority(KeyKind::Sm2);
    read(ca.sign_list(&RevocationList { extensions: vec![(id, critical, contents)], ..list(&[]) }).unwrap())
}

fn with_point(change: impl FnOnce(&mut IssuingDistributionPoint)) -> Result<Crl, CrlError> {
    let mut point = IssuingDistributionPoint {
        distribution_point: None,
        only_contains_user_certs: false,
        only_contains_ca_certs: false,
        only_some_reasons: None,
        indirect_crl: false,
        only_contains_attribute_certs: false,
    };
    change(&mut point);
    with_extension("2.5.29.28", true, point.to_der().unwrap())
}

#[test]
fn lists_that_are_not_about_all_revocations_of_their_issuer_are_refused_by_name() {
    assert!(matches!(with_extension("2.5.29.27", true, vec![2, 1, 1]), Err(CrlError::Delta)));
    assert!(matches!(with_extension("2.5.29.27", false, vec![2, 1, 1]), Err(CrlError::Delta)));
    assert!(
        matches!(with_extension("1.2.3.4", true, vec![5, 0]), Err(CrlError::UnknownExtension(id)) if id == "1.2.3.4")
    );
    with_extension("1.2.3.4", false, vec![5, 0]).unwrap();
    assert!(matches!(with_point(|point| point.indirect_crl = true), Err(CrlError::Indirect)));
    assert!(matches!(
        with_point(|point| point.only_contains_attribute_certs = true),
        Err(CrlError::AttributeCertificates)
    ));
    let some =
        with_point(|point| point.only_some_reasons = Some(x509_cert::ext::pkix::crl::dp::Reasons::CaCompromise.into()));
    assert!(matches!(some, Err(CrlError::SomeReasons)));
}

#[test]
fn a_list_for_some_certificates_covers_those_alone() {
    let users = with_point(|point| point.only_contains_user_certs = true).unwrap();
    assert!(users.covers(false, &[]) && !users.covers(true, &[]));
    let authorities = with_point(|point| point.only_contains_ca_certs = true).unwrap();
    assert!(authorities.covers(true, &[]) && !authorities.covers(false, &[]));
    let name = |url: &str| GeneralName::UniformResourceIdentifier(Ia5String::new(url).unwrap());
    let one =
        with_point(|point| point.distribution_point = Some(DistributionPointName::FullName(vec![name(URL)]))).unwrap();
    let facts = |url: &str| {
        let services = StatusServices { crl_urls: vec![url.to_owned()], ..StatusServices::default() };
        Facts::of_der(&issue(&authority(KeyKind::Sm2), "client", services).chain.leaf.to_der()).unwrap()
    };
    assert!(one.covers(false, &facts(URL).points));
    assert!(!one.covers(false, &facts("http://crl.example/other.crl").points));
    assert!(!one.covers(false, &[]));
}

#[test]
fn a_list_without_next_update_is_never_current() {
    let ca = authority(KeyKind::EcP256);
    let crl = read(ca.sign_list(&RevocationList { next_update: None, ..list(&[]) }).unwrap()).unwrap();
    assert!(!crl.is_current(now()));
}

#[test]
fn a_long_list_takes_little_more_memory_than_its_bytes_and_finds_every_entry() {
    let ca = authority(KeyKind::EcP256);
    let entry = |number: u32| RevokedCertificate {
        serial: [&[0x40][..], &number.to_be_bytes()].concat(),
        since: 1_700_000_000,
        reason: 0,
    };
    let revoked: Vec<_> =
        (0..50_000).map(|number: u32| entry(number.wrapping_mul(2_654_435_761) & 0x7fff_ffff)).collect();
    let der = ca.sign_list(&RevocationList { revoked: revoked.clone(), ..list(&[]) }).unwrap();
    let size = der.len();
    let crl = Crl::from_der(der.into(), 16 << 20).unwrap();
    crl.verify(ca.certificate()).unwrap();
    assert!(revoked.iter().all(|one| crl.revoked(&one.serial).is_some()));
    assert!(crl.revoked(&[0x41, 0, 0, 0, 0]).is_none());
    assert_eq!(crl.memory(), size + 50_000 * 8);
}

#[test]
fn files_of_lists_are_der_or_pem_and_all_lists_of_a_file_must_be_good() {
    let ca = authority(KeyKind::Sm2);
    let der = ca.sign_list(&list(&[])).unwrap();
    let text = openssl::base64::encode_block(&der);
    let pem = format!(
        "Certificate Revocation List (CRL):\n-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
        text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n")
    );
    let count = |contents: &[u8]| read_lists(&Bytes::copy_from_slice(contents), MAX).map(|lists| lists.len());
    assert_eq!(count(&der), Ok(1));
    assert_eq!(count(format!("{pem}{pem}").as_bytes()), Ok(2));
    assert_eq!(count(b""), Err(CrlFileError::NoList));
    assert_eq!(count(&ca.certificate().to_pem()), Err(CrlFileError::NoList));
    let damaged = format!("{pem}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(matches!(count(damaged.as_bytes()), Err(CrlFileError::List { position: 2, .. })));
}

#[test]
fn a_certificate_says_where_its_status_is() {
    let services = StatusServices {
        crl_urls: vec![URL.to_owned(), "ldap://x/y".to_owned(), "HTTPS://b/".to_owned()],
        ocsp_urls: vec!["http://ocsp.example".to_owned()],
        must_staple: true,
        ocsp_signing: false,
    };
    let leaf = issue(&authority(KeyKind::Sm2), "client", services).chain.leaf;
    let facts = Facts::of_der(&leaf.to_der()).unwrap();
    assert_eq!(facts.crl_urls, [URL, "HTTPS://b/"]);
    assert_eq!(facts.points.len(), 3);
    assert_eq!(facts.ocsp_urls, ["http://ocsp.example"]);
    assert!(facts.must_staple && !facts.is_authority);
    let root = authority(KeyKind::Rsa(2048));
    let facts = Facts::of_der(&root.certificate().to_der()).unwrap();
    assert!(facts.is_authority && !facts.must_staple && facts.crl_urls.is_empty());
    let der = leaf.to_der();
    for length in 0..der.len() {
        assert!(Facts::of_der(&der[..length]).is_err(), "{length}");
    }
}

/// An answer about `leaf` by `responder`, valid from a minute ago for `seconds`.
fn answer(
    leaf: &Certificate,
    ca: &CertificateAuthority,
    responder: Responder<'_>,
    seconds: i64,
    status: Status,
) -> Vec<u8> {
    let request = ocsp_request(leaf, ca.certificate(), CertIdHash::ByIssuer).unwrap();
    let times = AnswerTimes { this_update: now() - 60, next_update: Some(now() + seconds) };
    let wanted = serial_bytes(leaf);
    let status = |serial: &[u8]| if serial == wanted { status } else { Status::Unknown };
    CertificateAuthority::answer_ocsp(&request, responder, times, status).unwrap()
}

fn by_issuer(ca: &CertificateAuthority) -> Responder<'_> {
    Responder { certificate: ca.certificate(), key: ca.key(), delegated: false }
}

fn verify(der: &[u8], leaf: &Certificate, ca: &CertificateAuthority) -> Result<OcspAnswer, OcspError> {
    OcspAnswer::verify(der, leaf, ca.certificate(), CertIdHash::ByIssuer, now())
}

#[test]
fn answers_of_the_issuer_and_of_its_responder_are_believed() {
    for kind in KINDS {
        let ca = authority(kind);
        let leaf = client(&ca);
        let signer = issue(&ca, "responder", StatusServices { ocsp_signing: true, ..StatusServices::default() });
        let delegated = Responder { certificate: &signer.chain.leaf, key: &signer.key, delegated: true };
        for responder in [by_issuer(&ca), delegated] {
            let state = |status| verify(&answer(&leaf, &ca, responder, 60, status), &leaf, &ca).unwrap().state;
            assert_eq!(state(Status::Good), OcspState::Good, "{kind}");
            assert_eq!(state(Status::Revoked(now() - 5, 1)), OcspState::Revoked(Reason::from_code(1)));
            assert_eq!(state(Status::Unknown), OcspState::Unknown);
        }
    }
}

#[test]
fn answers_of_others_are_refused() {
    for kind in KINDS {
        let (ca, namesake) = (authority(kind), authority(kind));
        let leaf = client(&ca);
        let refused = |responder| {
            let outcome = verify(&answer(&leaf, &ca, responder, 60, Status::Good), &leaf, &ca);
            assert!(matches!(outcome, Err(OcspError::Authority { .. })), "{kind}: {outcome:?}");
        };
        refused(by_issuer(&namesake));
        // A client of the same authority, which did not make it a responder.
        let other = issue(&ca, "client 2", StatusServices::default());
        refused(Responder { certificate: &other.chain.leaf, key: &other.key, delegated: true });
        // A responder of another authority.
        let signer = issue(&namesake, "responder", StatusServices { ocsp_signing: true, ..StatusServices::default() });
        refused(Responder { certificate: &signer.chain.leaf, key: &signer.key, delegated: true });
    }
}

#[test]
fn answers_that_are_stale_or_about_others_are_refused() {
    let ca = authority(KeyKind::Sm2);
    let (leaf, other) = (client(&ca), client(&ca));
    let stale = answer(&leaf, &ca, by_issuer(&ca), -1, Status::Good);
    assert!(matches!(verify(&stale, &leaf, &ca), Err(OcspError::Stale(_))));
    let fresh = answer(&leaf, &ca, by_issuer(&ca), 60, Status::Good);
    assert!(matches!(verify(&fresh, &other, &ca), Err(OcspError::OtherCertificate)));
    let early = OcspAnswer::verify(&fresh, &leaf, ca.certificate(), CertIdHash::ByIssuer, now() - 3600);
    assert!(matches!(early, Err(OcspError::NotYetValid(_))));
    let good = verify(&fresh, &leaf, &ca).unwrap();
    assert!(good.is_current(now(), 0) && !good.is_current(now() + 60, 1000));
}

#[test]
fn every_truncation_and_every_changed_byte_of_an_answer_is_refused() {
    let ca = authority(KeyKind::Sm2);
    let leaf = client(&ca);
    let der = answer(&leaf, &ca, by_issuer(&ca), 60, Status::Good);
    for length in 0..der.len() {
        assert!(verify(&der[..length], &leaf, &ca).is_err(), "{length} bytes");
    }
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        assert!(verify(&changed, &leaf, &ca).is_err(), "byte {at}");
    }
    // tryLater.
    assert!(matches!(verify(&[0x30, 3, 0x0a, 1, 3], &leaf, &ca), Err(OcspError::Refused("tryLater"))));
}

/// What fuzzing begins with, and what it has found. The name of a seed tells what it is, `ok-…` or `bad-…`.
#[test]
fn every_fuzz_seed_is_read_or_refused_as_its_name_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/crl");
    let mut read_well = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (name, contents) = (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        let _ = Facts::of_der(&contents);
        let crl = read(contents);
        assert!(crl.is_ok() || !name.starts_with("ok-"), "{name}: {crl:?}");
        assert!(crl.is_err() || !name.starts_with("bad-"), "{name}");
        let Ok(crl) = crl else { continue };
        assert!(crl.serials().all(|serial| crl.revoked(serial).is_some()), "{name}");
        read_well += 1;
    }
    assert!(read_well > 2);
}

/// An element of this tag and contents.
fn tlv(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    AnyRef::new(tag, &parts.concat()).unwrap().to_der().unwrap()
}

/// The AlgorithmIdentifier of a signature by RSASSA-PSS.
fn pss(parameters: &[u8]) -> Vec<u8> {
    tlv(Tag::Sequence, &[&super::pss::RSASSA_PSS.to_der().unwrap(), parameters])
}

/// `body`, `algorithm`, and a signature by RSASSA-PSS with SHA-256 and a salt of this length.
fn sign_pss(ca: &CertificateAuthority, body: &[u8], algorithm: &[u8], salt: i32) -> Vec<u8> {
    let mut signer = Signer::new(MessageDigest::sha256(), ca.key().pkey()).unwrap();
    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt)).unwrap();
    signer.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
    let signature = signer.sign_oneshot_to_vec(body).unwrap();
    tlv(Tag::Sequence, &[body, algorithm, &tlv(Tag::BitString, &[&[0], &signature])])
}

/// The list signed anew.
fn list_by_pss(ca: &CertificateAuthority, der: &[u8], parameters: &[u8], salt: i32) -> Vec<u8> {
    let algorithm = pss(parameters);
    let (list, _) = value(der, Tag::Sequence).unwrap();
    let (body, _) = value(list, Tag::Sequence).unwrap();
    let (version, rest) = element(body, Tag::Integer).unwrap();
    let (_, rest) = element(rest, Tag::Sequence).unwrap();
    sign_pss(ca, &tlv(Tag::Sequence, &[version, &algorithm, rest]), &algorithm, salt)
}

/// The answer signed anew.
fn answer_by_pss(ca: &CertificateAuthority, der: &[u8], parameters: &[u8], salt: i32) -> Vec<u8> {
    let explicit = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    let (response, _) = value(der, Tag::Sequence).unwrap();
    let (status, rest) = element(response, Tag::Enumerated).unwrap();
    let (bytes, _) = value(value(rest, explicit).unwrap().0, Tag::Sequence).unwrap();
    let (kind, rest) = element(bytes, Tag::ObjectIdentifier).unwrap();
    let (basic, _) = value(value(rest, Tag::OctetString).unwrap().0, Tag::Sequence).unwrap();
    let (body, _) = element(basic, Tag::Sequence).unwrap();
    let basic = tlv(Tag::OctetString, &[&sign_pss(ca, body, &pss(parameters), salt)]);
    tlv(Tag::Sequence, &[status, &tlv(explicit, &[&tlv(Tag::Sequence, &[kind, &basic])])])
}

const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const SHA1: &str = "1.3.14.3.2.26";

#[test]
fn lists_and_answers_signed_by_rsassa_pss_are_believed_if_its_parameters_are_good() {
    let ca = authority(KeyKind::Rsa(2048));
    let leaf = client(&ca);
    let (der, said) = (ca.sign_list(&list(&[&leaf])).unwrap(), answer(&leaf, &ca, by_issuer(&ca), 60, Status::Good));
    for salt in [0, 32, 100] {
        let parameters = parameters(SHA256, SHA256, u8::try_from(salt).unwrap(), &[]);
        let crl = read(list_by_pss(&ca, &der, &parameters, salt)).unwrap();
        crl.verify(ca.certificate()).unwrap();
        assert!(crl.revoked(&serial(&leaf)).is_some());
        let namesake = authority(KeyKind::Rsa(2048));
        assert!(matches!(crl.verify(namesake.certificate()), Err(CrlError::Signature { .. })));
        assert_eq!(verify(&answer_by_pss(&ca, &said, &parameters, salt), &leaf, &ca).unwrap().state, OcspState::Good);
        // Signed with a salt of another length than it says.
        let crl = read(list_by_pss(&ca, &der, &parameters, salt + 1)).unwrap();
        assert!(matches!(crl.verify(ca.certificate()), Err(CrlError::Signature { .. })));
        let other = verify(&answer_by_pss(&ca, &said, &parameters, salt + 1), &leaf, &ca);
        assert!(matches!(other, Err(OcspError::Authority { .. })), "{other:?}");
    }
    for weak in [parameters(SHA1, SHA1, 20, &[]), parameters(SHA256, SHA1, 32, &[]), vec![0x30, 0]] {
        let crl = read(list_by_pss(&ca, &der, &weak, 32)).unwrap();
        assert!(matches!(crl.verify(ca.certificate()), Err(CrlError::Algorithm(_))));
        let refused = verify(&answer_by_pss(&ca, &said, &weak, 32), &leaf, &ca);
        assert!(matches!(refused, Err(OcspError::Algorithm(_))), "{refused:?}");
    }
    // A key of another kind.
    let crl = read(list_by_pss(&ca, &der, &parameters(SHA256, SHA256, 32, &[]), 32)).unwrap();
    assert!(matches!(crl.verify(authority(KeyKind::EcP256).certificate()), Err(CrlError::Algorithm(_))));
}

/// When the answers of the corpus were given, in unix seconds.
const CORPUS_TIME: i64 = 1_800_000_000;

/// As for lists. The certificate that they are about, and its issuer, stand beside the target.
#[test]
fn every_fuzz_seed_of_answers_is_believed_or_refused_as_its_name_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let certificate = |name: &str| {
        let der = std::fs::read(folder.join("fuzz_targets/ocsp_answer").join(name)).unwrap();
        Certificate::from_der(&crate::cert::Source::new(name), &der).unwrap()
    };
    let (leaf, issuer) = (certificate("leaf.der"), certificate("issuer.der"));
    let mut believed = 0;
    for entry in std::fs::read_dir(folder.join("corpus/ocsp_answer")).unwrap() {
        let entry = entry.unwrap();
        let (name, contents) = (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        let answer = OcspAnswer::verify(&contents, &leaf, &issuer, CertIdHash::ByIssuer, CORPUS_TIME);
        assert!(answer.is_ok() || !name.starts_with("ok-"), "{name}: {answer:?}");
        assert!(answer.is_err() || !name.starts_with("bad-"), "{name}");
        believed += usize::from(answer.is_ok());
    }
    assert!(believed > 2);
}
