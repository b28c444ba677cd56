//! The broker as a process of its own, with one listener on a port that the system chooses.

use std::net::SocketAddr;
use std::path::Path;

use shangmq::dev_certs::{CertKey, DevCerts};
use testkit::BrokerProcess;

/// Starts the binary with one listener of `listener`, which is `tcp`, `ssl`, `ws` or `wss`, and says where it listens; `mutual`: it
/// asks for client certificates and demands them.
pub async fn start(listener: &str, mutual: bool, certificates: &DevCerts) -> (BrokerProcess, SocketAddr) {
    let configuration = configuration(listener, mutual, certificates);
    let process = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &configuration).await;
    let address = process.address(&format!("{listener}:default"));
    (process, address)
}

fn configuration(listener: &str, mutual: bool, certificates: &DevCerts) -> String {
    let mut text = format!(
        "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[metrics]\nenable = false\n\
         [listeners.{listener}.default]\nbind = \"127.0.0.1:0\"\n"
    );
    if !matches!(listener, "ssl" | "wss") {
        return text;
    }
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut section = |name: &str, identities: &[([&str; 2], CertKey)], ca: &Path| {
        text += &format!("[listeners.{listener}.default.{name}]\n");
        for ([certificate, key], files) in identities {
            text += &format!("{certificate} = {:?}\n{key} = {:?}\n", path(&files.cert), path(&files.key));
        }
        if mutual {
            text += &format!("verify = \"verify_peer\"\nfail_if_no_peer_cert = true\ncacertfile = {:?}\n", path(ca));
        }
    };
    let single = ["certfile", "keyfile"];
    section("ssl_options", &[(single, certificates.server_ecdsa())], &certificates.ecdsa_ca());
    section("rfc8998_options", &[(single, certificates.server_sm2())], &certificates.sm2_ca());
    let pair = [
        (["sign_certfile", "sign_keyfile"], certificates.server_sign()),
        (["enc_certfile", "enc_keyfile"], certificates.server_enc()),
    ];
    section("tlcp_options", &pair, &certificates.sm2_ca());
    text.replacen("bind =", "protocols = [\"tls\", \"rfc8998\", \"tlcp\"]\nbind =", 1)
}
