//! What is measured: every suite, full and resumed, one-way and mutual.

use std::{
    mem::MaybeUninit,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gm_tls::{
    cert::{Certificate, KeyKind},
    client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Session},
    engine::{Engine, Progress, ReadOutcome},
    hello::{self, Parse},
    pair::CertificatePair,
    pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Issued, IssuedPair, Profile, Subject},
    server::{
        ClientAuth, Identity, Resumption, Rfc8998Options, ServerContexts, ServerOptions, TlcpOptions, TlsOptions,
        VerifyMode,
    },
};
use rustix::time::{ClockId, clock_gettime};

/// Time that this thread has spent on a processor: what other work on the machine takes from it does not count.
pub fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(spent.tv_sec), u32::try_from(spent.tv_nsec));
    Duration::new(seconds.expect("time runs forward"), nanos.expect("less than a second"))
}

const SERVER: &str = "broker.test";

/// Time spent on one handshake.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By the server alone: choosing the context, its side of the handshake, and freeing the connection.
    pub server: Duration,
    pub both: Duration,
}

/// Against what a row of the table is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    Tls12P256,
    Tls13P256,
}

/// One kind of handshake.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub suite: &'static str,
    pub mutual: bool,
    pub resumed: bool,
    pub baseline: Baseline,
    contexts: Rc<ServerContexts>,
    connector: Connector,
    session: Option<Session>,
}

struct Kind {
    label: &'static str,
    protocol: ClientProtocol,
    suite: &'static str,
    rsa: bool,
    /// The one group of both sides, where it is not that of the other rows. Such rows are of full one-way handshakes alone.
    group: Option<&'static str>,
}

const fn kind(label: &'static str, protocol: ClientProtocol, suite: &'static str, rsa: bool) -> Kind {
    Kind { label, protocol, suite, rsa, group: None }
}

const fn by_group(group: &'static str, label: &'static str, protocol: ClientProtocol, suite: &'static str) -> Kind {
    Kind { label, protocol, suite, rsa: false, group: Some(group) }
}

const KINDS: [Kind; 17] = [
    kind("tls1.2 P-256", ClientProtocol::Tls12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", false),
    kind("tls1.3 P-256", ClientProtocol::Tls13, "TLS_AES_128_GCM_SHA256", false),
    by_group("X25519", "tls1.3 X25519", ClientProtocol::Tls13, "TLS_AES_128_GCM_SHA256"),
    by_group("X25519MLKEM768", "tls1.3 X25519MLKEM768", ClientProtocol::Tls13, "TLS_AES_128_GCM_SHA256"),
    kind("tls1.2 RSA-2048", ClientProtocol::Tls12, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", true),
    kind("tls1.3 RSA-2048", ClientProtocol::Tls13, "TLS_AES_128_GCM_SHA256", true),
    kind("rfc8998", ClientProtocol::Rfc8998, "TLS_SM4_GCM_SM3", false),
    kind("rfc8998", ClientProtocol::Rfc8998, "TLS_SM4_CCM_SM3", false),
    by_group("curveSM2MLKEM768", "rfc8998 curveSM2MLKEM768", ClientProtocol::Rfc8998, "TLS_SM4_GCM_SM3"),
    kind("tlcp", ClientProtocol::Tlcp, "ECC_SM4_GCM_SM3", false),
    kind("tlcp", ClientProtocol::Tlcp, "ECC_SM4_CBC_SM3", false),
    kind("tlcp", ClientProtocol::Tlcp, "ECDHE_SM4_GCM_SM3", false),
    kind("tlcp", ClientProtocol::Tlcp, "ECDHE_SM4_CBC_SM3", false),
    kind("tlcp RSA-2048", ClientProtocol::Tlcp, "RSA_SM4_GCM_SM3", true),
    kind("tlcp RSA-2048", ClientProtocol::Tlcp, "RSA_SM4_CBC_SM3", true),
    kind("tlcp RSA-2048", ClientProtocol::Tlcp, "RSA_SM4_GCM_SHA256", true),
    kind("tlcp RSA-2048", ClientProtocol::Tlcp, "RSA_SM4_CBC_SHA256", true),
];

impl Case {
    /// A full one-way handshake of one kind alone.
    pub fn named(pki: &Pki, label: &str, suite: &str) -> Case {
        let kind = KINDS.iter().find(|kind| (kind.label, kind.suite) == (label, suite)).expect("a kind of handshake");
        Case::new(pki, kind, false, false)
    }

    pub fn connector(&self) -> Connector {
        self.connector.clone()
    }
}

/// Every case: each suite one-way and mutual where both exist, full and resumed.
pub fn all() -> Vec<Case> {
    let pki = Pki::new();
    let mut cases = Vec::new();
    for kind in KINDS {
        for mutual in [false, true] {
            let ecdhe_needs_both = kind.suite.starts_with("ECDHE_SM4") && !mutual;
            if ecdhe_needs_both || (kind.rsa && mutual) {
                continue;
            }
            for resumed in [false, true] {
                if !(resumed && mutual) && (kind.group.is_none() || !(resumed || mutual)) {
                    cases.push(Case::new(&pki, &kind, mutual, resumed));
                }
            }
        }
    }
    cases
}

impl Case {
    fn new(pki: &Pki, kind: &Kind, mutual: bool, resumed: bool) -> Self {
        let contexts = Rc::new(pki.contexts(kind, mutual, resumed));
        let connector = Connector::new(&pki.client(kind, mutual)).expect("the client can be built");
        let mut name = format!("{} {}", kind.label, kind.suite);
        name.push_str(if mutual { " mutual" } else { "" });
        name.push_str(if resumed { " resumed" } else { "" });
        let baseline = match kind.protocol {
            ClientProtocol::Tls13 | ClientProtocol::Rfc8998 => Baseline::Tls13P256,
            _ => Baseline::Tls12P256,
        };
        let mut case = Self { name, suite: kind.suite, mutual, resumed, baseline, contexts, connector, session: None };
        if resumed {
            case.session = Some(case.learn_session());
        }
        let (_, _, server) = case.run();
        let identity = server.peer_identity().expect("the handshake is complete");
        assert_eq!((identity.suite, identity.resumed), (case.suite, resumed), "{}", case.name);
        assert_eq!(identity.signing.is_some(), mutual, "{}", case.name);
        case
    }

    /// Runs one handshake.
    pub fn handshake(&self) -> Spent {
        let began = processor_time();
        let (mut spent, client, server) = self.run();
        let freeing = processor_time();
        drop(server);
        spent += processor_time() - freeing;
        drop(client);
        Spent { server: spent, both: processor_time() - began }
    }

    /// The time the server took, and both sides after their handshake.
    fn run(&self) -> (Duration, Engine, Engine) {
        let mut client = self.connector.engine(self.session.as_ref()).expect("a client's connection");
        client.handshake().expect("the client's hello");
        let flight = client.output().to_vec();
        client.consume_output(flight.len());

        let turn = processor_time();
        let Ok(Parse::Hello(hello)) = hello::parse(&flight) else { unreachable!("the client's flight is a hello") };
        let context = self.contexts.select(&hello).expect("a context for the hello");
        let mut server = context.engine(flight.into()).expect("a server's connection");
        let mut here = server.handshake().expect("the server's handshake");
        let mut spent = processor_time() - turn;
        loop {
            client.receive(server.output());
            server.consume_output(usize::MAX);
            let there = client.handshake().expect("the client's handshake");
            if (here, there) == (Progress::Done, Progress::Done) && client.output().is_empty() {
                return (spent, client, server);
            }
            let flight = client.output().to_vec();
            client.consume_output(flight.len());
            let turn = processor_time();
            server.receive(&flight);
            here = server.handshake().expect("the server's handshake");
            spent += processor_time() - turn;
        }
    }

    /// Bytes of text per second of processor time that the server writes and the client reads.
    pub fn bulk(&self) -> f64 {
        const RECORD: usize = 16 * 1024;
        let (_, mut client, mut server) = self.run();
        let text = vec![7; RECORD];
        let mut buffer = vec![MaybeUninit::uninit(); RECORD];
        let mut pass = |count: usize| {
            let mut bytes = 0;
            for _ in 0..count {
                bytes += server.write(&text).expect("data").unwrap_or(0);
                client.receive(server.output());
                server.consume_output(usize::MAX);
                while let ReadOutcome::Data(_) = client.read(&mut buffer).expect("data") {}
            }
            bytes as f64
        };
        pass(100);
        let began = processor_time();
        let bytes = pass(1500);
        bytes / (processor_time() - began).as_secs_f64()
    }

    /// A session of a full handshake and the data after it, with which a ticket comes.
    fn learn_session(&self) -> Session {
        let (_, mut client, mut server) = self.run();
        server.write(b"x").expect("data");
        client.receive(server.output());
        let mut buffer = [MaybeUninit::uninit(); 16];
        assert_eq!(client.read(&mut buffer).expect("data"), ReadOutcome::Data(1));
        client.session().expect("a session to resume")
    }
}

/// Authorities and what they have issued.
pub struct Pki {
    anchors: Vec<Certificate>,
    server_pair: CertificatePair,
    server_rsa_pair: CertificatePair,
    client_pair: CertificatePair,
    server_sm2: Identity,
    client_sm2: Identity,
    server_p256: Identity,
    client_p256: Identity,
    server_rsa: Identity,
}

impl Pki {
    pub fn server_pair(&self) -> &CertificatePair {
        &self.server_pair
    }

    pub fn anchors(&self) -> &[Certificate] {
        &self.anchors
    }

    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let now = i64::try_from(since.as_secs()).expect("a clock before the end of time");
        let authority = |kind| {
            let subject = Subject::common_name("bench root");
            CertificateAuthority::create(&subject, kind, &AuthorityProfile::new(30, None), now).expect("an authority")
        };
        let names = AlternativeNames { dns: vec![SERVER.to_owned()], ..AlternativeNames::default() };
        let none = AlternativeNames::default();
        let (server, client) = (Subject::common_name(SERVER), Subject::common_name("client"));
        let (for_server, for_client) = (Profile::server(10), Profile::client(10));
        let identity = |issued: Issued| Identity { chain: issued.chain, key: issued.key };
        let pair = |issued: IssuedPair| {
            let IssuedPair { sign, enc } = issued;
            CertificatePair::new(sign.chain, sign.key, enc.chain, enc.key).expect("a pair")
        };
        let (sm2, p256, rsa) = (KeyKind::Sm2, KeyKind::EcP256, KeyKind::Rsa(2048));
        let (sm2_ca, p256_ca, rsa_ca) = (authority(sm2), authority(p256), authority(rsa));
        let single = |ca: &CertificateAuthority, kind, of_server: bool| {
            let issued = if of_server {
                ca.issue_single(&server, &names, kind, &for_server, now)
            } else {
                ca.issue_single(&client, &none, kind, &for_client, now)
            };
            identity(issued.expect("a certificate"))
        };
        Self {
            anchors: [&sm2_ca, &p256_ca, &rsa_ca].map(|ca| ca.certificate().clone()).to_vec(),
            server_pair: pair(sm2_ca.issue_pair(&server, &names, sm2, &for_server, now).expect("a pair")),
            server_rsa_pair: pair(rsa_ca.issue_pair(&server, &names, rsa, &for_server, now).expect("a pair")),
            client_pair: pair(sm2_ca.issue_pair(&client, &none, sm2, &for_client, now).expect("a pair")),
            server_sm2: single(&sm2_ca, sm2, true),
            client_sm2: single(&sm2_ca, sm2, false),
            server_p256: single(&p256_ca, p256, true),
            client_p256: single(&p256_ca, p256, false),
            server_rsa: single(&rsa_ca, rsa, true),
        }
    }

    fn contexts(&self, kind: &Kind, mutual: bool, resumed: bool) -> ServerContexts {
        let verify = if mutual { VerifyMode::Required } else { VerifyMode::None };
        let client_auth = ClientAuth { verify, ca: self.anchors.clone(), ..ClientAuth::default() };
        let tls = if kind.rsa { &self.server_rsa } else { &self.server_p256 };
        // Tickets for TLS; TLCP has none, and resumes by session id.
        let resumption = Resumption { tickets: resumed, ids: resumed, ..Resumption::default() };
        let mut tlcp = TlcpOptions::new(self.server_pair.clone());
        if kind.rsa && kind.protocol == ClientProtocol::Tlcp {
            // They are served only if they are named.
            tlcp.rsa_pair = Some(self.server_rsa_pair.clone());
            tlcp.ciphers = vec![kind.suite.to_owned()];
        }
        let groups = kind.group.map(str::to_owned);
        let options = ServerOptions {
            tls: Some(TlsOptions {
                groups: groups.clone().filter(|_| kind.protocol == ClientProtocol::Tls13),
                client_auth: client_auth.clone(),
                resumption: resumption.clone(),
                ..TlsOptions::new(vec![tls.clone()])
            }),
            rfc8998: Some(Rfc8998Options {
                groups: groups.filter(|_| kind.protocol == ClientProtocol::Rfc8998),
                client_auth: client_auth.clone(),
                resumption: resumption.clone(),
                ..Rfc8998Options::new(self.server_sm2.clone())
            }),
            tlcp: Some(TlcpOptions { client_auth, resumption, ..tlcp }),
            ..ServerOptions::default()
        };
        ServerContexts::new(&options).expect("contexts")
    }

    fn client(&self, kind: &Kind, mutual: bool) -> ClientOptions {
        let identity = match kind.protocol {
            ClientProtocol::Tlcp => ClientIdentity::Pair(self.client_pair.clone()),
            ClientProtocol::Rfc8998 => ClientIdentity::Single(self.client_sm2.clone()),
            _ => ClientIdentity::Single(self.client_p256.clone()),
        };
        let p256 = matches!(kind.protocol, ClientProtocol::Tls12 | ClientProtocol::Tls13).then_some("P-256");
        ClientOptions {
            ca: self.anchors.clone(),
            identity: mutual.then_some(identity),
            ciphers: vec![kind.suite.to_owned()],
            groups: kind.group.or(p256).map(str::to_owned),
            ..ClientOptions::new(kind.protocol, SERVER)
        }
    }
}
