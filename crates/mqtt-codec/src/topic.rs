//! Topic names and topic filters (section 4.7) and shared subscriptions (section 4.8.2).
//!
//! Everything walks a name or filter once, level by level, without recursion or allocation.

use std::str::Split;

/// Why a topic name or filter is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic is empty")]
    Empty,
    #[error("topic is longer than 65535 bytes")]
    TooLong,
    #[error("topic contains U+0000")]
    NullCharacter,
    #[error("topic name contains a wildcard")]
    WildcardInName,
    #[error("# is not the whole last level")]
    MultiLevelWildcard,
    #[error("+ is not a whole level")]
    SingleLevelWildcard,
    #[error("share name is empty or contains a wildcard")]
    ShareName,
    #[error("shared subscription has no topic filter")]
    ShareFilter,
}

/// A shared subscription, `$share/<group>/<filter>`, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    pub group: &'a str,
    pub filter: &'a str,
}

const SHARE_PREFIX: &str = "$share/";

/// The levels of a topic name or filter; an empty level is a level.
pub fn levels(topic: &str) -> Split<'_, char> {
    topic.split('/')
}

/// Whether the filter begins as a shared subscription does.
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE_PREFIX)
}

/// Checks a topic name.
pub fn validate_name(name: &str) -> Result<(), TopicError> {
    check_text(name)?;
    // [MQTT-4.7.0-1] [MQTT-3.3.2-2]
    if name.bytes().any(|b| b == b'+' || b == b'#') { Err(TopicError::WildcardInName) } else { Ok(()) }
}

/// Checks a topic filter, shared or not.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    match SharedFilter::parse(filter)? {
        Some(_) => Ok(()),
        None => validate_plain_filter(filter),
    }
}

/// Whether a topic name matches a filter, both valid. A shared subscription matches by its [`SharedFilter::filter`].
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = levels(name);
    for level in levels(filter) {
        match level {
            // [MQTT-4.7.1-1]: also the parent level, so that nothing need be left of the name.
            "#" => return true,
            "+" => {
                if names.next().is_none() {
                    return false;
                }
            }
            // [MQTT-4.7.3-4]
            exact => {
                if names.next() != Some(exact) {
                    return false;
                }
            }
        }
    }
    names.next().is_none()
}

impl<'a> SharedFilter<'a> {
    /// Takes a shared subscription apart; `None` if the filter is not one.
    pub fn parse(filter: &'a str) -> Result<Option<Self>, TopicError> {
        let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else {
            return Ok(None);
        };
        let (group, inner) = rest.split_once('/').ok_or(TopicError::ShareFilter)?;
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        if group.is_empty() || group.contains(['+', '#', '\0']) {
            return Err(TopicError::ShareName);
        }
        if inner.is_empty() {
            return Err(TopicError::ShareFilter);
        }
        if filter.len() > usize::from(u16::MAX) {
            return Err(TopicError::TooLong);
        }
        validate_plain_filter(inner)?;
        Ok(Some(Self { group, filter: inner }))
    }
}

fn validate_plain_filter(filter: &str) -> Result<(), TopicError> {
    check_text(filter)?;
    let mut rest = levels(filter);
    while let Some(level) = rest.next() {
        match level {
            "+" => {}
            // [MQTT-4.7.1-1]
            "#" if rest.next().is_some() => return Err(TopicError::MultiLevelWildcard),
            "#" => {}
            _ if level.contains('#') => return Err(TopicError::MultiLevelWildcard),
            // [MQTT-4.7.1-2]
            _ if level.contains('+') => return Err(TopicError::SingleLevelWildcard),
            _ => {}
        }
    }
    Ok(())
}

fn check_text(topic: &str) -> Result<(), TopicError> {
    // [MQTT-4.7.3-1]
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    // [MQTT-4.7.3-3]
    if topic.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong);
    }
    // [MQTT-4.7.3-2]
    if topic.as_bytes().contains(&0) { Err(TopicError::NullCharacter) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_examples_of_section_4_7() {
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis", true),
            ("a/b", "a/b", true),
            ("a/b", "a/B", false),
            ("a/b", "a/b/", false),
            ("a/b/", "a/b", false),
            ("+/b/#", "a/b/c/d", true),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} {name}");
        }
    }

    #[test]
    fn wildcards_in_the_first_level_do_not_match_dollar_topics() {
        for filter in ["#", "+/monitor/Clients", "+/#"] {
            assert!(!matches(filter, "$SYS/monitor/Clients"), "{filter}");
        }
        for filter in ["$SYS/#", "$SYS/monitor/+", "$SYS/+/Clients"] {
            assert!(matches(filter, "$SYS/monitor/Clients"), "{filter}");
        }
        assert!(matches("#", "a/$b"));
    }

    #[test]
    fn accepts_valid_filters() {
        for filter in ["#", "+", "a/#", "+/+/#", "/", "a//b", "$SYS/#", "a b/ü", "$share", "$share/g/#", "$share/g//"]
        {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn rejects_invalid_filters() {
        for (filter, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::NullCharacter),
            ("sport/tennis#", TopicError::MultiLevelWildcard),
            ("sport/tennis/#/ranking", TopicError::MultiLevelWildcard),
            ("#/", TopicError::MultiLevelWildcard),
            ("##", TopicError::MultiLevelWildcard),
            ("sport+", TopicError::SingleLevelWildcard),
            ("+a/b", TopicError::SingleLevelWildcard),
            ("a/++", TopicError::SingleLevelWildcard),
            ("$share/", TopicError::ShareFilter),
            ("$share/g", TopicError::ShareFilter),
            ("$share/g/", TopicError::ShareFilter),
            ("$share//a", TopicError::ShareName),
            ("$share/g+/a", TopicError::ShareName),
            ("$share/#/a", TopicError::ShareName),
            ("$share/g/a#", TopicError::MultiLevelWildcard),
        ] {
            assert_eq!(validate_filter(filter), Err(error), "{filter:?}");
        }
    }

    #[test]
    fn names_have_no_wildcards_and_a_length() {
        assert_eq!(validate_name("a/b c/ü"), Ok(()));
        assert_eq!(validate_name(&"/".repeat(65_535)), Ok(()));
        assert_eq!(validate_name(&"/".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(validate_name(""), Err(TopicError::Empty));
        assert_eq!(validate_name("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(validate_name("a#"), Err(TopicError::WildcardInName));
        assert_eq!(validate_name("\0"), Err(TopicError::NullCharacter));
    }

    #[test]
    fn takes_shared_subscriptions_apart() {
        assert_eq!(SharedFilter::parse("$share/g/a/+"), Ok(Some(SharedFilter { group: "g", filter: "a/+" })));
        assert_eq!(SharedFilter::parse("a/b"), Ok(None));
        assert_eq!(SharedFilter::parse("$shared/g/a"), Ok(None));
    }

    #[test]
    fn walks_the_longest_topics() {
        let slashes = "/".repeat(65_535);
        assert!(matches("#", &slashes));
        assert!(matches(&slashes, &slashes));
        assert!(!matches(&"+/".repeat(32_767), &slashes));
    }
}
