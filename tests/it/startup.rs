//! What keeps the broker from starting, as an operator meets it: the message names the listener, the field, the file and the cause.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gm_tls::cert::{ExtendedKeyUsage, KeyKind};
use gm_tls::key::{Password, PrivateKey};
use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, IssuedPair, Profile, Subject};
use shangmq::config::Config;
use shangmq::dev_certs::CertKey;
use shangmq::server::Server;
use tempfile::TempDir;

use crate::broker::certificates;

const DAY_SECS: i64 = 86_400;

/// A directory for the files of one test.
struct Files {
    dir: TempDir,
    /// A data directory belongs to one broker, and one that was dropped lets go of it a moment later.
    brokers: Cell<u32>,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap(), brokers: Cell::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A certificate of the development set, with a key file of this mode.
    fn copy(&self, name: &str, from: &CertKey, mode: u32) -> CertKey {
        let cert = self.write(&format!("{name}.crt"), &fs::read(&from.cert).unwrap(), 0o644);
        let key = self.write(&format!("{name}.key"), &fs::read(&from.key).unwrap(), mode);
        CertKey { cert, key }
    }

    /// The same key, encrypted.
    fn encrypted(&self, name: &str, from: &CertKey, password: &str) -> CertKey {
        let key = PrivateKey::from_file("key", &from.key, None).unwrap();
        let path = self.path(&format!("{name}.key"));
        key.write_new(&path, Some(&Password::inline(password.as_bytes()).unwrap())).unwrap();
        CertKey { cert: from.cert.clone(), key: path }
    }

    fn parse(&self, listeners: &str) -> Result<Config, String> {
        let number = self.brokers.replace(self.brokers.get() + 1);
        let text = format!(
            "[node]\ndata_dir = \"data{number}\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n{listeners}"
        );
        Config::parse(&self.path("shangmq.toml"), &text, []).map_err(|errors| errors.to_string())
    }

    async fn start(&self, listeners: &str) -> Result<Server, String> {
        Server::start(self.parse(listeners)?).await.map_err(|error| error.to_string())
    }

    /// The one line by which the broker refuses to start with `listeners`; it must hold every one of `words`.
    async fn refuses(&self, listeners: &str, words: &[&str]) -> String {
        let message = self.start(listeners).await.expect_err("the broker started");
        assert_eq!(message.lines().count(), 1, "{message}");
        for word in words {
            assert!(message.contains(word), "no {word} in: {message}");
        }
        message
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A listener for TLS alone.
fn tls(name: &str, files: &CertKey, more: &str) -> String {
    format!(
        "[listeners.ssl.{name}]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.{name}.ssl_options]\ncertfile = {:?}\nkeyfile = {:?}\n{more}\n",
        files.cert, files.key
    )
}

/// A listener for TLCP alone.
fn tlcp(name: &str, sign: &CertKey, enc: &CertKey, more: &str) -> String {
    format!(
        "[listeners.ssl.{name}]\nbind = \"127.0.0.1:0\"\n[listeners.ssl.{name}.tlcp_options]\nsign_certfile = {:?}\nsign_keyfile = {:?}\nenc_certfile = {:?}\nenc_keyfile = {:?}\n{more}\n",
        sign.cert, sign.key, enc.cert, enc.key
    )
}

#[tokio::test]
async fn starts_with_the_files_that_the_others_are_made_from() {
    let (files, set) = (Files::new(), certificates());
    files.start(&tls("bank", &set.server_ecdsa(), "")).await.unwrap();
    files.start(&tlcp("bank", &set.server_sign(), &set.server_enc(), "")).await.unwrap();
}

#[tokio::test]
async fn refuses_a_key_of_another_certificate() {
    let (files, set) = (Files::new(), certificates());
    let mixed = CertKey { key: set.client_ecdsa().key, ..set.server_ecdsa() };
    let words = ["listeners.ssl.bank.ssl_options.keyfile", shown(&mixed.key), "does not belong to the certificate of"];
    files.refuses(&tls("bank", &mixed, ""), &words).await;

    let sign = CertKey { key: set.client_sign().key, ..set.server_sign() };
    let words =
        ["listeners.ssl.bank.tlcp_options.sign_keyfile", shown(&sign.key), "is not the key of the signing certificate"];
    files.refuses(&tlcp("bank", &sign, &set.server_enc(), ""), &words).await;

    let enc = CertKey { key: set.client_enc().key, ..set.server_enc() };
    let words = [
        "listeners.ssl.bank.tlcp_options.enc_keyfile",
        shown(&enc.key),
        "is not the key of the encryption certificate",
    ];
    files.refuses(&tlcp("bank", &set.server_sign(), &enc, ""), &words).await;
}

#[tokio::test]
async fn refuses_a_swapped_pair() {
    let (files, set) = (Files::new(), certificates());
    let (sign, enc) = (set.server_sign(), set.server_enc());
    let words = ["listeners.ssl.bank.tlcp_options.", shown(&enc.cert), "are swapped"];
    files.refuses(&tlcp("bank", &enc, &sign, ""), &words).await;
}

#[tokio::test]
async fn refuses_half_a_pair() {
    let (files, set) = (Files::new(), certificates());
    let whole = tlcp("bank", &set.server_sign(), &set.server_enc(), "");
    for missing in ["sign_certfile", "sign_keyfile", "enc_certfile", "enc_keyfile"] {
        let half: String =
            whole.lines().filter(|line| !line.starts_with(missing)).map(|line| format!("{line}\n")).collect();
        let key = format!("listeners.ssl.bank.tlcp_options.{missing}");
        files.refuses(&half, &[&key, "missing", "shangmq.toml:"]).await;
    }
}

#[tokio::test]
async fn refuses_a_pair_of_two_owners() {
    let (files, set) = (Files::new(), certificates());
    let other = set.client_enc();
    let message = files.start(&tlcp("bank", &set.server_sign(), &other, "")).await.expect_err("the broker started");
    let owners = message.lines().find(|line| line.contains("both must have the same subject")).unwrap();
    assert!(owners.contains("listeners.ssl.bank.tlcp_options.") && owners.contains(shown(&other.cert)), "{message}");
}

#[tokio::test]
async fn refuses_a_key_that_cannot_be_read() {
    let (files, set) = (Files::new(), certificates());
    let with = |key: PathBuf| CertKey { key, ..set.server_ecdsa() };
    let keyfile = "listeners.ssl.bank.ssl_options.keyfile";

    let missing = files.path("missing.key");
    files.refuses(&tls("bank", &with(missing.clone()), ""), &[keyfile, shown(&missing), "No such file"]).await;

    let directory = files.path("directory.key");
    fs::create_dir(&directory).unwrap();
    files.refuses(&tls("bank", &with(directory.clone()), ""), &[keyfile, shown(&directory), "directory"]).await;

    for (name, contents) in [("text.key", &b"secret"[..]), ("empty.key", b""), ("der.key", &[0x30, 0x82, 0, 1])] {
        let path = files.write(name, contents, 0o600);
        files.refuses(&tls("bank", &with(path.clone()), ""), &[keyfile, shown(&path), "no private key"]).await;
    }
    let cut = fs::read(&set.server_ecdsa().key).unwrap();
    let cut = files.write("cut.key", &cut[..cut.len() / 2], 0o600);
    files.refuses(&tls("bank", &with(cut.clone()), ""), &[keyfile, shown(&cut)]).await;

    let certificate = set.server_ecdsa().cert;
    let copy = files.write("certificate.key", &fs::read(certificate).unwrap(), 0o600);
    files.refuses(&tls("bank", &with(copy.clone()), ""), &[keyfile, shown(&copy), "no private key"]).await;
}

#[tokio::test]
async fn refuses_a_key_that_others_can_read() {
    let (files, set) = (Files::new(), certificates());
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let open = files.copy(&format!("m{mode:o}"), &set.server_ecdsa(), mode);
        let (shown_mode, cure) = (format!("mode {mode:04o}"), format!("chmod 600 {}", shown(&open.key)));
        let words = ["listeners.ssl.bank.ssl_options.keyfile", &shown_mode, &cure];
        files.refuses(&tls("bank", &open, ""), &words).await;
    }
    let enc = files.copy("enc", &set.server_enc(), 0o644);
    let words = ["listeners.ssl.bank.tlcp_options.enc_keyfile", shown(&enc.key), "can be read by others"];
    files.refuses(&tlcp("bank", &set.server_sign(), &enc, ""), &words).await;
    // A link is followed: what it leads to is what can be read.
    let link = CertKey { cert: set.server_ecdsa().cert, key: files.path("link.key") };
    std::os::unix::fs::symlink(files.path("m644.key"), &link.key).unwrap();
    files.refuses(&tls("bank", &link, ""), &["ssl_options.keyfile", "mode 0644"]).await;
    let foreign = files.copy("foreign", &set.server_ecdsa(), 0o600);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&foreign.key, Some(12_345), None).is_ok() {
        files.refuses(&tls("bank", &foreign, ""), &["ssl_options.keyfile", "12345"]).await;
    }
    let closed = files.copy("closed", &set.server_ecdsa(), 0o400);
    files.start(&tls("bank", &closed, "")).await.unwrap();
}

/// A variable of the environment whose value can be a password: a test cannot set one.
fn variable() -> (String, String) {
    let fits = |value: &String| (1..200).contains(&value.len()) && value.trim() == value && !value.contains('\n');
    std::env::vars().find(|(name, value)| fits(value) && !name.contains('"')).expect("an environment")
}

#[tokio::test]
async fn opens_an_encrypted_key_with_its_password_alone() {
    let (files, set) = (Files::new(), certificates());
    let (name, value) = variable();
    let secret = "correct horse";
    let key = files.encrypted("encrypted", &set.server_ecdsa(), secret);
    let keyfile = "listeners.ssl.bank.ssl_options.keyfile";

    let words = [keyfile, shown(&key.key), "encrypted and no password is configured"];
    files.refuses(&tls("bank", &key, ""), &words).await;

    let message =
        files.refuses(&tls("bank", &key, "password = \"battery staple\""), &[keyfile, "password is wrong"]).await;
    assert!(!message.contains("battery"), "{message}");

    files.start(&tls("bank", &key, &format!("password = {secret:?}"))).await.unwrap();

    let file = files.write("password", format!("{secret}\n").as_bytes(), 0o600);
    files.start(&tls("bank", &key, &format!("password = \"file://{}\"", shown(&file)))).await.unwrap();

    let by_variable = files.encrypted("variable", &set.server_ecdsa(), &value);
    files.start(&tls("bank", &by_variable, &format!("password = \"env:{name}\""))).await.unwrap();

    let sign = files.encrypted("sign", &set.server_sign(), secret);
    let enc = files.encrypted("enc", &set.server_enc(), secret);
    let passwords = format!("sign_password = {secret:?}\nenc_password = {secret:?}");
    files.start(&tlcp("bank", &sign, &enc, &passwords)).await.unwrap();
    let words = ["listeners.ssl.bank.tlcp_options.enc_keyfile", shown(&enc.key), "no password is configured"];
    files.refuses(&tlcp("bank", &sign, &enc, &format!("sign_password = {secret:?}")), &words).await;
}

#[tokio::test]
async fn refuses_a_password_that_cannot_be_had() {
    let (files, set) = (Files::new(), certificates());
    let key = files.encrypted("encrypted", &set.server_ecdsa(), "secret");
    let with = |source: &str| tls("bank", &key, &format!("password = {source:?}"));
    let at = "listeners.ssl.bank.ssl_options.";
    let missing = files.path("no-password");
    files.refuses(&with(&format!("file://{}", shown(&missing))), &[at, shown(&missing), "No such file"]).await;
    let open = files.write("open", b"secret", 0o644);
    files.refuses(&with(&format!("file://{}", shown(&open))), &[at, shown(&open), "can be read by others"]).await;
    let empty = files.write("empty", b"\n", 0o600);
    files.refuses(&with(&format!("file://{}", shown(&empty))), &[at, "password is empty"]).await;
    files.refuses(&with("env:SHANGMQ_NO_SUCH_VARIABLE"), &[at, "SHANGMQ_NO_SUCH_VARIABLE", "is not set"]).await;
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Certificates of a server by an authority of its own, issued so many days ago for one day.
fn issued(files: &Files, days_ago: i64) -> (CertKey, CertKey, CertKey) {
    let authority = |kind| {
        let profile = AuthorityProfile::new(1000, None);
        CertificateAuthority::create(&Subject::common_name("ca"), kind, &profile, now() - 100 * DAY_SECS).unwrap()
    };
    let profile = Profile {
        purposes: ExtendedKeyUsage { server_auth: true, ..ExtendedKeyUsage::default() },
        ..Profile::server(1)
    };
    let (subject, names, at) =
        (Subject::common_name("server"), AlternativeNames::default(), now() - days_ago * DAY_SECS);
    let save = |name: &str, issued: gm_tls::pki::Issued| CertKey {
        cert: files.write(&format!("{name}{days_ago}.crt"), &issued.chain.to_pem(), 0o644),
        key: files.write(&format!("{name}{days_ago}.key"), &issued.key.to_pem(None).unwrap(), 0o600),
    };
    let single = authority(KeyKind::EcP256).issue_single(&subject, &names, KeyKind::EcP256, &profile, at).unwrap();
    let IssuedPair { sign, enc } =
        authority(KeyKind::Sm2).issue_pair(&subject, &names, KeyKind::Sm2, &profile, at).unwrap();
    (save("single", single), save("sign", sign), save("enc", enc))
}

#[tokio::test]
async fn refuses_certificates_that_have_expired() {
    let files = Files::new();
    let (single, sign, enc) = issued(&files, 0);
    files.start(&tls("bank", &single, "")).await.unwrap();
    files.start(&tlcp("bank", &sign, &enc, "")).await.unwrap();
    let (single, sign, enc) = issued(&files, 50);
    let words = ["listeners.ssl.bank.ssl_options.certfile", shown(&single.cert), "expired 49 days ago"];
    files.refuses(&tls("bank", &single, ""), &words).await;
    let message = files.start(&tlcp("bank", &sign, &enc, "")).await.expect_err("the broker started");
    for (key, file) in [("sign_certfile", &sign.cert), ("enc_certfile", &enc.cert)] {
        let start = format!("listeners.ssl.bank.tlcp_options.{key}: {}", shown(file));
        let found =
            message.lines().find(|line| line.contains(&start)).unwrap_or_else(|| panic!("no {start}: {message}"));
        assert!(found.contains("expired 49 days ago"), "{found}");
    }
}

#[tokio::test]
async fn refuses_a_port_in_use_and_leaves_nothing_listening() {
    let files = Files::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    // An address of its own, where no other test opens ports.
    let free = TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
    let listeners = format!("[listeners.tcp.first]\nbind = \"{free}\"\n[listeners.tcp.second]\nbind = \"{taken}\"\n");
    let words = ["listeners.tcp.second.bind", &taken.to_string(), "in use by another program", "ss -ltnp"];
    files.refuses(&listeners, &words).await;
    let refused = std::net::TcpStream::connect(free).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(other);
    files.start(&listeners).await.unwrap();
}

#[tokio::test]
async fn refuses_keys_that_it_does_not_know_and_suggests_those_that_were_meant() {
    let files = Files::new();
    for (line, key, meant) in [
        ("max_conections = 5", "max_conections", "max_connections"),
        ("handshake_timout = \"5s\"", "handshake_timout", "handshake_timeout"),
    ] {
        let set = certificates();
        let text = tls("bank", &set.server_ecdsa(), "").replacen("\nbind", &format!("\n{line}\nbind"), 1);
        let full = format!("listeners.ssl.bank.{key}");
        files.refuses(&text, &["shangmq.toml:", &full, "unknown", &format!("`{meant}`")]).await;
    }
    let nested = tls("bank", &certificates().server_ecdsa(), "verfy = \"verify_peer\"");
    files.refuses(&nested, &["listeners.ssl.bank.ssl_options.verfy", "unknown", "`verify`"]).await;
}

#[tokio::test]
async fn reports_the_files_of_every_faulty_listener_at_once() {
    let (files, set) = (Files::new(), certificates());
    let open = files.copy("open", &set.server_ecdsa(), 0o644);
    let mixed = CertKey { key: set.client_ecdsa().key, ..set.server_ecdsa() };
    let listeners = [
        tls("open", &open, ""),
        tls("mixed", &mixed, ""),
        tls("good", &set.server_ecdsa(), ""),
        tlcp("swapped", &set.server_enc(), &set.server_sign(), ""),
    ];
    let message = files.start(&listeners.concat()).await.expect_err("the broker started");
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    let expected = [("open", "can be read by others"), ("mixed", "does not belong"), ("swapped", "are swapped")];
    for ((name, cause), line) in expected.into_iter().zip(lines) {
        assert!(
            line.contains(&format!("listeners.ssl.{name}.")) && line.contains(cause),
            "{name} with {cause}: {line}"
        );
    }
}

#[tokio::test]
async fn reports_every_port_in_use_at_once() {
    let files = Files::new();
    let others = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = [&others[0], &others[1]].map(|other| other.local_addr().unwrap());
    let listeners = format!(
        "[listeners.tcp.first]\nbind = \"{first}\"\n[listeners.tcp.good]\nbind = \"127.0.0.1:0\"\n[listeners.ws.second]\nbind = \"{second}\"\n"
    );
    let message = files.start(&listeners).await.expect_err("the broker started");
    for word in ["listeners.tcp.first.bind", "listeners.ws.second.bind", &first.to_string(), &second.to_string()] {
        assert!(message.contains(word), "no {word} in: {message}");
    }
    assert!(!message.contains("good"), "{message}");
}
