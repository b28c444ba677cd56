//! Who may have a password checked now: checks cost a tenth of a second of a core, and clients ask for them before they are anybody.
//!
//! So many are computed at once, so many wait, each address has a share of the places, and one that fails too often has to pause.

use super::Verdict;
use crate::config::AuthConfig;
use crate::per_address::{Place, Places, Rates};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds that all authenticators share which compute something expensive.
#[derive(Debug)]
pub struct Checks {
    running: Arc<Semaphore>,
    /// Of those that run and those that wait.
    places: Arc<Semaphore>,
    by_address: Arc<Places>,
    failures: Rates,
}

/// A check that is being made. It is to move to where the computing is: a client that gives up makes no room before that ends.
#[derive(Debug)]
pub struct Permit {
    _running: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
    _of_address: Place,
}

impl Checks {
    pub fn new(config: &AuthConfig) -> Checks {
        let AuthConfig { max_concurrent_checks, max_waiting_checks, max_waiting_checks_per_address, .. } = *config;
        Checks {
            running: Arc::new(Semaphore::new(max_concurrent_checks)),
            places: Arc::new(Semaphore::new(max_concurrent_checks.saturating_add(max_waiting_checks))),
            by_address: Arc::new(Places::new(max_concurrent_checks.saturating_add(max_waiting_checks_per_address))),
            failures: Rates::new(config.max_failures_per_minute, Duration::from_secs(60)),
        }
    }

    /// Waits for a turn. Dropping the future gives up the place.
    ///
    /// # Errors
    /// The verdict when there is no place to wait in: [`Verdict::Busy`] with the limit that says so.
    pub async fn turn(&self, address: IpAddr) -> Result<Permit, Verdict> {
        self.may_try(address).map_err(Verdict::Busy)?;
        let of_address = self.by_address.take(address).ok_or(Verdict::Busy("auth.max_waiting_checks_per_address"))?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Verdict::Busy("auth.max_waiting_checks"))?;
        // Fair: who waits longest is next. Only a closed semaphore fails.
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Verdict::Unavailable)?;
        Ok(Permit { _running: running, _place: place, _of_address: of_address })
    }

    /// Whether the address has not shown too many wrong credentials.
    ///
    /// # Errors
    /// The limit that it has reached.
    pub fn may_try(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.failures.has_room(address) { Ok(()) } else { Err("auth.max_failures_per_minute") }
    }

    /// Notes that the address showed credentials that were wrong.
    pub fn failed(&self, address: IpAddr) {
        // Over its rate already, by checks that ran at the same time: there is nothing to add.
        let _ = self.failures.take(address);
    }

    /// No further check can be made.
    #[cfg(test)]
    pub fn close(&self) {
        self.running.close();
    }

    #[cfg(test)]
    pub fn idle(&self) -> usize {
        self.running.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [[u8; 4]; 3] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]];

    fn checks(max_waiting_checks: usize, max_waiting_checks_per_address: usize) -> Arc<Checks> {
        let bounds = AuthConfig { max_concurrent_checks: 1, max_failures_per_minute: 2, ..AuthConfig::default() };
        Arc::new(Checks::new(&AuthConfig { max_waiting_checks, max_waiting_checks_per_address, ..bounds }))
    }

    fn wait(checks: &Arc<Checks>, address: [u8; 4]) -> tokio::task::JoinHandle<Result<Permit, Verdict>> {
        let checks = Arc::clone(checks);
        tokio::spawn(async move { checks.turn(address.into()).await })
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // 300 CONNECTs with any user name once kept the owner of a right password waiting for a minute: the queue had no end.
    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_to_wait_is_told_at_once() {
        let [a, b, c] = ADDRESSES;
        let checks = checks(2, 1);
        let running = wait(&checks, a).await.unwrap().unwrap();
        let first = wait(&checks, a);
        settle().await;
        assert_eq!(wait(&checks, a).await.unwrap().unwrap_err(), Verdict::Busy("auth.max_waiting_checks_per_address"));
        let second = wait(&checks, b);
        settle().await;
        assert_eq!(wait(&checks, c).await.unwrap().unwrap_err(), Verdict::Busy("auth.max_waiting_checks"));
        // Who gives up leaves its place.
        first.abort();
        settle().await;
        let third = wait(&checks, c);
        settle().await;
        drop(running);
        drop(second.await.unwrap().unwrap());
        drop(third.await.unwrap().unwrap());
        assert_eq!(checks.idle(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_too_often_has_to_pause_and_no_other() {
        let [a, b, _] = ADDRESSES;
        let checks = checks(8, 8);
        for _ in 0..2 {
            drop(wait(&checks, a).await.unwrap().unwrap());
            checks.failed(a.into());
        }
        assert_eq!(wait(&checks, a).await.unwrap().unwrap_err(), Verdict::Busy("auth.max_failures_per_minute"));
        drop(wait(&checks, b).await.unwrap().unwrap());
        tokio::time::advance(Duration::from_secs(30)).await;
        drop(wait(&checks, a).await.unwrap().unwrap());
    }
}
