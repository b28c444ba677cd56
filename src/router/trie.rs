//! A map from wildcard filters to values, searched by topic.
//!
//! Nodes live in one arena and children in one table keyed by (parent, level): nothing recurses, a node has no map
//! of its own, and a filter of 65,535 levels is dropped like any other.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

const ROOT: u32 = 0;
/// The root is nobody's child, so its number can mean "no child".
const NONE: u32 = 0;

#[derive(Debug)]
pub(super) struct Trie<V> {
    /// Empty until the first insertion; the root is first.
    nodes: Vec<Node<V>>,
    /// Vacated places in `nodes`.
    free: Vec<u32>,
    /// Literal children by (parent, label).
    edges: HashTable<u32>,
    hasher: DefaultHashBuilder,
    values: usize,
}

#[derive(Debug)]
struct Node<V> {
    parent: u32,
    /// The child for `+`.
    plus: u32,
    /// The child for `#`.
    multi: u32,
    /// How many children are in `edges`.
    literals: u32,
    label: Box<str>,
    value: Option<V>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            edges: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            values: 0,
        }
    }
}

impl<V> Trie<V> {
    pub(super) fn len(&self) -> usize {
        self.values
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values == 0
    }

    pub(super) fn get(&self, filter: &str) -> Option<&V> {
        self.nodes.get(self.find(filter)? as usize)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let id = self.find(filter)?;
        self.nodes.get_mut(id as usize)?.value.as_mut()
    }

    /// The filter's value, made by `make` if it has none. `None` when the arena has no room for the filter's levels.
    pub(super) fn get_or_insert_with(&mut self, filter: &str, make: impl FnOnce() -> V) -> Option<&mut V> {
        let levels = filter.split('/').count();
        if self.nodes.len().checked_add(levels)? >= u32::MAX as usize {
            return None;
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(NONE, ""));
        }
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match self.child(at, level) {
                Some(child) => child,
                None => self.add_child(at, level)?,
            };
        }
        let value = &mut self.nodes.get_mut(at as usize)?.value;
        if value.is_none() {
            self.values += 1;
        }
        Some(value.get_or_insert_with(make))
    }

    /// Also frees the levels that only this filter needed.
    pub(super) fn remove(&mut self, filter: &str) -> Option<V> {
        let mut at = self.find(filter)?;
        let value = self.nodes.get_mut(at as usize)?.value.take()?;
        self.values -= 1;
        if self.values == 0 {
            self.nodes = Vec::new();
            self.free = Vec::new();
            self.edges = HashTable::new();
            return Some(value);
        }
        while at != ROOT && self.nodes.get(at as usize).is_some_and(Node::is_bare) {
            at = self.remove_leaf(at)?;
        }
        if self.edges.capacity() > 64 && self.edges.len() < self.edges.capacity() / 8 {
            let (nodes, hasher) = (&self.nodes, &self.hasher);
            self.edges.shrink_to(self.edges.len() * 2, |&child| hash_of(nodes, hasher, child));
        }
        Some(value)
    }

    /// Calls `found` for each filter that matches `topic`, in no particular order.
    pub(super) fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a V)) {
        if self.is_empty() {
            return;
        }
        // [MQTT-4.7.2-1]: a filter that begins with a wildcard does not match a topic that begins with `$`.
        let mut wildcards = !topic.starts_with('$');
        let mut reached = vec![ROOT];
        let mut next = Vec::new();
        for level in topic.split('/') {
            for node in reached.drain(..).filter_map(|id| self.nodes.get(id as usize).map(|node| (id, node))) {
                let (id, node) = node;
                if wildcards {
                    self.visit(node.multi, &mut found);
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if node.literals > 0
                    && let Some(child) = self.literal(id, level)
                {
                    next.push(child);
                }
            }
            if next.is_empty() {
                return;
            }
            std::mem::swap(&mut reached, &mut next);
            wildcards = true;
        }
        for id in reached {
            self.visit(id, &mut found);
            // `sport/#` matches `sport`: the wildcard includes its parent level (section 4.7.1.2).
            if let Some(node) = self.nodes.get(id as usize) {
                self.visit(node.multi, &mut found);
            }
        }
    }

    fn visit<'a>(&'a self, id: u32, found: &mut impl FnMut(&'a V)) {
        if id != NONE
            && let Some(value) = self.nodes.get(id as usize).and_then(|node| node.value.as_ref())
        {
            found(value);
        }
    }

    fn find(&self, filter: &str) -> Option<u32> {
        let mut at = ROOT;
        for level in filter.split('/') {
            at = self.child(at, level)?;
        }
        Some(at)
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let node = self.nodes.get(parent as usize)?;
        match level {
            "+" => Some(node.plus).filter(|&child| child != NONE),
            "#" => Some(node.multi).filter(|&child| child != NONE),
            _ => self.literal(parent, level),
        }
    }

    fn literal(&self, parent: u32, level: &str) -> Option<u32> {
        let is_it = |child: &u32| {
            self.nodes.get(*child as usize).is_some_and(|node| node.parent == parent && *node.label == *level)
        };
        self.edges.find(self.hasher.hash_one((parent, level)), is_it).copied()
    }

    fn add_child(&mut self, parent: u32, level: &str) -> Option<u32> {
        let node = Node::new(parent, level);
        let id = match self.free.pop() {
            Some(id) => {
                *self.nodes.get_mut(id as usize)? = node;
                id
            }
            None => {
                let id = u32::try_from(self.nodes.len()).ok()?;
                self.nodes.push(node);
                id
            }
        };
        let parent_node = self.nodes.get_mut(parent as usize)?;
        match level {
            "+" => parent_node.plus = id,
            "#" => parent_node.multi = id,
            _ => {
                parent_node.literals += 1;
                let (nodes, hasher) = (&self.nodes, &self.hasher);
                self.edges.insert_unique(hasher.hash_one((parent, level)), id, |&child| hash_of(nodes, hasher, child));
            }
        }
        Some(id)
    }

    /// Returns the parent.
    fn remove_leaf(&mut self, id: u32) -> Option<u32> {
        let node = self.nodes.get_mut(id as usize)?;
        let parent = node.parent;
        let label = std::mem::take(&mut node.label);
        let parent_node = self.nodes.get_mut(parent as usize)?;
        match &*label {
            "+" => parent_node.plus = NONE,
            "#" => parent_node.multi = NONE,
            label => {
                parent_node.literals -= 1;
                let hash = self.hasher.hash_one((parent, label));
                if let Ok(edge) = self.edges.find_entry(hash, |&child| child == id) {
                    edge.remove();
                }
            }
        }
        self.free.push(id);
        Some(parent)
    }
}

impl<V> Node<V> {
    fn new(parent: u32, label: &str) -> Self {
        Self { parent, plus: NONE, multi: NONE, literals: 0, label: Box::from(label), value: None }
    }

    fn is_bare(&self) -> bool {
        self.value.is_none() && self.plus == NONE && self.multi == NONE && self.literals == 0
    }
}

fn hash_of<V>(nodes: &[Node<V>], hasher: &DefaultHashBuilder, id: u32) -> u64 {
    nodes.get(id as usize).map_or(0, |node| hasher.hash_one((node.parent, &*node.label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(filters: &[&'static str]) -> Trie<&'static str> {
        let mut trie = Trie::default();
        for filter in filters {
            trie.get_or_insert_with(filter, || *filter);
        }
        trie
    }

    fn matching(trie: &Trie<&'static str>, topic: &str) -> Vec<&'static str> {
        let mut all = Vec::new();
        trie.matches(topic, |filter| all.push(*filter));
        all.sort_unstable();
        all
    }

    #[test]
    fn frees_the_levels_of_removed_filters() {
        let mut trie = trie(&["a/b/c/#", "a/b/+"]);
        let nodes = trie.nodes.len();
        assert_eq!(trie.remove("a/b/c/#"), Some("a/b/c/#"));
        assert_eq!(trie.remove("a/b/c/#"), None);
        assert_eq!(trie.nodes.len() - trie.free.len(), 4);
        trie.get_or_insert_with("a/x/+", || "a/x/+");
        assert_eq!(trie.nodes.len(), nodes, "vacated nodes are used again");
        assert_eq!(matching(&trie, "a/b/c"), ["a/b/+"]);
        trie.remove("a/x/+");
        trie.remove("a/b/+");
        assert_eq!((trie.nodes.capacity(), trie.edges.capacity(), trie.len()), (0, 0, 0));
    }

    #[test]
    fn a_literal_is_no_wildcard_and_an_inner_level_no_filter() {
        let trie = trie(&["a/+/c"]);
        assert_eq!(trie.get("a/+"), None);
        assert_eq!(matching(&trie, "a/+/d"), Vec::<&str>::new());
        assert_eq!(matching(&trie, "a//c"), ["a/+/c"]);
    }

    #[test]
    fn survives_filters_and_topics_of_65535_slashes() {
        let deep = "/".repeat(65_534) + "#";
        let plus = "+/".repeat(32_767) + "+";
        let mut trie = Trie::default();
        trie.get_or_insert_with(&deep, || 1);
        trie.get_or_insert_with(&plus, || 2);
        let mut found = Vec::new();
        trie.matches(&"/".repeat(65_535), |value| found.push(*value));
        assert_eq!(found, [1]);
        found.clear();
        trie.matches(&"/".repeat(32_767), |value| found.push(*value));
        assert_eq!(found, [2]);
        assert_eq!(trie.remove(&deep), Some(1));
        drop(trie);
    }
}
