//! `[auth]`: who may connect, and what they may do.

use super::section::{FileRef, Section};
use super::value::{Choice, Word};
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
    /// Rules for topics, in TOML.
    pub acl_file: Option<FileRef>,
    /// What becomes of what no rule names: by default refused where there is an ACL file, and allowed where there is none.
    pub no_match: Permit,
    pub deny_action: DenyAction,
    pub clientid_binding: ClientIdBinding,
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
            max_concurrent_checks: 4,
            acl_file: None,
            no_match: Permit::Allow,
            deny_action: DenyAction::Ignore,
            clientid_binding: ClientIdBinding::Session,
        }
    }
}

impl AuthConfig {
    pub(super) fn read(mut section: Section<'_>) -> AuthConfig {
        let default = AuthConfig::default();
        let acl_file = section.file("acl_file");
        let no_match = if acl_file.is_some() { Permit::Deny } else { default.no_match };
        let config = AuthConfig {
            allow_anonymous: section.read("allow_anonymous", default.allow_anonymous),
            password_file: section.file("password_file"),
            max_concurrent_checks: section.within("max_concurrent_checks", default.max_concurrent_checks, 1, 1024),
            acl_file,
            no_match: section.read("no_match", Word(no_match)).0,
            deny_action: section.read("deny_action", Word(default.deny_action)).0,
            clientid_binding: section.read("clientid_binding", Word(default.clientid_binding)).0,
        };
        section.finish();
        config
    }
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
