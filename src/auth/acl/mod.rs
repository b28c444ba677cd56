//! Rules in order, each allowing or refusing some clients some topics: the first that fits a message decides.
//!
//! Pure. A subscription stands for every topic its filter can match, so it is granted only when the rules allow each of them: whatever one
//! rule refuses must have been allowed by those before it.

mod filter;
mod pattern;

use bytestring::ByteString;
use mqtt_codec::QoS;
use serde::{Deserialize, Serialize};

use crate::auth::{Channel, Identity};
use crate::config::Cidr;
use filter::{Filter, covered};
use pattern::Bound;

pub use pattern::{PatternError, TopicPattern};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permit {
    Allow,
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    Publish,
    Subscribe,
    All,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub permit: Permit,
    pub who: Who,
    pub action: RuleAction,
    /// Only messages or subscriptions with one of these QoS.
    pub qos: Option<Vec<QoS>>,
    /// Only messages with this retain flag; says nothing about subscriptions.
    pub retain: Option<bool>,
    pub topics: Vec<TopicPattern>,
    pub source: Source,
}

/// Where a rule was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The line of the ACL file on which it begins.
    Line(usize),
    /// A list in the store, and its place there, counted from 1.
    Stored(ListOf, usize),
    /// The client's token.
    Token,
    BuiltIn,
}

/// Whom a list of rules in the store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOf {
    ClientId,
    Username,
    Everyone,
}

/// Whom a rule concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Everyone,
    /// Clients that meet every condition that is not empty; a condition lists the values that meet it.
    These(Box<Conditions>),
}

/// Values of a client; an empty list asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    pub usernames: Vec<String>,
    pub client_ids: Vec<String>,
    pub addresses: Vec<Cidr>,
    pub cert_common_names: Vec<String>,
    /// Subjects as RFC 4514 writes them.
    pub cert_subjects: Vec<String>,
    pub cert_fingerprints: Vec<Fingerprint>,
    pub psk_identities: Vec<String>,
    pub channels: Vec<Channel>,
    /// Cipher suites by the names that connections have.
    pub suites: Vec<&'static str>,
}

/// Clients that may connect only by some protocols, or with some suites. Nothing in a handshake tells a client or the broker that somebody
/// between them kept them from a better one, so that only what is known beforehand can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub who: Who,
    /// Empty: any.
    pub channels: Vec<Channel>,
    /// Empty: any.
    pub suites: Vec<&'static str>,
}

impl Pin {
    /// Whether the client's connection is as it must be, if the pin concerns the client.
    pub fn lets_in(&self, client: &Identity) -> bool {
        let security = client.peer.security;
        !self.who.is(client)
            || (self.channels.is_empty() || self.channels.contains(&security.channel))
                && (self.suites.is_empty() || self.suites.contains(&security.suite))
    }
}

/// The digest of a certificate in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fingerprint {
    Sha256(String),
    Sm3(String),
}

/// A message that a client wants to publish, or its will.
#[derive(Debug, Clone, Copy)]
pub struct Publishing<'a> {
    pub topic: &'a str,
    pub qos: QoS,
    pub retain: bool,
}

/// Rules in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>, Vec<Pin>);

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Rules {
        Rules(rules, Vec::new())
    }

    /// The same rules, and pins beside them.
    pub fn with_pins(self, pins: Vec<Pin>) -> Rules {
        Rules(self.0, pins)
    }

    pub fn pins(&self) -> &[Pin] {
        &self.1
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// What the broker's own topics are protected by when nothing else names them: `$SYS` is for clients on the same machine.
    pub fn built_in() -> Rules {
        let rule = |permit, who| Rule {
            permit,
            who,
            action: RuleAction::Subscribe,
            qos: None,
            retain: None,
            topics: TopicPattern::verbatim("$SYS/#").into_iter().collect(),
            source: Source::BuiltIn,
        };
        let local = Conditions { addresses: Cidr::loopback(), ..Conditions::default() };
        Rules::new(vec![rule(Permit::Allow, Who::These(Box::new(local))), rule(Permit::Deny, Who::Everyone)])
    }
}

/// The rights that a token lists. No other rule is asked about its client, so that everything else is refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Granted {
    pub publish: Vec<TopicPattern>,
    pub subscribe: Vec<TopicPattern>,
    pub all: Vec<TopicPattern>,
}

impl From<Granted> for Rules {
    fn from(granted: Granted) -> Rules {
        let rule = |action, topics| Rule {
            permit: Permit::Allow,
            who: Who::Everyone,
            action,
            qos: None,
            retain: None,
            topics,
            source: Source::Token,
        };
        Rules::new(vec![
            rule(RuleAction::Publish, granted.publish),
            rule(RuleAction::Subscribe, granted.subscribe),
            rule(RuleAction::All, granted.all),
        ])
    }
}

/// The placeholders of topics, as they are written.
pub fn placeholders() -> String {
    pattern::placeholders()
}

/// What rules say about a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'r> {
    /// By one rule, or by several together.
    Allowed,
    Refused(&'r Rule),
    /// No rule says anything about it, or about some of the topics it concerns, and none refuses any.
    Nothing,
}

impl<'r> Said<'r> {
    fn by(rule: &'r Rule) -> Said<'r> {
        match rule.permit {
            Permit::Allow => Said::Allowed,
            Permit::Deny => Said::Refused(rule),
        }
    }

    /// Whether it is allowed, where `no_match` holds for what no rule names.
    pub fn allows(self, no_match: Permit) -> bool {
        match self {
            Said::Allowed => true,
            Said::Refused(_) => false,
            Said::Nothing => no_match == Permit::Allow,
        }
    }
}

/// Whether a client may publish a message.
pub fn publish<'r>(rules: impl Iterator<Item = &'r Rule>, client: &Identity, wish: Publishing<'_>) -> Said<'r> {
    for rule in rules {
        let concerned = rule.action != RuleAction::Subscribe
            && rule.retain.is_none_or(|retain| retain == wish.retain)
            && rule.concerns(client, wish.qos);
        let cautious = rule.permit == Permit::Deny;
        if concerned && rule.topics.iter().any(|topic| topic.matches(client, cautious, wish.topic)) {
            return Said::by(rule);
        }
    }
    Said::Nothing
}

/// Whether a client may subscribe to a filter, from which `$share/GROUP/` has been taken off.
pub fn subscribe<'r>(rules: impl Iterator<Item = &'r Rule>, client: &Identity, filter: &str, qos: QoS) -> Said<'r> {
    let wanted = Filter::of(filter);
    let mut allowed: Vec<Filter<'_>> = Vec::new();
    for rule in rules {
        if rule.action == RuleAction::Publish || !rule.concerns(client, qos) {
            continue;
        }
        for topic in &rule.topics {
            match (rule.permit, topic.bind(client, rule.permit == Permit::Deny)) {
                (_, Bound::Nothing) => {}
                (_, Bound::ExactFilter(text)) if text == filter => return Said::by(rule),
                (_, Bound::ExactFilter(_)) => {}
                (Permit::Allow, Bound::Topics(topics)) => {
                    let whole = covered(&wanted, std::iter::once(&topics));
                    allowed.push(topics);
                    if whole {
                        return Said::Allowed;
                    }
                }
                (Permit::Deny, Bound::Topics(topics)) => {
                    let refused = wanted.intersection(&topics);
                    if refused.is_some_and(|refused| !covered(&refused, allowed.iter())) {
                        return Said::Refused(rule);
                    }
                }
                (Permit::Allow, Bound::Everything) => {}
                (Permit::Deny, Bound::Everything) => {
                    return if covered(&wanted, allowed.iter()) { Said::Allowed } else { Said::Refused(rule) };
                }
            }
        }
    }
    if covered(&wanted, allowed.iter()) { Said::Allowed } else { Said::Nothing }
}

impl Rule {
    fn concerns(&self, client: &Identity, qos: QoS) -> bool {
        self.qos.as_ref().is_none_or(|listed| listed.contains(&qos)) && self.who.is(client)
    }
}

impl Who {
    fn is(&self, client: &Identity) -> bool {
        match self {
            Who::Everyone => true,
            Who::These(conditions) => conditions.meets(client),
        }
    }
}

impl Conditions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Conditions::default()
    }

    fn meets(&self, client: &Identity) -> bool {
        let certificate = client.certificate();
        let security = client.peer.security;
        let one_of = |listed: &[String], value: Option<&str>| {
            listed.is_empty() || value.is_some_and(|value| listed.iter().any(|one| one == value))
        };
        one_of(&self.usernames, client.username.as_ref().map(ByteString::as_ref))
            && one_of(&self.client_ids, Some(&client.client_id))
            && (self.addresses.is_empty() || self.addresses.iter().any(|block| block.contains(client.remote)))
            && one_of(&self.cert_common_names, client.common_name())
            && one_of(&self.cert_subjects, certificate.map(|certificate| certificate.subject()))
            && (self.cert_fingerprints.is_empty()
                || certificate.is_some_and(|certificate| {
                    self.cert_fingerprints.iter().any(|fingerprint| match fingerprint {
                        Fingerprint::Sha256(digest) => *digest == certificate.fingerprint_sha256(),
                        Fingerprint::Sm3(digest) => *digest == certificate.fingerprint_sm3(),
                    })
                }))
            && one_of(&self.psk_identities, client.peer.psk.as_deref())
            && (self.channels.is_empty() || self.channels.contains(&security.channel))
            && (self.suites.is_empty() || self.suites.contains(&security.suite))
    }
}

#[cfg(test)]
mod tests;
