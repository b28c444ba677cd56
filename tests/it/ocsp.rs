//! What OCSP responders say of clients, over every protocol, and responders that misbehave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gm_tls::cert::Certificate;
use gm_tls::pki::{AnswerTimes, CertificateAuthority, Responder, Status, StatusServices, serial_bytes};
use shangmq::operator::AlarmKind;
use testkit::{Behaviour, Transport};

use crate::alarms::until_raised;
use crate::broker::eventually;
use crate::revocation::{OCSP, PROTOCOLS, World, now, refused};

/// An OCSP responder for this world, by the authority's own key.
pub fn responder(world: &World, revoked: Vec<Certificate>, seconds: i64) -> Behaviour {
    let ca = world.ca.clone();
    let revoked: Vec<Vec<u8>> = revoked.iter().map(serial_bytes).collect();
    Behaviour::Compute(Arc::new(move |request| {
        let responder = Responder { certificate: ca.certificate(), key: ca.key(), delegated: false };
        let times = AnswerTimes { this_update: now() - 60, next_update: Some(now() + seconds) };
        let status = |serial: &[u8]| match revoked.iter().any(|one| one == serial) {
            true => Status::Revoked(now() - 60, 1),
            false => Status::Good,
        };
        CertificateAuthority::answer_ocsp(request, responder, times, status).unwrap()
    }))
}

#[tokio::test]
async fn clients_are_asked_about_by_ocsp_once_while_an_answer_holds() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let (good, bad) = (world.client(transport), world.client(transport));
        world.service.set(OCSP, responder(&world, vec![bad.leaves.last().unwrap().clone()], 600));
        let broker = world.broker("ocsp_check = {}").await;
        good.enter(&broker, transport).await.unwrap().ping().await;
        good.enter(&broker, transport).await.unwrap();
        assert_eq!(world.service.requests(OCSP), good.leaves.len());
        refused(&bad, &broker, transport, "revoked").await;
        let seen = refused(&bad, &broker, transport, "revoked").await;
        assert!(seen.contains("certificate_revoked"), "{seen}");
        let answers = broker.server.revocation().report().ocsp_answers;
        assert!(
            answers.iter().any(|answer| answer.status.as_deref() == Some("revoked (keyCompromise)")),
            "{answers:?}"
        );
    }
}

/// Whatever keeps the answer from being had, nobody is let in under hard-fail, everybody under soft-fail, and the report says why.
#[tokio::test]
async fn an_answer_that_cannot_be_had_refuses_or_lets_in_as_configured() {
    let transport = Transport::Rfc8998;
    let (world, stranger) = (World::new(transport).await, World::new(transport).await);
    let client = world.client(transport);
    let good = responder(&world, Vec::new(), 600);
    let cases = [
        (responder(&world, Vec::new(), -1), "valid until"),
        (responder(&stranger, Vec::new(), 600), "signed neither by"),
        (undated(&world, 3600), "does not say how long it holds"),
        (Behaviour::Serve(Bytes::from_static(&[0x30, 3, 0x0a, 1, 3])), "tryLater"),
        (Behaviour::Endless, "longer than"),
        (Behaviour::Gzip(Bytes::from(vec![0; 1000])), "compressed"),
        (Behaviour::Serve(Bytes::from_static(b"<html>")), "not an OCSP response"),
        (Behaviour::Serve(Bytes::new()), "not an OCSP response"),
        (Behaviour::Down, "HTTP"),
        (Behaviour::Status(500), "500"),
        // A question is not sent where the responder did not ask for it.
        (Behaviour::Redirect(world.service.url("/other")), "302"),
        (Behaviour::After(Duration::from_secs(60), Box::new(good)), "no whole answer within"),
    ];
    for (behaviour, words) in cases {
        let slow = matches!(behaviour, Behaviour::After(..));
        let timeout = if slow { "200ms" } else { "5s" };
        let bounds = format!("http_timeout = {timeout:?}\nallowed_hosts = [\"127.0.0.1\"]");
        world.service.set(OCSP, behaviour);
        let hard = world.broker_with("ocsp_check = {}", &bounds).await;
        refused(&client, &hard, transport, "revocation_unknown").await;
        let answer = hard.server.revocation().report().ocsp_answers.remove(0);
        assert!(answer.error.as_ref().is_some_and(|error| error.contains(words)), "{words}: {answer:?}");
        let soft = world.broker_with("ocsp_check = { mode = \"soft-fail\" }", &bounds).await;
        client.enter(&soft, transport).await.unwrap();
    }
}

// Every client was refused, and only the lines about each of them told why.
#[tokio::test]
async fn a_responder_that_does_not_answer_is_an_alarm_under_hard_fail_until_it_answers_anybody() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let (first, second) = (world.client(transport), world.client(transport));
    world.service.set(OCSP, Behaviour::Down);
    let (soft, hard) =
        (world.broker("ocsp_check = { mode = \"soft-fail\" }").await, world.broker("ocsp_check = {}").await);
    first.enter(&soft, transport).await.unwrap();
    until_raised(&soft.server, AlarmKind::OcspUnreachable, &[]).await;
    refused(&first, &hard, transport, "revocation_unknown").await;
    let name = format!("ocsp_unreachable/{}", world.service.url(OCSP));
    until_raised(&hard.server, AlarmKind::OcspUnreachable, &[&name]).await;
    let alarm = hard.server.operator().alarms().active.into_iter().find(|alarm| alarm.name == name).unwrap();
    assert!(alarm.urgent && alarm.message.contains("CA"), "{alarm:?}");
    assert!(alarm.causes[0].contains("HTTP"), "{alarm:?}");
    // The first client does not come again, so that nobody asks about it.
    world.service.set(OCSP, responder(&world, Vec::new(), 600));
    second.enter(&hard, transport).await.unwrap();
    until_raised(&hard.server, AlarmKind::OcspUnreachable, &[]).await;
}

// The next responder answers, and nobody is refused.
#[tokio::test]
async fn a_responder_in_whose_place_another_answers_is_no_alarm() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let ocsp_urls = vec![world.service.url(OCSP), world.service.url(OTHER)];
    let client = world.client_with(transport, StatusServices { ocsp_urls, ..StatusServices::default() });
    world.service.set(OCSP, Behaviour::Down);
    world.service.set(OTHER, responder(&world, Vec::new(), 600));
    let broker = world.broker("ocsp_check = {}").await;
    client.enter(&broker, transport).await.unwrap();
    until_raised(&broker.server, AlarmKind::OcspUnreachable, &[]).await;
}

const OTHER: &str = "/other-ocsp";

// Only the first was asked, and while it was down the client was refused.
#[tokio::test]
async fn the_next_responder_of_a_certificate_is_asked_when_one_does_not_say() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let ocsp_urls = vec![world.service.url(OCSP), world.service.url(OTHER)];
    let client = world.client_with(transport, StatusServices { ocsp_urls, ..StatusServices::default() });
    let silent = Behaviour::After(Duration::from_secs(60), Box::new(Behaviour::Down));
    let first = [Behaviour::Down, Behaviour::Status(500), Behaviour::Serve(Bytes::new()), silent];
    // No fetch ends before the handshake has to.
    let bounds = "http_timeout = \"60s\"\nallowed_hosts = [\"127.0.0.1\"]";
    world.service.set(OTHER, responder(&world, Vec::new(), 14));
    for behaviour in first {
        world.service.set(OCSP, behaviour);
        let broker = world.broker_with("ocsp_check = {}", bounds).await;
        client.enter(&broker, transport).await.unwrap();
    }
    // Connections are watched by the answer that let them in.
    world.service.set(OCSP, Behaviour::Down);
    let broker = world.broker("ocsp_check = { on_revoked = \"close\" }").await;
    let mut goes = client.enter(&broker, transport).await.unwrap();
    world.service.set(OTHER, responder(&world, client.leaves.clone(), 600));
    goes.expect_closed().await;
    refused(&client, &broker, transport, "revoked").await;
    world.service.set(OTHER, Behaviour::Down);
    let broker = world.broker("ocsp_check = {}").await;
    refused(&client, &broker, transport, "revocation_unknown").await;
}

/// A responder whose answers, so many seconds old, do not say how long they hold.
fn undated(world: &World, age: i64) -> Behaviour {
    let ca = world.ca.clone();
    Behaviour::Compute(Arc::new(move |request| {
        let responder = Responder { certificate: ca.certificate(), key: ca.key(), delegated: false };
        let times = AnswerTimes { this_update: now() - age, next_update: None };
        CertificateAuthority::answer_ocsp(request, responder, times, |_| Status::Good).unwrap()
    }))
}

#[tokio::test]
async fn connections_end_when_a_responder_revokes_their_certificate() {
    for transport in [Transport::Tls13, Transport::Tlcp] {
        let world = World::new(transport).await;
        let (good, bad) = (world.client(transport), world.client(transport));
        // The answer holds for so long that it is asked for anew in a few seconds.
        world.service.set(OCSP, responder(&world, Vec::new(), 14));
        let closing = world.broker("ocsp_check = { on_revoked = \"close\" }").await;
        let keeping = world.broker("ocsp_check = {}").await;
        let mut stays = good.enter(&closing, transport).await.unwrap();
        let mut goes = bad.enter(&closing, transport).await.unwrap();
        let mut kept = bad.enter(&keeping, transport).await.unwrap();
        // Over TLCP the encryption certificate.
        world.service.set(OCSP, responder(&world, vec![bad.leaves.last().unwrap().clone()], 600));
        let closed = || closing.sample("shangmq_revocation_events_total{event=\"connection_closed\"}");
        eventually("it is asked for anew", || closed() == 1).await;
        goes.expect_closed().await;
        stays.ping().await;
        kept.ping().await;
        refused(&bad, &closing, transport, "revoked").await;
    }
}

// The answer that revoked was forgotten when it ended, and under soft-fail the client was let in as soon as its responder was down.
#[tokio::test]
async fn what_a_responder_revoked_stays_so_when_it_is_heard_no_more_or_repeats_itself() {
    let transport = Transport::Tlcp;
    let world = World::new(transport).await;
    let bad = world.client(transport);
    world.service.set(OCSP, responder(&world, bad.leaves.clone(), 3));
    let broker = world.broker("ocsp_check = { mode = \"soft-fail\" }").await;
    refused(&bad, &broker, transport, "revoked").await;
    let fetched = |outcome| broker.server.revocation().counters().fetches("ocsp", outcome);
    // An answer that was good before it was revoked is brought back.
    world.service.set(OCSP, undated(&world, 300));
    let ended = || broker.server.revocation().report().ocsp_answers.iter().all(|answer| answer.state != "current");
    eventually("the answers have ended", ended).await;
    while fetched("failed") == 0 {
        let _ = bad.enter(&broker, transport).await.map(|_| ()).expect_err("let in");
    }
    world.service.set(OCSP, Behaviour::Down);
    refused(&bad, &broker, transport, "revoked").await;
}

// A responder that hung gave no answer in time, and under soft-fail a client that it had revoked was let in.
#[tokio::test]
async fn what_a_responder_revoked_stays_so_while_it_is_silent() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let bad = world.client(transport);
    world.service.set(OCSP, responder(&world, bad.leaves.clone(), 2));
    // No fetch ends before the handshake has to.
    let bounds = "http_timeout = \"60s\"\nallowed_hosts = [\"127.0.0.1\"]";
    let broker = world.broker_with("ocsp_check = { mode = \"soft-fail\" }", bounds).await;
    refused(&bad, &broker, transport, "revoked").await;
    world.service.set(OCSP, Behaviour::After(Duration::from_secs(60), Box::new(Behaviour::Down)));
    let ended = || broker.server.revocation().report().ocsp_answers.iter().all(|answer| answer.state != "current");
    eventually("the answer has ended", ended).await;
    refused(&bad, &broker, transport, "revoked").await;
}
