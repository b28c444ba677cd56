//! The keys that tokens are checked by: one secret, one public key, or a set of them (RFC 7517). Each has one algorithm.

use std::fmt;
use std::fs::File;
use std::io::Read;

use base64ct::{Base64UrlUnpadded, Encoding};
use gm_tls::cert::Source;
use gm_tls::public::{PublicKey, SignatureKind};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::token::Token;
use crate::config::{ConfigError, FileRef, JwtKeys};

const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Keys of a set; a token without `kid` may be compared with all of them.
const MAX_KEYS: usize = 32;
/// RFC 7518 section 3.2: a key shorter than the hash can be guessed from one token.
const MIN_SECRET_BYTES: usize = 32;

/// One key and the name of its algorithm.
struct Key {
    id: Option<String>,
    kind: Kind,
}

enum Kind {
    Secret(Zeroizing<Vec<u8>>),
    Public(PublicKey),
}

#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

impl Key {
    /// RFC 7518 section 3.1; no name is registered for SM2 with SM3, so it has that of the Java platform.
    fn algorithm(&self) -> &'static str {
        match &self.kind {
            Kind::Secret(_) => "HS256",
            Kind::Public(key) => match key.kind() {
                SignatureKind::RsaSha256 => "RS256",
                SignatureKind::EcdsaP256Sha256 => "ES256",
                SignatureKind::Sm2Sm3 => "SM3withSM2",
            },
        }
    }

    fn verify(&self, token: &Token<'_>) -> bool {
        // Before anything is computed: a public key must never become the secret of an HMAC, and "none" is no algorithm.
        if token.algorithm() != self.algorithm() {
            return false;
        }
        match &self.kind {
            Kind::Public(key) => key.verify(token.signed.as_bytes(), &token.signature),
            Kind::Secret(secret) => {
                let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
                mac.update(token.signed.as_bytes());
                mac.verify_slice(&token.signature).is_ok()
            }
        }
    }
}

impl Keys {
    pub(super) fn load(config: &JwtKeys) -> Result<Keys, ConfigError> {
        let key = match config {
            JwtKeys::Secret(file) => Kind::Secret(read_secret(file)?),
            JwtKeys::PublicKey(file) => Kind::Public(
                PublicKey::from_file(file.field(), file.path()).map_err(|error| file.error(error.to_string()))?,
            ),
            JwtKeys::Set(file) => return read_set(file),
        };
        Ok(Keys(vec![Key { id: None, kind: key }]))
    }

    /// Whether a key that may have signed the token did. A key with an identifier checks only tokens that name it, or name none.
    pub(super) fn verify(&self, token: &Token<'_>) -> bool {
        let named = |key: &Key| match (&key.id, token.key_id()) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        self.0.iter().filter(|key| named(key)).any(|key| key.verify(token))
    }
}

fn read(file: &FileRef) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let failed = |error: std::io::Error| file.error(format!("cannot be read: {error}"));
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(file.path()).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(file.error("larger than 256KB"));
    }
    Ok(bytes)
}

/// The bytes of the file without the end of its last line.
fn read_secret(file: &FileRef) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    refuse_open_file(file)?;
    let bytes = read(file)?;
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < MIN_SECRET_BYTES {
        let reason = format!("a secret of {} bytes, HS256 needs {MIN_SECRET_BYTES}", secret.len());
        return Err(file.error(reason).suggest("make one with `openssl rand -hex 32`"));
    }
    Ok(Zeroizing::new(secret.to_vec()))
}

#[cfg(unix)]
fn refuse_open_file(file: &FileRef) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(file.path()).map_err(|error| file.error(format!("cannot be read: {error}")))?;
    if let Some(owner) = gm_tls::stranger(&metadata) {
        let reason = format!("belongs to user {owner}, who is neither the user of this process nor root");
        return Err(file.error(reason).suggest(format!("run `chown` on {}", file.path().display())));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let error = file.error(format!("others than its owner can use this file (mode {mode:04o})"));
    Err(error.suggest(format!("chmod 600 {}", file.path().display())))
}

#[cfg(not(unix))]
fn refuse_open_file(_file: &FileRef) -> Result<(), ConfigError> {
    Ok(())
}

fn read_set(file: &FileRef) -> Result<Keys, ConfigError> {
    let bytes = read(file)?;
    let set: Value = serde_json::from_slice(&bytes).map_err(|error| file.error(format!("not JSON: {error}")))?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| file.error("not a set of keys: no list `keys`"))?;
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(file.error(format!("{} keys; a set has 1 to {MAX_KEYS}", keys.len())));
    }
    let mut read = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        let wrong = |reason: &str| file.error(format!("keys[{index}]: {reason}"));
        let object = key.as_object().ok_or_else(|| wrong("not an object"))?;
        read.push(read_key(object).map_err(wrong)?);
    }
    if read.iter().any(|key| matches!(key.kind, Kind::Secret(_))) {
        refuse_open_file(file)?;
    }
    Ok(Keys(read))
}

/// RFC 7517 and RFC 7518 section 6; the curve `SM2` as in draft-dang-webauthn-sm2.
fn read_key(object: &Map<String, Value>) -> Result<Key, &'static str> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(|text| Base64UrlUnpadded::decode_vec(text).ok());
    let origin = || Source::new("jwks_file");
    let coordinate = |name: &str| bytes(name).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let point = |kind| {
        let (Some(x), Some(y)) = (coordinate("x"), coordinate("y")) else {
            return Err("`x` and `y` are 32 bytes each in base64url without padding");
        };
        PublicKey::from_point(origin(), kind, &x, &y).map_err(|_| "the point is not on the curve")
    };
    let kind = match (text("kty"), text("crv")) {
        (Some("oct"), _) => match bytes("k") {
            Some(secret) if secret.len() >= MIN_SECRET_BYTES => Kind::Secret(Zeroizing::new(secret)),
            _ => return Err("`k` is a secret of at least 32 bytes in base64url without padding"),
        },
        (Some("RSA"), _) => {
            let (Some(n), Some(e)) = (bytes("n"), bytes("e")) else {
                return Err("`n` and `e` are numbers in base64url without padding");
            };
            let key = PublicKey::from_rsa(origin(), &n, &e);
            Kind::Public(key.map_err(|_| "not an RSA key of 2048 to 8192 bits")?)
        }
        (Some("EC"), Some("P-256")) => Kind::Public(point(SignatureKind::EcdsaP256Sha256)?),
        (Some("EC"), Some("SM2")) => Kind::Public(point(SignatureKind::Sm2Sm3)?),
        _ => return Err("neither `oct`, `RSA`, nor `EC` on P-256 or SM2"),
    };
    let key = Key { id: text("kid").map(str::to_owned), kind };
    if text("alg").is_some_and(|alg| alg != key.algorithm()) {
        return Err("its `alg` is not HS256, RS256, ES256 or SM3withSM2, or does not fit its `kty`");
    }
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its `use` is not `sig`");
    }
    Ok(key)
}
