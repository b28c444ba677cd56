//! `shangmq ctl ban` against a broker that is killed.

use testkit::{AnyStream, BrokerProcess, Client, ConnectExt, ReasonCode, connect};
use tokio::net::TcpStream;

const CONFIG: &str =
    "[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n";

async fn open(broker: &BrokerProcess) -> Client<AnyStream> {
    Client::new(Box::new(TcpStream::connect(broker.address("tcp:default")).await.unwrap()))
}

/// How the log names who runs this test.
fn who() -> String {
    format!(r#""span":{{"user":{},"name":"ctl"}}"#, rustix::process::geteuid().as_raw())
}

/// The answer of a command that succeeds.
fn ban(broker: &BrokerProcess, arguments: &[&str]) -> String {
    let done = broker.command(&[&["ctl", "--data", "data", "ban"], arguments].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn a_ban_by_hand_ends_the_connection_and_holds_after_a_kill_until_it_is_lifted() {
    let mut broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), CONFIG).await;
    assert_eq!(ban(&broker, &["list"]), "nobody is banned\n");
    let mut client = open(&broker).await;
    client.connect(connect("c").expiry(60)).await;
    assert_eq!(ban(&broker, &["add", "--client-id", "c", "--reason", "loud\u{1b}"]), "banned\n");
    client.expect_disconnect(ReasonCode::AdministrativeAction).await;
    assert_eq!(ban(&broker, &["add", "--client-id", "soon", "--seconds", "600"]), "banned\n");
    let who = who();
    broker
        .logged(&[&who, "an operator added a ban", r#"client id \"c\"","lasts":"without end","reason":"loud\u001b""#])
        .await;
    broker.logged(&[&who, "an operator added a ban", r#"client id \"soon\"","lasts":"600 s""#]).await;

    broker.kill();
    broker.restart().await;
    open(&broker).await.expect_refusal(connect("c"), ReasonCode::Banned).await;
    broker.logged(&["banned by its client id; shangmq ctl ban list says for how long"]).await;
    let listed = ban(&broker, &["list"]);
    assert!(listed.contains("client id \"c\", until it is lifted: \"loud\\u{1b}\"\n"), "{listed}");
    assert!(listed.contains("client id \"soon\", "), "{listed}");

    assert_eq!(ban(&broker, &["remove", "--client-id", "c"]), "the ban is lifted\n");
    broker.logged(&[&who, "an operator lifted a ban", r#"client id \"c\""#]).await;
    broker.kill();
    broker.restart().await;
    open(&broker).await.connect(connect("c")).await;
    assert_eq!(ban(&broker, &["remove", "--client-id", "c"]), "there was no such ban\n");
    open(&broker).await.expect_refusal(connect("soon"), ReasonCode::Banned).await;
    assert!(!broker.command(&["ctl", "--data", "data", "ban", "add", "--reason", "nobody"]).status.success());
}
