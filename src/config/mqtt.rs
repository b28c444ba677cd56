//! `[mqtt]` and `[retainer]`: what the protocol offers to clients, and the bound on everything a client can grow.

use std::time::Duration;

use mqtt_codec::QoS;

use super::identity::PeerNames;
use super::section::Section;
use super::store::Durability;
use super::value::{ByteSize, Choice, Span, Word};

/// The largest packet there can be: a fixed header of 5 bytes and the largest remaining length, MQTT 5.0 section 1.5.5.
const MQTT_MAX_PACKET_BYTES: u64 = 268_435_455 + 5;
/// The longest interval that fits the four-byte seconds of MQTT 5.0; the next value up means "never".
const MAX_INTERVAL: Span = Span(Duration::from_secs(u32::MAX as u64 - 1));
const MIN_DEADLINE: Span = Span(Duration::from_millis(100));
const MAX_DEADLINE: Span = Span(Duration::from_secs(3600));

/// `[mqtt]`. Names and meaning follow EMQX; the rows of `docs/limits.md` say what happens at each limit.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttConfig {
    /// Largest packet taken from a client, in bytes, fixed header included.
    pub max_packet_size: u32,
    /// Longest client id, in bytes.
    pub max_clientid_len: u16,
    /// Most levels in a topic or a filter.
    pub max_topic_levels: u16,
    /// Topic aliases a client may use towards the broker; 0 means none.
    pub max_topic_alias: u16,
    /// Bytes that the aliases of one client may take.
    pub max_topic_alias_bytes: usize,
    pub max_qos_allowed: MaxQos,
    pub retain_available: bool,
    pub wildcard_subscription: bool,
    pub shared_subscription: bool,
    /// QoS 1 and 2 messages under way to one client before it must acknowledge; the client may ask for fewer.
    pub max_inflight: u16,
    /// QoS 2 messages of one client that wait for its PUBREL; also the Receive Maximum told to it.
    pub max_awaiting_rel: u16,
    /// How long a QoS 2 message waits for its PUBREL before its packet identifier is forgotten.
    pub await_rel_timeout: Duration,
    /// Messages queued for one session, and their bytes; whichever is reached first.
    pub max_mqueue_len: usize,
    pub max_mqueue_bytes: usize,
    /// Whether QoS 0 messages are queued for a client that is away.
    pub mqueue_store_qos0: bool,
    /// How long the session of an MQTT 3 client without clean session outlives its connection.
    pub session_expiry_interval: Duration,
    /// The most an MQTT 5 client may ask for; it is told when it gets less.
    pub max_session_expiry_interval: Duration,
    /// Sessions in the broker, with and without a connection.
    pub max_sessions: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Keep alive forced on every client, in seconds; `None` leaves the choice to the client.
    pub server_keepalive: Option<u16>,
    /// A client is gone when it was silent for its keep alive times this; MQTT asks for 1.5. \[MQTT-3.1.2-22\]
    pub keepalive_multiplier: f64,
    /// Time from the accepted (and secured) connection to a complete CONNECT.
    pub idle_timeout: Duration,
    /// Time within which a peer must take some of the bytes that wait for it.
    pub write_timeout: Duration,
    /// How long publishers of QoS 1 and 2 wait for a subscriber that takes nothing, before its queue is left to fill and drop.
    pub slow_subscriber_wait: Duration,
    /// Topic aliases the broker sets towards a client, if it takes that many; 0 means none.
    pub max_outbound_topic_alias: u16,
    /// Told to MQTT 5 clients that ask for it; empty is nothing.
    pub response_information: String,
    /// Where clients are sent: at every CONNECT with `redirect_clients`, and when the broker shuts down.
    pub server_reference: Option<String>,
    pub redirect_clients: Redirect,
    pub shared_subscription_strategy: SharedStrategy,
    /// Topics whose messages go before others in a session's queue, with their priority from 1 to 255.
    pub mqueue_priorities: Vec<(String, u8)>,
    /// Where topics without a priority stand.
    pub mqueue_default_priority: DefaultPriority,
    /// Whether a message goes out with the higher of its own QoS and the subscription's, instead of the lower.
    pub upgrade_qos: bool,
    /// Whether an MQTT 3 client is spared its own messages, as No Local does in MQTT 5.
    pub ignore_loop_deliver: bool,
    /// How often `$SYS` topics are published; zero is never.
    pub sys_interval: Duration,
    /// What listeners that learn of client certificates take names from.
    pub peer_names: PeerNames,
}

impl MqttConfig {
    /// `max_qos_allowed` as the codec names it.
    pub fn max_qos(&self) -> QoS {
        match self.max_qos_allowed {
            MaxQos::AtMostOnce => QoS::AtMostOnce,
            MaxQos::AtLeastOnce => QoS::AtLeastOnce,
            MaxQos::ExactlyOnce => QoS::ExactlyOnce,
        }
    }
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            max_packet_size: 1 << 20,
            max_clientid_len: u16::MAX,
            max_topic_levels: 128,
            max_topic_alias: u16::MAX,
            max_topic_alias_bytes: 256 << 10,
            max_qos_allowed: MaxQos::ExactlyOnce,
            retain_available: true,
            wildcard_subscription: true,
            shared_subscription: true,
            max_inflight: 32,
            max_awaiting_rel: 100,
            await_rel_timeout: Duration::from_secs(300),
            max_mqueue_len: 1000,
            max_mqueue_bytes: 8 << 20,
            mqueue_store_qos0: true,
            session_expiry_interval: Duration::from_secs(2 * 3600),
            max_session_expiry_interval: Duration::from_secs(7 * 24 * 3600),
            max_sessions: 1_000_000,
            max_subscriptions: 1000,
            server_keepalive: None,
            keepalive_multiplier: 1.5,
            idle_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(15),
            slow_subscriber_wait: Duration::from_millis(500),
            max_outbound_topic_alias: 16,
            response_information: String::new(),
            server_reference: None,
            redirect_clients: Redirect::Off,
            shared_subscription_strategy: SharedStrategy::RoundRobin,
            mqueue_priorities: Vec::new(),
            mqueue_default_priority: DefaultPriority::Lowest,
            upgrade_qos: false,
            ignore_loop_deliver: false,
            sys_interval: Duration::from_secs(10),
            peer_names: PeerNames::default(),
        }
    }
}

impl MqttConfig {
    pub(super) fn read(mut section: Section<'_>, durability: Durability) -> MqttConfig {
        let d = MqttConfig::default();
        let s = &mut section;
        let config = MqttConfig {
            max_packet_size: size(s, "max_packet_size", u64::from(d.max_packet_size), 128, MQTT_MAX_PACKET_BYTES),
            max_clientid_len: s.within("max_clientid_len", d.max_clientid_len, 23, u16::MAX),
            max_topic_levels: s.within("max_topic_levels", d.max_topic_levels, 1, u16::MAX),
            max_topic_alias: s.within("max_topic_alias", d.max_topic_alias, 0, u16::MAX),
            max_topic_alias_bytes: size(s, "max_topic_alias_bytes", 256 << 10, 128, 1 << 30),
            max_qos_allowed: max_qos(s, d.max_qos_allowed),
            retain_available: s.read("retain_available", d.retain_available),
            wildcard_subscription: s.read("wildcard_subscription", d.wildcard_subscription),
            shared_subscription: s.read("shared_subscription", d.shared_subscription),
            max_inflight: s.within("max_inflight", d.max_inflight, 1, u16::MAX),
            max_awaiting_rel: s.within("max_awaiting_rel", d.max_awaiting_rel, 1, u16::MAX),
            await_rel_timeout: interval(s, "await_rel_timeout", d.await_rel_timeout),
            max_mqueue_len: s.within("max_mqueue_len", d.max_mqueue_len, 1, 10_000_000),
            max_mqueue_bytes: size(s, "max_mqueue_bytes", 8 << 20, 1 << 10, 16 << 30),
            mqueue_store_qos0: s.read("mqueue_store_qos0", d.mqueue_store_qos0),
            session_expiry_interval: interval(s, "session_expiry_interval", d.session_expiry_interval),
            max_session_expiry_interval: interval(s, "max_session_expiry_interval", d.max_session_expiry_interval),
            max_sessions: s.within("max_sessions", d.max_sessions, 1, 100_000_000),
            max_subscriptions: s.within("max_subscriptions", d.max_subscriptions, 1, 1_000_000),
            server_keepalive: server_keepalive(s),
            keepalive_multiplier: s.within("keepalive_multiplier", d.keepalive_multiplier, 1.0, 10.0),
            idle_timeout: deadline(s, "idle_timeout", d.idle_timeout),
            write_timeout: deadline(s, "write_timeout", d.write_timeout),
            slow_subscriber_wait: slow_wait(s, d.slow_subscriber_wait),
            max_outbound_topic_alias: s.within("max_outbound_topic_alias", d.max_outbound_topic_alias, 0, 64),
            response_information: text(s, "response_information").unwrap_or_default(),
            server_reference: text(s, "server_reference"),
            redirect_clients: word(s, "redirect_clients", d.redirect_clients),
            shared_subscription_strategy: word(s, "shared_subscription_strategy", d.shared_subscription_strategy),
            mqueue_priorities: mqueue_priorities(s, durability),
            mqueue_default_priority: word(s, "mqueue_default_priority", d.mqueue_default_priority),
            upgrade_qos: s.read("upgrade_qos", d.upgrade_qos),
            ignore_loop_deliver: s.read("ignore_loop_deliver", d.ignore_loop_deliver),
            sys_interval: sys_interval(s, d.sys_interval),
            peer_names: PeerNames::read(s, d.peer_names),
        };
        if config.redirect_clients != Redirect::Off && config.server_reference.is_none() {
            let suggestion = "write the other server's address, such as server_reference = \"mqtt2.example.com:8883\"";
            section.error("redirect_clients", "needs server_reference", Some(suggestion.to_owned()));
        }
        if config.session_expiry_interval > config.max_session_expiry_interval {
            let most = Span(config.max_session_expiry_interval);
            let reason = format!("longer than max_session_expiry_interval, which is {most}");
            section.error("session_expiry_interval", reason, Some("shorten it, or raise the maximum".to_owned()));
        }
        if config.max_mqueue_bytes < usize::try_from(config.max_packet_size).unwrap_or(usize::MAX) {
            let reason = "smaller than max_packet_size, so the largest messages could never be queued";
            section.error("max_mqueue_bytes", reason, Some("raise it, or lower max_packet_size".to_owned()));
        }
        section.finish();
        config
    }
}

/// The highest QoS a client may use. \[MQTT-3.2.2-9\]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MaxQos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

/// What CONNECT is answered with while clients are to go elsewhere. \[MQTT-3.2.2-8\]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    Off,
    /// For a while: reason code 0x9C.
    UseAnotherServer,
    /// For good: reason code 0x9D.
    ServerMoved,
}

impl Choice for Redirect {
    const WORDS: &'static [(&'static str, Redirect)] = &[
        ("off", Redirect::Off),
        ("use_another_server", Redirect::UseAnotherServer),
        ("server_moved", Redirect::ServerMoved),
    ];
}

/// Which member of a shared subscription gets a message. Members without a connection are passed over while others have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedStrategy {
    /// Each member in turn.
    RoundRobin,
    Random,
    /// A random member among those on this node, those on others only when there is none.
    Local,
    /// One member for each publisher, as long as that member stays.
    Sticky,
    /// By a hash of the publisher's client id.
    HashClientId,
    /// By a hash of the topic.
    HashTopic,
}

impl Choice for SharedStrategy {
    const WORDS: &'static [(&'static str, SharedStrategy)] = &[
        ("round_robin", SharedStrategy::RoundRobin),
        ("round_robin_per_group", SharedStrategy::RoundRobin),
        ("random", SharedStrategy::Random),
        ("local", SharedStrategy::Local),
        ("sticky", SharedStrategy::Sticky),
        ("hash_clientid", SharedStrategy::HashClientId),
        ("hash_topic", SharedStrategy::HashTopic),
    ];
}

/// Where topics stand that `mqueue_priorities` does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPriority {
    Lowest,
    Highest,
}

impl Choice for DefaultPriority {
    const WORDS: &'static [(&'static str, DefaultPriority)] =
        &[("lowest", DefaultPriority::Lowest), ("highest", DefaultPriority::Highest)];
}

/// Topics named in `mqueue_priorities`.
const MAX_PRIORITIES: usize = 1000;
/// Longest text that goes into a property.
const MAX_PROPERTY_LEN: usize = 1024;

/// A table of topics, or `"disabled"` as EMQX writes it.
fn mqueue_priorities(section: &mut Section<'_>, durability: Durability) -> Vec<(String, u8)> {
    const KEY: &str = "mqueue_priorities";
    if section.is_word(KEY, "disabled") {
        let _: Option<String> = section.optional(KEY);
        return Vec::new();
    }
    let pairs: Vec<(String, u8)> = section.pairs(KEY);
    if !pairs.is_empty() && durability != Durability::Off {
        section.warn(
            KEY,
            "sessions that outlive their connection have none: their queues are on disk, in the order in which messages came",
            "expect priorities for sessions without an expiry alone, or set store.durability = \"off\"",
        );
    }
    for (topic, priority) in &pairs {
        if mqtt_codec::topic::validate_name(topic).is_err() {
            section.error(KEY, format!("`{}` is not a topic name", topic.escape_default()), None);
        }
        if *priority == 0 {
            section.error(
                KEY,
                format!("priority 0 of `{}`", topic.escape_default()),
                Some("write 1 to 255".to_owned()),
            );
        }
    }
    if pairs.len() > MAX_PRIORITIES {
        section.error(KEY, format!("{} topics; at most {MAX_PRIORITIES}", pairs.len()), None);
    }
    pairs
}

/// A text for clients, `None` when it is empty.
fn text(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text: String = section.optional(key)?;
    if text.len() > MAX_PROPERTY_LEN || text.contains(char::is_control) {
        section.error(key, format!("longer than {MAX_PROPERTY_LEN} bytes, or with control characters"), None);
        return None;
    }
    Some(text).filter(|text| !text.is_empty())
}

fn slow_wait(section: &mut Section<'_>, default: Duration) -> Duration {
    section.within("slow_subscriber_wait", Span(default), Span(Duration::ZERO), MAX_DEADLINE).0
}

fn sys_interval(section: &mut Section<'_>, default: Duration) -> Duration {
    const KEY: &str = "sys_interval";
    let Span(interval) = section.within(KEY, Span(default), Span(Duration::ZERO), MAX_INTERVAL);
    if !interval.is_zero() && interval < Duration::from_secs(1) {
        section.error(KEY, "shorter than 1s", Some("write \"0s\" to turn it off".to_owned()));
    }
    interval
}

fn max_qos(section: &mut Section<'_>, default: MaxQos) -> MaxQos {
    match section.within("max_qos_allowed", default as u8, 0, 2) {
        0 => MaxQos::AtMostOnce,
        1 => MaxQos::AtLeastOnce,
        _ => MaxQos::ExactlyOnce,
    }
}

/// Seconds, as a duration, or `"disabled"` as EMQX writes it.
fn server_keepalive(section: &mut Section<'_>) -> Option<u16> {
    const KEY: &str = "server_keepalive";
    let written: String = section.optional(KEY)?;
    if written == "disabled" {
        return None;
    }
    let seconds = Span::parse(&written).map(|span| span.0).filter(|span| span.subsec_nanos() == 0);
    match seconds.map(|span| u16::try_from(span.as_secs())) {
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => {
            section.error(KEY, format!("{written} is out of range, it must be between 1s and 65535s"), None);
            None
        }
        None => {
            let suggestion = "write whole seconds such as \"60s\", or \"disabled\"".to_owned();
            section.error(KEY, format!("`{written}` is not a keep alive"), Some(suggestion));
            None
        }
    }
}

/// `[retainer]`: the store of retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainerConfig {
    pub max_retained_messages: usize,
    /// Largest payload that is retained, in bytes; a larger one is delivered but not kept.
    pub max_payload_size: usize,
    /// Payload and topic bytes of all retained messages together.
    pub max_bytes: usize,
    /// The longest that a message is retained, whatever its own expiry; zero sets no limit.
    pub msg_expiry_interval: Duration,
    /// How often expired messages are looked for, to give their memory back.
    pub msg_clear_interval: Duration,
    /// Whether the empty message that removes a retained one is kept from subscribers.
    pub stop_publish_clear_msg: bool,
}

impl Default for RetainerConfig {
    fn default() -> RetainerConfig {
        RetainerConfig {
            max_retained_messages: 1_000_000,
            max_payload_size: 1 << 20,
            max_bytes: 1 << 30,
            msg_expiry_interval: Duration::ZERO,
            msg_clear_interval: Duration::from_secs(1),
            stop_publish_clear_msg: false,
        }
    }
}

impl RetainerConfig {
    pub(super) fn read(mut section: Section<'_>) -> RetainerConfig {
        let d = RetainerConfig::default();
        let s = &mut section;
        let config = RetainerConfig {
            max_retained_messages: s.within("max_retained_messages", d.max_retained_messages, 1, 100_000_000),
            max_payload_size: size(s, "max_payload_size", 1 << 20, 1, MQTT_MAX_PACKET_BYTES),
            max_bytes: size(s, "max_bytes", 1 << 30, 1 << 10, 1 << 40),
            msg_expiry_interval: interval(s, "msg_expiry_interval", d.msg_expiry_interval),
            msg_clear_interval: deadline(s, "msg_clear_interval", d.msg_clear_interval),
            stop_publish_clear_msg: s.read("stop_publish_clear_msg", d.stop_publish_clear_msg),
        };
        section.finish();
        config
    }
}

/// A size in a range. Every default and bound given fits the target type, so the last resort is never used.
pub(super) fn size<T>(section: &mut Section<'_>, key: &'static str, default: u64, least: u64, most: u64) -> T
where
    T: TryFrom<u64> + Default,
{
    let ByteSize(bytes) = section.within(key, ByteSize(default), ByteSize(least), ByteSize(most));
    T::try_from(bytes).unwrap_or_default()
}

/// A deadline that a peer must meet: never zero, at most an hour.
pub(super) fn deadline(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    section.within(key, Span(default), MIN_DEADLINE, MAX_DEADLINE).0
}

/// How long something is kept: from zero to what MQTT can express.
fn interval(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    section.within(key, Span(default), Span(Duration::ZERO), MAX_INTERVAL).0
}

/// What becomes of a choice that EMQX spells as a word.
pub(super) fn word<C: Choice>(section: &mut Section<'_>, key: &'static str, default: C) -> C {
    let Word(choice) = section.read(key, Word(default));
    choice
}
