//! Listeners that take their certificates from bundles and from the configuration itself, and choose among them by server name.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use gm_tls::cert::KeyKind;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};
use shangmq::bundle::{BundleId, Bundles, Part, Parts};
use shangmq::config::Config;
use shangmq::server::{Prepared, Server};
use testkit::{AnyStream, Client, connect};
use tokio::net::TcpStream;

pub const PROTOCOLS: [ClientProtocol; 4] =
    [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998, ClientProtocol::Tlcp];

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Bundles whose certificates are for one host each.
pub struct Authorities {
    ecdsa: CertificateAuthority,
    sm2: CertificateAuthority,
}

impl Authorities {
    pub fn new() -> Authorities {
        let authority = |kind| {
            let (subject, profile) = (Subject::common_name("ca"), AuthorityProfile::new(100, None));
            CertificateAuthority::create(&subject, kind, &profile, now()).unwrap()
        };
        Authorities { ecdsa: authority(KeyKind::EcP256), sm2: authority(KeyKind::Sm2) }
    }

    pub fn bundle(&self, host: &str) -> Parts {
        let names = AlternativeNames { dns: vec![host.to_owned()], ..AlternativeNames::default() };
        let (subject, profile, at) = (Subject::common_name("server"), Profile::server(30), now());
        let standard = self.ecdsa.issue_single(&subject, &names, KeyKind::EcP256, &profile, at).unwrap();
        let sm2 = self.sm2.issue_single(&subject, &names, KeyKind::Sm2, &profile, at).unwrap();
        let pair = self.sm2.issue_pair(&subject, &names, KeyKind::Sm2, &profile, at).unwrap();
        let mut parts = Parts::default();
        for (chain, key, issued) in [
            (Part::Chain, Part::Key, &standard),
            (Part::Sm2Chain, Part::Sm2Key, &sm2),
            (Part::SignChain, Part::SignKey, &pair.sign),
            (Part::EncChain, Part::EncKey, &pair.enc),
        ] {
            parts.insert(chain, issued.chain.to_pem().into());
            parts.insert(key, issued.key.to_pem(None).unwrap());
        }
        parts
    }

    /// Whether a client that asks for `asked` is shown a certificate of `host`: it verifies the name itself.
    async fn shows(&self, server: &Server, protocol: ClientProtocol, asked: &str) -> Result<(), String> {
        self.visit(server.addresses()[0].1, protocol, asked).await?.disconnect().await;
        Ok(())
    }

    /// A client that asks for `asked` and trusts these authorities alone.
    pub async fn visit(
        &self,
        address: SocketAddr,
        protocol: ClientProtocol,
        asked: &str,
    ) -> Result<Client<AnyStream>, String> {
        let ca = vec![self.ecdsa.certificate().clone(), self.sm2.certificate().clone()];
        let options = ClientOptions { ca, ..ClientOptions::new(protocol, asked) };
        let stream = TcpStream::connect(address).await.unwrap();
        let secured = Connector::new(&options).unwrap().connect(stream).await.map_err(|error| error.to_string())?;
        let mut client = Client::new(Box::new(secured) as AnyStream);
        client.connect(connect("")).await;
        Ok(client)
    }
}

fn put(dir: &Path, name: &str, parts: &Parts) {
    Bundles::in_data_dir(&dir.join("data")).put(&name.parse::<BundleId>().unwrap(), parts, now()).unwrap();
}

/// One listener for every protocol, each block with these bundles.
fn config(dir: &Path, listener: &str, managed: &str) -> Result<Config, String> {
    let blocks = ["ssl_options", "rfc8998_options", "tlcp_options"];
    let blocks: String =
        blocks.map(|block| format!("[listeners.ssl.default.{block}]\nmanaged_certs = {managed}\n")).concat();
    let text = format!(
        "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n{listener}{blocks}"
    );
    Config::parse(&dir.join("shangmq.toml"), &text, []).map_err(|errors| errors.to_string())
}

async fn start(dir: &Path, listener: &str, managed: &str) -> Server {
    Server::start(config(dir, listener, managed).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_listener_serves_every_protocol_from_one_bundle() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    put(dir.path(), "tenant/a", &authorities.bundle("a.example"));
    let server = start(dir.path(), "", "{ bundle_name = \"a\", namespace = \"tenant\" }").await;
    for protocol in PROTOCOLS {
        assert_eq!(authorities.shows(&server, protocol, "a.example").await, Ok(()), "{protocol:?}");
    }
    let config = config(dir.path(), "", "{ bundle_name = \"a\", namespace = \"tenant\" }").unwrap();
    assert_eq!(config.users_of(&"tenant/a".parse().unwrap()), ["listeners.ssl.default"]);
    assert_eq!(config.users_of(&"a".parse().unwrap()), [""; 0]);
}

pub const BY_NAME: &str = "[{ bundle_name = \"own\" }, { bundle_name = \"wild\", sni = \"*.plant.example\" }, \
                       { bundle_name = \"mqtt\", sni = \"mqtt.plant.example\" }]";

#[tokio::test]
async fn the_server_name_chooses_the_bundle_over_every_protocol() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    let other = tempfile::tempdir().unwrap();
    for (name, host) in [("own", "own.example"), ("wild", "*.plant.example"), ("mqtt", "mqtt.plant.example")] {
        let bundle = authorities.bundle(host);
        put(dir.path(), name, &bundle);
        put(other.path(), name, &bundle);
    }
    let server = start(dir.path(), "", BY_NAME).await;
    for protocol in PROTOCOLS {
        for asked in ["own.example", "mqtt.plant.example", "a.plant.example"] {
            assert_eq!(authorities.shows(&server, protocol, asked).await, Ok(()), "{protocol:?} {asked}");
        }
        // The listener's own certificate, which is not for that name.
        assert!(authorities.shows(&server, protocol, "other.example").await.is_err(), "{protocol:?}");
    }
    let strict = start(other.path(), "unknown_sni = \"refuse\"\n", BY_NAME).await;
    for protocol in PROTOCOLS {
        assert_eq!(authorities.shows(&strict, protocol, "a.plant.example").await, Ok(()), "{protocol:?}");
        let refused = authorities.shows(&strict, protocol, "own.example").await.unwrap_err();
        assert!(refused.contains("unrecognized_name") || refused.contains("112"), "{protocol:?} {refused}");
    }
}

#[tokio::test]
async fn what_a_bundle_lacks_and_bundles_that_are_not_there_keep_the_broker_from_starting() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    let whole = authorities.bundle("a.example");
    let mut half = Parts::default();
    for part in [Part::Chain, Part::Key] {
        half.insert(part, whole.get(part).unwrap().to_vec().into());
    }
    put(dir.path(), "half", &half);
    let errors =
        Server::start(config(dir.path(), "", "{ bundle_name = \"half\" }").unwrap()).await.unwrap_err().to_string();
    assert!(errors.contains("the bundle half has no sm2_chain, which is needed here; it has chain, key"), "{errors}");
    assert!(errors.contains("the bundle half has no sign_chain"), "{errors}");
    let errors =
        Server::start(config(dir.path(), "", "{ bundle_name = \"none\" }").unwrap()).await.unwrap_err().to_string();
    // Each part of each block that was to come from it was a mistake of its own.
    assert!(errors.contains("ssl_options.managed_certs.bundle_name: "), "{errors}");
    assert!(errors.contains("there is no bundle none; make it with `shangmq certs bundle put none`"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for (managed, error) in [
        ("[]", "names no bundle"),
        ("{ namespace = \"x\" }", "bundle_name: missing"),
        ("{ bundle_name = \"../x\" }", "is no name of a bundle"),
        ("[{ bundle_name = \"a\" }, { bundle_name = \"b\" }]", "without sni nobody would get this bundle"),
        ("{ bundle_name = \"a\", sni = \"192.0.2.1\" }", "an address is never asked for"),
    ] {
        let found = config(dir.path(), "", managed).unwrap_err();
        assert!(found.contains(error), "{managed}: {found}");
    }
    let useless = config(dir.path(), "unknown_sni = \"refuse\"\n", "{ bundle_name = \"a\" }").unwrap_err();
    assert!(useless.contains("every client that asks for one would be refused"), "{useless}");
}

// Each part of each block of each name needed it, and said so.
#[test]
fn the_key_of_the_node_is_missed_once() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    for (name, host) in [("own", "own.example"), ("wild", "*.plant.example"), ("mqtt", "mqtt.plant.example")] {
        put(dir.path(), name, &authorities.bundle(host));
    }
    let second = "[listeners.wss.default]\nbind = \"127.0.0.1:0\"\n[listeners.wss.default.ssl_options]\nmanaged_certs = { bundle_name = \"own\" }\n";
    let config = || config(dir.path(), second, BY_NAME).unwrap();
    assert!(Prepared::new(config()).is_ok());
    std::fs::remove_file(dir.path().join("data/bundles/node.key")).unwrap();
    let errors = Prepared::new(config()).unwrap_err().to_string();
    assert!(errors.contains("data/bundles/node.key: is missing, and without it "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[tokio::test]
async fn certificates_and_keys_can_stand_in_a_configuration_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    let parts = authorities.bundle("a.example");
    let text = |part: Part| String::from_utf8(parts.get(part).unwrap().to_vec()).unwrap();
    let path = dir.path().join("shangmq.toml");
    let text = format!(
        "[auth]\nallow_anonymous = true\nno_match = \"allow\"\n[listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.default.ssl_options]\n\
         certfile = \"\"\"\n{}\"\"\"\nkeyfile = \"\"\"\n{}\"\"\"\n",
        text(Part::Chain),
        text(Part::Key)
    );
    std::fs::write(&path, &text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Config::load(Some(&path), []).unwrap_err().to_string();
    assert!(refused.contains("others can read (mode 0640)") && !refused.contains("BEGIN"), "{refused}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = Config::load(Some(&path), []).unwrap();
    assert!(!format!("{config:?}").contains("PRIVATE KEY"));
    let server = Server::start(config).await.unwrap();
    assert_eq!(authorities.shows(&server, ClientProtocol::Tls13, "a.example").await, Ok(()));
}

#[test]
fn a_bundle_in_force_changes_with_its_directory() {
    let (dir, authorities) = (tempfile::tempdir().unwrap(), Authorities::new());
    put(dir.path(), "own", &authorities.bundle("own.example"));
    let config = config(dir.path(), "", "{ bundle_name = \"own\" }").unwrap();
    let files = config.listeners[0].kind.tls().unwrap().files();
    assert_eq!(files, ["global/own", "node.key"].map(|name| dir.path().join("data/bundles").join(name)));
    let before = shangmq::net::Stamped::take(files);
    assert_eq!(before.again(), before);
    std::thread::sleep(std::time::Duration::from_millis(20));
    put(dir.path(), "own", &authorities.bundle("own.example"));
    assert_ne!(before.again(), before, "a reload would not see the new version");
}
