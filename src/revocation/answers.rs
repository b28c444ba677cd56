//! OCSP answers about the certificates of clients: asked for when a client connects, kept until they end, and asked for anew ahead of
//! that while clients need them. As with lists, clients share one question, and after a failure nobody waits until the next attempt.

use std::sync::Arc;

use gm_tls::cert::Certificate;
use gm_tls::revocation::{CertIdHash, Fingerprint, OcspAnswer, OcspState, ocsp_request};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::debug;

use super::fetch::{Fetcher, Question};
use super::held::Issuer;
use super::report::{AnswerReport, hex};
use super::schedule;
use crate::causes::Causes;
use crate::config::RevocationConfig;
use crate::dev_certs::now;
use crate::metrics::{Held, RevocationCounters};

/// The longest answer that is read, in bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;

type Key = (Fingerprint, Vec<u8>);

#[derive(Debug)]
pub(super) struct Answers {
    config: RevocationConfig,
    fetcher: Arc<Fetcher>,
    counters: Arc<RevocationCounters>,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    responder: Arc<str>,
    state: Mutex<State>,
    over: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<OcspAnswer>,
    due: i64,
    failures: u32,
    error: Option<Arc<str>>,
    fetching: bool,
    used_at: i64,
}

/// A certificate to be asked about, and whom.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub certificate: Certificate,
    pub serial: Vec<u8>,
    pub issuer: Issuer,
    pub responder: String,
}

impl Answers {
    pub(super) fn new(
        config: &RevocationConfig,
        fetcher: &Arc<Fetcher>,
        counters: &Arc<RevocationCounters>,
    ) -> Arc<Answers> {
        Arc::new(Answers {
            config: config.clone(),
            fetcher: Arc::clone(fetcher),
            counters: Arc::clone(counters),
            entries: Mutex::default(),
        })
    }

    /// The state of a certificate. Dropping the future leaves the question to others.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn state(self: &Arc<Self>, asked: &Asked) -> Result<OcspState, Arc<str>> {
        let entry = self.entry(asked)?;
        loop {
            let mut over = entry.over.subscribe();
            {
                let mut state = entry.state.lock();
                let now = now();
                state.used_at = now;
                let due = state.due <= now && !state.fetching;
                if let Some(answer) = state.answer.clone().filter(|answer| self.is_current(answer, now)) {
                    if due {
                        self.begin(&entry, asked, &mut state);
                    }
                    return Ok(answer.state);
                }
                if !state.fetching {
                    if let Some(error) = state.error.as_ref().filter(|_| !due) {
                        return Err(Arc::clone(error));
                    }
                    self.begin(&entry, asked, &mut state);
                }
            }
            // The sender lives as long as the entry that is held here.
            let _ = over.changed().await;
        }
    }

    /// The state of a certificate by an answer that is here and current.
    pub(super) fn at_hand(&self, issuer: &Fingerprint, serial: &[u8]) -> Option<OcspState> {
        let entry = self.entries.lock().get(&(*issuer, serial.to_vec())).cloned()?;
        let answer = entry.state.lock().answer.clone()?;
        self.is_current(&answer, now()).then_some(answer.state)
    }

    fn is_current(&self, answer: &OcspAnswer, now: i64) -> bool {
        answer.is_current(now, i64::try_from(self.config.refresh_interval.as_secs()).unwrap_or_default())
    }

    fn entry(&self, asked: &Asked) -> Result<Arc<Entry>, Arc<str>> {
        let key = (asked.issuer.fingerprint, asked.serial.clone());
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&key).filter(|entry| *entry.responder == *asked.responder) {
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= self.config.max_answers && !entries.contains_key(&key) {
            self.counters.event("max_answers");
            let idle = entries.iter().filter(|(_, entry)| !entry.state.lock().fetching);
            let oldest = idle.min_by_key(|(_, entry)| entry.state.lock().used_at).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => _ = entries.remove(&oldest),
                None => return Err("revocation.max_answers is reached and every answer is being fetched".into()),
            }
        }
        let entry = Arc::new(Entry {
            responder: asked.responder.as_str().into(),
            state: Mutex::default(),
            over: watch::Sender::new(0),
        });
        entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    fn begin(self: &Arc<Self>, entry: &Arc<Entry>, asked: &Asked, state: &mut State) {
        state.fetching = true;
        let (answers, entry, asked) = (Arc::clone(self), Arc::clone(entry), asked.clone());
        tokio::spawn(async move {
            let timeout = answers.config.http_timeout;
            let outcome = ask(&answers.fetcher, &asked, timeout).await.map(|(_, answer)| answer);
            answers.take(&entry, outcome);
        });
    }

    fn take(&self, entry: &Entry, outcome: Result<OcspAnswer, Arc<str>>) {
        let now = now();
        let mut state = entry.state.lock();
        match outcome {
            Ok(answer) => {
                state.due = schedule::after_success(now, self.config.refresh_interval, answer.next_update);
                state.answer = Some(answer);
                (state.failures, state.error) = (0, None);
                self.counters.fetched("ocsp", "ok");
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.due = schedule::after_failure(now, state.failures);
                debug!(responder = &*entry.responder, cause = &*error, "no OCSP answer about a client's certificate");
                state.error = Some(error);
                self.counters.fetched("ocsp", "failed");
            }
        }
        state.fetching = false;
        drop(state);
        entry.over.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Gives up answers that have ended and that nobody asked for since.
    pub(super) fn tick(&self) {
        let now = now();
        let interval = i64::try_from(self.config.refresh_interval.as_secs()).unwrap_or(i64::MAX);
        self.entries.lock().retain(|_, entry| {
            let state = entry.state.lock();
            let current = state.answer.as_ref().is_some_and(|answer| self.is_current(answer, now));
            state.fetching || current || state.used_at.saturating_add(interval) > now
        });
    }

    pub(super) fn report(&self) -> Vec<AnswerReport> {
        let entries: Vec<(Key, Arc<Entry>)> =
            self.entries.lock().iter().map(|(key, entry)| (key.clone(), Arc::clone(entry))).collect();
        let report = |((_, serial), entry): (Key, Arc<Entry>)| {
            let state = entry.state.lock();
            let current = state.answer.as_ref().is_some_and(|answer| self.is_current(answer, now()));
            let held = match (current, &state.error) {
                (true, _) => Held::Current,
                (false, None) => Held::Waiting,
                (false, Some(_)) => Held::Failing,
            };
            AnswerReport {
                responder: entry.responder.to_string(),
                serial: hex(&serial),
                state: held.name().to_owned(),
                status: state.answer.as_ref().map(|answer| answer.state.to_string()),
                this_update: state.answer.as_ref().map(|answer| answer.this_update),
                next_update: state.answer.as_ref().and_then(|answer| answer.next_update),
                failures: state.failures,
                error: state.error.as_deref().map(str::to_owned),
            }
        };
        entries.into_iter().map(report).collect()
    }
}

/// Asks a responder, and gives its whole answer and what it says.
pub(super) async fn ask(
    fetcher: &Fetcher,
    asked: &Asked,
    timeout: std::time::Duration,
) -> Result<(bytes::Bytes, OcspAnswer), Arc<str>> {
    let hash = CertIdHash::ByIssuer;
    let (certificate, issuer) = (&asked.certificate, &asked.issuer.certificate);
    let request = ocsp_request(certificate, issuer, hash).map_err(|cause| Arc::from(cause.to_string()))?;
    let question = Question { url: &asked.responder, ocsp: Some(request), max_bytes: MAX_ANSWER_BYTES, timeout };
    let answer = fetcher.fetch(question).await.map_err(|cause| Arc::from(Causes(&cause).to_string()))?;
    match OcspAnswer::verify(&answer, certificate, issuer, hash, now()) {
        Ok(verified) => Ok((answer, verified)),
        Err(cause) => Err(format!("the answer was refused: {}", Causes(&cause)).into()),
    }
}
