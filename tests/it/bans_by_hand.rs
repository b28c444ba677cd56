//! `shangmq ctl ban` against a broker that is killed.

use testkit::{AnyStream, BrokerProcess, Client, ConnectExt, ReasonCode, connect};
use tokio::net::TcpStream;

const CONFIG: &str =
    "[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n";

async fn open(broker: &BrokerProcess) -> Client<AnyStream> {
    Client::new(Box::new(TcpStream::connect(broker.address("tcp:default")).await.unwrap()))
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

    broker.kill();
    broker.restart().await;
    open(&broker).await.expect_refusal(connect("c"), ReasonCode::Banned).await;
    // The log is written by a thread of its own.
    let said = async {
        while !broker.log().contains("banned by its client id; shangmq ctl ban list says for how long") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), said)
        .await
        .expect("who is refused by a ban is in the log");
    let listed = ban(&broker, &["list"]);
    assert!(listed.contains("client id \"c\", until it is lifted: \"loud\\u{1b}\"\n"), "{listed}");
    assert!(listed.contains("client id \"soon\", "), "{listed}");

    assert_eq!(ban(&broker, &["remove", "--client-id", "c"]), "the ban is lifted\n");
    broker.kill();
    broker.restart().await;
    open(&broker).await.connect(connect("c")).await;
    assert_eq!(ban(&broker, &["remove", "--client-id", "c"]), "there was no such ban\n");
    open(&broker).await.expect_refusal(connect("soon"), ReasonCode::Banned).await;
    assert!(!broker.command(&["ctl", "--data", "data", "ban", "add", "--reason", "nobody"]).status.success());
}
