//! Where the service of revocation meets a listener: which certificates it asks about, what it staples, and the clients that are let in or
//! let go by what it says.

use super::counted::Counted;
use std::sync::Arc;
use std::time::Duration;

use gm_tls::TlsStream;
use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::revocation::{Admission, Inspector, NotAdmitted, Reason, StapleSource};
use gm_tls::server::ServerContext;
use mqtt_codec::ReasonCode;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use crate::causes::Causes;
use crate::config::{ClientStatus, ConfigError, FileRef, Stapling};
use crate::conn::{self, Io};
use crate::revocation::{Policy, Revocation, Slot, must_staple};

/// What the contexts of one listener get of the service.
pub(super) struct Status {
    service: Arc<Revocation>,
    slots: Vec<Arc<Slot>>,
    /// What is asked about the certificates of clients, by each block that asks.
    pub(super) policies: Vec<Arc<Policy>>,
}

impl Status {
    pub(super) fn new(service: &Arc<Revocation>) -> Status {
        Status { service: Arc::clone(service), slots: Vec::new(), policies: Vec::new() }
    }

    pub(super) fn inspector(
        &mut self,
        status: &ClientStatus,
        anchors: &[Certificate],
    ) -> Result<Option<Arc<dyn Inspector>>, Vec<ConfigError>> {
        let Some(policy) = self.service.inspector(status, anchors)? else { return Ok(None) };
        self.policies.push(Arc::clone(&policy));
        Ok(Some(policy))
    }

    /// Makes a place for the answer that is stapled to a certificate of the server; gives the mistake that keeps it from being asked for.
    pub(super) fn add(
        &mut self,
        file: &FileRef,
        config: Option<&Stapling>,
        chain: &CertificateChain,
    ) -> Option<ConfigError> {
        let Some(config) = config else {
            let reason = "the certificate promises stapled OCSP answers (must-staple), and clients that insist on them \
                          would refuse it; add ocsp = { enable_ocsp_stapling = true }";
            return must_staple(&chain.leaf).then(|| file.error(reason));
        };
        let issuer = match &config.issuer {
            Some(file) => match Certificate::anchors_from_file("", file.path()) {
                Ok(found) => found.into_iter().next(),
                Err(cause) => return Some(file.error(Causes(&cause).to_string())),
            },
            None => None,
        };
        match self.service.slot(config, chain, issuer.as_ref()) {
            Ok(slot) => {
                self.slots.push(slot);
                None
            }
            Err(reason) => Some(config.place.error(reason)),
        }
    }

    pub(super) fn staples(&mut self) -> Option<Arc<dyn StapleSource>> {
        self.service.staples(std::mem::take(&mut self.slots))
    }
}

/// Waits until it is known whether a client may come in: at most three quarters of what is left of its handshake, so that an answer
/// that does not come leaves time to let it in where the operator wants that.
pub(super) async fn admit(
    context: &ServerContext,
    stream: &mut TlsStream<Counted<TcpStream>>,
    deadline: Instant,
) -> Result<Admission, NotAdmitted> {
    let Some(inspector) = context.inspector() else { return Ok(Admission::default()) };
    let chains = stream.take_peer_chains().unwrap_or_default();
    let wait: Duration = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
    Arc::clone(inspector).admit(stream.peer_identity(), chains, wait).await
}

/// Serves a connection to its end, which comes sooner when a certificate of the client is revoked.
pub(super) async fn serve(io: Box<dyn Io>, context: conn::Context, revoked: oneshot::Receiver<Reason>) {
    let (remote, listener, peer) = (context.remote, Arc::clone(&context.listener), context.peer.clone());
    let withdrawn = async {
        match revoked.await {
            Ok(reason) => {
                info!(
                    listener = &*listener,
                    %remote,
                    certificate = conn::certificate_shown(peer.as_deref()),
                    %reason,
                    "connection closed: a certificate of the client was revoked"
                );
            }
            // Nobody watches any more.
            Err(_) => std::future::pending().await,
        }
    };
    conn::serve_until(io, context, withdrawn, ReasonCode::NotAuthorized).await;
}
