//! Users and password hashes in a file of lines `user:hash`, read whole at start.
//!
//! One bad line refuses the whole file: a file that is half understood would lock users out, or let others in.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::checks::Checks;
use super::password_hash::{HashError, PasswordHash, ScramCredentials};
use super::{Accepted, AuthRequest, Authenticator, Verdict, VerdictFuture};

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
pub struct Users(HashMap<String, Arc<PasswordHash>>);

impl Users {
    /// Reads a file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others than its owner, or has any line that is not understood.
    pub fn load(path: &Path) -> Result<Users, PasswordFileError> {
        let users = parse(path, &read(path)?)?;
        Ok(Users(users.into_iter().map(|(name, hash)| (name, Arc::new(hash))).collect()))
    }

    pub(super) fn get(&self, username: &str) -> Option<&Arc<PasswordHash>> {
        self.0.get(username)
    }

    /// Credentials of those who have them for SCRAM.
    pub(super) fn scram(&self) -> impl Iterator<Item = &ScramCredentials> {
        self.0.values().filter_map(|hash| hash.as_scram())
    }

    #[cfg(test)]
    pub(super) fn parse_for_tests(text: &str) -> Users {
        let users = parse(Path::new("users"), text.as_bytes()).unwrap();
        Users(users.into_iter().map(|(name, hash)| (name, Arc::new(hash))).collect())
    }
}

/// Clients that show a user name and a password.
#[derive(Debug)]
pub struct PasswordFile {
    users: Arc<Users>,
    /// The hash of which a check takes longest. It is checked for users that are not there, and the check of every wrong password takes as
    /// long, so that time does not tell who is there.
    slowest: Option<Arc<PasswordHash>>,
    checks: Arc<Checks>,
}

impl PasswordFile {
    /// Judges by these users; `checks` says whose turn it is.
    pub fn new(users: Arc<Users>, checks: Arc<Checks>) -> PasswordFile {
        let slowest = users.0.values().max_by_key(|hash| hash.work()).cloned();
        PasswordFile { users, slowest, checks }
    }

    async fn check(&self, username: &str, password: &[u8], remote: IpAddr) -> Verdict {
        let permit = match self.checks.turn(remote).await {
            Ok(permit) => permit,
            Err(verdict) => return verdict,
        };
        let known = self.users.get(username).cloned();
        let slowest = self.slowest.clone();
        let password = Zeroizing::new(password.to_vec());
        // The permit moves along: a client that gives up does not make room before its check has ended.
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let most = slowest.as_ref().map_or(0, |hash| hash.work());
            match (known, slowest) {
                (Some(hash), _) => {
                    let matches = hash.verify(&password);
                    if !matches {
                        PasswordHash::spend(most.saturating_sub(hash.work()), &password);
                    }
                    matches
                }
                (None, Some(slowest)) => {
                    // Whether it matches is of no concern: the user is not there.
                    std::hint::black_box(slowest.verify(&password));
                    false
                }
                (None, None) => false,
            }
        });
        match check.await {
            Ok(true) => Verdict::Accept(Accepted { username: Some(username.into()), ..Accepted::default() }),
            Ok(false) => Verdict::Reject,
            Err(_) => Verdict::Unavailable,
        }
    }
}

impl Authenticator for PasswordFile {
    fn verify<'a>(&'a self, request: &'a AuthRequest<'a>) -> VerdictFuture<'a> {
        let remote = request.remote.ip();
        Box::pin(async move {
            match (request.username, request.password) {
                (None, None) => Verdict::Ignore,
                (Some(username), Some(password)) => self.check(username, password, remote).await,
                // Half of a pair is a failed attempt, and costs as much as one.
                (username, password) => {
                    match self.check(username.unwrap_or(""), password.unwrap_or(b""), remote).await {
                        Verdict::Accept(_) => Verdict::Reject,
                        other => other,
                    }
                }
            }
        })
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

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
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

fn check_username(username: &str) -> Result<(), UserNameError> {
    let good = (1..=MAX_USERNAME_BYTES).contains(&username.len())
        && !username.chars().any(|c| c == ':' || c.is_control())
        && !username.starts_with('#')
        && username.trim() == username;
    if good { Ok(()) } else { Err(UserNameError) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::auth::Peer;
    use crate::config::AuthConfig;

    fn one_check() -> Arc<Checks> {
        Arc::new(Checks::new(&AuthConfig { max_concurrent_checks: 1, ..AuthConfig::default() }))
    }

    fn accepted(username: &str) -> Verdict {
        Verdict::Accept(Accepted { username: Some(username.into()), ..Accepted::default() })
    }

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

    fn judge(users: Users) -> PasswordFile {
        PasswordFile::new(Arc::new(users), one_check())
    }

    fn load(text: &[u8]) -> Result<PasswordFile, String> {
        let (dir, path) = file(text);
        Users::load(&path).map(judge).map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    async fn verdict(users: &PasswordFile, username: Option<&str>, password: Option<&str>) -> Verdict {
        let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
        let password = password.map(str::as_bytes);
        users.verify(&AuthRequest { client_id: "c", username, password, peer: &Peer::default(), remote }).await
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_accepted() {
        let users = load(format!("# users\n\nada:{}\r\nbob:{}\n", cheap("a"), cheap("b")).as_bytes()).unwrap();
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, accepted("ada"));
        assert_eq!(verdict(&users, Some("bob"), Some("b")).await, accepted("bob"));
        for (username, password) in [
            (Some("ada"), Some("b")),
            (Some("eve"), Some("a")),
            (Some("ada"), None),
            (None, Some("a")),
            (Some(""), Some("")),
        ] {
            assert_eq!(verdict(&users, username, password).await, Verdict::Reject, "{username:?} {password:?}");
        }
        assert_eq!(verdict(&users, None, None).await, Verdict::Ignore);
    }

    /// Kinds that are fast to check must not show by their answer that the user is there.
    #[tokio::test]
    async fn a_wrong_password_takes_as_long_for_every_user_and_for_none() {
        let fast = "$sha256$prefix$a4d3b1$18188662042c6f4416438fbb414c99a3f074f11f56dbd54a0ba16554452c016f";
        let slow = PasswordHash::derive(b"x", b"0123456789abcdef".to_vec(), 300_000).unwrap();
        let users = load(format!("fast:{fast}\nslow:{slow}\n").as_bytes()).unwrap();
        let mut seconds = Vec::new();
        for user in ["fast", "slow", "nobody"] {
            let begin = std::time::Instant::now();
            assert_eq!(verdict(&users, Some(user), Some("wrong")).await, Verdict::Reject);
            seconds.push(begin.elapsed().as_secs_f64());
        }
        // On a busy machine the three differ, but not as 1 iteration does from 300,000.
        let shortest = seconds.iter().copied().fold(f64::MAX, f64::min);
        assert!(shortest * 20.0 > seconds[1], "{seconds:?}");
        let begin = std::time::Instant::now();
        assert_eq!(verdict(&users, Some("fast"), Some("correct horse")).await, accepted("fast"));
        assert!(begin.elapsed().as_secs_f64() < seconds[1], "the right password need not wait");
    }

    #[tokio::test]
    async fn an_empty_file_accepts_nobody() {
        let users = load(b"").unwrap();
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, Verdict::Reject);
    }

    #[tokio::test]
    async fn a_check_refuses_when_no_check_can_be_made() {
        let users = load(format!("ada:{}\n", cheap("a")).as_bytes()).unwrap();
        users.checks.close();
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, Verdict::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_waits_while_too_many_are_computed() {
        let users = load(format!("ada:{}\n", cheap("a")).as_bytes()).unwrap();
        let busy = users.checks.turn(IpAddr::from([192, 0, 2, 9])).await.unwrap();
        let waiting = verdict(&users, Some("ada"), Some("a"));
        assert!(tokio::time::timeout(std::time::Duration::from_secs(3600), waiting).await.is_err());
        drop(busy);
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, accepted("ada"));
        assert_eq!(users.checks.idle(), 1);
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

    #[tokio::test]
    async fn setting_a_password_makes_the_file_adds_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        set_password(&path, "ada", &cheap("old")).unwrap();
        set_password(&path, "bob", &cheap("b")).unwrap();
        set_password(&path, "ada", &cheap("new")).unwrap();
        let users = judge(Users::load(&path).unwrap());
        assert_eq!(users.users.0.len(), 2);
        assert_eq!(verdict(&users, Some("ada"), Some("new")).await, accepted("ada"));
        assert_eq!(verdict(&users, Some("ada"), Some("old")).await, Verdict::Reject);
        assert_eq!(verdict(&users, Some("bob"), Some("b")).await, accepted("bob"));
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
        assert_eq!(Users::load(&path).unwrap().0.len(), 64);
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
