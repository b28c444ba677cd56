//! The position of a wildcard walk over retained messages, and the rule that skips what cannot match.
//!
//! Keys are topics with U+0000 for `/`, in byte order. After a key that does not match, the filter names the least
//! key that could: `a/+/c` over a million topics below `a` searches twice for each second level and reads nothing
//! else. No recursion; the state is one key, so a walk survives any change between its batches.

use std::ops::Bound;

/// Entries examined in one batch at most, whether they match or not.
pub(super) const WORK_PER_BATCH: usize = 4096;

/// A walk over retained messages for one filter, driven by [`super::Retained::next_batch`]. Holds no lock and
/// borrows nothing, so it can wait in a session while its subscriber is slow.
#[derive(Debug)]
pub struct RetainedWalk {
    filter: Box<str>,
    levels: Levels,
    progress: Progress,
    /// Where to go on in the current shard, inclusive; empty for its beginning.
    from: String,
    /// Scratch for the target of a skip.
    target: String,
}

/// The filter's levels as ranges of `filter`.
#[derive(Debug)]
struct Levels {
    ends: Vec<usize>,
    /// The filter ends in `#`, which is not among `ends`.
    multi: bool,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    New,
    /// In shard `at`, with those up to `end` to come.
    In {
        at: usize,
        end: usize,
    },
    Done,
}

/// What a key means for the walk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Match,
    /// No match before this key, which is greater than the one examined.
    Seek(&'a str),
    /// No match after this key.
    Done,
}

impl RetainedWalk {
    /// The real filter: what follows `$share/group/` is not sent retained messages at all. A malformed filter matches
    /// nothing.
    pub fn new(filter: &str) -> Self {
        let mut ends = filter.match_indices('/').map(|(at, _)| at).collect::<Vec<_>>();
        ends.push(filter.len());
        let multi = filter == "#" || filter.ends_with("/#");
        if multi {
            ends.pop();
        }
        Self {
            filter: Box::from(filter),
            levels: Levels { ends, multi },
            progress: Progress::New,
            from: String::new(),
            target: String::new(),
        }
    }

    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// True when [`super::Retained::next_batch`] has nothing more to give.
    pub fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Done)
    }

    pub(super) fn is_started(&self) -> bool {
        !matches!(self.progress, Progress::New)
    }

    pub(super) fn start_single(&mut self, shard: usize) {
        self.start(shard, shard + 1);
    }

    pub(super) fn start_all(&mut self, shards: usize) {
        self.start(0, shards);
    }

    pub(super) fn finish(&mut self) {
        self.progress = Progress::Done;
    }

    pub(super) fn shard(&self) -> Option<usize> {
        match self.progress {
            Progress::In { at, .. } => Some(at),
            Progress::New | Progress::Done => None,
        }
    }

    pub(super) fn next_shard(&mut self) {
        if let Progress::In { at, end } = self.progress {
            if at + 1 < end {
                self.start(at + 1, end);
            } else {
                self.progress = Progress::Done;
            }
        }
    }

    pub(super) fn from(&self) -> Bound<&str> {
        Bound::Included(&self.from)
    }

    pub(super) fn resume_at(&mut self, key: &str) {
        self.from.clear();
        self.from.push_str(key);
    }

    /// Compares a key with the filter.
    pub(super) fn step(&mut self, key: &str) -> Step<'_> {
        self.target.clear();
        // [MQTT-4.7.2-1]: a filter that begins with a wildcard does not match a topic that begins with `$`.
        if key.starts_with('$') && self.filter.starts_with(['+', '#']) {
            self.target.push('%');
            return Step::Seek(&self.target);
        }
        let mut keys = Cuts { text: key, at: Some(0) };
        // The end of the key's last level that a `+` matched: where a later sibling may begin.
        let mut last_plus = None;
        for depth in 0..self.levels.ends.len() {
            let wanted = level(&self.filter, &self.levels.ends, depth);
            let Some((found, end)) = keys.next() else {
                // Too short: the next candidate is below this key.
                self.target.push_str(key);
                self.target.push('\0');
                push_literals(&mut self.target, &self.filter, &self.levels.ends, depth);
                return Step::Seek(&self.target);
            };
            if wanted == "+" {
                last_plus = Some(end);
            } else if found < wanted {
                self.target.push_str(key.get(..end - found.len()).unwrap_or_default());
                push_literals(&mut self.target, &self.filter, &self.levels.ends, depth);
                return Step::Seek(&self.target);
            } else if found > wanted {
                return seek_sibling(&mut self.target, key, last_plus);
            }
        }
        if self.levels.multi || keys.next().is_none() {
            return Step::Match;
        }
        // Too long: nothing below can match either.
        seek_sibling(&mut self.target, key, last_plus)
    }

    fn start(&mut self, at: usize, end: usize) {
        self.progress = Progress::In { at, end };
        // The first possible key is that of the leading literal levels.
        self.from.clear();
        push_literals(&mut self.from, &self.filter, &self.levels.ends, 0);
    }
}

/// Levels of a key with where each ends.
struct Cuts<'a> {
    text: &'a str,
    at: Option<usize>,
}

impl<'a> Iterator for Cuts<'a> {
    type Item = (&'a str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at?;
        let rest = self.text.get(start..)?;
        let len = rest.find('\0').unwrap_or(rest.len());
        let end = start + len;
        self.at = (end < self.text.len()).then_some(end + 1);
        Some((rest.get(..len)?, end))
    }
}

fn level<'a>(filter: &'a str, ends: &[usize], depth: usize) -> &'a str {
    let start = depth.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| end + 1);
    ends.get(depth).and_then(|&end| filter.get(start..end)).unwrap_or_default()
}

/// Appends the filter's literal levels from `depth` up to its next wildcard: the least that a match continues with.
fn push_literals(target: &mut String, filter: &str, ends: &[usize], depth: usize) {
    for next in depth..ends.len() {
        let wanted = level(filter, ends, next);
        if wanted == "+" {
            return;
        }
        if next > depth {
            target.push('\0');
        }
        target.push_str(wanted);
    }
}

/// The least key greater than the level that ends at `end` and everything below it.
fn seek_sibling<'a>(target: &'a mut String, key: &str, end: Option<usize>) -> Step<'a> {
    match end.and_then(|end| key.get(..end)) {
        Some(head) => {
            target.push_str(head);
            target.push('\u{1}');
            Step::Seek(target)
        }
        None => Step::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(filter: &str, topic: &str) -> Option<String> {
        match RetainedWalk::new(filter).step(&topic.replace('/', "\0")) {
            Step::Match => Some("match".to_owned()),
            Step::Seek(target) => Some(target.replace('\0', "/").replace('\u{1}', "^")),
            Step::Done => None,
        }
    }

    #[test]
    fn skips_to_the_least_key_that_can_match() {
        assert_eq!(step("a/+/c", "a/b/c").as_deref(), Some("match"));
        assert_eq!(step("a/+/c", "a").as_deref(), Some("a/"));
        assert_eq!(step("a/+/c", "a/b").as_deref(), Some("a/b/c"));
        assert_eq!(step("a/+/c/d/+", "a/b/b/x").as_deref(), Some("a/b/c/d"));
        assert_eq!(step("a/+/c", "a/b/d").as_deref(), Some("a/b^"));
        assert_eq!(step("a/+/c", "a/b/c/d").as_deref(), Some("a/b^"));
        assert_eq!(step("a/+/c", "b"), None);
        assert_eq!(step("a/b", "a/b/c"), None);
        assert_eq!(step("a/#", "a").as_deref(), Some("match"));
        assert_eq!(step("a/#", "a/b/c").as_deref(), Some("match"));
        assert_eq!(step("a/+/#", "a").as_deref(), Some("a/"));
        assert_eq!(step("+/b/#", "a/c").as_deref(), Some("a^"));
        assert_eq!(step("#", "$SYS/x").as_deref(), Some("%"));
        assert_eq!(step("+/x", "$SYS/x").as_deref(), Some("%"));
        assert_eq!(step("$SYS/#", "$SYS/x").as_deref(), Some("match"));
    }

    #[test]
    fn every_skip_goes_forward() {
        for filter in ["a/+/c", "+/+", "+", "a/b/+/d/#", "#", "//+", "+/", "/#"] {
            for topic in ["", "/", "//", "a", "a/", "a/b", "a/b/c/d", "a/c/c", "$a/b", "b/a/c/", "\u{1}/a", "a\u{1}"] {
                let key = topic.replace('/', "\0");
                if let Step::Seek(target) = RetainedWalk::new(filter).step(&key) {
                    assert!(*target > *key, "{filter} {topic}");
                }
            }
        }
    }

    #[test]
    fn a_key_of_65535_levels_is_compared_without_recursion() {
        let deep = "/".repeat(65_535);
        assert_eq!(step(&("+/".repeat(32_767) + "#"), &deep).as_deref(), Some("match"));
        assert!(step(&"+/".repeat(32_767), &deep).is_some());
    }
}
