//! What a client that asks gets to know about the server's own certificate, over every protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gm_tls::cert::{Certificate, KeyKind};
use gm_tls::client::{ClientOptions, Connector};
use gm_tls::pki::{AlternativeNames, Issued, Profile, StatusServices, Subject};
use gm_tls::revocation::{CertIdHash, OcspAnswer, OcspState, fingerprint};
use shangmq::bundle::{Bundles, Part, Parts};
use shangmq::operator::{AlarmKind, Trigger};
use shangmq::server::Server;
use testkit::{Behaviour, Transport};
use tokio::net::TcpStream;

use crate::alarms::until_raised;
use crate::broker::{Setup, TestBroker, eventually};
use crate::ocsp::responder;
use crate::revocation::{World, enter, now};

const PROTOCOLS: [Transport; 5] =
    [Transport::Tls12, Transport::Tls13, Transport::Rfc8998, Transport::Tlcp, Transport::WssTlcp];
const OCSP: &str = "/ocsp";

/// What a server of one protocol needs: `sign` and `enc`, or `server` alone.
fn issue(world: &World, transport: Transport, must_staple: bool, host: &str) -> Vec<(&'static str, Issued)> {
    let ocsp_urls = vec![world.service.url(OCSP)];
    let services = StatusServices { ocsp_urls, must_staple, ..StatusServices::default() };
    let profile = Profile { services, ..Profile::server(10) };
    let names = AlternativeNames { dns: vec![host.to_owned()], ..AlternativeNames::default() };
    let subject = Subject::common_name(host);
    if matches!(transport, Transport::Tlcp | Transport::WssTlcp) {
        let pair = world.ca.issue_pair(&subject, &names, KeyKind::Sm2, &profile, now()).unwrap();
        return vec![("sign", pair.sign), ("enc", pair.enc)];
    }
    let kind = world.ca.key().kind();
    vec![("server", world.ca.issue_single(&subject, &names, kind, &profile, now()).unwrap())]
}

/// A server with certificates of a world, for one protocol.
struct Scene {
    world: World,
    transport: Transport,
    leaf: Certificate,
}

impl Scene {
    async fn new(transport: Transport, must_staple: bool) -> Scene {
        let world = World::new(transport).await;
        let issued = issue(&world, transport, must_staple, "localhost");
        for (name, issued) in &issued {
            std::fs::write(world.path(&format!("{name}.crt")), issued.chain.to_pem()).unwrap();
            issued.key.write_new(&world.path(&format!("{name}.key")), None).unwrap();
        }
        let leaf = issued[0].1.chain.leaf.clone();
        Scene { world, transport, leaf }
    }

    fn setup(&self, lines: &str) -> Setup {
        let path = |name: &str| self.world.path(name);
        let (block, files) = match self.transport {
            Transport::Tlcp | Transport::WssTlcp => (
                "tlcp_options",
                format!(
                    "sign_certfile = {:?}\nsign_keyfile = {:?}\nenc_certfile = {:?}\nenc_keyfile = {:?}\n",
                    path("sign.crt"),
                    path("sign.key"),
                    path("enc.crt"),
                    path("enc.key")
                ),
            ),
            other => {
                let block = if other == Transport::Rfc8998 { "rfc8998_options" } else { "ssl_options" };
                let files = format!("certfile = {:?}\nkeyfile = {:?}\n", path("server.crt"), path("server.key"));
                (block, files)
            }
        };
        let kind = self.transport.listener();
        Setup::new().listeners(&[]).sections(&format!(
            "[listeners.{kind}.default]\nbind = \"127.0.0.1:0\"\n[listeners.{kind}.default.{block}]\n{files}\
             verify = \"verify_peer\"\ncacertfile = {:?}\n{lines}\n[revocation]\nallowed_hosts = [\"127.0.0.1\"]\n",
            path("root.pem")
        ))
    }

    /// The answer that a client gets which asks, without a server name; `Err` when its handshake fails.
    async fn ask(&self, broker: &TestBroker) -> Result<Option<Vec<u8>>, String> {
        self.ask_as(broker, "").await
    }

    /// The same for a client that asks for this name.
    async fn ask_as(&self, broker: &TestBroker, name: &str) -> Result<Option<Vec<u8>>, String> {
        let options = ClientOptions {
            ca: Certificate::anchors_from_file("", &self.world.path("root.pem")).unwrap(),
            verify_hostname: false,
            ask_status: true,
            ..ClientOptions::new(self.transport.protocol().unwrap(), name)
        };
        let stream = TcpStream::connect(broker.address(self.transport)).await.unwrap();
        let secured = Connector::new(&options).unwrap().connect(stream).await.map_err(|error| error.to_string())?;
        let answer = secured.stapled_answer();
        if !self.transport.is_websocket() {
            enter(Box::new(secured)).await.unwrap();
        }
        Ok(answer)
    }

    /// Waits until the answer is in this state.
    async fn reaches(&self, broker: &TestBroker, state: &str) {
        let report = || broker.server.revocation().report().staples.remove(0).state;
        eventually(state, || report() == state).await;
    }

    fn good(&self) -> Behaviour {
        responder(&self.world, Vec::new(), 600)
    }
}

#[tokio::test]
async fn staples_a_verified_answer_without_a_server_name() {
    for transport in PROTOCOLS {
        let scene = Scene::new(transport, false).await;
        scene.world.service.set(OCSP, scene.good());
        let broker = scene.setup("ocsp = { enable_ocsp_stapling = true }").start().await;
        scene.reaches(&broker, "current").await;
        let answer = scene.ask(&broker).await.unwrap().unwrap_or_else(|| panic!("{transport:?}: nothing"));
        let issuer = scene.world.ca.certificate();
        let verified = OcspAnswer::verify(&answer, &scene.leaf, issuer, CertIdHash::ByIssuer, now()).unwrap();
        assert_eq!(verified.state, OcspState::Good);
        assert_eq!(scene.world.service.requests(OCSP), 1);
        assert_eq!(broker.sample("shangmq_ocsp_staples_total{outcome=\"sent\"}"), 1);
    }
}

#[tokio::test]
async fn each_server_name_gets_the_answer_about_its_own_certificate() {
    for transport in [Transport::Tls12, Transport::Tls13, Transport::Rfc8998, Transport::Tlcp] {
        let scene = Scene::new(transport, true).await;
        let issued = issue(&scene.world, transport, true, "other.example");
        let mut parts = Parts::default();
        for (name, issued) in &issued {
            let (chain, key) = match (*name, transport) {
                ("sign", _) => (Part::SignChain, Part::SignKey),
                ("enc", _) => (Part::EncChain, Part::EncKey),
                (_, Transport::Rfc8998) => (Part::Sm2Chain, Part::Sm2Key),
                _ => (Part::Chain, Part::Key),
            };
            parts.insert(chain, issued.chain.to_pem().into());
            parts.insert(key, issued.key.to_pem(None).unwrap());
        }
        let other = &issued[0].1.chain.leaf;
        scene.world.service.set(OCSP, scene.good());
        let managed = "managed_certs = [{ bundle_name = \"other\", sni = \"other.example\" }]";
        let setup = scene.setup(&format!("ocsp = {{ enable_ocsp_stapling = true }}\n{managed}"));
        Bundles::in_data_dir(&setup.dir().join("data")).put(&"other".parse().unwrap(), &parts, now()).unwrap();
        let broker = setup.start().await;
        let current =
            || broker.server.revocation().report().staples.iter().filter(|one| one.state == "current").count();
        eventually("both answers are there", || current() == 2).await;
        for (asked, own, stranger) in [("localhost", &scene.leaf, other), ("other.example", other, &scene.leaf)] {
            let answer = scene.ask_as(&broker, asked).await.unwrap().unwrap();
            let about =
                |leaf| OcspAnswer::verify(&answer, leaf, scene.world.ca.certificate(), CertIdHash::ByIssuer, now());
            assert_eq!(about(own).unwrap().state, OcspState::Good, "{transport:?} {asked}");
            assert!(about(stranger).is_err(), "{transport:?} {asked}");
        }
    }
}

/// Neither what is revoked nor what is stale or of another signer is given to anybody; without must-staple, handshakes go on.
#[tokio::test]
async fn staples_nothing_but_a_good_answer() {
    for transport in [Transport::Tls12, Transport::Tlcp] {
        let scene = Scene::new(transport, false).await;
        let stranger = World::new(transport).await;
        let behaviours = [
            responder(&scene.world, vec![scene.leaf.clone()], 600),
            responder(&scene.world, Vec::new(), -1),
            responder(&stranger, Vec::new(), 600),
            Behaviour::Serve(Bytes::from_static(b"<html>")),
            Behaviour::Down,
            Behaviour::Endless,
            Behaviour::Gzip(Bytes::from(vec![0; 1000])),
            Behaviour::After(Duration::from_secs(60), Box::new(scene.good())),
        ];
        for behaviour in behaviours {
            let timeout = if matches!(behaviour, Behaviour::After(..)) { "200ms" } else { "15s" };
            scene.world.service.set(OCSP, behaviour);
            let lines = format!("ocsp = {{ enable_ocsp_stapling = true, refresh_http_timeout = {timeout:?} }}");
            let broker = scene.setup(&lines).start().await;
            scene.reaches(&broker, "failing").await;
            assert_eq!(scene.ask(&broker).await, Ok(None));
        }
    }
}

#[tokio::test]
async fn a_must_staple_certificate_without_an_answer_refuses_those_who_ask() {
    for transport in PROTOCOLS {
        let scene = Scene::new(transport, true).await;
        scene.world.service.set(OCSP, Behaviour::Status(500));
        let broker = scene.setup("ocsp = { enable_ocsp_stapling = true }").start().await;
        scene.reaches(&broker, "failing").await;
        scene.ask(&broker).await.expect_err("a handshake without the answer that was promised");
        assert_eq!(broker.sample("shangmq_ocsp_staples_total{outcome=\"refused\"}"), 1);
        let fingerprint: String = fingerprint(&scene.leaf).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let alarm = format!("staple_missing/{fingerprint}");
        until_raised(&broker.server, AlarmKind::StapleMissing, &[&alarm]).await;
        scene.world.service.set(OCSP, scene.good());
        scene.reaches(&broker, "current").await;
        assert!(scene.ask(&broker).await.unwrap().is_some());
        until_raised(&broker.server, AlarmKind::StapleMissing, &[]).await;
    }
}

#[tokio::test]
async fn a_must_staple_certificate_without_stapling_keeps_the_broker_from_starting() {
    let scene = Scene::new(Transport::Tlcp, true).await;
    let errors = Server::start(scene.setup("").config()).await.expect_err("started").to_string();
    assert!(errors.contains("must-staple") && errors.contains("sign.crt"), "{errors}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_asked_for_keeps_the_broker_from_starting() {
    let scene = Scene::new(Transport::Tls13, false).await;
    // Without its issuer the certificate's answers cannot be verified.
    std::fs::write(scene.world.path("server.crt"), scene.leaf.to_pem()).unwrap();
    let errors = Server::start(scene.setup("ocsp = {}").config()).await.expect_err("started").to_string();
    assert!(errors.contains("issuer_pem"), "{errors}");
    std::fs::write(scene.world.path("ca.pem"), scene.world.ca.certificate().to_pem()).unwrap();
    let lines = format!("ocsp = {{ issuer_pem = {:?} }}", scene.world.path("ca.pem"));
    Server::start(scene.setup(&lines).config()).await.unwrap();
}

#[tokio::test]
async fn an_answer_survives_a_reload() {
    let scene = Scene::new(Transport::Tlcp, true).await;
    scene.world.service.set(OCSP, scene.good());
    let broker = scene.setup("ocsp = { enable_ocsp_stapling = true }").start().await;
    scene.reaches(&broker, "current").await;
    scene.world.service.set(OCSP, Behaviour::Down);
    let stranger = World::new(Transport::Tlcp).await;
    let both = [std::fs::read(scene.world.path("root.pem")).unwrap(), stranger.ca.certificate().to_pem()].concat();
    std::fs::write(scene.world.path("root.pem"), both).unwrap();
    let operator = Arc::clone(broker.server.operator());
    let outcome = operator.reload_aside(Trigger::Command).await.unwrap();
    assert_eq!(outcome.listeners.len(), 1, "{outcome:?}");
    assert!(scene.ask(&broker).await.unwrap().is_some());
}
