//! `shangmq pub` as a program, against a running broker: how it proves who it is, and what it says when it may not come in.

use std::net::SocketAddr;
use std::process::{Command, Output};

use shangmq::dev_certs::{CertKey, DevCerts};
use shangmq::metrics::Failed;
use testkit::{QoS, Transport};

use crate::broker::{Secured, Setup, certificates, eventually};

/// Publishes to a broker while this test's runtime serves it.
async fn publish(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shangmq"));
    command.args(["pub", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-t", "t", "-m", "x", "-q", "1"]).args(arguments).env_remove("SHANGMQ_PASSWORD");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

// A password that was left in the environment went to a server without a user name; before MQTT 5 the command was refused.
#[tokio::test]
async fn a_password_in_the_environment_is_that_of_a_user() {
    let broker = Setup::new().start().await;
    let address = broker.address(Transport::Tcp);
    for line in [&["pub", "-t", "t", "-m", "x", "-q", "1"][..], &["bench", "conn", "--count", "1", "-c", "1"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shangmq"));
        command.args(line).args(["-V", "311", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.env("SHANGMQ_PASSWORD", "open sesame");
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{line:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
async fn a_user_proves_the_password_by_scram_and_another_password_is_refused() {
    let broker = crate::extended::setup("").start().await;
    let address = broker.address(Transport::Tcp);
    let good = publish(address, &["--scram", "-u", "user", "-P", "pencil", "-d"]).await;
    let said = String::from_utf8_lossy(&good.stderr).into_owned();
    assert!(good.status.success() && said.contains("received AUTH"), "{said}");
    let published = broker.sample(&format!(
        "shangmq_publishes_received_total{{listener=\"tcp:default\",qos=\"{}\"}}",
        u8::from(QoS::AtLeastOnce)
    ));
    assert_eq!(published, 1);
    for (user, password) in [("user", "pen"), ("nobody", "pencil"), ("ada", crate::access::PASSWORD)] {
        let refused = publish(address, &["--scram", "-u", user, "-P", password]).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("the server refused the connection"), "{user}: {said}");
    }
}

/// What `shangmq pub` says when it is refused over `protocol`.
async fn refusal(address: SocketAddr, protocol: &str, arguments: &[&str]) -> String {
    let refused = publish(address, &[&["--protocol", protocol, "--sni", "localhost"], arguments].concat()).await;
    assert!(!refused.status.success(), "{protocol}");
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

const PROTOCOLS: [&str; 4] = ["tls1.2", "tls1.3", "rfc8998", "tlcp"];

// Over TLS 1.2 the suites were named, and over TLS 1.3 an alert alone: nothing said that a certificate was asked for, or how to give one.
#[tokio::test]
async fn a_client_without_certificates_is_told_that_the_server_asks_for_some() {
    let broker = Setup::new().secured().secured_by(Secured::mutual()).start().await;
    let address = broker.address(Transport::Tlcp);
    let ca = certificates().ca_bundle();
    let ca = ca.to_str().unwrap();
    for protocol in PROTOCOLS {
        let said = refusal(address, protocol, &["--cafile", ca]).await;
        let options = match protocol {
            "tlcp" => "--sign-cert, --sign-key, --enc-cert and --enc-key",
            _ => "--cert and --key",
        };
        let wanted =
            format!("the server asks for a client certificate: give {options}: the peer asked for a certificate");
        assert!(said.contains(&wanted), "{protocol}: {said}");
        assert!(!said.contains("cipher suites") && !said.contains("SSL routines"), "{protocol}: {said}");
        assert_eq!(said.matches("alert").count(), 1, "{protocol}: {said}");
    }
    let (sign, enc) = (certificates().client_sign(), certificates().client_enc());
    let files = [&sign.cert, &sign.key, &enc.cert, &enc.key].map(|path| path.to_str().unwrap().to_owned());
    let [sign_cert, sign_key, enc_cert, enc_key] = files.each_ref().map(String::as_str);
    let pair = ["--sign-cert", sign_cert, "--sign-key", sign_key, "--enc-cert", enc_cert, "--enc-key", enc_key];
    let arguments = [&["--protocol", "tlcp", "--cafile", ca, "--sni", "localhost"][..], &pair].concat();
    let good = publish(address, &arguments).await;
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}

// Both sides said "unknown CA", and nobody knew which of the two certificates was meant.
#[tokio::test]
async fn it_is_said_whose_certificate_is_not_trusted() {
    let certificates = certificates();
    let rsa = certificates.rsa_ca();
    let secured = Secured { other_ca: Some(rsa.clone()), ..Secured::mutual() };
    let broker = Setup::new().secured().secured_by(secured).start().await;
    let address = broker.address(Transport::Tls13);
    let (rsa, bundle) = (rsa.to_str().unwrap(), certificates.ca_bundle());
    let client = certificates.client_ecdsa();
    let (cert, key) = (client.cert.to_str().unwrap(), client.key.to_str().unwrap());
    for protocol in ["tls1.2", "tls1.3"] {
        let said = refusal(address, protocol, &["--cafile", rsa, "--cert", cert, "--key", key]).await;
        let wanted = format!("the server's certificate does not lead to any CA in --cafile {rsa}: ");
        assert!(said.contains(&wanted), "{protocol}: {said}");
        let arguments = ["--cafile", bundle.to_str().unwrap(), "--cert", cert, "--key", key];
        let said = refusal(address, protocol, &arguments).await;
        let wanted = format!("the server does not trust the client certificate (--cert {cert}): ");
        assert!(said.contains(&wanted) && said.contains("alert 48 (unknown_ca)"), "{protocol}: {said}");
    }
}

/// The row of docs/tls.md that has what a client is told, and the word by which the broker counts it.
fn documented(told: &str, word: &str) -> bool {
    let rows = include_str!("../../docs/tls.md").lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.replace('`', ""))
        .any(|row| row.contains(told) && row.split(['|', ',', ';', ' ']).any(|one| one == word))
}

// An operator reads the one side, and the client's user the other.
#[tokio::test]
async fn both_sides_of_a_refusal_are_as_documented() {
    let certificates = certificates();
    let expired = tempfile::tempdir().unwrap();
    // 2015-01-01.
    let expired = DevCerts::ensure(expired.path(), 1_420_070_400).unwrap();
    let secured =
        Secured { other_ca: Some(expired.ca_bundle()), protocols: vec!["tls", "rfc8998"], ..Secured::mutual() };
    let broker = Setup::new().secured().secured_by(secured).start().await;
    let address = broker.address(Transport::Tls13);
    let (ours, theirs) = (certificates.ca_bundle(), expired.ca_bundle());
    let (ours, theirs) = (["--cafile", ours.to_str().unwrap()], ["--cafile", theirs.to_str().unwrap()]);
    let shown = |files: &CertKey| [&files.cert, &files.key].map(|path| path.to_str().unwrap().to_owned());
    let [old_cert, old_key] = shown(&expired.client_ecdsa());
    let [cert, key] = shown(&certificates.client_ecdsa());
    let (old, new) = (["--cert", &old_cert, "--key", &old_key], ["--cert", &cert, "--key", &key]);
    for protocol in ["tls1.2", "tls1.3"] {
        for (arguments, told, word) in [
            (&ours[..], "the server asks for a client certificate", "no_certificate"),
            (&[&ours[..], &new].concat(), "the server does not trust the client certificate", "unknown_ca"),
            (&[&ours[..], &old].concat(), "has expired", "expired"),
            (&theirs, "the server's certificate does not lead to any CA in --cafile", "alert_unknown_ca"),
            (
                &[&ours[..], &["--sni", "other"]].concat(),
                "the server's certificate is for another name",
                "alert_bad_certificate",
            ),
        ] {
            let offered = protocol;
            let count = || broker.counters("ssl").failed_handshakes(Failed { protocol: "tls", offered, reason: word });
            let before = count();
            let mut line = vec!["--protocol", protocol];
            if !arguments.contains(&"--sni") {
                line.extend(["--sni", "localhost"]);
            }
            let refused = publish(address, &[&line, arguments].concat()).await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains(told), "{protocol} {word}: {said}");
            eventually(word, || count() == before + 1).await;
            assert!(documented(told, word), "docs/tls.md has no row of {told} and {word}");
        }
    }
    let said = refusal(address, "tlcp", &ours).await;
    assert!(said.contains("the server does not speak TLCP"), "{said}");
    // A client whose groups alone were wrong was told of its cipher suites, and so was the operator.
    for (protocol, arguments, named, word) in [
        ("tls1.3", ["--groups", "P-521"], "groups (--groups P-521)", "no_shared_group"),
        ("tls1.2", ["--groups", "P-521"], "groups (--groups P-521)", "no_shared_group"),
        ("tls1.2", ["--ciphers", "DHE-RSA-AES128-GCM-SHA256"], "cipher suites (--ciphers DHE-", "no_shared_suite"),
    ] {
        let offered = protocol;
        let count = || broker.counters("ssl").failed_handshakes(Failed { protocol: "tls", offered, reason: word });
        let before = count();
        let said = refusal(address, protocol, &[&ours[..], &new, &arguments].concat()).await;
        let told = "the server has none of this client's cipher suites";
        assert!(said.contains(told) && said.contains(named), "{protocol} {word}: {said}");
        eventually(word, || count() == before + 1).await;
        assert!(documented(told, word), "docs/tls.md has no row of {told} and {word}");
    }
}
