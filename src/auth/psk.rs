//! Pre-shared keys of clients: read from a file, added and removed while the broker runs, never shown.
//!
//! Lines are `identity:hexkey`. The table is one immutable value behind a pointer, so that a handshake never waits for a change. Whether
//! an identity is there is found by a keyed hash: how long that takes tells nothing of names that are nearly right, and keys are not
//! compared here at all, but proved in the handshake.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gm_tls::psk::{MAX_IDENTITY_BYTES, MAX_KEY_BYTES, MIN_KEY_BYTES, PskLookup};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::check_name;
use super::psk_file::NewKeys;

/// Identities of a broker.
pub const MAX_IDENTITIES: usize = 1_000_000;
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PskFileError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: others than its owner can use this file (mode {mode:04o}); chmod 600 {}", path.display(), path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{}: belongs to user {owner}, who is neither the user of this process nor root; run `chown` on it", path.display())]
    Stranger { path: PathBuf, owner: u32 },
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: PskProblem },
    #[error("`{}`: {problem}", identity.escape_default())]
    Entry { identity: String, problem: PskProblem },
    #[error("{}: more than {MAX_IDENTITIES} identities", path.display())]
    Full { path: PathBuf },
}

/// What is wrong with an identity or its key. The key is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PskProblem {
    #[error("not of the form identity:hexkey")]
    Form,
    #[error("the identity is not 1 to {MAX_IDENTITY_BYTES} bytes of readable text without a colon")]
    Identity,
    #[error("the key is not {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in hexadecimal; `openssl rand -hex 32` makes one")]
    Key,
    #[error("the identity was already named")]
    Duplicate,
    #[error("more than {MAX_IDENTITIES} identities")]
    TooMany,
}

pub(super) type Keys = HashMap<Box<str>, Zeroizing<Vec<u8>>>;

/// The keys of a broker.
#[derive(Default)]
pub struct PskStore {
    keys: RwLock<Keys>,
}

impl PskStore {
    /// Reads a file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// It cannot be read, is open to others than its owner, or has any line that is not understood.
    pub fn load(path: &Path) -> Result<PskStore, PskFileError> {
        Ok(PskStore { keys: RwLock::new(parse(path, &read(path)?)?) })
    }

    /// Adds all of these, or gives them these keys; connections that are there go on. Whoever stores them has counted them.
    pub(crate) fn put(&self, new: &NewKeys) {
        let mut keys = self.keys.write();
        keys.extend(new.0.iter().map(|(identity, key)| (identity.clone(), key.clone())));
    }

    /// Removes an identity; whether it was there.
    pub fn remove(&self, identity: &str) -> bool {
        self.keys.write().remove(identity).is_some()
    }

    /// A digest of all that is there, to tell whether it has changed.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let keys = self.keys.read();
        let mut entries: Vec<(&str, &[u8])> = keys.iter().map(|(name, key)| (&**name, key.as_slice())).collect();
        entries.sort_unstable();
        let mut digest = Sha256::new();
        for (name, key) in entries {
            digest.update([u8::try_from(name.len()).unwrap_or_default(), u8::try_from(key.len()).unwrap_or_default()]);
            digest.update(name);
            digest.update(key);
        }
        digest.finalize().into()
    }

    /// The identities, in order. Keys are never given out.
    pub fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = self.keys.read().keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }
}

impl PskLookup for PskStore {
    fn key(&self, identity: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.keys.read().get(identity).cloned()
    }
}

impl fmt::Debug for PskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskStore").field("identities", &self.keys.read().len()).finish()
    }
}

pub(super) fn entry(identity: &str, hex_key: &str) -> Result<(Box<str>, Zeroizing<Vec<u8>>), PskProblem> {
    let fits = (1..=MAX_IDENTITY_BYTES).contains(&identity.len());
    if !fits || identity.contains(':') || identity.trim() != identity || check_name(identity).is_err() {
        return Err(PskProblem::Identity);
    }
    let mut key = Zeroizing::new(vec![0; hex_key.len() / 2]);
    let decoded = base16ct::mixed::decode(hex_key, &mut key).map_err(|_| PskProblem::Key)?.len();
    if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&decoded) {
        return Err(PskProblem::Key);
    }
    Ok((identity.into(), key))
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Keys, PskFileError> {
    let mut keys = Keys::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        parse_line(line, &mut keys).map_err(|problem| PskFileError::Line {
            path: path.to_owned(),
            line: index + 1,
            problem,
        })?;
    }
    Ok(keys)
}

fn parse_line(line: &[u8], keys: &mut Keys) -> Result<(), PskProblem> {
    let line = std::str::from_utf8(line).map_err(|_| PskProblem::Form)?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (identity, key) = line.split_once(':').ok_or(PskProblem::Form)?;
    let (identity, key) = entry(identity, key)?;
    if keys.len() >= MAX_IDENTITIES {
        return Err(PskProblem::TooMany);
    }
    match keys.insert(identity, key) {
        None => Ok(()),
        Some(_) => Err(PskProblem::Duplicate),
    }
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PskFileError> {
    let failed = |error| PskFileError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if let Some(owner) = gm_tls::stranger(&metadata) {
        return Err(PskFileError::Stranger { path: path.to_owned(), owner });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PskFileError::TooOpen { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(failed(io::Error::other("larger than 256MB")));
    }
    // Reserved at once: a buffer that grew would leave copies of keys behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    fn load(text: &str, mode: u32) -> Result<PskStore, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psk");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        PskStore::load(&path).map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let store = load(&format!("# devices\n\nmeter-1:{KEY}\r\n电表:{}\n", KEY.to_uppercase()), 0o600).unwrap();
        assert_eq!(store.list(), ["meter-1", "电表"]);
        assert_eq!(store.key("meter-1").unwrap().len(), 16);
        assert!(store.key("meter-2").is_none());
        for (line, problem) in [
            ("meter", PskProblem::Form),
            (":000102030405060708090a0b0c0d0e0f", PskProblem::Identity),
            (" a:000102030405060708090a0b0c0d0e0f", PskProblem::Identity),
            ("a\u{200b}:000102030405060708090a0b0c0d0e0f", PskProblem::Identity),
            ("b:00", PskProblem::Key),
            ("b:000102030405060708090a0b0c0d0e0", PskProblem::Key),
            ("b:secret secret secret secret secr", PskProblem::Key),
            ("a:000102030405060708090a0b0c0d0e0f", PskProblem::Duplicate),
        ] {
            let error = load(&format!("a:{KEY}\n{line}\n"), 0o600).unwrap_err();
            assert_eq!(error, format!("/psk:2: {problem}"), "{line}");
            assert!(!error.contains("secret secret"));
        }
        let error = load(&format!("{}:{KEY}\n", "a".repeat(129)), 0o600).unwrap_err();
        assert!(error.contains("the identity is not"), "{error}");
        assert!(load(&format!("a:{KEY}\n"), 0o640).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn identities_come_and_go_and_keys_are_never_shown() {
        let store = PskStore::default();
        let put = |identity: &str, key: &str| entry(identity, key).map(|new| store.put(&NewKeys([new].into())));
        put("a", KEY).unwrap();
        put("a", &"ff".repeat(32)).unwrap();
        assert_eq!(store.key("a").unwrap().as_slice(), [0xff; 32]);
        assert_eq!(put("b", "zz"), Err(PskProblem::Key));
        assert_eq!(format!("{store:?}"), "PskStore { identities: 1 }");
        assert!(store.remove("a") && !store.remove("a"));
        assert!(store.key("a").is_none());
    }
}
