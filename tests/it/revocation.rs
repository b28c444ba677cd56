//! Clients whose certificates were revoked, or of which nobody can say whether they were: over every protocol, with an authority whose
//! service misbehaves.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gm_tls::cert::{Certificate, KeyKind};
use gm_tls::client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Identity};
use gm_tls::key::PrivateKey;
use gm_tls::pair::CertificatePair;
use gm_tls::pki::{
    AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, Profile, RevocationList, RevokedCertificate,
    StatusServices, Subject,
};
use testkit::{AnyStream, Behaviour, CaService, Client, Transport};
use tokio::net::TcpStream;

use crate::broker::{Setup, TestBroker, certificates, eventually};

pub const PROTOCOLS: [Transport; 4] = [Transport::Tls12, Transport::Tls13, Transport::Rfc8998, Transport::Tlcp];
pub const CRL: &str = "/ca.crl";
const DAY: i64 = 24 * 3600;
const ROOT_CRL: &str = "/root.crl";
pub const OCSP: &str = "/ocsp";

pub fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

/// Among the lines of a protocol: let clients resume their sessions, by tickets where there are such.
pub const RESUME: &str = "# resume";

/// A root, an authority below it, and the service that publishes their lists.
pub struct World {
    pub service: CaService,
    pub root: CertificateAuthority,
    pub ca: CertificateAuthority,
    kind: KeyKind,
    dir: tempfile::TempDir,
}

impl World {
    /// With certificates of the right kind for a protocol, and a good list of each authority.
    pub async fn new(transport: Transport) -> World {
        let kind = match transport {
            Transport::Tls12 | Transport::Tls13 => KeyKind::EcP256,
            _ => KeyKind::Sm2,
        };
        let service = CaService::start().await;
        let begun = now() - 20 * DAY;
        let subject = Subject::common_name("Root");
        let root = CertificateAuthority::create(&subject, kind, &AuthorityProfile::new(100, None), begun).unwrap();
        let services = StatusServices { crl_urls: vec![service.url(ROOT_CRL)], ..StatusServices::default() };
        let profile = AuthorityProfile { services, ..AuthorityProfile::new(100, None) };
        let ca = root.issue_authority(&Subject::common_name("CA"), kind, &profile, begun).unwrap();
        let world = World { service, root, ca, kind, dir: tempfile::tempdir().unwrap() };
        std::fs::write(world.dir.path().join("root.pem"), world.root.certificate().to_pem()).unwrap();
        world.service.set(CRL, Behaviour::Serve(world.list(&[])));
        world.service.set(ROOT_CRL, Behaviour::Serve(sign(&world.root, &[])));
        world
    }

    /// A file of the world's directory, in which `root.pem` has the root.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The list of the lower authority.
    pub fn list(&self, revoked: &[&Certificate]) -> Bytes {
        sign(&self.ca, revoked)
    }

    fn issue(&self, name: &str, profile: &Profile, at: i64) -> Issued {
        let names = AlternativeNames { dns: vec!["localhost".to_owned()], ..AlternativeNames::default() };
        self.ca.issue_single(&Subject::common_name(name), &names, self.kind, profile, at).unwrap()
    }

    fn services(&self) -> StatusServices {
        let (crl_urls, ocsp_urls) = (vec![self.service.url(CRL)], vec![self.service.url(OCSP)]);
        StatusServices { crl_urls, ocsp_urls, ..StatusServices::default() }
    }

    /// A client's certificates: one, or the signing and the encryption certificate of TLCP.
    pub fn client(&self, transport: Transport) -> Person {
        self.client_with(transport, self.services())
    }

    pub fn client_with(&self, transport: Transport, services: StatusServices) -> Person {
        self.client_issued(transport, services, now(), true)
    }

    /// A client whose certificates expire so many seconds from now.
    pub fn client_for(&self, transport: Transport, seconds: i64) -> Person {
        self.client_issued(transport, self.services(), now() - 10 * DAY + seconds, true)
    }

    /// A client that shows its own certificates and none of the authorities above it.
    fn client_alone(&self, transport: Transport) -> Person {
        self.client_issued(transport, self.services(), now(), false)
    }

    fn client_issued(&self, transport: Transport, services: StatusServices, at: i64, with_chain: bool) -> Person {
        let shown = |mut issued: Issued| {
            if !with_chain {
                issued.chain.intermediates.clear();
            }
            issued
        };
        let profile = Profile { services, ..Profile::client(10) };
        if transport != Transport::Tlcp {
            let issued = shown(self.issue("client", &profile, at));
            let leaves = vec![issued.chain.leaf.clone()];
            return Person {
                identity: ClientIdentity::Single(Identity { chain: issued.chain, key: issued.key }),
                leaves,
            };
        }
        let subject = Subject::common_name("client");
        let pair = self.ca.issue_pair(&subject, &AlternativeNames::default(), KeyKind::Sm2, &profile, at).unwrap();
        let (sign, enc) = (shown(pair.sign), shown(pair.enc));
        let leaves = vec![sign.chain.leaf.clone(), enc.chain.leaf.clone()];
        let pair = CertificatePair::new(sign.chain, sign.key, enc.chain, enc.key).unwrap();
        Person { identity: ClientIdentity::Pair(pair), leaves }
    }

    /// A listener with every protocol whose clients need certificates of this world; `lines` go to each protocol's options.
    pub async fn broker(&self, lines: &str) -> TestBroker {
        self.broker_with(lines, "http_timeout = \"5s\"\nallowed_hosts = [\"127.0.0.1\", \"localhost\"]").await
    }

    pub async fn broker_with(&self, lines: &str, revocation: &str) -> TestBroker {
        self.setup(lines, revocation).start().await
    }

    pub fn setup(&self, lines: &str, revocation: &str) -> Setup {
        let c = certificates();
        let ca = self.dir.path().join("root.pem");
        let trust = format!("verify = \"verify_peer\"\nfail_if_no_peer_cert = true\ncacertfile = {ca:?}\n{lines}\n");
        let tickets = |trust: &str| trust.replace(RESUME, "session_tickets = \"stateless\"");
        // Copies, which a test may change.
        let single = |name: &str, key: &dev::CertKey| {
            std::fs::copy(&key.cert, self.path(name)).unwrap();
            format!("certfile = {:?}\nkeyfile = {:?}\n", self.path(name), key.key)
        };
        let (sign, enc) = (c.server_sign(), c.server_enc());
        let toml = format!(
            "[listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.default.ssl_options]\n{}{}\
             [listeners.ssl.default.rfc8998_options]\n{}{}[listeners.ssl.default.tlcp_options]\n\
             sign_certfile = {:?}\nsign_keyfile = {:?}\nenc_certfile = {:?}\nenc_keyfile = {:?}\n{}\
             [revocation]\n{revocation}\n",
            single("tls.crt", &c.server_ecdsa()),
            tickets(&trust),
            single("sm2.crt", &c.server_sm2()),
            tickets(&trust.replace("reuse_sessions = true", RESUME)),
            sign.cert,
            sign.key,
            enc.cert,
            enc.key,
            trust.replace(RESUME, "reuse_sessions = true"),
        );
        Setup::new().listeners(&[]).sections(&toml)
    }
}

use shangmq::dev_certs as dev;

pub fn sign(ca: &CertificateAuthority, revoked: &[&Certificate]) -> Bytes {
    ca.sign_list(&contents(revoked)).unwrap().into()
}

pub fn contents(revoked: &[&Certificate]) -> RevocationList {
    RevocationList {
        this_update: now() - 60,
        next_update: Some(now() + 3600),
        number: 1,
        revoked: revoked.iter().map(|one| RevokedCertificate::new(one, now() - 60)).collect(),
        extensions: Vec::new(),
    }
}

/// A client with its certificates.
pub struct Person {
    identity: ClientIdentity,
    pub leaves: Vec<Certificate>,
}

impl Person {
    pub fn connector(&self, transport: Transport) -> Connector {
        let options = ClientOptions {
            ca: Certificate::anchors_from_file("", &certificates().ca_bundle()).unwrap(),
            identity: Some(self.identity.clone()),
            ..ClientOptions::new(transport.protocol().unwrap(), "localhost")
        };
        Connector::new(&options).unwrap()
    }

    /// The options of a client command with the certificates, written to files of the world.
    pub fn files(&self, world: &World) -> Vec<String> {
        let write = |name: &str, text: &[u8]| {
            let path = world.path(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let half = |names: [&str; 2], leaf: &Certificate, above: &[Certificate], key: &PrivateKey| {
            let chain: Vec<u8> = std::iter::once(leaf).chain(above).flat_map(Certificate::to_pem).collect();
            let (cert, key) = (write(names[0], &chain), write(names[1], &key.to_pem(None).unwrap()));
            [format!("--{}", names[0]), cert, format!("--{}", names[1]), key]
        };
        match &self.identity {
            ClientIdentity::Single(Identity { chain, key }) => {
                half(["cert", "key"], &chain.leaf, &chain.intermediates, key).to_vec()
            }
            ClientIdentity::Pair(pair) => {
                let above = pair.intermediates();
                let sign = half(["sign-cert", "sign-key"], pair.sign(), above, pair.sign_key());
                let enc = half(["enc-cert", "enc-key"], pair.enc(), above, pair.enc_key());
                sign.into_iter().chain(enc).collect()
            }
        }
    }

    /// Connects as far as CONNACK; `Err` says what the client saw.
    pub async fn enter(&self, broker: &TestBroker, transport: Transport) -> Result<Client<AnyStream>, String> {
        let stream = TcpStream::connect(broker.address(transport)).await.unwrap();
        let secured = self.connector(transport).connect(stream).await.map_err(|error| error.to_string())?;
        enter(Box::new(secured)).await
    }
}

/// Says CONNECT and hears that it is accepted.
pub async fn greet(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // CONNECT of MQTT 3.1.1 with an empty client identifier, and the CONNACK that accepts it.
    stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, [0x20, 2, 0, 0]);
    Ok(())
}

pub async fn enter(mut stream: AnyStream) -> Result<Client<AnyStream>, String> {
    greet(&mut stream).await.map_err(|error| error.to_string())?;
    Ok(Client::new(stream))
}

pub fn refusals(broker: &TestBroker, reason: &str) -> u64 {
    let text = broker.server.metrics().encode(Default::default());
    let wanted = format!("reason=\"{reason}\"");
    let found = text.lines().filter(|line| line.starts_with("shangmq_connections_refused") && line.contains(&wanted));
    found.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The client is refused for this reason.
pub async fn refused(person: &Person, broker: &TestBroker, transport: Transport, reason: &str) -> String {
    let before = refusals(broker, reason);
    let seen = person.enter(broker, transport).await.map(|_| ()).expect_err("let in");
    eventually("the refusal is counted", || refusals(broker, reason) > before).await;
    seen
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let (good, bad) = (world.client(transport), world.client(transport));
        world.service.set(CRL, Behaviour::Serve(world.list(&[&bad.leaves[0]])));
        let broker = world.broker("enable_crl_check = true").await;
        good.enter(&broker, transport).await.unwrap().ping().await;
        // The list is here by now, so that the handshake itself tells the client.
        let seen = refused(&bad, &broker, transport, "revoked").await;
        assert!(seen.contains("certificate_revoked"), "{transport:?}: {seen}");
        good.enter(&broker, transport).await.unwrap();
        assert_eq!(world.service.requests(CRL), 1, "{transport:?}");
    }
}

#[tokio::test]
async fn a_revoked_client_that_comes_first_waits_for_the_list_and_is_refused_before_connect() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let bad = world.client(transport);
        world.service.set(CRL, Behaviour::Serve(world.list(&[&bad.leaves[0]])));
        let broker = world.broker("crl = {}").await;
        refused(&bad, &broker, transport, "revoked").await;
        assert_eq!(broker.sample("shangmq_connects_total"), 0);
    }
}

#[tokio::test]
async fn a_revoked_encryption_certificate_of_a_tlcp_pair_is_refused() {
    let transport = Transport::Tlcp;
    let world = World::new(transport).await;
    let bad = world.client(transport);
    world.service.set(CRL, Behaviour::Serve(world.list(&[&bad.leaves[1]])));
    let broker = world.broker("crl = {}").await;
    refused(&bad, &broker, transport, "revoked").await;
    refused(&bad, &broker, transport, "revoked").await;
}

#[tokio::test]
async fn a_revoked_authority_is_found_where_the_whole_chain_is_checked() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let client = world.client(transport);
        world.service.set(ROOT_CRL, Behaviour::Serve(sign(&world.root, &[world.ca.certificate()])));
        let leaf = world.broker("crl = {}").await;
        client.enter(&leaf, transport).await.unwrap();
        assert_eq!(world.service.requests(ROOT_CRL), 0);
        let chain = world.broker("crl = { check = \"chain\" }").await;
        refused(&client, &chain, transport, "revoked").await;
        let seen = refused(&client, &chain, transport, "revoked").await;
        assert!(seen.contains("certificate_revoked"), "{seen}");
    }
}

/// Whatever keeps the list from being had, nobody is let in under hard-fail, everybody under soft-fail, and the report says why.
#[tokio::test]
async fn a_list_that_cannot_be_had_refuses_or_lets_in_as_configured() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let stranger = World::new(transport).await;
    let mut stale = contents(&[]);
    stale.next_update = Some(now() - 1);
    let stale = world.ca.sign_list(&stale).unwrap();
    let redirect = world.service.url(CRL);
    let gzip = Behaviour::Gzip(Bytes::from(vec![0; 1000]));
    let cases = [
        (Behaviour::Down, "HTTP"),
        (Behaviour::Status(500), "500"),
        (Behaviour::Serve(stale.into()), "stale"),
        (Behaviour::Serve(stranger.list(&[])), "signature"),
        (Behaviour::Serve(Bytes::from_static(b"<html>")), "no revocation list"),
        (Behaviour::Serve(Bytes::new()), "no revocation list"),
        (Behaviour::Endless, "longer than"),
        (gzip, "compressed"),
        (Behaviour::Redirect(redirect), "redirects"),
        (Behaviour::Redirect("http://169.254.169.254/latest".to_owned()), "allowed_hosts"),
        (Behaviour::Redirect("file:///etc/passwd".to_owned()), "not an address"),
    ];
    let client = world.client(transport);
    for (behaviour, words) in cases {
        world.service.set(CRL, behaviour);
        let bounds = "http_timeout = \"5s\"\nallowed_hosts = [\"127.0.0.1\"]\nmax_crl_size = \"1MB\"";
        let hard = world.broker_with("crl = {}", bounds).await;
        refused(&client, &hard, transport, "revocation_unknown").await;
        let list = hard.server.revocation().report().crls.remove(0);
        assert_eq!(list.state, "failing");
        assert!(list.error.as_ref().is_some_and(|error| error.contains(words)), "{words}: {list:?}");
        let soft = world.broker_with("crl = { mode = \"soft-fail\" }", bounds).await;
        client.enter(&soft, transport).await.unwrap().ping().await;
        assert_eq!(soft.sample("shangmq_revocation_checks_total{source=\"crl\",outcome=\"unknown_accepted\"}"), 1);
    }
}

#[tokio::test]
async fn a_list_that_takes_longer_than_a_fetch_may_is_no_list() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let client = world.client(transport);
    world.service.set(CRL, Behaviour::After(Duration::from_secs(60), Box::new(Behaviour::Serve(world.list(&[])))));
    let bounds = "http_timeout = \"200ms\"\nallowed_hosts = [\"127.0.0.1\"]";
    let hard = world.broker_with("crl = {}", bounds).await;
    refused(&client, &hard, transport, "revocation_unknown").await;
    let error = hard.server.revocation().report().crls.remove(0).error.unwrap();
    assert!(error.contains("no whole answer within 200ms"), "{error}");
    let soft = world.broker_with("crl = { mode = \"soft-fail\" }", bounds).await;
    client.enter(&soft, transport).await.unwrap();
}

/// A certificate that is trusted by itself comes without its issuer. It was let in unasked, also under hard-fail.
#[tokio::test]
async fn a_client_that_is_its_own_trust_anchor_is_checked_as_any_other() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let (client, bad) = (world.client_alone(transport), world.client_alone(transport));
        world.service.set(CRL, Behaviour::Serve(world.list(&[&bad.leaves[0]])));
        let pinned: Vec<Vec<u8>> =
            [&client, &bad].iter().flat_map(|one| &one.leaves).map(Certificate::to_pem).collect();
        std::fs::write(world.path("root.pem"), pinned.concat()).unwrap();
        let unknown = world.broker("partial_chain = true\ncrl = {}").await;
        refused(&client, &unknown, transport, "revocation_unknown").await;
        let by_ocsp = world.broker("partial_chain = true\nocsp_check = {}").await;
        refused(&client, &by_ocsp, transport, "revocation_unknown").await;
        let soft = world.broker("partial_chain = true\ncrl = { mode = \"soft-fail\" }").await;
        client.enter(&soft, transport).await.unwrap();
        let let_in = "shangmq_revocation_checks_total{source=\"crl\",outcome=\"unknown_accepted\"}";
        assert_eq!(soft.sample(let_in), client.leaves.len() as u64);
        // Where its issuer is known, the issuer's list is asked.
        let known = [pinned.concat(), world.ca.certificate().to_pem()].concat();
        std::fs::write(world.path("root.pem"), known).unwrap();
        let known = world.broker("partial_chain = true\ncrl = {}").await;
        client.enter(&known, transport).await.unwrap_or_else(|seen| panic!("{transport:?}: {seen}"));
        refused(&bad, &known, transport, "revoked").await;
    }
}

/// Two authorities of one name: neither's list says anything of the other's clients.
#[tokio::test]
async fn a_list_of_a_namesake_of_the_issuer_is_no_list() {
    for transport in PROTOCOLS {
        let (world, namesake) = (World::new(transport).await, World::new(transport).await);
        let both = [world.root.certificate().to_pem(), namesake.root.certificate().to_pem()].concat();
        std::fs::write(world.path("root.pem"), both).unwrap();
        let broker = world.broker("crl = { distribution_points = false }").await;
        let (client, other) = (world.client(transport), namesake.client(transport));
        broker.server.revocation().upload("one", world.list(&[&other.leaves[0]])).unwrap();
        client.enter(&broker, transport).await.unwrap();
        refused(&other, &broker, transport, "revocation_unknown").await;
        broker.server.revocation().upload("two", namesake.list(&[&client.leaves[0]])).unwrap();
        client.enter(&broker, transport).await.unwrap();
        other.enter(&broker, transport).await.unwrap();
    }
}

#[tokio::test]
async fn a_stale_list_still_revokes_under_soft_fail() {
    let transport = Transport::Tlcp;
    let world = World::new(transport).await;
    let bad = world.client(transport);
    let mut stale = contents(&[&bad.leaves[0]]);
    stale.next_update = Some(now() - 1);
    world.service.set(CRL, Behaviour::Serve(world.ca.sign_list(&stale).unwrap().into()));
    let broker = world.broker("crl = { mode = \"soft-fail\" }").await;
    // The first waits for the list, and is let in by what it says of itself; no other is.
    let _ = bad.enter(&broker, transport).await;
    refused(&bad, &broker, transport, "revoked").await;
}

/// While a list is on its way, clients that do not need it are served; those that do wait for one fetch.
#[tokio::test]
async fn a_slow_list_keeps_nobody_waiting_but_those_who_need_it() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let other = World::new(transport).await;
    world.service.set(CRL, Behaviour::After(Duration::from_secs(3), Box::new(Behaviour::Serve(world.list(&[])))));
    let waiting: Vec<Person> = (0..5).map(|_| world.client(transport)).collect();
    let both = world.dir.path().join("root.pem");
    std::fs::write(&both, [world.root.certificate().to_pem(), other.root.certificate().to_pem()].concat()).unwrap();
    let setup = world.setup("crl = {}", "allowed_hosts = [\"127.0.0.1\"]").listener("max_concurrent_handshakes = 1");
    let broker = setup.start().await;
    let quick = other.client(transport);
    let started = std::time::Instant::now();
    let slow = futures_util::future::join_all(waiting.iter().map(|person| person.enter(&broker, transport)));
    let fast = async {
        eventually("the list is asked for", || world.service.requests(CRL) > 0).await;
        quick.enter(&broker, transport).await.unwrap();
        started.elapsed()
    };
    let (slow, fast) = tokio::join!(slow, fast);
    assert!(slow.iter().all(Result::is_ok));
    assert!(fast < Duration::from_secs(2), "{fast:?}");
    assert_eq!(world.service.requests(CRL), 1);
}

#[tokio::test]
async fn after_a_failure_nobody_waits_and_the_list_is_tried_again() {
    let transport = Transport::Rfc8998;
    let world = World::new(transport).await;
    world.service.set(CRL, Behaviour::Status(503));
    let broker = world.broker("crl = {}").await;
    let client = world.client(transport);
    refused(&client, &broker, transport, "revocation_unknown").await;
    let started = std::time::Instant::now();
    for _ in 0..3 {
        refused(&client, &broker, transport, "revocation_unknown").await;
    }
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(world.service.requests(CRL), 1);
    world.service.set(CRL, Behaviour::Serve(world.list(&[])));
    let current = || broker.server.revocation().report().crls[0].state == "current";
    eventually("the list is fetched again", current).await;
    client.enter(&broker, transport).await.unwrap();
}

#[tokio::test]
async fn lists_of_files_and_of_uploads_are_used_and_followed() {
    for transport in PROTOCOLS {
        let world = World::new(transport).await;
        let (good, bad) = (world.client(transport), world.client(transport));
        let file = world.dir.path().join("ca.crl");
        std::fs::write(&file, world.list(&[])).unwrap();
        let lines = format!("crl = {{ files = [{file:?}], distribution_points = false, on_revoked = \"close\" }}");
        let broker = world.broker(&lines).await;
        let mut stays = good.enter(&broker, transport).await.unwrap();
        let mut goes = bad.enter(&broker, transport).await.unwrap();
        // Half of a list is no list: the one read before stays in use.
        std::fs::write(&file, &world.list(&[])[..50]).unwrap();
        let refused_files = || broker.server.revocation().counters().events("file_refused") == 1;
        eventually("the broken file is seen", refused_files).await;
        good.enter(&broker, transport).await.unwrap();
        std::fs::write(&file, world.list(&[&bad.leaves[0]])).unwrap();
        goes.expect_closed().await;
        stays.ping().await;
        refused(&bad, &broker, transport, "revoked").await;
        assert_eq!(world.service.requests(CRL), 0);

        let uploaded = world.list(&[&good.leaves[0], &bad.leaves[0]]);
        let service = Arc::clone(broker.server.revocation());
        service.upload("bank", uploaded).unwrap();
        stays.expect_closed().await;
        let report = serde_json::to_value(service.report()).unwrap();
        let uploaded = report["crls"].as_array().unwrap().iter().find(|list| list["kind"] == "upload").unwrap();
        assert_eq!((&uploaded["source"], &uploaded["entries"]), (&"bank".into(), &2.into()));
        service.remove("bank").unwrap();
        good.enter(&broker, transport).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_list_closes_connections_whose_certificates_it_revokes() {
    let transport = Transport::Tlcp;
    let world = World::new(transport).await;
    let (good, bad) = (world.client(transport), world.client(transport));
    let mut brief = contents(&[]);
    brief.next_update = Some(now() + 14);
    world.service.set(CRL, Behaviour::Serve(world.ca.sign_list(&brief).unwrap().into()));
    let broker = world.broker("crl = { on_revoked = \"close\" }").await;
    let mut stays = good.enter(&broker, transport).await.unwrap();
    let mut goes = bad.enter(&broker, transport).await.unwrap();
    // The encryption certificate this time. The list is fetched again before the old one ends.
    world.service.set(CRL, Behaviour::Serve(world.list(&[&bad.leaves[1]])));
    // All of a list are told before they are counted.
    let closed = || broker.sample("shangmq_revocation_events_total{event=\"connection_closed\"}");
    eventually("the list is fetched again", || closed() > 0).await;
    assert_eq!(closed(), 1);
    goes.expect_closed().await;
    stays.ping().await;
}

#[tokio::test]
async fn lists_come_over_https_from_servers_of_either_world() {
    let transport = Transport::Tlcp;
    let c = certificates();
    for protocol in [ClientProtocol::Tls, ClientProtocol::Rfc8998, ClientProtocol::Tlcp] {
        let contexts = Arc::new(https(protocol));
        let secure = move |stream| {
            let contexts = Arc::clone(&contexts);
            async move { accept(&contexts, stream).await }
        };
        let service = CaService::start_secured(secure).await;
        let world = World::new(transport).await;
        let url = format!("https://localhost:{}{CRL}", service.address().port());
        let client = world.client_with(transport, StatusServices { crl_urls: vec![url], ..StatusServices::default() });
        service.set(CRL, Behaviour::Serve(world.list(&[])));
        let hosts = "allowed_hosts = [\"localhost\"]";
        let without = world.broker_with("crl = {}", hosts).await;
        refused(&client, &without, transport, "revocation_unknown").await;
        let broker = world.broker_with("crl = {}", &format!("{hosts}\ncacertfile = {:?}", c.ca_bundle())).await;
        client.enter(&broker, transport).await.unwrap_or_else(|seen| panic!("{protocol:?}: {seen}"));
    }
}

/// A server with the development certificates that speaks one protocol alone.
pub fn https(protocol: ClientProtocol) -> gm_tls::server::ServerContexts {
    use gm_tls::cert::CertificateChain;
    use gm_tls::key::PrivateKey;
    use gm_tls::server::{Rfc8998Options, ServerContexts, ServerOptions, TlcpOptions, TlsOptions};
    let load = |files: &dev::CertKey| {
        let chain = CertificateChain::from_file("", &files.cert).unwrap();
        (chain, PrivateKey::from_file("", &files.key, None).unwrap())
    };
    let single = |files| {
        let (chain, key) = load(&files);
        Identity { chain, key }
    };
    let c = certificates();
    let mut options = ServerOptions::default();
    match protocol {
        ClientProtocol::Tlcp => {
            let ((sign, sign_key), (enc, enc_key)) = (load(&c.server_sign()), load(&c.server_enc()));
            options.tlcp = Some(TlcpOptions::new(CertificatePair::new(sign, sign_key, enc, enc_key).unwrap()));
        }
        ClientProtocol::Rfc8998 => options.rfc8998 = Some(Rfc8998Options::new(single(c.server_sm2()))),
        _ => options.tls = Some(TlsOptions::new(vec![single(c.server_ecdsa())])),
    }
    ServerContexts::new(&options).unwrap()
}

pub async fn accept(
    contexts: &gm_tls::server::ServerContexts,
    mut stream: TcpStream,
) -> std::io::Result<gm_tls::TlsStream<TcpStream>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut prefix = bytes::BytesMut::new();
    loop {
        if stream.read_buf(&mut prefix).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Ok(parsed) = gm_tls::hello::parse(&prefix) else { return Err(std::io::ErrorKind::InvalidData.into()) };
        let gm_tls::hello::Parse::Hello(hello) = parsed else { continue };
        return match contexts.select(&hello) {
            Ok(context) => context.accept(stream, prefix.freeze()).await.map_err(std::io::Error::other),
            Err(refusal) => {
                stream.write_all(&refusal.alert_record()).await?;
                Err(std::io::ErrorKind::InvalidData.into())
            }
        };
    }
}
