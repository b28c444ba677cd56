//! Revoked clients are refused inside the handshake, and what a server knows of its own certificate goes to those who ask.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use gm_tls::{
    HandshakeFailure, PeerIdentity,
    cert::Certificate,
    client::{ClientOptions, ClientProtocol, Connector},
    revocation::{Admission, Fingerprint, Inspector, NotAdmitted, PeerChains, Reason, Staple, StapleSource},
    server::{Resumption, ServerContexts, ServerOptions, VerifyMode},
    tickets::TicketKeys,
};
use tokio::io::AsyncReadExt;

use crate::harness::{
    client_options, meet, meet_resuming, meet_well, mutual_options, over_every_protocol, send, server_options,
};

/// Knows of every chain with this number that the certificate at this depth is revoked, and remembers all it was asked about.
#[derive(Debug, Default)]
struct Knows {
    revoked: Option<(usize, usize)>,
    asked: Mutex<Vec<usize>>,
    /// It knows no issuer.
    strange: bool,
}

impl Inspector for Knows {
    fn revoked(&self, chain: &[Certificate]) -> Option<(usize, Reason)> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(chain.len());
        self.revoked.filter(|(number, _)| *number + 1 == asked.len()).map(|(_, depth)| (depth, Reason::from_code(1)))
    }

    fn knows_issuer(&self, certificate: &Certificate) -> bool {
        assert_eq!(certificate.common_name().unwrap().as_deref(), Some("client"));
        !self.strange
    }

    fn admit(
        self: Arc<Self>,
        _peer: Arc<PeerIdentity>,
        _chains: PeerChains,
        _wait: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Admission, NotAdmitted>> + Send>> {
        Box::pin(async { Ok(Admission::default()) })
    }
}

fn inspected(inspector: &Arc<Knows>) -> ServerContexts {
    ServerContexts::new(&inspected_options(inspector)).unwrap()
}

fn inspected_options(inspector: &Arc<Knows>) -> ServerOptions {
    let mut options = server_options(VerifyMode::Optional);
    let inspector = || Some(Arc::clone(inspector) as Arc<dyn Inspector>);
    options.tls.as_mut().unwrap().client_auth.inspector = inspector();
    options.rfc8998.as_mut().unwrap().client_auth.inspector = inspector();
    options.tlcp.as_mut().unwrap().client_auth.inspector = inspector();
    options
}

// A ticket brings no chain: a client whose issuer had to be known was refused as long as it showed the ticket.
over_every_protocol!(a_ticket_of_an_unknown_issuers_client_is_passed_over, |protocol| async move {
    let connector = Connector::new(&mutual_options(protocol)).unwrap();
    let keys = TicketKeys::random().unwrap();
    let contexts = |strange| {
        let mut options = inspected_options(&Arc::new(Knows { strange, ..Knows::default() }));
        let tickets = Resumption { tickets: true, ..Resumption::default() };
        options.tls.as_mut().unwrap().resumption = tickets.clone();
        options.rfc8998.as_mut().unwrap().resumption = tickets;
        ServerContexts::new(&ServerOptions { ticket_keys: Some(keys.clone()), ..options }).unwrap()
    };
    let mut session = None;
    for (strange, resumes) in [(false, false), (false, true), (true, false), (false, true)] {
        let (accepted, connected) = meet_resuming(&contexts(strange), &connector, session.as_ref()).await;
        let (mut accepted, mut connected) = (accepted.unwrap().unwrap(), connected.unwrap());
        send(&mut accepted, &mut connected, b"a ticket comes before this").await;
        let resumes = resumes && protocol != ClientProtocol::Tlcp;
        assert_eq!(accepted.peer_identity().resumed, resumes, "{strange}");
        session = connected.session();
    }
});

over_every_protocol!(gives_the_verified_chains_out_once, |protocol| async move {
    let (mut accepted, _) = meet_well(&inspected(&Arc::default()), &mutual_options(protocol)).await;
    let chains = accepted.take_peer_chains().unwrap().0;
    let identity = accepted.peer_identity();
    let kept = [&identity.encryption, &identity.signing].into_iter().flatten();
    let leaves: Vec<Vec<u8>> = chains.iter().map(|chain| chain[0].to_der()).collect();
    assert_eq!(leaves, kept.map(|one| one.as_der().to_vec()).collect::<Vec<_>>());
    assert!(chains.iter().all(|chain| chain.last().unwrap().is_self_issued()));
    assert!(accepted.take_peer_chains().is_none());
});

over_every_protocol!(a_client_without_certificates_has_no_chain, |protocol| async move {
    let (mut accepted, _) = meet_well(&inspected(&Arc::default()), &client_options(protocol)).await;
    assert!(accepted.take_peer_chains().unwrap().0.is_empty());
});

over_every_protocol!(a_client_with_any_certificate_revoked_is_refused_with_an_alert, |protocol| async move {
    let chains = if protocol == ClientProtocol::Tlcp { 2 } else { 1 };
    for number in 0..chains {
        for depth in 0..2 {
            let knows = Arc::new(Knows { revoked: Some((number, depth)), ..Knows::default() });
            let (accepted, connected) = meet(&inspected(&knows), &mutual_options(protocol)).await;
            let refused = accepted.unwrap().expect_err("accepted");
            assert_eq!(refused.reason(), HandshakeFailure::Revoked);
            assert!(refused.to_string().contains("revoked (keyCompromise)"), "{refused}");
            // TLS 1.3 clients learn of it by their first read.
            let told = match connected {
                Ok(mut stream) => stream.read(&mut [0]).await.expect_err("read").to_string(),
                Err(error) => error.to_string(),
            };
            assert!(told.contains("certificate_revoked"), "{told}");
        }
    }
});

/// Has one kind of answer for every certificate, and remembers which it was asked about.
#[derive(Debug)]
struct Has(Staple, Mutex<Vec<Fingerprint>>);

impl StapleSource for Has {
    fn staple(&self, certificate: &Fingerprint) -> Staple {
        self.1.lock().unwrap().push(*certificate);
        self.0.clone()
    }
}

fn stapling(staple: Staple) -> (Arc<Has>, ServerContexts) {
    let source = Arc::new(Has(staple, Mutex::default()));
    let staples = Some(Arc::clone(&source) as Arc<dyn StapleSource>);
    let options = ServerOptions { staples, ..server_options(VerifyMode::None) };
    (source, ServerContexts::new(&options).unwrap())
}

fn asking(protocol: ClientProtocol) -> ClientOptions {
    ClientOptions { ask_status: true, ..client_options(protocol) }
}

over_every_protocol!(staples_for_the_certificate_that_it_uses, |protocol| async move {
    let answer = Bytes::from_static(b"any bytes");
    let (source, contexts) = stapling(Staple::Answer(answer.clone()));
    let (_, connected) = meet_well(&contexts, &asking(protocol)).await;
    assert_eq!(connected.stapled_answer().unwrap(), answer);
    let used = connected.peer_identity().signing.as_ref().unwrap().fingerprint_sha256();
    let asked: Vec<String> =
        source.1.lock().unwrap().iter().map(|one| one.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    assert_eq!(asked, [used]);
});

over_every_protocol!(staples_nothing_for_those_who_do_not_ask_or_without_an_answer, |protocol| async move {
    let (source, contexts) = stapling(Staple::Refuse);
    let (_, connected) = meet_well(&contexts, &client_options(protocol)).await;
    assert!(connected.stapled_answer().is_none() && source.1.lock().unwrap().is_empty());
    let (_, connected) = meet_well(&stapling(Staple::Nothing).1, &asking(protocol)).await;
    assert!(connected.stapled_answer().is_none());
});

over_every_protocol!(refuses_those_who_ask_for_an_answer_that_is_owed_and_missing, |protocol| async move {
    let (accepted, connected) = meet(&stapling(Staple::Refuse).1, &asking(protocol)).await;
    assert!(accepted.unwrap().is_err() && connected.is_err());
});
