//! Users and password hashes in a file of lines `user:hash`, read whole at start.
//!
//! One bad line refuses the whole file: a file that is half understood would lock users out, or let others in.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::password_hash::{HashError, PasswordHash};
use super::passwords::Accounts;

const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_USERNAME_BYTES: usize = 1024;

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    #[error("{}: cannot be read or written", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{}: there is no such file; `shangmq passwd {} USER` makes it with its first user", path.display(), path.display())]
    Missing { path: PathBuf },
    #[error("{}: has no user `{username}`", path.display())]
    NoUser { path: PathBuf, username: String },
    #[error("{}: larger than 64MB", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: others than its owner can use this file (mode {mode:04o}); chmod 600 {}", path.display(), path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{}: belongs to user {owner}, who is neither the user of this process nor root; run `chown` on it", path.display())]
    Stranger { path: PathBuf, owner: u32 },
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: LineProblem },
    #[error(transparent)]
    Username(#[from] UserNameError),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    #[error("not of the form user:hash")]
    NoColon,
    #[error("not UTF-8 text")]
    NotText,
    #[error(transparent)]
    Username(#[from] UserNameError),
    #[error("user `{0}` was already named")]
    Duplicate(String),
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// What cannot be the name of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user name has 1 to 1024 bytes, no colon, no control character, no leading `#` and no space at either end")]
pub struct UserNameError;

/// The users of a password file.
#[derive(Debug, Default)]
pub struct Users {
    hashes: HashMap<String, Arc<PasswordHash>>,
    slowest: Option<Arc<PasswordHash>>,
    scram_iterations: Option<u32>,
}

impl Users {
    /// Reads a file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others than its owner, or has any line that is not understood.
    pub fn load(path: &Path) -> Result<Users, PasswordFileError> {
        Ok(Users::new(parse(path, &read(path)?)?))
    }

    fn new(users: HashMap<String, PasswordHash>) -> Users {
        let hashes: HashMap<_, _> = users.into_iter().map(|(name, hash)| (name, Arc::new(hash))).collect();
        let slowest = hashes.values().max_by_key(|hash| hash.work()).cloned();
        let scram_iterations = hashes.values().filter_map(|hash| hash.as_scram()).map(|one| one.iterations()).max();
        Users { hashes, slowest, scram_iterations }
    }

    /// Every user with what is kept of the password.
    pub fn into_all(self) -> impl Iterator<Item = (String, PasswordHash)> {
        self.hashes.into_iter().map(|(name, hash)| (name, Arc::unwrap_or_clone(hash)))
    }

    #[cfg(test)]
    pub(super) fn parse_for_tests(text: &str) -> Users {
        Users::new(parse(Path::new("users"), text.as_bytes()).unwrap())
    }
}

impl Accounts for Users {
    fn hash(&self, username: &str) -> Option<Arc<PasswordHash>> {
        self.hashes.get(username).cloned()
    }

    fn slowest(&self) -> Option<Arc<PasswordHash>> {
        self.slowest.clone()
    }

    fn scram_iterations(&self) -> Option<u32> {
        self.scram_iterations
    }
}

/// Gives a user a password: replaces its line or adds one. The file is made when it is not there, readable by its owner
/// only, and is replaced in one step, so that a crash leaves the old or the new one.
///
/// # Errors
/// When the file is there but is not a password file, or cannot be written.
pub fn set_password(path: &Path, username: &str, hash: &PasswordHash) -> Result<(), PasswordFileError> {
    check_username(username)?;
    let _alone = alone(path).map_err(|error| PasswordFileError::Io { path: path.to_owned(), error })?;
    let old = match read(path) {
        Ok(bytes) => bytes,
        Err(PasswordFileError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let line = format!("{username}:{hash}\n");
    let (mut new, replaced) = with_line(path, &old, username, &line)?;
    if !replaced {
        new.push_str(&line);
    }
    replace(path, new.as_bytes()).map_err(|error| PasswordFileError::Io { path: path.to_owned(), error })
}

/// Takes a user's line out, and leaves the others and comments as they are; the file is replaced in one step.
///
/// # Errors
/// When there is no such user, or as [`set_password`].
pub fn delete_user(path: &Path, username: &str) -> Result<(), PasswordFileError> {
    check_username(username)?;
    let _alone = alone(path).map_err(|error| PasswordFileError::Io { path: path.to_owned(), error })?;
    let (new, found) = with_line(path, &read(path)?, username, "")?;
    if !found {
        return Err(PasswordFileError::NoUser { path: path.to_owned(), username: username.to_owned() });
    }
    replace(path, new.as_bytes()).map_err(|error| PasswordFileError::Io { path: path.to_owned(), error })
}

/// Waits until no other process changes a file of this directory, and keeps others from it until the result is dropped: two changes at
/// once would both begin with the same text, and one would be lost. The file itself is replaced, so that its lock would hold nobody.
fn alone(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory)?;
    directory.lock()?;
    Ok(directory)
}

/// The file's text with another line for a user, and whether there was one.
fn with_line(path: &Path, old: &[u8], username: &str, line: &str) -> Result<(String, bool), PasswordFileError> {
    parse(path, old)?;
    let text = String::from_utf8_lossy(old);
    let mut new = String::with_capacity(text.len() + line.len() + 1);
    let mut replaced = false;
    for known in text.lines() {
        if known.split_once(':').is_some_and(|(name, _)| name == username) {
            new.push_str(line);
            replaced = true;
        } else {
            new.push_str(known);
            new.push('\n');
        }
    }
    Ok((new, replaced))
}

pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_private(&temporary, bytes)
        .and_then(|()| keep_owner(path, &temporary))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover that cannot be removed is not worse.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// The new file belongs to whom the old one belonged: the broker may run as another user than whoever changes the file, and could
/// not read it any more, so that a deleted user would stay.
#[cfg(unix)]
fn keep_owner(old: &Path, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let old = match std::fs::metadata(old) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let made = std::fs::metadata(new)?;
    if (old.uid(), old.gid()) == (made.uid(), made.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(new, Some(old.uid()), Some(old.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_: &Path, _: &Path) -> io::Result<()> {
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Vec<u8>, PasswordFileError> {
    let failed = |error| PasswordFileError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PasswordFileError::Missing { path: path.to_owned() },
        _ => failed(error),
    })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(owner) = gm_tls::stranger(&metadata) {
            return Err(PasswordFileError::Stranger { path: path.to_owned(), owner });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PasswordFileError::TooOpen { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(PasswordFileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<HashMap<String, PasswordHash>, PasswordFileError> {
    let mut users = HashMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        parse_line(line, &mut users).map_err(|problem| PasswordFileError::Line {
            path: path.to_owned(),
            line: index + 1,
            problem,
        })?;
    }
    Ok(users)
}

fn parse_line(line: &[u8], users: &mut HashMap<String, PasswordHash>) -> Result<(), LineProblem> {
    let line = std::str::from_utf8(line).map_err(|_| LineProblem::NotText)?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (username, hash) = line.split_once(':').ok_or(LineProblem::NoColon)?;
    check_username(username)?;
    let hash = hash.parse()?;
    if users.insert(username.to_owned(), hash).is_some() {
        return Err(LineProblem::Duplicate(username.to_owned()));
    }
    Ok(())
}

pub(super) fn check_username(username: &str) -> Result<(), UserNameError> {
    let good = (1..=MAX_USERNAME_BYTES).contains(&username.len())
        && !username.chars().any(|c| c == ':' || c.is_control())
        && !username.starts_with('#')
        && username.trim() == username;
    if good { Ok(()) } else { Err(UserNameError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(password: &str) -> PasswordHash {
        PasswordHash::derive(password.as_bytes(), b"0123456789abcdef".to_vec(), 1_000).unwrap()
    }

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        write_private(&path, text).unwrap();
        (dir, path)
    }

    /// A file that root changed belonged to root, and the broker could not read it any more.
    #[test]
    #[cfg(unix)]
    fn a_changed_file_belongs_to_whom_it_belonged() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        let (_dir, path) = file(b"old");
        // Only root can give files away; anybody else can change only files that are theirs.
        let given = chown(&path, Some(12_345), Some(12_346)).is_ok();
        let before = std::fs::metadata(&path).unwrap();
        replace(&path, b"new").unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert!(!given || after.uid() == 12_345);
        assert_eq!(after.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    fn load(text: &[u8]) -> Result<Users, String> {
        let (dir, path) = file(text);
        Users::load(&path).map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_is_named() {
        let good = format!("ada:{}\n", cheap("a"));
        let form = "a user name has 1 to 1024 bytes, no colon, no control character, no leading `#` and no space at either end";
        for (line, problem) in [
            (b"bob".to_vec(), "not of the form user:hash"),
            (
                b"bob:secret".to_vec(),
                "not a hash: it begins with $pbkdf2-sm3$, SCRAM-SHA-256$, $2b$, $sha256$prefix$, $sha256$suffix$, $7$ or $6$",
            ),
            (format!(":{}", cheap("b")).into_bytes(), form),
            (format!(" bob:{}", cheap("b")).into_bytes(), form),
            (format!("ada:{}", cheap("b")).into_bytes(), "user `ada` was already named"),
            (b"b\xffb:x".to_vec(), "not UTF-8 text"),
        ] {
            let text = [good.as_bytes(), &line].concat();
            assert_eq!(load(&text).unwrap_err(), format!("/users:2: {problem}"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, path) = file(b"");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Users::load(&path).unwrap_err();
        assert!(matches!(error, PasswordFileError::TooOpen { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn setting_a_password_makes_the_file_adds_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        set_password(&path, "ada", &cheap("old")).unwrap();
        set_password(&path, "bob", &cheap("b")).unwrap();
        set_password(&path, "ada", &cheap("new")).unwrap();
        let users = Users::load(&path).unwrap();
        assert_eq!(users.hashes.len(), 2);
        assert!(users.hash("ada").is_some_and(|hash| hash.verify(b"new") && !hash.verify(b"old")));
        assert!(users.hash("bob").is_some_and(|hash| hash.verify(b"b")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    // Each run read the file, changed its copy and put that in place: of two at once, one was lost.
    #[test]
    fn of_many_changes_at_once_none_is_lost() {
        let (_dir, path) = file(b"");
        let hash = cheap("a");
        let begin = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (path, hash, begin) = (&path, &hash, &begin);
                scope.spawn(move || {
                    begin.wait();
                    for user in 0..8 {
                        set_password(path, &format!("{thread}-{user}"), hash).unwrap();
                        set_password(path, &format!("{thread}-gone"), hash).unwrap();
                        delete_user(path, &format!("{thread}-gone")).unwrap();
                    }
                });
            }
        });
        assert_eq!(Users::load(&path).unwrap().hashes.len(), 64);
    }

    #[test]
    fn a_user_is_deleted_and_the_rest_of_the_file_stays() {
        let hash = cheap("a");
        let text = format!("# people\nada:{hash}\nbob:{hash}\n\n");
        let (dir, path) = file(text.as_bytes());
        delete_user(&path, "ada").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# people\nbob:{hash}\n\n"));
        let gone = delete_user(&path, "ada").unwrap_err();
        assert!(gone.to_string().ends_with("users: has no user `ada`"), "{gone}");
        // A comment that looks like a user is none.
        assert!(delete_user(&path, "# people").is_err());
        let missing = delete_user(&dir.path().join("none"), "ada").unwrap_err().to_string();
        assert!(
            missing.contains("none: there is no such file; `shangmq passwd ") && missing.contains(" USER`"),
            "{missing}"
        );
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn setting_a_password_leaves_a_file_of_another_kind_alone() {
        let (_dir, path) = file(b"[node]\n");
        assert!(set_password(&path, "ada", &cheap("a")).is_err());
        assert!(set_password(&path, "a:b", &cheap("a")).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"[node]\n");
    }
}
