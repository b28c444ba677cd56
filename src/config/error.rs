//! What is wrong with a configuration: one value per mistake, each with its place, key, reason and cure.
//!
//! Nothing here may carry a secret: reasons are built from keys and from values of keys that are not secret.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// A place in a file; line and column count from 1, columns in characters.
    File { path: Arc<PathBuf>, line: usize, column: usize },
    /// An environment variable.
    Environment(Arc<str>),
    /// Nowhere: the value is a default, or the whole configuration is meant.
    #[default]
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Default => f.write_str("configuration"),
        }
    }
}

/// One mistake. Displayed as `file:line:column: key: reason; suggestion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    /// The key's full path, such as `listeners.ssl.default.ssl_options.verify`; empty when no key is concerned.
    pub key: String,
    pub reason: String,
    pub suggestion: Option<String>,
    /// The file that is at fault when the configuration itself is not, such as a certificate; `reason` names it too.
    pub path: Option<Box<Path>>,
}

impl ConfigError {
    /// A mistake without a suggestion.
    pub fn new(origin: Origin, key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError { origin, key: key.into(), reason: reason.into(), suggestion: None, path: None }
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> ConfigError {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The shape of one mistake in `check-config --json`.
#[derive(Serialize)]
struct ErrorReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<&'a str>,
}

impl Serialize for ConfigError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (file, line, column, variable) = match &self.origin {
            Origin::File { path, line, column } => (Some(path.display().to_string()), Some(*line), Some(*column), None),
            Origin::Environment(name) => (None, None, None, Some(&**name)),
            Origin::Default => (None, None, None, None),
        };
        let suggestion = self.suggestion.as_deref();
        let path = self.path.as_ref().map(|path| path.display().to_string());
        ErrorReport { file, line, column, variable, key: &self.key, path, reason: &self.reason, suggestion }
            .serialize(serializer)
    }
}

/// Every mistake found, in the order of the file; never empty. Displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    /// What could not be looked at because of them.
    note: Option<&'static str>,
}

impl ConfigErrors {
    /// `Ok` when there is no mistake.
    pub fn check(mut errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| match &error.origin {
            Origin::File { line, column, .. } => (0, *line, *column),
            Origin::Environment(_) => (1, 0, 0),
            Origin::Default => (2, 0, 0),
        });
        // What all listeners have in common is wrong once.
        let mut said = HashSet::new();
        errors.retain(|error| said.insert(error.to_string()));
        Err(ConfigErrors { errors, note: None })
    }

    pub fn as_slice(&self) -> &[ConfigError] {
        &self.errors
    }

    pub fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// Says what could not be looked at because of these mistakes.
    #[must_use]
    pub fn noting(self, note: &'static str) -> ConfigErrors {
        ConfigErrors { note: Some(note), ..self }
    }

    pub fn note(&self) -> Option<&'static str> {
        self.note
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors { errors: vec![error], note: None }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        self.note.map_or(Ok(()), |note| write!(f, "\n{note}"))
    }
}

impl std::error::Error for ConfigErrors {}
