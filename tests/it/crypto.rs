//! `crypto.provider`: what serves is what is configured, `shangmq version --crypto` says so, and a failed self-test keeps everything
//! from being served.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

fn shangmq(dir: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shangmq"))
        .args(arguments)
        .current_dir(dir.path())
        .env_remove("SHANGMQ_LOG")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The provider of an algorithm in the report.
fn provider<'a>(report: &'a serde_json::Value, algorithm: &str) -> &'a str {
    let list = report["crypto"]["algorithms"].as_array().unwrap();
    list.iter().find(|one| one["algorithm"] == algorithm).unwrap()["provider"].as_str().unwrap()
}

#[test]
fn version_says_which_provider_serves_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(&shangmq(&dir, &["version", "--crypto", "--json"], &[]));
    assert_eq!(report["crypto"]["provider"], "accelerated");
    assert_eq!(provider(&report, "SM3"), "shangmq-accel");

    fs::write(
        dir.path().join("t.toml"),
        "[crypto]\nprovider = 'tongsuo'\n[auth]\nallow_anonymous = true\nno_match = 'allow'\n[listeners.tcp.a]\nbind = '127.0.0.1:0'\n",
    )
    .unwrap();
    let report = json(&shangmq(&dir, &["version", "--crypto", "--json", "--config", "t.toml"], &[]));
    assert_eq!(report["crypto"]["provider"], "tongsuo");
    assert_eq!(provider(&report, "SM3"), "default");

    let report = json(&shangmq(&dir, &["version", "--crypto", "--json"], &[("SHANGMQ_CRYPTO__PROVIDER", "tongsuo")]));
    assert_eq!(provider(&report, "SM3"), "default");

    let text = shangmq(&dir, &["version", "--crypto"], &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().any(|line| line.split_whitespace().eq(["digest", "SM3", "shangmq-accel"])), "{text}");
}

#[test]
fn version_alone_reads_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(&shangmq(&dir, &["version", "--json", "--config", "missing.toml"], &[]));
    assert!(report.get("crypto").is_none(), "{report}");
    assert!(report["library"].as_str().unwrap().contains("Tongsuo"), "{report}");
}

/// Builds with debug assertions let a test falsify one answer.
#[cfg(debug_assertions)]
#[test]
fn a_failed_self_test_keeps_everything_from_being_served() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("t.toml"),
        "[node]\ndata_dir = 'data'\n[auth]\nallow_anonymous = true\nno_match = 'allow'\n[listeners.tcp.a]\nbind = '127.0.0.1:0'\n",
    )
    .unwrap();
    let sabotage = [("GM_TLS_SABOTAGE_SELF_TEST", "SM3")];
    for arguments in [
        &["start", "--config", "t.toml"][..],
        &["check-config", "--config", "t.toml"],
        &["version", "--crypto"],
        &["certs", "dev", "--out", "made"],
        &["pub", "-t", "a", "-m", "b"],
    ] {
        let output = shangmq(&dir, arguments, &sabotage);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{arguments:?}: {said}");
        for word in ["crypto.provider", "self-test", "SM3", "tongsuo"] {
            assert!(said.contains(word), "{arguments:?}: no {word} in {said}");
        }
    }
    assert!(!dir.path().join("data").exists(), "the broker went on");
    assert!(!dir.path().join("made").exists(), "keys were made");
}

#[test]
fn an_unknown_provider_is_refused_with_the_words_there_are() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["version", "--crypto"][..], &["pub", "-t", "a", "-m", "b"]] {
        let output = shangmq(&dir, arguments, &[("SHANGMQ_CRYPTO__PROVIDER", "openssl")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        for word in ["SHANGMQ_CRYPTO__PROVIDER", "openssl", "accelerated, tongsuo"] {
            assert!(said.contains(word), "{arguments:?}: no {word} in {said}");
        }
    }
}

/// A broker of another process, with a listener for TLCP and RFC 8998 and mutual authentication.
struct Broker {
    child: std::process::Child,
    port: u16,
    dir: TempDir,
}

impl Broker {
    fn start(provider: &str) -> Broker {
        use std::io::BufRead;
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(crate::broker::certificates().dir(), dir.path().join("certs")).unwrap();
        let text = format!(
            "[crypto]\nprovider = '{provider}'\n[log]\nformat = 'json'\n[auth]\nallow_anonymous = true\nno_match = 'allow'\n\
             [listeners.ssl.a]\nbind = '127.0.0.1:0'\n\
             [listeners.ssl.a.rfc8998_options]\ncertfile = 'certs/server-sm2.crt'\nkeyfile = 'certs/server-sm2.key'\n\
             [listeners.ssl.a.tlcp_options]\nsign_certfile = 'certs/server-sign.crt'\nsign_keyfile = 'certs/server-sign.key'\n\
             enc_certfile = 'certs/server-enc.crt'\nenc_keyfile = 'certs/server-enc.key'\n\
             cacertfile = 'certs/sm2-ca.crt'\nverify = 'verify_peer'\nfail_if_no_peer_cert = false\n"
        );
        fs::write(dir.path().join("t.toml"), text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shangmq"))
            .args(["start", "--config", "t.toml"])
            .current_dir(dir.path())
            .env_remove("SHANGMQ_LOG")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = None;
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the broker listens").unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if event["message"] == "listening" {
                let address: std::net::SocketAddr = event["address"].as_str().unwrap().parse().unwrap();
                port = Some(address.port());
            }
            if let (Some(port), true) = (port, event["message"] == "ready") {
                break port;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, port, dir }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn each_implementation_serves_clients_of_the_other() {
    for (server, client) in [("accelerated", "tongsuo"), ("tongsuo", "accelerated")] {
        let broker = Broker::start(server);
        let port = broker.port.to_string();
        let pair = [
            "--sign-cert=certs/client-sign.crt",
            "--sign-key=certs/client-sign.key",
            "--enc-cert=certs/client-enc.crt",
            "--enc-key=certs/client-enc.key",
        ];
        for (protocol, suite, mutual) in [
            ("tlcp", "ECC_SM4_GCM_SM3", false),
            ("tlcp", "ECC_SM4_CBC_SM3", false),
            ("tlcp", "ECC_SM4_GCM_SM3", true),
            ("tlcp", "ECDHE_SM4_GCM_SM3", true),
            ("tlcp", "ECDHE_SM4_CBC_SM3", true),
            ("rfc8998", "TLS_SM4_GCM_SM3", false),
            ("rfc8998", "TLS_SM4_CCM_SM3", false),
        ] {
            let message = "x".repeat(20_000);
            let mut arguments = vec!["pub", "-h", "localhost", "-p", &port, "--protocol", protocol, "--ciphers", suite];
            arguments.extend(["--cafile", "certs/sm2-ca.crt", "-t", "a", "-q", "1", "-m", &message]);
            if mutual {
                arguments.extend(pair);
            }
            let output = shangmq(&broker.dir, &arguments, &[("SHANGMQ_CRYPTO__PROVIDER", client)]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{client} to {server}, {suite}, mutual {mutual}: {said}");
        }
    }
}
