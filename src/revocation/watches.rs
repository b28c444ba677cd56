//! Established connections that end when one of their certificates is revoked, by a list or by an OCSP answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_tls::revocation::{Fingerprint, Reason};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::answers::Entry;
use super::held::{Held, Issuer, Subject};

/// The connections. Each has its place among those of its listener, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct Watches {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Arc<Watch>>>,
}

#[derive(Debug)]
struct Watch {
    certificates: Vec<Watched>,
    /// Taken when it is told.
    revoked: Mutex<Option<oneshot::Sender<Reason>>>,
}

/// By what a certificate of a connection may be found to be revoked.
#[derive(Debug)]
pub(super) enum Watched {
    Lists(Subject, Arc<Issuer>),
    /// Keeps the answer from being given up, so that it is asked for anew as long as the connection is there.
    Answer(Arc<Entry>),
}

impl Watches {
    /// Watches certificates until the receiver is dropped.
    pub(super) fn add(&self, certificates: Vec<Watched>) -> oneshot::Receiver<Reason> {
        let (revoked, receiver) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let watch = Watch { certificates, revoked: Mutex::new(Some(revoked)) };
        self.all.lock().insert(number, Arc::new(watch));
        receiver
    }

    /// Forgets connections that have ended.
    pub(super) fn forget_ended(&self) {
        self.all.lock().retain(|_, watch| watch.revoked.lock().as_ref().is_some_and(|revoked| !revoked.is_closed()));
    }

    /// Ends every connection of which a list or an answer revokes a certificate, and says how many. Signatures are checked and lists
    /// searched without the lock, for which handshakes wait: one that begins meanwhile has the same lists to ask.
    pub(super) fn compare(&self, lists: &[Arc<Held>]) -> usize {
        let all: Vec<(u64, Arc<Watch>)> =
            self.all.lock().iter().map(|(number, watch)| (*number, Arc::clone(watch))).collect();
        let mut by_issuer: HashMap<Fingerprint, Vec<&Held>> = HashMap::new();
        let mut ended = 0;
        for (number, watch) in all {
            let mut reasons = watch.certificates.iter().filter_map(|watched| match watched {
                Watched::Answer(entry) => entry.revoked(),
                Watched::Lists(subject, issuer) => {
                    let signed =
                        || lists.iter().filter(|held| held.verify(issuer).is_ok()).map(|held| &**held).collect();
                    let of_issuer = by_issuer.entry(subject.issuer).or_insert_with(signed);
                    of_issuer.iter().find_map(|held| held.revokes(subject))
                }
            });
            let Some(reason) = reasons.next() else { continue };
            self.all.lock().remove(&number);
            // The connection may just have ended by itself.
            ended += usize::from(watch.revoked.lock().take().is_some_and(|revoked| revoked.send(reason).is_ok()));
        }
        ended
    }
}
