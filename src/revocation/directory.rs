//! Where uploaded lists are kept, each in a file of its name. A change is on the disk, with the directory, when it is said to be done; one
//! that failed leaves what was there before, in the directory as in the memory of who asked for it. While a list is replaced or removed
//! the one before is kept under another name, and whatever stops the change there, the next start finds it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::files::{MAX_UPLOADS, UploadError};

/// Files with uploaded lists end so.
const EXTENSION: &str = "crl";
/// Lists whose change is not finished end so.
const BEFORE: &str = ".before";

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Makes the names in a directory durable.
    sync: fn(&Path) -> io::Result<()>,
    /// Gives a file a second name.
    link: fn(&Path, &Path) -> io::Result<()>,
}

impl Directory {
    pub fn new(path: PathBuf) -> Directory {
        let link = |file: &Path, other: &Path| fs::hard_link(file, other);
        Directory { path, sync: |path| File::open(path)?.sync_all(), link }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of lists, after changes that were not finished are undone.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = || match fs::read_dir(&self.path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            entries => entries.map(Some),
        };
        let paths = |entries: fs::ReadDir| entries.map(|entry| Ok(entry?.path()));
        let Some(left) = entries()? else { return Ok(Vec::new()) };
        for name in self.readable(paths(left), |path| changing(path).is_some()).iter().filter_map(|path| changing(path))
        {
            let (file, before, _) = self.paths(name);
            match settle(&file, &before) {
                Ok(false) => {}
                Ok(true) => warn!(
                    path = %file.display(),
                    "an uploaded revocation list is put back: it was being replaced or removed, which was not finished"
                ),
                Err(cause) => error!(
                    path = %file.display(), before = %before.display(), %cause,
                    "an uploaded revocation list whose change was not finished cannot be put back"
                ),
            }
        }
        let Some(lists) = entries()? else { return Ok(Vec::new()) };
        Ok(self.readable(paths(lists), |path| path.extension().is_some_and(|extension| extension == EXTENSION)))
    }

    /// The paths that are asked for, without those that cannot be read.
    fn readable(
        &self,
        paths: impl Iterator<Item = io::Result<PathBuf>>,
        asked: impl Fn(&Path) -> bool,
    ) -> Vec<PathBuf> {
        let readable = paths.filter_map(|path| {
            path.inspect_err(|cause| {
                error!(path = %self.path.display(), %cause, "an entry of the directory of uploaded revocation lists cannot be read");
            })
            .ok()
        });
        readable.filter(|path| asked(path)).take(MAX_UPLOADS).collect()
    }

    /// Writes a file, in the place of the one that had the name.
    pub fn keep(&self, name: &str, contents: &[u8]) -> Result<(), UploadError> {
        let (file, _, part) = self.paths(name);
        let written = (|| {
            if !self.path.is_dir() {
                fs::create_dir_all(&self.path)?;
                // The directory is as durable as what is put into it.
                self.path.parent().map_or(Ok(()), self.sync)?;
            }
            let mut unfinished = File::create(&part)?;
            unfinished.write_all(contents)?;
            unfinished.sync_all()?;
            self.change(name, |file, before| self.link_or_copy(file, before), |file| fs::rename(&part, file))
        })();
        // It is no list by its name; the next change writes over it.
        let _left = fs::remove_file(&part);
        written.map_err(|cause| UploadError::Write { path: file, cause })
    }

    /// Removes a file, or sees that it is gone.
    pub fn remove(&self, name: &str) -> Result<(), UploadError> {
        let (file, ..) = self.paths(name);
        match self.change(name, |file, before| fs::rename(file, before), |_| Ok(())) {
            Ok(()) => {
                if let Err(cause) = (self.sync)(&self.path) {
                    warn!(path = %file.display(), %cause, "the removed revocation list is back if the machine stops now");
                }
                Ok(())
            }
            Err(cause) => Err(UploadError::Remove { path: file, cause }),
        }
    }

    /// Changes the file of a name. The one before is set aside, and given up when the change is on the disk.
    fn change(
        &self,
        name: &str,
        set_aside: impl FnOnce(&Path, &Path) -> io::Result<()>,
        change: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let (file, before, _) = self.paths(name);
        settle(&file, &before)?;
        let had = was_there(set_aside(&file, &before))?;
        let changed = change(&file).and_then(|()| (self.sync)(&self.path));
        let changed = changed.and_then(|()| was_there(fs::remove_file(&before)).map(|_| ()));
        changed.inspect_err(|_| {
            // The first error is the one to report.
            let back = if had { fs::rename(&before, &file) } else { was_there(fs::remove_file(&file)).map(|_| ()) };
            if let Err(cause) = back {
                error!(path = %file.display(), %cause, "the change of an uploaded revocation list failed and cannot be undone");
            }
        })
    }

    /// Keeps a file under another name as well: by a link, or where the file system has none or forbids it, by a copy.
    fn link_or_copy(&self, file: &Path, other: &Path) -> io::Result<()> {
        match (self.link)(file, other) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                fs::copy(file, other)?;
                // To be written, since some systems sync nothing else.
                File::options().write(true).open(other)?.sync_all()
            }
            linked => linked,
        }
    }

    /// The file of a name, and what it is called while it is changed and while it is not whole.
    fn paths(&self, name: &str) -> (PathBuf, PathBuf, PathBuf) {
        let path = |name: String| self.path.join(name);
        (path(format!("{name}.{EXTENSION}")), path(format!(".{name}{BEFORE}")), path(format!(".{name}.part")))
    }
}

/// The name of the list that was set aside in a file.
fn changing(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(BEFORE)
}

/// Ends a change that was not finished: what was set aside is put back, or given up where another list is in its place. Whether it was
/// put back.
fn settle(file: &Path, before: &Path) -> io::Result<bool> {
    if file.is_file() {
        return was_there(fs::remove_file(before)).map(|_| false);
    }
    was_there(fs::rename(before, file))
}

/// Whether there was a file for what was done with it.
fn was_there(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(place: &tempfile::TempDir) -> Directory {
        Directory::new(place.path().join("crl"))
    }

    fn contents(directory: &Directory) -> Vec<Vec<u8>> {
        directory.files().unwrap().into_iter().map(|file| fs::read(file).unwrap()).collect()
    }

    // The file was gone, the list still in use, and the next start knew nothing of what it had revoked.
    #[test]
    fn a_change_whose_directory_cannot_be_synced_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let good = directory(&place);
        let failing = Directory { sync: |_| Err(io::Error::other("the disk is gone")), ..directory(&place) };
        good.keep("bank", b"first").unwrap();
        let refused = failing.remove("bank").unwrap_err().to_string();
        assert!(refused.contains("cannot remove") && refused.contains("bank.crl: the disk is gone"), "{refused}");
        assert_eq!(contents(&good), [b"first"]);
        let refused = failing.keep("bank", b"second").unwrap_err().to_string();
        assert!(refused.contains("cannot write") && refused.contains("bank.crl: the disk is gone"), "{refused}");
        assert_eq!(contents(&good), [b"first"]);
        failing.keep("other", b"third").unwrap_err();
        assert_eq!(contents(&good), [b"first"]);
        good.keep("bank", b"second").unwrap();
        assert_eq!(contents(&good), [b"second"]);
        good.remove("bank").unwrap();
        good.remove("bank").unwrap();
        assert_eq!(fs::read_dir(place.path().join("crl")).unwrap().count(), 0);
    }

    // No list could be replaced on file systems without links, nor one of another user where links to those are forbidden.
    #[test]
    fn lists_are_replaced_and_put_back_where_links_are_not_to_be_had() {
        let place = tempfile::tempdir().unwrap();
        let link = |_: &Path, _: &Path| Err(ErrorKind::Unsupported.into());
        let good = Directory { link, ..directory(&place) };
        let failing = Directory { link, sync: |_| Err(io::Error::other("the disk is gone")), ..directory(&place) };
        good.keep("bank", b"first").unwrap();
        good.keep("bank", b"second").unwrap();
        assert_eq!(contents(&good), [b"second"]);
        failing.keep("bank", b"third").unwrap_err();
        assert_eq!(contents(&good), [b"second"]);
        assert_eq!(fs::read_dir(good.path()).unwrap().count(), 1);
    }

    /// As a disk that fails in the middle of a change, after which nothing can be put in the place of the list.
    fn blocked(path: &Path) -> io::Result<()> {
        let file = path.join("bank.crl");
        was_there(fs::remove_file(&file))?;
        fs::create_dir(file)?;
        Err(io::Error::other("the disk is gone"))
    }

    // The only copy of the list was deleted, and the next start knew nothing of what it had revoked.
    #[test]
    fn a_list_that_could_not_be_put_back_is_there_at_the_next_start() {
        for replacing in [true, false] {
            let change = |directory: &Directory| {
                if replacing { directory.keep("bank", b"second") } else { directory.remove("bank") }
            };
            let place = tempfile::tempdir().unwrap();
            let (good, failing) = (directory(&place), Directory { sync: blocked, ..directory(&place) });
            good.keep("bank", b"first").unwrap();
            let refused = change(&failing).unwrap_err().to_string();
            assert!(refused.contains("the disk is gone"), "{refused}");
            // Neither another change nor a start loses it as long as its place is taken.
            change(&good).unwrap_err();
            good.files().unwrap();
            fs::remove_dir(good.path().join("bank.crl")).unwrap();
            assert_eq!(contents(&good), [b"first"]);
            change(&good).unwrap();
        }
    }

    #[test]
    fn a_change_that_fails_leaves_what_one_before_could_not_put_back() {
        let place = tempfile::tempdir().unwrap();
        let good = directory(&place);
        let failing = Directory { sync: |_| Err(io::Error::other("the disk is gone")), ..directory(&place) };
        good.keep("bank", b"first").unwrap();
        fs::rename(good.path().join("bank.crl"), good.path().join(".bank.before")).unwrap();
        failing.keep("bank", b"second").unwrap_err();
        assert_eq!(contents(&good), [b"first"]);
    }

    #[test]
    fn a_start_after_a_kill_has_the_list_whose_change_was_not_finished() {
        let place = tempfile::tempdir().unwrap();
        let good = directory(&place);
        good.keep("bank", b"first").unwrap();
        // In the middle of a removal, and of two replacements.
        fs::rename(good.path().join("bank.crl"), good.path().join(".bank.before")).unwrap();
        assert_eq!(contents(&good), [b"first"]);
        fs::write(good.path().join(".bank.before"), b"fir").unwrap();
        assert_eq!(contents(&good), [b"first"]);
        fs::write(good.path().join(".bank.before"), b"older").unwrap();
        assert_eq!(contents(&good), [b"first"]);
        assert_eq!(fs::read_dir(good.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_removed_list_is_not_back_when_the_machine_stops_then() {
        let place = tempfile::tempdir().unwrap();
        // What is on the disk.
        let sync = |path: &Path| fs::write(path.join("../synced"), fs::read_dir(path)?.count().to_string());
        let good = Directory { sync, ..directory(&place) };
        good.keep("bank", b"first").unwrap();
        good.remove("bank").unwrap();
        assert_eq!(fs::read(place.path().join("synced")).unwrap(), b"0");
    }

    // The broker started without any list.
    #[test]
    fn an_entry_that_cannot_be_read_takes_no_list_with_it() {
        let place = tempfile::tempdir().unwrap();
        let entries = [Ok("a.crl"), Err("this one is broken"), Ok("b.crl")];
        let entries = entries.into_iter().map(|entry| entry.map(PathBuf::from).map_err(io::Error::other));
        let read = directory(&place).readable(entries, |_| true);
        assert_eq!(read, [Path::new("a.crl"), Path::new("b.crl")]);
    }
}
