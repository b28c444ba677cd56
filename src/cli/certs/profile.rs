//! Profiles: TOML files that say what certificates look like. The three of `gm-certs/` are part of the program.

use std::fs;
use std::path::Path;

use gm_tls::cert::{ExtendedKeyUsage, KeyUsage};
use gm_tls::pki::{AuthorityProfile, Profile};
use serde::Deserialize;

use super::CertsError;

const SERVER: &str = include_str!("../../../gm-certs/server.toml");
const CLIENT: &str = include_str!("../../../gm-certs/client.toml");
const AUTHORITY: &str = include_str!("../../../gm-certs/ca.toml");
/// Largest profile file in bytes.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    days: u32,
    extended_key_usage: Vec<String>,
    key_usage: UsageSection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageSection {
    sign: Vec<String>,
    enc: Vec<String>,
    single: Vec<String>,
    rsa: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityFile {
    days: u32,
    path_len: Option<u32>,
    key_usage: Vec<String>,
}

/// The profile `server`, `client`, or the one in a file.
pub(super) fn load(name: &str) -> Result<Profile, CertsError> {
    let text = match name {
        "server" => SERVER.to_owned(),
        "client" => CLIENT.to_owned(),
        path => read(Path::new(path))?,
    };
    let file: ProfileFile = parse(name, &text)?;
    let mut purposes = ExtendedKeyUsage::default();
    for purpose in &file.extended_key_usage {
        match purpose.as_str() {
            "serverAuth" => purposes.server_auth = true,
            "clientAuth" => purposes.client_auth = true,
            "anyExtendedKeyUsage" => purposes.any = true,
            other => return Err(bad(name, format!("extended_key_usage has no value `{other}`"))),
        }
    }
    Ok(Profile {
        purposes,
        sign_usage: usage(name, &file.key_usage.sign)?,
        enc_usage: usage(name, &file.key_usage.enc)?,
        single_usage: usage(name, &file.key_usage.single)?,
        rsa_usage: usage(name, &file.key_usage.rsa)?,
        ..Profile::server(file.days)
    })
}

/// The profile of an authority: the built-in one, or the one in a file.
pub(super) fn load_authority(path: Option<&Path>) -> Result<AuthorityProfile, CertsError> {
    let (name, text) = match path {
        None => ("ca".to_owned(), AUTHORITY.to_owned()),
        Some(path) => (path.display().to_string(), read(path)?),
    };
    let file: AuthorityFile = parse(&name, &text)?;
    let usage = usage(&name, &file.key_usage)?;
    Ok(AuthorityProfile { usage, ..AuthorityProfile::new(file.days, file.path_len) })
}

fn read(path: &Path) -> Result<String, CertsError> {
    let unreadable = |error| CertsError::Unreadable { path: path.to_owned(), error };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(bad(&path.display().to_string(), format!("it is larger than {MAX_BYTES} bytes")));
    }
    fs::read_to_string(path).map_err(unreadable)
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, text: &str) -> Result<T, CertsError> {
    toml::from_str(text).map_err(|error| bad(name, error.to_string()))
}

fn usage(profile: &str, names: &[String]) -> Result<KeyUsage, CertsError> {
    names.iter().try_fold(KeyUsage::empty(), |all, name| match KeyUsage::from_name(name) {
        Some(bit) => Ok(all.union(bit)),
        None => Err(bad(profile, format!("key_usage has no value `{name}`"))),
    })
}

fn bad(profile: &str, reason: String) -> CertsError {
    CertsError::BadProfile { profile: profile.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_what_the_library_does_by_default() {
        assert_eq!(load("server").unwrap(), Profile::server(825));
        assert_eq!(load("client").unwrap(), Profile::client(825));
        assert_eq!(load_authority(None).unwrap(), AuthorityProfile::new(3650, None));
    }

    #[test]
    fn unknown_keys_and_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        for (from, to, word) in [
            ("days = 825", "days = 825\nday = 1", "day"),
            ("digitalSignature", "digitalsignature", "digitalsignature"),
            ("serverAuth\"]", "serverauth\"]", "serverauth"),
        ] {
            fs::write(&path, SERVER.replace(from, to)).unwrap();
            let error = load(path.to_str().unwrap()).unwrap_err().to_string();
            assert!(error.contains("p.toml") && error.contains(word), "{error}");
        }
    }
}
