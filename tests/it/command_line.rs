//! `shangmq pub` as a program, against a running broker: how it proves who it is, and what it says when it may not come in.

use std::net::SocketAddr;
use std::process::{Command, Output};

use testkit::{QoS, Transport};

use crate::broker::{Secured, Setup, certificates};

/// Publishes to a broker while this test's runtime serves it.
async fn publish(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shangmq"));
    command.args(["pub", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-t", "t", "-m", "x", "-q", "1"]).args(arguments).env_remove("SHANGMQ_PASSWORD");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
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

// The suites were named, and nothing said that a certificate was asked for.
#[tokio::test]
async fn a_client_without_a_pair_is_told_that_tlcp_asks_for_one() {
    let secured = Secured { tlcp: "fail_if_no_peer_cert = true\n".to_owned(), ..Secured::default() };
    let broker = Setup::new().secured().secured_by(secured).start().await;
    let address = broker.address(Transport::Tlcp);
    let ca = certificates().sm2_ca();
    let arguments = ["--protocol", "tlcp", "--cafile", ca.to_str().unwrap(), "--sni", "localhost"];
    let refused = publish(address, &arguments).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(
        said.contains(
            "the server asks for a client certificate: give --sign-cert, --sign-key, --enc-cert and --enc-key"
        ),
        "{said}"
    );
    let (sign, enc) = (certificates().client_sign(), certificates().client_enc());
    let files = [&sign.cert, &sign.key, &enc.cert, &enc.key].map(|path| path.to_str().unwrap().to_owned());
    let [sign_cert, sign_key, enc_cert, enc_key] = files.each_ref().map(String::as_str);
    let pair = ["--sign-cert", sign_cert, "--sign-key", sign_key, "--enc-cert", enc_cert, "--enc-key", enc_key];
    let good = publish(address, &[&arguments[..], &pair].concat()).await;
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}
