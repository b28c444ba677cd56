//! Sessions: what resumes, and what must not.

use gm_tls::{
    client::{ClientOptions, ClientProtocol, Connector, Session},
    server::{Resumption, ServerContexts, VerifyMode},
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
