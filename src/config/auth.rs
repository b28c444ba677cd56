//! `[auth]`: who may connect.

use super::section::{FileRef, Section};

/// `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// Whether a client that shows neither a password nor a verified certificate may connect.
    pub allow_anonymous: bool,
    /// Lines `user:hash` written by `shangmq passwd`.
    pub password_file: Option<FileRef>,
    /// Password checks computed at once; further clients wait within their CONNECT deadline.
    pub max_concurrent_checks: usize,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig { allow_anonymous: false, password_file: None, max_concurrent_checks: 4 }
    }
}

impl AuthConfig {
    pub(super) fn read(mut section: Section<'_>) -> AuthConfig {
        let default = AuthConfig::default();
        let config = AuthConfig {
            allow_anonymous: section.read("allow_anonymous", default.allow_anonymous),
            password_file: section.file("password_file"),
            max_concurrent_checks: section.within("max_concurrent_checks", default.max_concurrent_checks, 1, 1024),
        };
        section.finish();
        config
    }
}
