//! What a connected client may do, asked of its own rules, or of those in force: those of the ACL file, and the built-in ones for `$SYS`.
//!
//! The rules in force are an immutable value behind one pointer. Replacing it advances a generation, which every connection compares with
//! one load before it relies on what it remembers.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use mqtt_codec::QoS;
use parking_lot::Mutex;

use super::Identity;
use super::acl::{self, Permit, Pin, Publishing, Rule, Rules, Said, Source};

/// The rules in force.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    pins: Vec<Pin>,
    no_match: Permit,
    /// Whether every client may publish everything, so that nothing need be asked.
    open: bool,
}

impl Policy {
    /// Rules of a file, if there is one, and what becomes of what no rule names.
    pub fn new(file: Option<Rules>, no_match: Permit) -> Policy {
        let open = file.is_none() && no_match == Permit::Allow;
        let pins = file.as_ref().map(|rules| rules.pins().to_vec()).unwrap_or_default();
        let rules =
            file.into_iter().chain([Rules::built_in()]).flat_map(|rules| rules.iter().cloned().collect::<Vec<_>>());
        Policy { rules: Rules::new(rules.collect()), pins, no_match, open }
    }
}

/// Holds the rules in force and hands them to connections.
#[derive(Debug)]
pub struct Authorizer {
    policy: Mutex<Arc<Policy>>,
    generation: AtomicU64,
}

impl Authorizer {
    pub fn new(policy: Policy) -> Arc<Authorizer> {
        Arc::new(Authorizer { policy: Mutex::new(Arc::new(policy)), generation: AtomicU64::new(0) })
    }

    /// Puts other rules in force. Connections ask them from their next packet on.
    pub fn replace(&self, policy: Policy) {
        *self.policy.lock() = Arc::new(policy);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a client may connect the way it did.
    pub fn lets_in(&self, client: &Identity) -> bool {
        let policy = Arc::clone(&self.policy.lock());
        policy.pins.iter().all(|pin| pin.lets_in(client))
    }

    /// The rights of a client, for as long as it is connected.
    pub fn rights(self: &Arc<Self>, identity: Arc<Identity>) -> Rights {
        Rights { identity, authorizer: Arc::clone(self) }
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
        let policy = Arc::clone(&self.authorizer.policy.lock());
        self.judge(&policy, wish)
    }

    fn judge(&self, policy: &Policy, wish: Publishing<'_>) -> bool {
        let (rules, no_match) = self.rules(policy);
        acl::publish(rules, &self.identity, wish).allows(no_match)
    }

    /// What decides about the client, and what becomes of what it does not name: the rules that came with the credentials and nothing
    /// else, or those in force.
    fn rules<'a>(&'a self, policy: &'a Policy) -> (impl Iterator<Item = &'a Rule>, Permit) {
        match self.identity.rules.as_deref() {
            Some(own) => (own.iter(), Permit::Deny),
            None => (policy.rules.iter(), policy.no_match),
        }
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
    policy: Arc<Policy>,
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
        let policy = Arc::clone(&rights.authorizer.policy.lock());
        Access { rights, policy, generation, remembered: None }
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
        self.policy = Arc::clone(&self.rights.authorizer.policy.lock());
        self.remembered = None;
        true
    }

    /// Another identity of the same client, after it authenticated again.
    pub fn renew(&mut self, identity: Arc<Identity>) {
        *self = Access::new(Rights { identity, authorizer: Arc::clone(&self.rights.authorizer) });
    }

    /// Whether the client may publish this by the rules taken over last.
    pub fn may_publish(&mut self, wish: Publishing<'_>) -> Answer {
        if self.policy.open && self.rights.identity.rules.is_none() {
            return Answer { allowed: true, asked: false };
        }
        let remembered = self.remembered.get_or_insert_default();
        let hash = remembered.hash(&wish);
        if let Some(allowed) = remembered.find(hash, &wish) {
            return Answer { allowed, asked: false };
        }
        let allowed = self.rights.judge(&self.policy, wish);
        remembered.insert(hash, &wish, allowed);
        Answer { allowed, asked: true }
    }

    /// Whether the client may subscribe to a filter, from which `$share/GROUP/` has been taken off.
    pub fn may_subscribe(&self, filter: &str, qos: QoS) -> bool {
        let (rules, no_match) = self.rights.rules(&self.policy);
        acl::subscribe(rules, &self.rights.identity, filter, qos).allows(no_match)
    }

    /// What refuses a publish, for the operator. Asks the rules anew.
    pub fn publish_refused_by(&self, wish: Publishing<'_>) -> RefusedBy {
        let (rules, _) = self.rights.rules(&self.policy);
        self.refused_by(acl::publish(rules, &self.rights.identity, wish))
    }

    /// What refuses a subscription, for the operator. Asks the rules anew.
    pub fn subscribe_refused_by(&self, filter: &str, qos: QoS) -> RefusedBy {
        let (rules, _) = self.rights.rules(&self.policy);
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
        Policy::new(Some(Rules::new(vec![rule])), Permit::Deny)
    }

    fn access(policy: Policy) -> (Arc<Authorizer>, Access) {
        let authorizer = Authorizer::new(policy);
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
        let (_, mut open) = super::tests::access(Policy::new(None, Permit::Allow));
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
        let authorizer = Authorizer::new(policy(Permit::Allow, "a/#"));
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
