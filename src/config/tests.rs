//! Tests of whole configurations: what is accepted, and the words for each mistake.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TCP: &str = "[listeners.tcp.default]\nbind = \"127.0.0.1:1883\"\n";

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Path::new("etc/t.toml"), text, environment)
        .map_err(|errors| errors.as_slice().iter().map(ToString::to_string).collect())
}

/// The mistakes in a text, without the name of the file.
fn mistakes(text: &str) -> Vec<String> {
    let errors = parse(text, &[]).expect_err(text);
    errors.into_iter().map(|error| error.replace("etc/t.toml:", "")).collect()
}

/// The mistakes in the keys of an otherwise good ssl listener; the first line of `keys` is line 3.
fn ssl_mistakes(keys: &str) -> Vec<String> {
    mistakes(&format!("[listeners.ssl.a]\nbind = 8883\n{keys}"))
}

#[test]
fn the_development_configuration_is_loopback_only_and_speaks_everything() {
    let config = Config::development().unwrap();
    let ids: Vec<String> = config.listeners.iter().map(ListenerConfig::id).collect();
    assert_eq!(ids, ["tcp:default", "ssl:default", "ws:default", "wss:default"]);
    assert!(config.listeners.iter().all(|listener| listener.bind.ip().is_loopback()));
    let ports: Vec<u16> = config.listeners.iter().map(|listener| listener.bind.port()).collect();
    assert_eq!(ports, [1883, 8883, 8083, 8084]);
    for tls in config.listeners.iter().filter_map(|listener| listener.kind.tls()) {
        let options = tls.tls.as_ref().unwrap();
        assert_eq!(options.identities.len(), 2);
        assert!(matches!(options.client_auth, ClientAuth::Optional(_)));
        assert!(matches!(tls.rfc8998.as_ref().unwrap().client_auth, ClientAuth::Optional(_)));
        assert!(matches!(tls.tlcp.as_ref().unwrap().client_auth, ClientAuth::Optional(_)));
    }
    assert!(config.auth.allow_anonymous);
    assert_eq!(config.node.data_dir, Path::new("data"));
}

#[test]
fn a_file_that_says_nothing_about_clients_refuses_anonymous_ones() {
    assert!(!parse(TCP, &[]).unwrap().auth.allow_anonymous);
}

#[test]
fn the_example_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shangmq.example.toml");
    let config = Config::load(Some(&path), []).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.mqtt, MqttConfig::default());
    assert_eq!(config.retainer, RetainerConfig::default());
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.metrics, MetricsConfig::default());
    assert!(!config.auth.allow_anonymous);
    assert_eq!(config.auth.no_match, AuthConfig::default().no_match);
    let kinds: Vec<&str> = config.listeners.iter().map(|listener| listener.kind.as_str()).collect();
    assert_eq!(kinds, ["tcp", "ssl", "ws", "wss"]);
}

#[test]
fn the_table_of_limits_names_every_limit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let limits = std::fs::read_to_string(root.join("docs/limits.md")).unwrap();
    let example = std::fs::read_to_string(root.join("shangmq.example.toml")).unwrap();
    let is_limit = |key: &&str| key.starts_with("max_") || key.ends_with("_timeout") || *key == "backlog";
    let keys = example.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = ")).map(|(key, _)| key);
    let missing: Vec<&str> = keys.filter(is_limit).filter(|key| !limits.contains(&format!("{key}`"))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn values_mean_what_they_say() {
    let text = r#"
[node]
data_dir = "var"
[mqtt]
max_packet_size = "64KB"
server_keepalive = "60s"
idle_timeout = "1500ms"
[listeners.tcp.a]
bind = 1883
proxy_protocol = true
proxy_protocol_trusted = ["10.0.0.0/8", "::1"]
tcp_options = { keepalive = "240,30,5" }
[listeners.tcp.off]
enable = false
bind = "127.0.0.1:1884"
[listeners.ws.b]
bind = "[::1]:8083"
connect_timeout = "3s"
"#;
    let config = parse(text, &[]).unwrap();
    assert_eq!(config.node.data_dir, Path::new("etc/var"));
    assert_eq!(config.mqtt.max_packet_size, 65_536);
    assert_eq!(config.mqtt.server_keepalive, Some(60));
    let [tcp, ws] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!(tcp.bind.to_string(), "0.0.0.0:1883");
    assert_eq!(tcp.connect_timeout, Duration::from_millis(1500));
    let proxy = tcp.proxy_protocol.as_ref().unwrap();
    assert!(proxy.trusted.iter().any(|block| block.contains(IpAddr::from([10, 1, 2, 3]))));
    let keepalive = tcp.tcp.keepalive.unwrap();
    assert_eq!((keepalive.idle, keepalive.probes), (Duration::from_secs(240), 5));
    assert_eq!(ws.connect_timeout, Duration::from_secs(3));
    assert_eq!(ws.kind.websocket().unwrap().max_frame_size, 65_536);
}

#[test]
fn protocols_follow_the_options_when_they_are_not_listed() {
    let pair = "sign_certfile='a', sign_keyfile='b', enc_certfile='c', enc_keyfile='d', enc_password='pw'";
    let text = format!("[listeners.ssl.gm]\nbind = 8883\nhandshake_timeout = '5s'\ntlcp_options = {{ {pair} }}\n");
    let config = parse(&text, &[]).unwrap();
    let tls = config.listeners[0].kind.tls().unwrap();
    assert!(tls.tls.is_none() && tls.rfc8998.is_none());
    let tlcp = tls.tlcp.as_ref().unwrap();
    assert_eq!(tlcp.enc.certfile.path(), Path::new("etc/c"));
    assert_eq!(tlcp.enc.certfile.error("").key, "listeners.ssl.gm.tlcp_options.enc_certfile");
    assert_eq!(tlcp.enc.password.as_ref().unwrap().expose(), "pw");
    assert_eq!(tls.handshake_timeout, Duration::from_secs(5));
    assert!(!format!("{config:?}").contains("\"pw\""));
}

#[test]
fn the_environment_goes_before_the_file() {
    let environment = [
        ("SHANGMQ_LISTENERS__TCP__DEFAULT__BIND", "127.0.0.1:2883"),
        ("SHANGMQ_LISTENERS__TCP__DEFAULT__MAX_CONNECTIONS", "7"),
        ("SHANGMQ_AUTH__ALLOW_ANONYMOUS", "true"),
        ("SHANGMQ_AUTH__PASSWORD_FILE", "users"),
        ("SHANGMQ_MQTT__MAX_PACKET_SIZE", "2MB"),
        ("SHANGMQ_LISTENERS__SSL__NEW__BIND", "8883"),
        ("SHANGMQ_LISTENERS__SSL__NEW__PROTOCOLS", "tls"),
        ("SHANGMQ_LISTENERS__SSL__NEW__SSL_OPTIONS__CERTIFICATES", "[{certfile='a', keyfile='b'}]"),
        ("SHANGMQ_PORT", "tcp://10.0.0.1:1883"),
        ("SHANGMQ_LOG", "debug"),
        ("OTHER__KEY", "x"),
    ];
    let config = parse(&format!("{TCP}max_connections = 5\n"), &environment).unwrap();
    assert_eq!(config.listeners[0].bind.port(), 2883);
    assert_eq!(config.listeners[0].max_connections, 7);
    assert!(config.auth.allow_anonymous);
    assert_eq!(config.auth.password_file.unwrap().path(), Path::new("users"));
    assert_eq!(config.mqtt.max_packet_size, 2 << 20);
    let tls = config.listeners[1].kind.tls().unwrap().tls.as_ref().unwrap();
    assert_eq!(tls.identities[0].keyfile.path(), Path::new("b"));
}

#[test]
fn the_environment_reaches_names_written_in_capitals() {
    let text = "[listeners.tcp.Main]\nbind = 1883\n";
    let config = parse(text, &[("SHANGMQ_LISTENERS__TCP__MAIN__BIND", "1884")]).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].bind.port(), 1884);
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let environment = [
        ("SHANGMQ_NODE__DATADIR", "x"),
        ("SHANGMQ_AUTH__ALLOW_ANONYMOUS", "yes"),
        ("SHANGMQ_NODE__", "x"),
        ("SHANGMQ_LISTENERS__TCP__DEFAULT__BIND__PORT", "1"),
    ];
    assert_eq!(
        parse(TCP, &environment).unwrap_err(),
        [
            "environment variable SHANGMQ_LISTENERS__TCP__DEFAULT__BIND__PORT: listeners.tcp.default.bind.port: \
             listeners.tcp.default.bind is a string, so it has no keys of its own",
            "environment variable SHANGMQ_NODE__: does not name a key; write it like SHANGMQ_NODE__DATA_DIR for \
             node.data_dir",
            "environment variable SHANGMQ_NODE__DATADIR: node.datadir: unknown key; did you mean `data_dir`?",
            "environment variable SHANGMQ_AUTH__ALLOW_ANONYMOUS: auth.allow_anonymous: expected true or false, found a \
             string",
        ]
    );
}

#[test]
fn every_mistake_is_reported_in_the_order_of_the_file() {
    let text = "[mqtt]\nmax_qos_allowed = 3\nmax_inflight = 0\nretain_availabel = true\n[listeners.tcp.a]\nbnd = 1\n";
    assert_eq!(
        mistakes(text),
        [
            "2:1: mqtt.max_qos_allowed: 3 is out of range, it must be between 0 and 2; the default is 2",
            "3:1: mqtt.max_inflight: 0 is out of range, it must be between 1 and 65535; the default is 32",
            "4:1: mqtt.retain_availabel: unknown key; did you mean `retain_available`?",
            "5:16: listeners.tcp.a.bind: missing; write the address to listen on, such as bind = \"0.0.0.0:1883\"",
            "6:1: listeners.tcp.a.bnd: unknown key; did you mean `bind`?",
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_named_by_line() {
    let errors = parse("[node]\ndata_dir = \n[mqtt\n", &[]).unwrap_err();
    assert!(errors[0].starts_with("etc/t.toml:2:"), "{errors:?}");
    assert!(errors.iter().any(|error| error.starts_with("etc/t.toml:3:")), "{errors:?}");
    assert!(errors.iter().all(|error| error.contains(": not TOML: ")), "{errors:?}");
}

#[test]
fn a_syntax_error_beside_a_password_does_not_show_it() {
    let text = "[listeners.ssl.a.ssl_options]\npassword = \"hunter2\nx = 1\n";
    assert!(!parse(text, &[]).unwrap_err().join("\n").contains("hunter2"));
    let text = "[listeners.ssl.a.ssl_options]\npassword = [\"hunter2\"]\n";
    assert!(!parse(text, &[]).unwrap_err().join("\n").contains("hunter2"));
}

#[test]
fn a_configuration_without_listeners_is_refused() {
    let suggestion = "add a table such as [listeners.tcp.default] with bind = \"127.0.0.1:1883\"";
    let none = "no listener is enabled, so no client could connect";
    assert_eq!(mistakes(""), [format!("configuration: listeners: {none}; {suggestion}").as_str()]);
    let disabled = format!("{TCP}enable = false\n");
    assert_eq!(mistakes(&disabled).len(), 1);
}

#[test]
fn values_of_the_wrong_kind_say_what_was_expected() {
    let duration = "write a number and a unit: \"500ms\", \"15s\", \"10m\", \"2h\" or \"7d\"";
    let size = "write a number and a unit: \"64KB\", \"1MB\" or \"2GB\"";
    for (line, expected) in [
        ("idle_timeout = 15", format!("2:16: mqtt.idle_timeout: expected a duration, found a number; {duration}")),
        ("idle_timeout = '15'", format!("2:16: mqtt.idle_timeout: `15` is not a duration; {duration}")),
        (
            "idle_timeout = '0s'",
            "2:1: mqtt.idle_timeout: 0s is out of range, it must be between 100ms and 1h; the default is 15s".into(),
        ),
        ("max_packet_size = '1TB'", format!("2:19: mqtt.max_packet_size: `1TB` is not a size; {size}")),
        (
            "max_packet_size = '1GB'",
            "2:1: mqtt.max_packet_size: 1GB is out of range, it must be between 128B and 268435460B; the default is 1MB"
                .into(),
        ),
        (
            "retain_available = 'true'",
            "2:20: mqtt.retain_available: expected true or false, found a string; remove the quotes".into(),
        ),
        (
            "max_subscriptions = 'infinity'",
            "2:21: mqtt.max_subscriptions: every limit is finite here; write a number".into(),
        ),
        ("max_inflight = -1", "2:16: mqtt.max_inflight: -1 is out of range, it must be between 0 and 65535".into()),
        (
            "max_sessions = 99999999999999999999999999",
            "2:16: mqtt.max_sessions: 99999999999999999999999999 is out of range, it must be between 0 and \
             18446744073709551615"
                .into(),
        ),
        (
            "keepalive_multiplier = 0.5",
            "2:1: mqtt.keepalive_multiplier: 0.5 is out of range, it must be between 1 and 10; the default is 1.5".into(),
        ),
        ("keepalive_multiplier = nan", "2:24: mqtt.keepalive_multiplier: expected a finite number of usual size".into()),
        (
            "server_keepalive = '20h'",
            "2:1: mqtt.server_keepalive: 20h is out of range, it must be between 1s and 65535s".into(),
        ),
        (
            "server_keepalive = 'never'",
            "2:1: mqtt.server_keepalive: `never` is not a keep alive; write whole seconds such as \"60s\", or \"disabled\""
                .into(),
        ),
        (
            "session_expiry_interval = '8d'",
            "2:1: mqtt.session_expiry_interval: longer than max_session_expiry_interval, which is 7d; shorten it, or \
             raise the maximum"
                .into(),
        ),
        (
            "max_mqueue_bytes = '1KB'",
            "2:1: mqtt.max_mqueue_bytes: smaller than max_packet_size, so the largest messages could never be queued; \
             raise it, or lower max_packet_size"
                .into(),
        ),
    ] {
        assert_eq!(mistakes(&format!("[mqtt]\n{line}\n{TCP}")), [expected], "{line}");
    }
}

#[test]
fn a_table_in_the_wrong_place_is_named() {
    assert_eq!(mistakes(&format!("log = 1\n{TCP}")), ["1:7: log: expected a table, found a number"]);
    let text = "[listeners.tcp]\na = 1\n";
    assert_eq!(mistakes(text)[0], "2:5: listeners.tcp.a: expected a table, found a number");
    assert_eq!(mistakes(&format!("[mqtt.max_inflight]\nx = 1\n{TCP}")).len(), 1);
}

#[test]
fn words_out_of_a_choice_are_suggested() {
    assert_eq!(
        mistakes(&format!("[log]\nlevel = 'inof'\nformat = 'xml'\n{TCP}")),
        [
            "2:9: log.level: `inof` is not a known value; did you mean `info`?",
            "3:10: log.format: `xml` is not a known value; it must be one of text, json",
        ]
    );
}

#[test]
fn listeners_that_cannot_exist_are_refused() {
    let two = "[listeners.tcp.a]\nbind = 1883\n[listeners.ws.b]\nbind = '127.0.0.1:1883'\n";
    let another_port = "give one of them another port";
    assert_eq!(
        mistakes(two),
        [format!("4:1: listeners.ws.b.bind: 127.0.0.1:1883 is already taken by listeners.tcp.a.bind; {another_port}")]
    );
    assert_eq!(
        mistakes("[metrics]\nenable = true\nbind = 9090\n[listeners.tcp.a]\nbind = '[::]:9090'\n"),
        [format!("5:1: listeners.tcp.a.bind: [::]:9090 is already taken by metrics.bind; {another_port}")]
    );
    assert_eq!(
        mistakes("[listeners.tcp.'a b']\nbind = 1883\n"),
        ["1:16: listeners.tcp.a b: the name of a listener has 1 to 64 letters, digits, `_` or `-`"]
    );
    assert_eq!(
        mistakes("[listeners.tcp.a]\nbind = 'localhost:1883'\n"),
        ["2:8: listeners.tcp.a.bind: `localhost:1883` is not an IP address and port; write an address and a port: \
          \"0.0.0.0:8883\", \"[::]:8883\", or a port alone: 8883"]
    );
    assert_eq!(
        mistakes(&format!("{TCP}[listeners.quic.a]\nbind = 14567\n")),
        ["3:12: listeners.quic: QUIC is not supported; use tcp, ssl, ws or wss"]
    );
    assert_eq!(
        mistakes(&format!("{TCP}ssl_options = {{}}\n"))[0].split(';').next().unwrap(),
        "3:1: listeners.tcp.default.ssl_options: unknown key"
    );
}

#[test]
fn listeners_on_different_addresses_or_any_port_may_coexist() {
    let text = "[listeners.tcp]\na.bind = '127.0.0.1:0'\nb.bind = '127.0.0.1:0'\nc.bind = '127.0.0.1:1'\nd.bind = '127.0.0.2:1'\ne.bind = '[::1]:1'\n";
    assert_eq!(parse(text, &[]).unwrap().listeners.len(), 5);
}

#[test]
fn the_proxy_protocol_needs_to_know_whom_to_believe() {
    assert_eq!(
        mistakes(&format!("{TCP}proxy_protocol = true\n")),
        [
            "3:1: listeners.tcp.default.proxy_protocol: without proxy_protocol_trusted every peer could claim any address; \
          list the load balancers, such as proxy_protocol_trusted = [\"10.0.0.0/8\"]"
        ]
    );
    assert_eq!(
        mistakes(&format!("{TCP}proxy_protocol_trusted = ['10.0.0.1/8']\n")),
        [
            "3:26: listeners.tcp.default.proxy_protocol_trusted: `10.0.0.1/8` has address bits beyond its prefix; did you \
          mean `10.0.0.0/8`?"
        ]
    );
}

#[test]
fn tcp_and_websocket_options_are_checked() {
    assert_eq!(
        mistakes(&format!("{TCP}tcp_options.keepalive = '240,30'\ntcp_options.backlog = 0\n")),
        [
            "3:13: listeners.tcp.default.tcp_options.keepalive: `240,30` is not a TCP keep alive; write seconds of \
             silence, seconds between probes and probes (up to 72000, 750 and 90), such as \"240,30,5\", or \"none\"",
            "4:13: listeners.tcp.default.tcp_options.backlog: 0 is out of range, it must be between 1 and 65535; the \
             default is 1024",
        ]
    );
    assert_eq!(
        mistakes("[listeners.ws.a]\nbind = 8083\nwebsocket.mqtt_path = 'mqtt'\n"),
        [
            "3:11: listeners.ws.a.websocket.mqtt_path: `mqtt` is not a URL path; write it with a leading slash: \"/mqtt\""
        ]
    );
}

#[test]
fn a_listener_without_certificates_is_refused() {
    assert_eq!(
        ssl_mistakes(""),
        [
            "1:16: listeners.ssl.a.ssl_options: a listener of this kind needs a certificate; add ssl_options with certfile \
          and keyfile, or tlcp_options with a pair"
        ]
    );
    assert_eq!(
        ssl_mistakes("ssl_options = {}\n"),
        [
            "3:1: listeners.ssl.a.ssl_options.certfile: missing: the certificate file; add certfile = \"PATH\"",
            "3:1: listeners.ssl.a.ssl_options.keyfile: missing: the private key file; add keyfile = \"PATH\"",
        ]
    );
}

#[test]
fn half_a_pair_is_refused_by_the_name_of_the_missing_half() {
    assert_eq!(
        ssl_mistakes("tlcp_options.sign_certfile = 'a'\ntlcp_options.sign_keyfile = 'b'\n"),
        [
            "3:1: listeners.ssl.a.tlcp_options.enc_certfile: missing: the certificate file; add enc_certfile = \"PATH\"",
            "3:1: listeners.ssl.a.tlcp_options.enc_keyfile: missing: the private key file; add enc_keyfile = \"PATH\"",
        ]
    );
    assert_eq!(
        ssl_mistakes(
            "[listeners.ssl.a.tlcp_options]\ncertfile = 'a'\nsign_certfile = 'a'\nsign_keyfile = 'b'\nenc_certfile = 'c'\nenc_keyfile = 'd'\n"
        ),
        ["4:1: listeners.ssl.a.tlcp_options.certfile: TLCP has two certificates, one to sign and one to encrypt; use \
          sign_certfile and enc_certfile"]
    );
}

#[test]
fn protocols_and_options_must_agree() {
    let ssl = "ssl_options = { certfile = 'a', keyfile = 'b' }\n";
    assert_eq!(
        ssl_mistakes(&format!("protocols = ['tls', 'tlcp']\n{ssl}")),
        [
            "3:1: listeners.ssl.a.protocols: `tlcp` is listed but tlcp_options is missing; add tlcp_options or remove `tlcp`"
        ]
    );
    assert_eq!(
        ssl_mistakes(&format!("protocols = ['tls']\n{ssl}rfc8998_options = {{ certfile = 'a', keyfile = 'b' }}\n")),
        [
            "5:1: listeners.ssl.a.rfc8998_options: `rfc8998` is not in protocols, so these options would have no effect; \
          add `rfc8998` to protocols or remove rfc8998_options"
        ]
    );
    assert_eq!(
        ssl_mistakes(&format!("protocols = []\n{ssl}")),
        ["3:1: listeners.ssl.a.protocols: no protocol is listed; list some of tls, rfc8998, tlcp"]
    );
    assert_eq!(
        ssl_mistakes(&format!("protocols = ['tclp']\n{ssl}")),
        ["3:13: listeners.ssl.a.protocols: `tclp` is not a known value; did you mean `tlcp`?"]
    );
}

#[test]
fn options_about_clients_and_versions_must_make_sense() {
    let certificate = "[listeners.ssl.a.ssl_options]\ncertfile = 'a'\nkeyfile = 'b'\n";
    let key = "listeners.ssl.a.ssl_options";
    for (lines, expected) in [
        (
            "fail_if_no_peer_cert = true",
            "6:1: KEY.fail_if_no_peer_cert: needs verify = \"verify_peer\"; add verify = \"verify_peer\"",
        ),
        (
            "verify = 'verify_peer'",
            "6:1: KEY.verify: verify_peer needs cacertfile; add cacertfile = \"PATH\" with the CA of the clients",
        ),
        (
            "verify = 'peer'",
            "6:10: KEY.verify: `peer` is not a known value; it must be one of verify_none, verify_peer",
        ),
        ("versions = []", "6:1: KEY.versions: no version is listed; the default is [\"tlsv1.3\", \"tlsv1.2\"]"),
        (
            "versions = ['tlsv1.3', 'tlsv1.1']",
            "6:12: KEY.versions: `tlsv1.1` is not supported: RFC 8996 forbids versions before TLS 1.2; it must be one of \
             tlsv1.3, tlsv1.2",
        ),
        (
            "ciphers = ['ECDHE+AESGCM:!MD5']",
            "6:1: KEY.ciphers: `ECDHE+AESGCM:!MD5` is not a name; write one name per item, without operators",
        ),
        (
            "dhfile = 'dh.pem'",
            "6:1: KEY.dhfile: keys are exchanged over elliptic curves alone, never over finite fields (DHE), so that there are no \
             parameters to choose; remove the key",
        ),
        ("groups = ['P-256', 'P-256']", "6:1: KEY.groups: `P-256` is listed twice"),
        ("cacertfile = ''", "6:1: KEY.cacertfile: an empty path; remove the key, or name a file"),
        (
            "session_tickets = 'stateless_with_cert'",
            "6:19: KEY.session_tickets: `stateless_with_cert` is not supported: tickets always carry the client's \
             certificate here; it must be one of disabled, stateless",
        ),
        ("depth = 101", "6:1: KEY.depth: 101 is out of range, it must be between 0 and 100; the default is 10"),
        ("cacertfle = 'x'", "6:1: KEY.cacertfle: unknown key; did you mean `cacertfile`?"),
    ] {
        let text = format!("[listeners.ssl.a]\nbind = 8883\n{certificate}{lines}\n");
        assert_eq!(mistakes(&text), [expected.replace("KEY", key)], "{lines}");
    }
}

#[test]
fn two_handshake_timeouts_must_agree() {
    let text = "handshake_timeout = '5s'\nssl_options = { certfile = 'a', keyfile = 'b', handshake_timeout = '6s' }\n";
    assert_eq!(
        ssl_mistakes(text),
        [
            "4:48: listeners.ssl.a.ssl_options.handshake_timeout: contradicts the handshake_timeout of the listener; keep \
          one of the two"
        ]
    );
}

#[test]
fn a_list_of_certificates_adds_to_the_single_one() {
    let further = "certificates = [{ certfile = 'c', keyfile = 'd' }]";
    for (single, expected) in [("certfile = 'a'\nkeyfile = 'b'\n", 2), ("", 1)] {
        let text = format!("[listeners.ssl.a]\nbind = 8883\n[listeners.ssl.a.ssl_options]\n{single}{further}\n");
        let config = parse(&text, &[]).unwrap();
        assert_eq!(config.listeners[0].kind.tls().unwrap().tls.as_ref().unwrap().identities.len(), expected);
    }
    assert_eq!(
        ssl_mistakes("ssl_options.certificates = [{ certfile = 'c' }]\n"),
        ["3:29: listeners.ssl.a.ssl_options.certificates[0].keyfile: missing: the private key file; add keyfile = \
          \"PATH\""]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_not_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no.toml");
    let errors = Config::load(Some(&missing), []).unwrap_err();
    assert!(errors.to_string().contains("no.toml:1:1: cannot open the file: "), "{errors}");
    let binary = dir.path().join("b.toml");
    std::fs::write(&binary, b"[node]\n\xff\n").unwrap();
    let errors = Config::load(Some(&binary), []).unwrap_err();
    assert!(errors.to_string().ends_with("b.toml:2:1: not UTF-8 text; save the file as UTF-8"), "{errors}");
    let huge = dir.path().join("h.toml");
    std::fs::write(&huge, vec![b'#'; (1 << 20) + 1]).unwrap();
    let errors = Config::load(Some(&huge), []).unwrap_err();
    assert!(errors.to_string().ends_with("larger than 1MB; is this the right file?"), "{errors}");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,400}") {
        let _ = parse(&text, &[]);
    }

    #[test]
    fn arbitrary_lines_of_known_keys_never_panic(
        lines in prop::collection::vec(("[a-z_]{1,12}|bind|verify|protocols|ssl_options|certificates", ".{0,20}"), 0..12),
        table in "listeners\\.(tcp|ssl|ws|wss)\\.[a-z]{0,3}|mqtt|auth|log|\\[listeners\\]|node",
    ) {
        let body: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let _ = parse(&format!("[{table}]\n{body}"), &[]);
    }

    #[test]
    fn arbitrary_variables_never_panic(name in "[A-Z_]{0,30}", value in ".{0,40}") {
        let name = format!("SHANGMQ_{name}");
        let _ = parse(TCP, &[(&name, &value)]);
        let _ = parse(TCP, &[("SHANGMQ_LISTENERS__TCP__DEFAULT__BIND", &value)]);
        let _ = parse(TCP, &[("SHANGMQ_MQTT__IDLE_TIMEOUT", &value)]);
    }
}

// The environment alone could open the broker for development, which lets anybody in, while it said that it serves loopback only.
#[test]
fn without_a_file_the_environment_opens_nothing_beyond_loopback() {
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, variables.collect::<Vec<_>>()).map_err(|errors| errors.to_string())
    };
    for bind in ["127.0.0.1:0", "127.0.0.2:2883", "[::1]:1883", "[::ffff:127.0.0.1]:1883"] {
        load(&[("SHANGMQ_LISTENERS__TCP__DEFAULT__BIND", bind)]).unwrap();
    }
    for bind in ["0.0.0.0:1883", "1883", "[::]:1883", "192.0.2.1:1883"] {
        let error = load(&[("SHANGMQ_LISTENERS__TCP__DEFAULT__BIND", bind)]).unwrap_err();
        assert!(
            error.starts_with(
                "environment variable SHANGMQ_LISTENERS__TCP__DEFAULT__BIND: listeners.tcp.default.bind: "
            ),
            "{error}"
        );
        assert!(error.contains("--config"), "{error}");
    }
    let others = [("SHANGMQ_LISTENERS__WSS__DEFAULT__BIND", "0.0.0.0:8084"), ("SHANGMQ_METRICS__BIND", "0.0.0.0:9090")];
    load(&others[1..]).expect("an endpoint that is off listens nowhere");
    let error = load(&[others[0], others[1], ("SHANGMQ_METRICS__ENABLE", "true")]).unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn origins_are_whole_or_hosts_and_development_has_those_of_this_machine() {
    let read = |origins: &str| {
        parse(&format!("[listeners.ws.a]\nbind = 8083\nwebsocket = {{ allowed_origins = {origins} }}\n"), &[])
    };
    read("['https://console.example:8443', 'localhost', '[::1]', 'null']").unwrap();
    for wrong in ["''", "'*'", "'https://'", "'https://a/b'", "'a b'"] {
        assert!(read(&format!("[{wrong}]")).is_err(), "{wrong}");
    }
    let development = Config::development().unwrap();
    let websockets: Vec<_> = development.listeners.iter().filter_map(|one| one.kind.websocket()).collect();
    assert_eq!(websockets.len(), 2);
    assert!(websockets.iter().all(|one| one.allowed_origins == ["localhost", "127.0.0.1", "[::1]"]));
}
