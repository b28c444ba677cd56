//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677): proves that it knows the password without sending it, and that the server does.

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use mqtt_codec::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The name of the method in CONNECT and AUTH.
pub const METHOD: &str = "SCRAM-SHA-256";

const NONCE_BYTES: usize = 18;
/// Longest message of a server that is looked at.
const MAX_MESSAGE_BYTES: usize = 4096;
/// RFC 7677 section 4 asks for 4096: a server that asks for less could be one that wants to guess the password. More than the second would
/// keep the client busy.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=10_000_000;

/// Why an exchange ended without both sides having proved themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("the server's challenge is not one of SCRAM-SHA-256 to this client")]
    Challenge,
    #[error("the server asks for {0} iterations, and 4096 to 10000000 are taken")]
    Iterations(u32),
    #[error("the server did not prove that it knows the password's credentials: do not trust it")]
    NotProved,
    #[error("the system has no random bytes")]
    Random,
}

/// One exchange.
///
/// ```text
///   first ──CONNECT──▶ challenge ──▶ answer ──AUTH──▶ verifier of CONNACK ──▶ check
/// ```
pub struct Scram {
    password: Secret,
    /// The first message without its header.
    bare: String,
    nonce: String,
    /// What the server must show at the end; known once it has challenged.
    expected: Option<[u8; 32]>,
}

impl std::fmt::Debug for Scram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scram")
    }
}

impl Scram {
    /// An exchange for a user.
    ///
    /// # Errors
    /// [`ScramError::Random`]
    pub fn new(username: &str, password: Secret) -> Result<Scram, ScramError> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| ScramError::Random)?;
        Ok(Scram::with_nonce(username, password, Base64::encode_string(&random)))
    }

    fn with_nonce(username: &str, password: Secret, nonce: String) -> Scram {
        // RFC 5802 section 5.1.
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Scram { password, bare: format!("n={username},r={nonce}"), nonce, expected: None }
    }

    /// The first message, for CONNECT.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The answer to the server's challenge, of which there is one.
    ///
    /// # Errors
    /// A challenge that is not understood or asks for too little or too much.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(challenge).ok().filter(|text| text.len() <= MAX_MESSAGE_BYTES);
        let text = text.filter(|_| self.expected.is_none()).ok_or(ScramError::Challenge)?;
        let mut attributes = text.split(',');
        let mut next = |name| attributes.next().and_then(|one| one.strip_prefix(name)).ok_or(ScramError::Challenge);
        let (nonce, salt, iterations) = (next("r=")?, next("s=")?, next("i=")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Challenge);
        }
        let salt = Base64::decode_vec(salt).map_err(|_| ScramError::Challenge)?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramError::Challenge)?;
        if !ITERATIONS.contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        let salted = Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(&self.prepared(), &salt, iterations));
        // "biws" is the header `n,,` again.
        let without_proof = format!("c=biws,r={nonce}");
        let covered = format!("{},{text},{without_proof}", self.bare);
        let mut proof = Zeroizing::new(hmac(&*salted, b"Client Key"));
        let stored: [u8; 32] = Sha256::digest(*proof).into();
        proof.iter_mut().zip(hmac(&stored, covered.as_bytes())).for_each(|(key, mask)| *key ^= mask);
        self.expected = Some(hmac(&hmac(&*salted, b"Server Key"), covered.as_bytes()));
        Ok(format!("{without_proof},p={}", Base64::encode_string(&*proof)))
    }

    /// Whether the server has proved that it knows the credentials.
    ///
    /// # Errors
    /// [`ScramError::NotProved`]
    pub fn check(&self, last: Option<&[u8]>) -> Result<(), ScramError> {
        let verifier = last.and_then(|last| std::str::from_utf8(last).ok()?.strip_prefix("v="));
        let verifier = verifier.and_then(|verifier| Base64::decode_vec(verifier).ok());
        match (verifier, &self.expected) {
            (Some(verifier), Some(expected)) if bool::from(verifier.ct_eq(&expected[..])) => Ok(()),
            _ => Err(ScramError::NotProved),
        }
    }

    /// RFC 5802 section 2.2; what cannot be prepared is taken as it is.
    fn prepared(&self) -> Zeroizing<Vec<u8>> {
        let password = self.password.as_bytes();
        let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
        Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec()))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // A key of any length is taken, so that there is always a result.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3.
    const CHALLENGE: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const VERIFIER: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn scram() -> Scram {
        let password = Secret::from(bytes::Bytes::from_static(b"pencil"));
        Scram::with_nonce("user", password, "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_spoken() {
        let mut scram = scram();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.answer(CHALLENGE).unwrap(), LAST);
        assert_eq!(scram.check(Some(VERIFIER)), Ok(()));
        assert_eq!(scram.answer(CHALLENGE), Err(ScramError::Challenge), "a second challenge");
    }

    #[test]
    fn a_server_that_proves_nothing_is_not_trusted() {
        let mut scram = scram();
        assert_eq!(scram.check(Some(VERIFIER)), Err(ScramError::NotProved), "before its challenge");
        scram.answer(CHALLENGE).unwrap();
        for last in [None, Some(&b""[..]), Some(b"v="), Some(b"e=other-error"), Some(b"v=AAAA")] {
            assert_eq!(scram.check(last), Err(ScramError::NotProved), "{last:?}");
        }
    }

    #[test]
    fn a_challenge_that_is_anothers_or_too_cheap_is_refused() {
        let text = std::str::from_utf8(CHALLENGE).unwrap();
        for (challenge, error) in [
            (text.replace("rOpr", "rOps"), ScramError::Challenge),
            (text.replace("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""), ScramError::Challenge),
            (text.replace("s=W", "s=!"), ScramError::Challenge),
            (text.replace("r=", "m=x,r="), ScramError::Challenge),
            (text.replace("4096", "1"), ScramError::Iterations(1)),
            (text.replace("4096", "4000000000"), ScramError::Iterations(4_000_000_000)),
            (String::new(), ScramError::Challenge),
        ] {
            assert_eq!(scram().answer(challenge.as_bytes()), Err(error), "{challenge}");
        }
        let password = Secret::from(bytes::Bytes::from_static(b"x"));
        assert!(Scram::new("a,b=c", password).unwrap().first().starts_with("n,,n=a=2Cb=3Dc,r="));
    }
}
