//! Who may connect: authenticators behind one trait, and the policy that decides when none of them knows the client.
//!
//! Nothing here speaks MQTT: a request comes in as plain values, a decision goes out.

mod password_file;
mod password_hash;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::AuthConfig;

pub use password_file::{LineProblem, PasswordFile, PasswordFileError, UserNameError, set_password};
pub use password_hash::{HashError, MAX_PASSWORD_BYTES, PasswordHash};

/// What a client showed when it connected.
#[derive(Clone, Copy)]
pub struct AuthRequest<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// True when the transport verified a certificate of this client against a configured CA.
    pub peer_verified: bool,
    pub remote: SocketAddr,
}

impl fmt::Debug for AuthRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("peer_verified", &self.peer_verified)
            .field("remote", &self.remote)
            .finish()
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(DenyReason),
}

/// Why a client was refused. The peer is told no more than "bad user name or password" or "not authorized"; the
/// difference between an unknown user and a wrong password is not even made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    #[error("wrong user name or password")]
    BadCredentials,
    #[error("no user name, and anonymous clients are not allowed")]
    AnonymousNotAllowed,
    #[error("the check could not be made")]
    Unavailable,
}

/// What one authenticator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Reject,
    /// The client showed nothing that this authenticator judges.
    Ignore,
    /// The check could not be made, which refuses the client.
    Unavailable,
}

/// A pending verdict; boxed so that authenticators of different kinds form one list.
pub type VerdictFuture<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Something that can tell who a client is.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Judges a client. Must not block the thread; dropping the future abandons the check.
    fn verify<'a>(&'a self, request: &'a AuthRequest<'a>) -> VerdictFuture<'a>;
}

/// The policy of `[auth]`.
///
/// Credentials that an authenticator judges are never overruled: a wrong password is refused even where anonymous
/// clients are welcome. A client that no authenticator judges is allowed when its certificate was verified by the
/// transport, or when `allow_anonymous` is set. Its user name, if it sent one, is then a claim and not an identity.
#[derive(Debug)]
pub struct Auth {
    authenticators: Vec<Box<dyn Authenticator>>,
    allow_anonymous: bool,
}

impl Auth {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// When the password file cannot be read whole and without a mistake.
    pub fn new(config: &AuthConfig) -> Result<Auth, PasswordFileError> {
        let checks = Arc::new(Semaphore::new(config.max_concurrent_checks));
        let mut authenticators: Vec<Box<dyn Authenticator>> = Vec::new();
        if let Some(file) = &config.password_file {
            authenticators.push(Box::new(PasswordFile::load(file.path(), checks)?));
        }
        Ok(Auth { authenticators, allow_anonymous: config.allow_anonymous })
    }

    /// Decides about one client. The first authenticator that does not ignore it has the word.
    pub async fn authenticate(&self, request: &AuthRequest<'_>) -> Decision {
        for authenticator in &self.authenticators {
            match authenticator.verify(request).await {
                Verdict::Accept => return Decision::Allow,
                Verdict::Reject => return Decision::Deny(DenyReason::BadCredentials),
                Verdict::Unavailable => return Decision::Deny(DenyReason::Unavailable),
                Verdict::Ignore => {}
            }
        }
        if self.allow_anonymous || request.peer_verified {
            return Decision::Allow;
        }
        match (request.username, request.password) {
            (None, None) => Decision::Deny(DenyReason::AnonymousNotAllowed),
            _ => Decision::Deny(DenyReason::BadCredentials),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Always(Verdict);

    impl Authenticator for Always {
        fn verify<'a>(&'a self, _: &'a AuthRequest<'a>) -> VerdictFuture<'a> {
            Box::pin(std::future::ready(self.0))
        }
    }

    fn request(username: Option<&'static str>, peer_verified: bool) -> AuthRequest<'static> {
        let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
        AuthRequest { client_id: "c", username, password: username.map(|_| &b"secret"[..]), peer_verified, remote }
    }

    fn auth(verdicts: &[Verdict], allow_anonymous: bool) -> Auth {
        let authenticators =
            verdicts.iter().map(|verdict| Box::new(Always(*verdict)) as Box<dyn Authenticator>).collect();
        Auth { authenticators, allow_anonymous }
    }

    #[tokio::test]
    async fn anonymous_clients_need_permission_or_a_verified_certificate() {
        let denied = Decision::Deny(DenyReason::AnonymousNotAllowed);
        assert_eq!(auth(&[], false).authenticate(&request(None, false)).await, denied);
        assert_eq!(auth(&[], false).authenticate(&request(None, true)).await, Decision::Allow);
        assert_eq!(auth(&[], true).authenticate(&request(None, false)).await, Decision::Allow);
        assert_eq!(auth(&[Verdict::Ignore], false).authenticate(&request(None, false)).await, denied);
    }

    #[tokio::test]
    async fn credentials_that_nobody_can_judge_are_refused() {
        let denied = Decision::Deny(DenyReason::BadCredentials);
        assert_eq!(auth(&[], false).authenticate(&request(Some("u"), false)).await, denied);
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused_even_where_anonymous_clients_are_allowed() {
        let denied = Decision::Deny(DenyReason::BadCredentials);
        assert_eq!(auth(&[Verdict::Reject], true).authenticate(&request(Some("u"), true)).await, denied);
        let later_accept = [Verdict::Reject, Verdict::Accept];
        assert_eq!(auth(&later_accept, true).authenticate(&request(Some("u"), true)).await, denied);
    }

    #[tokio::test]
    async fn a_check_that_cannot_be_made_refuses() {
        let denied = Decision::Deny(DenyReason::Unavailable);
        assert_eq!(auth(&[Verdict::Unavailable], true).authenticate(&request(Some("u"), true)).await, denied);
    }

    #[test]
    fn debug_of_a_request_does_not_show_the_password() {
        assert!(!format!("{:?}", request(Some("u"), false)).contains("115, 101"));
        assert!(!format!("{:?}", request(Some("u"), false)).contains("secret"));
    }
}
