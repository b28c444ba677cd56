//! Users in the embedded store: all of them are known in memory, every change is a row.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::password_file::{UserNameError, check_username};
use super::password_hash::{HashError, PasswordHash};
use super::passwords::Accounts;
use super::shards::Shards;
use crate::store::{Kept, Key, Row, UserRow, Writing};

/// Why a user is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserRefused {
    #[error(transparent)]
    Name(#[from] UserNameError),
    #[error("there is a user `{0}` already")]
    Exists(String),
    #[error("the limit on users, auth.store.max_users, is reached")]
    Full,
}

/// Why what a store holds cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredUserError {
    #[error("user `{0}`: {1}")]
    Hash(String, HashError),
    #[error("there are more users than auth.store.max_users, {0}; raise it")]
    TooMany(usize),
}

/// What is kept of a password, ready to be stored and held.
struct Written {
    row: Row,
    hash: Arc<PasswordHash>,
}

impl Written {
    fn new(hash: PasswordHash) -> Written {
        Written { row: Row::User(UserRow(hash.to_string().into())), hash: Arc::new(hash) }
    }
}

/// The users.
#[derive(Debug)]
pub struct StoredUsers {
    users: Shards<Arc<PasswordHash>>,
    count: AtomicUsize,
    limit: usize,
    kept: Kept,
    /// Held while users change, so that rows change in the order of what they say.
    tally: Mutex<Tally>,
    /// Of the tally, for whoever only reads.
    extremes: RwLock<Extremes>,
}

#[derive(Debug, Clone, Default)]
struct Extremes {
    slowest: Option<Arc<PasswordHash>>,
    scram_iterations: Option<u32>,
}

/// How many users there are for each amount of work, and one of their hashes; and for each number of iterations of SCRAM.
#[derive(Debug, Default)]
struct Tally {
    work: BTreeMap<u32, (usize, Arc<PasswordHash>)>,
    scram: BTreeMap<u32, usize>,
}

impl Tally {
    fn add(&mut self, hash: &Arc<PasswordHash>) {
        self.work.entry(hash.work()).or_insert_with(|| (0, Arc::clone(hash))).0 += 1;
        if let Some(credentials) = hash.as_scram() {
            *self.scram.entry(credentials.iterations()).or_default() += 1;
        }
    }

    fn remove(&mut self, hash: &PasswordHash) {
        if let Entry::Occupied(mut held) = self.work.entry(hash.work()) {
            held.get_mut().0 -= 1;
            if held.get().0 == 0 {
                held.remove();
            }
        }
        if let Some(Entry::Occupied(mut held)) = hash.as_scram().map(|one| self.scram.entry(one.iterations())) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    fn extremes(&self) -> Extremes {
        Extremes {
            slowest: self.work.last_key_value().map(|(_, (_, hash))| Arc::clone(hash)),
            scram_iterations: self.scram.last_key_value().map(|(iterations, _)| *iterations),
        }
    }
}

impl StoredUsers {
    /// None yet, and no more than `limit`.
    pub fn new(limit: usize) -> StoredUsers {
        StoredUsers {
            users: Shards::default(),
            count: AtomicUsize::new(0),
            limit,
            kept: Kept::default(),
            tally: Mutex::default(),
            extremes: RwLock::default(),
        }
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Takes over what the store held.
    ///
    /// # Errors
    /// A hash is none that this version knows, or there are too many: whoever is left out would not get in.
    pub fn recover(&self, rows: Vec<(bytestring::ByteString, UserRow)>) -> Result<(), StoredUserError> {
        if rows.len() > self.limit {
            return Err(StoredUserError::TooMany(self.limit));
        }
        let mut tally = self.tally.lock();
        for (name, UserRow(text)) in rows {
            let hash: PasswordHash = text.parse().map_err(|error| StoredUserError::Hash(name.to_string(), error))?;
            self.hold(&mut tally, &name, Some(Arc::new(hash)));
        }
        self.publish(&tally);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// User names that come after `after`, in their order.
    pub fn names_after(&self, after: &str) -> Vec<Box<str>> {
        self.users.names_after(after)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// There is one of that name, or no room.
    pub fn add(&self, name: &str, hash: PasswordHash) -> Result<(), UserRefused> {
        self.import([(name.to_owned(), hash)], false)
    }

    /// Adds all of these users or none, in one transaction of the store. With `replace` those that are there get the new password.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn import(
        &self,
        users: impl IntoIterator<Item = (String, PasswordHash)>,
        replace: bool,
    ) -> Result<(), UserRefused> {
        // Before the store is held, which all that write wait for meanwhile.
        let mut ready = Vec::new();
        for (name, hash) in users {
            check_username(&name)?;
            ready.push((name, Written::new(hash)));
        }
        let mut writing = self.kept.begin();
        let mut tally = self.tally.lock();
        let mut new = 0usize;
        for (name, _) in &ready {
            match self.users.get(name) {
                Some(_) if !replace => return Err(UserRefused::Exists(name.clone())),
                Some(_) => {}
                None => new += 1,
            }
        }
        if self.len().saturating_add(new) > self.limit {
            return Err(UserRefused::Full);
        }
        for (name, hash) in ready {
            self.set(&mut writing, &mut tally, &name, Some(hash));
        }
        self.publish(&tally);
        Ok(())
    }

    /// Gives a user another password; `false` if there is no such user.
    pub fn change(&self, name: &str, hash: PasswordHash) -> bool {
        self.change_one(name, Some(Written::new(hash)))
    }

    /// Removes a user; `false` if there is no such user.
    pub fn remove(&self, name: &str) -> bool {
        self.change_one(name, None)
    }

    fn change_one(&self, name: &str, hash: Option<Written>) -> bool {
        let mut writing = self.kept.begin();
        let mut tally = self.tally.lock();
        let there = self.users.get(name).is_some();
        if there {
            self.set(&mut writing, &mut tally, name, hash);
            self.publish(&tally);
        }
        there
    }

    fn set(&self, writing: &mut Writing<'_>, tally: &mut Tally, name: &str, hash: Option<Written>) {
        let (row, hash) = hash.map(|Written { row, hash }| (row, hash)).unzip();
        writing.write(Key::User(name.into()), row);
        self.hold(tally, name, hash);
    }

    /// Holds a user's hash, or nothing for one that is gone.
    fn hold(&self, tally: &mut Tally, name: &str, hash: Option<Arc<PasswordHash>>) {
        let before = match hash {
            Some(hash) => {
                tally.add(&hash);
                self.count.fetch_add(1, Ordering::Relaxed);
                self.users.insert(name, hash)
            }
            None => self.users.remove(name),
        };
        if let Some(before) = before {
            tally.remove(&before);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn publish(&self, tally: &Tally) {
        *self.extremes.write() = tally.extremes();
    }
}

impl Accounts for StoredUsers {
    fn hash(&self, username: &str) -> Option<Arc<PasswordHash>> {
        self.users.get(username)
    }

    fn slowest(&self) -> Option<Arc<PasswordHash>> {
        self.extremes.read().slowest.clone()
    }

    fn scram_iterations(&self) -> Option<u32> {
        self.extremes.read().scram_iterations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(iterations: u32) -> PasswordHash {
        PasswordHash::derive(b"p", b"0123456789abcdef".to_vec(), iterations).unwrap()
    }

    fn slowest(users: &StoredUsers) -> Option<u32> {
        users.slowest().map(|hash| hash.work())
    }

    #[test]
    fn the_slowest_check_is_that_of_the_users_that_are_there() {
        let users = StoredUsers::new(10);
        assert_eq!(slowest(&users), None);
        users.add("a", hash(1_000)).unwrap();
        users.add("b", hash(3_000)).unwrap();
        users.add("c", hash(3_000)).unwrap();
        assert!(users.remove("b"));
        assert_eq!(slowest(&users), Some(3_000));
        assert!(users.change("c", hash(2_000)));
        assert_eq!(slowest(&users), Some(2_000));
        assert!(users.remove("c") && !users.remove("c"));
        assert_eq!(slowest(&users), Some(1_000));
        assert_eq!(users.scram_iterations(), None);
        users.add("s", PasswordHash::scram(b"p").unwrap()).unwrap();
        assert!(users.scram_iterations().is_some());
        assert!(users.remove("s"));
        assert_eq!((users.scram_iterations(), users.len()), (None, 1));
    }

    #[test]
    fn all_users_of_an_import_are_taken_or_none() {
        let users = StoredUsers::new(3);
        users.add("b", hash(1_000)).unwrap();
        let list = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), hash(1_000))).collect::<Vec<_>>();
        assert_eq!(users.import(list(&["a", "b"]), false), Err(UserRefused::Exists("b".to_owned())));
        assert_eq!(users.import(list(&["a", "b", "c", "d"]), true), Err(UserRefused::Full));
        assert_eq!(users.import(list(&["a", "x:y"]), true), Err(UserRefused::Name(UserNameError)));
        assert_eq!(users.len(), 1);
        users.import(list(&["c", "b", "a"]), true).unwrap();
        assert_eq!(users.names_after(""), [Box::from("a"), "b".into(), "c".into()]);
        assert_eq!(users.names_after("a"), [Box::from("b"), "c".into()]);
        assert_eq!(users.add("d", hash(1_000)), Err(UserRefused::Full));
        assert!(users.change("a", hash(2_000)), "a full table takes new passwords");
    }

    #[test]
    fn stored_users_that_cannot_all_be_served_are_a_mistake() {
        let row = |name: &str, text: &str| (name.into(), UserRow(text.into()));
        let good = hash(1_000).to_string();
        let users = StoredUsers::new(1);
        assert_eq!(users.recover(vec![row("a", &good), row("b", &good)]), Err(StoredUserError::TooMany(1)));
        let error = users.recover(vec![row("a", "$argon2id$x")]).unwrap_err().to_string();
        assert!(error.starts_with("user `a`: not a hash"), "{error}");
        users.recover(vec![row("a", &good)]).unwrap();
        assert!(users.hash("a").is_some_and(|hash| hash.verify(b"p")));
    }
}
