//! SCRAM-SHA-256 credentials (RFC 5802, RFC 7677), written as RFC 5803 does. Neither they nor what passes the wire is the password.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{HashError, check_cost, check_password};

pub(super) const PREFIX: &str = "SCRAM-SHA-256$";
const ITERATIONS: RangeInclusive<u32> = 4_096..=2_000_000;
const SALT_BYTES: usize = 16;
const SALT_RANGE: RangeInclusive<usize> = 8..=64;

pub(in crate::auth) type Key = [u8; 32];

/// What a server keeps for a user.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredentials {
    pub(in crate::auth) iterations: u32,
    pub(in crate::auth) salt: Vec<u8>,
    pub(in crate::auth) stored_key: Key,
    pub(in crate::auth) server_key: Key,
}

impl ScramCredentials {
    /// RFC 7677 asks for 4096 at least; this is about 0.1 s of one core in a release build.
    pub(in crate::auth) const DEFAULT_ITERATIONS: u32 = 100_000;

    /// Derives credentials under a fresh salt.
    ///
    /// # Errors
    /// [`HashError::PasswordTooLong`], [`HashError::ZeroByte`], [`HashError::NoRandomness`].
    pub fn new(password: &[u8]) -> Result<ScramCredentials, HashError> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| HashError::NoRandomness)?;
        ScramCredentials::derive(password, salt, ScramCredentials::DEFAULT_ITERATIONS)
    }

    pub(in crate::auth) fn derive(
        password: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<ScramCredentials, HashError> {
        check_password(password)?;
        // RFC 5802 section 2.2: clients do the same. What cannot be prepared is taken as it is, by them as well.
        let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
        let prepared = Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec()));
        let salted = Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(&prepared, &salt, iterations));
        let client_key = Zeroizing::new(hmac(&*salted, b"Client Key"));
        let stored_key = Sha256::digest(*client_key).into();
        Ok(ScramCredentials { iterations, salt, stored_key, server_key: hmac(&*salted, b"Server Key") })
    }

    /// Whether a password that was sent as it is has these credentials.
    pub fn verify(&self, password: &[u8]) -> bool {
        let derived = ScramCredentials::derive(password, self.salt.clone(), self.iterations);
        derived.is_ok_and(|derived| bool::from(derived.stored_key.ct_eq(&self.stored_key)))
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// HMAC-SHA-256, which takes keys of every length.
pub(in crate::auth) fn hmac(key: &[u8], message: &[u8]) -> Key {
    // A key of any length is taken, so that there is always a result.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

impl FromStr for ScramCredentials {
    type Err = HashError;

    fn from_str(text: &str) -> Result<ScramCredentials, HashError> {
        let rest = text.strip_prefix(PREFIX).ok_or(HashError::Malformed)?;
        let (parameters, keys) = rest.split_once('$').ok_or(HashError::Malformed)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(HashError::Malformed)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(HashError::Malformed)?;
        let iterations = iterations.parse().map_err(|_| HashError::Malformed)?;
        check_cost(iterations, ITERATIONS)?;
        let salt = Base64::decode_vec(salt).map_err(|_| HashError::Malformed)?;
        if !SALT_RANGE.contains(&salt.len()) {
            return Err(HashError::Salt);
        }
        let key = |text: &str| Base64::decode_vec(text).ok().and_then(|key| key.try_into().ok());
        let (Some(stored_key), Some(server_key)) = (key(stored_key), key(server_key)) else {
            return Err(HashError::Malformed);
        };
        Ok(ScramCredentials { iterations, salt, stored_key, server_key })
    }
}

impl fmt::Display for ScramCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base64 = |bytes: &[u8]| Base64::encode_string(bytes);
        let (salt, stored, server) = (base64(&self.salt), base64(&self.stored_key), base64(&self.server_key));
        write!(f, "{PREFIX}{}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for ScramCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredentials").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}
