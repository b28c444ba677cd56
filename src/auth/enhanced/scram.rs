//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding. A name that is not there goes through the same steps.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use bytestring::ByteString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Exchange, Method, Step};
use crate::auth::Accepted;
use crate::auth::password_hash::{ScramCredentials, hmac};
use crate::auth::passwords::{Sources, find};

const NONCE_BYTES: usize = 18;
/// Longest message of a client: a name and a nonce of a kilobyte each, and room.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The method, with the users that have SCRAM credentials.
pub struct ScramSha256 {
    sources: Sources,
    /// Makes up the salts of names that are not there: the same for a name each time, as a salt would be.
    secret: [u8; 32],
}

impl ScramSha256 {
    /// `None` when the operating system gave no random bytes.
    pub(in crate::auth) fn new(sources: Sources) -> Option<ScramSha256> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).ok()?;
        Some(ScramSha256 { sources, secret })
    }

    /// Told for names that are not there; `None` when nobody has SCRAM credentials.
    fn iterations(&self) -> Option<u32> {
        self.sources.iter().filter_map(|accounts| accounts.scram_iterations()).max()
    }

    /// What is known of a user, or what nobody knows a password for.
    fn credentials(&self, username: &str) -> (bool, ScramCredentials) {
        if let Some(credentials) = find(&self.sources, username).as_ref().and_then(|hash| hash.as_scram()) {
            return (true, credentials.clone());
        }
        let made_up = hmac(&self.secret, username.as_bytes());
        let salt = made_up.iter().take(16).copied().collect();
        // The last of them may have been removed after the exchange began.
        let iterations = self.iterations().unwrap_or(ScramCredentials::DEFAULT_ITERATIONS);
        let credentials = ScramCredentials { iterations, salt, stored_key: made_up, server_key: made_up };
        (false, credentials)
    }
}

impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256").field("iterations", &self.iterations()).finish_non_exhaustive()
    }
}

impl Method for ScramSha256 {
    fn name(&self) -> &'static str {
        "SCRAM-SHA-256"
    }

    fn is_offered(&self) -> bool {
        self.iterations().is_some()
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Scram { method: self, state: State::Start })
    }
}

/// One exchange.
///
/// ```text
///   Start ──client-first──▶ Challenged ──client-final──▶ Done (accepted or not)
///     └── nothing: asks for it, stays ──┘
/// ```
struct Scram {
    method: Arc<ScramSha256>,
    state: State,
}

enum State {
    Start,
    Challenged(Box<Challenged>),
    Done,
}

struct Challenged {
    username: ByteString,
    known: bool,
    credentials: ScramCredentials,
    /// base64 of the first message's header, as the last message must repeat it.
    binding: String,
    /// Both nonces.
    nonce: String,
    /// The first messages of both sides, as the proof covers them.
    covered: String,
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scram")
    }
}

impl Exchange for Scram {
    fn step(&mut self, data: &[u8]) -> Step {
        let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= MAX_MESSAGE_BYTES) else {
            return Step::Reject;
        };
        match std::mem::replace(&mut self.state, State::Done) {
            // RFC 4422 section 3: a client may wait to be asked for its first message.
            State::Start if text.is_empty() => {
                self.state = State::Start;
                Step::Continue(Vec::new())
            }
            State::Start => {
                let mut random = [0; NONCE_BYTES];
                if getrandom::fill(&mut random).is_err() {
                    return Step::Reject;
                }
                let Some((challenged, answer)) = self.method.challenge(text, &Base64::encode_string(&random)) else {
                    return Step::Reject;
                };
                self.state = State::Challenged(Box::new(challenged));
                Step::Continue(answer.into_bytes())
            }
            State::Challenged(challenged) => match challenged.prove(text) {
                // The user may have been removed since the challenge.
                Some(answer) if self.method.knows(&challenged) => {
                    let username = Some(challenged.username);
                    Step::Accept(Accepted { username, ..Accepted::default() }, answer.into_bytes())
                }
                _ => Step::Reject,
            },
            State::Done => Step::Reject,
        }
    }
}

impl ScramSha256 {
    fn knows(&self, challenged: &Challenged) -> bool {
        let known = find(&self.sources, &challenged.username);
        known.as_ref().and_then(|hash| hash.as_scram()) == Some(&challenged.credentials)
    }

    /// Answers client-first-message (RFC 5802 section 7) with server-first-message.
    fn challenge(&self, first: &str, own_nonce: &str) -> Option<(Challenged, String)> {
        // "p=": channel binding, which is not offered; "y": the client thinks so too.
        let bare = first.strip_prefix("n,,").or_else(|| first.strip_prefix("y,,"))?;
        let header = first.get(..3)?;
        let mut attributes = bare.split(',');
        // "m=" in front would be an extension that must be understood.
        let username = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let their_nonce = attributes.next()?.strip_prefix("r=")?;
        if their_nonce.is_empty() || !their_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (known, credentials) = self.credentials(&username);
        let nonce = format!("{their_nonce}{own_nonce}");
        let salt = Base64::encode_string(&credentials.salt);
        let answer = format!("r={nonce},s={salt},i={}", credentials.iterations);
        let covered = format!("{bare},{answer}");
        let binding = Base64::encode_string(header.as_bytes());
        Some((Challenged { username: username.into(), known, credentials, binding, nonce, covered }, answer))
    }
}

impl Challenged {
    /// Checks client-final-message and answers it with server-final-message.
    fn prove(&self, last: &str) -> Option<String> {
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let proof: [u8; 32] = Base64::decode_vec(proof).ok()?.try_into().ok()?;
        let message = format!("{},{without_proof}", self.covered);
        let signature = hmac(&self.credentials.stored_key, message.as_bytes());
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(key, mask)| *key ^= mask);
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let proved = bool::from(stored.ct_eq(&self.credentials.stored_key));
        if !(proved && self.known && binding == self.binding && nonce == self.nonce) {
            return None;
        }
        let verifier = hmac(&self.credentials.server_key, message.as_bytes());
        Some(format!("v={}", Base64::encode_string(&verifier)))
    }
}

/// RFC 5802 section 5.1: `=2C` is a comma, `=3D` an equals sign, and nothing else may follow one.
fn unescape(name: &str) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        text.push_str(before);
        rest = if let Some(after) = after.strip_prefix("2C") {
            text.push(',');
            after
        } else {
            text.push('=');
            after.strip_prefix("3D")?
        };
    }
    text.push_str(rest);
    (!text.is_empty()).then_some(text)
}

/// Takes arbitrary messages, one to a line, through an exchange in which nobody's password is known, for fuzzing.
#[doc(hidden)]
pub fn fuzz_scram(data: &[u8]) {
    let method = Arc::new(ScramSha256 { sources: Arc::new([]), secret: [0; 32] });
    let mut exchange = method.begin();
    for line in data.split(|byte| *byte == b'\n') {
        assert!(!matches!(exchange.step(line), Step::Accept(..)), "somebody was accepted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password_file::Users;
    use crate::auth::{Accounts, StoredUsers};

    /// What fuzzing begins with, and what it has found.
    #[test]
    fn the_corpus_accepts_nobody() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/scram");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_scram(&std::fs::read(entry.unwrap().path()).unwrap());
            read += 1;
        }
        assert!(read >= 5, "{read}");
    }

    /// RFC 7677 section 3.
    const USER: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const VERIFIER: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn method() -> Arc<ScramSha256> {
        let users = Arc::new(Users::parse_for_tests(USER));
        Arc::new(ScramSha256::new(Arc::new([users as Arc<dyn Accounts>])).unwrap())
    }

    #[test]
    fn it_is_offered_while_a_user_has_credentials_and_who_is_removed_in_an_exchange_is_refused() {
        let stored = Arc::new(StoredUsers::new(10));
        let method = Arc::new(ScramSha256::new(Arc::new([Arc::clone(&stored) as Arc<dyn Accounts>])).unwrap());
        assert!(!method.is_offered());
        stored.add("user", USER.trim_start_matches("user:").trim_end().parse().unwrap()).unwrap();
        assert!(method.is_offered());
        let challenged = || {
            let (challenged, _) = method.challenge(FIRST, SERVER_NONCE).unwrap();
            Scram { method: Arc::clone(&method), state: State::Challenged(Box::new(challenged)) }
        };
        let (mut first, mut second) = (challenged(), challenged());
        assert!(matches!(first.step(LAST.as_bytes()), Step::Accept(..)));
        assert!(stored.remove("user"));
        assert_eq!(second.step(LAST.as_bytes()), Step::Reject);
        assert!(!method.is_offered());
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_accepted() {
        let (challenged, answer) = method().challenge(FIRST, SERVER_NONCE).unwrap();
        assert_eq!(answer, CHALLENGE);
        assert_eq!(challenged.prove(LAST).as_deref(), Some(VERIFIER));
        assert_eq!(challenged.username, "user");
    }

    #[test]
    fn credentials_of_rfc_7677_are_derived_from_its_password() {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let derived = ScramCredentials::derive(b"pencil", salt, 4096).unwrap();
        assert_eq!(format!("user:{derived}\n"), USER);
    }

    #[test]
    fn any_change_of_the_last_message_is_refused() {
        let (challenged, _) = method().challenge(FIRST, SERVER_NONCE).unwrap();
        for last in [
            LAST.replace("biws", "eSws"),
            LAST.replace("rOpr", "rOps"),
            LAST.replace("dHzb", "dHzc"),
            LAST.replace(",p=", ",p"),
            LAST.replace(",p=", ",x=1,p="),
            LAST[..LAST.len() - 4].to_owned(),
            String::new(),
            ",p=".to_owned(),
        ] {
            assert_eq!(challenged.prove(&last), None, "{last}");
        }
    }

    #[test]
    fn a_first_message_that_is_not_understood_is_refused() {
        for first in [
            "",
            "n,,",
            "n,,n=user",
            "n,,r=abc,n=user",
            "p=tls-unique,,n=user,r=abc",
            "n,a=admin,n=user,r=abc",
            "n,,m=x,n=user,r=abc",
            "n,,n=,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=user,r=",
            "n,,n=user,r=a\u{7f}",
        ] {
            assert!(method().challenge(first, "x").is_none(), "{first}");
        }
        let (challenged, _) = method().challenge("n,,n=a=2Cb=3Dc,r=abc,x=1", "x").unwrap();
        assert_eq!(challenged.username, "a,b=c");
    }

    #[test]
    fn a_name_that_is_not_there_is_told_apart_by_nothing() {
        let method = method();
        let (one, first) = method.challenge("n,,n=eve,r=abc", "x").unwrap();
        let (_, again) = method.challenge("n,,n=eve,r=abc", "x").unwrap();
        assert_eq!(first, again);
        assert!(first.ends_with(",i=4096") && first.len() == "r=abcx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len());
        let proof = Base64::encode_string(&[7; 32]);
        assert_eq!(one.prove(&format!("c=biws,r=abcx,p={proof}")), None);
    }

    #[test]
    fn an_exchange_ends_with_its_first_failure() {
        let mut exchange = method().begin();
        assert_eq!(exchange.step(b""), Step::Continue(Vec::new()));
        assert!(matches!(exchange.step(FIRST.as_bytes()), Step::Continue(_)));
        assert_eq!(exchange.step(LAST.as_bytes()), Step::Reject);
        assert_eq!(exchange.step(FIRST.as_bytes()), Step::Reject);
        let mut long = method().begin();
        assert_eq!(long.step(&[b'n'; MAX_MESSAGE_BYTES + 1]), Step::Reject);
        assert_eq!(method().begin().step(b"\xff"), Step::Reject);
    }
}
