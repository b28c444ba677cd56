//! Who may not connect: bans by client id, user name or address, each with an end or without one.
//!
//! In memory; [`Bans::all`] and [`Bans::add`] are what a durable store would write and read back.

use crate::session::Millis;
use bytestring::ByteString;
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whom a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    ClientId(ByteString),
    Username(ByteString),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// When it ends; `None` is never.
    pub until: Option<Millis>,
    /// For operators, never told to the peer.
    pub reason: String,
}

/// The table holds as many bans as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit on bans, banned.max_entries, is reached")]
pub struct TooManyBans;

#[derive(Debug)]
pub struct Bans {
    bans: RwLock<HashMap<Subject, Ban>>,
    /// Lets a look-up pass an empty table without its lock.
    count: AtomicUsize,
    limit: usize,
}

impl Bans {
    pub fn new(limit: usize) -> Bans {
        Bans { bans: RwLock::new(HashMap::new()), count: AtomicUsize::new(0), limit }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds or replaces a ban. When the table is full, ended bans make room first.
    pub fn add(&self, subject: Subject, ban: Ban, now: Millis) -> Result<(), TooManyBans> {
        let mut bans = self.bans.write();
        if bans.len() >= self.limit && !bans.contains_key(&subject) {
            bans.retain(|_, ban| ban.holds(now));
            if bans.len() >= self.limit {
                self.count.store(bans.len(), Ordering::Release);
                return Err(TooManyBans);
            }
        }
        bans.insert(subject, ban);
        self.count.store(bans.len(), Ordering::Release);
        Ok(())
    }

    /// Lifts a ban; `false` if there was none.
    pub fn remove(&self, subject: &Subject) -> bool {
        let mut bans = self.bans.write();
        let removed = bans.remove(subject).is_some();
        self.count.store(bans.len(), Ordering::Release);
        removed
    }

    /// Every ban that holds.
    pub fn all(&self, now: Millis) -> Vec<(Subject, Ban)> {
        let bans = self.bans.read();
        bans.iter().filter(|(_, ban)| ban.holds(now)).map(|(subject, ban)| (subject.clone(), ban.clone())).collect()
    }

    pub fn is_banned(&self, subject: &Subject, now: Millis) -> bool {
        !self.is_empty() && self.bans.read().get(subject).is_some_and(|ban| ban.holds(now))
    }

    /// Whether a client is banned in any way.
    pub fn forbid(&self, client_id: &ByteString, username: Option<&ByteString>, address: IpAddr, now: Millis) -> bool {
        !self.is_empty()
            && (self.is_banned(&Subject::ClientId(client_id.clone()), now)
                || username.is_some_and(|name| self.is_banned(&Subject::Username(name.clone()), now))
                || self.is_banned(&Subject::Address(address.to_canonical()), now))
    }

    /// Forgets bans that have ended.
    pub fn remove_ended(&self, now: Millis) {
        if self.is_empty() {
            return;
        }
        let mut bans = self.bans.write();
        bans.retain(|_, ban| ban.holds(now));
        self.count.store(bans.len(), Ordering::Release);
    }
}

impl Ban {
    fn holds(&self, now: Millis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(until: Option<Millis>) -> Ban {
        Ban { until, reason: "test".to_owned() }
    }

    fn client(id: &'static str) -> Subject {
        Subject::ClientId(ByteString::from_static(id))
    }

    #[test]
    fn a_ban_holds_until_its_end_or_until_it_is_lifted() {
        let bans = Bans::new(10);
        bans.add(client("a"), ban(Some(100)), 0).unwrap();
        bans.add(client("b"), ban(None), 0).unwrap();
        assert!(bans.is_banned(&client("a"), 99));
        assert!(!bans.is_banned(&client("a"), 100));
        assert!(bans.is_banned(&client("b"), u64::MAX));
        assert!(bans.remove(&client("b")));
        assert!(!bans.remove(&client("b")));
        bans.remove_ended(100);
        assert!(bans.is_empty());
    }

    #[test]
    fn any_of_the_three_is_enough_and_an_address_is_one_however_it_is_written() {
        let bans = Bans::new(10);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let plain: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let (id, user) = (ByteString::from_static("c"), ByteString::from_static("u"));
        bans.add(Subject::Address(plain), ban(None), 0).unwrap();
        assert!(bans.forbid(&id, None, mapped, 0));
        assert!(!bans.forbid(&id, Some(&user), other, 0));
        bans.add(Subject::Username(user.clone()), ban(None), 0).unwrap();
        assert!(bans.forbid(&id, Some(&user), other, 0));
        assert!(!bans.forbid(&id, None, other, 0));
    }

    #[test]
    fn a_full_table_lets_ended_bans_go_and_then_refuses() {
        let bans = Bans::new(2);
        bans.add(client("a"), ban(Some(10)), 0).unwrap();
        bans.add(client("b"), ban(None), 0).unwrap();
        assert_eq!(bans.add(client("c"), ban(None), 5), Err(TooManyBans));
        bans.add(client("b"), ban(Some(20)), 5).unwrap();
        bans.add(client("c"), ban(None), 10).unwrap();
        assert_eq!(bans.all(15).len(), 2);
    }
}
