//! Writing certificates and keys: all files of a command or none, keys readable by their owner alone, and nothing that
//! exists replaced unless that was asked for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gm_tls::cert::CertificateChain;
use gm_tls::key::{Password, PrivateKey};
use zeroize::Zeroizing;

use super::CertsError;

/// Files that are to appear together.
#[derive(Default)]
pub(super) struct NewFiles(Vec<NewFile>);

struct NewFile {
    path: PathBuf,
    contents: Zeroizing<Vec<u8>>,
    mode: u32,
}

impl NewFiles {
    /// A certificate or a request, which anyone may read.
    pub fn public(&mut self, path: PathBuf, contents: Vec<u8>) {
        self.0.push(NewFile { path, contents: Zeroizing::new(contents), mode: 0o644 });
    }

    /// A chain, leaf first.
    pub fn chain(&mut self, path: PathBuf, chain: &CertificateChain) {
        self.public(path, chain.to_pem());
    }

    /// A key, which only its owner may read.
    pub fn key(&mut self, path: PathBuf, key: &PrivateKey, password: Option<&Password>) -> Result<(), CertsError> {
        self.0.push(NewFile { path, contents: key.to_pem(password)?, mode: 0o600 });
        Ok(())
    }

    /// Refuses, before any key is made, what [`NewFiles::write`] would refuse.
    pub fn check_absent(paths: &[PathBuf], force: bool) -> Result<(), CertsError> {
        match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
            Some(path) if !force => Err(CertsError::Exists { path: path.clone() }),
            _ => Ok(()),
        }
    }

    /// Writes all files and gives their paths in the order they were added.
    pub fn write(self, force: bool) -> Result<Vec<PathBuf>, CertsError> {
        let paths: Vec<PathBuf> = self.0.iter().map(|file| file.path.clone()).collect();
        NewFiles::check_absent(&paths, force)?;
        let mut staged = Staged::default();
        for file in &self.0 {
            let error_at = |error| CertsError::Unwritable { path: file.path.clone(), error };
            if let Some(parent) = file.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(error_at)?;
            }
            let temporary = temporary_name(&file.path);
            let mut options = OpenOptions::new();
            let mut written =
                options.write(true).create_new(true).mode(file.mode).open(&temporary).map_err(error_at)?;
            staged.temporary.push(temporary);
            written.write_all(&file.contents).and_then(|()| written.sync_all()).map_err(error_at)?;
        }
        for (temporary, path) in staged.temporary.iter().zip(&paths) {
            // A link does not replace what appeared since the check; a rename does.
            let published = if force { fs::rename(temporary, path) } else { fs::hard_link(temporary, path) };
            match published {
                Ok(()) if force => {}
                Ok(()) => staged.published.push(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CertsError::Exists { path: path.clone() });
                }
                Err(error) => return Err(CertsError::Unwritable { path: path.clone(), error }),
            }
        }
        staged.published.clear();
        Ok(paths)
    }
}

/// What has to go when the files do not all appear.
#[derive(Default)]
struct Staged {
    temporary: Vec<PathBuf>,
    published: Vec<PathBuf>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in self.temporary.iter().chain(&self.published) {
            // Renamed ones are gone already, and a file that cannot be removed cannot be reported better than by the
            // error that brought us here.
            let _ = fs::remove_file(path);
        }
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use gm_tls::cert::KeyKind;

    use super::*;

    fn files(dir: &Path, text: &str) -> NewFiles {
        let mut files = NewFiles::default();
        let key = PrivateKey::generate(KeyKind::Sm2).unwrap();
        files.key(dir.join("sub/a.key"), &key, None).unwrap();
        files.public(dir.join("sub/a.crt"), text.as_bytes().to_vec());
        files
    }

    #[test]
    fn keys_are_for_their_owner_and_nothing_is_left_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let paths = files(dir.path(), "one").write(false).unwrap();
        let modes: Vec<u32> =
            paths.iter().map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777).collect();
        assert_eq!(modes, [0o600, 0o644]);
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 2);
    }

    #[test]
    fn writes_all_or_nothing_and_replaces_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = dir.path().join("sub/a.crt");
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&certificate, "old").unwrap();
        let error = files(dir.path(), "new").write(false).unwrap_err();
        assert!(matches!(error, CertsError::Exists { path } if path == certificate));
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&certificate).unwrap(), "old");
        files(dir.path(), "new").write(true).unwrap();
        assert_eq!(fs::read_to_string(&certificate).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 2);
    }
}
