//! Attack 27: nobody takes over, ends or empties the session of another by its client identifier.

use testkit::{Client, Connect, ConnectExt, ReasonCode, Transport, connect, in_both_versions, publish};

use crate::access::{user, with_users};
use crate::broker::Setup;
use crate::simulated::SimulatedBroker;

in_both_versions!(another_user_s_session_is_refused_while_it_is_connected, |version| async move {
    let broker = with_users(&["ada", "eve"], "").start().await;
    let mut ada = broker.connect(user("meter", "ada").version(version)).await;
    ada.subscribe("t", 1).await;
    for attempt in [user("meter", "eve"), user("meter", "eve").persistent()] {
        broker.raw().await.expect_refusal(attempt.version(version), ReasonCode::NotAuthorized).await;
    }
    ada.publish(publish("t", 1, "still here")).await;
    ada.expect_message("t", "still here").await;
    // Its owner may take it over.
    broker.connect(user("meter", "ada").version(version)).await;
    ada.expect_disconnect(ReasonCode::SessionTakenOver).await;
});

in_both_versions!(another_user_s_session_is_refused_while_it_is_away, |version| async move {
    let broker = with_users(&["ada", "eve"], "").start().await;
    let mut ada = broker.connect(user("meter", "ada").version(version).persistent()).await;
    ada.subscribe("t", 1).await;
    ada.disconnect().await;
    let mut publisher = broker.connect(user("p", "ada").version(version)).await;
    publisher.publish(publish("t", 1, "for ada")).await;
    // A clean start would empty it.
    for attempt in [user("meter", "eve"), user("meter", "eve").persistent()] {
        broker.raw().await.expect_refusal(attempt.version(version), ReasonCode::NotAuthorized).await;
    }
    let mut ada = broker.connect(user("meter", "ada").version(version).persistent()).await;
    ada.expect_message("t", "for ada").await;
});

#[tokio::test]
async fn an_identifier_is_free_again_when_its_session_has_ended() {
    let broker = with_users(&["ada", "eve"], "").start().await;
    broker.connect(user("meter", "ada")).await.disconnect().await;
    broker.connect(user("meter", "eve")).await;
}

#[tokio::test]
async fn sessions_are_not_bound_where_configured() {
    let broker = with_users(&["ada", "eve"], "clientid_binding = \"disabled\"").start().await;
    let mut ada = broker.connect(user("meter", "ada")).await;
    broker.connect(user("meter", "eve")).await;
    ada.expect_disconnect(ReasonCode::SessionTakenOver).await;
}

#[tokio::test]
async fn a_certificate_s_session_is_not_for_clients_without_it() {
    let broker = Setup::new().every_transport().start().await;
    for transport in [Transport::Tls13, Transport::Tlcp] {
        let mut owner: Client = broker.open_with_identity(transport).await;
        owner.connect(connect("meter")).await;
        broker.raw().await.expect_refusal(connect("meter"), ReasonCode::NotAuthorized).await;
        broker.open(transport).await.expect_refusal(connect("meter"), ReasonCode::NotAuthorized).await;
        // The same certificate on a new connection is its owner.
        let mut again: Client = broker.open_with_identity(transport).await;
        again.connect(connect("meter")).await;
        owner.expect_disconnect(ReasonCode::SessionTakenOver).await;
        again.disconnect().await;
    }
}

#[tokio::test]
async fn a_client_identifier_can_be_held_to_the_user_name_or_the_certificate() {
    let broker = with_users(&["ada"], "clientid_binding = \"username\"").start().await;
    broker.connect(user("ada", "ada")).await;
    broker.raw().await.expect_refusal(user("meter", "ada"), ReasonCode::NotAuthorized).await;

    let binding = "allow_anonymous = true\nclientid_binding = \"cert_common_name\"";
    let broker = Setup::new().every_transport().auth(binding).start().await;
    broker.raw().await.expect_refusal(connect("meter"), ReasonCode::NotAuthorized).await;
    let mut client = broker.open_with_identity(Transport::Tls13).await;
    client.expect_refusal(connect("meter"), ReasonCode::NotAuthorized).await;
}

/// A session crossed from one tenant to another with its subscriptions and all that waited for it.
async fn crosses_no_mount_point(auth: &str) {
    let broker = SimulatedBroker::start(with_users(&["ada", "eve"], auth));
    let sees = |name| if auth.contains("anonymous") { connect("meter") } else { user("meter", name) };
    let mut owner = broker.connect_below("b/", sees("ada").persistent()).await;
    owner.subscribe("secret/#", 1).await;
    let attempts = || [sees("eve"), sees("eve").persistent()];
    for attempt in attempts() {
        broker.open_below("c/").expect_refusal(attempt, ReasonCode::NotAuthorized).await;
    }
    owner.publish(publish("secret/x", 1, "still here")).await;
    owner.expect_message("secret/x", "still here").await;
    owner.vanish().await;
    for attempt in attempts() {
        broker.open_below("c/").expect_refusal(attempt, ReasonCode::NotAuthorized).await;
    }
    let mut publisher = broker.connect_below("b/", Connect { client_id: "p".into(), ..sees("ada") }).await;
    publisher.publish(publish("secret/x", 1, "queued")).await;
    let mut owner = broker.connect_below("b/", sees("ada").persistent()).await;
    owner.expect_message("secret/x", "queued").await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_for_clients_below_another_mount_point() {
    let unbound = "clientid_binding = \"disabled\"";
    for auth in ["", unbound, "allow_anonymous = true", &format!("allow_anonymous = true\n{unbound}")] {
        crosses_no_mount_point(auth).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_begins_anew_below_another_mount_point() {
    for auth in ["", "clientid_binding = \"disabled\""] {
        let broker = SimulatedBroker::start(with_users(&["ada"], auth));
        let mut ada = broker.connect_below("b/", user("meter", "ada").persistent()).await;
        ada.subscribe("secret/#", 1).await;
        let mut publisher = broker.connect_below("b/", user("p", "ada")).await;
        ada.vanish().await;
        publisher.publish(publish("secret/x", 1, "queued")).await;
        let mut elsewhere = broker.open_below("c/");
        let ack = elsewhere.connect(user("meter", "ada").persistent()).await;
        assert!(!ack.session_present);
        publisher.publish(publish("secret/x", 1, "live")).await;
        elsewhere.expect_nothing().await;
        assert_eq!(broker.broker().subscription_count(), 0);
    }
}

/// Where sessions are not bound, a client was sent what another had subscribed to and given up again.
#[tokio::test(start_paused = true)]
async fn what_a_given_up_subscription_brought_is_not_for_who_inherits_the_session() {
    for (heir, gets) in [("ada", true), ("eve", false)] {
        let broker = SimulatedBroker::start(with_users(&["ada", "eve"], "clientid_binding = \"disabled\""));
        let mut ada = broker.connect(user("meter", "ada").persistent()).await;
        ada.subscribe("t", 1).await;
        let mut publisher = broker.connect(user("p", "ada")).await;
        publisher.publish(publish("t", 1, "for ada")).await;
        // Never acknowledged: it would be sent again.
        ada.recv_publish().await;
        ada.unsubscribe("t").await;
        ada.vanish().await;
        let mut client = broker.open();
        assert!(client.connect(user("meter", heir).persistent()).await.session_present);
        if gets {
            client.expect_message("t", "for ada").await;
        }
        client.expect_nothing().await;
    }
}
