//! The log as an operator and an attacker see it: it stops nobody, has an end, and names who was refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use gm_tls::cert::CertificateChain;
use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    AckExt, BrokerProcess, Client, ConnectExt, PublishExt, ReasonCode, connect, puback, publish, suback, subscribe,
    will,
};
use tokio::net::TcpStream;

use crate::broker::{certificates, eventually};

const CONFIGURATION: &str = r#"
[log]
format = "json"
max_queued_lines = 16
[metrics]
enable = true
bind = "127.0.0.1:0"
[auth]
password_file = "users"
acl_file = "acl.toml"
allow_anonymous = true
max_failures_per_minute = 1000
[listeners.tcp.default]
bind = "127.0.0.1:0"
"#;

const RULES: &str = r#"
[[rules]]
permit = "deny"
who = "all"
action = "all"
topics = "closed/#"

[[rules]]
permit = "allow"
who = "all"
action = "all"
topics = "open/#"
"#;

/// A broker whose standard error is a pipe to this test.
struct Piped {
    child: Child,
    log: BufReader<ChildStderr>,
    mqtt: SocketAddr,
    metrics: SocketAddr,
    _dir: TempDir,
}

impl Piped {
    /// Reads the log up to "ready" and no further.
    fn start(level: &str) -> Piped {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("shangmq.toml"), CONFIGURATION).unwrap();
        std::fs::write(dir.path().join("acl.toml"), RULES).unwrap();
        let users = dir.path().join("users");
        std::fs::write(&users, "").unwrap();
        std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shangmq"))
            .args(["start", "--config", "shangmq.toml"])
            .current_dir(dir.path())
            .env("SHANGMQ_LOG", level)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut broker = Piped { child, log, mqtt: nowhere, metrics: nowhere, _dir: dir };
        // Tasks of their own say where they listen, before or after "ready".
        let mut missing = 3;
        while missing > 0 {
            let mut line = String::new();
            assert_ne!(broker.log.read_line(&mut line).unwrap(), 0, "the broker ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            let address = || event["address"].as_str().unwrap().parse().unwrap();
            match event["message"].as_str().unwrap() {
                "listening" if event["listener"] == "tcp:default" && broker.mqtt == nowhere => broker.mqtt = address(),
                "serving metrics" => broker.metrics = address(),
                "ready" => {}
                _ => continue,
            }
            missing -= 1;
        }
        broker
    }

    fn limits(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap()
    }

    fn sample(&self, series: &str) -> u64 {
        let mut stream = std::net::TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
    }

    async fn client(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.mqtt).await.unwrap())
    }

    /// Ends the broker in order and gives the rest of its log.
    fn stop(mut self) -> Vec<Value> {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// A worker that logged waited for whoever reads standard error: a pager at its first page, or a collector that hangs, stopped every
// connection after 305 refused ones.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_client() {
    let broker = Piped::start("debug");
    for _ in 0..1000 {
        let mut client = broker.client().await;
        let _ = client.try_send_raw(b"GET / HTTP/1.0\r\n\r\n").await;
        client.expect_closed().await;
    }
    let mut client = broker.client().await;
    client.connect(connect("c")).await;
    client.ping().await;
    // Nor does a crash write what is in memory, keys too, beside it.
    let limits = broker.limits();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert!(broker.sample("shangmq_log_lines_lost_total") > 0, "the pipe took everything, and the test shows nothing");
}

// Who tries out passwords was to be seen at level debug alone.
#[tokio::test]
async fn refused_clients_are_named_until_there_are_too_many() {
    let broker = Piped::start("info");
    for _ in 0..70 {
        let packet = connect("c\u{202e}d").credentials("eve", "guess");
        broker.client().await.expect_refusal(packet, ReasonCode::BadUserNameOrPassword).await;
    }
    let long = "x".repeat(5000);
    let suppressed = broker.sample("shangmq_log_lines_suppressed_total{listener=\"tcp:default\"}");
    assert_eq!(suppressed, 10);
    let mut packet = connect(&long);
    packet.properties.authentication_method = Some("none".into());
    broker.client().await.expect_refusal(packet, ReasonCode::BadAuthenticationMethod).await;
    let log = broker.stop();
    let refused: Vec<&Value> = log.iter().filter(|event| event["message"] == "CONNECT refused").collect();
    let (denied, others): (Vec<&Value>, Vec<&Value>) = refused.iter().partition(|event| event["username"] == "eve");
    // As many as are written a minute, unless the queue of sixteen was full.
    assert!((1..=60).contains(&denied.len()), "{}", denied.len());
    let event = denied[0];
    assert_eq!((&event["level"], &event["client_id"]), (&"INFO".into(), &"c\u{202e}d".into()));
    assert!(event["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
    assert!(event["cause"].as_str().unwrap().contains("wrong user name or password"), "{event}");
    assert_eq!(others[0]["client_id"].as_str().unwrap().len(), 256);
    // What was queued at the end is written.
    assert!(log.iter().any(|event| event["message"] == "shutting down"), "{log:?}");
    assert_eq!(log.last().unwrap()["message"], "stopped");
}

// A client whose rules were wrong was refused without a word to the operator, and its messages were counted nowhere.
#[tokio::test]
async fn what_the_rules_refuse_is_said_with_its_rule_until_there_is_too_much() {
    let broker = Piped::start("info");
    let mut client = broker.client().await;
    client.connect(connect("c")).await;
    client.send(publish("closed/a", 1, "x").id(1)).await;
    client.expect(puback(1).reason(ReasonCode::NotAuthorized)).await;
    client.send(subscribe(2, &[("$share/g/closed/+", 0), ("other", 1)])).await;
    client.expect(suback(2, &[ReasonCode::NotAuthorized, ReasonCode::NotAuthorized])).await;
    client.send(publish("$SYS/x", 1, "x").id(3)).await;
    client.expect(puback(3).reason(ReasonCode::NotAuthorized)).await;
    for id in 4..=70 {
        client.send(publish("closed/b", 1, "x").id(id)).await;
        client.expect(puback(id).reason(ReasonCode::NotAuthorized)).await;
    }
    let packet = connect("w").will(will("closed/will", "x"));
    broker.client().await.expect_refusal(packet, ReasonCode::NotAuthorized).await;
    assert_eq!(broker.sample("shangmq_messages_dropped_total{reason=\"unauthorized\"}"), 69);
    assert_eq!(broker.sample("shangmq_log_lines_suppressed_total{listener=\"tcp:default\"}"), 72 - 60);
    let log = broker.stop();
    let said: Vec<&Value> = log.iter().filter(|event| event["message"] == "refused by the rules for topics").collect();
    assert!((4..=60).contains(&said.len()), "{}", said.len());
    let of = |event: &Value| ["action", "topic", "rule"].map(|field| event[field].as_str().unwrap().to_owned());
    assert_eq!(of(said[0]), ["publish", "closed/a", "line 2 of auth.acl_file"]);
    assert_eq!(of(said[1]), ["subscribe", "$share/g/closed/+", "line 2 of auth.acl_file"]);
    assert_eq!(of(said[2]), ["subscribe", "other", "no rule allows it"]);
    assert_eq!(of(said[3]), ["publish", "$SYS/x", "built in: clients do not publish to the broker's own topics"]);
    assert_eq!((&said[0]["level"], &said[0]["client_id"]), (&"INFO".into(), &"c".into()));
}

// The line said that nothing had changed, whatever had become of the rules.
#[tokio::test]
async fn a_reload_says_that_rules_and_users_were_read_again() {
    let broker = Piped::start("info");
    Command::new("kill").args(["-HUP", &broker.child.id().to_string()]).status().unwrap();
    eventually("the reload", || broker.sample("shangmq_reloads_total{outcome=\"success\"}") == 1).await;
    let log = broker.stop();
    let said: Vec<&str> = log.iter().filter_map(|event| event["message"].as_str()).collect();
    let done: Vec<&&str> = said.iter().filter(|message| message.starts_with("reload done")).collect();
    let read = "reload done; rules for topics, users and passwords were read again and are in force; how connections are secured has not changed";
    assert_eq!(done, [&read]);
}

// Behind a listener that wants certificates, a line named address and client identifier, and not whose certificate it was.
#[tokio::test]
async fn what_is_refused_to_a_client_with_a_certificate_names_its_subject() {
    let (certs, server, client) = (certificates(), certificates().server_ecdsa(), certificates().client_ecdsa());
    let toml = format!(
        "[auth]\nallow_anonymous = true\nno_match = \"deny\"\n[mqtt]\nmax_clientid_len = 24\n[listeners.tcp.plain]\nbind = \"127.0.0.1:0\"\n\
         [listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.default.ssl_options]\ncertfile = {:?}\nkeyfile = {:?}\n\
         cacertfile = {:?}\nverify = \"verify_peer\"\nfail_if_no_peer_cert = true\n",
        server.cert,
        server.key,
        certs.ecdsa_ca()
    );
    let broker = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &toml).await;
    let port = |listener: &str| broker.address(listener).port().to_string();
    let publish = |listener: &str, id: &str, more: &[&str]| {
        let port = port(listener);
        let line = ["pub", "-h", "localhost", "-p", &port, "-i", id, "-t", "closed/a", "-q", "1", "-m", "x"];
        assert!(!broker.command(&[&line[..], more].concat()).status.success());
    };
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, cert, key) = (path(&certs.ecdsa_ca()), path(&client.cert), path(&client.key));
    let tls = ["--protocol", "tls", "--cafile", &ca, "--cert", &cert, "--key", &key];
    let subject = CertificateChain::from_file("", &client.cert).unwrap().leaf.subject();
    let subject = format!("\"certificate\":{}", Value::from(subject));
    publish("ssl:default", "c", &tls);
    broker.logged(&["refused by the rules for topics", "\"client_id\":\"c\"", &subject]).await;
    let long = "x".repeat(25);
    publish("ssl:default", &long, &tls);
    broker.logged(&["CONNECT refused", &long, &subject]).await;
    publish("tcp:plain", "p", &[]);
    broker.logged(&["refused by the rules for topics", "\"client_id\":\"p\""]).await;
    assert_eq!(broker.log().matches("\"certificate\"").count(), 2);
}
