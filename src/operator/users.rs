//! Users and rules in the store: each change is answered when it is durable there.

use super::fitting::{MAX_PART, first_few, fitting};
use super::{Operator, kept};
use crate::auth::{PasswordHash, RuleRefused, RulesFor, UserRefused, Users, WrittenRule};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tracing::info;

/// A part of the list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    pub users: Vec<String>,
    /// There are more, after the last of these.
    pub more: bool,
}

/// The rules for one client identifier, one user name or everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    pub subject: RulesFor,
    pub rules: Vec<WrittenRule>,
}

/// A part of the lists of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesList {
    pub lists: Vec<RulesReport>,
    /// There are more, after the last of these.
    pub more: bool,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChange {
    /// Users or rules that were changed.
    pub changed: usize,
    /// Whether the store keeps it over a restart.
    pub stored: bool,
    /// Whether the configuration in force asks for users, or rules, of the store.
    pub asked: bool,
}

impl Operator {
    /// User names after one of them, or from the first, as many as an answer has room for.
    pub fn users(&self, after: Option<&str>) -> UserList {
        let names = self.auth.stored_users().names_after(after.unwrap_or_default());
        let (users, more) = fitting(names.into_iter().map(String::from), MAX_PART);
        UserList { users, more }
    }

    /// Adds a user.
    ///
    /// # Errors
    /// It is not taken, or the store does not write it; in the latter case it holds until the broker stops.
    pub async fn add_user(&self, name: &str, hash: &str) -> Result<StoredChange, String> {
        self.taken(self.auth.stored_users().add(name, parsed(hash)?))?;
        info!(username = name, "an operator added a user");
        self.durable(1, self.auth.asks_stored_users()).await
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// There is no such user, or the store does not write it; in the latter case it holds until the broker stops.
    pub async fn change_user(&self, name: &str, hash: &str, disconnect: bool) -> Result<StoredChange, String> {
        if !self.auth.stored_users().change(name, parsed(hash)?) {
            return Err(unknown(name));
        }
        info!(username = name, disconnect, "an operator changed the password of a user");
        self.disconnect(name, disconnect);
        self.durable(1, self.auth.asks_stored_users()).await
    }

    /// Removes a user.
    ///
    /// # Errors
    /// There is no such user, or the store does not write it; in the latter case the user is gone until the broker stops.
    pub async fn remove_user(&self, name: &str, disconnect: bool) -> Result<StoredChange, String> {
        if !self.auth.stored_users().remove(name) {
            return Err(unknown(name));
        }
        info!(username = name, disconnect, "an operator removed a user");
        self.disconnect(name, disconnect);
        self.durable(1, self.auth.asks_stored_users()).await
    }

    /// Adds all users of a password file, in place of those that are there if `replace` says so, or none.
    ///
    /// # Errors
    /// The file is not read, not all users are taken, or the store does not write them.
    pub async fn import_users(&self, file: &Path, replace: bool) -> Result<StoredChange, String> {
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || Users::load(&path)).await.map_err(|cause| cause.to_string())?;
        let users: Vec<_> = read.map_err(|cause| crate::causes::Causes(&cause).to_string())?.into_all().collect();
        let count = users.len();
        self.taken(self.auth.stored_users().import(users, replace))?;
        info!(file = %file.display(), count, "an operator added the users of a password file");
        self.durable(count, self.auth.asks_stored_users()).await
    }

    /// Lists of rules after one of them, or from the first, as many as an answer has room for; or the one for `of`.
    pub fn rules(&self, of: Option<&RulesFor>, after: Option<&RulesFor>) -> RulesList {
        let rules = self.auth.stored_rules();
        let subjects = of.map_or_else(|| rules.subjects_after(after), |of| vec![of.clone()]);
        let lists = subjects.into_iter().filter_map(|subject| {
            let list = rules.list(&subject)?;
            Some(RulesReport { subject, rules: list.written().to_vec() })
        });
        // The longest list of rules takes a part of the room, so that there is always progress.
        let (lists, more) = fitting(lists, MAX_PART);
        RulesList { lists, more }
    }

    /// Adds rules before the one at a place, or at the end of the list.
    ///
    /// # Errors
    /// They are not taken, or the store does not write them; in the latter case they hold until the broker stops.
    pub async fn add_rules(
        &self,
        subject: &RulesFor,
        place: Option<usize>,
        rules: Vec<WrittenRule>,
    ) -> Result<StoredChange, String> {
        let (count, written) = (rules.len(), first_few(&rules));
        let added = self.auth.add_rules(subject, place, rules);
        if added == Err(RuleRefused::Full) {
            self.metrics.limit_hit("auth.store.max_rules");
        }
        added.map_err(|refused| refused.to_string())?;
        let place = place.map_or("at the end".to_owned(), |place| format!("at place {place}"));
        info!(%subject, rules = %written, %place, count, "an operator added rules for topics");
        self.durable(count, self.auth.asks_stored_rules()).await
    }

    /// Takes the rule at a place away, or all of the list.
    ///
    /// # Errors
    /// There is none, or the store does not write it; in the latter case it is gone until the broker stops.
    pub async fn remove_rules(&self, subject: &RulesFor, place: Option<usize>) -> Result<StoredChange, String> {
        let removed = self.auth.remove_rules(subject, place).map_err(|refused| refused.to_string())?;
        if !removed.is_empty() {
            let place = place.map_or("all of the list".to_owned(), |place| format!("at place {place}"));
            let (rules, count) = (first_few(&removed), removed.len());
            info!(%subject, %rules, %place, count, "an operator removed rules for topics");
        }
        self.durable(removed.len(), self.auth.asks_stored_rules()).await
    }

    fn disconnect(&self, name: &str, disconnect: bool) {
        if disconnect {
            self.broker.disconnect_user(name);
        }
    }

    fn taken(&self, taken: Result<(), UserRefused>) -> Result<(), String> {
        taken.map_err(|refused| {
            if refused == UserRefused::Full {
                self.metrics.limit_hit("auth.store.max_users");
            }
            refused.to_string()
        })
    }

    async fn durable(&self, changed: usize, asked: bool) -> Result<StoredChange, String> {
        let stored = kept(self.auth.durable().await, "the change holds now, but may be gone after a restart")?;
        Ok(StoredChange { changed, stored, asked })
    }
}

fn unknown(name: &str) -> String {
    format!("there is no user {name:?} in the store")
}

/// The client of `shangmq ctl` hashes, so that no password passes the socket.
fn parsed(hash: &str) -> Result<PasswordHash, String> {
    hash.parse().map_err(|cause| format!("{cause}"))
}
