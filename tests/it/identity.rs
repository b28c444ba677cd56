//! Names that clients get from their certificates, over every protocol that has some, and clients that are held to a protocol.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gm_tls::cert::{Certificate, KeyKind};
use gm_tls::client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Identity};
use gm_tls::pair::CertificatePair;
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, Profile, Subject};
use testkit::{AnyStream, Client, ConnectExt, PublishExt, ReasonCode, Stream, Transport, connect, publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::access::{PASSWORD, user, with_users};
use crate::broker::{Secured, Setup, TestBroker, certificates};

const PROTOCOLS: [ClientProtocol; 4] =
    [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998, ClientProtocol::Tlcp];

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Authorities of clients: ECDSA for TLS, SM2 for the others.
struct Authorities {
    ecdsa: CertificateAuthority,
    sm2: CertificateAuthority,
}

fn authorities() -> &'static Authorities {
    static AUTHORITIES: OnceLock<Authorities> = OnceLock::new();
    let authority = |kind| {
        let (subject, profile) = (Subject::common_name("clients"), AuthorityProfile::new(100, None));
        CertificateAuthority::create(&subject, kind, &profile, now()).unwrap()
    };
    AUTHORITIES.get_or_init(|| Authorities { ecdsa: authority(KeyKind::EcP256), sm2: authority(KeyKind::Sm2) })
}

/// A setup whose secured listener trusts these authorities, with further lines of the listener.
fn trusting(setup: Setup, lines: &str) -> Setup {
    let ca = setup.dir().join("clients.pem");
    let anchors = [&authorities().ecdsa, &authorities().sm2].map(|authority| authority.certificate().to_pem());
    std::fs::write(&ca, anchors.concat()).unwrap();
    let keys = lines.to_owned();
    setup.secured().secured_by(Secured { keys, tlcp_ca: ca.clone(), other_ca: Some(ca), ..Secured::default() })
}

/// What is in a client's certificate.
#[derive(Clone, Default)]
struct Holder {
    name: &'static str,
    names: AlternativeNames,
}

fn holder(name: &'static str) -> Holder {
    Holder { name, names: AlternativeNames::default() }
}

impl Holder {
    fn identity(&self, protocol: ClientProtocol) -> (ClientIdentity, Certificate) {
        let (subject, profile, at) = (Subject::common_name(self.name), Profile::client(10), now());
        let single = |Issued { chain, key }: Issued| {
            let leaf = chain.leaf.clone();
            (ClientIdentity::Single(Identity { chain, key }), leaf)
        };
        match protocol {
            ClientProtocol::Tlcp => {
                let pair = authorities().sm2.issue_pair(&subject, &self.names, KeyKind::Sm2, &profile, at).unwrap();
                let leaf = pair.sign.chain.leaf.clone();
                let (sign, enc) = (pair.sign, pair.enc);
                let pair = CertificatePair::new(sign.chain, sign.key, enc.chain, enc.key).unwrap();
                (ClientIdentity::Pair(pair), leaf)
            }
            ClientProtocol::Rfc8998 => {
                single(authorities().sm2.issue_single(&subject, &self.names, KeyKind::Sm2, &profile, at).unwrap())
            }
            _ => {
                single(authorities().ecdsa.issue_single(&subject, &self.names, KeyKind::EcP256, &profile, at).unwrap())
            }
        }
    }
}

async fn open(broker: &TestBroker, protocol: ClientProtocol, identity: Option<ClientIdentity>) -> Client<AnyStream> {
    let stream = TcpStream::connect(broker.address(Transport::Tlcp)).await.unwrap();
    open_on(stream, protocol, identity).await
}

async fn open_on(stream: TcpStream, protocol: ClientProtocol, identity: Option<ClientIdentity>) -> Client<AnyStream> {
    let ca = Certificate::anchors_from_file("ca", &certificates().ca_bundle()).unwrap();
    let options = ClientOptions { ca, identity, ..ClientOptions::new(protocol, "localhost") };
    let secured = Connector::new(&options).unwrap().connect(stream).await.unwrap();
    Client::new(Box::new(secured) as AnyStream)
}

fn rules(setup: &Setup, text: &str) {
    std::fs::write(setup.dir().join("acl.toml"), text).unwrap();
}

/// A rule for what is below the client's own user name.
const OWN: &str = "[[rules]]\npermit = \"allow\"\nwho = \"all\"\naction = \"all\"\ntopics = \"u/${username}/#\"\n";

async fn may_publish<S: Stream>(client: &mut Client<S>, topic: &str) -> bool {
    matches!(
        client.publish(publish(topic, 1, "x").id(1)).await,
        ReasonCode::Success | ReasonCode::NoMatchingSubscribers
    )
}

/// What a listener takes for a user name, and what it makes of a certificate.
fn kinds(certificate: &Certificate) -> Vec<(&'static str, String)> {
    let der = certificate.to_der();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    vec![
        ("cn", "meter-17".to_owned()),
        ("dn", "CN=meter-17".to_owned()),
        ("crt", hex(&der)),
        ("sha256", certificate.fingerprint_sha256()),
        ("sm3", certificate.fingerprint_sm3()),
        ("san_dns", "m17.plant.example".to_owned()),
        ("san_email", "m17@plant.example".to_owned()),
        ("san_uri", "urn:dev:17".to_owned()),
        ("san_ip", "192.0.2.17".to_owned()),
    ]
}

#[tokio::test]
async fn the_user_name_is_what_the_certificate_says_over_every_protocol() {
    let names = AlternativeNames {
        dns: vec!["m17.plant.example".into()],
        ip: vec![[192, 0, 2, 17].into()],
        uri: vec!["urn:dev:17".into()],
        email: vec!["m17@plant.example".into()],
    };
    let holder = Holder { name: "meter-17", names };
    let identities: Vec<_> = PROTOCOLS.map(|protocol| (protocol, holder.identity(protocol))).into();
    for (index, (kind, _)) in kinds(&identities[0].1.1).into_iter().enumerate() {
        let setup = Setup::new().auth("acl_file = \"acl.toml\"");
        rules(&setup, OWN);
        let broker = trusting(setup, &format!("peer_cert_as_username = {kind:?}\n")).start().await;
        for (protocol, (identity, certificate)) in &identities {
            let mut client = open(&broker, *protocol, Some(identity.clone())).await;
            // The client's own word for its name counts for nothing.
            let mut packet = connect("c");
            packet.username = Some("admin".into());
            client.connect(packet).await;
            let name = &kinds(certificate)[index].1;
            assert!(may_publish(&mut client, &format!("u/{name}/x")).await, "{kind} {protocol:?}");
            assert!(!may_publish(&mut client, "u/admin/x").await, "{kind} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_client_identifier_is_what_the_certificate_says() {
    let broker = trusting(Setup::new(), "peer_cert_as_clientid = \"cn\"\n").start().await;
    for protocol in PROTOCOLS {
        let (identity, _) = holder("meter-17").identity(protocol);
        let mut first = open(&broker, protocol, Some(identity.clone())).await;
        first.connect(connect("one")).await;
        // Whatever it calls itself, it is the same client, and there is one connection for it.
        let mut second = open(&broker, protocol, Some(identity)).await;
        let ack = second.connect(connect("")).await;
        assert_eq!(ack.properties.assigned_client_id.as_deref(), Some("meter-17"));
        first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    }
}

#[tokio::test]
async fn who_has_no_certificate_or_no_such_name_is_refused() {
    let lines = "peer_cert_as_username = \"san_dns\"\n";
    let broker = trusting(Setup::new(), lines).start().await;
    let two = AlternativeNames { dns: vec!["a.example".into(), "b.example".into()], ..AlternativeNames::default() };
    for protocol in PROTOCOLS {
        for identity in [
            None,
            Some(holder("meter").identity(protocol).0),
            Some(Holder { name: "meter", names: two.clone() }.identity(protocol).0),
        ] {
            let mut client = open(&broker, protocol, identity).await;
            client.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
        }
    }
}

#[tokio::test]
async fn names_that_pass_for_others_are_refused() {
    let broker = trusting(Setup::new(), "peer_cert_as_username = \"cn\"\n").start().await;
    for name in ["\u{430}dmin", "Mu\u{308}ller", "\u{ff41}dmin", "admin "] {
        let mut client = open(&broker, ClientProtocol::Tlcp, Some(holder(name).identity(ClientProtocol::Tlcp).0)).await;
        client.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
    }
    let mut client =
        open(&broker, ClientProtocol::Tlcp, Some(holder("电表-17").identity(ClientProtocol::Tlcp).0)).await;
    client.connect(connect("c")).await;
}

#[tokio::test]
async fn a_password_besides_is_that_of_the_certificate_s_name() {
    let broker = trusting(with_users(&["ada", "bob"], ""), "peer_cert_as_username = \"cn\"\n").start().await;
    let ada = holder("ada").identity(ClientProtocol::Tls13).0;
    let mut client = open(&broker, ClientProtocol::Tls13, Some(ada.clone())).await;
    // What is sent as the name of its user is not heard, and the password is ada's.
    client.connect(user("c", "bob")).await;
    let eve = holder("eve").identity(ClientProtocol::Tls13).0;
    let mut client = open(&broker, ClientProtocol::Tls13, Some(eve)).await;
    client.expect_refusal(connect("d").credentials("ada", PASSWORD), ReasonCode::BadUserNameOrPassword).await;
}

const PINNED: &str = "[[rules]]\npermit = \"allow\"\nwho = \"all\"\naction = \"all\"\ntopics = \"#\"\n\
                      [[pins]]\nwho = { username = \"meter\" }\nprotocol = \"tlcp\"\n\
                      [[pins]]\nwho = { cert_common_name = \"station\" }\nsuite = [\"ECDHE_SM4_GCM_SM3\"]\n";

#[tokio::test]
async fn a_pinned_user_gets_in_by_its_protocol_alone() {
    let setup = Setup::new().auth("acl_file = \"acl.toml\"");
    rules(&setup, PINNED);
    let broker = trusting(setup, "peer_cert_as_username = \"cn\"\n").start().await;
    for protocol in PROTOCOLS {
        let mut client = open(&broker, protocol, Some(holder("meter").identity(protocol).0)).await;
        match protocol {
            ClientProtocol::Tlcp => drop(client.connect(connect("c")).await),
            _ => client.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await,
        }
        let mut other = open(&broker, protocol, Some(holder("other").identity(protocol).0)).await;
        other.connect(connect("d")).await;
    }
    // The listener's first choice is not the pinned suite: with client certificates optional the ECC suites come first.
    for (ciphers, gets_in) in
        [(vec!["ECDHE_SM4_GCM_SM3".to_owned()], true), (vec!["ECC_SM4_GCM_SM3".to_owned()], false)]
    {
        let identity = Some(holder("station").identity(ClientProtocol::Tlcp).0);
        let ca = Certificate::anchors_from_file("ca", &certificates().ca_bundle()).unwrap();
        let options = ClientOptions { ca, identity, ciphers, ..ClientOptions::new(ClientProtocol::Tlcp, "localhost") };
        let stream = TcpStream::connect(broker.address(Transport::Tlcp)).await.unwrap();
        let secured = Connector::new(&options).unwrap().connect(stream).await.unwrap();
        let mut client = Client::new(Box::new(secured) as AnyStream);
        match gets_in {
            true => drop(client.connect(connect("s")).await),
            false => client.expect_refusal(connect("s"), ReasonCode::NotAuthorized).await,
        }
    }
}

#[tokio::test]
async fn a_client_that_a_pin_refuses_takes_over_no_session() {
    let setup = Setup::new().auth("acl_file = \"acl.toml\"");
    rules(&setup, PINNED);
    let broker = trusting(setup, "peer_cert_as_username = \"cn\"\n").start().await;
    let meter = holder("meter");
    let mut client = open(&broker, ClientProtocol::Tlcp, Some(meter.identity(ClientProtocol::Tlcp).0)).await;
    client.connect(connect("c")).await;
    let mut fallen_back = open(&broker, ClientProtocol::Tls13, Some(meter.identity(ClientProtocol::Tls13).0)).await;
    fallen_back.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
    client.ping().await;
}

// Nothing in a handshake tells that somebody between the two refused the better one: a device that falls back from TLCP to TLS when TLCP
// does not get through would be talked into it by whoever cuts its TLCP connections.
#[tokio::test]
async fn a_pinned_identity_is_refused_behind_one_who_lets_no_tlcp_through() {
    let setup = Setup::new().auth("acl_file = \"acl.toml\"");
    rules(&setup, PINNED);
    let broker = trusting(setup, "peer_cert_as_username = \"cn\"\n").start().await;
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (between.local_addr().unwrap(), broker.address(Transport::Tlcp));
    tokio::spawn(async move {
        loop {
            let (mut near, _) = between.accept().await.unwrap();
            let mut head = [0; 3];
            near.read_exact(&mut head).await.unwrap();
            if head == [0x16, 1, 1] {
                continue;
            }
            let mut far = TcpStream::connect(target).await.unwrap();
            far.write_all(&head).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let dial = |protocol| async move {
        let identity = Some(holder("meter").identity(protocol).0);
        let ca = Certificate::anchors_from_file("ca", &certificates().ca_bundle()).unwrap();
        let options = ClientOptions { ca, identity, ..ClientOptions::new(protocol, "localhost") };
        Connector::new(&options).unwrap().connect(TcpStream::connect(address).await.unwrap()).await
    };
    // The device that speaks both tries the better one first.
    assert!(dial(ClientProtocol::Tlcp).await.is_err());
    let mut client = Client::new(Box::new(dial(ClientProtocol::Tls13).await.unwrap()) as AnyStream);
    client.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
}

#[tokio::test]
async fn rules_ask_for_protocol_and_suite_and_for_what_certificates_say() {
    let setup = Setup::new().auth("allow_anonymous = true\nacl_file = \"acl.toml\"");
    let rule = |who: &str, topic: &str| {
        format!("[[rules]]\npermit = \"allow\"\nwho = {who}\naction = \"publish\"\ntopics = {topic:?}\n")
    };
    let text = rule("{ protocol = \"tlcp\" }", "tlcp")
        + &rule("{ protocol = [\"tls\", \"rfc8998\"] }", "tls")
        + &rule("{ protocol = \"plain\" }", "plain")
        + &rule("{ suite = \"TLS_SM4_GCM_SM3\" }", "sm4")
        + &rule("\"all\"", "d/${cert_subject}/${cert_san_dns}")
        + &rule("\"all\"", "f/${cert_sm3}");
    rules(&setup, &text);
    let broker = trusting(setup, "").start().await;
    let names = AlternativeNames { dns: vec!["m.example".into()], ..AlternativeNames::default() };
    for protocol in PROTOCOLS {
        let (identity, certificate) = Holder { name: "meter", names: names.clone() }.identity(protocol);
        let mut client = open(&broker, protocol, Some(identity)).await;
        client.connect(connect("c")).await;
        let of_protocol = if protocol == ClientProtocol::Tlcp { ["tlcp", "tls"] } else { ["tls", "tlcp"] };
        assert!(may_publish(&mut client, of_protocol[0]).await);
        assert!(!may_publish(&mut client, of_protocol[1]).await);
        assert!(!may_publish(&mut client, "plain").await);
        assert_eq!(may_publish(&mut client, "sm4").await, protocol == ClientProtocol::Rfc8998);
        assert!(may_publish(&mut client, "d/CN=meter/m.example").await);
        assert!(may_publish(&mut client, &format!("f/{}", certificate.fingerprint_sm3())).await);
        assert!(!may_publish(&mut client, "d/CN=meter/other.example").await);
    }
}

/// A PROXY header of version 2 for a client of TLS with this common name.
fn proxy_header(common_name: &str, verified: bool) -> Vec<u8> {
    let mut tls = vec![if common_name.is_empty() { 1 } else { 3 }];
    tls.extend(u32::from(!verified).to_be_bytes());
    if !common_name.is_empty() {
        tls.extend([0x22, 0, u8::try_from(common_name.len()).unwrap()]);
        tls.extend(common_name.as_bytes());
    }
    let mut body = vec![192, 0, 2, 1, 192, 0, 2, 9, 0, 1, 0, 1, 0x20, 0, u8::try_from(tls.len()).unwrap()];
    body.extend(tls);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec();
    header.push(u8::try_from(body.len()).unwrap());
    header.extend(body);
    header
}

async fn proxied(broker: &TestBroker, common_name: &str, verified: bool) -> Client<TcpStream> {
    let mut stream = TcpStream::connect(broker.address(Transport::Tcp)).await.unwrap();
    stream.write_all(&proxy_header(common_name, verified)).await.unwrap();
    Client::new(stream)
}

const PROXY: &str = "proxy_protocol = true\nproxy_protocol_trusted = [\"127.0.0.1\"]\n";

#[tokio::test]
async fn what_a_trusted_proxy_verified_is_a_name_where_it_is_believed() {
    let setup = Setup::new().auth("acl_file = \"acl.toml\"");
    let only_proxied = "[[pins]]\nwho = { username = \"meter\" }\nprotocol = \"proxied\"\n";
    rules(&setup, &format!("{OWN}{only_proxied}"));
    let lines = format!("{PROXY}proxy_protocol_tls = true\npeer_cert_as_username = \"cn\"");
    let broker = setup.listener(&lines).start().await;
    let mut client = proxied(&broker, "meter", true).await;
    client.connect(connect("c")).await;
    assert!(may_publish(&mut client, "u/meter/x").await);
    assert!(!may_publish(&mut client, "u/other/x").await);
    for (name, verified) in [("meter", false), ("", true), ("\u{430}dmin", true)] {
        let mut client = proxied(&broker, name, verified).await;
        client.expect_refusal(connect("d"), ReasonCode::NotAuthorized).await;
    }
}

#[tokio::test]
async fn what_a_proxy_says_of_tls_is_nothing_where_it_is_not_believed() {
    let setup = Setup::new().auth("").listener(PROXY);
    let broker = setup.start().await;
    let mut client = proxied(&broker, "meter", true).await;
    client.expect_refusal(connect("c"), ReasonCode::NotAuthorized).await;
    let setup = Setup::new()
        .listener("proxy_protocol = true\nproxy_protocol_trusted = [\"192.0.2.0/24\"]\nproxy_protocol_tls = true");
    let broker = setup.start().await;
    // Not from a trusted address: the connection ends before a word of it is read.
    proxied(&broker, "meter", true).await.expect_closed().await;
}
