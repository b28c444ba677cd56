//! Whether certificates were revoked: those of clients by revocation lists and OCSP, the server's own for OCSP stapling. One service for
//! the node owns everything that is fetched and kept; listeners hold policies that ask it.
//!
//! ```text
//!   handshake ──chain──▶ Policy::revoked    what is at hand; the client gets an alert
//!   handshake over ────▶ Policy::admit      waits for lists and answers, before CONNECT is read
//!                            │ points (lists by URL) · files (lists by file or name) · answers (OCSP)
//!                            ▼
//!                        fetch (HTTP, HTTPS) ◀── staples (OCSP about the server's own certificates)
//! ```
//! Nothing here decides whether a chain is trusted, and no fetch is waited for with a permit of handshakes in hand.

mod answers;
mod check;
mod directory;
mod fetch;
mod files;
mod held;
mod points;
pub mod report;
mod schedule;
mod staples;
mod watches;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::revocation::{Facts, Fingerprint, StapleSource};
use tokio::time::MissedTickBehavior;
use tracing::warn;

pub use answers::SilentResponder;
pub use check::{LackingList, Policy};
pub use fetch::FetchError;
pub use files::UploadError;
pub use staples::Slot;

use crate::causes::Causes;
use crate::config::{ClientStatus, ConfigError, RevocationConfig, Stapling};
use crate::metrics::{Held, HeldCounts, RevocationCounters};
use answers::Answers;
use fetch::Fetcher;
use files::Files;
use held::Issuers;
use points::Points;
use report::Report;
use staples::{ListenerStaples, Staples};
use watches::Watches;

/// How often it is looked whether something is due or a file has changed.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two counts for the metrics.
const TICKS_PER_COUNT: u64 = 5;
/// Where uploaded lists are, below the data directory.
const DIRECTORY: &str = "crl";

/// The service of a node.
#[derive(Debug)]
pub struct Revocation {
    counters: Arc<RevocationCounters>,
    points: Arc<Points>,
    files: Arc<Files>,
    answers: Arc<Answers>,
    staples: Arc<Staples>,
    watches: Watches,
    issuers: Issuers,
    ticks: AtomicU64,
}

impl Revocation {
    /// Opens what the configuration names. Uploaded lists are kept below `data_dir`. Nothing is fetched before [`run`](Self::run).
    ///
    /// The mistake in `cacertfile` comes beside it, so that others are found as well.
    pub fn new(config: &RevocationConfig, data_dir: &Path) -> (Arc<Revocation>, Option<ConfigError>) {
        let read = config.cacertfile.as_ref().map(|file| {
            let anchors = Certificate::anchors_from_file("", file.path());
            anchors.map_err(|cause| file.error(Causes(&cause).to_string()))
        });
        let (ca, wrong) = match read {
            Some(Ok(ca)) => (ca, None),
            Some(Err(wrong)) => (Vec::new(), Some(wrong)),
            None => (Vec::new(), None),
        };
        let counters = Arc::new(RevocationCounters::default());
        let fetcher = Arc::new(Fetcher::new(config, ca));
        let files = Files::new(config.max_crl_size, Some(data_dir.join(DIRECTORY)), &counters);
        files.load_uploads();
        let service = Arc::new(Revocation {
            points: Points::new(config, &fetcher, &counters),
            files,
            answers: Answers::new(config, &fetcher, &counters),
            staples: Staples::new(&fetcher, &counters),
            watches: Watches::default(),
            issuers: Issuers::default(),
            ticks: AtomicU64::new(0),
            counters,
        });
        (service, wrong)
    }

    pub fn counters(&self) -> &Arc<RevocationCounters> {
        &self.counters
    }

    /// What a protocol of a listener asks about the certificates of its clients; `None` when it asks nothing. `anchors` are its trust
    /// anchors.
    ///
    /// # Errors
    /// Every file of lists that cannot be used.
    pub fn inspector(
        self: &Arc<Self>,
        status: &ClientStatus,
        anchors: &[Certificate],
    ) -> Result<Option<Arc<Policy>>, Vec<ConfigError>> {
        if status.crl.is_none() && status.ocsp.is_none() {
            return Ok(None);
        }
        let (mut files, mut errors) = (Vec::new(), Vec::new());
        for file in status.crl.iter().flat_map(|crl| &crl.files) {
            match self.files.open(file.path()) {
                Ok(opened) => files.push(opened),
                Err(reason) => errors.push(file.error(reason)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Some(Arc::new(Policy::new(self, status, files, anchors))))
    }

    /// The place for the answer that is stapled to a certificate of the server. A certificate that is seen again keeps its answer.
    ///
    /// # Errors
    /// What is missing to ask for it, in words.
    pub fn slot(
        &self,
        config: &Stapling,
        chain: &CertificateChain,
        issuer: Option<&Certificate>,
    ) -> Result<Arc<Slot>, String> {
        self.staples.slot(config, chain, issuer)
    }

    /// What the contexts of a listener staple; `None` without any place.
    pub fn staples(&self, slots: Vec<Arc<Slot>>) -> Option<Arc<dyn StapleSource>> {
        (!slots.is_empty()).then(|| Arc::new(ListenerStaples::new(slots, &self.counters)) as Arc<dyn StapleSource>)
    }

    /// Takes a file of lists, DER or PEM, under a name, for all listeners that check lists; it stays over restarts.
    ///
    /// # Errors
    /// Nothing changes if a list is bad or stale, or if it cannot be kept.
    pub fn upload(&self, name: &str, contents: Bytes) -> Result<(), UploadError> {
        self.files.upload(name, contents)
    }

    /// As [`upload`](Self::upload), of a file.
    ///
    /// # Errors
    /// As there, and when the file cannot be read.
    pub fn upload_file(&self, name: &str, path: &Path) -> Result<(), UploadError> {
        self.files.upload_file(name, path)
    }

    /// Gives up what was uploaded under a name.
    ///
    /// # Errors
    /// There is nothing under it, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), UploadError> {
        self.files.remove(name)
    }

    /// Everything there is, with its state.
    pub fn report(&self) -> Report {
        Report { ocsp_answers: self.answers.report(), ..self.report_without_clients() }
    }

    /// As [`report`](Self::report), without the answers about certificates of clients, of which there may be very many.
    pub fn report_without_clients(&self) -> Report {
        let mut crls = self.points.report();
        crls.extend(self.files.report());
        Report { now: crate::dev_certs::now(), crls, ocsp_answers: Vec::new(), staples: self.staples.report() }
    }

    /// OCSP responders that do not answer, so that clients are refused (hard-fail).
    pub fn silent_responders(&self) -> Vec<SilentResponder> {
        self.answers.silent()
    }

    /// Fetches what is due, follows files, and ends connections whose certificates were revoked, for ever.
    pub async fn run(self: Arc<Self>) {
        let (mut points, mut files) = (self.points.renewed(), self.files.renewed());
        let mut answers = self.answers.renewed();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel safe: each branch waits for something that stays true until it is looked at.
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                // The senders live as long as this.
                _ = points.changed() => self.compare().await,
                _ = files.changed() => self.compare().await,
                _ = answers.changed() => self.compare().await,
            }
        }
    }

    async fn tick(self: &Arc<Self>) {
        self.points.tick();
        self.answers.tick();
        self.staples.tick();
        let service = Arc::clone(self);
        // A file system may be slow, and a list may be long.
        let polled = tokio::task::spawn_blocking(move || {
            service.files.poll();
            service.watches.forget_ended();
            if !service.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(TICKS_PER_COUNT) {
                return;
            }
            let report = service.report();
            let count = |states: Vec<&str>| -> HeldCounts {
                Held::ALL
                    .map(|held| states.iter().filter(|state| **state == held.name()).count().try_into().unwrap_or(0))
            };
            service.counters.hold(
                count(report.crls.iter().map(|list| &*list.state).collect()),
                count(report.ocsp_answers.iter().map(|answer| &*answer.state).collect()),
                count(report.staples.iter().map(|staple| &*staple.state).collect()),
            );
        });
        // A panic there is a bug; the next tick tries again.
        let _ = polled.await;
    }

    async fn compare(self: &Arc<Self>) {
        let service = Arc::clone(self);
        let compared = tokio::task::spawn_blocking(move || {
            let lists: Vec<_> = service.points.all().into_iter().chain(service.files.all()).collect();
            service.watches.compare(&lists)
        });
        let ended = compared.await.unwrap_or(0);
        if ended > 0 {
            warn!(connections = ended, "connections are closed: their certificates have been revoked");
            (0..ended).for_each(|_| self.counters.event("connection_closed"));
        }
    }
}

/// Whether clients of this server may insist on a stapled answer.
pub fn must_staple(certificate: &Certificate) -> bool {
    Facts::of_der(&certificate.to_der()).is_ok_and(|facts| facts.must_staple)
}

fn fingerprint_of(certificate: &Certificate) -> Fingerprint {
    gm_tls::revocation::fingerprint(certificate)
}
