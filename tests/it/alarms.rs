//! Alarms: what an operator has to see to is told by messages, in the metrics and by `shangmq ctl`, from when it begins until it is over.

use std::fs;
use std::path::{Path, PathBuf};

use gm_tls::cert::KeyKind;
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};
use serde_json::Value;
use shangmq::bundle::{Bundles, Part, Parts};
use shangmq::operator::{AlarmKind, Trigger};
use shangmq::server::{Prepared, Server};
use shangmq::store::Health;
use testkit::{AnyStream, Behaviour, Client, PublishExt, Transport, connect, puback, publish};
use tokio::net::TcpStream;

use crate::broker::eventually;
use crate::bundles::now;
use crate::durable::{absent_subscriber, until_full};
use crate::revocation::{CRL, World, refused};
use crate::stored::StoredBroker;

/// A bundle with a TLCP pair for so many days.
fn bundle(days: u32) -> Parts {
    let (subject, names) = (Subject::common_name("server"), AlternativeNames::default());
    let profile = AuthorityProfile::new(400, None);
    let ca = CertificateAuthority::create(&Subject::common_name("ca"), KeyKind::Sm2, &profile, now()).unwrap();
    let pair = ca.issue_pair(&subject, &names, KeyKind::Sm2, &Profile::server(days), now()).unwrap();
    let mut parts = Parts::default();
    for (chain, key, issued) in
        [(Part::SignChain, Part::SignKey, &pair.sign), (Part::EncChain, Part::EncKey, &pair.enc)]
    {
        parts.insert(chain, issued.chain.to_pem().into());
        parts.insert(key, issued.key.to_pem(None).unwrap());
    }
    parts
}

fn put(dir: &Path, days: u32) {
    Bundles::in_data_dir(&dir.join("data")).put(&"own".parse().unwrap(), &bundle(days), now()).unwrap();
}

struct Watched {
    dir: tempfile::TempDir,
    server: Server,
}

impl Watched {
    /// A broker whose pair is good for so many days.
    async fn start(days: u32) -> Watched {
        let dir = tempfile::tempdir().unwrap();
        let path = Watched::configure(dir.path(), "");
        put(dir.path(), days);
        let server = Server::run(Prepared::load(Some(&path), []).unwrap()).await.unwrap();
        Watched { server, dir }
    }

    /// Puts another pair there.
    fn put(&self, days: u32) {
        put(self.dir.path(), days);
    }

    fn configure(dir: &Path, more: &str) -> PathBuf {
        let text = "[node]\ndata_dir = \"data\"\nname = \"node-1\"\n[store]\ndurability = \"off\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
                    [listeners.tcp.a]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.b]\nbind = \"127.0.0.1:0\"\n\
                    [listeners.ssl.b.tlcp_options]\nmanaged_certs = { bundle_name = \"own\" }\n";
        let path = dir.join("shangmq.toml");
        fs::write(&path, format!("{text}{more}")).unwrap();
        path
    }

    /// A client of this machine that hears of alarms.
    async fn listener(&self) -> Client<AnyStream> {
        let address = self.server.addresses().iter().find(|(id, _)| &**id == "tcp:a").unwrap().1;
        let mut client = Client::new(Box::new(TcpStream::connect(address).await.unwrap()) as AnyStream);
        client.connect(connect("operator")).await;
        client.subscribe("$SYS/brokers/node-1/alarms/#", 0).await;
        client
    }

    async fn reload(&self) -> bool {
        self.server.operator().reload_aside(Trigger::Command).await.is_ok()
    }

    fn active(&self) -> Vec<AlarmKind> {
        self.server.operator().alarms().active.into_iter().map(|one| one.kind).collect()
    }

    fn sample(&self, series: &str) -> Option<u64> {
        let text = self.server.metrics().encode(Default::default());
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Waits until the alarms of a kind are told to be these.
pub async fn until_raised(server: &Server, kind: AlarmKind, names: &[&str]) {
    let raised = || {
        server.operator().look_for_alarms(now());
        let active = server.operator().alarms().active;
        let active: Vec<String> = active.into_iter().filter(|one| one.kind == kind).map(|one| one.name).collect();
        active == names
    };
    eventually(&format!("the alarms {names:?}"), raised).await;
}

/// The next alarm: the last level of its topic, and what it says.
async fn heard(client: &mut Client<AnyStream>) -> (String, Value) {
    let got = client.recv_publish().await;
    assert!(!got.retain);
    let what = got.topic.rsplit('/').next().unwrap().to_owned();
    (what, serde_json::from_slice(&got.payload).unwrap())
}

#[tokio::test]
async fn certificates_that_expire_soon_raise_an_alarm_until_others_are_there() {
    let watched = Watched::start(90).await;
    assert_eq!(watched.active(), []);
    let mut client = watched.listener().await;
    // The second pair is another one, and worse.
    for (days, within) in [(20, 30), (5, 7)] {
        watched.put(days);
        assert!(watched.reload().await);
        for usage in ["signing", "encryption"] {
            let (what, alarm) = heard(&mut client).await;
            assert_eq!((&*what, &alarm["details"]["usage"]), ("activate", &usage.into()), "{alarm}");
            assert_eq!(alarm["details"]["within_days"], within, "{alarm}");
            assert_eq!((&alarm["activated"], &alarm["deactivate_at"]), (&true.into(), &"infinity".into()));
            let name = alarm["name"].as_str().unwrap();
            assert!(name.starts_with(&format!("cert_expiry/ssl:b/tlcp/{usage}/")), "{name}");
            assert!(!alarm.to_string().contains("data/bundles"), "{alarm}: clients learn where files are");
        }
        for _ in 0..watched.server.operator().alarms().past.len() {
            let (what, alarm) = heard(&mut client).await;
            assert_eq!((&*what, &alarm["activated"]), ("deactivate", &false.into()), "{alarm}");
            assert!(alarm["deactivate_at"].as_i64().unwrap() > 0);
        }
    }
    assert_eq!(watched.sample("shangmq_alarms_active{kind=\"cert_expiry\"}"), Some(2));
    assert_eq!(watched.sample("shangmq_alarms_total{kind=\"cert_expiry\"}"), Some(4));
    let listed = watched.server.operator().alarms();
    assert!(listed.active[0].causes[0].contains("bundles/global/own"), "{listed:?}");

    watched.put(90);
    assert!(watched.reload().await);
    for _ in 0..2 {
        assert_eq!(heard(&mut client).await.0, "deactivate");
    }
    client.expect_nothing().await;
    assert_eq!(watched.active(), []);
    assert_eq!(watched.server.operator().alarms().past.len(), 4);
    assert_eq!(watched.sample("shangmq_alarms_active{kind=\"cert_expiry\"}"), Some(0));
}

#[tokio::test]
async fn a_refused_reload_is_an_alarm_until_one_succeeds() {
    let watched = Watched::start(90).await;
    let mut client = watched.listener().await;
    Watched::configure(watched.dir.path(), "nonsense = 1\n");
    assert!(!watched.reload().await);
    let (what, alarm) = heard(&mut client).await;
    assert_eq!((&*what, &alarm["name"]), ("activate", &"reload_refused".into()), "{alarm}");
    assert!(!alarm.to_string().contains("nonsense"), "{alarm}");
    assert!(!watched.reload().await);
    client.expect_nothing().await;
    let listed = watched.server.operator().alarms();
    assert!(listed.active[0].causes[0].contains("nonsense"), "{listed:?}");
    Watched::configure(watched.dir.path(), "");
    assert!(watched.reload().await);
    assert_eq!(heard(&mut client).await.0, "deactivate");
    assert_eq!(watched.active(), []);
}

#[tokio::test]
async fn a_store_without_space_is_an_alarm_until_there_is_some() {
    let broker = StoredBroker::start().await;
    until_raised(broker.server(), AlarmKind::Store, &[]).await;
    absent_subscriber(&broker, 1).await;
    let (mut waiting, id) = until_full(&broker).await;
    until_raised(broker.server(), AlarmKind::Store, &["store"]).await;
    let listed = broker.server().operator().alarms();
    assert!(listed.active[0].message.contains("no space is left"), "{listed:?}");
    broker.disk().limit_space(None);
    waiting.expect(puback(id)).await;
    until_raised(broker.server(), AlarmKind::Store, &[]).await;
}

#[tokio::test]
async fn a_store_that_failed_is_an_alarm() {
    let broker = StoredBroker::start().await;
    absent_subscriber(&broker, 1).await;
    let mut publisher = broker.client("p").await;
    broker.disk().fail_syncs(true);
    publisher.send(publish("t", 1, "m").id(1)).await;
    broker.until_health(Health::Failed).await;
    until_raised(broker.server(), AlarmKind::Store, &["store"]).await;
    let listed = broker.server().operator().alarms();
    assert!(listed.active[0].message.contains("the store failed"), "{listed:?}");
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_an_alarm_where_it_refuses_clients() {
    let transport = Transport::Tls13;
    let world = World::new(transport).await;
    let client = world.client(transport);
    world.service.set(CRL, Behaviour::Status(500));
    let soft = world.broker("crl = { mode = \"soft-fail\" }").await;
    client.enter(&soft, transport).await.unwrap();
    until_raised(&soft.server, AlarmKind::CrlUnusable, &[]).await;
    let hard = world.broker("crl = {}").await;
    refused(&client, &hard, transport, "revocation_unknown").await;
    let name = format!("crl_unusable/{}", world.service.url(CRL));
    until_raised(&hard.server, AlarmKind::CrlUnusable, &[&name]).await;
    world.service.set(CRL, Behaviour::Serve(world.list(&[])));
    until_raised(&hard.server, AlarmKind::CrlUnusable, &[]).await;
}

// What a reload by command refused is not tried again by itself; the alarm that lasts had lost its cause by then.
#[tokio::test]
async fn a_refused_reload_keeps_its_cause_and_says_what_ends_it_when_files_are_read_later() {
    let watched = Watched::start(90).await;
    Watched::configure(watched.dir.path(), "nonsense = 1\n");
    assert!(!watched.reload().await);
    watched.put(80);
    assert!(watched.server.operator().reload_aside(Trigger::Files).await.is_ok());
    let alarm = watched.server.operator().alarms().active.remove(0);
    assert_eq!(alarm.kind, AlarmKind::ReloadRefused);
    assert!(alarm.causes[0].contains("nonsense") && alarm.message.contains("`shangmq ctl reload`"), "{alarm:?}");
    Watched::configure(watched.dir.path(), "");
    assert!(watched.reload().await);
    assert_eq!(watched.active(), []);
}
