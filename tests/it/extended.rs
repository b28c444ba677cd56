//! Extended authentication with SCRAM-SHA-256: before CONNACK, and again on a connection.

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use mqtt_codec::{Auth, AuthProperties, Secret};
use sha2::{Digest, Sha256};
use shangmq::broker::{Ban, Subject};
use testkit::{
    Client, Connect, ConnectExt, Packet, ReasonCode, Stream, connect, disconnect, publish, suback, subscribe,
};

use crate::access::PASSWORD;
use crate::broker::Setup;
use crate::simulated::SimulatedBroker;

/// RFC 7677 section 3: the password is `pencil`. `other` has the same.
const USER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const METHOD: &str = "SCRAM-SHA-256";
/// The second step is later than the first by less than this.
const PIPE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

pub fn setup(auth: &str) -> Setup {
    let setup = crate::access::with_users(&["ada"], auth);
    let path = setup.dir().join("users");
    let text = std::fs::read_to_string(&path).unwrap() + &format!("user:{USER}\nother:{USER}\n");
    std::fs::write(path, text).unwrap();
    setup
}

fn broker() -> SimulatedBroker {
    SimulatedBroker::start(setup(""))
}

fn secret(data: &str) -> Option<Secret> {
    (!data.is_empty()).then(|| Secret::from(Bytes::copy_from_slice(data.as_bytes())))
}

fn with_method(client_id: &str, method: &str, data: &str) -> Connect {
    let mut packet = connect(client_id);
    packet.properties.authentication_method = Some(method.into());
    packet.properties.authentication_data = secret(data);
    packet
}

fn auth(reason: ReasonCode, method: &str, data: &str) -> Packet {
    let authentication_method = Some(method.into());
    let authentication_data = secret(data);
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties { authentication_method, authentication_data, ..Default::default() },
    })
}

fn next(data: &str) -> Packet {
    auth(ReasonCode::ContinueAuthentication, METHOD, data)
}

fn text(data: Option<&Secret>) -> String {
    String::from_utf8(data.map_or(&[][..], Secret::as_bytes).to_vec()).unwrap()
}

async fn challenge<S: Stream>(client: &mut Client<S>) -> String {
    match client.recv().await {
        // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
        Packet::Auth(auth) if auth.reason == ReasonCode::ContinueAuthentication => {
            assert_eq!(auth.properties.authentication_method.as_deref(), Some(METHOD));
            text(auth.properties.authentication_data.as_ref())
        }
        other => panic!("expected AUTH, got {other:?}"),
    }
}

/// A client's side of the exchange, written for this test alone.
struct Scram {
    first: String,
    password: &'static str,
}

impl Scram {
    fn new(user: &str, password: &'static str) -> Scram {
        Scram { first: format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL"), password }
    }

    fn first(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// The last message, and what the server must answer.
    fn last(&self, challenge: &str) -> (String, String) {
        let attribute = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let salt = Base64::decode_vec(attribute("s=")).unwrap();
        let iterations = attribute("i=").parse().unwrap();
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), &salt, iterations);
        let hmac = |key: &[u8], text: &str| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().into()
        };
        let without_proof = format!("c=biws,r={}", attribute("r="));
        let message = format!("{},{challenge},{without_proof}", self.first);
        let client_key = hmac(&salted, "Client Key");
        let signature = hmac(&Sha256::digest(client_key), &message);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let verifier = hmac(&hmac(&salted, "Server Key"), &message);
        (
            format!("{without_proof},p={}", Base64::encode_string(&proof)),
            format!("v={}", Base64::encode_string(&verifier)),
        )
    }
}

/// Connects as `user` and checks that the broker proves itself too.
async fn connected(broker: &SimulatedBroker, client_id: &str, user: &str) -> Client<tokio::io::DuplexStream> {
    let scram = Scram::new(user, "pencil");
    let mut client = broker.open();
    client.send(with_method(client_id, METHOD, &scram.first())).await;
    let (last, verifier) = scram.last(&challenge(&mut client).await);
    client.send(next(&last)).await;
    match client.recv().await {
        Packet::ConnAck(ack) => {
            assert_eq!(ack.reason, ReasonCode::Success);
            // [MQTT-4.12.0-5]
            assert_eq!(ack.properties.authentication_method.as_deref(), Some(METHOD));
            assert_eq!(text(ack.properties.authentication_data.as_ref()), verifier);
        }
        other => panic!("expected CONNACK, got {other:?}"),
    }
    client
}

async fn expect_refused<S: Stream>(client: &mut Client<S>, reason: ReasonCode) {
    match client.recv().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, reason),
        other => panic!("expected CONNACK, got {other:?}"),
    }
    client.expect_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_proves_its_password_is_connected_as_that_user() {
    let setup = setup("acl_file = \"acl.toml\"");
    let rule = "[[rules]]\npermit = \"allow\"\nwho = { username = \"user\" }\naction = \"all\"\ntopics = \"#\"\n";
    std::fs::write(setup.dir().join("acl.toml"), rule).unwrap();
    let broker = SimulatedBroker::start(setup);
    let mut client = connected(&broker, "c", "user").await;
    client.send(subscribe(1, &[("t", 0)])).await;
    client.expect(suback(1, &[ReasonCode::Success])).await;
    let mut client = connected(&broker, "d", "other").await;
    client.send(subscribe(1, &[("t", 0)])).await;
    client.expect(suback(1, &[ReasonCode::NotAuthorized])).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_wait_to_be_asked_for_its_first_message() {
    let broker = broker();
    let scram = Scram::new("user", "pencil");
    let mut client = broker.open();
    client.send(with_method("c", METHOD, "")).await;
    assert_eq!(challenge(&mut client).await, "");
    client.send(next(&scram.first())).await;
    let (last, _) = scram.last(&challenge(&mut client).await);
    client.send(next(&last)).await;
    assert!(matches!(client.recv().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    let broker = broker();
    // `ada` is a user without SCRAM credentials.
    for (user, password) in [("user", "Pencil"), ("eve", "pencil"), ("ada", PASSWORD)] {
        let scram = Scram::new(user, password);
        let mut client = broker.open();
        client.send(with_method("c", METHOD, &scram.first())).await;
        let (last, _) = scram.last(&challenge(&mut client).await);
        client.send(next(&last)).await;
        expect_refused(&mut client, ReasonCode::BadUserNameOrPassword).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_there_is_refused() {
    // [MQTT-4.12.0-1]
    for method in ["PLAIN", "scram-sha-256", ""] {
        broker().open().expect_refusal(with_method("c", method, "x"), ReasonCode::BadAuthenticationMethod).await;
    }
    // Nor is there one without a user that has credentials for it.
    let broker = SimulatedBroker::start(Setup::new());
    broker.open().expect_refusal(with_method("c", METHOD, "x"), ReasonCode::BadAuthenticationMethod).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_but_auth_and_disconnect_may_come_before_connack() {
    let broker = broker();
    let first = Scram::new("user", "pencil").first();
    // [MQTT-3.1.2-30] [MQTT-4.12.0-5]
    for packet in [
        Packet::PingReq,
        publish("t", 0, "x").into(),
        auth(ReasonCode::ContinueAuthentication, "OTHER", "x"),
        auth(ReasonCode::Reauthenticate, METHOD, "x"),
        with_method("c", METHOD, &first).into(),
    ] {
        let mut client = broker.open();
        client.send(with_method("c", METHOD, &first)).await;
        challenge(&mut client).await;
        client.send(packet).await;
        expect_refused(&mut client, ReasonCode::ProtocolError).await;
    }
    let mut client = broker.open();
    client.send(with_method("c", METHOD, &first)).await;
    challenge(&mut client).await;
    client.send(disconnect(ReasonCode::Success)).await;
    client.expect_closed().await;
    assert_eq!(broker.broker().session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_stalls_ends_with_the_deadline_for_connect() {
    let broker = broker();
    let mut client = broker.open().with_patience(PIPE_PATIENCE);
    client.send(with_method("c", METHOD, &Scram::new("user", "pencil").first())).await;
    challenge(&mut client).await;
    let since = tokio::time::Instant::now();
    client.expect_closed().await;
    assert_eq!(since.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_its_first_message_for_ever_is_refused() {
    let broker = broker();
    let mut client = broker.open();
    client.send(with_method("c", METHOD, "")).await;
    for _ in 1..16 {
        challenge(&mut client).await;
        client.send(next("")).await;
    }
    challenge(&mut client).await;
    client.send(next("")).await;
    expect_refused(&mut client, ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn the_user_name_of_connect_must_be_the_one_that_was_proved() {
    let broker = broker();
    let scram = Scram::new("user", "pencil");
    for (name, reason) in [("user", ReasonCode::Success), ("other", ReasonCode::BadUserNameOrPassword)] {
        let mut client = broker.open();
        let mut packet = with_method("c", METHOD, &scram.first());
        packet.username = Some(name.into());
        client.send(packet).await;
        let (last, _) = scram.last(&challenge(&mut client).await);
        client.send(next(&last)).await;
        assert!(matches!(client.recv().await, Packet::ConnAck(ack) if ack.reason == reason), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connected_client_authenticates_again_while_messages_go_on() {
    let broker = broker();
    let mut client = connected(&broker, "c", "user").await;
    client.subscribe("t", 1).await;
    let scram = Scram::new("user", "pencil");
    for _ in 0..2 {
        // [MQTT-4.12.1-1]
        client.send(auth(ReasonCode::Reauthenticate, METHOD, &scram.first())).await;
        let challenge = challenge(&mut client).await;
        client.publish(publish("t", 1, "in between")).await;
        client.expect_message("t", "in between").await;
        let (last, verifier) = scram.last(&challenge);
        client.send(next(&last)).await;
        client.expect(auth(ReasonCode::Success, METHOD, &verifier)).await;
    }
    client.publish(publish("t", 1, "after")).await;
    client.expect_message("t", "after").await;
}

/// A pin that came by a reload leaves connections alone, and holds for whoever connects or proves anew who it is.
#[tokio::test(start_paused = true)]
async fn a_new_pin_holds_for_a_client_that_authenticates_again() {
    let setup = setup("acl_file = \"acl.toml\"\n");
    let acl = setup.dir().join("acl.toml");
    let rules = "[[rules]]\npermit = \"allow\"\nwho = \"all\"\naction = \"all\"\ntopics = \"#\"\n";
    std::fs::write(&acl, rules).unwrap();
    let broker = SimulatedBroker::start(setup);
    let mut client = connected(&broker, "c", "user").await;
    std::fs::write(&acl, format!("{rules}[[pins]]\nwho = {{ username = \"user\" }}\nprotocol = \"tlcp\"\n")).unwrap();
    broker.auth().reload().unwrap();
    client.ping().await;
    let scram = Scram::new("user", "pencil");
    client.send(auth(ReasonCode::Reauthenticate, METHOD, &scram.first())).await;
    let (last, _) = scram.last(&challenge(&mut client).await);
    client.send(next(&last)).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_authentication_ends_the_connection() {
    let broker = broker();
    // [MQTT-4.12.1-2]; the second proves another identity.
    for (user, password) in [("user", "wrong"), ("other", "pencil")] {
        let mut client = connected(&broker, "c", "user").await;
        let scram = Scram::new(user, password);
        client.send(auth(ReasonCode::Reauthenticate, METHOD, &scram.first())).await;
        let (last, _) = scram.last(&challenge(&mut client).await);
        client.send(next(&last)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
    }
}

/// A client of one user guessed passwords of another by authenticating again: it was told when a guess was right, and no guess counted.
#[tokio::test(start_paused = true)]
async fn authenticating_again_tells_nothing_of_others_and_is_counted() {
    let broker = SimulatedBroker::start(setup("max_failures_per_minute = 2"));
    let mut endings = Vec::new();
    let mut waiting = connected(&broker, "waiting", "user").await;
    for password in ["guess", "pencil"] {
        let mut client = connected(&broker, "c", "user").await;
        let scram = Scram::new("other", password);
        client.send(auth(ReasonCode::Reauthenticate, METHOD, &scram.first())).await;
        let (last, _) = scram.last(&challenge(&mut client).await);
        client.send(next(&last)).await;
        endings.push(client.recv().await);
        client.expect_closed().await;
    }
    assert!(matches!(&endings[0], Packet::Disconnect(end) if end.reason == ReasonCode::NotAuthorized), "{endings:?}");
    assert_eq!(endings[0], endings[1]);
    // Both counted, and the address has to pause, connected or not.
    waiting.send(auth(ReasonCode::Reauthenticate, METHOD, &Scram::new("user", "pencil").first())).await;
    waiting.expect_disconnect(ReasonCode::ServerBusy).await;
    let again = with_method("c", METHOD, &Scram::new("user", "pencil").first());
    broker.open().expect_refusal(again, ReasonCode::ServerBusy).await;
}

/// A ban by user name was asked about the name in CONNECT, which a client need not send.
#[tokio::test(start_paused = true)]
async fn a_banned_user_is_refused_by_the_name_that_it_proves_and_its_connections_end() {
    let broker = broker();
    let mut banned = connected(&broker, "banned", "user").await;
    let mut other = connected(&broker, "other", "other").await;
    let ban = Ban { until: None, reason: "test".to_owned() };
    broker.broker().ban(Subject::Username("user".into()), ban).unwrap();
    banned.expect_disconnect(ReasonCode::AdministrativeAction).await;
    let scram = Scram::new("user", "pencil");
    let mut client = broker.open();
    client.send(with_method("c", METHOD, &scram.first())).await;
    let (last, _) = scram.last(&challenge(&mut client).await);
    client.send(next(&last)).await;
    expect_refused(&mut client, ReasonCode::Banned).await;
    other.subscribe("t", 0).await;
}

#[tokio::test(start_paused = true)]
async fn auth_out_of_place_is_a_protocol_error() {
    let broker = broker();
    let first = Scram::new("user", "pencil").first();
    // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
    for packet in [
        auth(ReasonCode::ContinueAuthentication, METHOD, "x"),
        auth(ReasonCode::Success, METHOD, "x"),
        auth(ReasonCode::Reauthenticate, "OTHER", &first),
    ] {
        let mut client = connected(&broker, "c", "user").await;
        client.send(packet).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    let mut twice = connected(&broker, "c", "user").await;
    twice.send(auth(ReasonCode::Reauthenticate, METHOD, &first)).await;
    challenge(&mut twice).await;
    twice.send(auth(ReasonCode::Reauthenticate, METHOD, &first)).await;
    twice.expect_disconnect(ReasonCode::ProtocolError).await;
    // [MQTT-4.12.0-7]
    let mut plain = broker.connect(connect("p").credentials("user", "pencil")).await;
    plain.send(auth(ReasonCode::Reauthenticate, METHOD, &first)).await;
    plain.expect_disconnect(ReasonCode::ProtocolError).await;
}
