//! Certificate bundles: named sets of certificates and keys that the broker keeps in its data directory, checked before they are taken,
//! replaced in one step, and with their secrets encrypted.
//!
//! ```text
//!   data/bundles/node.key                    the key that seals, of this node alone
//!   data/bundles/global/NAME/00000007        versions of a bundle; the highest is in force
//!   data/bundles/ns/NAMESPACE/NAME/00000002
//! ```
//! [`Bundles`] is the one way to them, for the command line, the listeners and whatever manages the broker.

mod check;
mod disk;
mod part;

pub use check::{Fault, Material, check};
pub use disk::{Bundles, MAX_BUNDLES, MAX_VERSIONS, VersionInfo};
pub use part::{Part, Parts};

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use gm_tls::cert::Certificate;

/// Longest name of a bundle or a namespace, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Which bundle: its name, and the namespace whose it is if it is not everybody's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

impl BundleId {
    /// # Errors
    /// A name is no name of a bundle.
    pub fn new(namespace: Option<&str>, name: &str) -> Result<BundleId, BadName> {
        for text in namespace.iter().chain([&name]) {
            check_name(text)?;
        }
        Ok(BundleId { namespace: namespace.map(Box::from), name: name.into() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for BundleId {
    type Err = BadName;

    /// `NAME` or `NAMESPACE/NAME`.
    fn from_str(text: &str) -> Result<BundleId, BadName> {
        match text.split_once('/') {
            Some((namespace, name)) => BundleId::new(Some(namespace), name),
            None => BundleId::new(None, text),
        }
    }
}

/// What cannot be the name of a bundle or a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a bundle: it has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, and begins with a letter or a digit"
)]
pub struct BadName(String);

fn check_name(text: &str) -> Result<(), BadName> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && text.len() <= MAX_NAME_BYTES && text.chars().all(inner) {
        Ok(())
    } else {
        Err(BadName(text.chars().take(MAX_NAME_BYTES).collect::<String>().escape_default().to_string()))
    }
}

/// What is known of a bundle without its secrets.
#[derive(Debug, Clone)]
pub struct BundleInfo {
    pub id: BundleId,
    pub version: u32,
    /// When this version was put there, unix seconds.
    pub created: i64,
    /// The certificates of each part that has some, its own first.
    pub certificates: Vec<(Part, Vec<Certificate>)>,
    /// Parts that are secrets, by name only.
    pub secrets: Vec<Part>,
}

impl BundleInfo {
    /// When the first of its certificates expires, those of authorities too; unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.certificates.iter().flat_map(|(_, all)| all).map(Certificate::not_after).min()
    }
}

/// A bundle that is to be taken, and is looked at in the place of the one in force before it is.
#[derive(Debug)]
pub struct Candidate {
    pub id: BundleId,
    pub parts: Parts,
}

/// Why a bundle cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(
        "there is no bundle {0}; make it with `shangmq certs bundle put {0}`; `shangmq certs bundle list` shows those there are"
    )]
    Missing(BundleId),
    #[error("the bundle {id} has no version {version}; `shangmq certs bundle versions {id}` shows those there are")]
    NoVersion { id: BundleId, version: u32 },
    #[error("the bundle {id} has no {part}, which is needed here; it has {has}")]
    NoPart { id: BundleId, part: Part, has: String },
    #[error("the bundle is not taken:{}", listed(.0))]
    Faulty(Vec<Fault>),
    #[error("the bundle {id} is not taken: listeners that refer to it could not serve with it:{}", listed(mistakes))]
    Unfit { id: BundleId, mistakes: Vec<String> },
    #[error("the bundle {id} is in use and was not deleted: {}", users.join(", "))]
    InUse { id: BundleId, users: Vec<String> },
    #[error("there are {MAX_BUNDLES} bundles already; delete one first")]
    TooMany,
    #[error(
        "the bundle takes {bytes} bytes, and at most {} are kept; leave out certificates that are not needed",
        disk::MAX_FILE_BYTES
    )]
    TooLarge { bytes: usize },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: damaged: {reason}; restore another version, or put the bundle there again", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    NodeKey { path: PathBuf, reason: String },
    #[error(
        "{}: belongs to user {owner}, whose broker could not read what root puts there; run this as that user, for instance with `sudo -u`",
        path.display()
    )]
    OtherUser { path: PathBuf, owner: u32 },
    #[error("{}: {reason}", path.display())]
    Exposed { path: PathBuf, reason: String },
    #[error("the cryptographic library failed: {0}")]
    Library(String),
}

fn listed(all: &[impl fmt::Display]) -> String {
    all.iter().map(|one| format!("\n  {one}")).collect()
}

#[cfg(test)]
mod tests;
