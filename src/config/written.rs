//! Which keys a configuration sets, and whether two configurations set them alike. Values are kept as keyed hashes, since some are secrets.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::tree::{Table, Value};

/// The keys of a configuration, the environment included, with a hash of each value.
#[derive(Debug, Clone, Default)]
pub struct Written {
    state: RandomState,
    values: BTreeMap<String, u64>,
}

impl Written {
    pub(super) fn of(root: &Table) -> Written {
        let mut written = Written::default();
        written.add("", root);
        written
    }

    /// The same keys by the hash of `other`, so that the two can be compared.
    pub(super) fn of_as(root: &Table, other: &Written) -> Written {
        let mut written = Written { state: other.state.clone(), values: BTreeMap::new() };
        written.add("", root);
        written
    }

    /// Every key that one of the two sets and the other does not, or sets otherwise. Both have to be of one family, made by
    /// `of_as`.
    pub fn difference<'a>(&'a self, other: &'a Written) -> Vec<&'a str> {
        let gone_or_changed = self.values.iter().filter(|(key, value)| other.values.get(*key) != Some(value));
        let new = other.values.iter().filter(|(key, _)| !self.values.contains_key(*key));
        let mut keys: Vec<&str> = gone_or_changed.chain(new).map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys
    }

    fn add(&mut self, prefix: &str, table: &Table) {
        for (name, node) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match &node.value {
                Value::Table(inner) => self.add(&key, inner),
                value => {
                    let mut hasher = self.state.build_hasher();
                    feed(value, &mut hasher);
                    self.values.insert(key, hasher.finish());
                }
            }
        }
    }
}

fn feed(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Table(table) => {
            (0u8, table.len()).hash(hasher);
            for (name, node) in table {
                name.hash(hasher);
                feed(&node.value, hasher);
            }
        }
        Value::Array(items) => {
            (1u8, items.len()).hash(hasher);
            items.iter().for_each(|item| feed(&item.value, hasher));
        }
        Value::String(text) | Value::Untyped(text) => (2u8, text.as_str()).hash(hasher),
        Value::Integer(number) => (3u8, number).hash(hasher),
        Value::Float(number) => (4u8, number.to_bits()).hash(hasher),
        Value::Boolean(value) => (5u8, value).hash(hasher),
        Value::Datetime => 6u8.hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn table(text: &str) -> Table {
        tree::parse("a.toml".into(), text).unwrap()
    }

    #[test]
    fn names_every_key_that_is_new_gone_or_changed_and_no_other() {
        let before = table("[a]\nx = 1\ny = \"s\"\nlist = [1, 2]\n[b]\nz = true\n");
        let after = table("# moved\n\n[b]\nz = false\nnew = 1\n[a]\nlist = [2, 1]\nx = 1\n");
        let written = Written::of(&before);
        let changed = Written::of_as(&after, &written);
        assert_eq!(written.difference(&changed), ["a.list", "a.y", "b.new", "b.z"]);
        let same = Written::of_as(&table("[b]\nz = true\n[a]\ny = \"s\"\nlist = [1, 2]\nx = 1\n"), &written);
        assert_eq!(written.difference(&same), Vec::<&str>::new());
    }

    #[test]
    fn holds_no_value() {
        let written = Written::of(&table("[a]\npassword = \"open sesame\"\n"));
        assert!(!format!("{written:?}").contains("sesame"));
    }
}
