//! Which member of a shared subscription gets a message, and who gets it instead when that member's session ends.

use super::durable::Changes;
use super::{Broker, Group, Member, Subscriber, SubscriberId};
use crate::config::SharedStrategy;
use crate::router::{Choice, Fit};
use crate::session::{Delivery, Push, ShareName};
use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

/// Groups for which one publisher remembers its member.
const MAX_STICKY: usize = 64;
/// Members tried whose session ended in between.
const MAX_ATTEMPTS: usize = 4;

/// What a strategy knows of a publisher.
#[derive(Debug)]
pub struct Publisher {
    pub(super) id: SubscriberId,
    client_hash: u64,
    random: u64,
    /// The members this publisher stays with; oldest first, used by one strategy alone.
    sticky: Vec<(Arc<ShareName>, Weak<Subscriber>)>,
}

impl Publisher {
    pub(super) fn new(id: SubscriberId, client_hash: u64) -> Publisher {
        Publisher { id, client_hash, random: client_hash ^ id, sticky: Vec::new() }
    }

    /// SplitMix64: even enough to spread load.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn fit(member: &Member) -> Fit {
    if member.subscriber.keeps_up() { Fit::Take } else { Fit::Reserve }
}

impl Broker {
    /// Picks a member for one message and hands it over with `hand`, which says whether that session had ended in between.
    pub(super) fn to_member(
        &self,
        group: &Group,
        publisher: &mut Publisher,
        topic: &str,
        mut hand: impl FnMut(&Member) -> Push,
    ) -> Option<Push> {
        let choice = match self.config.shared_subscription_strategy {
            SharedStrategy::RoundRobin => Choice::RoundRobin,
            // Every member is on this node.
            SharedStrategy::Random | SharedStrategy::Local => Choice::Random(publisher.next_random()),
            SharedStrategy::HashClientId => Choice::Hash(publisher.client_hash),
            SharedStrategy::HashTopic => Choice::Hash(self.hasher.hash_one(topic)),
            SharedStrategy::Sticky => {
                if let Some(push) = sticky_member(group, publisher).map(|member| hand(&member))
                    && push != Push::Ended
                {
                    return Some(push);
                }
                Choice::Random(publisher.next_random())
            }
        };
        for _ in 0..MAX_ATTEMPTS {
            let member = group.pick(choice, fit)?;
            let push = hand(&member);
            if push != Push::Ended {
                if self.config.shared_subscription_strategy == SharedStrategy::Sticky {
                    stick(group, publisher, &member.subscriber);
                }
                return Some(push);
            }
        }
        None
    }

    /// Gives a message of an ended session to another member of its group; `false` when there is none.
    pub(super) fn redispatch(&self, delivery: &Delivery, changes: &mut Changes<'_>) -> bool {
        let Some(share) = &delivery.share else { return false };
        for _ in 0..MAX_ATTEMPTS {
            let group = self.router.group(&share.filter, &share.group);
            let Some(member) = group.and_then(|group| group.pick(Choice::RoundRobin, fit)) else { return false };
            let again = Delivery {
                // [MQTT-4.8.2-3]
                qos: self.qos_of(member.options.qos, delivery.message.qos),
                retain: delivery.retain,
                subscription_ids: member.options.identifier.into_iter().collect(),
                share: Some(Arc::clone(share)),
                ..Delivery::new(member.options.qos, Arc::clone(&delivery.message))
            };
            // Nobody publishes here who could wait for a crowded subscriber.
            match self.hand_over(&member.subscriber, again, &mut None, changes) {
                Push::Ended => {}
                push => return matches!(push, Push::Queued | Push::Evicted { .. }),
            }
        }
        false
    }
}

/// The member this publisher is with, unless it left or lost its connection.
fn sticky_member(group: &Group, publisher: &Publisher) -> Option<Member> {
    let (_, known) = publisher.sticky.iter().find(|(name, _)| Arc::ptr_eq(name, group.name()))?;
    known.upgrade().and_then(|subscriber| group.member(&subscriber)).filter(|member| fit(member) == Fit::Take)
}

fn stick(group: &Group, publisher: &mut Publisher, member: &Arc<Subscriber>) {
    publisher.sticky.retain(|(name, _)| !Arc::ptr_eq(name, group.name()));
    if publisher.sticky.len() >= MAX_STICKY {
        publisher.sticky.remove(0);
    }
    publisher.sticky.push((Arc::clone(group.name()), Arc::downgrade(member)));
}
