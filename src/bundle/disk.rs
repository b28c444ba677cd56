//! Bundles on the disk. A version is one file, written whole under another name and then renamed, so that a crash leaves the versions
//! that were there, and perhaps the new one. Nothing that is in force is ever changed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use gm_tls::key::PrivateKey;
use gm_tls::seal::{KEY_BYTES, SealKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::check::{certificates, check, key};
use super::{BundleError, BundleId, BundleInfo, Candidate, Part, Parts, check_name};

/// Bundles of a node, in all namespaces.
pub const MAX_BUNDLES: usize = 10_000;
/// Versions kept of a bundle, the one in force among them.
pub const MAX_VERSIONS: usize = 8;
/// Largest file of a version.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// What is known of a version that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionInfo {
    pub version: u32,
    /// When it was put there, unix seconds.
    pub created: i64,
    pub in_force: bool,
}

/// The contents of a version's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    created: i64,
    certificates: BTreeMap<String, String>,
    /// Secrets by part, sealed; absent without any.
    sealed: Option<String>,
}

const FORMAT: u32 = 1;
/// A version that is not in force yet.
const STAGED: &str = "new";

/// The bundles of a node.
#[derive(Debug, Clone)]
pub struct Bundles {
    root: PathBuf,
    /// Read instead of what is in force under its name.
    candidate: Option<Arc<Candidate>>,
}

impl Bundles {
    /// Those in a data directory. Nothing is read or made yet.
    pub fn in_data_dir(data_dir: &Path) -> Bundles {
        Bundles { root: data_dir.join("bundles"), candidate: None }
    }

    /// The same ones with a candidate in its place, for whoever tries how that would be.
    #[must_use]
    pub(crate) fn trying(self, candidate: Option<&Arc<Candidate>>) -> Bundles {
        Bundles { candidate: candidate.cloned(), ..self }
    }

    /// The file with the key that seals the secrets of all bundles.
    pub(crate) fn node_key_file(&self) -> PathBuf {
        self.root.join("node.key")
    }

    /// The directory of a bundle, which changes when the bundle does.
    pub fn directory(&self, id: &BundleId) -> PathBuf {
        match id.namespace() {
            Some(namespace) => self.root.join("ns").join(namespace).join(id.name()),
            None => self.root.join("global").join(id.name()),
        }
    }

    /// Puts a bundle there, or a new version in the place of the one in force.
    ///
    /// # Errors
    /// [`BundleError::Faulty`] with everything that is wrong with it, or what kept it from being written.
    pub fn put(&self, id: &BundleId, parts: &Parts, now: i64) -> Result<BundleInfo, BundleError> {
        self.put_if(id, parts, now, || Ok(()))
    }

    /// As [`put`](Self::put), if whoever uses the bundle can do with it. While `fits` looks, a running broker finds it by
    /// [`staged`](Self::staged).
    ///
    /// # Errors
    /// As for [`put`](Self::put), and what `fits` says. Then the version in force stays.
    pub fn put_if<E: From<BundleError>>(
        &self,
        id: &BundleId,
        parts: &Parts,
        now: i64,
        fits: impl FnOnce() -> Result<(), E>,
    ) -> Result<BundleInfo, E> {
        // Before the lock, which others may wait for.
        check(parts, now).map_err(BundleError::Faulty)?;
        self.replace(&self.lock()?, id, parts, now, fits)
    }

    /// Puts an earlier version in force again, as a new one, if it is good today and whoever uses the bundle can do with it; `fits` looks as
    /// in [`put_if`](Self::put_if). Nothing changes the bundle between reading the version and putting it in force.
    ///
    /// # Errors
    /// There is none such, or as for [`put_if`](Self::put_if).
    pub fn restore_if<E: From<BundleError>>(
        &self,
        id: &BundleId,
        version: u32,
        now: i64,
        fits: impl FnOnce(&Arc<Candidate>) -> Result<(), E>,
    ) -> Result<BundleInfo, E> {
        let lock = self.lock()?;
        if !self.numbers(id)?.contains(&version) {
            return Err(BundleError::NoVersion { id: id.clone(), version }.into());
        }
        let candidate = Arc::new(Candidate { id: id.clone(), parts: self.read(id, version)?.1 });
        check(&candidate.parts, now).map_err(BundleError::Faulty)?;
        self.replace(&lock, id, &candidate.parts, now, || fits(&candidate))
    }

    /// Puts checked parts in force while the lock is held.
    fn replace<E: From<BundleError>>(
        &self,
        _lock: &File,
        id: &BundleId,
        parts: &Parts,
        now: i64,
        fits: impl FnOnce() -> Result<(), E>,
    ) -> Result<BundleInfo, E> {
        let versions = self.numbers(id)?;
        if versions.is_empty() && self.all()?.len() >= MAX_BUNDLES {
            return Err(BundleError::TooMany.into());
        }
        self.stage(id, parts, now)?;
        if let Err(unfit) = fits() {
            self.unstage(id)?;
            return Err(unfit);
        }
        self.commit(id, versions.last().map_or(1, |last| last.saturating_add(1)))?;
        Ok(self.show(id)?)
    }

    /// What somebody is about to put in force.
    ///
    /// # Errors
    /// There is nothing, or it cannot be read.
    pub fn staged(&self, id: &BundleId) -> Result<Candidate, BundleError> {
        let (_, parts) = self.read_file(id, self.directory(id).join(STAGED))?;
        Ok(Candidate { id: id.clone(), parts })
    }

    /// The bundle in force, without its secrets.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn show(&self, id: &BundleId) -> Result<BundleInfo, BundleError> {
        let version = self.current(id)?;
        let (created, parts) = self.read(id, version)?;
        let mut info = BundleInfo {
            id: id.clone(),
            version,
            created,
            certificates: Vec::new(),
            secrets: parts.iter().map(|(part, _)| part).filter(|part| part.is_secret()).collect(),
        };
        for (part, text) in parts.iter().filter(|(part, _)| !part.is_secret()) {
            let damaged = |reason| BundleError::Damaged { path: self.file(id, version), reason };
            info.certificates.push((part, certificates(part, text).map_err(damaged)?));
        }
        Ok(info)
    }

    /// The names of all bundles, in order.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn all(&self) -> Result<Vec<BundleId>, BundleError> {
        let mut found = Vec::new();
        for name in names_in(&self.root.join("global"))? {
            found.extend(BundleId::new(None, &name).ok());
        }
        for namespace in names_in(&self.root.join("ns"))? {
            // What is no namespace is none of ours, and may be no directory.
            if check_name(&namespace).is_err() {
                continue;
            }
            for name in names_in(&self.root.join("ns").join(&namespace))? {
                found.extend(BundleId::new(Some(&namespace), &name).ok());
            }
        }
        // A directory without a version is what a crash left of a bundle's first, and what is no directory is none of ours.
        found.retain(|id| match self.numbers(id) {
            Ok(versions) => !versions.is_empty(),
            Err(BundleError::Io { error, .. }) => error.kind() != io::ErrorKind::NotADirectory,
            Err(_) => true,
        });
        found.sort();
        Ok(found)
    }

    /// The versions that are kept of a bundle, the oldest first.
    ///
    /// # Errors
    /// There is no such bundle, or it cannot be read.
    pub fn versions(&self, id: &BundleId) -> Result<Vec<VersionInfo>, BundleError> {
        let current = self.current(id)?;
        let mut found = Vec::new();
        for version in self.numbers(id)? {
            let created = self.stored(&self.file(id, version))?.created;
            found.push(VersionInfo { version, created, in_force: version == current });
        }
        Ok(found)
    }

    /// Deletes a bundle with all its versions. `users` are those who refer to it, in words for the operator.
    ///
    /// # Errors
    /// [`BundleError::InUse`] while there are any.
    pub fn delete(&self, id: &BundleId, users: Vec<String>) -> Result<(), BundleError> {
        let _lock = self.lock()?;
        self.current(id)?;
        if !users.is_empty() {
            return Err(BundleError::InUse { id: id.clone(), users });
        }
        let directory = self.directory(id);
        self.check_way(&directory)?;
        // The newest last: whatever stops this, what is left is not an older version in force.
        for version in self.numbers(id)? {
            let file = self.file(id, version);
            fs::remove_file(&file).map_err(failed(&file))?;
        }
        fs::remove_dir_all(&directory).map_err(failed(&directory))?;
        directory.parent().map_or(Ok(()), sync_directory)
    }

    /// The text of a part of the bundle in force; secrets too, for whoever serves connections with them.
    pub(crate) fn part(&self, id: &BundleId, part: Part) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        self.look(id, |parts| match parts.get(part) {
            Some(text) => Ok(Zeroizing::new(text.to_vec())),
            None => Err(BundleError::NoPart { id: id.clone(), part, has: parts.names() }),
        })
    }

    /// A private key of the bundle in force.
    pub(crate) fn private_key(&self, id: &BundleId, part: Part) -> Result<PrivateKey, BundleError> {
        self.look(id, |parts| {
            if parts.get(part).is_none() {
                return Err(BundleError::NoPart { id: id.clone(), part, has: parts.names() });
            }
            key(parts, part).map_err(|reason| BundleError::Damaged { path: self.directory(id), reason })
        })
    }

    /// Looks at the candidate, or else at the bundle in force.
    fn look<T>(&self, id: &BundleId, at: impl FnOnce(&Parts) -> Result<T, BundleError>) -> Result<T, BundleError> {
        match self.candidate.as_ref().filter(|candidate| candidate.id == *id) {
            Some(candidate) => at(&candidate.parts),
            None => at(&self.load(id)?),
        }
    }

    /// All parts of the bundle in force.
    pub(crate) fn load(&self, id: &BundleId) -> Result<Parts, BundleError> {
        Ok(self.read(id, self.current(id)?)?.1)
    }

    #[cfg(test)]
    pub(super) fn read_version(&self, id: &BundleId, version: u32) -> Parts {
        self.read(id, version).unwrap().1
    }

    fn current(&self, id: &BundleId) -> Result<u32, BundleError> {
        self.numbers(id)?.last().copied().ok_or_else(|| BundleError::Missing(id.clone()))
    }

    /// Versions there are, in order.
    fn numbers(&self, id: &BundleId) -> Result<Vec<u32>, BundleError> {
        let mut numbers: Vec<u32> = names_in(&self.directory(id))?
            .iter()
            .filter(|name| name.len() == 8)
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn file(&self, id: &BundleId, version: u32) -> PathBuf {
        self.directory(id).join(format!("{version:08}"))
    }

    fn stored(&self, file: &Path) -> Result<Stored, BundleError> {
        self.check_way(file)?;
        let bytes = read_bounded(file, MAX_FILE_BYTES).map_err(failed(file))?;
        let damaged = |reason: String| BundleError::Damaged { path: file.to_owned(), reason };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(damaged(format!(
                "its format {} is not one that this version of the broker knows",
                stored.format
            )));
        }
        Ok(stored)
    }

    fn read(&self, id: &BundleId, version: u32) -> Result<(i64, Parts), BundleError> {
        self.read_file(id, self.file(id, version))
    }

    fn read_file(&self, id: &BundleId, file: PathBuf) -> Result<(i64, Parts), BundleError> {
        let stored = self.stored(&file)?;
        let damaged = |reason: &str| BundleError::Damaged { path: file.clone(), reason: reason.to_owned() };
        let mut parts = Parts::default();
        for (name, text) in stored.certificates {
            let part =
                Part::from_name(&name).filter(|part| !part.is_secret()).ok_or_else(|| damaged("an unknown part"))?;
            parts.insert(part, Zeroizing::new(text.into_bytes()));
        }
        if let Some(sealed) = stored.sealed {
            let sealed = Base64::decode_vec(&sealed).map_err(|_| damaged("its secrets are not Base64"))?;
            let opened = self.node_key()?.open(context(id).as_bytes(), &sealed);
            let opened = opened.map_err(|cause| damaged(&format!("its secrets cannot be decrypted: {cause}")))?;
            unpack(&opened, &mut parts).ok_or_else(|| damaged("its secrets are not what they should be"))?;
        }
        Ok((stored.created, parts))
    }

    /// Writes what is to become a version, whole, under another name.
    fn stage(&self, id: &BundleId, parts: &Parts, now: i64) -> Result<(), BundleError> {
        let mut stored = Stored { format: FORMAT, created: now, certificates: BTreeMap::new(), sealed: None };
        let mut secrets = Zeroizing::new(Vec::with_capacity(packed_len(parts)));
        for (part, text) in parts.iter() {
            let text = std::str::from_utf8(text)
                .map_err(|_| BundleError::Faulty(vec![super::Fault { part, reason: "is not text".to_owned() }]))?;
            match part.is_secret() {
                true => pack(&mut secrets, part, text),
                false => drop(stored.certificates.insert(part.name().to_owned(), text.to_owned())),
            }
        }
        let library = |cause: &dyn std::fmt::Display| BundleError::Library(cause.to_string());
        if !secrets.is_empty() {
            let sealed = self.node_key()?.seal(context(id).as_bytes(), &secrets).map_err(|cause| library(&cause))?;
            stored.sealed = Some(Base64::encode_string(&sealed));
        }
        let bytes = serde_json::to_vec(&stored).map_err(|cause| library(&cause))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
            return Err(BundleError::TooLarge { bytes: bytes.len() });
        }
        let directory = self.directory(id);
        make_directory(&directory).map_err(failed(&directory))?;
        self.check_way(&directory)?;
        // The parents are new with the first bundle, up to the directory that all are in.
        for parent in directory.ancestors().skip(1) {
            sync_directory(parent)?;
            if Some(parent) == self.root.parent() {
                break;
            }
        }
        let staged = directory.join(STAGED);
        write_whole(&staged, &bytes).map_err(failed(&staged))
    }

    /// Puts what was staged in force.
    fn commit(&self, id: &BundleId, version: u32) -> Result<(), BundleError> {
        let (directory, file) = (self.directory(id), self.file(id, version));
        fs::rename(directory.join(STAGED), &file).map_err(failed(&file))?;
        sync_directory(&directory)?;
        self.forget_oldest(id)
    }

    /// Gives up what was staged.
    fn unstage(&self, id: &BundleId) -> Result<(), BundleError> {
        let staged = self.directory(id).join(STAGED);
        fs::remove_file(&staged).map_err(failed(&staged))
    }

    /// Deletes the versions beyond those that are kept.
    fn forget_oldest(&self, id: &BundleId) -> Result<(), BundleError> {
        let numbers = self.numbers(id)?;
        for version in numbers.iter().take(numbers.len().saturating_sub(MAX_VERSIONS)) {
            let file = self.file(id, *version);
            fs::remove_file(&file).map_err(failed(&file))?;
        }
        Ok(())
    }

    /// The key of this node, made when there is none.
    fn node_key(&self) -> Result<SealKey, BundleError> {
        let path = self.node_key_file();
        let refused = |reason: String| BundleError::NodeKey { path: path.clone(), reason };
        self.check_way(&self.root)?;
        match File::open(&path) {
            Ok(file) => {
                let metadata = file.metadata().map_err(failed(&path))?;
                if let Some(owner) = gm_tls::stranger(&metadata) {
                    return Err(refused(format!(
                        "belongs to user {owner}, who is neither the user of this process nor root"
                    )));
                }
                let mode = metadata.permissions().mode() & 0o7777;
                if mode & 0o077 != 0 {
                    return Err(refused(format!("can be read by others (mode {mode:04o}); run `chmod 600` on it")));
                }
                let mut bytes = Zeroizing::new([0; KEY_BYTES]);
                let mut file = file;
                file.read_exact(&mut *bytes)
                    .map_err(|_| refused("is not a key of a node; was it damaged?".to_owned()))?;
                Ok(SealKey::from_bytes(*bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.all()?.is_empty() {
                    let reason = "is missing, and without it the keys of the bundles that are there cannot be read; \
                                  bring it back from a backup, or delete the directory and put the bundles there again";
                    return Err(refused(reason.to_owned()));
                }
                let key = SealKey::generate().map_err(|cause| BundleError::Library(cause.to_string()))?;
                make_directory(&self.root).map_err(failed(&self.root))?;
                replace(&self.root.join("node.key.new"), &path, key.as_bytes()).map_err(failed(&path))?;
                sync_directory(&self.root)?;
                Ok(key)
            }
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Looks at whose everything is from the data directory down to a file, as far as it is there. The mode of the data directory is that of
    /// its volume: whoever may change it can take bundles away, and cannot put others there that would belong to this user or root.
    fn check_way(&self, file: &Path) -> Result<(), BundleError> {
        let (user, data_dir) = (rustix::process::geteuid().as_raw(), self.root.parent());
        for place in file.ancestors() {
            let found = |result: io::Result<fs::Metadata>| match result {
                Ok(metadata) => Ok(Some(metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(place)(error)),
            };
            let is_data_dir = Some(place) == data_dir;
            // Of a link both count: who made it, and where it leads.
            if !is_data_dir && let Some(itself) = found(fs::symlink_metadata(place))? {
                check_owner(user, itself.uid(), place)?;
            }
            if let Some(there) = found(fs::metadata(place))? {
                check_owner(user, there.uid(), place)?;
                if !is_data_dir {
                    check_mode(there.permissions().mode(), place)?;
                }
            }
            if is_data_dir {
                break;
            }
        }
        Ok(())
    }

    /// Keeps two programs from changing bundles at once, for as long as it is held.
    fn lock(&self) -> Result<File, BundleError> {
        let path = self.root.join("lock");
        self.check_way(&path)?;
        make_directory(&self.root).map_err(failed(&self.root))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed(&path))?;
        file.lock().map_err(failed(&path))?;
        Ok(file)
    }
}

/// What is on the way to a file of a bundle must not be others' to change: they could put an earlier bundle in its place, or lead what is
/// written elsewhere. What root makes in the directory of another user, that user's broker could not read.
pub(super) fn check_owner(user: u32, owner: u32, path: &Path) -> Result<(), BundleError> {
    let path = path.to_owned();
    match owner {
        owner if owner == user || owner == 0 => Ok(()),
        owner if user == 0 => Err(BundleError::OtherUser { path, owner }),
        owner => Err(BundleError::Exposed {
            path,
            reason: format!("belongs to user {owner}, who is neither the user of this process nor root"),
        }),
    }
}

pub(super) fn check_mode(mode: u32, path: &Path) -> Result<(), BundleError> {
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let reason = format!("can be changed by others (mode {:04o}); run `chmod go-w` on it", mode & 0o7777);
    Err(BundleError::Exposed { path: path.to_owned(), reason })
}

/// Secrets one after the other: length and name of the part, length and text. No encoder that leaves copies in memory has part in it.
fn pack(out: &mut Vec<u8>, part: Part, text: &str) {
    let name = part.name().as_bytes();
    out.push(u8::try_from(name.len()).unwrap_or_default());
    out.extend_from_slice(name);
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// No less than all secrets take, so that the buffer never moves.
fn packed_len(parts: &Parts) -> usize {
    parts.iter().map(|(part, text)| 5 + part.name().len() + text.len()).sum()
}

fn unpack(mut packed: &[u8], parts: &mut Parts) -> Option<()> {
    while let Some((&name_len, rest)) = packed.split_first() {
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let part = Part::from_name(std::str::from_utf8(name).ok()?).filter(|part| part.is_secret())?;
        let (len, rest) = rest.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        parts.insert(part, Zeroizing::new(text.to_vec()));
        packed = rest;
    }
    Some(())
}

/// What sealed secrets are bound to: those of one bundle are no use in the file of another.
fn context(id: &BundleId) -> String {
    format!("bundle {}\0{}", id.namespace().unwrap_or_default(), id.name())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> BundleError + use<> {
    let path = path.to_owned();
    move |error| BundleError::Io { path: path.clone(), error }
}

fn names_in(directory: &Path) -> Result<Vec<String>, BundleError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed(directory))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// A file that is whole under its name, or not there. Readable by its owner only.
fn replace(unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(unfinished, bytes)?;
    fs::rename(unfinished, path).inspect_err(|_| drop(fs::remove_file(unfinished)))
}

/// A file with all of this in it, on the disk. There is none after an error.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = written.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    // The first error is the one to report.
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_directory(path: &Path) -> Result<(), BundleError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed(path))
}

fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any bundle"));
    }
    Ok(bytes)
}
