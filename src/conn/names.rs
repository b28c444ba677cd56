//! What the broker makes of the topics a client writes: the listener's mount point, and `[[rewrite]]`.
//!
//! Rules see the topic as the client wrote it; limits and permissions see the outcome. A value that would change the meaning of a
//! topic (a wildcard, a slash) never gets into one by way of a placeholder.

use super::Close;
use crate::config::{RewriteAction, RewriteRule};
use bytestring::ByteString;
use mqtt_codec::ReasonCode;
use mqtt_codec::topic::{self, SharedFilter};
use std::net::IpAddr;

/// What placeholders stand for.
#[derive(Debug, Clone)]
pub(super) struct ClientNames {
    pub client_id: ByteString,
    /// One that was verified.
    pub username: Option<ByteString>,
    pub host: IpAddr,
}

/// A placeholder has no value, or one that must not stand in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit;

impl ClientNames {
    /// Puts values for `${clientid}`, `${username}` and `${host}`.
    pub fn expand(&self, template: &str) -> Result<String, Unfit> {
        let host = self.host.to_canonical().to_string();
        let values = [
            ("${clientid}", Some(&*self.client_id)),
            ("${username}", self.username.as_deref()),
            ("${host}", Some(&*host)),
        ];
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let at = rest.len() - after.len() - 2;
            let tail = rest.get(at..).unwrap_or_default();
            match values.iter().find(|(name, _)| tail.starts_with(name)) {
                Some((name, value)) => {
                    let value = value.filter(|value| is_one_level(value)).ok_or(Unfit)?;
                    out.push_str(value);
                    rest = tail.get(name.len()..).unwrap_or_default();
                }
                None => {
                    out.push_str("${");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// A listener's mount point for this client.
    ///
    /// # Errors
    /// It has a placeholder for which the client has no value, or none that is one level of a topic.
    pub fn mountpoint(&self, template: &str) -> Result<String, Close> {
        self.expand(template).map_err(|Unfit| {
            Close::Refused(
                ReasonCode::NotAuthorized,
                "the client has no value for a placeholder of the listener's mountpoint, or one with `+`, `#`, `/` or `$` in it",
            )
        })
    }
}

fn is_one_level(value: &str) -> bool {
    !value.is_empty() && !value.contains(['+', '#', '/', '$', '\0'])
}

/// How the topics of one connection become the broker's.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// What stands before every topic; empty is nothing.
    mount: Box<str>,
    /// Kept only where rules need it.
    names: Option<Box<ClientNames>>,
}

impl Topics {
    /// `mountpoint` is what [`ClientNames::mountpoint`] made of the listener's.
    pub fn new(mountpoint: String, rules: &[RewriteRule], names: &ClientNames) -> Topics {
        Topics { mount: mountpoint.into(), names: (!rules.is_empty()).then(|| Box::new(names.clone())) }
    }

    /// What this client does not see of its topics.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// Whether topics stay as they are.
    pub fn is_plain(&self) -> bool {
        self.mount.is_empty() && self.names.is_none()
    }

    /// A topic name as rules rewrite it, without the mount point.
    pub fn rewrite_name(&self, name: ByteString, rules: &[RewriteRule]) -> Result<ByteString, ReasonCode> {
        let Some(names) = &self.names else { return Ok(name) };
        match rewrite(&name, rules, RewriteAction::Publish, names) {
            None => Ok(name),
            Some(Ok(new)) if topic::validate_name(&new).is_ok() => Ok(new.into()),
            Some(_) => Err(ReasonCode::TopicNameInvalid),
        }
    }

    /// A filter, shared or not, as rules rewrite it, without the mount point.
    pub fn rewrite_filter(&self, filter: ByteString, rules: &[RewriteRule]) -> Result<ByteString, ReasonCode> {
        let Some(names) = &self.names else { return Ok(filter) };
        let (prefix, real) = split_share(&filter);
        match rewrite(real, rules, RewriteAction::Subscribe, names) {
            None => Ok(filter),
            Some(Ok(new)) => {
                let new = format!("{prefix}{new}");
                let shared_as_before = topic::is_shared(&new) != prefix.is_empty();
                match topic::validate_filter(&new) {
                    Ok(()) if shared_as_before => Ok(new.into()),
                    _ => Err(ReasonCode::TopicFilterInvalid),
                }
            }
            Some(Err(Unfit)) => Err(ReasonCode::TopicFilterInvalid),
        }
    }

    /// Puts a topic name below the mount point.
    pub fn mount_name(&self, name: ByteString) -> Result<ByteString, ReasonCode> {
        if self.mount.is_empty() {
            return Ok(name);
        }
        let mounted = format!("{}{name}", self.mount);
        if mounted.len() > usize::from(u16::MAX) {
            return Err(ReasonCode::TopicNameInvalid);
        }
        Ok(mounted.into())
    }

    /// Puts a filter below the mount point; of a shared one, what follows its group.
    pub fn mount_filter(&self, filter: ByteString) -> Result<ByteString, ReasonCode> {
        if self.mount.is_empty() {
            return Ok(filter);
        }
        let (prefix, real) = split_share(&filter);
        let mounted = format!("{prefix}{}{real}", self.mount);
        if mounted.len() > usize::from(u16::MAX) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        Ok(mounted.into())
    }
}

/// `$share/group/` and what follows it, or nothing and the whole filter.
fn split_share(filter: &str) -> (&str, &str) {
    match SharedFilter::parse(filter) {
        Ok(Some(shared)) => filter.split_at_checked(filter.len() - shared.filter.len()).unwrap_or(("", filter)),
        _ => ("", filter),
    }
}

/// The outcome of the first rule whose filter and expression match; `None` if there is none.
fn rewrite(
    topic: &str,
    rules: &[RewriteRule],
    action: RewriteAction,
    names: &ClientNames,
) -> Option<Result<String, Unfit>> {
    let applies = |rule: &&RewriteRule| rule.action == RewriteAction::All || rule.action == action;
    for rule in rules.iter().filter(applies) {
        // A subscription's filter is matched as if it were a name: `a/#` is rewritten by a rule for `a/#`.
        if !topic::matches(&rule.source_topic, topic) {
            continue;
        }
        if let Some(groups) = rule.re.regex().captures(topic) {
            // Placeholders first, so that nothing a topic brings is taken for one.
            return Some(names.expand(&rule.dest_topic).map(|destination| put_groups(&destination, &groups)));
        }
    }
    None
}

/// Puts what groups 1 to 9 found in place of `$1` to `$9`.
fn put_groups(destination: &str, groups: &regex::Captures<'_>) -> String {
    let mut out = String::with_capacity(destination.len());
    let mut rest = destination.chars();
    while let Some(c) = rest.next() {
        let digit = rest.clone().next().and_then(|next| next.to_digit(10)).filter(|digit| *digit > 0);
        match (c, digit) {
            ('$', Some(group)) => {
                rest.next();
                out.push_str(groups.get(group as usize).map_or("", |found| found.as_str()));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pattern;

    fn names(client_id: &'static str, username: Option<&'static str>) -> ClientNames {
        let username = username.map(ByteString::from_static);
        ClientNames { client_id: client_id.into(), username, host: "::ffff:192.0.2.1".parse().unwrap() }
    }

    fn rule(action: RewriteAction, source: &str, re: &str, dest: &str) -> RewriteRule {
        RewriteRule { action, source_topic: source.into(), dest_topic: dest.into(), re: Pattern::new(re).unwrap() }
    }

    #[test]
    fn placeholders_are_filled_in() {
        let names = names("c1", Some("u1"));
        assert_eq!(names.expand("a/${clientid}/${username}/${host}/x").unwrap(), "a/c1/u1/192.0.2.1/x");
        assert_eq!(names.expand("a/${other}/$1").unwrap(), "a/${other}/$1");
    }

    #[test]
    fn a_value_that_would_change_the_topics_meaning_is_unfit() {
        for bad in ["", "+", "#", "a/b", "a+", "$SYS", "a$1", "a\0b"] {
            let names = ClientNames { client_id: bad.into(), ..names("c", None) };
            assert_eq!(names.expand("x/${clientid}"), Err(Unfit), "{bad:?}");
        }
        assert_eq!(names("c", None).expand("x/${username}"), Err(Unfit));
    }

    #[test]
    fn the_mount_point_stands_before_names_and_behind_share_groups() {
        let client = names("c1", None);
        let topics = Topics::new(client.mountpoint("site/${clientid}/").unwrap(), &[], &client);
        assert_eq!(topics.mount_name("t".into()).unwrap(), "site/c1/t");
        assert_eq!(topics.mount_filter("#".into()).unwrap(), "site/c1/#");
        assert_eq!(topics.mount_filter("$share/g/t/+".into()).unwrap(), "$share/g/site/c1/t/+");
        assert!(topics.mount_name("x".repeat(65_535).into()).is_err());
        assert!(client.mountpoint("site/${username}/").is_err());
        assert!(names("#", None).mountpoint("site/${clientid}/").is_err());
    }

    #[test]
    fn the_first_rule_that_matches_rewrites() {
        let rules = [
            rule(RewriteAction::Publish, "y/+/z/#", "^y/(.+)/z/(.+)$", "y/z/$2"),
            rule(RewriteAction::Subscribe, "x/#", "^x/y/(.+)$", "z/y/$1"),
            rule(RewriteAction::All, "x/#", "^x/(.+)$", "all/$1/${clientid}"),
        ];
        let topics = Topics::new(String::new(), &rules, &names("c1", None));
        let name = |topic: &'static str| topics.rewrite_name(topic.into(), &rules).unwrap().to_string();
        let filter = |topic: &'static str| topics.rewrite_filter(topic.into(), &rules).unwrap().to_string();
        assert_eq!(name("y/a/z/b"), "y/z/b");
        assert_eq!(name("y/def"), "y/def");
        assert_eq!(name("x/y/2"), "all/y/2/c1");
        assert_eq!(filter("x/y/2"), "z/y/2");
        assert_eq!(filter("$share/g/x/y/#"), "$share/g/z/y/#");
        assert_eq!(filter("x/1/2"), "all/1/2/c1");
    }

    #[test]
    fn a_rule_cannot_make_an_invalid_topic_or_break_into_a_share() {
        let rules = [
            rule(RewriteAction::Publish, "a/#", "^a/(.+)$", "+/$1"),
            rule(RewriteAction::Subscribe, "a/#", "^a/(.+)$", "$share/g/$1"),
            rule(RewriteAction::Subscribe, "b/#", "^b/(.+)$", "x/${username}"),
        ];
        let topics = Topics::new(String::new(), &rules, &names("c1", Some("#")));
        assert_eq!(topics.rewrite_name("a/b".into(), &rules), Err(ReasonCode::TopicNameInvalid));
        assert_eq!(topics.rewrite_filter("a/b".into(), &rules), Err(ReasonCode::TopicFilterInvalid));
        assert_eq!(topics.rewrite_filter("b/c".into(), &rules), Err(ReasonCode::TopicFilterInvalid));
    }
}
