//! OCSP answers about the certificates of clients: asked for when a client connects, kept until they end, and asked for anew ahead of
//! that while clients need them: when they come again, or while connections are there that end when their certificate is revoked. As
//! with lists, clients share one question, after a failure nobody waits until the next attempt, and what was revoked stays so until a
//! newer answer says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gm_tls::cert::{Certificate, Source};
use gm_tls::revocation::{CertIdHash, Fingerprint, OcspAnswer, OcspState, Reason, ocsp_request};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::fetch::{Fetcher, Question};
use super::held::Issuer;
use super::report::{AnswerReport, hex};
use super::schedule::{self, Seldom};
use crate::causes::Causes;
use crate::config::RevocationConfig;
use crate::dev_certs::now;
use crate::metrics::{Held, RevocationCounters};

/// The longest answer that is read, in bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Of what share of the answers the oldest are given up when there is no room for another.
const GIVEN_UP: usize = 8;

/// Of what share that are so even where they revoke. Those that come then find their room among themselves.
const GIVEN_UP_REVOKED: usize = 64;

/// The issuer's certificate, so that two authorities of one name share nothing, the serial number, and who is asked.
type Key = (Fingerprint, Box<[u8]>, Arc<str>);

#[derive(Debug)]
pub(super) struct Answers {
    config: RevocationConfig,
    fetcher: Arc<Fetcher>,
    counters: Arc<RevocationCounters>,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
    /// Told about each answer that revokes.
    revoked: watch::Sender<u64>,
    /// When it is said that revoked ones are forgotten.
    forgetting: Seldom,
    /// Numbers the outcomes of fetches.
    outcomes: AtomicU64,
}

/// What is known of one certificate. Who holds it besides the table keeps it there and current.
#[derive(Debug)]
pub(super) struct Entry {
    /// Encoded, which takes a fraction of the memory.
    certificate: Box<[u8]>,
    issuer: Arc<Issuer>,
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
    /// Whether a client was refused since the last answer, for want of one.
    refused: bool,
    /// The number of the last outcome; 0 before the first.
    outcome: u64,
}

impl State {
    fn revoked(&self) -> Option<Reason> {
        match self.answer.as_ref()?.state {
            OcspState::Revoked(reason) => Some(reason),
            _ => None,
        }
    }
}

impl Entry {
    /// Why the certificate was revoked, by the last answer that came.
    pub(super) fn revoked(&self) -> Option<Reason> {
        self.state.lock().revoked()
    }
}

/// A responder for want of whose answers clients are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentResponder {
    pub responder: String,
    /// Who issued to the clients.
    pub issuer: String,
    /// Why its last answer could not be had or used.
    pub error: String,
}

/// What is known of a responder by its answers about the certificates of one issuer.
#[derive(Debug, Default)]
struct Heard {
    refuses: bool,
    succeeded: u64,
    failed: u64,
    error: Option<Arc<str>>,
    issuer: String,
}

/// A certificate to be asked about, and whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub certificate: &'a Certificate,
    pub serial: &'a [u8],
    pub issuer: &'a Arc<Issuer>,
    pub responder: &'a str,
}

impl Asked<'_> {
    fn key(&self) -> Key {
        (self.issuer.fingerprint, self.serial.into(), self.responder.into())
    }
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
            revoked: watch::Sender::new(0),
            forgetting: Seldom::default(),
            outcomes: AtomicU64::new(0),
        })
    }

    /// Changes with each answer that revokes.
    pub(super) fn renewed(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// The state of a certificate. Dropping the future leaves the question to others.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn state(self: &Arc<Self>, asked: Asked<'_>) -> Result<OcspState, Arc<str>> {
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
                        self.begin(&entry, &mut state);
                    }
                    return Ok(answer.state);
                }
                if !state.fetching {
                    if let Some(error) = state.error.as_ref().filter(|_| !due) {
                        return state.revoked().map(OcspState::Revoked).ok_or_else(|| Arc::clone(error));
                    }
                    self.begin(&entry, &mut state);
                }
            }
            // The sender lives as long as the entry that is held here.
            let _ = over.changed().await;
        }
    }

    /// Why a certificate was revoked, by the last answer of a responder, which may have ended.
    pub(super) fn was_revoked(&self, asked: Asked<'_>) -> Option<Reason> {
        let entry = self.entries.lock().get(&asked.key()).cloned()?;
        entry.revoked()
    }

    /// Takes note that a client was refused for want of this answer.
    pub(super) fn note_refused(&self, asked: Asked<'_>) {
        if let Some(entry) = self.entries.lock().get(&asked.key()) {
            entry.state.lock().refused = true;
        }
    }

    /// Responders for want of whose answers clients were refused, and that have not answered anybody since.
    pub(super) fn silent(&self) -> Vec<SilentResponder> {
        let mut heard: HashMap<(Fingerprint, Arc<str>), Heard> = HashMap::new();
        let now = now();
        for ((issuer, _, responder), entry) in self.entries.lock().iter() {
            let state = entry.state.lock();
            let one = heard.entry((*issuer, Arc::clone(responder))).or_default();
            let Some(error) = &state.error else {
                one.succeeded = one.succeeded.max(state.outcome);
                continue;
            };
            if state.outcome > one.failed {
                (one.failed, one.error) = (state.outcome, Some(Arc::clone(error)));
            }
            if state.refused && !state.answer.as_ref().is_some_and(|answer| self.is_current(answer, now)) {
                one.refuses = true;
                if one.issuer.is_empty() {
                    one.issuer = entry.issuer.certificate.subject();
                }
            }
        }
        let silent = heard.into_iter().filter(|(_, one)| one.refuses && one.failed > one.succeeded);
        let mut silent: Vec<SilentResponder> = silent
            .map(|((_, responder), Heard { issuer, error, .. })| SilentResponder {
                responder: responder.to_string(),
                issuer,
                error: error.as_deref().unwrap_or_default().to_owned(),
            })
            .collect();
        silent.sort_by(|one, other| (&one.responder, &one.issuer).cmp(&(&other.responder, &other.issuer)));
        silent
    }

    /// Why a certificate was revoked, by an answer that is here and current. With one that has ended it is asked again.
    pub(super) fn at_hand(&self, issuer: &Fingerprint, serial: &[u8], responder: &str) -> Option<Reason> {
        let key = (*issuer, serial.into(), responder.into());
        let entry = self.entries.lock().get(&key).cloned()?;
        let state = entry.state.lock();
        state.answer.as_ref().filter(|answer| self.is_current(answer, now()))?;
        state.revoked()
    }

    fn is_current(&self, answer: &OcspAnswer, now: i64) -> bool {
        answer.is_current(now, i64::try_from(self.config.refresh_interval.as_secs()).unwrap_or_default())
    }

    /// The place for an answer.
    ///
    /// # Errors
    /// There is none left, in words.
    pub(super) fn entry(&self, asked: Asked<'_>) -> Result<Arc<Entry>, Arc<str>> {
        let key = asked.key();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&key) {
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= self.config.max_answers {
            self.counters.event("max_answers");
            self.give_up(&mut entries)?;
        }
        let entry = Arc::new(Entry {
            certificate: asked.certificate.to_der().into(),
            issuer: Arc::clone(asked.issuer),
            responder: Arc::clone(&key.2),
            state: Mutex::new(State { used_at: now(), ..State::default() }),
            over: watch::Sender::new(0),
        });
        entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    /// Makes room: several at once, so that a full table is not searched for each client. What was revoked is given up last, since it
    /// stays so only as long as it is remembered.
    fn give_up(&self, entries: &mut HashMap<Key, Arc<Entry>>) -> Result<(), Arc<str>> {
        // An entry that is held by a connection or by its fetch is in use.
        let idle = entries.iter().filter(|(_, entry)| Arc::strong_count(entry) == 1);
        let mut idle: Vec<(bool, i64, &Key)> = idle
            .map(|(key, entry)| {
                let state = entry.state.lock();
                (state.revoked().is_some(), state.used_at, key)
            })
            .collect();
        if idle.is_empty() {
            return Err(
                "revocation.max_answers is reached by certificates of clients that are connected; raise it".into()
            );
        }
        let others = idle.iter().filter(|(revoked, ..)| !revoked).count();
        let share = |of: usize| self.config.max_answers.div_ceil(of);
        let several = share(GIVEN_UP).min(others.max(share(GIVEN_UP_REVOKED))).min(idle.len());
        if several < idle.len() {
            idle.select_nth_unstable_by_key(several, |(revoked, used_at, _)| (*revoked, *used_at));
        }
        let given_up: Vec<Key> = idle.iter().take(several).map(|(.., key)| Key::clone(key)).collect();
        for key in given_up {
            entries.remove(&key);
        }
        let forgotten = several.saturating_sub(others);
        if forgotten > 0 {
            (0..forgotten).for_each(|_| self.counters.event("revoked_forgotten"));
            if self.forgetting.is_due(now()) {
                warn!(
                    max_answers = self.config.max_answers,
                    forgotten,
                    "revocation.max_answers is full of revoked certificates, and those not shown for longest are forgotten; raise it"
                );
            }
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, entry: &Arc<Entry>, state: &mut State) {
        state.fetching = true;
        let (answers, entry) = (Arc::clone(self), Arc::clone(entry));
        tokio::spawn(async move {
            let outcome = answers.fetch(&entry).await;
            answers.take(&entry, outcome);
        });
    }

    async fn fetch(&self, entry: &Entry) -> Result<OcspAnswer, Arc<str>> {
        let certificate = Certificate::from_der(&Source::new("a client's certificate"), &entry.certificate);
        let certificate = certificate.map_err(|cause| Arc::from(cause.to_string()))?;
        let (issuer, timeout) = (&entry.issuer.certificate, self.config.http_timeout);
        let (_, answer) = ask(&self.fetcher, &certificate, issuer, &entry.responder, timeout).await?;
        Ok(answer)
    }

    fn take(&self, entry: &Entry, outcome: Result<OcspAnswer, Arc<str>>) {
        let now = now();
        let mut state = entry.state.lock();
        state.outcome = self.outcomes.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let outcome = outcome.and_then(|new| {
            // Whoever is between here and the responder could bring back what it said before it revoked.
            let old = state.answer.as_ref();
            if old.is_some_and(|old| new.this_update < old.this_update) {
                return Err("the answer is older than the one at hand".into());
            }
            // Of answers that were signed together, as of one second, one was there before the certificate was revoked.
            let revokes = matches!(new.state, OcspState::Revoked(_));
            if !revokes && old.is_some_and(|old| new.this_update == old.this_update) && state.revoked().is_some() {
                return Err("the answer is no newer than the one at hand, which revokes".into());
            }
            // As one that keeps no register of what it revoked long ago says.
            if new.state == OcspState::Unknown && state.revoked().is_some() {
                return Err("the responder does not know the certificate any more, which it had revoked".into());
            }
            let ended = !self.is_current(&new, now);
            let due = schedule::after_success(now, self.config.refresh_interval, new.next_update);
            state.answer = Some(new);
            if ended {
                return Err("the answer does not say how long it holds (nextUpdate), and is older than revocation.refresh_interval".into());
            }
            Ok(due)
        });
        match outcome {
            Ok(due) => {
                state.due = due;
                (state.failures, state.error, state.refused) = (0, None, false);
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
        let revoked = state.revoked().is_some();
        drop(state);
        entry.over.send_modify(|times| *times = times.wrapping_add(1));
        if revoked {
            self.revoked.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    /// Asks anew, when that is due, about certificates of connections that are watched; gives up answers that have ended and that nobody
    /// asked for since.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = now();
        let interval = i64::try_from(self.config.refresh_interval.as_secs()).unwrap_or(i64::MAX);
        self.entries.lock().retain(|_, entry| {
            let mut state = entry.state.lock();
            if state.fetching {
                return true;
            }
            if Arc::strong_count(entry) > 1 {
                if state.due <= now {
                    self.begin(entry, &mut state);
                }
                return true;
            }
            let current = state.answer.as_ref().is_some_and(|answer| self.is_current(answer, now));
            current || state.revoked().is_some() || state.used_at.saturating_add(interval) > now
        });
    }

    pub(super) fn report(&self) -> Vec<AnswerReport> {
        // What is said of an entry is copied, and not the entry held: who holds one beside the table keeps it there.
        let entries = self.entries.lock();
        let copied = entries.iter().map(|((_, serial, responder), entry)| {
            let State { answer, failures, error, .. } = &*entry.state.lock();
            (serial.clone(), Arc::clone(responder), answer.clone(), *failures, error.clone())
        });
        let copied: Vec<_> = copied.collect();
        drop(entries);
        let now = now();
        let report = copied.into_iter().map(|(serial, responder, answer, failures, error)| {
            let current = answer.as_ref().is_some_and(|answer| self.is_current(answer, now));
            let held = match (current, &error) {
                (true, _) => Held::Current,
                (false, None) => Held::Waiting,
                (false, Some(_)) => Held::Failing,
            };
            AnswerReport {
                responder: responder.to_string(),
                serial: hex(&serial),
                state: held.name().to_owned(),
                status: answer.as_ref().map(|answer| answer.state.to_string()),
                this_update: answer.as_ref().map(|answer| answer.this_update),
                next_update: answer.as_ref().and_then(|answer| answer.next_update),
                failures,
                error: error.as_deref().map(str::to_owned),
            }
        });
        report.collect()
    }
}

/// Asks a responder, and gives its whole answer and what it says.
pub(super) async fn ask(
    fetcher: &Fetcher,
    certificate: &Certificate,
    issuer: &Certificate,
    responder: &str,
    timeout: Duration,
) -> Result<(bytes::Bytes, OcspAnswer), Arc<str>> {
    let hash = CertIdHash::ByIssuer;
    let request = ocsp_request(certificate, issuer, hash).map_err(|cause| Arc::from(cause.to_string()))?;
    let question = Question { url: responder, ocsp: Some(request), max_bytes: MAX_ANSWER_BYTES, timeout };
    let answer = fetcher.fetch(question).await.map_err(|cause| Arc::from(Causes(&cause).to_string()))?;
    match OcspAnswer::verify(&answer, certificate, issuer, hash, now()) {
        Ok(verified) => Ok((answer, verified)),
        Err(cause) => Err(format!("the answer was refused: {}", Causes(&cause)).into()),
    }
}

#[cfg(test)]
mod tests {
    use gm_tls::cert::KeyKind;
    use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};

    use super::*;

    fn answers(max_answers: usize) -> Arc<Answers> {
        let config = RevocationConfig { max_answers, ..RevocationConfig::default() };
        let fetcher = Arc::new(Fetcher::new(&config, Vec::new()));
        Answers::new(&config, &fetcher, &Arc::default())
    }

    fn authority() -> (Certificate, Arc<Issuer>) {
        let (subject, now) = (Subject::common_name("CA"), now());
        let ca = CertificateAuthority::create(&subject, KeyKind::Sm2, &AuthorityProfile::new(10, None), now).unwrap();
        let (names, profile) = (AlternativeNames::default(), Profile::client(1));
        let issued = ca.issue_single(&Subject::common_name("client"), &names, KeyKind::Sm2, &profile, now).unwrap();
        (issued.chain.leaf, Arc::new(Issuer::new(ca.certificate())))
    }

    fn answer(state: OcspState, this_update: i64) -> OcspAnswer {
        OcspAnswer { state, this_update, next_update: Some(now() + 600) }
    }

    #[test]
    fn authorities_of_one_name_and_other_responders_share_no_answer() {
        let answers = answers(10);
        let ((certificate, one), (_, namesake)) = (authority(), authority());
        let asked = |issuer, responder| Asked { certificate: &certificate, serial: &[7], issuer, responder };
        let entry = answers.entry(asked(&one, "http://a")).unwrap();
        answers.take(&entry, Ok(answer(OcspState::Revoked(Reason::from_code(1)), 1000)));
        assert!(answers.at_hand(&one.fingerprint, &[7], "http://a").is_some());
        assert!(answers.at_hand(&namesake.fingerprint, &[7], "http://a").is_none());
        assert!(answers.at_hand(&one.fingerprint, &[7], "http://b").is_none());
        assert!(answers.at_hand(&one.fingerprint, &[8], "http://a").is_none());
        assert!(!Arc::ptr_eq(&entry, &answers.entry(asked(&namesake, "http://a")).unwrap()));
        assert!(!Arc::ptr_eq(&entry, &answers.entry(asked(&one, "http://b")).unwrap()));
        assert!(Arc::ptr_eq(&entry, &answers.entry(asked(&one, "http://a")).unwrap()));
    }

    #[test]
    fn an_older_answer_does_not_take_back_what_a_newer_one_said() {
        let answers = answers(10);
        let (certificate, issuer) = authority();
        let asked = Asked { certificate: &certificate, serial: &[7], issuer: &issuer, responder: "http://a" };
        let entry = answers.entry(asked).unwrap();
        answers.take(&entry, Ok(answer(OcspState::Revoked(Reason::from_code(6)), 1000)));
        answers.take(&entry, Ok(answer(OcspState::Good, 999)));
        assert_eq!(answers.at_hand(&issuer.fingerprint, &[7], "http://a"), Some(Reason::from_code(6)));
        answers.take(&entry, Err("down".into()));
        answers.take(&entry, Ok(answer(OcspState::Unknown, 1001)));
        assert!(answers.at_hand(&issuer.fingerprint, &[7], "http://a").is_some());
        // It was on hold.
        answers.take(&entry, Ok(answer(OcspState::Good, 1001)));
        assert_eq!(answers.at_hand(&issuer.fingerprint, &[7], "http://a"), None);
    }

    // Of answers that were signed together, one from before the revocation took it back.
    #[test]
    fn an_answer_of_the_same_time_does_not_take_back_a_revocation() {
        let answers = answers(10);
        let (certificate, issuer) = authority();
        let asked = Asked { certificate: &certificate, serial: &[7], issuer: &issuer, responder: "http://a" };
        let entry = answers.entry(asked).unwrap();
        answers.take(&entry, Ok(answer(OcspState::Good, 1000)));
        answers.take(&entry, Ok(answer(OcspState::Revoked(Reason::from_code(1)), 1000)));
        assert!(entry.revoked().is_some());
        answers.take(&entry, Ok(answer(OcspState::Good, 1000)));
        assert_eq!(answers.at_hand(&issuer.fingerprint, &[7], "http://a"), Some(Reason::from_code(1)));
        let error = answers.report().remove(0).error.unwrap();
        assert!(error.contains("no newer than the one at hand, which revokes"), "{error}");
        answers.take(&entry, Ok(answer(OcspState::Revoked(Reason::from_code(1)), 1000)));
        assert_eq!(answers.report().remove(0).error, None);
    }

    #[test]
    fn a_full_table_gives_up_what_was_needed_longest_ago_and_nothing_that_is_watched() {
        let answers = answers(8);
        let (certificate, issuer) = authority();
        let entry = |number: u8| {
            let serial = [number];
            let asked = Asked { certificate: &certificate, serial: &serial, issuer: &issuer, responder: "http://a" };
            answers.entry(asked)
        };
        let watched: Vec<_> = (0..7).map(|number| entry(number).unwrap()).collect();
        for number in 7..100 {
            entry(number).unwrap();
        }
        let _last = entry(99).unwrap();
        assert_eq!(answers.entries.lock().len(), 8);
        let refused = entry(100).unwrap_err();
        assert!(refused.contains("revocation.max_answers"), "{refused}");
        for (number, one) in (0..).zip(&watched) {
            assert!(Arc::ptr_eq(one, &entry(number).unwrap()));
        }
        drop(watched);
        entry(100).unwrap();
        assert_eq!(answers.counters.events("max_answers"), 94);
    }

    // Under soft-fail a revoked client got in once others had taken its answer's place and the responder was down.
    #[test]
    fn a_full_table_gives_up_what_was_revoked_last() {
        let answers = answers(16);
        let (certificate, issuer) = authority();
        let entry = |number: u8| {
            let serial = [number];
            let asked = Asked { certificate: &certificate, serial: &serial, issuer: &issuer, responder: "http://a" };
            answers.entry(asked).unwrap()
        };
        let revoke = |number| answers.take(&entry(number), Ok(answer(OcspState::Revoked(Reason::from_code(1)), 1000)));
        let good = |number| {
            let entry = entry(number);
            answers.take(&entry, Ok(answer(OcspState::Good, 1000)));
            // Shown later than the revoked ones.
            entry.state.lock().used_at += i64::from(number);
        };
        let revoked =
            || (0..=201).filter(|number| answers.at_hand(&issuer.fingerprint, &[*number], "http://a").is_some());
        (0..15).for_each(revoke);
        (15..200).for_each(good);
        assert!(revoked().eq(0..15));
        assert_eq!(answers.counters.events("revoked_forgotten"), 0);
        // Where there is nothing else, one makes room, and not several.
        revoke(200);
        revoke(201);
        assert_eq!((revoked().count(), answers.counters.events("revoked_forgotten")), (16, 1));
    }

    // Each new certificate had the whole table searched and sorted, under the lock that all clients take.
    #[test]
    fn a_table_full_of_revoked_answers_is_not_searched_for_each_client() {
        let answers = answers(640);
        let (certificate, issuer) = authority();
        let entry = |number: u16| {
            let serial = number.to_be_bytes();
            let asked = Asked { certificate: &certificate, serial: &serial, issuer: &issuer, responder: "http://a" };
            answers.entry(asked).unwrap()
        };
        (0..640).for_each(|number| {
            let entry = entry(number);
            answers.take(&entry, Ok(answer(OcspState::Revoked(Reason::from_code(1)), 1000)));
            // The first ones were shown longest ago.
            entry.state.lock().used_at = i64::from(number);
        });
        (640..1000).for_each(|number| _ = entry(number));
        assert_eq!(answers.counters.events("max_answers"), 360 / 10);
        // Room is made among them once, and is then enough for those that are not revoked.
        assert_eq!(answers.counters.events("revoked_forgotten"), 10);
        let at_hand = |number: u16| answers.at_hand(&issuer.fingerprint, &number.to_be_bytes(), "http://a").is_some();
        assert!((0..640).filter(|number| at_hand(*number)).eq(10..640));
    }
}
