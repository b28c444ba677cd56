//! The ACL file: rules in TOML, each with the clients, the action and the topics it is about, read whole or not at all.

use std::path::Path;

use mqtt_codec::QoS;

use super::error::{ConfigError, ConfigErrors, Origin};
use super::section::{FileRef, Report, Section};
use super::value::{Choice, Word};
use super::{read_file, tree};
use crate::auth::Channel;
use crate::auth::acl::{
    Conditions, Fingerprint, Permit, Pin, Rule, RuleAction, Rules, Source, TopicPattern, Who, placeholders,
};

/// Topics of all rules of a file: a subscription may be compared with each of them.
const MAX_TOPICS: usize = 4096;

/// Reads an ACL file.
///
/// # Errors
/// Every mistake there is, each with its place: a file that is understood in part would let the wrong clients in.
pub fn load_acl(file: &FileRef) -> Result<Rules, ConfigErrors> {
    let text = read_file(file.path(), |reason| file.error(reason))?;
    parse_acl(file.path(), &text)
}

/// As [`load_acl`], from text; `path` names it in errors.
///
/// # Errors
/// Every mistake there is, each with its place.
pub fn parse_acl(path: &Path, text: &str) -> Result<Rules, ConfigErrors> {
    let root = tree::parse(path.to_owned(), text)?;
    let report = Report::new(path.parent().map(Path::to_owned).unwrap_or_default(), Vec::new());
    let mut section = Section::root(&report, &root);
    let mut topics = 0;
    let mut rules = Vec::new();
    for rule in section.list("rules") {
        let place = rule.origin();
        let line = match place {
            Origin::File { line, .. } => line,
            Origin::Environment(_) | Origin::Default => 1,
        };
        let Some(rule) = read_rule(rule, Source::Line(line)) else { continue };
        topics += rule.topics.len();
        if topics > MAX_TOPICS {
            report.push(
                ConfigError::new(place, "rules", format!("more than {MAX_TOPICS} topics in the file"))
                    .suggest("use placeholders such as ${username} instead of a rule for each client"),
            );
            break;
        }
        rules.push(rule);
    }
    if rules.is_empty() && report.count() == 0 && !section.has("rules") {
        let origin = Origin::File { path: path.to_owned().into(), line: 1, column: 1 };
        let error = ConfigError::new(origin, "rules", "the file has no rules");
        report.push(error.suggest("write `rules = []` to refuse everything, or begin a rule with [[rules]]"));
    }
    let pins = section.list("pins").into_iter().filter_map(read_pin).collect();
    section.finish();
    ConfigErrors::check(report.into_errors())?;
    Ok(Rules::new(rules).with_pins(pins))
}

fn read_rule(mut section: Section<'_>, source: Source) -> Option<Rule> {
    let before = section.report().count();
    let permit: Option<Permit> = word(&mut section, "permit");
    let action: Option<RuleAction> = word(&mut section, "action");
    let who = read_who(&mut section);
    let topics = read_topics(&mut section);
    let qos = section.optional::<Vec<u8>>("qos").and_then(|levels| {
        let listed: Option<Vec<QoS>> = levels.iter().map(|level| QoS::try_from(*level).ok()).collect();
        if listed.as_ref().is_none_or(Vec::is_empty) {
            section.error("qos", "expected a list of 0, 1 and 2", None);
        }
        listed
    });
    let retain = section.optional("retain");
    if retain.is_some() && action == Some(RuleAction::Subscribe) {
        section.error(
            "retain",
            "says nothing about subscriptions",
            Some("remove it, or write a rule for `publish`".into()),
        );
    }
    let report = section.report();
    section.finish();
    if report.count() > before {
        return None;
    }
    Some(Rule { permit: permit?, who: who?, action: action?, qos, retain, topics, source })
}

fn read_pin(mut section: Section<'_>) -> Option<Pin> {
    let who = read_who(&mut section);
    let (channels, suites) = (channels(&mut section), suites(&mut section));
    if channels.is_empty() && suites.is_empty() && !section.has("protocol") && !section.has("suite") {
        let example = "write protocol = [\"tlcp\"], or suite = [\"ECDHE_SM4_GCM_SM3\"]".to_owned();
        section.error("protocol", "is missing, so that the pin would hold nobody to anything", Some(example));
    }
    section.finish();
    Some(Pin { who: who?, channels, suites })
}

/// What `protocol` can name.
#[derive(Clone, Copy)]
struct Channels(&'static [Channel]);

impl Choice for Channels {
    const WORDS: &'static [(&'static str, Channels)] = &[
        ("plain", Channels(&[Channel::Plain])),
        ("proxied", Channels(&[Channel::Proxied])),
        ("tls", Channels(&[Channel::Tls12, Channel::Tls13])),
        ("tls1.2", Channels(&[Channel::Tls12])),
        ("tls1.3", Channels(&[Channel::Tls13])),
        ("rfc8998", Channels(&[Channel::Rfc8998])),
        ("tlcp", Channels(&[Channel::Tlcp])),
    ];
}

fn channels(section: &mut Section<'_>) -> Vec<Channel> {
    let words: Vec<Word<Channels>> = section.one_or_more("protocol");
    if words.is_empty() && section.has("protocol") && !section.is_text("protocol") {
        section.error("protocol", "names no protocol", Some("name one, or remove the key".to_owned()));
    }
    words.into_iter().flat_map(|word| word.0.0.iter().copied()).collect()
}

/// Suites by the names that connections have. An unknown name in a rule that refuses would refuse nobody.
fn suites(section: &mut Section<'_>) -> Vec<&'static str> {
    let names: Vec<String> = section.one_or_more("suite");
    if names.is_empty() && section.has("suite") && !section.is_text("suite") {
        section.error("suite", "names no cipher suite", Some("name one, or remove the key".to_owned()));
    }
    let mut known = Vec::with_capacity(names.len());
    for name in names {
        match gm_tls::suites::by_name(&name) {
            Some(suite) => known.push(suite.name),
            None => {
                let all: Vec<&str> = gm_tls::suites::SUITES.iter().map(|suite| suite.name).collect();
                let suggestion = format!("known ones are {}", all.join(", "));
                section.error(
                    "suite",
                    format!("`{}` is no known cipher suite", name.escape_default()),
                    Some(suggestion),
                );
            }
        }
    }
    known
}

/// A key that must be there and has one of a few words.
fn word<C: Choice>(section: &mut Section<'_>, key: &'static str) -> Option<C> {
    if !section.has(key) {
        let words: Vec<&str> = C::WORDS.iter().map(|(word, _)| *word).collect();
        section.error(key, "is missing", Some(format!("write one of {}", words.join(", "))));
        return None;
    }
    section.optional::<Word<C>>(key).map(|word| word.0)
}

impl Choice for RuleAction {
    const WORDS: &'static [(&'static str, RuleAction)] =
        &[("publish", RuleAction::Publish), ("subscribe", RuleAction::Subscribe), ("all", RuleAction::All)];
}

/// `who` where it is a word.
#[derive(Clone, Copy)]
struct Everyone;

impl Choice for Everyone {
    const WORDS: &'static [(&'static str, Everyone)] = &[("all", Everyone)];
}

fn read_who(section: &mut Section<'_>) -> Option<Who> {
    const EXAMPLE: &str = "write who = \"all\", or who = { username = \"NAME\" }";
    if !section.has("who") {
        section.error("who", "is missing", Some(EXAMPLE.to_owned()));
        return None;
    }
    if section.is_text("who") {
        return word(section, "who").map(|Everyone| Who::Everyone);
    }
    let mut inner = section.section("who");
    if !inner.exists() {
        return None;
    }
    let conditions = Conditions {
        usernames: texts(&mut inner, "username"),
        client_ids: texts(&mut inner, "clientid"),
        addresses: inner.one_or_more("ipaddress"),
        cert_common_names: texts(&mut inner, "cert_common_name"),
        cert_subjects: texts(&mut inner, "cert_subject"),
        cert_fingerprints: texts(&mut inner, "cert_fingerprint")
            .iter()
            .filter_map(|text| {
                let fingerprint = fingerprint(text);
                if fingerprint.is_none() {
                    let example = "write \"sha256:\" or \"sm3:\" and 64 hexadecimal digits".to_owned();
                    inner.error("cert_fingerprint", format!("`{text}` is no fingerprint"), Some(example));
                }
                fingerprint
            })
            .collect(),
        psk_identities: texts(&mut inner, "psk_identity"),
        channels: channels(&mut inner),
        suites: suites(&mut inner),
    };
    let report = inner.report();
    let before = report.count();
    inner.finish();
    if conditions.is_empty() && report.count() == before {
        section.error("who", "names nobody", Some(EXAMPLE.to_owned()));
        return None;
    }
    Some(Who::These(Box::new(conditions)))
}

/// One text or a list of them, none of which is empty.
fn texts(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let texts: Vec<String> = section.one_or_more(key);
    if texts.iter().any(String::is_empty) {
        section.error(key, "an empty text is no value of any client", Some("remove it".to_owned()));
    }
    texts
}

fn read_topics(section: &mut Section<'_>) -> Vec<TopicPattern> {
    let texts: Vec<String> = section.one_or_more("topics");
    if texts.is_empty() {
        let example = "write topics = [\"#\"] for all topics but the broker's own".to_owned();
        section.error("topics", "names no topic", Some(example));
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for text in &texts {
        match text.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let placeholders = format!("placeholders are {}", placeholders());
                section.error("topics", format!("`{text}`: {error}"), text.contains("${").then_some(placeholders));
            }
        }
    }
    patterns
}

/// `sha256:` or `sm3:` and the digest; colons between bytes and capitals are allowed.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let (kind, digest) = text.split_once(':')?;
    let digest: String = digest.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    if digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    match kind {
        "sha256" => Some(Fingerprint::Sha256(digest)),
        "sm3" => Some(Fingerprint::Sm3(digest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        match parse_acl(Path::new("acl.toml"), text) {
            Ok(rules) => panic!("accepted: {rules:?}"),
            Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn reads_rules_in_their_order() {
        let digest = "AB:".repeat(31) + "AB";
        let text = format!(
            "[[rules]]\npermit = \"allow\"\nwho = {{ username = [\"a\", \"b\"], ipaddress = \"10.0.0.0/8\", \
             cert_fingerprint = \"sm3:{digest}\" }}\naction = \"publish\"\nqos = [0, 1]\nretain = false\n\
             topics = [\"d/${{username}}/#\", \"eq #\"]\n\
             [[rules]]\npermit = \"deny\"\nwho = \"all\"\naction = \"all\"\ntopics = \"#\"\n"
        );
        let rules = parse_acl(Path::new("acl.toml"), &text).unwrap();
        let rules: Vec<_> = rules.iter().collect();
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].permit, rules[1].permit), (Permit::Allow, Permit::Deny));
        let Who::These(who) = &rules[0].who else { panic!("{:?}", rules[0]) };
        assert_eq!(who.usernames, ["a", "b"]);
        assert_eq!(who.cert_fingerprints, [Fingerprint::Sm3("ab".repeat(32))]);
        assert_eq!(rules[0].qos, Some(vec![QoS::AtMostOnce, QoS::AtLeastOnce]));
        assert_eq!(rules[1].topics.len(), 1);
        assert_eq!((rules[0].source, rules[1].source), (Source::Line(1), Source::Line(8)));
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_a_suggestion() {
        let text = "[[rules]]\npermit = \"alow\"\nwho = \"all\"\naction = \"all\"\ntopics = [\"a/#/b\"]\n\
                    [[rules]]\npermit = \"deny\"\naction = \"subscribe\"\nretain = true\ntopics = [\"${user}\"]\n\
                    [[rules]]\npermit = \"deny\"\nwho = {}\naction = \"all\"\ntopics = []\nfoo = 1\n";
        assert_eq!(
            errors(text),
            [
                "acl.toml:2:10: rules[0].permit: `alow` is not a known value; did you mean `allow`?",
                "acl.toml:5:1: rules[0].topics: `a/#/b`: # is not the whole last level",
                "acl.toml:6:1: rules[1].who: is missing; write who = \"all\", or who = { username = \"NAME\" }",
                "acl.toml:9:1: rules[1].retain: says nothing about subscriptions; remove it, or write a rule for `publish`",
                "acl.toml:10:1: rules[1].topics: `${user}`: `${user}` is no placeholder; placeholders are ${username}, \
                 ${clientid}, ${cert_common_name}, ${cert_subject}, ${cert_sm3}, ${cert_sha256}, ${cert_san_dns}, \
                 ${cert_san_email}, ${cert_san_uri}, ${cert_san_ip}, ${psk_identity}",
                "acl.toml:13:1: rules[2].who: names nobody; write who = \"all\", or who = { username = \"NAME\" }",
                "acl.toml:15:1: rules[2].topics: names no topic; write topics = [\"#\"] for all topics but the broker's own",
                "acl.toml:16:1: rules[2].foo: unknown key; known keys here: permit, action, who, topics, qos, retain",
            ]
        );
    }

    #[test]
    fn pins_hold_clients_to_protocols_and_suites_that_exist() {
        let pins = |lines: &str| format!("rules = []\n[[pins]]\nwho = {{ username = \"a\" }}\n{lines}");
        let read =
            parse_acl(Path::new("acl.toml"), &pins("protocol = [\"tls\", \"tlcp\"]\nsuite = \"ecc_sm4_gcm_sm3\"\n"));
        let read = read.unwrap();
        let [pin] = read.pins() else { panic!("{read:?}") };
        assert_eq!(pin.channels, [Channel::Tls12, Channel::Tls13, Channel::Tlcp]);
        assert_eq!(pin.suites, ["ECC_SM4_GCM_SM3"]);
        for (lines, error) in [
            ("", "is missing, so that the pin would hold nobody to anything"),
            ("protocol = []\n", "names no protocol"),
            ("protocol = \"gm\"\n", "`gm` is not a known value"),
            ("suite = \"ECC_SM5\"\n", "`ECC_SM5` is no known cipher suite; known ones are ECC_SM4_GCM_SM3"),
            ("protocol = \"tlcp\"\ntopics = \"a\"\n", "unknown key"),
        ] {
            let found = errors(&pins(lines));
            assert!(found[0].contains(error), "{lines}: {found:?}");
        }
    }

    // 35: CVE-2018-12550 and CVE-2018-12551: an empty or half understood file let everybody in.
    #[test]
    fn a_file_without_rules_is_a_mistake_and_not_a_permission() {
        for text in ["", "# nothing\n", "[rules]\n", "rules = 1\n", "[[rules]]\n", "[[rule]]\n", "allow all\n"] {
            assert!(!errors(text).is_empty(), "{text}");
        }
        assert_eq!(parse_acl(Path::new("acl.toml"), "rules = []\n").unwrap(), Rules::default());
    }

    #[test]
    fn the_number_of_topics_is_bounded() {
        let topics = vec!["\"a\""; MAX_TOPICS].join(",");
        let rule = |topics: &str| {
            format!("[[rules]]\npermit = \"deny\"\nwho = \"all\"\naction = \"all\"\ntopics = [{topics}]\n")
        };
        assert!(parse_acl(Path::new("acl.toml"), &rule(&topics)).is_ok());
        assert!(errors(&(rule(&topics) + &rule("\"a\"")))[0].contains("more than 4096 topics"));
    }
}
