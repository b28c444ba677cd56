//! PBKDF2 (RFC 8018) with HMAC-SM3 (GB/T 32905), written as `$pbkdf2-sm3$i=100000$SALT$HASH`.
//!
//! Salt and hash are base64 without padding, as in the PHC string format.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use base64ct::{Base64Unpadded, Encoding};
use sm3::Sm3;
use subtle::ConstantTimeEq;

use super::{HashError, check_cost, check_password};

pub(super) const PREFIX: &str = "$pbkdf2-sm3$i=";
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// About 0.1 s of one core in a release build.
const DEFAULT_ITERATIONS: u32 = 100_000;
/// Fewer is no protection, more would let one line of the file stop the broker.
const ITERATIONS: RangeInclusive<u32> = 1_000..=2_000_000;
/// Salts that other tools may have chosen.
const SALT_RANGE: RangeInclusive<usize> = 8..=64;
#[derive(Clone, PartialEq, Eq)]
pub struct Sm3Hash {
    iterations: u32,
    salt: Vec<u8>,
    hash: [u8; HASH_BYTES],
}

impl Sm3Hash {
    /// Hashes a password under a fresh salt. Computes for about 0.1 s.
    ///
    /// # Errors
    /// [`HashError::PasswordTooLong`], [`HashError::ZeroByte`], [`HashError::NoRandomness`].
    pub fn new(password: &[u8]) -> Result<Sm3Hash, HashError> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| HashError::NoRandomness)?;
        Sm3Hash::derive(password, salt, DEFAULT_ITERATIONS)
    }

    pub fn derive(password: &[u8], salt: Vec<u8>, iterations: u32) -> Result<Sm3Hash, HashError> {
        check_password(password)?;
        let hash = pbkdf2::pbkdf2_hmac_array::<Sm3, HASH_BYTES>(password, &salt, iterations);
        Ok(Sm3Hash { iterations, salt, hash })
    }

    /// Whether this is the hash of a password. Computes as long as making the hash did; compares in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        match Sm3Hash::derive(password, self.salt.clone(), self.iterations) {
            Ok(computed) => bool::from(computed.hash.ct_eq(&self.hash)),
            Err(_) => false,
        }
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

impl fmt::Display for Sm3Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = Base64Unpadded::encode_string(&self.salt);
        let hash = Base64Unpadded::encode_string(&self.hash);
        write!(f, "{PREFIX}{}${salt}${hash}", self.iterations)
    }
}

/// A hash can be attacked offline, so it does not go into logs.
impl fmt::Debug for Sm3Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sm3Hash").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl FromStr for Sm3Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Sm3Hash, HashError> {
        let mut parts = text.strip_prefix(PREFIX).ok_or(HashError::Malformed)?.split('$');
        let (Some(iterations), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HashError::Malformed);
        };
        let iterations = iterations.parse().map_err(|_| HashError::Malformed)?;
        check_cost(iterations, ITERATIONS)?;
        let salt = Base64Unpadded::decode_vec(salt).map_err(|_| HashError::Malformed)?;
        if !SALT_RANGE.contains(&salt.len()) {
            return Err(HashError::Salt);
        }
        let hash = Base64Unpadded::decode_vec(hash).map_err(|_| HashError::Malformed)?;
        let hash = hash.try_into().map_err(|_| HashError::Malformed)?;
        Ok(Sm3Hash { iterations, salt, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(password: &[u8]) -> Sm3Hash {
        Sm3Hash::derive(password, b"0123456789abcdef".to_vec(), 1_000).unwrap()
    }

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let hash = cheap(b"correct horse");
        assert!(hash.verify(b"correct horse"));
        for wrong in [&b"correct horsf"[..], b"", b"correct horse\0", b"Correct horse"] {
            assert!(!hash.verify(wrong));
        }
    }

    #[test]
    fn a_fresh_hash_has_a_fresh_salt_and_survives_its_text_form() {
        let (one, other) = (cheap(b"x"), Sm3Hash::new(b"x").unwrap());
        assert_ne!(one.salt, other.salt);
        assert_eq!(other.to_string().parse::<Sm3Hash>().unwrap(), other);
        assert_eq!(other.iterations(), DEFAULT_ITERATIONS);
    }

    /// The value was computed with OpenSSL's PBKDF2 and SM3, another implementation than the one under test.
    #[test]
    fn agrees_with_another_implementation() {
        let text = "$pbkdf2-sm3$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$HnSfj6d7npa2JHucQ6Lv+T+ueW6UyIRnYOoMS+JukaA";
        assert!(text.parse::<Sm3Hash>().unwrap().verify(b"correct horse"));
    }

    #[test]
    fn malformed_hashes_and_costs_out_of_range_are_refused() {
        let good = cheap(b"x").to_string();
        assert!(good.parse::<Sm3Hash>().is_ok());
        for cut in 0..good.len() {
            assert!(good[..cut].parse::<Sm3Hash>().is_err(), "{cut}");
        }
        for (bad, error) in [
            (good.replace("i=1000$", "i=999$"), HashError::cost(999, ITERATIONS)),
            (good.replace("i=1000$", "i=2000001$"), HashError::cost(2_000_001, ITERATIONS)),
            (good.replace("i=1000$", "i=-1$"), HashError::Malformed),
            (good.replace("sm3", "sha256"), HashError::Malformed),
            (format!("{good}$x"), HashError::Malformed),
            (format!("{good}="), HashError::Malformed),
            (good.replace("MDEyMzQ1Njc4OWFiY2RlZg", "AAAA"), HashError::Salt),
        ] {
            assert_eq!(bad.parse::<Sm3Hash>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn debug_shows_neither_salt_nor_hash() {
        assert_eq!(format!("{:?}", cheap(b"x")), "Sm3Hash { iterations: 1000, .. }");
    }
}
