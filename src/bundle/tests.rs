//! Bundles from the first put to deletion, with every fault that an upload can have, crashes, and files that were changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gm_tls::cert::{ExtendedKeyUsage, KeyKind, KeyUsage};
use gm_tls::key::Password;
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, Profile, Subject};
use zeroize::Zeroizing;

use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn authority(kind: KeyKind) -> CertificateAuthority {
    let profile = AuthorityProfile::new(1000, None);
    CertificateAuthority::create(&Subject::common_name("ca"), kind, &profile, NOW - 100 * DAY).unwrap()
}

fn issue(ca: &CertificateAuthority, kind: KeyKind, change: impl FnOnce(&mut Profile), at: i64) -> Issued {
    let mut profile = Profile::server(90);
    change(&mut profile);
    ca.issue_single(&Subject::common_name("server"), &AlternativeNames::default(), kind, &profile, at).unwrap()
}

fn put(parts: &mut Parts, part: Part, text: &[u8]) {
    parts.insert(part, Zeroizing::new(text.to_vec()));
}

fn single(parts: &mut Parts, chain: Part, key: Part, issued: &Issued) {
    put(parts, chain, &issued.chain.to_pem());
    put(parts, key, &issued.key.to_pem(None).unwrap());
}

fn standard() -> Parts {
    let mut parts = Parts::default();
    single(&mut parts, Part::Chain, Part::Key, &issue(&authority(KeyKind::EcP256), KeyKind::EcP256, |_| {}, NOW));
    parts
}

fn whole() -> Parts {
    let mut parts = standard();
    let ca = authority(KeyKind::Sm2);
    single(&mut parts, Part::Sm2Chain, Part::Sm2Key, &issue(&ca, KeyKind::Sm2, |_| {}, NOW));
    let (subject, names) = (Subject::common_name("server"), AlternativeNames::default());
    let pair = ca.issue_pair(&subject, &names, KeyKind::Sm2, &Profile::server(30), NOW).unwrap();
    single(&mut parts, Part::SignChain, Part::SignKey, &pair.sign);
    put(&mut parts, Part::EncChain, &pair.enc.chain.to_pem());
    let password = Password::inline(b"open sesame").unwrap();
    put(&mut parts, Part::EncKey, &pair.enc.key.to_pem(Some(&password)).unwrap());
    put(&mut parts, Part::EncKeyPassword, b"open sesame");
    put(&mut parts, Part::Ca, &ca.certificate().to_pem());
    parts
}

fn service() -> (tempfile::TempDir, Bundles) {
    let dir = tempfile::tempdir().unwrap();
    let bundles = Bundles::in_data_dir(dir.path());
    (dir, bundles)
}

fn id(text: &str) -> BundleId {
    text.parse().unwrap()
}

fn faults(parts: &Parts) -> Vec<String> {
    check(parts, NOW).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_bundle_has_any_of_its_parts_and_tells_all_but_its_secrets() {
    let (_dir, bundles) = service();
    let info = bundles.put(&id("all"), &whole(), NOW).unwrap();
    assert_eq!((info.version, info.created), (1, NOW));
    let parts: Vec<Part> = info.certificates.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, [Part::Chain, Part::Sm2Chain, Part::SignChain, Part::EncChain, Part::Ca]);
    assert_eq!(info.secrets, [Part::Key, Part::Sm2Key, Part::SignKey, Part::EncKey, Part::EncKeyPassword]);
    // The pair is the first that expires.
    assert_eq!(info.expires(), Some(NOW + 30 * DAY));
    let material = check(&bundles.load(&id("all")).unwrap(), NOW).unwrap();
    assert!(material.standard.is_some() && material.sm2.is_some() && material.pair.is_some() && material.ca.len() == 1);
    let mut only_ca = Parts::default();
    put(&mut only_ca, Part::Ca, &authority(KeyKind::Sm2).certificate().to_pem());
    bundles.put(&id("tenant/ca"), &only_ca, NOW).unwrap();
    assert_eq!(bundles.all().unwrap(), [id("all"), id("tenant/ca")]);
    assert!(matches!(bundles.show(&id("ca")), Err(BundleError::Missing(_))));
}

#[test]
fn every_fault_is_named_at_once() {
    let (ecdsa, sm2) = (authority(KeyKind::EcP256), authority(KeyKind::Sm2));
    let mut parts = Parts::default();
    // Expired, for clients, and with the key of another.
    let client = |profile: &mut Profile| {
        profile.purposes = ExtendedKeyUsage { client_auth: true, ..ExtendedKeyUsage::default() }
    };
    put(&mut parts, Part::Chain, &issue(&ecdsa, KeyKind::EcP256, client, NOW - 95 * DAY).chain.to_pem());
    put(&mut parts, Part::Key, &issue(&ecdsa, KeyKind::EcP256, |_| {}, NOW).key.to_pem(None).unwrap());
    // An RSA certificate in the place of SM2, and no key.
    put(&mut parts, Part::Sm2Chain, &issue(&ecdsa, KeyKind::Rsa(2048), |_| {}, NOW).chain.to_pem());
    // A pair of two signing certificates, of which one key is no key.
    single(&mut parts, Part::SignChain, Part::SignKey, &issue(&sm2, KeyKind::Sm2, |_| {}, NOW));
    put(&mut parts, Part::EncChain, &issue(&sm2, KeyKind::Sm2, |_| {}, NOW).chain.to_pem());
    put(&mut parts, Part::EncKey, b"none");
    put(&mut parts, Part::Ca, &issue(&ecdsa, KeyKind::EcP256, |_| {}, NOW).chain.leaf.to_pem());
    let found = faults(&parts).join("\n");
    for expected in [
        "chain (`CN=server`) expired 5 days ago",
        "chain: its extended key usage is not serverAuth",
        "does not belong to",
        "sm2_key: is missing; sm2_chain is of no use without it",
        "enc_key: holds no private key",
        "enc_chain may be used for digitalSignature",
        "ca: `CN=server` is no certificate of an authority",
    ] {
        assert!(found.contains(expected), "{expected}\nin\n{found}");
    }
    let (dir, bundles) = service();
    let error = bundles.put(&id("a"), &parts, NOW).unwrap_err().to_string();
    assert!(error.lines().count() >= 8, "{error}");
    assert!(!dir.path().join("bundles").exists(), "nothing is written of what is not taken");
}

#[test]
fn halves_strangers_and_damage_are_faults() {
    let ca = authority(KeyKind::Sm2);
    let mut parts = Parts::default();
    single(&mut parts, Part::SignChain, Part::SignKey, &issue(&ca, KeyKind::Sm2, |_| {}, NOW));
    assert_eq!(faults(&parts), ["enc_chain: is missing; TLCP needs a pair, and there is only the signing certificate"]);
    assert_eq!(faults(&Parts::default()).len(), 1);
    let mut parts = standard();
    put(&mut parts, Part::Sm2KeyPassword, b"x");
    assert_eq!(faults(&parts), ["sm2_key_password: there is no sm2_key that it could be for"]);
    let mut parts = Parts::default();
    put(&mut parts, Part::Chain, &authority(KeyKind::EcP256).certificate().to_pem());
    assert!(faults(&parts).join("\n").contains("one of an authority"));
    // An issuer of the same name that did not sign.
    let (one, other) = (authority(KeyKind::EcP256), authority(KeyKind::EcP256));
    let issued = issue(&one, KeyKind::EcP256, |_| {}, NOW);
    let mut parts = Parts::default();
    put(&mut parts, Part::Chain, &[issued.chain.leaf.to_pem(), other.certificate().to_pem()].concat());
    put(&mut parts, Part::Key, &issued.key.to_pem(None).unwrap());
    assert!(faults(&parts).join("\n").contains("chain: `"), "{:?}", faults(&parts));
    // A pair whose certificates may do both.
    let both =
        |profile: &mut Profile| profile.single_usage = KeyUsage::DIGITAL_SIGNATURE.union(KeyUsage::KEY_AGREEMENT);
    let mut parts = Parts::default();
    single(&mut parts, Part::SignChain, Part::SignKey, &issue(&ca, KeyKind::Sm2, both, NOW));
    single(&mut parts, Part::EncChain, Part::EncKey, &issue(&ca, KeyKind::Sm2, both, NOW));
    assert!(faults(&parts)[0].contains("sign_chain may be used for"), "{:?}", faults(&parts));
}

fn contains(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => contains(&path, needle),
            false => fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle),
        }
    })
}

#[test]
fn secrets_are_encrypted_at_rest_and_files_are_for_their_owner() {
    let (dir, bundles) = service();
    bundles.put(&id("a"), &whole(), NOW).unwrap();
    assert!(contains(dir.path(), b"BEGIN CERTIFICATE"));
    assert!(!contains(dir.path(), b"PRIVATE KEY") && !contains(dir.path(), b"open sesame"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("bundles/node.key")), 0o600);
    assert_eq!(mode(&dir.path().join("bundles/global/a/00000001")), 0o600);
    assert_eq!(mode(&dir.path().join("bundles")), 0o700);
    assert!(!format!("{:?}", bundles.load(&id("a")).unwrap()).contains("PRIVATE"));
    fs::set_permissions(dir.path().join("bundles/node.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = bundles.load(&id("a")).unwrap_err().to_string();
    assert!(error.contains("can be read by others (mode 0640)"), "{error}");
}

#[test]
fn what_was_changed_moved_or_lost_is_refused() {
    let (dir, bundles) = service();
    for name in ["a", "b"] {
        bundles.put(&id(name), &standard(), NOW).unwrap();
    }
    let file = |name: &str| dir.path().join("bundles/global").join(name).join("00000001");
    fs::copy(file("a"), file("b")).unwrap();
    assert!(matches!(bundles.load(&id("b")), Err(BundleError::Damaged { .. })), "sealed for another bundle");
    let bytes = fs::read(file("a")).unwrap();
    fs::write(file("a"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(bundles.show(&id("a")), Err(BundleError::Damaged { .. })));
    fs::write(file("a"), &bytes).unwrap();
    bundles.show(&id("a")).unwrap();
    fs::remove_file(dir.path().join("bundles/node.key")).unwrap();
    let error = bundles.put(&id("c"), &standard(), NOW).unwrap_err().to_string();
    assert!(error.contains("bring it back from a backup"), "{error}");
}

#[test]
fn versions_are_kept_bounded_and_come_back() {
    let (_dir, bundles) = service();
    let name = id("a");
    for count in 1..=10 {
        assert_eq!(bundles.put(&name, &standard(), NOW + count).unwrap().version, u32::try_from(count).unwrap());
    }
    let versions = bundles.versions(&name).unwrap();
    assert_eq!(versions.len(), MAX_VERSIONS);
    assert_eq!(versions.first().unwrap().version, 3);
    assert!(versions.last().unwrap().in_force && versions.iter().filter(|version| version.in_force).count() == 1);
    let old = bundles.read_version(&name, 4);
    let restore = |version, at| bundles.restore_if::<BundleError>(&name, version, at, |_| Ok(()));
    let info = restore(4, NOW + 20).unwrap();
    assert_eq!(info.version, 11);
    assert_eq!(bundles.part(&name, Part::Chain).unwrap().as_slice(), old.get(Part::Chain).unwrap());
    assert!(matches!(restore(1, NOW), Err(BundleError::NoVersion { version: 1, .. })));
    // What has expired since is not put in force again.
    assert!(matches!(restore(5, NOW + 200 * DAY), Err(BundleError::Faulty(_))));
}

// The version was read under one lock and put in force under another: a bundle that was deleted in between came back.
#[test]
fn a_version_that_is_being_restored_does_not_bring_back_a_deleted_bundle() {
    let (_dir, bundles) = service();
    let (name, parts) = (id("a"), standard());
    let (over, restored) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let restorer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match bundles.restore_if::<BundleError>(&name, 1, NOW, |_| Ok(())) {
                    Ok(_) => _ = restored.fetch_add(1, Ordering::Relaxed),
                    Err(BundleError::NoVersion { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let mut found = Vec::new();
        for _ in 0..20 {
            let before = restored.load(Ordering::Relaxed);
            found.push(bundles.put(&name, &parts, NOW).unwrap().version);
            // The two meet; a restorer that panicked is not waited for.
            while restored.load(Ordering::Relaxed) == before && !restorer.is_finished() {
                std::thread::yield_now();
            }
            bundles.delete(&name, Vec::new()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        restorer.join().unwrap();
        assert_eq!(found, [1; 20]);
    });
    assert!(bundles.all().unwrap().is_empty());
}

#[test]
fn a_crash_leaves_what_was_in_force() {
    let (dir, bundles) = service();
    bundles.put(&id("a"), &standard(), NOW).unwrap();
    let directory = dir.path().join("bundles/global/a");
    // Written, but not under its name yet.
    fs::write(directory.join("new"), b"{\"format\":1,").unwrap();
    assert_eq!(bundles.show(&id("a")).unwrap().version, 1);
    assert_eq!(bundles.put(&id("a"), &standard(), NOW).unwrap().version, 2);
    // The first version of another was not finished.
    fs::create_dir(dir.path().join("bundles/global/b")).unwrap();
    assert_eq!(bundles.all().unwrap(), [id("a")]);
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let (dir, bundles) = service();
    bundles.put(&id("t/a"), &standard(), NOW).unwrap();
    let error = bundles.delete(&id("t/a"), vec!["ssl:default".to_owned()]).unwrap_err().to_string();
    assert_eq!(error, "the bundle t/a is in use and was not deleted: ssl:default");
    bundles.delete(&id("t/a"), Vec::new()).unwrap();
    assert!(bundles.all().unwrap().is_empty() && !dir.path().join("bundles/ns/t/a").exists());
    assert!(matches!(bundles.delete(&id("t/a"), Vec::new()), Err(BundleError::Missing(_))));
}

// It was taken and could not be read again.
#[test]
fn a_bundle_that_would_be_too_large_to_read_is_not_taken() {
    let (_dir, bundles) = service();
    bundles.put(&id("a"), &standard(), NOW).unwrap();
    let mut parts = whole();
    for part in [Part::Chain, Part::Sm2Chain, Part::SignChain, Part::EncChain, Part::Ca] {
        let mut text = parts.get(part).unwrap().to_vec();
        text.resize(1_000_000, b'\n');
        put(&mut parts, part, &text);
    }
    assert!(matches!(bundles.put(&id("a"), &parts, NOW), Err(BundleError::TooLarge { .. })));
    assert_eq!(bundles.show(&id("a")).unwrap().version, 1);
}

// A file that a file manager or a file system leaves behind kept every bundle from being listed and put.
#[test]
fn what_is_no_namespace_is_passed_over() {
    let (dir, bundles) = service();
    bundles.put(&id("t/a"), &standard(), NOW).unwrap();
    fs::write(dir.path().join("bundles/ns/.DS_Store"), "").unwrap();
    assert_eq!(bundles.all().unwrap(), [id("t/a")]);
    bundles.put(&id("t/b"), &standard(), NOW).unwrap();
}

#[test]
fn names_stay_below_their_directory() {
    for bad in ["", ".", "..", "../a", "a/../b", "/a", "a/", "a/b/c", "-a", "a b", "a\0", &"a".repeat(65)] {
        assert!(bad.parse::<BundleId>().is_err(), "{bad}");
    }
    for good in ["a", "mqtt.example.com", "tenant-1/A_b"] {
        assert_eq!(good.parse::<BundleId>().unwrap().to_string(), good);
    }
}

#[test]
fn nobody_uses_the_directory_of_another_user() {
    let data = Path::new("data");
    let refused = super::disk::check_owner(0, 1000, data).unwrap_err().to_string();
    assert!(refused.contains("data: belongs to user 1000") && refused.contains("sudo -u"), "{refused}");
    let refused = super::disk::check_owner(1001, 1000, data).unwrap_err().to_string();
    assert!(refused.contains("data: belongs to user 1000, who is neither"), "{refused}");
    for (user, owner) in [(0, 0), (1000, 1000), (1000, 0)] {
        super::disk::check_owner(user, owner, data).unwrap();
    }
}

// Only the data directory was looked at: whoever could write below it could put an earlier version in force.
#[test]
fn what_others_can_change_on_the_way_to_a_bundle_is_not_used() {
    let (dir, bundles) = service();
    bundles.put(&id("t/a"), &standard(), NOW).unwrap();
    bundles.put(&id("b"), &standard(), NOW).unwrap();
    let places = ["bundles", "bundles/ns", "bundles/ns/t", "bundles/ns/t/a", "bundles/ns/t/a/00000001"];
    for place in places.map(|place| dir.path().join(place)) {
        let mode = fs::metadata(&place).unwrap().permissions();
        for bad in [0o720, 0o702] {
            fs::set_permissions(&place, fs::Permissions::from_mode(bad)).unwrap();
            let refused = bundles.show(&id("t/a")).unwrap_err().to_string();
            let words = [&*place.to_string_lossy(), "can be changed by others", "chmod go-w"];
            assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
            if place.is_dir() {
                assert!(matches!(bundles.put(&id("t/a"), &standard(), NOW), Err(BundleError::Exposed { .. })));
                assert!(matches!(bundles.delete(&id("t/a"), Vec::new()), Err(BundleError::Exposed { .. })));
            }
        }
        fs::set_permissions(&place, mode).unwrap();
    }
    bundles.show(&id("t/a")).unwrap();
    // That of a volume is as it is, and a directory may be elsewhere.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::rename(dir.path().join("bundles/ns"), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", dir.path().join("bundles/ns")).unwrap();
    bundles.show(&id("t/a")).unwrap();
    bundles.put(&id("t/a"), &standard(), NOW).unwrap();
}
