//! Rules for topics in the embedded store: a list for each client identifier, for each user name, and for everyone. All of them are known
//! in memory, and every change of a list is a row.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use mqtt_codec::QoS;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Identity;
use super::acl::{ListOf, PatternError, Permit, Rule, RuleAction, Source, TopicPattern, Who};
use super::shards::Shards;
use crate::config::Choice;
use crate::store::{Kept, Key, Row};

/// Rules of one list: a subscription may be compared with each of them.
const MAX_RULES_OF_ONE: usize = 100;
const MAX_TOPIC_BYTES: usize = 1024;
/// Longest client identifier or user name; what a change says must fit into one request.
const MAX_NAME_BYTES: usize = 1024;

/// Whom a list of rules is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum RulesFor {
    ClientId(String),
    Username(String),
    Everyone,
}

/// Names are quoted, so that neither a terminal nor a log is told what to do.
impl fmt::Display for RulesFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulesFor::ClientId(id) => write!(f, "client id {id:?}"),
            RulesFor::Username(name) => write!(f, "user name {name:?}"),
            RulesFor::Everyone => f.write_str("everyone"),
        }
    }
}

/// A rule as operators write it. It stands in a list, and so concerns whom the list is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRule {
    pub permit: Permit,
    pub action: RuleAction,
    /// As in the ACL file: a filter, with or without placeholders, or `eq FILTER`.
    pub topic: String,
    /// Only messages or subscriptions with one of these QoS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<Vec<u8>>,
    /// Only messages with this retain flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
}

impl fmt::Display for WrittenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.permit.word(), self.action.word(), self.topic)?;
        if let Some(qos) = &self.qos {
            let levels: Vec<String> = qos.iter().map(u8::to_string).collect();
            write!(f, ", qos {}", levels.join(" or "))?;
        }
        match self.retain {
            Some(true) => f.write_str(", retained"),
            Some(false) => f.write_str(", not retained"),
            None => Ok(()),
        }
    }
}

/// Why rules are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleRefused {
    #[error("topic `{0}`: {1}")]
    Topic(String, PatternError),
    #[error("a topic longer than {MAX_TOPIC_BYTES} bytes")]
    LongTopic,
    #[error("a client id or user name has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    #[error("qos is a list of 0, 1 and 2")]
    QoS,
    #[error("retain says nothing about subscriptions; leave it out, or write a rule for publish")]
    Retain,
    #[error(
        "more than {MAX_RULES_OF_ONE} rules for one; use placeholders such as ${{clientid}} in a rule for everyone"
    )]
    TooManyOfOne,
    #[error("the limit on rules, auth.store.max_rules, is reached")]
    Full,
    #[error("there are {0} rules, and no place {1}")]
    NoPlace(usize, usize),
    #[error("the list of `{0}` in the store is not understood: {1}")]
    Stored(String, String),
}

/// One list, as it was written and as it is asked.
#[derive(Debug, Default)]
pub struct RuleList {
    written: Vec<WrittenRule>,
    rules: Vec<Rule>,
}

/// The lists that concern one client, in the order in which they are asked.
#[derive(Debug, Clone)]
pub(super) struct OwnRules([Option<Arc<RuleList>>; 3]);

/// The rules.
#[derive(Debug)]
pub struct StoredRules {
    /// By whom they are for, as the store names it.
    lists: Shards<Arc<RuleList>>,
    count: AtomicUsize,
    limit: usize,
    kept: Kept,
    /// Held while lists change.
    changing: Mutex<()>,
}

impl RulesFor {
    fn to_key(&self) -> String {
        match self {
            RulesFor::ClientId(id) => format!("client_id {id}"),
            RulesFor::Username(name) => format!("username {name}"),
            RulesFor::Everyone => EVERYONE.to_owned(),
        }
    }

    fn from_key(key: &str) -> Option<RulesFor> {
        match key.split_once(' ') {
            Some(("client_id", id)) => Some(RulesFor::ClientId(id.to_owned())),
            Some(("username", name)) => Some(RulesFor::Username(name.to_owned())),
            _ => (key == EVERYONE).then_some(RulesFor::Everyone),
        }
    }

    fn list_of(&self) -> ListOf {
        match self {
            RulesFor::ClientId(_) => ListOf::ClientId,
            RulesFor::Username(_) => ListOf::Username,
            RulesFor::Everyone => ListOf::Everyone,
        }
    }

    fn check(&self) -> Result<(), RuleRefused> {
        match self {
            RulesFor::ClientId(name) | RulesFor::Username(name) if !(1..=MAX_NAME_BYTES).contains(&name.len()) => {
                Err(RuleRefused::Name)
            }
            _ => Ok(()),
        }
    }
}

const EVERYONE: &str = "everyone";

impl WrittenRule {
    fn rule(&self, source: Source) -> Result<Rule, RuleRefused> {
        if self.topic.len() > MAX_TOPIC_BYTES {
            return Err(RuleRefused::LongTopic);
        }
        let topic: TopicPattern =
            self.topic.parse().map_err(|error| RuleRefused::Topic(self.topic.escape_default().to_string(), error))?;
        let qos = match &self.qos {
            None => None,
            Some(levels) => {
                let listed: Option<Vec<QoS>> = levels.iter().map(|level| QoS::try_from(*level).ok()).collect();
                Some(listed.filter(|listed| !listed.is_empty()).ok_or(RuleRefused::QoS)?)
            }
        };
        if self.retain.is_some() && self.action == RuleAction::Subscribe {
            return Err(RuleRefused::Retain);
        }
        let (permit, action, retain) = (self.permit, self.action, self.retain);
        Ok(Rule { permit, who: Who::Everyone, action, qos, retain, topics: vec![topic], source })
    }
}

impl RuleList {
    fn new(written: Vec<WrittenRule>, list: ListOf) -> Result<RuleList, RuleRefused> {
        if written.len() > MAX_RULES_OF_ONE {
            return Err(RuleRefused::TooManyOfOne);
        }
        let numbered = written.iter().zip(1..);
        let rules = numbered.map(|(rule, place)| rule.rule(Source::Stored(list, place))).collect::<Result<_, _>>()?;
        Ok(RuleList { written, rules })
    }

    /// The rules in their order.
    pub fn written(&self) -> &[WrittenRule] {
        &self.written
    }
}

impl OwnRules {
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().flatten().flat_map(|list| &list.rules)
    }

    /// Whether these are the very lists, and none of them was changed since.
    pub fn is(&self, other: &OwnRules) -> bool {
        self.0.iter().zip(&other.0).all(|pair| match pair {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        })
    }
}

impl StoredRules {
    /// None yet, and no more than `limit` in all lists.
    pub fn new(limit: usize) -> StoredRules {
        let (lists, count, kept) = (Shards::default(), AtomicUsize::new(0), Kept::default());
        StoredRules { lists, count, limit, kept, changing: Mutex::new(()) }
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Takes over what the store held.
    ///
    /// # Errors
    /// A list is not understood, or there are too many rules: one that is left out may be one that refuses.
    pub fn recover(&self, rows: Vec<(ByteString, ByteString)>) -> Result<(), RuleRefused> {
        let _alone = self.changing.lock();
        for (key, text) in rows {
            let wrong = |cause: String| RuleRefused::Stored(key.to_string(), cause);
            let subject = RulesFor::from_key(&key).ok_or_else(|| wrong("it is for nobody".to_owned()))?;
            let written = serde_json::from_str(&text).map_err(|cause| wrong(cause.to_string()))?;
            let list = RuleList::new(written, subject.list_of()).map_err(|cause| wrong(cause.to_string()))?;
            if self.len().saturating_add(list.rules.len()) > self.limit {
                return Err(RuleRefused::Full);
            }
            self.hold(&key, Arc::new(list));
        }
        Ok(())
    }

    /// Rules in all lists.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whom there are lists for, in the order of their kinds and names, after one of them.
    pub fn subjects_after(&self, after: Option<&RulesFor>) -> Vec<RulesFor> {
        let after = after.map(RulesFor::to_key).unwrap_or_default();
        self.lists.names_after(&after).iter().filter_map(|key| RulesFor::from_key(key)).collect()
    }

    /// The list for this client, user or everyone.
    pub fn list(&self, subject: &RulesFor) -> Option<Arc<RuleList>> {
        self.lists.get(&subject.to_key())
    }

    /// The lists that concern a client; `None` when there are none.
    pub(super) fn of(&self, client: &Identity) -> Option<Box<OwnRules>> {
        if self.is_empty() {
            return None;
        }
        let by = |subject: RulesFor| self.list(&subject);
        let own = [
            by(RulesFor::ClientId(client.client_id.to_string())),
            client.username.as_ref().and_then(|name| by(RulesFor::Username(name.to_string()))),
            by(RulesFor::Everyone),
        ];
        own.iter().any(Option::is_some).then(|| Box::new(OwnRules(own)))
    }

    /// Puts rules into a list, before the one at a place counted from 1, or at its end.
    ///
    /// # Errors
    /// A rule is none, or there is no room.
    pub(super) fn add(
        &self,
        subject: &RulesFor,
        place: Option<usize>,
        rules: Vec<WrittenRule>,
    ) -> Result<(), RuleRefused> {
        subject.check()?;
        self.change(subject, |written| {
            let at = place.map_or(Some(written.len()), |place| place.checked_sub(1));
            let at = at.filter(|at| *at <= written.len());
            let at = at.ok_or(RuleRefused::NoPlace(written.len(), place.unwrap_or_default()))?;
            written.splice(at..at, rules);
            Ok(())
        })
    }

    /// Takes the rule at a place out of a list, or all of its rules, and gives them.
    ///
    /// # Errors
    /// There is no rule at that place.
    pub(super) fn remove(&self, subject: &RulesFor, place: Option<usize>) -> Result<Vec<WrittenRule>, RuleRefused> {
        let mut removed = Vec::new();
        self.change(subject, |written| {
            let before = written.len();
            removed = match place {
                None => std::mem::take(written),
                Some(place) => {
                    let at = place.checked_sub(1).filter(|at| *at < before);
                    vec![written.remove(at.ok_or(RuleRefused::NoPlace(before, place))?)]
                }
            };
            Ok(())
        })?;
        Ok(removed)
    }

    fn change(
        &self,
        subject: &RulesFor,
        change: impl FnOnce(&mut Vec<WrittenRule>) -> Result<(), RuleRefused>,
    ) -> Result<(), RuleRefused> {
        let key = subject.to_key();
        let mut writing = self.kept.begin();
        let _alone = self.changing.lock();
        let mut written = self.lists.get(&key).map(|list| list.written.clone()).unwrap_or_default();
        let before = written.len();
        change(&mut written)?;
        if written.is_empty() && before == 0 {
            return Ok(());
        }
        let list = RuleList::new(written, subject.list_of())?;
        if list.rules.len() > before && self.len() - before + list.rules.len() > self.limit {
            return Err(RuleRefused::Full);
        }
        let row = if list.written.is_empty() {
            None
        } else {
            let text = serde_json::to_string(&list.written);
            Some(Row::Acl(text.map_err(|cause| RuleRefused::Stored(key.clone(), cause.to_string()))?.into()))
        };
        writing.write(Key::Acl(key.as_str().into()), row);
        self.hold(&key, Arc::new(list));
        Ok(())
    }

    fn hold(&self, key: &str, list: Arc<RuleList>) {
        self.count.fetch_add(list.rules.len(), Ordering::Relaxed);
        let before = if list.rules.is_empty() { self.lists.remove(key) } else { self.lists.insert(key, list) };
        self.count.fetch_sub(before.map_or(0, |list| list.rules.len()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(permit: Permit, topic: &str) -> WrittenRule {
        WrittenRule { permit, action: RuleAction::All, topic: topic.to_owned(), qos: None, retain: None }
    }

    fn user(name: &str) -> RulesFor {
        RulesFor::Username(name.to_owned())
    }

    fn topics(rules: &StoredRules, subject: &RulesFor) -> Vec<String> {
        let list = rules.list(subject).unwrap_or_default();
        list.written().iter().map(|rule| rule.topic.clone()).collect()
    }

    #[test]
    fn rules_stand_where_they_were_put() {
        let rules = StoredRules::new(10);
        let ada = user("ada");
        rules.add(&ada, None, vec![rule(Permit::Allow, "b"), rule(Permit::Allow, "d")]).unwrap();
        rules.add(&ada, Some(2), vec![rule(Permit::Deny, "c")]).unwrap();
        rules.add(&ada, Some(1), vec![rule(Permit::Deny, "a")]).unwrap();
        rules.add(&ada, Some(5), vec![rule(Permit::Deny, "e")]).unwrap();
        assert_eq!(topics(&rules, &ada), ["a", "b", "c", "d", "e"]);
        assert_eq!(rules.add(&ada, Some(7), vec![rule(Permit::Deny, "x")]), Err(RuleRefused::NoPlace(5, 7)));
        assert_eq!(rules.add(&ada, Some(0), vec![rule(Permit::Deny, "x")]), Err(RuleRefused::NoPlace(5, 0)));
        assert_eq!(rules.remove(&ada, Some(6)), Err(RuleRefused::NoPlace(5, 6)));
        assert_eq!(rules.remove(&ada, Some(3)), Ok(vec![rule(Permit::Deny, "c")]));
        assert_eq!(topics(&rules, &ada), ["a", "b", "d", "e"]);
        let removed = |rules: &StoredRules| rules.remove(&ada, None).unwrap().len();
        assert_eq!((removed(&rules), removed(&rules), rules.len()), (4, 0, 0));
        assert_eq!(rules.subjects_after(None), []);
    }

    #[test]
    fn the_number_of_rules_is_bounded_for_one_and_for_all() {
        let rules = StoredRules::new(MAX_RULES_OF_ONE + 1);
        let many = |n| (0..n).map(|n| rule(Permit::Allow, &n.to_string())).collect::<Vec<_>>();
        assert_eq!(rules.add(&user("a"), None, many(MAX_RULES_OF_ONE + 1)), Err(RuleRefused::TooManyOfOne));
        rules.add(&user("a"), None, many(MAX_RULES_OF_ONE)).unwrap();
        assert_eq!(rules.add(&user("b"), None, many(2)), Err(RuleRefused::Full));
        rules.add(&RulesFor::Everyone, None, many(1)).unwrap();
        assert_eq!(rules.len(), MAX_RULES_OF_ONE + 1);
        assert_eq!(rules.subjects_after(None), [RulesFor::Everyone, user("a")]);
        assert_eq!(rules.subjects_after(Some(&RulesFor::Everyone)), [user("a")]);
    }

    #[test]
    fn what_is_no_rule_changes_nothing() {
        let rules = StoredRules::new(10);
        let bad = |change: fn(&mut WrittenRule)| {
            let mut bad = rule(Permit::Allow, "a");
            change(&mut bad);
            rules.add(&user("ada"), None, vec![rule(Permit::Allow, "good"), bad]).unwrap_err().to_string()
        };
        assert_eq!(bad(|rule| rule.topic = "a/#/b".to_owned()), "topic `a/#/b`: # is not the whole last level");
        assert!(bad(|rule| rule.topic = "$share/g/a".to_owned()).contains("$share"));
        assert_eq!(bad(|rule| rule.topic = "a".repeat(1025)), "a topic longer than 1024 bytes");
        assert_eq!(bad(|rule| rule.qos = Some(vec![0, 3])), "qos is a list of 0, 1 and 2");
        assert_eq!(bad(|rule| rule.qos = Some(vec![])), "qos is a list of 0, 1 and 2");
        let subscribe = |rule: &mut WrittenRule| {
            rule.retain = Some(true);
            rule.action = RuleAction::Subscribe;
        };
        assert!(bad(subscribe).starts_with("retain says nothing about subscriptions"));
        let good = || vec![rule(Permit::Allow, "a")];
        assert_eq!(rules.add(&user(""), None, good()), Err(RuleRefused::Name));
        assert_eq!(rules.add(&user(&"u".repeat(1025)), None, good()), Err(RuleRefused::Name));
        assert!(rules.is_empty());
    }

    #[test]
    fn a_stored_list_that_is_not_understood_is_a_mistake() {
        let good = r#"[{"permit":"deny","action":"publish","topic":"a","qos":[1]}]"#;
        for (key, text) in [
            ("username ada", ""),
            ("username ada", "[{}]"),
            ("username ada", r#"[{"permit":"deny","action":"publish","topic":"a","from":"later"}]"#),
            ("username ada", r#"[{"permit":"deny","action":"publish","topic":"a/#/b"}]"#),
            ("group g", good),
        ] {
            let rules = StoredRules::new(10);
            let error = rules.recover(vec![(key.into(), text.into())]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("the list of `{key}` in the store is not understood")));
        }
        let rules = StoredRules::new(1);
        rules.recover(vec![("everyone".into(), good.into())]).unwrap();
        assert_eq!(topics(&rules, &RulesFor::Everyone), ["a"]);
        assert_eq!(rules.recover(vec![("username ada".into(), good.into())]), Err(RuleRefused::Full));
    }

    #[test]
    fn whom_a_list_is_for_is_read_from_its_key_as_it_was_written() {
        for subject in [user("with space"), RulesFor::ClientId("username x".to_owned()), RulesFor::Everyone] {
            assert_eq!(RulesFor::from_key(&subject.to_key()), Some(subject));
        }
        assert_eq!(RulesFor::from_key("all"), None);
    }
}
