//! Who a client is before a word of its CONNECT is believed: its certificate, and the names that the listener takes from it.

use super::{Close, Context};
use crate::auth::{DenyReason, Peer, Security, VerifiedCertificate, check_name, name_of};
use crate::telemetry::shortened;
use bytestring::ByteString;
use gm_tls::identity::PeerIdentity;
use std::sync::Arc;

/// The subject of a client's certificate for a line of the log, which alone pays for reading it.
pub fn certificate_shown(peer: Option<&PeerIdentity>) -> Option<String> {
    let certificate = peer?.signing.as_ref()?.decode().ok()?;
    Some(shortened(&certificate.subject()).to_owned())
}

/// What the connection says of its client.
#[derive(Debug)]
pub(super) struct Known {
    pub peer: Peer,
    /// The client identifier that the certificate gives.
    pub client_id: Option<ByteString>,
}

impl Known {
    /// # Errors
    /// The listener takes names from certificates, and this client's gives none.
    pub fn of(context: &Context) -> Result<Known, Close> {
        let security = match (&context.peer, &context.proxied) {
            (Some(peer), _) => Security::of(peer),
            (None, Some(_)) => Security::PROXIED,
            (None, None) => Security::PLAIN,
        };
        let certificate = context.peer.as_ref().and_then(|peer| peer.signing.as_ref());
        let certificate = certificate.map(VerifiedCertificate::new).transpose();
        let certificate = certificate.map_err(|_| Close::Denied(DenyReason::Unavailable))?.map(Arc::new);
        let proxied_name = context.proxied.as_ref().and_then(|proxied| proxied.common_name.clone());
        let names = context.policy.peer_names;
        let sound = |name: &ByteString| check_name(name).is_ok();
        let psk = context.peer.as_ref().and_then(|peer| peer.psk.as_deref()).map(ByteString::from);
        let mut peer = Peer { security, certificate, proxied_name, psk, username: None };
        let name = |asked, key, peer: &Peer| {
            name_of(asked, peer).map_err(|fault| Close::Denied(DenyReason::PeerName(key, fault)))
        };
        let username = name(names.username, "peer_cert_as_username", &peer)?;
        let client_id = name(names.client_id, "peer_cert_as_clientid", &peer)?;
        peer.username = username.map(ByteString::from);
        peer.proxied_name = peer.proxied_name.filter(sound);
        Ok(Known { peer, client_id: client_id.map(ByteString::from) })
    }

    /// The user name that authenticators are asked about. Where the certificate says it, the client's own word for it is not heard, and
    /// none is to be judged unless the client shows a password besides.
    pub fn username<'a>(&'a self, sent: Option<&'a str>, shows_password: bool) -> Option<&'a str> {
        match &self.peer.username {
            Some(_) if !shows_password => None,
            Some(name) => Some(name),
            None => sent,
        }
    }
}
