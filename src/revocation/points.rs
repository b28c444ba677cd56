//! Revocation lists from distribution points: fetched when a client's certificate first names one, then ahead of their end. All clients
//! that need a list wait for one fetch, each no longer than it may; after a failure nobody waits until the next attempt.

use std::sync::Arc;

use gm_tls::revocation::{Crl, Fingerprint, read_lists};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::fetch::{Fetcher, Question};
use super::held::{Held, Issuer};
use super::report::{ListReport, SourceKind};
use super::schedule;
use crate::calendar::rfc3339;
use crate::causes::Causes;
use crate::config::RevocationConfig;
use crate::dev_certs::now;
use crate::metrics::{self, RevocationCounters};

/// Lists that no client needed for this long are given up, in seconds.
const UNUSED: i64 = 24 * 3600;

/// The address of a list and who must have signed it. One address under two issuers is two lists, so that a certificate of one authority
/// that names the list of another spoils nothing.
type Key = (Arc<str>, Fingerprint);

#[derive(Debug)]
pub(super) struct Points {
    config: RevocationConfig,
    fetcher: Arc<Fetcher>,
    counters: Arc<RevocationCounters>,
    points: Mutex<HashMap<Key, Arc<Point>>>,
    /// Told about each new list.
    renewed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Point {
    url: Arc<str>,
    issuer: Issuer,
    state: Mutex<State>,
    /// Changes when a fetch is over.
    over: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    fetched_at: Option<i64>,
    /// When it is fetched again.
    due: i64,
    failures: u32,
    error: Option<Arc<str>>,
    fetching: bool,
    used_at: i64,
}

impl Points {
    pub(super) fn new(
        config: &RevocationConfig,
        fetcher: &Arc<Fetcher>,
        counters: &Arc<RevocationCounters>,
    ) -> Arc<Points> {
        Arc::new(Points {
            config: config.clone(),
            fetcher: Arc::clone(fetcher),
            counters: Arc::clone(counters),
            points: Mutex::default(),
            renewed: watch::Sender::new(0),
        })
    }

    /// Changes with each new list.
    pub(super) fn renewed(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// A current list of an issuer, fetched if there is none. Dropping the future leaves the fetch to others.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn list(self: &Arc<Self>, url: &str, issuer: &Issuer) -> Result<Arc<Held>, Arc<str>> {
        let point = self.point(url, issuer)?;
        loop {
            let mut over = point.over.subscribe();
            {
                let mut state = point.state.lock();
                let now = now();
                state.used_at = now;
                if let Some(held) = state.held.as_ref().filter(|held| held.crl.is_current(now)) {
                    return Ok(Arc::clone(held));
                }
                if !state.fetching {
                    if let Some(error) = state.error.as_ref().filter(|_| now < state.due) {
                        return Err(Arc::clone(error));
                    }
                    self.begin(&point, &mut state);
                }
            }
            // The sender lives as long as the point that is held here.
            let _ = over.changed().await;
        }
    }

    /// A list that is here, current or not.
    pub(super) fn at_hand(&self, url: &str, issuer: &Fingerprint) -> Option<Arc<Held>> {
        let points = self.points.lock();
        let point = points.get(&(url, issuer) as &dyn Asked)?;
        point.state.lock().held.clone()
    }

    /// Every list that is here.
    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        self.points.lock().values().filter_map(|point| point.state.lock().held.clone()).collect()
    }

    /// Begins to fetch whatever is due and gives up what nobody needs.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = now();
        let mut points = self.points.lock();
        points.retain(|_, point| {
            let mut state = point.state.lock();
            if !state.fetching && state.used_at.saturating_add(UNUSED) < now {
                return false;
            }
            if !state.fetching && state.due <= now {
                self.begin(point, &mut state);
            }
            true
        });
    }

    fn point(&self, url: &str, issuer: &Issuer) -> Result<Arc<Point>, Arc<str>> {
        let mut points = self.points.lock();
        if let Some(point) = points.get(&(url, &issuer.fingerprint) as &dyn Asked) {
            return Ok(Arc::clone(point));
        }
        if points.len() >= self.config.capacity {
            let idle = points.iter().filter(|(_, point)| !point.state.lock().fetching);
            let oldest = idle.min_by_key(|(_, point)| point.state.lock().used_at).map(|(key, _)| key.clone());
            self.counters.event("capacity");
            match oldest {
                Some(oldest) => _ = points.remove(&oldest),
                None => return Err("revocation.capacity is reached and every list is being fetched".into()),
            }
        }
        let url: Arc<str> = url.into();
        let point = Arc::new(Point {
            url: Arc::clone(&url),
            issuer: issuer.clone(),
            state: Mutex::new(State { used_at: now(), ..State::default() }),
            over: watch::Sender::new(0),
        });
        points.insert((url, issuer.fingerprint), Arc::clone(&point));
        Ok(point)
    }

    fn begin(self: &Arc<Self>, point: &Arc<Point>, state: &mut State) {
        state.fetching = true;
        let (points, point) = (Arc::clone(self), Arc::clone(point));
        tokio::spawn(async move {
            let outcome = points.fetch(&point).await;
            points.take(&point, outcome);
        });
    }

    async fn fetch(&self, point: &Arc<Point>) -> Result<Held, Arc<str>> {
        let (max_bytes, timeout) = (self.config.max_crl_size, self.config.http_timeout);
        let question = Question { url: &point.url, ocsp: None, max_bytes, timeout };
        let contents = self.fetcher.fetch(question).await.map_err(|cause| Arc::from(Causes(&cause).to_string()))?;
        let issuer = point.issuer.clone();
        // A long list takes a while to read.
        let read = tokio::task::spawn_blocking(move || {
            let lists = read_lists(&contents, max_bytes).map_err(|cause| Arc::from(cause.to_string()))?;
            let mut refused = Arc::from("no revocation list");
            for crl in lists {
                let held = Held::new(crl);
                match held.verify(&issuer) {
                    Ok(()) => return Ok(held),
                    Err(cause) => refused = Arc::from(format!("the revocation list was refused: {cause}")),
                }
            }
            Err(refused)
        });
        read.await.unwrap_or_else(|_| Err("reading the list failed".into()))
    }

    fn take(&self, point: &Point, outcome: Result<Held, Arc<str>>) {
        let now = now();
        let others: usize = self.all().iter().map(|held| held.crl.memory()).sum();
        let mut state = point.state.lock();
        let own = state.held.as_ref().map_or(0, |held| held.crl.memory());
        let outcome = outcome.and_then(|new| {
            let old = state.held.as_ref().map(|held| held.crl.this_update());
            if old.is_some_and(|old| new.crl.this_update() < old) {
                return Err("the list is older than the one at hand".into());
            }
            if others - own.min(others) + new.crl.memory() > self.config.max_cache_size {
                self.counters.event("max_cache_size");
                return Err("all lists together are longer than revocation.max_cache_size".into());
            }
            let stale = (!new.crl.is_current(now)).then(|| Arc::from(not_current(&new.crl)));
            state.held = Some(Arc::new(new));
            stale.map_or(Ok(()), Err)
        });
        let url = &*point.url;
        match outcome {
            Ok(()) => {
                let crl = state.held.as_ref().map(|held| &held.crl);
                let next_update = crl.and_then(Crl::next_update);
                let entries = crl.map_or(0, Crl::len);
                if state.failures > 0 || state.fetched_at.is_none() {
                    info!(url, entries, next_update, "revocation list fetched");
                }
                state.fetched_at = Some(now);
                state.due = schedule::after_success(now, self.config.refresh_interval, next_update);
                (state.failures, state.error) = (0, None);
                self.counters.fetched("crl", "ok");
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.due = schedule::after_failure(now, state.failures);
                if state.failures == 1 {
                    warn!(url, cause = &*error, "revocation list not fetched; it is tried again");
                }
                state.error = Some(error);
                self.counters.fetched("crl", "failed");
            }
        }
        state.fetching = false;
        drop(state);
        point.over.send_modify(|times| *times = times.wrapping_add(1));
        self.renewed.send_modify(|times| *times = times.wrapping_add(1));
    }

    pub(super) fn report(&self) -> Vec<ListReport> {
        let points = self.points.lock().values().cloned().collect::<Vec<_>>();
        let mut lists: Vec<ListReport> = points
            .iter()
            .map(|point| {
                let state = point.state.lock();
                let mut report = ListReport::new(SourceKind::Url, &point.url, state.held.as_deref());
                report.issuer = point.issuer.certificate.subject();
                report.fetched_at = state.fetched_at;
                report.next_fetch = Some(state.due);
                report.failures = state.failures;
                report.error = state.error.as_deref().map(str::to_owned).or(report.error);
                report.state = held_state(state.held.as_deref(), state.error.is_some()).name().to_owned();
                report
            })
            .collect();
        lists.sort_by(|one, other| one.source.cmp(&other.source));
        lists
    }
}

/// In which state a list is.
pub(super) fn held_state(held: Option<&Held>, failed: bool) -> metrics::Held {
    match held {
        Some(held) if held.crl.is_current(now()) => metrics::Held::Current,
        None if !failed => metrics::Held::Waiting,
        _ => metrics::Held::Failing,
    }
}

/// Why a list that was read and verified cannot be used now.
pub(super) fn not_current(crl: &Crl) -> String {
    match crl.next_update() {
        None => "the list does not say when the next one comes (nextUpdate), so that it cannot be known to be current"
            .to_owned(),
        Some(next) if next <= now() => format!("the list is stale: a newer one was due at {}", rfc3339(next)),
        Some(_) => format!("the list is from the future ({}); are the clocks right?", rfc3339(crl.this_update())),
    }
}

/// A key that is borrowed, so that looking one up copies nothing.
trait Asked {
    fn parts(&self) -> (&str, &Fingerprint);
}

impl Asked for Key {
    fn parts(&self) -> (&str, &Fingerprint) {
        (&self.0, &self.1)
    }
}

impl Asked for (&str, &Fingerprint) {
    fn parts(&self) -> (&str, &Fingerprint) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for dyn Asked + '_ {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl hashbrown::Equivalent<Key> for dyn Asked + '_ {
    fn equivalent(&self, key: &Key) -> bool {
        self.parts() == key.parts()
    }
}
