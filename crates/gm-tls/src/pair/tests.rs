//! Tests of `pair`: each fault by its own error.

use super::*;

#[test]
fn days_are_told_in_words() {
    assert_eq!([0, 1, 2].map(ago), ["today", "1 day ago", "2 days ago"]);
}
use crate::cert::ExtendedKeyUsage;
use crate::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, Profile, Subject};

const NOW: i64 = 1_800_000_000;

fn authority(name: &str, kind: KeyKind) -> CertificateAuthority {
    let profile = AuthorityProfile::new(100, None);
    CertificateAuthority::create(&Subject::common_name(name), kind, &profile, NOW).unwrap()
}

/// One certificate of any make, so that wrong ones can be made.
fn certificate(authority: &CertificateAuthority, name: &str, dns: &[&str], kind: KeyKind, usage: KeyUsage) -> Issued {
    let names = AlternativeNames { dns: dns.iter().map(ToString::to_string).collect(), ..AlternativeNames::default() };
    let profile = Profile { single_usage: usage, rsa_usage: usage, ..Profile::server(10) };
    authority.issue_single(&Subject::common_name(name), &names, kind, &profile, NOW).unwrap()
}

fn signing(authority: &CertificateAuthority) -> Issued {
    certificate(authority, "a", &["a"], KeyKind::Sm2, KeyUsage::DIGITAL_SIGNATURE)
}

fn encryption(authority: &CertificateAuthority) -> Issued {
    certificate(authority, "a", &["a"], KeyKind::Sm2, ENCRYPTION_USES)
}

fn named(issued: &Issued, field: &str) -> (CertificateChain, PrivateKey) {
    let chain = CertificateChain {
        origin: Source::file(format!("{field}_certfile"), format!("{field}.crt")),
        ..issued.chain.clone()
    };
    (chain, issued.key.clone().with_origin(Source::file(format!("{field}_keyfile"), format!("{field}.key"))))
}

fn pair(sign: &Issued, enc: &Issued) -> Result<CertificatePair, PairError> {
    let ((sign, sign_key), (enc, enc_key)) = (named(sign, "sign"), named(enc, "enc"));
    CertificatePair::new(sign, sign_key, enc, enc_key)
}

/// The error of a pair, after checking that a peer with these certificates is refused too.
fn refusal(sign: &Issued, enc: &Issued) -> PairError {
    let error = pair(sign, enc).unwrap_err();
    let peer = check_peer_pair(&sign.chain.leaf, &enc.chain.leaf).unwrap_err();
    assert_eq!(std::mem::discriminant(&peer), std::mem::discriminant(&error));
    assert!(!peer.to_string().contains(".crt"), "{peer}");
    error
}

#[test]
fn takes_a_pair_and_gives_its_parts() {
    let authority = authority("CA", KeyKind::Sm2);
    let (sign, enc) = (signing(&authority), encryption(&authority));
    let pair = pair(&sign, &enc).unwrap();
    assert_eq!((pair.sign(), pair.enc()), (&sign.chain.leaf, &enc.chain.leaf));
    assert_eq!(pair.key_kind(), KeyKind::Sm2);
    assert!(pair.intermediates().is_empty());
    check_peer_pair(pair.sign(), pair.enc()).unwrap();
}

#[test]
fn takes_any_of_the_three_encryption_uses() {
    let authority = authority("CA", KeyKind::Sm2);
    let sign = certificate(
        &authority,
        "a",
        &["a"],
        KeyKind::Sm2,
        KeyUsage::DIGITAL_SIGNATURE.union(KeyUsage::NON_REPUDIATION),
    );
    for usage in [KeyUsage::KEY_ENCIPHERMENT, KeyUsage::DATA_ENCIPHERMENT, KeyUsage::KEY_AGREEMENT] {
        pair(&sign, &certificate(&authority, "a", &["a"], KeyKind::Sm2, usage)).unwrap();
    }
}

#[test]
fn each_half_is_missed_by_name() {
    let authority = authority("CA", KeyKind::Sm2);
    let fields = ["sign_certfile", "sign_keyfile", "enc_certfile", "enc_keyfile"];
    let ((sign, sign_key), (enc, enc_key)) =
        (named(&signing(&authority), "sign"), named(&encryption(&authority), "enc"));
    for (absent, field) in fields.iter().enumerate() {
        let parts = PairParts {
            sign: (absent != 0).then(|| sign.clone()),
            sign_key: (absent != 1).then(|| sign_key.clone()),
            enc: (absent != 2).then(|| enc.clone()),
            enc_key: (absent != 3).then(|| enc_key.clone()),
        };
        let error = CertificatePair::from_parts(parts, fields).unwrap_err();
        assert_eq!(error, PairError::Half { missing: (*field).to_owned() });
    }
    let all = PairParts { sign: Some(sign), sign_key: Some(sign_key), enc: Some(enc), enc_key: Some(enc_key) };
    CertificatePair::from_parts(all, fields).unwrap();
}

#[test]
fn keys_that_do_not_belong_are_named() {
    let authority = authority("CA", KeyKind::Sm2);
    let (sign, enc) = (signing(&authority), encryption(&authority));
    let stranger = PrivateKey::generate(KeyKind::Sm2).unwrap();
    let text = pair(&Issued { key: stranger.clone(), ..sign.clone() }, &enc).unwrap_err();
    assert!(matches!(text, PairError::SignKeyMismatch { .. }), "{text}");
    for part in ["sign_keyfile", "sign.key", "sign_certfile", "sign.crt"] {
        assert!(text.to_string().contains(part), "{text}");
    }
    let error = pair(&sign, &Issued { key: stranger, ..enc.clone() }).unwrap_err();
    assert!(matches!(error, PairError::EncKeyMismatch { .. }), "{error}");
    let error = pair(&sign, &Issued { key: sign.key.clone(), ..enc.clone() }).unwrap_err();
    assert!(matches!(error, PairError::EncKeyMismatch { .. }), "one key for both: {error}");
    let swapped = pair(&Issued { key: enc.key.clone(), ..sign.clone() }, &Issued { key: sign.key, ..enc }).unwrap_err();
    assert!(matches!(swapped, PairError::KeysSwapped { .. }), "{swapped}");
}

#[test]
fn a_pair_the_wrong_way_round_is_called_swapped() {
    let authority = authority("CA", KeyKind::Sm2);
    let error = refusal(&encryption(&authority), &signing(&authority));
    assert!(matches!(error, PairError::Swapped { .. }), "{error}");
}

#[test]
fn the_same_certificate_or_key_twice_is_refused() {
    let authority = authority("CA", KeyKind::Sm2);
    let sign = signing(&authority);
    assert!(matches!(refusal(&sign, &sign), PairError::SameCertificate { .. }));

    use crate::pki::{Approval, CertificateRequest};
    let names = AlternativeNames { dns: vec!["a".to_owned()], ..AlternativeNames::default() };
    let request = CertificateRequest::create(&Subject::common_name("a"), &names, ENCRYPTION_USES, &sign.key).unwrap();
    let profile = Profile { single_usage: ENCRYPTION_USES, ..Profile::server(10) };
    let chain = authority.sign_request(&request, Approval::AsRequested, &profile, NOW).unwrap();
    let error = refusal(&sign, &Issued { chain, key: sign.key.clone() });
    assert!(matches!(error, PairError::SameKey { .. }), "{error}");
}

#[test]
fn certificates_of_different_subjects_issuers_or_names_are_refused() {
    let ours = authority("CA", KeyKind::Sm2);
    let sign = signing(&ours);
    let error = refusal(&sign, &certificate(&ours, "b", &["a"], KeyKind::Sm2, ENCRYPTION_USES));
    assert!(matches!(error, PairError::DifferentSubject { .. }), "{error}");
    assert!(error.to_string().contains("CN=a") && error.to_string().contains("CN=b"));
    let error = refusal(&sign, &encryption(&authority("Other CA", KeyKind::Sm2)));
    assert!(matches!(error, PairError::DifferentIssuer { .. }), "{error}");
    let error = refusal(&sign, &encryption(&authority("CA", KeyKind::Sm2)));
    assert!(matches!(error, PairError::DifferentAuthority { .. }), "{error}");
    for names in [&["b"][..], &["a", "b"], &[]] {
        let error = refusal(&sign, &certificate(&ours, "a", names, KeyKind::Sm2, ENCRYPTION_USES));
        assert!(matches!(error, PairError::DifferentNames { .. }), "{names:?}: {error}");
    }
}

#[test]
fn the_order_of_alternative_names_is_free() {
    let authority = authority("CA", KeyKind::Sm2);
    let sign = certificate(&authority, "a", &["a", "b"], KeyKind::Sm2, KeyUsage::DIGITAL_SIGNATURE);
    pair(&sign, &certificate(&authority, "a", &["b", "a"], KeyKind::Sm2, ENCRYPTION_USES)).unwrap();
}

#[test]
fn uses_of_both_roles_or_of_none_are_refused() {
    let authority = authority("CA", KeyKind::Sm2);
    let of = |usage| certificate(&authority, "a", &["a"], KeyKind::Sm2, usage);
    let both = KeyUsage::DIGITAL_SIGNATURE.union(KeyUsage::KEY_ENCIPHERMENT);
    for (sign, enc, wrong) in [
        (both, ENCRYPTION_USES, Role::Signing),
        (KeyUsage::NON_REPUDIATION, ENCRYPTION_USES, Role::Signing),
        (KeyUsage::CRL_SIGN, ENCRYPTION_USES, Role::Signing),
        (ENCRYPTION_USES, ENCRYPTION_USES, Role::Signing),
        (KeyUsage::DIGITAL_SIGNATURE, both, Role::Encryption),
        (KeyUsage::DIGITAL_SIGNATURE, KeyUsage::CRL_SIGN, Role::Encryption),
        (KeyUsage::DIGITAL_SIGNATURE, KeyUsage::DIGITAL_SIGNATURE, Role::Encryption),
    ] {
        let error = refusal(&of(sign), &of(enc));
        assert!(matches!(error, PairError::WrongUsage { role, .. } if role == wrong), "{sign} {enc}: {error}");
    }
}

#[test]
fn certificates_without_usage_are_refused() {
    let authority = authority("CA", KeyKind::Sm2);
    let (sign, enc) = (signing(&authority), encryption(&authority));
    for (without, role) in [(&sign, Role::Signing), (&enc, Role::Encryption)] {
        let bare = without_key_usage(without, &authority);
        let (sign, enc) = if role == Role::Signing { (&bare, &enc) } else { (&sign, &bare) };
        let error = refusal(sign, enc);
        assert!(matches!(error, PairError::NoUsage { role: found, .. } if found == role), "{error}");
    }
}

/// The same certificate signed anew without any extension.
fn without_key_usage(issued: &Issued, authority: &CertificateAuthority) -> Issued {
    let old = issued.chain.leaf.x509();
    let mut builder = openssl::x509::X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(old.serial_number()).unwrap();
    builder.set_subject_name(old.subject_name()).unwrap();
    builder.set_issuer_name(old.issuer_name()).unwrap();
    builder.set_not_before(old.not_before()).unwrap();
    builder.set_not_after(old.not_after()).unwrap();
    builder.set_pubkey(&old.public_key().unwrap()).unwrap();
    builder.sign(authority.key().pkey(), openssl::hash::MessageDigest::sm3()).unwrap();
    let leaf = Certificate::from_x509(builder.build());
    Issued { chain: CertificateChain { leaf, ..issued.chain.clone() }, key: issued.key.clone() }
}

#[test]
fn only_sm2_pairs_and_rsa_pairs_are_pairs() {
    let authority = authority("CA", KeyKind::Sm2);
    let of = |kind, usage| certificate(&authority, "a", &["a"], kind, usage);
    let sm2 = signing(&authority);
    for kind in [KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa(2048)] {
        let enc = of(kind, ENCRYPTION_USES);
        let error = refusal(&sm2, &enc);
        assert!(matches!(&error, PairError::WrongKind { kind: found, .. } if *found == kind), "{error}");
    }
    let p256 = of(KeyKind::EcP256, KeyUsage::DIGITAL_SIGNATURE);
    assert!(matches!(refusal(&p256, &of(KeyKind::EcP256, ENCRYPTION_USES)), PairError::WrongKind { .. }));
    let rsa = of(KeyKind::Rsa(2048), KeyUsage::DIGITAL_SIGNATURE);
    let rsa = pair(&rsa, &of(KeyKind::Rsa(2048), ENCRYPTION_USES)).unwrap();
    assert_eq!(rsa.key_kind(), KeyKind::Rsa(2048));
}

#[test]
fn a_certificate_of_an_authority_is_no_leaf() {
    let authority = authority("CA", KeyKind::Sm2);
    let as_leaf = Issued { chain: authority.chain().clone(), key: authority.key().clone() };
    assert!(matches!(refusal(&as_leaf, &encryption(&authority)), PairError::IsAuthority { .. }));
    assert!(matches!(refusal(&signing(&authority), &as_leaf), PairError::IsAuthority { .. }));
}

#[test]
fn validity_is_checked_apart_from_construction() {
    let authority = authority("CA", KeyKind::Sm2);
    let pair = pair(&signing(&authority), &encryption(&authority)).unwrap();
    pair.check_validity(pair.sign().not_before()).unwrap();
    pair.check_validity(pair.enc().not_after()).unwrap();
    let early = pair.check_validity(pair.sign().not_before() - 1).unwrap_err();
    assert!(matches!(early, ValidityError::NotYet { seconds: 1, .. }));
    let late = pair.check_validity(pair.sign().not_after() + 3 * 86_400).unwrap_err();
    assert!(matches!(late, ValidityError::Expired { days: 3, .. }));
    assert!(late.to_string().contains("sign_certfile (sign.crt)"), "{late}");
}

#[test]
fn purposes_are_no_part_of_the_binding() {
    let authority = authority("CA", KeyKind::Sm2);
    let profile = Profile { purposes: ExtendedKeyUsage::default(), ..Profile::client(5) };
    let names = AlternativeNames::default();
    let made = authority.issue_pair(&Subject::common_name("a"), &names, KeyKind::Sm2, &profile, NOW).unwrap();
    pair(&made.sign, &made.enc).unwrap();
}
