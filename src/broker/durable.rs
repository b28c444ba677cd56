//! What the broker writes to the store, and what it makes of it at start.

use super::estate::Estate;
use super::registry::Parked;
use super::{Broker, Subscriber};
use crate::auth::{Auth, Identity, Owner, Peer, Security, VerifiedCertificate};
use crate::session::{Backlog, Delivery, Rows, Session, Ticket};
use crate::store::{Batch, Health, Key, RecoveredSession, Row, SessionId, SessionRow, Store, WillAuthor};
use gm_tls::cert::CertError;
use mqtt_codec::topic::SharedFilter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::error;

/// The changes of one message or one event: a batch is begun when the first of them comes, and never for one that touches no durable
/// state. To be begun before a session's lock is taken.
#[derive(Debug)]
pub struct Changes<'a> {
    store: Option<&'a Store>,
    batch: Option<Batch<'a>>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(store: Option<&'a Store>) -> Changes<'a> {
        Changes { store, batch: None }
    }

    /// The batch, begun if it was not; `None` without a store.
    pub(super) fn begin(&mut self) -> Option<&mut Batch<'a>> {
        let store = self.store?;
        Some(self.batch.get_or_insert_with(|| store.batch()))
    }

    /// Of the last change; 0 if there was none.
    pub fn ticket(&self) -> Ticket {
        self.batch.as_ref().map_or(0, Batch::ticket)
    }
}

/// The rows of one session, as its queue writes them.
pub(super) struct InBatch<'a, 'b> {
    pub id: SessionId,
    pub changes: &'a mut Changes<'b>,
}

impl Rows for InBatch<'_, '_> {
    fn put(&mut self, seq: u64, delivery: &Delivery) -> Ticket {
        let row = Row::Delivery(delivery.clone());
        self.changes.begin().map_or(0, |batch| batch.put(Key::Delivery(self.id, seq), row))
    }

    fn delete(&mut self, seq: u64) -> Ticket {
        self.changes.begin().map_or(0, |batch| batch.delete(Key::Delivery(self.id, seq)))
    }
}

/// The same, each change by itself.
pub(super) struct OneByOne<'a> {
    pub id: SessionId,
    pub store: &'a Store,
}

impl Rows for OneByOne<'_> {
    fn put(&mut self, seq: u64, delivery: &Delivery) -> Ticket {
        self.store.put(Key::Delivery(self.id, seq), Row::Delivery(delivery.clone()))
    }

    fn delete(&mut self, seq: u64) -> Ticket {
        self.store.delete(Key::Delivery(self.id, seq))
    }
}

impl Broker {
    /// The store, unless durability is off.
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// Why a durable change is not taken now.
    pub(super) fn store_trouble(&self) -> Option<Health> {
        self.store.as_ref().map(|store| store.health()).filter(|health| *health != Health::Good)
    }

    /// Whether changes that nobody waits for can go to the store now. Without one there is nothing to wait for.
    pub(super) fn store_takes(&self) -> bool {
        self.store.as_ref().is_none_or(|store| store.takes())
    }

    /// The row of a session whose connection is gone.
    pub(super) fn parked_row(&self, parked: &Parked) -> Box<SessionRow> {
        let (next_seq, sent_below, judged) = parked.subscriber.queue_state();
        Box::new(SessionRow {
            client_id: parked.subscriber.client_id().clone(),
            owner: parked.subscriber.owner().as_text().clone(),
            expiry: parked.session.expiry,
            connected: false,
            ended: false,
            ends_at: parked.ends_at,
            will: parked.will.as_ref().map(|(due, will)| (Some(*due), will.clone())),
            author: parked.rights.as_ref().map(|rights| WillAuthor::of(rights.identity())),
            sent_below,
            next_seq,
            judged,
        })
    }

    /// Takes over the sessions that the store held. To be called before anything listens.
    pub fn recover(&self, sessions: Vec<RecoveredSession>, auth: &Auth) {
        for session in sessions {
            self.recover_session(session, auth);
        }
    }

    fn recover_session(&self, recovered: RecoveredSession, auth: &Auth) {
        let Some(store) = &self.store else { return };
        let RecoveredSession { id, row, subscriptions, inbound, queue } = recovered;
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
        if row.ended {
            self.estates.add(Estate { id, sent_below: row.sent_below, left: 0 });
            return;
        }
        let SessionRow {
            client_id, owner, expiry, connected, ends_at, will, author, sent_below, next_seq, judged, ..
        } = row;
        let now = self.now();
        let next = next_seq.max(queue.last.saturating_add(1));
        let first = if queue.rows == 0 { next } else { queue.first };
        // After a crash it is not known what was sent.
        let (taken_below, again_below) = if connected {
            (sent_below.max(queue.in_flight.saturating_add(1)).min(next), next)
        } else {
            (sent_below.min(next), sent_below)
        };
        let mut backlog = Backlog::recovered(first, next, taken_below, again_below, queue.bytes);
        if judged {
            backlog.judge_rows();
        }
        if queue.shared {
            backlog.mark_shared();
        }
        let subscriber =
            Subscriber::new(id, client_id.clone(), Owner::from_text(owner), Arc::clone(&self.queue_limits));
        let subscriber = Arc::new(subscriber.stored(Arc::clone(store), backlog));
        let mut session = Session::new(expiry);
        session.inflight.set_floor(first);
        for packet_id in inbound {
            session.awaiting_release.recover(packet_id, now);
        }
        for (filter, options) in subscriptions {
            let shared = SharedFilter::parse(&filter);
            let inserted = match &shared {
                Ok(Some(shared)) => {
                    self.router.insert(shared.filter, Some(shared.group), Arc::clone(&subscriber), options)
                }
                Ok(None) => self.router.insert(&filter, None, Arc::clone(&subscriber), options),
                Err(_) => continue,
            };
            match inserted {
                Ok(_) => {
                    session.subscriptions.insert(filter, options);
                }
                Err(error) => {
                    error!(client_id = &*client_id, filter = &*filter, ?error, "a stored subscription is not served")
                }
            }
        }
        let identity = author.map(|author| author.identity(client_id.clone())).transpose();
        let (will, rights) = match identity {
            Ok(identity) => (will, identity.flatten().map(|identity| auth.rights(Arc::new(identity)))),
            Err(error) => {
                error!(client_id = &*client_id, %error, "a stored will is not published: no rule can be asked about its client");
                self.metrics.dropped_unauthorized.fetch_add(1, Ordering::Relaxed);
                (None, None)
            }
        };
        let parked = Parked {
            session,
            subscriber: Arc::clone(&subscriber),
            // A crash ends connections at the next start: nobody knows better when it was.
            ends_at: if connected { expiry.deadline(now) } else { ends_at },
            will: will.map(|(due, will)| (due.unwrap_or_else(|| now.saturating_add(will.delay)), will)),
            rights,
        };
        if connected {
            store.put(Key::Session(id), Row::Session(self.parked_row(&parked)));
        }
        self.sessions.recover(client_id, parked, |at, slot| self.schedule(at, slot));
    }
}

impl WillAuthor {
    pub(super) fn of(identity: &Identity) -> WillAuthor {
        WillAuthor {
            username: identity.username.clone(),
            remote: identity.remote,
            certificate: identity.certificate().map(|certificate| certificate.as_der().into()),
            channel: identity.peer.security.channel.name().into(),
            suite: identity.peer.security.suite.into(),
            proxied_name: identity.peer.proxied_name.clone(),
            psk: identity.peer.psk.clone(),
            known_by_more: identity.rules.is_some(),
        }
    }

    /// Whom to ask rules about; `None` for a client that the list of its token decides about, which is not kept: it cannot change, and
    /// the will was judged by it at CONNECT.
    fn identity(self, client_id: bytestring::ByteString) -> Result<Option<Identity>, CertError> {
        let WillAuthor { username, remote, certificate, channel, suite, proxied_name, psk, known_by_more } = self;
        if known_by_more {
            return Ok(None);
        }
        let certificate = certificate.map(|der| VerifiedCertificate::from_stored(&der)).transpose()?.map(Arc::new);
        let security = Security::from_names(&channel, &suite);
        let peer = Peer { security, certificate, proxied_name, psk, username: None };
        Ok(Some(Identity { client_id, username, remote, peer, rules: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Channel;
    use gm_tls::cert::{Certificate, Source};

    #[test]
    fn the_author_of_a_stored_will_has_the_certificate_that_was_verified() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = crate::dev_certs::ensure(&dir.path().join("certs")).unwrap();
        let pem = std::fs::read(certificates.client_ecdsa().cert).unwrap();
        let certificate = Certificate::from_pem(&Source::new("the client's certificate"), &pem).unwrap();
        let verified = Arc::new(VerifiedCertificate::from_stored(&certificate.to_der()).unwrap());
        let identity = Identity {
            client_id: "c".into(),
            username: None,
            remote: [192, 0, 2, 1].into(),
            peer: Peer {
                certificate: Some(Arc::clone(&verified)),
                security: Security { channel: Channel::Tlcp, suite: "ECDHE_SM4_GCM_SM3" },
                ..Peer::default()
            },
            rules: None,
        };
        let again = WillAuthor::of(&identity).identity("c".into()).unwrap().expect("rules are asked");
        assert_eq!(again.peer.security, identity.peer.security);
        let certificate = again.certificate().expect("rules are asked about it");
        assert!(verified.common_name().is_some());
        assert_eq!(certificate.common_name(), verified.common_name());
        assert_eq!(certificate.subject(), verified.subject());
        assert_eq!(certificate.fingerprint_sm3(), verified.fingerprint_sm3());
        let broken = WillAuthor { certificate: Some([0x30, 1].into()), ..WillAuthor::of(&identity) };
        assert!(broken.identity("c".into()).is_err());
    }
}
