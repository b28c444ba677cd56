//! Reads one table of the configuration: each key is asked for by name and type, and what was not asked for is unknown.
//!
//! Reading never stops at a mistake. A bad value is reported and its default stands in, so that one run finds them all;
//! the caller must discard the result when anything was reported.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use super::emqx;
use super::error::{ConfigError, Origin};
use super::tree::{Node, Table, Value};
use super::value::{FromValue, Problem, Secret};
use crate::bundle::{BundleId, Bundles, Part};

/// What all sections of one configuration share.
#[derive(Debug)]
pub(super) struct Report {
    errors: RefCell<Vec<ConfigError>>,
    /// What may not be meant.
    warnings: RefCell<Vec<ConfigError>>,
    /// Whether mistakes keep the certificates of a listener from being known.
    unseen: Cell<bool>,
    /// What relative paths in the file are relative to.
    base: PathBuf,
}

impl Report {
    pub(super) fn new(base: PathBuf, errors: Vec<ConfigError>) -> Report {
        Report { errors: RefCell::new(errors), warnings: RefCell::default(), unseen: Cell::default(), base }
    }

    pub(super) fn push(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    /// How many mistakes are known by now; two equal counts mean that nothing went wrong in between.
    pub(super) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn certificates_unseen(&self) {
        self.unseen.set(true);
    }

    pub(super) fn are_certificates_unseen(&self) -> bool {
        self.unseen.get()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().iter().map(ToString::to_string).collect()
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// A table being read. Call [`Section::finish`] when every key was asked for.
pub(super) struct Section<'a> {
    report: &'a Report,
    path: String,
    origin: Origin,
    /// `None` when the table is not there: every key then has its default.
    table: Option<&'a Table>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(report: &'a Report, table: &'a Table) -> Section<'a> {
        Section { report, path: String::new(), origin: Origin::Default, table: Some(table), asked: Vec::new() }
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// The full path of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the table itself begins.
    pub(super) fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// The table itself, to keep for mistakes that are found later.
    pub(super) fn own_place(&self) -> Place {
        Place { key: self.path.clone(), origin: self.origin() }
    }

    /// Says that a key is written and may not do what was meant.
    pub(super) fn warn(&self, key: &str, reason: &str, suggestion: &str) {
        let warning = ConfigError::new(self.place(key), self.key(key), reason).suggest(suggestion);
        self.report.warnings.borrow_mut().push(warning);
    }

    /// True when the table was written, be it empty.
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// True when the key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// True when the key was written with a table as its value.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.node(key).is_some_and(|node| matches!(node.value, Value::Table(_)))
    }

    /// True when the key was written with a text as its value.
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.node(key).is_some_and(|node| matches!(node.value, Value::String(_) | Value::Untyped(_)))
    }

    /// Reads a key whose value is a list or, where one is enough, what the list would hold; an absent key is an empty list.
    pub(super) fn one_or_more<T: FromValue>(&mut self, key: &'static str) -> Vec<T> {
        if self.is_text(key) { self.optional::<T>(key).into_iter().collect() } else { self.read(key, Vec::new()) }
    }

    /// Where a key was written, else where the table is.
    pub(super) fn place(&self, key: &str) -> Origin {
        self.node(key).map_or_else(|| self.origin.clone(), |node| node.key.clone())
    }

    /// Where a key was written, else where the table is, to keep for mistakes that are found later.
    pub(super) fn place_of(&self, key: &str) -> Place {
        Place { key: self.key(key), origin: self.place(key) }
    }

    /// Reads a key that may be absent.
    pub(super) fn optional<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        self.asked.push(key);
        let node = self.node(key)?;
        match T::from_value(&node.value) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.report.push(self.problem(node.origin.clone(), key, problem));
                None
            }
        }
    }

    /// Reads a key that has a default.
    pub(super) fn read<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// Reads a key with a default and a range, both ends included.
    pub(super) fn within<T>(&mut self, key: &'static str, default: T, least: T, most: T) -> T
    where
        T: FromValue + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.optional::<T>(key) else { return default };
        if value >= least && value <= most {
            return value;
        }
        let reason = format!("{value} is out of range, it must be between {least} and {most}");
        self.error(key, reason, Some(format!("the default is {default}")));
        default
    }

    /// Reads the path of a file or directory and resolves it against the directory of the configuration file, or the
    /// working directory when it came from the environment.
    pub(super) fn file(&mut self, key: &'static str) -> Option<FileRef> {
        let path: PathBuf = self.optional(key)?;
        let origin = self.node(key).map(|node| node.origin.clone()).unwrap_or_default();
        if path.as_os_str().is_empty() {
            self.error(key, "an empty path", Some("remove the key, or name a file".to_owned()));
            return None;
        }
        let place = Place { key: self.key(key), origin: origin.clone() };
        Some(FileRef { path: self.resolve(&origin, path), place, contents: Contents::File })
    }

    /// As [`file`](Self::file), where the text of the file may stand instead of its path.
    pub(super) fn pem(&mut self, key: &'static str) -> Option<FileRef> {
        let is_text = |text: &str| text.trim_start().starts_with("-----BEGIN ");
        let inline = self
            .node(key)
            .is_some_and(|node| matches!(&node.value, Value::String(text) | Value::Untyped(text) if is_text(text)));
        if !inline {
            return self.file(key);
        }
        let text: Secret = self.optional(key)?;
        let origin = self.node(key).map(|node| node.origin.clone()).unwrap_or_default();
        let place = Place { key: self.key(key), origin };
        Some(FileRef { path: PathBuf::from(INLINE), place, contents: Contents::Inline(text) })
    }

    /// Reads a list of paths, each as [`file`](Self::file) does.
    pub(super) fn files(&mut self, key: &'static str) -> Vec<FileRef> {
        let paths: Vec<PathBuf> = self.one_or_more(key);
        let origin = self.node(key).map(|node| node.origin.clone()).unwrap_or_default();
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            self.error(key, "an empty path", Some("remove it, or name a file".to_owned()));
        }
        let place = Place { key: self.key(key), origin: origin.clone() };
        paths
            .into_iter()
            .map(|path| FileRef { path: self.resolve(&origin, path), place: place.clone(), contents: Contents::File })
            .collect()
    }

    fn resolve(&self, origin: &Origin, path: PathBuf) -> PathBuf {
        match origin {
            Origin::File { .. } | Origin::Default => self.report.base.join(path),
            Origin::Environment(_) => path,
        }
    }

    /// A path that is a default, resolved as if it stood in the file.
    pub(super) fn default_path(&self, path: &str) -> PathBuf {
        self.report.base.join(path)
    }

    /// Goes down into a table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.asked.push(key);
        let (origin, table) = match self.node(key) {
            None => (self.origin.clone(), None),
            Some(node) => (node.key.clone(), self.as_table(node, self.key(key))),
        };
        Section { report: self.report, path: self.key(key), origin, table, asked: Vec::new() }
    }

    /// The tables inside a table whose keys are names chosen by the operator.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let outer = self.section(key);
        let entries = outer.table.into_iter().flatten();
        entries.map(|(name, node)| (name.clone(), outer.child(node, outer.key(name)))).collect()
    }

    /// The values of a table whose keys are chosen by the operator.
    pub(super) fn pairs<T: FromValue>(&mut self, key: &'static str) -> Vec<(String, T)> {
        let inner = self.section(key);
        let mut pairs = Vec::new();
        for (name, node) in inner.table.into_iter().flatten() {
            match T::from_value(&node.value) {
                Ok(value) => pairs.push((name.clone(), value)),
                Err(problem) => inner.report.push(inner.problem(node.origin.clone(), name, problem)),
            }
        }
        pairs
    }

    /// True when the key was written as this word.
    pub(super) fn is_word(&self, key: &str, word: &str) -> bool {
        self.node(key)
            .is_some_and(|node| matches!(&node.value, Value::String(text) | Value::Untyped(text) if **text == *word))
    }

    /// The tables of a list of tables.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<Section<'a>> {
        self.asked.push(key);
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Array(items) = &node.value else {
            let problem = Problem::new(format!("expected a list of tables, found {}", node.value.type_name()));
            self.report.push(self.problem(node.origin.clone(), key, problem));
            return Vec::new();
        };
        items.iter().enumerate().map(|(index, item)| self.child(item, format!("{}[{index}]", self.key(key)))).collect()
    }

    /// Reports a mistake at a key of this table, or at the table when the key is not there.
    pub(super) fn error(&self, key: &str, reason: impl Into<String>, suggestion: Option<String>) {
        let mut error = ConfigError::new(self.place(key), self.key(key), reason);
        error.suggestion = suggestion;
        self.report.push(error);
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for (name, node) in table {
            if self.asked.contains(&name.as_str()) {
                continue;
            }
            let foreign = emqx::without_counterpart(name);
            let mut error = ConfigError::new(node.key.clone(), self.key(name), foreign.unwrap_or("unknown key"));
            error.suggestion = Some(match closest(name, &self.asked) {
                _ if foreign.is_some() => "remove the key".to_owned(),
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys here: {}", self.asked.join(", ")),
            });
            self.report.push(error);
        }
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.table.and_then(|table| table.get(key))
    }

    fn child(&self, node: &'a Node, path: String) -> Section<'a> {
        let table = self.as_table(node, path.clone());
        Section { report: self.report, path, origin: node.key.clone(), table, asked: Vec::new() }
    }

    fn as_table(&self, node: &'a Node, path: String) -> Option<&'a Table> {
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        let reason = format!("expected a table, found {}", node.value.type_name());
        self.report.push(ConfigError::new(node.origin.clone(), path, reason));
        None
    }

    fn problem(&self, origin: Origin, key: &str, problem: Problem) -> ConfigError {
        let error = ConfigError::new(origin, self.key(key), problem.reason);
        ConfigError { suggestion: problem.suggestion, ..error }
    }
}

/// A key and where it was written, for mistakes that only show when its value is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    key: String,
    origin: Origin,
}

impl Place {
    /// The last part of the key, such as `sign_password`.
    pub fn field(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or_default()
    }

    /// A mistake in the value of this key.
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(self.origin.clone(), self.key.clone(), reason)
    }
}

/// The path of a file, and the key that named it, for errors found when the file is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    path: PathBuf,
    place: Place,
    contents: Contents,
}

/// What errors call a text that stands in the configuration itself.
const INLINE: &str = "(in the configuration)";

/// Where the contents of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// In the file at the path.
    File,
    /// In the configuration.
    Inline(Secret),
    /// In a bundle of this data directory; the path is the bundle's directory, which changes when the bundle does.
    Managed { data_dir: PathBuf, id: BundleId, part: Part },
}

impl FileRef {
    /// A part of a bundle.
    pub(super) fn managed(data_dir: &Path, id: &BundleId, part: Part, place: Place) -> FileRef {
        let path = Bundles::in_data_dir(data_dir).directory(id);
        FileRef { path, place, contents: Contents::Managed { data_dir: data_dir.to_owned(), id: id.clone(), part } }
    }

    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The mode of the file that the text itself stands in, if others than its owner can read that.
    pub(super) fn open_to_others(&self) -> Option<u32> {
        use std::os::unix::fs::PermissionsExt;
        let Origin::File { path, .. } = &self.place.origin else { return None };
        let mode = path.metadata().ok()?.permissions().mode() & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }

    /// The path to open: absolute, or relative to the working directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole key.
    pub fn key(&self) -> &str {
        &self.place.key
    }

    /// The last part of the key, such as `sign_keyfile`.
    pub fn field(&self) -> &str {
        self.place.field()
    }

    /// A mistake found in the file. `reason` need not name it, but may.
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        let (path, reason) = (self.path.display().to_string(), reason.into());
        let reason = if reason.contains(&path) { reason } else { format!("{path}: {reason}") };
        ConfigError { path: Some(self.path.as_path().into()), ..self.place.error(reason) }
    }
}

/// The known word nearest to a mistyped one, if one is near enough to be meant.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = word.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(&folded, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(folded.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
