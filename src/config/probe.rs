//! Looks at the files a configuration names, so that `check-config` reports them before a listener fails to start.

use std::fs::{self, File};

use super::listener::ListenerKind;
use super::section::FileRef;
use super::tls::{ClientAuth, IdentityFiles, TlsConfig};
use super::{Config, ConfigError};

/// Every file that is named but cannot be read, and every key or password file that others can read.
pub fn probe_files(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if let Some(file) = &config.auth.password_file {
        errors.extend(probe_private(file));
    }
    for listener in &config.listeners {
        match &listener.kind {
            ListenerKind::Ssl(tls) | ListenerKind::Wss(tls, _) => probe_tls(tls, &mut errors),
            ListenerKind::Tcp | ListenerKind::Ws(_) => {}
        }
    }
    errors
}

fn probe_tls(config: &TlsConfig, errors: &mut Vec<ConfigError>) {
    let mut identities: Vec<&IdentityFiles> = Vec::new();
    let mut trust: Vec<&ClientAuth> = Vec::new();
    if let Some(tls) = &config.tls {
        identities.extend(&tls.identities);
        trust.push(&tls.client_auth);
    }
    if let Some(rfc8998) = &config.rfc8998 {
        identities.push(&rfc8998.identity);
        trust.push(&rfc8998.client_auth);
    }
    if let Some(tlcp) = &config.tlcp {
        identities.extend([&tlcp.sign, &tlcp.enc]);
        trust.push(&tlcp.client_auth);
    }
    for identity in identities {
        errors.extend(probe(&identity.certfile));
        errors.extend(probe_private(&identity.keyfile));
    }
    for file in trust.into_iter().filter_map(ClientAuth::trust) {
        errors.extend(probe(&file.cacertfile));
    }
}

/// A file that must be there and readable.
fn probe(file: &FileRef) -> Option<ConfigError> {
    let path = file.path().display();
    match fs::metadata(file.path()) {
        Err(error) => Some(file.error(format!("{path}: {error}"))),
        Ok(metadata) if !metadata.is_file() => Some(file.error(format!("{path}: not a regular file"))),
        Ok(_) => File::open(file.path()).err().map(|error| file.error(format!("{path}: {error}"))),
    }
}

/// A file that must be readable, by its owner only.
fn probe_private(file: &FileRef) -> Option<ConfigError> {
    probe(file).or_else(|| too_open(file))
}

#[cfg(unix)]
fn too_open(file: &FileRef) -> Option<ConfigError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::metadata(file.path()).ok()?.permissions().mode() & 0o7777;
    let path = file.path().display();
    (mode & 0o077 != 0).then(|| {
        let reason = format!("{path}: others than its owner can use this file (mode {mode:04o})");
        file.error(reason).suggest(format!("chmod 600 {path}"))
    })
}

#[cfg(not(unix))]
fn too_open(_file: &FileRef) -> Option<ConfigError> {
    None
}
