//! The shape of a topic filter: whether it is well formed, and which literal levels it begins with.

/// Which part of a topic decides whether a filter can match it. Filters are sharded by this key, so that a change
/// to one invalidates only routes of topics with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement<'a> {
    /// No wildcard: matches this topic alone.
    Exact(&'a str),
    /// At least two literal levels before the first wildcard; the key is those two levels, `a/b`.
    Deep(&'a str),
    /// One literal level before the first wildcard.
    First(&'a str),
    /// The first level is a wildcard.
    Root,
}

impl<'a> Placement<'a> {
    /// `None` when the filter is empty, has `#` before its last level, or has a wildcard that does not fill its
    /// level [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1].
    pub(super) fn of(filter: &'a str) -> Option<Self> {
        if filter.is_empty() {
            return None;
        }
        let mut literal_levels = None;
        let mut ended = false;
        for (depth, level) in filter.split('/').enumerate() {
            if ended {
                return None;
            }
            match level {
                "#" | "+" => {
                    literal_levels.get_or_insert(depth);
                    ended = level == "#";
                }
                _ if level.contains(['#', '+']) => return None,
                _ => {}
            }
        }
        Some(match literal_levels {
            None => Self::Exact(filter),
            Some(0) => Self::Root,
            Some(1) => Self::First(first_level(filter)),
            Some(_) => Self::Deep(first_two_levels(filter).unwrap_or(filter)),
        })
    }
}

/// `a` of `a/b/c`.
pub(super) fn first_level(topic: &str) -> &str {
    topic.split_once('/').map_or(topic, |(first, _)| first)
}

/// `a/b` of `a/b/c` and of `a/b`; `None` for a topic of one level.
pub(super) fn first_two_levels(topic: &str) -> Option<&str> {
    let mut slashes = topic.match_indices('/');
    slashes.next()?;
    let end = slashes.next().map_or(topic.len(), |(at, _)| at);
    topic.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_filters_by_their_literal_levels() {
        assert_eq!(Placement::of("a/b/c"), Some(Placement::Exact("a/b/c")));
        assert_eq!(Placement::of("/"), Some(Placement::Exact("/")));
        assert_eq!(Placement::of("a/b/#"), Some(Placement::Deep("a/b")));
        assert_eq!(Placement::of("a/b/c/+"), Some(Placement::Deep("a/b")));
        assert_eq!(Placement::of("//#"), Some(Placement::Deep("/")));
        assert_eq!(Placement::of("a/+/c"), Some(Placement::First("a")));
        assert_eq!(Placement::of("/#"), Some(Placement::First("")));
        assert_eq!(Placement::of("#"), Some(Placement::Root));
        assert_eq!(Placement::of("+/a"), Some(Placement::Root));
    }

    // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1]
    #[test]
    fn refuses_malformed_filters() {
        for filter in ["", "a#", "a/#/b", "#/", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "a/+b/c", "++"] {
            assert_eq!(Placement::of(filter), None, "{filter}");
        }
    }

    #[test]
    fn cuts_topics_at_slashes() {
        assert_eq!(first_level("a/b"), "a");
        assert_eq!(first_level("/b"), "");
        assert_eq!(first_two_levels("a"), None);
        assert_eq!(first_two_levels("a/b"), Some("a/b"));
        assert_eq!(first_two_levels("a/b/"), Some("a/b"));
        assert_eq!(first_two_levels("//x"), Some("/"));
    }
}
