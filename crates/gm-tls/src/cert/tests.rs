//! Tests of `cert`: each fault by its own error.

use std::fs;

use openssl::asn1::Asn1Type;
use openssl::x509::{X509Builder, X509Extension, X509Name};

use super::*;
use crate::key::PrivateKey;
use crate::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};

const NOW: i64 = 1_800_000_000;

fn authority(name: &str) -> CertificateAuthority {
    let profile = AuthorityProfile::new(100, None);
    CertificateAuthority::create(&Subject::common_name(name), KeyKind::Sm2, &profile, NOW).unwrap()
}

/// A certificate with any subject at all.
fn with_subject(subject: &X509Name) -> Certificate {
    let key = PrivateKey::generate(KeyKind::EcP256).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(subject).unwrap();
    builder.set_pubkey(key.pkey()).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(4_102_444_800).unwrap()).unwrap();
    builder.sign(key.pkey(), MessageDigest::sha256()).unwrap();
    Certificate::from_x509(builder.build())
}

fn subject(parts: &[(&str, &str)]) -> Certificate {
    let mut name = X509Name::builder().unwrap();
    for (field, value) in parts {
        name.append_entry_by_text_with_type(field, value, Asn1Type::UTF8STRING).unwrap();
    }
    with_subject(&name.build())
}

#[test]
fn subjects_print_as_rfc_4514_most_specific_first() {
    let name = [("C", "CN"), ("ST", "北京"), ("O", "A, B + \"C\""), ("OU", " x "), ("CN", "#a\\b=c;<d>")];
    assert_eq!(subject(&name).subject(), r#"CN=\#a\\b\=c\;\<d\>,OU=\ x\ ,O=A\, B \+ \"C\",ST=北京,C=CN"#);
}

#[test]
fn subjects_with_deceptive_characters_print_them_escaped() {
    assert_eq!(subject(&[("CN", "admin\0.evil")]).subject(), r"CN=admin\00.evil");
    assert_eq!(subject(&[("CN", "a\nCN=b\u{1b}[1m")]).subject(), r"CN=a\0ACN\=b\1B[1m");
    assert_eq!(subject(&[("CN", "\u{202e}nimda")]).subject(), r"CN=\E2\80\AEnimda");
    // One entry that looks like two and two entries that are.
    assert_ne!(subject(&[("CN", "a,O=b")]).subject(), subject(&[("O", "b"), ("CN", "a")]).subject());
}

#[test]
fn unknown_attributes_print_as_numbers_with_their_whole_encoding() {
    assert_eq!(subject(&[("CN", "a"), ("1.2.3.4.5", "hi")]).subject(), "1.2.3.4.5=#0c026869,CN=a");
}

#[test]
fn multi_valued_names_print_with_a_plus() {
    // RDNSequence of one set of two: CN=a and O=b.
    let der = [
        0x30, 0x16, 0x31, 0x14, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'a', 0x30, 0x08, 0x06, 0x03,
        0x55, 0x04, 0x0a, 0x0c, 0x01, b'b',
    ];
    assert_eq!(with_subject(&X509Name::from_der(&der).unwrap()).subject(), "O=b+CN=a");
}

#[test]
fn common_names_that_identify_nobody_are_errors() {
    assert_eq!(subject(&[("CN", "client-1")]).common_name(), Ok(Some("client-1".to_owned())));
    assert_eq!(subject(&[("O", "b")]).common_name(), Ok(None));
    assert_eq!(subject(&[("CN", "admin"), ("CN", "guest")]).common_name(), Err(NameError::Several));
    for bad in ["admin\0x", "a\u{7f}", "a\u{200b}", ""] {
        let found = subject(&[("CN", "x"), ("O", "b")]);
        assert!(found.common_name().is_ok());
        if !bad.is_empty() {
            assert_eq!(subject(&[("CN", bad)]).common_name(), Err(NameError::Deceptive), "{bad:?}");
        }
    }
}

#[test]
fn der_must_be_one_certificate_and_nothing_else() {
    let der = authority("CA").certificate().to_der();
    let origin = Source::new("x");
    assert!(Certificate::from_der(&origin, &der).is_ok());
    assert!(Certificate::from_der(&origin, &[der.as_slice(), &[0]].concat()).is_err());
    for len in [0, 1, der.len() / 2, der.len() - 1] {
        assert!(Certificate::from_der(&origin, &der[..len]).is_err(), "{len}");
    }
}

#[test]
fn pem_texts_are_counted() {
    let origin = Source::new("x");
    let pem = authority("CA").certificate().to_pem();
    assert!(Certificate::from_pem(&origin, &pem).is_ok());
    let two = [pem.as_slice(), &pem].concat();
    assert!(matches!(Certificate::from_pem(&origin, &two), Err(CertError::NotOne { count: 2, .. })));
    assert!(matches!(Certificate::from_pem(&origin, b"text"), Err(CertError::NoCertificate { .. })));
    let many = pem.repeat(MAX_CHAIN_CERTIFICATES + 1);
    assert!(matches!(Certificate::from_pem(&origin, &many), Err(CertError::TooMany { .. })));
    let key = PrivateKey::generate(KeyKind::Sm2).unwrap().to_pem(None).unwrap();
    assert!(matches!(Certificate::from_pem(&origin, &key), Err(CertError::NoCertificate { .. })));
    let der = authority("CA").certificate().to_der();
    assert!(matches!(Certificate::from_pem(&origin, &der), Err(CertError::NotPem { .. })));
    assert!(matches!(Certificate::from_pem(&origin, &pem[..pem.len() - 5]), Err(CertError::DamagedPem { .. })));
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(Certificate::from_pem(&origin, garbage), Err(CertError::Malformed { position: 1, .. })));
}

#[test]
fn chains_are_leaf_first_and_in_order() {
    let root = authority("Root");
    let profile = AuthorityProfile::new(50, None);
    let middle = root.issue_authority(&Subject::common_name("Middle"), KeyKind::Sm2, &profile, NOW).unwrap();
    let names = AlternativeNames::default();
    let leaf =
        middle.issue_single(&Subject::common_name("leaf"), &names, KeyKind::Sm2, &Profile::client(9), NOW).unwrap();
    let (leaf, middle, root) = (leaf.chain.leaf.to_pem(), middle.certificate().to_pem(), root.certificate().to_pem());
    let chain = |parts: &[&[u8]]| CertificateChain::from_pem(Source::new("certfile"), &parts.concat());
    let good = chain(&[&leaf, &middle, &root]).unwrap();
    assert_eq!(good.leaf.subject(), "CN=leaf");
    assert_eq!(good.intermediates.len(), 2);
    assert!(chain(&[&leaf]).is_ok());
    for (parts, wrong) in [(&[&leaf[..], &root][..], 2), (&[&middle, &leaf], 2), (&[&leaf, &middle, &leaf], 3)] {
        let error = chain(parts).unwrap_err();
        assert!(matches!(error, CertError::OutOfOrder { position, .. } if position == wrong), "{error}");
    }
}

#[test]
fn files_are_bounded_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.crt");
    let error = CertificateChain::from_file("certfile", &path).unwrap_err();
    assert!(matches!(error, CertError::Unreadable { .. }));
    assert!(error.to_string().starts_with(&format!("certfile ({})", path.display())), "{error}");
    fs::write(&path, vec![b'\n'; MAX_FILE_BYTES + 1]).unwrap();
    assert!(matches!(CertificateChain::from_file("certfile", &path), Err(CertError::TooLarge { .. })));
    let (one, two) = (authority("One"), authority("Two"));
    fs::write(&path, [one.certificate().to_pem(), two.certificate().to_pem()].concat()).unwrap();
    let anchors = Certificate::anchors_from_file("cacertfile", &path).unwrap();
    assert_eq!(anchors, [one.certificate().clone(), two.certificate().clone()]);
}

/// A certificate with names of these kinds, as bytes that no encoder would write.
fn with_alternative_names(names: &[(u8, &[u8])]) -> Certificate {
    let mut list = Vec::new();
    for (tag, value) in names {
        list.extend([0x80 | tag, u8::try_from(value.len()).unwrap()]);
        list.extend(*value);
    }
    let mut der = vec![0x30, u8::try_from(list.len()).unwrap()];
    der.extend(list);
    let key = PrivateKey::generate(KeyKind::EcP256).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_pubkey(key.pkey()).unwrap();
    let object = openssl::asn1::Asn1Object::from_str("2.5.29.17").unwrap();
    let value = openssl::asn1::Asn1OctetString::new_from_bytes(&der).unwrap();
    builder.append_extension(X509Extension::new_from_der(&object, false, &value).unwrap()).unwrap();
    builder.sign(key.pkey(), MessageDigest::sha256()).unwrap();
    Certificate::from_x509(builder.build())
}

#[test]
fn an_alternative_name_is_the_only_one_of_its_kind_and_readable() {
    const EMAIL: u8 = 1;
    const DNS: u8 = 2;
    let both = with_alternative_names(&[(DNS, b"a.example"), (EMAIL, b"a@b.example")]);
    assert_eq!(both.alternative_name(AlternativeName::Dns), Ok(Some("a.example".to_owned())));
    assert_eq!(both.alternative_name(AlternativeName::Email), Ok(Some("a@b.example".to_owned())));
    assert_eq!(both.alternative_name(AlternativeName::Uri), Ok(None));
    let two = with_alternative_names(&[(DNS, b"a.example"), (DNS, b"b.example")]);
    assert_eq!(two.alternative_name(AlternativeName::Dns), Err(NameError::Several));
    for bad in [&b"admin.example\0.evil.example"[..], b"a\nb", b"a\xff", b""] {
        let certificate = with_alternative_names(&[(DNS, bad)]);
        assert_eq!(certificate.alternative_name(AlternativeName::Dns), Err(NameError::Deceptive), "{bad:?}");
        // Nor does a name that cannot be read hide that there are two.
        let certificate = with_alternative_names(&[(DNS, b"a.example"), (DNS, bad)]);
        assert_eq!(certificate.alternative_name(AlternativeName::Dns), Err(NameError::Several), "{bad:?}");
    }
    let address = with_alternative_names(&[(7, &[192, 0, 2, 1])]);
    assert_eq!(address.alternative_name(AlternativeName::Ip), Ok(Some("192.0.2.1".to_owned())));
    let odd = with_alternative_names(&[(7, &[192, 0, 2])]);
    assert_eq!(odd.alternative_name(AlternativeName::Ip), Err(NameError::Deceptive));
}

#[test]
fn a_subject_of_which_one_value_deceives_has_no_values() {
    let good = subject(&[("O", "Plant"), ("CN", "电表")]);
    assert_eq!(good.subject_values(), Ok(vec!["Plant".to_owned(), "电表".to_owned()]));
    assert_eq!(subject(&[("O", "Pl\0ant"), ("CN", "x")]).subject_values(), Err(NameError::Deceptive));
}

#[test]
fn times_of_every_encoding_are_read() {
    // 2000-01-01 and 2099-12-31, the first as UTCTime and the second as GeneralizedTime.
    let certificate = subject(&[("CN", "x")]);
    assert_eq!((certificate.not_before(), certificate.not_after()), (0, 4_102_444_800));
}
