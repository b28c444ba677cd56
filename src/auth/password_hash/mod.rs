//! What is kept of a password: our own hash, SCRAM credentials, and the hashes that users bring from other brokers.

mod imported;
mod scram;
mod sm3;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use imported::{BcryptHash, MosquittoHash, Sha256Hash};
pub(super) use scram::{ScramCredentials, hmac};
use sm3::Sm3Hash;

/// Longest password: that of MQTT, which has two bytes for the length. MQTT 5.0 section 3.1.3.6
pub const MAX_PASSWORD_BYTES: usize = 65_535;

/// What is kept instead of a password. `Debug` shows the kind alone: a hash can be attacked offline, so it does not go into logs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// `$pbkdf2-sm3$i=ITERATIONS$SALT$HASH`
    Sm3(Sm3Hash),
    /// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`, RFC 5803
    Scram(ScramCredentials),
    /// `$2b$COST$…`, also `$2a$` and `$2y$`
    Bcrypt(BcryptHash),
    /// `$sha256$prefix$SALT$HEX` and `$sha256$suffix$SALT$HEX`: SHA-256 of salt and password in one order or the other, as EMQX keeps it
    Sha256(Sha256Hash),
    /// `$7$ITERATIONS$SALT$HASH` and `$6$SALT$HASH` of mosquitto_passwd
    Mosquitto(MosquittoHash),
}

/// Why a hash cannot be used or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error(
        "not a hash: it begins with $pbkdf2-sm3$, SCRAM-SHA-256$, $2b$, $sha256$prefix$, $sha256$suffix$, $7$ or $6$"
    )]
    UnknownKind,
    #[error("the hash is damaged")]
    Malformed,
    #[error("a cost of {cost}, it must be between {least} and {most}")]
    Cost { cost: u32, least: u32, most: u32 },
    #[error("the salt is too short or too long")]
    Salt,
    #[error("the password is longer than 65535 bytes")]
    PasswordTooLong,
    #[error("a password cannot contain a zero byte")]
    ZeroByte,
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl HashError {
    fn cost(cost: u32, range: RangeInclusive<u32>) -> HashError {
        HashError::Cost { cost, least: *range.start(), most: *range.end() }
    }
}

impl PasswordHash {
    /// Hashes a password with PBKDF2-HMAC-SM3 under a fresh salt. Computes for about 0.1 s.
    ///
    /// # Errors
    /// [`HashError::PasswordTooLong`], [`HashError::ZeroByte`], [`HashError::NoRandomness`].
    pub fn new(password: &[u8]) -> Result<PasswordHash, HashError> {
        Sm3Hash::new(password).map(|hash| PasswordHash(Kind::Sm3(hash)))
    }

    /// Derives SCRAM-SHA-256 credentials under a fresh salt.
    ///
    /// # Errors
    /// As [`PasswordHash::new`].
    pub fn scram(password: &[u8]) -> Result<PasswordHash, HashError> {
        ScramCredentials::new(password).map(|credentials| PasswordHash(Kind::Scram(credentials)))
    }

    #[cfg(test)]
    pub(super) fn derive(password: &[u8], salt: Vec<u8>, iterations: u32) -> Result<PasswordHash, HashError> {
        Sm3Hash::derive(password, salt, iterations).map(|hash| PasswordHash(Kind::Sm3(hash)))
    }

    /// Whether this is the hash of a password. Computes as long as making the hash did; compares in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        if check_password(password).is_err() {
            return false;
        }
        match &self.0 {
            Kind::Sm3(hash) => hash.verify(password),
            Kind::Scram(credentials) => credentials.verify(password),
            Kind::Bcrypt(hash) => hash.verify(password),
            Kind::Sha256(hash) => hash.verify(password),
            Kind::Mosquitto(hash) => hash.verify(password),
        }
    }

    /// The credentials, if this is SCRAM.
    pub(super) fn as_scram(&self) -> Option<&ScramCredentials> {
        match &self.0 {
            Kind::Scram(credentials) => Some(credentials),
            _ => None,
        }
    }

    /// About how long a check takes, in iterations of PBKDF2-HMAC-SM3, each of about a microsecond.
    pub(super) fn work(&self) -> u32 {
        match &self.0 {
            Kind::Sm3(hash) => hash.iterations(),
            Kind::Scram(credentials) => credentials.iterations() / 2,
            Kind::Bcrypt(hash) => hash.work(),
            Kind::Sha256(_) => 1,
            Kind::Mosquitto(hash) => hash.work(),
        }
    }

    /// Computes as long as a check of this much work does.
    pub(super) fn spend(work: u32, password: &[u8]) {
        if work > 0 {
            // The result must not be left out by the compiler.
            std::hint::black_box(Sm3Hash::derive(password, vec![0; 16], work)).ok();
        }
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sm3(hash) => hash.fmt(f),
            Kind::Scram(credentials) => credentials.fmt(f),
            Kind::Bcrypt(hash) => hash.fmt(f),
            Kind::Sha256(hash) => hash.fmt(f),
            Kind::Mosquitto(hash) => hash.fmt(f),
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Sm3(_) => "PasswordHash(pbkdf2-sm3)",
            Kind::Scram(_) => "PasswordHash(scram-sha-256)",
            Kind::Bcrypt(_) => "PasswordHash(bcrypt)",
            Kind::Sha256(_) => "PasswordHash(sha256)",
            Kind::Mosquitto(_) => "PasswordHash(mosquitto)",
        })
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<PasswordHash, HashError> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let kind = if begins(&[sm3::PREFIX]) {
            Kind::Sm3(text.parse()?)
        } else if begins(&[scram::PREFIX]) {
            Kind::Scram(text.parse()?)
        } else if begins(&imported::BCRYPT_PREFIXES) {
            Kind::Bcrypt(text.parse()?)
        } else if begins(&[imported::SHA256_PREFIX]) {
            Kind::Sha256(text.parse()?)
        } else if begins(&imported::MOSQUITTO_PREFIXES) {
            Kind::Mosquitto(text.parse()?)
        } else {
            return Err(HashError::UnknownKind);
        };
        Ok(PasswordHash(kind))
    }
}

/// What no kind of hash takes.
fn check_password(password: &[u8]) -> Result<(), HashError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(HashError::PasswordTooLong);
    }
    // HMAC pads its key with zeros, and bcrypt ends a password at one, so another password would match as well.
    if password.contains(&0) { Err(HashError::ZeroByte) } else { Ok(()) }
}

/// Too little work is no protection, too much would let one line of a file stop the broker.
fn check_cost(cost: u32, range: RangeInclusive<u32>) -> Result<(), HashError> {
    if range.contains(&cost) { Ok(()) } else { Err(HashError::cost(cost, range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_keeps_its_text_and_its_password() {
        // Made with mosquitto_passwd, crypt(3) of the C library, Python's hashlib and the example of RFC 7677.
        for (text, password) in [
            ("$pbkdf2-sm3$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$HnSfj6d7npa2JHucQ6Lv+T+ueW6UyIRnYOoMS+JukaA", "correct horse"),
            ("$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", "correct horse"),
            (
                "$7$101$MDEyMzQ1Njc4OWFi$bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==",
                "correct horse",
            ),
            (
                "$6$MDEyMzQ1Njc4OWFi$vMblpzgCS5oj2lUbBcEO+PGDOv2Ychcm2aCJlOM/97en/aLeFXM5JAedC3UgjydjvghOxFalEDxmI0OHi3Vlsg==",
                "correct horse",
            ),
            ("$sha256$prefix$a4d3b1$18188662042c6f4416438fbb414c99a3f074f11f56dbd54a0ba16554452c016f", "correct horse"),
            ("$sha256$suffix$a4d3b1$6387cdea1c6b9bd9c29470a06f0f3a92992711ff998df98ec00dece4d9e10600", "correct horse"),
            (
                "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
                "pencil",
            ),
        ] {
            let hash: PasswordHash = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(hash.to_string(), text);
            assert!(hash.verify(password.as_bytes()), "{text}");
            for wrong in ["", "Pencil", "correct horsf", &format!("{password}\0"), &format!("{password}x")] {
                assert!(!hash.verify(wrong.as_bytes()), "{text} {wrong}");
            }
            for cut in 0..text.len() {
                assert!(text[..cut].parse::<PasswordHash>().is_err(), "{}", &text[..cut]);
            }
            assert!(format!("{text}x").parse::<PasswordHash>().is_err(), "{text}x");
            assert!(!format!("{hash:?}").contains("Njc4"), "{hash:?}");
        }
    }

    #[test]
    fn other_hashes_are_named_as_unknown_and_costs_out_of_range_are_refused() {
        for text in ["", "secret", "$5$abc$def", "$argon2id$v=19$m=1,t=1,p=1$AAAA$AAAA", "$sha512$x"] {
            assert_eq!(text.parse::<PasswordHash>(), Err(HashError::UnknownKind), "{text}");
        }
        let digest = "A".repeat(86) + "==";
        for text in [
            "$2b$03$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2".to_owned(),
            "$2b$17$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2".to_owned(),
            format!("$7$99$MDEyMzQ1Njc4OWFi${digest}"),
            format!("$7$2000001$MDEyMzQ1Njc4OWFi${digest}"),
        ] {
            assert!(matches!(text.parse::<PasswordHash>(), Err(HashError::Cost { .. })), "{text}");
        }
    }

    #[test]
    fn a_password_longer_than_mqtt_allows_is_refused() {
        let long = vec![b'a'; MAX_PASSWORD_BYTES + 1];
        assert_eq!(PasswordHash::derive(&long, vec![0; 16], 1_000), Err(HashError::PasswordTooLong));
        let hash = PasswordHash::derive(&long[1..], vec![0; 16], 1_000).unwrap();
        assert!(hash.verify(&long[1..]));
        assert!(!hash.verify(&long));
    }
}
