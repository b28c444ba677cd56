//! What an operator's Prometheus reads from a running broker about handshakes, resumption, revocation and certificates.

use std::path::Path;

use gm_tls::cert::Certificate;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector, Session};
use shangmq::config::Config;
use shangmq::dev_certs::{self, CertKey, DevCerts};
use shangmq::server::Server;
use testkit::{AnyStream, Client, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::certificates;
use crate::bundles::PROTOCOLS;

fn configuration(dir: &Path) -> Config {
    let set = certificates();
    let files = |prefix: &str, files: CertKey| {
        format!("{prefix}certfile = {:?}\n{prefix}keyfile = {:?}\n", files.cert, files.key)
    };
    let text = format!(
        "[node]\ndata_dir = \"data\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
         [metrics]\nenable = true\nbind = \"127.0.0.1:0\"\n[listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n\
         [listeners.ssl.default.ssl_options]\n{}session_tickets = \"stateless\"\n\
         [listeners.ssl.default.rfc8998_options]\n{}session_tickets = \"stateless\"\n\
         [listeners.ssl.default.tlcp_options]\n{}{}reuse_sessions = true\n",
        files("", set.server_ecdsa()),
        files("", set.server_sm2()),
        files("sign_", set.server_sign()),
        files("enc_", set.server_enc()),
    );
    Config::parse(&dir.join("shangmq.toml"), &text, []).unwrap()
}

async fn scrape(server: &Server) -> String {
    let mut stream = TcpStream::connect(server.metrics_address().unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The value of the only series of a family with all of these labels.
fn value(text: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let with = |line: &&str| {
        let rest = line.strip_prefix(family).and_then(|rest| rest.strip_prefix('{'));
        rest.is_some_and(|rest| labels.iter().all(|(name, value)| rest.contains(&format!("{name}=\"{value}\""))))
    };
    let found: Vec<&str> = text.lines().filter(with).collect();
    assert_eq!(found.len(), 1, "{family} {labels:?} in:\n{text}");
    found[0].rsplit(' ').next().unwrap().parse().unwrap()
}

/// A whole visit, with a session of the last one; whether it was resumed, and the session.
async fn visit(server: &Server, connector: &Connector, session: Option<&Session>) -> (bool, Option<Session>) {
    let stream = TcpStream::connect(server.addresses()[0].1).await.unwrap();
    let secured = connector.connect_resuming(stream, session).await.unwrap();
    let resumed = secured.peer_identity().resumed;
    let mut client = Client::new(secured);
    client.connect(connect("c")).await;
    let session = client.get_ref().session();
    client.disconnect().await;
    (resumed, session)
}

fn connector(protocol: ClientProtocol, trusted: &DevCerts) -> Connector {
    let ca = Certificate::anchors_from_file("ca", &trusted.ca_bundle()).unwrap();
    Connector::new(&ClientOptions { ca, ..ClientOptions::new(protocol, "localhost") }).unwrap()
}

#[tokio::test]
async fn a_scrape_tells_of_handshakes_resumption_revocation_and_every_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(configuration(dir.path())).await.unwrap();
    let strangers = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-development-certificates");
    let strangers = dev_certs::ensure(&strangers).unwrap();
    for protocol in PROTOCOLS {
        let ours = connector(protocol, certificates());
        let (_, session) = visit(&server, &ours, None).await;
        assert!(visit(&server, &ours, session.as_ref()).await.0, "{protocol:?}");
        let stream = TcpStream::connect(server.addresses()[0].1).await.unwrap();
        assert!(connector(protocol, &strangers).connect(stream).await.is_err(), "{protocol:?}");
    }
    // One more visit: the broker has counted what came before it.
    let mut last = Client::new(Box::new(
        connector(ClientProtocol::Tls13, certificates())
            .connect(TcpStream::connect(server.addresses()[0].1).await.unwrap())
            .await
            .unwrap(),
    ) as AnyStream);
    last.connect(connect("last")).await;
    let text = scrape(&server).await;
    let listener = ("listener", "ssl:default");
    let suites = [
        ("tls1.2", "tls", "tls1.2", "ECDHE_ECDSA"),
        ("tls1.3", "tls", "tls1.3", "TLS_"),
        ("rfc8998", "rfc8998", "tls1.3", "SM4"),
        ("tlcp", "tlcp", "tlcp", "SM4"),
    ];
    for (version, block, offered, suite) in suites {
        for resumed in ["false", "true"] {
            let labels = [listener, ("protocol", version), ("resumed", resumed)];
            let expected = if (version, resumed) == ("tls1.3", "false") { 2.0 } else { 1.0 };
            assert_eq!(value(&text, "shangmq_handshakes_total", &labels), expected, "{labels:?}");
        }
        let line =
            |line: &&str| line.starts_with("shangmq_handshakes_total") && line.contains(&format!("\"{version}\""));
        let line = text.lines().find(line).unwrap().replace('-', "_");
        assert!(line.contains("suite=\"") && line.contains(suite), "{line}");
        let labels = [listener, ("protocol", block), ("offered", offered), ("reason", "alert_unknown_ca")];
        assert_eq!(value(&text, "shangmq_handshakes_failed_total", &labels), 1.0, "{labels:?}");
        let seconds = [listener, ("protocol", version), ("outcome", "completed")];
        assert!(value(&text, "shangmq_handshake_duration_seconds_count", &seconds) >= 2.0, "{seconds:?}");
        assert!(value(&text, "shangmq_handshake_duration_seconds_sum", &seconds) > 0.0, "{seconds:?}");
    }
    let certificates = [("tls", "single"), ("rfc8998", "single"), ("tlcp", "signing"), ("tlcp", "encryption")];
    for (protocol, usage) in certificates {
        let left = value(&text, "shangmq_cert_expiry_seconds", &[listener, ("protocol", protocol), ("usage", usage)]);
        assert!(left > 0.0, "{protocol} {usage}");
    }
    for within in ["30d", "7d", "1d", "expired"] {
        assert_eq!(value(&text, "shangmq_certs_expiring", &[("within", within)]), 0.0);
    }
    for what in ["crl", "ocsp", "staple"] {
        for state in ["current", "waiting", "failing"] {
            assert_eq!(value(&text, "shangmq_revocation_held", &[("what", what), ("state", state)]), 0.0);
        }
    }
    for kind in ["cert_expiry", "reload_refused", "store", "crl_unusable", "ocsp_unreachable", "staple_missing"] {
        assert_eq!(value(&text, "shangmq_alarms_active", &[("kind", kind)]), 0.0);
    }
}
