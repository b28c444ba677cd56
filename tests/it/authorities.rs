//! Authorities of `cacertfile` that expire: reports, metrics, alarms and warnings see them as they see the certificates of listeners.

use std::fs;
use std::path::Path;

use gm_tls::key::KeyKind;
use gm_tls::pki::{AuthorityProfile, CertificateAuthority, Subject};
use shangmq::operator::{AlarmKind, Trigger};
use shangmq::server::{Prepared, Server};

use crate::check_config::{directory, shangmq};
use crate::revocation::now;

const DAY: i64 = 24 * 3600;
const PROTOCOLS: [&str; 3] = ["tls", "rfc8998", "tlcp"];

/// The certificate of an authority that ends in so many days.
fn authority(name: &str, days: i64) -> Vec<u8> {
    let (subject, profile) = (Subject::common_name(name), AuthorityProfile::new(100, None));
    let begun = now() + (days - 100) * DAY + 60;
    let made = CertificateAuthority::create(&subject, KeyKind::Sm2, &profile, begun).unwrap();
    made.certificate().to_pem()
}

/// A listener with every protocol, each of which trusts `ca.pem`.
fn configuration() -> String {
    let trust = "verify = 'verify_peer'\nfail_if_no_peer_cert = true\ncacertfile = 'ca.pem'\n";
    let good = |name: &str| format!("certfile = 'good/{name}.crt'\nkeyfile = 'good/{name}.key'\n");
    let (ecdsa, sm2) = (good("server-ecdsa"), good("server-sm2"));
    format!(
        "[node]\ndata_dir = 'data'\n[store]\ndurability = 'off'\n[auth]\nno_match = 'allow'\n[listeners.ssl.b]\nbind = '127.0.0.1:0'\n\
         [listeners.ssl.b.ssl_options]\n{ecdsa}{trust}[listeners.ssl.b.rfc8998_options]\n{sm2}{trust}[listeners.ssl.b.tlcp_options]\n\
         sign_certfile = 'good/server-sign.crt'\nsign_keyfile = 'good/server-sign.key'\nenc_certfile = 'good/server-enc.crt'\n\
         enc_keyfile = 'good/server-enc.key'\n{trust}"
    )
}

fn trust(dir: &Path, authorities: &[(&str, i64)]) {
    let pem: Vec<Vec<u8>> = authorities.iter().map(|(name, days)| authority(name, *days)).collect();
    fs::write(dir.join("ca.pem"), pem.concat()).unwrap();
}

// Clients were refused, and nothing but a line about each of them said why.
#[tokio::test]
async fn an_authority_that_has_expired_or_soon_will_is_reported_measured_and_an_alarm_for_every_protocol() {
    let dir = directory(&configuration());
    trust(dir.path(), &[("Fresh", 90), ("Gone", -2), ("Ending", 5)]);
    let prepared = Prepared::load(Some(&dir.path().join("t.toml")), []).unwrap();
    let server = Server::run(prepared).await.unwrap();
    let operator = server.operator();
    operator.look_for_alarms(now());
    let reports = operator.certificates(now());
    let alarms = operator.alarms().active;
    let text = server.metrics().encode(Default::default());
    for protocol in PROTOCOLS {
        let listed = reports.iter().filter(|one| one.protocol == protocol && one.usage == "authority");
        let listed: Vec<(&str, i64)> = listed.map(|one| (&*one.subject, one.seconds_left.div_euclid(DAY))).collect();
        assert_eq!(listed, [("CN=Gone", -2), ("CN=Ending", 5), ("CN=Fresh", 90)], "{protocol}");
        let begins = format!("cert_expiry/ssl:b/{protocol}/authority/");
        let mut raised: Vec<_> = alarms.iter().filter(|one| one.name.starts_with(&begins)).collect();
        raised.sort_by_key(|one| one.details["within_days"].as_i64());
        let told = |at: usize| (raised[at].details["subject"].as_str().unwrap(), raised[at].urgent);
        assert_eq!((raised.len(), told(0), told(1)), (2, ("CN=Gone", true), ("CN=Ending", false)), "{raised:?}");
        assert!(raised[0].message.contains("clients whose certificates it issued are refused"), "{raised:?}");
        let series = format!("protocol=\"{protocol}\",usage=\"authority\"");
        let samples =
            text.lines().filter(|line| line.starts_with("shangmq_cert_expiry_seconds") && line.contains(&series));
        let gone =
            |line: &&str| line.contains("subject=\"CN=Gone\"") && line.rsplit(' ').next().unwrap().starts_with('-');
        assert_eq!((samples.clone().count(), samples.filter(gone).count()), (3, 1), "{text}");
    }
    assert!(text.contains("shangmq_certs_expiring{within=\"expired\"} 3\n"), "{text}");

    trust(dir.path(), &[("Fresh", 90)]);
    let reloaded = operator.reload_aside(Trigger::Command).await.unwrap();
    assert_eq!(reloaded.warnings, [""; 0]);
    let alarms = operator.alarms().active;
    assert!(alarms.iter().all(|one| one.kind != AlarmKind::CertExpiry), "{alarms:?}");
}

#[test]
fn check_config_and_start_warn_of_authorities_and_certificates_that_end_soon_and_refuse_neither() {
    let dir = directory("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = configuration().replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    fs::write(dir.path().join("t.toml"), &text).unwrap();
    trust(dir.path(), &[("Fresh", 90), ("Gone", -2), ("Ending", 29)]);
    let warned = || {
        let (good, found, _) = shangmq(dir.path(), &["check-config"]);
        assert!(good, "{found}");
        // It ends at once, for the port is taken.
        let (started, log, error) = shangmq(dir.path(), &["start"]);
        assert!(!started && error.contains("the port is in use"), "{error}");
        let warned: Vec<String> =
            found.lines().filter_map(|line| line.strip_prefix("warning: ")).map(str::to_owned).collect();
        let log = (log + &error).replace("\\\"", "\"");
        warned.iter().for_each(|line| assert!(log.contains(line), "{line} is not in {log}"));
        warned
    };
    let found = warned();
    assert_eq!(found.len(), 6, "{found:?}");
    for protocol in PROTOCOLS {
        for (name, verb) in [("Gone", "expired"), ("Ending", "expires")] {
            let words = format!("ca.pem: the authority \"CN={name}\", trusted for {protocol}, {verb} at 20");
            assert!(found.iter().any(|one| one.starts_with("ssl:b: ") && one.contains(&words)), "{words}: {found:?}");
        }
    }
    trust(dir.path(), &[("Fresh", 90)]);
    assert_eq!(warned(), [""; 0]);
    // The listener's own.
    shangmq::dev_certs::DevCerts::ensure(&dir.path().join("ending"), now() - (825 - 20) * DAY).unwrap();
    fs::write(dir.path().join("t.toml"), text.replace("good/", "ending/")).unwrap();
    let found = warned();
    assert!(found.iter().any(|one| one.contains("server-sign.crt: the signing certificate")), "{found:?}");
}

#[tokio::test]
async fn of_very_many_authorities_those_that_end_first_are_watched_and_it_is_said() {
    let dir = directory(&configuration());
    let mut all: Vec<(&str, i64)> = vec![("Fresh", 90); 100];
    all.push(("Gone", -2));
    trust(dir.path(), &all);
    let prepared = Prepared::load(Some(&dir.path().join("t.toml")), []).unwrap();
    let warnings: Vec<String> = prepared.listeners().iter().flat_map(|one| one.warnings()).collect();
    let crowded = "has 101 authorities for tlcp: that they expire is told of the 100 that do so first";
    assert!(warnings.iter().any(|one| one.contains(crowded)), "{warnings:?}");
    let server = Server::run(prepared).await.unwrap();
    let reports = server.operator().certificates(now());
    let watched: Vec<_> = reports.iter().filter(|one| one.protocol == "tlcp" && one.usage == "authority").collect();
    assert_eq!((watched.len(), &*watched[0].subject), (100, "CN=Gone"));
}
