//! The development set: authorities, and certificates of a server and a client for every protocol, made in one go.
//! For loopback and tests only; a directory that exists is never changed.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{
    AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, PkiError, Profile, Purpose, Subject, verify_chain,
};
use crate::cert::{CertError, Certificate, CertificateChain, KeyKind, hex};
use crate::key::{KeyError, PrivateKey};
use crate::pair::{CertificatePair, PairError};

/// Days of the authorities; those of servers and clients are [`LEAF_DAYS`].
pub const AUTHORITY_DAYS: u32 = 3650;
/// Days of the certificates of servers and clients: the most that browsers and phones take.
pub const LEAF_DAYS: u32 = 825;

/// The three authorities in one file.
const BUNDLE: &str = "ca.crt";
/// Names of the authorities and what they are made of.
const AUTHORITIES: [(&str, &str, KeyKind); 3] = [
    ("sm2-ca", "ShangMQ Development SM2 CA", KeyKind::Sm2),
    ("ecdsa-ca", "ShangMQ Development ECDSA CA", KeyKind::EcP256),
    ("rsa-ca", "ShangMQ Development RSA CA", KeyKind::Rsa(2048)),
];
/// The certificates of each side besides its pair: suffix and position in [`AUTHORITIES`].
const SINGLES: [(&str, usize); 3] = [("sm2", 0), ("ecdsa", 1), ("rsa", 2)];
const SIDES: [&str; 2] = ["server", "client"];

/// Why there is no development set.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error(
        "{} exists but {missing} is not in it; nothing there was changed: complete it, or remove the directory to have \
         it made anew", dir.display()
    )]
    Incomplete { dir: PathBuf, missing: String },
    #[error(
        "{}: the development certificate {name} is not valid ({reason}); remove the directory to have it made anew",
        dir.display()
    )]
    NotValid { dir: PathBuf, name: String, reason: String },
    #[error("a certificate of the development set cannot be used")]
    Certificate(#[from] CertError),
    #[error("a key of the development set cannot be used")]
    Key(#[from] KeyError),
    #[error("the pair of the development set cannot be used")]
    Pair(#[from] PairError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A certificate file (PEM, leaf first) and its key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertKey {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Where the files of a development set are. That they are there and valid was checked when it was made or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevCerts {
    dir: PathBuf,
    created: bool,
}

impl DevCerts {
    /// Finds the set in `dir`, or makes it when there is nothing; `now` is unix seconds.
    ///
    /// The files appear all at once: they are made in a directory beside it that is then renamed, so a reader never
    /// sees half a set and of two that start together one wins.
    pub fn ensure(dir: &Path, now: i64) -> Result<DevCerts, DevelopmentError> {
        let created = if is_vacant(dir)? { create(dir, now)? } else { false };
        let found = DevCerts { dir: dir.to_owned(), created };
        found.check(now)?;
        Ok(found)
    }

    /// The directory of the set.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether this call made it.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The three authorities in one PEM file.
    pub fn ca_bundle(&self) -> PathBuf {
        self.dir.join(BUNDLE)
    }

    /// The SM2 authority, which issued the pairs and the single SM2 certificates.
    pub fn sm2_ca(&self) -> PathBuf {
        self.dir.join("sm2-ca.crt")
    }

    /// The ECDSA P-256 authority.
    pub fn ecdsa_ca(&self) -> PathBuf {
        self.dir.join("ecdsa-ca.crt")
    }

    /// The RSA-2048 authority.
    pub fn rsa_ca(&self) -> PathBuf {
        self.dir.join("rsa-ca.crt")
    }

    /// The server's signing certificate (TLCP).
    pub fn server_sign(&self) -> CertKey {
        self.files("server-sign")
    }

    /// The server's encryption certificate (TLCP).
    pub fn server_enc(&self) -> CertKey {
        self.files("server-enc")
    }

    /// The client's signing certificate (TLCP).
    pub fn client_sign(&self) -> CertKey {
        self.files("client-sign")
    }

    /// The client's encryption certificate (TLCP).
    pub fn client_enc(&self) -> CertKey {
        self.files("client-enc")
    }

    /// The server's single SM2 certificate (RFC 8998).
    pub fn server_sm2(&self) -> CertKey {
        self.files("server-sm2")
    }

    /// The client's single SM2 certificate (RFC 8998).
    pub fn client_sm2(&self) -> CertKey {
        self.files("client-sm2")
    }

    /// The server's ECDSA P-256 certificate.
    pub fn server_ecdsa(&self) -> CertKey {
        self.files("server-ecdsa")
    }

    /// The client's ECDSA P-256 certificate.
    pub fn client_ecdsa(&self) -> CertKey {
        self.files("client-ecdsa")
    }

    /// The server's RSA-2048 certificate.
    pub fn server_rsa(&self) -> CertKey {
        self.files("server-rsa")
    }

    fn files(&self, name: &str) -> CertKey {
        CertKey { cert: self.dir.join(format!("{name}.crt")), key: self.dir.join(format!("{name}.key")) }
    }

    fn check(&self, now: i64) -> Result<(), DevelopmentError> {
        let mut names = vec![BUNDLE.to_owned()];
        names.extend(AUTHORITIES.iter().map(|(name, ..)| format!("{name}.crt")));
        for side in SIDES {
            let of_side = ["sign", "enc"].into_iter().chain(SINGLES.iter().map(|(suffix, _)| *suffix));
            names.extend(of_side.flat_map(|suffix| [format!("{side}-{suffix}.crt"), format!("{side}-{suffix}.key")]));
        }
        if let Some(missing) = names.into_iter().find(|name| !self.dir.join(name).is_file()) {
            return Err(DevelopmentError::Incomplete { dir: self.dir.clone(), missing });
        }
        for (side, purpose) in SIDES.into_iter().zip([Purpose::Server, Purpose::Client]) {
            let (sign, sign_key) = self.load(&format!("{side}-sign"), 0, purpose, now)?;
            let (enc, enc_key) = self.load(&format!("{side}-enc"), 0, Purpose::Any, now)?;
            CertificatePair::new(sign, sign_key, enc, enc_key)?;
            for (suffix, authority) in SINGLES {
                self.load(&format!("{side}-{suffix}"), authority, purpose, now)?;
            }
        }
        Ok(())
    }

    fn load(
        &self,
        name: &str,
        authority: usize,
        purpose: Purpose,
        now: i64,
    ) -> Result<(CertificateChain, PrivateKey), DevelopmentError> {
        let files = self.files(name);
        let chain = CertificateChain::from_file(name, &files.cert)?;
        let key = PrivateKey::from_file(name, &files.key, None)?;
        let not_valid =
            |reason: String| DevelopmentError::NotValid { dir: self.dir.clone(), name: format!("{name}.crt"), reason };
        if !chain.leaf.has_key(key.pkey()) {
            return Err(not_valid(format!("{name}.key is not its key")));
        }
        let authority = AUTHORITIES.get(authority).map_or("", |(name, ..)| *name);
        let anchors = Certificate::anchors_from_file(authority, &self.dir.join(format!("{authority}.crt")))?;
        verify_chain(&chain, &anchors, purpose, now).map_err(|error| not_valid(error.to_string()))?;
        Ok((chain, key))
    }
}

/// Whether there is no directory, or an empty one.
fn is_vacant(dir: &Path) -> Result<bool, DevelopmentError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DevelopmentError::Unwritable { path: dir.to_owned(), error }),
    }
}

/// Whether the new set took the place of `dir`; false when another was there first.
fn create(dir: &Path, now: i64) -> Result<bool, DevelopmentError> {
    let mut random = [0; 8];
    openssl::rand::rand_bytes(&mut random).map_err(PkiError::from)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |error| DevelopmentError::Unwritable { path, error }
    };
    fs::create_dir_all(parent).map_err(unwritable(parent))?;
    let staging = parent.join(format!(".dev-certs-{}", hex(&random)));
    DirBuilder::new().mode(0o700).create(&staging).map_err(unwritable(&staging))?;
    let outcome = fill(&staging, now).and_then(|()| match fs::rename(&staging, dir) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            Ok(false)
        }
        Err(error) => Err(unwritable(dir)(error)),
    });
    if !matches!(outcome, Ok(true)) {
        // Keys of a set that nobody uses; what keeps them from being removed is reported no better than by the path.
        fs::remove_dir_all(&staging).map_err(unwritable(&staging))?;
    }
    outcome
}

fn fill(dir: &Path, now: i64) -> Result<(), DevelopmentError> {
    let mut authorities = Vec::with_capacity(AUTHORITIES.len());
    for (name, common_name, kind) in AUTHORITIES {
        let profile = AuthorityProfile::new(AUTHORITY_DAYS, Some(0));
        let authority = CertificateAuthority::create(&Subject::common_name(common_name), kind, &profile, now)?;
        write(&dir.join(format!("{name}.crt")), &authority.certificate().to_pem())?;
        authority.key().write_new(&dir.join(format!("{name}.key")), None)?;
        authorities.push(authority);
    }
    let bundle: Vec<u8> = authorities.iter().flat_map(|authority| authority.certificate().to_pem()).collect();
    write(&dir.join(BUNDLE), &bundle)?;
    let local = AlternativeNames {
        dns: vec!["localhost".to_owned()],
        ip: vec![std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ..AlternativeNames::default()
    };
    let sides = [("server", "localhost", Profile::server(LEAF_DAYS)), ("client", "client", Profile::client(LEAF_DAYS))];
    for (side, common_name, profile) in sides {
        let subject = Subject::common_name(common_name);
        for (suffix, position) in SINGLES {
            let Some(authority) = authorities.get(position) else { continue };
            let issued = authority.issue_single(&subject, &local, authority.key().kind(), &profile, now)?;
            write_issued(dir, &format!("{side}-{suffix}"), &issued)?;
        }
        if let Some(authority) = authorities.first() {
            let pair = authority.issue_pair(&subject, &local, KeyKind::Sm2, &profile, now)?;
            write_issued(dir, &format!("{side}-sign"), &pair.sign)?;
            write_issued(dir, &format!("{side}-enc"), &pair.enc)?;
        }
    }
    Ok(())
}

fn write_issued(dir: &Path, name: &str, issued: &Issued) -> Result<(), DevelopmentError> {
    write(&dir.join(format!("{name}.crt")), &issued.chain.to_pem())?;
    Ok(issued.key.write_new(&dir.join(format!("{name}.key")), None)?)
}

fn write(path: &Path, contents: &[u8]) -> Result<(), DevelopmentError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    written.map_err(|error| DevelopmentError::Unwritable { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn makes_the_set_once_and_finds_it_again() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("gm-certs/dev");
        let made = DevCerts::ensure(&dir, NOW).unwrap();
        assert!(made.created());
        let before = fs::read(made.server_sign().key).unwrap();
        let found = DevCerts::ensure(&dir, NOW + 86_400).unwrap();
        assert!(!found.created());
        assert_eq!(fs::read(found.server_sign().key).unwrap(), before);
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(".key") {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
            }
        }
        let server = CertificateChain::from_file("s", &found.server_ecdsa().cert).unwrap().leaf;
        assert_eq!(server.san_dns(), ["localhost"]);
        assert_eq!(server.san_ip().len(), 2);
        assert_eq!(Certificate::anchors_from_file("ca", &found.ca_bundle()).unwrap().len(), 3);
    }

    #[test]
    fn an_empty_directory_is_filled() {
        let base = tempfile::tempdir().unwrap();
        assert!(DevCerts::ensure(base.path(), NOW).unwrap().created());
    }

    #[test]
    fn leaves_alone_what_is_not_a_complete_valid_set() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("dev");
        let made = DevCerts::ensure(&dir, NOW).unwrap();
        let late = DevCerts::ensure(&dir, NOW + i64::from(LEAF_DAYS + 1) * 86_400).unwrap_err();
        assert!(matches!(&late, DevelopmentError::NotValid { .. }) && late.to_string().contains("expired"), "{late}");

        fs::copy(made.client_sign().key, base.path().join("kept")).unwrap();
        fs::remove_file(made.client_sign().key).unwrap();
        let incomplete = DevCerts::ensure(&dir, NOW).unwrap_err();
        assert!(incomplete.to_string().contains("client-sign.key"), "{incomplete}");
        fs::copy(made.client_enc().key, made.client_sign().key).unwrap();
        assert!(matches!(DevCerts::ensure(&dir, NOW), Err(DevelopmentError::NotValid { .. })));
        fs::copy(base.path().join("kept"), made.client_sign().key).unwrap();
        DevCerts::ensure(&dir, NOW).unwrap();
    }

    #[test]
    fn of_two_that_start_together_one_wins() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("dev");
        let made: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| DevCerts::ensure(&dir, NOW).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|set| set.created()).count(), 1);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
