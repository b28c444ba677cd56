//! Sets of topics as filters describe them: what two filters have in common, and whether some filters together hold all of another.
//!
//! Pure and exact. There are more names for a level than any set of rules can list, so of the topics a wildcard matches there is always one
//! that a rule matches by a wildcard or not at all; a set of that many levels is covered by one filter or by none.

use std::borrow::Cow;

/// One level of a filter whose placeholders have been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level<'a> {
    /// `+`
    Any,
    Text(Cow<'a, str>),
}

/// A topic filter as the set of topics it matches; `$share` has been taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter<'a> {
    levels: Vec<Level<'a>>,
    /// Ends in `#`: the topic of `levels` itself, and whatever lies below it.
    rest: bool,
}

impl<'a> Filter<'a> {
    pub(super) fn new(levels: Vec<Level<'a>>, rest: bool) -> Filter<'a> {
        Filter { levels, rest }
    }

    /// The set of a valid topic filter, or of a topic name, which is a filter without wildcards.
    pub(super) fn of(text: &'a str) -> Filter<'a> {
        let mut filter = Filter { levels: Vec::new(), rest: false };
        for level in mqtt_codec::topic::levels(text) {
            match level {
                "#" => filter.rest = true,
                "+" => filter.levels.push(Level::Any),
                text => filter.levels.push(Level::Text(Cow::Borrowed(text))),
            }
        }
        filter
    }

    /// The topics that both match; `None` when there are none. Filters are closed under this.
    pub(super) fn intersection(&self, other: &Filter<'a>) -> Option<Filter<'a>> {
        let (short, long) = if self.levels.len() <= other.levels.len() { (self, other) } else { (other, self) };
        if short.levels.len() < long.levels.len() && !short.rest {
            return None;
        }
        // [MQTT-4.7.2-1]: a wildcard in the first level does not match what begins with `$`.
        if self.hides(other) || other.hides(self) {
            return None;
        }
        let mut levels = Vec::with_capacity(long.levels.len());
        for (at, level) in long.levels.iter().enumerate() {
            levels.push(match (level, short.levels.get(at)) {
                (level, None | Some(Level::Any)) => level.clone(),
                (Level::Any, Some(level)) => level.clone(),
                (one, Some(two)) if one == two => one.clone(),
                _ => return None,
            });
        }
        let rest = if short.levels.len() == long.levels.len() { short.rest && long.rest } else { long.rest };
        Some(Filter { levels, rest })
    }

    /// Whether the first level is a wildcard where the other's begins with `$`.
    fn hides(&self, other: &Filter<'_>) -> bool {
        matches!(self.levels.first(), None | Some(Level::Any))
            && matches!(other.levels.first(), Some(Level::Text(text)) if text.starts_with('$'))
    }

    /// Whether each topic of `other` that has as many levels as this filter tells apart also matches this one.
    fn spans(&self, other: &Filter<'_>) -> bool {
        !self.hides(other)
            && self.levels.iter().enumerate().all(|(at, level)| match (level, other.levels.get(at)) {
                (Level::Any, _) => true,
                (Level::Text(one), Some(Level::Text(two))) => one == two,
                (Level::Text(_), Some(Level::Any) | None) => false,
            })
    }
}

/// Whether `filters` together match every topic that `set` matches.
pub(super) fn covered<'f>(set: &Filter<'_>, filters: impl Iterator<Item = &'f Filter<'f>>) -> bool {
    let least = match set.levels.as_slice() {
        // A topic has one level at least, so that `#` begins at one and not at none.
        [] => 1,
        // It is not empty either: what `/#` matches begins at two.
        [Level::Text(text)] if text.is_empty() && set.rest => 2,
        levels => levels.len(),
    };
    // Depths that are covered one by one, and the one from which all are.
    let mut depths: Vec<usize> = Vec::new();
    let mut all_from = usize::MAX;
    for filter in filters {
        if !filter.spans(set) {
            continue;
        }
        let depth = filter.levels.len();
        if filter.rest {
            all_from = all_from.min(depth);
            if all_from <= least {
                return true;
            }
        } else if depth == least && !set.rest {
            return true;
        } else if depth >= least && set.rest {
            depths.push(depth);
        }
    }
    if !set.rest || all_from == usize::MAX {
        return false;
    }
    depths.sort_unstable();
    depths.dedup();
    (least..all_from).all(|depth| depths.binary_search(&depth).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::topic::matches;
    use proptest::prelude::*;

    /// Every topic of one to `depth` levels over names the filters use and one that none of them does.
    fn topics(depth: usize) -> Vec<String> {
        const NAMES: [&str; 5] = ["a", "b", "$s", "", "fresh"];
        let mut all = Vec::new();
        let mut last = vec![String::new()];
        for at in 0..depth {
            last = last
                .iter()
                .flat_map(|head| {
                    NAMES.iter().map(move |n| if at == 0 { (*n).to_owned() } else { format!("{head}/{n}") })
                })
                .collect();
            all.extend(last.iter().filter(|topic| !topic.is_empty()).cloned());
        }
        all
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => Just("a"), 1 => Just("b"), 1 => Just("$s"), 1 => Just(""), 4 => Just("+")];
        (prop::collection::vec(level, 0..4), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("a filter is not empty", |filter| !filter.is_empty())
    }

    #[test]
    fn examples_of_what_filters_have_in_common() {
        for (one, two, both) in [
            ("a/#", "a/+", Some("a/+")),
            ("a/#", "a", Some("a")),
            ("a/#", "+", Some("a")),
            ("#", "+/b", Some("+/b")),
            ("+/+/#", "a/#", Some("a/+/#")),
            ("a/+/c", "a/b/+", Some("a/b/c")),
            ("a/b", "a/c", None),
            ("a", "a/b", None),
            ("#", "$SYS/x", None),
            ("+/x", "$SYS/x", None),
            ("$SYS/#", "$SYS/+/x", Some("$SYS/+/x")),
        ] {
            let expected = both.map(Filter::of);
            assert_eq!(Filter::of(one).intersection(&Filter::of(two)), expected, "{one} {two}");
            assert_eq!(Filter::of(two).intersection(&Filter::of(one)), expected, "{two} {one}");
        }
    }

    #[test]
    fn examples_of_what_filters_cover_together() {
        for (set, filters, expected) in [
            ("a/#", &["a/#"][..], true),
            ("a/#", &["a", "a/+/#"], true),
            ("a/#", &["a", "a/+", "a/+/+/#"], true),
            ("a/#", &["a", "a/+/+/#"], false),
            ("a/#", &["a/+/#"], false),
            ("+", &["a", "b", "c"], false),
            ("a/+", &["+/+"], true),
            ("$SYS/#", &["#"], false),
            ("#", &["+/#"], true),
            ("#", &["+", "+/+/#"], true),
            ("/#", &["/+/#"], true),
            ("/#", &["/+"], false),
            ("a", &["a/#"], true),
            ("a", &[], false),
        ] {
            let filters: Vec<_> = filters.iter().map(|filter| Filter::of(filter)).collect();
            assert_eq!(covered(&Filter::of(set), filters.iter()), expected, "{set} {filters:?}");
        }
    }

    proptest! {
        #[test]
        fn the_intersection_matches_what_both_match(one in filter(), two in filter()) {
            let both = Filter::of(&one).intersection(&Filter::of(&two));
            for topic in topics(5) {
                let expected = matches(&one, &topic) && matches(&two, &topic);
                let name = Filter::of(&topic);
                let got = both.as_ref().is_some_and(|both| covered(&name, std::iter::once(both)));
                prop_assert_eq!(got, expected, "{} {} {}", one, two, topic);
            }
        }

        #[test]
        fn filters_cover_a_set_when_each_of_its_topics_matches_one(
            set in filter(),
            filters in prop::collection::vec(filter(), 0..6),
        ) {
            let expected = topics(6)
                .iter()
                .filter(|topic| matches(&set, topic))
                .all(|topic| filters.iter().any(|filter| matches(filter, topic)));
            let parsed: Vec<_> = filters.iter().map(|filter| Filter::of(filter)).collect();
            prop_assert_eq!(covered(&Filter::of(&set), parsed.iter()), expected, "{} {:?}", set, filters);
        }
    }
}
