//! Tests of `pki`: each fault by its own error.

use std::net::IpAddr;

use openssl::hash::MessageDigest;
use sm2::dsa::signature::Verifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix;

use super::*;
use crate::cert::{Certificate, CertificateChain, KeyUsage, Source};
use crate::key::PrivateKey;
use crate::pair::{CertificatePair, check_peer_pair};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn authority(kind: KeyKind) -> CertificateAuthority {
    let subject = Subject {
        organization: Some("示例银行".to_owned()),
        country: Some("CN".to_owned()),
        ..Subject::common_name("Test Root")
    };
    CertificateAuthority::create(&subject, kind, &AuthorityProfile::new(3650, None), NOW).unwrap()
}

fn names() -> AlternativeNames {
    AlternativeNames {
        dns: vec!["localhost".to_owned(), "*.example.test".to_owned()],
        ip: vec![IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()],
        uri: vec!["urn:device:7".to_owned()],
        email: vec!["ops@example.test".to_owned()],
    }
}

fn sm2_pair(authority: &CertificateAuthority) -> IssuedPair {
    let subject = Subject::common_name("localhost");
    authority.issue_pair(&subject, &names(), KeyKind::Sm2, &Profile::server(365), NOW).unwrap()
}

/// Bytes that are signed, the signature and the signer's public key (SEC1), read by an independent parser.
fn signed_parts(der: &[u8], issuer: &Certificate) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let certificate = x509_cert::Certificate::from_der(der).unwrap();
    let issuer = x509_cert::Certificate::from_der(&issuer.to_der()).unwrap();
    (
        certificate.tbs_certificate().to_der().unwrap(),
        certificate.signature().raw_bytes().to_vec(),
        issuer.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec(),
    )
}

fn rustcrypto_accepts(id: &str, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = sm2::dsa::VerifyingKey::from_sec1_bytes(id, key).unwrap();
    key.verify(message, &sm2::dsa::Signature::from_der(signature).unwrap()).is_ok()
}

fn libsm_accepts(id: &str, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let context = libsm::sm2::signature::SigCtx::new();
    let key = context.load_pubkey(key).unwrap();
    let signature = libsm::sm2::signature::Signature::der_decode(signature).unwrap();
    let digest = context.hash(id, &key, message).unwrap();
    context.verify_raw(&digest, &key, &signature).unwrap()
}

#[test]
fn sm2_certificates_verify_under_two_other_implementations_with_the_gmt_signer_id_only() {
    let authority = authority(KeyKind::Sm2);
    let pair = sm2_pair(&authority);
    for certificate in [authority.certificate(), &pair.sign.chain.leaf, &pair.enc.chain.leaf] {
        let (message, signature, key) = signed_parts(&certificate.to_der(), authority.certificate());
        assert!(rustcrypto_accepts(SM2_SIGNER_ID, &key, &message, &signature));
        assert!(libsm_accepts(SM2_SIGNER_ID, &key, &message, &signature));
        assert!(!rustcrypto_accepts("", &key, &message, &signature));
        assert!(!libsm_accepts("", &key, &message, &signature));
    }
}

#[test]
fn a_certificate_signed_with_an_empty_signer_id_does_not_verify() {
    use sm2::dsa::signature::Signer;
    let authority = authority(KeyKind::Sm2);
    let pair = sm2_pair(&authority);
    let secret = authority.key().pkey().ec_key().unwrap().private_key().to_vec_padded(32).unwrap();
    let (message, ..) = signed_parts(&pair.sign.chain.leaf.to_der(), authority.certificate());
    for (id, accepted) in [(SM2_SIGNER_ID, true), ("", false)] {
        let signer = sm2::dsa::SigningKey::from_slice(id, &secret).unwrap();
        let signature: sm2::dsa::Signature = signer.sign(&message);
        let mut forged = x509_cert::Certificate::from_der(&pair.sign.chain.leaf.to_der()).unwrap().to_der().unwrap();
        let old = signed_parts(&forged, authority.certificate()).1;
        forged = rebuild(&message, &signature.to_der().to_vec(), &forged, old.len());
        let origin = Source::new("forged");
        let leaf = Certificate::from_der(&origin, &forged).unwrap();
        let chain = CertificateChain { origin, leaf, intermediates: Vec::new() };
        let verified = verify_chain(&chain, &[authority.certificate().clone()], Purpose::Server, NOW);
        assert_eq!(verified.is_ok(), accepted, "{id:?}: {verified:?}");
    }
}

/// A certificate of the same signed bytes and algorithm under another signature.
fn rebuild(tbs: &[u8], signature: &[u8], original: &[u8], old_signature_len: usize) -> Vec<u8> {
    // SEQUENCE { tbs, algorithm, BIT STRING }: the algorithm stands between the signed bytes and the signature.
    let outer_header = original.len()
        - x509_cert::der::Header::from_der(&original[..4]).map_or(0, |h| usize::try_from(h.length()).unwrap());
    let algorithm_start = outer_header + tbs.len();
    let bit_string_header = if old_signature_len + 1 < 128 { 3 } else { 4 };
    let algorithm = &original[algorithm_start..original.len() - old_signature_len - bit_string_header];
    let mut body = [tbs, algorithm].concat();
    body.extend([0x03, u8::try_from(signature.len() + 1).unwrap(), 0]);
    body.extend_from_slice(signature);
    let mut der = vec![0x30, 0x82];
    der.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    der.extend(body);
    der
}

#[test]
fn certificates_of_a_pair_have_the_structure_of_gmt_0015() {
    let authority = authority(KeyKind::Sm2);
    let pair = sm2_pair(&authority);
    let root = x509_cert::Certificate::from_der(&authority.certificate().to_der()).unwrap();
    for (certificate, signs) in [(&pair.sign.chain.leaf, true), (&pair.enc.chain.leaf, false)] {
        let parsed = x509_cert::Certificate::from_der(&certificate.to_der()).unwrap();
        let tbs = parsed.tbs_certificate();
        assert_eq!(tbs.version(), x509_cert::certificate::Version::V3);
        // sm2sign-with-sm3, in both places.
        assert_eq!(parsed.signature_algorithm().oid.to_string(), "1.2.156.10197.1.501");
        assert_eq!(tbs.signature(), parsed.signature_algorithm());
        let key = tbs.subject_public_key_info();
        assert_eq!(key.algorithm.oid.to_string(), "1.2.840.10045.2.1");
        let curve = key.algorithm.parameters.as_ref().unwrap().decode_as::<x509_cert::der::oid::ObjectIdentifier>();
        assert_eq!(curve.unwrap().to_string(), "1.2.156.10197.1.301");
        assert_eq!(tbs.serial_number().as_bytes().len(), 16);

        let (critical, usage) = tbs.get_extension::<pkix::KeyUsage>().unwrap().unwrap();
        assert!(critical);
        assert_eq!(usage.digital_signature(), signs);
        assert_eq!(
            (usage.key_encipherment(), usage.data_encipherment(), usage.key_agreement()),
            (!signs, !signs, !signs)
        );
        let (critical, constraints) = tbs.get_extension::<pkix::BasicConstraints>().unwrap().unwrap();
        assert!(critical && !constraints.ca);
        let (_, purposes) = tbs.get_extension::<pkix::ExtendedKeyUsage>().unwrap().unwrap();
        assert_eq!(purposes.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.3.6.1.5.5.7.3.1"]);
        let (_, own) = tbs.get_extension::<pkix::SubjectKeyIdentifier>().unwrap().unwrap();
        let (_, above) = tbs.get_extension::<pkix::AuthorityKeyIdentifier>().unwrap().unwrap();
        let (_, issuer) = root.tbs_certificate().get_extension::<pkix::SubjectKeyIdentifier>().unwrap().unwrap();
        assert_eq!(above.key_identifier.unwrap(), issuer.0);
        assert_ne!(own.0, issuer.0);
        let (_, names) = tbs.get_extension::<pkix::SubjectAltName>().unwrap().unwrap();
        assert_eq!(names.0.len(), 6);
    }
    let (critical, usage) = root.tbs_certificate().get_extension::<pkix::KeyUsage>().unwrap().unwrap();
    assert!(critical && usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert!(root.tbs_certificate().get_extension::<pkix::BasicConstraints>().unwrap().unwrap().1.ca);
}

#[test]
fn certificates_read_back_what_was_asked_for() {
    let authority = authority(KeyKind::Sm2);
    let leaf = sm2_pair(&authority).sign.chain.leaf;
    assert_eq!(leaf.subject(), "CN=localhost");
    assert_eq!(leaf.common_name().unwrap().as_deref(), Some("localhost"));
    assert_eq!(leaf.issuer(), "CN=Test Root,O=示例银行,C=CN");
    assert_eq!(leaf.san_dns(), names().dns);
    assert_eq!(leaf.san_ip(), names().ip);
    assert_eq!(leaf.san_uri(), names().uri);
    assert_eq!(leaf.san_email(), names().email);
    assert_eq!((leaf.not_before(), leaf.not_after()), (NOW - BACKDATING_SECS, NOW + 365 * DAY));
    assert_eq!(leaf.key_kind(), KeyKind::Sm2);
    assert_eq!(leaf.key_usage(), Some(KeyUsage::DIGITAL_SIGNATURE));
    assert_eq!(leaf.signature_algorithm(), "SM2-with-SM3");
    assert!(leaf.extended_key_usage().unwrap().server_auth && !leaf.is_ca());
    let der = leaf.to_der();
    assert_eq!(leaf.fingerprint_sha256().len(), 64);
    let sm3 = <sm3::Sm3 as sm3::Digest>::digest(&der);
    assert_eq!(leaf.fingerprint_sm3(), crate::cert::hex(&sm3));
    assert_eq!(leaf.serial_hex().len(), 32);
}

#[test]
fn every_authority_kind_issues_chains_that_verify() {
    for (ca_kind, leaf_kind) in [
        (KeyKind::Sm2, KeyKind::Sm2),
        (KeyKind::EcP256, KeyKind::EcP256),
        (KeyKind::Rsa(2048), KeyKind::Rsa(2048)),
        (KeyKind::Sm2, KeyKind::EcP256),
    ] {
        let root = authority(ca_kind);
        let middle = root
            .issue_authority(&Subject::common_name("Middle"), ca_kind, &AuthorityProfile::new(1000, Some(0)), NOW)
            .unwrap();
        let issued = middle
            .issue_single(&Subject::common_name("localhost"), &names(), leaf_kind, &Profile::server(90), NOW)
            .unwrap();
        assert_eq!(issued.chain.leaf.key_kind(), leaf_kind);
        assert_eq!(issued.chain.intermediates.len(), 1, "the root is not sent");
        let anchors = [root.certificate().clone()];
        verify_chain(&issued.chain, &anchors, Purpose::Server, NOW).unwrap();
        let reread = CertificateChain::from_pem(Source::new("chain"), &issued.chain.to_pem()).unwrap();
        assert_eq!(reread.leaf, issued.chain.leaf);

        for (purpose, now, anchors, reason) in [
            (Purpose::Client, NOW, &anchors, "purpose"),
            (Purpose::Server, NOW + 91 * DAY, &anchors, "expired"),
            (Purpose::Server, NOW - 2 * BACKDATING_SECS, &anchors, "not yet valid"),
            (Purpose::Server, NOW, &[authority(ca_kind).certificate().clone()], "issuer"),
        ] {
            let error = verify_chain(&issued.chain, anchors, purpose, now).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(matches!(verify_chain(&issued.chain, &[], Purpose::Server, NOW), Err(VerifyError::NoAnchors)));
        let below = middle.issue_authority(&Subject::common_name("x"), ca_kind, &AuthorityProfile::new(10, None), NOW);
        assert!(matches!(below, Err(PkiError::PathLength { .. })));
    }
}

#[test]
fn nothing_outlives_its_authority() {
    let root = authority(KeyKind::Sm2);
    let profile = Profile::client(36_500);
    let leaf = root
        .issue_single(&Subject::common_name("client"), &AlternativeNames::default(), KeyKind::Sm2, &profile, NOW)
        .unwrap();
    assert_eq!(leaf.chain.leaf.not_after(), root.certificate().not_after());
    let late = root.issue_single(
        &Subject::common_name("client"),
        &AlternativeNames::default(),
        KeyKind::Sm2,
        &profile,
        NOW + 3650 * DAY,
    );
    assert!(matches!(late, Err(PkiError::AuthorityNotValid { .. })));
    for days in [0, 36_501] {
        let profile = AuthorityProfile::new(days, None);
        let refused = CertificateAuthority::create(&Subject::common_name("x"), KeyKind::Sm2, &profile, NOW);
        assert!(matches!(refused, Err(PkiError::BadValidity { .. })));
    }
}

#[test]
fn issued_pairs_are_pairs() {
    for kind in [KeyKind::Sm2, KeyKind::Rsa(2048)] {
        let authority = authority(KeyKind::Sm2);
        let pair =
            authority.issue_pair(&Subject::common_name("client"), &names(), kind, &Profile::client(30), NOW).unwrap();
        check_peer_pair(&pair.sign.chain.leaf, &pair.enc.chain.leaf).unwrap();
        let pair = CertificatePair::new(pair.sign.chain, pair.sign.key, pair.enc.chain, pair.enc.key).unwrap();
        pair.check_validity(NOW).unwrap();
        assert!(pair.check_validity(NOW + 31 * DAY).unwrap_err().to_string().contains("expired"));
        assert!(pair.check_validity(NOW - DAY).is_err());
    }
    let refused = authority(KeyKind::EcP256).issue_pair(
        &Subject::common_name("c"),
        &names(),
        KeyKind::EcP256,
        &Profile::client(1),
        NOW,
    );
    assert!(matches!(refused, Err(PkiError::PairKind { .. })));
}

#[test]
fn requests_become_certificates_for_the_key_in_them() {
    let authority = authority(KeyKind::Sm2);
    let subject = Subject::common_name("gateway");
    for kind in [KeyKind::Sm2, KeyKind::EcP256, KeyKind::Rsa(2048)] {
        let key = PrivateKey::generate(kind).unwrap();
        let request = CertificateRequest::create(&subject, &names(), KeyUsage::DIGITAL_SIGNATURE, &key).unwrap();
        let request = CertificateRequest::from_pem("request", &request.to_pem().unwrap()).unwrap();
        let profile = Profile::server(30);
        let chain = authority.sign_request(&request, Approval::AsRequested, &profile, NOW).unwrap();
        assert!(chain.leaf.has_key(key.pkey()));
        assert_eq!((chain.leaf.san_dns(), chain.leaf.san_ip()), (names().dns, names().ip));
        let chosen = AlternativeNames { dns: vec!["other".to_owned()], ..AlternativeNames::default() };
        let chain = authority.sign_request(&request, Approval::Names(&chosen), &profile, NOW).unwrap();
        assert_eq!((chain.leaf.san_dns(), chain.leaf.san_ip()), (chosen.dns, vec![]));
        verify_chain(&chain, &[authority.certificate().clone()], Purpose::Server, NOW).unwrap();
    }
}

#[test]
fn sm2_requests_prove_possession_under_the_gmt_signer_id() {
    let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
    let subject = Subject::common_name("gateway");
    let request = CertificateRequest::create(&subject, &names(), KeyUsage::DIGITAL_SIGNATURE, &key).unwrap();
    let parsed = x509_cert::request::CertReq::from_der(&request.to_der().unwrap()).unwrap();
    let (message, signature) = (parsed.info.to_der().unwrap(), parsed.signature.raw_bytes().to_vec());
    let public = parsed.info.public_key.subject_public_key.raw_bytes();
    assert!(rustcrypto_accepts(SM2_SIGNER_ID, public, &message, &signature));
    assert!(!rustcrypto_accepts("", public, &message, &signature));

    // Another subject under the old signature: the first byte of the common name is changed.
    let mut der = request.to_der().unwrap();
    let at = der.windows(7).position(|window| window == b"gateway").unwrap();
    der[at] = b'G';
    let tampered = openssl::x509::X509Req::from_der(&der).unwrap().to_pem().unwrap();
    let refused = CertificateRequest::from_pem("r.csr", &tampered);
    assert!(matches!(refused, Err(PkiError::NoProofOfPossession { .. })), "{refused:?}");
    assert!(matches!(CertificateRequest::from_pem("r.csr", b"nothing"), Err(PkiError::NotARequest { .. })));
}

#[test]
fn pair_requests_must_be_of_one_subject_and_two_keys() {
    let authority = authority(KeyKind::Sm2);
    let request = |name: &str, key: &PrivateKey| {
        CertificateRequest::create(&Subject::common_name(name), &names(), KeyUsage::DIGITAL_SIGNATURE, key).unwrap()
    };
    let (one, two) = (PrivateKey::generate(KeyKind::Sm2).unwrap(), PrivateKey::generate(KeyKind::Sm2).unwrap());
    let sign = |sign: &CertificateRequest, enc: &CertificateRequest| {
        authority.sign_pair_requests(sign, enc, Approval::AsRequested, &Profile::client(9), NOW)
    };
    let (sign_chain, enc_chain) = sign(&request("a", &one), &request("a", &two)).unwrap();
    CertificatePair::new(sign_chain, one.clone(), enc_chain, two.clone()).unwrap();
    assert!(matches!(sign(&request("a", &one), &request("b", &two)), Err(PkiError::DifferentSubjects { .. })));
    assert!(matches!(sign(&request("a", &one), &request("a", &one)), Err(PkiError::SameKey)));
}

#[test]
fn names_that_would_deceive_are_refused() {
    let authority = authority(KeyKind::Sm2);
    let issue = |subject: &Subject, names: &AlternativeNames| {
        authority.issue_single(subject, names, KeyKind::Sm2, &Profile::server(1), NOW).map(|_| ())
    };
    let none = AlternativeNames::default();
    let long = "x".repeat(65);
    for bad in ["a\0b", "a\nb", "\u{202e}nimda", long.as_str()] {
        assert!(matches!(issue(&Subject::common_name(bad), &none), Err(PkiError::BadName { .. })), "{bad:?}");
    }
    assert!(matches!(issue(&Subject::default(), &none), Err(PkiError::NoCommonName)));
    let country = Subject { country: Some("cn".to_owned()), ..Subject::common_name("a") };
    assert!(matches!(issue(&country, &none), Err(PkiError::BadName { field: "country", .. })));
    for bad in ["", "a,DNS:b", "a b", "a\0.b", "-a", "*", "a.*.b", "a..b", "DNS:b/"] {
        let names = AlternativeNames { dns: vec![bad.to_owned()], ..AlternativeNames::default() };
        assert!(matches!(issue(&Subject::common_name("a"), &names), Err(PkiError::BadName { .. })), "{bad:?}");
    }
}

#[test]
fn an_authority_is_taken_up_only_with_its_own_key() {
    let root = authority(KeyKind::Sm2);
    CertificateAuthority::new(root.chain().clone(), root.key().clone()).unwrap();
    let other = PrivateKey::generate(KeyKind::Sm2).unwrap();
    let refused = CertificateAuthority::new(root.chain().clone(), other);
    assert!(matches!(refused, Err(PkiError::AuthorityKeyMismatch { .. })));
    let leaf = sm2_pair(&root).sign;
    assert!(matches!(CertificateAuthority::new(leaf.chain, leaf.key), Err(PkiError::NotAnAuthority { .. })));
}

#[test]
fn the_library_and_the_fingerprint_agree() {
    let certificate = authority(KeyKind::Sm2).certificate().clone();
    let digest = openssl::hash::hash(MessageDigest::sha256(), &certificate.to_der()).unwrap();
    assert_eq!(certificate.fingerprint_sha256(), crate::cert::hex(&digest));
}

/// A request as somebody else's program makes it, without this crate's checks.
fn careless_request(
    key: &openssl::pkey::PKeyRef<openssl::pkey::Private>,
    common_names: &[&str],
    names: Option<&openssl::x509::extension::SubjectAlternativeName>,
) -> CertificateRequest {
    let mut builder = openssl::x509::X509Req::builder().unwrap();
    let mut subject = openssl::x509::X509Name::builder().unwrap();
    for name in common_names {
        subject.append_entry_by_nid(openssl::nid::Nid::COMMONNAME, name).unwrap();
    }
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    if let Some(names) = names {
        let mut extensions = openssl::stack::Stack::new().unwrap();
        extensions.push(names.build(&builder.x509v3_context(None)).unwrap()).unwrap();
        builder.add_extensions(&extensions).unwrap();
    }
    builder.sign(key, MessageDigest::sha256()).unwrap();
    CertificateRequest::from_pem("request", &builder.build().to_pem().unwrap()).unwrap()
}

// The rules for what this crate makes itself did not hold for requests: an authority signed two common names, the name `*` and a key of
// RSA-1024 into a client's certificate.
#[test]
fn requests_obey_the_rules_for_names_and_keys() {
    use openssl::x509::extension::SubjectAlternativeName;
    let authority = authority(KeyKind::Sm2);
    let sign = |request: &CertificateRequest, approval: Approval<'_>| {
        authority.sign_request(request, approval, &Profile::client(9), NOW)
    };
    let key = PrivateKey::generate(KeyKind::EcP256).unwrap();
    let key = key.pkey();
    sign(&careless_request(key, &["a"], None), Approval::AsRequested).unwrap();
    let two = careless_request(key, &["a", "b"], None);
    assert!(matches!(sign(&two, Approval::AsRequested), Err(PkiError::RequestedSubject { .. })));
    let hidden = careless_request(key, &["a\u{202e}b"], None);
    assert!(matches!(sign(&hidden, Approval::AsRequested), Err(PkiError::RequestedSubject { .. })));
    for dns in ["*", "a b", "-x.test", "x..test"] {
        let request = careless_request(key, &["a"], Some(SubjectAlternativeName::new().dns("good.test").dns(dns)));
        assert!(matches!(sign(&request, Approval::AsRequested), Err(PkiError::BadName { .. })), "{dns}");
        // Names that the authority chooses take the place of all of them.
        let chain = sign(&request, Approval::Names(&names())).unwrap();
        assert_eq!(chain.leaf.san_dns(), names().dns);
    }
    let other = careless_request(key, &["a"], Some(SubjectAlternativeName::new().rid("1.2.3.4")));
    assert!(matches!(sign(&other, Approval::AsRequested), Err(PkiError::RequestedNames { .. })));
    let weak = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
    let weak = careless_request(&weak, &["a"], None);
    assert!(matches!(sign(&weak, Approval::AsRequested), Err(PkiError::WeakKey { .. })));
}
