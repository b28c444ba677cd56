//! Topic aliases of one connection, in both directions (MQTT 5 section 3.3.2.3.4). Neither outlives the connection, [MQTT-3.3.2-7].

use bytestring::ByteString;
use hashbrown::HashMap;
use std::num::NonZeroU16;

/// What an alias of a client costs besides its topic, in bytes; an estimate that errs on the high side.
const ENTRY: usize = 64;
/// Longer topics get no alias, which bounds what a connection's table holds.
const MAX_ALIASED_TOPIC_LEN: usize = 512;
/// An alias costs three bytes of its own in every packet: shorter topics gain nothing.
const MIN_ALIASED_TOPIC_LEN: usize = 4;

/// Why the topic of a PUBLISH cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    #[error("topic alias is above mqtt.max_topic_alias")]
    OutOfRange,
    #[error("topic alias was never set")]
    Unknown,
    #[error("topic aliases take more than mqtt.max_topic_alias_bytes")]
    TooManyBytes,
}

/// Aliases that the client has set, [MQTT-3.3.2-7] [MQTT-3.3.2-12].
#[derive(Debug, Default)]
pub struct InboundAliases {
    topics: HashMap<NonZeroU16, ByteString>,
    /// What they take.
    bytes: usize,
}

impl InboundAliases {
    /// The topic of a PUBLISH: its own, which the alias then stands for, or the one its alias stands for. Aliases go to `max`, and all
    /// of them take at most `max_bytes`.
    pub fn resolve(
        &mut self,
        topic: ByteString,
        alias: Option<NonZeroU16>,
        max: u16,
        max_bytes: usize,
    ) -> Result<ByteString, AliasError> {
        let Some(alias) = alias else { return Ok(topic) };
        // [MQTT-3.3.2-9]
        if alias.get() > max {
            return Err(AliasError::OutOfRange);
        }
        if topic.is_empty() {
            return self.topics.get(&alias).cloned().ok_or(AliasError::Unknown);
        }
        let before = self.topics.get(&alias).map_or(0, |known| known.len() + ENTRY);
        let bytes = self.bytes - before + topic.len() + ENTRY;
        if bytes > max_bytes {
            return Err(AliasError::TooManyBytes);
        }
        self.bytes = bytes;
        // A copy of its own: the alias must not keep the whole packet in memory.
        self.topics.insert(alias, ByteString::from(String::from(&*topic)));
        Ok(topic)
    }
}

/// How one PUBLISH to the client names its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TopicAs {
    #[default]
    Name,
    /// The name, and the alias that stands for it from then on.
    NameAndAlias(NonZeroU16),
    /// The alias alone.
    Alias(NonZeroU16),
}

impl TopicAs {
    pub fn alias(self) -> Option<NonZeroU16> {
        match self {
            TopicAs::Name => None,
            TopicAs::NameAndAlias(alias) | TopicAs::Alias(alias) => Some(alias),
        }
    }
}

/// Aliases that the broker has set towards the client: the topics sent last, at most as many as the client takes, [MQTT-3.1.2-26]
/// [MQTT-3.1.2-27] [MQTT-3.3.2-8] [MQTT-3.3.2-11]. Takes no memory until it is used.
#[derive(Debug, Default)]
pub struct OutboundAliases {
    /// Few, so that a scan is as fast as a table. Position `p` is alias `p + 1`.
    slots: Vec<Slot>,
    max: u16,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    topic: Box<str>,
    used: u64,
}

impl OutboundAliases {
    /// At most `max` aliases; 0 sets none.
    pub fn new(max: u16) -> OutboundAliases {
        OutboundAliases { slots: Vec::new(), max, clock: 0 }
    }

    pub fn is_off(&self) -> bool {
        self.max == 0
    }

    /// How to name `topic` in the next packet. What is proposed holds only once [`commit`](Self::commit) says that the packet goes out.
    pub fn propose(&self, topic: &str) -> TopicAs {
        if self.max == 0 || !(MIN_ALIASED_TOPIC_LEN..=MAX_ALIASED_TOPIC_LEN).contains(&topic.len()) {
            return TopicAs::Name;
        }
        if let Some(position) = self.slots.iter().position(|slot| *slot.topic == *topic) {
            return alias_at(position).map_or(TopicAs::Name, TopicAs::Alias);
        }
        let position = if self.slots.len() < usize::from(self.max) {
            self.slots.len()
        } else {
            let oldest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.used);
            oldest.map_or(0, |(position, _)| position)
        };
        alias_at(position).map_or(TopicAs::Name, TopicAs::NameAndAlias)
    }

    /// The packet with this topic goes out.
    pub fn commit(&mut self, topic: &str, proposed: TopicAs) {
        let Some(alias) = proposed.alias() else { return };
        self.clock += 1;
        let position = usize::from(alias.get()) - 1;
        match self.slots.get_mut(position) {
            Some(slot) => {
                slot.used = self.clock;
                if matches!(proposed, TopicAs::NameAndAlias(_)) {
                    slot.topic = topic.into();
                }
            }
            None => self.slots.push(Slot { topic: topic.into(), used: self.clock }),
        }
    }
}

fn alias_at(position: usize) -> Option<NonZeroU16> {
    u16::try_from(position + 1).ok().and_then(NonZeroU16::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(n: u16) -> Option<NonZeroU16> {
        NonZeroU16::new(n)
    }

    #[test]
    fn an_alias_stands_for_the_topic_last_sent_with_it() {
        let mut aliases = InboundAliases::default();
        assert_eq!(aliases.resolve("a".into(), alias(2), 5, 1000).unwrap(), "a");
        assert_eq!(aliases.resolve("".into(), alias(2), 5, 1000).unwrap(), "a");
        assert_eq!(aliases.resolve("b".into(), alias(2), 5, 1000).unwrap(), "b");
        assert_eq!(aliases.resolve("".into(), alias(2), 5, 1000).unwrap(), "b");
        assert_eq!(aliases.resolve("".into(), alias(1), 5, 1000), Err(AliasError::Unknown));
        assert_eq!(aliases.resolve("c".into(), alias(6), 5, 1000), Err(AliasError::OutOfRange));
    }

    #[test]
    fn the_aliases_of_a_client_take_a_bounded_number_of_bytes() {
        let mut aliases = InboundAliases::default();
        let limit = 2 * (ENTRY + 10);
        let topic = |len: usize| ByteString::from("x".repeat(len));
        for id in [65_535, 1] {
            assert!(aliases.resolve(topic(10), alias(id), u16::MAX, limit).is_ok());
        }
        assert_eq!(aliases.resolve(topic(1), alias(2), u16::MAX, limit), Err(AliasError::TooManyBytes));
        assert_eq!(aliases.resolve(topic(11), alias(1), u16::MAX, limit), Err(AliasError::TooManyBytes));
        // One that is set anew takes the place of what it was.
        assert!(aliases.resolve(topic(9), alias(1), u16::MAX, limit).is_ok());
        assert!(aliases.resolve(topic(11), alias(65_535), u16::MAX, limit).is_ok());
        assert_eq!(aliases.resolve(topic(0), alias(1), u16::MAX, limit), Ok(topic(9)));
    }

    fn send(aliases: &mut OutboundAliases, topic: &str) -> TopicAs {
        let proposed = aliases.propose(topic);
        aliases.commit(topic, proposed);
        proposed
    }

    #[test]
    fn the_topic_sent_longest_ago_gives_its_alias_up() {
        let mut aliases = OutboundAliases::new(2);
        let [one, two] = [1, 2].map(|n| NonZeroU16::new(n).unwrap());
        assert_eq!(send(&mut aliases, "topic/a"), TopicAs::NameAndAlias(one));
        assert_eq!(send(&mut aliases, "topic/b"), TopicAs::NameAndAlias(two));
        assert_eq!(send(&mut aliases, "topic/a"), TopicAs::Alias(one));
        assert_eq!(send(&mut aliases, "topic/c"), TopicAs::NameAndAlias(two));
        assert_eq!(send(&mut aliases, "topic/a"), TopicAs::Alias(one));
        assert_eq!(send(&mut aliases, "topic/b"), TopicAs::NameAndAlias(two));
    }

    #[test]
    fn an_alias_that_was_only_proposed_is_not_set() {
        let aliases = OutboundAliases::new(2);
        assert!(matches!(aliases.propose("topic/a"), TopicAs::NameAndAlias(_)));
        assert!(matches!(aliases.propose("topic/a"), TopicAs::NameAndAlias(_)));
    }

    #[test]
    fn no_alias_where_the_client_takes_none_or_nothing_is_gained() {
        assert_eq!(OutboundAliases::new(0).propose("topic/a"), TopicAs::Name);
        let aliases = OutboundAliases::new(5);
        assert_eq!(aliases.propose("abc"), TopicAs::Name);
        assert_eq!(aliases.propose(&"x".repeat(513)), TopicAs::Name);
    }
}
