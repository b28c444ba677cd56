//! Clients that show a user name and a password: where users are kept is asked in order, and the first that knows the user has the word.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::checks::Checks;
use super::password_hash::PasswordHash;
use super::{Accepted, AuthRequest, Authenticator, Verdict, VerdictFuture};

/// Where users are kept.
pub trait Accounts: fmt::Debug + Send + Sync {
    /// What is kept of a user's password.
    fn hash(&self, username: &str) -> Option<Arc<PasswordHash>>;

    /// The hash of which a check takes longest.
    fn slowest(&self) -> Option<Arc<PasswordHash>>;

    /// The most iterations of those with credentials for SCRAM; `None` when nobody has them.
    fn scram_iterations(&self) -> Option<u32>;
}

/// The places where users are kept, in their order.
pub type Sources = Arc<[Arc<dyn Accounts>]>;

/// What the first place that knows the user keeps.
pub(super) fn find(sources: &Sources, username: &str) -> Option<Arc<PasswordHash>> {
    sources.iter().find_map(|accounts| accounts.hash(username))
}

/// The authenticator.
#[derive(Debug)]
pub struct Passwords {
    sources: Sources,
    checks: Arc<Checks>,
}

impl Passwords {
    /// Judges by these users; `checks` says whose turn it is.
    pub fn new(sources: Sources, checks: Arc<Checks>) -> Passwords {
        Passwords { sources, checks }
    }

    async fn check(&self, username: &str, password: &[u8], remote: IpAddr) -> Verdict {
        let permit = match self.checks.turn(remote).await {
            Ok(permit) => permit,
            Err(verdict) => return verdict,
        };
        let known = find(&self.sources, username);
        // It is checked for users that are nowhere, and the check of every wrong password takes as long, so that time does not tell who is
        // there.
        let slowest = self.sources.iter().filter_map(|accounts| accounts.slowest()).max_by_key(|hash| hash.work());
        let checked = known.clone();
        let password = Zeroizing::new(password.to_vec());
        // The permit moves along: a client that gives up does not make room before its check has ended.
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let most = slowest.as_ref().map_or(0, |hash| hash.work());
            match (checked, slowest) {
                (Some(hash), _) => {
                    let matches = hash.verify(&password);
                    if !matches {
                        PasswordHash::spend(most.saturating_sub(hash.work()), &password);
                    }
                    matches
                }
                (None, Some(slowest)) => {
                    // Whether it matches is of no concern: the user is not there.
                    std::hint::black_box(slowest.verify(&password));
                    false
                }
                (None, None) => false,
            }
        });
        match check.await {
            Ok(true) if self.still_holds(username, known) => {
                Verdict::Accept(Accepted { username: Some(username.into()), ..Accepted::default() })
            }
            Ok(_) => Verdict::Reject,
            Err(_) => Verdict::Unavailable,
        }
    }

    /// Whether what the password was checked by is in force: the user may have been removed while it was computed.
    fn still_holds(&self, username: &str, checked: Option<Arc<PasswordHash>>) -> bool {
        let (Some(now), Some(checked)) = (find(&self.sources, username), checked) else { return false };
        Arc::ptr_eq(&now, &checked)
    }
}

impl Authenticator for Passwords {
    fn verify<'a>(&'a self, request: &'a AuthRequest<'a>) -> VerdictFuture<'a> {
        let remote = request.remote.ip();
        Box::pin(async move {
            match (request.username, request.password) {
                (None, None) => Verdict::Ignore,
                (Some(username), Some(password)) => self.check(username, password, remote).await,
                // Half of a pair is a failed attempt, and costs as much as one.
                (username, password) => {
                    match self.check(username.unwrap_or(""), password.unwrap_or(b""), remote).await {
                        Verdict::Accept(_) => Verdict::Reject,
                        other => other,
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::auth::password_file::Users;
    use crate::auth::{Peer, StoredUsers};
    use crate::config::AuthConfig;

    const FAST: &str = "$sha256$prefix$a4d3b1$18188662042c6f4416438fbb414c99a3f074f11f56dbd54a0ba16554452c016f";

    fn one_check() -> Arc<Checks> {
        Arc::new(Checks::new(&AuthConfig { max_concurrent_checks: 1, ..AuthConfig::default() }))
    }

    fn accepted(username: &str) -> Verdict {
        Verdict::Accept(Accepted { username: Some(username.into()), ..Accepted::default() })
    }

    fn cheap(password: &str) -> PasswordHash {
        PasswordHash::derive(password.as_bytes(), b"0123456789abcdef".to_vec(), 1_000).unwrap()
    }

    fn judge(text: &str) -> Passwords {
        Passwords::new(Arc::new([Arc::new(Users::parse_for_tests(text)) as Arc<dyn Accounts>]), one_check())
    }

    fn judge_both(text: &str) -> (Passwords, Arc<StoredUsers>) {
        let stored = Arc::new(StoredUsers::new(10));
        let file = Arc::new(Users::parse_for_tests(text));
        let sources: Sources = Arc::new([file as Arc<dyn Accounts>, Arc::clone(&stored) as Arc<dyn Accounts>]);
        (Passwords::new(sources, one_check()), stored)
    }

    async fn verdict(users: &Passwords, username: Option<&str>, password: Option<&str>) -> Verdict {
        let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
        let password = password.map(str::as_bytes);
        users.verify(&AuthRequest { client_id: "c", username, password, peer: &Peer::default(), remote }).await
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_accepted() {
        let users = judge(&format!("# users\n\nada:{}\r\nbob:{}\n", cheap("a"), cheap("b")));
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, accepted("ada"));
        assert_eq!(verdict(&users, Some("bob"), Some("b")).await, accepted("bob"));
        for (username, password) in [
            (Some("ada"), Some("b")),
            (Some("eve"), Some("a")),
            (Some("ada"), None),
            (None, Some("a")),
            (Some(""), Some("")),
        ] {
            assert_eq!(verdict(&users, username, password).await, Verdict::Reject, "{username:?} {password:?}");
        }
        assert_eq!(verdict(&users, None, None).await, Verdict::Ignore);
    }

    #[tokio::test]
    async fn a_user_that_the_file_does_not_know_is_looked_for_in_the_store_and_one_it_knows_is_not() {
        let (users, stored) = judge_both(&format!("ada:{}\n", cheap("a")));
        stored.add("ada", cheap("other")).unwrap();
        stored.add("bob", cheap("b")).unwrap();
        assert_eq!(verdict(&users, Some("bob"), Some("b")).await, accepted("bob"));
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, accepted("ada"));
        assert_eq!(verdict(&users, Some("ada"), Some("other")).await, Verdict::Reject);
        assert_eq!(verdict(&users, Some("eve"), Some("b")).await, Verdict::Reject);
        assert!(stored.remove("bob"));
        assert_eq!(verdict(&users, Some("bob"), Some("b")).await, Verdict::Reject);
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_that_is_removed_or_changed_while_its_password_is_checked_is_refused() {
        let slow = PasswordHash::derive(b"s", b"0123456789abcdef".to_vec(), 200_000).unwrap();
        for remove in [true, false] {
            let (users, stored) = judge_both("");
            stored.add("ada", slow.clone()).unwrap();
            let mut check = std::pin::pin!(verdict(&users, Some("ada"), Some("s")));
            // Begun: the thread computes for tens of milliseconds at least.
            assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(check.as_mut().poll(cx).is_pending())).await);
            if remove {
                assert!(stored.remove("ada"));
            } else {
                assert!(stored.change("ada", cheap("new")));
            }
            assert_eq!(check.await, Verdict::Reject);
        }
    }

    /// Kinds that are fast to check must not show by their answer that the user is there, nor in which of two places.
    #[tokio::test]
    async fn a_wrong_password_takes_as_long_for_every_user_and_for_none() {
        let slow = PasswordHash::derive(b"x", b"0123456789abcdef".to_vec(), 300_000).unwrap();
        let (users, stored) = judge_both(&format!("fast:{FAST}\n"));
        stored.add("slow", slow).unwrap();
        let mut seconds = Vec::new();
        for user in ["fast", "slow", "nobody"] {
            let begin = std::time::Instant::now();
            assert_eq!(verdict(&users, Some(user), Some("wrong")).await, Verdict::Reject);
            seconds.push(begin.elapsed().as_secs_f64());
        }
        // On a busy machine the three differ, but not as 1 iteration does from 300,000.
        let shortest = seconds.iter().copied().fold(f64::MAX, f64::min);
        assert!(shortest * 20.0 > seconds[1], "{seconds:?}");
        let begin = std::time::Instant::now();
        assert_eq!(verdict(&users, Some("fast"), Some("correct horse")).await, accepted("fast"));
        assert!(begin.elapsed().as_secs_f64() < seconds[1], "the right password need not wait");
    }

    #[tokio::test]
    async fn an_empty_file_accepts_nobody() {
        assert_eq!(verdict(&judge(""), Some("ada"), Some("a")).await, Verdict::Reject);
    }

    #[tokio::test]
    async fn a_check_refuses_when_no_check_can_be_made() {
        let users = judge(&format!("ada:{}\n", cheap("a")));
        users.checks.close();
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, Verdict::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_waits_while_too_many_are_computed() {
        let users = judge(&format!("ada:{}\n", cheap("a")));
        let busy = users.checks.turn(IpAddr::from([192, 0, 2, 9])).await.unwrap();
        let waiting = verdict(&users, Some("ada"), Some("a"));
        assert!(tokio::time::timeout(std::time::Duration::from_secs(3600), waiting).await.is_err());
        drop(busy);
        assert_eq!(verdict(&users, Some("ada"), Some("a")).await, accepted("ada"));
        assert_eq!(users.checks.idle(), 1);
    }
}
