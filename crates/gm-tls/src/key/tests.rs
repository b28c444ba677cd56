//! Tests of `key`: each fault by its own error.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use openssl::symm::Cipher;
use tempfile::TempDir;

use super::*;

const ALL: [KeyKind; 5] = [KeyKind::Sm2, KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa(2048), KeyKind::Ed25519];

fn password() -> Password {
    Password::inline(b"correct horse").unwrap()
}

fn load(pem: &[u8], password: Option<&Password>) -> Result<PrivateKey, KeyError> {
    PrivateKey::from_pem(Source::new("keyfile"), pem, password)
}

fn file(dir: &TempDir, name: &str, contents: &[u8], mode: u32) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// The traditional encodings: SEC1 for curves, PKCS#1 for RSA.
fn traditional(key: &PrivateKey, cipher: Option<Cipher>) -> Vec<u8> {
    let secret = b"correct horse";
    match (key.kind(), cipher) {
        (KeyKind::Rsa(_), None) => key.pkey().rsa().unwrap().private_key_to_pem().unwrap(),
        (KeyKind::Rsa(_), Some(cipher)) => {
            key.pkey().rsa().unwrap().private_key_to_pem_passphrase(cipher, secret).unwrap()
        }
        (_, None) => key.pkey().ec_key().unwrap().private_key_to_pem().unwrap(),
        (_, Some(cipher)) => key.pkey().ec_key().unwrap().private_key_to_pem_passphrase(cipher, secret).unwrap(),
    }
}

#[test]
fn loads_every_kind_from_plain_pkcs8() {
    for kind in ALL {
        let key = PrivateKey::generate(kind).unwrap();
        let loaded = load(&key.to_pem(None).unwrap(), None).unwrap();
        assert_eq!(loaded.kind(), kind);
        assert!(loaded.pkey().public_eq(key.pkey()));
    }
}

#[test]
fn loads_pkcs8_encrypted_with_aes_and_sm4() {
    for kind in ALL {
        let key = PrivateKey::generate(kind).unwrap();
        for cipher in [Cipher::aes_256_cbc(), Cipher::aes_128_cbc(), Cipher::sm4_cbc()] {
            let pem = key.pkey().private_key_to_pem_pkcs8_passphrase(cipher, b"correct horse").unwrap();
            assert!(pem.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"));
            assert!(load(&pem, Some(&password())).unwrap().pkey().public_eq(key.pkey()));
            assert!(matches!(load(&pem, None), Err(KeyError::PasswordMissing { .. })));
            let wrong = Password::inline(b"wrong").unwrap();
            assert!(matches!(load(&pem, Some(&wrong)), Err(KeyError::WrongPassword { .. })));
        }
    }
}

#[test]
fn loads_sec1_and_pkcs1_plain_and_encrypted() {
    for kind in [KeyKind::Sm2, KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa(2048)] {
        let key = PrivateKey::generate(kind).unwrap();
        let plain = traditional(&key, None);
        let loaded = load(&plain, None).unwrap();
        assert_eq!(loaded.kind(), kind);
        assert!(loaded.pkey().public_eq(key.pkey()));
        for cipher in [Cipher::aes_256_cbc(), Cipher::des_ede3_cbc()] {
            let pem = traditional(&key, Some(cipher));
            assert!(pem.windows(9).any(|window| window == b"DEK-Info:"));
            assert!(load(&pem, Some(&password())).unwrap().pkey().public_eq(key.pkey()));
            assert!(matches!(load(&pem, None), Err(KeyError::PasswordMissing { .. })));
            let wrong = Password::inline(b"wrong").unwrap();
            assert!(matches!(load(&pem, Some(&wrong)), Err(KeyError::WrongPassword { .. })));
        }
    }
}

#[test]
fn sm2_keys_of_every_encoding_sign_by_sm2() {
    let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
    for pem in [traditional(&key, None), key.to_pem(None).unwrap().to_vec()] {
        assert_eq!(load(&pem, None).unwrap().pkey().id(), openssl::pkey::Id::SM2);
    }
}

#[test]
fn curve_parameters_may_stand_before_the_key() {
    let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
    // The named curve SM2 (1.2.156.10197.1.301), as `ecparam -genkey` writes it.
    let mut pem = b"-----BEGIN EC PARAMETERS-----\nBggqgRzPVQGCLQ==\n-----END EC PARAMETERS-----\n".to_vec();
    pem.extend(traditional(&key, None));
    assert!(load(&pem, None).unwrap().pkey().public_eq(key.pkey()));
}

#[test]
fn takes_exactly_one_key() {
    let one = PrivateKey::generate(KeyKind::Sm2).unwrap().to_pem(None).unwrap();
    let two = [one.as_slice(), &PrivateKey::generate(KeyKind::EcP256).unwrap().to_pem(None).unwrap()].concat();
    assert!(matches!(load(&two, None), Err(KeyError::Several { count: 2, .. })));
    assert!(matches!(load(b"", None), Err(KeyError::NotAKey { .. })));
    let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(load(certificate, None), Err(KeyError::NotAKey { .. })));
    assert!(matches!(load(&one[..one.len() / 2], None), Err(KeyError::DamagedPem { .. })));
    let garbage = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(load(garbage, None), Err(KeyError::Malformed { .. })));
}

#[test]
fn refuses_a_key_whose_halves_do_not_belong_together() {
    let (one, two) = (PrivateKey::generate(KeyKind::EcP256).unwrap(), PrivateKey::generate(KeyKind::EcP256).unwrap());
    let (one, two) = (one.pkey().ec_key().unwrap(), two.pkey().ec_key().unwrap());
    let mixed = openssl::ec::EcKey::from_private_components(one.group(), one.private_key(), two.public_key()).unwrap();
    let refused = load(&mixed.private_key_to_pem().unwrap(), None);
    assert!(matches!(refused, Err(KeyError::Inconsistent { .. })), "{refused:?}");
}

#[test]
fn refuses_files_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let pem = PrivateKey::generate(KeyKind::Sm2).unwrap().to_pem(None).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o610, 0o666] {
        let path = file(&dir, "k.key", &pem, mode);
        let error = PrivateKey::from_file("tlcp_options.sign_keyfile", &path, None).unwrap_err();
        assert!(matches!(&error, KeyError::TooOpen { mode: found, .. } if *found == mode));
        let text = error.to_string();
        for part in ["tlcp_options.sign_keyfile", "k.key", &format!("{mode:04o}"), "chmod 600"] {
            assert!(text.contains(part), "{text}");
        }
    }
    for mode in [0o600, 0o400] {
        PrivateKey::from_file("keyfile", &file(&dir, &format!("{mode:o}"), &pem, mode), None).unwrap();
    }
}

#[test]
fn names_field_and_file_when_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let error = PrivateKey::from_file("keyfile", &dir.path().join("absent.key"), None).unwrap_err();
    assert!(matches!(error, KeyError::Unreadable { .. }));
    assert!(error.to_string().contains("keyfile") && error.to_string().contains("absent.key"));
    assert!(matches!(PrivateKey::from_file("keyfile", dir.path(), None), Err(KeyError::Unreadable { .. })));
    let large = file(&dir, "large", &vec![b'x'; MAX_FILE_BYTES + 1], 0o600);
    assert!(matches!(PrivateKey::from_file("keyfile", &large, None), Err(KeyError::TooLarge { .. })));
}

#[test]
fn writes_new_files_of_mode_0600_and_never_over_others() {
    let dir = tempfile::tempdir().unwrap();
    for (name, secret) in [("plain.key", None), ("encrypted.key", Some(password()))] {
        let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
        let path = dir.path().join(name);
        key.write_new(&path, secret.as_ref()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(PrivateKey::from_file("k", &path, secret.as_ref()).unwrap().pkey().public_eq(key.pkey()));
        let before = fs::read(&path).unwrap();
        let other = PrivateKey::generate(KeyKind::Sm2).unwrap();
        assert!(matches!(other.write_new(&path, None), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn passwords_come_from_the_value_a_file_or_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    for contents in ["correct horse", "correct horse\n", "correct horse\r\n"] {
        let path = file(&dir, "password", contents.as_bytes(), 0o600);
        let resolved = Password::resolve(&format!("file://{}", path.display())).unwrap();
        assert_eq!(resolved.bytes(), b"correct horse", "{contents:?}");
    }
    // Of two line ends, one belongs to the password.
    let path = file(&dir, "password", b"x\n\n", 0o600);
    assert_eq!(Password::resolve(&format!("file://{}", path.display())).unwrap().bytes(), b"x\n");
    assert_eq!(Password::resolve("correct horse").unwrap().bytes(), b"correct horse");
    // CARGO_PKG_NAME is set by cargo for every test.
    assert_eq!(Password::resolve("env:CARGO_PKG_NAME").unwrap().bytes(), b"gm-tls");
}

#[test]
fn passwords_that_cannot_be_had_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Password::resolve(&format!("file://{}/absent", dir.path().display())).unwrap_err();
    assert!(matches!(absent, PasswordError::Unreadable { .. }));
    let open = file(&dir, "open", b"x", 0o644);
    let open = Password::resolve(&format!("file://{}", open.display())).unwrap_err();
    assert!(matches!(open, PasswordError::TooOpen { mode: 0o644, .. }));
    let unset = Password::resolve("env:NO_SUCH_VARIABLE_IS_SET").unwrap_err();
    assert!(unset.to_string().contains("NO_SUCH_VARIABLE_IS_SET"));
    assert!(matches!(Password::resolve(""), Err(PasswordError::Empty)));
    let longest = "x".repeat(MAX_PASSWORD_BYTES);
    assert!(Password::resolve(&longest).is_ok());
    assert!(matches!(Password::resolve(&format!("{longest}x")), Err(PasswordError::TooLong)));
}

#[test]
fn the_longest_password_works() {
    let longest = Password::inline(&[b'x'; MAX_PASSWORD_BYTES]).unwrap();
    let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
    let pem = key.to_pem(Some(&longest)).unwrap();
    load(&pem, Some(&longest)).unwrap();
}

#[test]
fn debug_output_holds_no_secret() {
    let secret = format!("{:?}", password());
    assert!(!secret.contains("correct"));
    let key = PrivateKey::generate(KeyKind::EcP256).unwrap();
    let scalar = key.pkey().ec_key().unwrap().private_key().to_hex_str().unwrap().to_string();
    assert!(!format!("{key:?}").to_uppercase().contains(&scalar));
}

#[test]
fn refuses_to_make_weak_keys() {
    for kind in [KeyKind::Rsa(1024), KeyKind::Other] {
        assert!(matches!(PrivateKey::generate(kind), Err(KeyError::CannotGenerate { .. })));
    }
}
