//! `[delayed]`, `[[rewrite]]`, `[[auto_subscribe]]`, `[flapping_detect]` and `[banned]`: what goes beyond the protocol, all of it off by default.

use std::time::Duration;

use mqtt_codec::{QoS, RetainHandling};
use regex::{Regex, RegexBuilder};

use super::mqtt::{deadline, size, word};
use super::section::Section;
use super::value::{Choice, Span};

/// Rules in `[[rewrite]]`, and the bytes that the compiled form of one expression may take.
const MAX_REWRITE_RULES: usize = 100;
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// Entries in `[[auto_subscribe]]`, as in EMQX.
const MAX_AUTO_SUBSCRIPTIONS: usize = 20;

/// What the sections of this file say.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    pub delayed: DelayedConfig,
    /// In the order written.
    pub rewrite: Vec<RewriteRule>,
    pub auto_subscribe: Vec<AutoSubscribe>,
    pub flapping_detect: FlappingConfig,
    /// `[banned] max_entries`: bans of clients, users and addresses together.
    pub max_bans: usize,
}

impl Default for Features {
    fn default() -> Features {
        Features {
            delayed: DelayedConfig::default(),
            rewrite: Vec::new(),
            auto_subscribe: Vec::new(),
            flapping_detect: FlappingConfig::default(),
            max_bans: 100_000,
        }
    }
}

impl Features {
    pub(super) fn read(root: &mut Section<'_>) -> Features {
        let mut rewrite: Vec<_> = root.list("rewrite").into_iter().filter_map(RewriteRule::read).collect();
        let mut auto_subscribe: Vec<_> =
            root.list("auto_subscribe").into_iter().filter_map(AutoSubscribe::read).collect();
        for (key, count, most) in [
            ("rewrite", rewrite.len(), MAX_REWRITE_RULES),
            ("auto_subscribe", auto_subscribe.len(), MAX_AUTO_SUBSCRIPTIONS),
        ] {
            if count > most {
                root.error(key, format!("{count} entries; at most {most}"), None);
            }
        }
        rewrite.truncate(MAX_REWRITE_RULES);
        auto_subscribe.truncate(MAX_AUTO_SUBSCRIPTIONS);
        Features {
            delayed: DelayedConfig::read(root.section("delayed")),
            rewrite,
            auto_subscribe,
            flapping_detect: FlappingConfig::read(root.section("flapping_detect")),
            max_bans: {
                let mut banned = root.section("banned");
                let most = banned.within("max_entries", Features::default().max_bans, 1, 10_000_000);
                banned.finish();
                most
            },
        }
    }
}

/// `[delayed]`: messages to `$delayed/SECONDS/TOPIC` are published to `TOPIC` after that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayedConfig {
    pub enable: bool,
    /// Messages that wait, and their bytes.
    pub max_delayed_messages: usize,
    pub max_bytes: usize,
}

impl Default for DelayedConfig {
    fn default() -> DelayedConfig {
        DelayedConfig { enable: false, max_delayed_messages: 100_000, max_bytes: 256 << 20 }
    }
}

impl DelayedConfig {
    fn read(mut section: Section<'_>) -> DelayedConfig {
        let d = DelayedConfig::default();
        let s = &mut section;
        let config = DelayedConfig {
            enable: s.read("enable", d.enable),
            max_delayed_messages: s.within("max_delayed_messages", d.max_delayed_messages, 1, 100_000_000),
            max_bytes: size(s, "max_bytes", 256 << 20, 1 << 10, 1 << 40),
        };
        section.finish();
        config
    }
}

/// One `[[rewrite]]`: topics that match `source_topic` and `re` become `dest_topic`.
#[derive(Debug, Clone, PartialEq)]
pub struct RewriteRule {
    pub action: RewriteAction,
    /// A topic filter.
    pub source_topic: String,
    /// With `$1` to `$9` for what the groups of `re` found, `${clientid}` and `${username}`.
    pub dest_topic: String,
    pub re: Pattern,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteAction {
    Publish,
    /// SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    All,
}

impl Choice for RewriteAction {
    const WORDS: &'static [(&'static str, RewriteAction)] = &[
        ("publish", RewriteAction::Publish),
        ("subscribe", RewriteAction::Subscribe),
        ("all", RewriteAction::All),
        ("both", RewriteAction::All),
    ];
}

/// A regular expression, compared by its text. Matching takes time linear in the topic, whatever the expression.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, for the operator.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build();
        built.map(Pattern).map_err(|error| error.to_string())
    }

    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl RewriteRule {
    fn read(mut section: Section<'_>) -> Option<RewriteRule> {
        let s = &mut section;
        let action = word(s, "action", RewriteAction::All);
        let source_topic = required(s, "source_topic", "sensor/#");
        let dest_topic = required(s, "dest_topic", "site/$1");
        let re = required(s, "re", "^sensor/(.+)$");
        if let Some(filter) = &source_topic
            && (mqtt_codec::topic::is_shared(filter) || mqtt_codec::topic::validate_filter(filter).is_err())
        {
            s.error("source_topic", format!("`{}` is not a topic filter", filter.escape_default()), None);
        }
        let re = re.and_then(|text| match Pattern::new(&text) {
            Ok(pattern) => Some(pattern),
            Err(reason) => {
                s.error("re", reason, None);
                None
            }
        });
        section.finish();
        Some(RewriteRule { action, source_topic: source_topic?, dest_topic: dest_topic?, re: re? })
    }
}

/// One `[[auto_subscribe]]`: what every client is subscribed to when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSubscribe {
    /// A topic filter with `${clientid}`, `${username}` and `${host}`.
    pub topic: String,
    pub qos: QoS,
    /// No Local, Retain As Published and Retain Handling of MQTT 5.
    pub nl: bool,
    pub rap: bool,
    pub rh: RetainHandling,
}

impl AutoSubscribe {
    fn read(mut section: Section<'_>) -> Option<AutoSubscribe> {
        let s = &mut section;
        let topic = required(s, "topic", "inbox/${clientid}");
        let qos = QoS::try_from(s.within("qos", 0u8, 0, 2)).unwrap_or(QoS::AtMostOnce);
        let (nl, rap) = (s.within("nl", 0u8, 0, 1) == 1, s.within("rap", 0u8, 0, 1) == 1);
        let rh = match s.within("rh", 0u8, 0, 2) {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        };
        if let Some(filter) = &topic {
            if mqtt_codec::topic::validate_filter(filter).is_err() {
                s.error("topic", format!("`{}` is not a topic filter", filter.escape_default()), None);
            } else if nl && mqtt_codec::topic::is_shared(filter) {
                s.error("nl", "No Local cannot be set on a shared subscription", None);
            }
        }
        section.finish();
        Some(AutoSubscribe { topic: topic?, qos, nl, rap, rh })
    }
}

/// `[flapping_detect]`: a client that connects and disconnects too often is banned for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlappingConfig {
    pub enable: bool,
    /// Disconnections within `window_time` that are too many.
    pub max_count: u32,
    pub window_time: Duration,
    pub ban_time: Duration,
}

impl Default for FlappingConfig {
    fn default() -> FlappingConfig {
        FlappingConfig {
            enable: false,
            max_count: 15,
            window_time: Duration::from_secs(60),
            ban_time: Duration::from_secs(300),
        }
    }
}

impl FlappingConfig {
    fn read(mut section: Section<'_>) -> FlappingConfig {
        let d = FlappingConfig::default();
        let s = &mut section;
        let longest = Span(Duration::from_secs(365 * 24 * 3600));
        let least = Span(Duration::from_secs(1));
        let Span(ban_time) = s.within("ban_time", Span(d.ban_time), least, longest);
        let config = FlappingConfig {
            enable: s.read("enable", d.enable),
            max_count: s.within("max_count", d.max_count, 1, 1_000_000),
            window_time: deadline(s, "window_time", d.window_time),
            ban_time,
        };
        section.finish();
        config
    }
}

fn required(section: &mut Section<'_>, key: &'static str, example: &str) -> Option<String> {
    let value = section.optional(key);
    if value.is_none() && !section.has(key) {
        section.error(key, "missing", Some(format!("such as {key} = \"{example}\"")));
    }
    value
}
