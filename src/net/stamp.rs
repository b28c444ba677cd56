//! Whether files are those that were read, without reading them.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries of a directory that are looked at: a bundle has its versions, and one that is being written.
const MAX_IN_DIRECTORY: usize = 64;

/// What a file looked like: it, and not the link that names it. Every way to replace or change a file shows in one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also moves when the contents were written and the time of that was set back.
    changed: (i64, i64),
}

/// Files, and what each looked like at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamped(Vec<(PathBuf, Look)>);

/// What there was under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    Nothing,
    File(Stamp),
    /// Itself, which shows that files came and went, and what is in it, which may have been written to in place.
    Directory(Stamp, Vec<(OsString, Option<Stamp>)>),
}

impl Stamped {
    /// Looks at each file, and at all that is directly in a directory. This may wait for a network file system.
    pub fn take(paths: impl IntoIterator<Item = PathBuf>) -> Stamped {
        Stamped(
            paths
                .into_iter()
                .map(|path| {
                    let look = Look::at(&path);
                    (path, look)
                })
                .collect(),
        )
    }

    /// The same files as they are now.
    pub fn again(&self) -> Stamped {
        Stamped::take(self.paths().map(Path::to_owned))
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }
}

impl Look {
    fn at(path: &Path) -> Look {
        let Ok(found) = path.metadata() else { return Look::Nothing };
        if !found.is_dir() {
            return Look::File(Stamp::of(&found));
        }
        let mut within: Vec<(OsString, Option<Stamp>)> = path
            .read_dir()
            .into_iter()
            .flatten()
            .take(MAX_IN_DIRECTORY)
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let stamp = entry.path().metadata().ok().map(|found| Stamp::of(&found));
                Some((entry.file_name(), stamp))
            })
            .collect();
        within.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Look::Directory(Stamp::of(&found), within)
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_was_written_replaced_or_removed_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.crt");
        fs::write(&path, "one").unwrap();
        let first = Stamped::take([path.clone()]);
        assert_eq!(first, first.again());
        fs::write(&path, "two!").unwrap();
        let second = first.again();
        assert_ne!(first, second);
        fs::write(dir.path().join("new"), "two!").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let third = second.again();
        assert_ne!(second, third);
        fs::remove_file(&path).unwrap();
        assert_ne!(third, third.again());
    }

    // A bundle that was damaged in place, whose directory looks as before, was noticed at the next reload or start only.
    #[test]
    fn a_file_of_a_directory_that_was_written_in_place_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["00000001", "00000002"] {
            fs::write(dir.path().join(version), "whole").unwrap();
        }
        let before = Stamped::take([dir.path().to_owned()]);
        assert_eq!(before, before.again());
        let itself = Stamp::of(&dir.path().metadata().unwrap());
        fs::write(dir.path().join("00000002"), "wh").unwrap();
        assert_eq!(itself, Stamp::of(&dir.path().metadata().unwrap()));
        assert_ne!(before, before.again());
    }

    // As Kubernetes changes a mounted secret: the name stays a link to a link, and the link in the middle is swapped.
    #[test]
    fn a_link_on_the_way_to_a_file_that_points_elsewhere_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("tls.crt"), "same length").unwrap();
        }
        symlink("v1", dir.path().join("..data")).unwrap();
        symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
        let before = Stamped::take([dir.path().join("tls.crt")]);
        symlink("v2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert_ne!(before, before.again());
    }
}
