//! Hashes made by other programs: bcrypt, EMQX's salted SHA-256, and the two kinds of mosquitto_passwd. They are checked, never made.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::{HashError, check_cost};

pub(super) const BCRYPT_PREFIXES: [&str; 3] = ["$2a$", "$2b$", "$2y$"];
pub(super) const SHA256_PREFIX: &str = "$sha256$";
pub(super) const MOSQUITTO_PREFIXES: [&str; 2] = ["$7$", "$6$"];

/// Logarithms of the number of rounds; 16 takes about four seconds.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=16;
/// One round takes about as long as this many iterations of PBKDF2-HMAC-SM3.
const BCRYPT_ROUND: u32 = 60;
/// mosquitto_passwd chose 101 for many years.
const MOSQUITTO_ITERATIONS: RangeInclusive<u32> = 100..=2_000_000;
const MAX_SALT_BYTES: usize = 64;

/// A bcrypt hash. Like every program, it looks at the first 72 bytes of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BcryptHash {
    text: Box<str>,
    cost: u32,
}

impl BcryptHash {
    pub fn verify(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.text).unwrap_or(false)
    }

    pub fn work(&self) -> u32 {
        BCRYPT_ROUND << self.cost
    }
}

impl FromStr for BcryptHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<BcryptHash, HashError> {
        let parts: bcrypt::HashParts = text.parse().map_err(|_| HashError::Malformed)?;
        check_cost(parts.get_cost(), BCRYPT_COSTS)?;
        // 22 characters of salt and 31 of hash after `$2b$05$`.
        if text.len() != 60 {
            return Err(HashError::Malformed);
        }
        Ok(BcryptHash { text: text.into(), cost: parts.get_cost() })
    }
}

impl fmt::Display for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// SHA-256 of a salt and the password. Fast to guess: kept so that users of EMQX can move.
#[derive(Clone, PartialEq, Eq)]
pub struct Sha256Hash {
    salt: Box<str>,
    salt_first: bool,
    digest: [u8; 32],
}

impl Sha256Hash {
    pub fn verify(&self, password: &[u8]) -> bool {
        let salt = self.salt.as_bytes();
        let (first, second) = if self.salt_first { (salt, password) } else { (password, salt) };
        let digest = Sha256::new().chain_update(first).chain_update(second).finalize();
        digest.as_slice().ct_eq(&self.digest).into()
    }
}

impl FromStr for Sha256Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Sha256Hash, HashError> {
        let rest = text.strip_prefix(SHA256_PREFIX).ok_or(HashError::Malformed)?;
        let mut parts = rest.split('$');
        let (Some(position), Some(salt), Some(digest), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HashError::Malformed);
        };
        let salt_first = match position {
            "prefix" => true,
            "suffix" => false,
            _ => return Err(HashError::Malformed),
        };
        if !(1..=MAX_SALT_BYTES).contains(&salt.len()) {
            return Err(HashError::Salt);
        }
        let digest = digest.to_ascii_lowercase();
        let digest = base16ct::lower::decode_vec(digest).ok().and_then(|digest| digest.try_into().ok());
        Ok(Sha256Hash { salt: salt.into(), salt_first, digest: digest.ok_or(HashError::Malformed)? })
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = if self.salt_first { "prefix" } else { "suffix" };
        write!(f, "{SHA256_PREFIX}{position}${}${}", self.salt, base16ct::lower::encode_string(&self.digest))
    }
}

/// PBKDF2-HMAC-SHA512 (`$7$`), or one SHA-512 of password and salt (`$6$`).
#[derive(Clone, PartialEq, Eq)]
pub struct MosquittoHash {
    /// `None` is `$6$`.
    iterations: Option<u32>,
    salt: Vec<u8>,
    digest: [u8; 64],
}

impl MosquittoHash {
    pub fn verify(&self, password: &[u8]) -> bool {
        let digest: [u8; 64] = match self.iterations {
            Some(iterations) => pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, &self.salt, iterations),
            None => Sha512::new().chain_update(password).chain_update(&self.salt).finalize().into(),
        };
        digest.as_slice().ct_eq(&self.digest).into()
    }

    pub fn work(&self) -> u32 {
        self.iterations.unwrap_or(1)
    }
}

impl FromStr for MosquittoHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<MosquittoHash, HashError> {
        let mut parts = text.split('$').skip(1);
        let iterations = match parts.next() {
            Some("7") => {
                let digits = parts.next().ok_or(HashError::Malformed)?;
                let iterations = digits.parse().map_err(|_| HashError::Malformed)?;
                check_cost(iterations, MOSQUITTO_ITERATIONS)?;
                Some(iterations)
            }
            _ => None,
        };
        let (Some(salt), Some(digest), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(HashError::Malformed);
        };
        let salt = Base64::decode_vec(salt).map_err(|_| HashError::Malformed)?;
        if !(1..=MAX_SALT_BYTES).contains(&salt.len()) {
            return Err(HashError::Salt);
        }
        let digest = Base64::decode_vec(digest).ok().and_then(|digest| digest.try_into().ok());
        Ok(MosquittoHash { iterations, salt, digest: digest.ok_or(HashError::Malformed)? })
    }
}

impl fmt::Display for MosquittoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iterations {
            Some(iterations) => write!(f, "$7${iterations}$")?,
            None => f.write_str("$6$")?,
        }
        write!(f, "{}${}", Base64::encode_string(&self.salt), Base64::encode_string(&self.digest))
    }
}
