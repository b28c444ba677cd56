//! Where uploaded lists are kept, each in a file of its name. A change is on the disk, with the directory, when it is said to be done; one
//! that failed leaves what was there before, in the directory as in the memory of who asked for it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::files::{MAX_UPLOADS, UploadError};

/// Files with uploaded lists end so.
const EXTENSION: &str = "crl";

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Makes the names in a directory durable.
    sync: fn(&Path) -> io::Result<()>,
}

impl Directory {
    pub fn new(path: PathBuf) -> Directory {
        Directory { path, sync: |path| File::open(path)?.sync_all() }
    }

    #[cfg(test)]
    pub fn with_sync(path: PathBuf, sync: fn(&Path) -> io::Result<()>) -> Directory {
        Directory { path, sync }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of lists.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| Ok(entry?.path()));
        let is_list = |path: &PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION);
        paths.filter(|path| path.as_ref().map_or(true, is_list)).take(MAX_UPLOADS).collect()
    }

    /// Writes a file, in the place of the one that had the name.
    pub fn keep(&self, name: &str, contents: &[u8]) -> Result<(), UploadError> {
        let (file, before, part) = self.paths(name);
        let written = (|| {
            if !self.path.is_dir() {
                fs::create_dir_all(&self.path)?;
                // The directory is as durable as what is put into it.
                self.path.parent().map_or(Ok(()), self.sync)?;
            }
            let mut unfinished = File::create(&part)?;
            unfinished.write_all(contents)?;
            unfinished.sync_all()?;
            let had = set_aside(&file, &before, |file, before| fs::hard_link(file, before))?;
            fs::rename(&part, &file)?;
            (self.sync)(&self.path).inspect_err(|_| {
                // The first error is the one to report.
                let _back = if had { fs::rename(&before, &file) } else { fs::remove_file(&file) };
            })
        })();
        // Neither is a list by its name; the next change writes over them.
        let _left = (fs::remove_file(&part), fs::remove_file(&before));
        written.map_err(|cause| UploadError::Write { path: file, cause })
    }

    /// Removes a file, or sees that it is gone.
    pub fn remove(&self, name: &str) -> Result<(), UploadError> {
        let (file, before, _) = self.paths(name);
        let removed = (|| {
            let had = set_aside(&file, &before, |file, before| fs::rename(file, before))?;
            (self.sync)(&self.path).inspect_err(|_| {
                // The first error is the one to report.
                let _back = had.then(|| fs::rename(&before, &file));
            })
        })();
        let _left = fs::remove_file(&before);
        removed.map_err(|cause| UploadError::Remove { path: file, cause })
    }

    /// The file of a name, and what it is called while it is replaced and while it is not whole.
    fn paths(&self, name: &str) -> (PathBuf, PathBuf, PathBuf) {
        let path = |name: String| self.path.join(name);
        (path(format!("{name}.{EXTENSION}")), path(format!(".{name}.before")), path(format!(".{name}.part")))
    }
}

/// Keeps a file under another name; `false` if there is none.
fn set_aside(file: &Path, before: &Path, by: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<bool> {
    let absent = |result: io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    };
    absent(fs::remove_file(before))?;
    absent(by(file, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(directory: &Directory) -> Vec<Vec<u8>> {
        directory.files().unwrap().into_iter().map(|file| fs::read(file).unwrap()).collect()
    }

    // The file was gone, the list still in use, and the next start knew nothing of what it had revoked.
    #[test]
    fn a_change_whose_directory_cannot_be_synced_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let good = Directory::new(place.path().join("crl"));
        let failing = Directory::with_sync(place.path().join("crl"), |_| Err(io::Error::other("the disk is gone")));
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
}
