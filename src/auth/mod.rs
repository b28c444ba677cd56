//! Who may connect, and what a connected client may do: authenticators behind one trait, rules for topics behind one value.
//!
//! Nothing here speaks MQTT: a request comes in as plain values, a decision goes out.

pub mod acl;
mod certified;
mod checks;
mod enhanced;
mod identity;
mod jwt;
mod password_file;
mod password_hash;
mod passwords;
mod peer;
mod psk;
mod psk_file;
mod rights;
mod shards;
mod stored_rules;
mod stored_users;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;

use crate::causes::Causes;
use crate::config::{AuthConfig, ClientIdBinding, ConfigErrors, DenyAction, load_acl};
use crate::store::{Health, Store, UserRow};
use acl::Rules;
use checks::Checks;

pub use certified::{NameFault, check_name, name_of};
pub use enhanced::{Exchange, MAX_STEPS, Method, ScramSha256, Step};
pub use identity::{Identity, Owner, VerifiedCertificate};
pub use jwt::{Jwt, TokenRefused};
pub use password_file::{LineProblem, PasswordFileError, UserNameError, Users, delete_user, set_password};
pub use password_hash::{HashError, MAX_PASSWORD_BYTES, PasswordHash};
pub use passwords::{Accounts, Passwords, Sources};
pub use peer::{Channel, Peer, Proxied, Security};
pub use psk::{PskFileError, PskProblem, PskStore};
pub use psk_file::{NewKeys, PskChanged, add_keys, remove_key};
pub use rights::{Access, Answer, Authorizer, Policy, RefusedBy, Rights};
pub use stored_rules::{RuleList, RuleRefused, RulesFor, StoredRules, WrittenRule};
pub use stored_users::{StoredUserError, StoredUsers, UserRefused};
#[doc(hidden)]
pub use {enhanced::fuzz_scram, jwt::fuzz_token};

/// What a client showed when it connected.
#[derive(Clone, Copy)]
pub struct AuthRequest<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// What the connection says of this client.
    pub peer: &'a Peer,
    pub remote: SocketAddr,
}

impl fmt::Debug for AuthRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("peer", &self.peer)
            .field("remote", &self.remote)
            .finish()
    }
}

/// What an authenticator vouches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    pub username: Option<ByteString>,
    /// Rules that came with the credentials.
    pub rules: Option<Arc<Rules>>,
    /// How long the credentials hold from here; `None` is without end.
    pub valid_for: Option<Duration>,
}

/// A client that may connect.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub rights: Rights,
    /// How long it may stay connected.
    pub valid_for: Option<Duration>,
}

/// Why a client was refused. The peer is told no more than "bad user name or password" or "not authorized"; the
/// difference between an unknown user and a wrong password is not even made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    #[error("wrong user name or password")]
    BadCredentials,
    #[error("{0}")]
    Token(TokenRefused),
    #[error("no user name, and anonymous clients are not allowed")]
    AnonymousNotAllowed,
    #[error("the client identifier is not the one that auth.clientid_binding asks of this client")]
    ClientId,
    #[error("{0} gives the client no name: {1}")]
    PeerName(&'static str, NameFault),
    #[error("the client is held to other protocols or suites by a [[pins]] of the ACL file")]
    Pinned,
    #[error("the check could not be made")]
    Unavailable,
    /// A limit, named as in the configuration, kept the check from being made.
    #[error("no check was made: {0} is reached")]
    Busy(&'static str),
}

/// Why what a store holds cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredAuthError {
    #[error("users in the store: {0}")]
    Users(#[from] StoredUserError),
    #[error("rules in the store: {0}")]
    Rules(#[from] RuleRefused),
}

/// What one authenticator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept(Accepted),
    Reject,
    /// Refused like a wrong password; the reason is the operator's.
    RejectToken(TokenRefused),
    /// The client showed nothing that this authenticator judges.
    Ignore,
    /// The check could not be made, which refuses the client.
    Unavailable,
    /// The named limit kept the check from being made, which refuses the client.
    Busy(&'static str),
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
    checks: Arc<Checks>,
    users: Arc<StoredUsers>,
    rules: Arc<StoredRules>,
    chain: Mutex<Arc<Chain>>,
    authorizer: Arc<Authorizer>,
}

/// What `[auth]` and its files say, read whole and not in force yet.
#[derive(Debug)]
pub struct Reading {
    chain: Chain,
    policy: Policy,
}

/// What clients are judged by, in its order.
#[derive(Debug, Default)]
struct Chain {
    config: AuthConfig,
    authenticators: Vec<Box<dyn Authenticator>>,
    methods: Vec<Arc<dyn Method>>,
}

impl Auth {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// Every mistake in the files: each must be read whole.
    pub fn new(config: &AuthConfig) -> Result<Auth, ConfigErrors> {
        let checks = Arc::new(Checks::new(config));
        let users = Arc::new(StoredUsers::new(config.store.max_users));
        let rules = Arc::new(StoredRules::new(config.store.max_rules));
        let Reading { chain, policy } = load(config, &checks, &users)?;
        let authorizer = Authorizer::new(policy, Arc::clone(&rules));
        Ok(Auth { chain: Mutex::new(Arc::new(chain)), authorizer, checks, users, rules })
    }

    /// Takes over the users and rules that a store holds; every change of them is a row of it from here on.
    ///
    /// # Errors
    /// What is stored cannot all be served.
    pub fn keep_in(
        &self,
        store: &Arc<Store>,
        users: Vec<(ByteString, UserRow)>,
        rules: Vec<(ByteString, ByteString)>,
    ) -> Result<(), StoredAuthError> {
        self.users.recover(users)?;
        self.rules.recover(rules)?;
        self.users.kept().keep_in(Arc::clone(store));
        self.rules.kept().keep_in(Arc::clone(store));
        Ok(())
    }

    /// The users of the store. Whoever changes them waits for [`durable`](Self::durable) before saying so.
    pub fn stored_users(&self) -> &StoredUsers {
        &self.users
    }

    /// The rules of the store.
    pub fn stored_rules(&self) -> &StoredRules {
        &self.rules
    }

    /// Adds rules to the store, before the one at a place of the list or at its end. They are in force for the next packet.
    ///
    /// # Errors
    /// A rule is none, or there is no room.
    pub fn add_rules(
        &self,
        subject: &RulesFor,
        place: Option<usize>,
        rules: Vec<WrittenRule>,
    ) -> Result<(), RuleRefused> {
        self.rules.add(subject, place, rules)?;
        self.authorizer.has_changed();
        Ok(())
    }

    /// Takes the rule at a place out of the store, or all of the list, and gives them.
    ///
    /// # Errors
    /// There is no rule at that place.
    pub fn remove_rules(&self, subject: &RulesFor, place: Option<usize>) -> Result<Vec<WrittenRule>, RuleRefused> {
        let removed = self.rules.remove(subject, place)?;
        self.authorizer.has_changed();
        Ok(removed)
    }

    /// Waits until every change of users and rules is durable; `false` where nothing is stored.
    ///
    /// # Errors
    /// The store does not write.
    pub async fn durable(&self) -> Result<bool, Health> {
        self.users.kept().durable().await?;
        self.rules.kept().durable().await
    }

    /// Whether users of the store may connect, by the configuration in force.
    pub fn asks_stored_users(&self) -> bool {
        self.current().config.store.users
    }

    /// Whether rules of the store are asked, by the configuration in force.
    pub fn asks_stored_rules(&self) -> bool {
        self.current().config.store.acl
    }

    /// Reads the files again. Clients that connect from now on are judged by them, and the rules hold for all at once; nothing changes
    /// when any of them cannot be read whole.
    ///
    /// # Errors
    /// Every mistake in the files: each must be read whole.
    pub fn reload(&self) -> Result<(), ConfigErrors> {
        self.put_in_force(self.read(None)?);
        Ok(())
    }

    /// Reads the files that `config` names, or those of the configuration in force, and changes nothing yet. The limits of checks stay
    /// those of the start.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub fn read(&self, config: Option<&AuthConfig>) -> Result<Reading, ConfigErrors> {
        match config {
            Some(config) => load(config, &self.checks, &self.users),
            None => load(&self.current().config, &self.checks, &self.users),
        }
    }

    /// From here clients are judged by what was read.
    pub fn put_in_force(&self, reading: Reading) {
        *self.chain.lock() = Arc::new(reading.chain);
        self.authorizer.replace(reading.policy);
    }

    fn current(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.lock())
    }

    /// Refuses a client that a pin holds to another protocol or suite than it has.
    ///
    /// # Errors
    /// [`DenyReason::Pinned`].
    pub fn pinned(&self, client: &Identity) -> Result<(), DenyReason> {
        if self.authorizer.lets_in(client) { Ok(()) } else { Err(DenyReason::Pinned) }
    }

    pub fn deny_action(&self) -> DenyAction {
        self.current().config.deny_action
    }

    /// The rights of a client that was judged before this process began.
    pub fn rights(&self, identity: Arc<Identity>) -> Rights {
        self.authorizer.rights(identity)
    }

    /// Whether an address may try credentials, or has shown too many wrong ones.
    ///
    /// # Errors
    /// It has to wait.
    pub fn may_try(&self, address: IpAddr) -> Result<(), DenyReason> {
        self.checks.may_try(address).map_err(DenyReason::Busy)
    }

    /// Notes that an address showed wrong credentials.
    pub fn failed(&self, address: IpAddr) {
        self.checks.failed(address);
    }

    /// Whether a session is only for who opened it.
    pub fn binds_sessions(&self) -> bool {
        self.current().config.clientid_binding != ClientIdBinding::Disabled
    }

    /// Decides about one client. The first authenticator that does not ignore it has the word.
    ///
    /// # Errors
    /// When the client may not connect.
    pub async fn authenticate(&self, request: &AuthRequest<'_>) -> Result<Admitted, DenyReason> {
        let chain = self.current();
        let accepted = self.judge(&chain, request).await?;
        self.admit(request, accepted)
    }

    /// The method of extended authentication with this name.
    pub fn method(&self, name: &str) -> Option<Arc<dyn Method>> {
        self.current().methods.iter().find(|method| method.name() == name && method.is_offered()).cloned()
    }

    async fn judge(&self, chain: &Chain, request: &AuthRequest<'_>) -> Result<Accepted, DenyReason> {
        // Authenticators that compute something expensive ask themselves whether the address may try. A token cannot be guessed and costs
        // little to check: that of one client is good however many others fail behind the same address.
        for authenticator in &chain.authenticators {
            match authenticator.verify(request).await {
                Verdict::Accept(accepted) => return Ok(accepted),
                Verdict::Reject => return Err(self.rejected(request, DenyReason::BadCredentials)),
                Verdict::RejectToken(reason) => return Err(self.rejected(request, DenyReason::Token(reason))),
                Verdict::Unavailable => return Err(DenyReason::Unavailable),
                Verdict::Busy(limit) => return Err(DenyReason::Busy(limit)),
                Verdict::Ignore => {}
            }
        }
        if chain.config.allow_anonymous || request.peer.is_vouched_for() {
            return Ok(Accepted::default());
        }
        match (request.username, request.password) {
            (None, None) => Err(DenyReason::AnonymousNotAllowed),
            _ => Err(DenyReason::BadCredentials),
        }
    }

    /// Counts a failure. Whoever fails too often is told nothing more.
    fn rejected(&self, request: &AuthRequest<'_>, reason: DenyReason) -> DenyReason {
        if let Err(busy) = self.may_try(request.remote.ip()) {
            return busy;
        }
        self.failed(request.remote.ip());
        reason
    }

    /// Lets a client in whom an authenticator, or a method of extended authentication, vouches for.
    ///
    /// # Errors
    /// When it sent another user name in CONNECT, or its client identifier is bound to another identity.
    pub fn admit(&self, request: &AuthRequest<'_>, accepted: Accepted) -> Result<Admitted, DenyReason> {
        let Accepted { username, rules, valid_for } = accepted;
        let certified = request.peer.username.clone();
        if let Some(verified) = username.as_deref()
            && [request.username, certified.as_deref()].into_iter().flatten().any(|other| other != verified)
        {
            self.failed(request.remote.ip());
            return Err(DenyReason::BadCredentials);
        }
        let identity = Identity {
            client_id: request.client_id.into(),
            username: certified.or(username),
            remote: request.remote.ip(),
            peer: request.peer.clone(),
            rules,
        };
        self.pinned(&identity)?;
        let bound_to = match self.current().config.clientid_binding {
            ClientIdBinding::Disabled | ClientIdBinding::Session => Some(request.client_id),
            ClientIdBinding::Username => identity.username.as_deref(),
            ClientIdBinding::CertCommonName => identity.common_name(),
        };
        if bound_to != Some(request.client_id) {
            return Err(DenyReason::ClientId);
        }
        Ok(Admitted { rights: self.authorizer.rights(Arc::new(identity)), valid_for })
    }
}

/// Reads every file, and says of all that are wrong what is wrong.
fn load(config: &AuthConfig, checks: &Arc<Checks>, stored: &Arc<StoredUsers>) -> Result<Reading, ConfigErrors> {
    let mut errors = Vec::new();
    let mut chain = Chain { config: config.clone(), ..Chain::default() };
    // Tokens first: what is no token is left to the password file.
    if let Some(config) = &config.jwt {
        match Jwt::load(config) {
            Ok(tokens) => chain.authenticators.push(Box::new(tokens)),
            Err(error) => errors.push(error),
        }
    }
    let mut sources: Vec<Arc<dyn Accounts>> = Vec::new();
    if let Some(file) = &config.password_file {
        match Users::load(file.path()) {
            Ok(users) => sources.push(Arc::new(users)),
            Err(cause) => errors.push(file.error(Causes(&cause).to_string())),
        }
    }
    if config.store.users {
        sources.push(Arc::clone(stored) as Arc<dyn Accounts>);
    }
    if !sources.is_empty() {
        let sources: Sources = sources.into();
        if let Some(method) = ScramSha256::new(Arc::clone(&sources)) {
            chain.methods.push(Arc::new(method));
        }
        chain.authenticators.push(Box::new(Passwords::new(sources, Arc::clone(checks))));
    }
    let mut rules = None;
    if let Some(file) = &config.acl_file {
        match load_acl(file) {
            Ok(loaded) => rules = Some(loaded),
            Err(found) => errors.extend(found.into_errors()),
        }
    }
    ConfigErrors::check(errors)?;
    Ok(Reading { chain, policy: Policy::new(rules, config.store.acl, config.no_match) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Always(Verdict);

    impl Authenticator for Always {
        fn verify<'a>(&'a self, _: &'a AuthRequest<'a>) -> VerdictFuture<'a> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    static NOBODY: Peer =
        Peer { security: Security::PLAIN, certificate: None, proxied_name: None, psk: None, username: None };

    fn request(username: Option<&'static str>) -> AuthRequest<'static> {
        let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
        AuthRequest { client_id: "c", username, password: username.map(|_| &b"secret"[..]), peer: &NOBODY, remote }
    }

    fn accept(username: &str) -> Verdict {
        Verdict::Accept(Accepted { username: Some(username.into()), ..Accepted::default() })
    }

    fn auth(verdicts: &[Verdict], config: AuthConfig) -> Auth {
        let auth = Auth::new(&config).unwrap();
        let authenticators = verdicts.iter().map(|verdict| Box::new(Always(verdict.clone())) as Box<dyn Authenticator>);
        let chain = Chain { config, authenticators: authenticators.collect(), methods: Vec::new() };
        *auth.chain.lock() = Arc::new(chain);
        auth
    }

    fn closed() -> AuthConfig {
        AuthConfig::default()
    }

    fn open() -> AuthConfig {
        AuthConfig { allow_anonymous: true, ..AuthConfig::default() }
    }

    async fn denied(auth: Auth, username: Option<&'static str>) -> Option<DenyReason> {
        auth.authenticate(&request(username)).await.err()
    }

    #[tokio::test]
    async fn anonymous_clients_need_permission() {
        assert_eq!(denied(auth(&[], closed()), None).await, Some(DenyReason::AnonymousNotAllowed));
        assert_eq!(denied(auth(&[], open()), None).await, None);
        assert_eq!(denied(auth(&[Verdict::Ignore], closed()), None).await, Some(DenyReason::AnonymousNotAllowed));
    }

    #[tokio::test]
    async fn credentials_that_nobody_can_judge_are_refused_or_name_nobody() {
        assert_eq!(denied(auth(&[], closed()), Some("u")).await, Some(DenyReason::BadCredentials));
        let admitted = auth(&[], open()).authenticate(&request(Some("u"))).await.unwrap();
        assert_eq!(admitted.rights.identity().username, None);
    }

    #[tokio::test]
    async fn the_first_that_judges_has_the_word() {
        let refused = Some(DenyReason::BadCredentials);
        assert_eq!(denied(auth(&[Verdict::Reject], open()), Some("u")).await, refused);
        assert_eq!(denied(auth(&[Verdict::Reject, accept("u")], open()), Some("u")).await, refused);
        let chain = auth(&[Verdict::Ignore, accept("u"), Verdict::Reject], closed());
        let admitted = chain.authenticate(&request(Some("u"))).await.unwrap();
        assert_eq!(admitted.rights.identity().username.as_deref(), Some("u"));
    }

    #[tokio::test]
    async fn a_check_that_cannot_be_made_refuses() {
        assert_eq!(denied(auth(&[Verdict::Unavailable], open()), Some("u")).await, Some(DenyReason::Unavailable));
    }

    #[tokio::test]
    async fn a_client_identifier_can_be_bound_to_the_user_name() {
        let bound = || AuthConfig { clientid_binding: ClientIdBinding::Username, ..open() };
        assert_eq!(denied(auth(&[accept("c")], bound()), Some("c")).await, None);
        assert_eq!(denied(auth(&[accept("u")], bound()), Some("u")).await, Some(DenyReason::ClientId));
        // A user name that nothing verified binds nothing.
        assert_eq!(denied(auth(&[], bound()), Some("c")).await, Some(DenyReason::ClientId));
        let certificate = AuthConfig { clientid_binding: ClientIdBinding::CertCommonName, ..open() };
        assert_eq!(denied(auth(&[accept("c")], certificate), Some("c")).await, Some(DenyReason::ClientId));
    }

    #[test]
    fn debug_of_a_request_does_not_show_the_password() {
        assert!(!format!("{:?}", request(Some("u"))).contains("115, 101"));
        assert!(!format!("{:?}", request(Some("u"))).contains("secret"));
    }
}
