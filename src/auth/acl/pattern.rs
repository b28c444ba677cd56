//! Topics as rules write them: filters with placeholders for what is known of a client.
//!
//! A client chooses some of these values itself, so a value that would mean more than a name (`+`, `#`, `/`, `$` in front, or nothing at
//! all) is never put in: an allowing rule then does not match, and a refusing rule matches whatever it could have meant.

use std::borrow::Cow;
use std::str::FromStr;

use mqtt_codec::topic::{TopicError, validate_filter};

use super::filter::{Filter, Level};
use crate::auth::Identity;
use gm_tls::cert::AlternativeName;

/// The mark of a pattern that stands for its own text.
const EXACT: &str = "eq ";

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error(transparent)]
    Filter(#[from] TopicError),
    #[error("`{0}` is no placeholder")]
    UnknownPlaceholder(String),
    #[error("`${{` without `}}`")]
    OpenPlaceholder,
    #[error("a rule names the filter itself, without `$share/GROUP/`")]
    Shared,
}

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Username,
    ClientId,
    CertCommonName,
    CertSubject,
    CertSm3,
    CertSha256,
    CertSan(AlternativeName),
    PskIdentity,
}

impl Placeholder {
    const NAMES: [(&'static str, Placeholder); 11] = [
        ("username", Placeholder::Username),
        ("clientid", Placeholder::ClientId),
        ("cert_common_name", Placeholder::CertCommonName),
        ("cert_subject", Placeholder::CertSubject),
        ("cert_sm3", Placeholder::CertSm3),
        ("cert_sha256", Placeholder::CertSha256),
        ("cert_san_dns", Placeholder::CertSan(AlternativeName::Dns)),
        ("cert_san_email", Placeholder::CertSan(AlternativeName::Email)),
        ("cert_san_uri", Placeholder::CertSan(AlternativeName::Uri)),
        ("cert_san_ip", Placeholder::CertSan(AlternativeName::Ip)),
        ("psk_identity", Placeholder::PskIdentity),
    ];

    /// The client's value, if there is one and it is a name and nothing else.
    fn value(self, client: &Identity) -> Option<Cow<'_, str>> {
        let certificate = client.certificate();
        let value = match self {
            Placeholder::Username => client.username.as_deref().map(Cow::from),
            Placeholder::ClientId => Some(Cow::from(&*client.client_id)),
            Placeholder::CertCommonName => client.common_name().map(Cow::from),
            Placeholder::CertSubject => certificate.map(|certificate| Cow::from(certificate.subject())),
            Placeholder::CertSm3 => certificate.map(|certificate| Cow::from(certificate.fingerprint_sm3())),
            Placeholder::CertSha256 => certificate.map(|certificate| Cow::from(certificate.fingerprint_sha256())),
            Placeholder::PskIdentity => client.peer.psk.as_deref().map(Cow::from),
            Placeholder::CertSan(kind) => certificate.and_then(|c| c.alternative_name(kind)).map(Cow::from),
        };
        // The values of CVE-2017-7650, and those that would lead into the broker's own topics.
        value.filter(|value| !value.is_empty() && !value.contains(['+', '#', '/', '\0']) && !value.starts_with('$'))
    }
}

/// Every placeholder as it is written.
pub(super) fn placeholders() -> String {
    let names: Vec<String> = Placeholder::NAMES.iter().map(|(name, _)| format!("${{{name}}}")).collect();
    names.join(", ")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Placeholder),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternLevel {
    Any,
    /// Text and placeholders, one after the other.
    Pieces(Box<[Piece]>),
}

/// One topic of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `eq TEXT`: this topic, or a subscription to this very filter; no placeholder is replaced.
    Exact(Box<str>),
    Filter {
        levels: Box<[PatternLevel]>,
        rest: bool,
    },
}

/// A pattern as it stands for one client.
#[derive(Debug)]
pub(super) enum Bound<'a> {
    /// The topics of a filter.
    Topics(Filter<'a>),
    /// A subscription to this very filter, which has wildcards.
    ExactFilter(&'a str),
    /// Nothing may be assumed: it could have meant any topic.
    Everything,
    Nothing,
}

impl TopicPattern {
    /// A pattern that stands for one filter as it is, without placeholders.
    pub(super) fn verbatim(filter: &str) -> Result<TopicPattern, PatternError> {
        validate_filter(filter)?;
        let mut rest = false;
        let mut levels = Vec::new();
        for level in mqtt_codec::topic::levels(filter) {
            match level {
                "#" => rest = true,
                "+" => levels.push(PatternLevel::Any),
                text => levels.push(PatternLevel::Pieces(Box::new([Piece::Text(text.into())]))),
            }
        }
        Ok(TopicPattern(Kind::Filter { levels: levels.into(), rest }))
    }

    /// What the pattern stands for. `cautious` is for a rule that refuses: what cannot be known then counts as meant.
    pub(super) fn bind(&self, client: &Identity, cautious: bool) -> Bound<'_> {
        match &self.0 {
            Kind::Exact(text) if text.contains(['+', '#']) => Bound::ExactFilter(text),
            Kind::Exact(text) => Bound::Topics(Filter::of(text)),
            Kind::Filter { levels, rest } => {
                let mut bound = Vec::with_capacity(levels.len());
                for level in levels {
                    match level.bind(client) {
                        Some(level) => bound.push(level),
                        None if !cautious => return Bound::Nothing,
                        None if bound.is_empty() => return Bound::Everything,
                        None => return Bound::Topics(Filter::new(bound, true)),
                    }
                }
                Bound::Topics(Filter::new(bound, *rest))
            }
        }
    }

    /// Whether a topic name is among those it stands for; `cautious` as in [`bind`](Self::bind).
    pub(super) fn matches(&self, client: &Identity, cautious: bool, topic: &str) -> bool {
        let (levels, rest) = match &self.0 {
            Kind::Exact(text) => return **text == *topic,
            Kind::Filter { levels, rest } => (levels, *rest),
        };
        let mut names = mqtt_codec::topic::levels(topic);
        for (depth, level) in levels.iter().enumerate() {
            match level.bind(client) {
                None => return cautious,
                Some(bound) => match (names.next(), bound) {
                    (None, _) => return false,
                    // [MQTT-4.7.2-1]
                    (Some(name), Level::Any) if depth == 0 && name.starts_with('$') => return false,
                    (Some(_), Level::Any) => {}
                    (Some(name), Level::Text(text)) if name == text => {}
                    (Some(_), Level::Text(_)) => return false,
                },
            }
        }
        if levels.is_empty() && topic.starts_with('$') {
            return false;
        }
        rest || names.next().is_none()
    }
}

impl PatternLevel {
    /// `None` when a value is missing or not usable.
    fn bind(&self, client: &Identity) -> Option<Level<'_>> {
        let pieces = match self {
            PatternLevel::Any => return Some(Level::Any),
            PatternLevel::Pieces(pieces) => pieces,
        };
        if let [Piece::Text(text)] = &**pieces {
            return Some(Level::Text(Cow::Borrowed(text)));
        }
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(placeholder) => text.push_str(&placeholder.value(client)?),
            }
        }
        Some(Level::Text(Cow::Owned(text)))
    }
}

impl FromStr for TopicPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<TopicPattern, PatternError> {
        if let Some(exact) = text.strip_prefix(EXACT) {
            validate_filter(exact)?;
            return if mqtt_codec::topic::is_shared(exact) {
                Err(PatternError::Shared)
            } else {
                Ok(TopicPattern(Kind::Exact(exact.into())))
            };
        }
        validate_filter(text)?;
        if mqtt_codec::topic::is_shared(text) {
            return Err(PatternError::Shared);
        }
        let mut rest = false;
        let mut levels = Vec::new();
        for level in mqtt_codec::topic::levels(text) {
            match level {
                "#" => rest = true,
                "+" => levels.push(PatternLevel::Any),
                text => levels.push(PatternLevel::Pieces(pieces(text)?.into())),
            }
        }
        Ok(TopicPattern(Kind::Filter { levels: levels.into(), rest }))
    }
}

fn pieces(level: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces = Vec::new();
    let mut rest = level;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(PatternError::OpenPlaceholder)?;
        let known = Placeholder::NAMES.iter().find(|(known, _)| *known == name);
        let (_, placeholder) = known.ok_or_else(|| PatternError::UnknownPlaceholder(format!("${{{name}}}")))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        pieces.push(Piece::Value(*placeholder));
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::tests::identity;

    fn matches(pattern: &str, username: Option<&str>, topic: &str) -> bool {
        pattern.parse::<TopicPattern>().unwrap().matches(&identity("c", username), false, topic)
    }

    #[test]
    fn placeholders_stand_for_the_client_s_own_names() {
        assert!(matches("d/${username}/#", Some("u"), "d/u/x"));
        assert!(matches("d/${clientid}", Some("u"), "d/c"));
        assert!(matches("d/dev-${clientid}-${username}", Some("u"), "d/dev-c-u"));
        assert!(!matches("d/${username}/#", Some("u"), "d/v/x"));
        assert!(!matches("d/${cert_common_name}", Some("u"), "d/u"));
    }

    // CVE-2017-7650: a user name `#` or `+` matched every topic of a pattern with a placeholder.
    #[test]
    fn values_that_mean_more_than_a_name_match_nothing_that_allows_and_all_that_refuses() {
        for value in [Some("+"), Some("#"), Some("a/b"), Some(""), Some("$SYS"), Some("a+"), Some("a\0"), None] {
            let client = identity("c", value);
            for (pattern, topic) in
                [("${username}/x", "secret/x"), ("d/${username}", "d/a"), ("d/${username}/#", "d/a/b")]
            {
                let pattern: TopicPattern = pattern.parse().unwrap();
                assert!(!pattern.matches(&client, false, topic), "{value:?}");
                assert!(pattern.matches(&client, true, topic), "{value:?}");
            }
            let deeper: TopicPattern = "d/${username}".parse().unwrap();
            assert!(!deeper.matches(&client, true, "e/a"));
        }
    }

    #[test]
    fn eq_stands_for_its_own_text() {
        assert!(matches("eq d/${username}", Some("u"), "d/${username}"));
        assert!(!matches("eq d/${username}", Some("u"), "d/u"));
        assert!(!matches("eq d/#", Some("u"), "d/x"));
    }

    #[test]
    fn wildcards_do_not_reach_the_broker_s_own_topics() {
        assert!(!matches("#", None, "$SYS/x"));
        assert!(!matches("+/x", None, "$SYS/x"));
        assert!(matches("$SYS/#", None, "$SYS/x"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Filter(TopicError::Empty)),
            ("a/#/b", PatternError::Filter(TopicError::MultiLevelWildcard)),
            ("a/b+", PatternError::Filter(TopicError::SingleLevelWildcard)),
            ("a/${user}", PatternError::UnknownPlaceholder("${user}".to_owned())),
            ("a/${username", PatternError::OpenPlaceholder),
            ("$share/g/a", PatternError::Shared),
            ("eq ", PatternError::Filter(TopicError::Empty)),
        ] {
            assert_eq!(text.parse::<TopicPattern>(), Err(error), "{text}");
        }
    }
}
