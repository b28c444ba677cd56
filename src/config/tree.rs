//! The configuration as written: a tree of values that know where they stand, from TOML text and the environment.
//!
//! No key has a meaning here; [`section`](super::section) and the files beside it give it one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::error::{ConfigError, ConfigErrors, Origin};

/// What the names of environment overrides start with.
pub const ENVIRONMENT_PREFIX: &str = "SHANGMQ_";
/// What stands for the dot of a key in the name of an environment variable.
const ENVIRONMENT_DOT: &str = "__";
/// Levels of tables an environment variable may name; the deepest key there is has five.
const MAX_ENVIRONMENT_DEPTH: usize = 8;
/// Syntax errors reported at once; the first few are what helps.
const MAX_SYNTAX_ERRORS: usize = 50;

pub(super) type Table = BTreeMap<String, Node>;

/// A value and its place. `key` is where the name of the value stands, `value` where the value itself does.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Origin,
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Table(Table),
    Array(Vec<Node>),
    String(Zeroizing<String>),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    /// From the environment, where a value has no type but the one its key asks for.
    Untyped(Zeroizing<String>),
}

impl Value {
    /// The type in the operator's words.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Table(_) => "a table",
            Value::Array(_) => "a list",
            Value::String(_) | Value::Untyped(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Boolean(_) => "true or false",
            Value::Datetime => "a date",
        }
    }
}

/// Turns offsets in a text into lines and columns.
struct Places<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(path: PathBuf, text: &'a str) -> Places<'a> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Places { path: Arc::new(path), text, lines }
    }

    fn origin(&self, offset: usize) -> Origin {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Origin::File { path: Arc::clone(&self.path), line, column }
    }
}

/// Reads TOML text; `path` is what errors name.
///
/// # Errors
/// Every syntax error of the text, or the first [`MAX_SYNTAX_ERRORS`] of them.
pub(super) fn parse(path: PathBuf, text: &str) -> Result<Table, ConfigErrors> {
    let places = Places::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let errors = errors.iter().take(MAX_SYNTAX_ERRORS).map(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::new(places.origin(offset), "", format!("not TOML: {}", error.message().replace('\n', ", ")))
    });
    ConfigErrors::check(errors.collect())?;
    Ok(table(document.into_inner(), &|offset| places.origin(offset)))
}

fn table(source: DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Table {
    source
        .into_iter()
        .map(|(key, value)| {
            let place = origin(key.span().start);
            (key.into_inner().into_owned(), node(place, value, origin))
        })
        .collect()
}

fn node(key: Origin, source: toml::Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Node {
    let place = origin(source.span().start);
    let value = match source.into_inner() {
        DeValue::String(text) => Value::String(Zeroizing::new(text.into_owned())),
        // An integer of more than 127 bits is out of every key's range, whatever its exact value.
        DeValue::Integer(number) => {
            let limit = if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(limit))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node(origin(item.span().start), item, origin)).collect())
        }
        DeValue::Table(entries) => Value::Table(table(entries, origin)),
    };
    Node { key, origin: place, value }
}

/// Lays environment variables over a configuration.
///
/// `SHANGMQ_LISTENERS__SSL__DEFAULT__BIND` sets `listeners.ssl.default.bind`. A variable without a double underscore is
/// not an override: container platforms set names such as `SHANGMQ_PORT` by themselves.
pub(super) fn overlay(
    root: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
    errors: &mut Vec<ConfigError>,
) {
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name.contains(ENVIRONMENT_DOT))
        .collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Environment(name.as_str().into());
        let path = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default().to_lowercase();
        let keys: Vec<&str> = path.split(ENVIRONMENT_DOT).collect();
        if keys.iter().any(|key| key.is_empty()) || keys.len() > MAX_ENVIRONMENT_DEPTH {
            let example = "write it like SHANGMQ_NODE__DATA_DIR for node.data_dir";
            errors.push(ConfigError::new(origin, "", "does not name a key").suggest(example));
            continue;
        }
        insert(root, &keys, origin, untyped(value), errors);
    }
}

/// A list or table is written as in TOML; anything else is plain text for its key to interpret.
fn untyped(text: String) -> Value {
    if text.trim_start().starts_with(['[', '{'])
        && let Ok(value) = DeValue::parse(&text)
    {
        return node(Origin::Default, value, &|_| Origin::Default).value;
    }
    Value::Untyped(Zeroizing::new(text))
}

fn insert(root: &mut Table, keys: &[&str], origin: Origin, value: Value, errors: &mut Vec<ConfigError>) {
    let Some((last, parents)) = keys.split_last() else { return };
    let mut table = root;
    for key in parents {
        let name = existing(table, key);
        let node = table.entry(name).or_insert_with(|| Node {
            key: origin.clone(),
            origin: origin.clone(),
            value: Value::Table(Table::new()),
        });
        match &mut node.value {
            Value::Table(inner) => table = inner,
            other => {
                let reason = format!("{} is {}, so it has no keys of its own", parents.join("."), other.type_name());
                errors.push(ConfigError::new(origin, keys.join("."), reason));
                return;
            }
        }
    }
    let name = existing(table, last);
    let mut node = Node { key: origin.clone(), origin: origin.clone(), value };
    adopt(&mut node, &origin);
    table.insert(name, node);
}

/// Variable names carry no case; a name in the file that differs only by case is the one meant.
fn existing(table: &Table, key: &str) -> String {
    table.keys().find(|name| name.eq_ignore_ascii_case(key)).cloned().unwrap_or_else(|| key.to_owned())
}

/// Everything inside a value from the environment comes from the environment.
fn adopt(node: &mut Node, origin: &Origin) {
    node.key = origin.clone();
    node.origin = origin.clone();
    match &mut node.value {
        Value::Table(table) => table.values_mut().for_each(|inner| adopt(inner, origin)),
        Value::Array(items) => items.iter_mut().for_each(|inner| adopt(inner, origin)),
        _ => {}
    }
}
