//! Private keys: loading from PEM with the checks an operator needs named, generating, and writing without ever
//! leaving a key readable by others.

mod password;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, PKeyRef, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use zeroize::Zeroizing;

pub use password::{MAX_PASSWORD_BYTES, Password, PasswordError};

pub use crate::cert::{KeyKind, Source};
use crate::pem;

/// Largest key file in bytes; an RSA-16384 key needs a fifth of it.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// Blocks in one key file: a key, its curve parameters and certificates that stand beside them.
const MAX_BLOCKS: usize = 64;

/// Why a private key could not be loaded, made or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{origin}: cannot read the file: {error}")]
    Unreadable { origin: Source, error: io::Error },
    #[error("{origin}: larger than {MAX_FILE_BYTES} bytes, which no private key needs")]
    TooLarge { origin: Source },
    #[error("{origin}: the private key can be read by others (mode {mode:04o}); run `chmod 600 {path}`")]
    TooOpen { origin: Source, path: String, mode: u32 },
    #[error(
        "{origin}: the private key belongs to user {owner}, who is neither the user of this process nor root; run `chown` on {path}"
    )]
    Stranger { origin: Source, path: String, owner: u32 },
    #[error("{origin}: holds no private key; a PEM block `-----BEGIN PRIVATE KEY-----` or the like is expected")]
    NotAKey { origin: Source },
    #[error("{origin}: holds {count} private keys; exactly one is expected")]
    Several { origin: Source, count: usize },
    #[error("{origin}: a PEM block is damaged: its BEGIN and END lines do not match")]
    DamagedPem { origin: Source },
    #[error("{origin}: the private key is encrypted and no password is configured for it")]
    PasswordMissing { origin: Source },
    #[error(
        "{origin}: the private key cannot be decrypted: the password is wrong, or the file is damaged or encrypted \
         by a method that is not supported"
    )]
    WrongPassword { origin: Source },
    #[error("{origin}: the private key is damaged and cannot be decoded")]
    Malformed { origin: Source },
    #[error("{origin}: the private key does not belong to the public key stored with it")]
    Inconsistent { origin: Source },
    #[error("{origin}: the private key is neither SM2, ECDSA P-256 or P-384, RSA nor Ed25519")]
    Unsupported { origin: Source },
    #[error("a private key of the kind {kind} cannot be made")]
    CannotGenerate { kind: KeyKind },
    #[error("{origin}: cannot write the private key: {error}")]
    Unwritable { origin: Source, error: io::Error },
    #[error("{origin}: exists already; an existing private key is not overwritten")]
    Exists { origin: Source },
    #[error("the cryptographic library failed")]
    Library(#[from] ErrorStack),
}

/// A private key in memory. The library wipes it when the last clone is dropped.
#[derive(Clone)]
pub struct PrivateKey {
    pkey: PKey<Private>,
    kind: KeyKind,
    origin: Source,
}

impl PrivateKey {
    /// Loads the one private key of a PEM file: PKCS#8, SEC1 or PKCS#1, plain or encrypted.
    ///
    /// `field` is the configuration field that errors name. A password for a key that is not encrypted is not used.
    pub fn from_file(field: &str, path: &Path, password: Option<&Password>) -> Result<PrivateKey, KeyError> {
        let origin = Source::file(field, path);
        match pem::read_file(path, MAX_FILE_BYTES) {
            Ok(Some(contents)) if contents.mode & 0o077 != 0 || contents.stranger.is_some() => {
                let (mode, stranger, path) = (contents.mode, contents.stranger, path.display().to_string());
                match PrivateKey::from_pem(origin.clone(), &contents.bytes, password) {
                    // What is no key need not be hidden.
                    Err(error @ KeyError::NotAKey { .. }) => Err(error),
                    _ => Err(match stranger {
                        Some(owner) => KeyError::Stranger { origin, path, owner },
                        None => KeyError::TooOpen { origin, path, mode },
                    }),
                }
            }
            Ok(Some(contents)) => PrivateKey::from_pem(origin, &contents.bytes, password),
            Ok(None) => Err(KeyError::TooLarge { origin }),
            Err(error) => Err(KeyError::Unreadable { origin, error }),
        }
    }

    /// Decodes the one private key of a PEM text like [`PrivateKey::from_file`].
    pub fn from_pem(origin: Source, text: &[u8], password: Option<&Password>) -> Result<PrivateKey, KeyError> {
        crate::init();
        let blocks = pem::blocks(text, MAX_BLOCKS).map_err(|_| KeyError::DamagedPem { origin: origin.clone() })?;
        let mut keys = blocks.iter().filter_map(|block| Armour::of(block).map(|armour| (armour, block.text)));
        let Some((armour, block)) = keys.next() else { return Err(KeyError::NotAKey { origin }) };
        let others = keys.count();
        if others > 0 {
            return Err(KeyError::Several { origin, count: others + 1 });
        }
        let pkey = match (armour, password) {
            (Armour::Encrypted, None) => return Err(KeyError::PasswordMissing { origin }),
            (Armour::Encrypted, Some(password)) => {
                // Without a callback of ours the library would ask on the terminal.
                PKey::private_key_from_pem_callback(block, |buffer| {
                    let bytes = password.bytes();
                    let space = buffer.get_mut(..bytes.len()).ok_or_else(ErrorStack::get)?;
                    space.copy_from_slice(bytes);
                    Ok(bytes.len())
                })
                .map_err(|_| KeyError::WrongPassword { origin: origin.clone() })?
            }
            (Armour::Plain, _) => PKey::private_key_from_pem_callback(block, |_| Ok(0))
                .map_err(|_| KeyError::Malformed { origin: origin.clone() })?,
        };
        // A failed attempt of the decoder leaves errors that the next TLS call would take for its own.
        let _ = ErrorStack::get();
        PrivateKey::checked(pkey, origin)
    }

    /// Makes a new key from the library's random generator.
    pub fn generate(kind: KeyKind) -> Result<PrivateKey, KeyError> {
        crate::init();
        let pkey = match kind {
            // A key made as "EC" on this curve would sign by ECDSA; as "SM2" it signs by SM2.
            KeyKind::Sm2 => {
                let mut generator = PkeyCtx::new_id(Id::SM2)?;
                generator.keygen_init()?;
                generator.keygen()?
            }
            KeyKind::EcP256 => PKey::ec_gen("P-256")?,
            KeyKind::EcP384 => PKey::ec_gen("P-384")?,
            KeyKind::Rsa(bits @ 2048..=8192) => PKey::from_rsa(Rsa::generate(bits)?)?,
            KeyKind::Ed25519 => PKey::generate_ed25519()?,
            KeyKind::Rsa(_) | KeyKind::Other => return Err(KeyError::CannotGenerate { kind }),
        };
        PrivateKey::checked(pkey, Source::new("generated key"))
    }

    /// The PKCS#8 PEM encoding, encrypted when there is a password: SM2 keys by SM4-CBC, others by AES-256-CBC.
    pub fn to_pem(&self, password: Option<&Password>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let cipher = if self.kind == KeyKind::Sm2 { Cipher::sm4_cbc() } else { Cipher::aes_256_cbc() };
        let pem = match password {
            Some(password) => self.pkey.private_key_to_pem_pkcs8_passphrase(cipher, password.bytes())?,
            None => self.pkey.private_key_to_pem_pkcs8()?,
        };
        Ok(Zeroizing::new(pem))
    }

    /// Writes a new file of mode 0600 and waits until it is on the disk.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when there is a file of that name: it may be the only copy of another key.
    pub fn write_new(&self, path: &Path, password: Option<&Password>) -> Result<(), KeyError> {
        let pem = self.to_pem(password)?;
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(&pem)?;
            file.sync_all()
        });
        written.map_err(|error| {
            let origin = Source::file("private key", path);
            match error.kind() {
                io::ErrorKind::AlreadyExists => KeyError::Exists { origin },
                _ => KeyError::Unwritable { origin, error },
            }
        })
    }

    /// What the key is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Where the key came from.
    pub fn origin(&self) -> &Source {
        &self.origin
    }

    /// The same key under another name in errors.
    pub fn with_origin(mut self, origin: Source) -> PrivateKey {
        self.origin = origin;
        self
    }

    /// The library's view of the key.
    #[doc(hidden)]
    pub fn pkey(&self) -> &PKeyRef<Private> {
        &self.pkey
    }

    fn checked(pkey: PKey<Private>, origin: Source) -> Result<PrivateKey, KeyError> {
        let kind = KeyKind::of(&pkey);
        match kind {
            KeyKind::Other => return Err(KeyError::Unsupported { origin }),
            // The library would use it for ECDSA.
            KeyKind::Sm2 if pkey.id() != Id::SM2 => return Err(KeyError::Unsupported { origin }),
            // The certificate is compared with the public half only, so the halves have to be known to belong together.
            KeyKind::Sm2 | KeyKind::EcP256 | KeyKind::EcP384 => {
                pkey.ec_key()
                    .and_then(|key| key.check_key())
                    .map_err(|_| KeyError::Inconsistent { origin: origin.clone() })?;
            }
            KeyKind::Rsa(_) => {
                let sound = pkey.rsa().and_then(|key| key.check_key());
                if !sound.unwrap_or(false) {
                    return Err(KeyError::Inconsistent { origin });
                }
            }
            KeyKind::Ed25519 => {}
        }
        Ok(PrivateKey { pkey, kind, origin })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("kind", &self.kind).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Whether a block holds a key, and whether a password is needed for it.
enum Armour {
    Plain,
    Encrypted,
}

impl Armour {
    fn of(block: &pem::Block<'_>) -> Option<Armour> {
        match block.label {
            "ENCRYPTED PRIVATE KEY" => Some(Armour::Encrypted),
            "PRIVATE KEY" => Some(Armour::Plain),
            // RFC 1421 headers, as written by `openssl ec -aes256` and `openssl rsa -traditional -aes256`.
            "EC PRIVATE KEY" | "SM2 PRIVATE KEY" | "RSA PRIVATE KEY" => {
                let header = b"Proc-Type: 4,ENCRYPTED";
                let encrypted = block.text.windows(header.len()).any(|window| window == header);
                Some(if encrypted { Armour::Encrypted } else { Armour::Plain })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
