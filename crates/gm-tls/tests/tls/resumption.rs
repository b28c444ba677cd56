//! Sessions: what resumes, and what must not.

use gm_tls::{
    client::{ClientOptions, ClientProtocol, Connector, Session},
    server::{Resumption, ServerContexts, ServerOptions, VerifyMode},
    tickets::TicketKeys,
};

use crate::harness::{meet_resuming, mutual_options, over_every_protocol, send, server_options};

fn resuming(ids: bool, tickets: bool) -> ServerContexts {
    let resumption = Resumption { ids, tickets, ..Resumption::default() };
    let mut options = server_options(VerifyMode::Required);
    for slot in [
        options.tls.as_mut().map(|tls| &mut tls.resumption),
        options.rfc8998.as_mut().map(|rfc8998| &mut rfc8998.resumption),
        options.tlcp.as_mut().map(|tlcp| &mut tlcp.resumption),
    ] {
        *slot.unwrap() = resumption.clone();
    }
    ServerContexts::new(&options).unwrap()
}

/// Connects, exchanges data, and returns whether the session was resumed and the one to resume next.
async fn visit(contexts: &ServerContexts, connector: &Connector, session: Option<&Session>) -> (bool, Option<Session>) {
    let (accepted, connected) = meet_resuming(contexts, connector, session).await;
    let (mut accepted, mut connected) = (accepted.unwrap().unwrap(), connected.unwrap());
    send(&mut accepted, &mut connected, b"a ticket comes before this").await;
    send(&mut connected, &mut accepted, b"back").await;
    let (here, there) = (accepted.peer_identity(), connected.peer_identity());
    assert_eq!(here.resumed, there.resumed);
    let name = here.signing.as_ref().unwrap().decode().unwrap().common_name().unwrap();
    assert_eq!(name.as_deref(), Some("client"), "a resumed session keeps the client's certificate");
    assert_eq!(here.encryption.is_some(), here.protocol == gm_tls::Protocol::Tlcp);
    (here.resumed, connected.session())
}

fn connector(protocol: ClientProtocol) -> Connector {
    Connector::new(&ClientOptions { ..mutual_options(protocol) }).unwrap()
}

over_every_protocol!(resumes_from_the_servers_memory, |protocol| async move {
    let (contexts, connector) = (resuming(true, false), connector(protocol));
    let (resumed, session) = visit(&contexts, &connector, None).await;
    assert!(!resumed);
    assert!(visit(&contexts, &connector, Some(&session.unwrap())).await.0);
});

over_every_protocol!(resumes_from_a_ticket_except_over_tlcp, |protocol| async move {
    let (contexts, connector) = (resuming(false, true), connector(protocol));
    let (_, session) = visit(&contexts, &connector, None).await;
    let resumed = visit(&contexts, &connector, session.as_ref()).await.0;
    assert_eq!(resumed, protocol != ClientProtocol::Tlcp);
});

over_every_protocol!(does_not_resume_unless_configured, |protocol| async move {
    let (contexts, connector) = (resuming(false, false), connector(protocol));
    let (_, session) = visit(&contexts, &connector, None).await;
    assert!(!visit(&contexts, &connector, session.as_ref()).await.0);
});

over_every_protocol!(does_not_resume_in_the_contexts_of_another_server, |protocol| async move {
    let connector = connector(protocol);
    for (ids, tickets) in [(true, false), (false, true)] {
        let (_, session) = visit(&resuming(ids, tickets), &connector, None).await;
        assert!(!visit(&resuming(ids, tickets), &connector, session.as_ref()).await.0);
    }
});

over_every_protocol!(a_session_of_another_connector_is_not_offered, |protocol| async move {
    let contexts = resuming(true, false);
    let (_, session) = visit(&contexts, &connector(protocol), None).await;
    assert!(!visit(&contexts, &connector(protocol), session.as_ref()).await.0);
});

fn with_keys(keys: &TicketKeys, change: impl Fn(&mut ServerOptions)) -> ServerContexts {
    let mut options = server_options(VerifyMode::Required);
    let tickets = Resumption { tickets: true, ..Resumption::default() };
    options.tls.as_mut().unwrap().resumption = tickets.clone();
    options.rfc8998.as_mut().unwrap().resumption = tickets.clone();
    options.tlcp.as_mut().unwrap().resumption = tickets;
    (options.ticket_keys, options.scope) = (Some(keys.clone()), "ssl:a".to_owned());
    change(&mut options);
    ServerContexts::new(&options).unwrap()
}

fn seeded() -> TicketKeys {
    TicketKeys::from_seed(zeroize::Zeroizing::new(b"a seed that nodes share".to_vec()))
}

over_every_protocol!(a_ticket_is_good_at_another_node_with_the_seed, |protocol| async move {
    let connector = connector(protocol);
    let (_, session) = visit(&with_keys(&seeded(), |_| {}), &connector, None).await;
    let resumed = visit(&with_keys(&seeded(), |_| {}), &connector, session.as_ref()).await.0;
    assert_eq!(resumed, protocol != ClientProtocol::Tlcp);
    let stranger = TicketKeys::random().unwrap();
    assert!(!visit(&with_keys(&stranger, |_| {}), &connector, session.as_ref()).await.0, "of another seed");
});

over_every_protocol!(a_ticket_is_not_good_where_clients_are_judged_otherwise, |protocol| async move {
    let connector = connector(protocol);
    let (_, session) = visit(&with_keys(&seeded(), |_| {}), &connector, None).await;
    let depth = with_keys(&seeded(), |options| {
        options.tls.as_mut().unwrap().client_auth.depth = 3;
        options.rfc8998.as_mut().unwrap().client_auth.depth = 3;
    });
    let elsewhere = with_keys(&seeded(), |options| options.scope = "ssl:b".to_owned());
    // One authority more or less.
    let authorities = with_keys(&seeded(), |options| {
        let (tls, rfc8998) = (options.tls.as_mut().unwrap(), options.rfc8998.as_mut().unwrap());
        for auth in [&mut tls.client_auth, &mut rfc8998.client_auth] {
            let first = auth.ca[0].clone();
            auth.ca.push(first);
        }
    });
    for other in [depth, elsewhere, authorities] {
        assert!(!visit(&other, &connector, session.as_ref()).await.0);
    }
});

over_every_protocol!(a_key_makes_tickets_for_an_hour_and_opens_them_for_their_lifetime, |protocol| async move {
    let connector = connector(protocol);
    let at = |clock: fn() -> u64| with_keys(&seeded().with_clock(clock), |_| {});
    let (_, session) = visit(&at(|| 1_000_000), &connector, None).await;
    let tickets = protocol != ClientProtocol::Tlcp;
    assert_eq!(visit(&at(|| 1_000_000 + 7_100), &connector, session.as_ref()).await.0, tickets);
    assert!(!visit(&at(|| 1_000_000 + 4 * 3600), &connector, session.as_ref()).await.0);
});
