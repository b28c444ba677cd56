//! Rules against every topic of a small world, and the cases that have let clients past the rules of other brokers.

use super::*;
use crate::auth::identity::tests::identity;
use Permit::{Allow, Deny};
use proptest::prelude::*;

fn rule(permit: Permit, action: RuleAction, topics: &[&str]) -> Rule {
    let topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
    Rule { permit, who: Who::Everyone, action, qos: None, retain: None, topics, source: Source::Line(1) }
}

fn rules(list: &[(Permit, &str)]) -> Vec<Rule> {
    list.iter().map(|(permit, topic)| rule(*permit, RuleAction::All, &[topic])).collect()
}

fn permit(said: Said<'_>) -> Option<Permit> {
    match said {
        Said::Allowed => Some(Allow),
        Said::Refused(_) => Some(Deny),
        Said::Nothing => None,
    }
}

fn subscribe<'r>(rules: impl Iterator<Item = &'r Rule>, client: &Identity, filter: &str, qos: QoS) -> Option<Permit> {
    permit(super::subscribe(rules, client, filter, qos))
}

fn publish<'r>(rules: impl Iterator<Item = &'r Rule>, client: &Identity, wish: Publishing<'_>) -> Option<Permit> {
    permit(super::publish(rules, client, wish))
}

fn may_subscribe(list: &[(Permit, &str)], filter: &str) -> Option<Permit> {
    subscribe(rules(list).iter(), &identity("c", Some("u")), filter, QoS::AtLeastOnce)
}

fn may_publish(rules: &[Rule], client: &Identity, topic: &str) -> Option<Permit> {
    publish(rules.iter(), client, Publishing { topic, qos: QoS::AtLeastOnce, retain: false })
}

#[test]
fn a_subscription_is_granted_when_every_topic_it_can_match_is_allowed() {
    assert_eq!(may_subscribe(&[(Allow, "a/#")], "a/+/b"), Some(Allow));
    assert_eq!(may_subscribe(&[(Allow, "a/b"), (Deny, "#")], "a/b"), Some(Allow));
    assert_eq!(may_subscribe(&[(Allow, "a/b")], "a/+"), None);
    assert_eq!(may_subscribe(&[(Deny, "a/secret"), (Allow, "#")], "a/+"), Some(Deny));
    assert_eq!(may_subscribe(&[(Deny, "a/secret"), (Allow, "#")], "#"), Some(Deny));
    assert_eq!(may_subscribe(&[(Deny, "a/secret"), (Allow, "#")], "b/#"), Some(Allow));
    assert_eq!(
        may_subscribe(&[(Allow, "a/secret/mine"), (Deny, "a/secret/#"), (Allow, "a/#")], "a/secret/mine"),
        Some(Allow)
    );
    assert_eq!(may_subscribe(&[(Allow, "a/+"), (Deny, "a/secret"), (Allow, "#")], "a/+"), Some(Allow));
    assert_eq!(may_subscribe(&[(Allow, "a"), (Allow, "a/+/#")], "a/#"), Some(Allow));
}

// 31: wildcards do not reach what begins with `$`.
#[test]
fn a_rule_for_everything_says_nothing_about_the_broker_s_own_topics() {
    assert_eq!(may_subscribe(&[(Allow, "#")], "$SYS/#"), None);
    assert_eq!(may_subscribe(&[(Deny, "$SYS/#"), (Allow, "#")], "#"), Some(Allow));
    assert_eq!(may_subscribe(&[(Deny, "$SYS/#"), (Allow, "#")], "$SYS/+/x"), Some(Deny));
}

#[test]
fn eq_speaks_of_one_filter_and_not_of_what_it_matches() {
    assert_eq!(may_subscribe(&[(Deny, "eq #"), (Allow, "#")], "#"), Some(Deny));
    assert_eq!(may_subscribe(&[(Deny, "eq #"), (Allow, "#")], "a/#"), Some(Allow));
    assert_eq!(may_subscribe(&[(Deny, "eq a/b"), (Allow, "#")], "a/+"), Some(Deny));
    assert_eq!(may_subscribe(&[(Allow, "eq a/#"), (Deny, "#")], "a/#"), Some(Allow));
    assert_eq!(may_subscribe(&[(Allow, "eq a/#"), (Deny, "#")], "a/b"), Some(Deny));
}

// 34: CVE-2017-7650.
#[test]
fn a_user_name_with_a_wildcard_gains_no_topic() {
    for name in [Some("#"), Some("+"), Some("a/b"), Some(""), None] {
        let client = identity("c", name);
        let allow = [rule(Allow, RuleAction::All, &["${username}/#", "home/${username}"])];
        for filter in ["#", "+/#", "a/b/#", "home/+", "home/#", "home/a/b", "secret/x"] {
            assert_ne!(subscribe(allow.iter(), &client, filter, QoS::AtMostOnce), Some(Allow), "{name:?} {filter}");
        }
        assert_eq!(may_publish(&allow, &client, "home/x"), None);
    }
}

#[test]
fn a_refusal_that_cannot_be_read_refuses_all_it_could_have_meant() {
    let rules = [rule(Deny, RuleAction::All, &["home/${username}"]), rule(Allow, RuleAction::All, &["#"])];
    for name in [None, Some("+"), Some("x/y")] {
        let client = identity("c", name);
        assert_eq!(may_publish(&rules, &client, "home/x/y"), Some(Deny));
        assert_eq!(subscribe(rules.iter(), &client, "#", QoS::AtMostOnce), Some(Deny));
        assert_eq!(may_publish(&rules, &client, "other"), Some(Allow));
    }
    let first = [rule(Deny, RuleAction::All, &["${username}/x"]), rule(Allow, RuleAction::All, &["#"])];
    assert_eq!(subscribe(first.iter(), &identity("c", None), "other", QoS::AtMostOnce), Some(Deny));
    assert_eq!(may_publish(&first, &identity("c", None), "other"), Some(Deny));
}

#[test]
fn who_asks_for_every_condition_and_for_one_of_its_values() {
    let who = |conditions| Who::These(Box::new(conditions));
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let client = identity("c", Some("u"));
    let is = |conditions: Conditions| who(conditions).is(&client);
    assert!(is(Conditions { usernames: strings(&["x", "u"]), ..Conditions::default() }));
    assert!(is(Conditions { usernames: strings(&["u"]), client_ids: strings(&["c"]), ..Conditions::default() }));
    assert!(!is(Conditions { usernames: strings(&["u"]), client_ids: strings(&["d"]), ..Conditions::default() }));
    assert!(!is(Conditions { cert_common_names: strings(&["u"]), ..Conditions::default() }));
    assert!(!is(Conditions { addresses: Cidr::loopback(), ..Conditions::default() }));
    let unnamed = identity("c", None);
    assert!(!who(Conditions { usernames: strings(&[""]), ..Conditions::default() }).is(&unnamed));
}

#[test]
fn qos_and_retain_narrow_a_rule() {
    let client = identity("c", None);
    let mut narrow = rule(Deny, RuleAction::All, &["t"]);
    narrow.qos = Some(vec![QoS::ExactlyOnce]);
    narrow.retain = Some(true);
    let decide = |qos, retain| publish(std::iter::once(&narrow), &client, Publishing { topic: "t", qos, retain });
    assert_eq!(decide(QoS::ExactlyOnce, true), Some(Deny));
    assert_eq!(decide(QoS::ExactlyOnce, false), None);
    assert_eq!(decide(QoS::AtMostOnce, true), None);
    assert_eq!(subscribe(std::iter::once(&narrow), &client, "t", QoS::ExactlyOnce), Some(Deny));
    assert_eq!(subscribe(std::iter::once(&narrow), &client, "t", QoS::AtMostOnce), None);
}

#[test]
fn no_rule_of_a_token_s_list_says_anything_about_what_it_does_not_name() {
    let granted = Granted { publish: vec!["p/${username}".parse().unwrap()], ..Granted::default() };
    let rules = Rules::from(granted);
    let client = identity("c", Some("u"));
    let rules: Vec<Rule> = rules.iter().cloned().collect();
    assert_eq!(may_publish(&rules, &client, "p/u"), Some(Allow));
    assert_eq!(may_publish(&rules, &client, "p/v"), None);
    assert_eq!(subscribe(rules.iter(), &client, "p/u", QoS::AtMostOnce), None);
    assert_eq!(subscribe(rules.iter(), &client, "$SYS/#", QoS::AtMostOnce), None);
}

fn topics(depth: usize) -> Vec<String> {
    const NAMES: [&str; 4] = ["a", "b", "$s", "fresh"];
    let mut all = Vec::new();
    let mut last = vec![String::new()];
    for at in 0..depth {
        last = last
            .iter()
            .flat_map(|head| NAMES.iter().map(move |n| if at == 0 { (*n).to_owned() } else { format!("{head}/{n}") }))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => Just("a"), 1 => Just("b"), 1 => Just("$s"), 4 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

proptest! {
    /// The rule for subscriptions is the rule for topics, asked of each topic: allowed when each is, refused when one is.
    #[test]
    fn a_filter_is_judged_as_each_of_its_topics(
        list in prop::collection::vec((prop_oneof![Just(Allow), Just(Deny)], filter()), 0..7),
        wanted in filter(),
    ) {
        let rules: Vec<Rule> = list.iter().map(|(permit, topic)| rule(*permit, RuleAction::All, &[topic])).collect();
        let client = identity("c", None);
        let each: Vec<_> = topics(6)
            .iter()
            .filter(|topic| mqtt_codec::topic::matches(&wanted, topic))
            .map(|topic| may_publish(&rules, &client, topic))
            .collect();
        let expected = if each.contains(&Some(Deny)) {
            Some(Deny)
        } else if each.contains(&None) {
            None
        } else {
            Some(Allow)
        };
        let got = subscribe(rules.iter(), &client, &wanted, QoS::AtMostOnce);
        prop_assert_eq!(got, expected, "{:?} {}", list, wanted);
    }
}
