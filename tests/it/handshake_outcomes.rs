//! What a failed handshake is counted as: the peer's fault by name, for each protocol alike.

use std::path::Path;

use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Identity};
use gm_tls::key::PrivateKey;
use gm_tls::pair::CertificatePair;
use shangmq::dev_certs::{self, CertKey, DevCerts};
use shangmq::metrics::Failed;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker, certificates, eventually};

/// Protocol, the block that serves it, and what its client offers.
const PROTOCOLS: [(ClientProtocol, &str, &str); 4] = [
    (ClientProtocol::Tls12, "tls", "tls1.2"),
    (ClientProtocol::Tls13, "tls", "tls1.3"),
    (ClientProtocol::Rfc8998, "rfc8998", "tls1.3"),
    (ClientProtocol::Tlcp, "tlcp", "tlcp"),
];

fn others() -> DevCerts {
    dev_certs::ensure(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-development-certificates")).unwrap()
}

fn load(files: &CertKey) -> (CertificateChain, PrivateKey) {
    (CertificateChain::from_file("c", &files.cert).unwrap(), PrivateKey::from_file("k", &files.key, None).unwrap())
}

fn identity(protocol: ClientProtocol, set: &DevCerts) -> ClientIdentity {
    let single = |files: &CertKey| {
        let (chain, key) = load(files);
        ClientIdentity::Single(Identity { chain, key })
    };
    match protocol {
        ClientProtocol::Tlcp => {
            let ((sign, sign_key), (enc, enc_key)) = (load(&set.client_sign()), load(&set.client_enc()));
            ClientIdentity::Pair(CertificatePair::new(sign, sign_key, enc, enc_key).unwrap())
        }
        ClientProtocol::Rfc8998 => single(&set.client_sm2()),
        _ => single(&set.client_ecdsa()),
    }
}

/// Tries a handshake with a client that trusts `trusted` and shows certificates of `shown`.
async fn attempt(broker: &TestBroker, protocol: ClientProtocol, trusted: &DevCerts, shown: Option<&DevCerts>) {
    let options = ClientOptions {
        ca: Certificate::anchors_from_file("ca", &trusted.ca_bundle()).unwrap(),
        identity: shown.map(|set| identity(protocol, set)),
        ..ClientOptions::new(protocol, "localhost")
    };
    let stream = TcpStream::connect(broker.server.addresses()[0].1).await.unwrap();
    if let Ok(mut stream) = Connector::new(&options).unwrap().connect(stream).await {
        // A client of TLS 1.3 is done before the server has judged it.
        let _ = stream.read(&mut [0]).await;
    }
}

#[tokio::test]
async fn the_fault_of_a_peer_is_counted_by_name_for_every_protocol() {
    let broker = Setup::new().secured().start().await;
    let counters = broker.counters("ssl");
    let (ours, other) = (certificates(), others());
    for (protocol, block, offered) in PROTOCOLS {
        let count = |reason| counters.failed_handshakes(Failed { protocol: block, offered, reason });
        attempt(&broker, protocol, &other, None).await;
        eventually("a client that does not know our CA is counted", || count("alert_unknown_ca") == 1).await;
        attempt(&broker, protocol, ours, Some(&other)).await;
        eventually("a client of another CA is counted", || count("unknown_ca") == 1).await;
    }
    let text = broker.server.metrics().encode(Default::default());
    let failed =
        "shangmq_handshake_duration_seconds_count{listener=\"ssl:default\",protocol=\"tlcp\",outcome=\"failed\"} 2";
    assert!(text.contains(failed), "{text}");
    assert_eq!(counters.completed_handshakes(), 0);
}
