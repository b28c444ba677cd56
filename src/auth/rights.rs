//! What a connected client may do, asked of its own rules, or of those in force: those of the ACL file, of the store, and the built-in ones
//! for `$SYS`.
//!
//! The rules of the file are an immutable value behind one pointer, as is each list of the store. Replacing one advances a generation, which
//! every connection compares with one load before it relies on what it remembers.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use mqtt_codec::QoS;
use parking_lot::Mutex;

use super::Identity;
use super::acl::{self, ListOf, Permit, Pin, Publishing, Rule, Rules, Said, Source};
use super::stored_rules::{OwnRules, StoredRules};

/// What the configuration and the ACL file say.
#[derive(Debug)]
pub struct Policy {
    file: Rules,
    built_in: Rules,
    /// Whether the rules of the store are asked, after those of the file.
    stored: bool,
    no_match: Permit,
    /// Whether every client may publish everything, so that nothing need be asked.
    open: bool,
}

impl Policy {
    /// Rules of a file, if there is one, whether those of the store are asked after them, and what becomes of what no rule names.
    pub fn new(file: Option<Rules>, stored: bool, no_match: Permit) -> Policy {
        let open = file.is_none() && !stored && no_match == Permit::Allow;
        Policy { file: file.unwrap_or_default(), built_in: Rules::built_in(), stored, no_match, open }
    }

    fn pins(&self) -> &[Pin] {
        self.file.pins()
    }
}

/// Holds the rules in force and hands them to connections.
#[derive(Debug)]
pub struct Authorizer {
    policy: Mutex<Arc<Policy>>,
    stored: Arc<StoredRules>,
    generation: AtomicU64,
}

/// The rules in force for one client.
#[derive(Debug)]
struct InForce {
    policy: Arc<Policy>,
    /// Of the store.
    own: Option<Box<OwnRules>>,
}

impl InForce {
    /// Whether these are the very rules, and none of them was replaced since.
    fn is(&self, other: &InForce) -> bool {
        let same_own = match (&self.own, &other.own) {
            (None, None) => true,
            (Some(own), Some(other)) => own.is(other),
            _ => false,
        };
        Arc::ptr_eq(&self.policy, &other.policy) && same_own
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let own = self.own.iter().flat_map(|own| own.iter());
        self.policy.file.iter().chain(own).chain(self.policy.built_in.iter())
    }
}

impl Authorizer {
    pub fn new(policy: Policy, stored: Arc<StoredRules>) -> Arc<Authorizer> {
        Arc::new(Authorizer { policy: Mutex::new(Arc::new(policy)), stored, generation: AtomicU64::new(0) })
    }

    /// Puts other rules of the file in force. Connections ask them from their next packet on.
    pub fn replace(&self, policy: Policy) {
        *self.policy.lock() = Arc::new(policy);
        self.has_changed();
    }

    /// To be called after rules of the store have changed: connections whose rules these are ask them from their next packet on.
    pub fn has_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a client may connect the way it did.
    pub fn lets_in(&self, client: &Identity) -> bool {
        let policy = Arc::clone(&self.policy.lock());
        policy.pins().iter().all(|pin| pin.lets_in(client))
    }

    /// The rights of a client, for as long as it is connected.
    pub fn rights(self: &Arc<Self>, identity: Arc<Identity>) -> Rights {
        Rights { identity, authorizer: Arc::clone(self) }
    }

    fn in_force(&self, client: &Identity) -> InForce {
        let policy = Arc::clone(&self.policy.lock());
        // A token's rules alone decide about its client.
        let own = if policy.stored && client.rules.is_none() { self.stored.of(client) } else { None };
        InForce { policy, own }
    }
}

/// A client and the rules to ask about it. Cheap to clone; outlives the connection where a will does.
#[derive(Clone)]
pub struct Rights {
    identity: Arc<Identity>,
    authorizer: Arc<Authorizer>,
}

impl Rights {
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether the client may publish this by the rules in force now.
    pub fn may_publish(&self, wish: Publishing<'_>) -> bool {
        self.judge(&self.authorizer.in_force(&self.identity), wish)
    }

    fn judge(&self, in_force: &InForce, wish: Publishing<'_>) -> bool {
        let (rules, no_match) = self.rules(in_force);
        acl::publish(rules, &self.identity, wish).allows(no_match)
    }

    /// What decides about the client, and what becomes of what it does not name: the rules that came with the credentials and nothing
    /// else, or those in force.
    fn rules<'a>(&'a self, in_force: &'a InForce) -> (impl Iterator<Item = &'a Rule>, Permit) {
        let token = self.identity.rules.as_deref();
        let (others, no_match) = match token {
            Some(_) => (None, Permit::Deny),
            None => (Some(in_force), in_force.policy.no_match),
        };
        let rules = token.into_iter().flat_map(Rules::iter);
        (rules.chain(others.into_iter().flat_map(InForce::rules)), no_match)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The rights of one connection, with a memory of what was asked before.
#[derive(Debug)]
pub struct Access {
    rights: Rights,
    in_force: InForce,
    generation: u64,
    remembered: Option<Box<Remembered>>,
}

/// Whether a right was granted, and whether the rules were asked or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub asked: bool,
}

impl Access {
    pub fn new(rights: Rights) -> Access {
        // Before the rules: a change in between is noticed at the first question.
        let generation = rights.authorizer.generation.load(Ordering::Acquire);
        let in_force = rights.authorizer.in_force(&rights.identity);
        Access { rights, in_force, generation, remembered: None }
    }

    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Takes over the rules in force; `true` if they are others than before, so that what was granted must be asked again.
    pub fn refresh(&mut self) -> bool {
        let generation = self.rights.authorizer.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        let in_force = self.rights.authorizer.in_force(&self.rights.identity);
        if self.in_force.is(&in_force) {
            return false;
        }
        self.in_force = in_force;
        self.remembered = None;
        true
    }

    /// Another identity of the same client, after it authenticated again.
    pub fn renew(&mut self, identity: Arc<Identity>) {
        *self = Access::new(Rights { identity, authorizer: Arc::clone(&self.rights.authorizer) });
    }

    /// Whether the client may publish this by the rules taken over last.
    pub fn may_publish(&mut self, wish: Publishing<'_>) -> Answer {
        if self.in_force.policy.open && self.rights.identity.rules.is_none() {
            return Answer { allowed: true, asked: false };
        }
        let remembered = self.remembered.get_or_insert_default();
        let hash = remembered.hash(&wish);
        if let Some(allowed) = remembered.find(hash, &wish) {
            return Answer { allowed, asked: false };
        }
        let allowed = self.rights.judge(&self.in_force, wish);
        remembered.insert(hash, &wish, allowed);
        Answer { allowed, asked: true }
    }

    /// Whether the client may subscribe to a filter, from which `$share/GROUP/` has been taken off.
    pub fn may_subscribe(&self, filter: &str, qos: QoS) -> bool {
        let (rules, no_match) = self.rights.rules(&self.in_force);
        acl::subscribe(rules, &self.rights.identity, filter, qos).allows(no_match)
    }

    /// What refuses a publish, for the operator. Asks the rules anew.
    pub fn publish_refused_by(&self, wish: Publishing<'_>) -> RefusedBy {
        let (rules, _) = self.rights.rules(&self.in_force);
        self.refused_by(acl::publish(rules, &self.rights.identity, wish))
    }

    /// What refuses a subscription, for the operator. Asks the rules anew.
    pub fn subscribe_refused_by(&self, filter: &str, qos: QoS) -> RefusedBy {
        let (rules, _) = self.rights.rules(&self.in_force);
        self.refused_by(acl::subscribe(rules, &self.rights.identity, filter, qos))
    }

    fn refused_by(&self, said: Said<'_>) -> RefusedBy {
        match said {
            Said::Refused(rule) => RefusedBy::Rule(rule.source),
            Said::Allowed | Said::Nothing if self.rights.identity.rules.is_some() => RefusedBy::Rule(Source::Token),
            Said::Allowed | Said::Nothing => RefusedBy::NoRule,
        }
    }
}

/// Why a wish is refused, in an operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    Rule(Source),
    NoRule,
    /// `$SYS`, `$share` and their like are the broker's own, whatever rules say.
    Reserved,
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusedBy::Rule(Source::Line(line)) => write!(f, "line {line} of auth.acl_file"),
            RefusedBy::Rule(Source::Stored(list, place)) => {
                let list = match list {
                    ListOf::ClientId => "the client id",
                    ListOf::Username => "the user name",
                    ListOf::Everyone => "everyone",
                };
                write!(f, "rule {place} of the store for {list}")
            }
            RefusedBy::Rule(Source::Token) => f.write_str("the token lists no right to it"),
            RefusedBy::Rule(Source::BuiltIn) => f.write_str("built in: $SYS is for clients on this machine"),
            RefusedBy::NoRule => f.write_str("no rule allows it"),
            RefusedBy::Reserved => f.write_str("built in: clients do not publish to the broker's own topics"),
        }
    }
}

/// Places that a topic's hash selects among, and topics in each.
const PLACES: usize = 16;
const WAYS: usize = 4;

/// Answers about the last topics published to: a small table in which each topic has a few places, the most recent first.
#[derive(Debug, Default)]
struct Remembered {
    places: [[Option<Entry>; WAYS]; PLACES],
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    topic: Box<str>,
    qos: QoS,
    retain: bool,
    allowed: bool,
}

impl Remembered {
    fn hash(&self, wish: &Publishing<'_>) -> u64 {
        self.hasher.hash_one((wish.topic, u8::from(wish.qos), wish.retain))
    }

    fn place(&mut self, hash: u64) -> Option<&mut [Option<Entry>; WAYS]> {
        self.places.get_mut(hash as usize % PLACES)
    }

    fn find(&mut self, hash: u64, wish: &Publishing<'_>) -> Option<bool> {
        let place = self.place(hash)?;
        let at = place.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.is(hash, wish)))?;
        place.get_mut(..=at)?.rotate_right(1);
        place.first()?.as_ref().map(|entry| entry.allowed)
    }

    fn insert(&mut self, hash: u64, wish: &Publishing<'_>, allowed: bool) {
        let Some(place) = self.place(hash) else { return };
        place.rotate_right(1);
        if let Some(first) = place.first_mut() {
            *first = Some(Entry { hash, topic: wish.topic.into(), qos: wish.qos, retain: wish.retain, allowed });
        }
    }
}

impl Entry {
    fn is(&self, hash: u64, wish: &Publishing<'_>) -> bool {
        self.hash == hash && *self.topic == *wish.topic && self.qos == wish.qos && self.retain == wish.retain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::acl::{RuleAction, Who};
    use crate::auth::identity::tests::identity;
    use crate::auth::stored_rules::{RulesFor, WrittenRule};

    fn policy(permit: Permit, topic: &str) -> Policy {
        let topics = vec![topic.parse().unwrap()];
        let rule = Rule {
            permit,
            who: Who::Everyone,
            action: RuleAction::All,
            qos: None,
            retain: None,
            topics,
            source: Source::Line(3),
        };
        Policy::new(Some(Rules::new(vec![rule])), true, Permit::Deny)
    }

    fn access(policy: Policy) -> (Arc<Authorizer>, Access) {
        let authorizer = Authorizer::new(policy, Arc::new(StoredRules::new(100)));
        let access = Access::new(authorizer.rights(Arc::new(identity("c", None))));
        (authorizer, access)
    }

    fn to(topic: &str) -> Publishing<'_> {
        Publishing { topic, qos: QoS::AtMostOnce, retain: false }
    }

    #[test]
    fn what_no_rule_names_is_refused_where_there_are_rules_and_allowed_where_there_are_none() {
        let (_, mut access) = access(policy(Permit::Allow, "a/#"));
        assert!(access.may_publish(to("a/b")).allowed);
        assert!(!access.may_publish(to("b")).allowed);
        assert!(!access.may_subscribe("#", QoS::AtMostOnce));
        let (_, mut open) = super::tests::access(Policy::new(None, false, Permit::Allow));
        assert_eq!(open.may_publish(to("b")), Answer { allowed: true, asked: false });
        assert!(open.may_subscribe("#", QoS::AtMostOnce));
        assert!(!open.may_subscribe("$SYS/#", QoS::AtMostOnce));
    }

    #[test]
    fn a_refusal_names_its_rule() {
        let (_, denied) = access(policy(Permit::Deny, "a/#"));
        assert_eq!(denied.publish_refused_by(to("a/b")).to_string(), "line 3 of auth.acl_file");
        assert_eq!(denied.subscribe_refused_by("a/+", QoS::AtMostOnce).to_string(), "line 3 of auth.acl_file");
        assert_eq!(denied.publish_refused_by(to("b")), RefusedBy::NoRule);
        assert_eq!(denied.subscribe_refused_by("$SYS/#", QoS::AtMostOnce), RefusedBy::Rule(Source::BuiltIn));
        let granted = Rules::from(acl::Granted::default());
        let identity = Identity { rules: Some(Arc::new(granted)), ..identity("c", None) };
        let (authorizer, _) = access(policy(Permit::Allow, "a/#"));
        let token = Access::new(authorizer.rights(Arc::new(identity)));
        assert_eq!(token.publish_refused_by(to("a/b")), RefusedBy::Rule(Source::Token));
    }

    #[test]
    fn an_answer_is_remembered_until_the_rules_change() {
        let (authorizer, mut access) = access(policy(Permit::Allow, "a"));
        assert_eq!(access.may_publish(to("a")), Answer { allowed: true, asked: true });
        assert_eq!(access.may_publish(to("a")), Answer { allowed: true, asked: false });
        let retained = Publishing { retain: true, ..to("a") };
        assert_eq!(access.may_publish(retained), Answer { allowed: true, asked: true });
        assert!(!access.refresh());
        authorizer.replace(policy(Permit::Deny, "a"));
        assert!(access.refresh());
        assert_eq!(access.may_publish(to("a")), Answer { allowed: false, asked: true });
        assert!(!access.rights().may_publish(to("a")));
    }

    #[test]
    fn rules_of_the_store_follow_those_of_the_file_and_concern_whom_they_are_for() {
        let (authorizer, mut access) = access(policy(Permit::Deny, "secret/#"));
        let add = |subject: &RulesFor, permit, topic: &str| {
            let topic = topic.to_owned();
            let rule = WrittenRule { permit, action: RuleAction::All, topic, qos: None, retain: None };
            authorizer.stored.add(subject, None, vec![rule]).unwrap();
            authorizer.has_changed();
        };
        assert_eq!(access.may_publish(to("a/x")), Answer { allowed: false, asked: true });
        add(&RulesFor::Username("c".to_owned()), Permit::Allow, "#");
        assert!(!access.refresh(), "its user name was not verified");
        assert_eq!(access.may_publish(to("a/x")), Answer { allowed: false, asked: false });
        add(&RulesFor::Everyone, Permit::Allow, "#");
        assert!(access.refresh() && !access.refresh());
        assert_eq!(access.may_publish(to("a/x")), Answer { allowed: true, asked: true });
        assert_eq!(access.publish_refused_by(to("secret/x")), RefusedBy::Rule(Source::Line(3)));
        assert!(!access.may_subscribe("#", QoS::AtMostOnce) && access.may_subscribe("a/#", QoS::AtMostOnce));
        // A client's own list is asked before that of everyone.
        add(&RulesFor::ClientId("c".to_owned()), Permit::Deny, "a/+/no");
        assert!(access.refresh());
        assert!(!access.may_subscribe("a/#", QoS::AtMostOnce) && access.may_subscribe("a/x", QoS::AtMostOnce));
        let refused = access.subscribe_refused_by("a/#", QoS::AtMostOnce);
        assert_eq!(refused.to_string(), "rule 1 of the store for the client id");
        assert!(!access.rights().may_publish(to("a/b/no")) && access.rights().may_publish(to("a/b/yes")));
        authorizer.stored.remove(&RulesFor::ClientId("c".to_owned()), None).unwrap();
        authorizer.has_changed();
        assert!(access.refresh() && access.may_subscribe("a/#", QoS::AtMostOnce));
        authorizer.replace(Policy::new(None, false, Permit::Deny));
        assert!(access.refresh() && !access.may_publish(to("a/x")).allowed, "the store is not asked any more");
    }

    #[test]
    fn memory_stays_bounded_and_right_over_many_topics() {
        let (_, mut access) = access(policy(Permit::Allow, "even/#"));
        for n in 0..10_000u32 {
            let topic = if n % 2 == 0 { format!("even/{n}") } else { format!("odd/{n}") };
            assert_eq!(access.may_publish(to(&topic)).allowed, n % 2 == 0);
            assert_eq!(access.may_publish(to(&topic)), Answer { allowed: n % 2 == 0, asked: false });
        }
        let held = access.remembered.unwrap().places.iter().flatten().flatten().count();
        assert!(held <= PLACES * WAYS);
    }
}
