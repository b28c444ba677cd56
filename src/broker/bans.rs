//! Who may not connect: bans by client id, user name or address, each with an end or without one.
//!
//! With a store each is a row of it, and holds after a restart; its end is a moment of the wall clock there.

use crate::session::Millis;
use crate::store::{BanRow, Health, Kept, Key, Row, Store};
use bytestring::ByteString;
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::error;

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
    kept: Kept,
}

impl Subject {
    /// The subject as the store names it.
    fn to_key(&self) -> Key {
        Key::Ban(match self {
            Subject::ClientId(id) => format!("client_id {id}").into(),
            Subject::Username(name) => format!("username {name}").into(),
            Subject::Address(address) => format!("address {address}").into(),
        })
    }

    fn from_key(key: &str) -> Option<Subject> {
        let (kind, name) = key.split_once(' ')?;
        match kind {
            "client_id" => Some(Subject::ClientId(name.into())),
            "username" => Some(Subject::Username(name.into())),
            "address" => name.parse().ok().map(Subject::Address),
            _ => None,
        }
    }
}

impl Bans {
    pub fn new(limit: usize, store: Option<Arc<Store>>) -> Bans {
        let kept = Kept::default();
        if let Some(store) = store {
            kept.keep_in(store);
        }
        Bans { bans: RwLock::default(), count: AtomicUsize::new(0), limit, kept }
    }

    /// Takes over what the store held. Those that have ended leave it when they are looked through next.
    pub fn recover(&self, stored: Vec<(ByteString, BanRow)>) {
        let mut bans = self.bans.write();
        let mut beyond = 0;
        for (key, BanRow { until, reason }) in stored {
            let Some(subject) = Subject::from_key(&key) else { continue };
            if bans.len() < self.limit {
                bans.insert(subject, Ban { until, reason: reason.to_string() });
            } else {
                beyond += 1;
            }
        }
        if beyond > 0 {
            // They stay in the store: a start with another limit brings them back.
            error!(
                beyond,
                limit = self.limit,
                "stored bans do not hold: there are more of them than banned.max_entries"
            );
        }
        self.count.store(bans.len(), Ordering::Release);
    }

    /// Writes a ban, or that there is none. To be called while `bans` is locked, so that rows change in the order of the bans.
    fn write(&self, subject: &Subject, ban: Option<&Ban>) {
        let row = ban.map(|Ban { until, reason }| BanRow { until: *until, reason: reason.as_str().into() });
        self.kept.write(subject.to_key(), row.map(Row::Ban));
    }

    /// Waits until every change is durable; `false` where nothing is stored.
    ///
    /// # Errors
    /// The store does not write.
    pub async fn durable(&self) -> Result<bool, Health> {
        self.kept.durable().await
    }

    fn drop_ended(&self, bans: &mut HashMap<Subject, Ban>, now: Millis) {
        bans.retain(|subject, ban| {
            let holds = ban.holds(now);
            if !holds {
                self.write(subject, None);
            }
            holds
        });
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
            self.drop_ended(&mut bans, now);
            if bans.len() >= self.limit {
                self.count.store(bans.len(), Ordering::Release);
                return Err(TooManyBans);
            }
        }
        self.write(&subject, Some(&ban));
        bans.insert(subject, ban);
        self.count.store(bans.len(), Ordering::Release);
        Ok(())
    }

    /// Lifts a ban; `false` if there was none.
    pub fn remove(&self, subject: &Subject) -> bool {
        let mut bans = self.bans.write();
        let removed = bans.remove(subject).is_some();
        if removed {
            self.write(subject, None);
        }
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

    /// By what a client is banned, if it is in any way.
    pub fn banned_by(
        &self,
        client_id: &ByteString,
        username: Option<&ByteString>,
        address: IpAddr,
        now: Millis,
    ) -> Option<&'static str> {
        let bans = self.bans.read();
        let is_banned = |subject| bans.get(&subject).is_some_and(|ban| ban.holds(now));
        if is_banned(Subject::ClientId(client_id.clone())) {
            return Some("client id");
        }
        if username.is_some_and(|name| is_banned(Subject::Username(name.clone()))) {
            return Some("user name");
        }
        is_banned(Subject::Address(address.to_canonical())).then_some("address")
    }

    /// Forgets bans that have ended.
    pub fn remove_ended(&self, now: Millis) {
        if self.is_empty() {
            return;
        }
        let mut bans = self.bans.write();
        self.drop_ended(&mut bans, now);
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
        let bans = Bans::new(10, None);
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
        let bans = Bans::new(10, None);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let plain: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let (id, user) = (ByteString::from_static("c"), ByteString::from_static("u"));
        bans.add(Subject::Address(plain), ban(None), 0).unwrap();
        assert_eq!(bans.banned_by(&id, None, mapped, 0), Some("address"));
        assert_eq!(bans.banned_by(&id, Some(&user), other, 0), None);
        bans.add(Subject::Username(user.clone()), ban(None), 0).unwrap();
        assert_eq!(bans.banned_by(&id, Some(&user), other, 0), Some("user name"));
        assert_eq!(bans.banned_by(&id, None, other, 0), None);
    }

    #[test]
    fn a_subject_is_read_from_its_key_as_it_was_written() {
        for subject in [
            client("with space"),
            client(""),
            Subject::Username("client_id x".into()),
            Subject::Address("2001:db8::1".parse().unwrap()),
        ] {
            let Key::Ban(key) = subject.to_key() else { panic!("not a ban") };
            assert_eq!(Subject::from_key(&key), Some(subject));
        }
    }

    #[test]
    fn a_full_table_lets_ended_bans_go_and_then_refuses() {
        let bans = Bans::new(2, None);
        bans.add(client("a"), ban(Some(10)), 0).unwrap();
        bans.add(client("b"), ban(None), 0).unwrap();
        assert_eq!(bans.add(client("c"), ban(None), 5), Err(TooManyBans));
        bans.add(client("b"), ban(Some(20)), 5).unwrap();
        bans.add(client("c"), ban(None), 10).unwrap();
        assert_eq!(bans.all(15).len(), 2);
    }
}
