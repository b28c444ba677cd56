//! Changes to a file of pre-shared keys: lines are taken out and added, all others and the comments stay as they are, and the file is
//! replaced in one step, so that a crash leaves the old or the new one.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use zeroize::Zeroizing;

use super::password_file::replace;
use super::psk::{Keys, MAX_IDENTITIES, PskFileError, PskProblem, entry, parse, read};

/// How many identities a change concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PskChanged {
    pub added: usize,
    /// Known before, with another key from now on.
    pub replaced: usize,
    pub removed: usize,
}

/// Identities with their keys that are to be added.
#[derive(Default)]
pub struct NewKeys(pub(super) Keys);

impl fmt::Debug for NewKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKeys").field("identities", &self.0.len()).finish()
    }
}

impl NewKeys {
    /// Those of a file of keys.
    ///
    /// # Errors
    /// As for [`super::PskStore::load`].
    pub fn load(path: &Path) -> Result<NewKeys, PskFileError> {
        Ok(NewKeys(parse(path, &read(path)?)?))
    }

    /// One, with the key that stands alone in a file in hexadecimal.
    ///
    /// # Errors
    /// The file cannot be used, or what is wrong with identity or key.
    pub fn single(identity: &str, key_file: &Path) -> Result<NewKeys, PskFileError> {
        let problem = |problem| PskFileError::Entry { identity: identity.to_owned(), problem };
        let text = read(key_file)?;
        let key = std::str::from_utf8(&text).map_err(|_| problem(PskProblem::Key))?;
        let (identity, key) = entry(identity, key.trim_end_matches(['\r', '\n'])).map_err(problem)?;
        Ok(NewKeys(Keys::from([(identity, key)])))
    }

    /// The identities in order, quoted.
    pub fn identities(&self) -> Vec<String> {
        let mut all: Vec<String> = self.0.keys().map(|identity| format!("{identity:?}")).collect();
        all.sort_unstable();
        all
    }
}

/// Adds identities to a file, or gives them other keys.
///
/// # Errors
/// The file cannot be read or written, or would have too many. Then it stays as it was.
pub fn add_keys(path: &Path, new: &NewKeys) -> Result<PskChanged, PskFileError> {
    let old = read(path)?;
    let known = parse(path, &old)?;
    let replaced = new.0.keys().filter(|identity| known.contains_key(*identity)).count();
    let added = new.0.len().saturating_sub(replaced);
    if known.len().saturating_add(added) > MAX_IDENTITIES {
        return Err(PskFileError::Full { path: path.to_owned() });
    }
    drop(known);
    write(path, &edited(&old, |identity| new.0.contains_key(identity), &new.0))?;
    Ok(PskChanged { added, replaced, removed: 0 })
}

/// Takes an identity out of a file; whether it was there.
///
/// # Errors
/// The file cannot be read or written. Then it stays as it was.
pub fn remove_key(path: &Path, identity: &str) -> Result<PskChanged, PskFileError> {
    let old = read(path)?;
    if !parse(path, &old)?.contains_key(identity) {
        return Ok(PskChanged::default());
    }
    write(path, &edited(&old, |known| known == identity, &Keys::new()))?;
    Ok(PskChanged { removed: 1, ..PskChanged::default() })
}

/// The text without some identities, and with others at its end.
fn edited(old: &[u8], gone: impl Fn(&str) -> bool, add: &Keys) -> Zeroizing<Vec<u8>> {
    let room: usize = add.iter().map(|(identity, key)| identity.len() + 2 + 2 * key.len()).sum();
    // Reserved at once: a buffer that grew would leave copies of keys behind.
    let mut new = Zeroizing::new(Vec::with_capacity(old.len() + 1 + room));
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        let identity = std::str::from_utf8(line).ok().filter(|line| !line.starts_with('#'));
        let identity = identity.and_then(|line| line.split_once(':')).map(|(identity, _)| identity);
        if !identity.is_some_and(&gone) {
            new.extend_from_slice(line);
        }
    }
    if new.last().is_some_and(|last| *last != b'\n') {
        new.push(b'\n');
    }
    let mut added: Vec<_> = add.iter().collect();
    added.sort_unstable_by_key(|(identity, _)| *identity);
    for (identity, key) in added {
        let mut hex = Zeroizing::new(vec![0; 2 * key.len()]);
        // The buffer has the length that is asked for.
        if let Ok(hex) = base16ct::lower::encode(key, &mut hex) {
            new.extend_from_slice(identity.as_bytes());
            new.push(b':');
            new.extend_from_slice(hex);
            new.push(b'\n');
        }
    }
    new
}

/// Replaces the file that a link leads to, and not the link.
fn write(path: &Path, text: &[u8]) -> Result<(), PskFileError> {
    let failed = |error| PskFileError::Io { path: path.to_owned(), error };
    let path = fs::canonicalize(path).map_err(failed)?;
    replace(&path, text).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    fn file(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn lines_come_and_go_and_the_others_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "psk", &format!("# b:comment\n\nb:{KEY}\na:{KEY}"));
        let other = KEY.replace("00", "FF");
        let key = file(dir.path(), "key", &format!("{other}\n"));
        let changed = add_keys(&path, &NewKeys::single("b", &key).unwrap()).unwrap();
        assert_eq!(changed, PskChanged { replaced: 1, ..PskChanged::default() });
        let more = file(dir.path(), "more", &format!("d:{KEY}\nc:{KEY}\n"));
        assert_eq!(add_keys(&path, &NewKeys::load(&more).unwrap()).unwrap().added, 2);
        assert_eq!(remove_key(&path, "a").unwrap().removed, 1);
        assert_eq!(remove_key(&path, "a").unwrap().removed, 0);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# b:comment\n\nb:{}\nc:{KEY}\nd:{KEY}\n", other.to_lowercase()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("psk", &link).unwrap();
        assert_eq!(remove_key(&link, "c").unwrap().removed, 1);
        assert!(link.is_symlink() && !fs::read_to_string(&path).unwrap().contains("c:"));
    }

    #[test]
    fn what_is_wrong_changes_nothing_and_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "psk", &format!("a:{KEY}\n"));
        let key = file(dir.path(), "key", KEY);
        let short = file(dir.path(), "short", "0011");
        assert!(NewKeys::single("a:b", &key).err().unwrap().to_string().contains("`a:b`: the identity is not"));
        let refused = NewKeys::single("b", &short).err().unwrap().to_string();
        assert!(refused.contains("`b`: the key is not") && !refused.contains("0011"), "{refused}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(NewKeys::single("b", &key).err().unwrap().to_string().contains("chmod 600"));
        file(dir.path(), "psk", "broken\n");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(add_keys(&path, &NewKeys::single("b", &key).unwrap()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "broken\n");
    }
}
