//! Sessions that are resumed are judged by what holds today, over every protocol.

use gm_tls::cert::Certificate;
use gm_tls::client::{Connector, Session};
use gm_tls::revocation::is_issued_by;
use shangmq::operator::Trigger;
use testkit::Transport;
use tokio::net::TcpStream;

use crate::broker::{TestBroker, certificates, eventually};
use crate::revocation::{PROTOCOLS, RESUME, World, greet, refusals};

/// Connects as far as CONNACK, and tells whether a session was resumed and which can be the next time.
async fn visit(
    broker: &TestBroker,
    transport: Transport,
    connector: &Connector,
    session: Option<&Session>,
) -> Result<(bool, Option<Session>), String> {
    let stream = TcpStream::connect(broker.address(transport)).await.unwrap();
    let mut secured = connector.connect_resuming(stream, session).await.map_err(|error| error.to_string())?;
    greet(&mut secured).await.map_err(|error| error.to_string())?;
    Ok((secured.peer_identity().resumed, secured.session()))
}

// A session brought back certificates that had been verified when it began, and with them a client that was revoked since.
#[tokio::test]
async fn a_resumed_session_is_judged_by_the_lists_of_today() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let client = world.client(transport);
        let file = world.path("ca.crl");
        std::fs::write(&file, world.list(&[])).unwrap();
        let lines = format!("reuse_sessions = true\ncrl = {{ files = [{file:?}], distribution_points = false }}");
        let broker = world.broker(&lines).await;
        let connector = client.connector(transport);
        let (_, session) = visit(&broker, transport, &connector, None).await.unwrap();
        let (resumed, session) = visit(&broker, transport, &connector, session.as_ref()).await.unwrap();
        assert!(resumed, "{transport:?}");
        let revoked = world.list(&[client.leaves.last().unwrap()]);
        broker.server.revocation().upload("today", revoked).unwrap();
        let before = refusals(&broker, "revoked");
        visit(&broker, transport, &connector, session.as_ref()).await.expect_err("let in");
        eventually("the refusal is counted", || refusals(&broker, "revoked") > before).await;
    }
}

/// However often it is resumed: TLS 1.3 gives a new ticket each time, with the whole lifetime of sessions.
#[tokio::test]
async fn a_session_ends_with_the_certificate_of_its_client() {
    let over = PROTOCOLS.map(|transport| async move {
        let world = World::new(transport).await;
        let client = world.client_for(transport, 6);
        let broker = world.broker(RESUME).await;
        let connector = client.connector(transport);
        let (_, mut session) = visit(&broker, transport, &connector, None).await.unwrap();
        let mut times = 0;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let refused = loop {
            assert!(std::time::Instant::now() < deadline, "{transport:?}: still let in");
            match visit(&broker, transport, &connector, session.as_ref()).await {
                Ok((resumed, next)) => {
                    times += usize::from(resumed);
                    session = next.or(session);
                }
                Err(refused) => break refused,
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        assert!(times > 0, "{transport:?}: never resumed");
        assert!(refused.contains("certificate_expired"), "{transport:?}: {refused}");
        // Not refused by the session that it shows, but by its certificate, which it was asked for again.
        eventually("the refusal is counted", || refusals(&broker, "expired") > 0).await;
    });
    futures_util::future::join_all(over).await;
}

#[tokio::test]
async fn a_session_is_not_resumed_once_its_authority_was_removed_by_a_reload() {
    for transport in PROTOCOLS {
        let (world, other) = (World::new(transport).await, World::new(transport).await);
        let client = world.client(transport);
        let broker = world.broker(RESUME).await;
        let connector = client.connector(transport);
        let (_, session) = visit(&broker, transport, &connector, None).await.unwrap();
        let (resumed, session) = visit(&broker, transport, &connector, session.as_ref()).await.unwrap();
        assert!(resumed, "{transport:?}");
        std::fs::write(world.path("root.pem"), other.root.certificate().to_pem()).unwrap();
        broker.server.operator().clone().reload_aside(Trigger::Command).await.unwrap();
        let refused = visit(&broker, transport, &connector, session.as_ref()).await.map(|_| ()).expect_err("let in");
        assert!(refused.contains("unknown_ca"), "{transport:?}: {refused}");
    }
}

// A ticket brings no chain, and who issued its client's certificate was forgotten by each reload: clients were refused until they gave up
// their tickets.
#[tokio::test]
async fn a_reload_takes_no_client_its_session() {
    for transport in [Transport::Tls12, Transport::Tls13, Transport::Rfc8998] {
        let world = World::new(transport).await;
        let client = world.client(transport);
        let broker = world.broker(&format!("{RESUME}\ncrl = {{}}")).await;
        let connector = client.connector(transport);
        let (_, session) = visit(&broker, transport, &connector, None).await.unwrap();
        // The server's own certificates change, and not whose clients are let in.
        for name in ["tls.crt", "sm2.crt"] {
            let leaf = Certificate::anchors_from_file("", &world.path(name)).unwrap().remove(0);
            let all = Certificate::anchors_from_file("", &certificates().ca_bundle()).unwrap();
            let issuer = all.iter().find(|authority| is_issued_by(&leaf, authority)).unwrap();
            std::fs::write(world.path(name), [leaf.to_pem(), issuer.to_pem()].concat()).unwrap();
        }
        let outcome = broker.server.operator().clone().reload_aside(Trigger::Command).await.unwrap();
        assert_eq!(outcome.listeners.len(), 1, "{outcome:?}");
        let (resumed, _) = visit(&broker, transport, &connector, session.as_ref()).await.unwrap();
        assert!(resumed, "{transport:?}");
    }
}
