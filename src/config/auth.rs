//! `[auth]`: who may connect, and what they may do.

use std::time::Duration;

use super::error::ConfigError;
use super::section::{FileRef, Place, Section};
use super::store::Durability;
use super::value::{Choice, Span, Word};
use crate::auth::acl::Permit;

/// `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// Whether a client that shows neither a password nor a verified certificate may connect.
    pub allow_anonymous: bool,
    /// Lines `user:hash` written by `shangmq passwd`.
    pub password_file: Option<FileRef>,
    /// Password checks computed at once; further clients wait within their CONNECT deadline.
    pub max_concurrent_checks: usize,
    /// Clients that wait for a check; the next is told that the broker is busy.
    pub max_waiting_checks: usize,
    /// How many of them may have one address.
    pub max_waiting_checks_per_address: usize,
    /// Wrong passwords of one address; above that no password from there is checked until a minute has no more of them.
    pub max_failures_per_minute: u32,
    /// Rules for topics, in TOML.
    pub acl_file: Option<FileRef>,
    /// What becomes of what no rule names.
    pub no_match: Permit,
    pub deny_action: DenyAction,
    pub clientid_binding: ClientIdBinding,
    pub jwt: Option<JwtConfig>,
    pub store: StoredAuthConfig,
}

/// `[auth.store]`: users and rules that operators change while the broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuthConfig {
    /// Where the table is.
    place: Place,
    /// Whether users of the store may connect.
    pub users: bool,
    /// Whether rules of the store are asked, after those of the ACL file.
    pub acl: bool,
    pub max_users: usize,
    /// In all lists together.
    pub max_rules: usize,
}

impl Default for StoredAuthConfig {
    fn default() -> Self {
        let (max_users, max_rules) = (100_000, 100_000);
        StoredAuthConfig { place: Place::default(), users: false, acl: false, max_users, max_rules }
    }
}

impl StoredAuthConfig {
    fn read(mut section: Section<'_>) -> StoredAuthConfig {
        let default = StoredAuthConfig::default();
        let config = StoredAuthConfig {
            place: section.own_place(),
            users: section.read("users", default.users),
            acl: section.read("acl", default.acl),
            max_users: section.within("max_users", default.max_users, 1, 10_000_000),
            max_rules: section.within("max_rules", default.max_rules, 1, 10_000_000),
        };
        section.finish();
        config
    }

    /// The mistake of asking a store that there is not.
    pub(super) fn without_store(&self, durability: Durability) -> Option<ConfigError> {
        let asked = (self.users || self.acl) && durability == Durability::Off;
        let reason = "users and rules are kept in the store, and store.durability is \"off\"";
        asked.then(|| {
            self.place.error(reason).suggest("set store.durability, or use auth.password_file and auth.acl_file")
        })
    }
}

/// `[auth.jwt]`: tokens in place of passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// Where the table is.
    pub place: Place,
    pub keys: JwtKeys,
    /// The claim that names the user.
    pub username_claim: String,
    /// The claim that lists topics.
    pub acl_claim: String,
    /// How far the clocks of broker and issuer may be apart.
    pub leeway: Duration,
    /// Claims that must have a value, which may hold placeholders.
    pub verify_claims: Vec<(String, String)>,
}

/// What signatures of tokens are checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// HS256.
    Secret(FileRef),
    /// RS256, ES256 or SM3withSM2, as the key is.
    PublicKey(FileRef),
    /// A JSON Web Key Set.
    Set(FileRef),
}

/// What happens to a client that publishes what it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyAction {
    /// The message is dropped, and an MQTT 5 client told so where it awaits an answer.
    Ignore,
    Disconnect,
}

/// What keeps a client from using the client identifier of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdBinding {
    /// Nothing does.
    Disabled,
    /// A session stays with who opened it.
    Session,
    /// Besides, the identifier must be the verified user name.
    Username,
    /// Besides, the identifier must be the common name of the verified certificate.
    CertCommonName,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            allow_anonymous: false,
            password_file: None,
            max_concurrent_checks: half_the_cores(),
            max_waiting_checks: 256,
            max_waiting_checks_per_address: 64,
            max_failures_per_minute: 60,
            acl_file: None,
            no_match: Permit::Deny,
            deny_action: DenyAction::Ignore,
            clientid_binding: ClientIdBinding::Session,
            jwt: None,
            store: StoredAuthConfig::default(),
        }
    }
}

impl AuthConfig {
    pub(super) fn read(mut section: Section<'_>) -> AuthConfig {
        let default = AuthConfig::default();
        let acl_file = section.file("acl_file");
        let store = StoredAuthConfig::read(section.section("store"));
        let no_match = section.read("no_match", Word(default.no_match)).0;
        let config = AuthConfig {
            allow_anonymous: section.read("allow_anonymous", default.allow_anonymous),
            password_file: section.file("password_file"),
            max_concurrent_checks: section.within("max_concurrent_checks", default.max_concurrent_checks, 1, 1024),
            max_waiting_checks: section.within("max_waiting_checks", default.max_waiting_checks, 0, 65_536),
            max_waiting_checks_per_address: section.within(
                "max_waiting_checks_per_address",
                default.max_waiting_checks_per_address,
                0,
                65_536,
            ),
            max_failures_per_minute: section.within(
                "max_failures_per_minute",
                default.max_failures_per_minute,
                1,
                1_000_000,
            ),
            acl_file,
            no_match,
            deny_action: section.read("deny_action", Word(default.deny_action)).0,
            clientid_binding: section.read("clientid_binding", Word(default.clientid_binding)).0,
            jwt: JwtConfig::read(section.section("jwt")),
            store,
        };
        // Tokens may list topics.
        if config.acl_file.is_none() && !config.store.acl && config.jwt.is_none() && no_match == Permit::Deny {
            section.warn(
                "no_match",
                "nobody may publish or subscribe: there are no rules for topics, and what no rule allows is refused",
                "name a file of rules with acl_file under [auth], set acl = true under [auth.store], or write \
                 no_match = \"allow\" under [auth] to let every client use all topics",
            );
        }
        section.finish();
        config
    }

    /// Whether it says how to tell clients from strangers, or lets these in. Certificates are the business of listeners.
    pub(super) fn lets_clients_in(&self) -> bool {
        self.allow_anonymous || self.password_file.is_some() || self.jwt.is_some() || self.store.users
    }
}

impl JwtConfig {
    fn read(mut section: Section<'_>) -> Option<JwtConfig> {
        if !section.exists() {
            return None;
        }
        let mut keys: Vec<JwtKeys> = Vec::new();
        keys.extend(section.file("secret_file").map(JwtKeys::Secret));
        keys.extend(section.file("public_key_file").map(JwtKeys::PublicKey));
        keys.extend(section.file("jwks_file").map(JwtKeys::Set));
        if keys.len() != 1 {
            let reason = format!("{} files with keys are named, and one is needed", keys.len());
            let suggestion = "name one of secret_file, public_key_file and jwks_file; a set may hold several keys";
            section.report().push(section.own_place().error(reason).suggest(suggestion));
        }
        let claim = |section: &mut Section<'_>, key: &'static str, default: &str| {
            let name = section.read(key, default.to_owned());
            if name.is_empty() {
                section.error(key, "an empty name is no claim", Some(format!("the default is {default}")));
            }
            name
        };
        let username_claim = claim(&mut section, "username_claim", "sub");
        let acl_claim = claim(&mut section, "acl_claim", "acl");
        let config = JwtConfig {
            place: section.own_place(),
            username_claim,
            acl_claim,
            leeway: section.within("leeway", Span(Duration::from_secs(30)), Span(Duration::ZERO), Span(MAX_LEEWAY)).0,
            verify_claims: section.pairs("verify_claims"),
            keys: keys.pop()?,
        };
        section.finish();
        Some(config)
    }
}

/// A token that expired longer ago is expired by any clock.
const MAX_LEEWAY: Duration = Duration::from_secs(600);

/// So many password checks leave the other half to the clients that are connected.
fn half_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

impl Choice for Permit {
    const WORDS: &'static [(&'static str, Permit)] = &[("allow", Permit::Allow), ("deny", Permit::Deny)];
}

impl Choice for DenyAction {
    const WORDS: &'static [(&'static str, DenyAction)] =
        &[("ignore", DenyAction::Ignore), ("disconnect", DenyAction::Disconnect)];
}

impl Choice for ClientIdBinding {
    const WORDS: &'static [(&'static str, ClientIdBinding)] = &[
        ("session", ClientIdBinding::Session),
        ("username", ClientIdBinding::Username),
        ("cert_common_name", ClientIdBinding::CertCommonName),
        ("disabled", ClientIdBinding::Disabled),
    ];
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::auth::acl::Permit;
    use crate::config::{AuthConfig, Config};

    /// The warnings of a configuration with these lines of `[auth]`.
    fn warnings(auth: &str) -> String {
        let text = format!("{auth}\n[listeners.tcp.default]\nbind = \"127.0.0.1:1883\"\n");
        Config::parse(Path::new("t.toml"), &text, []).unwrap().warnings.join("\n")
    }

    #[test]
    fn what_no_rule_allows_is_refused_unless_the_configuration_says_otherwise() {
        for (auth, expected) in [
            ("", Permit::Deny),
            ("[auth]\nallow_anonymous = true", Permit::Deny),
            ("[auth]\npassword_file = 'users'", Permit::Deny),
            ("[auth]\nacl_file = 'rules.toml'", Permit::Deny),
            ("[auth.store]\nacl = true", Permit::Deny),
            ("[auth]\nno_match = 'allow'", Permit::Allow),
            ("[auth]\nacl_file = 'rules.toml'\nno_match = 'allow'", Permit::Allow),
        ] {
            let text = format!("{auth}\n[listeners.tcp.default]\nbind = \"127.0.0.1:1883\"\n");
            assert_eq!(Config::parse(Path::new("t.toml"), &text, []).unwrap().auth.no_match, expected, "{auth}");
        }
        assert_eq!(AuthConfig::default().no_match, Permit::Deny);
        assert_eq!(Config::development().unwrap().auth.no_match, Permit::Allow);
    }

    #[test]
    fn that_nothing_allows_clients_anything_is_said_with_what_to_write() {
        for (auth, place) in [
            ("", Some("configuration")),
            ("[auth]\nallow_anonymous = true", Some("t.toml:1:2")),
            ("[auth]\npassword_file = 'users'", Some("t.toml:1:2")),
            ("[auth]\npassword_file = 'users'\nno_match = 'deny'", Some("t.toml:3:1")),
            ("[auth.store]\nusers = true", Some("t.toml:1:2")),
            ("[auth]\npassword_file = 'users'\nno_match = 'allow'", None),
            ("[auth]\npassword_file = 'users'\nacl_file = 'rules.toml'", None),
            ("[auth.store]\nusers = true\nacl = true", None),
            ("[auth.jwt]\nsecret_file = 'secret'", None),
        ] {
            let found = warnings(auth);
            match place {
                Some(place) => assert!(
                    found.contains(&format!("{place}: auth.no_match: nobody may publish or subscribe: "))
                        && found.contains("write no_match = \"allow\" under [auth]"),
                    "{auth}: {found}"
                ),
                None => assert_eq!(found, "", "{auth}"),
            }
        }
    }

    #[test]
    fn that_nobody_may_connect_is_said_with_what_to_write() {
        let auths = ["", "[auth]\nallow_anonymous = false", "[auth]\nacl_file = 'rules.toml'"];
        let listener = "[listeners.ssl.a]\nbind = 8883\n[listeners.ssl.a.ssl_options]\ncertfile = 'c'\nkeyfile = 'k'\n";
        for auth in auths {
            let found = warnings(auth);
            assert!(found.contains("auth.allow_anonymous: nobody may connect: "), "{auth}: {found}");
            assert!(found.contains("write allow_anonymous = true under [auth]"), "{auth}: {found}");
            let certified = format!("{auth}\n{listener}verify = 'verify_peer'\ncacertfile = 'ca'\n");
            assert!(!warnings(&certified).contains("nobody may connect"), "{auth}");
            assert!(warnings(&format!("{auth}\n{listener}")).contains("nobody may connect"), "{auth}");
        }
        for auth in
            ["allow_anonymous = true", "password_file = 'u'", "store = { users = true }", "jwt = { secret_file = 's' }"]
        {
            let found = warnings(&format!("[auth]\n{auth}"));
            assert!(!found.contains("nobody may connect"), "{auth}: {found}");
        }
    }
}
