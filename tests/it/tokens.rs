//! Clients that show a token as their password: who they are, what they may do, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::{Connect, ConnectExt, ProtocolVersion, ReasonCode, connect, publish, suback, subscribe, will};
use tokio::io::ReadBuf;

use crate::access::{PASSWORD, user, with_users};
use crate::simulated::{Answered, SimulatedBroker};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A broker that takes tokens, and passwords of the user `ada`.
fn broker() -> SimulatedBroker {
    broker_with("")
}

fn broker_with(auth: &str) -> SimulatedBroker {
    use std::os::unix::fs::PermissionsExt;
    let setup = with_users(&["ada"], &format!("{auth}[auth.jwt]\nsecret_file = \"secret\"\nleeway = \"0s\"\n"));
    let rule = "[[rules]]\npermit = \"allow\"\nwho = \"all\"\naction = \"all\"\ntopics = [\"#\", \"$thing/#\"]\n";
    std::fs::write(setup.dir().join("acl.toml"), rule).unwrap();
    let secret = setup.dir().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    SimulatedBroker::start(setup)
}

/// A token that holds for an hour unless the claims say otherwise.
fn token(claims: Value) -> String {
    let mut all = json!({ "exp": now() + 3600 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&json!({ "alg": "HS256" })), encode(&all));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn shows(client_id: &str, username: &str, token: &str) -> Connect {
    connect(client_id).credentials(username, token)
}

#[tokio::test(start_paused = true)]
async fn a_token_lets_in_the_user_it_names_and_no_other() {
    let broker = broker();
    let good = token(json!({ "sub": "bob" }));
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        broker.connect(shows("c", "bob", &good).version(version)).await;
        let refused = ReasonCode::BadUserNameOrPassword;
        for (name, token) in [
            ("ada", good.clone()),
            ("bob", token(json!({ "sub": "bob", "exp": now() - 1 }))),
            ("bob", good.replace('.', "A.")),
            ("bob", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ] {
            broker.open().expect_refusal(shows("c", name, &token).version(version), refused).await;
        }
    }
    // MQTT 5 knows passwords without a user name.
    let mut unnamed = shows("d", "", &good);
    unnamed.username = None;
    broker.connect(unnamed).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_is_judged_by_the_password_file() {
    let broker = broker();
    broker.connect(user("c", "ada")).await;
    broker.open().expect_refusal(shows("c", "ada", "wrong"), ReasonCode::BadUserNameOrPassword).await;
    // A token that is refused is not tried as a password.
    let bad = token(json!({ "sub": "ada", "nbf": now() + 1000 }));
    broker.open().expect_refusal(shows("c", "ada", &bad), ReasonCode::BadUserNameOrPassword).await;
    assert_ne!(PASSWORD, bad);
}

#[tokio::test(start_paused = true)]
async fn the_topics_of_a_token_are_what_its_client_may_use() {
    let broker = broker();
    let listed = token(json!({ "sub": "bob", "acl": { "pub": ["up/${username}"], "sub": ["down/${clientid}/#"] } }));
    let mut client = broker.connect(shows("c", "bob", &listed)).await;
    client.send(subscribe(1, &[("down/c/#", 0), ("down/d/#", 0), ("#", 0), ("up/bob", 0)])).await;
    let refused = ReasonCode::NotAuthorized;
    client.expect(suback(1, &[ReasonCode::Success, refused, refused, refused])).await;
    assert_eq!(client.publish(publish("up/bob", 1, "x")).await, ReasonCode::NoMatchingSubscribers);
    assert_eq!(client.publish(publish("up/eve", 1, "x")).await, refused);
    assert_eq!(client.publish(publish("down/c/x", 1, "x")).await, refused);
}

/// Topics that begin with `$` fell through to what becomes of topics that no rule names.
#[tokio::test(start_paused = true)]
async fn the_list_of_a_token_is_closed_for_topics_of_every_kind() {
    let acl = json!({ "pub": ["mine/#"], "sub": ["mine/#", "$own/#"] });
    let listed = token(json!({ "sub": "bob", "acl": acl }));
    let names = ["other/#", "$SYS/#", "$thing/#", "$sys/dev1/cmd", "+/cmd", "#"];
    for extra in ["", "acl_file = \"acl.toml\"\nno_match = \"allow\"\n"] {
        let broker = broker_with(extra);
        let mut client = broker.connect(shows("c", "bob", &listed)).await;
        for name in names {
            client.send(subscribe(1, &[(name, 0)])).await;
            client.expect(suback(1, &[ReasonCode::NotAuthorized])).await;
        }
        client.subscribe("mine/#", 0).await;
        client.subscribe("$own/x", 0).await;
        assert_eq!(client.publish(publish("$thing/x", 1, "x")).await, ReasonCode::NotAuthorized);
        let forged = shows("d", "bob", &listed).will(will("$thing/x", "x"));
        broker.open().expect_refusal(forged, ReasonCode::NotAuthorized).await;
    }
}

/// One device with an old password kept every device behind its address out.
#[tokio::test(start_paused = true)]
async fn a_good_token_is_taken_from_an_address_that_failed_too_often() {
    let broker = broker_with("max_failures_per_minute = 2\n");
    let good = token(json!({ "sub": "bob" }));
    let bad = token(json!({ "sub": "bob", "exp": now() - 1 }));
    for wrong in ["wrong", &bad] {
        broker.open().expect_refusal(shows("c", "ada", wrong), ReasonCode::BadUserNameOrPassword).await;
    }
    for refused in [user("c", "ada"), shows("c", "bob", &bad)] {
        broker.open().expect_refusal(refused, ReasonCode::ServerBusy).await;
    }
    broker.connect(shows("c", "bob", &good)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_its_token_does() {
    let broker = broker();
    let mut client = broker.connect(shows("c", "bob", &token(json!({ "sub": "bob", "exp": now() + 100 })))).await;
    client.subscribe("t", 0).await;
    let since = tokio::time::Instant::now();
    client.expect_disconnect(ReasonCode::MaximumConnectTime).await;
    // The token's time is that of the wall, of which a part has passed.
    assert!((Duration::from_secs(98)..=Duration::from_secs(100)).contains(&since.elapsed()), "{:?}", since.elapsed());
}

/// Deadlines were looked at by connections with nothing else to do: one that never fell silent outlived its token.
#[tokio::test(start_paused = true)]
async fn a_connection_that_never_falls_silent_ends_with_its_token_too() {
    let broker = broker();
    let armed = Arc::new(AtomicBool::new(false));
    let endless = Arc::clone(&armed);
    let (mut client, task) = broker.open_through(|inner| Answered {
        inner,
        // PUBLISH after PUBLISH with QoS 0, once it is armed.
        read: move |buf: &mut ReadBuf<'_>| {
            let armed = endless.load(Ordering::Relaxed);
            if armed {
                buf.put_slice(b"\x30\x04\x00\x01t\x00");
            }
            armed
        },
    });
    client.connect(shows("c", "bob", &token(json!({ "sub": "bob", "exp": now() + 100 })))).await;
    armed.store(true, Ordering::Relaxed);
    // Wakes the connection's task, which then reads on and on.
    client.send(testkit::Packet::PingReq).await;
    let since = tokio::time::Instant::now();
    while since.elapsed() < Duration::from_secs(98) {
        assert!(!task.is_finished(), "the token still holds");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    armed.store(false, Ordering::Relaxed);
    client.expect_disconnect(ReasonCode::MaximumConnectTime).await;
}
