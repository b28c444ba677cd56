//! Established connections that end when one of their certificates is revoked.

use std::sync::Arc;

use gm_tls::revocation::Reason;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::held::{Held, Issuer, Subject};

/// The connections. Each has its place among those of its listener, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct Watches {
    next: Mutex<u64>,
    all: Mutex<HashMap<u64, Watch>>,
}

#[derive(Debug)]
struct Watch {
    certificates: Vec<(Subject, Arc<Issuer>)>,
    revoked: oneshot::Sender<Reason>,
}

impl Watches {
    /// Watches certificates until the receiver is dropped.
    pub(super) fn add(&self, certificates: Vec<(Subject, Arc<Issuer>)>) -> oneshot::Receiver<Reason> {
        let (revoked, receiver) = oneshot::channel();
        let number = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        self.all.lock().insert(number, Watch { certificates, revoked });
        receiver
    }

    /// Forgets connections that have ended.
    pub(super) fn forget_ended(&self) {
        self.all.lock().retain(|_, watch| !watch.revoked.is_closed());
    }

    /// Ends every connection of which a list revokes a certificate, and says how many.
    pub(super) fn compare(&self, lists: &[Arc<Held>]) -> usize {
        let mut by_issuer: HashMap<[u8; 32], Vec<Arc<Held>>> = HashMap::new();
        let mut ended = 0;
        let mut all = self.all.lock();
        let revoked = all.extract_if(|_, watch| {
            watch.certificates.iter().any(|(subject, issuer)| {
                let of_issuer = by_issuer
                    .entry(subject.issuer)
                    .or_insert_with(|| lists.iter().filter(|held| held.verify(issuer).is_ok()).cloned().collect());
                of_issuer.iter().any(|held| held.revokes(subject).is_some())
            })
        });
        let revoked: Vec<Watch> = revoked.map(|(_, watch)| watch).collect();
        drop(all);
        for watch in revoked {
            let reason = watch.certificates.iter().find_map(|(subject, _)| {
                let lists = by_issuer.get(&subject.issuer)?;
                lists.iter().find_map(|held| held.revokes(subject))
            });
            // The connection may just have ended by itself.
            ended += usize::from(reason.is_some_and(|reason| watch.revoked.send(reason).is_ok()));
        }
        ended
    }
}
