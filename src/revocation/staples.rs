//! OCSP answers about the server's own certificates, fetched ahead and verified before they are given to anybody. Contexts of a listener
//! share an answer with those that replace them, so that a reload loses none.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::revocation::{Facts, Fingerprint, OcspAnswer, OcspState, Staple, StapleSource};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::answers::ask;
use super::fetch::Fetcher;
use super::report::{StapleReport, hex};
use super::{fingerprint_of, schedule};
use crate::config::Stapling;
use crate::dev_certs::now;
use crate::metrics::{Held, RevocationCounters};

type Key = (Fingerprint, String);

#[derive(Debug)]
pub(super) struct Staples {
    fetcher: Arc<Fetcher>,
    counters: Arc<RevocationCounters>,
    slots: Mutex<HashMap<Key, Weak<Slot>>>,
}

/// The answer about one certificate.
#[derive(Debug)]
pub struct Slot {
    certificate: Certificate,
    issuer: Certificate,
    responder: String,
    fingerprint: Fingerprint,
    must_staple: bool,
    interval: Duration,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    good: Option<(Bytes, OcspAnswer)>,
    due: i64,
    failures: u32,
    error: Option<Arc<str>>,
    fetching: bool,
}

impl State {
    /// Only what is good, and only as long as the responder vouches for it.
    fn current(&self, now: i64) -> Option<&(Bytes, OcspAnswer)> {
        self.good.as_ref().filter(|(_, answer)| answer.is_current(now, 0))
    }
}

impl Staples {
    pub(super) fn new(fetcher: &Arc<Fetcher>, counters: &Arc<RevocationCounters>) -> Arc<Staples> {
        Arc::new(Staples { fetcher: Arc::clone(fetcher), counters: Arc::clone(counters), slots: Mutex::default() })
    }

    /// The place for a certificate's answer.
    ///
    /// # Errors
    /// What is missing to ask, in words.
    pub(super) fn slot(
        &self,
        config: &Stapling,
        chain: &CertificateChain,
        issuer: Option<&Certificate>,
    ) -> Result<Arc<Slot>, String> {
        let leaf = &chain.leaf;
        let facts = Facts::of_der(&leaf.to_der()).map_err(|cause| cause.to_string())?;
        let Some(responder) = config.responder_url.clone().or_else(|| facts.ocsp_urls.first().cloned()) else {
            return Err("the certificate names no OCSP responder; set responder_url".to_owned());
        };
        let Some(issuer) = issuer.or(chain.intermediates.first()) else {
            return Err(
                "the issuer of the certificate is needed to verify answers; add it to the certificate's file, \
                        or name it in issuer_pem"
                    .to_owned(),
            );
        };
        if !gm_tls::revocation::is_issued_by(leaf, issuer) {
            return Err(format!("\"{}\" is not the issuer of \"{}\"", issuer.subject(), leaf.subject()));
        }
        let fingerprint = fingerprint_of(leaf);
        let key = (fingerprint, responder.clone());
        let mut slots = self.slots.lock();
        let known = slots.get(&key).and_then(Weak::upgrade);
        if let Some(slot) =
            known.filter(|slot| (slot.interval, slot.timeout) == (config.refresh_interval, config.http_timeout))
        {
            return Ok(slot);
        }
        let slot = Arc::new(Slot {
            certificate: leaf.clone(),
            issuer: issuer.clone(),
            responder,
            fingerprint,
            must_staple: facts.must_staple,
            interval: config.refresh_interval,
            timeout: config.http_timeout,
            state: Mutex::default(),
        });
        slots.insert(key, Arc::downgrade(&slot));
        Ok(slot)
    }

    /// Begins to ask for whatever is due.
    pub(super) fn tick(&self) {
        for slot in self.live() {
            let mut state = slot.state.lock();
            if state.fetching || state.due > now() {
                continue;
            }
            state.fetching = true;
            let (fetcher, counters, slot) = (Arc::clone(&self.fetcher), Arc::clone(&self.counters), Arc::clone(&slot));
            tokio::spawn(async move {
                let outcome = ask(&fetcher, &slot.certificate, &slot.issuer, &slot.responder, slot.timeout).await;
                slot.take(outcome, &counters);
            });
        }
    }

    fn live(&self) -> Vec<Arc<Slot>> {
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| slot.strong_count() > 0);
        slots.values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn report(&self) -> Vec<StapleReport> {
        let mut reports: Vec<StapleReport> = self.live().iter().map(|slot| slot.report()).collect();
        reports.sort_by(|one, other| one.fingerprint_sha256.cmp(&other.fingerprint_sha256));
        reports
    }
}

impl Slot {
    fn take(&self, outcome: Result<(Bytes, OcspAnswer), Arc<str>>, counters: &RevocationCounters) {
        let now = now();
        // Once the responder has said that it is not good, nobody must be told by an older answer that all is well.
        let withdrawn = outcome.as_ref().is_ok_and(|(_, answer)| answer.state != OcspState::Good);
        let outcome = outcome.and_then(|(bytes, answer)| match answer.state {
            OcspState::Good if answer.next_update.is_some() => Ok((bytes, answer)),
            OcspState::Good => Err(Arc::from("the answer does not say how long it holds (nextUpdate)")),
            state => Err(Arc::from(format!("the responder says that the certificate is {state}"))),
        });
        let (subject, responder) = (self.certificate.subject(), &*self.responder);
        let mut state = self.state.lock();
        match outcome {
            Ok((bytes, answer)) => {
                if state.good.is_none() || state.failures > 0 {
                    info!(subject, responder, next_update = answer.next_update, "OCSP answer to staple is here");
                }
                state.due = schedule::after_success(now, self.interval, answer.next_update);
                state.good = Some((bytes, answer));
                (state.failures, state.error) = (0, None);
                counters.fetched("staple", "ok");
            }
            Err(cause) => {
                state.failures = state.failures.saturating_add(1);
                state.due = schedule::after_failure(now, state.failures);
                let first = state.failures == 1;
                if withdrawn {
                    state.good = None;
                }
                match self.must_staple {
                    true if first => {
                        error!(subject, responder, %cause, "no OCSP answer for a must-staple certificate; without one handshakes that ask for it are refused");
                    }
                    false if first => {
                        warn!(subject, responder, %cause, "no OCSP answer to staple; it is asked for again")
                    }
                    _ => {}
                }
                state.error = Some(cause);
                counters.fetched("staple", "failed");
            }
        }
        state.fetching = false;
    }

    fn report(&self) -> StapleReport {
        let state = self.state.lock();
        let held = match (state.current(now()), &state.error) {
            (Some(_), _) => Held::Current,
            (None, None) => Held::Waiting,
            (None, Some(_)) => Held::Failing,
        };
        StapleReport {
            subject: self.certificate.subject(),
            fingerprint_sha256: hex(&self.fingerprint),
            responder: self.responder.clone(),
            must_staple: self.must_staple,
            state: held.name().to_owned(),
            this_update: state.good.as_ref().map(|(_, answer)| answer.this_update),
            next_update: state.good.as_ref().and_then(|(_, answer)| answer.next_update),
            next_fetch: Some(state.due),
            failures: state.failures,
            error: state.error.as_deref().map(str::to_owned),
        }
    }
}

/// The answers that the contexts of one listener give out.
#[derive(Debug)]
pub struct ListenerStaples {
    slots: HashMap<Fingerprint, Arc<Slot>>,
    counters: Arc<RevocationCounters>,
}

impl ListenerStaples {
    pub(super) fn new(slots: Vec<Arc<Slot>>, counters: &Arc<RevocationCounters>) -> ListenerStaples {
        let slots = slots.into_iter().map(|slot| (slot.fingerprint, slot)).collect();
        ListenerStaples { slots, counters: Arc::clone(counters) }
    }
}

impl StapleSource for ListenerStaples {
    fn staple(&self, certificate: &Fingerprint) -> Staple {
        let Some(slot) = self.slots.get(certificate) else { return Staple::Nothing };
        let current = slot.state.lock().current(now()).map(|(bytes, _)| bytes.clone());
        let (outcome, staple) = match current {
            Some(answer) => ("sent", Staple::Answer(answer)),
            None if slot.must_staple => ("refused", Staple::Refuse),
            None => ("missing", Staple::Nothing),
        };
        self.counters.stapled(outcome);
        staple
    }
}
