//! Options of secured listeners as an operator writes them: what is refused with which words, at start and at a reload.

use std::fs;
use std::path::Path;

use gm_tls::HandshakeFailure;
use gm_tls::cert::Certificate;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use shangmq::config::Config;
use shangmq::dev_certs::CertKey;
use shangmq::operator::Trigger;
use shangmq::server::{Prepared, Server};
use testkit::{Client, Transport, connect};
use tokio::net::TcpStream;

use crate::broker::certificates;

/// A listener with every protocol and a place for further lines of each block.
fn listener(own: &str, ssl: &str, rfc8998: &str, tlcp: &str) -> String {
    let set = certificates();
    let files = |files: &CertKey, prefix: &str| {
        format!("{prefix}certfile = {:?}\n{prefix}keyfile = {:?}\n", files.cert, files.key)
    };
    format!(
        "[listeners.ssl.a]\nbind = \"127.0.0.1:0\"\n{own}\n\
         [listeners.ssl.a.ssl_options]\n{}{ssl}\n\
         [listeners.ssl.a.rfc8998_options]\n{}{rfc8998}\n\
         [listeners.ssl.a.tlcp_options]\n{}{}{tlcp}\n",
        files(&set.server_ecdsa(), ""),
        files(&set.server_sm2(), ""),
        files(&set.server_sign(), "sign_"),
        files(&set.server_enc(), "enc_"),
    )
}

/// The mistakes of a configuration, one to a line; empty where there is none.
fn mistakes(text: &str) -> String {
    let prepared =
        Config::parse(Path::new("/nowhere/shangmq.toml"), &format!("[node]\ndata_dir = \"/tmp\"\n{text}"), [])
            .and_then(Prepared::new);
    prepared.err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn options_of_every_block_are_taken() {
    let set = certificates();
    let verify = format!(
        "verify = \"verify_peer\"\ncacertfile = {:?}\ndepth = 2\npartial_chain = true\n\
         verify_peer_ext_key_usage = [\"clientAuth\", \"OID:1.3.6.1.5.5.7.3.2\"]\nhonor_cipher_order = false\nsecurity_level = 3\n",
        set.ca_bundle()
    );
    let ssl = format!(
        "{verify}signature_algorithms = [\"ecdsa_secp256r1_sha256\"]\ngroups = [\"P-256\"]\n\
         ciphers = [\"TLS_AES_128_GCM_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\", \"ECDHE-ECDSA-AES256-GCM-SHA384\"]\n\
         client_renegotiation = false\nsecure_renegotiate = true\n"
    );
    let rfc8998 = format!("{verify}groups = [\"curveSM2\"]\nciphers = [\"TLS_SM4_CCM_SM3\"]\n");
    let tlcp =
        format!("{verify}ciphers = [\"ECDHE_SM4_GCM_SM3\", \"ECC-SM2-SM4-CBC-SM3\", \"ECC-SM2-WITH-SM4-SM3\"]\n");
    let own = "alpn = [\"mqtt\", \"x-mqtt\"]\nalpn_required = true";
    assert_eq!(mistakes(&listener(own, &ssl, &rfc8998, &tlcp)), "");
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let cases = [
        (
            ["", "client_renegotiation = true", "", ""],
            "ssl_options.client_renegotiation: a renegotiation would change who",
        ),
        (["", "secure_renegotiate = false", "", ""], "renegotiation is always refused"),
        (
            ["", "security_level = 1", "", ""],
            "security_level: below 2, keys and signatures are accepted that can be broken",
        ),
        (["", "", "security_level = 5", ""], "rfc8998_options.security_level: above 4"),
        (
            ["", "", "", "partial_chain = true"],
            "tlcp_options.partial_chain: has no effect without verify = \"verify_peer\"",
        ),
        (["", "", "verify_peer_ext_key_usage = [\"clientAuth\"]", ""], "has no effect without verify"),
        (
            ["", "verify_peer_ext_key_usage = [\"client\"]", "", ""],
            "`client` is no extended key usage; write one of clientAuth",
        ),
        (["", "fail_if_no_peer_cert = true", "", ""], "needs verify = \"verify_peer\""),
        (
            ["", "signature_algorithms = [\"rsa_pss_rsae_sha256\"]", "", ""],
            "no certificate of this listener can sign by any",
        ),
        (
            ["", "signature_algorithms = [\"rsa_pkcs1_sha1\", \"nonsense\"]", "", ""],
            "unknown signature algorithm \"nonsense\"",
        ),
        (
            ["", "versions = [\"tlsv1.3\"]\nciphers = [\"ECDHE-ECDSA-AES128-GCM-SHA256\"]", "", ""],
            "which versions leaves out",
        ),
        (["", "ciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\"]", "", ""], "whose keys are ECDSA"),
        (["", "versions = [\"tlsv1.1\", \"tlsv1.3\"]", "", ""], "RFC 8996 forbids versions before TLS 1.2"),
        (["", "", "groups = [\"X25519\"]", ""], "group X25519 is not allowed by RFC 8998"),
        (["", "", "", "ciphers = [\"ECDHE_SM4_GCM_SM3\"]"], "needs client certificates"),
        (["alpn = []\nalpn_required = true", "", "", ""], "alpn_required: no protocol is listed"),
        (["alpn = [\"\"]", "", "", ""], "alpn: write at most 16 names of 1 to 255 bytes"),
    ];
    for ([own, ssl, rfc8998, tlcp], words) in cases {
        let found = mistakes(&listener(own, ssl, rfc8998, tlcp));
        assert!(found.contains(words), "{words} is not in:\n{found}");
    }
}

#[test]
fn a_seed_of_tickets_that_can_be_guessed_is_refused() {
    let seed = |value: &str| mistakes(&format!("tls_stateless_tickets_seed = {value:?}\n{}", listener("", "", "", "")));
    assert_eq!(seed("sixteen bytes or more"), "");
    let short = seed("short");
    assert!(
        short.contains("node.tls_stateless_tickets_seed: a seed of less than 16 bytes") && !short.contains("`short`"),
        "{short}"
    );
    assert!(seed("file:///nowhere/seed").contains("/nowhere/seed"), "{}", seed("file:///nowhere/seed"));
}

/// A listener for national cryptography alone.
fn gm_listener(own: &str, sm2: &CertKey, trusted: &Path) -> String {
    let set = certificates();
    let (sign, enc) = (set.server_sign(), set.server_enc());
    format!(
        "[listeners.ssl.a]\nbind = \"127.0.0.1:0\"\n{own}\n\
         [listeners.ssl.a.rfc8998_options]\ncertfile = {:?}\nkeyfile = {:?}\nverify = \"verify_peer\"\ncacertfile = {trusted:?}\n\
         [listeners.ssl.a.tlcp_options]\nsign_certfile = {:?}\nsign_keyfile = {:?}\nenc_certfile = {:?}\nenc_keyfile = {:?}\n",
        sm2.cert, sm2.key, sign.cert, sign.key, enc.cert, enc.key
    )
}

#[test]
fn gm_only_refuses_everything_else_at_start() {
    let set = certificates();
    let (sm2, ca) = (set.server_sm2(), set.sm2_ca());
    let node = "[crypto]\ngm_only = true\n";
    let good = gm_listener("", &sm2, &ca);
    assert_eq!(mistakes(&format!("{node}{good}")), "");
    assert_eq!(mistakes(&gm_listener("gm_only = true", &sm2, &ca)), "");
    let excepted = "[listeners.tcp.b]\nbind = \"127.0.0.1:0\"\ngm_only = false\n";
    assert_eq!(mistakes(&format!("{node}{good}{excepted}")), "");
    let plain = "[listeners.ws.b]\nbind = \"127.0.0.1:0\"\n";
    let open = "[listeners.tcp.b]\nbind = \"0.0.0.0:1\"\ngm_only = false\n";
    let metrics = "[metrics]\nenable = true\nbind = \"0.0.0.0:2\"\n";
    let cases = [
        (format!("{node}{}", listener("", "", "", "")), "listeners.ssl.a.ssl_options: gm_only is set"),
        (listener("gm_only = true", "", "", ""), "listeners.ssl.a.ssl_options: gm_only is set"),
        (format!("{node}{}", gm_listener("gm_only = false", &sm2, &ca)), "crypto.gm_only holds for every listener"),
        (format!("{node}{good}{plain}"), "listeners.ws.b.gm_only: crypto.gm_only is set, and a listener of this kind"),
        (format!("{node}{good}{open}"), "only a listener on loopback can be excepted"),
        (format!("{plain}gm_only = true\n"), "a listener of this kind does not encrypt at all"),
        (format!("{node}{metrics}{good}"), "metrics: crypto.gm_only is set"),
        (format!("{node}{}", gm_listener("", &sm2, &set.ca_bundle())), "cacertfile"),
        (format!("{node}{}", gm_listener("", &sm2, &set.ecdsa_ca())), "SM2 and SM2-with-SM3 are needed"),
    ];
    for (text, words) in cases {
        let found = mistakes(&text);
        assert!(found.contains(words), "{words} is not in:\n{found}");
    }
}

#[tokio::test]
async fn gm_only_holds_at_a_reload_too() {
    let set = certificates();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shangmq.toml");
    let head = "[node]\ndata_dir = \"data\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[crypto]\n";
    let write = |gm_only: bool, trusted: &Path| {
        let listener = gm_listener("", &set.server_sm2(), trusted);
        fs::write(&path, format!("{head}gm_only = {gm_only}\n{listener}")).unwrap();
    };
    write(true, &set.sm2_ca());
    let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
    write(true, &set.ca_bundle());
    let refused = server.operator().reload_aside(Trigger::Command).await.unwrap_err().to_string();
    assert!(refused.contains("gm_only is set") && refused.contains("ca.crt"), "{refused}");
    for transport in [Transport::Rfc8998, Transport::Tlcp] {
        transport.open(server.addresses()[0].1, set).await;
    }
    write(false, &set.ca_bundle());
    let done = server.operator().reload_aside(Trigger::Command).await.unwrap();
    assert_eq!((done.listeners.len(), done.restart_needed.len()), (1, 0));
}

#[tokio::test]
async fn the_policy_of_the_node_takes_effect_at_a_reload() {
    let set = certificates();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shangmq.toml");
    let head = "[node]\ndata_dir = \"data\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[crypto]\n";
    let write = |gm_only: bool, listener: &str| {
        fs::write(&path, format!("{head}gm_only = {gm_only}\n{listener}")).unwrap();
    };
    let (open, all) = ("[listeners.tcp.b]\nbind = \"0.0.0.0:0\"\n", listener("", "", "", ""));
    let gm = gm_listener("", &set.server_sm2(), &set.sm2_ca());
    write(false, &format!("{all}{open}"));
    let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
    let reload = async || server.operator().reload_aside(Trigger::Command).await.map_err(|errors| errors.to_string());
    // What violates it in the configuration, and what runs on although the configuration has it no longer.
    for (rest, words) in [
        (format!("{all}{open}"), "listeners.ssl.a.ssl_options: gm_only is set"),
        (gm.clone(), "crypto.gm_only: the listener tcp:b does not encrypt, is not bound to loopback and runs"),
        (
            gm.replace("ssl.a", "ssl.other"),
            "crypto.gm_only: the listener ssl:a is not of SM2, SM3 and SM4 alone and runs",
        ),
        (
            format!("{gm}[listeners.tcp.b]\nbind = \"127.0.0.1:0\"\ngm_only = false\n"),
            "crypto.gm_only: the listener tcp:b",
        ),
    ] {
        write(true, &rest);
        let refused = reload().await.unwrap_err();
        assert!(refused.contains(words), "{words} is not in:\n{refused}");
    }
    let address = server.addresses().iter().find(|(id, _)| &**id == "ssl:a").unwrap().1;
    Transport::Tls13.open(address, set).await;
    server.shutdown().await;

    write(false, &all);
    let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
    let mut established = testkit::Client::new(Transport::Tls13.open(server.addresses()[0].1, set).await);
    established.connect(testkit::connect("established")).await;
    write(true, &gm);
    let done = server.operator().reload_aside(Trigger::Command).await.unwrap();
    assert_eq!((done.listeners.len(), done.restart_needed.len()), (1, 0));
    for transport in [Transport::Rfc8998, Transport::Tlcp] {
        transport.open(server.addresses()[0].1, set).await;
    }
    let refused = Connector::new(&ClientOptions {
        ca: Certificate::anchors_from_file("ca", &set.ca_bundle()).unwrap(),
        ..ClientOptions::new(ClientProtocol::Tls13, "localhost")
    });
    let stream = TcpStream::connect(server.addresses()[0].1).await.unwrap();
    assert!(refused.unwrap().connect(stream).await.is_err(), "international suites are served");
    established.ping().await;
}

// A client that offered the hybrid of curveSM2 and no other group failed with "no suitable key share".
#[tokio::test]
async fn a_client_whose_only_group_is_a_hybrid_with_ml_kem_speaks_mqtt() {
    let head = "[node]\ndata_dir = \"data\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n";
    let start = async |ssl: &str, rfc8998: &str| {
        let text = format!("{head}{}", listener("", ssl, rfc8998, ""));
        Server::start(Config::parse(Path::new("/nowhere/shangmq.toml"), &text, []).unwrap()).await.unwrap()
    };
    let ca = Certificate::anchors_from_file("ca", &certificates().ca_bundle()).unwrap();
    let open = async |server: &Server, protocol, groups: &str| {
        let groups = Some(groups.to_owned());
        let options = ClientOptions { ca: ca.clone(), groups, ..ClientOptions::new(protocol, "localhost") };
        let stream = TcpStream::connect(server.addresses()[0].1).await.unwrap();
        Connector::new(&options).unwrap().connect(stream).await
    };
    let (x25519, curve_sm2) =
        ((ClientProtocol::Tls13, "X25519MLKEM768"), (ClientProtocol::Rfc8998, "curveSM2MLKEM768"));
    let hybrids = start("groups = [\"X25519MLKEM768\"]", "groups = [\"curveSM2MLKEM768\"]").await;
    let by_default = start("", "").await;
    for (server, (protocol, group)) in [(&hybrids, x25519), (&hybrids, curve_sm2), (&by_default, curve_sm2)] {
        let mut client = Client::new(open(server, protocol, group).await.unwrap());
        client.connect(connect("c")).await;
        client.ping().await;
    }
    // Of a hybrid alone there is no TLS 1.2, and what was not named is not served.
    for (server, protocol, groups) in [
        (&hybrids, ClientProtocol::Tls12, "X25519:P-256"),
        (&hybrids, ClientProtocol::Tls13, "X25519"),
        (&hybrids, ClientProtocol::Rfc8998, "curveSM2"),
        (&by_default, ClientProtocol::Tls13, "X25519MLKEM768"),
    ] {
        let refused = open(server, protocol, groups).await.unwrap_err();
        assert_eq!(refused.reason(), HandshakeFailure::PeerAlert(40), "{protocol:?} {groups}");
    }
}
